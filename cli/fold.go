package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fold joins names into a short text: those that differ only in a number become
// a range, as db1, db2 and db3 become db[1-3].
func Fold(all []string) string {
	keys := make([]numbered, len(all))
	for i, name := range all {
		keys[i] = number(name)
	}
	slices.SortFunc(keys, numbered.compare)
	var words []string
	for i := 0; i < len(keys); {
		j := i + 1
		for j < len(keys) && keys[j].follows(keys[j-1]) {
			j++
		}
		if first, last := keys[i], keys[j-1]; j-i >= 3 {
			words = append(words, fmt.Sprintf("%s[%s-%s]%s", first.before, first.digits(), last.digits(), first.after))
		} else {
			for _, k := range keys[i:j] {
				words = append(words, k.name)
			}
		}
		i = j
	}
	return strings.Join(words, ", ")
}

// A numbered is a name cut at its last number.
type numbered struct {
	name          string
	before, after string
	n             int
	width         int // of a number with leading zeros; 0: it has none; -1: there is no number
}

func number(name string) numbered {
	const digits = "0123456789"
	none := numbered{name: name, before: name, width: -1}
	end := strings.LastIndexAny(name, digits) + 1
	if end == 0 {
		return none
	}
	begin := end
	for begin > 0 && strings.IndexByte(digits, name[begin-1]) >= 0 {
		begin--
	}
	n, err := strconv.Atoi(name[begin:end])
	if err != nil {
		return none // too long to be one
	}
	k := numbered{name: name, before: name[:begin], after: name[end:], n: n}
	if name[begin] == '0' && end-begin > 1 {
		k.width = end - begin
	}
	return k
}

// compare orders names so that db10 comes after db9.
func (k numbered) compare(o numbered) int {
	return cmp.Or(strings.Compare(k.before, o.before), strings.Compare(k.after, o.after),
		cmp.Compare(k.n, o.n), cmp.Compare(k.width, o.width), strings.Compare(k.name, o.name))
}

// byNumber is that order, of names.
func byNumber(a, b string) int { return number(a).compare(number(b)) }

func (k numbered) digits() string { return fmt.Sprintf("%0*d", max(k.width, 0), k.n) }

// follows reports whether k is the next in a range after o. After 09 that is 10.
func (k numbered) follows(o numbered) bool {
	alike := k.width == o.width || k.width == 0 && len(strconv.Itoa(k.n)) == o.width
	return alike && k.width >= 0 && k.before == o.before && k.after == o.after && k.n == o.n+1
}

// clean makes text from a node harmless on a terminal: control characters show
// as what they are instead of doing what they do.
func clean(s string) string {
	harmless := func(r rune) bool { return r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) }
	if !strings.ContainsFunc(s, func(r rune) bool { return !harmless(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range strings.TrimSuffix(s, "\r") {
		switch {
		case harmless(r):
			b.WriteRune(r)
		case r < 0x80:
			b.WriteByte('^')
			b.WriteByte(byte(r) ^ 0x40)
		default:
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}
