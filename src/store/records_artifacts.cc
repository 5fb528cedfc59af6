#include "store/sqlite_records.h"

namespace metier {
namespace {

constexpr std::string_view kColumns =
    "a.id, a.project, a.key, a.uid, a.tree, a.iteration, a.kind, a.name, a.best, a.updated, "
    "a.body, coalesce(t.tag, '')";

ArtifactRow row_from(const Query& q) {
  ArtifactRow row;
  row.project = q.text(1);
  row.key = q.text(2);
  row.uid = q.text(3);
  row.tree = q.text(4);
  row.iteration = q.integer(5);
  row.kind = q.text(6);
  row.name = q.text(7);
  row.best_iteration = q.integer(8) != 0;
  row.updated = from_micros(q.integer(9));
  row.body = q.text(10);
  row.tag = q.text(11);
  return row;
}

void category(Where& where, const std::string& name) {
  if (name == "model" || name == "dataset" || name == "document") {
    where.add("a.kind = ?", name);
  } else if (name == "other") {
    where.add("a.kind NOT IN ('model', 'dataset', 'document')");
  }
}

}  // namespace

Result<std::optional<std::int64_t>> SqliteRecords::artifact_id(const ArtifactRow& row) const {
  METIER_TRY(q, db_->query("SELECT id FROM artifacts WHERE project = ? AND key = ? AND uid = ? AND "
                           "tree = ? AND iteration = ?"));
  q.bind(row.project).bind(row.key).bind(row.uid).bind(row.tree).bind(row.iteration);
  METIER_TRY(found, q.step());
  return found ? std::optional(q.integer(0)) : std::nullopt;
}

Result<std::vector<ArtifactRow>> SqliteRecords::artifacts(const ArtifactFilter& filter) const {
  Where where;
  if (filter.project) { where.add("a.project = ?", *filter.project); }
  if (!filter.key.empty()) { where.add("a.key = ?", filter.key); }
  if (!filter.name.empty()) { where.name("a.name", filter.name); }
  if (!filter.tree.empty()) { where.add("a.tree = ?", filter.tree); }
  if (!filter.kind.empty()) { where.add("a.kind = ?", filter.kind); }
  if (filter.iteration) { where.add("a.iteration = ?", *filter.iteration); }
  if (filter.best_iteration) { where.add("a.best = 1"); }
  category(where, filter.category);
  if (filter.tag == "*") {
    where.add("t.tag IS NOT NULL");
  } else if (!filter.tag.empty()) {
    where.add("t.tag = ?", filter.tag);
    // Said again of the tag, so that the few rows of (project, key, tag) are what is walked.
    if (filter.project) { where.add("t.project = ?", *filter.project); }
    if (!filter.key.empty()) { where.add("t.key = ?", filter.key); }
  }
  for (const auto& label : filter.labels) {
    where.label("a.id", "artifact_labels", "artifact", label);
  }
  if (!filter.producer_uri.empty()) {
    where.add("json_extract(a.body, '$.spec.producer.uri') = ?", filter.producer_uri);
  }
  if (!filter.parent.empty()) {
    where.add("json_extract(a.body, '$.spec.parent_uri') LIKE ?", "%" + filter.parent + "%");
  }
  if (filter.since) { where.add("a.updated >= ?", micros(*filter.since)); }
  if (filter.until) { where.add("a.updated <= ?", micros(*filter.until)); }
  // The planner would walk the whole project in order of time for the sake of LIMIT; the plus keeps it from that where
  // few rows are meant.
  const bool few = !filter.key.empty() || !filter.tree.empty() ||
                   (!filter.name.empty() && !filter.name.starts_with('~'));
  METIER_TRY(q, db_->query("SELECT " + std::string(kColumns) +
                           " FROM artifacts a LEFT JOIN artifact_tags t ON t.artifact = a.id" +
                           where.text() +
                           (few ? " ORDER BY +a.updated DESC, +a.id DESC"
                                : " ORDER BY a.updated DESC, a.id DESC") +
                           " LIMIT ? OFFSET ?"));
  where.bind(q);
  q.bind(filter.limit).bind(filter.offset);
  std::vector<ArtifactRow> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back(row_from(q));
  }
  return out;
}

Result<void> SqliteRecords::put_artifact(const ArtifactRow& row) {
  METIER_TRY(known, artifact_id(row));
  std::int64_t id = 0;
  if (known) {
    id = *known;
    METIER_TRY(q, db_->query("UPDATE artifacts SET kind = ?, name = ?, best = ?, updated = ?, body "
                             "= ? WHERE id = ?"));
    q.bind(row.kind)
        .bind(row.name)
        .bind(static_cast<int>(row.best_iteration))
        .bind(micros(row.updated))
        .bind(row.body)
        .bind(id);
    METIER_CHECK(q.run());
    METIER_TRY(gone, db_->query("DELETE FROM artifact_labels WHERE artifact = ?"));
    gone.bind(id);
    METIER_CHECK(gone.run());
  } else {
    METIER_TRY(q, db_->query("INSERT INTO artifacts(project, key, uid, tree, iteration, kind, "
                             "name, best, updated, body) VALUES(?,?,?,?,?,?,?,?,?,?)"));
    q.bind(row.project)
        .bind(row.key)
        .bind(row.uid)
        .bind(row.tree)
        .bind(row.iteration)
        .bind(row.kind)
        .bind(row.name);
    q.bind(static_cast<int>(row.best_iteration)).bind(micros(row.updated)).bind(row.body);
    METIER_CHECK(q.run());
    id = db_->last_id();
  }
  for (const auto& [name, value] : row.labels) {
    METIER_TRY(q, db_->query("INSERT INTO artifact_labels VALUES(?,?,?)"));
    q.bind(id).bind(name).bind(value);
    METIER_CHECK(q.run());
  }
  return {};
}

Result<void> SqliteRecords::tag_artifact(const ArtifactRow& row, const std::string& tag) {
  METIER_TRY(id, artifact_id(row));
  if (!id) { return fail(ErrorKind::not_found, "no such artifact: " + row.key); }
  METIER_TRY(
      gone, db_->query("DELETE FROM artifact_tags WHERE project = ?1 AND key = ?2 AND tag = ?3 AND "
                       "(SELECT tree <> ?4 OR iteration = ?5 FROM artifacts WHERE id = artifact)"));
  gone.bind(row.project).bind(row.key).bind(tag).bind(row.tree).bind(row.iteration);
  METIER_CHECK(gone.run());
  METIER_TRY(q, db_->query("INSERT OR IGNORE INTO artifact_tags VALUES(?,?,?,?)"));
  q.bind(row.project).bind(row.key).bind(tag).bind(*id);
  return q.run();
}

Result<void> SqliteRecords::untag_artifact(const ArtifactRow& row, const std::string& tag) {
  METIER_TRY(id, artifact_id(row));
  if (!id) { return {}; }
  METIER_TRY(
      q,
      db_->query(
          "DELETE FROM artifact_tags WHERE project = ? AND key = ? AND tag = ? AND artifact = ?"));
  q.bind(row.project).bind(row.key).bind(tag).bind(*id);
  return q.run();
}

Result<void> SqliteRecords::delete_artifact(const ArtifactRow& row) {
  METIER_TRY(id, artifact_id(row));
  if (!id) { return {}; }
  for (const auto* sql :
       {"DELETE FROM artifact_tags WHERE artifact = ?",
        "DELETE FROM artifact_labels WHERE artifact = ?", "DELETE FROM artifacts WHERE id = ?"}) {
    METIER_TRY(q, db_->query(sql));
    q.bind(*id);
    METIER_CHECK(q.run());
  }
  return {};
}

Result<std::vector<std::string>> SqliteRecords::artifact_tags(const std::string& project,
                                                              const std::string& wanted) const {
  Where where;
  where.add("t.project = ?", project);
  category(where, wanted);
  METIER_TRY(
      q, db_->query(
             "SELECT DISTINCT t.tag FROM artifact_tags t JOIN artifacts a ON a.id = t.artifact" +
             where.text() + " ORDER BY t.tag"));
  where.bind(q);
  std::vector<std::string> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    out.push_back(q.text(0));
  }
  return out;
}

Result<void> SqliteRecords::mark_best(const std::string& project, const std::string& key,
                                      const std::string& tree, std::int64_t iteration) {
  METIER_TRY(q, db_->query("UPDATE artifacts SET best = (iteration = ?4) WHERE project = ?1 AND "
                           "key = ?2 AND tree = ?3"));
  q.bind(project).bind(key).bind(tree).bind(iteration);
  return q.run();
}

}  // namespace metier
