-- The first format (user_version 1). Never changed: every later program opens it.
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

-- One row of everything, as the first format's program wrote it.
INSERT INTO projects VALUES('p','{"metadata":{"name":"p"}}');
INSERT INTO functions VALUES('p','f','0123456789abcdef0123456789abcdef01234567','job','{"kind":"job","metadata":{"name":"f"}}',1764000000000000);
INSERT INTO function_tags VALUES('p','f','latest','0123456789abcdef0123456789abcdef01234567');
INSERT INTO runs VALUES(1,'p','u1',0,'n','completed','job',1764000000000000,1764000001000000,1764000001000000,3,'{"metadata":{"uid":"u1"}}');
INSERT INTO runs VALUES(2,'p','u1',1,'n','completed','job',1764000000000000,1764000001000000,NULL,1,'{"metadata":{"uid":"u1"}}');
INSERT INTO run_labels VALUES(1,'owner','me');
INSERT INTO run_heads VALUES('p','n',1764000001000000,1,1764000000000000,1);
INSERT INTO artifacts VALUES(1,'p','n_model','aaaa','u1',0,'model','model',1,1764000001000000,'{"kind":"model"}');
INSERT INTO artifact_tags VALUES('p','n_model','latest',1);
INSERT INTO artifact_labels VALUES(1,'stage','prod');
INSERT INTO timeline VALUES(1,'p','u1',1,1764000000000000,'accepted','{}');
INSERT INTO background_tasks VALUES('t','p','{}');
INSERT INTO settings VALUES('s','k','v',NULL);
UPDATE revision SET value = 7;
PRAGMA user_version=1;
