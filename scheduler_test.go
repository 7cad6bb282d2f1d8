package loom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A rig is a scheduler in a bubble of fake time, whose wall clock can be
// stepped apart from the time that passes.
type rig struct {
	*Scheduler
	t    *testing.T
	rec  witness
	step atomic.Int64 // how far the wall clock is off
	stop context.CancelCauseFunc
	done chan error
}

func startRig(t *testing.T, jobs ...*Job) *rig {
	t.Helper()
	return startRigThatLooks(t, 0, jobs...)
}

// startRigThatLooks starts one that looks at the clock so often.
func startRigThatLooks(t *testing.T, look time.Duration, jobs ...*Job) *rig {
	t.Helper()
	r := &rig{t: t, done: make(chan error, 1)}
	origin := time.Now()
	r.Scheduler = &Scheduler{
		Pool: &Pool{Max: 100, Log: quiet(), Dialer: &bench{}}, Log: quiet(), Grace: time.Minute,
		Observe: r.rec.add, look: look,
		clock: func() (time.Time, time.Duration) {
			now := time.Now()
			return now.Round(0).Add(time.Duration(r.step.Load())), now.Sub(origin)
		},
	}
	r.Load(&Manifest{Jobs: jobs})
	ctx, cancel := context.WithCancelCause(t.Context())
	r.stop = cancel
	go func() { r.done <- r.Run(ctx) }()
	synctest.Wait()
	return r
}

// end stops the scheduler and returns what Run returned.
func (r *rig) end() error {
	r.stop(nil)
	err := <-r.done
	_ = r.Pool.Close()
	return err
}

// pass lets time go by.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the fake clock's
	synctest.Wait()
}

// ran returns when the runs of a job were due, in the order they were started;
// those started at one instant by when they were due.
func (r *rig) ran(job string) []string {
	events := slices.DeleteFunc(r.rec.of(KindRunStarted), func(e Event) bool { return e.Job != job })
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(a.Time.Compare(b.Time), a.Due.Compare(b.Due))
	})
	var due []string
	for _, e := range events {
		due = append(due, e.Due.UTC().Format("15:04:05"))
	}
	return due
}

func cronJob(t *testing.T, name, expr string, loc *time.Location) *Job {
	t.Helper()
	s, err := ParseSchedule(expr, loc)
	if err != nil {
		t.Fatal(err)
	}
	return &Job{Name: name, Schedule: s, Targets: nodes("n"),
		Task: TaskFunc(func(context.Context, *Session) error { return nil })}
}

// lasting makes a job's task take some time, or until it is cancelled.
func lasting(j *Job, d time.Duration) *Job {
	j.Task = TaskFunc(func(ctx context.Context, _ *Session) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return j
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s = %q, want %q", what, got, want)
	}
}

func TestSchedulerRunsEachTickOfAYearOnce(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	santiago, err := time.LoadLocation("America/Santiago")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		jobs := []*Job{
			cronJob(t, "hourly", "0 * * * *", berlin),
			cronJob(t, "daily", "30 2 * * *", berlin), // 02:30 is missing one day and comes twice another
			cronJob(t, "midnight", "0 0 * * *", santiago),
			cronJob(t, "weekly", "0 9 * * MON", berlin),
			cronJob(t, "leap", "0 0 29 2 *", time.UTC),
			cronJob(t, "every", "@every 6h", nil),
		}
		r := startRigThatLooks(t, time.Hour, jobs...)
		// The bubble begins on Saturday, 1 January 2000, at 00:00 UTC.
		from := time.Now()
		r.pass(366 * 24 * time.Hour)
		counts := map[string]int{}
		for _, e := range r.rec.of(KindRunStarted) {
			counts[e.Job]++
			if late := e.Time.Sub(e.Due); late != 0 {
				t.Fatalf("%s due at %v started %v late", e.Job, e.Due, late)
			}
		}
		for job, n := range map[string]int{
			"hourly": 366 * 24, "daily": 366, "midnight": 366, "weekly": 52, "leap": 1, "every": 366 * 4,
		} {
			if counts[job] != n {
				t.Errorf("%s ran %d times in the year from %v, want %d", job, counts[job], from, n)
			}
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestSchedulerOverlap(t *testing.T) {
	tests := []struct {
		policy  Overlap
		ran     []string
		skipped []string
		status  []Status
	}{
		{OverlapSkip, []string{"00:01:00", "00:04:00"}, []string{"00:02:00", "00:03:00"}, []Status{StatusOK, StatusOK}},
		{OverlapQueue, []string{"00:01:00", "00:02:00", "00:04:00"}, []string{"00:03:00"}, []Status{StatusOK, StatusOK, StatusOK}},
		{OverlapReplace, []string{"00:01:00", "00:02:00", "00:03:00", "00:04:00"}, nil,
			[]Status{StatusCancelled, StatusCancelled, StatusCancelled, StatusOK}},
		{OverlapAllow, []string{"00:01:00", "00:02:00", "00:03:00", "00:04:00"}, nil, []Status{StatusOK, StatusOK, StatusOK, StatusOK}},
	}
	for _, tt := range tests {
		t.Run(string(tt.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := lasting(cronJob(t, "slow", "1-4 0 * * *", nil), 150*time.Second)
				job.Overlap = tt.policy
				r := startRig(t, job)
				r.pass(time.Hour)
				want(t, "ran", r.ran("slow"), tt.ran...)
				var skipped []string
				for _, e := range r.rec.of(KindTickSkipped) {
					skipped = append(skipped, e.Due.Format("15:04:05"))
					if !strings.Contains(e.Text, "still going: run ") || !strings.Contains(e.Text, " on n") {
						t.Errorf("a skipped tick says %q", e.Text)
					}
				}
				want(t, "skipped", skipped, tt.skipped...)
				var status []Status
				for _, e := range r.rec.of(KindRunEnded) {
					status = append(status, e.Ran.Status)
				}
				if !slices.Equal(status, tt.status) {
					t.Errorf("runs ended %q, want %q", status, tt.status)
				}
				_ = r.end()
			})
		})
	}
}

func TestSchedulerWhenTheClockIsStepped(t *testing.T) {
	tests := []struct {
		name            string
		at, jump        time.Duration
		missed          Missed
		fixed, interval []string // due times of runs within the hour after
		gone            int      // ticks told as missed, by event
	}{
		{name: "a little ahead: every tick runs", at: 9*time.Minute + 30*time.Second, jump: 4 * time.Minute,
			fixed:    []string{"00:10:00", "00:12:00"},
			interval: []string{"00:10:00", "00:11:00", "00:12:00", "00:13:00", "00:14:00"}},
		{name: "an hour ahead: once each", at: 9*time.Minute + 30*time.Second, jump: time.Hour,
			fixed: []string{"00:12:00"}, interval: []string{
				"01:04:00", "01:05:00", "01:06:00", "01:07:00", "01:08:00", "01:09:00", "01:10:00"}, gone: 2},
		{name: "an hour ahead, let go", at: 9*time.Minute + 30*time.Second, jump: time.Hour, missed: Missed{Policy: MissedSkip},
			fixed: nil, interval: []string{
				"01:05:00", "01:06:00", "01:07:00", "01:08:00", "01:09:00", "01:10:00"}, gone: 2},
		{name: "an hour ahead, all", at: 9*time.Minute + 30*time.Second, jump: time.Hour, missed: Missed{Policy: MissedAll, Within: 58 * time.Minute},
			fixed: []string{"00:12:00"}, gone: 2}, // 00:10 and 00:11 are too old
		{name: "four hours ahead: a new time", at: 9*time.Minute + 30*time.Second, jump: 4 * time.Hour,
			fixed: nil, interval: []string{"04:10:00"}, gone: 2},
		{name: "an hour back: what is fixed is not repeated", at: 20*time.Minute + 30*time.Second, jump: -15 * time.Minute,
			fixed: []string{"00:10:00", "00:12:00"}, interval: nil},
		{name: "four hours back: a new time", at: 5*time.Hour + 30*time.Second, jump: -5 * time.Hour,
			fixed: []string{"00:10:00", "00:12:00", "00:10:00", "00:12:00"}, interval: nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fixed, interval := cronJob(t, "fixed", "10,12 0 * * *", nil), cronJob(t, "interval", "* * * * *", nil)
				fixed.Missed, interval.Missed = tt.missed, tt.missed
				fixed.Overlap, interval.Overlap = OverlapAllow, OverlapAllow
				r := startRig(t, fixed, interval)
				r.pass(tt.at)
				before := len(r.ran("interval"))
				r.step.Store(int64(tt.jump))
				r.pass(2 * time.Second)
				for tt.jump < 0 && r.now().Before(time.Date(2000, 1, 1, 0, 15, 0, 0, time.UTC)) {
					r.pass(time.Minute)
				}
				if tt.jump > 0 {
					r.pass(30 * time.Second)
				}
				want(t, "fixed ran", r.ran("fixed"), tt.fixed...)
				if tt.interval != nil {
					want(t, "interval ran", r.ran("interval")[before:], tt.interval...)
				}
				if got := len(r.rec.of(KindTickMissed)); got != tt.gone {
					t.Errorf("%d events tell of missed ticks, want %d: %+v", got, tt.gone, r.rec.of(KindTickMissed))
				}
				_ = r.end()
			})
		})
	}
}

func TestSchedulerIntervalJobsFollowAClockThatGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, cronJob(t, "interval", "*/10 * * * *", nil))
		r.pass(35 * time.Minute)
		r.step.Store(int64(-20 * time.Minute))
		r.pass(20 * time.Minute)
		want(t, "ran", r.ran("interval"), "00:10:00", "00:20:00", "00:30:00", "00:20:00", "00:30:00")
		_ = r.end()
	})
}

// A slowMemory takes its time to act on ticks.
type slowMemory struct{ memory }

func (m slowMemory) Fire(ctx context.Context, self string, firings []Firing) ([]Fired, error) {
	if len(firings) > 0 {
		time.Sleep(300 * time.Millisecond) //nolint:forbidigo // the fake clock's
	}
	return m.memory.Fire(ctx, self, firings)
}

func TestSchedulerIsNotLateForTheTicksBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late []time.Duration // the runs come one after another
		s := &Scheduler{Pool: &Pool{Log: quiet(), Dialer: &bench{}}, Log: quiet()}
		s.Load(&Manifest{Jobs: []*Job{cronJob(t, "even", "*/2 * * * * *", nil), cronJob(t, "odd", "1-59/2 * * * * *", nil)}})
		s.memory = slowMemory{s.memory}
		s.Observe = func(e Event) {
			if e.Kind == KindRunStarted {
				late = append(late, e.Time.Sub(e.Due))
			}
		}
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second+500*time.Millisecond)
		defer stop()
		_ = s.Run(ctx)
		_ = s.Pool.Close()
		want := slices.Repeat([]time.Duration{300 * time.Millisecond}, 10)
		if !slices.Equal(late, want) {
			t.Errorf("runs were started late by %v, want %v", late, want)
		}
	})
}

func TestSchedulerReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := lasting(cronJob(t, "slow", "5 0 * * *", nil), time.Hour)
		r := startRig(t, cronJob(t, "stays", "@every 7m", nil), cronJob(t, "goes", "*/10 * * * *", nil), slow)
		next := r.jobs["stays"].next
		for range 10 {
			r.pass(time.Minute)
			r.Load(&Manifest{Jobs: []*Job{cronJob(t, "stays", "@every 7m", nil), cronJob(t, "goes", "*/10 * * * *", nil), slow}})
		}
		want(t, "ran", r.ran("goes"), "00:10:00")
		if got := len(r.ran("stays")); got != 1 && next.Before(time.Now()) {
			t.Errorf("a job that was reloaded each minute ran %d times, want once", got)
		}
		r.Load(&Manifest{Jobs: []*Job{cronJob(t, "comes", "12 0 * * *", nil)}})
		r.pass(2 * time.Hour)
		want(t, "goes ran", r.ran("goes"), "00:10:00")
		want(t, "comes ran", r.ran("comes"), "00:12:00")
		if ended := r.rec.of(KindRunEnded); !slices.ContainsFunc(ended, func(e Event) bool { return e.Job == "slow" && e.Ran.Status == StatusOK }) {
			t.Error("a run of a removed job did not end by itself")
		}
		_ = r.end()
	})
}

func TestSchedulerReloadDoesNotRepeatATickAfterTheClockWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := func() *Manifest { return &Manifest{Jobs: []*Job{cronJob(t, "fixed", "10 0 * * *", nil)}} }
		r := startRig(t, job().Jobs...)
		r.pass(20 * time.Minute)
		r.step.Store(int64(-15 * time.Minute))
		r.pass(time.Minute)
		r.Load(job())
		r.pass(time.Hour)
		want(t, "ran", r.ran("fixed"), "00:10:00")
		_ = r.end()
	})
}

func TestSchedulerStartsAndOneShots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boot := cronJob(t, "boot", "@reboot", nil)
		off := cronJob(t, "off", "* * * * *", nil)
		off.Disabled = true
		once := cronJob(t, "once", "0 3 * * *", nil)
		once.Schedule, once.At = nil, time.Now().Add(90*time.Second)
		r := startRig(t, boot, off, once)
		r.pass(time.Hour)
		r.Load(&Manifest{Jobs: []*Job{boot, off, once}})
		r.pass(time.Hour)
		want(t, "boot ran", r.ran("boot"), "00:00:00")
		want(t, "off ran", r.ran("off"))
		want(t, "once ran", r.ran("once"), "00:01:30")
		_ = r.end()
	})
}

func TestSchedulerTrigger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := lasting(cronJob(t, "j", "0 0 1 1 *", nil), time.Hour)
		r := startRig(t, job)
		if _, err := r.Trigger(t.Context(), "nope", Request{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("Trigger of an unknown job = %v", err)
		}
		run, err := r.Trigger(t.Context(), "j", Request{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := r.Trigger(t.Context(), "j", Request{}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), run.ID) {
			t.Errorf("Trigger of a job that is going = %v, want ErrBusy that names run %s", err, run.ID)
		}
		if err := r.Cancel(run.ID, ""); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if res := r.rec.result(t, "n"); res.Status != StatusCancelled || res.Reason != ErrCancelled.Error() {
			t.Errorf("a cancelled run ended %s: %q", res.Status, res.Reason)
		}
		if err := r.Cancel(run.ID, ""); !errors.Is(err, ErrNotFound) {
			t.Errorf("Cancel of a run that has ended = %v", err)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if _, err := r.Trigger(t.Context(), "j", Request{}); !errors.Is(err, ErrShutdown) {
			t.Errorf("Trigger after Run = %v, want ErrShutdown", err)
		}
	})
}

func TestSchedulerShutdown(t *testing.T) {
	tests := []struct {
		name  string
		lasts time.Duration
		abort bool
		want  error
		took  time.Duration
		end   Status
	}{
		{"nothing is cancelled that ends in time", 50 * time.Second, false, nil, 30 * time.Second, StatusOK},
		{"the rest is cancelled", time.Hour, false, ErrShutdown, time.Minute, StatusCancelled},
		{"at once if told so", time.Hour, true, nil, time.Second, StatusCancelled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startRig(t, lasting(cronJob(t, "j", "* * * * *", nil), tt.lasts))
				r.pass(80 * time.Second)
				start := time.Now()
				if tt.abort {
					go func() {
						time.Sleep(time.Second) //nolint:forbidigo // the fake clock's
						r.Abort()
					}()
				}
				if err := r.end(); !errors.Is(err, tt.want) {
					t.Errorf("Run = %v, want %v", err, tt.want)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("stopping took %v, want %v", took, tt.took)
				}
				if res := r.rec.result(t, "n"); res.Status != tt.end {
					t.Errorf("the run ended %s (%s), want %s", res.Status, res.Reason, tt.end)
				}
			})
		})
	}
}

// A stuck is a schedule with a mistake in it.
type stuck struct{}

func (stuck) Next(t time.Time) time.Time { return t }

func TestSchedulerSurvivesAScheduleThatStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := cronJob(t, "bad", "* * * * *", nil)
		bad.Schedule = stuck{}
		r := startRig(t, bad, cronJob(t, "good", "*/30 * * * *", nil))
		r.pass(time.Hour)
		want(t, "good ran", r.ran("good"), "00:30:00", "01:00:00")
		want(t, "bad ran", r.ran("bad"))
		_ = r.end()
	})
}

func ExampleSchedules() {
	weekdays, _ := ParseSchedule("0 9 * * MON-FRI", nil)
	saturday, _ := ParseSchedule("0 12 * * SAT", nil)
	s := Schedules{weekdays, saturday}
	t := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC) // a Thursday
	for range 3 {
		t = s.Next(t)
		fmt.Println(t.Format("Mon 15:04"))
	}
	// Output:
	// Fri 09:00
	// Sat 12:00
	// Mon 09:00
}
