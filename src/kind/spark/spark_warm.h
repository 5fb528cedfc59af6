// A warm Spark (spec.warm): a Connect server that stays between runs, one for a project, an environment, resources and a static
// configuration; runs with the same of them are its clients.
#pragma once

#include <vector>

#include "kind/kind.h"
#include "model/problems.h"

namespace metier {

// Name of the secret with a warm Spark's token: its own name and this. The server makes it from its own secret.
inline constexpr std::string_view kSparkToken = "-spark-token";
// Clients wait for nothing but their own session: these modules are loaded before.
inline constexpr std::string_view kSparkPreload = "spark";

bool is_warm(const Function& function);
// What a warm Spark cannot be.
void check_warm(const Function& function, ProblemList& problems);
// The SparkConnect that runs share (`application`: the SparkApplication that its function would be without a run), and the pod of
// this run, its client.
Result<std::vector<Resource>> warm_resources(const Subject& subject, const Site& site,
                                             JsonObject application);
Observation observe_warm(const Subject& subject, std::span<const ResourceStatus> resources,
                         Time now);

}  // namespace metier
