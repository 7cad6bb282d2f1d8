// Package memory is a loom.Store that forgets all when the process ends: for
// tests, and for programs that need no past.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/ledger"
	"github.com/dustinlacewell/loom/internal/overlap"
)

// A Store keeps everything in memory until it is trimmed. The zero value is
// empty and ready. Its fields must not change once it is in use.
type Store struct {
	TTL  time.Duration    // how long an instance may be silent; 0: 10 s
	Zone *time.Location   // in which days are counted; nil: local
	Now  func() time.Time // the store's clock; nil: time.Now

	mu        sync.Mutex
	instances map[string]time.Time // when each was last heard of
	jobs      map[string]*job
	runs      []*run // oldest first
	going     []*run // those that have not ended
	byID      map[string]*run
	chunks    int64 // the last cursor
	actions   []loom.Action
	acted     int64 // the last action's ID
	days      map[day]int
	watches   ledger.Watches
}

var (
	_ loom.Store   = (*Store)(nil)
	_ loom.Watcher = (*Store)(nil)
)

type job struct {
	name     string
	schedule string
	gone     bool
	last     time.Time
	pause    *loom.Pause
	ticks    []loom.Tick // oldest first
	going    []*run      // those that have not ended and are no plans, oldest first
	newest   *run        // that is no plan
	keys     map[string]*run
}

type run struct {
	loom.Run
	solo    bool
	key     string
	owner   string
	epoch   int64
	cancel  string // why it shall end; "": it need not
	results map[string]*loom.Result
	output  []chunk
}

type chunk struct {
	loom.Chunk
	at   time.Time
	size int64
}

type day struct {
	job    string // "": all
	first  time.Time
	status loom.Status
}

// begin locks the store and returns its time, or says why ctx has ended.
func (s *Store) begin(ctx context.Context) (time.Time, error) {
	if ctx.Err() != nil {
		return time.Time{}, context.Cause(ctx)
	}
	s.mu.Lock()
	if s.jobs == nil {
		s.jobs, s.byID = map[string]*job{}, map[string]*run{}
		s.instances, s.days = map[string]time.Time{}, map[day]int{}
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return ledger.Milli(now()), nil
}

// Watch is part of loom.Watcher.
func (s *Store) Watch(run string) (news <-chan struct{}, done func()) { return s.watches.Watch(run) }

// Close does nothing: the store can still be used.
func (s *Store) Close() error { return nil }

// Beat is part of loom.Ledger.
func (s *Store) Beat(ctx context.Context, self loom.Instance) (loom.Pulse, error) {
	now, err := s.begin(ctx)
	if err != nil {
		return loom.Pulse{}, err
	}
	defer s.mu.Unlock()
	p := loom.Pulse{Now: now, TTL: cmp.Or(s.TTL, 10*time.Second), Cancel: map[string]string{}}
	s.instances[self.ID] = now
	if self.Leaving {
		delete(s.instances, self.ID)
	}
	for _, r := range s.going {
		if r.Status != loom.StatusRunning {
			continue
		}
		if seen, ok := s.instances[r.owner]; !ok || now.Sub(seen) > p.TTL {
			r.Status, r.owner = loom.StatusQueued, ""
			continue
		}
		if r.owner == self.ID {
			p.Owned = append(p.Owned, r.ID)
			if r.cancel != "" {
				p.Cancel[r.ID] = r.cancel
			}
		}
	}
	return p, nil
}

// Adopt is part of loom.Ledger.
func (s *Store) Adopt(ctx context.Context, jobs map[string]string) error {
	now, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	for name, j := range s.jobs {
		if _, ok := jobs[name]; !ok {
			j.gone = true
		}
	}
	for name, schedule := range jobs {
		j, known := s.jobs[name], s.jobs[name] != nil
		if !known {
			j = s.job(name)
		}
		if !known || j.gone || j.schedule != schedule || j.last.After(now.Add(ledger.ClockWrong)) {
			j.last = now
		}
		j.gone, j.schedule = false, schedule
	}
	return nil
}

// job returns the named job, which is new if there was none. s.mu is held.
func (s *Store) job(name string) *job {
	j := s.jobs[name]
	if j == nil {
		j = &job{name: name, keys: map[string]*run{}}
		s.jobs[name] = j
	}
	return j
}

// Fire is part of loom.Ledger.
func (s *Store) Fire(ctx context.Context, self string, firings []loom.Firing) ([]loom.Fired, error) {
	if err := ledger.Check(firings); err != nil {
		return nil, err
	}
	now, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	s.instances[self] = now
	fired := make([]loom.Fired, len(firings))
	for i, f := range firings {
		f.Due, f.Until, f.After = ledger.Milli(f.Due), ledger.Milli(cmp.Or(f.Until, f.Due)), ledger.Milli(f.After)
		f.Ticks, f.Outcome = max(f.Ticks, 1), cmp.Or(f.Outcome, loom.OutcomeRan)
		fired[i] = s.fire(now, self, f)
	}
	return fired, nil
}

func (s *Store) fire(now time.Time, self string, f loom.Firing) loom.Fired {
	if r := s.byID[f.Run.ID]; r != nil && f.Outcome.Runs() {
		return loom.Fired{Outcome: f.Outcome, Claim: r.claim(self)}
	}
	j := s.job(f.Job)
	tick := !f.Due.IsZero()
	if r := j.keys[f.Key]; r != nil && f.Key != "" && !tick {
		return loom.Fired{Outcome: f.Outcome, Claim: loom.Claim{Run: r.copy()}}
	}
	if tick {
		if !f.After.Equal(j.last) || !f.Due.After(j.last) || f.Until.After(now) {
			return loom.Fired{}
		}
		if at, ok := j.find(f.Due); ok || at < len(j.ticks) && !j.ticks[at].Due.After(f.Until) {
			j.last = f.Until // the clock was set back
			return loom.Fired{}
		}
	}
	fired := loom.Fired{Outcome: f.Outcome, Why: f.Why}
	if f.Outcome.Runs() {
		s.admit(now, self, j, f, &fired)
	}
	if tick {
		j.record(now, f, fired)
	}
	return fired
}

// find returns where the tick due at t is among those of j, or would be.
func (j *job) find(t time.Time) (int, bool) {
	at, same := slices.BinarySearchFunc(j.ticks, t, func(k loom.Tick, t time.Time) int { return k.Due.Compare(t) })
	if !same && at > 0 && !j.ticks[at-1].Until.Before(t) {
		return at - 1, true
	}
	return at, same
}

// admit starts the firing's run, or changes the outcome.
func (s *Store) admit(now time.Time, self string, j *job, f loom.Firing, fired *loom.Fired) {
	due := cmp.Or(f.Due, f.Run.Due, now)
	if why, paused := ledger.Paused(j.pause, f.Run.Trigger, due); paused {
		fired.Outcome, fired.Why = loom.OutcomePaused, why
		return
	}
	var going []overlap.Run
	for _, r := range j.going {
		g := overlap.Run{ID: r.ID, Due: r.Due, Waits: r.Status == loom.StatusQueued, Begun: r.epoch > 0}
		g.Nodes, g.More = r.atWork()
		going = append(going, g)
	}
	v := overlap.Admit(string(f.Overlap), f.Run.ID, f.Run.Trigger == loom.TriggerCatchUp, going)
	if v.Refused != "" {
		fired.Outcome, fired.Why = loom.OutcomeSkipped, v.Refused
		return
	}
	for _, g := range v.Cancel {
		s.byID[g.ID].cancel = v.Cause
	}
	for _, g := range v.Superseded {
		s.end(s.byID[g.ID], loom.Run{Status: loom.StatusCancelled, Ended: now, Reason: v.Cause})
		for i, k := range j.ticks {
			if k.Run == g.ID {
				j.ticks[i].Outcome, j.ticks[i].Why = loom.OutcomeSuperseded, v.Cause
			}
		}
	}
	r := &run{Run: f.Run, solo: v.Solo, key: f.Key, results: map[string]*loom.Result{}}
	r.Job, r.Due, r.Queued, r.Status = j.name, ledger.Milli(due), now, loom.StatusQueued
	r.Targets = slices.Clone(r.Targets)
	r.Started, r.Ended, r.Reason, r.Counts = time.Time{}, time.Time{}, "", nil
	s.runs, s.byID[r.ID] = append(s.runs, r), r
	s.going = append(s.going, r)
	if !r.Plan {
		j.newest, j.going = r, append(j.going, r)
	}
	if f.Key != "" && f.Due.IsZero() {
		j.keys[f.Key] = r
	}
	if f.Due.IsZero() && f.Run.Trigger == loom.TriggerManual {
		s.act(now, loom.Action{By: f.Run.By, Verb: ledger.Verb(f.Run), Object: j.name, Why: f.Why})
	}
	if f.Claim && !v.Wait {
		r.take(now, self)
	}
	fired.Claim = r.claim(self)
}

// record writes what became of a tick.
func (j *job) record(now time.Time, f loom.Firing, fired loom.Fired) {
	before := j.last
	j.last = f.Until
	if n := len(j.ticks) - 1; n >= 0 && fired.Claim.Run.ID == "" {
		if k := &j.ticks[n]; k.Until.Equal(before) && k.Run == "" && k.Outcome == fired.Outcome && k.Why == fired.Why {
			k.Until, k.Ticks, k.At = f.Until, k.Ticks+f.Ticks, now
			return
		}
	}
	at, _ := j.find(f.Due)
	j.ticks = slices.Insert(j.ticks, at, loom.Tick{Job: j.name, Due: f.Due, Until: f.Until, Ticks: f.Ticks,
		Outcome: fired.Outcome, Why: fired.Why, Run: fired.Claim.Run.ID, At: now})
}

// atWork returns the first nodes that the run is at work on, and how many more.
func (r *run) atWork() ([]string, int) {
	var nodes []string
	for _, name := range slices.Sorted(maps.Keys(r.results)) {
		if r.results[name].Ended.IsZero() {
			nodes = append(nodes, name)
		}
	}
	if len(nodes) > 3 {
		return nodes[:3], len(nodes) - 3
	}
	return nodes, 0
}

func (r *run) take(now time.Time, self string) {
	r.Status, r.owner, r.Started = loom.StatusRunning, self, cmp.Or(r.Started, now)
	r.epoch++
}

// claim returns what self holds of the run.
func (r *run) claim(self string) loom.Claim {
	c := loom.Claim{Run: r.copy()}
	if r.Status == loom.StatusRunning && r.owner == self {
		c.Owner, c.Epoch = self, r.epoch
	}
	return c
}

// copy returns the run as readers may have it.
func (r *run) copy() loom.Run {
	c := r.Run
	if !c.Status.Ended() {
		c.Counts = map[loom.Status]int{}
		for _, res := range r.results {
			if !res.Ended.IsZero() {
				c.Counts[res.Status]++
			}
		}
	}
	c.Targets, c.Counts = slices.Clone(c.Targets), maps.Clone(c.Counts)
	return c
}

// Take is part of loom.Ledger.
func (s *Store) Take(ctx context.Context, self string) (*loom.Claim, error) {
	now, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	s.instances[self] = now
	for _, r := range s.going {
		if r.Status != loom.StatusQueued || r.solo && s.jobs[r.Job].busy() {
			continue
		}
		r.take(now, self)
		c := r.claim(self)
		return &c, nil
	}
	return nil, nil
}

// busy reports whether a run of the job is going.
func (j *job) busy() bool {
	return slices.ContainsFunc(j.going, func(r *run) bool { return r.Status == loom.StatusRunning })
}

// held returns the run that c claims.
func (s *Store) held(c loom.Claim) (*run, error) {
	r := s.byID[c.Run.ID]
	if r == nil || r.Status != loom.StatusRunning || r.owner != c.Owner || r.epoch != c.Epoch {
		return nil, fmt.Errorf("run %s of job %q: %w", c.Run.ID, c.Run.Job, loom.ErrFenced)
	}
	return r, nil
}

// Record is part of loom.Ledger.
func (s *Store) Record(ctx context.Context, c loom.Claim, events []loom.Event) error {
	now, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	r, err := s.held(c)
	if err != nil {
		return err
	}
	s.write(now, r, events)
	return nil
}

func (s *Store) write(now time.Time, r *run, events []loom.Event) {
	s.watches.Wake(r.ID) // who looks now waits until this is done
	for _, n := range ledger.Fold(events) {
		s.lines(now, r, n)
		res := r.results[n.Node]
		if res == nil && n.End == nil && n.Started.IsZero() && n.Earlier == nil && n.Changes == nil {
			continue // output of a node that is about to start
		}
		if res == nil {
			res = &loom.Result{Run: r.ID, Node: n.Node, ExitCode: -1, Started: ledger.Milli(n.Started)}
			r.results[n.Node] = res
		}
		if !n.Started.IsZero() {
			res.Ended = time.Time{}
			res.Started = cmp.Or(res.Started, ledger.Milli(n.Started))
		}
		res.Status = loom.StatusRunning
		res.Changes = append(res.Changes, n.Changes...)
		if end := n.End; end != nil {
			before := res.Earlier
			*res = *end
			res.Run, res.Started, res.Ended = r.ID, ledger.Milli(end.Started), ledger.Milli(end.Ended)
			for i, a := range res.Earlier {
				res.Earlier[i] = milliAttempt(a)
			}
			if res.Earlier == nil {
				res.Earlier = before
			}
		}
		for _, a := range n.Earlier {
			res.Earlier = append(res.Earlier, milliAttempt(a))
		}
		if n.End == nil {
			res.Attempts = len(res.Earlier) + 1
		}
	}
}

func milliAttempt(a loom.Attempt) loom.Attempt {
	a.Started, a.Ended = ledger.Milli(a.Started), ledger.Milli(a.Ended)
	return a
}

// lines keeps what a node printed, in chunks as other stores do.
func (s *Store) lines(now time.Time, r *run, n *ledger.NodeRecord) {
	var codec ledger.Codec
	for _, packed := range codec.Encode(n.Lines) {
		lines, err := ledger.Decode(packed)
		if err != nil {
			continue // it was packed just now
		}
		s.chunks++
		r.output = append(r.output, chunk{loom.Chunk{Cursor: s.chunks, Node: n.Node, Lines: lines}, now, int64(len(packed))})
	}
}

// Finish is part of loom.Ledger.
func (s *Store) Finish(ctx context.Context, c loom.Claim, end loom.Run, last []loom.Event) error {
	now, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	r, err := s.held(c)
	if err != nil {
		if r := s.byID[c.Run.ID]; r != nil && r.epoch == c.Epoch && r.Status == end.Status {
			return nil
		}
		return err
	}
	s.write(now, r, last)
	if end.Status == loom.StatusQueued {
		r.Status, r.owner = loom.StatusQueued, ""
		return nil
	}
	end.Ended = cmp.Or(ledger.Milli(end.Ended), now)
	s.end(r, end)
	return nil
}

// end ends a run, and counts it if it is no plan.
func (s *Store) end(r *run, end loom.Run) {
	r.Status, r.Ended, r.Reason, r.Counts = end.Status, end.Ended, end.Reason, maps.Clone(end.Counts)
	r.owner, r.cancel = "", ""
	s.watches.Wake(r.ID)
	j, same := s.jobs[r.Job], func(o *run) bool { return o == r }
	s.going, j.going = slices.DeleteFunc(s.going, same), slices.DeleteFunc(j.going, same)
	if r.Plan {
		return
	}
	d := day{first: s.dayOf(r.Queued), status: r.Status}
	s.days[d]++
	d.job = r.Job
	s.days[d]++
}

// dayOf returns the first moment of t's day.
func (s *Store) dayOf(t time.Time) time.Time {
	zone := s.Zone
	if zone == nil {
		zone = time.Local
	}
	y, m, d := t.In(zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, zone)
}

// Act is part of loom.Store.
func (s *Store) Act(ctx context.Context, a loom.Action) error {
	now, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	switch a.Verb {
	case loom.VerbPause, loom.VerbResume:
		j := s.jobs[a.Object]
		if j == nil {
			return fmt.Errorf("job %q: %w", a.Object, loom.ErrNotFound)
		}
		j.pause = nil
		if a.Verb == loom.VerbPause {
			j.pause = &loom.Pause{Since: now, Until: ledger.Milli(a.Until), By: a.By, Why: a.Why}
		}
	case loom.VerbCancel:
		r := s.byID[a.Object]
		switch {
		case r == nil || r.Status.Ended():
			return fmt.Errorf("run %s is not going: %w", a.Object, loom.ErrNotFound)
		case r.epoch == 0:
			s.end(r, loom.Run{Status: loom.StatusCancelled, Ended: now, Reason: ledger.Asked(a)})
		default:
			r.cancel = ledger.Asked(a)
		}
	}
	s.act(now, a)
	return nil
}

func (s *Store) act(now time.Time, a loom.Action) {
	s.acted++
	a.ID, a.Time, a.Until = s.acted, now, ledger.Milli(a.Until)
	s.actions = append(s.actions, a)
}

// Jobs is part of loom.Archive.
func (s *Store) Jobs(ctx context.Context, names ...string) ([]loom.JobState, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if len(names) == 0 {
		names = slices.Collect(maps.Keys(s.jobs))
	}
	var states []loom.JobState
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		j := s.jobs[name]
		if j == nil {
			continue
		}
		state := loom.JobState{Name: name, LastTick: j.last, Gone: j.gone}
		if j.pause != nil {
			p := *j.pause
			state.Pause = &p
		}
		if r := j.newest; r != nil {
			c := r.copy()
			state.Last = &c
		}
		states = append(states, state)
	}
	return states, nil
}

// Runs is part of loom.Archive.
func (s *Store) Runs(ctx context.Context, q loom.RunQuery) ([]loom.Run, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	older := s.runs
	if q.Before != "" {
		at := slices.IndexFunc(older, func(r *run) bool { return r.ID == q.Before })
		if at < 0 { // it was trimmed: what sorts before it is older
			at = len(older)
			for at > 0 && older[at-1].ID >= q.Before {
				at--
			}
		}
		older = older[:at]
	}
	var found []loom.Run
	for _, r := range slices.Backward(older) {
		if len(found) == cmp.Or(q.Limit, 100) {
			break
		}
		if r.matches(q) {
			found = append(found, r.copy())
		}
	}
	return found, nil
}

func (r *run) matches(q loom.RunQuery) bool {
	return strings.HasPrefix(r.ID, q.ID) &&
		(q.Job == "" || r.Job == q.Job) &&
		(len(q.Status) == 0 || slices.Contains(q.Status, r.Status)) &&
		(q.Trigger == "" || r.Trigger == q.Trigger) &&
		(q.Plan == nil || r.Plan == *q.Plan) &&
		(q.Node == "" || r.results[q.Node] != nil) &&
		(q.Since.IsZero() || !r.Queued.Before(q.Since)) &&
		(q.Until.IsZero() || r.Queued.Before(q.Until)) &&
		(q.Text == "" || r.contains(strings.ToLower(q.Text)))
}

func (r *run) contains(text string) bool {
	in := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	if in(r.Job) || in(r.By) || in(r.Reason) {
		return true
	}
	for _, res := range r.results {
		if in(res.Reason) {
			return true
		}
	}
	return false
}

// RecentRuns is part of loom.Archive.
func (s *Store) RecentRuns(ctx context.Context, most int, jobs ...string) ([]loom.Run, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	byJob := map[string][]loom.Run{}
	for _, name := range jobs {
		byJob[name] = []loom.Run{}
	}
	for _, r := range slices.Backward(s.runs) {
		if some, wanted := byJob[r.Job]; wanted && len(some) < most && !r.Plan {
			byJob[r.Job] = append(some, loom.Run{ID: r.ID, Job: r.Job, Due: r.Due, Trigger: r.Trigger, Queued: r.Queued,
				Started: r.Started, Ended: r.Ended, Status: r.Status, Nodes: r.Nodes})
		}
	}
	var found []loom.Run
	for _, name := range jobs {
		found = append(found, byJob[name]...)
	}
	return found, nil
}

// RecentResults is part of loom.Archive.
func (s *Store) RecentResults(ctx context.Context, most int, nodes ...string) ([]loom.Result, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var found []loom.Result
	for _, node := range nodes {
		n := 0
		for _, r := range slices.Backward(s.runs) {
			if res := r.results[node]; res != nil && n < most && !r.Plan {
				found = append(found, r.result(res))
				n++
			}
		}
	}
	return found, nil
}

// result returns one of the run's results as readers may have it.
func (r *run) result(res *loom.Result) loom.Result {
	c := *res
	c.Job, c.Changes, c.Earlier = r.Job, slices.Clone(res.Changes), slices.Clone(res.Earlier)
	return c
}

// Results is part of loom.Archive.
func (s *Store) Results(ctx context.Context, q loom.ResultQuery) ([]loom.Result, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var found []loom.Result
	for _, id := range q.Runs {
		r := s.byID[id]
		if r == nil {
			continue
		}
		for _, node := range slices.Sorted(maps.Keys(r.results)) {
			if q.Node == "" || q.Node == node {
				found = append(found, r.result(r.results[node]))
			}
		}
	}
	return found, nil
}

// Output is part of loom.Archive.
func (s *Store) Output(ctx context.Context, q loom.OutputQuery) ([]loom.Chunk, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	r := s.byID[q.Run]
	if r == nil {
		return nil, nil
	}
	var found []loom.Chunk
	for _, c := range r.output {
		if c.Cursor > q.After && (q.Node == "" || q.Node == c.Node) && len(found) < cmp.Or(q.Limit, 100) {
			c.Lines = slices.Clone(c.Lines)
			found = append(found, c.Chunk)
		}
	}
	return found, nil
}

// Ticks is part of loom.Archive.
func (s *Store) Ticks(ctx context.Context, q loom.TickQuery) ([]loom.Tick, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	j := s.jobs[q.Job]
	if j == nil {
		return nil, nil
	}
	var found []loom.Tick
	for _, k := range slices.Backward(j.ticks) {
		if !q.To.IsZero() && k.Due.After(q.To) {
			continue
		}
		if k.Until.Before(q.From) || len(found) == cmp.Or(q.Limit, 100) {
			break
		}
		if s.byID[k.Run] == nil {
			k.Run = ""
		}
		found = append(found, k)
	}
	return found, nil
}

// Days is part of loom.Archive.
func (s *Store) Days(ctx context.Context, q loom.DayQuery) ([]loom.DayCount, error) {
	now, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	from, to := s.dayOf(q.From), s.dayOf(cmp.Or(q.To, now))
	var found []loom.DayCount
	for d, n := range s.days {
		if d.job == q.Job && !d.first.Before(from) && !d.first.After(to) {
			found = append(found, loom.DayCount{Day: d.first, Status: d.status, Runs: n})
		}
	}
	slices.SortFunc(found, func(a, b loom.DayCount) int {
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.Status, b.Status))
	})
	return found, nil
}

// Actions is part of loom.Archive.
func (s *Store) Actions(ctx context.Context, q loom.ActionQuery) ([]loom.Action, error) {
	if _, err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var found []loom.Action
	for _, a := range slices.Backward(s.actions) {
		if (q.Object == "" || a.Object == q.Object) && (q.By == "" || a.By == q.By) && (q.Verb == "" || a.Verb == q.Verb) &&
			!a.Time.Before(q.Since) && (q.Until.IsZero() || a.Time.Before(q.Until)) &&
			(q.Before == 0 || a.ID < q.Before) && len(found) < cmp.Or(q.Limit, 100) {
			found = append(found, a)
		}
	}
	return found, nil
}

// Trim is part of loom.Store. It does all in one step.
func (s *Store) Trim(ctx context.Context, keep loom.Retention) (loom.Trimmed, error) {
	now, err := s.begin(ctx)
	if err != nil {
		return loom.Trimmed{}, err
	}
	defer s.mu.Unlock()
	var t loom.Trimmed
	s.trimRuns(now, keep, &t)
	s.trimOutput(now, keep, &t)
	if keep.Ticks > 0 {
		limit := now.Add(-keep.Ticks)
		for _, j := range s.jobs {
			old := len(j.ticks)
			j.ticks = slices.DeleteFunc(j.ticks, func(k loom.Tick) bool { return k.Until.Before(limit) })
			t.Ticks += old - len(j.ticks)
		}
		s.actions = slices.DeleteFunc(s.actions, func(a loom.Action) bool { return a.Time.Before(limit) })
		maps.DeleteFunc(s.days, func(d day, _ int) bool { return d.first.Before(s.dayOf(limit)) })
	}
	return t, nil
}

func (s *Store) trimRuns(now time.Time, keep loom.Retention, t *loom.Trimmed) {
	newer := map[string]int{}
	drop := map[*run]bool{}
	for _, r := range slices.Backward(s.runs) {
		j := s.jobs[r.Job]
		newest := r == j.newest
		old := keep.Runs > 0 && r.Queued.Before(now.Add(-keep.Runs)) && (!newest || j.gone) ||
			keep.RunsPerJob > 0 && newer[r.Job] >= keep.RunsPerJob && !newest
		newer[r.Job]++
		if !old || !r.Status.Ended() {
			continue
		}
		drop[r] = true
		t.Runs++
		t.Chunks += len(r.output)
		for _, c := range r.output {
			t.Bytes += c.size
		}
		delete(s.byID, r.ID)
		if newest {
			j.newest = nil
		}
		if r.key != "" {
			delete(j.keys, r.key)
		}
	}
	s.runs = slices.DeleteFunc(s.runs, func(r *run) bool { return drop[r] })
}

// trimOutput deletes chunks that are too old, then the oldest while there are
// too many bytes.
func (s *Store) trimOutput(now time.Time, keep loom.Retention, t *loom.Trimmed) {
	var total int64
	for _, r := range s.runs {
		for _, c := range r.output {
			total += c.size
		}
	}
	for _, r := range s.runs {
		if !r.Status.Ended() {
			continue
		}
		r.output = slices.DeleteFunc(r.output, func(c chunk) bool {
			old := keep.Output > 0 && c.at.Before(now.Add(-keep.Output)) || keep.OutputBytes > 0 && total > keep.OutputBytes
			if old {
				total -= c.size
				t.Chunks++
				t.Bytes += c.size
			}
			return old
		})
	}
}
