// What a function's spark_conf says of sizes: memory, cores and number of executors. On Spark's own clusters these properties are
// what counts; a SparkApplication has fields for them, which win over them.
#pragma once

#include "model/function.h"
#include "model/problems.h"

namespace metier {

// A size that is none, and one that a field of the function contradicts.
void check_conf_sizes(const Function& function, ProblemList& problems);
// The function with these sizes in its fields, where the fields say nothing (MLRun's defaults say nothing, spark_resource.h).
Function with_conf_sizes(const Function& function);

}  // namespace metier
