// The contract of a cluster: it makes resources true and reports on them. `embedded` (this machine),
// `kubernetes` (any API server with the real operators), `fake` (scripted by tests). One conformance suite
// runs against all. All calls on the loop's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/async.h"
#include "resource/pod.h"
#include "resource/resource.h"
#include "resource/status.h"

namespace metier {

struct KindHealth {
  std::string kind;  // "job", "mpijob"
  bool usable = true;
  std::string with;  // "embedded cluster", "Open MPI 4.1.4"
  std::string note;  // why not and the command that mends it, or a remark
};
struct Health {
  bool usable = true;
  std::string reason;
  std::map<std::string, Quantity, std::less<>> capacity;     // of the largest node
  std::map<std::string, Quantity, std::less<>> allocatable;  // free of system use
  std::map<std::string, Quantity, std::less<>> free;         // now
  std::vector<KindHealth> kinds;
  std::vector<Condition> conditions;  // what this site cannot enforce
};

struct Admission {
  enum class Verdict { ok, never_fits, unsupported };
  Verdict verdict = Verdict::ok;
  std::string reason;  // one sentence with the numbers
  std::string fix;
  std::string code;                 // "NeverFits"
  std::vector<Condition> warnings;  // e.g. a nodeSelector that has no effect here
};

struct StopOptions {
  enum class How { graceful, forced, detach };
  How how = How::graceful;
  std::optional<std::chrono::milliseconds> grace;  // else the pod's own
  std::string reason;  // becomes the status's reason: "AbortedByUser", "ThresholdExceeded"
  std::string message;
};

struct ContainerRef {
  std::string name_space;
  std::string pod;
  std::string container;  // empty = the first
  int attempt = 0;        // 0 = the latest, n = the n-th start of that container
};

// Bytes of a log. `size` is how many bytes there are now; `ended` says that no more will come.
struct LogChunk {
  std::string bytes;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  bool ended = false;
};

struct ExecSpec {
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> env;
  std::string working_dir;
};
struct ExecResult {
  std::string id;
  int exit_code = 0;
  int signal = 0;
  std::string output;  // stdout and stderr, at most 1 MiB
};

struct Usage {
  std::int64_t cpu_us = 0;
  std::int64_t memory = 0;
  std::int64_t peak_memory = 0;
  std::int64_t processes = 0;
};

struct ClusterEvent {
  Time at{};
  ResourceKey object;
  bool warning = false;
  std::string reason;
  std::string message;
};

// Where a pod stands in the queue, for `why`.
struct QueuePosition {
  int position = 0;  // 1 = next
  int length = 0;
  std::string code;  // "InsufficientMemory"
  std::string reason;
  std::vector<std::pair<std::string, std::string>> held_by;  // pod, what it holds
};

class Cluster {
 public:
  virtual ~Cluster() = default;
  virtual std::string_view name() const = 0;

  virtual Async<Result<Health>> probe() = 0;
  // Asked before a run is stored: what can never fit is refused here.
  virtual Async<Result<Admission>> admit(std::span<const Resource> resources) = 0;
  // Create or update by name; Pods never change. Applying an object that is stored with the same content does nothing.
  virtual Async<Result<void>> apply(std::vector<Resource> resources) = 0;
  // Pods are stopped first; returns when the stop is on its way (their end comes by watch).
  virtual Async<Result<void>> remove(Selector selector, StopOptions options) = 0;
  // Stops pods but keeps them (and logs) readable until they are removed.
  virtual Async<Result<void>> stop(Selector selector, StopOptions options) = 0;
  virtual Async<Result<std::vector<ResourceStatus>>> list(Selector selector) = 0;
  // Calls `watcher` for each matching resource as it is now, then for each change, until the handle dies.
  virtual Result<std::shared_ptr<void>> watch(
      Selector selector, std::function<void(const ResourceStatus&)> watcher) = 0;
  // At most `limit` bytes from `offset`. With `wait` it answers only when there are bytes past the offset,
  // the log has ended, or the deadline has passed.
  virtual Async<Result<LogChunk>> logs(ContainerRef container, std::uint64_t offset,
                                       std::size_t limit, std::chrono::milliseconds wait) = 0;
  virtual Async<Result<ExecResult>> exec(ContainerRef container, ExecSpec spec) = 0;
  virtual Async<Result<Usage>> usage(std::string name_space, std::string pod) = 0;
  virtual Async<Result<std::vector<ClusterEvent>>> events(Selector selector, Time since) = 0;
  virtual std::optional<QueuePosition> queue_position(const std::string& name_space,
                                                      const std::string& pod) const = 0;
  // "host:port" of a Service's port, kept reachable as long as the object lives.
  virtual Async<Result<std::string>> reach(std::string name_space, std::string service,
                                           std::string port) = 0;
  // The folder whose `journal` a pod of this node writes; nullopt when records come over the API instead.
  virtual std::optional<std::string> work_folder(const std::string& name_space,
                                                 const std::string& pod) const = 0;
};

}  // namespace metier
