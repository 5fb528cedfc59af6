// Decides which waiting pods of one node start, and says why the others wait. Pure: no clock, no I/O; the
// cluster tells it what exists and carries its placements out.
//
//  - Order: priority, then first come. Later pods that fit may pass an earlier one that does not, at most
//    kMostPasses times; then nothing passes it but pods of an owner that already holds something (a run
//    whose further pods waited behind its own end would never end).
//  - A gang is placed whole (its first `min_member` pods at once) or holds nothing; pods beyond that, and
//    later ones of a placed gang, are single. A gang without enough members blocks nobody.
//  - Never more than the node has is given away. Devices are given by number.
// One round costs O(different requests waiting), not O(pods).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/quantity.h"

namespace metier {

using Amounts = std::map<std::string, Quantity, std::less<>>;

struct NodeCapacity {
  Amounts allocatable;  // "cpu", "memory", "pods"; devices are counted from below
  std::map<std::string, std::vector<int>, std::less<>> devices;  // "nvidia.com/gpu" → numbers
};

struct PodRequest {
  std::string id;
  std::string name;   // for people: what holds, what waits
  std::string owner;  // uid of the owner, or empty
  std::string gang;   // id of its PodGroup, or empty
  std::int64_t priority = 0;
  Amounts requests;
};

using Devices = std::map<std::string, std::vector<int>, std::less<>>;
struct Placement {
  std::string id;
  Devices devices;
};

struct WaitCause {
  std::string
      code;  // InsufficientCpu, InsufficientMemory, InsufficientGpu, InsufficientPods, GangIncomplete, QueuePaused
  std::string reason;  // "asks for 24Gi of memory; 9.5Gi of 32Gi is free"
};

struct QueueEntry {
  int position = 0;  // 1 = next
  int length = 0;
  WaitCause cause;
};

class Scheduler final {
 public:
  static constexpr int kMostPasses = 64;

  explicit Scheduler(NodeCapacity capacity);

  // What can never start here, with the numbers; nullopt when it can once the node is free.
  std::optional<WaitCause> never_fits(const Amounts& requests) const;

  // Queues a pod; a known id is left as it is.
  void add(PodRequest request);
  // A pod that already runs (after a restart): it holds its requests and devices whatever is free.
  void adopt(PodRequest request, const Devices& devices);
  // Says how many pods a gang needs. Its pods wait until this is known. 0 forgets the gang.
  void set_gang(const std::string& gang, int min_member);
  // The pod ended or is gone: releases what it holds, or leaves the queue.
  void remove(const std::string& id);
  // Nothing is placed while it is paused; `why` is what waiting pods are told.
  void pause(bool paused, std::string why = {}) {
    paused_ = paused;
    pause_reason_ = std::move(why);
  }
  bool paused() const { return paused_; }
  const std::string& pause_reason() const { return pause_reason_; }

  // Gives what can start now, in the order of the queue; it holds its requests from here on. All members of
  // a gang come next to each other.
  std::vector<Placement> place();

  bool waits(const std::string& id) const { return waiting_.contains(id); }
  bool holds(const std::string& id) const { return running_.contains(id); }
  // What the last `place` found in its way.
  std::optional<WaitCause> cause(const std::string& id) const;
  std::optional<QueueEntry> position(const std::string& id) const;
  // Who holds some of `resource`, most first.
  std::vector<std::pair<std::string, Quantity>> holders(std::string_view resource,
                                                        std::size_t most) const;

  // Whether pods of others wait for a resource that pods of `owner` hold some of.
  bool others_want_room_of(std::string_view owner) const;

  const Amounts& allocatable() const { return capacity_.allocatable; }
  Amounts free() const;
  std::size_t waiting() const { return waiting_.size(); }
  std::size_t running() const { return running_.size(); }
  // The resource that a code is about ("memory" of InsufficientMemory), or empty.
  static std::string_view resource_of(std::string_view code);

 private:
  struct Order {  // smaller = earlier
    std::int64_t priority = 0;
    std::uint64_t number = 0;
    bool operator<(const Order& other) const {
      return priority != other.priority ? priority > other.priority : number < other.number;
    }
  };
  struct Waiting {
    PodRequest request;
    Order order;
    std::string bucket;
  };
  struct Running {
    PodRequest request;
    Devices devices;
  };
  struct Gang {
    int min_member = 0;
    bool placed = false;
    std::map<std::uint64_t, std::string> members;  // waiting, by number
    std::set<std::string> holding;
  };
  // Pods that ask for the same with the same priority: when the first does not fit, none does.
  struct Bucket {
    std::map<std::uint64_t, std::string> pods;
    std::int64_t priority = 0;
    int passed = 0;  // how often later pods were placed while the first waited
    WaitCause cause;
  };
  struct Candidate {
    Order order;
    std::string bucket;  // of single pods
    std::string gang;    // or a gang
    bool operator<(const Candidate& other) const { return order < other.order; }
  };

  void queue(PodRequest request, Order order);
  void unqueue(const std::string& id);
  // Those that run count: one may have been placed singly, while the last pods of an earlier life of the gang ended.
  static int present(const Gang& gang) {
    return static_cast<int>(gang.members.size() + gang.holding.size());
  }
  bool gang_waits(const Gang& gang) const {
    return gang.min_member > 0 && !gang.placed && !gang.members.empty() &&
           present(gang) >= gang.min_member;
  }
  std::optional<WaitCause> lacks(const Amounts& requests) const;
  Amounts gang_requests(const Gang& gang) const;
  std::int64_t used(std::string_view resource) const;
  void hold(const std::string& id, std::vector<Placement>& out);
  void count(const Amounts& requests, int sign);
  void release_members(const std::string& gang);

  NodeCapacity capacity_;
  std::map<std::string, std::int64_t, std::less<>> used_;  // milli
  std::map<std::string, std::set<int>, std::less<>> free_devices_;
  std::unordered_map<std::string, Waiting> waiting_;
  std::unordered_map<std::string, Running> running_;
  std::unordered_map<std::string, int> owners_;  // owner → pods that hold
  std::map<std::string, Bucket> buckets_;
  std::map<std::string, Gang> gangs_;
  std::map<std::string, WaitCause> gang_causes_;
  std::map<std::string, int> gang_passed_;
  std::uint64_t next_ = 1;
  bool paused_ = false;
  std::string pause_reason_;
};

}  // namespace metier
