// Package source reads YAML texts into nodes that know which file and line they
// come from, also where one text uses the anchors of another.
//
// All texts of a [Set] share one numbering of lines, as the files of a
// go/token.FileSet do, so that the line of any node leads back to its file
// however it was reached.
package source

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// The bounds of a text.
const (
	MaxSize   = 8 << 20 // bytes
	maxValues = 1 << 20 // YAML values, which cost some 200 bytes each
	maxHints  = 100     // mistakes after which no more suggestions are made
)

// Nowhere is the line of nodes that stand for an anchor that doesn't exist.
// Problems with them were reported already.
const Nowhere = -1

// A Set is the texts that were read together. Its zero value is empty.
type Set struct {
	texts []placed
	lines int // of all texts so far
}

type placed struct {
	name  string
	start int // its lines are start+1 to start+lines
	lines int
}

// A Tree is a text that was parsed.
type Tree struct {
	Name   string
	Root   *yaml.Node // nil: there is nothing in it, or nothing could be read
	Broken bool       // Root is not all that was written
	End    int        // line of a "..." at the end; 0: there is none

	anchors map[string]*yaml.Node
}

// Position says where a node's line is: the name of the text and the line in
// it. The name is empty for a line of no text.
func (s *Set) Position(line int) (name string, n int) {
	i := sort.Search(len(s.texts), func(i int) bool { return s.texts[i].start+s.texts[i].lines >= line })
	if line < 1 || i == len(s.texts) {
		return "", 0
	}
	return s.texts[i].name, line - s.texts[i].start
}

// Parse reads a text. Aliases that it doesn't define itself are those of
// shared, which may be nil; their nodes are then the very nodes of shared.
// Problems have lines in the numbering of the set.
func (s *Set) Parse(name string, text []byte, shared *Tree) (*Tree, []bind.Problem) {
	t := &Tree{Name: name}
	p := parse{set: s, tree: t, shared: shared, at: placed{name, s.lines, 1 + bytes.Count(text, []byte("\n"))}}
	s.texts = append(s.texts, p.at)
	s.lines += p.at.lines
	p.run(text)
	t.Broken = len(p.problems) > 0
	return t, p.problems
}

// A parse is the reading of one text.
type parse struct {
	set      *Set
	tree     *Tree
	shared   *Tree
	at       placed
	problems []bind.Problem

	stubs map[*yaml.Node]*yaml.Node // what stands for an anchor of shared, or for none (nil)
}

func (p *parse) problem(line, col int, format string, a ...any) {
	line = min(max(line, 1), p.at.lines) // odd line breaks count for YAML and not for editors
	p.problems = append(p.problems, bind.Problem{Line: p.at.start + line, Col: max(col, 1), Msg: fmt.Sprintf(format, a...)})
}

func (p *parse) run(text []byte) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if !p.readable(text) {
		return
	}
	text = p.oneDocument(text)
	names := aliases(text)
	slices.Sort(names)
	names = slices.Compact(names)

	// Anchors don't cross texts, but the parser remembers them from document to
	// document of one stream. So a document before this one defines all that it
	// might refer to, and the aliases are led to the right nodes afterwards.
	var head string
	if len(names) > 0 {
		head = "[&" + strings.Join(names, " ~,&") + " ~]\n---\n"
	}
	first, doc := p.decode(head, text)
	if first != nil {
		p.stubs = make(map[*yaml.Node]*yaml.Node, len(names))
		for _, stub := range first.Content[0].Content {
			p.stubs[stub] = p.shared.anchor(stub.Anchor)
		}
	}
	if doc == nil {
		return
	}
	p.tree.anchors = make(map[string]*yaml.Node)
	p.settle(doc, strings.Count(head, "\n"))
	p.unknownAnchors(doc)
	if len(doc.Content) > 0 && !isNull(doc.Content[0]) {
		p.tree.Root = doc.Content[0]
	}
}

// readable reports what no YAML text may contain.
func (p *parse) readable(text []byte) bool {
	if len(text) > MaxSize {
		p.problem(1, 1, "the file has %d bytes, and Loom reads at most %d MiB: split it", len(text), MaxSize>>20)
		return false
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		p.problem(1, 1, "the file is in UTF-16: save it as UTF-8")
		return false
	}
	line, start, values := 1, 0, 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && size == 1 {
				p.problem(line, 1+utf8.RuneCount(text[start:i]), "the file is not UTF-8: the byte %#02x does not belong here", c)
				return false
			}
			i += size
			continue
		}
		switch c {
		case '\n':
			line, start = line+1, i+1
			values++
		case ',', ':', '[', '{', '-', '?', '\r':
			values++
		case '\t':
		default:
			if c < ' ' || c == 0x7f {
				p.problem(line, 1+utf8.RuneCount(text[start:i]), "the control character %#02x can't stand in YAML", c)
				return false
			}
		}
		i++
	}
	if values > maxValues {
		p.problem(1, 1, "the file holds more than a million values, and Loom reads no more: split it")
		return false
	}
	return true
}

// oneDocument returns the text without the marks that begin and end a document,
// and reports those after which something would be lost.
func (p *parse) oneDocument(text []byte) []byte {
	begun, copied := false, false
	for n, start := 1, 0; start < len(text); n++ {
		end := start + bytes.IndexByte(text[start:], '\n')
		if end < start {
			end = len(text)
		}
		line := text[start:end]
		switch trimmed := bytes.TrimSpace(line); {
		case isMark(line, "---") && begun:
			p.problem(n, 1, "a second document begins here, and Loom reads one from each file: remove the line, or move what follows to a file of its own")
			return text[:start]
		case isMark(line, "---"), !begun && len(line) > 0 && line[0] == '%':
			begun = isMark(line, "---")
			if !copied {
				text, copied = bytes.Clone(text), true
			}
			if begun {
				copy(text[start:], "   ")
			} else {
				text[start] = '#'
			}
		case isMark(line, "..."):
			if rest := text[end:]; !blank(rest) {
				p.problem(n, 1, `the document ends here ("..."), so all that follows would be lost: remove the line`)
			}
			p.tree.End = p.at.start + n
			return text[:start]
		case len(trimmed) > 0 && trimmed[0] != '#':
			begun = true
		}
		start = end + 1
	}
	return text
}

// isMark says whether a line is a document mark, which it is in any context.
func isMark(line []byte, mark string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(mark))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r')
}

// blank says whether there are only comments in a text.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// aliases returns what might be names of aliases in a text, and more.
func aliases(text []byte) []string {
	var names []string
	for {
		_, after, ok := bytes.Cut(text, []byte("*"))
		if !ok {
			return names
		}
		n := 0
		for n < len(after) && isAnchorByte(after[n]) {
			n++
		}
		if n > 0 {
			names = append(names, string(after[:n]))
		}
		text = after[n:]
	}
}

func isAnchorByte(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c == '_' || c == '-'
}

// settle gives each node its line in the set, leads aliases of anchors that
// the text doesn't define where they belong, and notes the text's own anchors.
func (p *parse) settle(n *yaml.Node, skip int) {
	n.Line = p.at.start + min(max(n.Line-skip, 1), p.at.lines)
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	if n.Anchor != "" {
		p.tree.anchors[n.Anchor] = n
	}
	if n.Kind == yaml.AliasNode {
		if real, ok := p.stubs[n.Alias]; ok && real != nil {
			n.Alias = real
		}
	}
	for _, c := range n.Content {
		p.settle(c, skip)
	}
}

// unknownAnchors reports aliases that stand for nothing.
func (p *parse) unknownAnchors(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		if _, stub := p.stubs[n.Alias]; !stub {
			return
		}
		n.Alias = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: Nowhere}
		if p.shared != nil && p.shared.Broken {
			return // it may well be there, where we could not read it
		}
		line := n.Line - p.at.start
		switch later := p.tree.anchors[n.Value]; {
		case later != nil:
			p.problem(line, n.Column, "the anchor &%s is defined at line %d, after this use of it: move it up", n.Value, later.Line-p.at.start)
		default:
			hint := ""
			if len(p.problems) < maxHints {
				if near := bind.Nearest(n.Value, p.anchorNames()); near != "" {
					hint = fmt.Sprintf(" (did you mean *%s?)", near)
				}
			}
			p.problem(line, n.Column, "unknown anchor *%s%s", n.Value, hint)
		}
	}
	for _, c := range n.Content {
		p.unknownAnchors(c)
	}
}

func (p *parse) anchorNames() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, t := range []*Tree{p.tree, p.shared} {
			if t == nil {
				continue
			}
			for name := range t.anchors {
				if !yield(name) {
					return
				}
			}
		}
	}
}

func (t *Tree) anchor(name string) *yaml.Node {
	if t == nil {
		return nil
	}
	return t.anchors[name]
}

func isNull(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
