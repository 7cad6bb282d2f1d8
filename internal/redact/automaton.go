package redact

import "slices"

// An automaton finds all of many patterns in one pass (Aho and Corasick). It
// does not change. Each state is a beginning of a pattern; state 0 is the empty
// one.
type automaton struct {
	root  [256]int32
	nodes []node
}

// A node is a state.
type node struct {
	child, next int32 // its first longer one, and the next of its own length after the same one
	fail        int32 // the longest other state that it ends with
	depth       int32 // how long it is
	out         int32 // how long the longest pattern is that it ends with; 0: none
	b           byte  // its last byte
}

// A span is where a pattern was found.
type span struct{ from, to int }

// build returns an automaton of patterns, or nil if there are none.
func build(patterns []string) *automaton {
	if len(patterns) == 0 {
		return nil
	}
	size := 1
	for _, p := range patterns {
		size += len(p)
	}
	a := &automaton{nodes: make([]node, 1, size)}
	for _, p := range patterns {
		at := int32(0)
		for i := range len(p) {
			at = a.grow(at, p[i])
		}
		a.nodes[at].out = int32(len(p))
	}
	a.nodes = slices.Clip(a.nodes)
	a.link()
	return a
}

// grow returns the state that follows one, and makes it if there is none.
func (a *automaton) grow(at int32, b byte) int32 {
	if to := a.after(at, b); to != 0 {
		return to
	}
	to := int32(len(a.nodes))
	a.nodes = append(a.nodes, node{b: b, depth: a.nodes[at].depth + 1})
	if at == 0 {
		a.root[b] = to
	} else {
		a.nodes[to].next, a.nodes[at].child = a.nodes[at].child, to
	}
	return to
}

// after returns the state that is one with b behind it, or 0.
func (a *automaton) after(at int32, b byte) int32 {
	if at == 0 {
		return a.root[b]
	}
	for to := a.nodes[at].child; to != 0; to = a.nodes[to].next {
		if a.nodes[to].b == b {
			return to
		}
	}
	return 0
}

// link says of each state where to go on when nothing follows it.
func (a *automaton) link() {
	var queue []int32
	for _, to := range a.root {
		if to != 0 {
			queue = append(queue, to)
		}
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for to := a.nodes[at].child; to != 0; to = a.nodes[to].next {
			fail := a.step(a.nodes[at].fail, a.nodes[to].b)
			a.nodes[to].fail = fail
			a.nodes[to].out = max(a.nodes[to].out, a.nodes[fail].out)
			queue = append(queue, to)
		}
	}
}

// step returns the state after one more byte.
func (a *automaton) step(at int32, b byte) int32 {
	for at != 0 {
		if to := a.after(at, b); to != 0 {
			return to
		}
		at = a.nodes[at].fail
	}
	return a.root[b]
}

// scan goes on from a state with a piece that stands at offset, and adds to found,
// which is in order and does not overlap, where there are patterns.
func (a *automaton) scan(at int32, p []byte, offset int, found []span) (int32, []span) {
	for i, b := range p {
		if at = a.step(at, b); at != 0 {
			if n := a.nodes[at].out; n > 0 {
				found = add(found, span{offset + i + 1 - int(n), offset + i + 1})
			}
		}
	}
	return at, found
}

// shortestCut is how long the beginning of a pattern is at least that is taken
// for one where text was cut off.
const shortestCut = 4

// find returns where patterns are in a text, and beginnings of one before "…".
func (a *automaton) find(text string) []span {
	var found []span
	at := int32(0)
	var depth [4]int32 // of the states after the last bytes, the newest first
	for i := range len(text) {
		depth[3], depth[2], depth[1] = depth[2], depth[1], depth[0]
		if at = a.step(at, text[i]); at != 0 {
			if n := a.nodes[at].out; n > 0 {
				found = add(found, span{i + 1 - int(n), i + 1})
			}
		}
		depth[0] = a.nodes[at].depth
		if before := int(depth[3]); before >= shortestCut && text[i] == '\xa6' && text[i-2:i] == "\xe2\x80" {
			found = add(found, span{i - 2 - before, i - 2})
		}
	}
	return found
}

// add adds a span that ends last, and joins it with those that it overlaps.
func add(found []span, s span) []span {
	for len(found) > 0 && found[len(found)-1].to > s.from {
		s.from = min(s.from, found[len(found)-1].from)
		s.to = max(s.to, found[len(found)-1].to)
		found = found[:len(found)-1]
	}
	return append(found, s)
}
