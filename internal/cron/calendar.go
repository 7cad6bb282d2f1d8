package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// A monthTable holds the due days of a month (bit 1 is the first) for each of
// the 28 shapes a month can have: by its length, from 28 days on, and by the
// weekday it begins on. It answers the question of days once and for all, so
// that Next never has to reason about L, W and #.
type monthTable [4][7]uint32

// dueDays joins the day and the weekday field: crontab(5) wants both to match
// if either begins with "*", and otherwise one of them.
func dueDays(d, w *fieldSet) (monthTable, error) {
	days, err := specialDays(d.special, day)
	if err != nil {
		return days, err
	}
	weekdays, err := specialDays(w.special, weekday)
	if err != nil {
		return days, err
	}
	for i := range days {
		month := uint32(1)<<(28+i+1) - 2 // the days of the month
		for first := range days[i] {
			dd := (uint32(d.bits[0]) | days[i][first]) & month
			ww := (spread(uint32(w.bits[0]), first) | weekdays[i][first]) & month
			if d.star || w.star {
				days[i][first] = dd & ww
			} else {
				days[i][first] = dd | ww
			}
		}
	}
	return days, nil
}

// spread returns the days that fall on the given weekdays in a month that
// begins on the weekday first.
func spread(weekdays uint32, first int) uint32 {
	week := (weekdays>>first | weekdays<<(7-first)) & 0x7f // bit 0 is the month's first day
	return (week | week<<7 | week<<14 | week<<21 | week<<28) << 1
}

// isSpecial reports whether a member has L, W or # in a field where they mean
// something, rather than a name such as JUL or WED.
func (f field) isSpecial(member string) bool {
	switch f.place {
	case day:
		return strings.ContainsAny(member, "LWlw") && strings.Trim(member, "LWlw-0123456789") == ""
	case weekday:
		return strings.Contains(member, "#") || strings.HasSuffix(member, "L") || strings.HasSuffix(member, "l")
	}
	return false
}

// parseSpecial checks such a member, strictly, as gronx takes nearly anything,
// and returns it with numbers only.
func (f field) parseSpecial(member string) (plain, problem string) {
	if f.place == day {
		return f.parseSpecialDay(member)
	}
	if name, nth, ok := strings.Cut(member, "#"); ok {
		if name == "" {
			return "", `nothing stands before "#"; write for instance 5#2 for the second Friday of the month`
		}
		v, problem := f.value(name)
		if problem != "" {
			return "", problem
		}
		n, ok := number(nth)
		if !ok || n < 1 || n > 5 {
			return "", fmt.Sprintf(`after "#" stands which one of the month it is, from 1 to 5; write for instance %s#2, or %sL for the last`, name, name)
		}
		return fmt.Sprintf("%d#%d", v%7, n), ""
	}
	name := strings.TrimSuffix(member, "L")
	if name == "" {
		return "", "L alone is for the day field; write 5L for the last Friday of the month"
	}
	v, problem := f.value(name)
	return fmt.Sprintf("%dL", v%7), problem
}

func (f field) parseSpecialDay(member string) (plain, problem string) {
	if member == "L" || member == "LW" {
		return member, ""
	}
	if before, ok := strings.CutPrefix(member, "L-"); ok {
		n, ok := number(before)
		if !ok || n < 1 || n > 30 {
			return "", "after L- stands how many days before the last it is, from 1 to 30; write for instance L-3"
		}
		return fmt.Sprintf("L-%d", n), ""
	}
	if nearest, ok := strings.CutSuffix(member, "W"); ok {
		if n, ok := number(nearest); ok {
			if n < f.min || n > f.max {
				return "", f.outOfRange(n)
			}
			return fmt.Sprintf("%dW", n), ""
		}
	}
	return "", strconv.Quote(member) + " is not one of the forms with L and W; write L for the last day of the month, LW for its last weekday, " +
		"L-3 for three days before the last, or 15W for the weekday nearest to the 15th"
}

// specialDays returns the days that members with L, W or # stand for.
func specialDays(members []string, place int) (t monthTable, err error) {
	if len(members) == 0 {
		return t, nil
	}
	// The 28 years from 2000 on have a month of every shape.
	for month := range 12 * 28 {
		from := time.Date(2000, time.Month(1+month), 1, 0, 0, 0, 0, time.UTC)
		last := from.AddDate(0, 1, -1)
		if t[last.Day()-28][from.Weekday()] != 0 {
			continue
		}
		days := uint32(1) // marks the shape as done; there is no day 0
		for _, member := range members {
			due, err := daysOf(member, place, last)
			if err != nil {
				return t, err
			}
			days |= due
		}
		t[last.Day()-28][from.Weekday()] = days
	}
	return t, nil
}

// daysOf returns the days that a member stands for in the month that ends with
// the day last. LW and L-3 are ours. The others are the part of cron that gronx
// has and does right: it is asked about one plain date in UTC after the other,
// by a checker of our own, as a shared one is not safe for several goroutines.
func daysOf(member string, place int, last time.Time) (days uint32, err error) {
	if member == "LW" {
		back := max(0, int(last.Weekday()+6)%7-4) // from Saturday 1, from Sunday 2
		return 1 << (last.Day() - back), nil
	}
	if before, ok := strings.CutPrefix(member, "L-"); ok {
		n, _ := number(before)
		return 1 << max(0, last.Day()-n), nil
	}
	var checker gronx.SegmentChecker
	for d := 1; d <= last.Day(); d++ {
		checker.SetRef(last.AddDate(0, 0, d-last.Day()))
		due, err := checker.CheckDue(member, place)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", member, err)
		}
		if due {
			days |= 1 << d
		}
	}
	if bits.OnesCount32(days) > 1 {
		return 0, fmt.Errorf("%q: names %d days of %s", member, bits.OnesCount32(days), last.Format("January 2006"))
	}
	return days, nil
}
