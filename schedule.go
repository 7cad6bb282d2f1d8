package loom

import (
	"errors"
	"time"
)

// A Schedule says when a job is due. It is safe for concurrent use.
//
// A Schedule may also have a method Interval() bool. It tells an interval job,
// which follows the clock as it is and runs again where a stepped clock repeats
// an hour, from a job of fixed times, which does not. Without the method it
// counts as an interval job.
type Schedule interface {
	// Next returns the first time strictly after t at which the job is due, or
	// the zero Time if there is none.
	Next(t time.Time) time.Time
}

// ParseSchedule parses a cron expression, "@every 5m" or another macro, in loc
// (nil: UTC). It refuses an expression that is never due, and says what to
// write instead.
func ParseSchedule(expr string, loc *time.Location) (Schedule, error) {
	return nil, errors.New("soon")
}

// Schedules is due whenever one of them is.
type Schedules []Schedule

// Next returns the earliest of the schedules' next times.
func (ss Schedules) Next(t time.Time) time.Time {
	var first time.Time
	for _, s := range ss {
		if n := s.Next(t); !n.IsZero() && (first.IsZero() || n.Before(first)) {
			first = n
		}
	}
	return first
}

// Interval reports whether all of them are interval schedules.
func (ss Schedules) Interval() bool {
	for _, s := range ss {
		if !isInterval(s) {
			return false
		}
	}
	return true
}

// An At is due once.
type At time.Time

// Next returns the time itself until it is there.
func (a At) Next(t time.Time) time.Time {
	if at := time.Time(a); at.After(t) {
		return at
	}
	return time.Time{}
}

// Interval reports false: an At does not happen again when the clock goes back.
func (At) Interval() bool { return false }

func (a At) String() string { return time.Time(a).Format(time.RFC3339) }

func isInterval(s Schedule) bool {
	i, ok := s.(interface{ Interval() bool })
	return !ok || i.Interval()
}

// firesAtStart reports whether s is, or holds, "@reboot".
func firesAtStart(s Schedule) bool {
	switch s := s.(type) {
	case Schedules:
		for _, one := range s {
			if firesAtStart(one) {
				return true
			}
		}
	case interface{ Reboot() bool }:
		return s.Reboot()
	}
	return false
}

// when returns all that makes the job due by time, or nil.
func (j *Job) when() Schedule {
	switch {
	case j.Disabled:
		return nil
	case j.At.IsZero():
		return j.Schedule
	case j.Schedule == nil:
		return At(j.At)
	}
	return Schedules{j.Schedule, At(j.At)}
}
