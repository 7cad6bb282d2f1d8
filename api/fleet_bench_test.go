package api_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// The fleet of the benchmarks: so many jobs with so many runs of each, each on ten
// of so many nodes.
const (
	benchJobs  = 1000
	benchRuns  = 100
	benchNodes = 1000
	benchOn    = 10
)

// bigFleet returns a client of a server whose SQLite store remembers 100,000 runs, and
// what its manifest has.
func bigFleet(b *testing.B) *api.Client {
	b.Helper()
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the benchmark may be too long for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	m := &loom.Manifest{File: "loom.yaml"}
	for i := range benchNodes {
		m.Nodes = append(m.Nodes, &loom.Node{Name: fmt.Sprintf("node%04d", i), Groups: []string{fmt.Sprint("rack", i%20)}})
	}
	for i := range benchJobs {
		s, err := loom.ParseSchedule(fmt.Sprintf("%d %d * * *", i%60, i%24), time.UTC)
		must(err)
		j := &loom.Job{Name: fmt.Sprintf("job%04d", i), TaskName: "run", Schedule: s, Description: "copies what must not be lost", Labels: map[string]string{"team": fmt.Sprint(i % 7)}}
		for n := range benchOn {
			j.Targets = append(j.Targets, m.Nodes[(i*benchOn+n)%benchNodes])
		}
		m.Jobs = append(m.Jobs, j)
	}
	file := filepath.Join(dir, "loom.db")
	store, err := sqlite.Options{}.Open(b.Context(), file)
	must(err)
	prints := map[string]string{}
	for _, j := range m.Jobs {
		prints[j.Name] = ""
	}
	must(store.Adopt(b.Context(), prints))
	must(store.Close())
	fill(b, file)
	store, err = sqlite.Options{}.Open(b.Context(), file)
	must(err)

	ctx, cancel := context.WithCancel(context.Background())
	l, err := api.Listen(ctx, dir)
	must(err)
	served := make(chan error, 1)
	go func() {
		served <- (&api.Server{Store: store, Control: &obliging{daemon: &daemon{manifest: m}}}).Serve(ctx, l)
	}()
	c := &api.Client{Socket: filepath.Join(dir, api.SocketFile)}
	b.Cleanup(func() {
		_ = c.Close()
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
		must(store.Close())
	})
	return c
}

// fill writes a past into the file of a store, as its schema has it: through the store
// it would take minutes.
func fill(b *testing.B, file string) {
	b.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	exec := func(query string, args ...any) {
		b.Helper()
		if _, err := tx.Exec(query, args...); err != nil {
			b.Fatal(err)
		}
	}
	for i := range benchNodes {
		exec("INSERT INTO nodes (id, name) VALUES (?, ?)", i+1, fmt.Sprintf("node%04d", i))
	}
	began := time.Now().Add(-benchRuns * 24 * time.Hour)
	seq := 0
	for run := range benchRuns {
		for job := range benchJobs {
			seq++
			at := began.Add(time.Duration(run)*24*time.Hour + time.Duration(job)*time.Second).UnixMilli()
			status := "ok"
			if seq%17 == 0 {
				status = "failed"
			}
			exec("INSERT INTO runs (seq, id, job, due, cause, solo, status, epoch, queued, started, ended, nodes, counts) "+
				"SELECT ?, ?, id, ?, 'schedule', 1, ?, 1, ?, ?, ?, ?, '{\"ok\":10}' FROM jobs WHERE name = ?",
				seq, fmt.Sprintf("%026d", seq), at, status, at, at, at+12345, benchOn, fmt.Sprintf("job%04d", job))
			for n := range benchOn {
				if run < benchRuns-3 {
					break // of the last days, results are enough
				}
				exec("INSERT INTO results (run, node, status, started, ended) VALUES (?, ?, ?, ?, ?)",
					seq, (job*benchOn+n)%benchNodes+1, status, at, at+12345)
			}
		}
	}
	exec("ANALYZE")
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

// What the pages of a web interface and the lists of a command line ask for, at 1,000
// jobs with 100,000 runs: each through the socket and the Client.
func BenchmarkFleet(b *testing.B) {
	c := bigFleet(b)
	ctx := b.Context()
	for _, bb := range []struct {
		name string
		ask  func() (int, error)
		want int
	}{
		{"jobs100", func() (int, error) {
			p, err := c.ListJobs(ctx, api.JobsQuery{})
			if err == nil && len(p.Items[0].Outcomes) != 30 {
				err = fmt.Errorf("%d outcomes", len(p.Items[0].Outcomes))
			}
			return len(p.Items), err
		}, 100},
		{"jobs100failed", func() (int, error) {
			p, err := c.ListJobs(ctx, api.JobsQuery{Status: []string{"failed"}})
			return len(p.Items), err
		}, 59},
		{"jobs1000", func() (int, error) {
			p, err := c.ListJobs(ctx, api.JobsQuery{Limit: 1000, Outcomes: -1})
			return len(p.Items), err
		}, 1000},
		{"job", func() (int, error) {
			_, err := c.ShowJob(ctx, "job0500", 0)
			return 1, err
		}, 1},
		{"nodes100", func() (int, error) {
			p, err := c.ListNodes(ctx, api.NodesQuery{})
			return len(p.Items), err
		}, 100},
		{"node", func() (int, error) {
			_, err := c.ShowNode(ctx, "node0500", 0)
			return 1, err
		}, 1},
		{"runs100", func() (int, error) {
			r, err := c.Runs(ctx, loom.RunQuery{})
			return len(r), err
		}, 100},
		{"runs100failed", func() (int, error) {
			r, err := c.Runs(ctx, loom.RunQuery{Status: []loom.Status{loom.StatusFailed}})
			return len(r), err
		}, 100},
		{"next100", func() (int, error) {
			p, err := c.Next(ctx, api.NextQuery{Limit: 100})
			return len(p.Items), err
		}, 100},
		{"why", func() (int, error) {
			_, err := c.Why(ctx, "job0500", api.WhyQuery{})
			return 1, err
		}, 1},
		{"status", func() (int, error) {
			_, err := c.Status(ctx)
			return 1, err
		}, 1},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if n, err := bb.ask(); err != nil || n != bb.want {
					b.Fatalf("%d items, want %d: %v", n, bb.want, err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
