#include "store/sqlite_records.h"

namespace metier {
RunRow run_row_from(const Query& q) {
  RunRow row;
  row.project = q.text(1);
  row.uid = q.text(2);
  row.iteration = q.integer(3);
  row.name = q.text(4);
  row.state = q.text(5);
  row.kind = q.text(6);
  row.start = from_micros(q.integer(7));
  row.updated = from_micros(q.integer(8));
  if (!q.is_null(9)) { row.end = from_micros(q.integer(9)); }
  row.version = static_cast<std::uint64_t>(q.integer(10));
  row.body = q.text(11);
  return row;
}

// A write function reads a run before it writes it: what was read is remembered until it ends.
Result<std::optional<RunRow>> SqliteRecords::run(const std::string& project, const std::string& uid,
                                                 std::int64_t iteration) const {
  METIER_TRY(q, db_->query("SELECT id, project, uid, iteration, name, state, kind, start, updated, "
                           "ended, version, body "
                           "FROM runs WHERE project = ? AND uid = ? AND iteration = ?"));
  q.bind(project).bind(uid).bind(iteration);
  METIER_TRY(found, q.step());
  if (!found) {
    if (writing_) { seen_ = SeenRun{.project = project, .uid = uid, .iteration = iteration}; }
    return std::nullopt;
  }
  const auto id = q.integer(0);
  auto row = run_row_from(q);
  METIER_TRY(labels, labels_of_run(id));
  row.labels = std::move(labels);
  if (writing_) { seen_ = SeenRun{project, uid, iteration, id, row.start, row.labels}; }
  return row;
}

Result<Labels> SqliteRecords::labels_of_run(std::int64_t id) const {
  METIER_TRY(q, db_->query("SELECT name, value FROM run_labels WHERE run = ?"));
  q.bind(id);
  Labels out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { return out; }
    out.emplace(q.text(0), q.text(1));
  }
}

Result<void> SqliteRecords::see_run(const RunRow& row) {
  if (seen_ && seen_->uid == row.uid && seen_->project == row.project &&
      seen_->iteration == row.iteration) {
    return {};
  }
  METIER_TRY(
      q, db_->query("SELECT id, start FROM runs WHERE project = ? AND uid = ? AND iteration = ?"));
  q.bind(row.project).bind(row.uid).bind(row.iteration);
  METIER_TRY(found, q.step());
  SeenRun seen{.project = row.project, .uid = row.uid, .iteration = row.iteration};
  if (found) {
    seen.id = q.integer(0);
    seen.start = from_micros(q.integer(1));
    METIER_TRY(labels, labels_of_run(*seen.id));
    seen.labels = std::move(labels);
  }
  seen_ = std::move(seen);
  return {};
}

Result<std::int64_t> SqliteRecords::insert_run(const RunRow& row) {
  METIER_TRY(q, db_->query("INSERT INTO runs(project, uid, iteration, name, state, kind, start, "
                           "updated, ended, version, body) VALUES(?,?,?,?,?,?,?,?,?,1,?)"));
  q.bind(row.project).bind(row.uid).bind(row.iteration).bind(row.name).bind(row.state);
  q.bind(row.kind).bind(micros(row.start)).bind(micros(row.updated));
  q.bind(row.end ? std::optional(micros(*row.end)) : std::nullopt).bind(row.body);
  METIER_CHECK(q.run());
  return db_->last_id();
}

// Only what differs is written: every index of a column that is set costs, changed or not.
Result<void> SqliteRecords::update_run(std::int64_t id, const RunRow& row) {
  METIER_TRY(same, db_->query("UPDATE runs SET updated = ?, ended = ?, version = version + 1, body "
                              "= ? WHERE id = ? AND state = ? AND start = ? AND kind = ? AND name "
                              "= ?"));
  same.bind(micros(row.updated));
  same.bind(row.end ? std::optional(micros(*row.end)) : std::nullopt).bind(row.body).bind(id);
  same.bind(row.state).bind(micros(row.start)).bind(row.kind).bind(row.name);
  METIER_CHECK(same.run());
  if (db_->changed() == 1) { return {}; }
  METIER_TRY(q, db_->query("UPDATE runs SET name = ?, state = ?, kind = ?, start = ?, updated = "
                           "?, ended = ?, version = version + 1, body = ? WHERE id = ?"));
  q.bind(row.name).bind(row.state).bind(row.kind).bind(micros(row.start));
  q.bind(micros(row.updated));
  q.bind(row.end ? std::optional(micros(*row.end)) : std::nullopt).bind(row.body).bind(id);
  return q.run();
}

Result<void> SqliteRecords::put_labels(std::int64_t id, const RunRow& row) {
  if (!seen_->labels.empty()) {
    METIER_TRY(gone, db_->query("DELETE FROM run_labels WHERE run = ?"));
    gone.bind(id);
    METIER_CHECK(gone.run());
  }
  for (const auto& [name, value] : row.labels) {
    METIER_TRY(q, db_->query("INSERT INTO run_labels(run, name, value, project, start) "
                             "VALUES(?,?,?,?,?)"));
    q.bind(id).bind(name).bind(value).bind(row.project).bind(micros(row.start));
    METIER_CHECK(q.run());
  }
  return {};
}

Result<void> SqliteRecords::put_run(const RunRow& row) {
  METIER_CHECK(see_run(row));
  std::int64_t id = 0;
  if (seen_->id) {
    id = *seen_->id;
    METIER_CHECK(update_run(id, row));
  } else {
    METIER_TRY(made, insert_run(row));
    id = made;
  }
  if (seen_->labels != row.labels || (seen_->id && seen_->start != row.start)) {
    METIER_CHECK(put_labels(id, row));
  }
  seen_ = SeenRun{row.project, row.uid, row.iteration, id, row.start, row.labels};
  return row.iteration == 0 ? put_head(row, id) : Result<void>{};
}

Result<void> SqliteRecords::put_head(const RunRow& row, std::int64_t id) {
  METIER_TRY(same, db_->query("UPDATE run_heads SET changed = ? WHERE project = ? AND name = ? AND "
                              "changed_run = ? AND started_run = ? AND changed_start = ? AND "
                              "changed <= ?"));
  same.bind(micros(row.updated)).bind(row.project).bind(row.name).bind(id).bind(id);
  same.bind(micros(row.start)).bind(micros(row.updated));
  METIER_CHECK(same.run());
  if (db_->changed() == 1) { return {}; }
  METIER_TRY(head, db_->query(
                       R"sql(INSERT INTO run_heads(project, name, changed, changed_run, started,
    started_run, changed_start) VALUES(?1, ?2, ?3, ?4, ?5, ?4, ?5) ON CONFLICT DO UPDATE SET
    changed_start = CASE WHEN ?3 >= changed OR changed_run = ?4 THEN ?5 ELSE changed_start END,
    changed_run = CASE WHEN ?3 >= changed THEN ?4 ELSE changed_run END, changed = max(changed, ?3),
    started_run = CASE WHEN ?5 >= started OR started_run = ?4 THEN ?4 ELSE started_run END,
    started = CASE WHEN started_run = ?4 THEN ?5 ELSE max(started, ?5) END)sql"));
  head.bind(row.project).bind(row.name).bind(micros(row.updated)).bind(id).bind(micros(row.start));
  return head.run();
}

Result<void> SqliteRecords::refresh_head(const std::string& project, const std::string& name) {
  {
    METIER_TRY(gone, db_->query("DELETE FROM run_heads WHERE project = ? AND name = ?"));
    gone.bind(project).bind(name);
    METIER_CHECK(gone.run());
  }
  METIER_TRY(q, db_->query(R"sql(INSERT INTO run_heads(project, name, changed, changed_run, started,
    started_run, changed_start) SELECT ?1, ?2, c.updated, c.id, s.start, s.id, c.start FROM
    (SELECT id, updated, start FROM runs WHERE project = ?1 AND name = ?2 AND iteration = 0 ORDER BY updated DESC LIMIT 1) c,
    (SELECT id, start FROM runs WHERE project = ?1 AND name = ?2 AND iteration = 0 ORDER BY start DESC LIMIT 1) s)sql"));
  q.bind(project).bind(name);
  return q.run();
}

Result<void> SqliteRecords::delete_run(const std::string& project, const std::string& uid) {
  seen_.reset();
  std::vector<std::pair<std::int64_t, std::string>> rows;
  {
    METIER_TRY(q, db_->query("SELECT id, name FROM runs WHERE project = ? AND uid = ?"));
    q.bind(project).bind(uid);
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      rows.emplace_back(q.integer(0), q.text(1));
    }
  }
  for (const auto& [id, name] : rows) {
    for (const auto* sql :
         {"DELETE FROM run_labels WHERE run = ?", "DELETE FROM runs WHERE id = ?"}) {
      METIER_TRY(q, db_->query(sql));
      q.bind(id);
      METIER_CHECK(q.run());
    }
    METIER_CHECK(refresh_head(project, name));
  }
  METIER_TRY(q, db_->query("DELETE FROM timeline WHERE project = ? AND uid = ?"));
  q.bind(project).bind(uid);
  return q.run();
}

Result<std::vector<std::string>> SqliteRecords::uids_with_prefix(const std::string& project,
                                                                 const std::string& prefix) const {
  METIER_TRY(q, db_->query("SELECT DISTINCT uid FROM runs WHERE project = ? AND uid >= ? AND uid < "
                           "? ORDER BY uid LIMIT 20"));
  q.bind(project).bind(prefix).bind(prefix + "\x7f");
  std::vector<std::string> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back(q.text(0));
  }
  return out;
}

}  // namespace metier
