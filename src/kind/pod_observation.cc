#include "kind/pod_observation.h"

#include <algorithm>

namespace metier {
namespace {

std::string ended_text(const ContainerStatus& container) {
  if (container.signal != 0) { return "killed by signal " + std::to_string(container.signal); }
  return "exit code " + std::to_string(container.exit_code);
}

std::optional<Time> set_time(Time time) {
  return time == Time{} ? std::nullopt : std::optional<Time>(time);
}

void take_times(const PodStatus& status, Observation& seen) {
  for (const ContainerStatus& container : status.containers) {
    if (!container.init && container.started != Time{} &&
        (!seen.started || container.started < *seen.started)) {
      seen.started = container.started;
    }
  }
  if (!seen.started) { seen.started = set_time(status.started); }
  if (is_terminal(status.phase)) {
    seen.finished = set_time(status.finished);
    for (const ContainerStatus& container : status.containers) {
      if (!seen.finished && container.finished != Time{}) { seen.finished = container.finished; }
    }
  }
}

}  // namespace

void explain_pending(const PodStatus& status, Observation& seen) {
  seen.reason = status.reason;
  seen.message = status.message;
  for (const ContainerStatus& container : status.containers) {
    if (seen.reason.empty() && container.state == ContainerStatus::State::waiting) {
      seen.reason = container.reason;
      seen.message = container.message;
    }
  }
  for (const Condition& condition : status.conditions) {
    if (seen.reason.empty() && condition.type == "PodScheduled" && !condition.status) {
      seen.reason = condition.reason;
      seen.message = condition.message;
    }
  }
}

std::vector<ObservedPod> pods_in(std::span<const ResourceStatus> resources, std::string_view role) {
  std::map<std::string, const ResourceStatus*> newest;
  for (const ResourceStatus& resource : resources) {
    if (resource.key.kind != "Pod") { continue; }
    const ResourceStatus*& held = newest[resource.key.name];
    if (held == nullptr || resource.revision >= held->revision) { held = &resource; }
  }
  std::vector<ObservedPod> out;
  for (const auto& [name, resource] : newest) {
    out.push_back({.name = name,
                   .role = std::string(role),
                   .index = static_cast<int>(out.size()),
                   .removed = resource->removed,
                   .status = pod_status_from_json(resource->status)});
  }
  return out;
}

bool began_after_failure(std::span<const ResourceStatus> pods, const ResourceStatus& service) {
  const auto failed = from_iso(string_at(service.status, "failedAt"));
  return failed && std::ranges::any_of(pods_in(pods), [&](const ObservedPod& pod) {
           return pod.status.started > *failed;
         });
}

std::optional<Failure> failure_of(const ObservedPod& pod) {
  if (pod.status.phase != PodPhase::failed) { return std::nullopt; }
  const ContainerStatus* first = nullptr;
  for (const ContainerStatus& container : pod.status.containers) {
    const bool failed = !container.rank && container.state == ContainerStatus::State::terminated &&
                        (container.exit_code != 0 || container.signal != 0);
    if (failed && (first == nullptr || container.finished < first->finished)) {
      first = &container;
    }
  }
  Failure failure{.code = pod.status.reason, .message = pod.status.message, .part = pod.name};
  if (first != nullptr) {
    failure.exit_code = first->exit_code;
    failure.signal = first->signal;
    if (failure.code.empty() || failure.code == "Error") {
      failure.code = first->reason.empty() || first->reason == "Error"
                         ? (first->signal != 0 ? "Killed" : "HandlerError")
                         : first->reason;
    }
    if (failure.message.empty()) {
      failure.message = first->message.empty() ? ended_text(*first) : first->message;
    }
  } else if (failure.code.empty()) {
    failure.code = "Internal";
    failure.message = failure.message.empty() ? "the pod failed and none of its containers says why"
                                              : failure.message;
  }
  return failure;
}

Observation observe_single_pod(const Subject& subject, std::span<const ResourceStatus> resources,
                               Time) {
  Observation seen;
  const std::vector<ObservedPod> pods = pods_in(resources);
  const RunState known = subject.run == nullptr ? RunState::created : subject.run->state();
  const std::string expected = subject.run == nullptr
                                   ? std::string()
                                   : resource_name(subject.run->name(), subject.run->uid(),
                                                   subject.run->iteration(), subject.attempt);
  const ObservedPod* pod = nullptr;
  for (const ObservedPod& candidate :
       pods) {  // the pod of this attempt; pods of earlier ones may be there still
    if (pod == nullptr || candidate.name == expected) { pod = &candidate; }
  }
  if (pod != nullptr) {
    seen.parts.push_back({.role = "main", .index = 0, .pod = pod->name});
    seen.host = pod->status.host;
    take_times(pod->status, seen);
  }
  if (is_terminal(known)) {
    seen.state = known;
    return seen;
  }
  if (pod == nullptr) {
    return seen;  // pending, nothing applied yet
  }
  switch (pod->status.phase) {
    case PodPhase::pending: explain_pending(pod->status, seen); break;
    case PodPhase::running: seen.state = RunState::running; break;
    case PodPhase::succeeded: seen.state = RunState::completed; break;
    case PodPhase::failed: seen.state = RunState::error; break;
    case PodPhase::unknown: seen.state = RunState::unknown; break;
  }
  if (pod->removed && !is_terminal(seen.state)) {
    seen.state = RunState::error;
    seen.first_failure = Failure{
        .code = "NodeLost", .message = "the pod was removed before it ended", .part = pod->name};
  } else {
    seen.first_failure = failure_of(*pod);
  }
  if (seen.first_failure) {
    seen.reason = seen.first_failure->code;
    seen.message = seen.first_failure->message;
  }
  return seen;
}

}  // namespace metier
