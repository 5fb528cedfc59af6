// The methods of functions of kind mpijob, with MLRun's names (function-kinds reference 2.4). Each refuses other kinds
// (unsupported).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/function.h"

namespace metier {

// The words of spec.mpi_args. Errors: invalid, with the value and its place in the list.
Result<std::vector<std::string>> mpi_words(const Json& args);
// The words between `mpirun` and the program; replaces the earlier ones. Errors: invalid (no list of texts).
Result<void> set_mpi_args(Function& function, const Json& args);

// Horovod's timeline: HOROVOD_TIMELINE and HOROVOD_TIMELINE_MARK_CYCLES. A relative path is below the run's artifact path,
// as is the default hvd_logs/trace.log; the folder is made before the ranks start.
Result<void> with_tracing(Function& function, std::string_view log_file_path = {},
                          bool enable_cycle_markers = false);

// Horovod's autotuning, by the variables that Horovod reads (MLRun sets names such as "autotune-warmup-samples", which it
// does not).
struct AutotuneArguments {
  std::string_view log_file_path;  // default hvd_logs/autotune.csv, as of the timeline
  std::optional<std::int64_t> warmup_samples;
  std::optional<std::int64_t> steps_per_sample;
  std::optional<std::int64_t> bayes_opt_max_samples;
  std::optional<double> gaussian_process_noise;
};
Result<void> with_autotune(Function& function, const AutotuneArguments& arguments = {});

}  // namespace metier
