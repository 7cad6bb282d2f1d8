package loom

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

func fleet() *Manifest {
	nodes := []*Node{{Name: "web2", Groups: []string{"web"}}, {Name: "db1", Groups: []string{"db", "eu"}}, {Name: "web1", Groups: []string{"eu", "web"}},
		{Name: "db2", Groups: []string{"db"}, Disabled: true}, {Name: "lone"}}
	return &Manifest{Nodes: nodes}
}

func TestManifestSelect(t *testing.T) {
	tests := []struct {
		patterns []string
		want     string // nodes, or "!" and the beginning of an error
	}{
		{[]string{"web1"}, "web1"},
		{[]string{"web2", "db1", "web2"}, "db1 web2"},
		{[]string{"@web"}, "web1 web2"},
		{[]string{"all"}, "db1 lone web1 web2"},
		{[]string{"@all"}, "db1 lone web1 web2"},
		{[]string{"web*"}, "web1 web2"},
		{[]string{"*[!2]"}, "db1 lone web1"},
		{[]string{"web[0-1]", "d?1"}, "db1 web1"},
		{[]string{"@*b"}, "db1 web1 web2"},
		{[]string{"all", "!web1"}, "db1 lone web2"},
		{[]string{"!web1", "all"}, "db1 lone web2"},
		{[]string{"all", "!@web", "!lo*"}, "db1"},
		{[]string{"all,!@eu"}, "lone web2"},
		{[]string{"web1 web2, db1"}, "db1 web1 web2"},
		{[]string{"@eu", "!@web"}, "db1"},
		{[]string{"db2"}, ""},
		{[]string{"@db"}, "db1"},
		{[]string{"wbe1"}, `!there is no node "wbe1" (did you mean "web1"?)`},
		{[]string{"web"}, `!there is no node "web" (did you mean the group "@web"?)`},
		{[]string{"@web1"}, `!no node is in the group @web1 (did you mean the node "web1"?)`},
		{[]string{"x*"}, `!no node matches "x*"`},
		{[]string{"all", "!wbe1"}, `!there is no node "wbe1"`},
		{[]string{"!web1"}, "!the targets only say what to leave out (!web1): write all beside them"},
		{[]string{"web1", "!web*"}, "!the targets exclude all nodes that they include"},
		{[]string{}, "!no targets are named"},
		{[]string{"", "!"}, "!write a node"},
		{[]string{"web[1"}, "!the pattern \"web[1\" is not complete"},
		{[]string{"no1", "no2"}, "!there is no node \"no1\"\nthere is no node \"no2\""},
	}
	for _, tt := range tests {
		got, err := fleet().Select(tt.patterns...)
		if wantErr, ok := strings.CutPrefix(tt.want, "!"); ok {
			if err == nil || !strings.HasPrefix(err.Error(), wantErr) {
				t.Errorf("Select(%q) = %s, %v, want the error %q", tt.patterns, names(got), err, wantErr)
			}
			continue
		}
		if err != nil || names(got) != tt.want {
			t.Errorf("Select(%q) = %s, %v, want %s", tt.patterns, names(got), err, tt.want)
		}
	}
}

// FuzzTargets compares Select to set algebra done the slow way.
func FuzzTargets(f *testing.F) {
	for _, seed := range []string{"web1", "all,!@web", "!db* all", "@eu web[12]", "@*", "!web1", "a,b", "[", "web[!1]", "@all !all", "\\web1"} {
		f.Add(seed)
	}
	m := fleet()
	f.Fuzz(func(t *testing.T, text string) {
		got, err := m.Select(text)
		in, out := map[string]bool{}, map[string]bool{}
		good, included := true, false
		for _, p := range splitPatterns(text) {
			set, word := in, p
			if strings.HasPrefix(p, "!") {
				set, word = out, p[1:]
			} else {
				included = true
			}
			found := false
			for _, n := range m.Nodes {
				if slowlyMatches(n, word) {
					set[n.Name], found = true, true
				}
			}
			good = good && found
		}
		var want []string
		left := false
		for _, n := range m.Nodes {
			if in[n.Name] && !out[n.Name] {
				left = true
				if !n.Disabled {
					want = append(want, n.Name)
				}
			}
		}
		slices.Sort(want)
		if ok := good && included && left; ok != (err == nil) {
			t.Fatalf("Select(%q) = %v, want an error: %v", text, err, !ok)
		}
		if err == nil && names(got) != strings.Join(want, " ") {
			t.Fatalf("Select(%q) = %s, want %s", text, names(got), want)
		}
	})
}

func slowlyMatches(n *Node, word string) bool {
	if word == "all" || word == "@all" {
		return true
	}
	candidates := []string{n.Name}
	if rest, ok := strings.CutPrefix(word, "@"); ok {
		word, candidates = rest, n.Groups
	}
	if slices.Contains(candidates, word) && !strings.ContainsAny(word, `*?[\`) {
		return true
	}
	return strings.ContainsAny(word, `*?[\`) && slices.ContainsFunc(candidates, func(c string) bool {
		ok, err := path.Match(strings.ReplaceAll(word, "[!", "[^"), c)
		return ok && err == nil
	})
}

func ExampleManifest_Select() {
	m := &Manifest{Nodes: []*Node{
		{Name: "db1", Groups: []string{"db"}}, {Name: "web1", Groups: []string{"web"}}, {Name: "web2", Groups: []string{"web"}},
	}}
	nodes, err := m.Select("all", "!web2")
	for _, n := range nodes {
		fmt.Println(n.Name, err)
	}
	_, err = m.Select("wbe*", "@bd")
	fmt.Println(err)
	// Output:
	// db1 <nil>
	// web1 <nil>
	// no node matches "wbe*" (did you mean "@web"?)
	// no node is in the group @bd (did you mean "@db"?)
}
