#include <map>

#include "engine/journal.h"
#include "engine/transition.h"
#include "model/run.h"

namespace metier {
namespace {

// The runs (iterations) that a batch touches: read once, written once.
class Touched final {
 public:
  Touched(Records& tx, const std::string& project, const std::string& uid, Time now)
      : tx_(tx), project_(project), uid_(uid), now_(now) {}

  // Null when there is no such run and `make` is false.
  Result<Run*> get(std::int64_t iteration, bool make) {
    if (const auto have = runs_.find(iteration); have != runs_.end()) { return &have->second.run; }
    METIER_TRY(row, tx_.run(project_, uid_, iteration));
    if (!row && !make) { return nullptr; }
    Entry entry;
    if (row) {
      METIER_TRY(body, parse_json(row->body));
      METIER_TRY(run, Run::from_json(std::move(body)));
      entry.run = std::move(run);
      entry.before = std::move(row);
    }
    return &runs_.emplace(iteration, std::move(entry)).first->second.run;
  }

  Result<void> write() {
    for (auto& [iteration, entry] : runs_) {
      entry.run.status()["last_update"] = to_iso(now_);
      METIER_CHECK(tx_.put_run(row_of(entry.run, now_, entry.before ? &*entry.before : nullptr)));
    }
    return {};
  }

 private:
  struct Entry {
    Run run;
    std::optional<RunRow> before;
  };
  Records& tx_;
  const std::string& project_;
  const std::string& uid_;
  Time now_;
  std::map<std::int64_t, Entry> runs_;
};

bool of_the_server(std::string_view path) {
  return path == "metadata.uid" || path == "metadata.project" || path == "metadata.name" ||
         path == "metadata.iteration" || path == "metadata" || path == "spec" || path == "status" ||
         path == "kind" || path == "status.artifacts" || path == "status.start_time" ||
         path == "status.reason" || path == "status.last_update" ||
         path == "status.abort_task_id" || path == "spec.function" ||
         path.starts_with("status.retr");
}

void claim(JournalApplied& out, std::string_view state) {
  const auto parsed = run_state_from(state);
  if (parsed && is_terminal(*parsed)) { out.claimed = state; }
}

Result<void> patch(Touched& runs, const JsonObject& record, std::int64_t iteration,
                   JournalApplied& out) {
  const JsonObject* body = object_in(record, "body");
  if (body == nullptr) { return {}; }
  METIER_TRY(run, runs.get(iteration, false));
  if (run == nullptr) {
    out.odd.push_back("an update of iteration " + std::to_string(iteration) +
                      " that does not exist was left out");
    return {};
  }
  for (const auto& [key, value] : *body) {
    const std::string_view path(key);
    if (iteration == 0 && path == "status.state") {
      if (value.is_string()) { claim(out, value.get_string()); }
      continue;
    }
    if (iteration == 0 && path == "status.error" && value.is_string()) {
      out.claimed_error = value.get_string();
    }
    if (of_the_server(path)) { continue; }
    if (const auto set = set_dotted(run->document(), path, value); !set) {
      out.odd.push_back("an update was left out: " + set.error().message);
    }
  }
  return {};
}

Result<void> store_child(Touched& runs, const JsonObject& record, std::int64_t iteration,
                         const std::string& project, const std::string& uid, JournalApplied& out) {
  const JsonObject* body = object_in(record, "body");
  if (body == nullptr) { return {}; }
  METIER_TRY(given, Run::from_json(Json(*body)));
  METIER_TRY(run, runs.get(iteration, iteration > 0));
  if (run == nullptr) { return {}; }
  if (iteration == 0) {
    // The parent is the server's: what the run may say about itself is merged in.
    claim(out, string_in(given.status(), "state"));
    for (const char* key : {"parameters", "inputs", "outputs", "handler", "returns"}) {
      if (const Json* value = given.spec().if_contains(key);
          value != nullptr && !is_empty_value(*value)) {
        run->spec()[key] = *value;
      }
    }
    for (const char* key : {"results", "artifact_uris", "iterations", "commit", "host", "ui_url"}) {
      if (const Json* value = given.status().if_contains(key);
          value != nullptr && !is_empty_value(*value)) {
        run->status()[key] = *value;
      }
    }
    if (const JsonObject* labels = object_in(given.metadata(), "labels")) {
      for (const auto& [key, value] : *labels) {
        if (value.is_string() && key != "kind") { run->set_label(key, value.get_string()); }
      }
    }
    return {};
  }
  *run = std::move(given);
  run->set_uid(uid);
  run->set_project(project);
  run->metadata()["iteration"] = iteration;
  if (run->name().empty()) {
    METIER_TRY(parent, runs.get(0, false));
    if (parent != nullptr) { run->set_name(parent->name()); }
  }
  run->status().erase("artifacts");
  if (string_in(run->status(), "state").empty()) { run->set_state(RunState::created); }
  return {};
}

double time_of(const Json& failure) {
  const Json* at = failure.is_object() ? failure.get_object().if_contains("at") : nullptr;
  return at != nullptr && at->is_number() ? at->to_number<double>() : 0.0;
}

bool is_of_launcher(const Json& failure) {
  return failure.is_object() && string_at(failure, "part") == "launcher";
}

}  // namespace

void keep_cause(Json& held, const Json& more) {
  const bool other = is_of_launcher(more) || time_of(held) == 0.0 || time_of(more) < time_of(held);
  if (held.is_null() || (other && !is_of_launcher(held))) { held = more; }
}

Result<JournalApplied> apply_journal(Records& tx, const std::string& project,
                                     const std::string& uid, std::int64_t attempt,
                                     const std::vector<Json>& records, Time now) {
  JournalApplied out;
  Touched runs(tx, project, uid, now);
  for (const Json& json : records) {
    if (!json.is_object()) { continue; }
    const JsonObject& record = json.get_object();
    const std::string_view op = string_in(record, "op");
    const std::int64_t iteration = int_in(record, "iter").value_or(0);
    if (iteration < 0 || iteration > 10'000'000) {
      out.odd.push_back("iteration " + std::to_string(iteration) +
                        " of a journal record is out of range");
      continue;
    }
    Result<void> done;
    if (op == "patch_run") {
      done = patch(runs, record, iteration, out);
    } else if (op == "store_run") {
      done = store_child(runs, record, iteration, project, uid, out);
    } else if (op == "store_artifact") {
      done = store_artifact_record(tx, project, uid, iteration, record, now);
    } else if (op == "phase") {
      const std::string_view name = string_in(record, "name");
      const Json* at = record.if_contains("at");
      if (!name.empty() && name.size() <= 32 && at != nullptr &&
          (at->is_double() || at->is_int64())) {
        done =
            note(tx, project, uid, attempt, now, "phase", JsonObject{{"name", name}, {"at", *at}});
      }
    } else if (op == "failure") {
      if (const JsonObject* body = object_in(record, "body")) { keep_cause(out.failure, *body); }
    }
    if (!done) {
      // A record that is wrong in itself is left out; a store that does not answer ends the batch.
      if (done.error().kind == ErrorKind::unavailable || done.error().kind == ErrorKind::internal) {
        return fail(std::move(done.error()));
      }
      out.odd.push_back(std::string(op) + ": " + done.error().text());
    }
  }
  METIER_CHECK(runs.write());
  return out;
}

}  // namespace metier
