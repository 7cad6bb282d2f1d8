-- What people look for in runs that have ended: who asked for them, and why they and
-- their results are as they are. Of each three characters that follow each other, it is
-- kept which runs have them. What has no text has no row. The rowid is the run's seq.
-- +goose Up
CREATE VIRTUAL TABLE said USING fts5(text, content = '', contentless_delete = 1, tokenize = 'trigram');

-- +goose StatementBegin
CREATE TRIGGER runs_said AFTER UPDATE OF ended ON runs WHEN old.ended IS NULL AND new.ended IS NOT NULL BEGIN
  INSERT INTO said (rowid, text) SELECT new.seq, text FROM (SELECT concat_ws(char(10), new.who, new.reason, (SELECT group_concat(reason, char(10)) FROM
    (SELECT DISTINCT reason FROM results WHERE run = new.seq AND reason IS NOT NULL))) AS text) WHERE text <> '';
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER runs_unsaid AFTER DELETE ON runs WHEN old.ended IS NOT NULL BEGIN
  DELETE FROM said WHERE rowid = old.seq;
END;
-- +goose StatementEnd

INSERT INTO said (rowid, text) SELECT seq, text FROM (SELECT r.seq, concat_ws(char(10), r.who, r.reason, (SELECT group_concat(reason, char(10)) FROM
  (SELECT DISTINCT reason FROM results WHERE run = r.seq AND reason IS NOT NULL))) AS text FROM runs r WHERE r.ended IS NOT NULL) WHERE text <> '';
