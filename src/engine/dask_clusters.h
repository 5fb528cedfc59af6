// The clusters of kind dask that clients start and look at without a run: `fn.client` of MLRun's SDK and of ours.
// A cluster is a shared object (label metier.dev/shared): runs of the same function find the same one.
#pragma once

#include <string>

#include "engine/engine.h"

namespace metier {

class DaskClusters final {
 public:
  DaskClusters(const Ground& ground, Engine& engine)
      : ground_(ground), engine_(engine), scope_(ground.loop) {}

  // Follows clusters until `stop`: the address of one that has closed leaves the function's status, so that no client tries it.
  Result<void> begin();
  // Opens the cluster of a stored function ("project/name[:tag]"), new or again; answers with MLRun's background task, ended
  // when the cluster is there within kHold: MLRun's client looks every five seconds only. When it succeeds, the function's
  // status has scheduler_address, cluster_name, dashboard, and node_ports without any: there is no node to open them.
  // Errors: not_found, invalid (another kind, wrong attributes), exhausted (never fits).
  Async<Result<Json>> start(std::string function_url, Caller caller);
  // Phase of the scheduler's pod in MLRun's word ("running" wins); "" when there is no cluster.
  Async<Result<std::string>> status(std::string project, std::string name, std::string tag);
  // Project and name of the cluster whose scheduler is at "tls://HOST:PORT".
  Async<Result<std::optional<std::pair<std::string, std::string>>>> at(std::string address);
  Async<void> stop();

 private:
  struct Wanted {
    Function function;
    Resource cluster;
    std::string opener;
  };
  Result<Wanted> lower(const std::string& function_url, const Caller& caller,
                       const std::string& opener) const;
  Async<void> bring_up(BackgroundTasks::Begun task, Wanted wanted);
  Async<std::string> opener_of(Resource cluster);
  Async<Result<Json>> until_ready(const Wanted& wanted, std::string before);
  Async<Result<void>> keep_status(const Function& function, Json status);
  void heard(const ResourceStatus& cluster);
  Async<void> forget_address(std::string project, std::string function, std::string tag,
                             std::string cluster, std::string state);

  const Ground& ground_;
  Engine& engine_;
  Scope scope_;
  std::shared_ptr<void> watch_;
};

}  // namespace metier
