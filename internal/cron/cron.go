// Package cron reads cron expressions and tells when they are due.
//
// An expression has five fields (minute hour day month weekday), six with
// seconds first, or seven with a year last. Parse compiles it, with the zone it
// is read in, to sets of bits; Next walks them without allocating. What is due
// follows crontab(5): a day matches when the day and the weekday field both
// match if either of them begins with "*", and when one of them matches
// otherwise; 0 and 7 are Sunday.
//
// # Daylight saving
//
// The rule is that of vixie cron and cronie. A schedule whose minute or hour
// field begins with "*" is an interval schedule: it fires whenever the wall
// clock shows a matching time, so not at all for times that are skipped and in
// both passes of times that are repeated. Every other schedule is a fixed-time
// schedule and fires once for each matching time: a repeated one in its first
// pass, skipped ones together at the first instant after the gap. Only changes
// of at most three hours are treated so: the day that Apia left out in 2011 is
// not made up. A change of the zone's standard time counts as much as daylight
// saving does.
package cron

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxLen is the length in bytes of the longest expression that Parse reads.
const MaxLen = 1024

// A Schedule is a compiled expression, read in one time zone. It is immutable,
// so it may be used by several goroutines. The zero Schedule is of no use:
// Parse makes them.
type Schedule struct {
	expr     string
	loc      *time.Location
	every    int64 // seconds between ticks of @every, else 0
	reboot   bool
	interval bool

	seconds, minutes uint64
	hours            uint32
	first            int64 // the first due second of a due day
	months           uint16
	days             monthTable
	years            *bitset // from minYear on; nil means every year
}

// Parse compiles expr, to be read in loc; nil stands for time.Local. Besides
// expressions of fields it takes @yearly, @annually, @monthly, @weekly, @daily,
// @midnight, @hourly, @reboot and "@every DURATION", where DURATION is whole
// seconds in the notation of [time.ParseDuration].
//
// The error names every mistake, the field it is in, and what to write instead.
// An expression that can never be due is a mistake too. The answer depends on
// nothing but the arguments, so what was once accepted always will be.
func Parse(expr string, loc *time.Location) (*Schedule, error) {
	if loc == nil {
		loc = time.Local
	}
	if len(expr) > MaxLen {
		return nil, fmt.Errorf("the schedule is %d bytes long; at most %d are read", len(expr), MaxLen)
	}
	words := strings.Fields(expr)
	if len(words) == 0 {
		return nil, fmt.Errorf(`the schedule is empty; write %s, such as "30 2 * * *", or a name such as @daily`, fiveFields)
	}
	s := &Schedule{expr: strings.TrimSpace(expr), loc: loc}
	if err := s.compile(words); err != nil {
		return nil, fmt.Errorf("schedule %q: %w", abridge(s.expr, 100), err)
	}
	return s, nil
}

// String returns the expression as it was given, without surrounding space.
func (s *Schedule) String() string { return s.expr }

// Location returns the zone that the expression is read in.
func (s *Schedule) Location() *time.Location { return s.loc }

// Interval reports whether s follows the clock as it passes, rather than naming
// times of the day: its minute or hour field begins with "*", or it is @every.
func (s *Schedule) Interval() bool { return s.interval }

// Reboot reports whether s is @reboot: due when the daemon starts, and never by
// the clock.
func (s *Schedule) Reboot() bool { return s.reboot }

const fiveFields = "five fields (minute hour day month weekday)"

func (s *Schedule) compile(words []string) error {
	for _, word := range words {
		for _, r := range word {
			if r >= utf8.RuneSelf {
				return fmt.Errorf("%q has the character %q, which no schedule has, though it may look like another; type it anew", abridge(word, longMember), r)
			}
		}
	}
	switch {
	case strings.HasPrefix(words[0], "TZ="), strings.HasPrefix(words[0], "CRON_TZ="):
		return fmt.Errorf("a zone does not belong in the schedule; remove %q and give the job a timezone", abridge(words[0], 2*longMember))
	case !strings.HasPrefix(words[0], "@"):
		return s.compileFields(words)
	}
	macro := strings.ToLower(words[0])
	if macro == "@every" {
		return s.compileEvery(words[1:])
	}
	fields := macroFields(macro)
	s.reboot = macro == "@reboot"
	switch {
	case fields == "" && !s.reboot:
		return fmt.Errorf("%q is not known; write @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @reboot or @every DURATION", abridge(words[0], longMember))
	case len(words) > 1:
		return fmt.Errorf("%s stands alone; remove %q", macro, abridge(strings.Join(words[1:], " "), longMember))
	case s.reboot:
		return nil
	}
	return s.compileFields(strings.Fields(fields))
}

func macroFields(macro string) string {
	switch macro {
	case "@yearly", "@annually":
		return "0 0 1 1 *"
	case "@monthly":
		return "0 0 1 * *"
	case "@weekly":
		return "0 0 * * 0"
	case "@daily", "@midnight":
		return "0 0 * * *"
	case "@hourly":
		return "0 * * * *"
	}
	return ""
}

func (s *Schedule) compileEvery(words []string) error {
	if len(words) != 1 {
		return errors.New("@every takes one duration; write it like @every 90s or @every 1h30m")
	}
	d, err := time.ParseDuration(strings.ToLower(words[0]))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write hours, minutes and seconds, like 90s, 1h30m or 168h for a week", abridge(words[0], longMember))
	}
	if d < time.Second || d%time.Second != 0 {
		return fmt.Errorf("@every counts whole seconds, from 1s up; %s is not", words[0])
	}
	s.every = int64(d / time.Second)
	s.interval = true
	return nil
}

func (s *Schedule) compileFields(words []string) error {
	full := [7]string{second: "0", year: "*"}
	switch len(words) {
	case 5:
		copy(full[minute:], words)
	case 6, 7:
		copy(full[:], words)
	default:
		return wrongCount(words)
	}
	var (
		parsed   [7]fieldSet
		problems []string
	)
	for i, f := range fields() {
		var errs []string
		parsed[i], errs = f.parse(full[i])
		problems = append(problems, errs...)
	}
	if len(problems) > 0 {
		if len(words) == 6 && isYear(words[5]) {
			problems = append(problems, fmt.Sprintf("for the year %s write all seven fields, %q", words[5], abridge("0 "+strings.Join(words, " "), 100)))
		}
		if more := len(problems) - 5; more > 0 {
			problems = append(problems[:5], fmt.Sprintf("and %d more", more))
		}
		return errors.New(strings.Join(problems, "; "))
	}
	if err := s.set(&parsed); err != nil {
		return err
	}
	return s.checkDue(&parsed)
}

func wrongCount(words []string) error {
	n := len(words)
	switch {
	case n == 1 && macroFields("@"+strings.ToLower(words[0])) != "":
		return fmt.Errorf("write @%s", strings.ToLower(words[0]))
	case n == 1:
		return fmt.Errorf("1 field; write %s, six with seconds first, or seven with a year last", fiveFields)
	}
	return fmt.Errorf("%d fields; write %s, six with seconds first, or seven with a year last", n, fiveFields)
}

// isYear reports whether the last of six words was meant for a year.
func isYear(word string) bool {
	_, problems := fields()[year].parse(word)
	return len(problems) == 0 && !strings.Contains(word, "*")
}

// set takes over what the fields were found to hold.
func (s *Schedule) set(p *[7]fieldSet) error {
	s.seconds, s.minutes = p[second].bits[0], p[minute].bits[0]
	s.hours, s.months = uint32(p[hour].bits[0]), uint16(p[month].bits[0])
	s.interval = p[minute].star || p[hour].star
	s.first = firstBit(uint64(s.hours))*3600 + firstBit(s.minutes)*60 + firstBit(s.seconds)
	if !p[year].star {
		years := p[year].bits
		s.years = &years
	}
	var err error
	s.days, err = dueDays(&p[day], &p[weekday])
	return err
}

// checkDue finds schedules that can never be due, and says why.
func (s *Schedule) checkDue(p *[7]fieldSet) error {
	if s.everDue() {
		return nil
	}
	calendar := *s
	calendar.loc = time.UTC
	if calendar.everDue() {
		return fmt.Errorf("never due: the times it names are skipped in %s, where the clocks go forward; write others", s.place())
	}
	calendar.years = nil
	if calendar.everDue() {
		return errors.New("never due: none of the years it names has the date; write others")
	}
	if p[weekday].bits[0] != 0x7f || len(p[day].special) > 0 {
		return errors.New("never due: no date fits its day, month and weekday fields together; widen one of them")
	}
	which := "none of its months has a"
	if months := p[month].list(1, 12); len(months) == 1 {
		which = time.Month(months[0]).String() + " has no"
	}
	return fmt.Errorf("never due: %s day %s; for the last day of a month write L", which, joinInts(p[day].list(1, 31), " or "))
}

// everDue asks from before the first year named; the Gregorian calendar begins
// again after 400 years, so the year it starts from does not matter otherwise.
func (s *Schedule) everDue() bool {
	from := 2000
	if s.years != nil {
		from = minYear + s.years.first()
	}
	return !s.Next(time.Date(from-1, 12, 30, 0, 0, 0, 0, time.UTC)).IsZero()
}
