package loom

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// A pulse is what keeps a scheduler's claims alive.
type pulse struct {
	poke  chan struct{} // asks for a beat now
	ttl   time.Duration // how long we may be silent; 0: as long as we like
	alone bool          // nobody else can take our work
	last  time.Time     // the last that the store has answered
	stray map[string]bool
	idle  map[string]time.Time // runs that the store thinks are ours and nobody works on, and since when
}

// soon has the next beat come at once.
func (p *pulse) soon() {
	select {
	case p.poke <- struct{}{}:
	default: // it will, or nobody beats
	}
}

// beat says to the store that we are alive, five times in its time to live, and
// does what it answers, until ctx ends.
func (s *Scheduler) beat(ctx context.Context) {
	for {
		s.mu.Lock()
		every := s.pulse.ttl / 5
		s.mu.Unlock()
		var due <-chan time.Time
		if every > 0 {
			due = time.After(every)
		}
		select {
		case <-due:
		case <-s.pulse.poke:
		case <-ctx.Done():
			return
		}
		p, err := s.memory.Beat(ctx, s.self)
		if ctx.Err() != nil {
			return
		}
		if !s.works(ctx, err) {
			s.unheard()
			continue
		}
		s.heard(p)
		s.giveBack(ctx, p)
		s.take(ctx)
	}
}

// giveBack puts runs back into the queue that the store thinks are ours, though
// nobody works on them: its answer to Take was lost, or it could not be told how
// they ended. Those that were begun or ended just now look like that too, so only
// what does for the store's time to live is put back.
func (s *Scheduler) giveBack(ctx context.Context, p Pulse) {
	var back []string
	s.mu.Lock()
	was, now := s.pulse.idle, time.Now()
	s.pulse.idle = map[string]time.Time{}
	for _, id := range p.Owned {
		if s.going[id] != nil {
			continue
		}
		since := cmp.Or(was[id], now)
		s.pulse.idle[id] = since
		if now.Sub(since) > p.TTL {
			back = append(back, id)
		}
	}
	s.mu.Unlock()
	if s.Store == nil || p.TTL == 0 {
		return
	}
	for _, id := range back {
		runs, err := s.Store.Runs(ctx, RunQuery{ID: id, Limit: 1})
		if !s.works(ctx, err) || len(runs) == 0 {
			return
		}
		r := runs[0]
		fired, err := s.memory.Fire(ctx, s.self.ID, []Firing{{Job: r.Job, Run: r, Claim: true}}) // to learn our claim's epoch
		if !s.works(ctx, err) {
			return
		}
		if c := fired[0].Claim; c.Run.ID == id && c.Epoch > 0 {
			s.log().Warn("run is ours and nobody works on it: it waits to be taken again", "job", r.Job, "run", id)
			s.works(ctx, s.memory.Finish(ctx, c, Run{Status: StatusQueued}, nil))
		}
	}
}

// leave tells the store that we are gone, so that nobody waits for us.
func (s *Scheduler) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	self := s.self
	self.Leaving = true
	if _, err := s.memory.Beat(ctx, self); err != nil {
		s.log().Warn("the store could not be told that this instance ends", "err", err)
	}
}

// heard does what the store answered: runs that someone wants to end are
// cancelled, and so are those that are no longer ours.
func (s *Scheduler) heard(p Pulse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulse.ttl, s.pulse.alone, s.pulse.last = p.TTL, p.Alone, time.Now()
	for id, why := range p.Cancel {
		if g := s.going[id]; g != nil {
			g.cancel(fmt.Errorf("%w: %s", ErrCancelled, why))
		}
	}
	was := s.pulse.stray
	s.pulse.stray = map[string]bool{} // not ours, or only just begun or ended: the next beat tells
	for id, g := range s.going {
		if slices.Contains(p.Owned, id) {
			continue
		}
		s.pulse.stray[id] = true
		if was[id] {
			s.log().Error("run was given to another instance, since this one was silent: it ends here", "job", g.claim.Run.Job, "run", id)
			g.cancel(ErrFenced)
		}
	}
}

// unheard ends all work when the store has not heard of us for so long that it
// may give the work to another.
func (s *Scheduler) unheard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulse.alone || s.pulse.ttl == 0 || time.Since(s.pulse.last) < s.pulse.ttl*4/5 {
		return
	}
	for id, g := range s.going {
		s.log().Error("run ends here: the store may have given it to another instance", "job", g.claim.Run.Job, "run", id)
		g.cancel(ErrFenced)
	}
}
