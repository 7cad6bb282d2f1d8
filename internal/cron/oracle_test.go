package cron

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

// The oracle is the rules of this package written out naively and apart from
// it: an expression is matched by reading its text anew for each wall-clock
// time, and the wall clock is walked second by second past a change of the
// zone's offset.

type oracle struct {
	fields   []string // seven
	interval bool
	memo     map[asked]bool
}

// asked is a field, a value of it, and for the days of the month and the week
// the date.
type asked struct {
	field, value int
	date         string
}

func newOracle(expr string) *oracle {
	words := strings.Fields(expr)
	switch strings.ToLower(words[0]) {
	case "@yearly", "@annually":
		words = strings.Fields("0 0 1 1 *")
	case "@monthly":
		words = strings.Fields("0 0 1 * *")
	case "@weekly":
		words = strings.Fields("0 0 * * 0")
	case "@daily", "@midnight":
		words = strings.Fields("0 0 * * *")
	case "@hourly":
		words = strings.Fields("0 * * * *")
	case "@reboot", "@every":
		return nil
	}
	if len(words) == 5 {
		words = append([]string{"0"}, words...)
	}
	if len(words) == 6 {
		words = append(words, "*")
	}
	return &oracle{
		fields:   words,
		interval: words[1][0] == '*' || words[2][0] == '*',
		memo:     map[asked]bool{},
	}
}

// due matches a wall-clock time, given as if it were UTC.
func (o *oracle) due(local time.Time) bool {
	if !o.has(0, local.Second(), local) || !o.has(1, local.Minute(), local) || !o.has(2, local.Hour(), local) ||
		!o.has(4, int(local.Month()), local) || !o.has(6, local.Year(), local) {
		return false
	}
	d, w := o.has(3, local.Day(), local), o.has(5, int(local.Weekday()), local)
	if o.fields[3][0] == '*' || o.fields[5][0] == '*' {
		return d && w
	}
	return d || w
}

func (o *oracle) has(i, v int, local time.Time) bool {
	if o.fields[i] == "*" {
		return true
	}
	key := asked{field: i, value: v}
	if i == 3 || i == 5 {
		key.date = local.Format(time.DateOnly)
	}
	if known, ok := o.memo[key]; ok {
		return known
	}
	yes := slices.ContainsFunc(strings.Split(strings.ToUpper(o.fields[i]), ","), func(m string) bool {
		return matchMember(i, m, v, local)
	})
	o.memo[key] = yes
	return yes
}

func matchMember(i int, m string, v int, local time.Time) bool {
	last := time.Date(local.Year(), local.Month()+1, 0, 0, 0, 0, 0, time.UTC)
	nearest := func(d time.Time) int { // nearest Monday to Friday of the month
		best, dist := 0, 99
		for c := last.AddDate(0, 0, 1-last.Day()); !c.After(last); c = c.AddDate(0, 0, 1) {
			away := int(c.Sub(d).Abs() / (24 * time.Hour))
			if wd := c.Weekday(); wd != time.Saturday && wd != time.Sunday && away < dist {
				best, dist = c.Day(), away
			}
		}
		return best
	}
	switch {
	case i == 3 && m == "L":
		return v == last.Day()
	case i == 3 && m == "LW":
		for last.Weekday() == time.Saturday || last.Weekday() == time.Sunday {
			last = last.AddDate(0, 0, -1)
		}
		return v == last.Day()
	case i == 3 && strings.HasPrefix(m, "L-"):
		n, _ := strconv.Atoi(m[2:])
		return v == last.Day()-n
	case i == 3 && strings.HasSuffix(m, "W"):
		n, _ := strconv.Atoi(m[:len(m)-1])
		return n <= last.Day() && v == nearest(last.AddDate(0, 0, n-last.Day()))
	case i == 5 && strings.Contains(m, "#"):
		wd, nth, _ := strings.Cut(m, "#")
		n, _ := strconv.Atoi(nth)
		return v == naiveValue(i, wd)%7 && (local.Day()+6)/7 == n
	case i == 5 && strings.HasSuffix(m, "L"):
		return v == naiveValue(i, m[:len(m)-1])%7 && local.Day()+7 > last.Day()
	}

	span, stepText, stepped := strings.Cut(m, "/")
	step := 1
	if stepped {
		step, _ = strconv.Atoi(stepText)
	}
	lo, hi := []int{0, 0, 0, 1, 1, 0, 1970}[i], []int{59, 59, 23, 31, 12, 6, 2199}[i]
	if span != "*" {
		from, to, ranged := strings.Cut(span, "-")
		lo = naiveValue(i, from)
		switch {
		case ranged && to == "SUN" && lo > 0:
			hi = 7
		case ranged:
			hi = naiveValue(i, to)
		case !stepped:
			hi = lo
		case lo == 7 && i == 5:
			lo = 0
		}
	}
	for x := lo; x <= hi; x += step {
		if x == v || i == 5 && x == 7 && v == 0 {
			return true
		}
	}
	return false
}

func naiveValue(i int, s string) int {
	names := map[int]string{4: "xxxJANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", 5: "SUNMONTUEWEDTHUFRISAT"}[i]
	if p := strings.Index(names, s); p >= 0 && p%3 == 0 && len(s) == 3 {
		return p / 3
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// ticks returns what is due in (from, to], by a walk along the wall clock.
func (o *oracle) ticks(loc *time.Location, from, to int64) []int64 {
	const warmUp = 4 * 3600 // to know what the clock has already shown
	offsets := scanOffsets(loc, from-warmUp, to+1)
	bySecond := o.fields[0] != "0"

	var out []int64
	offset := offsets[0].offset
	shown := from - warmUp + offset - 1 // the latest wall-clock second so far
	var step int64
	for u := from - warmUp; u <= to; u += step {
		if len(offsets) > 1 && u == offsets[1].unix {
			offsets = offsets[1:]
			jump := offsets[0].offset - offset
			offset = offsets[0].offset
			if jump > 3*3600 || jump < -3*3600 {
				shown = u + offset - 1 // too large a change: the clock starts anew
			}
		}
		local := u + offset
		due, again := false, local <= shown
		if !o.interval {
			for missed := shown + 1; missed < local; missed++ {
				due = due || (bySecond || mod(missed, 60) == 0) && o.due(time.Unix(missed, 0).UTC())
			}
		}
		if (bySecond || mod(local, 60) == 0) && (o.interval || !again) {
			due = due || o.due(time.Unix(local, 0).UTC())
		}
		if due && u > from {
			out = append(out, u)
		}
		step = 1
		if !bySecond { // on to the next full minute or change
			step = 60 - mod(local, 60)
			if len(offsets) > 1 {
				step = min(step, offsets[1].unix-u)
			}
		}
		shown = max(shown, local+step-1)
	}
	return out
}

type offsetAt struct{ unix, offset int64 }

// scanOffsets finds the offsets of loc by asking for them alone, from minute to
// minute, and then for the exact second.
func scanOffsets(loc *time.Location, from, to int64) []offsetAt {
	ask := func(u int64) int64 {
		_, offset := time.Unix(u, 0).In(loc).Zone()
		return int64(offset)
	}
	out := []offsetAt{{from, ask(from)}}
	for u := from; u < to; u += 600 {
		if ask(u) == ask(u+600) {
			continue
		}
		for v := u + 1; v <= u+600; v++ {
			if o := ask(v); o != out[len(out)-1].offset {
				out = append(out, offsetAt{v, o})
			}
		}
	}
	return out
}

// checkWalk compares Next with the oracle over (from, to].
func checkWalk(t *testing.T, s *Schedule, from, to int64) {
	t.Helper()
	o := newOracle(s.String())
	if o == nil {
		return
	}
	want := o.ticks(s.loc, from, to)
	// From anywhere, not only from the tick before.
	for at := from; at < to; at += (to-from)/50 + 1 {
		i := slices.IndexFunc(want, func(tick int64) bool { return tick > at })
		if i < 0 {
			break
		}
		if got := s.Next(time.Unix(at, 0)); got.Unix() != want[i] {
			t.Fatalf("%q in %s: Next(%s) = %s, want %s", s, s.loc, stamp(s.loc, at), got, stamp(s.loc, want[i]))
		}
	}
	last := from
	for i := 0; ; i++ {
		next := s.Next(time.Unix(last, 0))
		if next.IsZero() || next.Unix() > to {
			if i < len(want) {
				t.Fatalf("%q in %s: Next(%s) = %s, want %s", s, s.loc, stamp(s.loc, last), next, stamp(s.loc, want[i]))
			}
			return
		}
		if next.Unix() <= last {
			t.Fatalf("%q in %s: Next(%s) = %s is not later", s, s.loc, stamp(s.loc, last), next)
		}
		if i >= len(want) || next.Unix() != want[i] {
			wanted := "nothing more"
			if i < len(want) {
				wanted = stamp(s.loc, want[i])
			}
			t.Fatalf("%q in %s: Next(%s) = %s, want %s", s, s.loc, stamp(s.loc, last), next, wanted)
		}
		last = next.Unix()
	}
}

func stamp(loc *time.Location, u int64) string {
	return time.Unix(u, 0).In(loc).Format("Mon 2006-01-02T15:04:05Z07:00")
}

// transitions returns the changes of a zone's offset between two years.
func transitions(loc *time.Location, fromYear, toYear int) []int64 {
	var out []int64
	u := time.Date(fromYear, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	end := time.Date(toYear+1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for u < end {
		z := zoneAt(loc, u)
		if z.end < end {
			_, before := time.Unix(z.end-1, 0).In(loc).Zone()
			_, after := time.Unix(z.end, 0).In(loc).Zone()
			if before != after {
				out = append(out, z.end)
			}
		}
		u = z.end
	}
	return out
}

// randomExpr writes an expression that has a fair chance to be due around the
// wall-clock time near, and that Parse takes.
func randomExpr(r *rand.Rand, near time.Time) string {
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	number := func(lo, hi int) string { return strconv.Itoa(lo + r.IntN(hi-lo+1)) }
	around := func(v, spread, lo, hi int) string {
		return strconv.Itoa(min(hi, max(lo, v+r.IntN(2*spread+1)-spread)))
	}
	span := func(lo, hi int) string {
		a := lo + r.IntN(hi-lo+1)
		return strconv.Itoa(a) + "-" + strconv.Itoa(a+r.IntN(hi-a+1))
	}
	list := func(one func() string) string {
		members := []string{one()}
		for range r.IntN(3) {
			members = append(members, one())
		}
		return strings.Join(members, ",")
	}
	minutes := pick("*", "0", "30", "*/15", "0,30", "*/7", number(0, 59), span(0, 59), span(0, 59)+"/"+number(1, 60),
		list(func() string { return number(0, 59) }), number(0, 59)+"/"+number(1, 60))
	hours := pick("*", "*/2", around(near.Hour(), 2, 0, 23), around(near.Hour(), 1, 0, 23), span(0, 23), "0-23/"+number(1, 24),
		list(func() string { return around(near.Hour(), 3, 0, 23) }), "0", "23", "1,2,3", "0-4")
	days := pick("*", "*", "*", "*/2", around(near.Day(), 1, 1, 31), span(1, 31), list(func() string { return around(near.Day(), 2, 1, 31) }),
		"L", "LW", "L-"+number(1, 30), number(1, 31)+"W", "1,L", "*/10,15W")
	months := pick("*", "*", "*", around(int(near.Month()), 1, 1, 12), strings.ToUpper(near.Month().String()[:3]), "jan-dec", span(1, 12), "*/3")
	weekdays := pick("*", "*", "*", "*/2", "MON-FRI", "sun", "fri-sun", "7", "1-7/2", span(0, 7), number(0, 7)+"/"+number(1, 7),
		number(0, 7)+"L", number(0, 7)+"#"+number(1, 5), "SUN#"+number(1, 5)+",wed", near.Weekday().String()[:3])
	expr := strings.Join([]string{minutes, hours, days, months, weekdays}, " ")
	switch r.IntN(8) {
	case 0:
		expr = pick("0", "30", "*/20", "15,45", "59") + " " + expr
	case 1:
		expr = pick("0", "*/30", "1-3") + " " + expr + " " + pick("*", around(near.Year(), 1, 1970, 2199), "2000-2040/3", "2024/2")
	}
	return expr
}
