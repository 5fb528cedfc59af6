#include "model/kinds.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.h"
#include "model/problems.h"

namespace metier {
namespace {

constexpr std::array<std::string_view, 9> kKinds = {
    "handler", "local", "job", "dask", "mpijob", "spark", "remote-spark", "nuclio", "serving"};

constexpr std::array<std::string_view, 13> kBaseFields = {"command",
                                                          "args",
                                                          "image",
                                                          "mode",
                                                          "build",
                                                          "entry_points",
                                                          "description",
                                                          "workdir",
                                                          "default_handler",
                                                          "pythonpath",
                                                          "disable_auto_mount",
                                                          "allow_empty_resources",
                                                          "reset_on_run"};

constexpr std::array<std::string_view, 24> kPodFields = {"volumes",
                                                         "volume_mounts",
                                                         "env",
                                                         "env_from",
                                                         "resources",
                                                         "replicas",
                                                         "image_pull_policy",
                                                         "service_account",
                                                         "image_pull_secret",
                                                         "node_name",
                                                         "node_selector",
                                                         "affinity",
                                                         "priority_class_name",
                                                         "tolerations",
                                                         "preemption_mode",
                                                         "security_context",
                                                         "state_thresholds",
                                                         "serving_spec",
                                                         "track_models",
                                                         "parameters",
                                                         "graph",
                                                         "filename",
                                                         "mount_otlp_secret",
                                                         "auto_mount_injected_env_names"};

constexpr std::array<std::string_view, 14> kStripped = {
    "volumes",           "volume_mounts",   "resources",           "replicas",
    "image_pull_policy", "service_account", "image_pull_secret",   "node_name",
    "node_selector",     "affinity",        "priority_class_name", "tolerations",
    "preemption_mode",   "security_context"};

constexpr std::array<std::string_view, 24> kStrippedSpark = {"volumes",
                                                             "volume_mounts",
                                                             "resources",
                                                             "replicas",
                                                             "image_pull_policy",
                                                             "service_account",
                                                             "image_pull_secret",
                                                             "node_name",
                                                             "node_selector",
                                                             "affinity",
                                                             "priority_class_name",
                                                             "tolerations",
                                                             "preemption_mode",
                                                             "security_context",
                                                             "driver_node_selector",
                                                             "executor_node_selector",
                                                             "driver_tolerations",
                                                             "executor_tolerations",
                                                             "driver_affinity",
                                                             "executor_affinity",
                                                             "driver_volume_mounts",
                                                             "executor_volume_mounts",
                                                             "driver_cores",
                                                             "executor_cores"};

// MLRun's first two; it knows slots_per_worker as a parameter of the run, the others are v2beta1's.
constexpr std::array<std::string_view, 7> kMpiFields = {"mpi_args",
                                                        "clean_pod_policy",
                                                        "slots_per_worker",
                                                        "active_deadline_seconds",
                                                        "run_launcher_as_worker",
                                                        "launcher_creation_policy",
                                                        "mpi_implementation"};
constexpr std::array<std::string_view, 11> kDaskFields = {
    "extra_pip",       "remote",       "service_type", "nthreads",          "kfp_image",
    "node_port",       "min_replicas", "max_replicas", "scheduler_timeout", "scheduler_resources",
    "worker_resources"};
constexpr std::array<std::string_view, 29> kSparkFields = {"driver_resources",
                                                           "executor_resources",
                                                           "job_type",
                                                           "python_version",
                                                           "spark_version",
                                                           "restart_policy",
                                                           "deps",
                                                           "main_class",
                                                           "spark_conf",
                                                           "hadoop_conf",
                                                           "use_default_image",
                                                           "monitoring",
                                                           "driver_node_selector",
                                                           "executor_node_selector",
                                                           "dynamic_allocation",
                                                           "warm",
                                                           "warm_idle_timeout",
                                                           "driver_tolerations",
                                                           "executor_tolerations",
                                                           "driver_affinity",
                                                           "executor_affinity",
                                                           "driver_preemption_mode",
                                                           "executor_preemption_mode",
                                                           "driver_volume_mounts",
                                                           "executor_volume_mounts",
                                                           "driver_java_options",
                                                           "executor_java_options",
                                                           "driver_cores",
                                                           "executor_cores"};
constexpr std::array<std::string_view, 17> kNuclioFields = {"min_replicas",
                                                            "max_replicas",
                                                            "config",
                                                            "base_spec",
                                                            "no_cache",
                                                            "source",
                                                            "function_kind",
                                                            "readiness_timeout",
                                                            "readiness_timeout_before_failure",
                                                            "function_handler",
                                                            "nuclio_runtime",
                                                            "base_image_pull",
                                                            "service_type",
                                                            "add_templated_ingress_host_mode",
                                                            "disable_default_http_trigger",
                                                            "custom_scaling_metric_specs",
                                                            "auth"};
constexpr std::array<std::string_view, 11> kServingFields = {
    "load_mode",      "graph_initializer", "function_refs",  "models",    "default_content_type",
    "error_stream",   "default_class",     "secret_sources", "streaming", "api_handler_config",
    "tracking_policy"};

JsonObject base_defaults() {
  return {{"command", ""}, {"image", ""}, {"description", ""}, {"disable_auto_mount", false}};
}

void add_pod_defaults(JsonObject& spec, bool thresholds) {
  spec["mount_otlp_secret"] = false;
  spec["priority_class_name"] = "";
  spec["preemption_mode"] = "prevent";
  if (thresholds) {
    spec["state_thresholds"] = JsonObject{{"pending_scheduled", "1h"},
                                          {"pending_not_scheduled", "-1"},
                                          {"image_pull_backoff", "1h"},
                                          {"executing", "24h"}};
  }
  spec["node_selector"] = JsonObject{};
  spec["affinity"] = nullptr;
  spec["tolerations"] = nullptr;
}

void add_spark_defaults(JsonObject& spec) {
  const auto role = [](std::string_view memory) {
    return JsonObject{{"requests", JsonObject{{"memory", memory}, {"cpu", "1"}}},
                      {"limits", JsonObject{{"cpu", "2"}}}};
  };
  spec["driver_resources"] = role("2g");
  spec["executor_resources"] = role("5g");
  spec["use_default_image"] = false;
  for (const std::string side : {"driver", "executor"}) {
    spec[side + "_preemption_mode"] = "prevent";
    spec[side + "_node_selector"] = nullptr;
    spec[side + "_affinity"] = nullptr;
    spec[side + "_tolerations"] = nullptr;
  }
}

void add_nuclio_defaults(JsonObject& spec, bool serving) {
  spec["min_replicas"] = 1;
  spec["max_replicas"] = 4;
  spec["source"] = "";
  spec["base_image_pull"] = false;
  if (serving) { spec["function_kind"] = "serving_v2"; }
}

template <class Names>
void append(std::vector<std::string>& out, const Names& names) {
  out.insert(out.end(), names.begin(), names.end());
}

}  // namespace

std::span<const std::string_view> kind_names() { return kKinds; }

Error unknown_kind(std::string_view text, std::string_view field,
                   std::span<const std::string_view> kinds) {
  if (text == "SparkApplication") {
    return Error{.kind = ErrorKind::unsupported,
                 .message = "documents of kind 'SparkApplication' are not read",
                 .field = std::string(field),
                 .fix =
                     "write a function of kind spark (docs/how-to/spark.md), or run its program: "
                     "metier run FILE.py --kind spark --replicas N",
                 .code = "UnknownKind"};
  }
  return invalid(field, unknown_name(text, nearest(text, kinds)), "kinds: " + join(kinds, " "))
      .coded("UnknownKind");
}

Result<KindName> resolve_kind(std::string_view text, std::string_view field) {
  if (text.empty() || text == "remote") {
    return KindName{.kind = std::string(text), .function_kind = {}};
  }
  if (text == "nuclio" || text.starts_with("nuclio:")) {
    return KindName{.kind = "remote",
                    .function_kind = std::string(text.size() > 7 ? text.substr(7) : "")};
  }
  if (text == "serving") { return KindName{.kind = "serving", .function_kind = "serving_v2"}; }
  if (std::ranges::find(kKinds, text) != kKinds.end()) {
    return KindName{.kind = std::string(text), .function_kind = {}};
  }
  return fail(unknown_kind(text, field, kKinds));
}

std::string_view canonical_kind(std::string_view kind) {
  if (kind == "remote" || kind.starts_with("nuclio")) { return "nuclio"; }
  return kind.empty() ? "local" : kind;
}

bool is_local_kind(std::string_view kind) {
  return kind.empty() || kind == "local" || kind == "handler";
}
bool is_nuclio_kind(std::string_view kind) {
  return canonical_kind(kind) == "nuclio" || kind == "serving";
}
bool has_pod_spec(std::string_view kind) { return !is_local_kind(kind); }

JsonObject default_spec(std::string_view kind) {
  JsonObject spec = base_defaults();
  if (!has_pod_spec(kind)) { return spec; }
  add_pod_defaults(spec, kind != "dask" && !is_nuclio_kind(kind));
  if (kind == "mpijob") {
    spec["mpi_args"] = JsonArray{"-x", "NCCL_SOCKET_NTHREADS=2", "-x", "NCCL_NSOCKS_PERTHREAD=8",
                                 "-x", "NCCL_MIN_NCHANNELS=4"};
    spec["clean_pod_policy"] = "All";
  } else if (kind == "spark") {
    add_spark_defaults(spec);
  } else if (kind == "dask") {
    spec["remote"] = true;
    spec["nthreads"] = 1;
    spec["min_replicas"] = 0;
    spec["max_replicas"] = 16;
    spec["scheduler_timeout"] = "60 minutes";
  } else if (is_nuclio_kind(kind)) {
    add_nuclio_defaults(spec, kind == "serving");
  }
  return spec;
}

std::span<const std::string_view> stripped_spec_fields(std::string_view kind) {
  if (!has_pod_spec(kind)) { return {}; }
  return kind == "spark" ? std::span<const std::string_view>(kStrippedSpark)
                         : std::span<const std::string_view>(kStripped);
}

bool survives_empty(std::string_view field) {
  return field == "affinity" || field == "tolerations" || field == "node_selector" ||
         field.ends_with("_affinity") || field.ends_with("_tolerations") ||
         field.ends_with("_node_selector");
}

std::vector<std::string> known_spec_fields(std::string_view kind) {
  std::vector<std::string> out;
  append(out, kBaseFields);
  out.emplace_back("clone_target_dir");
  if (has_pod_spec(kind)) {
    append(out, kPodFields);
  } else {  // what a process of this machine takes of them
    out.emplace_back("env");
    if (kind == "local") { out.emplace_back("resources"); }
  }
  if (kind == "mpijob") {
    append(out, kMpiFields);
  } else if (kind == "dask") {
    append(out, kDaskFields);
  } else if (kind == "spark") {
    append(out, kSparkFields);
  } else if (kind == "remote-spark") {
    out.emplace_back("provider");
  } else if (is_nuclio_kind(kind)) {
    append(out, kNuclioFields);
    if (kind == "serving") { append(out, kServingFields); }
  }
  return out;
}

}  // namespace metier
