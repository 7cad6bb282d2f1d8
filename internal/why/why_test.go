package why

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/overlap"
	"github.com/dustinlacewell/loom/store/memory"
)

func schedule(t *testing.T, expr, zone string) (loom.Schedule, *time.Location) {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	s, err := loom.ParseSchedule(expr, loc)
	if err != nil {
		t.Fatal(err)
	}
	return s, loc
}

// TestExplain checks the sentence for each thing that can become of a tick.
func TestExplain(t *testing.T) {
	s, utc := schedule(t, "0 2 * * *", "UTC")
	due := time.Date(2027, 3, 10, 2, 0, 0, 0, utc)
	now := due.Add(12 * time.Hour)
	targets := []*loom.Node{{Name: "db1"}, {Name: "db2"}, {Name: "db3"}}
	job := &loom.Job{Name: "backup", Schedule: s, Timezone: utc, Targets: targets, Owner: "ann", Runbook: "wiki/backup",
		Missed: loom.Missed{Within: time.Hour}, File: "jobs/a.yaml", Line: 7}
	with := func(change func(j *loom.Job)) *loom.Job {
		j := *job
		change(&j)
		return &j
	}
	tick := func(o loom.Outcome, why string) *loom.Tick {
		return &loom.Tick{Job: "backup", Due: due, Until: due, Ticks: 1, Outcome: o, Why: why, Run: "r1"}
	}
	run := func(status loom.Status, after, took time.Duration) *loom.Run {
		r := &loom.Run{ID: "r1", Job: "backup", Due: due, Trigger: loom.TriggerSchedule, Status: status, Started: due.Add(after), Nodes: 3}
		if status.Ended() {
			r.Ended = r.Started.Add(took)
		}
		return r
	}
	result := func(node string, s loom.Status, reason string) loom.Result {
		return loom.Result{Node: node, Status: s, Reason: reason}
	}
	known := &loom.JobState{Name: "backup", LastTick: due}
	before := &loom.JobState{Name: "backup", LastTick: due.AddDate(0, 0, -1)}
	hand := &loom.Run{ID: "r9", Job: "backup", Due: due, Trigger: loom.TriggerManual, By: "ann", Status: loom.StatusOK,
		Started: due, Ended: due.Add(time.Second), Nodes: 1}
	chained := &loom.Run{ID: "r9", Job: "report", Due: due, Trigger: loom.TriggerAfter, By: "r1", Status: loom.StatusOK,
		Started: due, Ended: due.Add(time.Second), Nodes: 1}

	for _, tt := range []struct {
		name    string
		f       Facts
		outcome loom.Outcome
		want    string
	}{
		{"ran", Facts{Tick: tick(loom.OutcomeRan, ""), Run: run(loom.StatusOK, 0, 12300*time.Millisecond)}, loom.OutcomeRan,
			"ran: run r1 ended ok after 12.3s on 3 nodes"},
		{"ran, behind its time", Facts{Tick: tick(loom.OutcomeRan, ""), Run: run(loom.StatusChanged, time.Minute, time.Second)}, loom.OutcomeRan,
			"ran 1m after its time: run r1 ended changed after 1s on 3 nodes"},
		{"ran, and its run is gone", Facts{Tick: tick(loom.OutcomeRan, "")}, loom.OutcomeRan, "ran; its run is not kept any more"},
		{"failed", Facts{Tick: tick(loom.OutcomeRan, ""), Run: run(loom.StatusFailed, 0, time.Second), Results: []loom.Result{
			result("db1", loom.StatusFailed, "db1: exit status 1: disk full"), result("db2", loom.StatusOK, ""),
			result("db3", loom.StatusFailed, "db3: exit status 1: disk full")}}, loom.OutcomeRan,
			"ran: run r1 failed on 2 of 3 nodes, after 1s; db1, db3: failed: exit status 1: disk full"},
		{"failed for many reasons", Facts{Tick: tick(loom.OutcomeRan, ""), Run: run(loom.StatusFailed, 0, time.Second), Results: []loom.Result{
			result("db1", loom.StatusFailed, "db1: a"), result("db2", loom.StatusTimeout, "db2: timed out after 1h0m0s"),
			result("db3", loom.StatusUnreachable, "db3: unreachable: no route")}}, loom.OutcomeRan,
			"ran: run r1 failed on 3 of 3 nodes, after 1s; db1: failed: a; db2: timed out after 1h0m0s; and 1 other reason"},
		{"still going", Facts{Tick: tick(loom.OutcomeRan, ""), Run: run(loom.StatusRunning, 0, 0), Usual: Usual{time.Minute, 9},
			Results: []loom.Result{result("db1", loom.StatusOK, ""), result("db2", loom.StatusRunning, "")}}, loom.OutcomeRan,
			"ran: run r1 has been going for 12h (it usually takes 1m) on db2; 1 of 3 nodes have ended"},
		{"late", Facts{Tick: tick(loom.OutcomeLate, "no daemon was running from 01:58 to 02:14"), Run: run(loom.StatusOK, 14*time.Minute, time.Second)},
			loom.OutcomeLate, "ran late, at 02:14:00: no daemon was running from 01:58 to 02:14; run r1 ended ok after 1s on 3 nodes"},
		{"skipped", Facts{Tick: tick(loom.OutcomeSkipped, overlap.Busy+": run 8f3a from 02:00:00 on db3")}, loom.OutcomeSkipped,
			"skipped: an earlier run was still going: run 8f3a from 02:00:00 on db3"},
		{"skipped by a blackout", Facts{Tick: tick(loom.OutcomeSkipped, "not_during x")}, loom.OutcomeSkipped, "skipped: not_during x"},
		{"missed", Facts{Tick: tick(loom.OutcomeMissed, "no daemon was running from 01:58:00 to 03:14:00, and a later one makes up for it"),
			MadeUp: &loom.Run{ID: "r2", Started: due.Add(74 * time.Minute)}}, loom.OutcomeMissed,
			"missed: no daemon was running from 01:58:00 to 03:14:00, and a later one makes up for it; caught up by run r2 at 03:14:00"},
		{"paused", Facts{Tick: tick(loom.OutcomePaused, "paused by ann until 2027-03-11 00:00:00: new disk")}, loom.OutcomePaused,
			"paused by ann until 2027-03-11 00:00:00: new disk"},
		{"superseded", Facts{Tick: tick(loom.OutcomeSuperseded, "run r2 took its place")}, loom.OutcomeSuperseded,
			"superseded before it began: run r2 took its place"},
		{"one of a range", Facts{Tick: &loom.Tick{Due: due.AddDate(0, 0, -2), Until: due, Ticks: 3, Outcome: loom.OutcomeMissed, Why: "x"}}, loom.OutcomeMissed,
			"missed: x; the same goes for all 3 ticks from 2027-03-08 02:00:00 to 02:00:00"},

		{"to come", Facts{Due: due.AddDate(0, 0, 1)}, OutcomeComing, "will run in 12h on 3 nodes, unless an earlier run is still going then (overlap: skip)"},
		{"to come, one is going", Facts{Due: due.AddDate(0, 0, 1), Going: []loom.Run{*run(loom.StatusRunning, 0, 0)}, Usual: Usual{time.Minute, 3}}, OutcomeComing,
			"will run in 12h on 3 nodes, unless run r1, which has been going since 2027-03-10 02:00:00, still is then (overlap: skip, it usually takes 1m)"},
		{"to come, queue", Facts{Due: due.AddDate(0, 0, 1), Job: with(func(j *loom.Job) { j.Overlap = loom.OverlapQueue })}, OutcomeComing,
			"will run in 12h on 3 nodes, or when that has ended if an earlier run is still going then (overlap: queue)"},
		{"to come, no daemon", Facts{Due: due.AddDate(0, 0, 1), Absent: true, Job: with(func(j *loom.Job) { j.Overlap = loom.OverlapAllow })}, OutcomeComing,
			"will run in 12h on 3 nodes. No daemon runs now: if none does then, the next daemon makes up for it if that is within 1h and no later one was missed too (missed: latest)"},
		{"to come, but paused", Facts{Due: due.AddDate(0, 0, 1), Foretold: &Foretold{Outcome: loom.OutcomePaused, Why: "paused by ann"}}, OutcomeComing,
			"falls in 12h and will not run: paused by ann"},
		{"to come, disabled", Facts{Due: due.AddDate(0, 0, 1), Job: with(func(j *loom.Job) { j.Disabled = true })}, OutcomeDisabled,
			"disabled: the manifest says enabled: false, so the schedule does not fire the job (jobs/a.yaml:7)"},

		{"not acted on, no daemon", Facts{State: before, Absent: true}, OutcomePending,
			"fell 12h ago and was not acted on: no daemon runs. If one starts now, it counts it as missed, as it was due more than 1h before (missed: latest within 1h)"},
		{"not acted on, no daemon, soon", Facts{State: before, Absent: true, Now: due.Add(time.Minute)}, OutcomePending,
			"fell 1m ago and was not acted on: no daemon runs. If one starts now, it makes up for it at once (missed: latest)"},
		{"not acted on, the store is down", Facts{State: before, Down: "the store is down: full"}, OutcomePending,
			"fell 12h ago and was not acted on: the store is down: full"},
		{"about to", Facts{State: before, Now: due}, OutcomePending, "fell just now, and the daemon is about to act on it"},
		{"before the ledger", Facts{State: known, Due: due.AddDate(0, 0, -1)}, OutcomeUnknown, "nothing is remembered of it: it is from before the first tick"},
		{"trimmed", Facts{State: known, Due: due.AddDate(0, -1, 0), Keep: 7 * 24 * time.Hour}, OutcomeUnknown,
			"nothing is remembered of it: what became of ticks is kept for 7d (history.keep_ticks)"},
		{"the manifest was another", Facts{State: known, Earlier: &loom.Tick{Until: due.Add(-time.Hour), Outcome: loom.OutcomeRan}}, OutcomeUnknown,
			"nothing is remembered of it: there was no such tick then"},

		{"no tick", Facts{Due: due.Add(30 * time.Minute), State: known}, OutcomeNone,
			`no tick: the schedule "0 2 * * *" (UTC) does not fire then; the one before was at 02:00:00; the next is at 2027-03-11 02:00:00`},
		{"no tick, by hand only", Facts{Job: &loom.Job{Name: "backup"}}, OutcomeNone, "no tick: the job runs only by hand"},
		{"no tick, a chain", Facts{Job: &loom.Job{Name: "backup", Timezone: utc, After: []loom.After{{Job: "dump"}}}, Upstream: []Upstream{
			{loom.After{Job: "dump"}, run(loom.StatusFailed, 0, time.Second)}}}, OutcomeNone,
			"no tick: the job has no times of its own: it runs after job dump when that went well (its last run, r1, failed at 02:00:01)"},
		{"gone", Facts{Name: "backup", State: known, Job: nil}, OutcomeNone, "no tick: the job is not in the manifest any more"},

		{"by hand", Facts{Due: time.Time{}, Run: hand, Asked: &loom.Action{Why: "again"}}, loom.OutcomeRan,
			"ran by hand, as ann asked for it (again): run r9 ended ok after 1s on 1 node"},
		{"after another", Facts{Run: chained, Before: run(loom.StatusOK, 0, time.Second)}, loom.OutcomeRan,
			"ran after job backup, whose run r1 ended ok: run r9 ended ok after 1s on 1 node"},
	} {
		f := tt.f
		if f.Due.IsZero() && (f.Run == nil || f.Run.ID == "r1") {
			f.Due = due
		}
		if f.Now.IsZero() {
			f.Now = now
		}
		if f.Job == nil && tt.name != "gone" {
			f.Job = job
		}
		f.Name = "backup"
		a := Explain(f)
		if a.Outcome != tt.outcome || !strings.HasPrefix(a.Text, tt.want) || !strings.HasSuffix(tt.want, " then") && !strings.HasSuffix(tt.want, " tick") && a.Text != tt.want {
			t.Errorf("%s: %s\n got %s\nwant %s", tt.name, a.Outcome, a.Text, tt.want)
		}
		if bad := len(a.Failures) > 0; bad != (a.Owner == "ann" && a.Runbook == "wiki/backup") {
			t.Errorf("%s: owner %q, runbook %q", tt.name, a.Owner, a.Runbook)
		}
	}
}

// TestDaylightSaving checks what is said of ticks that the clock moves.
func TestDaylightSaving(t *testing.T) {
	s, berlin := schedule(t, "30 2 * * *", "Europe/Berlin")
	job := &loom.Job{Name: "night", Schedule: s, Timezone: berlin}
	due := time.Date(2027, 3, 28, 3, 0, 0, 0, berlin)
	for _, tt := range []struct {
		now  time.Time
		want string
	}{
		{due.Add(time.Hour), "; 02:30 did not exist on 2027-03-28 in Europe/Berlin, so the tick was at 03:00"},
		{due.Add(-time.Hour), "; 02:30 does not exist on 2027-03-28 in Europe/Berlin; runs at 03:00"},
	} {
		f := Facts{Now: tt.now, Name: "night", Job: job, Due: due}
		if !due.After(tt.now) {
			f.Tick = &loom.Tick{Due: due, Until: due, Ticks: 1, Outcome: loom.OutcomeRan}
		}
		if a := Explain(f); !strings.HasSuffix(a.Text, tt.want) || a.Note == "" {
			t.Errorf("%s, want %s", a.Text, tt.want)
		}
	}
}

func TestUsualOf(t *testing.T) {
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	run := func(s loom.Status, took time.Duration) loom.Run {
		return loom.Run{Status: s, Started: start, Ended: start.Add(took)}
	}
	runs := []loom.Run{run(loom.StatusRunning, 0), run(loom.StatusOK, 3*time.Second), run(loom.StatusCancelled, time.Hour),
		run(loom.StatusFailed, time.Second), run(loom.StatusLost, time.Hour), run(loom.StatusChanged, 5*time.Second), run(loom.StatusOK, 4*time.Second)}
	if got := UsualOf(runs); got != (Usual{3500 * time.Millisecond, 4}) {
		t.Errorf("UsualOf = %+v", got)
	}
	if got := UsualOf(runs[:1]); got != (Usual{}) {
		t.Errorf("UsualOf none = %+v", got)
	}
}

// TestForecast plays runs of two and a half hours, due each hour.
func TestForecast(t *testing.T) {
	s, utc := schedule(t, "0 * * * *", "UTC")
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, utc)
	for policy, want := range map[loom.Overlap][]string{
		loom.OverlapSkip:    {"ran", "skipped 00:00 02:30", "skipped 00:00 02:30", "ran", "skipped 03:00 05:30", "skipped 03:00 05:30"},
		loom.OverlapQueue:   {"ran", "waits 00:00 02:30", "skipped 00:00 02:30", "waits 01:00 05:00", "skipped 01:00 05:00", "waits 03:00 07:30"},
		loom.OverlapReplace: {"ran", "ends 00:00 02:30", "ends 01:00 03:30", "ends 02:00 04:30", "ends 03:00 05:30", "ends 04:00 06:30"},
		loom.OverlapAllow:   {"ran", "beside 00:00 02:30", "beside 00:00 02:30", "beside 01:00 03:30", "beside 02:00 04:30", "beside 03:00 05:30"},
	} {
		f := NewForecast(&loom.Job{Schedule: s, Timezone: utc, Overlap: policy}, nil, Usual{150 * time.Minute, 5}, nil, start)
		for i, want := range want {
			told := f.Tick(start.Add(time.Duration(i) * time.Hour))
			got := string(told.Outcome)
			if o := told.Overlap; o != nil {
				got = fmt.Sprintf("%s %s %s", o.Effect, Clock(o.Due), Clock(o.Until))
				if (o.Effect == EffectSkipped) != (told.Outcome == loom.OutcomeSkipped) || !strings.Contains(told.Why, string(policy)) {
					t.Errorf("%s: %+v", policy, told)
				}
			}
			if got != want {
				t.Errorf("%s, tick %d: %s, want %s (%s)", policy, i, got, want, told.Why)
			}
		}
	}

	job := &loom.Job{Schedule: s, Timezone: utc, NotDuring: []loom.Blackout{{From: start, To: start.Add(30 * time.Minute)}}}
	f := NewForecast(job, &loom.Pause{Until: start.Add(90 * time.Minute), By: "ann"}, Usual{}, nil, start)
	for i, want := range []loom.Outcome{loom.OutcomeSkipped, loom.OutcomePaused, loom.OutcomeRan} {
		if told := f.Tick(start.Add(time.Duration(i) * time.Hour)); told.Outcome != want || told.Overlap != nil {
			t.Errorf("blackout and pause, tick %d: %+v, want %s", i, told, want)
		}
	}

	going := []loom.Run{{Due: start.Add(-time.Hour), Started: start.Add(-time.Hour)}}
	f = NewForecast(&loom.Job{Schedule: s, Timezone: utc}, nil, Usual{2 * time.Hour, 1}, going, start)
	if told := f.Tick(start.Add(30 * time.Minute)); told.Overlap == nil || !strings.Contains(told.Why, "the run from 23:00 usually takes 2h") {
		t.Errorf("a run that is going: %+v", told)
	}
}

// TestPrevious compares with what the schedule says going forward.
func TestPrevious(t *testing.T) {
	for _, expr := range []string{"* * * * *", "30 2 * * *", "0 0 29 2 *", "*/7 3-4 1 * MON", "@every 90s"} {
		s, loc := schedule(t, expr, "Europe/Berlin")
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			at := time.Date(2027, 1, 1, 0, 0, rnd.IntN(4*365*86400), 0, loc)
			got := Previous(s, at)
			if got.IsZero() || !got.Before(at) || !fires(s, got) || s.Next(got).Before(at) {
				t.Fatalf("%s: Previous(%v) = %v", expr, at, got)
			}
		}
	}
	if got := Previous(loom.At(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)); !got.IsZero() {
		t.Errorf("before the first: %v", got)
	}
	if got := Previous(nil, time.Now()); !got.IsZero() {
		t.Errorf("without a schedule: %v", got)
	}
}

// TestEveryTickIsExplained fills ledgers by chance and asks about every minute: a
// tick that has an outcome is told with it, and every other moment has an answer.
func TestEveryTickIsExplained(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		every := 1 + rnd.IntN(20)
		s, utc := schedule(t, fmt.Sprintf("*/%d * * * *", every), "UTC")
		start := time.Date(2027, 3, 1, 0, 0, 0, 0, utc)
		clock := start
		store := &memory.Store{Zone: utc, Now: func() time.Time { return clock }}
		job := &loom.Job{Name: "j", Schedule: s, Timezone: utc, Missed: loom.Missed{Policy: []loom.MissedPolicy{"", loom.MissedSkip, loom.MissedAll}[rnd.IntN(3)]},
			Overlap: []loom.Overlap{"", loom.OverlapQueue, loom.OverlapReplace, loom.OverlapAllow}[rnd.IntN(4)]}
		if err := store.Adopt(t.Context(), map[string]string{"j": "x"}); err != nil {
			t.Fatal(err)
		}
		want := map[int64]loom.Outcome{}
		last := start
		for i := range 40 {
			due := s.Next(last)
			f := loom.Firing{Job: "j", Due: due, After: last, Claim: true, Overlap: job.Overlap, Why: "by chance",
				Outcome: []loom.Outcome{loom.OutcomeRan, loom.OutcomeRan, loom.OutcomeLate, loom.OutcomeMissed, loom.OutcomeSkipped, loom.OutcomePaused}[rnd.IntN(6)],
				Run:     loom.Run{ID: fmt.Sprintf("%d-%02d", seed, i), Trigger: loom.TriggerSchedule, Nodes: 1}}
			if !f.Outcome.Runs() {
				for f.Until, f.Ticks = due, 1; rnd.IntN(2) == 0; f.Ticks++ {
					f.Until = s.Next(f.Until)
				}
			}
			clock = later(due, f.Until)
			fired, err := store.Fire(t.Context(), "me", []loom.Firing{f})
			if err != nil || fired[0].Outcome == "" {
				t.Fatalf("%+v, %v", fired, err)
			}
			for at := due; !at.After(later(due, f.Until)); at = s.Next(at) {
				want[at.Unix()] = fired[0].Outcome
			}
			last = later(due, f.Until)
			if c := fired[0].Claim; c.Epoch > 0 && rnd.IntN(3) > 0 {
				end := loom.Run{Status: []loom.Status{loom.StatusOK, loom.StatusFailed}[rnd.IntN(2)], Ended: clock.Add(time.Minute)}
				if err := store.Finish(t.Context(), c, end, nil); err != nil && !errors.Is(err, loom.ErrFenced) {
					t.Fatal(err)
				}
			}
		}
		ticks, err := store.Ticks(t.Context(), loom.TickQuery{Job: "j", Limit: 10000})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range ticks { // a later run may have taken its place
			if k.Outcome == loom.OutcomeSuperseded {
				want[k.Due.Unix()] = k.Outcome
			}
		}
		clock = clock.Add(time.Duration(rnd.IntN(60)) * time.Minute)
		source := &Source{Archive: store, Now: clock, Absent: rnd.IntN(2) == 0, Jobs: func(string) *loom.Job { return job }}
		for at := start.Add(-time.Hour); at.Before(clock.Add(2 * time.Hour)); at = at.Add(time.Minute) {
			checkAnswer(t, source, at, start, last, want, fires(s, at))
		}
		if all, err := source.Latest(t.Context(), "j"); err != nil || len(all) != 2 || all[1].Outcome != OutcomeComing || all[0].Due.After(clock) {
			t.Errorf("latest: %+v, %v", all, err)
		}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func checkAnswer(t *testing.T, s *Source, at, start, last time.Time, written map[int64]loom.Outcome, tick bool) {
	t.Helper()
	want := OutcomeNone
	switch o, ok := written[at.Unix()]; {
	case ok:
		want = o
	case !tick:
	case at.After(s.Now):
		want = OutcomeComing
	case at.After(last):
		want = OutcomePending
	default:
		want = OutcomeUnknown
	}
	a, err := s.Tick(t.Context(), "j", at)
	if err != nil || a.Outcome != want || a.Text == "" || strings.Contains(a.Text, "%!") || !a.Due.Equal(at) {
		t.Fatalf("%v (began %v, last %v, now %v): %+v, %v; want %s", at, start, last, s.Now, a, err, want)
	}
	if rough, err := s.Before(t.Context(), "j", at); err != nil || rough.Due.After(at) {
		t.Fatalf("before %v: %+v, %v", at, rough, err)
	}
}

// TestSourceWithoutMemory checks that what the manifest alone says can be told.
func TestSourceWithoutMemory(t *testing.T) {
	s, utc := schedule(t, "0 * * * *", "UTC")
	now := time.Date(2027, 1, 1, 0, 30, 0, 0, utc)
	source := &Source{Now: now, Absent: true, Jobs: func(string) *loom.Job { return &loom.Job{Name: "j", Schedule: s, Timezone: utc} }}
	all, err := source.Latest(t.Context(), "j")
	if err != nil || len(all) != 2 || all[0].Outcome != OutcomePending || all[1].Outcome != OutcomeComing {
		t.Errorf("latest: %+v, %v", all, err)
	}
	day, more, err := source.Within(t.Context(), "j", now, now.AddDate(0, 0, 1), 5)
	if err != nil || !more || len(day) != 5 {
		t.Errorf("within: %+v, %v, %v", day, more, err)
	}
}

// TestSourceTellsErrors checks that a store that is down is not taken for an empty
// one.
func TestSourceTellsErrors(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(loom.ErrStoreDown)
	source := &Source{Archive: &memory.Store{}, Now: time.Now()}
	if _, err := source.Tick(ctx, "j", time.Now()); !errors.Is(err, loom.ErrStoreDown) {
		t.Errorf("Tick: %v", err)
	}
	if _, err := source.Latest(ctx, "j"); !errors.Is(err, loom.ErrStoreDown) {
		t.Errorf("Latest: %v", err)
	}
}
