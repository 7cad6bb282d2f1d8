package notify

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sequences matches what tells a terminal what to do: colours, titles, cursors.
func sequences() *regexp.Regexp {
	return regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]`)
}

// A cleaner makes text from elsewhere fit to be told: no secrets, nothing that a
// screen would take for an order, and no more than so much.
type cleaner struct {
	redact func(string) string // nil: there are no secrets
	marks  *regexp.Regexp
}

func newCleaner(redact func(string) string) *cleaner {
	return &cleaner{redact: redact, marks: sequences()}
}

// line returns s as one line.
func (c *cleaner) line(s string, most int) string {
	return cut(strings.Map(one, c.plain(s)), most)
}

// lines returns s with its lines.
func (c *cleaner) lines(s string, most int) string { return cut(c.plain(s), most) }

// plain takes out what does not print.
func (c *cleaner) plain(s string) string {
	const absurd = 1 << 20
	if len(s) > absurd {
		s = s[:absurd]
	}
	if c.redact != nil {
		s = c.redact(s)
	}
	s = strings.ToValidUTF8(s, "�")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if strings.ContainsRune(s, 0x1b) {
		s = c.marks.ReplaceAllString(s, "")
	}
	return strings.Map(harmless, s)
}

// harmless replaces what is not to be seen, or turns text around.
func harmless(r rune) rune {
	switch {
	case r == '\n':
		return r
	case r == '\t', r == '\r':
		return ' '
	case unicode.IsControl(r):
		return '�'
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c, r == 0x2028, r == 0x2029, r == 0xfeff:
		return -1
	}
	return r
}

func one(r rune) rune {
	if r == '\n' {
		return ' '
	}
	return r
}

// cut returns the beginning of s, of at most so many bytes, and says that there
// was more.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	s = s[:max(0, most-len(more))]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + more
}

// news cleans all that is in n. It changes n.
func (c *cleaner) news(n *News) {
	for i := range n.Failures {
		f := &n.Failures[i]
		f.Reason = c.line(f.Reason, reasonLength)
		f.Output = c.each(f.Output, lineLength)
		f.Nodes = c.each(f.Nodes, lineLength)
	}
	n.Output = c.each(n.Output, lineLength)
	n.Nodes = c.each(n.Nodes, lineLength)
	n.Problems = c.each(n.Problems, reasonLength)
	n.Reason, n.By = c.line(n.Reason, reasonLength), c.line(n.By, lineLength)
	if j := n.Job; j != nil {
		for _, s := range []*string{&j.Name, &j.Description, &j.Owner, &j.Runbook, &j.File} {
			*s = c.line(*s, reasonLength)
		}
	}
	if r := n.Run; r != nil {
		r.By = c.line(r.By, lineLength)
	}
}

// each returns a copy of lines, cleaned.
func (c *cleaner) each(lines []string, most int) []string {
	lines = slices.Clone(lines)
	for i, l := range lines {
		lines[i] = c.line(l, most)
	}
	return lines
}
