package cron

import (
	"strings"
	"testing"
	"time"
)

// FuzzParse: whatever the text, Parse answers with a sentence or with a
// schedule whose ticks increase and do not depend on case or spacing.
func FuzzParse(f *testing.F) {
	for _, expr := range []string{"* * * * *", "*/5 9-17 * * MON-FRI", "0 22-2 * * *", "0 0 L,15W jan-mar 5#2,FRIL", "@every 90s", "@daily", "0 0 30 2 *",
		"*/10 * * * * *", "0 0 0 1 1 * 2030-2040/3", "0-59,99 * * * *", "MON * * * *", "1,2/3,4-5/6 * * * *", "0 0 L-3,LW * *", "", "\x00", "TZ=UTC * * * * *"} {
		f.Add(expr, int64(1_774_748_000))
	}
	f.Fuzz(func(t *testing.T, expr string, unix int64) {
		s, err := Parse(expr, time.UTC)
		if err != nil {
			if message := err.Error(); len(message) < 10 || strings.ContainsAny(message, "\n\t\x00") {
				t.Fatalf("Parse(%q): error %q", expr, message)
			}
			return
		}
		if len(expr) > MaxLen || strings.TrimSpace(expr) != s.String() {
			t.Fatalf("Parse(%q) is %q", expr, s)
		}
		if s.Next(time.Date(1969, 12, 1, 0, 0, 0, 0, time.UTC)).IsZero() != s.Reboot() {
			t.Fatalf("Parse(%q): never due", expr)
		}
		at := time.Unix(unix%maxUnix, 0)
		same := []*Schedule{s}
		for _, other := range []string{strings.ToUpper(s.String()), strings.ToLower(s.String()), " " + strings.Join(strings.Fields(expr), "\t  ") + "\r\n"} {
			if len(other) > MaxLen {
				continue
			}
			again, err := Parse(other, time.UTC)
			if err != nil {
				t.Fatalf("Parse(%q): %v, but %q is taken", other, err, expr)
			}
			same = append(same, again)
		}
		for range 5 {
			next := s.Next(at)
			for _, again := range same {
				if got := again.Next(at); got != next {
					t.Fatalf("%q: Next(%s) = %s; %q: %s", s, at, next, again, got)
				}
			}
			if next.IsZero() {
				return
			}
			if !next.After(at) || next.Nanosecond() != 0 {
				t.Fatalf("%q: Next(%s) = %s", s, at, next)
			}
			at = next
		}
	})
}

// FuzzNext: any expression, walked past any change of the clocks of any zone,
// is due when the oracle says so.
func FuzzNext(f *testing.F) {
	names := zones(f)
	for i, expr := range []string{"30 2 * * *", "*/20 * * * *", "0 0-4 * * *", "0 0 L * *", "30 23 * * SAT", "*/30 15 2 * * *", "0 */15 1 * * SUN#1,SUNL 1970-2100", "0 0 1,15W * MON", "0 */2 */2 * *"} {
		f.Add(expr, uint16(i+1), uint16(70+i), uint32(i*7000))
	}
	f.Fuzz(func(t *testing.T, expr string, zone, change uint16, before uint32) {
		loc, err := time.LoadLocation(names[int(zone)%len(names)])
		if err != nil {
			t.Skip(err)
		}
		s, err := Parse(expr, loc)
		if err != nil {
			return
		}
		changes := append(transitions(loc, 1840, 2037), 0)
		at := changes[int(change)%len(changes)]
		span := int64(before % (30 * 3600))
		if s.seconds != 1 {
			span %= 3600 // a walk by seconds takes long
		}
		checkWalk(t, s, at-3600-span, at+4*3600)
	})
}
