-- How a run by hand differs from what its job says.
-- +goose Up
ALTER TABLE runs ADD COLUMN plan    INTEGER NOT NULL DEFAULT 0; -- it only tells what the job would change
ALTER TABLE runs ADD COLUMN timeout INTEGER;                    -- for each node; NULL: the job's
ALTER TABLE runs ADD COLUMN most    INTEGER;                    -- nodes at once; NULL: no limit of its own
