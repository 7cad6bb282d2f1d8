package source

import (
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// reference matches ${env:NAME}, ${file:PATH} and ${secret:NAME}, with a second
// dollar before it if it is to be left alone. What a shell does with variables
// of these names, such as ${env:-x} and ${file:0:3}, is not a reference.
var reference = regexp.MustCompile(`\$?\$\{(env|file|secret):([A-Za-z_/~.][^{}\n]*)\}`)

// Expand replaces references in the text of n's values by what lookup returns,
// and $${ before one by ${. Aliases are not followed: they lead to values that
// are expanded where they are written.
func Expand(n *yaml.Node, lookup func(scheme, name string) (string, error)) []bind.Problem {
	if n == nil {
		return nil
	}
	var problems []bind.Problem
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "${") {
		n.Value = reference.ReplaceAllStringFunc(n.Value, func(ref string) string {
			if strings.HasPrefix(ref, "$$") {
				return ref[1:]
			}
			m := reference.FindStringSubmatch(ref)
			value, err := lookup(m[1], m[2])
			if err != nil {
				problems = append(problems, bind.Problem{Line: n.Line, Col: n.Column, Msg: err.Error()})
			}
			return value
		})
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // keys are names
		}
		problems = append(problems, Expand(c, lookup)...)
	}
	return problems
}

// A Budget bounds what aliases make of one text.
type Budget struct {
	Left  int // values
	sizes map[*yaml.Node]int
}

// Spend takes what n amounts to, aliases followed, from the budget and reports
// whether there was enough. A node that contains itself costs little, and is
// left to package bind to refuse.
func (b *Budget) Spend(n *yaml.Node) bool {
	b.Left -= b.size(n)
	return b.Left >= 0
}

func (b *Budget) size(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	if n.Kind == yaml.AliasNode {
		size, ok := b.sizes[n.Alias]
		if !ok {
			if b.sizes == nil {
				b.sizes = make(map[*yaml.Node]int)
			}
			b.sizes[n.Alias] = 0
			size = b.size(n.Alias)
			b.sizes[n.Alias] = size
		}
		return size
	}
	size := 1
	for _, c := range n.Content {
		size = min(size+b.size(c), 1<<40)
	}
	return size
}
