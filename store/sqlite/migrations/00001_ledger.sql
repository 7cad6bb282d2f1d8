-- All times are milliseconds since 1970, UTC.
-- +goose Up
CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('output_bytes', 0); -- kept by every writer of output

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

CREATE TABLE nodes (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

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
CREATE INDEX runs_at      ON runs (queued);
CREATE INDEX runs_job     ON runs (job, queued);
CREATE INDEX runs_bad     ON runs (queued, status)      WHERE status NOT IN ('ok', 'changed');
CREATE INDEX runs_job_bad ON runs (job, queued, status) WHERE status NOT IN ('ok', 'changed');
CREATE INDEX runs_going   ON runs (job, status)         WHERE status IN ('queued', 'running');
CREATE UNIQUE INDEX runs_solo  ON runs (job)            WHERE status = 'running' AND solo = 1;
CREATE UNIQUE INDEX runs_dedup ON runs (job, dedup)     WHERE dedup IS NOT NULL;

-- Every tick that was acted on, or a range of them. The run may be trimmed.
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
CREATE INDEX results_node ON results (node, run);

CREATE TABLE output (
  id   INTEGER PRIMARY KEY AUTOINCREMENT,
  run  INTEGER NOT NULL REFERENCES runs (seq),
  node INTEGER NOT NULL REFERENCES nodes (id),
  at   INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;
CREATE INDEX output_run ON output (run, node);

-- How many runs of a job (0: all) that were queued on a day ended how.
CREATE TABLE days (
  job    INTEGER NOT NULL,
  day    INTEGER NOT NULL, -- 20261124
  status TEXT NOT NULL,
  n      INTEGER NOT NULL,
  PRIMARY KEY (job, day, status)
) STRICT, WITHOUT ROWID;
