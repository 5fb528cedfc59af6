#include <algorithm>

#include "store/sqlite_records.h"

namespace metier {
namespace {

constexpr std::string_view kColumns =
    "id, project, uid, iteration, name, state, kind, start, updated, ended, version, body";

RunRow row_from(const Query& q) {
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

Where where_of(const RunFilter& filter) {
  Where where;
  if (filter.project) { where.add("project = ?", *filter.project); }
  if (filter.only_parents && *filter.only_parents) { where.add("iteration = 0"); }
  if (!filter.name.empty()) { where.name("name", filter.name); }
  where.any_of("uid", filter.uids);
  where.any_of("state", filter.states);
  for (const auto& label : filter.labels) { where.label("id", "run_labels", "run", label); }
  const auto time = [&](const char* condition, const std::optional<Time>& value) {
    if (value) { where.add(condition, micros(*value)); }
  };
  time("start >= ?", filter.start_from);
  time("start <= ?", filter.start_to);
  time("updated >= ?", filter.updated_from);
  time("updated <= ?", filter.updated_to);
  time("ended >= ?", filter.end_from);
  time("ended <= ?", filter.end_to);
  return where;
}

// Lists that the maintained heads can answer: the newest run of each name, nothing asked but since when.
bool heads_answer(const RunFilter& f) {
  return f.partition && f.rows_per_partition == 1 && !f.partition_ascending && f.project &&
         f.only_parents && *f.only_parents && f.name.empty() && f.uids.empty() &&
         f.states.empty() && f.labels.empty() && !f.start_to && !f.updated_from && !f.updated_to &&
         !f.end_from && !f.end_to;
}

}  // namespace

Result<std::optional<std::int64_t>> SqliteRecords::run_id(const std::string& project,
                                                          const std::string& uid,
                                                          std::int64_t iteration) const {
  METIER_TRY(q, db_->query("SELECT id FROM runs WHERE project = ? AND uid = ? AND iteration = ?"));
  q.bind(project).bind(uid).bind(iteration);
  METIER_TRY(found, q.step());
  return found ? std::optional(q.integer(0)) : std::nullopt;
}

Result<std::optional<RunRow>> SqliteRecords::run(const std::string& project, const std::string& uid,
                                                 std::int64_t iteration) const {
  METIER_TRY(q, db_->query("SELECT " + std::string(kColumns) +
                           " FROM runs WHERE project = ? AND uid = ? AND iteration = ?"));
  q.bind(project).bind(uid).bind(iteration);
  METIER_TRY(found, q.step());
  if (!found) { return std::nullopt; }
  const auto id = q.integer(0);
  auto row = row_from(q);
  METIER_TRY(labels, db_->query("SELECT name, value FROM run_labels WHERE run = ?"));
  labels.bind(id);
  while (true) {
    METIER_TRY(more, labels.step());
    if (!more) { break; }
    row.labels.emplace(labels.text(0), labels.text(1));
  }
  return row;
}

Result<std::vector<RunRow>> SqliteRecords::runs_by_head(const RunFilter& filter) const {
  const bool by_start = filter.partition_sort == "created";
  const std::string changed = by_start ? "started" : "changed";
  struct Head {
    std::int64_t run;
    std::int64_t start;
    std::int64_t key;
  };
  std::vector<Head> heads;
  {
    METIER_TRY(q, db_->query("SELECT h.name, h." + changed + "_run, h." + changed +
                             ", r.start FROM run_heads h JOIN runs r ON r.id = h." + changed +
                             "_run WHERE h.project = ?"));
    q.bind(*filter.project);
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      Head head{q.integer(1), q.integer(3), q.integer(2)};
      if (filter.start_from && head.start < micros(*filter.start_from)) {
        // The newest of this name is older than asked; another run of it may still be younger.
        METIER_TRY(other,
                   db_->query("SELECT id, start, " + std::string(by_start ? "start" : "updated") +
                              " FROM runs WHERE project = ? AND name = ? AND start >= ? AND "
                              "iteration = 0 ORDER BY 3 DESC LIMIT 1"));
        const auto name = q.text(0);
        other.bind(*filter.project).bind(name).bind(micros(*filter.start_from));
        METIER_TRY(found, other.step());
        if (!found) { continue; }
        head = {other.integer(0), other.integer(1), other.integer(2)};
      }
      heads.push_back(head);
    }
  }
  if (filter.max_partitions > 0 &&
      static_cast<std::int64_t>(heads.size()) > filter.max_partitions) {
    std::ranges::sort(heads, std::ranges::greater{}, &Head::key);
    heads.resize(static_cast<std::size_t>(filter.max_partitions));
  }
  if (filter.sort) { std::ranges::sort(heads, std::ranges::greater{}, &Head::start); }
  std::vector<RunRow> out;
  const auto size = static_cast<std::int64_t>(heads.size());
  const auto first = std::clamp<std::int64_t>(filter.offset, 0, size);
  const auto last = filter.limit < 0 ? size : std::min(size, first + filter.limit);
  for (auto i = first; i < last; ++i) {
    METIER_TRY(q, db_->query("SELECT " + std::string(kColumns) + " FROM runs WHERE id = ?"));
    q.bind(heads[static_cast<std::size_t>(i)].run);
    METIER_TRY(found, q.step());
    if (found) { out.push_back(row_from(q)); }
  }
  return out;
}

Result<std::vector<RunRow>> SqliteRecords::runs(const RunFilter& filter) const {
  if (heads_answer(filter)) { return runs_by_head(filter); }
  const auto where = where_of(filter);
  std::string sql;
  const std::string columns(kColumns);
  if (filter.partition) {
    const std::string by = filter.partition_sort == "created" ? "start" : "updated";
    const std::string order = filter.partition_ascending ? " ASC" : " DESC";
    sql = "SELECT " + columns +
          " FROM (SELECT *, row_number() OVER (PARTITION BY project, name ORDER BY " + by + order +
          ") AS place, max(" + by + ") OVER (PARTITION BY project, name) AS newest FROM runs" +
          where.text() + ")";
    sql +=
        " WHERE place <= " + std::to_string(std::max<std::int64_t>(1, filter.rows_per_partition));
    if (filter.max_partitions > 0) {
      sql = "SELECT " + columns +
            " FROM (SELECT *, dense_rank() OVER (ORDER BY newest DESC, project, name) AS part FROM "
            "(" +
            "SELECT *, row_number() OVER (PARTITION BY project, name ORDER BY " + by + order +
            ") AS place, max(" + by + ") OVER (PARTITION BY project, name) AS newest FROM runs" +
            where.text() + ") WHERE place <= " +
            std::to_string(std::max<std::int64_t>(1, filter.rows_per_partition)) +
            ") WHERE part <= " + std::to_string(filter.max_partitions);
    }
  } else {
    sql = "SELECT " + columns + " FROM runs" + where.text();
  }
  // Named runs are few: the plus keeps the planner from walking the whole project in order of start.
  sql += !filter.sort          ? " ORDER BY id"
         : filter.uids.empty() ? " ORDER BY start DESC, id DESC"
                               : " ORDER BY +start DESC, id DESC";
  sql += " LIMIT ? OFFSET ?";
  METIER_TRY(q, db_->query(sql));
  where.bind(q);
  q.bind(filter.limit).bind(filter.offset);
  std::vector<RunRow> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back(row_from(q));
  }
  return out;
}

Result<std::int64_t> SqliteRecords::count_runs(const RunFilter& filter) const {
  const auto where = where_of(filter);
  METIER_TRY(q, db_->query("SELECT count(*) FROM runs" + where.text()));
  where.bind(q);
  METIER_TRY(found, q.step());
  return found ? q.integer(0) : 0;
}

Result<void> SqliteRecords::put_run(const RunRow& row) {
  METIER_TRY(known, run_id(row.project, row.uid, row.iteration));
  std::int64_t id = 0;
  if (known) {
    id = *known;
    METIER_TRY(q, db_->query("UPDATE runs SET name = ?, state = ?, kind = ?, start = ?, updated = "
                             "?, ended = ?, version = version + 1, body = ? WHERE id = ?"));
    q.bind(row.name)
        .bind(row.state)
        .bind(row.kind)
        .bind(micros(row.start))
        .bind(micros(row.updated));
    q.bind(row.end ? std::optional(micros(*row.end)) : std::nullopt).bind(row.body).bind(id);
    METIER_CHECK(q.run());
  } else {
    METIER_TRY(q, db_->query("INSERT INTO runs(project, uid, iteration, name, state, kind, start, "
                             "updated, ended, version, body) VALUES(?,?,?,?,?,?,?,?,?,1,?)"));
    q.bind(row.project)
        .bind(row.uid)
        .bind(row.iteration)
        .bind(row.name)
        .bind(row.state)
        .bind(row.kind);
    q.bind(micros(row.start))
        .bind(micros(row.updated))
        .bind(row.end ? std::optional(micros(*row.end)) : std::nullopt)
        .bind(row.body);
    METIER_CHECK(q.run());
    id = db_->last_id();
  }
  Labels before;
  if (known) {
    METIER_TRY(q, db_->query("SELECT name, value FROM run_labels WHERE run = ?"));
    q.bind(id);
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      before.emplace(q.text(0), q.text(1));
    }
  }
  if (before != row.labels) {
    METIER_TRY(gone, db_->query("DELETE FROM run_labels WHERE run = ?"));
    gone.bind(id);
    METIER_CHECK(gone.run());
    for (const auto& [name, value] : row.labels) {
      METIER_TRY(q, db_->query("INSERT INTO run_labels VALUES(?,?,?)"));
      q.bind(id).bind(name).bind(value);
      METIER_CHECK(q.run());
    }
  }
  if (row.iteration != 0) { return {}; }
  METIER_TRY(
      head, db_->query(
                R"sql(INSERT INTO run_heads VALUES(?1, ?2, ?3, ?4, ?5, ?4) ON CONFLICT DO UPDATE SET
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
  METIER_TRY(
      q, db_->query(R"sql(INSERT INTO run_heads SELECT ?1, ?2, c.updated, c.id, s.start, s.id FROM
    (SELECT id, updated FROM runs WHERE project = ?1 AND name = ?2 AND iteration = 0 ORDER BY updated DESC LIMIT 1) c,
    (SELECT id, start FROM runs WHERE project = ?1 AND name = ?2 AND iteration = 0 ORDER BY start DESC LIMIT 1) s)sql"));
  q.bind(project).bind(name);
  return q.run();
}

Result<void> SqliteRecords::delete_run(const std::string& project, const std::string& uid) {
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
