// SparkApplication (sparkoperator.k8s.io/v1beta2): a driver Pod, executor Pods that register with it, and a Service
// that names the driver. There is no standalone Master or Worker: an executor Pod runs Spark's own executor towards
// the driver's address, and the runner inside the pods (python/runner, spark.py) starts the JVMs.
//
//   status: {applicationState: {state: "" | "RUNNING" | "PENDING_RERUN" | "COMPLETED" | "FAILED", errorMessage},
//            driverInfo: {podName, podAddress, webUIServiceName, webUIPort}, executorState: {<pod>: "RUNNING"…},
//            executionAttempts, terminationTime, reason, failedPart, progress: {jobs, stages, tasks…}}
//
// The state stays empty until the driver's process runs: a waiting application is Pending with the scheduler's cause.
// An executor that fails is replaced; too many failures end the application (as spark.executor.maxNumFailures).
#pragma once

#include "cluster/controllers/controller.h"
#include "net/client.h"

namespace metier {

class SparkController final : public Controller {
 public:
  // Without a client nothing is asked of the driver's REST, so there is no progress. `archives`: folder of class-data
  // archives, may be empty.
  explicit SparkController(net::Client* client = nullptr, std::string archives = {})
      : client_(client), archives_(std::move(archives)) {}
  std::string_view api_version() const override { return "sparkoperator.k8s.io/v1beta2"; }
  std::string_view kind() const override { return "SparkApplication"; }
  Async<Result<Facts>> gather(const Resource& resource) override;
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override;
  Async<Result<void>> before_stop(const Resource& pod) override;

 private:
  net::Client* client_;
  std::string archives_;
};

}  // namespace metier
