#pragma once

#include <memory>

#include "kind/nuclio/nuclio_kind.h"

namespace metier {

std::unique_ptr<Kind> make_serving_kind(FunctionCheck check = {});

// The document that workers read (SERVING_SPEC_ENV), as MLRun's server makes it.
JsonObject serving_spec(const Function& function, std::string_view project);
// The user's code with what serves the graph at its end, in place of MLRun's footer when it has that.
std::string serving_code(std::string_view code);

}  // namespace metier
