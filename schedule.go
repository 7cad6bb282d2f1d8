package loom

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones are there even where the system has none

	"github.com/dustinlacewell/loom/internal/cron"
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

// ParseSchedule parses a cron expression as crontab(5) has them, in loc (nil:
// UTC): five fields, six with seconds first, or seven with a year last; the
// macros @hourly, @daily and so on; "@every 90s", counted from a fixed time; and
// "@reboot", when Loom starts. L, W and # stand for last days, nearest weekdays
// and n-th weekdays. It refuses an expression that is never due, and says what
// to write instead.
//
// Where the clock changes for daylight saving, a job whose minute or hour field
// begins with * follows the clock as it passes. Every other one runs exactly
// once for each of its times: at the end of the gap if the time is missing that
// day, and in the first pass if it comes twice (cron(8)).
func ParseSchedule(expr string, loc *time.Location) (Schedule, error) {
	if loc == nil {
		loc = time.UTC
	}
	s, err := cron.Parse(expr, loc)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Explain says what is unusual about a time at which s is due: that the time
// it stands for doesn't exist that day, or comes twice. It returns "" for an
// ordinary one.
func Explain(s Schedule, t time.Time) string {
	switch s := s.(type) {
	case *cron.Schedule:
		return s.Explain(t)
	case Schedules:
		for _, one := range s {
			if one.Next(t.Add(-time.Nanosecond)).Equal(t) {
				return Explain(one, t)
			}
		}
	}
	return ""
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

// String names all of them, so that lists of different schedules differ.
func (ss Schedules) String() string {
	names := make([]string, len(ss))
	for i, s := range ss {
		if named, ok := s.(fmt.Stringer); ok {
			names[i] = named.String()
		} else {
			names[i] = fmt.Sprintf("%T", s)
		}
	}
	return strings.Join(names, ", ")
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

// FiresAtStart reports whether s is, or holds, "@reboot": it is due when Loom
// starts.
func FiresAtStart(s Schedule) bool {
	switch s := s.(type) {
	case Schedules:
		return slices.ContainsFunc(s, FiresAtStart)
	case interface{ Reboot() bool }:
		return s.Reboot()
	}
	return false
}

// when returns what fires the job by time, or nil.
func (j *Job) when() Schedule {
	if j.Disabled {
		return nil
	}
	return j.Times()
}

// Times returns all that makes the job due by time, also if it is disabled: its
// Schedule and its At. It is nil if there is neither.
func (j *Job) Times() Schedule {
	switch {
	case j.At.IsZero():
		return j.Schedule
	case j.Schedule == nil:
		return At(j.At)
	}
	return Schedules{j.Schedule, At(j.At)}
}
