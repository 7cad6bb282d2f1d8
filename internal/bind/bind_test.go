package bind_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/golden"
)

type run struct {
	Command string            `loom:"required" help:"shell command line"`
	Shell   string            `help:"shell to run it with"`
	Timeout time.Duration     `help:"give up after this long"`
	Env     map[string]string `help:"environment"`
	client  chan int
	Handle  chan int `yaml:"-"`
}

type mount struct {
	Host       string `loom:"required"`
	RemotePath string
	MountPoint string
	Excludes   []string
}

type sshfs struct {
	Mounts []mount `loom:"rest,required" help:"what to mount"`
}

// every has a parameter of every type there is.
type every struct {
	Text    string
	Flag    bool
	Int     int
	Small   int8
	Count   uint16
	Ratio   float64
	Wait    time.Duration
	Mode    fs.FileMode
	At      time.Time
	List    []string
	Numbers []int
	Texts   map[string]string
	Vars    map[string]any
	Any     any
	Maybe   *string
	Nested  mount
	Retry   retry
	Level   level
	Raw     *yaml.Node
	Node    yaml.Node
	Pair    [2]int
	Ports   map[int]string
	Common  `yaml:",inline"`
}

type Common struct {
	Owner string
}

// retry is written as a number or as a mapping.
type retry struct {
	Attempts int `loom:"required"`
	Delay    time.Duration
}

func (r *retry) DecodeNode(n *yaml.Node) []bind.Problem {
	if n.Kind == yaml.ScalarNode {
		return bind.Decode(&r.Attempts, n)
	}
	return bind.Decode(r, n)
}

type level int

func (l *level) UnmarshalText(text []byte) error {
	i := slices.Index([]string{"low", "high"}, string(text))
	if i < 0 {
		return errors.New("write low or high")
	}
	*l = level(i)
	return nil
}

func (l level) MarshalText() ([]byte, error) { return []byte([]string{"low", "high"}[l]), nil }

// catchAll takes names that are no field's.
type catchAll struct {
	Name   string
	Others map[string]int `yaml:",inline"`
}

// call parses text, a mapping with args and kwargs, and binds them to dst.
func call(tb testing.TB, dst any, text string) []bind.Problem {
	tb.Helper()
	var job struct{ Task, Args, Kwargs yaml.Node }
	if err := yaml.Unmarshal([]byte(text), &job); err != nil {
		tb.Fatal(err)
	}
	return bind.Bind(dst, &job.Args, &job.Kwargs, &job.Task)
}

func lines(problems []bind.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%d:%d: %v\n", p.Line, p.Col, p)
	}
	return b.String()
}

func TestBind(t *testing.T) {
	tests := []struct {
		name, text string
		dst, want  any
	}{
		{"by position", "args: [ls -l, /bin/bash, 5s, {A: 1}]", &run{},
			&run{Command: "ls -l", Shell: "/bin/bash", Timeout: 5 * time.Second, Env: map[string]string{"A": "1"}}},
		{"by name", "kwargs: {timeout: 2d, command: ls}", &run{}, &run{Command: "ls", Timeout: 48 * time.Hour}},
		{"both", "args: [ls]\nkwargs: {shell: sh}", &run{}, &run{Command: "ls", Shell: "sh"}},
		{"one scalar as args", "args: uptime", &run{}, &run{Command: "uptime"}},
		{"defaults stay", "args: [ls]", &run{Shell: "ksh", Timeout: time.Hour}, &run{Command: "ls", Shell: "ksh", Timeout: time.Hour}},
		{"a value replaces its default wholly", "args: [ls]\nkwargs: {env: {B: b}}", &run{Env: map[string]string{"A": "a"}},
			&run{Command: "ls", Env: map[string]string{"B": "b"}}},
		{"a struct too", "kwargs: {nested: {host: b}}", &every{Nested: mount{Host: "a", RemotePath: "/a"}}, &every{Nested: mount{Host: "b"}}},
		{"by position too", "args: [{host: b}]", &struct{ M mount }{mount{Host: "a", RemotePath: "/a"}}, &struct{ M mount }{mount{Host: "b"}}},
		{"null args and kwargs", "args:\nkwargs: ~", &every{Int: 1}, &every{Int: 1}},
		{"rest", "args: [{host: a, remotepath: /a}, {host: b, excludes: c}]", &sshfs{},
			&sshfs{[]mount{{Host: "a", RemotePath: "/a"}, {Host: "b", Excludes: []string{"c"}}}}},
		{"rest replaces its default", "args: [{host: a}]", &sshfs{[]mount{{Host: "x"}, {Host: "y"}}}, &sshfs{[]mount{{Host: "a"}}}},
		{"rest by name", "kwargs: {mounts: [{host: a}]}", &sshfs{}, &sshfs{[]mount{{Host: "a"}}}},
		{"inline struct by name", "kwargs: {owner: ann}", &every{}, &every{Common: Common{"ann"}}},
		{"inline map", "kwargs: {name: a, x: 1, y: 2}", &catchAll{}, &catchAll{"a", map[string]int{"x": 1, "y": 2}}},
		{"merge", "kwargs: {<<: {command: a, shell: b}, command: c}", &run{}, &run{Command: "c", Shell: "b"}},
		{"merges, the first wins", "kwargs: {<<: [{command: a}, {command: b, shell: b}]}", &run{}, &run{Command: "a", Shell: "b"}},
		{"merge within a merge", "kwargs: {<<: {<<: {shell: x, command: x}, command: a}}", &run{}, &run{Command: "a", Shell: "x"}},
		{"no parameters", "args: []", &struct{}{}, &struct{}{}},
		{"no struct", "args: []\nkwargs: {}", new(func()), new(func())},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if problems := call(t, tt.dst, tt.text); problems != nil {
				t.Fatalf("problems:\n%s", lines(problems))
			}
			if diff := cmp.Diff(tt.want, tt.dst, cmp.AllowUnexported(run{}, sshfs{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestValues(t *testing.T) {
	text := func(s string) *string { return &s }
	tests := []struct {
		text string // kwargs
		want every
	}{
		{"text: 1.10", every{Text: "1.10"}},
		{"text: 0644", every{Text: "0644"}},
		{"text: yes", every{Text: "yes"}},
		{"text: 2026-01-31", every{Text: "2026-01-31"}},
		{"text: 'null'", every{Text: "null"}},
		{"text: !!str null", every{Text: "null"}},
		{"text: ''", every{}},
		{"text: <<", every{Text: "<<"}},
		{"text: |\n  a\n  b\n", every{Text: "a\nb\n"}},
		{"flag: true", every{Flag: true}},
		{"flag: On", every{Flag: true}},
		{"flag: 'YES'", every{Flag: true}},
		{"flag: off", every{}},
		{"int: 0x10", every{Int: 16}},
		{"int: -1_000", every{Int: -1000}},
		{"int: '12'", every{Int: 12}},
		{"int: 0o17", every{Int: 15}},
		{"small: -128", every{Small: -128}},
		{"count: 65535", every{Count: 65535}},
		{"ratio: 1e3", every{Ratio: 1000}},
		{"ratio: 3", every{Ratio: 3}},
		{"wait: 1h30m", every{Wait: 90 * time.Minute}},
		{"wait: 90d", every{Wait: 90 * 24 * time.Hour}},
		{"wait: 1d12h", every{Wait: 36 * time.Hour}},
		{"wait: 0.5d", every{Wait: 12 * time.Hour}},
		{"wait: 0", every{}},
		{"mode: 644", every{Mode: 0o644}},
		{"mode: 0644", every{Mode: 0o644}},
		{"mode: '0644'", every{Mode: 0o644}},
		{"mode: 0o644", every{Mode: 0o644}},
		{"mode: 4755", every{Mode: 0o755 | fs.ModeSetuid}},
		{"mode: 1777", every{Mode: 0o777 | fs.ModeSticky}},
		{"mode: 2750", every{Mode: 0o750 | fs.ModeSetgid}},
		{"at: 2026-01-31T15:04:05Z", every{At: time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)}},
		{"list: [a, 1.10, no]", every{List: []string{"a", "1.10", "no"}}},
		{"list: one", every{List: []string{"one"}}},
		{"list: []", every{List: []string{}}},
		{"list:", every{}},
		{"numbers: 7", every{Numbers: []int{7}}},
		{"texts: {a: 007, yes: no, 1.0: x}", every{Texts: map[string]string{"a": "007", "yes": "no", "1.0": "x"}}},
		{"vars: {a: 1, b: [x, 1.5, true, ~], c: {d: e}, f: 0644, g: 2026-01-31, h: yes}", every{Vars: map[string]any{
			"a": 1, "b": []any{"x", 1.5, true, nil}, "c": map[string]any{"d": "e"}, "f": 0o644, "g": "2026-01-31", "h": "yes"}}},
		{"any: 12", every{Any: 12}},
		{"any: {1: a}", every{Any: map[string]any{"1": "a"}}},
		{"any: ~", every{}},
		{"maybe: x", every{Maybe: text("x")}},
		{"maybe: ~", every{}},
		{"nested: {host: h, remotepath: /r}", every{Nested: mount{Host: "h", RemotePath: "/r"}}},
		{"retry: 3", every{Retry: retry{Attempts: 3}}},
		{"retry: {attempts: 3, delay: 5s}", every{Retry: retry{3, 5 * time.Second}}},
		{"level: high", every{Level: 1}},
		{"pair: [1, 2]", every{Pair: [2]int{1, 2}}},
		{"ports: {80: web, 0x16: ssh}", every{Ports: map[int]string{80: "web", 22: "ssh"}}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var got every
			if problems := call(t, &got, "kwargs:\n  "+strings.ReplaceAll(tt.text, "\n", "\n  ")); problems != nil {
				t.Fatalf("problems:\n%s", lines(problems))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRawNodesKeepTheirPlace(t *testing.T) {
	var v every
	if problems := call(t, &v, "x: &x {a: 1}\nkwargs:\n  raw: *x\n  node: !vault secret\n"); problems != nil {
		t.Fatal(problems)
	}
	if v.Raw.Kind != yaml.MappingNode || v.Raw.Line != 1 || v.Raw.Column != 4 {
		t.Errorf("raw = %+v, want the mapping at 1:4", v.Raw)
	}
	if v.Node.Tag != "!vault" || v.Node.Value != "secret" || v.Node.Line != 4 {
		t.Errorf("node = %+v, want it untouched", v.Node)
	}
}

func TestBindProblems(t *testing.T) {
	tests := []struct {
		name, text string
		dst        any
		want       string
	}{
		{"unknown name", "kwargs: {comand: ls}\ntask: run", &run{}, `
1:10: unknown parameter "comand" (did you mean "command"?)
2:7: missing parameter "command" (shell command line)`},
		{"unknown name, nothing near", "args: [x]\nkwargs: {zzz: ls}", &run{},
			`2:10: unknown parameter "zzz" (known: command, shell, timeout, env)`},
		{"unknown name, none known", "kwargs: {zzz: ls}", &struct{}{}, `1:10: unknown parameter "zzz": there are none`},
		{"hidden fields are unknown", "args: [x]\nkwargs: {handle: 1}", &run{},
			`2:10: unknown parameter "handle" (known: command, shell, timeout, env)`},
		{"too many", "args: [a, b, 1s, {}, e, f]", &run{},
			`1:22: too many arguments: 6 given, at most 4 taken (command, shell, timeout, env)`},
		{"too many for none", "args: [a]", &struct{}{}, `1:8: too many arguments: 1 given, none taken`},
		{"twice, by position and name", "args:\n  - ls\nkwargs:\n  command: rm", &run{},
			`4:3: parameter "command" is given twice, first at line 2`},
		{"twice by name", "kwargs:\n  command: a\n  shell: b\n  command: c", &run{},
			`4:3: parameter "command" is given twice, first at line 2`},
		{"args is a mapping", "task: run\nargs: {command: ls}", &every{}, `2:7: write args as a list, not a mapping`},
		{"kwargs is a list", "kwargs: [ls]", &every{}, `1:9: write kwargs as a mapping of names and values, not a list`},
		{"all at once, in order", "args: [{a: b}, x, 5]\nkwargs:\n  env: {A: [1]}\n  timout: 1\n  shell: y", &run{}, `
1:8: parameter "command": write text, not a mapping
1:19: parameter "timeout": write a duration with its unit, such as 5s, 5m or 5h, not 5
3:12: parameter "env.A": write text, not a list
4:3: unknown parameter "timout" (did you mean "timeout"?)
5:3: parameter "shell" is given twice, first at line 1`},
		{"nested", "args: [{host: a, mountpont: /b}, {remotepath: []}, x]", &sshfs{}, `
1:18: parameter "mounts[0]": unknown key "mountpont" (did you mean "mountpoint"?)
1:34: parameter "mounts[1]": missing key "host"
1:47: parameter "mounts[1].remotepath": write text, not a list
1:52: parameter "mounts[2]": write a mapping, not x`},
		{"empty rest", "task: x\nargs: []", &sshfs{}, `1:7: missing parameter "mounts" (what to mount)`},
		{"an alias' mistake is where it was written", "x: &x\n  host: a\n  hots: b\nargs: [*x]", &sshfs{},
			`3:3: parameter "mounts[0]": unknown key "hots" (did you mean "host"?)`},
		{"a merge's too", "x: &x\n  timeout: soon\nkwargs: {<<: *x, command: c}", &run{},
			`2:12: parameter "timeout": write a duration such as 5s or 1h30m, not soon`},
		{"merge of a list", "kwargs: {<<: [[]], command: c}", &run{}, `1:10: << merges a mapping or a list of mappings, not a list`},
		{"keys that are no text", "kwargs: {[a]: b, command: c}", &run{}, `1:10: write a plain key, not a list`},
		{"decodes itself", "kwargs:\n  retry: {atempts: 3, delay: x}", &every{}, `
2:10: parameter "retry": missing key "attempts"
2:11: parameter "retry": unknown key "atempts" (did you mean "attempts"?)
2:30: parameter "retry.delay": write a duration such as 5s or 1h30m, not x`},
		{"inline map's values", "kwargs: {a: x}", &catchAll{}, `1:13: parameter "a": write a whole number, not x`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.TrimSpace(lines(call(t, tt.dst, tt.text)))
			if want := strings.TrimSpace(tt.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestValueProblems(t *testing.T) {
	tests := []struct{ text, want string }{
		{"text: ~", "text: write text, not nothing"},
		{"text:", "text: write text, not nothing"},
		{"text: [a]", "text: write text, not a list"},
		{"text: !vault x", `text: the tag "!vault" means nothing here`},
		{"text: !!binary aGk=", `text: the tag "!!binary" means nothing here`},
		{"flag: maybe", "flag: write true or false, not maybe"},
		{"flag: yEs", "flag: write true or false, not yEs"},
		{"flag: ''", `flag: write true or false, not ""`},
		{"flag: 1", "flag: write true or false, not 1"},
		{"int: 1.0", "int: write a whole number, not 1.0"},
		{"int: 1e3", "int: write a whole number, not 1e3"},
		{"int: ~", "int: write a whole number, not nothing"},
		{"int: 010", "int: write 10, or 0o10 if it is octal, not 010"},
		{"int: 99999999999999999999", "int: write a whole number from -9223372036854775808 to 9223372036854775807, not 99999999999999999999"},
		{"small: 128", "small: write a whole number from -128 to 127, not 128"},
		{"count: -1", "count: write a whole number from 0, not -1"},
		{"count: 65536", "count: write a whole number from 0 to 65535, not 65536"},
		{"ratio: .nan", "ratio: write a number, not .nan"},
		{"ratio: x", "ratio: write a number, not x"},
		{"wait: 5", "wait: write a duration with its unit, such as 5s, 5m or 5h, not 5"},
		{"wait: 5 minutes", `wait: write a duration such as 5s or 1h30m, not "5 minutes"`},
		{"wait: -5s", "wait: write a duration such as 5s or 1h30m, not -5s"},
		{"wait: 1d-5s", "wait: write a duration such as 5s or 1h30m, not 1d-5s"},
		{"wait: 106752d", "wait: write a duration such as 5s or 1h30m, not 106752d"},
		{"wait: 106751d24h", "wait: write a duration such as 5s or 1h30m, not 106751d24h"},
		{"wait: [5s]", "wait: write a duration such as 5s or 1h30m, not a list"},
		{"mode: 0888", "mode: write an octal mode such as 0644, not 0888"},
		{"mode: 999", "mode: write an octal mode such as 0644, not 999"},
		{"mode: 10644", "mode: write an octal mode such as 0644, not 10644"},
		{"mode: u+x", "mode: write an octal mode such as 0644, not u+x"},
		{"at: 2026-01-31", "at: write a time such as 2026-01-31T15:04:05Z, not 2026-01-31"},
		{"list: {a: b}", "list: write a list, not a mapping"},
		{"list: [a, [b]]", "list[1]: write text, not a list"},
		{"list: [~]", "list[0]: write text, not nothing"},
		{"texts: x", "texts: write a mapping, not x"},
		{"texts: {a: ~}", "texts.a: write text, not nothing"},
		{"texts: {a: b, a: c}", `texts: key "a" is given twice, first at line 1`},
		{"vars: {a: [{b: 1, b: 2}]}", `vars.a[0]: key "b" is given twice, first at line 1`},
		{"vars: {a: !!int x}", "vars.a: x is not a !!int"},
		{"any: !x [a]", `any: the tag "!x" means nothing here`},
		{"maybe: []", "maybe: write text, not a list"},
		{"nested: x", "nested: write a mapping, not x"},
		{"nested:", `nested: missing key "host"`},
		{"retry: x", "retry: write a whole number, not x"},
		{"level: middle", "level: write low or high"},
		{"level: [low]", "level: write text, not a list"},
		{"pair: [1]", "pair: write a list of 2, not of 1"},
		{"ports: {x: y}", "ports.x: write a whole number, not x"},
		{"ports: {16: x, 0x10: y}", `ports: key "0x10" is given twice`},
		{"text: [\"" + strings.Repeat("long", 20) + "\"]", "text: write text, not a list"},
		{"int: " + strings.Repeat("long", 20), `int: write a whole number, not "` + strings.Repeat("long", 9) + `l..."`},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var n yaml.Node
			if err := yaml.Unmarshal([]byte(tt.text), &n); err != nil {
				t.Fatal(err)
			}
			problems := bind.Decode(&every{}, &n)
			if len(problems) != 1 || problems[0].Error() != tt.want {
				t.Errorf("got %v\nwant %s", problems, tt.want)
			}
		})
	}
}

// A file's structs, as the manifest loader decodes them.
func TestDecode(t *testing.T) {
	type job struct {
		Task     string `loom:"required"`
		Schedule []string
		Retries  retry
		Kwargs   *yaml.Node
	}
	type file struct {
		Jobs map[string]*job
		SSH  struct {
			Idle    time.Duration
			Connect time.Duration
		}
	}
	const text = `
jobs:
  a: {task: run, schedul: x}
  b:
    retries: {attempts: three}
  a: {task: run}
  c:
ssh: {idle: 5s}
jbos: {}
`
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	f := file{}
	f.SSH.Idle, f.SSH.Connect = time.Minute, time.Minute
	got := lines(bind.Decode(&f, &n))
	want := `3:18: jobs.a: unknown key "schedul" (did you mean "schedule"?)
5:5: jobs.b: missing key "task"
5:25: jobs.b.retries.attempts: write a whole number, not three
6:3: jobs: key "a" is given twice, first at line 3
9:1: unknown key "jbos" (did you mean "jobs"?)
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if f.SSH.Idle != 5*time.Second || f.SSH.Connect != time.Minute {
		t.Errorf("ssh = %+v, want idle replaced and connect kept", f.SSH)
	}
	if problems := bind.Decode(&f, &yaml.Node{}); problems != nil {
		t.Errorf("an empty document: %v", problems)
	}
}

// What Bind sets must never be the prototype's.
func TestPrototypesAreNeverMutated(t *testing.T) {
	newProto := func() every {
		s := "maybe"
		return every{
			List:   []string{"a", "b"},
			Texts:  map[string]string{"a": "a"},
			Vars:   map[string]any{"deep": []any{map[string]any{"x": 1}}},
			Maybe:  &s,
			Nested: mount{Host: "h", Excludes: []string{"x"}},
		}
	}
	proto := newProto()
	check := func(when string) {
		t.Helper()
		if diff := cmp.Diff(newProto(), proto); diff != "" {
			t.Errorf("%s: the prototype changed (-want +got):\n%s", when, diff)
		}
	}
	given := proto
	if p := call(t, &given, "kwargs: {list: [x, y], texts: {b: b}, vars: {deep: 1}, maybe: other, nested: {host: g, excludes: [z]}}"); p != nil {
		t.Fatal(p)
	}
	check("binding every field")

	kept := proto
	if p := call(t, &kept, "kwargs: {int: 1}"); p != nil {
		t.Fatal(p)
	}
	kept.List[0] = "changed"
	kept.Texts["a"] = "changed"
	kept.Vars["deep"].([]any)[0].(map[string]any)["x"] = "changed"
	*kept.Maybe = "changed"
	kept.Nested.Excludes[0] = "changed"
	check("writing to a bound value")
}

func TestWiringIsShared(t *testing.T) {
	proto := run{client: make(chan int), Handle: make(chan int)}
	got := proto
	if p := call(t, &got, "args: [ls]"); p != nil {
		t.Fatal(p)
	}
	if got.client != proto.client || got.Handle != proto.Handle {
		t.Error("wiring was replaced")
	}
}

func TestCyclicPrototype(t *testing.T) {
	type node struct {
		Name        string
		Left, Right *node
	}
	proto := node{Name: "a"}
	proto.Left, proto.Right = &proto, &proto
	got := proto
	if p := call(t, &got, "kwargs: {name: b}"); p != nil {
		t.Fatal(p)
	}
	if got.Left == proto.Left || got.Left != got.Right || got.Left.Left != got.Left {
		t.Error("the copy doesn't have the shape of the original")
	}
}

func TestAliasBombs(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 10), ", "))
	}
	var chain strings.Builder
	chain.WriteString("x0: &x0 [a]\n")
	for i := 1; i < 200; i++ {
		fmt.Fprintf(&chain, "x%d: &x%d [*x%d]\n", i, i, i-1)
	}
	tests := []struct{ name, text, want string }{
		{"expansion", bomb.String() + "kwargs: {any: *x11}", `13:15: aliases make this too large: they stand for more than 1000000 values`},
		{"itself", "kwargs: &k {any: {a: [*k]}}", `1:23: the alias *k stands for something that contains it`},
		{"merges itself", "kwargs: &k {<<: *k}", `1:17: the alias *k stands for something that contains it`},
		{"chain", chain.String() + "kwargs: {any: *x199}", `100:6: nested deeper than 100 levels`},
		{"depth", "kwargs: {any: " + strings.Repeat("[", 101) + strings.Repeat("]", 101) + "}", `1:115: nested deeper than 100 levels`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.TrimSpace(lines(call(t, &every{}, tt.text)))
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	keys := strings.Fields("task args kwargs schedule timezone targets description timeout retries max_workers")
	tests := []struct{ word, want string }{
		{"schedul", "schedule"},
		{"shcedule", "schedule"},
		{"Targets", "targets"},
		{"target", "targets"},
		{"maxworkers", "max_workers"},
		{"max-workers", "max_workers"},
		{"desc", "description"},
		{"timout", "timeout"},
		{"tsak", "task"},
		{"arg", "args"},
		{"password", ""},
		{"x", ""},
		{"", ""},
		{strings.Repeat("task", 100), ""},
	}
	for _, tt := range tests {
		if got := bind.Nearest(tt.word, slices.Values(keys)); got != tt.want {
			t.Errorf("Nearest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
	two := map[string]bool{"web1": true, "web3": true, "web4": true}
	for range 20 {
		if got := bind.Nearest("web2", maps.Keys(two)); got != "web1" {
			t.Fatalf("Nearest depends on the order: %q", got)
		}
	}
}

func TestCheck(t *testing.T) {
	type inner struct {
		C chan int
		R []string `loom:"rest"`
	}
	tests := []struct {
		name  string
		proto any
		want  string
	}{
		{"fine", run{}, ""},
		{"every type", &every{}, ""},
		{"rest", sshfs{}, ""},
		{"inline map", catchAll{}, ""},
		{"no struct", 5, "int is not a struct or a pointer to one"},
		{"nil", nil, "<nil> is not a struct or a pointer to one"},
		{"function", struct{ F func() }{}, `parameter f: a value of type func() can't be written in YAML; hide wiring with yaml:"-"`},
		{"hidden function", struct {
			F func() `yaml:"-"`
		}{}, ""},
		{"interface", struct{ E error }{}, `parameter e: a value of type error can't be written in YAML; hide wiring with yaml:"-"`},
		{"nested", struct{ In []inner }{}, `parameter in.c: a value of type chan int can't be written in YAML; hide wiring with yaml:"-"
bind_test.inner: in.r can't take the rest: only a task's own parameters have positions`},
		{"rest is not last", struct {
			A []string `loom:"rest"`
			B string
		}{}, `struct { A []string "loom:\"rest\""; B string }: parameter "a" takes the rest, but "b" comes after it`},
		{"rest is no slice", struct {
			A string `loom:"rest"`
		}{}, `struct { A string "loom:\"rest\"" }: field A takes the rest, so it must be a slice, not string`},
		{"two names", struct {
			A string
			B string `yaml:"a"`
		}{}, `struct { A string; B string "yaml:\"a\"" }: two fields are called "a"`},
		{"tag", struct {
			A string `loom:"requird"`
		}{}, `struct { A string "loom:\"requird\"" }: field A: unknown option loom:"requird"`},
		{"inline", struct {
			A string `yaml:",inline"`
		}{}, `struct { A string "yaml:\",inline\"" }: field A: only a struct or a map with string keys can be inline, not string`},
		{"map keys", struct{ M map[[2]int]string }{}, `parameter m: [2]int can't be a mapping's key`},
		{"UnmarshalYAML", struct{ U unmarshaler }{}, `parameter u: bind_test.unmarshaler has UnmarshalYAML, which is not used: give it UnmarshalText or DecodeNode`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := bind.Check(tt.proto); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

type unmarshaler struct{}

func (*unmarshaler) UnmarshalYAML(*yaml.Node) error { return nil }

func TestDescriptions(t *testing.T) {
	type all struct {
		Run   run
		Every every
		SSHFS sshfs
	}
	proto := all{
		Run:   run{Shell: "sh", Timeout: 90 * time.Second},
		Every: every{Mode: 0o640, List: []string{"a"}, Retry: retry{3, time.Minute}, Level: 1, Nested: mount{Host: "h"}},
	}
	got := map[string]any{
		"run params":   bind.Params(proto.Run),
		"run schema":   bind.Schema(proto.Run),
		"every params": bind.Params(&proto.Every),
		"every schema": bind.SchemaOf(&proto.Every),
		"sshfs params": bind.Params(proto.SSHFS),
		"sshfs schema": bind.Schema(proto.SSHFS),
		"no params":    bind.Params(func() {}),
		"no schema":    bind.Schema(func() {}),
	}
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, string(text)+"\n", "testdata/descriptions.json")
}

func TestRecursiveTypesAreDescribed(t *testing.T) {
	type tree struct {
		Name string
		Kids []tree
		Any  list
	}
	if err := bind.Check(tree{}); err != nil {
		t.Error(err)
	}
	if p := bind.Params(tree{}); len(p) != 3 {
		t.Errorf("Params = %v", p)
	}
	if _, err := json.Marshal(bind.Schema(tree{})); err != nil {
		t.Error(err)
	}
	var got tree
	if p := call(t, &got, "kwargs: {kids: [{name: a, kids: [{name: b}]}], any: [[], [[]]]}"); p != nil {
		t.Error(p)
	}
	if got.Kids[0].Kids[0].Name != "b" || len(got.Any) != 2 {
		t.Errorf("got %+v", got)
	}
}

type list []list

func TestDurationsAndModes(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"}, {5 * time.Second, "5s"}, {10 * time.Minute, "10m"}, {time.Hour, "1h"}, {90 * time.Minute, "1h30m"},
		{20*time.Hour + 30*time.Second, "20h0m30s"}, {24 * time.Hour, "24h"}, {48 * time.Hour, "2d"}, {1500 * time.Millisecond, "1.5s"},
	} {
		got := bind.FormatDuration(tt.d)
		if back, err := bind.ParseDuration(got); got != tt.want || err != nil || back != tt.d {
			t.Errorf("FormatDuration(%v) = %q, want %q; read back as %v, %v", tt.d, got, tt.want, back, err)
		}
	}
	for n := range uint64(0o10000) {
		text := fmt.Sprintf("%04o", n)
		mode, err := bind.ParseMode(text)
		if got := bind.FormatMode(mode); err != nil || got != text {
			t.Fatalf("mode %s comes back as %s, %v", text, got, err)
		}
	}
}
