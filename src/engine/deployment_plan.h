// What the engine knows of a deployment beyond the function's document, which clients may replace: the
// function as deployed, the names of its objects, what was said of it last. A setting (scope "deployment"),
// written in the same transaction as the function and its objects.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "resource/resource.h"
#include "store/store.h"

namespace metier {

struct DeploymentPlan {
  std::string project;
  std::string name;  // of the function
  std::string tag;   // "" = latest
  std::string kind;
  std::string hash;
  Json function;                     // as deployed: what the kind lowers and observes
  std::int64_t generation = 1;       // grows by every deploy that changes something
  std::vector<ResourceKey> objects;  // what it lowers to, its own
  std::vector<std::string> shared;   // what it has together with runs (label metier.dev/shared)
  Json environment;                  // what the pods' annotation metier.dev/environment says
  std::string context;               // snapshot folder, or empty
  std::int64_t run_as = -1;          // uid of the pods, when it is not the server's
  bool was_ready = false;            // this generation has been ready
  bool removing = false;
  Json
      notes;  // conditions of the deploy itself ([{type, status, reason, message}]): fields ignored here…
  Json
      status;  // the function's status as observed last: {"state", "reason", "message", "address", …}

  std::string state() const { return std::string(string_at(status, "state")); }
};

// "project/name" or "project/name:tag".
std::string deployment_key(std::string_view project, std::string_view name, std::string_view tag);
// The value of label metier.dev/deployment on everything that belongs to it, pods included.
std::string deployment_label(std::string_view name, std::string_view tag);
inline constexpr std::string_view kDeploymentLabel = "metier.dev/deployment";
inline constexpr std::string_view kGenerationAnnotation = "metier.dev/generation";

Json to_json(const DeploymentPlan& plan);
Result<DeploymentPlan> deployment_plan_from_json(std::string_view text);
Result<std::optional<DeploymentPlan>> read_deployment(const Records& records,
                                                      const std::string& key);
Result<std::vector<DeploymentPlan>> all_deployments(const Records& records);
Result<void> write_deployment(Records& tx, const DeploymentPlan& plan);
Result<void> forget_deployment(Records& tx, const DeploymentPlan& plan);

}  // namespace metier
