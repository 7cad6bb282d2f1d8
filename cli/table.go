package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// A table is columns for a person to read.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table. If width is not 0, the last column ends there.
func (t *table) write(w io.Writer, width int) {
	all := t.rows
	if len(t.head) > 0 {
		all = append([][]string{t.head}, t.rows...)
	}
	var widths []int
	for _, row := range all {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], cells(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		used := 0
		for i, cell := range row {
			if i == len(row)-1 {
				if width > 0 && !strings.Contains(cell, "\x1b") {
					cell = shortenCells(cell, max(width-used, 10))
				}
				line.WriteString(cell)
				break
			}
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-cells(cell)+2))
			used += widths[i] + 2
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// shorten returns at most n runes of s, the last of which is … if more are
// missing.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return strings.TrimRight(string(r[:max(n-1, 0)]), " ,") + "…"
}

// wrap breaks text between words into lines of at most n runes.
func wrap(text string, n int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > n:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// writeJSON writes a value for programs: as JSON, or as YAML if that is what w wants.
func writeJSON(w io.Writer, v any) error {
	if y, ok := w.(*yamlWriter); ok {
		return y.value(v)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// writeLine writes one of many values for programs: as JSON each has a line, as YAML
// each is a document.
func writeLine(w io.Writer, v any) error {
	if y, ok := w.(*yamlWriter); ok {
		return y.value(v)
	}
	text, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", text)
	}
	return err
}

// A yamlWriter is an output on which values for programs are written as YAML: what
// is in them, and its order, is as in JSON.
type yamlWriter struct {
	io.Writer
	begun bool
}

func (y *yamlWriter) value(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil { // JSON is YAML
		return err
	}
	block(&doc)
	if y.begun {
		if _, err := io.WriteString(y.Writer, "---\n"); err != nil {
			return err
		}
	}
	y.begun = true
	e := yaml.NewEncoder(y.Writer)
	e.SetIndent(2)
	return errors.Join(e.Encode(&doc), e.Close())
}

// block has a YAML node written as people write it, as far as that leaves no doubt
// what it is: plain is only what begins with a letter and is no word with a meaning.
func block(n *yaml.Node) {
	switch n.Kind {
	case yaml.SequenceNode, yaml.MappingNode:
		if len(n.Content) > 0 {
			n.Style = 0
		}
	case yaml.ScalarNode:
		if plain := plainWord(n.Value); n.Tag == "!!str" && (plain || strings.Contains(strings.TrimSuffix(n.Value, "\n"), "\n")) {
			n.Style = 0
		}
	}
	for _, one := range n.Content {
		block(one)
	}
}

func plainWord(s string) bool {
	if s == "" || slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return false
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '/' || c == '_'
		if !letter && (i == 0 || (c < '0' || c > '9') && !strings.ContainsRune("-. @=", rune(c))) {
			return false
		}
	}
	return s[len(s)-1] != ' '
}

// count is a number and what is counted.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
