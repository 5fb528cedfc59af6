#include "model/mpi.h"

#include "base/text.h"
#include "model/attributes.h"
#include "model/kinds.h"

namespace metier {
namespace {

Result<void> need_mpi(const Function& function, std::string_view what) {
  if (canonical_kind(function.kind()) == "mpijob") { return {}; }
  return fail(Error{
      .kind = ErrorKind::unsupported,
      .message = "kind " + quote(canonical_kind(function.kind())) + " has no " + std::string(what),
      .field = "kind",
      .fix = "it is for kind mpijob"});
}

std::string_view or_else(std::string_view text, std::string_view fallback) {
  return text.empty() ? fallback : text;
}

}  // namespace

Result<std::vector<std::string>> mpi_words(const Json& args) {
  constexpr std::string_view kField = "spec.mpi_args";
  constexpr std::string_view kForm = "write a list: [\"-x\", \"NAME=VALUE\"]";
  if (!args.is_array()) {
    return fail(invalid(kField, dump_json(args) + " is not a list of texts", std::string(kForm)));
  }
  std::vector<std::string> out;
  for (const Json& word : args.get_array()) {
    if (!word.is_string()) {
      return fail(invalid(std::string(kField) + "[" + std::to_string(out.size()) + "]",
                          dump_json(word) + " is not a text",
                          "put it into quotes: [\"-n\", \"2\"]"));
    }
    out.emplace_back(word.get_string());
  }
  return out;
}

Result<void> set_mpi_args(Function& function, const Json& args) {
  METIER_CHECK(need_mpi(function, "arguments of mpirun"));
  METIER_CHECK(mpi_words(args));
  function.spec()["mpi_args"] = args;
  return {};
}

Result<void> with_tracing(Function& function, std::string_view log_file_path,
                          bool enable_cycle_markers) {
  METIER_CHECK(need_mpi(function, "Horovod timeline"));
  METIER_CHECK(
      set_env(function, "HOROVOD_TIMELINE", Json(or_else(log_file_path, "hvd_logs/trace.log"))));
  return set_env(function, "HOROVOD_TIMELINE_MARK_CYCLES", Json(enable_cycle_markers ? "1" : "0"));
}

Result<void> with_autotune(Function& function, const AutotuneArguments& arguments) {
  METIER_CHECK(need_mpi(function, "Horovod autotuning"));
  METIER_CHECK(set_env(function, "HOROVOD_AUTOTUNE", Json("1")));
  METIER_CHECK(set_env(function, "HOROVOD_AUTOTUNE_LOG",
                       Json(or_else(arguments.log_file_path, "hvd_logs/autotune.csv"))));
  for (const auto& [name, value] :
       {std::pair{"HOROVOD_AUTOTUNE_WARMUP_SAMPLES", arguments.warmup_samples},
        std::pair{"HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE", arguments.steps_per_sample},
        std::pair{"HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES", arguments.bayes_opt_max_samples}}) {
    if (value) { METIER_CHECK(set_env(function, name, Json(*value))); }
  }
  if (arguments.gaussian_process_noise) {
    return set_env(function, "HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE",
                   Json(*arguments.gaussian_process_noise));
  }
  return {};
}

}  // namespace metier
