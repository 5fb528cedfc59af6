#include "kind/mpijob/mpijob_observation.h"

#include <algorithm>
#include <charconv>
#include <csignal>

#include "kind/pod_observation.h"
#include "model/names.h"

namespace metier {
namespace {

int number_after(std::string_view text, std::string_view prefix) {
  int out = -1;
  const auto at = text.rfind(prefix);
  if (at == std::string_view::npos) { return out; }
  const auto digits = text.substr(at + prefix.size());
  std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return out;
}

bool ended_badly(const ContainerStatus& container) {
  return container.state == ContainerStatus::State::terminated &&
         (container.exit_code != 0 || container.signal != 0);
}

std::string end_of(const ContainerStatus& container) {
  if (container.reason == "OOMKilled") { return "was killed: it used more memory than its limit"; }
  if (container.signal != 0) {
    std::string name = container.reason.starts_with("Killed(")
                           ? container.reason.substr(7, container.reason.size() - 8)
                           : "signal " + std::to_string(container.signal);
    return "was killed by " + name;
  }
  return "ended with exit code " + std::to_string(container.exit_code);
}

// mpirun ends the other ranks by SIGTERM, and some of them end before the one that failed.
bool ended_by_mpirun(const Failure& failure) {
  return failure.rank >= 0 && (failure.signal == SIGTERM || failure.exit_code == 128 + SIGTERM);
}

// The earliest failure of all: a rank of its own, or the pod around it.
class FirstFailure {
 public:
  void offer(Time at, Failure failure) {
    if (!best_ || precedes(at, failure)) {
      best_ = std::move(failure);
      at_ = at;
    }
  }
  std::optional<Failure> take() { return std::move(best_); }

 private:
  bool precedes(Time at, const Failure& failure) const {
    const bool told = ended_by_mpirun(failure);
    const bool killed = failure.signal == SIGKILL || best_->signal == SIGKILL;
    if (!killed && told != ended_by_mpirun(*best_)) { return !told; }
    return at != Time{} && at < at_;
  }
  std::optional<Failure> best_;
  Time at_{};
};

// Stopped because the job was over, or by somebody: no cause of anything.
bool is_consequence(const PodStatus& status) {
  return status.reason == kJobEnded || status.reason == "AbortedByUser" ||
         status.reason == "Stopped";
}

// When its own process ended. The pod ends when its logs are on the disk and what it left is gone: by then mpirun may have
// ended ranks of other pods.
Time end_of_pod(const PodStatus& pod) {
  for (const auto& container : pod.containers) {
    if (!container.rank && !container.init && container.finished != Time{}) {
      return container.finished;
    }
  }
  return pod.finished;
}

void offer_ranks(const ObservedPod& pod, FirstFailure& first) {
  const ContainerStatus* base = nullptr;
  for (const auto& container : pod.status.containers) {
    if (!container.rank && !container.init && ended_badly(container)) { base = &container; }
  }
  for (const auto& container : pod.status.containers) {
    if (!container.rank || !ended_badly(container)) { continue; }
    // A pod that is lost takes its ranks along: then the pod is the cause.
    if (base != nullptr && base->finished <= container.finished && !is_consequence(pod.status)) {
      continue;
    }
    const int rank = number_after(container.name, "rank-");
    first.offer(container.finished,
                {.code = container.reason == "OOMKilled" ? "OOMKilled" : "RankFailed",
                 .message = "rank " + std::to_string(rank) + " in pod " + pod.name + " " +
                            end_of(container),
                 .part = pod.name,
                 .rank = rank,
                 .exit_code = container.exit_code,
                 .signal = container.signal});
  }
}

// Without the launcher its ranks are ended: theirs is no cause.
void offer_launcher(const ObservedPod& pod, FirstFailure& first) {
  if (is_consequence(pod.status)) { return; }
  const std::string lost = "the launcher pod " + pod.name + " was lost: ";
  for (const auto& container : pod.status.containers) {
    if (container.rank || container.signal == 0) { continue; }
    first.offer(container.finished, {.code = "NodeLost",
                                     .message = lost + "it " + end_of(container),
                                     .part = pod.name,
                                     .exit_code = container.exit_code,
                                     .signal = container.signal});
    return;
  }
  // Whoever watched it was lost, which is noticed after the ranks have ended.
  const auto& why = pod.status.reason;
  if (why != "ShimLost" && why != "HostRebooted") { return; }
  auto failure = failure_of(pod);
  if (!failure) { return; }
  failure->message = lost + failure->message;
  first.offer(pod.status.started, std::move(*failure));
}

const JsonObject* true_condition(const Json& status, std::string_view type) {
  const auto* conditions =
      status.is_object() ? array_in(status.get_object(), "conditions") : nullptr;
  for (std::size_t i = 0; conditions != nullptr && i < conditions->size(); ++i) {
    const JsonObject* one = (*conditions)[i].if_object();
    if (one != nullptr && string_in(*one, "type") == type && string_in(*one, "status") == "True") {
      return one;
    }
  }
  return nullptr;
}

}  // namespace

Observation observe_mpijob(const Subject& subject, std::span<const ResourceStatus> resources,
                           Time) {
  Observation seen;
  seen.pods_stay = subject.function.text("clean_pod_policy") == "None";
  const std::string expected = subject.run == nullptr
                                   ? std::string()
                                   : resource_name(subject.run->name(), subject.run->uid(),
                                                   subject.run->iteration(), subject.attempt);
  const ResourceStatus* job = nullptr;
  for (const auto& resource : resources) {
    if (resource.key.kind != "MPIJob" || (!expected.empty() && resource.key.name != expected)) {
      continue;
    }
    if (job == nullptr || resource.revision >= job->revision) { job = &resource; }
  }
  std::vector<ObservedPod> pods = pods_in(resources);
  std::erase_if(pods, [&](const ObservedPod& pod) {
    return !expected.empty() && !pod.name.starts_with(expected + "-");
  });
  for (auto& pod : pods) {
    pod.index = number_after(pod.name, "-worker-");
    pod.role = pod.index >= 0 ? "worker" : "launcher";
    pod.index = std::max(pod.index, 0);
  }
  std::ranges::sort(pods, [](const auto& a, const auto& b) {
    return std::pair(a.role, a.index) < std::pair(b.role, b.index);
  });

  FirstFailure first;
  const ObservedPod* launcher = nullptr;
  std::vector<Part> ranks;
  for (const auto& pod : pods) {
    seen.parts.push_back({.role = pod.role, .index = pod.index, .pod = pod.name});
    if (pod.role == "launcher") {
      launcher = &pod;
      seen.host = pod.name;
    }
    for (const auto& container : pod.status.containers) {
      if (!container.rank) { continue; }
      ranks.push_back({.role = "rank",
                       .index = number_after(container.name, "rank-"),
                       .pod = pod.name,
                       .container = container.name});
      if (container.started != Time{} && (!seen.started || container.started < *seen.started)) {
        seen.started = container.started;
      }
    }
    offer_ranks(pod, first);
    if (pod.role == "launcher") { offer_launcher(pod, first); }
    if (auto failure = failure_of(pod);
        failure && pod.role == "worker" && !is_consequence(pod.status)) {
      failure->message = "worker pod " + pod.name + " was lost: " + failure->message;
      if (failure->code.starts_with("Killed") || failure->code == "Error") {
        failure->code = "NodeLost";
      }
      first.offer(end_of_pod(pod.status), std::move(*failure));
    }
  }
  std::ranges::sort(ranks, {}, &Part::index);
  seen.parts.insert(seen.parts.end(), ranks.begin(), ranks.end());
  if (launcher != nullptr && !seen.started && launcher->status.started != Time{}) {
    seen.started = launcher->status.started;
  }

  const RunState known = subject.run == nullptr ? RunState::created : subject.run->state();
  if (is_terminal(known)) {
    seen.state = known;
    return seen;
  }
  const Json none;
  const Json& status = job == nullptr ? none : job->status;
  if (true_condition(status, "Succeeded") != nullptr) {
    seen.state = RunState::completed;
  } else if (const auto* failed = true_condition(status, "Failed")) {
    seen.state = RunState::error;
    // At its deadline the launcher is stopped, and its ranks end in whatever way and order.
    const bool late = launcher != nullptr && launcher->status.reason == "DeadlineExceeded";
    if (!late) { seen.first_failure = first.take(); }
    if (!seen.first_failure && launcher != nullptr) { seen.first_failure = failure_of(*launcher); }
    if (!seen.first_failure) {
      seen.first_failure = Failure{.code = std::string(string_in(*failed, "reason", "Error")),
                                   .message = std::string(string_in(*failed, "message"))};
    }
  } else if (known == RunState::running ||
             (launcher != nullptr && launcher->status.phase == PodPhase::running)) {
    seen.state = RunState::running;  // once it runs, not heard of everything yet does not change it
  }
  if (job != nullptr && job->removed && !is_terminal(seen.state)) {
    seen.state = RunState::error;
    seen.first_failure =
        Failure{.code = "NodeLost", .message = "the MPIJob was removed before it ended"};
  }
  if (status.is_object()) {
    if (const auto text = string_in(status.get_object(), "completionTime"); !text.empty()) {
      if (const auto time = from_iso(text)) { seen.finished = *time; }
    }
  }
  if (seen.first_failure) {
    seen.reason = seen.first_failure->code;
    seen.message = seen.first_failure->message;
  } else if (seen.state == RunState::pending) {
    for (const auto& pod : pods) {
      if (!seen.reason.empty()) { break; }
      explain_pending(pod.status, seen);
    }
  }
  return seen;
}

}  // namespace metier
