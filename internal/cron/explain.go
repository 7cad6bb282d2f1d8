package cron

import (
	"fmt"
	"time"
)

// Explain says why s is due at t when daylight saving, or another change of the
// clocks, has a part in it: that a time does not exist on the day and is made
// up for at t, or that it occurs twice and which of the two t is. It returns ""
// for an ordinary time, and for one that is not due at all.
func (s *Schedule) Explain(t time.Time) string {
	u := t.Unix()
	if s.every > 0 || !s.Next(time.Unix(u-1, 0)).Equal(t) {
		return ""
	}
	z := zoneAt(s.loc, u)
	if u-z.start < maxShift {
		shift := z.shift(s.loc)
		switch {
		case shift > 0 && !s.interval && u == z.start:
			return s.explainGap(z, shift)
		case shift < 0 && u < z.start-shift:
			return s.explainRepeated(u+z.offset, "this is the second time")
		}
	}
	if z.end-u <= maxShift {
		shift := zoneAt(s.loc, z.end).shift(s.loc)
		switch {
		case shift >= 0 || u < z.end+shift:
		case s.interval:
			return s.explainRepeated(u+z.offset, "this is the first time")
		default:
			return s.explainRepeated(u+z.offset, "runs the first time only")
		}
	}
	return ""
}

// explainGap lists the due times that were skipped when z began.
func (s *Schedule) explainGap(z zone, shift int64) string {
	var first, last int64
	n := 0
	for local := z.start + z.offset - shift; ; local = last + 1 {
		due, ok := s.nextLocal(local)
		if !ok || due >= z.start+z.offset {
			break
		}
		if n++; n == 1 {
			first = due
		}
		last = due
	}
	times := clockText(first)
	does := "does"
	switch {
	case n == 0:
		return ""
	case n == 2:
		times, does = times+" and "+clockText(last), "do"
	case n > 2:
		times, does = fmt.Sprintf("%d times from %s to %s", n, times, clockText(last)), "do"
	}
	at := clockText(z.start + z.offset)
	if dateText(first) != dateText(z.start+z.offset) {
		at += " on " + dateText(z.start+z.offset)
	}
	return fmt.Sprintf("%s %s not exist on %s in %s; runs at %s", times, does, dateText(first), s.place(), at)
}

func (s *Schedule) explainRepeated(local int64, which string) string {
	return fmt.Sprintf("%s occurs twice on %s in %s; %s", clockText(local), dateText(local), s.place(), which)
}

func (s *Schedule) place() string {
	if s.loc == time.Local {
		return "the local zone"
	}
	return s.loc.String()
}

func clockText(local int64) string {
	t := time.Unix(local, 0).UTC()
	if t.Second() != 0 {
		return t.Format(time.TimeOnly)
	}
	return t.Format("15:04")
}

func dateText(local int64) string { return time.Unix(local, 0).UTC().Format(time.DateOnly) }
