// Inside the engine: what the parts of Deployments share. Not for others.
#pragma once

#include "engine/deployments.h"

namespace metier {

struct Deployments::Live {
  explicit Live(Executor loop) : changed(loop) {}
  DeploymentPlan plan;
  Function function;
  std::map<ResourceKey, ResourceStatus> resources;
  std::vector<Part> parts;
  bool applying = false;  // what is reported meanwhile may belong to the generation before
  bool working = false;
  bool dirty = false;
  bool done = false;
  int failures = 0;  // of the store or the cluster, in a row
  std::uint64_t epoch =
      0;  // grows by every deploy and by the removal: whoever works for an older one stops
  std::uint64_t revision = 0;
  Signal changed;  // its status, its resources, its end

  std::string key() const { return deployment_key(plan.project, plan.name, plan.tag); }
};

}  // namespace metier
