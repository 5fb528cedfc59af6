// The contract of a pod driver: one Pod on this node into processes (`process`, later `oci`, a fake).
//  - start twice with one id is a conflict; a failed start leaves nothing behind.
//  - The handle carries the driver's name, a layout version and a private payload. Others store it and never
//    parse it. recover accepts every version ever released and does nothing for a pod it already knows.
//  - wait works before and after the end, until destroy. An unknown id is not_found, everywhere.
//  - stop repeats harmlessly. destroy refuses a live pod and removes every trace of a dead one.
//  - Terminal states never change again; each carries a reason that a user can read.
// All calls on the loop's thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/async.h"
#include "cluster/cluster.h"
#include "resource/pod.h"

namespace metier {

struct PodHandle {
  std::string driver;
  int version = 0;
  std::string payload;
};

// A pod with everything resolved: the node has opened secrets and config maps, chosen volumes' folders,
// address and devices. The driver asks nobody.
struct LaunchVolume {
  std::string name;
  std::string path;  // a folder or file of the host; empty for `files`
  std::vector<std::pair<std::string, std::string>>
      files;  // name → content (secret, config map): memory-backed
  bool read_only = false;
  bool temporary =
      false;  // emptyDir: the driver makes it in the pod's folder (path is empty), removed with the pod
  bool memory = false;
};
struct LaunchSpec {
  Pod pod;
  std::string id;  // the pod's uid: names folder and cgroup
  std::map<std::string, std::vector<std::pair<std::string, std::string>>>
      env;  // container → resolved variables, in order
  std::vector<LaunchVolume> volumes;
  std::string pod_ip;       // its loopback address, or empty
  std::string hosts;        // text of /etc/hosts, or empty
  std::string python;       // interpreter of its environment
  std::string environment;  // id of the environment, for the zygote
  std::string path_suffix;  // folder last on PATH (our `mlrun`)
  // A host process (kind local): runs in the caller's folder and environment, no mounts, no own address.
  bool host_process = false;
  std::string share_group;  // gang pods with one id share IPC and /dev/shm
};

// Optional ability of a driver: a signal to the main process of each running container. When it ends by it,
// the pod's restart policy decides what follows.
class PodSignals {
 public:
  virtual ~PodSignals() = default;
  virtual Async<Result<void>> signal(std::string id, int number) = 0;
};

class PodDriver {
 public:
  virtual ~PodDriver() = default;
  virtual PodSignals* signals() { return nullptr; }
  virtual std::string_view name() const = 0;
  virtual Async<Result<PodHandle>> start(LaunchSpec spec) = 0;
  virtual Async<Result<void>> recover(std::string id, PodHandle handle) = 0;
  // Ids of pods that the driver finds on this node by itself (folders, labels), also those without a handle.
  virtual Async<Result<std::vector<std::string>>> found() = 0;
  virtual Async<Result<PodStatus>> status(std::string id) = 0;
  virtual Async<Result<PodStatus>> wait(std::string id) = 0;
  // Hears of every change of a pod's status (running, a container restarted, ended).
  virtual void on_change(std::function<void(const std::string& id, const PodStatus&)> listener) = 0;
  virtual Async<Result<ExecResult>> exec(std::string id, std::string container, ExecSpec spec) = 0;
  virtual Async<Result<void>> stop(std::string id, StopOptions options) = 0;
  virtual Async<Result<void>> destroy(std::string id) = 0;
  virtual Async<Result<Usage>> usage(std::string id) = 0;
  virtual Result<std::string> log_path(const std::string& id, const std::string& container,
                                       int attempt) const = 0;
  virtual Result<std::string> work_folder(const std::string& id) const = 0;
  // What this host cannot enforce; each becomes a condition of every pod that asks for it.
  virtual std::vector<Condition> limits_of_host() const = 0;
};

}  // namespace metier
