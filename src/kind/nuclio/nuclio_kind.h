#pragma once

#include <memory>

#include "kind/kind.h"

namespace metier {

std::unique_ptr<Kind> make_nuclio_kind();

// For kinds that are nuclio functions of another sort (serving): from the status of their NuclioFunction.
Observation observe_nuclio_function(const Subject& subject,
                                    std::span<const ResourceStatus> resources);
// What of a compiled document is refused here, and what has no effect.
Result<void> check_nuclio_function(const Subject& subject, const Resource& compiled);

}  // namespace metier
