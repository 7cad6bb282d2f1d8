package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dustinlacewell/loom"
)

// slice is how many rows are deleted in one transaction, and pages is how many
// pages of the file are given back in one: a few milliseconds each, between
// which others write.
const (
	slice = 500
	pages = 256
)

// Trim is part of loom.Store.
func (s *Store) Trim(ctx context.Context, keep loom.Retention) (loom.Trimmed, error) {
	now := s.now()
	t := &trimmer{store: s}
	steps := []func(context.Context) error{}
	if keep.Runs > 0 {
		steps = append(steps, func(ctx context.Context) error { return t.oldRuns(ctx, now.Add(-keep.Runs)) })
	}
	if keep.RunsPerJob > 0 {
		steps = append(steps, func(ctx context.Context) error { return t.manyRuns(ctx, keep.RunsPerJob) })
	}
	if keep.Output > 0 || keep.OutputBytes > 0 {
		steps = append(steps, func(ctx context.Context) error { return t.output(ctx, now, keep) })
	}
	if keep.Ticks > 0 {
		steps = append(steps, func(ctx context.Context) error { return t.ticks(ctx, now.Add(-keep.Ticks)) })
	}
	for _, step := range append(steps, t.shrink) {
		if err := step(ctx); err != nil {
			return t.done, err
		}
	}
	return t.done, nil
}

type trimmer struct {
	store *Store
	done  loom.Trimmed
}

// newest is the newest run of the job of runs r that is no plan; 0: there is none.
const newest = "coalesce((SELECT x.seq FROM runs x INDEXED BY runs_job WHERE x.job = r.job AND NOT x.plan ORDER BY x.queued DESC, x.seq DESC LIMIT 1), 0)"

// oldRuns deletes the runs that were queued before limit, apart from the newest of
// each job that there is.
func (t *trimmer) oldRuns(ctx context.Context, limit time.Time) error {
	return t.runs(ctx, "SELECT seq FROM runs r INDEXED BY runs_at WHERE queued < ? AND NOT "+going+
		" AND ((SELECT gone FROM jobs WHERE id = r.job) OR seq <> "+newest+") ORDER BY queued LIMIT ?", limit.UnixMilli())
}

// manyRuns deletes all but the newest runs of each job, and the newest that is no
// plan.
func (t *trimmer) manyRuns(ctx context.Context, keep int) error {
	jobs, err := t.jobs(ctx, "SELECT id FROM jobs ORDER BY id")
	if err != nil {
		return err
	}
	for _, job := range jobs {
		var queued, seq int64
		err := t.store.reading.QueryRowContext(ctx, "SELECT queued, seq FROM runs INDEXED BY runs_job WHERE job = ? "+
			"ORDER BY queued DESC, seq DESC LIMIT 1 OFFSET ?", job, keep).Scan(&queued, &seq)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return t.store.unread(ctx, err)
		}
		if err := t.runs(ctx, "SELECT seq FROM runs r INDEXED BY runs_job WHERE job = ? AND queued <= ? AND (queued < ? OR seq <= ?) "+
			"AND NOT "+going+" AND seq <> "+newest+" ORDER BY queued LIMIT ?", job, queued, queued, seq); err != nil {
			return err
		}
	}
	return nil
}

func (t *trimmer) jobs(ctx context.Context, query string, args ...any) ([]int64, error) {
	var jobs []int64
	err := t.store.each(ctx, func(r *sql.Rows) error {
		var id int64
		err := r.Scan(&id)
		jobs = append(jobs, id)
		return err
	}, query, args...)
	return jobs, err
}

// runs deletes the runs that query finds, with all that belongs to them. Its
// last parameter is its limit.
func (t *trimmer) runs(ctx context.Context, query string, args ...any) error {
	for {
		var seqs []int64
		err := t.store.each(ctx, func(r *sql.Rows) error {
			var seq int64
			err := r.Scan(&seq)
			seqs = append(seqs, seq)
			return err
		}, query, append(append([]any{}, args...), slice)...)
		if err != nil || len(seqs) == 0 {
			return err
		}
		for len(seqs) > 0 {
			if seqs, err = t.someRuns(ctx, seqs); err != nil {
				return err
			}
		}
	}
}

// someRuns deletes as much of the runs as one transaction takes, and returns
// those that are left.
func (t *trimmer) someRuns(ctx context.Context, seqs []int64) ([]int64, error) {
	var left []int64
	var done loom.Trimmed
	err := t.store.write(ctx, func(x *tx) error {
		left, done = seqs, loom.Trimmed{}
		budget := slice
		for len(left) > 0 && budget > 0 {
			run := left[0]
			chunks, bytes, err := x.dropOutput("run = ?", run, budget)
			if err != nil {
				return err
			}
			done.Chunks, done.Bytes = done.Chunks+chunks, done.Bytes+bytes
			if budget -= chunks; budget <= 0 {
				return nil
			}
			results, err := x.drop("DELETE FROM results WHERE run = ? AND node IN (SELECT node FROM results WHERE run = ? LIMIT ?)", run, run, budget)
			if err != nil {
				return err
			}
			if budget -= results; budget <= 0 {
				return nil
			}
			n, err := x.drop("DELETE FROM runs WHERE seq = ?", run)
			if err != nil {
				return err
			}
			done.Runs += n
			budget--
			left = left[1:]
		}
		return nil
	})
	if err == nil {
		t.add(done)
	}
	return left, err
}

func (t *trimmer) add(d loom.Trimmed) {
	t.done.Runs += d.Runs
	t.done.Chunks += d.Chunks
	t.done.Ticks += d.Ticks
	t.done.Bytes += d.Bytes
}

// drop deletes rows and returns how many.
func (t *tx) drop(query string, args ...any) (int, error) {
	st, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := st.Exec(args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// dropOutput deletes up to most chunks for which a condition holds.
func (t *tx) dropOutput(condition string, arg any, most int) (int, int64, error) {
	var chunks int
	var bytes int64
	err := t.each(func(r *sql.Rows) error {
		var n int64
		err := r.Scan(&n)
		chunks++
		bytes += n
		return err
	}, "DELETE FROM output WHERE id IN (SELECT id FROM output WHERE "+condition+" LIMIT ?) RETURNING length(data)", arg, most)
	if err != nil || chunks == 0 {
		return 0, 0, err
	}
	return chunks, bytes, t.exec("UPDATE meta SET value = value - ? WHERE name = 'output_bytes'", bytes)
}

// output deletes chunks that are too old, then the oldest while there are too
// many bytes. Those of runs that are going stay.
func (t *trimmer) output(ctx context.Context, now time.Time, keep loom.Retention) error {
	var total int64
	err := t.store.reading.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = 'output_bytes'").Scan(&total)
	if err != nil {
		return t.store.unread(ctx, err)
	}
	limit := int64(0)
	if keep.Output > 0 {
		limit = now.Add(-keep.Output).UnixMilli()
	}
	for after, more := int64(0), true; more; {
		var ids []int64
		more = false
		err := t.store.each(ctx, func(r *sql.Rows) error {
			var id, at, size int64
			var status loom.Status
			if err := r.Scan(&id, &at, &size, &status); err != nil {
				return err
			}
			old := at < limit || keep.OutputBytes > 0 && total > keep.OutputBytes
			after, more = id, old
			if old && status.Ended() {
				ids = append(ids, id)
				total -= size
			}
			return nil
		}, "SELECT o.id, o.at, length(o.data), r.status FROM output o CROSS JOIN runs r ON r.seq = o.run WHERE o.id > ? ORDER BY o.id LIMIT ?", after, slice)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			continue
		}
		var done loom.Trimmed
		err = t.store.write(ctx, func(x *tx) error {
			done = loom.Trimmed{}
			var err error
			done.Chunks, done.Bytes, err = x.dropOutput("id IN (SELECT value FROM json_each(?))", list(ids), slice)
			return err
		})
		if err != nil {
			return err
		}
		t.add(done)
	}
	return nil
}

// ticks deletes outcomes, day counts and actions from before limit.
func (t *trimmer) ticks(ctx context.Context, limit time.Time) error {
	old, day := limit.UnixMilli(), dayNumber(limit.In(t.store.zone()))
	jobs, err := t.jobs(ctx, "SELECT id FROM jobs j WHERE EXISTS (SELECT 1 FROM ticks WHERE job = j.id AND due < ?) ORDER BY id", old)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		n, err := t.all(ctx, "DELETE FROM ticks WHERE job = ? AND due IN (SELECT due FROM ticks WHERE job = ? AND until < ? AND due < ? ORDER BY due LIMIT ?)",
			job, job, old, old)
		t.done.Ticks += n
		if err != nil {
			return err
		}
	}
	jobs, err = t.jobs(ctx, "SELECT id FROM (SELECT 0 AS id UNION ALL SELECT id FROM jobs) j WHERE EXISTS (SELECT 1 FROM days WHERE job = j.id AND day < ?)", day)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		if _, err := t.all(ctx, "DELETE FROM days WHERE job = ? AND day IN (SELECT day FROM days WHERE job = ? AND day < ? LIMIT ?)", job, job, day); err != nil {
			return err
		}
	}
	_, err = t.all(ctx, "DELETE FROM actions WHERE id IN (SELECT id FROM actions WHERE at < ? ORDER BY id LIMIT ?)", old)
	return err
}

// all repeats a deletion, whose last parameter is its limit, until nothing is
// left, and returns how many rows there were.
func (t *trimmer) all(ctx context.Context, query string, args ...any) (int, error) {
	total := 0
	for {
		n := 0
		err := t.store.write(ctx, func(x *tx) error {
			var err error
			n, err = x.drop(query, append(append([]any{}, args...), slice)...)
			return err
		})
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// shrink gives free pages at the end of the file back, and then cuts it. It
// leaves the rest for another time if others free as much meanwhile.
func (t *trimmer) shrink(ctx context.Context) error {
	free, before := 0, math.MaxInt
	for {
		err := t.store.write(ctx, func(x *tx) error {
			if err := x.get("PRAGMA freelist_count", nil, &free); free == 0 || free >= before || err != nil {
				return err
			}
			return x.each(func(*sql.Rows) error { return nil }, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", pages))
		})
		if err != nil {
			return err
		}
		if free == 0 || free >= before {
			break
		}
		before = free
	}
	rows, err := t.store.writing.QueryContext(ctx, "PRAGMA wal_checkpoint(passive)")
	return t.store.unread(ctx, every(rows, err, func(*sql.Rows) error { return nil }))
}
