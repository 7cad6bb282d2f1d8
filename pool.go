package loom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// abandonAfter is how long a task may go on once its context has ended.
const abandonAfter = 10 * time.Second

// A Pool applies tasks to nodes, a bounded number at a time, over connections
// that it keeps. Its fields must not change after the first Run. The zero Pool
// lacks only a Dialer, and not even that if all nodes are local. It is safe for
// concurrent use.
type Pool struct {
	Dialer Dialer        // opens connections to nodes whose transport is not local
	Max    int           // node-tasks at once, over all runs; 0: 10
	Idle   time.Duration // how long an unused connection is kept; 0: 10 minutes
	Output int64         // bytes of output that a Result keeps: half from the start, half from the end; 0: 1 MiB
	Log    *slog.Logger  // nil: slog.Default()

	// Redactor takes secrets out of output, reasons, changes and logs, of jobs
	// that are not from a manifest, which has its own. Nil: there are none.
	Redactor *Redactor

	once  sync.Once
	slots slots
	conns conns
}

func (p *Pool) init() {
	p.once.Do(func() {
		p.slots.resize(p.Max)
		p.conns.idle = p.Idle
		if p.Idle == 0 {
			p.conns.idle = 10 * time.Minute
		}
		p.conns.dial = p.dial
	})
}

func (p *Pool) dial(ctx context.Context, n *Node) (Conn, error) {
	switch {
	case n.Transport == "local":
		return Local{}.Dial(ctx, n)
	case p.Dialer == nil:
		return nil, fmt.Errorf("%w: the pool has no dialer for node %s", ErrUnreachable, n.Name)
	}
	return p.Dialer.Dial(ctx, n)
}

// keep is how many bytes of output a result keeps.
func (p *Pool) keep() int64 {
	if p.Output > 0 {
		return p.Output
	}
	return 1 << 20
}

func (p *Pool) log() *slog.Logger {
	if p.Log != nil {
		return p.Log
	}
	return slog.Default()
}

// Resize changes how many node-tasks run at once; 0 is 10. What runs is not
// interrupted.
func (p *Pool) Resize(most int) {
	p.init()
	p.slots.resize(most)
}

// A PoolStats is how busy a Pool is.
type PoolStats struct {
	Busy    int // node-tasks that run
	Max     int // that may run at once
	Waiting int // runs that wait for a node-task to end
	Conns   int // open connections to other machines
}

// Stats returns how busy the pool is now.
func (p *Pool) Stats() PoolStats {
	p.init()
	var s PoolStats
	s.Busy, s.Max, s.Waiting = p.slots.stats()
	s.Conns = p.conns.count()
	return s
}

// Run applies j to each of its targets, and returns when it has ended on all
// of them. A node that fails doesn't stop the others: the error joins a
// *NodeError for each that did not end well. The job was due at due. Run passes
// emit, if not nil, what happens: from several goroutines, in order for each
// node, KindRunStarted before and KindRunEnded after everything else.
//
// Runs that go on at the same time take turns, so that one of many nodes does
// not keep one of few waiting. If ctx ends, nodes that were not begun are
// cancelled, and tasks that do not return within ten seconds are abandoned.
func (p *Pool) Run(ctx context.Context, j *Job, due time.Time, emit func(Event)) error {
	now := time.Now()
	return p.run(ctx, j, Run{ID: newID(now), Job: j.Name, Due: due, Trigger: TriggerManual, Plan: j.plan, Started: now}, leftover{}, emit)
}

// run is Run for a run that has a name already, and goes on where an earlier one
// of it has left off.
func (p *Pool) run(ctx context.Context, j *Job, r Run, left leftover, emit func(Event)) error {
	p.init()
	if emit == nil {
		emit = func(Event) {}
	}
	w := &work{pool: p, job: j, run: r, left: left, emit: emit, secrets: cmp.Or(j.secrets, p.Redactor), counts: map[Status]int{}}
	w.run.Status, w.run.Nodes = StatusRunning, len(j.Targets)
	if r.Max > 0 {
		w.own = &slots{}
		w.own.resize(r.Max)
	}
	w.event(Event{Kind: KindRunStarted, Ran: w.record()})

	rest, size := j.Targets, 0
	for i := 0; len(rest) > 0; i++ {
		size = j.Batch.size(i, len(j.Targets), len(rest))
		w.batch(ctx, rest[:size])
		rest = rest[size:]
	}

	w.run.Ended = cmp.Or(w.last, time.Now()) // whoever takes the events may have taken long
	w.run.Status = w.status()
	w.event(Event{Kind: KindRunEnded, Ran: w.record()})
	return errors.Join(w.errs...)
}

// Close closes the kept connections. No Run may be in progress.
func (p *Pool) Close() error {
	p.init()
	return p.conns.close()
}

// A work is one run in progress.
type work struct {
	pool *Pool
	job  *Job
	run  Run
	left leftover
	emit func(Event)
	own  *slots // bound the run's nodes beside the pool's; nil: they don't

	secrets *Redactor // all that a node or a task says goes through it first

	mu     sync.Mutex
	counts map[Status]int
	errs   []error
	last   time.Time // when the last node ended
}

// batch does the job on some nodes at once, and returns when it has ended on
// all of them.
func (w *work) batch(ctx context.Context, nodes []*Node) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, n := range nodes {
		if w.settled(n) {
			continue
		}
		err := w.refusal(n)
		if err == nil {
			err = w.acquire(ctx)
		}
		if err != nil {
			w.end(n, &Result{Node: n.Name, Status: StatusCancelled, ExitCode: -1, Reason: err.Error(), Err: err})
			continue
		}
		wg.Go(func() { w.node(ctx, n) })
	}
}

// acquire waits for a slot of the run's own, if it has a bound, then for one of
// the pool's.
func (w *work) acquire(ctx context.Context) error {
	if w.own == nil {
		return w.pool.slots.acquire(ctx)
	}
	if err := w.own.acquire(ctx); err != nil {
		return err
	}
	err := w.pool.slots.acquire(ctx)
	if err != nil {
		w.own.release()
	}
	return err
}

// release gives back what acquire took.
func (w *work) release() {
	w.pool.slots.release()
	if w.own != nil {
		w.own.release()
	}
}

// settled reports whether nothing is to be done on a node, in a run that goes on
// where it was interrupted: it has ended there, or how it did can't be found out.
func (w *work) settled(n *Node) bool {
	was, begun := w.left.results[n.Name]
	switch {
	case !begun:
		return false
	case was.Status.Ended():
		w.mu.Lock()
		w.counts[was.Status]++
		if !was.Status.Good() {
			w.errs = append(w.errs, &NodeError{Job: w.job.Name, Node: n.Name, Status: was.Status, Err: errors.New(was.Reason)})
		}
		w.mu.Unlock()
		return true
	case w.job.resumes():
		return false
	}
	reason := lostReason(was)
	w.end(n, &Result{Node: n.Name, Status: StatusLost, ExitCode: -1, Reason: reason, Err: fmt.Errorf("%w: %s", ErrLost, reason),
		Attempts: was.Attempts, Changes: was.Changes, Started: was.Started})
	return true
}

// refusal says why a node may not be begun, or returns nil.
func (w *work) refusal(n *Node) error {
	if _, begun := w.left.results[n.Name]; !begun && w.left.late != nil {
		return w.left.late
	}
	return w.tooManyFailures()
}

// tooManyFailures says that no further node may be begun, or returns nil.
func (w *work) tooManyFailures() error {
	limit := w.job.Batch.MaxFailures
	if limit == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := w.counts[StatusFailed] + w.counts[StatusTimeout] + w.counts[StatusUnreachable] + w.counts[StatusLost]
	if most := limit.of(len(w.job.Targets), false); failed > most {
		return fmt.Errorf("%w: not begun, since %d of %d nodes failed and the job allows %d", ErrCancelled, failed, len(w.job.Targets), most)
	}
	return nil
}

// event completes e and emits it.
func (w *work) event(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Job, e.Run, e.Due, e.Plan = w.job.Name, w.run.ID, w.run.Due, w.run.Plan
	w.emit(e)
}

// record returns the run as it stands, for an event to keep.
func (w *work) record() *Run {
	r := w.run
	r.Counts = make(map[Status]int, len(w.counts))
	maps.Copy(r.Counts, w.counts)
	return &r
}

// status sums up how the run ended.
func (w *work) status() Status {
	c := w.counts
	switch {
	case c[StatusFailed]+c[StatusTimeout]+c[StatusUnreachable] > 0:
		return StatusFailed
	case c[StatusLost] > 0:
		return StatusLost
	case c[StatusCancelled] > 0:
		return StatusCancelled
	case c[StatusChanged] > 0:
		return StatusChanged
	}
	return StatusOK
}

// node does the job on one node, several times if it must be tried again. It
// has a slot to begin with, and gives it back; it holds none while it waits.
func (w *work) node(ctx context.Context, n *Node) {
	if err := w.stagger(ctx, n); err != nil {
		w.end(n, &Result{Node: n.Name, Status: StatusCancelled, ExitCode: -1, Reason: err.Error(), Err: err})
		return
	}
	r := &Result{Node: n.Name, Started: time.Now()}
	if was, begun := w.left.results[n.Name]; begun {
		r.Started, r.Attempts = was.Started, len(was.Earlier)
		if r.Attempts > 0 {
			r.Changes = was.Changes // else the attempt makes all of them again
		}
	}
	w.event(Event{Kind: KindNodeStarted, Node: n.Name, Time: r.Started})
	out := newOutput(w, n.Name)
	again := w.left.results != nil // that it was begun may not have been written
	var done []*claims
	for {
		r.Attempts++
		began := time.Now()
		done = append(done, w.attempt(ctx, n, r, out, again)...)
		again = false
		w.release()
		delay, retry := w.job.Retries.next(r)
		if !retry || ctx.Err() != nil {
			break
		}
		failed := *r
		failed.Started, failed.Ended = began, time.Now()
		w.event(Event{Kind: KindRetry, Node: n.Name, Result: &failed, Text: fmt.Sprintf("attempt %d of %d ended %s: %s; the next one follows in %v",
			r.Attempts, w.job.Retries.Attempts+1, r.Status, r.Reason, delay)})
		if wait(ctx, delay) != nil || w.acquire(ctx) != nil {
			break // the result of the last attempt stands
		}
	}
	r.Output, r.Dropped = out.close()
	w.end(n, r)
	for _, c := range done { // whoever takes the events has the result now
		c.node.add(c.take())
	}
}

// stagger waits for the node's share of the job's jitter. The slot is given
// back meanwhile.
func (w *work) stagger(ctx context.Context, n *Node) error {
	if !w.job.Jitter.ByNode || w.job.Jitter.Max <= 0 {
		return nil
	}
	w.release()
	if err := wait(ctx, w.job.Jitter.of(w.job.Name, n.Name)); err != nil {
		return err
	}
	return w.acquire(ctx)
}

// wait returns after d, or ctx's cause if it ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempt does the job on a node once, or goes on with it again. It returns what
// it has claimed.
func (w *work) attempt(ctx context.Context, n *Node, r *Result, out *output, again bool) []*claims {
	if w.job.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.job.Timeout, &TimeoutError{After: w.job.Timeout})
		defer cancel()
	}
	a := &attempt{work: w, node: n, out: out, number: r.Attempts, again: again}
	a.judge(ctx, r, a.apply(ctx))
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.claims
}

// end records and tells how the job ended on a node.
func (w *work) end(n *Node, r *Result) {
	r.Ended = time.Now()
	if r.Started.IsZero() {
		r.Started = r.Ended
	}
	w.mu.Lock()
	w.counts[r.Status]++
	if !r.Status.Good() {
		w.errs = append(w.errs, &NodeError{Job: w.job.Name, Node: n.Name, Status: r.Status, Err: r.Err})
	}
	if r.Ended.After(w.last) {
		w.last = r.Ended
	}
	w.mu.Unlock()
	w.event(Event{Kind: KindNodeEnded, Node: n.Name, Time: r.Ended, Text: r.Reason, Result: r})
}

// An attempt is a job's task, or its steps, applied once to one node.
type attempt struct {
	work *work
	node *Node
	out  *output

	number int
	again  bool // an earlier Loom has begun it

	used    atomic.Bool // a command was run
	mu      sync.Mutex
	changes []string
	claims  []*claims
}

// apply does the work in a goroutine of its own, so that a task that doesn't
// heed its context can be left behind.
func (a *attempt) apply(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // whoever takes the events may not know yet that the node was begun
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- &PanicError{Value: v, Stack: debug.Stack()}
			}
		}()
		done <- a.connected(ctx)
	}()

	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(abandonAfter)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
		return fmt.Errorf("%w; the task did not return within %v and was abandoned", context.Cause(ctx), abandonAfter)
	}
}

// connected opens a connection and applies the task, or the steps, over it.
func (a *attempt) connected(ctx context.Context) error {
	n := a.node
	if u := a.work.job.User; u != "" && u != n.User {
		as := *n
		as.User = u
		n = &as
	}
	kept, err := a.work.pool.conns.get(ctx, n)
	for delay := firstWait; a.again && errors.Is(err, ErrUnreachable) && wait(ctx, delay) == nil; delay = min(2*delay, mostWait) {
		kept, err = a.work.pool.conns.get(ctx, n) // what it has begun there may still run
	}
	if err != nil {
		return err
	}
	s := a.session(n, kept.conn)
	err = a.steps(ctx, s, a.work.pool.conns.spoolsOf(kept))
	a.work.pool.conns.put(kept, errors.Is(err, ErrLost) || errors.Is(err, ErrUnreachable))
	return err
}

func (a *attempt) session(n *Node, c Conn) *Session {
	w := a.work
	s := &Session{
		Node: n, Job: w.job.Name, RunID: w.run.ID, Due: w.run.Due,
		Out: a.out.writer(Stdout), Err: a.out.writer(Stderr),
		Conn: &usedConn{Conn: c, used: &a.used},
		Dir:  w.job.Dir, Env: w.job.Env, Base: w.job.Base,
		OnChange: a.changed,
		secrets:  w.secrets,
	}
	switch w.job.Sudo {
	case "":
	case SudoDefault:
		s = s.Sudo("")
	default:
		s = s.Sudo(w.job.Sudo)
	}
	s.Log = slog.New(w.secrets.Handler(&taskLog{loom: w.pool.log().Handler(), out: a.out, job: s.Job, run: s.RunID, node: n.Name}))
	return s
}

// claim names what a step does on the node.
func (a *attempt) claim(s *Session, step int, node *spools) *Session {
	if !a.work.job.Resumable {
		return s
	}
	as := *s
	name := fnv.New64a() // several nodes may be one machine, and names may be anything
	_, _ = name.Write([]byte(a.node.Name))
	as.Claim = fmt.Sprintf("%s-%016x-%d-%d", a.work.run.ID, name.Sum64(), a.number, step)
	as.claims = &claims{node: node, again: a.again}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claims = append(a.claims, as.claims)
	return &as
}

func (a *attempt) changed(c Change) {
	text := a.work.secrets.Redact(string(c))
	a.mu.Lock()
	a.changes = append(a.changes, text)
	a.mu.Unlock()
	a.work.event(Event{Kind: KindChanged, Node: a.node.Name, Text: text})
}

// steps applies the job's task, or its steps in order. The first step that
// goes badly decides; if none does and all were skipped, so is the result.
func (a *attempt) steps(ctx context.Context, s *Session, node *spools) error {
	if len(a.work.job.Steps) == 0 {
		s.last = true
		return a.work.job.Task.Apply(ctx, a.claim(s, 0, node))
	}
	var failed, skipped error
	ran := false
	for i, step := range a.work.job.Steps {
		if bad := failed != nil; (step.On == OnFailed) != bad && step.On != OnAlways {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		err := step.Task.Apply(ctx, a.claim(s, i+1, node))
		switch skip := (*SkipError)(nil); {
		case err == nil:
			ran = true
		case errors.As(err, &skip):
			skipped = err
		case failed == nil:
			failed = fmt.Errorf("step %s: %w", stepName(step, i), err)
		default:
			s.Log.Error("step failed after another", "step", stepName(step, i), "err", err)
		}
	}
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !ran:
		return skipped
	}
	return nil
}

func stepName(s Step, i int) string {
	switch {
	case s.Name != "":
		return s.Name
	case s.TaskName != "":
		return fmt.Sprintf("%d (%s)", i+1, s.TaskName)
	}
	return fmt.Sprint(i + 1)
}

// judge turns what a task returned into a result. It is the one place where
// that is decided.
func (a *attempt) judge(ctx context.Context, r *Result, err error) {
	a.mu.Lock()
	r.Changes = append(r.Changes, a.changes...)
	a.changes = nil
	a.mu.Unlock()

	err = a.work.secrets.error(err)
	r.Status, r.ExitCode, r.Reason, r.Err = a.status(ctx, err, len(r.Changes) > 0), -1, "", err
	if err == nil {
		return
	}
	r.Reason = err.Error()
	if skip, ok := errors.AsType[*SkipError](err); ok {
		r.Reason = a.work.secrets.Redact(skip.Reason)
	}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		r.ExitCode = exit.Code
	}
	if p, ok := errors.AsType[*PanicError](err); ok {
		slog.New(a.work.secrets.Handler(a.work.pool.log().Handler())).Error("task panicked", "job", a.work.job.Name, "run", a.work.run.ID,
			"node", a.node.Name, "panic", p.Value, "stack", string(p.Stack))
	}
}

func (a *attempt) status(ctx context.Context, err error, changed bool) Status {
	_, skip := errors.AsType[*SkipError](err)
	_, timeout := errors.AsType[*TimeoutError](context.Cause(ctx))
	_, limit := errors.AsType[*TimeoutError](err)
	switch {
	case err == nil && changed:
		return StatusChanged
	case err == nil:
		return StatusOK
	case skip:
		return StatusSkipped
	case ctx.Err() != nil && timeout:
		return StatusTimeout
	case ctx.Err() != nil:
		return StatusCancelled
	case errors.Is(err, ErrLost):
		return StatusLost
	case limit:
		return StatusTimeout
	case errors.Is(err, ErrCancelled):
		return StatusCancelled
	case errors.Is(err, ErrUnreachable) && !a.used.Load():
		return StatusUnreachable
	}
	return StatusFailed
}

// A usedConn notes whether a command was run over it: after that, a node that
// can't be reached is no longer one on which nothing happened.
type usedConn struct {
	Conn
	used *atomic.Bool
}

func (c *usedConn) Exec(ctx context.Context, cmd Command) error {
	err := c.Conn.Exec(ctx, cmd)
	if !errors.Is(err, ErrUnreachable) {
		c.used.Store(true)
	}
	return err
}

func (c *usedConn) Files(ctx context.Context) (Files, error) {
	f, err := c.Conn.Files(ctx)
	if err == nil {
		c.used.Store(true)
	}
	return f, err
}

// slots bound how many node-tasks run at once. Each run waits for one slot at a
// time and goes to the end of the line after, so that runs take turns.
type slots struct {
	mu      sync.Mutex
	free    int // negative after a resize, until enough have ended
	most    int
	waiting []chan struct{}
}

func (s *slots) resize(most int) {
	if most <= 0 {
		most = 10
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += most - s.most
	s.most = most
	s.grant()
}

// grant wakes those who wait longest while there are slots. s.mu is held.
func (s *slots) grant() {
	for s.free > 0 && len(s.waiting) > 0 {
		s.free--
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
	}
}

func (s *slots) acquire(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	s.waiting = append(s.waiting, turn)
	s.mu.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.waiting {
		if c == turn {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return context.Cause(ctx)
		}
	}
	s.free++ // it was granted at the same moment
	s.grant()
	return context.Cause(ctx)
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	s.grant()
}

// stats returns how many slots are taken, how many there are, and how many wait
// for one.
func (s *slots) stats() (busy, most, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most - s.free, s.most, len(s.waiting)
}
