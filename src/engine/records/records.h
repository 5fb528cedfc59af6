// MLRun's rules for records: how runs, functions, artifacts and projects are stored, changed and read. Pure
// over a transaction (Records&), so that REST and the engine's own writes obey the same ones.
// Source: mlrun-rest-api reference 3, 4.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "store/store.h"

namespace metier::records {

// --- projects ---
Result<void> require_project(const Records& records,
                             const std::string& name);  // not_found, with the fix
Result<Json> create_project(Records& tx, const JsonObject& body,
                            Time now);  // conflict when it exists
Result<Json> put_project(Records& tx, const std::string& name, JsonObject body, Time now);
Result<Json> patch_project(Records& tx, const std::string& name, const JsonObject& body,
                           bool additive, Time now);
Result<Json> read_project(const Records& records, const std::string& name);

// --- functions ---
// Gives the hash. `versioned` false: one row per tag, overwritten.
Result<std::string> store_function(Records& tx, const std::string& project, const std::string& name,
                                   const std::string& tag, bool versioned, Json body, Time now);
Result<Json> read_function(const Records& records, const std::string& project,
                           const std::string& name, const std::string& tag,
                           const std::string& hash);
Json function_of_row(const FunctionRow& row);

// --- runs ---
// What a change did to a run, for whoever follows it.
struct RunWritten {
  std::string name;
  std::string state;
  bool created = false;
};
struct RunWrite {
  std::string project;
  std::string uid;
  std::int64_t iteration = 0;
  bool held = false;  // the engine decides this run's state: claims of clients are kept out
};
// Replaces the body, creates when absent (POST). A state after a terminal one is dropped, the rest is kept.
Result<RunWritten> store_run(Records& tx, const RunWrite& target, JsonObject body, Time now);
// Dotted keys (PATCH). Errors: not_found.
Result<RunWritten> patch_run(Records& tx, const RunWrite& target, const JsonObject& changes,
                             Time now);
// With `full` the artifacts are put back into status.artifacts.
// The same as text, which is what most readers want: bodies are stored as text, and nothing is parsed.
Result<std::string> read_run_text(const Records& records, const std::string& project,
                                  const std::string& uid, std::int64_t iteration, bool full);
Result<Json> read_run(const Records& records, const std::string& project, const std::string& uid,
                      std::int64_t iteration, bool full);

// --- artifacts ---
struct ArtifactWrite {
  std::string project;
  std::string key;   // db_key
  std::string tag;   // empty: latest
  std::string tree;  // empty: the body's
  std::optional<std::int64_t> iteration;
  std::string object_uid;  // when given it must be the computed one
  bool must_be_new = false;
};
// The stored artifact as read back. A `link` marks the best iteration and gives that artifact.
Result<Json> store_artifact(Records& tx, const ArtifactWrite& target, JsonObject body, Time now);
struct ArtifactQuery {
  std::string project, key, tag, tree, object_uid;
  std::optional<std::int64_t> iteration;
};
Result<Json> read_artifact(const Records& records, const ArtifactQuery& query);
Result<std::vector<ArtifactRow>> find_artifacts(const Records& records, const ArtifactQuery& query);
Json artifact_of_row(const ArtifactRow& row);
std::string artifact_text(const ArtifactRow& row);
std::string artifact_uid(const JsonObject& artifact, std::int64_t iteration,
                         const std::string& tree);
// "store://models/p/key#0:tag@tree"
std::string artifact_uri(const ArtifactRow& row);

}  // namespace metier::records
