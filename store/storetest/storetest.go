// Package storetest is what every loom.Store must pass.
package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
)

// Open opens the store that lives in a directory, which is empty at first. Its
// time to live should be a second or less, so that tests don't wait long for an
// instance to count as silent. The suite closes what it opens.
type Open func(t *testing.T, dir string) loom.Store

// Run checks a store against what package loom says of stores.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"a tick is fired once", firedOnce},
		{"a tick is fired after the one before", inOrder},
		{"of racers one wins", racing},
		{"racers may fire in any order", shuffled},
		{"a trimmed tick is not fired again", firedAfterTrim},
		{"ticks without runs become ranges", ranges},
		{"a thousand ticks at one instant", thousand},
		{"a firing that makes no sense is refused", nonsense},
		{"a paused job fires only by hand", pausing},
		{"overlap: skip", overlapSkip},
		{"overlap: queue", overlapQueue},
		{"overlap: replace", overlapReplace},
		{"overlap: allow", overlapAllow},
		{"runs that allow no overlap don't", overlapRace},
		{"a key starts one run", keys},
		{"a run keeps what was asked of it", terms},
		{"a plan is none of its job's runs", plans},
		{"retention knows plans", trimPlans},
		{"runs are taken in turn", taking},
		{"a lost claim writes nothing", fenced},
		{"a run can be given back", givenBack},
		{"the runs of an instance that leaves go to another", leaving},
		{"the runs of a silent instance go to another", silence},
		{"results tell what happened", results},
		{"output is kept as it was printed", output},
		{"output can be followed", following},
		{"who follows a run is woken", watching},
		{"jobs begin anew", adopting},
		{"cancelling", cancelling},
		{"runs can be filtered and paged", filtering},
		{"what jobs and nodes did last", recent},
		{"the state of jobs", states},
		{"days are counted", days},
		{"actions are listed", actions},
		{"retention by age", trimAge},
		{"retention by count", trimCount},
		{"retention of output", trimOutput},
		{"retention of ticks", trimTicks},
		{"an ended context changes nothing", ended},
		{"everything at once", everything},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			defer func() { // also after a case that is skipped
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.run(&bench{T: t, s: s})
		})
	}
}

// RunDurable checks that a store that was closed is found again as it was.
func RunDurable(t *testing.T, open Open) {
	t.Helper()
	dir := t.TempDir()
	b := &bench{T: t, s: open(t, dir)}
	job := b.busyJob()
	before := b.all(job)
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	b.s = open(t, dir)
	defer func() { b.must(b.s.Close()) }()
	after := b.all(job)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before it was closed:\n%+v\nafter it was opened again:\n%+v", before, after)
	}
	if f := b.fireAs("new", loom.Firing{Job: job, Due: minute(0), Run: b.run()}); f.Outcome != "" {
		t.Errorf("a tick that was fired before is fired again: %+v", f)
	}
	b.beat("new") // whoever had the runs is dead
	if c := b.take("new"); c == nil || c.Epoch != 2 || c.Run.Status != loom.StatusRunning {
		t.Errorf("Take = %+v, want the run that was going, in epoch 2", c)
	}
}

// minute returns the n-th minute of a day that is past for every store.
func minute(n int) time.Time { return time.Date(2026, 3, 29, 12, n, 0, 0, time.UTC) }

// A bench is one store on test.
type bench struct {
	*testing.T
	s    loom.Store
	runs atomic.Int64
}

// run returns a run that is new.
func (b *bench) run() loom.Run {
	return loom.Run{ID: fmt.Sprintf("%026d", b.runs.Add(1)), Trigger: loom.TriggerSchedule, Nodes: 1}
}

// byHand returns a run that somebody asked for.
func (b *bench) byHand(who string) loom.Run {
	r := b.run()
	r.Trigger, r.By = loom.TriggerManual, who
	return r
}

func (b *bench) fire(f loom.Firing) loom.Fired {
	b.Helper()
	return b.fireAs("a", f)
}

func (b *bench) fireAs(self string, f loom.Firing) loom.Fired {
	b.Helper()
	fired, err := b.s.Fire(b.Context(), self, []loom.Firing{f})
	if err != nil {
		b.Fatalf("Fire(%+v): %v", f, err)
	}
	return fired[0]
}

// start fires a run without a tick that is claimed at once.
func (b *bench) start(job string) loom.Claim {
	b.Helper()
	f := b.fire(loom.Firing{Job: job, Run: b.byHand("kim"), Overlap: loom.OverlapAllow, Claim: true})
	if f.Claim.Epoch == 0 {
		b.Fatalf("the run was not claimed: %+v", f)
	}
	return f.Claim
}

func (b *bench) beat(self string) loom.Pulse {
	b.Helper()
	p, err := b.s.Beat(b.Context(), loom.Instance{ID: self})
	b.must(err)
	return p
}

func (b *bench) leave(self string) {
	b.Helper()
	_, err := b.s.Beat(b.Context(), loom.Instance{ID: self, Leaving: true})
	b.must(err)
}

func (b *bench) take(self string) *loom.Claim {
	b.Helper()
	c, err := b.s.Take(b.Context(), self)
	b.must(err)
	return c
}

func (b *bench) record(c loom.Claim, events ...loom.Event) {
	b.Helper()
	b.must(b.s.Record(b.Context(), c, events))
}

func (b *bench) finish(c loom.Claim, status loom.Status) {
	b.Helper()
	b.must(b.s.Finish(b.Context(), c, loom.Run{Status: status, Counts: map[loom.Status]int{status: 1}}, nil))
}

// done is a run of a job from its begin to its end.
func (b *bench) done(job string, status loom.Status) loom.Run {
	b.Helper()
	c := b.start(job)
	b.finish(c, status)
	return b.one(c.Run.ID)
}

func (b *bench) act(a loom.Action) {
	b.Helper()
	b.must(b.s.Act(b.Context(), a))
}

// one returns the run with this ID.
func (b *bench) one(id string) loom.Run {
	b.Helper()
	runs := b.find(loom.RunQuery{ID: id})
	if len(runs) != 1 {
		b.Fatalf("there are %d runs %s", len(runs), id)
	}
	return runs[0]
}

func (b *bench) find(q loom.RunQuery) []loom.Run {
	b.Helper()
	runs, err := b.s.Runs(b.Context(), q)
	b.must(err)
	return runs
}

// ids returns the IDs of runs as numbers.
func ids(runs []loom.Run) []int {
	var all []int
	for _, r := range runs {
		n, _ := strconv.Atoi(r.ID) // those of the suite are numbers
		all = append(all, n)
	}
	return all
}

func (b *bench) results(runs ...string) []loom.Result {
	b.Helper()
	all, err := b.s.Results(b.Context(), loom.ResultQuery{Runs: runs})
	b.must(err)
	return all
}

func (b *bench) output(q loom.OutputQuery) []loom.Chunk {
	b.Helper()
	chunks, err := b.s.Output(b.Context(), q)
	b.must(err)
	return chunks
}

func (b *bench) ticks(q loom.TickQuery) []loom.Tick {
	b.Helper()
	ticks, err := b.s.Ticks(b.Context(), q)
	b.must(err)
	for i := range ticks {
		ticks[i].At = time.Time{}
	}
	return ticks
}

func (b *bench) state(job string) loom.JobState {
	b.Helper()
	states, err := b.s.Jobs(b.Context(), job)
	b.must(err)
	if len(states) != 1 {
		b.Fatalf("there are %d states of job %s", len(states), job)
	}
	return states[0]
}

func (b *bench) trim(keep loom.Retention) loom.Trimmed {
	b.Helper()
	t, err := b.s.Trim(b.Context(), keep)
	b.must(err)
	return t
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) same(what string, got, want any) {
	b.Helper()
	if !reflect.DeepEqual(got, want) {
		b.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// busyJob makes a job with a bit of everything, and leaves one run going.
func (b *bench) busyJob() string {
	const job = "busy"
	b.must(b.s.Adopt(b.Context(), map[string]string{"idle": "@daily"}))
	first := b.fire(loom.Firing{Job: job, Due: minute(0), Run: b.run(), Claim: true})
	b.record(first.Claim, life("n1", loom.StatusChanged)...)
	b.record(first.Claim, life("n2", loom.StatusFailed)...)
	b.must(b.s.Finish(b.Context(), first.Claim, loom.Run{Status: loom.StatusFailed, Reason: "it broke",
		Counts: map[loom.Status]int{loom.StatusFailed: 1, loom.StatusChanged: 1}}, nil))
	b.fire(loom.Firing{Job: job, Due: minute(1), Until: minute(5), Ticks: 5, After: minute(0), Outcome: loom.OutcomeMissed, Why: "nobody was there"})
	b.fire(loom.Firing{Job: job, Due: minute(6), After: minute(5), Outcome: loom.OutcomeLate, Why: "nobody was there", Run: b.run(), Claim: true})
	b.act(loom.Action{By: "kim", Verb: loom.VerbPause, Object: job, Why: "moving house", Until: minute(60)})
	b.fire(loom.Firing{Job: job, Due: minute(7), After: minute(6), Run: b.run()})
	return job
}

// all is what a store tells of a job.
func (b *bench) all(job string) []any {
	b.Helper()
	runs := b.find(loom.RunQuery{})
	var names []string
	for _, r := range runs {
		names = append(names, r.ID)
	}
	states, err := b.s.Jobs(b.Context())
	b.must(err)
	days, err := b.s.Days(b.Context(), loom.DayQuery{Job: job})
	b.must(err)
	actions, err := b.s.Actions(b.Context(), loom.ActionQuery{})
	b.must(err)
	for _, s := range states {
		if s.Last != nil {
			r := *s.Last
			s.Last = nil
			names = append(names, fmt.Sprint(r))
		}
		if s.Pause != nil {
			names = append(names, fmt.Sprint(*s.Pause))
		}
	}
	all := []any{runs, names, days, actions, b.ticks(loom.TickQuery{Job: job}), len(states)}
	for _, r := range runs {
		all = append(all, b.results(r.ID), b.output(loom.OutputQuery{Run: r.ID}))
	}
	return all
}

// life is what happens on a node from its begin to its end.
func life(node string, status loom.Status) []loom.Event {
	r := &loom.Result{Node: node, Status: status, ExitCode: -1, Started: minute(0), Ended: minute(0).Add(1500 * time.Millisecond)}
	events := []loom.Event{
		{Kind: loom.KindNodeStarted, Node: node, Time: minute(0)},
		{Kind: loom.KindOutput, Node: node, Time: minute(0), Stream: loom.Stdout, Text: "hello from " + node},
	}
	switch status {
	case loom.StatusChanged:
		r.Changes = []string{"wrote /etc/motd"}
		events = append(events, loom.Event{Kind: loom.KindChanged, Node: node, Text: r.Changes[0]})
	case loom.StatusFailed:
		r.ExitCode, r.Reason = 3, "exit status 3: disk is full on "+node
	}
	return append(events, loom.Event{Kind: loom.KindNodeEnded, Node: node, Time: r.Ended, Result: r})
}

func lines(chunks []loom.Chunk) []string {
	var all []string
	for _, c := range chunks {
		for _, l := range c.Lines {
			all = append(all, c.Node+" "+string(l.Stream)+" "+l.Text)
		}
	}
	return all
}

// texts returns the sorted words of a slice of anything.
func texts[T any](all []T, word func(T) string) []string {
	var words []string
	for _, v := range all {
		words = append(words, word(v))
	}
	slices.Sort(words)
	return words
}
