package loom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dustinlacewell/loom/internal/bind"
)

// A going is a run in progress.
type going struct {
	claim  Claim
	job    *Job
	cancel context.CancelCauseFunc
	began  time.Time

	end Run // as the pool ended it
}

// start begins a run that was claimed, in a goroutine that Run waits for. s.mu is
// held.
func (s *Scheduler) start(c Claim) {
	if s.going[c.Run.ID] != nil {
		return // a repetition
	}
	ctx, cancel := context.WithCancelCause(context.Background()) // ended by Cancel and Abort, not by Run's context
	g := &going{claim: c, cancel: cancel, began: time.Now()}
	if j := s.given[c.Run.ID]; j != nil {
		g.job = j.as(c.Run)
	} else if e := s.jobs[c.Run.Job]; e != nil {
		g.job = e.job.as(c.Run)
	}
	s.going[c.Run.ID] = g
	s.runs.Go(func() {
		defer cancel(nil)
		s.work(ctx, g)
		s.ended(ctx, g)
	})
}

// work does a run, or what is left of it, and has the store know how it ended.
func (s *Scheduler) work(ctx context.Context, g *going) {
	rec := newRecorder(s, g)
	defer rec.drop()
	left, err := s.left(ctx, g)
	if err != nil {
		return // it is another's, or the next Loom's
	}
	rec.had(left)
	if g.job == nil {
		rec.abandon(ctx, left)
		return
	}
	r := g.claim.Run
	r.Started = cmp.Or(r.Started, g.began)
	_ = s.Pool.run(ctx, g.job, r, left, func(e Event) { // its events tell all that the error does
		if e.Kind == KindRunEnded {
			g.end = *e.Ran // nothing else goes on then
		}
		rec.add(ctx, e)
		s.event(e)
	})
	s.follow(ctx, g)
	rec.finish(ctx, g.end)
}

// ended forgets a run and starts what waited for it.
func (s *Scheduler) ended(ctx context.Context, g *going) {
	s.mu.Lock()
	delete(s.going, g.claim.Run.ID)
	delete(s.given, g.claim.Run.ID)
	waiting := s.waiting > 0
	s.mu.Unlock()
	if waiting {
		s.take(context.WithoutCancel(ctx))
	}
}

// take starts the runs that wait in the store and may begin. If that goes on
// already, it is done once more after.
func (s *Scheduler) take(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retake = true
	if s.taking {
		return
	}
	s.taking = true
	for s.open && s.retake {
		s.retake = false
		waiting := s.waiting
		s.mu.Unlock()
		c, err := s.memory.Take(ctx, s.self.ID)
		ok := s.works(ctx, err)
		s.mu.Lock()
		switch {
		case c != nil:
			s.start(*c)
			s.retake = true
		case ok && len(s.going) == 0 && s.waiting == waiting:
			s.waiting = 0
		}
	}
	s.taking = false
}

// follow fires the jobs that are to follow a run, if it was no plan. That is done
// before the run is recorded as ended, so that no crash can come between: one that
// is fired again names the same run, and the store fires it once. While Run is
// stopping, what follows waits in the store for the next start.
func (s *Scheduler) follow(ctx context.Context, g *going) {
	if g.claim.Run.Plan {
		return
	}
	s.mu.Lock()
	var firings []Firing
	now := s.now()
	for _, f := range s.followers[g.claim.Run.Job] {
		if (s.open || s.Store != nil) && f.job.follows(g.claim.Run.Job, g.end.Status) {
			firings = append(firings, Firing{Job: f.job.Name, Key: "after " + g.claim.Run.ID, Overlap: f.job.Overlap, Claim: s.open,
				Run: Run{ID: newID(now), Job: f.job.Name, Due: now, Trigger: TriggerAfter, By: g.claim.Run.ID, Nodes: len(f.job.Targets)}})
		}
	}
	s.mu.Unlock()
	if len(firings) == 0 {
		return
	}
	sure := context.WithoutCancel(ctx) // a run that was cancelled has followers too
	for pause := time.Second; !s.fire(sure, firings); pause = min(2*pause, 10*time.Second) {
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// as returns the job as a run is to do it.
func (j *Job) as(r Run) *Job {
	j = j.on(r.Targets)
	if r.Timeout > 0 && r.Timeout != j.Timeout {
		own := *j
		own.Timeout = r.Timeout
		j = &own
	}
	if r.Plan {
		return j.Plan()
	}
	return j
}

// on returns the job with only the named ones of its targets; nil means all.
func (j *Job) on(targets []string) *Job {
	if targets == nil {
		return j
	}
	some := *j
	some.Targets = nil
	for _, n := range j.Targets {
		if slices.Contains(targets, n.Name) {
			some.Targets = append(some.Targets, n)
		}
	}
	return &some
}

// A Request says who wants a run, and of what. The zero value is all of a job,
// wanted by nobody in particular.
type Request struct {
	By      string   // who
	Why     string   // what for
	Key     string   // if not "", the same key again for the same job gets the run that it started first
	Targets []string // names of some of the job's nodes; nil: all

	Timeout time.Duration // for each node and attempt, instead of the job's; 0: the job's
	Max     int           // nodes at once, as far as the pool has room; 0: no limit of its own
	Plan    bool          // only tell what would change, as [Job.Plan] does, beside whatever runs of the job are going
}

// Trigger starts a run of a job now and returns without waiting for its end.
// The error wraps ErrNotFound if there is no such job or node, ErrBusy if the
// job's overlap policy does not let it start, ErrShutdown if Run is not going, and
// ErrStoreDown if the run could not be recorded. With the queue and replace
// policies the run may wait for an earlier one; its Status says so.
func (s *Scheduler) Trigger(ctx context.Context, job string, q Request) (Run, error) {
	if ctx.Err() != nil {
		return Run{}, context.Cause(ctx)
	}
	s.mu.Lock()
	e, open := s.jobs[job], s.open
	hint := ""
	if e == nil {
		if near := bind.Nearest(job, maps.Keys(s.jobs)); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
	}
	s.mu.Unlock()
	switch {
	case !open:
		return Run{}, fmt.Errorf("job %q: %w", job, ErrShutdown)
	case e == nil:
		return Run{}, fmt.Errorf("there is no job %q%s: %w", job, hint, ErrNotFound)
	}
	return s.ask(ctx, e.job, q, false)
}

// ExecJob is the name of runs of commands that somebody gives by hand. No manifest
// can have a job of this name.
const ExecJob = "/exec"

// Start is Trigger for a job that need not be loaded. Its run is recorded as others
// are, but if Loom ends before it does it is not begun again, as nobody knows the job
// then.
func (s *Scheduler) Start(ctx context.Context, j *Job, q Request) (Run, error) {
	if ctx.Err() != nil {
		return Run{}, context.Cause(ctx)
	}
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	if !open {
		return Run{}, fmt.Errorf("job %q: %w", j.Name, ErrShutdown)
	}
	return s.ask(ctx, j, q, true)
}

// ask has the store start a run, and begins it if it may begin. given says that the
// job is not among those that were loaded.
func (s *Scheduler) ask(ctx context.Context, j *Job, q Request, given bool) (Run, error) {
	f, err := j.request(q, s.now())
	if err != nil {
		return Run{}, err
	}
	if given { // before the store knows of the run, since then it can be taken
		s.mu.Lock()
		s.given[f.Run.ID] = j
		s.mu.Unlock()
	}
	fired, err := s.memory.Fire(ctx, s.self.ID, []Firing{f})
	if err == nil && fired[0].Claim.Run.ID == "" {
		err = &refusedError{fired[0].Why}
	}
	if err != nil || fired[0].Claim.Run.ID != f.Run.ID {
		s.mu.Lock()
		delete(s.given, f.Run.ID)
		s.mu.Unlock()
	}
	if err != nil {
		return Run{}, fmt.Errorf("job %q: %w", j.Name, err)
	}
	is := fired[0]
	if is.Claim.Run.ID == f.Run.ID { // else an earlier one had the key
		s.fired(f, is)
	}
	return is.Claim.Run, nil
}

// Once runs a job now, without Run, and returns when it has ended: for a program
// that does one thing. The job need not be loaded. The error wraps ErrBusy if an
// earlier run of the job is going and its policy is not to run both, and
// ErrStoreDown if the run could not be recorded; how it went is not an error. If
// ctx ends, the run is cancelled.
func (s *Scheduler) Once(ctx context.Context, j *Job, q Request) (Run, error) {
	s.init()
	f, err := j.request(q, s.now())
	if err != nil {
		return Run{}, err
	}
	if f.Overlap != OverlapAllow {
		f.Overlap = OverlapSkip // there is nobody to start it later
	}
	p, err := s.memory.Beat(ctx, s.self)
	if err != nil {
		return Run{}, fmt.Errorf("job %q: %w", j.Name, err)
	}
	fired, err := s.memory.Fire(ctx, s.self.ID, []Firing{f})
	switch {
	case err != nil:
		return Run{}, fmt.Errorf("job %q: %w", j.Name, err)
	case fired[0].Claim.Epoch == 0 && fired[0].Claim.Run.ID == "":
		return Run{}, fmt.Errorf("job %q: %w", j.Name, &refusedError{fired[0].Why})
	case fired[0].Claim.Epoch == 0:
		return fired[0].Claim.Run, nil // the key's earlier run
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &going{claim: fired[0].Claim, job: j.as(fired[0].Claim.Run), cancel: cancel, began: time.Now()}
	s.mu.Lock()
	s.going = map[string]*going{g.claim.Run.ID: g}
	s.pulse.poke = make(chan struct{}, 1)
	s.mu.Unlock()
	s.heard(p)

	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beats sync.WaitGroup
	beats.Go(func() { s.beat(rest) })
	s.work(ctx, g)
	stop()
	beats.Wait()
	s.leave(rest)
	return g.end, nil
}

// request makes a firing of what is asked for.
func (j *Job) request(q Request, now time.Time) (Firing, error) {
	switch {
	case q.Timeout < 0:
		return Firing{}, fmt.Errorf("job %q: a timeout of %v is over before it begins: give one of more than 0", j.Name, q.Timeout)
	case q.Max < 0:
		return Firing{}, fmt.Errorf("job %q: a run can't be at work on %d nodes at once: give at least 1", j.Name, q.Max)
	}
	r := Run{ID: newID(now), Job: j.Name, Due: now, Trigger: TriggerManual, By: q.By, Targets: q.Targets,
		Plan: q.Plan || j.plan, Max: q.Max, Timeout: (q.Timeout + time.Millisecond - 1).Truncate(time.Millisecond)} // as stores keep it
	r.Nodes = len(j.on(q.Targets).Targets)
	for _, name := range q.Targets {
		if !slices.ContainsFunc(j.Targets, func(n *Node) bool { return n.Name == name }) {
			return Firing{}, fmt.Errorf("job %q has no target %s: %w", j.Name, name, ErrNotFound)
		}
	}
	f := Firing{Job: j.Name, Run: r, Why: q.Why, Key: q.Key, Overlap: j.Overlap, Claim: true}
	if r.Plan {
		f.Overlap = OverlapAllow // it is in nobody's way
	}
	return f, nil
}

// A refusedError says why a run was not started.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }

// Is makes it an ErrBusy.
func (e *refusedError) Is(target error) bool { return target == ErrBusy }

// Cancel ends a run that this scheduler works on, with ErrCancelled as the cause,
// and does not wait for its end. The error wraps ErrNotFound if it works on no such
// run. One that waits in a store, and any that others work on, ends by the store's
// Act.
func (s *Scheduler) Cancel(run, why string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.going[run]
	if g == nil {
		return fmt.Errorf("run %s: %w", run, ErrNotFound)
	}
	cause := ErrCancelled
	if why != "" {
		cause = fmt.Errorf("%w: %s", ErrCancelled, why)
	}
	g.cancel(cause)
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

// leftover is what an earlier claim on a run has left: how far it came.
type leftover struct {
	results map[string]Result
	lines   map[string]map[Stream]int // recorded of each node's attempt in progress
	late    error                     // why nodes that were not begun are not begun now; nil: they are
}

// left returns what is left of a run that was begun before, or waited while
// nobody was there.
func (s *Scheduler) left(ctx context.Context, g *going) (leftover, error) {
	var l leftover
	s.mu.Lock()
	gap := s.gap
	s.mu.Unlock()
	r := g.claim.Run
	queued := cmp.Or(r.Queued, r.Due)
	if g.job != nil && gap.all && queued.Before(gap.to.Truncate(time.Millisecond)) && s.Store != nil {
		within := g.job.Missed.Within
		if within > 0 && s.now().Sub(queued) > within && r.Trigger != TriggerManual {
			l.late = fmt.Errorf("%w: not begun: %v, and it was due more than %v before", ErrCancelled, gap, within)
		}
	}
	if g.claim.Epoch < 2 {
		return l, nil
	}
	sure := context.WithoutCancel(ctx) // one that is cancelled must be ended all the same
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		if s.works(sure, s.reread(sure, r.ID, &l)) {
			return l, nil
		}
		_ = wait(ctx, pause)
		if cause := context.Cause(ctx); errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrFenced) {
			return l, cause
		}
	}
}

// reread reads from the store how far a run came.
func (s *Scheduler) reread(ctx context.Context, run string, l *leftover) error {
	results, err := s.memory.Results(ctx, ResultQuery{Runs: []string{run}})
	if err != nil {
		return err
	}
	l.results, l.lines = map[string]Result{}, map[string]map[Stream]int{}
	for _, r := range results {
		l.results[r.Node] = r
		if r.Status.Ended() {
			continue
		}
		var begun time.Time // of the attempt
		if n := len(r.Earlier); n > 0 {
			begun = r.Earlier[n-1].Ended
		}
		if l.lines[r.Node], err = s.recorded(ctx, run, r.Node, begun); err != nil {
			return err
		}
	}
	return nil
}

// recorded counts the lines that a node printed since begun.
func (s *Scheduler) recorded(ctx context.Context, run, node string, begun time.Time) (map[Stream]int, error) {
	n := map[Stream]int{}
	for q := (OutputQuery{Run: run, Node: node}); ; {
		chunks, err := s.memory.Output(ctx, q)
		if err != nil || len(chunks) == 0 {
			return n, err
		}
		for _, c := range chunks {
			q.After = c.Cursor
			for _, l := range c.Lines {
				if !l.Time.Before(begun) {
					n[l.Stream]++
				}
			}
		}
	}
}

// Health returns since when the store can't be used and why, or a zero time and
// nil.
func (s *Scheduler) Health() (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down.since, s.down.err
}

// An outage is a time in which the store can't be used.
type outage struct {
	since time.Time
	err   error
}

// works notes whether the store could do what it was asked for, and says so. An
// end of ctx says nothing about the store.
func (s *Scheduler) works(ctx context.Context, err error) bool {
	if err != nil && (ctx.Err() != nil || errors.Is(err, ErrFenced)) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = s.now() // to wait for the store is no reason to be taken for dead
	switch {
	case err == nil && s.down.err == nil:
	case err == nil:
		now := s.now()
		s.event(Event{Kind: KindStoreBack, Time: time.Now(), Text: fmt.Sprintf("it was down for %v", now.Sub(s.down.since).Round(time.Second))})
		if from := s.down.since; now.Sub(from) > time.Second {
			what := "the store was down"
			if s.gap.all && !s.gap.to.Before(from.Add(-time.Second)) && !s.gap.from.IsZero() {
				from, what = s.gap.from, s.gap.what+", then the store was down,"
			}
			s.gap = gap{from: from, to: now, what: what, all: true}
		}
		s.down = outage{}
	case s.down.err == nil:
		s.down = outage{since: s.now(), err: err}
		s.event(Event{Kind: KindStoreDown, Time: time.Now(), Text: err.Error()})
	default:
		s.down.err = err
	}
	return err == nil
}
