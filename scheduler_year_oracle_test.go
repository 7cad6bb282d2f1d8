package loom_test

import (
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
)

// What is here says what must become of a job's ticks and runs in a year in which
// the scheduler was stopped, killed and started anew: what DESIGN and manual
// promise, written down again.

// A watch is a time in which a scheduler ran.
type watch struct {
	from, to time.Time
	killed   bool // at to: nothing that it did after that is known
}

const (
	yearGrace  = 5 * time.Second
	abandoned  = 10 * time.Second // after a task was told to end
	mostMadeUp = 100
)

// An order is what a person did about a job.
type order struct {
	at    time.Time
	pause *loom.Pause // nil: resume
}

// A foreseen is a tick and what must become of it.
type foreseen struct {
	due     time.Time
	outcome loom.Outcome
	run     *foreseenRun // nil: none
}

// A foreseenRun is a run and how it must end.
type foreseenRun struct {
	trigger loom.Trigger
	queued  time.Time
	begun   time.Time // zero: it waits
	ends    time.Time
	status  loom.Status // at its end
	told    bool        // to end
	over    bool
}

// A seer foresees what becomes of one job.
type seer struct {
	yearJob
	orders  []order
	windows []time.Time // in which it does not fire
	follow  []ending    // of other jobs' runs: they fire this one

	here    time.Time // when the session began
	open    bool
	pause   *loom.Pause
	going   []*foreseenRun // oldest first
	ticks   []foreseen
	runs    []*foreseenRun
	endings []ending
}

// An ending is the end of a run.
type ending struct {
	at     time.Time
	status loom.Status
}

// foresee goes through the year.
func (s *seer) foresee(due []time.Time, watches []watch) {
	due = slices.DeleteFunc(slices.Clone(due), func(t time.Time) bool { return !t.After(watches[0].from.Truncate(time.Millisecond)) })
	for _, w := range watches {
		s.advance(w.from)
		s.obey(w.from)
		due = s.arrive(w.from, due)
		for len(due) > 0 || len(s.follow) > 0 {
			tick := len(due) > 0 && !due[0].Add(s.jitter).After(w.to)
			follow := len(s.follow) > 0 && !s.follow[0].at.After(w.to)
			switch {
			case follow && (!tick || s.follow[0].at.Before(due[0].Add(s.jitter))):
				s.followed(s.follow[0], true)
				s.follow = s.follow[1:]
				continue
			case tick:
				at := due[0].Add(s.jitter)
				s.advance(at)
				s.obey(at)
				s.tick(due[0], at)
				due = due[1:]
				continue
			}
			break
		}
		s.advance(w.to)
		s.obey(w.to)
		s.open = false
		if w.killed {
			for _, r := range s.going {
				r.ends = w.to.AddDate(1000, 0, 0) // if ever, nobody sees it
			}
			continue
		}
		for len(s.follow) > 0 && s.follow[0].at.Before(w.to.Add(yearGrace+abandoned+time.Second)) {
			s.followed(s.follow[0], false)
			s.follow = s.follow[1:]
		}
		s.advance(w.to.Add(yearGrace))
		for _, r := range slices.Clone(s.going) {
			if !r.begun.IsZero() {
				s.cancel(r, w.to.Add(yearGrace))
			}
		}
		s.advance(w.to.Add(yearGrace + abandoned))
	}
}

// obey does what people ordered until at.
func (s *seer) obey(at time.Time) {
	for len(s.orders) > 0 && !s.orders[0].at.After(at) {
		s.pause = s.orders[0].pause
		s.orders = s.orders[1:]
	}
}

func (s *seer) paused(due time.Time) bool {
	return s.pause != nil && (s.pause.Until.IsZero() || due.Before(s.pause.Until))
}

// advance ends the runs that end until at.
func (s *seer) advance(at time.Time) {
	for {
		var first *foreseenRun
		for _, r := range s.going {
			if !r.begun.IsZero() && !r.ends.After(at) && (first == nil || r.ends.Before(first.ends)) {
				first = r
			}
		}
		if first == nil {
			return
		}
		s.end(first, first.ends, first.status)
	}
}

func (s *seer) end(r *foreseenRun, at time.Time, status loom.Status) {
	r.ends, r.status, r.over = at, status, true
	s.going = slices.DeleteFunc(s.going, func(o *foreseenRun) bool { return o == r })
	if !r.begun.IsZero() {
		s.endings = append(s.endings, ending{at, status})
	}
	if s.open {
		s.next(at)
	}
}

// next begins what may begin.
func (s *seer) next(at time.Time) {
	for _, r := range slices.Clone(s.going) {
		alone := !slices.ContainsFunc(s.going, func(o *foreseenRun) bool { return !o.begun.IsZero() })
		if r.begun.IsZero() && !r.over && (alone || s.job.Overlap == loom.OverlapAllow) {
			s.begin(r, at)
		}
	}
}

func (s *seer) begin(r *foreseenRun, at time.Time) {
	r.begun, r.ends, r.status = at, at.Add(s.lasts), loom.StatusOK
	if s.fails {
		r.status = loom.StatusFailed
	}
	queued := r.queued.Truncate(time.Millisecond)
	if within := s.job.Missed.Within; within > 0 && queued.Before(s.here.Truncate(time.Millisecond)) && at.Sub(queued) > within {
		s.end(r, at, loom.StatusCancelled) // it waited for too long while nobody was there
		return
	}
	if !r.ends.After(at) {
		s.end(r, at, r.status)
	}
}

func (s *seer) cancel(r *foreseenRun, at time.Time) {
	if r.told {
		return
	}
	r.told = true
	switch last := at.Add(abandoned); {
	case !s.stubborn:
		r.ends, r.status = at, loom.StatusCancelled
	case r.ends.After(last):
		r.ends, r.status = last, loom.StatusCancelled
	}
}

// arrive is the beginning of a session: what was left is dealt with, then what
// was missed.
func (s *seer) arrive(now time.Time, due []time.Time) []time.Time {
	s.here = now
	left := slices.Clone(s.going)
	for _, r := range left {
		if !r.begun.IsZero() {
			s.end(r, now, loom.StatusLost)
		}
	}
	s.open = true
	s.next(now)
	for len(s.follow) > 0 && !s.follow[0].at.After(now) {
		s.followed(s.follow[0], true)
		s.follow = s.follow[1:]
	}
	if s.reboot && !s.paused(now) {
		s.fire(loom.TriggerSchedule, now, now)
	}

	n := 0
	for n < len(due) && !due[n].Add(s.jitter).After(now) {
		n++
	}
	missed := s.job.Missed
	old := func(t time.Time) bool { return missed.Within > 0 && now.Sub(t.Add(s.jitter)) > missed.Within }
	made := map[time.Time]bool{}
	most := 1
	if missed.Policy == loom.MissedAll {
		most = mostMadeUp
	}
	for _, t := range slices.Backward(due[:n]) {
		if missed.Policy != loom.MissedSkip && len(made) < most && !old(t) && !s.blacked(t) {
			made[t] = true
		}
	}
	for _, t := range due[:n] {
		switch {
		case s.blacked(t):
			s.ticks = append(s.ticks, foreseen{t, loom.OutcomeSkipped, nil})
		case !made[t]:
			s.ticks = append(s.ticks, foreseen{t, loom.OutcomeMissed, nil})
		case s.paused(t):
			s.ticks = append(s.ticks, foreseen{t, loom.OutcomePaused, nil})
		default:
			s.ticks = append(s.ticks, foreseen{t, loom.OutcomeLate, s.fire(loom.TriggerCatchUp, now, now)})
		}
	}
	return due[n:]
}

// tick is one that falls while somebody is there.
func (s *seer) tick(due, at time.Time) {
	switch {
	case s.blacked(due):
		s.ticks = append(s.ticks, foreseen{due, loom.OutcomeSkipped, nil})
	case s.paused(due):
		s.ticks = append(s.ticks, foreseen{due, loom.OutcomePaused, nil})
	default:
		run := s.fire(loom.TriggerSchedule, at, at)
		if run == nil {
			s.ticks = append(s.ticks, foreseen{due, loom.OutcomeSkipped, nil})
			return
		}
		s.ticks = append(s.ticks, foreseen{due, loom.OutcomeRan, run})
	}
}

// followed is the end of a run of another job.
func (s *seer) followed(e ending, open bool) {
	if !follows(s.job.After[0].On, e.status) {
		return
	}
	s.advance(e.at)
	s.obey(e.at)
	if s.paused(e.at) {
		return
	}
	was := s.open
	s.open = open
	s.fire(loom.TriggerAfter, e.at, e.at)
	s.open = was
}

// fire starts a run, or has it wait, or returns nil.
func (s *seer) fire(trigger loom.Trigger, due, at time.Time) *foreseenRun {
	waits := slices.ContainsFunc(s.going, func(r *foreseenRun) bool { return r.begun.IsZero() })
	busy := len(s.going) > 0
	r := &foreseenRun{trigger: trigger, queued: at, status: loom.StatusQueued}
	switch {
	case s.job.Overlap == loom.OverlapAllow, !busy, trigger == loom.TriggerCatchUp:
	case s.job.Overlap == loom.OverlapQueue && !waits:
	case s.job.Overlap == loom.OverlapReplace:
		for _, o := range slices.Clone(s.going) {
			if !o.begun.IsZero() {
				s.cancel(o, at)
				continue
			}
			s.end(o, at, loom.StatusCancelled)
			for i := range s.ticks {
				if s.ticks[i].run == o {
					s.ticks[i].outcome = loom.OutcomeSuperseded
				}
			}
		}
	default:
		return nil
	}
	s.runs, s.going = append(s.runs, r), append(s.going, r)
	s.advance(at)
	if s.open {
		s.next(at)
	}
	return r
}

func follows(on loom.AfterOn, end loom.Status) bool {
	good := end == loom.StatusOK
	switch on {
	case loom.AfterAny:
		return true
	case loom.AfterFailed:
		return !good && end != loom.StatusCancelled
	}
	return good
}
