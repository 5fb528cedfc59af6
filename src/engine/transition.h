// The one way in which the engine changes a run's state: compare-and-set inside the transaction that also
// writes the timeline. Terminal states never change; only the graph of model/run.h is walked.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "model/run.h"
#include "store/store.h"

namespace metier {

struct StateChange {
  RunState to = RunState::running;
  std::optional<RunState> only_from;  // else whatever the graph allows
  std::string reason;                 // reason code: status.reason
  std::string text;                   // status.status_text
  std::string error;                  // status.error, for errors
  Json failure;                       // status.failure, may be null
  std::string host;
  std::optional<Time> started;  // status.start_time when the run has none from its pod
  std::optional<Time> finished;
  std::function<void(Run&)> edit;  // further changes of the document, made with the change
  std::int64_t attempt = 1;
};

struct Moved {
  bool changed = false;  // false: same state, or the graph forbids it
  bool known = true;     // false: no such run
  RunState from = RunState::created;
  RunState now = RunState::created;
  std::string name;
  std::string kind;
};

// Errors: of the store only. A change that the graph forbids is not an error: `changed` is false.
Result<Moved> move_run(Records& tx, const std::string& project, const std::string& uid,
                       const StateChange& change, Time now);

// A run's row: columns from its document. `version` continues that of `before`.
RunRow row_of(const Run& run, Time now, const RunRow* before);
Result<std::optional<Run>> read_run(const Records& records, const std::string& project,
                                    const std::string& uid, std::int64_t iteration = 0);

Result<void> note(Records& tx, const std::string& project, const std::string& uid,
                  std::int64_t attempt, Time at, std::string what, Json detail);

}  // namespace metier
