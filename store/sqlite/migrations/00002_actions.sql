-- Who did what.
-- +goose Up
CREATE TABLE actions (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,
  who    TEXT NOT NULL,
  verb   TEXT NOT NULL,
  object TEXT NOT NULL,
  why    TEXT NOT NULL,
  until  INTEGER
) STRICT;
CREATE INDEX actions_object ON actions (object);
