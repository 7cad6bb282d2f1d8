package sqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
)

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Options{}.Open(b.Context(), filepath.Join(b.TempDir(), "loom.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// A tick of one job: claimed, with its run, on the disk.
func BenchmarkTick(b *testing.B) {
	s := benchStore(b)
	last, due := time.Time{}, time.Now().Add(-1000*time.Hour)
	for n := 0; b.Loop(); n++ {
		due = due.Add(time.Second)
		fired, err := s.Fire(b.Context(), "a", []loom.Firing{{Job: "j", After: last, Due: due, Overlap: loom.OverlapAllow, Claim: true,
			Run: loom.Run{ID: fmt.Sprintf("%026d", n), Trigger: loom.TriggerSchedule, Nodes: 1}}})
		if err != nil || fired[0].Claim.Epoch != 1 {
			b.Fatal(fired, err)
		}
		if err := s.Finish(b.Context(), fired[0].Claim, loom.Run{Status: loom.StatusOK}, nil); err != nil {
			b.Fatal(err)
		}
		last = due
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ticks/s")
}

// The ticks of 1,000 jobs at one instant, in one call.
func BenchmarkThousandTicks(b *testing.B) {
	s := benchStore(b)
	last, due := time.Time{}, time.Now().Add(-1000*time.Hour)
	for n := 0; b.Loop(); n++ {
		due = due.Add(time.Second)
		firings := make([]loom.Firing, 1000)
		for i := range firings {
			firings[i] = loom.Firing{Job: fmt.Sprint("job ", i), After: last, Due: due, Overlap: loom.OverlapAllow, Claim: true,
				Run: loom.Run{ID: fmt.Sprintf("%020d%06d", n, i), Trigger: loom.TriggerSchedule, Nodes: 1}}
		}
		fired, err := s.Fire(b.Context(), "a", firings)
		if err != nil || fired[999].Claim.Epoch != 1 {
			b.Fatal(err)
		}
		last = due
		b.StopTimer()
		err = s.write(b.Context(), func(t *tx) error { // they end
			return t.exec("UPDATE runs SET status = 'ok', owner = NULL WHERE " + going)
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "ticks/s")
}

// Runs from their begin to their end, by 16 at once: fired, the node's start
// recorded, its end with a line of output, finished.
func BenchmarkRuns(b *testing.B) {
	s := benchStore(b)
	var n atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := n.Add(1)
			fired, err := s.Fire(b.Context(), "a", []loom.Firing{{Job: fmt.Sprint("job ", id%50), Overlap: loom.OverlapAllow, Claim: true,
				Run: loom.Run{ID: fmt.Sprintf("%026d", id), Trigger: loom.TriggerAfter, Nodes: 1}}})
			if err != nil {
				b.Error(err)
				return
			}
			c, events := fired[0].Claim, oneNode("n1")
			if err := s.Record(b.Context(), c, events[:1]); err != nil {
				b.Error(err)
			}
			if err := s.Finish(b.Context(), c, loom.Run{Status: loom.StatusOK, Counts: map[loom.Status]int{loom.StatusOK: 1}}, events[1:]); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
}

func oneNode(node string) []loom.Event {
	now := time.Now()
	return []loom.Event{
		{Kind: loom.KindNodeStarted, Node: node, Time: now},
		{Kind: loom.KindOutput, Node: node, Time: now, Stream: loom.Stdout, Text: "up 12 days, 3 users, load average: 0.12, 0.08, 0.01"},
		{Kind: loom.KindNodeEnded, Node: node, Time: now, Result: &loom.Result{Status: loom.StatusOK, ExitCode: -1, Attempts: 1, Started: now, Ended: now}},
	}
}

// The results of a run on 1,000 nodes, each recorded by itself by 32 at once,
// with its start before.
func BenchmarkResults(b *testing.B) {
	s := benchStore(b)
	for n := 0; b.Loop(); n++ {
		fired, err := s.Fire(b.Context(), "a", []loom.Firing{{Job: "j", Overlap: loom.OverlapAllow, Claim: true,
			Run: loom.Run{ID: fmt.Sprintf("%026d", n), Trigger: loom.TriggerAfter, Nodes: 1000}}})
		if err != nil {
			b.Fatal(err)
		}
		var next atomic.Int64
		done := make(chan error)
		for range 32 {
			go func() {
				var err error
				for i := next.Add(1); i <= 1000 && err == nil; i = next.Add(1) {
					events := oneNode(fmt.Sprint("node", i))
					if err = s.Record(b.Context(), fired[0].Claim, events[:1]); err == nil {
						err = s.Record(b.Context(), fired[0].Claim, events[1:])
					}
				}
				done <- err
			}()
		}
		for range 32 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "results/s")
}

// BenchmarkHistory asks what people ask of a store of a million runs, which
// LOOM_RUNS=1000000 makes (it takes a minute).
func BenchmarkHistory(b *testing.B) {
	runs, err := strconv.Atoi(os.Getenv("LOOM_RUNS"))
	if err != nil {
		b.Skip("set LOOM_RUNS to how many runs there shall be")
	}
	file := filepath.Join(b.TempDir(), "loom.db")
	s, size := seed(b, file, runs)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			if s, err = (Options{}).Open(b.Context(), file); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Beat(b.Context(), loom.Instance{ID: "a"}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(size)/float64(runs), "bytes/run")
	})
	defer func() { _ = s.Close() }()
	now := time.Now()
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.Local)
	page := func(q loom.RunQuery) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			found, err := s.Runs(ctx, q)
			return len(found), err
		}
	}
	failed := []loom.Status{loom.StatusFailed, loom.StatusLost, loom.StatusCancelled}
	some, err := s.Runs(b.Context(), loom.RunQuery{Limit: 1000})
	if err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name string
		ask  func(context.Context) (int, error)
	}{
		{"latest 100 runs", page(loom.RunQuery{})},
		{"a page further on", page(loom.RunQuery{Before: some[len(some)-1].ID})},
		{"one job's history", page(loom.RunQuery{Job: "job 17"})},
		{"failures of today", page(loom.RunQuery{Status: failed, Since: today})},
		{"one job's failures", page(loom.RunQuery{Job: "job 17", Status: failed})},
		{"what is going", page(loom.RunQuery{Status: []loom.Status{loom.StatusRunning, loom.StatusQueued}})},
		{"one node's history", page(loom.RunQuery{Node: "node 3"})},
		{"one run by its ID", page(loom.RunQuery{ID: some[500].ID})},
		{"text that no run has", page(loom.RunQuery{Text: "no such text"})},
		{"text that no run of today has", page(loom.RunQuery{Text: "name resolution", Since: today})},
		{"text of a few reasons", page(loom.RunQuery{Text: "No Route"})},
		{"text of old reasons", page(loom.RunQuery{Text: "name resolution"})},
		{"text of many reasons", page(loom.RunQuery{Text: "disk is full"})},
		{"text of one job's name", page(loom.RunQuery{Text: "job 517"})},
		{"text of the names of 111 jobs", page(loom.RunQuery{Text: "job 5"})},
		{"text of all jobs' names", page(loom.RunQuery{Text: "job"})},
		{"text of two characters", page(loom.RunQuery{Text: "zz"})},
		{"day counts of 90 days", func(ctx context.Context) (int, error) {
			days, err := s.Days(ctx, loom.DayQuery{From: now.AddDate(0, 0, -90)})
			return len(days), err
		}},
		{"all jobs with their last run", func(ctx context.Context) (int, error) {
			jobs, err := s.Jobs(ctx)
			return len(jobs), err
		}},
		{"why, at a moment", func(ctx context.Context) (int, error) {
			ticks, err := s.Ticks(ctx, loom.TickQuery{Job: "job 17", From: now.Add(-time.Hour), To: now})
			return len(ticks), err
		}},
		{"results and output of a run", func(ctx context.Context) (int, error) {
			results, err := s.Results(ctx, loom.ResultQuery{Runs: []string{some[500].ID}})
			if err != nil {
				return 0, err
			}
			chunks, err := s.Output(ctx, loom.OutputQuery{Run: some[500].ID})
			return len(results) + len(chunks), err
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				if n, err = bb.ask(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n), "rows")
		})
	}
}

// seed fills a store with runs of the last 90 days: of 1,000 jobs, on one of
// 200 nodes each, with a result and a line of output. 2 % fail: the oldest
// twentieth of them since no name could be resolved, one in a hundred since there was
// no route, and the others as the disk was full. It returns the size of the file, too.
func seed(b *testing.B, file string, runs int) (*Store, int64) {
	b.Helper()
	s, err := Options{}.Open(b.Context(), file)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	chunk := s.codec.Encode([]loom.Line{{Time: began, Stream: loom.Stdout, Text: "up 12 days, 3 users, load average: 0.12, 0.08, 0.01"}})[0]
	start, step := began.AddDate(0, 0, -90).UnixMilli(), float64(90*24*time.Hour/time.Millisecond)/float64(runs)
	err = s.write(b.Context(), func(t *tx) error {
		const count = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) "
		const status = "iif(i % 53 = 7, 'failed', iif(i % 9 = 0, 'changed', 'ok'))"
		for _, q := range []struct {
			query string
			args  []any
		}{
			{count + "INSERT INTO jobs (id, name, schedule, last_tick) SELECT i + 1, 'job ' || i, '@hourly', ?2 FROM n", []any{1000, began.UnixMilli()}},
			{count + "INSERT INTO nodes (id, name) SELECT i + 1, 'node ' || i FROM n", []any{200}},
			{count + "INSERT INTO runs (seq, id, job, due, cause, solo, status, epoch, queued, started, nodes, counts) SELECT i + 1, " +
				"printf('01k%023d', i), i * 7919 % 1000 + 1, ?2 + cast(i * ?3 AS INTEGER), 'schedule', 1, " + status + ", 1, " +
				"?2 + cast(i * ?3 AS INTEGER), ?2 + cast(i * ?3 AS INTEGER) + 2, 1, " +
				"'{\"' || " + status + " || '\":1}' FROM n", []any{runs, start, step}},
			{"INSERT INTO ticks SELECT job, due, due, 1, 'ran', NULL, seq, queued FROM runs ORDER BY job, due", nil},
			{"INSERT INTO results (run, node, status, exit, started, ended, reason) SELECT seq, seq * 31 % 200 + 1, status, iif(status = 'failed', 1, NULL), " +
				"started, started + 810, iif(status = 'failed', iif(seq < ? / 20, 'lookup db: temporary failure in name resolution', " +
				"iif(seq / 53 % 100 = 0, 'connect: no route to host', 'exit status 1: disk is full')), NULL) FROM runs ORDER BY seq", []any{runs}},
			{"UPDATE runs SET ended = started + 810", nil}, // which puts reasons into the index
			{"INSERT INTO output (run, node, at, data) SELECT seq, seq * 31 % 200 + 1, ended, ? FROM runs ORDER BY seq", []any{chunk}},
			{"INSERT INTO days SELECT job, strftime('%Y%m%d', queued / 1000, 'unixepoch'), status, count(*) FROM runs GROUP BY 1, 2, 3", nil},
			{"INSERT INTO days SELECT 0, day, status, sum(n) FROM days GROUP BY 2, 3", nil},
		} {
			if err := t.exec(q.query, q.args...); err != nil {
				return fmt.Errorf("%s: %w", q.query, err)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Trim(b.Context(), loom.Retention{}); err != nil { // brings the log into the file
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	if s, err = (Options{}).Open(b.Context(), file); err != nil {
		b.Fatal(err)
	}
	return s, info.Size()
}
