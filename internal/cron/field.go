package cron

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The places of the fields in a full expression.
const (
	second = iota
	minute
	hour
	day
	month
	weekday
	year
)

// The years that a year field can name.
const (
	minYear = 1970
	maxYear = 2199
)

const (
	monthNames   = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"
	weekdayNames = "SUNMONTUEWEDTHUFRISAT"
)

// longMember is more than any member takes, "2026-2099/10" for one.
const longMember = 24

// A field says what one place of an expression may hold.
type field struct {
	place    int
	name     string // as messages call it
	min, max int
	size     int    // how many values there are
	names    string // the values' names, three letters each, from min on
}

func fields() [7]field {
	return [7]field{
		{second, "second", 0, 59, 60, ""},
		{minute, "minute", 0, 59, 60, ""},
		{hour, "hour", 0, 23, 24, ""},
		{day, "day", 1, 31, 31, ""},
		{month, "month", 1, 12, 12, monthNames},
		{weekday, "weekday", 0, 7, 7, weekdayNames},
		{year, "year", minYear, maxYear, maxYear - minYear + 1, ""},
	}
}

// A fieldSet is what a field was found to hold.
type fieldSet struct {
	bits    bitset   // the values; years count from minYear
	star    bool     // the text begins with "*"
	special []string // members with L, W or #, in plain form: L LW L-3 15W 5L 5#2
}

func (s *fieldSet) list(from, to int) []int {
	var vs []int
	for v := from; v <= to; v++ {
		if s.bits.has(v) {
			vs = append(vs, v)
		}
	}
	return vs
}

// parse reads the text of a field. It returns every mistake as a clause.
func (f field) parse(text string) (s fieldSet, problems []string) {
	s.star = text[0] == '*'
	for member := range strings.SplitSeq(text, ",") {
		if problem := f.parseMember(member, &s); problem != "" {
			clause := f.clause(cmp.Or(member, text), problem)
			if !slices.Contains(problems, clause) {
				problems = append(problems, clause)
			}
		}
	}
	if f.place == weekday && s.bits.has(7) {
		s.bits[0] = s.bits[0]&^(1<<7) | 1
	}
	return s, problems
}

// clause joins a member and its problem, so that "60" and "60 is out of range"
// do not name it twice.
func (f field) clause(member, problem string) string {
	for _, it := range []string{member, strings.ToUpper(member), strconv.Quote(member)} {
		if is, ok := strings.CutPrefix(problem, it+" is "); ok {
			return fmt.Sprintf("%s %q is %s", f.name, member, is)
		}
	}
	return fmt.Sprintf("%s %q: %s", f.name, abridge(member, longMember), problem)
}

// parseMember adds one member of a list to s. It returns what is wrong with it,
// or nothing. Mistakes are plain strings, as they are parts of one error.
func (f field) parseMember(member string, s *fieldSet) string {
	switch {
	case member == "":
		return "a member of the list is empty; remove the extra comma"
	case len(member) > longMember:
		return "longer than any value of the field; " + f.wants()
	}
	if f.isSpecial(member) {
		plain, problem := f.parseSpecial(strings.ToUpper(member))
		if problem == "" && !slices.Contains(s.special, plain) {
			s.special = append(s.special, plain)
		}
		return problem
	}
	span, stepText, stepped := strings.Cut(member, "/")
	step := 1
	if stepped {
		var problem string
		if step, problem = f.parseStep(span, stepText); problem != "" {
			return problem
		}
	}
	lo, hi, problem := f.parseSpan(span, step, stepped)
	if problem != "" {
		return problem
	}
	base := 0
	if f.place == year {
		base = minYear
	}
	if step == 1 {
		s.bits.addSpan(lo-base, hi-base)
		return ""
	}
	for v := lo; v <= hi; v += step {
		s.bits.add(v - base)
	}
	return ""
}

func (f field) parseStep(span, text string) (int, string) {
	switch {
	case text == "":
		return 0, `the step after "/" is missing; write a number, such as ` + f.stepExample()
	case span == "":
		return 0, `nothing stands before "/"; write ` + f.stepExample()
	case strings.Contains(text, "/"):
		return 0, "a member has one step at most; write " + f.stepExample()
	}
	step, ok := number(text)
	switch {
	case !ok:
		return 0, fmt.Sprintf("the step %q is not a number; write one, such as %s", text, f.stepExample())
	case step == 0:
		return 0, "the step is 0; write a step of 1 or more, such as " + f.stepExample()
	case step > f.size:
		problem := fmt.Sprintf("the step %d is more than the %d values of the field", step, f.size)
		if f.place <= hour {
			return 0, fmt.Sprintf("%s; for so long an interval write @every %d%c", problem, step, f.name[0])
		}
		return 0, fmt.Sprintf("%s; write a step from 1 to %d", problem, f.size)
	case span == "*" && f.place == year:
		return 0, fmt.Sprintf("it does not say which year to count from; write for instance 2026-%d/%d", maxYear, step)
	}
	return step, ""
}

func (f field) stepExample() string {
	if f.place == year {
		return "2026-2099/2"
	}
	return "*/5"
}

// parseSpan reads what stands before a step: everything, a range or one value.
func (f field) parseSpan(span string, step int, stepped bool) (lo, hi int, problem string) {
	last := f.max
	if f.place == weekday {
		last = 6
	}
	if span == "*" {
		return f.min, last, ""
	}
	if problem := f.foreign(span); problem != "" {
		return 0, 0, problem
	}
	from, to, ranged := strings.Cut(span, "-")
	if !ranged {
		lo, problem = f.value(span)
		switch {
		case problem != "" || !stepped:
			return lo, lo, problem
		case f.place == weekday && lo == 7:
			return 0, last, ""
		}
		return lo, last, ""
	}
	if from == "" || to == "" || strings.Contains(to, "-") {
		return 0, 0, "a range is two values and one dash, such as " + f.rangeExample()
	}
	if lo, problem = f.value(from); problem != "" {
		return 0, 0, problem
	}
	if hi, problem = f.value(to); problem != "" {
		return 0, 0, problem
	}
	if f.place == weekday && hi == 0 && lo > 0 && strings.EqualFold(to, "SUN") {
		hi = 7
	}
	if hi < lo {
		named := f.names != "" && (len(from) == 3 || len(to) == 3)
		return 0, 0, "the range runs backwards; write " + f.forwards(lo, hi, step, named)
	}
	return lo, hi, ""
}

func (f field) rangeExample() string {
	switch f.place {
	case weekday:
		return "MON-FRI"
	case month:
		return "JUN-AUG"
	case year:
		return "2026-2030"
	}
	return "1-5"
}

// foreign recognises what other crons have, and stars in the wrong place.
func (f field) foreign(span string) string {
	switch {
	case span == "?":
		return `"?" is not taken; write *`
	case strings.Contains(span, "*"):
		return `"*" stands alone or before a step, as in ` + f.stepExample()
	case strings.Contains(span, "~"):
		return "random times are not taken; write one time and spread the jobs with jitter"
	case span == "H" || span == "h" || strings.HasPrefix(span, "H("):
		return `"H" is not taken; write one time and spread the jobs with jitter`
	}
	return ""
}

// value reads a number or a name of the field.
func (f field) value(word string) (int, string) {
	if v, ok := number(word); ok {
		if v < f.min || v > f.max {
			return 0, f.outOfRange(v)
		}
		return v, ""
	}
	upper := strings.ToUpper(word)
	if i := nameIndex(f.names, upper); i >= 0 {
		return i + f.min, ""
	}
	switch {
	case nameIndex(monthNames, upper) >= 0:
		return 0, fmt.Sprintf("%s is a month; %s", upper, f.wants())
	case nameIndex(weekdayNames, upper) >= 0:
		return 0, fmt.Sprintf("%s is a weekday; %s", upper, f.wants())
	}
	if short := f.shorten(upper); short != "" {
		return 0, "names have three letters; write " + short
	}
	if strings.Trim(upper, "0123456789") == "" && upper != "" {
		return 0, fmt.Sprintf("%s is out of range; %s", word, f.wants())
	}
	if strings.Trim(upper, "0123456789LW#") == "" {
		return 0, "L, W and # are for the day (L, LW, L-3, 15W) and weekday (5L, 5#2) fields only; " + f.wants()
	}
	return 0, fmt.Sprintf("%q is not a value of the field; %s", word, f.wants())
}

func (f field) outOfRange(v int) string {
	problem := fmt.Sprintf("%d is out of range; %s", v, f.wants())
	switch {
	case f.place <= hour && v == f.size:
		problem += fmt.Sprintf(" (%d is 0 of the next %s)", v, [...]string{"minute", "hour", "day"}[f.place])
	case f.place == weekday:
		problem += " (0 and 7 are Sunday)"
	}
	return problem
}

func (f field) wants() string {
	if f.names == "" {
		return fmt.Sprintf("write a number from %d to %d", f.min, f.max)
	}
	return fmt.Sprintf("write a number from %d to %d or a name from %s to %s", f.min, f.max,
		f.names[:3], f.names[len(f.names)-3:])
}

// shorten returns the name for a word that spells out more of it.
func (f field) shorten(upper string) string {
	if len(upper) <= 3 {
		return ""
	}
	for i := range len(f.names) / 3 {
		full := time.Weekday(i).String()
		if f.place == month {
			full = time.Month(i + 1).String()
		}
		if strings.HasPrefix(strings.ToUpper(full), upper) {
			return f.names[3*i : 3*i+3]
		}
	}
	return ""
}

// forwards writes the values of a range that runs backwards, over the end of
// the field, as it has to be written.
func (f field) forwards(lo, hi, step int, named bool) string {
	if f.place == year {
		return f.span(hi, lo, step, named)
	}
	lowest, highest := f.min, f.max
	if f.place == weekday {
		if lo == 7 {
			return f.span(0, hi, step, named)
		}
		if hi == 0 {
			return f.span(lo, 7, step, named)
		}
		lowest = 1 // Sunday ends the week
	}
	next := lo + (highest-lo)/step*step + step - f.size
	if next > hi {
		return f.span(lo, highest, step, named)
	}
	return f.span(lo, highest, step, named) + "," + f.span(max(next, lowest), hi, step, named)
}

func (f field) span(lo, hi, step int, named bool) string {
	switch {
	case hi-lo < step:
		return f.label(lo, named)
	case step == 1:
		return f.label(lo, named) + "-" + f.label(hi, named)
	}
	return fmt.Sprintf("%s-%s/%d", f.label(lo, named), f.label(hi, named), step)
}

func (f field) label(v int, named bool) string {
	if !named {
		return strconv.Itoa(v)
	}
	i := 3 * ((v - f.min) % f.size)
	return f.names[i : i+3]
}

// abridge keeps messages about long texts readable.
func abridge(s string, longest int) string {
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "..."
}

// number reads digits, no more than a year has.
func number(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		digit := s[i] - '0'
		if digit > 9 {
			return 0, false
		}
		n = 10*n + int(digit)
	}
	return n, 0 < len(s) && len(s) <= 4
}

// nameIndex returns the place of a three-letter name among names, or -1.
func nameIndex(names, upper string) int {
	if len(upper) != 3 {
		return -1
	}
	for i := 0; i < len(names); i += 3 {
		if names[i:i+3] == upper {
			return i / 3
		}
	}
	return -1
}

func joinInts(vs []int, last string) string {
	words := make([]string, len(vs))
	for i, v := range vs {
		words[i] = strconv.Itoa(v)
	}
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + last + words[n-1]
	}
	return strings.Join(words, "")
}

// A bitset holds small numbers; the widest field, the year, has 230.
type bitset [4]uint64

func (b *bitset) add(v int)      { b[v>>6] |= 1 << (v & 63) }
func (b *bitset) has(v int) bool { return b[v>>6]&(1<<(v&63)) != 0 }

func (b *bitset) addSpan(lo, hi int) {
	for lo <= hi {
		end := min(hi, lo|63)
		b[lo>>6] |= ^uint64(0) << (lo & 63) & (^uint64(0) >> (63 - end&63))
		lo = end + 1
	}
}

func (b *bitset) first() int {
	for i, w := range b {
		if w != 0 {
			return 64*i + bits.TrailingZeros64(w)
		}
	}
	return 0
}

func firstBit(w uint64) int64 { return int64(bits.TrailingZeros64(w)) }
