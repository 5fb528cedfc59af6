// From a function of kind spark to its SparkApplication (function-kinds reference 2.5).
#pragma once

#include <vector>

#include "kind/kind.h"

namespace metier {

// What runs a function of ours inside a SparkApplication: the driver's main file, which calls `mlrun` with the
// application's arguments. On Kubernetes it is a file of the ConfigMap `<name>-script`; the embedded cluster starts
// `mlrun` itself.
inline constexpr std::string_view kSparkScript = "local:///etc/config/mlrun/spark-function-code.py";
// What a driver and an executor ask for on the embedded cluster when the user says nothing: MLRun's values (1 cpu,
// 2g and 5g) do not fit a laptop.
inline constexpr std::string_view kEmbeddedSparkCpu = "250m";
inline constexpr std::string_view kEmbeddedSparkMemory = "512m";

// Rules that hold wherever it runs. Errors: all problems at once.
Result<void> validate_spark(const Subject& subject);
// The SparkApplication and, when the function's code travels with it, the ConfigMap of its main file.
Result<std::vector<Resource>> spark_resources(const Subject& subject, const Site& site);

}  // namespace metier
