#include "kind/mpijob/mpijob_kind.h"

#include <algorithm>

#include "base/quantity.h"
#include "kind/lowering.h"
#include "kind/mpijob/mpi_arguments.h"
#include "kind/mpijob/mpijob_observation.h"
#include "model/create.h"

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

void check_number(std::string_view field, const Json* value, std::int64_t most,
                  ProblemList& problems) {
  if (value == nullptr || value->is_null()) { return; }
  const bool number = value->is_int64() && value->get_int64() >= 1 && value->get_int64() <= most;
  if (number) { return; }
  problems.add(
      invalid(std::string(field),
              dump_json(*value) + " is not a whole number from 1 to " + std::to_string(most), {}));
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
      check_number("spec.replicas", replicas, kMostReplicas, problems);
    }
    for (const std::string_view field : {"min_replicas", "max_replicas"}) {
      const Json* value = spec.if_contains(field);
      if (value != nullptr && !is_falsy(*value)) {
        problems.add(invalid("spec." + std::string(field),
                             "an MPI job has a fixed number of workers", "set replicas instead"));
      }
    }
    check_number("spec.active_deadline_seconds", spec.if_contains("active_deadline_seconds"),
                 kMostDeadline, problems);
    check_number("slots_per_worker", slots_value(subject), kMostSlots, problems);
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
    if (!args->is_array()) {
      problems.add(invalid("spec.mpi_args", "is not a list of texts", "[\"-x\", \"NAME=VALUE\"]"));
      return;
    }
    for (std::size_t i = 0; i < args->get_array().size(); ++i) {
      if (!args->get_array()[i].is_string()) {
        problems.add(invalid("spec.mpi_args[" + std::to_string(i) + "]",
                             dump_json(args->get_array()[i]) + " is not a text", {}));
        return;
      }
    }
    mpi::Arguments parsed;
    auto words = mpi_args_of(function);
    if (auto wrong = mpi::split(words, parsed); !wrong.empty()) {
      problems.add(invalid("spec.mpi_args", wrong, {}));
    } else if (!parsed.program.empty()) {
      problems.add(invalid(
          "spec.mpi_args",
          quote(parsed.program.front()) + " is no option: the program is the function's own",
          "leave it out"));
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
