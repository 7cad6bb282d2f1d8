package loom

import (
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
		s.take(ctx)
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
	for id, g := range s.going {
		if !slices.Contains(p.Owned, id) && s.pulse.stray[id] {
			s.log().Error("run was given to another instance, since this one was silent: it ends here", "job", g.claim.Run.Job, "run", id)
			g.cancel(ErrFenced)
		}
	}
	s.pulse.stray = map[string]bool{} // not ours, or only just begun or ended: the next beat tells
	for id := range s.going {
		if !slices.Contains(p.Owned, id) {
			s.pulse.stray[id] = true
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
