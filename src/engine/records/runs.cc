#include <fmt/format.h>

#include <algorithm>

#include "base/digest.h"
#include "engine/records/records.h"
#include "model/run.h"

namespace metier::records {
namespace {

constexpr std::string_view kState = "status.state";

// The short forms of artifacts that clients send are kept as URIs only: {key: store-uri}.
void take_artifacts(JsonObject& status) {
  auto* found = status.if_contains("artifacts");
  if (found == nullptr) { return; }
  const Json list = std::move(*found);  // a member that is added moves all of them
  if (list.is_array() && !list.get_array().empty()) {
    auto& uris = ensure_object(status, "artifact_uris");
    for (const auto& item : list.get_array()) {
      const auto* artifact = item.if_object();
      if (artifact == nullptr) { continue; }
      const auto* metadata = object_in(*artifact, "metadata");
      const auto* spec = object_in(*artifact, "spec");
      if (metadata == nullptr) { continue; }
      const auto kind = string_in(*artifact, "kind");
      const std::string db_key(spec == nullptr
                                   ? string_in(*metadata, "key")
                                   : string_in(*spec, "db_key", string_in(*metadata, "key")));
      const auto* folder = kind == "model"     ? "models"
                           : kind == "dataset" ? "datasets"
                                               : "artifacts";
      auto uri = fmt::format("store://{}/{}/{}#{}", folder, string_in(*metadata, "project"), db_key,
                             int_in(*metadata, "iter").value_or(0));
      if (const auto tag = string_in(*metadata, "tag"); !tag.empty()) {
        uri += fmt::format(":{}", tag);
      }
      if (const auto tree = string_in(*metadata, "tree"); !tree.empty()) {
        uri += fmt::format("@{}", tree);
      }
      uris[string_in(*metadata, "key")] = uri;
    }
  }
  status.erase("artifacts");
}

// What a notification needs to reach its service (a web hook's address, a token) is kept as a project secret; the
// run refers to it by key, as MLRun's server does.
Result<void> hide_notification_params(Records& tx, const RunWrite& target, JsonObject& body) {
  auto* spec = object_in(body, "spec");
  auto* list = spec == nullptr ? nullptr : spec->if_contains("notifications");
  if (list == nullptr || !list->is_array()) { return {}; }
  for (auto& item : list->get_array()) {
    auto* notification = item.if_object();
    const auto* params =
        notification == nullptr ? nullptr : object_in(*notification, "secret_params");
    if (params == nullptr || params->empty() ||
        (params->size() == 1 && params->contains("secret"))) {
      continue;
    }
    const auto text = dump_python_json(Json(*params));
    const auto key = "mlrun.notifications." +
                     sha256_hex(target.project + '\0' + target.uid + '\0' + text).substr(0, 56);
    METIER_CHECK(
        tx.put_secret(target.project, "mlrun-project-secrets-" + target.project, key, text));
    (*notification)["secret_params"] = JsonObject{{"secret", key}};
  }
  return {};
}

Labels labels_of(const JsonObject& document) {
  Labels out;
  const auto* labels = find_path(document, "metadata.labels");
  if (labels == nullptr || !labels->is_object()) { return out; }
  for (const auto& [key, value] : labels->get_object()) {
    if (value.is_string()) { out.emplace(key, value.get_string()); }
  }
  return out;
}

// Whether a state that a client claims may replace the stored one.
bool may_claim(std::string_view before, std::string_view claimed, bool held) {
  if (held) { return false; }
  const auto from = run_state_from(before);
  const auto to = run_state_from(claimed);
  if (!to) { return false; }
  if (!from) { return true; }
  if (is_terminal(*from) || *from == RunState::aborting) { return *from == *to; }
  return true;
}

Result<RunWritten> write(Records& tx, const RunWrite& target, JsonObject& document,
                         const std::optional<RunRow>& before, Time now) {
  auto& status = ensure_object(document, "status");
  status["last_update"] = to_iso(now);
  const auto start = from_iso(string_in(status, "start_time"));
  RunRow row;
  row.project = target.project;
  row.uid = target.uid;
  row.iteration = target.iteration;
  if (const auto* metadata = object_in(document, "metadata")) {
    row.name = string_in(*metadata, "name");
  }
  row.state = string_in(status, "state");
  row.labels = labels_of(document);
  if (const auto kind = row.labels.find("kind"); kind != row.labels.end()) {
    row.kind = kind->second;
  }
  row.start = start ? *start : before ? before->start : now;
  if (!start) { status["start_time"] = to_iso(row.start); }
  row.updated = now;
  const auto state = run_state_from(row.state);
  if (state && is_terminal(*state)) {
    if (string_in(status, "end_time").empty()) { status["end_time"] = to_iso(now); }
    row.end = from_iso(string_in(status, "end_time"));
  }
  row.body = dump_object(document);
  METIER_CHECK(tx.put_run(row));
  return RunWritten{row.name, row.state, !before.has_value()};
}

}  // namespace

Result<RunWritten> store_run(Records& tx, const RunWrite& target, JsonObject body, Time now) {
  METIER_CHECK(require_project(tx, target.project));
  auto& metadata = ensure_object(body, "metadata");
  const std::string name(string_in(metadata, "name"));
  if (name.empty()) {
    return fail(
        invalid("metadata.name", "the run has no name", "give it one, at most 63 characters"));
  }
  if (const auto uid = string_in(metadata, "uid"); !uid.empty() && uid != target.uid) {
    return fail(
        invalid("metadata.uid",
                fmt::format("{} is not the {} of the address", quote(uid), quote(target.uid)),
                "give the same uid in both"));
  }
  METIER_TRY(before, tx.run(target.project, target.uid, target.iteration));
  if (before && before->name != name) {
    return fail(
        invalid("metadata.name",
                fmt::format("the run is called {}, not {}", quote(before->name), quote(name)),
                "a run keeps its name"));
  }
  metadata["uid"] = target.uid;
  metadata["project"] = target.project;
  metadata["iteration"] = target.iteration;
  auto& status = ensure_object(body, "status");
  if (string_in(status, "state").empty()) { status["state"] = "created"; }
  take_artifacts(status);
  METIER_CHECK(hide_notification_params(tx, target, body));
  if (before) {
    METIER_TRY(old, parse_json(before->body));
    if (!may_claim(before->state, string_in(status, "state"), target.held)) {
      status["state"] = before->state;
    }
    const auto* old_status = object_in(old.get_object(), "status");
    if (old_status != nullptr) {
      // What the server itself has written there stays when the client's body does not know it.
      for (const auto* key : {"start_time", "artifact_uris", "reason", "abort_task_id",
                              "retry_count", "retries", "host", "failure"}) {
        const auto* value = old_status->if_contains(key);
        if (value != nullptr && (!status.contains(key) || is_empty_value(status[key]))) {
          status[key] = *value;
        }
      }
    }
  }
  return write(tx, target, body, before, now);
}

Result<RunWritten> patch_run(Records& tx, const RunWrite& target, const JsonObject& changes,
                             Time now) {
  METIER_TRY(before, tx.run(target.project, target.uid, target.iteration));
  if (!before) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = fmt::format("run {} does not exist in project {}",
                                             quote(target.uid), quote(target.project)),
                      .fix = "see: metier get runs -P " + target.project});
  }
  METIER_TRY(document, parse_json(before->body));
  auto& body = document.get_object();
  bool artifacts = false;
  for (const auto& [key, value] : changes) {
    const std::string_view path(key);
    if (path == kState) {
      const auto* text = value.if_string();
      if (text == nullptr || !may_claim(before->state, *text, target.held)) { continue; }
    }
    if (path == "metadata.uid" || path == "metadata.project" || path == "metadata.name" ||
        path == "status.last_update") {
      continue;
    }
    if (path == "status.artifacts") {
      artifacts = true;
      ensure_object(body, "status")["artifacts"] = value;
      continue;
    }
    if (path == "status" || path == "metadata" || path == "spec") {
      return fail(invalid(path, "a whole part cannot be replaced by a change",
                          "send dotted paths: status.results.accuracy"));
    }
    METIER_CHECK(set_dotted(body, path, value));
  }
  auto& status = ensure_object(body, "status");
  if (artifacts && !changes.contains("status.artifact_uris")) {
    // Each writer sends its full list: it replaces what was there.
    status["artifact_uris"] = JsonObject{};
  }
  take_artifacts(status);
  METIER_CHECK(hide_notification_params(tx, target, body));
  return write(tx, target, body, before, now);
}

namespace {

Result<RunRow> stored_run(const Records& records, const std::string& project,
                          const std::string& uid, std::int64_t iteration) {
  METIER_TRY(row, records.run(project, uid, iteration));
  if (row) { return std::move(*row); }
  return fail(Error{
      .kind = ErrorKind::not_found,
      .message = fmt::format("run {} does not exist in project {}",
                             quote(uid + (iteration == 0 ? "" : "#" + std::to_string(iteration))),
                             quote(project)),
      .fix = "see: metier get runs -P " + project});
}

// The artifacts of a run, each under one of its tags.
Result<std::vector<ArtifactRow>> artifacts_of(const Records& records, const std::string& project,
                                              const std::string& uid, std::int64_t iteration) {
  ArtifactFilter filter{.project = project, .tree = uid};
  if (iteration != 0) {
    filter.iteration = iteration;
  } else {
    filter.best_iteration = true;
  }
  METIER_TRY(rows, records.artifacts(filter));
  const auto same = [](const ArtifactRow& a, const ArtifactRow& b) {
    return a.key == b.key && a.uid == b.uid && a.iteration == b.iteration;
  };
  rows.erase(std::unique(rows.begin(), rows.end(), same), rows.end());
  return std::move(rows);
}

}  // namespace

Result<std::string> read_run_text(const Records& records, const std::string& project,
                                  const std::string& uid, std::int64_t iteration, bool full) {
  METIER_TRY(row, stored_run(records, project, uid, iteration));
  if (!full) { return std::move(row.body); }
  METIER_TRY(rows, artifacts_of(records, project, uid, iteration));
  std::string member = "\"artifacts\":[";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i > 0) { member += ','; }
    member += artifact_text(rows[i]);
  }
  member += ']';
  if (row.body.find("\"artifacts\":") == std::string::npos &&
      add_member_text(row.body, "status", member)) {
    return std::move(row.body);
  }
  METIER_TRY(run, read_run(records, project, uid, iteration, full));
  return dump_json(run);
}

Result<Json> read_run(const Records& records, const std::string& project, const std::string& uid,
                      std::int64_t iteration, bool full) {
  METIER_TRY(row, stored_run(records, project, uid, iteration));
  METIER_TRY(document, parse_json(row.body));
  if (!full) { return document; }
  METIER_TRY(rows, artifacts_of(records, project, uid, iteration));
  JsonArray list;
  for (const auto& artifact : rows) { list.push_back(artifact_of_row(artifact)); }
  ensure_object(document.get_object(), "status")["artifacts"] = std::move(list);
  return document;
}

}  // namespace metier::records
