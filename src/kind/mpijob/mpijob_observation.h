// What an MPIJob, its pods and their ranks say about the run.
#pragma once

#include "kind/kind.h"

namespace metier {

Observation observe_mpijob(const Subject& subject, std::span<const ResourceStatus> resources,
                           Time now);

}  // namespace metier
