package cron

import (
	"math"
	"math/bits"
	"time"
)

const (
	secondsPerDay = 24 * 3600

	// maxShift is the largest change of a zone's offset that fixed-time
	// schedules make up for.
	maxShift = 3 * 3600

	// farOff is more than two offsets from UTC can differ by.
	farOff = 3 * secondsPerDay

	minUnix = -62135596799 // 0001-01-01T00:00:01Z, just after the zero time
	maxUnix = 253402300799 // 9999-12-31T23:59:59Z
)

// Next returns the first time after t that s is due, in the zone of s. It
// returns the zero time when s is never due again, at the latest after the year
// 9999. It is a pure function, and applied to its own answers it strictly
// increases. It does not allocate.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.reboot || t.Unix() >= maxUnix {
		return time.Time{}
	}
	u := max(t.Unix()+1, minUnix)
	if s.every > 0 {
		return s.at(u + mod(-u, s.every))
	}
	// One round for each stretch of time without a change of the clocks.
	for u <= maxUnix {
		z := zoneAt(s.loc, u)
		from := u
		if !s.interval && u-z.start < maxShift {
			shift := z.shift(s.loc)
			if u == z.start && shift > 0 && s.dueBetween(z.start+z.offset-shift, z.start+z.offset) {
				return s.at(u)
			}
			from = max(u, z.start-shift) // past the second pass
		}
		local, ok := s.nextLocal(from + z.offset)
		switch due := local - z.offset; {
		case !ok:
			local = math.MaxInt64 / 2
		case due < z.end:
			return s.at(due)
		}
		// Not in this stretch. The times that the next change repeats or skips
		// must be looked at; the changes far before the next match can't
		// matter, as there is nothing to repeat and nothing to skip.
		if z.end-from > farOff {
			u = max(z.end, local-z.offset-farOff)
		} else {
			u = z.end
		}
	}
	return time.Time{}
}

func (s *Schedule) at(unix int64) time.Time {
	if unix > maxUnix {
		return time.Time{}
	}
	return time.Unix(unix, 0).In(s.loc)
}

// dueBetween reports whether a wall-clock time in [from, to) is due.
func (s *Schedule) dueBetween(from, to int64) bool {
	local, ok := s.nextLocal(from)
	return ok && local < to
}

// nextLocal returns the first due wall-clock time that is not before local.
// Wall-clock times are counted in seconds, as if the zone were UTC.
func (s *Schedule) nextLocal(local int64) (int64, bool) {
	today, clock := floorDiv(local, secondsPerDay), mod(local, secondsPerDay)
	y, m, d := time.Unix(local, 0).UTC().Date()
	newYear := today - int64(d-1) - dayOfYear(y, m)
	clock, ok := s.nextClock(clock)
	if !ok {
		d++ // nothing is left of today
	}
	days := ^uint32(0) << d // what is left of the first month
	for y <= 9999 {
		if s.years != nil && !s.inYear(y) {
			if y > maxYear {
				break
			}
			m = 13
		}
		for months := uint32(s.months) >> m << m; months != 0; months &= months - 1 {
			month := time.Month(bits.TrailingZeros32(months))
			first := newYear + dayOfYear(y, month)
			due := s.days[daysIn(y, month)-28][mod(first+4, 7)] // 1970-01-01 was a Thursday
			if month == m {
				due &= days
			}
			if due == 0 {
				continue
			}
			date := first + int64(bits.TrailingZeros32(due)) - 1
			if date == today {
				return date*secondsPerDay + clock, true
			}
			return date*secondsPerDay + s.first, true
		}
		newYear += 365 + int64(leap(y))
		y, m, days = y+1, 1, ^uint32(0)
	}
	return 0, false
}

// nextClock returns the first due second of the day that is not before clock.
func (s *Schedule) nextClock(clock int64) (int64, bool) {
	h, m := uint(clock/3600), uint(clock/60%60)
	if s.hours>>h&1 != 0 {
		if s.minutes>>m&1 != 0 {
			if rest := s.seconds >> uint(clock%60); rest != 0 {
				return clock + firstBit(rest), true
			}
		}
		if rest := s.minutes >> (m + 1); rest != 0 {
			return int64(h)*3600 + (int64(m)+1+firstBit(rest))*60 + firstBit(s.seconds), true
		}
	}
	if rest := s.hours >> (h + 1); rest != 0 {
		return (int64(h)+1+firstBit(uint64(rest)))*3600 + s.first%3600, true
	}
	return 0, false
}

func (s *Schedule) inYear(y int) bool {
	return minYear <= y && y <= maxYear && s.years.has(y-minYear)
}

// A zone is a stretch of time in which a location's offset from UTC does not
// change: the seconds from start up to but not including end.
type zone struct{ start, end, offset int64 }

func zoneAt(loc *time.Location, unix int64) zone {
	t := time.Unix(unix, 0).In(loc)
	_, offset := t.Zone()
	z := zone{math.MinInt64 / 2, math.MaxInt64 / 2, int64(offset)}
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		z.start = start.Unix()
	}
	if !end.IsZero() {
		z.end = end.Unix()
		// Where a rule goes on for ever, ZoneBounds ends each year after 365
		// days, which on the last day of a leap year is in the past.
		if z.end <= unix {
			z.end = (floorDiv(unix, secondsPerDay) + 1) * secondsPerDay
		}
	}
	return z
}

// shift returns by how much the clocks were changed at the start of z, if that
// is little enough for fixed-time schedules to make up for.
func (z zone) shift(loc *time.Location) int64 {
	_, before := time.Unix(z.start-1, 0).In(loc).Zone()
	shift := z.offset - int64(before)
	if shift < -maxShift || shift > maxShift {
		return 0
	}
	return shift
}

// dayOfYear returns how many days of the year y lie before the month m.
func dayOfYear(y int, m time.Month) int64 {
	days := (367*int64(m) - 362) / 12
	if m > 2 {
		days += int64(leap(y)) - 2
	}
	return days
}

func daysIn(y int, m time.Month) int {
	if m == time.February {
		return 28 + leap(y)
	}
	return 30 + int(m+m>>3)&1
}

func leap(y int) int {
	if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
		return 1
	}
	return 0
}

func floorDiv(a, b int64) int64 { return (a - mod(a, b)) / b }

// mod returns a modulo b, from 0 on also for a negative a.
func mod(a, b int64) int64 { return (a%b + b) % b }
