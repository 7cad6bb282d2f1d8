package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// decode parses the head, which is a document or nothing, and the text.
func (p *parse) decode(head string, text []byte) (first, doc *yaml.Node) {
	dec := yaml.NewDecoder(io.MultiReader(strings.NewReader(head), bytes.NewReader(text)))
	next := func() (n *yaml.Node, err error) {
		defer func() {
			if v := recover(); v != nil { // yaml.v3 has some panics of its own
				n, err = nil, fmt.Errorf("yaml: %v", v)
			}
		}()
		n = new(yaml.Node)
		return n, dec.Decode(n)
	}
	var err error
	if head != "" {
		if first, err = next(); err != nil {
			p.syntax(dec, err, text, 2)
			return nil, nil
		}
	}
	if doc, err = next(); err != nil {
		if !errors.Is(err, io.EOF) {
			p.syntax(dec, err, text, strings.Count(head, "\n"))
		}
		return first, nil
	}
	if _, err = next(); !errors.Is(err, io.EOF) {
		// Only a mark after an odd line break gets here.
		p.problem(p.at.lines, 1, "there is more than one document in the file, and Loom reads one")
	}
	return first, doc
}

// syntax reports what the parser stumbled over.
func (p *parse) syntax(dec *yaml.Decoder, err error, text []byte, skip int) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	m, ok := stumble(dec)
	if !ok {
		line := 1
		if n, _ := fmt.Sscanf(msg, "line %d:", &line); n == 1 {
			_, msg, _ = strings.Cut(msg, ": ")
		}
		p.problem(line-skip, 1, "%s", msg)
		return
	}
	m.line, m.begun = m.line-skip, m.begun-skip
	line := lineOf(text, m.line)
	if m.line > 1 && strings.TrimSpace(line) == "" { // the end of the file: say where the trouble is
		for n := m.line - 1; n >= 1; n-- {
			if line = lineOf(text, n); strings.TrimSpace(line) != "" {
				m.line, m.col = n, len([]rune(line))
				break
			}
		}
	}
	p.problem(m.line, m.col, "%s", m.sentence(line))
}

// A mark is where the parser stumbled, and over what.
type mark struct {
	line, col int // from 1
	problem   string
	begun     int // line of the construct it was in; 0: it was in none
}

// stumble asks the decoder where it stopped. The error it returns has no column
// and often the wrong line, or none, while the decoder itself knows; its fields
// can be read, if not by name. Yaml.v3 is complete and doesn't change any more.
func stumble(dec *yaml.Decoder) (m mark, ok bool) {
	defer func() {
		if recover() != nil { // other fields than we know
			ok = false
		}
	}()
	parser := reflect.ValueOf(dec).Elem().FieldByName("parser").Elem().FieldByName("parser")
	at, context := parser.FieldByName("problem_mark"), parser.FieldByName("context_mark")
	m.problem = parser.FieldByName("problem").String()
	m.line = int(at.FieldByName("line").Int()) + 1
	m.col = int(at.FieldByName("column").Int()) + 1
	if parser.FieldByName("context").String() != "" {
		m.begun = int(context.FieldByName("line").Int()) + 1
	}
	return m, m.problem != ""
}

// sentence puts the parser's problem into words that say what to do.
func (m mark) sentence(line string) string {
	var here rune
	if runes := []rune(line); m.col <= len(runes) {
		here = runes[m.col-1]
	}
	since := ""
	if m.begun > 0 && m.begun < m.line {
		since = fmt.Sprintf(" that begins at line %d", m.begun)
	}
	switch m.problem {
	case "mapping values are not allowed in this context":
		return `a colon can't stand here: quote the text if it is part of it, or check the indentation`
	case "did not find expected node content":
		return "a value is missing here, or a list or mapping isn't closed"
	case "did not find expected key", "did not find expected '-' indicator":
		return "this doesn't fit the lines above it: check the indentation, and that the line before is complete"
	case "did not find expected ',' or ']'":
		return "the list" + since + " isn't closed, or a comma is missing" + exclusion(line)
	case "did not find expected ',' or '}'":
		return "the mapping" + since + " isn't closed, or a comma is missing" + exclusion(line)
	case "found unexpected end of stream":
		return "the quoted text" + since + " isn't closed"
	case "could not find expected ':'":
		return "a key must be followed by a colon and a space: check the lines above too"
	case "did not find expected alphabetic or numeric character":
		return "quote a text that begins with * or &"
	case "found character that cannot start any token":
		switch here {
		case '\t':
			return "indent with spaces, not tabs"
		case '@', '`', '%':
			return fmt.Sprintf("quote a text that begins with %c", here)
		}
		return "this can't stand here: " + m.problem
	case "found a tab character that violates indentation":
		return "indent with spaces, not tabs"
	}
	return "this is not YAML: " + m.problem
}

// exclusion explains what a target such as !db3 does in a list.
func exclusion(line string) string {
	if strings.Contains(line, "!") {
		return "; quote a text that begins with !"
	}
	return ""
}

// lineOf returns line n of a text, from 1, without its end; "" if there is none.
func lineOf(text []byte, n int) string {
	for line := range bytes.Lines(text) {
		if n--; n == 0 {
			return strings.TrimRight(string(line), "\r\n")
		}
	}
	return ""
}
