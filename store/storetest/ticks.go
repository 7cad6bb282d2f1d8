package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom"
)

func firedOnce(b *bench) {
	f := loom.Firing{Job: "j", Due: minute(0), Run: b.run(), Claim: true}
	first := b.fire(f)
	if first.Outcome != loom.OutcomeRan || first.Claim.Epoch != 1 || first.Claim.Owner != "a" || first.Claim.Run.Status != loom.StatusRunning {
		b.Fatalf("Fire = %+v, want a run that is claimed", first)
	}
	b.same("the run", b.one(f.Run.ID).ID, f.Run.ID)
	again := b.fire(f)
	b.same("the same firing again", [...]any{again.Outcome, again.Claim.Epoch, again.Claim.Run.ID}, [...]any{loom.OutcomeRan, int64(1), f.Run.ID})
	other := b.fireAs("b", loom.Firing{Job: "j", Due: minute(0), Run: b.run(), Claim: true})
	b.same("the same tick by another", other, loom.Fired{})
	b.same("the runs", len(b.find(loom.RunQuery{})), 1)
	b.same("the ticks", b.ticks(loom.TickQuery{Job: "j"}),
		[]loom.Tick{{Job: "j", Due: minute(0).Local(), Until: minute(0).Local(), Ticks: 1, Outcome: loom.OutcomeRan, Run: f.Run.ID}})
	if last := b.state("j").LastTick; !last.Equal(minute(0)) {
		b.Errorf("the last tick is %v, want %v", last, minute(0))
	}
}

func inOrder(b *bench) {
	b.fire(loom.Firing{Job: "j", Due: minute(0), Run: b.run(), Overlap: loom.OverlapAllow})
	now := b.beat("a").Now
	for _, tt := range []struct {
		name       string
		after, due time.Time
		want       loom.Outcome
	}{
		{"one was passed over", minute(1), minute(2), ""},
		{"the last tick is older than thought", minute(-1), minute(1), ""},
		{"none was thought to be before", time.Time{}, minute(1), ""},
		{"the same again", minute(0), minute(0), ""},
		{"an older one", minute(0), minute(-1), ""},
		{"a future one", minute(0), now.Add(time.Hour), ""},
		{"the next", minute(0), minute(1), loom.OutcomeRan},
		{"the next, with parts of milliseconds", minute(1).Add(time.Microsecond), minute(2).Add(time.Microsecond), loom.OutcomeRan},
	} {
		got := b.fire(loom.Firing{Job: "j", After: tt.after, Due: tt.due, Run: b.run(), Overlap: loom.OverlapAllow})
		if got.Outcome != tt.want || (got.Claim.Run.ID != "") != (tt.want != "") {
			b.Errorf("%s: Fire = %+v, want outcome %q", tt.name, got, tt.want)
		}
	}
	b.same("the runs", len(b.find(loom.RunQuery{})), 3)
}

// race calls racer from several goroutines at once.
func race(n int, racer func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { racer(i) })
	}
	wg.Wait()
}

func racing(b *bench) {
	const racers, ticks = 6, 40
	var won atomic.Int64
	race(racers, func(i int) {
		self := fmt.Sprint("instance ", i)
		for n := 1; n <= ticks; n++ {
			fired, err := b.s.Fire(b.Context(), self, []loom.Firing{{Job: "j", After: minuteOrNone(n - 1), Due: minute(n),
				Run: b.run(), Overlap: loom.OverlapAllow, Claim: true}})
			if err != nil {
				b.Error(err)
				return
			}
			if fired[0].Outcome != "" {
				won.Add(1)
			}
		}
	})
	b.same("ticks won", won.Load(), int64(ticks))
	b.same("runs", len(b.find(loom.RunQuery{Limit: 1000})), ticks)
	seen := map[string]bool{}
	for _, k := range b.ticks(loom.TickQuery{Job: "j", Limit: 1000}) {
		if seen[k.Run] || k.Run == "" {
			b.Errorf("tick %v has run %q", k.Due, k.Run)
		}
		seen[k.Run] = true
	}
	b.same("ticks", len(seen), ticks)
}

// minuteOrNone is minute for what comes before the first.
func minuteOrNone(n int) time.Time {
	if n < 1 {
		return time.Time{}
	}
	return minute(n)
}

func shuffled(b *bench) {
	const racers, jobs, ticks = 4, 12, 8
	var won atomic.Int64
	race(racers, func(i int) {
		for n := 1; n <= ticks; n++ {
			var firings []loom.Firing
			for j := range jobs {
				name := (j*(2*i+5) + i) % jobs // steps of 5, 7, 9, 11
				if i == 2 {
					name = jobs - 1 - j
				}
				firings = append(firings, loom.Firing{Job: fmt.Sprint("job ", name), After: minuteOrNone(n - 1), Due: minute(n),
					Run: b.run(), Overlap: loom.OverlapAllow})
			}
			fired, err := b.s.Fire(b.Context(), fmt.Sprint(i), firings)
			if err != nil {
				b.Error(err)
				return
			}
			for _, f := range fired {
				if f.Outcome != "" {
					won.Add(1)
				}
			}
		}
	})
	b.same("ticks won", won.Load(), int64(jobs*ticks))
	b.same("runs", len(b.find(loom.RunQuery{Limit: 1000})), jobs*ticks)
}

func firedAfterTrim(b *bench) {
	f := b.fire(loom.Firing{Job: "j", Due: minute(0), Run: b.run(), Claim: true})
	b.finish(f.Claim, loom.StatusOK)
	b.must(b.s.Adopt(b.Context(), nil)) // it is gone, so that not even its last run is kept
	<-time.After(5 * time.Millisecond)  // until it is older than the milliseconds that are kept
	if t := b.trim(loom.Retention{Runs: time.Millisecond, Ticks: time.Millisecond}); t.Runs != 1 {
		b.Fatalf("Trim = %+v, want one run", t)
	}
	again := b.fire(loom.Firing{Job: "j", Due: minute(0), Run: b.run()})
	b.same("the tick again", again, loom.Fired{})
	older := b.fire(loom.Firing{Job: "j", After: minute(0), Due: minute(-1), Run: b.run()})
	b.same("an older tick", older, loom.Fired{})
	b.same("runs", len(b.find(loom.RunQuery{})), 0)
}

func ranges(b *bench) {
	fire := func(after, due, until int, ticks int, o loom.Outcome, why string) {
		b.Helper()
		f := loom.Firing{Job: "j", After: minuteOrNone(after), Due: minute(due), Until: minute(until), Ticks: ticks, Outcome: o, Why: why}
		if got := b.fire(f); got.Outcome != o || got.Why != why || got.Claim.Run.ID != "" {
			b.Fatalf("Fire(%+v) = %+v", f, got)
		}
	}
	fire(0, 1, 1, 0, loom.OutcomeMissed, "nobody was there")
	fire(1, 2, 2, 1, loom.OutcomeMissed, "nobody was there")
	fire(2, 3, 10, 8, loom.OutcomeMissed, "nobody was there")
	fire(10, 11, 11, 1, loom.OutcomeSkipped, "run x")
	fire(11, 12, 12, 1, loom.OutcomeSkipped, "run x")
	fire(12, 13, 13, 1, loom.OutcomeSkipped, "run y")
	ran := b.fire(loom.Firing{Job: "j", After: minute(13), Due: minute(14), Run: b.run(), Overlap: loom.OverlapAllow})
	fire(14, 15, 15, 1, loom.OutcomeSkipped, "run y")
	word := func(k loom.Tick) string {
		return fmt.Sprintf("%.0f-%.0f %d %s %s", k.Due.Sub(minute(0)).Minutes(), k.Until.Sub(minute(0)).Minutes(), k.Ticks, k.Outcome, k.Why+k.Run)
	}
	all := []string{"1-10 10 missed nobody was there", "11-12 2 skipped run x", "13-13 1 skipped run y", "14-14 1 ran " + ran.Claim.Run.ID, "15-15 1 skipped run y"}
	for _, tt := range []struct {
		name string
		q    loom.TickQuery
		want []string
	}{
		{"all", loom.TickQuery{Job: "j"}, all},
		{"the newest", loom.TickQuery{Job: "j", Limit: 2}, all[3:]},
		{"at a moment within a range", loom.TickQuery{Job: "j", From: minute(5), To: minute(5)}, all[:1]},
		{"at a tick", loom.TickQuery{Job: "j", From: minute(13), To: minute(13)}, all[2:3]},
		{"between ticks", loom.TickQuery{Job: "j", From: minute(13).Add(time.Second), To: minute(14).Add(-time.Second)}, nil},
		{"a period", loom.TickQuery{Job: "j", From: minute(4), To: minute(12)}, all[:2]},
		{"from a moment on", loom.TickQuery{Job: "j", From: minute(14)}, all[3:]},
		{"before all", loom.TickQuery{Job: "j", To: minute(0)}, nil},
		{"of no job", loom.TickQuery{Job: "other"}, nil},
	} {
		b.same(tt.name, texts(b.ticks(tt.q), word), tt.want)
	}
	b.same("the newest come first", word(b.ticks(loom.TickQuery{Job: "j"})[0]), all[4])
}

func thousand(b *bench) {
	firings := make([]loom.Firing, 1000)
	for i := range firings {
		firings[i] = loom.Firing{Job: fmt.Sprint("job ", i), Due: minute(0), Run: b.run(), Claim: true}
	}
	fired, err := b.s.Fire(b.Context(), "a", firings)
	b.must(err)
	for i, f := range fired {
		if f.Outcome != loom.OutcomeRan || f.Claim.Epoch != 1 || f.Claim.Run.ID != firings[i].Run.ID {
			b.Fatalf("firing %d: %+v", i, f)
		}
	}
	b.same("runs owned", len(b.beat("a").Owned), 1000)
	seen := map[string]bool{}
	q := loom.RunQuery{Limit: 300}
	for {
		page := b.find(q)
		for _, r := range page {
			seen[r.ID] = true
			q.Before = r.ID
		}
		if len(page) < q.Limit {
			break
		}
	}
	b.same("runs paged through", len(seen), 1000)
}

func nonsense(b *bench) {
	for _, tt := range []struct {
		name string
		f    loom.Firing
	}{
		{"no job", loom.Firing{Due: minute(0), Run: b.run()}},
		{"no ID", loom.Firing{Job: "j", Due: minute(0)}},
		{"missed, but not when", loom.Firing{Job: "j", Outcome: loom.OutcomeMissed}},
		{"the end before the beginning", loom.Firing{Job: "j", Due: minute(2), Until: minute(1), Outcome: loom.OutcomeMissed}},
		{"a run for a range", loom.Firing{Job: "j", Due: minute(2), Until: minute(3), Run: b.run()}},
	} {
		if _, err := b.s.Fire(b.Context(), "a", []loom.Firing{{Job: "good", Due: minute(0), Run: b.run()}, tt.f}); err == nil {
			b.Errorf("%s: Fire returned no error", tt.name)
		}
	}
	b.same("runs", len(b.find(loom.RunQuery{})), 0)
}

func pausing(b *bench) {
	b.fire(loom.Firing{Job: "j", Due: minute(0), Run: b.run(), Overlap: loom.OverlapAllow})
	b.act(loom.Action{By: "kim", Verb: loom.VerbPause, Object: "j", Why: "moving house", Until: minute(10)})
	p := b.state("j").Pause
	if p == nil || p.By != "kim" || p.Why != "moving house" || !p.Until.Equal(minute(10)) || p.Since.IsZero() {
		b.Fatalf("the pause is %+v", p)
	}
	for n := 1; n <= 3; n++ {
		f := b.fire(loom.Firing{Job: "j", After: minute(n - 1), Due: minute(n), Run: b.run(), Overlap: loom.OverlapAllow, Claim: true})
		if f.Outcome != loom.OutcomePaused || f.Claim.Run.ID != "" || !strings.Contains(f.Why, "kim") || !strings.Contains(f.Why, "moving house") {
			b.Errorf("Fire of a paused job = %+v", f)
		}
	}
	if ticks := b.ticks(loom.TickQuery{Job: "j", Limit: 1}); len(ticks) != 1 || ticks[0].Outcome != loom.OutcomePaused || ticks[0].Ticks != 3 {
		b.Errorf("the newest tick is %+v, want three paused ones", ticks)
	}
	chained := b.run()
	chained.Trigger = loom.TriggerAfter
	if f := b.fire(loom.Firing{Job: "j", Run: chained, Overlap: loom.OverlapAllow}); f.Outcome != loom.OutcomePaused || f.Claim.Run.ID != "" {
		// it is due now, which is after the pause
		b.same("a chained run after the pause", f.Outcome, loom.OutcomeRan)
	}
	if f := b.fire(loom.Firing{Job: "j", Run: b.byHand("sam"), Overlap: loom.OverlapAllow}); f.Outcome != loom.OutcomeRan {
		b.Errorf("Fire by hand of a paused job = %+v", f)
	}
	f := b.fire(loom.Firing{Job: "j", After: minute(3), Due: minute(10), Run: b.run(), Overlap: loom.OverlapAllow})
	b.same("the tick at the end of the pause", f.Outcome, loom.OutcomeRan)

	b.act(loom.Action{By: "kim", Verb: loom.VerbPause, Object: "j"})
	f = b.fire(loom.Firing{Job: "j", After: minute(10), Due: minute(11), Run: b.run(), Overlap: loom.OverlapAllow})
	b.same("a tick of a job paused for good", f.Outcome, loom.OutcomePaused)
	f = b.fire(loom.Firing{Job: "j", Run: chained, Overlap: loom.OverlapAllow})
	again := b.run()
	again.Trigger = loom.TriggerAfter
	f = b.fire(loom.Firing{Job: "j", Run: again, Overlap: loom.OverlapAllow})
	b.same("a chained run of a job paused for good", [...]any{f.Outcome, f.Claim.Run.ID}, [...]any{loom.OutcomePaused, ""})
	b.act(loom.Action{By: "kim", Verb: loom.VerbResume, Object: "j"})
	if p := b.state("j").Pause; p != nil {
		b.Errorf("a job that was resumed is paused: %+v", p)
	}
	f = b.fire(loom.Firing{Job: "j", After: minute(11), Due: minute(12), Run: b.run(), Overlap: loom.OverlapAllow})
	b.same("a tick of a job that was resumed", f.Outcome, loom.OutcomeRan)
	for _, verb := range []string{loom.VerbPause, loom.VerbResume} {
		if err := b.s.Act(b.Context(), loom.Action{Verb: verb, Object: "nobody"}); !errors.Is(err, loom.ErrNotFound) {
			b.Errorf("%s of no job: %v, want ErrNotFound", verb, err)
		}
	}
}

// next fires the n-th tick of job j, and claims its run.
func (b *bench) next(n int, policy loom.Overlap) loom.Fired {
	b.Helper()
	return b.fire(loom.Firing{Job: "j", After: minuteOrNone(n - 1), Due: minute(n), Run: b.run(), Overlap: policy, Claim: true})
}

func overlapSkip(b *bench) {
	first := b.next(1, "")
	b.record(first.Claim, loom.Event{Kind: loom.KindNodeStarted, Node: "db3", Time: minute(0)})
	f := b.next(2, loom.OverlapSkip)
	if f.Outcome != loom.OutcomeSkipped || f.Claim.Run.ID != "" || !strings.Contains(f.Why, first.Claim.Run.ID) || !strings.Contains(f.Why, "db3") {
		b.Errorf("a tick while a run is going: %+v", f)
	}
	if k := b.ticks(loom.TickQuery{Job: "j", Limit: 1}); len(k) != 1 || k[0].Outcome != loom.OutcomeSkipped || k[0].Why != f.Why {
		b.Errorf("the tick is %+v", k)
	}
	f = b.fire(loom.Firing{Job: "j", Run: b.byHand("kim")})
	b.same("by hand", [...]any{f.Outcome, f.Claim.Run.ID}, [...]any{loom.OutcomeSkipped, ""})
	b.same("actions of what was refused", len(must(b.s.Actions(b.Context(), loom.ActionQuery{}))), 0)
	b.finish(first.Claim, loom.StatusOK)
	b.same("after its end", b.next(3, loom.OverlapSkip).Outcome, loom.OutcomeRan)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func overlapQueue(b *bench) {
	first := b.next(1, loom.OverlapQueue)
	second := b.next(2, loom.OverlapQueue)
	if second.Outcome != loom.OutcomeRan || second.Claim.Epoch != 0 || second.Claim.Run.Status != loom.StatusQueued {
		b.Errorf("a tick while a run is going: %+v, want a queued run", second)
	}
	third := b.next(3, loom.OverlapQueue)
	b.same("a tick while one waits", [...]any{third.Outcome, third.Claim.Run.ID}, [...]any{loom.OutcomeSkipped, ""})
	if c := b.take("a"); c != nil {
		b.Fatalf("Take = %+v while a run is going", c)
	}
	b.finish(first.Claim, loom.StatusOK)
	c := b.take("a")
	if c == nil || c.Run.ID != second.Claim.Run.ID || c.Epoch != 1 {
		b.Fatalf("Take = %+v, want the one that waits", c)
	}
	b.same("a tick while none waits", b.next(4, loom.OverlapQueue).Outcome, loom.OutcomeRan)
}

func overlapReplace(b *bench) {
	first, second, third := b.next(1, loom.OverlapReplace), b.next(2, loom.OverlapReplace), b.next(3, loom.OverlapReplace)
	if second.Claim.Epoch != 0 || third.Claim.Epoch != 0 {
		b.Errorf("runs were claimed while an earlier one is going: %+v, %+v", second, third)
	}
	if why := b.beat("a").Cancel[first.Claim.Run.ID]; !strings.Contains(why, second.Claim.Run.ID) && !strings.Contains(why, third.Claim.Run.ID) {
		b.Errorf("the first run shall end because %q", why)
	}
	r := b.one(second.Claim.Run.ID)
	if r.Status != loom.StatusCancelled || !strings.Contains(r.Reason, third.Claim.Run.ID) || r.Ended.IsZero() {
		b.Errorf("the second run is %+v", r)
	}
	var outcomes []loom.Outcome
	for _, k := range b.ticks(loom.TickQuery{Job: "j"}) {
		outcomes = append(outcomes, k.Outcome)
	}
	b.same("the ticks", outcomes, []loom.Outcome{loom.OutcomeRan, loom.OutcomeSuperseded, loom.OutcomeRan})
	b.finish(first.Claim, loom.StatusCancelled)
	if c := b.take("a"); c == nil || c.Run.ID != third.Claim.Run.ID {
		b.Errorf("Take = %+v, want the third", c)
	}
}

func overlapAllow(b *bench) {
	first, second := b.next(1, loom.OverlapAllow), b.next(2, loom.OverlapAllow)
	if first.Claim.Epoch != 1 || second.Claim.Epoch != 1 {
		b.Errorf("the runs were not claimed: %+v, %+v", first, second)
	}
	b.same("a job whose policy was changed", b.next(3, loom.OverlapSkip).Outcome, loom.OutcomeSkipped)
}

// overlapRace has several instances start, take and end runs of a few jobs at
// once, and looks whether two of a job are ever held at the same time.
func overlapRace(b *bench) {
	const jobs, racers, rounds = 3, 6, 40
	var held [jobs]atomic.Int64
	var taken atomic.Int64
	work := func(c *loom.Claim) {
		var n int
		_, _ = fmt.Sscanf(c.Run.Job, "job %d", &n)
		if held[n].Add(1) != 1 {
			b.Errorf("two runs of %s are held", c.Run.Job)
		}
		taken.Add(1)
		held[n].Add(-1)
		if err := b.s.Finish(b.Context(), *c, loom.Run{Status: loom.StatusOK}, nil); err != nil {
			b.Error(err)
		}
	}
	race(racers, func(i int) {
		self := fmt.Sprint("instance ", i)
		for n := range rounds {
			fired, err := b.s.Fire(b.Context(), self, []loom.Firing{{Job: fmt.Sprint("job ", n%jobs), Run: b.run(),
				Overlap: loom.OverlapQueue, Claim: i%2 == 0}})
			if err != nil {
				b.Error(err)
				return
			}
			if c := fired[0].Claim; c.Epoch != 0 {
				work(&c)
			}
			if c, err := b.s.Take(b.Context(), self); err != nil {
				b.Error(err)
			} else if c != nil {
				work(c)
			}
		}
	})
	for c := b.take("last"); c != nil; c = b.take("last") {
		work(c)
	}
	b.same("runs that ended", int64(len(b.find(loom.RunQuery{Status: []loom.Status{loom.StatusOK}, Limit: 10000}))), taken.Load())
}

func keys(b *bench) {
	r := b.byHand("kim")
	first := b.fire(loom.Firing{Job: "j", Run: r, Key: "k", Overlap: loom.OverlapAllow, Claim: true})
	again := b.fire(loom.Firing{Job: "j", Run: b.byHand("kim"), Key: "k", Overlap: loom.OverlapAllow, Claim: true})
	b.same("the key again", [...]any{again.Outcome, again.Claim.Run.ID, again.Claim.Epoch}, [...]any{loom.OutcomeRan, r.ID, int64(0)})
	b.same("the first run's firing again", b.fire(loom.Firing{Job: "j", Run: r, Key: "k", Claim: true}).Claim.Epoch, first.Claim.Epoch)
	other := b.fire(loom.Firing{Job: "other", Run: b.byHand("kim"), Key: "k"})
	b.same("the key for another job", other.Claim.Run.Job, "other")
	none := b.fire(loom.Firing{Job: "j", Run: b.byHand("kim"), Overlap: loom.OverlapAllow})
	if none.Claim.Run.ID == r.ID {
		b.Error("a run without a key is taken for another")
	}
	b.finish(first.Claim, loom.StatusOK)
	b.same("the key after the end", b.fire(loom.Firing{Job: "j", Run: b.byHand("kim"), Key: "k"}).Claim.Run.ID, r.ID)
	acts := must(b.s.Actions(b.Context(), loom.ActionQuery{Object: "j"}))
	if len(acts) != 2 || acts[0].Verb != loom.VerbRun || acts[0].By != "kim" {
		b.Errorf("the actions are %+v, want two runs by kim", acts)
	}
}

func adopting(b *bench) {
	adopt := func(jobs map[string]string) time.Time {
		b.Helper()
		b.must(b.s.Adopt(b.Context(), jobs))
		return b.beat("a").Now
	}
	before := b.beat("a").Now
	after := adopt(map[string]string{"j": "@hourly", "k": "@daily"})
	began := b.state("j").LastTick
	if began.Before(before) || began.After(after) {
		b.Fatalf("a new job's last tick is %v, want the store's now: %v to %v", began, before, after)
	}
	b.same("a tick from before the job was known", b.fire(loom.Firing{Job: "j", After: began, Due: began.Add(-time.Minute), Run: b.run()}), loom.Fired{})

	<-time.After(3 * time.Millisecond)
	adopt(map[string]string{"j": "@hourly", "k": "@weekly"})
	b.same("an unchanged job's last tick", b.state("j").LastTick, began)
	if k := b.state("k").LastTick; !k.After(began) {
		b.Errorf("a changed job's last tick is %v, want one after %v", k, began)
	}
	adopt(map[string]string{"k": "@weekly"})
	if j := b.state("j"); !j.Gone || !j.LastTick.Equal(began) {
		b.Errorf("a job that is gone: %+v", j)
	}
	adopt(map[string]string{"j": "@hourly", "k": "@weekly"})
	if j := b.state("j"); j.Gone || !j.LastTick.After(began) {
		b.Errorf("a job that is back: %+v", j)
	}
	b.must(b.s.Adopt(b.Context(), nil))
	b.same("jobs", texts(must(b.s.Jobs(b.Context())), func(s loom.JobState) string { return fmt.Sprint(s.Name, s.Gone) }), []string{"jtrue", "ktrue"})
}

func cancelling(b *bench) {
	first := b.next(1, loom.OverlapQueue)
	second := b.next(2, loom.OverlapQueue)
	cancel := func(id string) error {
		return b.s.Act(b.Context(), loom.Action{By: "kim", Verb: loom.VerbCancel, Object: id, Why: "wrong node"})
	}
	b.must(cancel(first.Claim.Run.ID))
	b.must(cancel(second.Claim.Run.ID))
	p := b.beat("a")
	if why := p.Cancel[first.Claim.Run.ID]; len(p.Cancel) != 1 || !strings.Contains(why, "kim") || !strings.Contains(why, "wrong node") {
		b.Errorf("runs to cancel: %q", p.Cancel)
	}
	if r := b.one(second.Claim.Run.ID); r.Status != loom.StatusCancelled || !strings.Contains(r.Reason, "kim") {
		b.Errorf("a queued run that was cancelled: %+v", r)
	}
	b.record(first.Claim, life("n1", loom.StatusCancelled)...) // what was done is still told
	b.finish(first.Claim, loom.StatusCancelled)
	for _, id := range []string{first.Claim.Run.ID, second.Claim.Run.ID, "nothing"} {
		if err := cancel(id); !errors.Is(err, loom.ErrNotFound) {
			b.Errorf("cancel %s: %v, want ErrNotFound", id, err)
		}
	}
	b.same("actions", len(must(b.s.Actions(b.Context(), loom.ActionQuery{}))), 2)
}

func ended(b *bench) {
	ctx, cancel := context.WithCancelCause(b.Context())
	why := errors.New("no time")
	cancel(why)
	s := b.s
	_, beat := s.Beat(ctx, loom.Instance{ID: "a"})
	_, fire := s.Fire(ctx, "a", []loom.Firing{{Job: "j", Run: b.run()}})
	_, take := s.Take(ctx, "a")
	_, jobs := s.Jobs(ctx)
	_, runs := s.Runs(ctx, loom.RunQuery{})
	_, results := s.Results(ctx, loom.ResultQuery{Runs: []string{"x"}})
	_, output := s.Output(ctx, loom.OutputQuery{Run: "x"})
	_, ticks := s.Ticks(ctx, loom.TickQuery{Job: "j"})
	_, days := s.Days(ctx, loom.DayQuery{})
	_, actions := s.Actions(ctx, loom.ActionQuery{})
	_, trim := s.Trim(ctx, loom.Retention{Runs: 1})
	for name, err := range map[string]error{"Beat": beat, "Fire": fire, "Take": take, "Jobs": jobs, "Runs": runs, "Results": results,
		"Output": output, "Ticks": ticks, "Days": days, "Actions": actions, "Trim": trim,
		"Adopt":  s.Adopt(ctx, map[string]string{"j": ""}),
		"Record": s.Record(ctx, loom.Claim{}, nil), "Finish": s.Finish(ctx, loom.Claim{}, loom.Run{}, nil),
		"Act": s.Act(ctx, loom.Action{Verb: "look"})} {
		if !errors.Is(err, why) {
			b.Errorf("%s: %v, want the context's cause", name, err)
		}
	}
	b.same("jobs", len(must(s.Jobs(b.Context()))), 0)
	b.same("runs", len(b.find(loom.RunQuery{})), 0)
}
