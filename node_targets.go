package loom

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/dustinlacewell/loom/internal/bind"
)

// An inventory is nodes that can be selected by patterns.
type inventory struct {
	nodes  []*Node        // by name
	index  map[string]int // name to position in nodes
	groups map[string][]int
}

func newInventory(nodes []*Node) *inventory {
	inv := &inventory{nodes: slices.Clone(nodes), index: make(map[string]int, len(nodes)), groups: make(map[string][]int)}
	slices.SortFunc(inv.nodes, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
	for i, n := range inv.nodes {
		inv.index[n.Name] = i
		for _, g := range n.Groups {
			inv.groups[g] = append(inv.groups[g], i)
		}
	}
	return inv
}

// splitPatterns returns the patterns in one string.
func splitPatterns(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

// A badPattern is one that can't be used: which of those given, or -1 for all
// of them together, and why.
type badPattern struct {
	i   int
	err error
}

// choose returns the nodes that patterns select, by name, and what is wrong
// with the patterns. Disabled nodes are matched, and then left out.
func (inv *inventory) choose(patterns []string) ([]*Node, []badPattern) {
	return inv.chooseHinting(patterns, true)
}

// chooseHinting is choose, which suggests what may have been meant or, since
// that takes time, does not.
func (inv *inventory) chooseHinting(patterns []string, hint bool) ([]*Node, []badPattern) {
	in, out := make([]bool, len(inv.nodes)), make([]bool, len(inv.nodes))
	var bad []badPattern
	included := false
	for i, p := range patterns {
		set, word := in, p
		if rest, exclude := strings.CutPrefix(p, "!"); exclude {
			set, word = out, strings.TrimSpace(rest)
		} else {
			included = true
		}
		matched, err := inv.match(word, hint)
		if err != nil {
			bad = append(bad, badPattern{i, err})
		}
		for _, n := range matched {
			set[n] = true
		}
	}
	switch {
	case len(bad) > 0:
		return nil, bad
	case len(patterns) == 0:
		return nil, []badPattern{{-1, errors.New("no targets are named")}}
	case !included:
		return nil, []badPattern{{-1, fmt.Errorf("the targets only say what to leave out (%s): write all beside them", strings.Join(patterns, ", "))}}
	}
	var nodes []*Node
	left := false
	for i, n := range inv.nodes {
		if !in[i] || out[i] {
			continue
		}
		left = true
		if !n.Disabled {
			nodes = append(nodes, n)
		}
	}
	if !left {
		return nil, []badPattern{{-1, errors.New("the targets exclude all nodes that they include")}}
	}
	return nodes, nil
}

// match returns the positions of the nodes that one pattern, without "!",
// stands for.
func (inv *inventory) match(word string, hint bool) ([]int, error) {
	group, isGroup := strings.CutPrefix(word, "@")
	isGlob := strings.ContainsAny(word, `*?[\`)
	switch {
	case word == "" || word == "@":
		return nil, errors.New("write a node, @group, all or a pattern, not nothing")
	case isGroup && isGlob:
		return inv.glob(group, maps.Keys(inv.groups), "group", hint, func(name string) []int { return inv.groups[name] })
	case isGroup && group == "all", word == "all":
		return inv.all()
	case isGroup:
		if nodes, ok := inv.groups[group]; ok {
			return nodes, nil
		}
		return nil, fmt.Errorf("no node is in the group @%s%s", group, inv.suggest(group, hint))
	case isGlob:
		return inv.glob(word, maps.Keys(inv.index), "node", hint, func(name string) []int { return []int{inv.index[name]} })
	}
	if i, ok := inv.index[word]; ok {
		return []int{i}, nil
	}
	return nil, fmt.Errorf("there is no node %q%s", word, inv.suggest(word, hint))
}

func (inv *inventory) all() ([]int, error) {
	if len(inv.nodes) == 0 {
		return nil, errors.New("there are no nodes at all")
	}
	all := make([]int, len(inv.nodes))
	for i := range all {
		all[i] = i
	}
	return all, nil
}

func (inv *inventory) glob(pattern string, names func(func(string) bool), what string, hint bool, nodes func(string) []int) ([]int, error) {
	pattern = strings.ReplaceAll(pattern, "[!", "[^") // the shell's way to write it
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("the pattern %q is not complete: a [ needs its ]", pattern)
	}
	var matched []int
	for name := range names {
		if ok, _ := path.Match(pattern, name); ok {
			matched = append(matched, nodes(name)...)
		}
	}
	if len(matched) == 0 {
		return nil, fmt.Errorf("no %s matches %q%s", what, pattern, inv.suggest(strings.Trim(pattern, "*?"), hint))
	}
	return matched, nil
}

// suggest names what a word may have meant, a node or a group.
func (inv *inventory) suggest(word string, hint bool) string {
	if !hint {
		return ""
	}
	if _, ok := inv.index[word]; ok {
		return fmt.Sprintf(" (did you mean the node %q?)", word)
	}
	if _, ok := inv.groups[word]; ok {
		return fmt.Sprintf(" (did you mean the group \"@%s\"?)", word)
	}
	if near := bind.Nearest(word, maps.Keys(inv.index)); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	if near := bind.Nearest(word, maps.Keys(inv.groups)); near != "" {
		return fmt.Sprintf(" (did you mean \"@%s\"?)", near)
	}
	return ""
}
