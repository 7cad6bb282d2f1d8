package loom

import (
	"cmp"
	"fmt"
	"iter"
	"time"
)

// mostCaughtUp is how many missed ticks of a job are made up for with the policy
// all.
const mostCaughtUp = 100

// A gap is a time in which ticks could not be acted on.
type gap struct {
	from, to time.Time
	what     string // why, as the beginning of a sentence
	all      bool   // no tick in it is acted on as if nothing had been
	lost     bool   // and none is made up for
}

func (g gap) String() string {
	if g.from.IsZero() {
		return fmt.Sprintf("%s until %s", g.what, clockTime(g.to))
	}
	return fmt.Sprintf("%s from %s to %s", g.what, clockTime(g.from), clockTime(g.to))
}

func clockTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// late says why a tick that was to start at t and is acted on at now is late, or
// returns "" if it counts as on time.
func (g gap) late(t, now time.Time) string {
	in := !t.After(g.to)
	switch {
	case in && g.all, in && now.Sub(t) > slightlyLate:
		return g.String()
	case now.Sub(t) > slightlyLate:
		return "nothing was acted on until " + clockTime(now)
	}
	return ""
}

// firings says what to do about the ticks of a job that fell by now, in their
// order: consecutive ones of the same fate that have no run are one firing.
// s.mu is held.
func (s *Scheduler) firings(e *entry, now time.Time) []Firing {
	var all []Firing
	from := s.catchUpFrom(e, now)
	last := e.last
	for tick := range e.fell(now) {
		f := Firing{Job: e.job.Name, Due: tick, After: last, Overlap: e.job.Overlap, Claim: true}
		f.Outcome, f.Why = s.fate(e, tick, now, from)
		repeated := !tick.After(e.last) // it has an outcome, from before the clock went back
		switch n := len(all) - 1; {
		case f.Outcome.Runs():
			trigger := TriggerSchedule
			if f.Outcome == OutcomeLate {
				trigger = TriggerCatchUp
			}
			f.Run = s.newRun(e.job, tick, trigger)
			if repeated {
				f.Due, f.After, f.Outcome, f.Why = time.Time{}, time.Time{}, "", ""
			}
			all = append(all, f)
		case repeated:
		case n >= 0 && all[n].Outcome == f.Outcome && all[n].Why == f.Why:
			all[n].Until = tick
			all[n].Ticks++
		default:
			f.Until, f.Ticks = tick, 1
			all = append(all, f)
		}
		if !repeated {
			last = tick
		}
	}
	return all
}

// fell yields the ticks of a job that are to be acted on by now.
func (e *entry) fell(now time.Time) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		for tick := e.next; !tick.IsZero() && !tick.Add(e.jitter).After(now); {
			if !yield(tick) {
				return
			}
			next := e.when.Next(tick)
			if !next.IsZero() && !next.After(tick) {
				return // plan will say so
			}
			tick = next
		}
	}
}

// fate says what becomes of a tick. Of late ones, those from `from` on are made
// up for.
func (s *Scheduler) fate(e *entry, tick, now, from time.Time) (Outcome, string) {
	if why := e.job.Blackout(tick); why != "" {
		return OutcomeSkipped, why
	}
	late := s.gap.late(tick.Add(e.jitter), now)
	m := e.job.Missed
	switch {
	case late == "":
		return OutcomeRan, ""
	case s.gap.lost && !tick.After(s.gap.to):
		return OutcomeMissed, late
	case m.Policy == MissedSkip:
		return OutcomeMissed, late + ", and the job lets missed ticks go"
	case m.Within > 0 && now.Sub(tick.Add(e.jitter)) > m.Within:
		return OutcomeMissed, fmt.Sprintf("%s, and it was due more than %v before", late, m.Within)
	case from.IsZero() || tick.Before(from):
		return OutcomeMissed, late + ", and a later one makes up for it"
	}
	return OutcomeLate, late
}

// catchUpFrom returns the first of the late ticks that are made up for, or zero
// if none is.
func (s *Scheduler) catchUpFrom(e *entry, now time.Time) time.Time {
	most := 1
	if cmp.Or(e.job.Missed.Policy, MissedLatest) == MissedAll {
		most = mostCaughtUp
	}
	var recent []time.Time // the last of those that are late and not too old
	for tick := range e.fell(now) {
		if s.gap.late(tick.Add(e.jitter), now) == "" {
			break // nor are the following
		}
		tooOld := e.job.Missed.Within > 0 && now.Sub(tick.Add(e.jitter)) > e.job.Missed.Within
		if !tooOld && e.job.Blackout(tick) == "" {
			if recent = append(recent, tick); len(recent) > most {
				recent = recent[1:]
			}
		}
	}
	if len(recent) == 0 {
		return time.Time{}
	}
	return recent[0]
}

// newRun makes the run that a firing asks for. s.mu is held.
func (s *Scheduler) newRun(j *Job, due time.Time, why Trigger) Run {
	d := draft{j.Name, due}
	if s.drafts[d] == "" {
		s.drafts[d] = newID(time.Now())
	}
	return Run{ID: s.drafts[d], Job: j.Name, Due: due, Trigger: why, Nodes: len(j.Targets)}
}
