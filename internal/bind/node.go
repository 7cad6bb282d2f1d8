package bind

import (
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	maxDepth = 100       // levels of nesting, aliases followed
	maxNodes = 1_000_000 // nodes that aliases may add to a small document; ten times its size to a large one
)

// follow returns the node that n stands for: through aliases, into a document.
func follow(n *yaml.Node) *yaml.Node {
	for n != nil {
		switch {
		case n.Kind == yaml.AliasNode:
			n = n.Alias
		case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
			n = n.Content[0]
		case n.Kind == yaml.DocumentNode:
			return nil
		default:
			return n
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool {
	return n == nil || n.Kind == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func isMerge(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "<<" && n.ShortTag() == "!!merge"
}

func line(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	return n.Line
}

type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs returns what the mapping n says: its own keys in order, then those that
// it merges and doesn't override. It reports keys given twice.
func (d *decoder) pairs(n *yaml.Node) []pair {
	out := make([]pair, 0, len(n.Content)/2)
	seen := make(map[string]int, len(n.Content)/2) // name to index in out
	var merges []*yaml.Node
	for i := 0; i < len(n.Content); i += 2 {
		key := follow(n.Content[i])
		var value *yaml.Node // nil is null
		if i+1 < len(n.Content) {
			value = n.Content[i+1]
		}
		switch {
		case key == nil || key.Kind != yaml.ScalarNode:
			d.problem(key, "write a plain key, not %s", show(key))
			continue
		case isMerge(key):
			merges = append(merges, d.merged(key, follow(value))...)
			continue
		}
		if first, ok := seen[key.Value]; ok {
			d.twice(key, key.Value, out[first].key.Line)
			continue
		}
		seen[key.Value] = len(out)
		out = append(out, pair{key.Value, key, value})
	}
	for _, m := range merges {
		for _, p := range d.pairs(m) {
			if _, ok := seen[p.name]; !ok {
				seen[p.name] = len(out)
				out = append(out, p)
			}
		}
	}
	return out
}

// merged returns the mappings that a merge key asks for.
func (d *decoder) merged(key, n *yaml.Node) []*yaml.Node {
	list := []*yaml.Node{n}
	if n != nil && n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	var out []*yaml.Node
	for _, m := range list {
		m = follow(m)
		if m == nil || m.Kind != yaml.MappingNode {
			d.problem(key, "<< merges a mapping or a list of mappings, not %s", show(m))
			continue
		}
		out = append(out, m)
	}
	return out
}

// sane reports documents that contain themselves, nest too deeply or grow out
// of proportion by aliases, in time linear in what was written.
func (d *decoder) sane(n *yaml.Node) bool {
	var m meter
	e := m.measure(n, 0)
	if m.why == "" && e.size > maxNodes+10*m.written {
		m.fail(m.largest, "aliases make this too large: they stand for more than "+strconv.Itoa(maxNodes)+" values")
	}
	if m.why != "" {
		d.problem(m.where, "%s", m.why)
		return false
	}
	return true
}

// extent is what a node amounts to, aliases followed.
type extent struct{ size, height int }

type meter struct {
	known   map[*yaml.Node]extent // of nodes with an alias; size 0 while being measured
	written int                   // nodes met without following an alias twice
	largest *yaml.Node            // the alias that stands for most
	most    int
	where   *yaml.Node
	why     string
}

func (m *meter) fail(n *yaml.Node, why string) {
	if m.why == "" {
		m.where, m.why = n, why
	}
}

func (m *meter) measure(n *yaml.Node, depth int) extent {
	if n == nil || m.why != "" {
		return extent{1, 1}
	}
	if n.Kind == yaml.AliasNode {
		return m.alias(n, depth)
	}
	if m.written++; m.written > 100*maxNodes { // not from any file we would read
		m.fail(n, "this is too large")
	}
	if depth > maxDepth {
		m.fail(n, "nested deeper than "+strconv.Itoa(maxDepth)+" levels")
	}
	e := extent{1, 1}
	for _, c := range n.Content {
		if m.why != "" {
			break
		}
		ce := m.measure(c, depth+1)
		e.size = min(e.size+ce.size, 1<<40) // far beyond the limit, and adds up without overflow
		e.height = max(e.height, ce.height+1)
	}
	return e
}

func (m *meter) alias(n *yaml.Node, depth int) extent {
	if n.Alias == nil {
		m.fail(n, "the alias *"+n.Value+" stands for nothing")
		return extent{1, 1}
	}
	e, ok := m.known[n.Alias]
	switch {
	case !ok:
		if m.known == nil {
			m.known = make(map[*yaml.Node]extent)
		}
		m.known[n.Alias] = extent{}
		e = m.measure(n.Alias, depth)
		m.known[n.Alias] = e
	case e.size == 0:
		m.fail(n, "the alias *"+n.Value+" stands for something that contains it")
	}
	if depth+e.height > maxDepth {
		m.fail(n, "nested deeper than "+strconv.Itoa(maxDepth)+" levels")
	}
	if e.size > m.most {
		m.most, m.largest = e.size, n
	}
	return e
}

// show says in few words what was written.
func show(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	}
	return showText(n.Value)
}

// showText returns a short word as it is, anything else quoted and cut.
func showText(s string) string {
	odd := func(r rune) bool { return r <= ' ' || r == '"' || r > '~' }
	if s != "" && len(s) <= 40 && !strings.ContainsFunc(s, odd) {
		return s
	}
	return quote(s)
}

// quote quotes s, cut to what fits a message.
func quote(s string) string {
	if r := []rune(s); len(r) > 40 {
		s = string(r[:37]) + "..."
	}
	return strconv.Quote(s)
}
