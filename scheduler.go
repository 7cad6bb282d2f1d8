package loom

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
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
// Each tick of a job, which is one time of its schedule, is acted on once, and
// what became of it is in the store before its run begins. What the clock does is
// dealt with as cron does. If it is, or jumps, ahead by up to three hours, ticks
// that are at most five minutes late run all the same, and of older ones what the
// job's Missed policy says; of those that fell while no scheduler ran, or while
// the store was down, too. If it goes back by up to three hours, jobs of fixed
// times don't run again, and interval jobs follow the clock. A greater jump
// either way is a new time: nothing is made up.
//
// While the store is down no tick is acted on and no run begins, what runs goes
// on, and its results are kept in memory until they can be written.
type Scheduler struct {
	Pool  *Pool
	Store Store         // remembers ticks, runs and results; nil: nothing outlives Run
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

	once   sync.Once
	memory memory   // Store, or one that forgets
	self   Instance // to the store

	mu        sync.Mutex
	jobs      map[string]*entry
	followers map[string][]*entry // by the job whose end fires them
	adopted   bool                // the store knows the jobs, and we know their last ticks
	due       dueHeap
	gap       gap               // when nobody could act on ticks, the last time
	drafts    map[draft]string  // IDs of runs that the store has not confirmed
	seen      time.Time         // the clock, when the loop last looked
	wake      chan struct{}     // interrupts the loop's wait
	going     map[string]*going // by run ID
	given     map[string]*Job   // of runs whose job is not among jobs, by run ID
	waiting   int               // how often a run had to wait, since none did
	taking    bool              // runs that wait are being taken
	retake    bool              // and must be looked for once more
	open      bool              // runs may be started: Run is going and not stopping
	runs      sync.WaitGroup
	pulse     pulse
	down      outage
	unwritten atomic.Int64 // bytes of output that wait for the store
}

// A memory is what a scheduler needs of a store.
type memory interface {
	Ledger
	Jobs(ctx context.Context, names ...string) ([]JobState, error)
	Results(ctx context.Context, q ResultQuery) ([]Result, error)
	Output(ctx context.Context, q OutputQuery) ([]Chunk, error)
}

// An entry is a job and when it is due next.
type entry struct {
	job    *Job
	when   Schedule
	print  string // the fingerprint of what decides when it is due
	jitter time.Duration
	last   time.Time // the last tick in the ledger
	after  time.Time // ticks up to here were acted on, or will never be
	next   time.Time // the first tick after that; zero: never
	held   time.Time // not before this: the store's clock is behind
	index  int       // in the heap; -1: not there
	fresh  bool      // its last tick is not known yet
}

// A draft names a run that was asked for and not confirmed, so that asking
// again names the same one.
type draft struct {
	job string
	due time.Time
}

func (s *Scheduler) init() {
	s.once.Do(func() {
		host, _ := os.Hostname() // it is for people
		s.self = Instance{ID: newID(time.Now()), Host: host}
		s.memory = s.Store
		if s.Store == nil {
			s.memory = &forgetful{now: s.now}
		}
	})
}

// Load replaces the jobs, at any time. Runs that are going end with the job
// they began with; a job whose schedule is unchanged keeps its next tick.
func (s *Scheduler) Load(m *Manifest) {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.jobs
	same := len(old) == len(m.Jobs)
	s.followers = map[string][]*entry{}
	s.jobs = make(map[string]*entry, len(m.Jobs))
	s.due = s.due[:0]
	for _, j := range m.Jobs {
		e := &entry{job: j, when: j.when(), print: j.fingerprint(), index: -1, fresh: true}
		if !j.Jitter.ByNode {
			e.jitter = j.Jitter.of(j.Name)
		}
		for _, a := range j.After {
			if !j.Disabled && !slices.Contains(s.followers[a.Job], e) {
				s.followers[a.Job] = append(s.followers[a.Job], e)
			}
		}
		s.jobs[j.Name] = e
		if was := old[j.Name]; was != nil && was.print == e.print && !was.fresh {
			e.last, e.held, e.fresh = was.last, was.held, false
			s.plan(e, was.after)
		} else {
			same = false
		}
	}
	s.adopted = s.adopted && same
	s.poke()
}

// fingerprint tells apart what decides when a job falls due.
func (j *Job) fingerprint() string {
	when := j.when()
	if when == nil {
		return ""
	}
	if named, ok := when.(fmt.Stringer); ok {
		if j.Timezone != nil {
			return named.String() + " " + j.Timezone.String()
		}
		return named.String()
	}
	return fmt.Sprintf("%T", when)
}

// plan computes when e is due next. s.mu is held.
func (s *Scheduler) plan(e *entry, after time.Time) {
	e.after, e.next = after, time.Time{}
	if e.when != nil && !e.fresh {
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
// had to be cancelled, else ErrShutdown. Closing the pool and the store is the
// caller's.
func (s *Scheduler) Run(ctx context.Context) error {
	s.begin()
	rest, stop := context.WithCancel(context.WithoutCancel(ctx)) // the store hears of us until the last run has ended
	var beats sync.WaitGroup
	beats.Go(func() { s.beat(rest) })
	defer s.leave(rest)
	defer beats.Wait()
	defer stop()

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

// begin makes s ready for the loop.
func (s *Scheduler) begin() {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	s.waiting = 1 // for all we know
	s.wake = make(chan struct{}, 1)
	s.going, s.given = map[string]*going{}, map[string]*Job{}
	s.drafts = map[draft]string{}
	s.pulse.poke = make(chan struct{}, 1)
	s.seen = s.now()
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
	began, ready := wall, false // ready: the store has answered once
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
		s.seen = wall
		s.mu.Unlock()

		if !ready {
			ready = s.arrive(ctx, began, wall)
		}
		if ready {
			s.jumped(was, wall, jump)
			s.act(ctx, wall)
		}
		timer.Reset(s.pause(s.now())) // not wall: to act takes time
	}
}

// pause returns how long the loop has nothing to do.
func (s *Scheduler) pause(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := cmp.Or(s.look, time.Second)
	if s.down.err != nil || !s.adopted {
		return wait
	}
	if len(s.due) > 0 {
		wait = min(wait, max(s.due[0].starts().Sub(now), 0))
	}
	return wait
}

// arrive does what is done once, when the store first answers: it learns when
// there was nobody before, and which jobs there are, and fires those that run
// when Loom starts, which it did at began.
func (s *Scheduler) arrive(ctx context.Context, began, now time.Time) bool {
	p, err := s.memory.Beat(ctx, s.self)
	if !s.works(ctx, err) {
		return false
	}
	s.heard(p)
	s.mu.Lock()
	s.gap = gap{from: p.Away, to: now, what: "no daemon was running", all: true}
	s.mu.Unlock()
	if !s.adopt(ctx) {
		return false
	}
	s.mu.Lock()
	var firings []Firing
	for name, e := range s.jobs {
		if e.when != nil && FiresAtStart(e.when) {
			f := Firing{Job: name, Overlap: e.job.Overlap, Claim: true, Run: s.newRun(e.job, began, TriggerSchedule),
				Key: "start " + s.self.ID} // once, however often it is asked for
			if cmp.Or(f.Overlap, OverlapSkip) == OverlapSkip {
				f.Overlap = OverlapQueue // what the last Loom has left is no reason not to run
			}
			firings = append(firings, f)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(firings, func(a, b Firing) int { return cmp.Compare(a.Job, b.Job) })
	s.take(ctx) // what was left comes first
	if !s.fire(ctx, firings) {
		return false
	}
	s.pulse.soon() // now the loop of beats learns how often
	return true
}

// adopt tells the store which jobs there are, and learns up to where their ticks
// have outcomes.
func (s *Scheduler) adopt(ctx context.Context) bool {
	s.mu.Lock()
	if s.adopted {
		s.mu.Unlock()
		return true
	}
	prints := make(map[string]string, len(s.jobs))
	for name, e := range s.jobs {
		prints[name] = e.print
	}
	s.mu.Unlock()

	if !s.works(ctx, s.memory.Adopt(ctx, prints)) {
		return false
	}
	states, err := s.memory.Jobs(ctx)
	if !s.works(ctx, err) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range states {
		if e := s.jobs[state.Name]; e != nil && e.fresh && prints[state.Name] == e.print {
			e.fresh, e.last = false, state.LastTick
			s.plan(e, state.LastTick)
		}
	}
	s.adopted = true
	for _, e := range s.jobs {
		s.adopted = s.adopted && !e.fresh // false if they were replaced meanwhile
	}
	return true
}

// jumped deals with a step of the clock between two looks at it.
func (s *Scheduler) jumped(was, now time.Time, jump time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case jump > clockCorrect:
		s.log().Warn("clock was set: nothing is made up", "from", was, "to", now)
		s.gap = gap{from: was, to: now, what: "the clock was set ahead by more than three hours", all: true, lost: true}
	case jump < -clockCorrect:
		s.log().Warn("clock was set: nothing is made up", "from", was, "to", now)
		for _, e := range s.jobs {
			s.plan(e, now)
		}
	case jump <= -time.Minute:
		s.log().Warn("clock went back: jobs of fixed times are not run again", "from", was, "to", now)
		for _, e := range s.jobs {
			if e.when != nil && isInterval(e.when) {
				s.plan(e, now)
			}
		}
	case jump >= time.Minute:
		s.log().Warn("clock went ahead: missed ticks are made up for", "from", was, "to", now)
		s.gap = gap{from: was, to: now, what: "the machine slept, or its clock was set ahead,"}
	}
}

// act acts on all ticks that fell by now.
func (s *Scheduler) act(ctx context.Context, now time.Time) {
	if !s.recovered(ctx) || !s.adopt(ctx) {
		return
	}
	s.mu.Lock()
	var firings []Firing
	var held []*entry
	for len(s.due) > 0 && !s.due[0].starts().After(now) {
		e := s.due[0]
		firings = append(firings, s.firings(e, now)...)
		held = append(held, e)
		heap.Remove(&s.due, e.index)
	}
	for _, e := range held {
		heap.Push(&s.due, e) // it moves on when the store has confirmed
	}
	s.mu.Unlock()
	s.fire(ctx, firings)
}

// recovered reports whether the store is up, and asks it if it was not: that it
// was down decides what becomes of the ticks that fell meanwhile.
func (s *Scheduler) recovered(ctx context.Context) bool {
	if _, err := s.Health(); err == nil {
		return true
	}
	p, err := s.memory.Beat(ctx, s.self)
	if !s.works(ctx, err) {
		return false
	}
	s.heard(p)
	return true
}

// atOnce is how many firings the store is given in one call: enough to share the
// cost of a transaction, and few enough that the first runs begin soon.
const atOnce = 500

// fire has the store act on firings, and starts the runs that come of it. It
// reports whether the store did; if not, all is as before, and asking again is
// safe.
func (s *Scheduler) fire(ctx context.Context, firings []Firing) bool {
	for some := range slices.Chunk(firings, atOnce) {
		fired, err := s.memory.Fire(ctx, s.self.ID, some)
		if !s.works(ctx, err) {
			return false
		}
		for i, f := range some {
			s.fired(f, fired[i])
		}
	}
	return true
}

// fired deals with what became of a firing.
func (s *Scheduler) fired(f Firing, is Fired) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.drafts, draft{f.Job, cmp.Or(f.Due, f.Run.Due)})
	e := s.jobs[f.Job]
	if !f.Due.IsZero() && e != nil && !e.fresh {
		until := cmp.Or(f.Until, f.Due)
		switch {
		case is.Outcome == "": // another has acted on it, or the clock that counts is behind
			e.fresh, s.adopted = true, false
			e.held = s.now().Add(250 * time.Millisecond)
			return
		case until.After(e.last):
			e.last = until
		}
		s.plan(e, until)
	} else if e != nil && f.Due.IsZero() && f.Run.Due.Equal(e.next) {
		s.plan(e, f.Run.Due) // a tick that had an outcome before the clock went back
	}
	told := Event{Time: time.Now(), Job: f.Job, Due: cmp.Or(f.Due, f.Run.Due), Until: f.Until, Text: is.Why}
	if !f.Due.IsZero() {
		told.Outcome, told.Ticks = is.Outcome, cmp.Or(f.Ticks, 1)
	}
	switch {
	case is.Outcome == OutcomeMissed:
		told.Kind, told.Until = KindTickMissed, cmp.Or(f.Until, f.Due)
		s.event(told)
	case is.Claim.Run.ID == "":
		told.Kind = KindTickSkipped
		s.event(told)
	case is.Claim.Epoch == 0:
		s.waiting++
		if f.Overlap == OverlapReplace {
			s.pulse.soon() // what it replaces must end
		}
	default:
		s.start(is.Claim)
	}
}

// Seen returns when Run last looked at the clock, which it does each second as
// long as all is well with it.
func (s *Scheduler) Seen() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
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

// starts returns when the next tick is acted on: when it falls, and the job's
// jitter later.
func (e *entry) starts() time.Time {
	at := e.next.Add(e.jitter)
	if e.held.After(at) {
		return e.held
	}
	return at
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
