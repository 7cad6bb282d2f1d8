package loom

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// next tells whether a result is tried again, and after how long. A lost
// result never is: nobody knows whether it happened.
func (r Retries) next(res *Result) (time.Duration, bool) {
	on := r.On
	if len(on) == 0 {
		on = []Status{StatusUnreachable, StatusFailed, StatusTimeout}
	}
	if res.Attempts > r.Attempts || res.Status == StatusLost || !slices.Contains(on, res.Status) {
		return 0, false
	}
	delay := float64(r.Delay)
	if r.Backoff > 0 {
		delay *= math.Pow(r.Backoff, float64(res.Attempts-1))
	}
	most := float64(r.MaxDelay)
	if most <= 0 {
		most = float64(math.MaxInt64 / 2)
	}
	return time.Duration(min(delay, most)), true
}

// size returns how many of rest nodes make up batch i of a run on all nodes.
func (b Batch) size(i, all, rest int) int {
	if len(b.Sizes) == 0 {
		return rest
	}
	return min(b.Sizes[min(i, len(b.Sizes)-1)].of(all, true), rest)
}

// of returns the share of n nodes: rounded up and at least one if it says how
// many are worked on, rounded down if it is a limit.
func (s Share) of(n int, up bool) int {
	switch exact := s.Percent / 100 * float64(n); {
	case s.Percent == 0 && up:
		return max(s.N, 1)
	case s.Percent == 0:
		return s.N
	case up:
		return max(int(math.Ceil(exact)), 1)
	default:
		return int(exact)
	}
}

// of returns the delay for these names: always the same, and spread evenly.
func (j Jitter) of(names ...string) time.Duration {
	if j.Max <= 0 {
		return 0
	}
	h := fnv.New64a()
	for _, n := range names {
		fmt.Fprintf(h, "%q", n)
	}
	// The hash's low bits are mixed best; whole milliseconds are fine enough.
	steps := uint64(j.Max/time.Millisecond) + 1
	return time.Duration(h.Sum64()%steps) * time.Millisecond
}

// covers reports whether t is in the blackout.
func (b Blackout) covers(t time.Time) bool {
	if b.Schedule == nil {
		return !t.Before(b.From) && t.Before(b.To)
	}
	begin := b.Schedule.Next(t.Add(-b.For))
	return !begin.IsZero() && !begin.After(t)
}

// blackout says why the job's schedule must not fire it at t, or returns "".
func (j *Job) blackout(t time.Time) string {
	for _, b := range j.NotDuring {
		switch {
		case !b.covers(t):
		case b.Schedule == nil:
			return fmt.Sprintf("not_during %s to %s", b.From.Format(time.RFC3339), b.To.Format(time.RFC3339))
		default:
			begin := b.Schedule.Next(t.Add(-b.For))
			return fmt.Sprintf("not_during %v for %v, which began at %s", b.Schedule, b.For, begin.Format(time.RFC3339))
		}
	}
	return ""
}

// follows reports whether the end of a run of another job fires j.
func (j *Job) follows(other string, end Status) bool {
	return slices.ContainsFunc(j.After, func(a After) bool {
		if a.Job != other {
			return false
		}
		switch a.On {
		case AfterAny:
			return true
		case AfterFailed:
			return !end.Good() && end != StatusCancelled
		default:
			return end.Good()
		}
	})
}
