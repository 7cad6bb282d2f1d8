package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/internal/smalldisk"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

// TestStoreFaults takes a daemon's store away while it works, and gives it back:
// no tick is acted on meanwhile, what runs goes on and is recorded, and every tick
// has an answer in the end.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		small bool // the store is on a small file system
		take  func(t *testing.T, file string) (giveBack func())
		says  string
	}{
		{"full", true, fillDisk, "full"},
		{"locked", false, lockStore, "locked"},
		{"deleted", false, hideStore, "deleted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkplace(t, tt.small)
			w.await(t, `msg="run ended" job=tick .*status=ok`, 2)
			w.await(t, `msg="run started" job=long`, 1)

			giveBack := tt.take(t, filepath.Join(w.state, "loom.db"))
			w.await(t, `msg="store is down`, 1)
			client := &api.Client{Socket: filepath.Join(w.state, api.SocketFile)}
			defer client.Close()
			st, err := client.Status(t.Context())
			if err != nil || st.Store.State != api.StoreDown || !strings.Contains(st.Store.Reason, tt.says) || st.Store.Since.IsZero() {
				t.Errorf("status says of the store: %+v, %v", st.Store, err)
			}
			if _, err := client.Trigger(t.Context(), "tick", loom.Request{}); !errors.Is(err, loom.ErrStoreDown) {
				t.Errorf("a run by hand while the store is down: %v", err)
			}
			before := w.ticks(t)
			touch(t, filepath.Join(w.dir, "go")) // the long one ends now, and nobody can write that down
			w.await(t, `msg="node ended" job=long|store is down`, 1)
			<-time.After(3 * time.Second)
			if after := w.ticks(t); after > before+1 { // one may have been claimed just before
				t.Errorf("%d ticks were run while the store was down", after-before)
			}

			giveBack()
			w.await(t, `msg="store is back`, 1)
			w.await(t, `msg="run ended" job=long .*status=ok`, 1)
			w.await(t, `msg="run ended" job=tick .*status=ok`, 4)
			w.stop(t)
			w.check(t)
		})
	}
}

func fillDisk(t *testing.T, file string) func() {
	t.Helper()
	return smalldisk.Fill(t, filepath.Dir(file))
}

func lockStore(t *testing.T, file string) func() {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	do := func(what string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
	do("PRAGMA busy_timeout = 10000")
	do("BEGIN IMMEDIATE")
	return func() {
		do("COMMIT")
		_ = conn.Close()
		_ = db.Close()
	}
}

func hideStore(t *testing.T, file string) func() {
	t.Helper()
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(file, file+".hidden")
	return func() { move(file+".hidden", file) }
}

// A workplace is a daemon at work in a directory.
type workplace struct {
	dir, state string
	log        lockedBuffer
	cancel     context.CancelFunc
	wg         sync.WaitGroup
}

func newWorkplace(t *testing.T, small bool) *workplace {
	t.Helper()
	w := &workplace{dir: t.TempDir()}
	w.state = filepath.Join(w.dir, "s")
	if err := os.Mkdir(w.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if small {
		smalldisk.Mount(t, w.state, "4m")
	}
	writeFiles(t, w.dir, map[string]string{
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\nstate: s\n",
		"nodes.yaml": "here: {transport: local}\n",
		"jobs/a.yaml": fmt.Sprintf("jobs:\n"+
			"  tick: {task: run, args: ['echo {{.Run}} >>%[1]s/ticks'], schedule: '* * * * * *', targets: here}\n"+
			"  long: {task: run, args: ['until test -e %[1]s/go; do sleep 0.1; done'], schedule: '@reboot', targets: here}\n", w.dir),
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	w.cancel = cancel
	w.wg.Go(func() {
		err := daemon.Run(ctx, daemon.Options{Tasks: tasks.Registry(), Dialer: &ssh.Dialer{}, Stores: daemon.Stores{"sqlite": sqlite.Open}},
			[]string{"-c", filepath.Join(w.dir, "loom.yaml")}, nil, &w.log, &w.log)
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		w.stop(t)
		if t.Failed() {
			t.Logf("the log:\n%s", w.log.String())
		}
	})
	return w
}

func (w *workplace) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	w.wg.Wait()
}

// await waits until the log has said something so often since the last time it
// was asked for.
func (w *workplace) await(t *testing.T, what string, times int) {
	t.Helper()
	words := regexp.MustCompile(what)
	from := len(w.log.String())
	if times == 1 {
		from = 0
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(40 * time.Second)
	for {
		if len(words.FindAllString(w.log.String()[from:], -1)) >= times {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("the log does not say %q", what)
		}
	}
}

func (w *workplace) ticks(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "ticks"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// check holds the store against what was done.
func (w *workplace) check(t *testing.T) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(w.state, "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	runs, err := store.Runs(t.Context(), loom.RunQuery{Limit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	byID, ran := map[string]loom.Run{}, 0
	for _, r := range runs {
		byID[r.ID] = r
		if !r.Status.Good() {
			t.Errorf("run %s of %s is %s: %s", r.ID, r.Job, r.Status, r.Reason)
		}
		if r.Job == "tick" {
			ran++
		}
	}
	if n := w.ticks(t); n != ran {
		t.Errorf("%d runs in the store, and %d were done", ran, n)
	}
	checkTicks(t, store, "tick", time.Second, byID)
	ticks, err := store.Ticks(t.Context(), loom.TickQuery{Job: "tick", Limit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	missed := 0
	for _, k := range ticks {
		if k.Outcome == loom.OutcomeMissed || k.Outcome == loom.OutcomeLate {
			missed += k.Ticks
			if !strings.Contains(k.Why, "the store was down from") {
				t.Errorf("tick %v %s: %s", k.Due, k.Outcome, k.Why)
			}
		}
	}
	if missed == 0 {
		t.Error("no tick was missed while the store was down")
	}
}
