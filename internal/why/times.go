package why

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// timesOf returns all that makes a job due by time, or nil; also of a job that is
// not in the manifest.
func timesOf(j *loom.Job) loom.Schedule {
	if j == nil {
		return nil
	}
	return j.Times()
}

// fires reports whether a schedule, which may be nil, fires at t.
func fires(s loom.Schedule, t time.Time) bool {
	return s != nil && s.Next(t.Add(-time.Nanosecond)).Equal(t)
}

// next is the schedule's next time after t, or zero.
func next(s loom.Schedule, t time.Time) time.Time {
	if s == nil {
		return time.Time{}
	}
	if n := s.Next(t); n.After(t) {
		return n
	}
	return time.Time{}
}

// Previous returns the last time before t, and not before a few years earlier, at
// which a schedule fired, or zero.
func Previous(s loom.Schedule, t time.Time) time.Time {
	const most = 100_000 // of a schedule that fires in bursts
	for back := time.Minute; back < 9*366*24*time.Hour; back *= 2 {
		at := next(s, t.Add(-back))
		if at.IsZero() || !at.Before(t) {
			continue
		}
		for range most {
			later := next(s, at)
			if later.IsZero() || !later.Before(t) {
				return at
			}
			at = later
		}
		return at
	}
	return time.Time{}
}

// Between returns the times at which a schedule fires from one moment until
// before another, and whether there are more than most.
func Between(s loom.Schedule, from, to time.Time, most int) (times []time.Time, more bool) {
	for t := next(s, from.Add(-time.Nanosecond)); !t.IsZero() && t.Before(to); t = next(s, t) {
		if len(times) == most {
			return times, true
		}
		times = append(times, t)
	}
	return times, false
}

// ScheduleWords are what makes a job due by time, as the manifest has it.
func ScheduleWords(j *loom.Job) []string {
	var words []string
	var add func(s loom.Schedule)
	add = func(s loom.Schedule) {
		switch s := s.(type) {
		case nil:
		case loom.Schedules:
			for _, one := range s {
				add(one)
			}
		case fmt.Stringer:
			words = append(words, s.String())
		default:
			words = append(words, fmt.Sprintf("%T", s))
		}
	}
	add(timesOf(j))
	return words
}

// scheduleText is a schedule as the manifest has it, in a sentence.
func scheduleText(j *loom.Job) string {
	words := ScheduleWords(j)
	for i, w := range words {
		words[i] = strconv.Quote(w)
	}
	text := strings.Join(words, " and ")
	if j.Timezone != nil && j.Timezone != time.Local {
		text += " (" + j.Timezone.String() + ")"
	}
	return text
}

// Never says why a job has no ticks after now, or returns "".
func Never(j *loom.Job, now time.Time) string {
	s := j.Times()
	switch {
	case j.Disabled:
		return "disabled, so its schedule does not fire it"
	case s == nil && len(j.After) > 0:
		return "no times of its own: it runs after other jobs"
	case s == nil:
		return "runs only by hand"
	case loom.FiresAtStart(s) && s.Next(now).IsZero():
		return "runs when the daemon starts"
	case s.Next(now).IsZero():
		return "is over: it will not run again"
	}
	return ""
}
