// MLRun's runtime resources: the pods and custom resources of runs, as the cluster has them now.
#pragma once

#include <string>
#include <vector>

#include "engine/ground.h"

namespace metier {

struct ResourceQuery {
  std::string project;         // "*" = all
  std::string kind;            // "job", "mpijob"…
  std::string object_id;       // run uid
  std::string label_selector;  // "a=b,c=d"
  std::string group_by;        // "", "job", "project"
  bool force = false;
  std::int64_t grace_s = 14'400;
};

class RuntimeResources final {
 public:
  explicit RuntimeResources(Ground& ground) : ground_(ground) {}
  Async<Result<Json>> list(ResourceQuery query);
  // Removes those in a terminal state older than the grace period; with `force` all. Gives what was removed.
  Async<Result<Json>> remove(ResourceQuery query);

 private:
  Async<Result<std::vector<ResourceStatus>>> find(const ResourceQuery& query);
  Ground& ground_;
};

}  // namespace metier
