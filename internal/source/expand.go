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

// An Expander replaces references in the values of trees. Each value is expanded
// once.
type Expander struct {
	// Lookup returns what a reference in n stands for.
	Lookup func(n *yaml.Node, scheme, name string) (string, error)

	// Templates are, for the values in which a secret has a brace, the texts of
	// templates that print them: what is in a secret is nothing to be filled in.
	Templates map[*yaml.Node]string

	done map[*yaml.Node]bool
}

// Expand replaces references in the text of n's values by what Lookup returns,
// and $${ before one by ${. Aliases are not followed: they lead to values that
// are expanded where they are written.
func (e *Expander) Expand(n *yaml.Node) []bind.Problem {
	if n == nil {
		return nil
	}
	var problems []bind.Problem
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "${") && !e.done[n] {
		problems = e.scalar(n)
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // keys are names
		}
		problems = append(problems, e.Expand(c)...)
	}
	return problems
}

func (e *Expander) scalar(n *yaml.Node) []bind.Problem {
	if e.done == nil {
		e.done, e.Templates = map[*yaml.Node]bool{}, map[*yaml.Node]string{}
	}
	e.done[n] = true
	var problems []bind.Problem
	var value, tmpl strings.Builder
	braces := false
	at := 0
	for _, m := range reference.FindAllStringSubmatchIndex(n.Value, -1) {
		before := n.Value[at:m[0]]
		value.WriteString(before)
		tmpl.WriteString(before)
		at = m[1]
		if ref := n.Value[m[0]:m[1]]; strings.HasPrefix(ref, "$$") {
			value.WriteString(ref[1:])
			tmpl.WriteString(ref[1:])
			continue
		}
		scheme := n.Value[m[2]:m[3]]
		text, err := e.Lookup(n, scheme, n.Value[m[4]:m[5]])
		if err != nil {
			problems = append(problems, bind.Problem{Line: n.Line, Col: n.Column, Msg: err.Error()})
		}
		value.WriteString(text)
		if scheme == "secret" && strings.Contains(text, "{") {
			braces = true
			text = strings.ReplaceAll(text, "{", `{{"{"}}`)
		}
		tmpl.WriteString(text)
	}
	value.WriteString(n.Value[at:])
	tmpl.WriteString(n.Value[at:])
	if n.Value = value.String(); braces {
		e.Templates[n] = tmpl.String()
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
