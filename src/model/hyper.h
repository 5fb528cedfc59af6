// Checks of hyper-parameters before a run is accepted. The combinations are counted, never built; the runner expands them.
#pragma once

#include "base/json.h"
#include "model/problems.h"

namespace metier {

inline constexpr std::int64_t kMostCombinations = 100'000;

// spec.hyperparams and spec.hyper_param_options of a run: strategy (grid, list, random, custom), lists of values (of
// equal length for list), selector ("max.accuracy", "min.loss"), the length of stop_condition, max_iterations, max_errors,
// parallel_runs.
void check_hyper_parameters(const JsonObject& run_spec, ProblemList& problems);

}  // namespace metier
