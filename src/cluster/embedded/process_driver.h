// Pods as processes of this machine, each under a shim of its own (shim/, docs/formats/pod-folder.md). Nothing
// is polled: shims report over their control sockets. Pods outlive this object.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "cluster/embedded/cgroups.h"
#include "cluster/embedded/pod_driver.h"
#include "cluster/embedded/pod_record.h"
#include "cluster/embedded/pod_spec.h"
#include "cluster/embedded/zygote_client.h"

namespace metier {

class ProcessDriver final : public PodDriver, public PodSignals {
 public:
  struct Options {
    std::string data;    // pods are <data>/pods/<id>
    std::string shim;    // the program
    std::string runner;  // folder or zip with metier_runner, on every pod's PYTHONPATH; empty: none
    std::string preload;  // what zygotes import
    bool use_zygotes = true;
    std::chrono::milliseconds zygote_idle = std::chrono::minutes(30);
    std::string memory_folder = "/dev/shm";  // memory-backed volumes, secrets' files
    std::string force;                       // METIER_FORCE: "no-userns,no-cgroup,no-mount"
    std::vector<std::string> shim_env;       // tests: METIER_SHIM_FAILPOINT=…
    Logger log;
  };
  ProcessDriver(Executor executor, const Clock& clock, Random& random,
                std::unique_ptr<Cgroups> cgroups, Options options);
  ~ProcessDriver() override;

  std::string_view name() const override { return "process"; }
  Async<Result<PodHandle>> start(LaunchSpec spec) override;
  Async<Result<void>> recover(std::string id, PodHandle handle) override;
  Async<Result<std::vector<std::string>>> found() override;
  Async<Result<PodStatus>> status(std::string id) override;
  Async<Result<PodStatus>> wait(std::string id) override;
  void on_change(std::function<void(const std::string& id, const PodStatus&)> listener) override;
  Async<Result<ExecResult>> exec(std::string id, std::string container, ExecSpec spec) override;
  Async<Result<void>> stop(std::string id, StopOptions options) override;
  Async<Result<void>> destroy(std::string id) override;
  Async<Result<Usage>> usage(std::string id) override;
  Result<std::string> log_path(const std::string& id, const std::string& container,
                               int attempt) const override;
  Result<std::string> work_folder(const std::string& id) const override;
  std::vector<Condition> limits_of_host() const override;

  // Sends a signal to the main process of each running container.
  Async<Result<void>> signal(std::string id, int number) override;
  PodSignals* signals() override { return this; }
  Zygotes& zygotes() { return zygotes_; }
  // Lets go of every pod (they live on) and ends the zygotes. Call before destruction.
  Async<void> close();

 private:
  struct Entry;
  using EntryPtr = std::shared_ptr<Entry>;
  PodPaths paths(const std::string& id) const;
  Result<EntryPtr> entry(const std::string& id) const;
  Result<void> make_folder(const LaunchSpec& spec, const PodPlan& plan, Entry& entry);
  Result<void> launch(const LaunchSpec& spec, const PodPlan& plan, const EntryPtr& entry,
                      bool zygote);
  Result<void> spawn_shim(const PodPaths& paths, int spec, int control);
  Async<Result<void>> launched(const LaunchSpec& spec, const PodPlan& plan, const EntryPtr& entry);
  // Reads notices until the pod has ended or its shim is gone.
  Async<void> follow(EntryPtr entry);
  Async<void> resume(EntryPtr entry);
  Result<Fd> connect(const std::string& id) const;
  Fd take_lock(const std::string& id, bool& held) const;
  bool load_exit(const EntryPtr& entry);
  Async<int> strike(std::string id, std::vector<KnownMain> mains);
  Async<bool> never_began(std::string id);
  Async<void> lost(EntryPtr entry, Fd lock);
  void hear(const EntryPtr& entry, std::string_view text);
  void publish(const EntryPtr& entry);
  Result<void> send(const Entry& entry, const std::string& message) const;
  void remove_traces(const std::string& id) const;
  std::string gang_memory(const std::string& gang) const;
  void leave_gang(const std::string& id) const;

  Executor executor_;
  const Clock& clock_;
  Random& random_;
  std::unique_ptr<Cgroups> cgroups_;
  Options options_;
  HostAbility host_;
  std::string boot_;
  Zygotes zygotes_;
  Scope scope_;
  std::map<std::string, EntryPtr> entries_;
  std::vector<std::function<void(const std::string&, const PodStatus&)>> listeners_;
};

}  // namespace metier
