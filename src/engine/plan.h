// What the engine knows about a run beyond the run's own document, which clients may replace: which function,
// which attempt, which names. Stored as a setting (scope "plan") in the same transaction as the run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "resource/pod.h"
#include "resource/resource.h"
#include "store/store.h"

namespace metier {

struct Plan {
  std::string project;
  std::string uid;
  std::string kind;
  std::string function_name;
  std::string function_hash;  // empty: the function is in `function`
  Json function;              // of kinds that store none
  std::int64_t attempt = 1;
  std::vector<std::string> names;    // of the pods' resource, by attempt: names[attempt - 1]
  std::vector<ResourceKey> objects;  // of the current attempt
  std::vector<std::string> shared;   // objects that outlive the run (label metier.dev/shared)
  std::string claimed;               // terminal state that the pod itself reported, or empty
  std::string environment_secret;    // of a host process, removed with the run's resources
  Json environment;                  // what the pods' annotation metier.dev/environment says
  std::string context;               // snapshot folder, or empty
  std::string working_dir;           // of a host process
  std::int64_t run_as = -1;          // uid of the pods, when it is not the server's
  Json failure;                      // what the journal said, of the current attempt
  JsonArray told;                    // conditions since the submit: [{type, message}, …]
  bool ended = false;                // terminal state recorded; resources may still exist
  bool pods_stay = false;            // those that live at its end, until it is clean
  bool clean = false;                // resources removed, logs archived
  std::string stop_reason;  // why the engine itself stops it: "AbortedByUser", "ThresholdExceeded"
  std::string stop_text;
  std::string abort_task;
  std::string ended_at;  // ISO

  const std::string& name() const { return names.back(); }
};

// A field of the request that has no effect here.
Condition ignored_field(std::string message);

std::string plan_key(std::string_view project, std::string_view uid);
Json to_json(const Plan& plan);
Result<Plan> plan_from_json(std::string_view text);

Result<std::optional<Plan>> read_plan(const Records& records, const std::string& project,
                                      const std::string& uid);
Result<void> write_plan(Records& tx, const Plan& plan);
Result<void> forget_plan(Records& tx, const std::string& project, const std::string& uid);

}  // namespace metier
