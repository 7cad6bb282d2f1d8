package tasks

import (
	"bytes"
	"path"
	"slices"
	"strings"
)

// An fstab is a table of file systems. It keeps every byte that it isn't told
// to change: comments, order, spacing, lines that make no sense.
type fstab struct{ lines [][]byte } // each with its newline, but maybe the last

// An fstabEntry is a line of an fstab, its escapes decoded.
type fstabEntry struct {
	source, mountpoint, fstype string
	options                    []string
	dump, pass                 string // "": not given
}

func parseFstab(text []byte) *fstab {
	return &fstab{lines: slices.Collect(bytes.Lines(bytes.Clone(text)))}
}

// bytes returns the text of the table.
func (f *fstab) bytes() []byte { return bytes.Join(f.lines, nil) }

// find returns the first entry with exactly this mountpoint and its line, or -1.
func (f *fstab) find(mountpoint string) (fstabEntry, int) {
	for i, line := range f.lines {
		if e, ok := parseFstabLine(string(line)); ok && sameDir(e.mountpoint, mountpoint) {
			return e, i
		}
	}
	return fstabEntry{}, -1
}

// sameDir compares directories of a table. What isn't a directory, such as
// none or swap, equals nothing.
func sameDir(a, b string) bool {
	return strings.HasPrefix(a, "/") && strings.HasPrefix(b, "/") && path.Clean(a) == path.Clean(b)
}

// set replaces line i by e, or adds e at the end if i is -1.
func (f *fstab) set(i int, e fstabEntry) {
	line := []byte(e.line() + "\n")
	if i >= 0 {
		f.lines[i] = line
		return
	}
	if last := len(f.lines) - 1; last >= 0 && !bytes.HasSuffix(f.lines[last], []byte("\n")) {
		f.lines[last] = append(f.lines[last], '\n')
	}
	f.lines = append(f.lines, line)
}

// parseFstabLine returns the entry that a line is, if it is one.
func parseFstabLine(line string) (fstabEntry, bool) {
	fields := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
		return fstabEntry{}, false
	}
	fields = append(fields, "", "", "", "")
	e := fstabEntry{
		source: unescape(fields[0]), mountpoint: unescape(fields[1]), fstype: unescape(fields[2]),
		dump: fields[4], pass: fields[5],
	}
	if fields[3] != "" {
		e.options = splitOptions(unescape(fields[3]))
	}
	return e, true
}

// line writes the entry as a line, without its newline.
func (e fstabEntry) line() string {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	fields := []string{
		escape(e.source), escape(e.mountpoint), or(escape(e.fstype), "auto"),
		or(escape(strings.Join(e.options, ",")), "defaults"), or(e.dump, "0"), or(e.pass, "0"),
	}
	return strings.Join(fields, "\t")
}

// splitOptions splits a list at its commas, but for those that a backslash
// makes part of an option.
func splitOptions(list string) []string {
	var options []string
	start := 0
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case '\\':
			i++
		case ',':
			options = append(options, list[start:i])
			start = i + 1
		}
	}
	return append(options, list[start:])
}
