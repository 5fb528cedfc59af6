#include "store/schema.h"

#include <fmt/format.h>

#include <array>

#include "base/failpoint.h"

namespace metier {
namespace {

// Times are microseconds since 1970.
constexpr std::array kSteps{
    R"sql(
CREATE TABLE projects(name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE functions(project TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, kind TEXT NOT NULL,
  body TEXT NOT NULL, updated INTEGER NOT NULL, UNIQUE(project, name, uid));
CREATE INDEX functions_updated ON functions(project, updated);
CREATE TABLE function_tags(project TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL, uid TEXT NOT NULL,
  PRIMARY KEY(project, name, tag)) WITHOUT ROWID;

CREATE TABLE runs(id INTEGER PRIMARY KEY, project TEXT NOT NULL, uid TEXT NOT NULL, iteration INTEGER NOT NULL,
  name TEXT NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL, start INTEGER NOT NULL, updated INTEGER NOT NULL,
  ended INTEGER, version INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE(project, uid, iteration));
CREATE INDEX runs_start ON runs(project, iteration, start);
CREATE INDEX runs_state ON runs(project, state, start);
CREATE INDEX runs_name ON runs(project, name, start);
CREATE TABLE run_labels(run INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(run, name)) WITHOUT ROWID;
CREATE INDEX run_labels_value ON run_labels(name, value);
-- The newest parent run of each name, by change and by start: what lists without a filter show.
CREATE TABLE run_heads(project TEXT NOT NULL, name TEXT NOT NULL, changed INTEGER NOT NULL, changed_run INTEGER NOT NULL,
  started INTEGER NOT NULL, started_run INTEGER NOT NULL, PRIMARY KEY(project, name)) WITHOUT ROWID;

CREATE TABLE artifacts(id INTEGER PRIMARY KEY, project TEXT NOT NULL, key TEXT NOT NULL, uid TEXT NOT NULL, tree TEXT NOT NULL,
  iteration INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, best INTEGER NOT NULL, updated INTEGER NOT NULL,
  body TEXT NOT NULL, UNIQUE(project, key, uid, tree, iteration));
CREATE INDEX artifacts_tree ON artifacts(project, tree);
CREATE INDEX artifacts_updated ON artifacts(project, updated);
CREATE INDEX artifacts_name ON artifacts(project, name);
CREATE TABLE artifact_tags(project TEXT NOT NULL, key TEXT NOT NULL, tag TEXT NOT NULL, artifact INTEGER NOT NULL,
  PRIMARY KEY(project, key, tag, artifact)) WITHOUT ROWID;
CREATE INDEX artifact_tags_artifact ON artifact_tags(artifact);
CREATE TABLE artifact_labels(artifact INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(artifact, name)) WITHOUT ROWID;

CREATE TABLE secrets(id INTEGER PRIMARY KEY, project TEXT NOT NULL, secret TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
  UNIQUE(project, secret, key));

CREATE TABLE timeline(id INTEGER PRIMARY KEY, project TEXT NOT NULL, uid TEXT NOT NULL, attempt INTEGER NOT NULL,
  at INTEGER NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX timeline_run ON timeline(project, uid, id);

CREATE TABLE background_tasks(name TEXT PRIMARY KEY, project TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX background_tasks_project ON background_tasks(project);

CREATE TABLE settings(scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, expires INTEGER, PRIMARY KEY(scope, key)) WITHOUT ROWID;

CREATE TABLE objects(name_space TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, owner TEXT NOT NULL,
  version INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(name_space, kind, name));
CREATE INDEX objects_owner ON objects(owner) WHERE owner <> '';
CREATE TABLE revision(one INTEGER PRIMARY KEY CHECK(one = 1), value INTEGER NOT NULL);
INSERT INTO revision VALUES(1, 0);
)sql",
    // The same key is logged by thousands of runs: an artifact is found by its producer first. Lists of runs with
    // their iterations are sorted by start, too.
    R"sql(
DROP INDEX artifacts_tree;
CREATE INDEX artifacts_tree ON artifacts(project, tree, key);
CREATE INDEX runs_project_start ON runs(project, start);
)sql",
    // Pages of lists by label, by state and of heads walk an index in the order that they show, however many runs are
    // stored. `run_heads_split`: names whose newest change is not their newest start.
    R"sql(
DROP INDEX run_labels_value;
ALTER TABLE run_labels ADD COLUMN project TEXT NOT NULL DEFAULT '';
ALTER TABLE run_labels ADD COLUMN start INTEGER NOT NULL DEFAULT 0;
UPDATE run_labels SET (project, start) = (SELECT r.project, r.start FROM runs r WHERE r.id = run);
CREATE INDEX run_labels_value ON run_labels(project, name, value, start);
ALTER TABLE run_heads ADD COLUMN changed_start INTEGER NOT NULL DEFAULT 0;
UPDATE run_heads SET changed_start = coalesce((SELECT start FROM runs WHERE id = changed_run), 0);
CREATE INDEX run_heads_start ON run_heads(project, changed_start);
CREATE INDEX run_heads_split ON run_heads(project, started) WHERE changed_run <> started_run;
)sql",
};

}  // namespace

int schema_version() { return static_cast<int>(kSteps.size()); }

Result<void> migrate(Database& database) {
  METIER_TRY(version, database.pragma("user_version"));
  if (version > schema_version()) {
    return fail(
        Error{.kind = ErrorKind::invalid,
              .message = fmt::format(
                  "the data folder was written by a newer metier (format {}, this one knows {})",
                  version, schema_version()),
              .field = "data_dir",
              .fix = "use that version; nothing was changed"});
  }
  for (auto step = static_cast<std::size_t>(version); step < kSteps.size(); ++step) {
    METIER_CHECK(database.execute("BEGIN IMMEDIATE"));
    auto done = database.execute(kSteps[step]);
    if (done) { done = database.execute(fmt::format("PRAGMA user_version={}", step + 1)); }
    if (done) {
      METIER_FAILPOINT("store/migrate/before_commit");
      done = database.execute("COMMIT");
    }
    if (!done) {
      static_cast<void>(database.execute("ROLLBACK"));
      return done;
    }
  }
  METIER_FAILPOINT("store/open/migrated");
  return {};
}

}  // namespace metier
