// MPIJob (kubeflow.org/v1 and v2beta1) on this machine: a launcher pod, worker pods, one gang. The launcher's mpirun is the
// only daemon; its ranks are processes of the worker pods (annotation metier.dev/ranks), forked by their shims.
//
//   v1       spec: {slotsPerWorker, cleanPodPolicy, mpiReplicaSpecs: {Launcher: {template}, Worker: {replicas, template}}}
//            annotations metier.dev/run-launcher-as-worker, metier.dev/launcher-creation-policy
//   v2beta1  the same, and runPolicy.cleanPodPolicy, runLauncherAsWorker, launcherCreationPolicy
//
// Status as the operator's: conditions Created, Running, Succeeded, Failed; replicaStatuses; startTime, completionTime. The
// job is over when its launcher has ended and, unless the clean-pod policy is None, its workers too: then every rank's end
// is known.
#pragma once

#include <string>

#include "cluster/controllers/controller.h"

namespace metier {

class MpiJobController final : public Controller {
 public:
  // `program`: metier-mpi, as pods see it.
  explicit MpiJobController(std::string program) : program_(std::move(program)) {}
  std::string_view api_version() const override { return "kubeflow.org/v1"; }
  std::string_view kind() const override { return "MPIJob"; }
  Async<Result<Facts>> gather(const Resource& resource) override;
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override;
  Async<Result<void>> before_stop(const Resource& pod) override;

 private:
  std::string program_;
};

}  // namespace metier
