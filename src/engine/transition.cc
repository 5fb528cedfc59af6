#include "engine/transition.h"

namespace metier {

RunRow row_of(const Run& run, Time now, const RunRow* before) {
  RunRow row;
  row.project = run.project();
  row.uid = run.uid();
  row.iteration = run.iteration();
  row.name = run.name();
  row.state = to_string(run.state());
  row.kind = run.label("kind");
  row.updated = now;
  row.start = from_iso(string_in(run.status(), "start_time"))
                  .value_or(before != nullptr ? before->start : now);
  if (const auto end = from_iso(string_in(run.status(), "end_time"))) { row.end = end; }
  if (const JsonObject* labels = object_in(run.metadata(), "labels")) {
    for (const auto& [key, value] : *labels) {
      if (value.is_string()) { row.labels.emplace(key, value.get_string()); }
    }
  }
  row.body = dump_object(run.document());
  row.version = before != nullptr ? before->version + 1 : 1;
  return row;
}

Result<std::optional<Run>> read_run(const Records& records, const std::string& project,
                                    const std::string& uid, std::int64_t iteration) {
  METIER_TRY(row, records.run(project, uid, iteration));
  if (!row) { return std::optional<Run>{}; }
  METIER_TRY(body, parse_json(row->body));
  METIER_TRY(run, Run::from_json(std::move(body)));
  return std::optional<Run>(std::move(run));
}

Result<void> note(Records& tx, const std::string& project, const std::string& uid,
                  std::int64_t attempt, Time at, std::string what, Json detail) {
  TimelineRow row;
  row.project = project;
  row.uid = uid;
  row.attempt = attempt;
  row.at = at;
  row.what = std::move(what);
  row.detail = dump_json(detail);
  return tx.add_timeline(row);
}

Result<Moved> move_run(Records& tx, const std::string& project, const std::string& uid,
                       const StateChange& change, Time now) {
  Moved moved;
  METIER_TRY(before, tx.run(project, uid, 0));
  if (!before) {
    moved.known = false;
    return moved;
  }
  METIER_TRY(body, parse_json(before->body));
  METIER_TRY(run, Run::from_json(std::move(body)));
  moved.from = run_state_from(before->state).value_or(run.state());
  moved.now = moved.from;
  moved.name = before->name;
  moved.kind = before->kind;
  if (moved.from == change.to || is_terminal(moved.from)) { return moved; }
  if (change.only_from && *change.only_from != moved.from) { return moved; }
  if (!may_follow(moved.from, change.to)) { return moved; }

  JsonObject& status = run.status();
  run.set_state(change.to);
  status["last_update"] = to_iso(now);
  status["reason"] = change.reason;
  status["status_text"] = change.text;
  if (!change.host.empty()) { status["host"] = change.host; }
  if (change.started && string_in(status, "start_time").empty()) {
    status["start_time"] = to_iso(*change.started);
  }
  if (is_terminal(change.to)) { status["end_time"] = to_iso(change.finished.value_or(now)); }
  // What the user's own code reported (by the journal) is nearer to the cause than what the cluster saw.
  if (change.to == RunState::error &&
      (string_in(status, "error").empty() || !change.error.empty())) {
    status["error"] = change.error.empty() ? change.text : change.error;
  }
  if (!change.failure.is_null()) { status["failure"] = change.failure; }
  if (change.edit) { change.edit(run); }
  METIER_CHECK(tx.put_run(row_of(run, now, &*before)));
  JsonObject detail{{"from", to_string(moved.from)}, {"to", to_string(change.to)}};
  if (!change.reason.empty()) { detail["reason"] = change.reason; }
  if (change.finished) { detail["finished"] = to_iso(*change.finished); }
  if (change.started) { detail["started"] = to_iso(*change.started); }
  METIER_CHECK(note(tx, project, uid, change.attempt, now, "state", std::move(detail)));
  moved.changed = true;
  moved.now = change.to;
  return moved;
}

}  // namespace metier
