package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustinlacewell/loom/internal/bind"
)

// A moment is what a person means by a text such as 02:30: a time as exact as it
// was written, so that 02:30 is that whole minute and 2027-03-28 that whole day.
type moment struct {
	spans []span
	rough bool   // it was counted from now, so that nobody means that very second
	note  string // the clock of the zone never showed this time, or showed it twice
}

// A span is the time from one moment until before another.
type span struct{ from, to time.Time }

// timeLayouts are how a time can be written, with how exact each is.
func timeLayouts() []struct {
	layout string
	exact  time.Duration
} {
	return []struct {
		layout string
		exact  time.Duration
	}{
		{time.RFC3339, time.Second},
		{time.DateTime, time.Second},
		{"2006-01-02T15:04:05", time.Second},
		{"2006-01-02 15:04", time.Minute},
		{"2006-01-02T15:04", time.Minute},
		{time.DateOnly, 24 * time.Hour},
	}
}

// parseMoment reads what a person wrote: what parseTime does, a time of the day,
// today, yesterday or tomorrow with one, now, or how long ago (-2h, "2h ago") or
// ahead (+2h, "in 2h") it is.
func parseMoment(s string, loc *time.Location, now time.Time) (moment, error) {
	if loc == nil {
		loc = time.Local
	}
	now = now.In(loc)
	s = strings.TrimSpace(s)
	if d, ok := distance(s); ok {
		at := now.Add(d).Truncate(time.Second)
		return moment{spans: []span{{at, at.Add(time.Second)}}, rough: true}, nil
	}
	text := s
	day, rest, _ := strings.Cut(s, " ")
	if shift, ok := map[string]int{"today": 0, "yesterday": -1, "tomorrow": 1}[day]; ok {
		text = strings.TrimSpace(now.AddDate(0, 0, shift).Format(time.DateOnly) + " " + strings.TrimSpace(rest))
	} else if clockText(s) {
		text = now.Format(time.DateOnly) + " " + s
	}
	if date, clock, ok := strings.Cut(text, " "); ok && len(clock) > 1 && clock[1] == ':' {
		text = date + " 0" + clock // 2:30
	}
	for _, l := range timeLayouts() {
		wall, err := time.Parse(l.layout, text)
		if err != nil {
			continue
		}
		if l.layout == time.RFC3339 {
			return moment{spans: []span{{wall.In(loc), wall.In(loc).Add(time.Second)}}}, nil
		}
		if l.exact > time.Hour {
			from := time.Date(wall.Year(), wall.Month(), wall.Day(), 0, 0, 0, 0, loc)
			to := time.Date(wall.Year(), wall.Month(), wall.Day()+1, 0, 0, 0, 0, loc)
			return moment{spans: []span{{from, to}}}, nil
		}
		return onClock(wall, l.exact, loc), nil
	}
	return moment{}, fmt.Errorf("%q is not a time: write one such as 02:30, \"yesterday 02:30\", -2h, 2027-03-28, \"2027-03-28 01:30\" or 2027-03-28T01:30:00Z", s)
}

// clockText reports whether s is a time of the day.
func clockText(s string) bool {
	for _, layout := range []string{"15:04", "15:04:05"} {
		if _, err := time.Parse(layout, s); err == nil {
			return true
		}
	}
	return false
}

// distance reads how far from now a moment is.
func distance(s string) (time.Duration, bool) {
	sign := time.Duration(1)
	rest, ok := strings.CutPrefix(s, "+")
	switch {
	case s == "now":
		return 0, true
	case ok:
	case strings.HasPrefix(s, "-"):
		rest, sign = s[1:], -1
	case strings.HasPrefix(s, "in "):
		rest = s[len("in "):]
	case strings.HasSuffix(s, " ago"):
		rest, sign = strings.TrimSuffix(s, " ago"), -1
	default:
		return 0, false
	}
	d, err := bind.ParseDuration(strings.ReplaceAll(rest, " ", ""))
	return sign * d, err == nil
}

// onClock returns when the clock of a zone shows what wall shows in UTC: once,
// twice, or never, if it is set ahead over it. Then that is the moment meant.
func onClock(wall time.Time, exact time.Duration, loc *time.Location) moment {
	const format = time.DateTime
	shown := wall.Format(format)
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
	if t.Format(format) != shown {
		start, end := t.ZoneBounds()
		at := end // t is before the gap
		if t.Format(format) > shown {
			at = start
		}
		return moment{spans: []span{{at, at.Add(time.Second)}},
			note: fmt.Sprintf("%s does not exist in %s: the clock is set ahead over it, to %s", shown, loc, at.Format("15:04"))}
	}
	m := moment{spans: []span{{t, t.Add(exact)}}}
	for _, shift := range []time.Duration{-2 * time.Hour, -time.Hour, -30 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour} {
		other := t.Add(shift)
		if other.Format(format) != shown {
			continue
		}
		m.note = fmt.Sprintf("%s occurs twice in %s, as the clock is set back", shown, loc)
		if both := (span{other, other.Add(exact)}); shift < 0 {
			m.spans = append([]span{both}, m.spans...)
		} else {
			m.spans = append(m.spans, both)
		}
	}
	return m
}

// parseSince reads a time for a flag. A bare duration such as 2h is so long ago,
// or ahead if the flag is about what is to come.
func parseSince(flag, s string, loc *time.Location, now time.Time, ahead bool) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := bind.ParseDuration(s); err == nil && d > 0 {
		if ahead {
			return now.Add(d), nil
		}
		return now.Add(-d), nil
	}
	m, err := parseMoment(s, loc, now)
	if err != nil && ahead {
		return time.Time{}, Usage("--%s: %q is not a time: write one such as 2h or 90d (from now), 02:30, \"tomorrow 02:30\", 2027-03-28, \"2027-03-28 01:30\" or 2027-03-28T01:30:00Z", flag, s)
	}
	if err != nil {
		return time.Time{}, Usage("--%s: %w", flag, err)
	}
	return m.spans[0].from, nil
}

// pastTimes makes an argument such as -2h one that is not taken for flags, where
// a command takes a time.
func pastTimes(args []string) []string {
	const command = "why"
	taken := false
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		if _, ok := distance(a); taken && ok && strings.HasPrefix(a, "-") {
			out[i] = strings.TrimPrefix(a, "-") + " ago"
		}
		taken = taken || a == command
	}
	return out
}
