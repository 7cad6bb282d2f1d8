PRAGMA auto_vacuum = incremental;
CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO goose_db_version VALUES(1,0,1,'2026-11-24 08:46:20');
INSERT INTO goose_db_version VALUES(2,1,1,'2026-11-24 08:46:20');
CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('output_bytes',28);
CREATE TABLE jobs (
  id          INTEGER PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE,
  schedule    TEXT NOT NULL DEFAULT '', -- a fingerprint of what decides when it is due
  gone        INTEGER NOT NULL DEFAULT 0,
  last_tick   INTEGER,
  pause_since INTEGER,                  -- NULL: not paused
  pause_until INTEGER,
  pause_by    TEXT,
  pause_why   TEXT
) STRICT;
INSERT INTO jobs VALUES(1,'backup','',0,1774789200000,NULL,NULL,NULL,NULL);
CREATE TABLE nodes (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO nodes VALUES(1,'db1');
CREATE TABLE runs (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  id      TEXT NOT NULL UNIQUE,
  job     INTEGER NOT NULL REFERENCES jobs (id),
  due     INTEGER NOT NULL,
  cause   TEXT NOT NULL,  -- the trigger
  who     TEXT,
  dedup   TEXT,           -- the key of a firing without a tick
  targets TEXT,           -- JSON; NULL: all of the job's
  solo    INTEGER NOT NULL,
  status  TEXT NOT NULL,
  reason  TEXT,
  owner   TEXT,           -- of the claim; NULL: not claimed
  epoch   INTEGER NOT NULL DEFAULT 0,
  cancel  TEXT,           -- why it shall end; NULL: it need not
  queued  INTEGER NOT NULL,
  started INTEGER,
  ended   INTEGER,
  nodes   INTEGER NOT NULL,
  counts  TEXT            -- JSON
) STRICT;
INSERT INTO runs VALUES(1,'01kmwgx8000000000000000001',1,1774785600000,'schedule',NULL,NULL,NULL,1,'ok',NULL,NULL,1,NULL,1795509980170,1795509980170,1795509980186,1,'{"ok":1}');
INSERT INTO runs VALUES(2,'01kmwmbnx00000000000000002',1,1774789200000,'schedule',NULL,NULL,NULL,1,'failed','it broke',NULL,1,NULL,1795509980187,1795509980187,1795509980189,1,'{"failed":1}');
CREATE TABLE ticks (
  job     INTEGER NOT NULL REFERENCES jobs (id),
  due     INTEGER NOT NULL,
  until   INTEGER NOT NULL,
  ticks   INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  why     TEXT,
  run     INTEGER,
  at      INTEGER NOT NULL,
  PRIMARY KEY (job, due)
) STRICT, WITHOUT ROWID;
INSERT INTO ticks VALUES(1,1774785600000,1774785600000,1,'ran',NULL,1,1795509980170);
INSERT INTO ticks VALUES(1,1774789200000,1774789200000,1,'ran',NULL,2,1795509980187);
CREATE TABLE results (
  run      INTEGER NOT NULL REFERENCES runs (seq),
  node     INTEGER NOT NULL REFERENCES nodes (id),
  status   TEXT NOT NULL,
  exit     INTEGER, -- NULL: -1
  started  INTEGER,
  ended    INTEGER,
  changes  TEXT,    -- JSON
  reason   TEXT,
  tried    INTEGER NOT NULL DEFAULT 1,
  earlier  TEXT,    -- JSON: the attempts before the last
  dropped  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run, node)
) STRICT, WITHOUT ROWID;
INSERT INTO results VALUES(1,1,'ok',NULL,1774785600000,1774785601000,NULL,NULL,1,NULL,0);
INSERT INTO results VALUES(2,1,'failed',NULL,1774785600000,1774785601000,NULL,'exit status 1',1,NULL,0);
CREATE TABLE output (
  id   INTEGER PRIMARY KEY AUTOINCREMENT,
  run  INTEGER NOT NULL REFERENCES runs (seq),
  node INTEGER NOT NULL REFERENCES nodes (id),
  at   INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;
INSERT INTO output VALUES(1,1,1,1795509980186,X'0080e8b897a767000568656c6c6f');
INSERT INTO output VALUES(2,2,1,1795509980189,X'0080e8b897a767000568656c6c6f');
CREATE TABLE days (
  job    INTEGER NOT NULL,
  day    INTEGER NOT NULL, -- 20261124
  status TEXT NOT NULL,
  n      INTEGER NOT NULL,
  PRIMARY KEY (job, day, status)
) STRICT, WITHOUT ROWID;
INSERT INTO days VALUES(0,20261124,'failed',1);
INSERT INTO days VALUES(0,20261124,'ok',1);
INSERT INTO days VALUES(1,20261124,'failed',1);
INSERT INTO days VALUES(1,20261124,'ok',1);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('goose_db_version',3);
INSERT INTO sqlite_sequence VALUES('runs',2);
INSERT INTO sqlite_sequence VALUES('output',2);
CREATE INDEX runs_at      ON runs (queued);
CREATE INDEX runs_job     ON runs (job, queued);
CREATE INDEX runs_bad     ON runs (queued, status)      WHERE status NOT IN ('ok', 'changed');
CREATE INDEX runs_job_bad ON runs (job, queued, status) WHERE status NOT IN ('ok', 'changed');
CREATE INDEX runs_going   ON runs (job, status)         WHERE status IN ('queued', 'running');
CREATE UNIQUE INDEX runs_solo  ON runs (job)            WHERE status = 'running' AND solo = 1;
CREATE UNIQUE INDEX runs_dedup ON runs (job, dedup)     WHERE dedup IS NOT NULL;
CREATE INDEX results_node ON results (node, run);
CREATE INDEX output_run ON output (run, node);
