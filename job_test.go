package loom

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// failing returns a task that fails so often on each node, and a log of when it
// was tried, in seconds since the start.
func failing(times int, with error) (Task, func() string) {
	var mu sync.Mutex
	start := time.Now()
	tried := map[string]int{}
	var when []string
	task := TaskFunc(func(_ context.Context, s *Session) error {
		mu.Lock()
		defer mu.Unlock()
		when = append(when, fmt.Sprint(int(time.Since(start).Seconds())))
		if tried[s.Node.Name]++; tried[s.Node.Name] <= times {
			return with
		}
		return nil
	})
	return task, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(when, " ")
	}
}

func TestRetries(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name    string
		retries Retries
		fails   int
		with    error
		want    Status
		when    string
	}{
		{"none", Retries{}, 1, boom, StatusFailed, "0"},
		{"until it goes well", Retries{Attempts: 5, Delay: 10 * time.Second}, 2, boom, StatusOK, "0 10 20"},
		{"no more than said", Retries{Attempts: 2, Delay: time.Second}, 9, boom, StatusFailed, "0 1 2"},
		{"longer and longer", Retries{Attempts: 5, Delay: 10 * time.Second, Backoff: 2, MaxDelay: 30 * time.Second}, 4, boom, StatusOK, "0 10 30 60 90"},
		{"only what is named", Retries{Attempts: 5, On: []Status{StatusUnreachable}}, 1, boom, StatusFailed, "0"},
		{"lost is never repeated", Retries{Attempts: 5}, 1, ErrLost, StatusLost, "0"},
		{"nor is what was skipped", Retries{Attempts: 5}, 1, Skip("no"), StatusSkipped, "0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rec witness
				pool := &Pool{Log: quiet(), Dialer: &bench{}}
				defer pool.Close()
				task, when := failing(tt.fails, tt.with)
				_ = pool.Run(t.Context(), &Job{Name: "j", Task: task, Retries: tt.retries, Targets: nodes("n")}, time.Now(), rec.add)
				r := rec.result(t, "n")
				if r.Status != tt.want || when() != tt.when {
					t.Errorf("ended %s, tried at %q; want %s, %q", r.Status, when(), tt.want, tt.when)
				}
				if n := len(strings.Fields(tt.when)); r.Attempts != n || len(rec.of(KindRetry)) != n-1 {
					t.Errorf("%d attempts and %d retries are told, want %d and %d", r.Attempts, len(rec.of(KindRetry)), n, n-1)
				}
			})
		})
	}
}

func TestRetriesHoldNoWorkerWhileTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &Pool{Max: 1, Log: quiet(), Dialer: &bench{}}
		defer pool.Close()
		task, _ := failing(1, errors.New("boom"))
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = pool.Run(t.Context(), &Job{Name: "slow", Task: task, Retries: Retries{Attempts: 1, Delay: time.Hour}, Targets: nodes("a")}, time.Now(), nil)
		})
		synctest.Wait()
		start := time.Now()
		quick, _ := failing(0, nil)
		_ = pool.Run(t.Context(), &Job{Name: "quick", Task: quick, Targets: nodes("b")}, time.Now(), nil)
		if took := time.Since(start); took != 0 {
			t.Errorf("a job waited %v for one that waits to be tried again", took)
		}
		wg.Wait()
	})
}

func TestRetriesEndWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec witness
		pool := &Pool{Log: quiet(), Dialer: &bench{}}
		defer pool.Close()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, ErrShutdown)
		defer cancel()
		task, when := failing(9, errors.New("boom"))
		start := time.Now()
		_ = pool.Run(ctx, &Job{Name: "j", Task: task, Retries: Retries{Attempts: 3, Delay: time.Hour}, Targets: nodes("n")}, start, rec.add)
		if r := rec.result(t, "n"); r.Status != StatusFailed || r.Reason != "boom" || time.Since(start) != time.Minute {
			t.Errorf("ended %s (%s) after %v, tried at %s", r.Status, r.Reason, time.Since(start), when())
		}
	})
}

func TestBatches(t *testing.T) {
	tests := []struct {
		name  string
		sizes []Share
		want  string // nodes begun, by second
	}{
		{"all at once", nil, "20"},
		{"five by five", []Share{{N: 5}}, "5 5 5 5"},
		{"a canary, then more", []Share{{N: 1}, {Percent: 10}, {Percent: 100}}, "1 2 17"},
		{"shares are rounded up", []Share{{Percent: 33}}, "7 7 6"},
		{"never none", []Share{{Percent: 0.1}, {Percent: 60}}, "1 12 7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rec witness
				pool := &Pool{Max: 100, Log: quiet(), Dialer: &bench{}}
				defer pool.Close()
				start := time.Now()
				job := lasting(&Job{Name: "j", Batch: Batch{Sizes: tt.sizes}, Targets: numbered("n", 20)}, time.Second)
				if err := pool.Run(t.Context(), job, start, rec.add); err != nil {
					t.Error(err)
				}
				begun := map[int]int{}
				for _, e := range rec.of(KindNodeStarted) {
					begun[int(e.Time.Sub(start).Seconds())]++
				}
				var got []string
				for i := range len(begun) {
					got = append(got, fmt.Sprint(begun[i]))
				}
				if s := strings.Join(got, " "); s != tt.want {
					t.Errorf("nodes begun each second: %s, want %s", s, tt.want)
				}
			})
		})
	}
}

func TestMaxFailures(t *testing.T) {
	for _, tt := range []struct {
		limit Share
		begun int
	}{
		{Share{N: 0}, 1}, {Share{N: 2}, 3}, {Share{Percent: 25}, 6}, {Share{Percent: 4}, 1},
	} {
		var rec witness
		pool := &Pool{Max: 1, Log: quiet(), Dialer: &bench{}}
		boom := TaskFunc(func(context.Context, *Session) error { return errors.New("boom") })
		_ = pool.Run(t.Context(), &Job{Name: "j", Task: boom, Batch: Batch{Sizes: []Share{{N: 1}}, MaxFailures: &tt.limit},
			Targets: numbered("n", 20)}, time.Now(), rec.add)
		_ = pool.Close()
		if got := len(rec.of(KindNodeStarted)); got != tt.begun {
			t.Errorf("with at most %+v failures %d nodes were begun, want %d", tt.limit, got, tt.begun)
		}
		last := rec.result(t, "n019")
		if last.Status != StatusCancelled || !strings.Contains(last.Reason, fmt.Sprintf("%d of 20 nodes failed", tt.begun)) {
			t.Errorf("a node that was not begun ended %s: %s", last.Status, last.Reason)
		}
	}
}

func TestJitterIsStableAndSpread(t *testing.T) {
	j := Jitter{Max: time.Minute}
	var all []time.Duration
	for i := range 1000 {
		name := fmt.Sprint("job-", i)
		d := j.of(name)
		if d != j.of(name) || d < 0 || d > time.Minute {
			t.Fatalf("jitter of %s = %v, then %v", name, d, j.of(name))
		}
		all = append(all, d)
	}
	slices.Sort(all)
	for i, d := range all { // each must be near its place in an even spread
		if even := time.Duration(i) * time.Minute / 1000; (d - even).Abs() > 4*time.Second {
			t.Fatalf("the %dth of 1000 delays is %v, want about %v", i, d, even)
		}
	}
	if j.of("a", "bc") == j.of("ab", "c") {
		t.Error("names run into each other")
	}
}

func TestSchedulerJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := cronJob(t, "whole", "*/10 * * * *", nil)
		whole.Jitter = Jitter{Max: 5 * time.Minute}
		nodewise := cronJob(t, "nodewise", "*/10 * * * *", nil)
		nodewise.Jitter, nodewise.Targets = Jitter{Max: 5 * time.Minute, ByNode: true}, numbered("n", 50)
		r := startRig(t, whole, nodewise)
		r.pass(35 * time.Minute)
		want(t, "ran", r.ran("whole"), "00:10:00", "00:20:00", "00:30:00")
		delay := whole.Jitter.of("whole")
		starts := map[time.Duration]int{}
		for _, e := range r.rec.of(KindNodeStarted) {
			if late := e.Time.Sub(e.Due); e.Job == "whole" && late != delay {
				t.Errorf("the tick of %v started %v later, want %v each time", e.Due, late, delay)
			} else if e.Job == "nodewise" {
				starts[late]++
			}
		}
		if len(starts) < 40 {
			t.Errorf("50 nodes started at %d moments only", len(starts))
		}
		_ = r.end()
	})
}

func TestSchedulerBlackouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noon, err := ParseSchedule("0 12 * * *", nil)
		if err != nil {
			t.Fatal(err)
		}
		job := cronJob(t, "j", "30 * * * *", nil)
		day := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		job.NotDuring = []Blackout{
			{Schedule: noon, For: 90 * time.Minute},
			{From: day.Add(14 * time.Hour), To: day.Add(21*time.Hour + 30*time.Minute)},
		}
		r := startRig(t, job)
		r.pass(24 * time.Hour)
		want(t, "ran", r.ran("j"), "00:30:00", "01:30:00", "02:30:00", "03:30:00", "04:30:00", "05:30:00", "06:30:00", "07:30:00",
			"08:30:00", "09:30:00", "10:30:00", "11:30:00", "13:30:00", "21:30:00", "22:30:00", "23:30:00")
		if got := r.rec.of(KindTickSkipped); len(got) != 8 || !strings.Contains(got[0].Text, "not_during 0 12 * * * for 1h30m0s, which began at 2000-01-01T12:00") {
			t.Errorf("%d ticks were skipped, the first since %q", len(got), got[0].Text)
		}
		_ = r.end()
	})
}

func TestSchedulerChains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after := func(name string, a ...After) *Job {
			j := cronJob(t, name, "@reboot", nil)
			j.Schedule, j.After = nil, a
			return j
		}
		dump := lasting(cronJob(t, "dump", "0 1,2,3 * * *", nil), time.Minute)
		work := dump.Task
		dump.Task = TaskFunc(func(ctx context.Context, s *Session) error {
			err := work.Apply(ctx, s)
			if s.Due.Hour() == 2 {
				return errors.New("disk full")
			}
			return err
		})
		off := after("off", After{Job: "dump"})
		off.Disabled = true
		tidy := after("tidy", After{Job: "dump", On: AfterAny}, After{Job: "copy"})
		tidy.Overlap = OverlapAllow
		r := startRig(t, dump, tidy, after("copy", After{Job: "dump"}), after("alarm", After{Job: "dump", On: AfterFailed}), off)
		r.pass(150 * time.Minute)
		if err := r.Cancel("nope", ""); err == nil {
			t.Error("a run that does not exist was cancelled")
		}
		r.pass(30*time.Minute + time.Second)
		for _, e := range r.rec.of(KindRunStarted) {
			if e.Job == "dump" && e.Due.Hour() == 3 {
				if err := r.Cancel(e.Run, ""); err != nil {
					t.Error(err)
				}
			}
		}
		r.pass(time.Hour)
		want(t, "copy ran", r.ran("copy"), "01:01:00")
		want(t, "alarm ran", r.ran("alarm"), "02:01:00")
		want(t, "tidy ran", r.ran("tidy"), "01:01:00", "01:01:00", "02:01:00", "03:00:01")
		want(t, "off ran", r.ran("off"))
		_ = r.end()
	})
}
