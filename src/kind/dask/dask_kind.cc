#include "kind/dask/dask_kind.h"

#include <algorithm>

#include "base/text.h"
#include "kind/dask/dask_lowering.h"
#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "model/problems.h"
#include "resource/labels.h"
#include "resource/pod.h"

namespace metier {
namespace {

void check_spec(const Function& function, ProblemList& problems) {
  if (auto scale = dask_scale(function); !scale) { problems.add(std::move(scale.error())); }
  if (const auto threads = int_in(function.spec(), "nthreads"); threads && *threads < 1) {
    problems.add(invalid("spec.nthreads", std::to_string(*threads) + " threads compute nothing",
                         "give at least 1"));
  }
  if (const std::string idle = function.text("scheduler_timeout");
      !idle.empty() && !is_dask_time(idle)) {
    problems.add(invalid("spec.scheduler_timeout", quote(idle) + " is not a time",
                         "write 60 minutes, 90s or 1h"));
  }
  const std::string type = function.text("service_type");
  if (!type.empty() && type != "ClusterIP" && type != "NodePort" && type != "LoadBalancer") {
    problems.add(invalid("spec.service_type", quote(type) + " is no type of a service",
                         "choose ClusterIP, NodePort or LoadBalancer"));
  }
  if (const auto port = int_in(function.spec(), "node_port");
      port && (*port < 1 || *port > 65535)) {
    problems.add(
        invalid("spec.node_port", std::to_string(*port) + " is no port", "give 30000 to 32767"));
  }
  if (const JsonObject* thresholds = object_in(function.spec(), "state_thresholds");
      thresholds != nullptr && !thresholds->empty()) {
    problems.add(invalid("spec.state_thresholds", "kind dask has no state thresholds",
                         "leave them out; scheduler_timeout ends an idle cluster"));
  }
}

std::string_view component_of(const ResourceStatus& status) {
  const auto label = status.labels.find(std::string(kDaskComponentLabel));
  return label == status.labels.end() ? std::string_view() : std::string_view(label->second);
}

int index_of(const std::string& pod) {
  const std::size_t dash = pod.rfind('-');
  const std::string digits = dash == std::string::npos ? "" : pod.substr(dash + 1);
  return !digits.empty() && digits.size() < 8 &&
                 digits.find_first_not_of("0123456789") == std::string::npos
             ? std::stoi(digits)
             : 0;
}

class DaskKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    if (subject.run != nullptr) { METIER_CHECK(validate_subject(subject)); }
    ProblemList problems;
    check_spec(subject.function, problems);
    METIER_CHECK(std::move(problems).result());
    METIER_TRY(resources, lower(subject, Site{}));
    for (const Resource& resource : resources) {
      if (resource.kind == "Pod") { METIER_CHECK(pod_from(resource)); }
      for (const std::string_view role : {"scheduler", "worker"}) {
        const JsonObject* part = object_in(resource.spec(), role);
        const JsonObject* pod = part == nullptr ? nullptr : object_in(*part, "template");
        if (pod == nullptr) { continue; }
        Resource sample{.api_version = "v1",
                        .kind = "Pod",
                        .metadata = {.name = "sample", .name_space = "default"}};
        sample.body["spec"] = pod->at("spec");
        METIER_CHECK(pod_from(sample));
      }
    }
    return {};
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    METIER_TRY(cluster, dask_cluster(subject, site));
    std::vector<Resource> out;
    if (subject.run == nullptr) {
      out.push_back(std::move(cluster));
      return out;
    }
    METIER_TRY(command, mlrun_command(subject));
    METIER_TRY(pod, pod_of_run(subject, site, command));
    pod.metadata.labels[std::string(kPodGroupLabel)] = cluster.metadata.name;
    pod.metadata.annotations[std::string(kPreloadAnnotation)] = "dask";
    JsonObject& container = pod.body["spec"].get_object()["containers"].get_array()[0].get_object();
    JsonArray& env = container["env"].get_array();
    const std::string address = dask_address(cluster, site);
    for (const auto& [name, value] :
         {std::pair<std::string, std::string>("DASK_SCHEDULER_ADDRESS", address),
          std::pair<std::string, std::string>("METIER_DASK_CLUSTER", cluster.metadata.name)}) {
      env.push_back(JsonObject{{"name", name}, {"value", value}});
    }
    if (site.embedded) { add_dask_identity(env, cluster.metadata.name); }
    out.push_back(std::move(cluster));
    out.push_back(std::move(pod));
    return out;
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override {
    std::vector<ResourceStatus> own;
    std::vector<ResourceStatus> scheduler;
    std::vector<ResourceStatus> workers;
    const ResourceStatus* cluster = nullptr;
    for (const ResourceStatus& resource : resources) {
      const std::string_view component = component_of(resource);
      if (resource.key.kind == "DaskCluster") {
        if (!resource.removed) { cluster = &resource; }
      } else if (component == "scheduler") {
        scheduler.push_back(resource);
      } else if (component == "worker") {
        workers.push_back(resource);
      } else {
        own.push_back(resource);
      }
    }
    Observation seen = observe_single_pod(subject, own, now);
    for (const ObservedPod& pod : pods_in(scheduler)) {
      seen.parts.push_back({.role = "scheduler", .index = index_of(pod.name), .pod = pod.name});
    }
    for (const ObservedPod& pod : pods_in(workers)) {
      seen.parts.push_back({.role = "worker", .index = index_of(pod.name), .pod = pod.name});
    }
    std::ranges::sort(seen.parts, {}, [](const Part& part) {
      const int rank = part.role == "main" ? 0 : part.role == "scheduler" ? 1 : 2;
      return std::pair(rank, part.index);
    });
    if (cluster != nullptr) {
      seen.progress = progress_of(*cluster);
      of_cluster(subject, *cluster, own, seen);
    }
    return seen;
  }

 private:
  static Json progress_of(const ResourceStatus& cluster) {
    JsonObject out;
    for (const std::string_view field : {"state", "workers", "dashboard"}) {
      const Json* value =
          cluster.status.is_object() ? cluster.status.get_object().if_contains(field) : nullptr;
      if (value != nullptr) { out[field] = *value; }
    }
    return out.empty() ? Json() : Json(std::move(out));
  }

  // What happens to the cluster happens to its runs: one that cannot start keeps none waiting, and a handler whose
  // scheduler is gone has an error of the scheduler's. A handler that began after the failure opens the cluster again.
  static void of_cluster(const Subject& subject, const ResourceStatus& cluster,
                         std::span<const ResourceStatus> own, Observation& seen) {
    if (subject.run == nullptr || is_terminal(subject.run->state())) { return; }
    const std::string_view state = string_at(cluster.status, "state");
    const std::string reason(string_at(cluster.status, "reason"));
    const std::string message(string_at(cluster.status, "message"));
    const std::string opened(string_at(cluster.status, "openedBy"));
    const std::string mine = resource_name(subject.run->name(), subject.run->uid(),
                                           subject.run->iteration(), subject.attempt);
    const bool of_another = opened != mine && began_after_failure(own, cluster);
    const bool failed =
        state == "Failed" && !of_another &&
        (seen.state == RunState::running || seen.state == RunState::error || opened == mine);
    if (failed && seen.state != RunState::completed) {
      seen.state = RunState::error;
      seen.reason = reason.empty() ? "ClusterFailed" : reason;
      seen.message = message;
      seen.first_failure = Failure{.code = seen.reason,
                                   .message = message,
                                   .part = std::string(string_at(cluster.status, "failed")),
                                   .exit_code = 0,
                                   .signal = 0};
      return;
    }
    if (seen.state == RunState::pending &&
        (seen.reason.empty() || seen.reason == "GangIncomplete") && !reason.empty() &&
        state != "Running") {
      seen.reason = reason;
      seen.message = message;
    }
  }

  KindTraits traits_{.name = "dask",
                     .summary = "a handler beside a Dask cluster of its function",
                     .executes = Executes::in_pods,
                     .deploys = true};
};

}  // namespace

std::unique_ptr<Kind> make_dask_kind() { return std::make_unique<DaskKind>(); }

}  // namespace metier
