#include "kind/dask/dask_kind.h"

#include <algorithm>

#include "base/text.h"
#include "kind/dask/dask_lowering.h"
#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "model/problems.h"
#include "model/python_text.h"
#include "resource/labels.h"
#include "resource/pod.h"

namespace metier {
namespace {

void check_spec(const Function& function, ProblemList& problems) {
  check_dask_fields(function.spec(), problems);
  if (auto scale = dask_scale(function); !scale) { problems.add(std::move(scale.error())); }
  if (const auto threads = int_in(function.spec(), "nthreads"); threads && *threads < 1) {
    problems.add(invalid("spec.nthreads", std::to_string(*threads) + " threads compute nothing",
                         "give at least 1"));
  }
  const Json* idle = function.find("scheduler_timeout");
  if (idle != nullptr && (idle->is_string() || idle->is_number()) &&
      !is_dask_time(dask_idle_timeout(function))) {
    problems.add(invalid("spec.scheduler_timeout", quote(python_text(*idle)) + " is not a time",
                         "write 60 minutes, 1h, or 90 (seconds)"));
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
    if (subject.run == nullptr && !dask_is_remote(subject.function)) {
      return fail(invalid("spec.remote",
                          "false means a Dask inside the process that uses it: there is no cluster",
                          "leave it out, or run the function: metier run"));
    }
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

  std::vector<std::string> ignored(const Subject& subject, const Site& site) const override {
    return ignored_dask_fields(subject.function, site);
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    METIER_TRY(cluster, dask_cluster(subject, site));
    std::vector<Resource> out;
    if (subject.run == nullptr) {
      out.push_back(std::move(cluster));
      return out;
    }
    Function handler = subject.function;
    handler.spec().erase("args");  // the workers'
    const Subject own{handler, subject.run, subject.attempt};
    METIER_TRY(command, mlrun_command(own));
    METIER_TRY(pod, pod_of_run(own, site, command));
    if (!dask_is_remote(subject.function)) {
      pod.body["spec"]
          .get_object()["containers"]
          .get_array()[0]
          .get_object()["env"]
          .get_array()
          .push_back(JsonObject{{"name", "METIER_DASK_LOCAL"}, {"value", "true"}});
      out.push_back(std::move(pod));
      return out;
    }
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
    if (subject.run == nullptr) { own.clear(); }  // pods of runs
    Observation seen = observe_single_pod(subject, own, now);
    name_handler(seen);
    // A function has the pods that its cluster runs on; a run also those that it has lost.
    const bool living = subject.run == nullptr && cluster != nullptr &&
                        string_at(cluster->status, "state") == "Running";
    for (const auto& [role, pods] :
         {std::pair("scheduler", pods_in(scheduler)), std::pair("worker", pods_in(workers))}) {
      for (const ObservedPod& pod : pods) {
        if (living && is_terminal(pod.status.phase)) { continue; }
        seen.parts.push_back({.role = role, .index = index_of(pod.name), .pod = pod.name});
      }
    }
    std::ranges::sort(seen.parts, {}, [](const Part& part) {
      const int rank = part.role == "main" ? 0 : part.role == "scheduler" ? 1 : 2;
      return std::pair(rank, part.index);
    });
    if (subject.run == nullptr) {
      of_deployment(subject.function, cluster, seen);
      return seen;
    }
    if (cluster != nullptr) {
      seen.progress = progress_of(*cluster);
      const std::string_view state = string_at(cluster->status, "state");
      seen.service_ends = state == "Closed" || state == "Failed";
      of_cluster(subject, *cluster, own, seen);
      if (seen.state == RunState::error && scheduler_has_failed(*cluster, scheduler)) {
        // The cluster is about to say how it failed: that is why the handler did.
        seen.state = RunState::running;
        seen.first_failure.reset();
        seen.reason.clear();
        seen.message.clear();
      }
    }
    return seen;
  }

 private:
  // The run has several parts: say which one was lost.
  static void name_handler(Observation& seen) {
    if (!seen.first_failure) { return; }
    Failure& failure = *seen.first_failure;
    const std::string pod = "the handler's pod " + failure.part;
    if (failure.code == "ShimLost") {
      failure.message = pod + " was lost: " + failure.message;
    } else if (failure.message.starts_with("killed by signal")) {
      failure.message = pod + " was " + failure.message;
    }
    seen.message = failure.message;
  }

  // The scheduler of a cluster that does not know it yet.
  static bool scheduler_has_failed(const ResourceStatus& cluster,
                                   std::span<const ResourceStatus> schedulers) {
    const std::string_view state = string_at(cluster.status, "state");
    if (state != "Starting" && state != "Running") { return false; }
    return std::ranges::any_of(pods_in(schedulers), [&](const ObservedPod& pod) {
      return pod.name == string_at(cluster.status, "scheduler") &&
             pod.status.phase == PodPhase::failed;
    });
  }

  static Json progress_of(const ResourceStatus& cluster) {
    JsonObject out;
    for (const std::string_view field : {"state", "workers", "dashboard"}) {
      const Json* value =
          cluster.status.is_object() ? cluster.status.get_object().if_contains(field) : nullptr;
      if (value != nullptr) { out[field] = *value; }
    }
    return out.empty() ? Json() : Json(std::move(out));
  }

  // A function is ready when its cluster has a scheduler and the least number of workers. One whose cluster has closed has
  // nothing running until it is used again.
  static void of_deployment(const Function& function, const ResourceStatus* cluster,
                            Observation& seen) {
    const auto closed = [&seen](std::string_view why) {
      seen.function_state = "scaledToZero";
      seen.reason = "ScaledToZero";
      seen.message = "the Dask cluster has closed (" + std::string(why) +
                     "); the next run or client opens it again";
    };
    if (cluster == nullptr) { return closed("it was removed"); }
    const std::string_view state = string_at(cluster->status, "state");
    const bool whole =
        cluster->status.is_object() && bool_in(cluster->status.get_object(), "whole");
    seen.reason = string_at(cluster->status, "reason");
    seen.message = string_at(cluster->status, "message");
    if (const auto run = seen.message.find("metier logs RUN"); run != std::string::npos) {
      seen.message.replace(run, std::string::npos, "metier logs " + function.name());
    }
    JsonObject extra{{"cluster_name", cluster->key.name}};
    if (state == "Failed") {
      seen.state = RunState::error;
      const std::string_view failed = string_at(cluster->status, "failed");
      const auto says_why = std::ranges::find(seen.parts, failed, &Part::pod);
      if (says_why != seen.parts.end()) {
        std::rotate(seen.parts.begin(), says_why, std::next(says_why));
      }
    } else if (state == "Closed") {
      closed(seen.message);
    } else if (state != "Running" || !whole) {
      seen.function_state = "deploying";
    } else {
      seen.state = RunState::running;
    }
    if (state == "Running") {
      extra["scheduler_address"] = string_at(cluster->status, "comm");
      extra["node_ports"] = JsonObject{};
      extra["dashboard"] = string_at(cluster->status, "dashboard");
      for (const auto& [from, to] : {std::pair{"workers.wanted", "replicas"},
                                     std::pair{"workers.ready", "ready_replicas"}}) {
        if (const Json* count = find_path(cluster->status, from)) { extra[to] = *count; }
      }
    }
    seen.function_status = std::move(extra);
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
