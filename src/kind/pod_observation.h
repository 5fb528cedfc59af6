// What the pods of a run say about it.
#pragma once

#include "kind/kind.h"
#include "resource/pod.h"

namespace metier {

// One pod and its part in the run.
struct ObservedPod {
  std::string name;
  std::string role = "main";
  int index = 0;
  bool removed = false;
  PodStatus status;
};

// The pods among `resources`, by name, the newest revision of each.
std::vector<ObservedPod> pods_in(std::span<const ResourceStatus> resources,
                                 std::string_view role = "main");
// Whether one of these pods began after a service that runs share had failed (failedAt of its status): the failure was
// that of the runs before.
bool began_after_failure(std::span<const ResourceStatus> pods, const ResourceStatus& service);
// Why this pod failed: the container that ended first with a failure. Nothing unless it failed.
std::optional<Failure> failure_of(const ObservedPod& pod);
// Reason and message of a pod that has not begun, into `seen` where they are empty.
void explain_pending(const PodStatus& status, Observation& seen);
// The run of one pod. A run that is terminal already stays as it is.
Observation observe_single_pod(const Subject& subject, std::span<const ResourceStatus> resources,
                               Time now);

}  // namespace metier
