#include <algorithm>

#include "store/sqlite_records.h"

namespace metier {
namespace {

std::string place(const std::string& project, const std::string& secret, const std::string& key) {
  return project + '\0' + secret + '\0' + key;
}

FunctionRow function_from(const Query& q) {
  return {.project = q.text(0),
          .name = q.text(1),
          .uid = q.text(2),
          .tag = q.text(3),
          .kind = q.text(4),
          .body = q.text(5),
          .updated = from_micros(q.integer(6))};
}

bool has_label(const JsonObject& labels, const std::string& condition) {
  const auto equals = condition.find('=');
  const auto* value = labels.if_contains(condition.substr(0, equals));
  if (value == nullptr) { return false; }
  return equals == std::string::npos ||
         (value->is_string() &&
          std::string_view(value->get_string()) == condition.substr(equals + 1));
}

}  // namespace

Result<std::optional<std::string>> SqliteRecords::project(const std::string& name) const {
  METIER_TRY(q, db_->query("SELECT body FROM projects WHERE name = ?"));
  q.bind(name);
  METIER_TRY(found, q.step());
  return found ? std::optional(q.text(0)) : std::nullopt;
}

Result<std::vector<std::pair<std::string, std::string>>> SqliteRecords::projects() const {
  METIER_TRY(q, db_->query("SELECT name, body FROM projects ORDER BY name"));
  std::vector<std::pair<std::string, std::string>> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.emplace_back(q.text(0), q.text(1));
  }
  return out;
}

Result<void> SqliteRecords::put_project(const std::string& name, const std::string& body) {
  METIER_TRY(
      q, db_->query(
             "INSERT INTO projects VALUES(?,?) ON CONFLICT DO UPDATE SET body = excluded.body"));
  q.bind(name).bind(body);
  return q.run();
}

Result<void> SqliteRecords::delete_project(const std::string& name) {
  seen_.reset();
  std::vector<ResourceKey> objects;
  {
    METIER_TRY(q, db_->query("SELECT kind, name FROM objects WHERE name_space = ?"));
    q.bind(name);
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      objects.push_back({name, q.text(0), q.text(1)});
    }
  }
  for (const auto& key : objects) { METIER_CHECK(remove_object(key)); }
  for (const auto* sql :
       {"DELETE FROM run_labels WHERE run IN (SELECT id FROM runs WHERE project = ?)",
        "DELETE FROM runs WHERE project = ?", "DELETE FROM run_heads WHERE project = ?",
        "DELETE FROM timeline WHERE project = ?",
        "DELETE FROM artifact_labels WHERE artifact IN (SELECT id FROM artifacts WHERE project = "
        "?)",
        "DELETE FROM artifact_tags WHERE project = ?", "DELETE FROM artifacts WHERE project = ?",
        "DELETE FROM function_tags WHERE project = ?", "DELETE FROM functions WHERE project = ?",
        "DELETE FROM secrets WHERE project = ?", "DELETE FROM projects WHERE name = ?"}) {
    METIER_TRY(q, db_->query(sql));
    q.bind(name);
    METIER_CHECK(q.run());
  }
  return {};
}

Result<bool> SqliteRecords::project_is_empty(const std::string& name) const {
  METIER_TRY(q, db_->query("SELECT EXISTS(SELECT 1 FROM runs WHERE project = ?1) OR EXISTS(SELECT "
                           "1 FROM artifacts WHERE project = ?1) OR "
                           "EXISTS(SELECT 1 FROM functions WHERE project = ?1)"));
  q.bind(name);
  METIER_TRY(found, q.step());
  return found && q.integer(0) == 0;
}

Result<std::optional<FunctionRow>> SqliteRecords::function(const std::string& project,
                                                           const std::string& name,
                                                           const std::string& tag,
                                                           const std::string& hash) const {
  if (tag.empty() && !hash.empty()) {
    METIER_TRY(q, db_->query("SELECT project, name, uid, '', kind, body, updated FROM functions "
                             "WHERE project = ? AND name = ? AND uid = ?"));
    q.bind(project).bind(name).bind(hash);
    METIER_TRY(found, q.step());
    return found ? std::optional(function_from(q)) : std::nullopt;
  }
  METIER_TRY(q, db_->query("SELECT f.project, f.name, f.uid, t.tag, f.kind, f.body, f.updated FROM "
                           "function_tags t JOIN functions f ON "
                           "f.project = t.project AND f.name = t.name AND f.uid = t.uid WHERE "
                           "t.project = ? AND t.name = ? AND t.tag = ?"));
  q.bind(project).bind(name).bind(tag.empty() ? std::string("latest") : tag);
  METIER_TRY(found, q.step());
  return found ? std::optional(function_from(q)) : std::nullopt;
}

Result<std::vector<FunctionRow>> SqliteRecords::functions(const FunctionFilter& filter) const {
  Where where;
  if (filter.project) { where.add("f.project = ?", *filter.project); }
  if (!filter.name.empty()) { where.name("f.name", filter.name); }
  if (!filter.hash.empty()) { where.add("f.uid = ?", filter.hash); }
  if (!filter.kind.empty()) { where.add("f.kind = ?", filter.kind); }
  if (filter.tag == "*") {
    where.add("t.tag IS NOT NULL");
  } else if (!filter.tag.empty()) {
    where.add("t.tag = ?", filter.tag);
  }
  where.add("(t.tag IS NOT NULL OR f.uid NOT LIKE 'unversioned-%')");
  if (filter.since) { where.add("f.updated >= ?", micros(*filter.since)); }
  if (filter.until) { where.add("f.updated <= ?", micros(*filter.until)); }
  METIER_TRY(q, db_->query("SELECT f.project, f.name, f.uid, coalesce(t.tag, ''), f.kind, f.body, "
                           "f.updated FROM functions f LEFT JOIN function_tags t "
                           "ON t.project = f.project AND t.name = f.name AND t.uid = f.uid" +
                           where.text() + " ORDER BY f.updated DESC, f.rowid DESC"));
  where.bind(q);
  std::vector<FunctionRow> out;
  std::int64_t skip = filter.offset;
  while (filter.limit < 0 || static_cast<std::int64_t>(out.size()) < filter.limit) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    auto row = function_from(q);
    if (!filter.labels.empty() || !filter.states.empty()) {
      // Functions are few: these two are read from the document.
      METIER_TRY(document, parse_json(row.body));
      const auto* labels = find_path(document, "metadata.labels");
      const auto state = string_at(document, "status.state");
      const JsonObject none;
      const auto& known = labels != nullptr && labels->is_object() ? labels->get_object() : none;
      if (!std::ranges::all_of(filter.labels,
                               [&](const auto& label) { return has_label(known, label); })) {
        continue;
      }
      if (!filter.states.empty() &&
          std::ranges::find(filter.states, state) == filter.states.end()) {
        continue;
      }
    }
    if (skip-- > 0) { continue; }
    out.push_back(std::move(row));
  }
  return out;
}

Result<void> SqliteRecords::put_function(const FunctionRow& row, const std::string& tag) {
  {
    METIER_TRY(q, db_->query("INSERT INTO functions VALUES(?,?,?,?,?,?) ON CONFLICT(project, name, "
                             "uid) DO UPDATE SET kind = excluded.kind, "
                             "body = excluded.body, updated = excluded.updated"));
    q.bind(row.project)
        .bind(row.name)
        .bind(row.uid)
        .bind(row.kind)
        .bind(row.body)
        .bind(micros(row.updated));
    METIER_CHECK(q.run());
  }
  if (tag.empty()) { return {}; }
  METIER_TRY(q, db_->query("INSERT INTO function_tags VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET "
                           "uid = excluded.uid"));
  q.bind(row.project).bind(row.name).bind(tag).bind(row.uid);
  return q.run();
}

Result<void> SqliteRecords::delete_function(const std::string& project, const std::string& name) {
  for (const auto* sql : {"DELETE FROM function_tags WHERE project = ? AND name = ?",
                          "DELETE FROM functions WHERE project = ? AND name = ?"}) {
    METIER_TRY(q, db_->query(sql));
    q.bind(project).bind(name);
    METIER_CHECK(q.run());
  }
  return {};
}

Result<std::vector<std::string>> SqliteRecords::secret_keys(const std::string& project,
                                                            const std::string& secret) const {
  METIER_TRY(q, db_->query("SELECT key FROM secrets WHERE project = ? AND secret = ? ORDER BY id"));
  q.bind(project).bind(secret);
  std::vector<std::string> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back(q.text(0));
  }
  return out;
}

Result<std::optional<std::string>> SqliteRecords::secret_value(const std::string& project,
                                                               const std::string& secret,
                                                               const std::string& key) const {
  METIER_TRY(q,
             db_->query("SELECT value FROM secrets WHERE project = ? AND secret = ? AND key = ?"));
  q.bind(project).bind(secret).bind(key);
  METIER_TRY(found, q.step());
  if (!found) { return std::nullopt; }
  METIER_TRY(plain, box_->open_sealed(q.text(0), place(project, secret, key)));
  return std::optional(std::move(plain));
}

Result<void> SqliteRecords::put_secret(const std::string& project, const std::string& secret,
                                       const std::string& key, const std::string& value) {
  METIER_TRY(q, db_->query("INSERT INTO secrets(project, secret, key, value) VALUES(?,?,?,?) ON "
                           "CONFLICT(project, secret, key) DO UPDATE SET value = excluded.value"));
  q.bind(project).bind(secret).bind(key).bind_blob(box_->seal(value, place(project, secret, key)));
  return q.run();
}

Result<void> SqliteRecords::delete_secret(const std::string& project, const std::string& secret,
                                          const std::string& key) {
  METIER_TRY(
      q, db_->query(
             "DELETE FROM secrets WHERE project = ?1 AND secret = ?2 AND (?3 = '' OR key = ?3)"));
  q.bind(project).bind(secret).bind(key);
  return q.run();
}

Result<void> SqliteRecords::add_timeline(const TimelineRow& row) {
  METIER_TRY(
      q, db_->query(
             "INSERT INTO timeline(project, uid, attempt, at, what, detail) VALUES(?,?,?,?,?,?)"));
  q.bind(row.project)
      .bind(row.uid)
      .bind(row.attempt)
      .bind(micros(row.at))
      .bind(row.what)
      .bind(row.detail);
  return q.run();
}

Result<std::vector<TimelineRow>> SqliteRecords::timeline(const std::string& project,
                                                         const std::string& uid) const {
  METIER_TRY(q, db_->query("SELECT attempt, at, what, detail FROM timeline WHERE project = ? AND "
                           "uid = ? ORDER BY id"));
  q.bind(project).bind(uid);
  std::vector<TimelineRow> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back({.project = project,
                   .uid = uid,
                   .attempt = q.integer(0),
                   .at = from_micros(q.integer(1)),
                   .what = q.text(2),
                   .detail = q.text(3)});
  }
  return out;
}

Result<void> SqliteRecords::put_background_task(const std::string& name, const std::string& project,
                                                const std::string& body) {
  METIER_TRY(q, db_->query("INSERT INTO background_tasks VALUES(?,?,?) ON CONFLICT DO UPDATE SET "
                           "body = excluded.body"));
  q.bind(name).bind(project).bind(body);
  return q.run();
}

Result<std::optional<std::string>> SqliteRecords::background_task(const std::string& name) const {
  METIER_TRY(q, db_->query("SELECT body FROM background_tasks WHERE name = ?"));
  q.bind(name);
  METIER_TRY(found, q.step());
  return found ? std::optional(q.text(0)) : std::nullopt;
}

Result<std::vector<std::string>> SqliteRecords::background_tasks(const std::string& project) const {
  METIER_TRY(
      q, db_->query(
             "SELECT body FROM background_tasks WHERE project = ? ORDER BY rowid DESC LIMIT 1000"));
  q.bind(project);
  std::vector<std::string> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back(q.text(0));
  }
  return out;
}

Result<std::optional<std::string>> SqliteRecords::setting(const std::string& scope,
                                                          const std::string& key) const {
  METIER_TRY(q, db_->query("SELECT value FROM settings WHERE scope = ? AND key = ? AND (expires IS "
                           "NULL OR expires > ?)"));
  q.bind(scope).bind(key).bind(micros(clock_->now()));
  METIER_TRY(found, q.step());
  return found ? std::optional(q.text(0)) : std::nullopt;
}

Result<std::vector<std::pair<std::string, std::string>>> SqliteRecords::settings(
    const std::string& scope) const {
  METIER_TRY(q,
             db_->query("SELECT key, value FROM settings WHERE scope = ? AND (expires IS NULL OR "
                        "expires > ?) ORDER BY key"));
  q.bind(scope).bind(micros(clock_->now()));
  std::vector<std::pair<std::string, std::string>> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { return out; }
    out.emplace_back(q.text(0), q.text(1));
  }
}

Result<void> SqliteRecords::put_setting(const std::string& scope, const std::string& key,
                                        const std::string& value, std::optional<Time> expires) {
  if (expires) {
    METIER_TRY(
        old, db_->query(
                 "DELETE FROM settings WHERE scope = ? AND expires IS NOT NULL AND expires <= ?"));
    old.bind(scope).bind(micros(clock_->now()));
    METIER_CHECK(old.run());
  }
  METIER_TRY(q, db_->query("INSERT INTO settings VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET value = "
                           "excluded.value, expires = excluded.expires"));
  q.bind(scope).bind(key).bind(value).bind(expires ? std::optional(micros(*expires))
                                                   : std::nullopt);
  return q.run();
}

Result<void> SqliteRecords::delete_setting(const std::string& scope, const std::string& key) {
  METIER_TRY(q, db_->query("DELETE FROM settings WHERE scope = ? AND key = ?"));
  q.bind(scope).bind(key);
  return q.run();
}

}  // namespace metier
