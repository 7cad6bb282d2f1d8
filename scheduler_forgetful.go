package loom

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dustinlacewell/loom/internal/overlap"
)

// A forgetful is the memory of a scheduler without a store: it knows what is
// going and what waits, and forgets what has ended.
type forgetful struct {
	now func() time.Time

	mu   sync.Mutex
	jobs map[string]adopted
	runs []*unended // oldest first
}

// An adopted is what is known of a job.
type adopted struct {
	print string // see Adopt
	last  time.Time
}

// An unended is a run that has not ended.
type unended struct {
	Run
	solo   bool
	going  bool
	cancel string // why it shall end; "": it need not
	nodes  []string
}

// Beat is part of Ledger. Nobody forgets us, so it is needed only when there is
// something to be told.
func (m *forgetful) Beat(context.Context, Instance) (Pulse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Pulse{Now: m.now(), Alone: true, Cancel: map[string]string{}}
	for _, r := range m.runs {
		if r.going {
			p.Owned = append(p.Owned, r.ID)
		}
		if r.cancel != "" {
			p.Cancel[r.ID] = r.cancel
		}
	}
	return p, nil
}

// Adopt is part of Ledger.
func (m *forgetful) Adopt(_ context.Context, prints map[string]string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	jobs := map[string]adopted{}
	for name, print := range prints {
		is, known := m.jobs[name]
		if !known || is.print != print || is.last.After(now.Add(clockCorrect)) {
			is = adopted{print, now}
		}
		jobs[name] = is
	}
	m.jobs = jobs
	return nil
}

// Jobs returns the last ticks.
func (m *forgetful) Jobs(context.Context, ...string) ([]JobState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []JobState
	for name, is := range m.jobs {
		all = append(all, JobState{Name: name, LastTick: is.last})
	}
	return all, nil
}

// Fire is part of Ledger.
func (m *forgetful) Fire(_ context.Context, self string, firings []Firing) ([]Fired, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fired := make([]Fired, len(firings))
	for i, f := range firings {
		fired[i] = m.fire(self, f)
	}
	return fired, nil
}

func (m *forgetful) fire(self string, f Firing) Fired {
	if is, known := m.jobs[f.Job]; known && !f.Due.IsZero() {
		is.last = cmp.Or(f.Until, f.Due)
		m.jobs[f.Job] = is
	}
	f.Outcome = cmp.Or(f.Outcome, OutcomeRan)
	if !f.Outcome.Runs() {
		return Fired{Outcome: f.Outcome, Why: f.Why}
	}
	var others []overlap.Run
	for _, r := range m.runs {
		if r.Job == f.Job && !r.Plan {
			others = append(others, r.standing())
		}
	}
	v := overlap.Admit(string(f.Overlap), f.Run.ID, f.Run.Trigger == TriggerCatchUp, others)
	if v.Refused != "" {
		return Fired{Outcome: OutcomeSkipped, Why: v.Refused}
	}
	m.runs = slices.DeleteFunc(m.runs, func(r *unended) bool {
		return slices.ContainsFunc(v.Superseded, func(o overlap.Run) bool { return o.ID == r.ID })
	})
	for _, r := range m.runs {
		if slices.ContainsFunc(v.Cancel, func(o overlap.Run) bool { return o.ID == r.ID }) {
			r.cancel = v.Cause
		}
	}
	r := &unended{Run: f.Run, solo: v.Solo}
	r.Queued, r.Status = m.now(), StatusQueued
	m.runs = append(m.runs, r)
	if f.Claim && !v.Wait {
		return Fired{Outcome: f.Outcome, Why: f.Why, Claim: r.claim(self)}
	}
	return Fired{Outcome: f.Outcome, Why: f.Why, Claim: Claim{Run: r.Run}}
}

func (r *unended) standing() overlap.Run {
	o := overlap.Run{ID: r.ID, Due: r.Due, Waits: !r.going, Begun: r.going, Nodes: slices.Sorted(slices.Values(r.nodes))}
	if n := len(o.Nodes); n > 3 {
		o.Nodes, o.More = o.Nodes[:3], n-3
	}
	return o
}

func (r *unended) claim(self string) Claim {
	r.going, r.Status, r.Started = true, StatusRunning, time.Now()
	return Claim{Run: r.Run, Owner: self, Epoch: 1}
}

// Take is part of Ledger.
func (m *forgetful) Take(_ context.Context, self string) (*Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		busy := slices.ContainsFunc(m.runs, func(o *unended) bool { return o.Job == r.Job && o.going && !o.Plan })
		if !r.going && (!r.solo || !busy) {
			c := r.claim(self)
			return &c, nil
		}
	}
	return nil, nil
}

// Record is part of Ledger: where a run is at work is all that is kept.
func (m *forgetful) Record(_ context.Context, c Claim, events []Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(c)
	if i < 0 {
		return ErrFenced
	}
	r := m.runs[i]
	for _, e := range events {
		switch e.Kind {
		case KindNodeStarted:
			r.nodes = append(r.nodes, e.Node)
		case KindNodeEnded:
			r.nodes = slices.DeleteFunc(r.nodes, func(n string) bool { return n == e.Node })
		}
	}
	return nil
}

// Finish is part of Ledger.
func (m *forgetful) Finish(_ context.Context, c Claim, _ Run, _ []Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.find(c); i >= 0 {
		m.runs = slices.Delete(m.runs, i, i+1)
	}
	return nil
}

func (m *forgetful) find(c Claim) int {
	return slices.IndexFunc(m.runs, func(r *unended) bool { return r.ID == c.Run.ID })
}

// Results returns none: what was begun by another is never claimed.
func (m *forgetful) Results(context.Context, ResultQuery) ([]Result, error) { return nil, nil }

// Output returns none.
func (m *forgetful) Output(context.Context, OutputQuery) ([]Chunk, error) { return nil, nil }
