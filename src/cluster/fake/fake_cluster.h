// A cluster that tests script: nothing happens by itself unless `automatic` says so. Objects, list and
// watch are real (an ObjectStore in memory); pods' phases, logs, failures and delays come from the test.
//
//   FakeCluster cluster(loop.get_executor());
//   … engine applies …
//   cluster.run("default", "train-1");
//   cluster.append_log("default", "train-1", "hello\n");
//   cluster.succeed("default", "train-1");
#pragma once

#include <map>
#include <set>

#include "base/clock.h"
#include "cluster/cluster.h"
#include "resource/testing/memory_object_store.h"

namespace metier {

class FakeCluster final : public Cluster {
 public:
  enum class Op { probe, admit, apply, remove, stop, list, logs, exec, usage };

  explicit FakeCluster(Executor executor, const Clock& clock = system_clock());

  // --- the script
  void fail_next(Op op, Error error, int times = 1);
  // Calls of `op` wait until it is released (a slow API server).
  void hold(Op op) { held_.insert(op); }
  void release(Op op);
  // Pods play their PodScript (annotations) by themselves as soon as they are applied.
  void play_scripts(bool on) { plays_ = on; }
  void set_pod(const std::string& name_space, const std::string& pod, PodStatus status);
  void wait_for(const std::string& name_space, const std::string& pod, std::string reason,
                std::string message = {});  // stays Pending
  void run(const std::string& name_space, const std::string& pod);
  void succeed(const std::string& name_space, const std::string& pod);
  void fail_pod(const std::string& name_space, const std::string& pod, int exit_code,
                std::string reason = "Error", std::string message = {});
  void vanish(const std::string& name_space, const std::string& pod);  // removed behind our back
  void set_status(const ResourceKey& key, Json status);                // of any other object
  void append_log(const std::string& name_space, const std::string& pod, std::string_view text,
                  const std::string& container = {});
  void add_event(ClusterEvent event) { events_.push_back(std::move(event)); }

  Health health;
  Admission admission;
  std::function<Admission(std::span<const Resource>)> on_admit;  // instead of `admission`
  std::function<ExecResult(const ContainerRef&, const ExecSpec&)> on_exec;
  std::map<std::string, std::string> addresses;     // "project/service/port" → "host:port"
  std::map<std::string, std::string> work_folders;  // "project/pod" → folder
  std::map<std::string, QueuePosition> positions;   // "project/pod"
  std::map<std::string, Usage> usages;              // "project/pod"

  MemoryObjectStore& objects() { return store_; }
  int calls(Op op) const;
  const std::vector<std::pair<Selector, StopOptions>>& stops() const { return stops_; }

  // --- Cluster
  std::string_view name() const override { return "fake"; }
  Async<Result<Health>> probe() override;
  Async<Result<Admission>> admit(std::span<const Resource> resources) override;
  Async<Result<void>> apply(std::vector<Resource> resources) override;
  Async<Result<void>> remove(Selector selector, StopOptions options) override;
  Async<Result<void>> stop(Selector selector, StopOptions options) override;
  Async<Result<std::vector<ResourceStatus>>> list(Selector selector) override;
  Result<std::shared_ptr<void>> watch(Selector selector,
                                      std::function<void(const ResourceStatus&)> watcher) override;
  Async<Result<LogChunk>> logs(ContainerRef container, std::uint64_t offset, std::size_t limit,
                               std::chrono::milliseconds wait) override;
  Async<Result<ExecResult>> exec(ContainerRef container, ExecSpec spec) override;
  Async<Result<Usage>> usage(std::string name_space, std::string pod) override;
  Async<Result<std::vector<ClusterEvent>>> events(Selector selector, Time since) override;
  std::optional<QueuePosition> queue_position(const std::string& name_space,
                                              const std::string& pod) const override;
  Async<Result<std::string>> reach(std::string name_space, std::string service,
                                   std::string port) override;
  std::optional<std::string> work_folder(const std::string& name_space,
                                         const std::string& pod) const override;

 private:
  Async<Result<void>> enter(Op op);
  void play(const Resource& pod);
  void stop_pod(const Resource& pod, const StopOptions& options);
  PodStatus status_of_pod(const ResourceKey& key) const;
  void put_status(const ResourceKey& key, const PodStatus& status);

  Executor executor_;
  const Clock& clock_;
  MemoryObjectStore store_;
  Signal changed_;  // a log grew, a pod ended, an operation was released
  std::map<Op, std::vector<Error>> failures_;
  std::map<Op, int> calls_;
  std::set<Op> held_;
  std::map<std::string, std::string> logs_;  // "project/pod/container"
  std::vector<ClusterEvent> events_;
  std::vector<std::pair<Selector, StopOptions>> stops_;
  std::uint64_t uids_ = 0;
  bool plays_ = false;
};

}  // namespace metier
