// The cluster of this machine: pods wait in one queue (scheduler.h), start through a PodDriver, and their
// status is written to the ObjectStore before anybody hears of it. Custom resources come true through
// controllers. It reacts to the store's events only, so an object that the engine wrote in its own
// transaction and one that `apply` wrote are the same. All calls on the loop's thread.
//
//   EmbeddedCluster cluster(loop, store, driver, options);
//   co_await cluster.open();     // adopts what runs, launches what was never launched
//   …
//   co_await cluster.close();    // pods live on
//
// What is durable: an object's spec (whoever stored it), a gang's and a device's placement before its first
// pod starts, the driver's handle with the first status after the start, the end. A crash between any two of
// these is put right by `open`, by what the driver finds on the node.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "cluster/cluster.h"
#include "cluster/controllers/controller.h"
#include "cluster/embedded/address_book.h"
#include "cluster/embedded/alarms.h"
#include "cluster/embedded/file_watch.h"
#include "cluster/embedded/host_inventory.h"
#include "cluster/embedded/launch.h"
#include "cluster/embedded/loopback_network.h"
#include "cluster/embedded/pod_driver.h"
#include "cluster/embedded/probes.h"
#include "cluster/embedded/scheduler.h"
#include "resource/object_store.h"

namespace metier {

struct EmbeddedOptions {
  std::string data;  // the data folder: volumes/<project>/<claim>
  HostFacts host;    // from a HostInventory
  SystemReserve reserve;
  std::int64_t most_pods = 10'000;  // live at once
  std::size_t most_starting = 64;   // starts on their way at once
  PodRules rules;
  std::map<std::string, std::int64_t> priorities;  // priority classes
  // Variables of the run token and the environment that the image stands for. An error of kind unavailable
  // with a code (EnvironmentBuilding) is asked again after a second; any other ends the pod with its code.
  std::function<Async<Result<Ambient>>(const Resource& pod)> ambient;
  SecretSource secrets;                                  // asked before Secrets of the ObjectStore
  std::vector<std::shared_ptr<Controller>> controllers;  // shared with nobody who ends them
  ProbeClient* probe_client = nullptr;  // for httpGet and tcpSocket; without it such probes fail
  std::vector<KindHealth> kinds;        // what `probe` says besides the controllers' kinds
  std::function<std::vector<KindHealth>()> engines;  // asked at each `probe`: what is installed now
  const Clock* clock = &system_clock();
  Random* random = &system_random();
  Logger log;
};

class EmbeddedCluster final : public Cluster {
 public:
  EmbeddedCluster(Executor executor, ObjectStore& store, PodDriver& driver,
                  EmbeddedOptions options);
  ~EmbeddedCluster() override;
  EmbeddedCluster(const EmbeddedCluster&) = delete;
  EmbeddedCluster& operator=(const EmbeddedCluster&) = delete;

  Async<Result<void>> open();
  Async<Result<void>> close();
  // A secret of `secrets` was set: pods that wait for it go on.
  void secret_changed(const std::string& project, const std::string& name);
  // Pods that run go on; those that wait, wait until it is resumed. Not kept over a restart: the caller says it again.
  void pause_queue(bool paused, std::string why = {});
  const Scheduler& scheduler() const { return scheduler_; }
  // Something that a custom resource's controller gathers has changed outside the store.
  void look_again(const ResourceKey& key) { reconcile_soon(key); }
  // As `reach`, at once.
  Result<std::string> address_of(const std::string& name_space, const std::string& service,
                                 const std::string& port) const {
    return addresses_.reach(name_space, service, port);
  }
  // Tests moved the clock.
  void wake() { alarms_.wake(); }
  std::size_t tracked() const { return by_uid_.size(); }

  std::string_view name() const override { return "embedded"; }
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
  struct Entry;  // one pod, from its object's first sight to its folder's end
  using EntryPtr = std::shared_ptr<Entry>;

  // --- objects (embedded_cluster.cc)
  void on_event(const ObjectEvent& event);
  void on_object(const Resource& object, bool removed);
  EntryPtr track(const Resource& object, bool recovering);
  void forget(const EntryPtr& entry);
  EntryPtr find(const std::string& name_space, const std::string& pod) const;
  Async<void> give_uid(ResourceKey key);
  Async<void> store_address(ResourceKey key, std::string address);
  void note(const ResourceKey& key, bool warning, std::string reason, std::string message);
  LaunchContext context() const;
  bool spawn(std::string name, Async<void> task) {
    return scope_.spawn(std::move(name), std::move(task));
  }

  // --- admission and changes (embedded_apply.cc)
  Result<void> admit_pod(const Resource& resource, Admission& admission) const;
  Result<void> admit_all(std::span<const Resource> resources, Admission& admission,
                         bool nested) const;
  Async<Result<void>> apply_one(Resource resource);
  void warn_ignored(const Resource& resource, const Pod& pod, Admission& admission) const;
  std::vector<Resource> owners_first(const Selector& selector) const;
  Async<Result<void>> remove_one(Resource object, StopOptions options);
  Async<Result<void>> mark_for_removal(ResourceKey key);
  Async<Result<void>> mark_stopped(ResourceKey key, std::string reason);
  Async<void> go_on_removing(ResourceKey key);
  Async<void> finish_owner_removal(ResourceKey key, std::string uid);
  std::vector<EntryPtr> owned_by(const std::string& uid) const;

  // --- the way of a pod (embedded_pods.cc)
  void enqueue(const EntryPtr& entry);
  void unblock(const ResourceKey& object);
  void schedule_soon();
  void schedule();
  void say_why_waiting();
  void ask_for_room();
  static constexpr std::chrono::seconds kStoreRetry{1};  // of writes that the store refused
  Async<void> remove_again(EntryPtr entry);
  class StartPlace;
  void pump_starts();
  Async<void> launch(std::vector<EntryPtr> members);
  Async<void> start_one(EntryPtr entry, std::shared_ptr<std::size_t> left,
                        std::shared_ptr<std::vector<std::string>> failed);
  Async<Result<void>> start_pod(EntryPtr entry);
  Async<void> settle_gang(std::vector<EntryPtr> members, std::string failed_member);
  Async<void> stop_pod(EntryPtr entry, StopOptions options);
  void fail_entry(const EntryPtr& entry, std::string reason, std::string message);
  void block(const EntryPtr& entry, MissingReference missing);
  void on_status(const EntryPtr& entry, const PodStatus& status);
  void after_end(const EntryPtr& entry);
  void set_deadline(const EntryPtr& entry);
  void on_verdict(const std::string& id, const Prober::Verdict& verdict);
  Async<void> restart_container(EntryPtr entry, std::string message);
  Async<void> kill_container(EntryPtr entry);
  void set_ready(const EntryPtr& entry);
  void touch(const EntryPtr& entry);
  Async<void> write_status(EntryPtr entry);
  Async<Result<void>> save(EntryPtr entry);
  Async<void> finish_removal(EntryPtr entry);
  PodRequest request_of(const Entry& entry) const;

  // --- after a restart (embedded_recovery.cc)
  Async<Result<void>> recover_pods();
  Async<void> recover_one(EntryPtr entry, std::shared_ptr<std::size_t> left);
  Async<void> destroy_unknown(std::string id);

  // --- controllers (embedded_controllers.cc)
  Controller* controller_of(std::string_view kind) const;
  void reconcile_soon(const ResourceKey& key);
  void reconcile_owner_of(const Resource& object);
  Async<void> reconcile(ResourceKey key);
  Async<Result<void>> carry_out(Resource resource, Decision decision);

  Executor executor_;
  ObjectStore& store_;
  PodDriver& driver_;
  EmbeddedOptions options_;
  const Clock& clock_;
  NodeCapacity capacity_;
  Scheduler scheduler_;
  LoopbackNetwork network_;
  AddressBook addresses_;
  Alarms alarms_;
  FileWatch files_;
  Scope scope_;
  Prober prober_;
  Signal settled_;  // something that `open` or a removal waits for

  std::unordered_map<std::string, EntryPtr> by_uid_;
  std::map<ResourceKey, EntryPtr> by_key_;
  std::unordered_map<std::string, std::set<std::string>> by_owner_;  // owner uid → pod uids
  std::map<ResourceKey, std::set<std::string>> blocked_;             // missing object → pod uids
  std::vector<std::string> fresh_waiting_;                           // queued since the last round
  std::deque<std::vector<EntryPtr>> starts_;                         // placed, not yet starting
  std::size_t starting_ = 0;
  bool schedule_posted_ = false;
  bool pumping_ = false;
  bool open_ = false;
  bool recovering_ = false;

  struct Reconciling {
    bool running = false;
    bool again = false;
    Alarms::Id alarm = 0;
  };
  std::map<ResourceKey, Reconciling> reconciling_;
  std::map<std::string, std::pair<ResourceKey, bool>>
      owners_;  // uid → custom resource, is being removed

  std::deque<ClusterEvent> events_;
  std::shared_ptr<void> watch_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace metier
