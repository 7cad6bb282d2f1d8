package loom_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What is here says when jobs fall due in a year, by trying each of its minutes.
// It shares nothing with the package: the wall clock is read off package time
// and matched against the text of an expression, by the rules of crontab(5) and,
// where the clock changes, of cron(8).

// A moment is a minute of real time, and what the clock of a zone shows then.
type moment struct {
	at     time.Time
	wall   time.Time   // as if it were in UTC
	again  bool        // the clock has shown it before
	missed []time.Time // what the clock left out just before
}

// moments returns the minutes from one time to another.
func moments(zone *time.Location, from, to time.Time) []moment {
	read := func(t time.Time) time.Time {
		t = t.In(zone)
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	}
	var all []moment
	highest := read(from.Add(-time.Minute))
	before := highest
	for t := from; t.Before(to); t = t.Add(time.Minute) {
		m := moment{at: t, wall: read(t)}
		m.again = !m.wall.After(highest) && highest.Sub(m.wall) < 4*time.Hour
		if gap := m.wall.Sub(before) - time.Minute; gap > 0 && gap <= 3*time.Hour {
			for w := before.Add(time.Minute); w.Before(m.wall); w = w.Add(time.Minute) {
				m.missed = append(m.missed, w)
			}
		}
		if m.wall.After(highest) {
			highest = m.wall
		}
		before = m.wall
		all = append(all, m)
	}
	return all
}

// A crontab is an expression that has been taken apart.
type crontab struct {
	seconds  []int
	minutes  [60]bool
	hours    [24]bool
	months   [13]bool
	day      string
	weekday  string
	year     string
	interval bool
	days     map[time.Time]bool // what day said of dates
}

func readCrontab(t testing.TB, expr string) *crontab {
	t.Helper()
	if plain, ok := map[string]string{"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
		"@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}[expr]; ok {
		expr = plain
	}
	f := strings.Fields(expr)
	if len(f) == 5 {
		f = append([]string{"0"}, f...)
	}
	if len(f) == 6 {
		f = append(f, "*")
	}
	if len(f) != 7 {
		t.Fatalf("the oracle can't read %q", expr)
	}
	c := &crontab{day: f[3], weekday: f[5], year: f[6], days: map[time.Time]bool{},
		interval: f[1][0] == '*' || f[2][0] == '*'}
	for v := range 60 {
		if listed(f[0], v, 0, 59) {
			c.seconds = append(c.seconds, v)
		}
		c.minutes[v] = listed(f[1], v, 0, 59)
	}
	for v := range 24 {
		c.hours[v] = listed(f[2], v, 0, 23)
	}
	for v := 1; v <= 12; v++ {
		c.months[v] = listed(f[4], v, 1, 12)
	}
	return c
}

// listed reports whether a value is in a field such as "1-5,*/20,JAN".
func listed(field string, v, low, high int) bool {
	number := func(s string) int {
		for i, name := range strings.Fields("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC") {
			if s == name && low == 1 {
				return i + 1
			}
		}
		for i, name := range strings.Fields("SUN MON TUE WED THU FRI SAT") {
			if s == name {
				return i
			}
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return -1
		}
		return n
	}
	for member := range strings.SplitSeq(field, ",") {
		span, by, stepped := strings.Cut(member, "/")
		step := 1
		if stepped {
			step = number(by)
		}
		from, to := low, high
		if span != "*" {
			first, last, isRange := strings.Cut(span, "-")
			from = number(first)
			if to = from; isRange {
				to = number(last)
			} else if stepped {
				to = high
			}
		}
		if from >= 0 && v >= from && v <= to && (v-from)%step == 0 {
			return true
		}
	}
	return false
}

// matches says whether the clock shows a time of c.
func (c *crontab) matches(wall time.Time) bool {
	if !c.minutes[wall.Minute()] || !c.hours[wall.Hour()] || !c.months[wall.Month()] {
		return false
	}
	date := time.Date(wall.Year(), wall.Month(), wall.Day(), 0, 0, 0, 0, time.UTC)
	is, known := c.days[date]
	if !known {
		is = c.onDay(date)
		c.days[date] = is
	}
	return is
}

func (c *crontab) onDay(date time.Time) bool {
	if c.year != "*" && !listed(c.year, date.Year(), 1970, 2199) {
		return false
	}
	day, weekday := onDayOfMonth(c.day, date), onWeekday(c.weekday, date)
	if c.day[0] == '*' || c.weekday[0] == '*' {
		return day && weekday
	}
	return day || weekday
}

func onDayOfMonth(field string, date time.Time) bool {
	last := date.AddDate(0, 1, -date.Day()).Day()
	isWorkday := func(day int) bool {
		w := date.AddDate(0, 0, day-date.Day()).Weekday()
		return w != time.Saturday && w != time.Sunday
	}
	for member := range strings.SplitSeq(field, ",") {
		var n int
		switch {
		case member == "L":
			n = last
		case member == "LW":
			for n = last; !isWorkday(n); n-- {
			}
		case strings.HasPrefix(member, "L-"):
			n, _ = strconv.Atoi(member[2:])
			n = last - n
		case strings.HasSuffix(member, "W"):
			want, _ := strconv.Atoi(strings.TrimSuffix(member, "W"))
			if want > last {
				continue
			}
			for _, off := range []int{0, -1, 1, -2, 2} {
				if d := want + off; n == 0 && d >= 1 && d <= last && isWorkday(d) {
					n = d
				}
			}
		default:
			if listed(member, date.Day(), 1, 31) {
				return true
			}
		}
		if n == date.Day() {
			return true
		}
	}
	return false
}

func onWeekday(field string, date time.Time) bool {
	w := int(date.Weekday())
	last := date.AddDate(0, 1, -date.Day()).Day()
	for member := range strings.SplitSeq(field, ",") {
		name, nth, isNth := strings.Cut(member, "#")
		switch {
		case isNth:
			n, _ := strconv.Atoi(nth)
			if (listed(name, w, 0, 7) || w == 0 && listed(name, 7, 0, 7)) && (date.Day()-1)/7+1 == n {
				return true
			}
		case strings.HasSuffix(member, "L"):
			if listed(strings.TrimSuffix(member, "L"), w, 0, 7) && date.Day()+7 > last {
				return true
			}
		case listed(member, w, 0, 7), w == 0 && listed(member, 7, 0, 7):
			return true
		}
	}
	return false
}

// A yearbook knows when expressions fall due.
type yearbook struct {
	from, to time.Time
	zones    map[string][]moment
	ticks    map[string][]time.Time
}

// due returns all times of an expression, in order.
func (y *yearbook) due(t testing.TB, expr string, zone *time.Location) []time.Time {
	t.Helper()
	key := fmt.Sprint(expr, " in ", zone)
	if ticks, ok := y.ticks[key]; ok {
		return ticks
	}
	var ticks []time.Time
	if every, ok := strings.CutPrefix(expr, "@every "); ok {
		d, err := time.ParseDuration(every)
		if err != nil {
			t.Fatal(err)
		}
		step := int64(d / time.Second)
		for u := y.from.Unix(); u < y.to.Unix(); u++ {
			if u%step == 0 {
				ticks = append(ticks, time.Unix(u, 0))
			}
		}
		y.ticks[key] = ticks
		return ticks
	}
	if y.zones[zone.String()] == nil {
		y.zones[zone.String()] = moments(zone, y.from, y.to)
	}
	c := readCrontab(t, expr)
	for _, m := range y.zones[zone.String()] {
		made := !c.interval && slices.ContainsFunc(m.missed, c.matches)
		if made {
			ticks = append(ticks, m.at)
		}
		if !c.matches(m.wall) || m.again && !c.interval {
			continue
		}
		for _, sec := range c.seconds {
			if !made || sec > 0 {
				ticks = append(ticks, m.at.Add(time.Duration(sec)*time.Second))
			}
		}
	}
	y.ticks[key] = ticks
	return ticks
}

// union returns the times of several lists, each once.
func union(lists ...[]time.Time) []time.Time {
	all := slices.Concat(lists...)
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}
