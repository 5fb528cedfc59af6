// A pod driver without processes: pods do what their PodScript says, or what the test says. Logs are real
// files. One driver outlives several clusters in tests of restarts.
#pragma once

#include <filesystem>
#include <list>
#include <map>
#include <set>

#include "base/clock.h"
#include "cluster/embedded/pod_driver.h"
#include "cluster/testing/pod_script.h"

namespace metier {

class FakePodDriver final : public PodDriver, public PodSignals {
 public:
  FakePodDriver(Executor executor, std::filesystem::path folder,
                const Clock& clock = system_clock());
  ~FakePodDriver() override;

  // --- the script
  std::function<std::optional<Error>(const LaunchSpec&)> fail_start;  // asked at each start
  std::function<ExecResult(const std::string& container, const ExecSpec&)> on_exec;
  void hold_starts(bool hold);  // starts wait meanwhile
  void hold_execs(bool hold);
  void finish(const std::string& name, int exit_code);     // by the pod's name
  void kill(const std::string& name, std::string reason);  // "OOMKilled", "ShimLost"
  void append_log(const std::string& name, std::string_view text);
  void forget();  // the server restarted: known only by folder
  std::vector<Condition> host_limits;
  bool quiet = false;  // no on_change: only status() and wait() tell

  const LaunchSpec& launched(const std::string& name) const { return pods_.at(id_of(name)).spec; }
  std::string id_of(const std::string& name) const;
  bool knows(const std::string& name) const;
  std::vector<std::string> starts;  // names in order
  std::vector<std::pair<std::string, StopOptions>> stops;
  std::vector<int> signalled;
  std::vector<std::string> recovered;
  std::vector<std::string> destroyed;  // ids

  // --- PodDriver
  std::string_view name() const override { return "fake"; }
  Async<Result<PodHandle>> start(LaunchSpec spec) override;
  Async<Result<void>> recover(std::string id, PodHandle handle) override;
  Async<Result<std::vector<std::string>>> found() override;
  Async<Result<PodStatus>> status(std::string id) override;
  Async<Result<PodStatus>> wait(std::string id) override;
  void on_change(std::function<void(const std::string& id, const PodStatus&)> listener) override {
    listener_ = std::move(listener);
  }
  Async<Result<ExecResult>> exec(std::string id, std::string container, ExecSpec spec) override;
  Async<Result<void>> stop(std::string id, StopOptions options) override;
  Async<Result<void>> destroy(std::string id) override;
  Async<Result<Usage>> usage(std::string id) override;
  Result<std::string> log_path(const std::string& id, const std::string& container,
                               int attempt) const override;
  Result<std::string> work_folder(const std::string& id) const override;
  PodSignals* signals() override { return this; }
  // Containers start anew, unless the script is stubborn and the signal is not 9.
  Async<Result<void>> signal(std::string id, int number) override;
  std::vector<Condition> limits_of_host() const override { return host_limits; }

 private:
  struct Live {
    LaunchSpec spec;
    PodStatus status;
    bool known = true;
    std::unique_ptr<Timer> grace;
  };

  void end(const std::string& id, int exit_code, std::string reason, std::string message = {});
  void tell(const std::string& id);
  Live* find(const std::string& id);

  Executor executor_;
  std::filesystem::path folder_;
  const Clock& clock_;
  Signal changed_;
  std::map<std::string, Live> pods_;
  std::function<void(const std::string&, const PodStatus&)> listener_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool held_ = false;
  bool execs_held_ = false;
};

}  // namespace metier
