package bind_test

import (
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// signature has what a task's parameters usually are.
type signature struct {
	Text  string `loom:"required"`
	Flag  bool
	Int   int64
	Ratio float64
	Wait  time.Duration
	Mode  fs.FileMode
	Maybe *string
	Texts map[string]string
	Deep  []mount
	Any   any
	Rest  []string `loom:"rest"`
}

// A struct's values, written as args and as kwargs, bind to the same struct.
func FuzzBind(f *testing.F) {
	f.Add("touch /tmp/x", true, int64(5), 1.5, int64(time.Hour), uint32(0o644), "a", "b")
	f.Add("null", false, int64(-1), 0.0, int64(0), uint32(0o7777), "", "yes")
	f.Add("", true, int64(math.MinInt64), math.MaxFloat64, int64(math.MaxInt64), uint32(0), "<<", "~")
	f.Add("0644", true, int64(0), -1e-300, int64(49*time.Hour), uint32(0o1000), "{{ x }}", "\x00\xff")
	f.Fuzz(func(t *testing.T, text string, flag bool, i int64, ratio float64, wait int64, mode uint32, a, b string) {
		if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
			t.Skip("not a number anyone writes")
		}
		parsed, err := bind.ParseMode(bind.FormatMode(fs.FileMode(mode)))
		if err != nil {
			t.Fatal(err)
		}
		want := signature{
			Text: text, Flag: flag, Int: i, Ratio: ratio, Wait: time.Duration(max(wait, 0)), Mode: parsed,
			Maybe: &a, Texts: map[string]string{a: b, text: a},
			Deep: []mount{{Host: a, Excludes: []string{b}}, {Host: b}},
			Any:  map[string]any{a: []any{b, flag, nil, int(int32(i)), ratio}},
			Rest: []string{b, a},
		}
		values := []any{want.Text, want.Flag, want.Int, want.Ratio, want.Wait, want.Mode, want.Maybe, want.Texts, want.Deep, want.Any, b, a}
		args, err := bind.Encode(values)
		if err != nil {
			t.Fatal(err)
		}
		kwargs, err := bind.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		var byPosition, byName signature
		if problems := bind.Bind(&byPosition, args, nil, nil); problems != nil {
			t.Fatalf("args: %v", problems)
		}
		if problems := bind.Bind(&byName, nil, kwargs, nil); problems != nil {
			t.Fatalf("kwargs: %v", problems)
		}
		if diff := cmp.Diff(want, byPosition); diff != "" {
			t.Errorf("args (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, byName); diff != "" {
			t.Errorf("kwargs (-want +got):\n%s", diff)
		}
	})
}

// Problems lie within the text, and what decodes without any is written by
// Encode so that it decodes to the same again.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"text: a\nflag: yes\nint: 0x10\nwait: 2d\nmode: 0644\nlist: a\n",
		"any: {a: [1, 2.5, ~, x, .inf, 0o17]}\nratio: 1e3\nmaybe: x\nnested: {host: a}\n",
		"x: &x {host: a}\nnested: {<<: *x, remotepath: b}\n",
		"ports: {80: a, 0x50: b}\nretry: 3\nlevel: high\npair: [1, 2]\n",
		"a: &a [*a]\n", "- 1\n", "", "at: 2026-01-31T00:00:00Z\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var n yaml.Node
		if yaml.Unmarshal([]byte(text), &n) != nil {
			t.Skip("not YAML")
		}
		var got every
		problems := bind.Decode(&got, &n)
		last := strings.Count(text, "\n") + strings.Count(text, "\r") + 1
		for _, p := range problems {
			if p.Line < 0 || p.Line > last || p.Msg == "" || p.First > last {
				t.Errorf("problem %+v in %d lines", p, last)
			}
		}
		if len(problems) > 0 {
			return
		}
		got.Raw, got.Node = nil, yaml.Node{} // as they were written, and so not comparable
		again, err := bind.Encode(&got)
		if err != nil {
			t.Fatal(err)
		}
		var back every
		if problems := bind.Decode(&back, again); problems != nil {
			t.Fatalf("what Encode wrote: %v", problems)
		}
		if diff := cmp.Diff(got, back, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// Whatever the nodes, in trees, in cycles, with missing parts: no panic, no end
// of time.
func FuzzNodes(f *testing.F) {
	f.Add([]byte{4, 0, 3, 1, 2, 8, 1, 0, 8, 2, 0, 16, 1, 0})
	f.Add([]byte("any graph of nodes can come from bytes"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := graph(data)
		bind.Decode(new(any), n)
		bind.Decode(&every{}, n)
		bind.Decode(&map[string]list{}, n)
		bind.Decode(new([]*retry), n)
		bind.Bind(&run{}, n, n, n)
		bind.Bind(&sshfs{}, n, n, n)
		bind.Bind(&catchAll{}, nil, n, n)
	})
}

// graph makes nodes of bytes: five for each, three of which are links.
func graph(data []byte) *yaml.Node {
	if len(data) > 2000 {
		data = data[:2000]
	}
	kinds := []yaml.Kind{yaml.ScalarNode, yaml.MappingNode, yaml.SequenceNode, yaml.AliasNode, yaml.DocumentNode, 0, 77}
	texts := []string{"", "text", "<<", "null", "5", "int", "any", "vars", "nested", "retry", "0644", "5s", "command"}
	tags := []string{"", "!!str", "!!int", "!!merge", "!x", "!!map", "!!null", "!!float"}
	nodes := make([]*yaml.Node, len(data)/5+1)
	for i := range nodes {
		nodes[i] = new(yaml.Node)
	}
	link := func(b byte) *yaml.Node {
		if b == 255 {
			return nil
		}
		return nodes[int(b)%len(nodes)]
	}
	for i := 0; i+5 <= len(data); i += 5 {
		n, b := nodes[i/5], data[i:i+5]
		n.Kind, n.Tag = kinds[int(b[0])%len(kinds)], tags[int(b[0]/8)%len(tags)]
		n.Value, n.Line = texts[int(b[1])%len(texts)], i
		switch n.Kind {
		case yaml.AliasNode:
			n.Alias = link(b[2])
		case yaml.MappingNode, yaml.SequenceNode, yaml.DocumentNode:
			for _, l := range b[2:][:b[1]%4] {
				n.Content = append(n.Content, link(l))
			}
		}
	}
	return nodes[0]
}

const benchText = `
args: ["touch /tmp/loom_was_here"]
kwargs: {timeout: 5s, shell: /bin/bash, env: {A: a, B: b}}
`

func BenchmarkBind(b *testing.B) {
	var job struct{ Args, Kwargs yaml.Node }
	if err := yaml.Unmarshal([]byte(benchText), &job); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var r run
		if p := bind.Bind(&r, &job.Args, &job.Kwargs, nil); p != nil {
			b.Fatal(p)
		}
	}
}

// A mapping of 10,000 keys, where yaml.v3's own search for duplicates takes
// 50 million comparisons.
func BenchmarkDecode10000(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		text.WriteString("job")
		text.WriteString(strings.Repeat("x", i%7))
		text.WriteString(time.Duration(i).String())
		text.WriteString(": {host: a, remotepath: /mnt, excludes: [a, b]}\n")
	}
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text.String()), &n); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var jobs map[string]mount
		if p := bind.Decode(&jobs, &n); p != nil {
			b.Fatal(p)
		}
	}
}

func BenchmarkNearest(b *testing.B) {
	keys := func(yield func(string) bool) {
		for range 1000 {
			if !yield("production-web") {
				return
			}
		}
	}
	for b.Loop() {
		bind.Nearest("pruduction-wbe7", keys)
	}
}
