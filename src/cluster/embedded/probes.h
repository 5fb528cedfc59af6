// Readiness, liveness and startup of containers, as Kubernetes' kubelet does it: periods, thresholds,
// startup first. Runs what a probe says through the pod's driver or an injected client.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/async.h"
#include "cluster/embedded/alarms.h"
#include "cluster/embedded/pod_driver.h"

namespace metier {

// Asks a pod over the network. Errors of both mean "not healthy" and their text is the message.
class ProbeClient {
 public:
  virtual ~ProbeClient() = default;
  virtual Async<Result<int>> http_get(std::string url,
                                      std::chrono::milliseconds timeout) = 0;  // the status
  virtual Async<Result<void>> tcp_connect(std::string host, int port,
                                          std::chrono::milliseconds timeout) = 0;
};

class Prober final {
 public:
  // `verdict` hears: container, whether it is ready, and (when its liveness or startup gave up) why.
  struct Verdict {
    std::string container;
    bool ready = false;
    bool dead = false;
    std::string message;
  };
  using Listener = std::function<void(const std::string& id, const Verdict&)>;

  Prober(PodDriver& driver, ProbeClient* client, Alarms& alarms, Scope& scope, Listener listener);
  ~Prober();

  static bool wanted(const Pod& pod);
  // Begins for a pod that runs; a known pod is left as it is.
  void start(const Pod& pod, const std::string& id, const std::string& address);
  void stop(const std::string& id);
  // Of a container: true when it has no readiness and no startup probe, or they succeed.
  bool ready(const std::string& id, const std::string& container) const;

 private:
  struct Watched;  // one container
  struct Check;    // one probe of it
  using CheckPtr = std::shared_ptr<Check>;

  void plan(const CheckPtr& check, std::chrono::milliseconds delay);
  Async<void> run(CheckPtr check);
  void overdue(const CheckPtr& check, std::chrono::milliseconds delay);
  void judge(const CheckPtr& check, Result<void> outcome);

  PodDriver& driver_;
  ProbeClient* client_;
  Alarms& alarms_;
  Scope& scope_;
  Listener listener_;
  std::map<std::string, std::vector<std::shared_ptr<Watched>>> pods_;
};

}  // namespace metier
