package cron

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adhocore/gronx"
)

func mustParse(tb testing.TB, expr string, loc *time.Location) *Schedule {
	tb.Helper()
	s, err := Parse(expr, loc)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func mustZone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		tb.Fatal(err)
	}
	return loc
}

// Wall-clock times with the offset, so that a table row says which pass it is.
const wall = "2006-01-02 15:04:05 -0700"

// run returns the ticks after from, up to and including to, in that notation
// without what is the same everywhere.
func run(t *testing.T, s *Schedule, from, to string) []string {
	t.Helper()
	at, err := time.Parse(wall, from)
	if err != nil {
		t.Fatal(err)
	}
	end, err := time.Parse(wall, to)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for next := s.Next(at); !next.IsZero() && !next.After(end); next = s.Next(next) {
		if next.Location() != s.Location() {
			t.Fatalf("Next(%s) is in %s, want %s", at, next.Location(), s.Location())
		}
		out = append(out, next.Format("02 15:04-07:00"))
		if len(out) > 40 {
			t.Fatalf("more than 40 ticks: %q", out)
		}
	}
	return out
}

// TestDST has the days on which clocks are changed, by rules S1 to S6.
func TestDST(t *testing.T) {
	const (
		nyGap      = "2026-03-08 00:59:59 -0500|2026-03-08 04:59:59 -0400"
		nyFold     = "2026-11-01 00:29:59 -0400|2026-11-01 03:30:00 -0500"
		londonGap  = "2026-03-29 00:29:59 +0000|2026-03-29 03:00:00 +0100"
		londonFold = "2026-10-25 00:29:59 +0100|2026-10-25 02:30:00 +0000"
		berlinGap  = "2026-03-29 00:59:59 +0100|2026-03-29 04:59:59 +0200"
		berlinFold = "2026-10-25 01:29:59 +0200|2026-10-25 03:59:59 +0100"
		howeGap    = "2026-10-04 01:29:59 +1030|2026-10-04 03:30:00 +1100"
		howeFold   = "2026-04-05 00:59:59 +1100|2026-04-05 03:00:00 +1030"
		chileGap   = "2026-09-05 22:59:59 -0400|2026-09-06 02:00:00 -0300"
		havanaGap  = "2026-03-07 22:59:59 -0500|2026-03-08 02:00:00 -0400"
		azoresGap  = "2026-03-28 22:59:59 -0100|2026-03-29 02:00:00 +0000"
		paulo2018  = "2018-11-03 22:59:59 -0300|2018-11-04 02:00:00 -0200"
		nuukGap    = "2026-03-28 21:59:59 -0200|2026-03-29 01:00:00 -0100"
		apia2011   = "2011-12-29 22:59:59 -1000|2011-12-31 01:00:00 +1400"
		moroccoEnd = "2026-02-15 01:29:59 +0100|2026-02-15 04:00:00 +0000"
		moroccoBeg = "2026-03-22 00:59:59 +0000|2026-03-22 04:00:00 +0100"
	)
	tests := []struct {
		zone, span, expr string
		want             string
	}{
		// New York, the gap 02:00 to 03:00.
		{"America/New_York", nyGap, "30 2 * * *", "08 03:00-04:00"},
		{"America/New_York", nyGap, "0 2 * * *", "08 03:00-04:00"},
		{"America/New_York", nyGap, "0,15,30,45 2 * * *", "08 03:00-04:00"},
		{"America/New_York", nyGap, "0 3 * * *", "08 03:00-04:00"},
		{"America/New_York", nyGap, "0 1-4 * * *", "08 01:00-05:00, 08 03:00-04:00, 08 04:00-04:00"},
		{"America/New_York", nyGap, "30 1-4 * * *", "08 01:30-05:00, 08 03:00-04:00, 08 03:30-04:00, 08 04:30-04:00"},
		{"America/New_York", nyGap, "*/15 2 * * *", ""},
		{"America/New_York", nyGap, "30 * * * *", "08 01:30-05:00, 08 03:30-04:00, 08 04:30-04:00"},
		{"America/New_York", nyGap, "0 */2 * * *", "08 04:00-04:00"},
		{"America/New_York", nyGap, "*/30 * * * *", "08 01:00-05:00, 08 01:30-05:00, 08 03:00-04:00, 08 03:30-04:00, 08 04:00-04:00, 08 04:30-04:00"},
		{"America/New_York", nyGap, "15 30 2 * * *", "08 03:00-04:00"},
		{"America/New_York", nyGap, "30 2 * * MON", ""},
		{"America/New_York", nyGap, "30 2 8 * *", "08 03:00-04:00"},
		{"America/New_York", nyGap, "30 2 * * SUN#2", "08 03:00-04:00"},
		{"America/New_York", nyGap, "0 30 2 8 3 * 2026", "08 03:00-04:00"},
		// New York, 01:00 to 02:00 twice.
		{"America/New_York", nyFold, "30 1 * * *", "01 01:30-04:00"},
		{"America/New_York", nyFold, "0 2 * * *", "01 02:00-05:00"},
		{"America/New_York", nyFold, "0 1,2 * * *", "01 01:00-04:00, 01 02:00-05:00"},
		{"America/New_York", nyFold, "30 * * * *", "01 00:30-04:00, 01 01:30-04:00, 01 01:30-05:00, 01 02:30-05:00, 01 03:30-05:00"},
		{"America/New_York", nyFold, "*/30 1 * * *", "01 01:00-04:00, 01 01:30-04:00, 01 01:00-05:00, 01 01:30-05:00"},
		{"America/New_York", nyFold, "0-59/30 1 * * *", "01 01:00-04:00, 01 01:30-04:00"},
		{"America/New_York", nyFold, "0 30 1 1 11 * 2026", "01 01:30-04:00"},
		{"America/New_York", nyFold, "*/30 1 * 11 * * 2026", ""},
		{"America/New_York", nyFold, "0 */30 1 1 11 * 2026", "01 01:00-04:00, 01 01:30-04:00, 01 01:00-05:00, 01 01:30-05:00"},
		// London: gap 01:00 to 02:00; 01:00 to 02:00 twice. gronx loses a pass here.
		{"Europe/London", londonGap, "30 1 * * *", "29 02:00+01:00"},
		{"Europe/London", londonGap, "*/30 * * * *", "29 00:30+00:00, 29 02:00+01:00, 29 02:30+01:00, 29 03:00+01:00"},
		{"Europe/London", londonFold, "30 1 * * *", "25 01:30+01:00"},
		{"Europe/London", londonFold, "30 * * * *", "25 00:30+01:00, 25 01:30+01:00, 25 01:30+00:00, 25 02:30+00:00"},
		{"Europe/London", londonFold, "*/30 * * * *", "25 00:30+01:00, 25 01:00+01:00, 25 01:30+01:00, 25 01:00+00:00, 25 01:30+00:00, 25 02:00+00:00, 25 02:30+00:00"},
		// Berlin: gap 02:00 to 03:00; 02:00 to 03:00 twice.
		{"Europe/Berlin", berlinGap, "30 2 * * *", "29 03:00+02:00"},
		{"Europe/Berlin", berlinGap, "@daily", ""},
		{"Europe/Berlin", berlinFold, "30 2 * * *", "25 02:30+02:00"},
		{"Europe/Berlin", berlinFold, "@hourly", "25 02:00+02:00, 25 02:00+01:00, 25 03:00+01:00"},
		// Lord Howe moves by half an hour: gap 02:00 to 02:30; 01:30 to 02:00 twice.
		{"Australia/Lord_Howe", howeGap, "15 2 * * *", "04 02:30+11:00"},
		{"Australia/Lord_Howe", howeGap, "0 2 * * *", "04 02:30+11:00"},
		{"Australia/Lord_Howe", howeGap, "45 2 * * *", "04 02:45+11:00"},
		{"Australia/Lord_Howe", howeGap, "15,30 2 * * *", "04 02:30+11:00"},
		{"Australia/Lord_Howe", howeGap, "*/15 */2 * * *", "04 02:30+11:00, 04 02:45+11:00"},
		{"Australia/Lord_Howe", howeFold, "0 2 * * *", "05 02:00+10:30"},
		{"Australia/Lord_Howe", howeFold, "45 1 * * *", "05 01:45+11:00"},
		{"Australia/Lord_Howe", howeFold, "15 * * * *", "05 01:15+11:00, 05 02:15+10:30"},
		{"Australia/Lord_Howe", howeFold, "45 * * * *", "05 01:45+11:00, 05 01:45+10:30, 05 02:45+10:30"},
		// Gaps at midnight: gronx answers with the same instant for ever.
		{"America/Santiago", chileGap, "0 0 * * *", "06 01:00-03:00"},
		{"America/Santiago", chileGap, "@weekly", "06 01:00-03:00"},
		{"America/Santiago", chileGap, "30 0 * * SUN", "06 01:00-03:00"},
		{"America/Santiago", chileGap, "30 0 * * SAT", ""},
		{"America/Santiago", chileGap, "@hourly", "05 23:00-04:00, 06 01:00-03:00, 06 02:00-03:00"},
		{"America/Havana", havanaGap, "0 0 * * *", "08 01:00-04:00"},
		{"America/Havana", havanaGap, "0 0,1 * * *", "08 01:00-04:00"},
		{"Atlantic/Azores", azoresGap, "0 0 29 * *", "29 01:00+00:00"},
		{"America/Sao_Paulo", paulo2018, "30 0 * * *", "04 01:00-02:00"},
		{"America/Sao_Paulo", paulo2018, "* 0 * * *", ""},
		// A gap that ends at midnight: the day is that of the skipped time.
		{"America/Nuuk", nuukGap, "30 23 * * *", "29 00:00-01:00"},
		{"America/Nuuk", nuukGap, "30 23 28 * *", "29 00:00-01:00"},
		{"America/Nuuk", nuukGap, "30 23 29 * *", ""},
		{"America/Nuuk", nuukGap, "30 23 * * SAT", "29 00:00-01:00"},
		// A whole day left out is not made up.
		{"Pacific/Apia", apia2011, "30 2 * * *", ""},
		{"Pacific/Apia", apia2011, "0 0 30 12 *", ""},
		{"Pacific/Apia", apia2011, "0 0 * * *", "31 00:00+14:00"},
		{"Pacific/Apia", apia2011, "0 * * * *", "29 23:00-10:00, 31 00:00+14:00, 31 01:00+14:00"},
		// Ramadan in Morocco: the offset goes down and up again.
		{"Africa/Casablanca", moroccoEnd, "30 2 * * *", "15 02:30+01:00"},
		{"Africa/Casablanca", moroccoEnd, "30 * * * *", "15 01:30+01:00, 15 02:30+01:00, 15 02:30+00:00, 15 03:30+00:00"},
		{"Africa/Casablanca", moroccoBeg, "30 2 * * *", "22 03:00+01:00"},
	}
	for _, tt := range tests {
		t.Run(tt.zone+" "+tt.expr, func(t *testing.T) {
			from, to, _ := strings.Cut(tt.span, "|")
			s := mustParse(t, tt.expr, mustZone(t, tt.zone))
			if got := strings.Join(run(t, s, from, to), ", "); got != tt.want {
				t.Errorf("ticks %s\nwant  %s", got, tt.want)
			}
		})
	}
}

// TestNext has the vectors without daylight saving, in UTC.
func TestNext(t *testing.T) {
	tests := []struct {
		expr, from string
		want       []string
	}{
		{"* * * * *", "2026-01-01 00:00:00", []string{"2026-01-01 00:01:00", "2026-01-01 00:02:00"}},
		{"* * * * *", "2026-12-31 23:59:59", []string{"2027-01-01 00:00:00"}},
		{"*/5 9-17 * * MON-FRI", "2026-11-20 17:55:00", []string{"2026-11-23 09:00:00", "2026-11-23 09:05:00"}},
		{"10/15 * * * *", "2026-01-01 00:00:00", []string{"2026-01-01 00:10:00", "2026-01-01 00:25:00", "2026-01-01 00:40:00", "2026-01-01 00:55:00", "2026-01-01 01:10:00"}},
		{"0 0 29 2 *", "2024-02-29 00:00:00", []string{"2028-02-29 00:00:00"}},
		{"0 0 29 2 *", "2096-02-29 00:00:00", []string{"2104-02-29 00:00:00"}},
		{"0 0 29 2 */7", "2026-01-01 00:00:00", []string{"2032-02-29 00:00:00", "2060-02-29 00:00:00", "2088-02-29 00:00:00", "2128-02-29 00:00:00"}},
		{"0 0 31 * *", "2026-08-31 00:00:00", []string{"2026-10-31 00:00:00", "2026-12-31 00:00:00"}},
		{"0 12 1,15 * MON", "2026-06-01 12:00:00", []string{"2026-06-08 12:00:00", "2026-06-15 12:00:00", "2026-06-22 12:00:00", "2026-06-29 12:00:00", "2026-07-01 12:00:00"}},
		// A day field that begins with "*" leaves the other one to decide.
		{"0 0 */2 * MON", "2026-01-01 00:00:00", []string{"2026-01-05 00:00:00", "2026-01-19 00:00:00", "2026-02-09 00:00:00"}},
		{"0 0 13 * *,MON", "2026-01-01 00:00:00", []string{"2026-01-13 00:00:00", "2026-02-13 00:00:00"}},
		{"0 0 13 * MON,*", "2026-01-01 00:00:00", []string{"2026-01-02 00:00:00", "2026-01-03 00:00:00"}},
		{"0 0 13 * 0-6", "2026-01-01 00:00:00", []string{"2026-01-02 00:00:00"}},
		// Sunday has two numbers.
		{"0 0 * * 7", "2026-01-01 00:00:00", []string{"2026-01-04 00:00:00"}},
		{"0 0 * * 5-7", "2026-01-01 00:00:00", []string{"2026-01-02 00:00:00", "2026-01-03 00:00:00", "2026-01-04 00:00:00", "2026-01-09 00:00:00"}},
		{"0 0 * * FRI-SUN", "2026-01-01 00:00:00", []string{"2026-01-02 00:00:00", "2026-01-03 00:00:00", "2026-01-04 00:00:00", "2026-01-09 00:00:00"}},
		{"0 0 * * MON-SUN/2", "2026-01-04 00:00:00", []string{"2026-01-05 00:00:00", "2026-01-07 00:00:00", "2026-01-09 00:00:00", "2026-01-11 00:00:00"}},
		{"0 0 * * 1/2", "2026-01-04 00:00:00", []string{"2026-01-05 00:00:00", "2026-01-07 00:00:00", "2026-01-09 00:00:00", "2026-01-12 00:00:00"}},
		{"0 0 * * SUN-SUN", "2026-01-01 00:00:00", []string{"2026-01-04 00:00:00", "2026-01-11 00:00:00"}},
		// Seconds and years.
		{"*/20 * * * * *", "2026-01-01 00:00:00", []string{"2026-01-01 00:00:20", "2026-01-01 00:00:40", "2026-01-01 00:01:00"}},
		{"30 15 4 * * *", "2026-01-01 04:15:30", []string{"2026-01-02 04:15:30"}},
		{"0 0 0 1 1 * 2028-2032/2", "2026-01-01 00:00:00", []string{"2028-01-01 00:00:00", "2030-01-01 00:00:00", "2032-01-01 00:00:00", ""}},
		{"0 0 0 1 1 * 2030", "2030-01-01 00:00:00", []string{""}},
		{"59 59 23 31 12 * 2199", "0001-01-01 00:00:00", []string{"2199-12-31 23:59:59", ""}},
		{"0 0 0 1 1 * 2198/1", "2026-01-01 00:00:00", []string{"2198-01-01 00:00:00", "2199-01-01 00:00:00", ""}},
		// L, W and #.
		{"0 0 L * *", "2026-01-31 00:00:00", []string{"2026-02-28 00:00:00", "2026-03-31 00:00:00"}},
		{"0 0 L 2 *", "2026-03-01 00:00:00", []string{"2027-02-28 00:00:00", "2028-02-29 00:00:00"}},
		{"0 0 LW * *", "2026-01-01 00:00:00", []string{"2026-01-30 00:00:00", "2026-02-27 00:00:00", "2026-03-31 00:00:00"}},
		{"0 0 l-3 * *", "2026-01-01 00:00:00", []string{"2026-01-28 00:00:00", "2026-02-25 00:00:00"}},
		{"0 0 L-30 * *", "2026-01-01 00:00:00", []string{"2026-03-01 00:00:00", "2026-05-01 00:00:00"}},
		{"0 0 1W * *", "2026-08-01 00:00:00", []string{"2026-08-03 00:00:00", "2026-09-01 00:00:00"}},
		{"0 0 31W * *", "2026-05-01 00:00:00", []string{"2026-05-29 00:00:00", "2026-07-31 00:00:00"}},
		{"0 0 * * FRI#2", "2026-01-01 00:00:00", []string{"2026-01-09 00:00:00", "2026-02-13 00:00:00"}},
		{"0 0 * * 7#5", "2026-01-01 00:00:00", []string{"2026-03-29 00:00:00", "2026-05-31 00:00:00"}},
		{"0 0 * * friL", "2026-01-01 00:00:00", []string{"2026-01-30 00:00:00", "2026-02-27 00:00:00"}},
		{"0 0 1,15W,L * 3#2", "2026-02-01 00:00:00", []string{"2026-02-11 00:00:00", "2026-02-16 00:00:00", "2026-02-28 00:00:00"}},
		// Names.
		{"0 0 1 * *", "2026-01-01 00:00:00", []string{"2026-02-01 00:00:00"}},
		{"@yearly", "2026-01-01 00:00:00", []string{"2027-01-01 00:00:00"}},
		{"@annually", "2026-01-01 00:00:00", []string{"2027-01-01 00:00:00"}},
		{"@monthly", "2026-01-01 00:00:00", []string{"2026-02-01 00:00:00"}},
		{"@Weekly", "2026-01-01 00:00:00", []string{"2026-01-04 00:00:00"}},
		{"@daily", "2026-01-01 00:00:00", []string{"2026-01-02 00:00:00"}},
		{"@midnight", "2026-01-01 00:00:00", []string{"2026-01-02 00:00:00"}},
		{" @HOURLY\n", "2026-01-01 00:00:00", []string{"2026-01-01 01:00:00"}},
		{"@every 90s", "2026-01-01 00:00:00", []string{"2026-01-01 00:01:30", "2026-01-01 00:03:00"}},
		{"@every 7h", "1969-12-31 00:00:00", []string{"1969-12-31 03:00:00", "1969-12-31 10:00:00", "1969-12-31 17:00:00", "1970-01-01 00:00:00", "1970-01-01 07:00:00"}},
		{"@reboot", "2026-01-01 00:00:00", []string{""}},
	}
	for _, tt := range tests {
		t.Run(tt.expr+" from "+tt.from, func(t *testing.T) {
			s := mustParse(t, tt.expr, time.UTC)
			at, err := time.Parse(time.DateTime, tt.from)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				next := s.Next(at)
				got := next.Format(time.DateTime)
				if next.IsZero() {
					got = ""
				}
				if got != want {
					t.Fatalf("Next(%s) = %s, want %s", at, got, want)
				}
				at = next
			}
		})
	}
}

// @every counts from 1970-01-01 in UTC whatever the zone, so that all daemons
// agree, and is not disturbed by changes of the clocks.
func TestEveryIgnoresZones(t *testing.T) {
	s := mustParse(t, "@every 45m", mustZone(t, "Europe/Berlin"))
	at := time.Date(2026, 3, 28, 23, 0, 0, 0, time.UTC)
	for range 10 {
		next := s.Next(at)
		if next.Unix()%(45*60) != 0 || next.Sub(at) > 45*time.Minute {
			t.Fatalf("Next(%s) = %s", at, next)
		}
		at = next
	}
	if !s.Interval() || s.Explain(at) != "" {
		t.Errorf("Interval() = %v, Explain = %q", s.Interval(), s.Explain(at))
	}
}

func TestNextBetweenSeconds(t *testing.T) {
	s := mustParse(t, "* * * * * *", time.UTC)
	at := time.Date(2026, 1, 1, 0, 0, 0, 999_999_999, time.UTC)
	if got, want := s.Next(at), at.Add(1); !got.Equal(want) {
		t.Errorf("Next(%s) = %s, want %s", at, got, want)
	}
}

func TestNextAtTheEndsOfTime(t *testing.T) {
	for _, zone := range []string{"UTC", "America/New_York", "Asia/Tokyo", "Pacific/Apia"} {
		s := mustParse(t, "0 0 * * *", mustZone(t, zone))
		if next := s.Next(time.Time{}); next.Year() != 1 && next.Year() != 0 || next.IsZero() {
			t.Errorf("%s: Next(zero) = %s, want a day of the year 1", zone, next)
		}
		if next := s.Next(time.Unix(-1<<62, 0)); next.IsZero() {
			t.Errorf("%s: Next(long ago) is never", zone)
		}
		if next := s.Next(time.Unix(1<<62, 0)); !next.IsZero() {
			t.Errorf("%s: Next(very late) = %s, want never", zone, next)
		}
		if next := s.Next(time.Unix(maxUnix-1, 0)); !next.IsZero() {
			t.Errorf("%s: Next(year 9999) = %s, want never", zone, next)
		}
	}
}

// Go ends the last stretch of a leap year a day early.
func TestLastDayOfLeapYear(t *testing.T) {
	s := mustParse(t, "*/30 * 31 12 *", mustZone(t, "America/New_York"))
	from := time.Date(2040, 12, 30, 0, 0, 0, 0, time.UTC).Unix()
	checkWalk(t, s, from, from+4*secondsPerDay)
	checkWalk(t, mustParse(t, "30 20 31 * *", s.loc), from, from+4*secondsPerDay)
}

func TestNextIsTheSameForEveryZoneOfTheArgument(t *testing.T) {
	s := mustParse(t, "30 2 * * *", mustZone(t, "Europe/Berlin"))
	at := time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)
	want := s.Next(at)
	if got := s.Next(at.In(mustZone(t, "Asia/Tokyo"))); got != want {
		t.Errorf("Next = %s, want %s", got, want)
	}
}

// zones returns the names of all zones of the system, or a good many.
func zones(tb testing.TB) []string {
	tb.Helper()
	names := []string{"UTC", "America/New_York", "Europe/London", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago",
		"America/Havana", "Atlantic/Azores", "America/Sao_Paulo", "Africa/Casablanca", "America/Nuuk", "Pacific/Apia",
		"America/St_Johns", "Asia/Gaza", "Asia/Kathmandu", "Antarctica/Troll", "Africa/Monrovia", "Europe/Dublin", "Africa/Cairo"}
	const root = "/usr/share/zoneinfo"
	seen := map[string]bool{}
	for _, name := range names {
		seen[name] = true
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || seen[name] || strings.HasPrefix(name, "right/") || strings.HasPrefix(name, "posix/") {
			return err
		}
		if _, err := time.LoadLocation(name); err == nil {
			names = append(names, name)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	return names
}

// TestAllZones walks random expressions across changes of the clocks in every
// zone there is.
func TestAllZones(t *testing.T) {
	perZone := 3
	if testing.Short() {
		perZone = 1
	}
	if os.Getenv("CRON_LONG") != "" {
		perZone = 400
	}
	for _, name := range zones(t) {
		loc := mustZone(t, name)
		changes := transitions(loc, 2000, 2037)
		if len(changes) == 0 {
			changes = transitions(loc, 1850, 2037)
		}
		if len(changes) == 0 {
			changes = []int64{0}
		}
		r := rand.New(rand.NewPCG(uint64(len(name)), uint64(changes[0])))
		for range perZone {
			change := changes[r.IntN(len(changes))]
			expr := randomExpr(r, time.Unix(change, 0).In(loc))
			s, err := Parse(expr, loc)
			if err != nil {
				if !strings.Contains(err.Error(), "never due") {
					t.Fatal(err)
				}
				continue
			}
			before := 4*3600 + r.Int64N(30*3600)
			if s.seconds != 1 {
				before = 2 * 3600 // a walk by seconds takes long
			}
			checkWalk(t, s, change-before, change+4*3600)
		}
	}
}

// TestHistory does the same for changes that no longer happen: of odd seconds,
// of many hours, of days.
func TestHistory(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"Africa/Monrovia", "Europe/Amsterdam", "Asia/Manila", "America/Juneau", "Pacific/Kwajalein", "Pacific/Apia",
		"Antarctica/Casey", "Antarctica/Vostok", "Europe/Dublin", "Asia/Kolkata", "America/Caracas", "Africa/Nairobi", "Asia/Pyongyang"} {
		loc := mustZone(t, name)
		for _, change := range transitions(loc, 1840, 2037) {
			s, err := Parse(randomExpr(r, time.Unix(change, 0).In(loc)), loc)
			if err != nil {
				continue
			}
			checkWalk(t, s, change-4*3600, change+4*3600)
			checkWalk(t, mustParse(t, "*/10 * * * *", loc), change-4*3600, change+4*3600)
			checkWalk(t, mustParse(t, "0-59/10 0-23 * * *", loc), change-4*3600, change+4*3600)
		}
	}
}

// A tick far ahead is found past many changes of the clocks without looking at
// each, and must be the same as if it were asked for from near.
func TestFarTicks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	names := zones(t)
	for range 1000 {
		loc := mustZone(t, names[r.IntN(len(names))])
		at := time.Unix(r.Int64N(70*365*secondsPerDay), 0)
		s, err := Parse(randomExpr(r, at.In(loc)), loc)
		if err != nil {
			continue
		}
		want := s.Next(at)
		for step := at; ; {
			if got := s.Next(step); !got.Equal(want) {
				t.Fatalf("%q in %s: Next(%s) = %s, but Next(%s) = %s", s, loc, at, want, step, got)
			}
			step = step.Add(time.Duration(1+r.IntN(3*secondsPerDay)) * time.Second)
			if want.IsZero() && step.Sub(at) > 365*24*time.Hour || !want.IsZero() && !step.Before(want) {
				break
			}
		}
	}
}

// TestGronx compares with gronx where that is right: in UTC.
func TestGronx(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	n := 1500
	if testing.Short() {
		n = 200
	}
	for range n {
		at := time.Unix(time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC).Unix()+r.Int64N(30*365*secondsPerDay), 0).UTC()
		expr := randomExpr(r, at)
		s, err := Parse(expr, time.UTC)
		if err != nil || gronxDiffers(expr) {
			continue
		}
		for range 3 {
			got := s.Next(at)
			want, err := gronx.NextTickAfter(expr, at, false)
			if err != nil || !want.After(at) {
				if strings.Contains(expr, "/") && len(strings.Fields(expr)) == 7 || got.IsZero() || got.Sub(at) > 2*365*24*time.Hour {
					break // gronx gives up on far ticks
				}
				t.Fatalf("%q: gronx at %s: %s, %v; ours %s", expr, at, want, err, got)
			}
			if !got.Equal(want) {
				t.Fatalf("%q: Next(%s) = %s, gronx says %s", expr, at, got, want)
			}
			at = got
		}
	}
}

// gronxDiffers says where gronx has other rules or cannot read what is ours.
func gronxDiffers(expr string) bool {
	words := strings.Fields(strings.ToUpper(expr))
	if len(words) == 5 {
		words = append([]string{"0"}, words...)
	}
	d, w := words[3], words[5]
	return strings.Contains(d, "LW") || strings.Contains(d, "L-") || // unknown to it
		strings.HasSuffix(w, "-SUN") || // refused by it
		strings.HasPrefix(w, "*,") // taken for restricted
}

func TestNextDoesNotAllocate(t *testing.T) {
	for _, expr := range []string{"* * * * *", "*/5 9-17 * * MON-FRI", "30 2 * * *", "0 0 29 2 *", "0 12 1,15 * MON", "*/10 * * * * *",
		"0 0 L * FRI#2", "0 0 0 1 1 * 2190", "@every 90s", "@reboot"} {
		for _, zone := range []string{"UTC", "America/New_York"} {
			s := mustParse(t, expr, mustZone(t, zone))
			at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if n := testing.AllocsPerRun(100, func() { s.Next(at) }); n != 0 {
				t.Errorf("%q in %s: %v allocations", expr, zone, n)
			}
		}
	}
}

// A schedule is read by many goroutines at once.
func TestParseAndNextConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustParse(t, "0 3 L,15W * FRI#2", mustZone(t, "Europe/Berlin"))
		want := s.Next(time.Unix(0, 0))
		for range 2 * runtime.GOMAXPROCS(0) {
			go func() {
				again, err := Parse(s.String(), s.Location())
				if err != nil {
					t.Error(err)
					return
				}
				for range 200 {
					if a, b := s.Next(time.Unix(0, 0)), again.Next(time.Unix(0, 0)); a != want || b != want {
						t.Errorf("Next = %s and %s, want %s", a, b, want)
					}
				}
			}()
		}
		synctest.Wait()
	})
}
