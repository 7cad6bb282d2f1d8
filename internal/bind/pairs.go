package bind

import "gopkg.in/yaml.v3"

// A Pair is one key of a mapping and its value, aliases followed.
type Pair struct {
	Name       string
	Key, Value *yaml.Node
}

// Pairs returns what the mapping n says, in order: its own keys, then those
// that it merges and doesn't override. Keys given twice and keys that are no
// text are problems. Null is an empty mapping. It is for callers that need the
// places of the keys; values may still be anything, even contain themselves.
func Pairs(n *yaml.Node) ([]Pair, []Problem) {
	var d decoder
	n = follow(n)
	switch {
	case isNull(n):
		return nil, nil
	case n.Kind != yaml.MappingNode:
		d.problem(n, "write a mapping, not %s", show(n))
		return nil, d.problems
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := follow(n.Content[i]); key != nil && isMerge(key) && !d.sane(n.Content[i+1]) {
			return nil, d.problems
		}
	}
	pairs := d.pairs(n)
	out := make([]Pair, len(pairs))
	for i, p := range pairs {
		value := follow(p.value)
		if value == nil {
			value = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: p.key.Line, Column: p.key.Column}
		}
		out[i] = Pair{Name: p.name, Key: p.key, Value: value}
	}
	return out, d.sorted()
}
