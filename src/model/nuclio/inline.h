// A function's configuration inside its own source, as Nuclio reads it: a block of comment lines.
//
//   # @nuclio.configure
//   #
//   # function.yaml:
//   #   spec:
//   #     minReplicas: 0
#pragma once

#include <optional>
#include <string_view>

#include "model/function.h"

namespace metier::nuclio {

// The document below `function.yaml:`; nullopt when the source has no such block. Errors: invalid (no YAML, another key, a second block).
Result<std::optional<JsonObject>> inline_document(std::string_view code);

// The function with what its source says: below its own base_spec and fields, so that a request wins. nullopt: it says nothing.
Result<std::optional<Function>> with_inline(const Function& function);

}  // namespace metier::nuclio
