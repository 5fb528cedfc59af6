// A run: MLRun's document {kind: run, metadata, spec, status} behind typed access, and the rules of its states.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "model/names.h"

namespace metier {

enum class RunState {
  created,
  pending,
  running,
  completed,
  error,
  aborting,
  aborted,
  unknown,
  skipped,
  pending_retry
};
std::string_view to_string(RunState state);  // "pendingRetry" for pending_retry
std::optional<RunState> run_state_from(std::string_view text);
bool is_terminal(RunState state);             // completed, error, aborted, skipped
bool may_follow(RunState from, RunState to);  // the allowed graph; a terminal state never changes

class Run {
 public:
  Run();
  static Result<Run> from_json(Json document);

  std::string uid() const;
  std::string name() const;
  std::string project() const;
  std::int64_t iteration() const;  // metadata.iteration or metadata.iter
  RunState state() const;          // created when absent, unknown when not one of ours
  void set_uid(std::string_view uid);
  void set_name(std::string_view name);
  void set_project(std::string_view project);
  void set_state(RunState state);
  std::string label(std::string_view key) const;
  void set_label(std::string_view key, std::string_view value);

  JsonObject& metadata();
  JsonObject& spec();
  JsonObject& status();
  const JsonObject& metadata() const;
  const JsonObject& spec() const;
  const JsonObject& status() const;
  const JsonObject& document() const { return document_; }
  JsonObject& document() { return document_; }
  Json to_dict() const;

 private:
  JsonObject document_;
};

// Checks of a run before it is launched: name, parameters (integers ≥ 2^63 anywhere), inputs (text to text),
// output path, thresholds, retry. Errors: invalid, field by path.
Result<void> validate_run(const Run& run);
// Integers past 2^63 - 1 anywhere inside are refused ("parameters.a[2].b"). (Past 2^64 a number has been read as a
// floating one, as every JSON reader but Python's does.)
Result<void> check_integers(const Json& value, std::string_view field);
// Keys pending_scheduled, pending_not_scheduled, image_pull_backoff, executing; a duration of at least a minute, or "-1".
Result<void> check_state_thresholds(const JsonObject& thresholds, std::string_view field);

}  // namespace metier
