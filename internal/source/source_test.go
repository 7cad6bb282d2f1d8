package source_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

// places describes problems as the user sees them.
func places(s *source.Set, problems []bind.Problem) string {
	var out []string
	for _, p := range problems {
		name, line := s.Position(p.Line)
		out = append(out, fmt.Sprintf("%s:%d:%d: %s", name, line, p.Col, p.Msg))
	}
	return strings.Join(out, "\n")
}

func TestNodesKnowTheirPlaces(t *testing.T) {
	var s source.Set
	data, problems := s.Parse("data", []byte("# one\nx: &x\n  - a\n  - b"), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, text := range []string{"jobs: *x\n", "---\njobs: *x\n", "\xef\xbb\xbfjobs: *x\n", "%YAML 1.1\n---\njobs: *x\n...\n", "{jobs: *x}"} {
		tree, problems := s.Parse("file", []byte(text), data)
		if len(problems) > 0 {
			t.Fatalf("%q: %v", text, places(&s, problems))
		}
		pairs, _ := bind.Pairs(tree.Root)
		key, value := pairs[0].Key, pairs[0].Value
		name, line := s.Position(key.Line)
		if want := 1 + strings.Count(text[:strings.Index(text, "jobs")], "\n"); name != "file" || line != want {
			t.Errorf("%q: the key is at %s:%d, want file:%d", text, name, line, want)
		}
		name, line = s.Position(value.Content[1].Line)
		if name != "data" || line != 4 || value.Content[1].Value != "b" {
			t.Errorf("%q: b is at %s:%d, want data:4", text, name, line)
		}
	}
	if name, line := s.Position(0); name != "" || line != 0 {
		t.Errorf("line 0 is at %s:%d", name, line)
	}
	if name, _ := s.Position(1 << 30); name != "" {
		t.Errorf("a line beyond all is in %s", name)
	}
}

// What a text defines itself counts, from there on.
func TestOwnAnchorsWin(t *testing.T) {
	var s source.Set
	data, _ := s.Parse("data", []byte("x: &x shared\n"), nil)
	tree, problems := s.Parse("file", []byte("a: *x\nb: &x own\nc: *x\n"), data)
	if len(problems) > 0 {
		t.Fatal(places(&s, problems))
	}
	pairs, _ := bind.Pairs(tree.Root)
	if a, c := pairs[0].Value.Value, pairs[2].Value.Value; a != "shared" || c != "own" {
		t.Errorf("*x is %q, then %q, want shared, then own", a, c)
	}
}

// The parser tells where it stopped only inside itself; if its fields change,
// this fails.
func TestSyntaxProblemsHaveLineAndColumn(t *testing.T) {
	tests := []struct{ text, want string }{
		{"a: 1\nb: c: d\n", "f:2:5: a colon"},
		{"a:\n  b: 1\n c: 1\n", "f:3:2: this doesn't fit"},
		{"a: [1,\n  2\nb: *x\n", "f:3:2: the list that begins at line 1 isn't closed"},
		{"x: *x y\nb: [\n", "f:1:7: this doesn't fit"},
		{"a: *nope\nb: [*nor, *nope]\n", "f:1:4: unknown anchor *nope\nf:2:5: unknown anchor *nor\nf:2:11: unknown anchor *nope"},
		{"a: 1\n\tb: 1\n", "f:2:"},
		{"a: 1\nb: 'x\n", "f:2:"},
		{"a: \x07\n", "f:1:4: the control character 0x07"},
		{"a: 1\n---\nb: 1\n", "f:2:1: a second document"},
		{"a: |\n  x\n---\n", "f:3:1: a second document"},
		{"a: 1\n...\nb: 1\n", "f:2:1: the document ends here"},
	}
	for _, tt := range tests {
		var s source.Set
		tree, problems := s.Parse("f", []byte(tt.text), nil)
		if got := places(&s, problems); !strings.HasPrefix(got, tt.want) || !tree.Broken {
			t.Errorf("%q: problems %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestExpand(t *testing.T) {
	lookup := func(_ *yaml.Node, scheme, name string) (string, error) {
		if name == "NO" {
			return "", errors.New("no such thing")
		}
		return "<" + scheme + " " + name + ">", nil
	}
	tests := []struct{ text, want string }{
		{"plain ${HOME} ${x:-y} $$", "plain ${HOME} ${x:-y} $$"},
		{"${env:A}-${file:a/b.txt} ${secret:s}", "<env A>-<file a/b.txt> <secret s>"},
		{"$${env:A} $${x}", "${env:A} $${x}"},
		{"${env:-x} ${file:0:3} ${env:=y} ${file:?z}", "${env:-x} ${file:0:3} ${env:=y} ${file:?z}"},
		{"${env:NO}", "!no such thing"},
		{"$$${env:A}", "$${env:A}"},
	}
	for _, tt := range tests {
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: tt.text, Line: 3, Column: 7}
		e := source.Expander{Lookup: lookup}
		problems := append(e.Expand(n), e.Expand(n)...) // once is enough
		if want, bad := strings.CutPrefix(tt.want, "!"); bad {
			if len(problems) != 1 || problems[0].Msg != want || problems[0].Line != 3 || problems[0].Col != 7 {
				t.Errorf("Expand(%q) reports %v, want %q at 3:7", tt.text, problems, want)
			}
		} else if len(problems) > 0 || n.Value != want {
			t.Errorf("Expand(%q) = %q, %v, want %q", tt.text, n.Value, problems, want)
		}
	}
}

// FuzzParse holds that each node and each problem is in its own text, and that
// a text with a shared one reads as it does alone.
func FuzzParse(f *testing.F) {
	f.Add("x: &x 1\n", "jobs: {a: *x}\n")
	f.Add("x: &x 1\r\n...\n", "---\n%x\n")
	f.Add("", "a: b\u0085c: d\u2028---\n*x : y")
	f.Fuzz(func(t *testing.T, shared, text string) {
		var s source.Set
		data, problems := s.Parse("data", []byte(shared), nil)
		inside(t, &s, "data", shared, data, problems)
		tree, problems := s.Parse("file", []byte(text), data)
		inside(t, &s, "file", text, tree, problems)
		if len(problems) > 0 {
			return
		}
		var alone source.Set
		again, problems := alone.Parse("file", []byte(text), nil)
		if len(problems) == 0 && outline(again.Root) != outline(tree.Root) {
			t.Fatalf("%q alone is %s, with %q %s", text, outline(again.Root), shared, outline(tree.Root))
		}
	})
}

func inside(t *testing.T, s *source.Set, name, text string, tree *source.Tree, problems []bind.Problem) {
	t.Helper()
	check := func(line int) {
		if got, n := s.Position(line); got != name || n < 1 || n > 1+strings.Count(text, "\n") {
			t.Fatalf("line %d of %q is at %s:%d", line, text, got, n)
		}
	}
	for _, p := range problems {
		check(p.Line)
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		check(n.Line)
		for _, c := range n.Content {
			walk(c)
		}
	}
	if tree.Root != nil {
		walk(tree.Root)
	}
}

// outline is a tree without its places, aliases as their names.
func outline(n *yaml.Node) string {
	if n == nil {
		return "nothing"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %q &%q", n.Kind, n.Tag, n.Value, n.Anchor)
	for _, c := range n.Content {
		b.WriteString("(" + outline(c) + ")")
	}
	return b.String()
}
