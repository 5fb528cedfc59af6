#include "kind/mpijob/mpijob_kind.h"

#include <algorithm>

#include "base/quantity.h"
#include "kind/lowering.h"
#include "kind/mpijob/mpijob_observation.h"
#include "model/create.h"
#include "model/mpi.h"
#include "model/mpi_arguments.h"
#include "model/problems.h"
#include "model/python_text.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr std::int64_t kMostSlots = 256;
constexpr std::int64_t kMostReplicas = 1000;
constexpr std::int64_t kMostDeadline = 315'360'000;  // ten years, in seconds
// What a worker asks for on the embedded cluster for each rank when the user says nothing of memory: a Python with mpi4py
// and numpy. Without it any number of workers would fit.
constexpr std::int64_t kEmbeddedRankMemory = 64LL << 20U;

std::vector<std::string> mpi_args_of(const Function& function) {
  std::vector<std::string> out;
  const JsonArray* args = array_in(function.spec(), "mpi_args");
  for (const Json& arg : args == nullptr ? JsonArray{} : *args) {
    if (arg.is_string()) { out.emplace_back(arg.get_string()); }
  }
  return out;
}

std::int64_t replicas_of(const Function& function) {
  const auto given = int_in(function.spec(), "replicas").value_or(1);
  return given == 0 ? 1 : given;  // MLRun: 1 when falsy
}

// The run's parameter, as in MLRun, else the function's own.
const Json* slots_value(const Subject& subject) {
  if (subject.run != nullptr) {
    if (const auto* parameters = object_in(subject.run->spec(), "parameters")) {
      if (const auto* value = parameters->if_contains("slots_per_worker")) { return value; }
    }
  }
  return subject.function.spec().if_contains("slots_per_worker");
}

std::int64_t slots_of(const Subject& subject) {
  const Json* value = slots_value(subject);
  return value != nullptr && value->is_int64() ? value->get_int64() : 1;
}

bool launcher_as_worker(const Function& function) {
  return bool_in(function.spec(), "run_launcher_as_worker");
}

void check_choice(const Function& function, std::string_view field,
                  std::initializer_list<std::string_view> allowed, ProblemList& problems) {
  const Json* value = function.spec().if_contains(field);
  if (value == nullptr || value->is_null()) { return; }
  const auto text = function.text(field);
  if (value->is_string() && (text.empty() || std::ranges::find(allowed, text) != allowed.end())) {
    return;
  }
  std::string list;
  for (const auto one : allowed) { list += (list.empty() ? "" : ", ") + std::string(one); }
  problems.add(invalid("spec." + std::string(field),
                       quote(value->is_string() ? text : dump_json(*value)) + " is not possible",
                       "one of " + list));
}

void check_number(std::string_view field, const Json* value, std::int64_t most, std::string fix,
                  ProblemList& problems) {
  if (value == nullptr || value->is_null()) { return; }
  const bool number = value->is_int64() && value->get_int64() >= 1 && value->get_int64() <= most;
  if (number) { return; }
  problems.add(
      invalid(std::string(field),
              dump_json(*value) + " is not a whole number from 1 to " + std::to_string(most),
              std::move(fix)));
}

class MpiJobKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    ProblemList problems;
    const Function& function = subject.function;
    const JsonObject& spec = function.spec();
    const Json* replicas = spec.if_contains("replicas");
    if (replicas != nullptr && !(replicas->is_int64() && replicas->get_int64() == 0)) {
      check_number("spec.replicas", replicas, kMostReplicas, "write how many workers: --replicas 4",
                   problems);
    }
    for (const std::string_view field : {"min_replicas", "max_replicas"}) {
      const Json* value = spec.if_contains(field);
      if (value != nullptr && !is_falsy(*value)) {
        problems.add(invalid("spec." + std::string(field),
                             "an MPI job has a fixed number of workers", "set replicas instead"));
      }
    }
    check_number("spec.active_deadline_seconds", spec.if_contains("active_deadline_seconds"),
                 kMostDeadline, "write seconds: 3600", problems);
    const Json* slots = slots_value(subject);
    check_number(slots == spec.if_contains("slots_per_worker") ? "spec.slots_per_worker"
                                                               : "spec.parameters.slots_per_worker",
                 slots, kMostSlots, "write how many ranks each worker has: -p slots_per_worker=2",
                 problems);
    const Json* as_worker = spec.if_contains("run_launcher_as_worker");
    if (as_worker != nullptr && !as_worker->is_null() && !as_worker->is_bool()) {
      problems.add("spec.run_launcher_as_worker", dump_json(*as_worker) + " is not true or false",
                   "without quotes: --set spec.run_launcher_as_worker=true");
    }
    check_choice(function, "clean_pod_policy", {"All", "Running", "None"}, problems);
    check_choice(function, "launcher_creation_policy", {"AtStartup", "WaitForWorkersReady"},
                 problems);
    check_choice(function, "mpi_implementation", {"OpenMPI", "MPICH", "Intel"}, problems);
    check_args(function, problems);
    METIER_CHECK(std::move(problems).result());
    METIER_CHECK(validate_subject(subject));
    if (subject.run == nullptr) { return {}; }
    METIER_TRY(command, mlrun_command(subject));
    METIER_TRY(pod, pod_of_run(subject, Site{}, command));
    METIER_CHECK(pod_from(pod));
    return {};
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    METIER_TRY(line, mlrun_command(subject));
    METIER_TRY(pod, pod_of_run(subject, site, line));
    place_logs(pod, *subject.run);
    const Function& function = subject.function;
    const bool newer = site.mpi_api == "v2beta1";
    Resource job{.api_version = newer ? "kubeflow.org/v2beta1" : "kubeflow.org/v1",
                 .kind = "MPIJob"};
    job.metadata = pod.metadata;
    Labels labels = pod.metadata.labels;
    labels["mlrun/job"] = job.metadata.name;

    JsonArray command{"mpirun"};
    for (auto& word : mpi_args_of(function)) { command.push_back(Json(std::move(word))); }
    for (const auto* words : {&line.command, &line.args}) {
      for (const auto& word : *words) { command.push_back(Json(word)); }
    }
    JsonObject worker = template_of(pod, labels);
    JsonObject launcher = worker;
    if (site.embedded) { ask_for_memory(container_of(worker), slots_of(subject)); }
    JsonObject& container = container_of(launcher);
    container["command"] = std::move(command);
    container.erase("resources");  // the function's are for its workers
    if (!site.default_resources.is_null()) { container["resources"] = site.default_resources; }

    JsonObject launcher_spec;
    JsonObject worker_spec{{"replicas", replicas_of(function)}};
    if (newer) {
      launcher_spec["replicas"] = 1;
      launcher_spec["restartPolicy"] = "Never";
      worker_spec["restartPolicy"] = "Never";
    }
    launcher_spec["template"] = std::move(launcher);
    worker_spec["template"] = std::move(worker);

    JsonObject spec{{"slotsPerWorker", slots_of(subject)}};
    const auto policy = function.text("clean_pod_policy");
    const auto deadline = int_in(function.spec(), "active_deadline_seconds");
    if (newer) {
      JsonObject run_policy{{"backoffLimit", 0}};
      if (!policy.empty()) { run_policy["cleanPodPolicy"] = policy; }
      if (deadline) { run_policy["activeDeadlineSeconds"] = *deadline; }
      spec["runPolicy"] = std::move(run_policy);
      if (launcher_as_worker(function)) { spec["runLauncherAsWorker"] = true; }
      if (const auto order = function.text("launcher_creation_policy"); !order.empty()) {
        spec["launcherCreationPolicy"] = order;
      }
      if (const auto mpi = function.text("mpi_implementation"); !mpi.empty()) {
        spec["mpiImplementation"] = mpi;
      }
    } else {
      if (!policy.empty()) { spec["cleanPodPolicy"] = policy; }
      if (deadline) { spec["runPolicy"] = JsonObject{{"activeDeadlineSeconds", *deadline}}; }
      if (launcher_as_worker(function)) {
        job.metadata.annotations[std::string(kLauncherAsWorker)] = "true";
      }
      if (const auto order = function.text("launcher_creation_policy"); !order.empty()) {
        job.metadata.annotations[std::string(kLauncherCreation)] = order;
      }
      if (const auto mpi = function.text("mpi_implementation"); !mpi.empty()) {
        job.metadata.annotations[std::string(kImplementation)] = mpi;
      }
    }
    spec["mpiReplicaSpecs"] =
        JsonObject{{"Launcher", std::move(launcher_spec)}, {"Worker", std::move(worker_spec)}};
    job.body["spec"] = std::move(spec);
    return std::vector<Resource>{std::move(job)};
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override {
    return observe_mpijob(subject, resources, now);
  }

 private:
  static void check_args(const Function& function, ProblemList& problems) {
    const Json* args = function.spec().if_contains("mpi_args");
    if (args == nullptr || args->is_null()) { return; }
    auto words = mpi_words(*args);
    if (!words) {
      problems.add(std::move(words.error()));
      return;
    }
    mpi::Arguments parsed;
    std::string fix;
    if (auto wrong = mpi::split(*words, parsed, &fix); !wrong.empty()) {
      problems.add(invalid("spec.mpi_args", wrong, fix));
    } else if (!parsed.program.empty()) {
      problems.add(invalid(
          "spec.mpi_args",
          quote(parsed.program.front()) + " is no option: the program is the function's own",
          "leave it out"));
    }
  }

  // Horovod's logs, which MLRun's clients name relative to no folder that anyone knows, are among the run's artifacts.
  static void place_logs(Resource& pod, const Run& run) {
    const auto folder = string_in(run.spec(), "output_path");
    if (!folder.starts_with('/')) { return; }
    auto& containers = ensure_array(ensure_object(pod.body, "spec"), "containers");
    for (Json& entry : ensure_array(containers.front().get_object(), "env")) {
      JsonObject* variable = entry.if_object();
      const auto name = variable == nullptr ? std::string_view() : string_in(*variable, "name");
      if (name != "HOROVOD_TIMELINE" && name != "HOROVOD_AUTOTUNE_LOG") { continue; }
      auto path = string_in(*variable, "value");
      // "DYNAMIC": Horovod's timeline is started by the program.
      if (path.empty() || path.starts_with('/') || path == "DYNAMIC") { continue; }
      while (path.starts_with("./")) { path.remove_prefix(2); }
      (*variable)["value"] =
          std::string(folder) + (folder.ends_with('/') ? "" : "/") + std::string(path);
    }
  }

  static void ask_for_memory(JsonObject& container, std::int64_t slots) {
    JsonObject& resources = ensure_object(container, "resources");
    for (const std::string_view kind : {"requests", "limits"}) {
      const JsonObject* said = object_in(resources, kind);
      const Json* memory = said == nullptr ? nullptr : said->if_contains("memory");
      if (memory != nullptr && !memory->is_null()) { return; }
    }
    ensure_object(resources, "requests")["memory"] =
        Quantity::from_units(kEmbeddedRankMemory * slots).bytes_text();
  }

  // The pod of the run as a template: MLRun's fields and their names.
  static JsonObject template_of(const Resource& pod, const Labels& labels) {
    JsonObject spec = pod.spec();
    spec.erase("restartPolicy");
    if (auto* account = spec.if_contains("serviceAccount")) {
      Json value = std::move(*account);
      spec.erase("serviceAccount");
      spec["serviceAccountName"] = std::move(value);
    }
    JsonObject out{{"metadata", JsonObject{{"labels", labels_json(labels)}}}};
    if (!pod.metadata.annotations.empty()) {
      out["metadata"].get_object()["annotations"] = labels_json(pod.metadata.annotations);
    }
    out["spec"] = std::move(spec);
    JsonObject& container = container_of(out);
    container.erase("command");
    container.erase("args");
    container["securityContext"] =
        JsonObject{{"capabilities", JsonObject{{"add", JsonArray{"IPC_LOCK"}}}}};
    return out;
  }
  static JsonObject& container_of(JsonObject& pod_template) {
    return pod_template["spec"].get_object()["containers"].get_array()[0].get_object();
  }

  KindTraits traits_{
      .name = "mpijob", .summary = "MPI ranks over several pods", .executes = Executes::in_pods};
};

}  // namespace

std::unique_ptr<Kind> make_mpijob_kind() { return std::make_unique<MpiJobKind>(); }

}  // namespace metier
