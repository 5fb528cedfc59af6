// The contract of a controller (operator): it turns one kind of custom resource into Pods, PodGroups and
// Services, and reports on it. Decisions are pure; whoever drives controllers carries them out. A decision
// that matters is in the resource's status before it is acted on.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>
#include <vector>

#include "base/async.h"
#include "resource/resource.h"

namespace metier {

// What the controller may know: its resource's own objects (by owner), as they are now.
struct Snapshot {
  std::vector<Resource> pods;
  std::vector<Resource> services;
  std::vector<Resource> groups;  // PodGroup (scheduling.metier.dev/v1): spec.minMember
  // Of a resource that has an openedBy: Pods of others in the group of its name that go on.
  std::vector<Resource> clients;
  bool room_wanted = false;   // of a controller that gives room: others wait for what its pods hold
  bool opener_over = false;   // the Pod that its spec's openedBy names has ended
  bool opener_lives = false;  // there is such a Pod, and it goes on
};

struct Decision {
  std::vector<Resource> create;  // no pods where the resource was stopped
  std::vector<Resource> follow;  // made after the end of the resource, stopped or not
  std::vector<ResourceKey> remove;
  std::vector<ResourceKey> stop;                     // pods that end now and stay readable
  std::string stop_reason;                           // their status's reason then
  std::optional<Json> status;                        // the resource's new status, when it changes
  std::optional<std::chrono::milliseconds> requeue;  // look again after that time, whatever happens
};

using Facts =
    Json;  // what `gather` learnt from the engine itself (Dask's, Spark's HTTP); may be null

class Controller {
 public:
  virtual ~Controller() = default;
  virtual std::string_view api_version() const = 0;
  virtual std::string_view kind() const = 0;
  virtual Async<Result<Facts>> gather(const Resource& resource) = 0;
  virtual Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                             Time now) const = 0;
  virtual Async<Result<void>> before_stop(const Resource& pod) = 0;
  // Whether its resources may end early when others wait for room: it is told so by Snapshot::room_wanted.
  virtual bool gives_room() const { return false; }
};

}  // namespace metier
