package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// remember puts an ended run of a job into a store, for a tick that is due now
// if so, with lines of output.
func remember(t *testing.T, store loom.Store, id string, tick bool, lines int) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	f := loom.Firing{Job: "j", Claim: true, Overlap: loom.OverlapAllow, Run: loom.Run{ID: id, Trigger: loom.TriggerManual, Nodes: 1}}
	if tick {
		state, err := store.Jobs(ctx, "j")
		if err != nil {
			t.Fatal(err)
		}
		if len(state) > 0 {
			f.After = state[0].LastTick
		}
		f.Due, f.Run.Trigger = now, loom.TriggerSchedule
	}
	fired, err := store.Fire(ctx, "me", []loom.Firing{f})
	if err != nil || fired[0].Claim.Epoch == 0 {
		t.Fatalf("Fire = %+v, %v", fired, err)
	}
	var events []loom.Event
	for i := range lines {
		events = append(events, loom.Event{Kind: loom.KindOutput, Time: now, Node: "n", Stream: loom.Stdout, Text: fmt.Sprintf("%s-%d-%d", id, i, i*7919%104729)})
	}
	if err := store.Finish(ctx, fired[0].Claim, loom.Run{Status: loom.StatusOK, Ended: now}, events); err != nil {
		t.Fatal(err)
	}
}

func runs(t *testing.T, store loom.Store) int {
	t.Helper()
	all, err := store.Runs(t.Context(), loom.RunQuery{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func ticks(t *testing.T, store loom.Store) int {
	t.Helper()
	all, err := store.Ticks(t.Context(), loom.TickQuery{Job: "j", Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestTrimKeepsWhatTheConfigurationSays(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name        string
		history     loom.History
		runs, ticks int // of 30 days with one tick each
	}{
		{"all", loom.History{}, 30, 30},
		{"by age", loom.History{Keep: 10 * day, KeepTicks: 20 * day}, 10, 20},
		{"by count", loom.History{KeepRuns: 7}, 7, 30},
		{"both", loom.History{Keep: 10 * day, KeepRuns: 20}, 10, 30},
		{"ticks at least as long as runs", loom.History{Keep: 10 * day, KeepTicks: day}, 10, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := new(memory.Store)
				var out safeBuffer
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					trim(ctx, store, func() loom.History { return tt.history }, slog.New(slog.NewTextHandler(&out, nil)))
				}()
				if err := store.Adopt(ctx, map[string]string{"j": "daily"}); err != nil {
					t.Fatal(err)
				}
				for i := range 30 {
					time.Sleep(day) //nolint:forbidigo // the fake clock's
					remember(t, store, fmt.Sprintf("run%02d", i), true, 3)
				}
				time.Sleep(2 * time.Hour) //nolint:forbidigo // the fake clock's
				if r, k := runs(t, store), ticks(t, store); r != tt.runs || k != tt.ticks {
					t.Errorf("%d runs and %d ticks are kept, want %d and %d", r, k, tt.runs, tt.ticks)
				}
				if told := strings.Count(out.String(), "history trimmed"); (told > 0) != (tt.runs < 30 || tt.ticks < 30) {
					t.Errorf("it was told %d times:\n%s", told, out.String())
				}
				cancel()
				<-done
			})
		})
	}
}

// A downStore can't be trimmed for so many times.
type downStore struct {
	memory.Store
	err   error
	fails int
	tries []time.Time
}

func (s *downStore) Trim(ctx context.Context, keep loom.Retention) (loom.Trimmed, error) {
	s.tries = append(s.tries, time.Now())
	if len(s.tries) <= s.fails {
		return loom.Trimmed{}, fmt.Errorf("trim: %w", s.err)
	}
	return s.Store.Trim(ctx, keep)
}

func TestTrimGoesOnWhenTheStoreIsDown(t *testing.T) {
	for _, tt := range []struct {
		err   error
		loud  bool
		again time.Duration // at most, before it is tried again
	}{
		{loom.ErrStoreDown, false, trimAgain},
		{errors.New("odd"), true, trimEvery + trimSpread},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &downStore{err: tt.err, fails: 2}
			var out safeBuffer
			ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
			defer cancel()
			start := time.Now()
			trim(ctx, store, func() loom.History { return loom.History{KeepRuns: 1} }, slog.New(slog.NewTextHandler(&out, nil)))
			if took := time.Since(start); took != 24*time.Hour {
				t.Errorf("it ended after %v, want when its context does", took)
			}
			if n := len(store.tries); n < 20 || store.tries[0] != start || store.tries[1].Sub(start) > tt.again {
				t.Errorf("%v: it was tried %d times, first at %v", tt.err, n, store.tries[:2])
			}
			for i, at := range store.tries[3:] {
				if gap := at.Sub(store.tries[i+2]); gap < trimEvery-trimSpread || gap >= trimEvery+trimSpread {
					t.Errorf("it was tried again after %v", gap)
				}
			}
			if loud := strings.Contains(out.String(), "level=WARN"); loud != tt.loud {
				t.Errorf("%v: the log has\n%s", tt.err, out.String())
			}
		})
	}
}

func TestTrimShrinksTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "loom.db")
	store, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for i := range 60 {
		remember(t, store, fmt.Sprintf("run%02d", i), false, 3000)
	}
	log := slog.New(slog.DiscardHandler)
	if err := trimOnce(t.Context(), store, loom.Retention{Runs: time.Hour, RunsPerJob: 100}, log); err != nil || runs(t, store) != 60 {
		t.Fatalf("%d runs are left, %v; nothing should have gone", runs(t, store), err)
	}
	before := size(t, file)
	done := make(chan error)
	go func() { done <- trimOnce(t.Context(), store, loom.Retention{RunsPerJob: 5}, log) }()
	for i := range 20 { // others write meanwhile
		remember(t, store, fmt.Sprintf("later%02d", i), false, 1)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := trimOnce(t.Context(), store, loom.Retention{RunsPerJob: 5}, log); err != nil {
		t.Fatal(err)
	}
	if after := size(t, file); runs(t, store) != 5 || after > before/4 {
		t.Errorf("%d runs are left in %d bytes, want 5 in far less than the %d of before", runs(t, store), after, before)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestJobLogsFollowTheManifest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "{job}.log")
	job := func(name string) *loom.Job { return &loom.Job{Name: name, Output: loom.LogFile{File: file}} }
	var out safeBuffer
	l := newJobLogs(&loom.Manifest{Jobs: []*loom.Job{job("old"), {Name: "none"}}}, slog.New(slog.NewTextHandler(&out, nil)))
	say := func(job string) {
		l.observe(loom.Event{Kind: loom.KindOutput, Time: time.Now(), Job: job, Run: "of " + job, Node: "n", Text: "hello"})
	}
	say("old")
	say("none")
	say("new")
	l.load(&loom.Manifest{Jobs: []*loom.Job{job("new")}})
	say("old")
	say("new")
	l.close()
	for _, name := range []string{"old", "new"} {
		text, err := os.ReadFile(filepath.Join(dir, name+".log"))
		if err != nil || strings.Count(string(text), " n | hello\n") != 1 {
			t.Errorf("the log of job %s has %q (%v), want one line", name, text, err)
		}
	}
	if out.String() != "" {
		t.Errorf("the daemon's log has %s", out.String())
	}
	l = newJobLogs(&loom.Manifest{Jobs: []*loom.Job{{Name: "bad", Output: loom.LogFile{File: dir}}}}, slog.New(slog.NewTextHandler(&out, nil)))
	say("bad")
	l.close()
	if !strings.Contains(out.String(), "logs of jobs are incomplete") {
		t.Errorf("the daemon's log has %s", out.String())
	}
}
