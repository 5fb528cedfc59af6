// TaskSet (metier.dev/v1): `spec.replicas` pods of one template that run to their end; done when all have
// succeeded, failed when one failed. With `spec.gang: true` they start together or not at all.
//
//   spec: {replicas: 4, gang: true, template: {metadata: {labels: {…}}, spec: {containers: […]}}}
//   status: {state: "Waiting" | "Running" | "Succeeded" | "Failed", succeeded: 1, failed: 0, running: 3, reason, message}
//
// The smallest controller: it is how parallel tasks run, and what the controllers of engines look like.
#pragma once

#include "cluster/controllers/controller.h"

namespace metier {

class TaskSetController final : public Controller {
 public:
  std::string_view api_version() const override { return "metier.dev/v1"; }
  std::string_view kind() const override { return "TaskSet"; }
  Async<Result<Facts>> gather(const Resource& resource) override;
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override;
  Async<Result<void>> before_stop(const Resource& pod) override;
};

}  // namespace metier
