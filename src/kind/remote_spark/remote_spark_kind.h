#pragma once

#include <memory>

#include "kind/kind.h"

namespace metier {

// remote-spark: a pod whose Spark session goes to a cluster that exists already (function-kinds reference 2.6).
std::unique_ptr<Kind> make_remote_spark_kind();

}  // namespace metier
