#pragma once

#include <memory>

#include "kind/kind.h"

namespace metier {

// spark: a Spark application, driver and executors, as a SparkApplication (sparkoperator.k8s.io/v1beta2) as MLRun's
// server makes it (function-kinds reference 2.5).
std::unique_ptr<Kind> make_spark_kind();

}  // namespace metier
