package loom

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// How a clock that was stepped, or a machine that slept, is dealt with. These
// are cron's own numbers (cronie, cron(8): "clock changes of less than 3 hours
// are treated specially").
const (
	slightlyLate = 5 * time.Minute // every tick that fell is still run
	clockCorrect = 3 * time.Hour   // more than this is a new time, with no past
)

// A Scheduler runs jobs when they are due. The zero value lacks only a Pool.
// Its fields must not change once Run was called; its methods are safe for
// concurrent use.
//
// Each tick of a job, which is one time of its schedule, is acted on once. What
// the clock does is dealt with as cron does. If it is, or jumps, ahead by up to
// three hours, ticks that are at most five minutes late run all the same, and
// of older ones what the job's Missed policy says. If it goes back by up to
// three hours, jobs of fixed times don't run again, and interval jobs follow
// the clock. A greater jump either way is a new time: nothing is made up.
type Scheduler struct {
	Pool  *Pool
	Grace time.Duration // how long running tasks may go on after a stop; 0: not at all
	Log   *slog.Logger  // nil: slog.Default()

	// Observe, if not nil, is called for every event, from several goroutines.
	// It must not block.
	Observe func(Event)

	// clock returns the wall clock's time and a count that only goes forward.
	// Tests set it to step the one and not the other, which synctest can't;
	// nil is the machine's.
	clock func() (time.Time, time.Duration)
	look  time.Duration // how often the clock is looked at; 0: each second

	mu        sync.Mutex
	jobs      map[string]*entry
	followers map[string][]*entry // by the job whose end fires them
	due       dueHeap
	handled   time.Time         // ticks up to here were acted on
	wake      chan struct{}     // interrupts the loop's wait
	going     map[string]*going // by run ID
	open      bool              // runs may be started: Run is going and not stopping
	runs      sync.WaitGroup
}

// An entry is a job and when it is due next.
type entry struct {
	job    *Job
	when   Schedule
	jitter time.Duration
	after  time.Time // ticks up to here were acted on, or will never be
	next   time.Time // the first tick after that; zero: never
	index  int       // in the heap; -1: not there
	going  []*going  // its runs, oldest first
	queued []Run     // wait for those to end
}

// A going is a run in progress.
type going struct {
	run    Run
	entry  *entry
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	nodes map[string]bool // where it is at work
	end   Status
}

// Load replaces the jobs, at any time. Runs that are going end with the job
// they began with; a job whose schedule is unchanged keeps its next tick.
func (s *Scheduler) Load(m *Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handled.IsZero() {
		s.handled = s.now()
	}
	old := s.jobs
	s.followers = map[string][]*entry{}
	s.jobs = make(map[string]*entry, len(m.Jobs))
	s.due = s.due[:0]
	for _, j := range m.Jobs {
		e := &entry{job: j, when: j.when(), index: -1}
		if !j.Jitter.ByNode {
			e.jitter = j.Jitter.of(j.Name)
		}
		for _, a := range j.After {
			if !j.Disabled && !slices.Contains(s.followers[a.Job], e) {
				s.followers[a.Job] = append(s.followers[a.Job], e)
			}
		}
		after := s.handled
		if was := old[j.Name]; was != nil {
			e.going, e.queued = was.going, was.queued
			for _, g := range e.going {
				g.entry = e
			}
			if was.after.After(after) {
				after = was.after // the clock went back since
			}
		}
		s.jobs[j.Name] = e
		s.plan(e, after)
	}
	s.poke()
}

// plan computes when e is due next. s.mu is held.
func (s *Scheduler) plan(e *entry, after time.Time) {
	e.after, e.next = after, time.Time{}
	if e.when != nil {
		e.next = e.when.Next(after)
	}
	if !e.next.IsZero() && !e.next.After(after) {
		s.log().Error("schedule goes backwards: the job will not run until it is mended",
			"job", e.job.Name, "after", after, "next", e.next)
		e.next = time.Time{}
	}
	switch {
	case e.next.IsZero() && e.index >= 0:
		heap.Remove(&s.due, e.index)
	case e.next.IsZero():
	case e.index >= 0:
		heap.Fix(&s.due, e.index)
	default:
		heap.Push(&s.due, e)
	}
}

// Run runs jobs as they fall due until ctx is done. Then it starts no more,
// lets those that are going end for up to Grace, cancels what is left with
// ErrShutdown as the cause, and returns when the last has ended: nil if none
// had to be cancelled, else ErrShutdown. Closing the pool is the caller's.
func (s *Scheduler) Run(ctx context.Context) error {
	s.begin()
	s.loop(ctx)
	s.mu.Lock()
	s.open = false
	idle := len(s.going) == 0
	s.mu.Unlock()
	if idle {
		return nil
	}

	ended := make(chan struct{})
	go func() {
		s.runs.Wait()
		close(ended)
	}()
	grace := time.NewTimer(s.Grace)
	defer grace.Stop()
	select {
	case <-ended:
		return nil
	case <-grace.C:
	}
	s.Abort()
	<-ended
	return ErrShutdown
}

// begin fires the jobs that run when Loom starts.
func (s *Scheduler) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	s.wake = make(chan struct{}, 1)
	now := s.now()
	if s.handled.IsZero() {
		s.handled = now
	}
	for _, name := range slices.Sorted(maps.Keys(s.jobs)) {
		if e := s.jobs[name]; e.when != nil && firesAtStart(e.when) {
			s.fire(e, now, TriggerSchedule)
		}
	}
}

// loop acts on ticks until ctx is done.
func (s *Scheduler) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	read := s.clock
	if read == nil {
		origin := time.Now()
		read = func() (time.Time, time.Duration) {
			now := time.Now()
			return now.Round(0), now.Sub(origin) // wall and monotonic
		}
	}
	wall, steady := read()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		was, wasSteady := wall, steady
		wall, steady = read()
		jump := wall.Sub(was) - (steady - wasSteady)

		s.mu.Lock()
		s.step(was, wall, jump)
		wait := cmp.Or(s.look, time.Second)
		if len(s.due) > 0 {
			wait = min(wait, max(s.due[0].starts().Sub(wall), 0))
		}
		s.mu.Unlock()
		timer.Reset(wait)
	}
}

// step acts on all that happened between two looks at the clock. s.mu is held.
func (s *Scheduler) step(was, now time.Time, jump time.Duration) {
	switch {
	case jump > clockCorrect || jump < -clockCorrect:
		s.log().Warn("clock was set: nothing is made up", "from", was, "to", now)
		s.forget(now)
	case jump <= -time.Minute:
		s.log().Warn("clock went back: jobs of fixed times are not run again", "from", was, "to", now)
		for _, e := range s.jobs {
			if e.when != nil && isInterval(e.when) {
				s.plan(e, now)
			}
		}
	case jump >= time.Minute:
		s.log().Warn("clock went ahead: missed ticks are made up for", "from", was, "to", now)
	}
	for len(s.due) > 0 && !s.due[0].starts().After(now) {
		s.act(s.due[0], now)
	}
	s.handled = now
}

// forget makes now the only time there is.
func (s *Scheduler) forget(now time.Time) {
	for _, e := range s.jobs {
		if !e.next.IsZero() && !e.next.After(now) {
			s.missed(e, []time.Time{e.next}, "and what followed: the clock was set ahead by more than three hours")
		}
		s.plan(e, now)
	}
}

// starts returns when the next tick is acted on: when it falls, and the job's
// jitter later.
func (e *entry) starts() time.Time { return e.next.Add(e.jitter) }

// act deals with the ticks of one job that fell by now.
func (s *Scheduler) act(e *entry, now time.Time) {
	var late []time.Time // older than what is run in any case
	for !e.next.IsZero() && !e.starts().After(now) {
		tick, lateness := e.next, now.Sub(e.starts())
		switch why := e.job.blackout(tick); {
		case why != "":
			s.event(Event{Kind: KindTickSkipped, Time: time.Now(), Job: e.job.Name, Due: tick, Text: why})
		case lateness > slightlyLate:
			late = append(late, tick)
		default:
			s.catchUp(e, late, now)
			late = nil
			s.fire(e, tick, TriggerSchedule)
		}
		s.plan(e, tick)
	}
	s.catchUp(e, late, now)
}

// catchUp treats ticks that are late by the job's policy.
func (s *Scheduler) catchUp(e *entry, late []time.Time, now time.Time) {
	policy, within := cmp.Or(e.job.Missed.Policy, MissedLatest), e.job.Missed.Within
	if policy == MissedSkip {
		s.missed(e, late, "the job lets missed ticks go")
		return
	}
	if within > 0 {
		recent := slices.IndexFunc(late, func(t time.Time) bool { return now.Sub(t) <= within })
		if recent < 0 {
			recent = len(late)
		}
		s.missed(e, late[:recent], fmt.Sprintf("more than %v ago", within))
		late = late[recent:]
	}
	most := 1
	if policy == MissedAll {
		most = 100
	}
	if extra := len(late) - most; extra > 0 {
		s.missed(e, late[:extra], "later ones make up for it")
		late = late[extra:]
	}
	for _, tick := range late {
		s.fire(e, tick, TriggerCatchUp)
	}
}

// missed tells that ticks are not run.
func (s *Scheduler) missed(e *entry, ticks []time.Time, why string) {
	if len(ticks) == 0 {
		return
	}
	s.event(Event{Kind: KindTickMissed, Time: time.Now(), Job: e.job.Name,
		Due: ticks[0], Until: ticks[len(ticks)-1], Text: why})
}

// fire starts a run of e, or does what the job's overlap policy says.
func (s *Scheduler) fire(e *entry, due time.Time, why Trigger) {
	now := time.Now()
	r := Run{ID: newID(now), Job: e.job.Name, Due: due, Trigger: why}
	if err := s.admit(e, r); err != nil {
		s.event(Event{Kind: KindTickSkipped, Time: now, Job: r.Job, Due: due, Text: err.Error()})
	}
}

// admit starts r, has it wait, or says why not. s.mu is held.
func (s *Scheduler) admit(e *entry, r Run) error {
	if !s.open {
		return ErrShutdown
	}
	policy := cmp.Or(e.job.Overlap, OverlapSkip)
	if len(e.going) == 0 || policy == OverlapAllow {
		s.start(e, r)
		return nil
	}
	last := e.going[len(e.going)-1]
	switch {
	case r.Trigger == TriggerCatchUp: // what is made up for comes one after the other
		e.queued = append(e.queued, r)
		return nil
	case policy == OverlapReplace:
		for _, q := range e.queued {
			s.event(Event{Kind: KindTickSkipped, Time: time.Now(), Job: q.Job, Due: q.Due, Text: "a newer run took its place"})
		}
		e.queued = []Run{r}
		for _, g := range e.going {
			g.cancel(fmt.Errorf("%w: run %s took its place", ErrCancelled, r.ID))
		}
		return nil
	case policy == OverlapQueue && len(e.queued) == 0:
		e.queued = append(e.queued, r)
		return nil
	case policy == OverlapQueue:
		return fmt.Errorf("%w, and one waits already", last.still())
	}
	return last.still()
}

// still says that a run is going, and where.
func (g *going) still() error {
	g.mu.Lock()
	nodes := slices.Sorted(maps.Keys(g.nodes))
	g.mu.Unlock()
	where := ""
	if len(nodes) > 3 {
		where = fmt.Sprintf(" on %s and %d more", strings.Join(nodes[:3], ", "), len(nodes)-3)
	} else if len(nodes) > 0 {
		where = " on " + strings.Join(nodes, ", ")
	}
	return fmt.Errorf("%w: run %s from %s%s", ErrBusy, g.run.ID, g.run.Due.Format("15:04:05"), where)
}

// start begins r in a goroutine that Run waits for. s.mu is held.
func (s *Scheduler) start(e *entry, r Run) {
	ctx, cancel := context.WithCancelCause(context.Background()) // ended by Cancel and Abort, not by Run's context
	r.Started = time.Now()
	g := &going{run: r, entry: e, cancel: cancel, nodes: map[string]bool{}}
	e.going = append(e.going, g)
	if s.going == nil {
		s.going = map[string]*going{}
	}
	s.going[r.ID] = g
	job := e.job
	s.runs.Go(func() {
		defer cancel(nil)
		_ = s.Pool.run(ctx, job, r, func(ev Event) { // its events tell all that the error does
			g.note(ev)
			s.event(ev)
		})
		s.ended(g)
	})
}

// note keeps track of where the run is at work.
func (g *going) note(e Event) {
	switch e.Kind {
	case KindNodeStarted:
		g.mu.Lock()
		g.nodes[e.Node] = true
		g.mu.Unlock()
	case KindNodeEnded:
		g.mu.Lock()
		delete(g.nodes, e.Node)
		g.mu.Unlock()
	case KindRunEnded:
		g.end = e.Ran.Status // read once the run is over
	}
}

// ended forgets a run, starts the one that waits for it, and fires the jobs that
// follow it.
func (s *Scheduler) ended(g *going) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.going, g.run.ID)
	e := g.entry
	e.going = slices.DeleteFunc(e.going, func(o *going) bool { return o == g })
	current := s.open && s.jobs[e.job.Name] == e
	switch {
	case len(e.going) > 0 || len(e.queued) == 0:
	case current:
		next := e.queued[0]
		e.queued = e.queued[1:]
		s.start(e, next)
	default:
		for _, q := range e.queued {
			s.event(Event{Kind: KindTickSkipped, Time: time.Now(), Job: q.Job, Due: q.Due,
				Text: "it waited for an earlier run, and the job was removed or loom is shutting down"})
		}
		e.queued = nil
	}
	if !s.open {
		return
	}
	for _, f := range s.followers[e.job.Name] {
		if f.job.follows(e.job.Name, g.end) {
			s.fire(f, s.now(), TriggerAfter)
		}
	}
}

// Trigger starts a run of a job now and returns without waiting for its end.
// The error wraps ErrNotFound if there is no such job, ErrBusy if the job's
// overlap policy does not let it start, and ErrShutdown if Run is not going.
// With the queue and replace policies the run may wait for an earlier one.
func (s *Scheduler) Trigger(ctx context.Context, job string) (Run, error) {
	if ctx.Err() != nil {
		return Run{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.jobs[job]
	if e == nil {
		return Run{}, fmt.Errorf("job %q: %w", job, ErrNotFound)
	}
	now := time.Now()
	r := Run{ID: newID(now), Job: job, Due: now, Trigger: TriggerManual, Status: StatusQueued, Nodes: len(e.job.Targets)}
	if err := s.admit(e, r); err != nil {
		return Run{}, fmt.Errorf("job %q: %w", job, err)
	}
	return r, nil
}

// Cancel ends a run that is going, with ErrCancelled as the cause, and does not
// wait for its end. The error wraps ErrNotFound if it is not going.
func (s *Scheduler) Cancel(run string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.going[run]
	if g == nil {
		return fmt.Errorf("run %s: %w", run, ErrNotFound)
	}
	g.cancel(ErrCancelled)
	return nil
}

// Abort cancels all runs that are going, with ErrShutdown as the cause, as Run
// does when Grace is over. It is for whoever stops Run and can't wait.
func (s *Scheduler) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.going {
		g.cancel(ErrShutdown)
	}
}

// Seen returns when Run last looked at the clock, which it does each second as
// long as all is well with it.
func (s *Scheduler) Seen() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handled
}

func (s *Scheduler) event(e Event) {
	if s.Observe != nil {
		s.Observe(e)
	}
}

func (s *Scheduler) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

// now returns the wall clock's time.
func (s *Scheduler) now() time.Time {
	if s.clock != nil {
		wall, _ := s.clock()
		return wall
	}
	return time.Now().Round(0)
}

// poke interrupts the loop's wait. s.mu is held.
func (s *Scheduler) poke() {
	if !s.open {
		return // the loop has not begun, or is over
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// A dueHeap orders entries by when they are due, and by name at one time.
type dueHeap []*entry

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if c := h[i].starts().Compare(h[j].starts()); c != 0 {
		return c < 0
	}
	return h[i].job.Name < h[j].job.Name
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
