#include "cluster/controllers/mpi/mpi_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cluster/controllers/pod_group.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr std::int64_t kMostWorkers = 1000;
constexpr std::int64_t kMostSlots = 256;

// The job as both versions say it.
struct Job {
  std::string name;
  std::int64_t slots = 1;
  std::int64_t workers = 1;
  std::string clean_policy;                // "All", "Running", "None"
  std::optional<std::int64_t> deadline_s;  // of the launcher, and with it of the job
  bool launcher_as_worker = false;
  bool wait_for_workers = false;
  std::string implementation;            // "OpenMPI", "MPICH", "Intel"; empty: whatever is there
  const JsonObject* launcher = nullptr;  // templates
  const JsonObject* worker = nullptr;
  bool newer = false;
};

const JsonObject* template_in(const JsonObject* specs, std::string_view role) {
  const auto* one = specs == nullptr ? nullptr : object_in(*specs, role);
  return one == nullptr ? nullptr : object_in(*one, "template");
}

std::string annotation(const Resource& resource, std::string_view name) {
  const auto found = resource.metadata.annotations.find(std::string(name));
  return found == resource.metadata.annotations.end() ? std::string() : found->second;
}

Job read_job(const Resource& resource) {
  Job out;
  const JsonObject& spec = resource.spec();
  out.newer = resource.api_version.ends_with("v2beta1");
  // The longest name derived from it has to be a DNS label.
  out.name = shorten_name(resource.metadata.name, 63 - 8 - 5);
  out.slots = std::clamp<std::int64_t>(int_in(spec, "slotsPerWorker").value_or(1), 1, kMostSlots);
  const auto* specs = object_in(spec, "mpiReplicaSpecs");
  out.launcher = template_in(specs, "Launcher");
  out.worker = template_in(specs, "Worker");
  if (const auto* worker = specs == nullptr ? nullptr : object_in(*specs, "Worker")) {
    out.workers =
        std::clamp<std::int64_t>(int_in(*worker, "replicas").value_or(1), 0, kMostWorkers);
  }
  const auto* policy = object_in(spec, "runPolicy");
  out.clean_policy = string_in(spec, "cleanPodPolicy");
  if (out.clean_policy.empty() && policy != nullptr) {
    out.clean_policy = string_in(*policy, "cleanPodPolicy");
  }
  if (policy != nullptr) { out.deadline_s = int_in(*policy, "activeDeadlineSeconds"); }
  if (out.clean_policy.empty()) { out.clean_policy = out.newer ? "None" : "All"; }
  out.launcher_as_worker = bool_in(spec, "runLauncherAsWorker") ||
                           annotation(resource, "metier.dev/run-launcher-as-worker") == "true";
  out.wait_for_workers =
      string_in(spec, "launcherCreationPolicy") == "WaitForWorkersReady" ||
      annotation(resource, "metier.dev/launcher-creation-policy") == "WaitForWorkersReady";
  out.implementation = string_in(spec, "mpiImplementation");
  if (out.implementation.empty()) {
    out.implementation = annotation(resource, "metier.dev/mpi-implementation");
  }
  return out;
}

std::string launcher_name(const Job& job) { return job.name + "-launcher"; }
std::string worker_name(const Job& job, std::int64_t index) {
  return fmt::format("{}-worker-{}", job.name, index);
}

void take_labels(const JsonObject& metadata, std::string_view key, Labels& out) {
  const auto* values = metadata.if_contains(key);
  if (values == nullptr || values->is_null()) { return; }
  if (auto labels = labels_from_json(*values, key)) {
    for (auto& [name, value] : *labels) { out[name] = value; }
  }
}

bool is_mpirun(std::string_view word) {
  const auto slash = word.rfind('/');
  if (slash != std::string_view::npos) { word.remove_prefix(slash + 1); }
  const auto name = word.substr(0, word.find('.'));
  return name == "mpirun" || name == "mpiexec" || name == "orterun" || name == "prterun";
}

class Builder {
 public:
  Builder(const Resource& resource, const Job& job, const std::string& program)
      : resource_(resource), job_(job), program_(program) {}

  Resource group() const {
    const auto members = job_.workers + (job_.wait_for_workers ? 0 : 1);
    auto out = make_pod_group(job_.name, resource_.metadata.name_space,
                              static_cast<int>(std::max<std::int64_t>(1, members)));
    out.metadata.owner = owner_ref_to(resource_);
    return out;
  }

  Resource worker(std::int64_t index) const {
    auto out = pod(worker_name(job_, index), "worker", job_.worker);
    out.metadata
        .labels[job_.newer ? "training.kubeflow.org/replica-index" : "mpi-job-replica-index"] =
        std::to_string(index);
    auto& container = first_container(out);
    // Ranks are started beside it: it only has to be there.
    if (!container.contains("command") && !container.contains("args")) {
      container["command"] = JsonArray{program_, "wait"};
    }
    return out;
  }

  Resource launcher() const {
    auto out = pod(launcher_name(job_), "launcher", job_.launcher);
    if (job_.deadline_s) {
      ensure_object(out.body, "spec")["activeDeadlineSeconds"] = *job_.deadline_s;
    }
    auto& container = first_container(out);
    JsonArray words;
    for (const std::string_view key : {"command", "args"}) {
      if (const auto* list = array_in(container, key)) {
        words.insert(words.end(), list->begin(), list->end());
      }
    }
    if (!words.empty() && words.front().is_string() && is_mpirun(words.front().get_string())) {
      JsonArray command{program_, "launch",  "--hosts",
                        hosts(),  "--slots", std::to_string(job_.slots)};
      if (job_.clean_policy == "None") { command.push_back("--stay"); }
      if (!job_.implementation.empty()) {
        command.push_back("--implementation");
        command.push_back(Json(job_.implementation));
      }
      command.push_back("--");
      command.insert(command.end(), words.begin(), words.end());
      container["command"] = std::move(command);
      container.erase("args");
    }
    return out;
  }

 private:
  std::string hosts() const {
    std::string out = job_.launcher_as_worker ? launcher_name(job_) : "";
    for (std::int64_t i = 0; i < job_.workers; ++i) {
      out += (out.empty() ? "" : ",") + worker_name(job_, i);
    }
    return out;
  }

  static JsonObject& first_container(Resource& pod) {
    auto& list = ensure_array(ensure_object(pod.body, "spec"), "containers");
    if (list.empty()) { list.push_back(JsonObject{{"name", "base"}}); }
    return list.front().get_object();
  }

  Resource pod(std::string name, std::string_view role, const JsonObject* pod_template) const {
    Resource out{
        .api_version = "v1",
        .kind = "Pod",
        .metadata = {.name = std::move(name), .name_space = resource_.metadata.name_space}};
    if (pod_template != nullptr) {
      if (const auto* metadata = object_in(*pod_template, "metadata")) {
        take_labels(*metadata, "labels", out.metadata.labels);
        take_labels(*metadata, "annotations", out.metadata.annotations);
      }
      if (const auto* spec = object_in(*pod_template, "spec")) { out.body["spec"] = *spec; }
    }
    if (job_.newer) {
      out.metadata.labels["training.kubeflow.org/operator-name"] = "mpi-operator";
      out.metadata.labels["training.kubeflow.org/job-name"] = job_.name;
      out.metadata.labels["training.kubeflow.org/job-role"] = role;
    } else {
      out.metadata.labels["group-name"] = "kubeflow.org";
      out.metadata.labels["mpi-job-name"] = job_.name;
      out.metadata.labels["mpi-job-role"] = role;
    }
    out.metadata.labels[std::string(kPodGroupLabel)] = job_.name;
    out.metadata.annotations[std::string(kRanksAnnotation)] = "true";
    auto& spec = ensure_object(out.body, "spec");
    spec["restartPolicy"] = "Never";
    spec["hostname"] = out.metadata.name;
    if (auto* account = spec.if_contains("serviceAccountName")) {
      Json value = *account;
      spec.erase("serviceAccountName");
      spec["serviceAccount"] = std::move(value);
    }
    drop_capabilities(first_container(out));
    out.metadata.owner = owner_ref_to(resource_);
    return out;
  }

  // MLRun asks for IPC_LOCK, which fabrics need and shared memory does not; pods have no capabilities here.
  static void drop_capabilities(JsonObject& container) {
    auto* context = object_in(container, "securityContext");
    if (context == nullptr) { return; }
    const auto* capabilities = object_in(*context, "capabilities");
    const auto* add = capabilities == nullptr ? nullptr : array_in(*capabilities, "add");
    if (add != nullptr && add->size() == 1 && add->front() == Json("IPC_LOCK")) {
      context->erase("capabilities");
      if (context->empty()) { container.erase("securityContext"); }
    }
  }

  const Resource& resource_;
  const Job& job_;
  const std::string& program_;
};

struct Counts {
  std::int64_t active = 0;
  std::int64_t succeeded = 0;
  std::int64_t failed = 0;
  void add(PodPhase phase) {
    active += phase == PodPhase::running ? 1 : 0;
    succeeded += phase == PodPhase::succeeded ? 1 : 0;
    failed += phase == PodPhase::failed ? 1 : 0;
  }
  JsonObject json() const {
    JsonObject out;
    if (active > 0) { out["active"] = active; }
    if (succeeded > 0) { out["succeeded"] = succeeded; }
    if (failed > 0) { out["failed"] = failed; }
    return out;
  }
};

bool has_condition(const Json& status, std::string_view type) {
  const auto* list = status.is_object() ? array_in(status.get_object(), "conditions") : nullptr;
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const auto* one = (*list)[i].if_object();
    if (one != nullptr && string_in(*one, "type") == type && string_in(*one, "status") == "True") {
      return true;
    }
  }
  return false;
}

void set_condition(JsonObject& status, std::string_view type, bool on, std::string_view reason,
                   std::string_view message, Time now) {
  auto& list = ensure_array(status, "conditions");
  for (auto& entry : list) {
    auto* one = entry.if_object();
    if (one == nullptr || string_in(*one, "type") != type) { continue; }
    if ((string_in(*one, "status") == "True") == on) { return; }
    (*one)["status"] = on ? "True" : "False";
    (*one)["lastTransitionTime"] = to_iso(now);
    return;
  }
  if (!on) { return; }
  list.push_back(JsonObject{{"type", type},
                            {"status", "True"},
                            {"reason", reason},
                            {"message", message},
                            {"lastTransitionTime", to_iso(now)}});
}

// What the pods of the job are, at one look.
struct Seen {
  const Resource* launcher = nullptr;
  PodStatus launcher_status;
  Counts launchers;
  Counts workers;
  std::set<std::string> present;
  std::vector<const Resource*> live_workers;
  std::string lost;  // the first worker that failed, and why
};

Seen look(const Job& job, const Snapshot& snapshot) {
  Seen out;
  for (const auto& pod : snapshot.pods) {
    out.present.insert(pod.metadata.name);
    auto status = pod_status_from_json(pod.status);
    if (pod.metadata.name == launcher_name(job)) {
      out.launchers.add(status.phase);
      out.launcher = &pod;
      out.launcher_status = std::move(status);
      continue;
    }
    out.workers.add(status.phase);
    if (!is_terminal(status.phase)) { out.live_workers.push_back(&pod); }
    if (status.phase == PodPhase::failed && out.lost.empty()) {
      out.lost = fmt::format("worker pod {} was lost: {} {}", pod.metadata.name, status.reason,
                             status.message);
    }
  }
  return out;
}

}  // namespace

Async<Result<Facts>> MpiJobController::gather(const Resource& resource) { co_return Facts(); }

Async<Result<void>> MpiJobController::before_stop(const Resource& pod) { co_return Result<void>{}; }

Decision MpiJobController::reconcile(const Resource& resource, const Snapshot& snapshot,
                                     const Facts& facts, Time now) const {
  Decision out;
  if (has_condition(resource.status, "Succeeded") || has_condition(resource.status, "Failed")) {
    return out;
  }
  const Job job = read_job(resource);
  const Seen seen = look(job, snapshot);
  JsonObject status = resource.status.is_object() ? resource.status.get_object() : JsonObject{};
  const auto launcher = seen.launcher_status.phase;
  const bool launcher_ended = seen.launcher != nullptr && is_terminal(launcher);
  const bool stopped = resource.metadata.annotations.contains(std::string(kStoppedAnnotation));
  set_condition(status, "Created", true, "MPIJobCreated",
                fmt::format("MPIJob {} is created", resource.metadata.name), now);
  if (seen.workers.active == job.workers && launcher == PodPhase::running &&
      seen.launcher != nullptr) {
    set_condition(status, "Running", true, "MPIJobRunning", "launcher and workers are running",
                  now);
    if (!status.contains("startTime")) { status["startTime"] = to_iso(now); }
  }
  const bool worker_lost = seen.workers.failed > 0;
  const bool quiet = seen.live_workers.empty() || job.clean_policy == "None";
  // A stopped job whose launcher was never made ends with its workers.
  const bool never = seen.launcher == nullptr && stopped && seen.live_workers.empty();
  if ((launcher_ended && quiet) || never) {
    status["completionTime"] = to_iso(now);
    set_condition(status, "Running", false, {}, {}, now);
    if (launcher == PodPhase::succeeded && seen.launcher != nullptr) {
      set_condition(status, "Succeeded", true, "MPIJobSucceeded", "the launcher has succeeded",
                    now);
    } else {
      set_condition(
          status, "Failed", true,
          seen.launcher_status.reason.empty() ? "MPIJobFailed" : seen.launcher_status.reason,
          !seen.lost.empty() ? seen.lost : seen.launcher_status.message, now);
    }
  }
  status["replicaStatuses"] =
      JsonObject{{"Launcher", seen.launchers.json()}, {"Worker", seen.workers.json()}};
  out.status = std::move(status);

  if (launcher_ended || stopped || worker_lost) {
    out.stop_reason = kJobEnded;
    if (!launcher_ended && worker_lost && seen.launcher != nullptr) {
      out.stop.push_back(key_of(*seen.launcher));
    }
    if (job.clean_policy != "None" || !launcher_ended) {
      for (const auto* pod : seen.live_workers) { out.stop.push_back(key_of(*pod)); }
    }
    return out;
  }
  const Builder builder(resource, job, program_);
  if (snapshot.groups.empty()) { out.create.push_back(builder.group()); }
  for (std::int64_t i = 0; i < job.workers; ++i) {
    if (!seen.present.contains(worker_name(job, i))) { out.create.push_back(builder.worker(i)); }
  }
  const bool ready = !job.wait_for_workers || seen.workers.active == job.workers;
  if (ready && seen.launcher == nullptr) { out.create.push_back(builder.launcher()); }
  return out;
}

}  // namespace metier
