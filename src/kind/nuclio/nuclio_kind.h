#pragma once

#include <functional>
#include <memory>

#include "kind/kind.h"

namespace metier {

// Whether a processor could run a compiled function: known to who links one. May be empty.
using FunctionCheck = std::function<Result<void>(const Resource& function)>;

std::unique_ptr<Kind> make_nuclio_kind(FunctionCheck check = {});

// For kinds that are nuclio functions of another sort (serving): from the status of their NuclioFunction.
Observation observe_nuclio_function(const Subject& subject,
                                    std::span<const ResourceStatus> resources);
// What of a compiled document is refused here.
Result<void> check_nuclio_function(const Resource& compiled, const FunctionCheck& check);

}  // namespace metier
