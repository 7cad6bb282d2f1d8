package loom

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dustinlacewell/loom/internal/golden"
)

// A testCopy has a parameter of each kind, and rules of its own.
type testCopy struct {
	From  string `loom:"required" help:"file to copy"`
	Mode  int
	Tags  []string
	Limit time.Duration
	Seen  *[]string `yaml:"-"`
}

func (c *testCopy) Validate() error {
	switch c.From {
	case "nowhere":
		return errors.New("from: there is no such place")
	case "panic":
		panic("odd")
	}
	return nil
}

func (c *testCopy) Apply(_ context.Context, s *Session) error {
	*c.Seen = append(*c.Seen, s.Node.Name+" "+c.From)
	return nil
}

func (c *testCopy) Plan(_ context.Context, s *Session) ([]Change, error) {
	return []Change{Change("copy " + c.From)}, nil
}

func TestRegistryNew(t *testing.T) {
	seen := new([]string)
	proto := &testCopy{Limit: time.Minute, Tags: []string{"a"}, Seen: seen}
	r := testTasks()
	r.Add("copy", proto, "cp")

	task, err := r.New("cp", []any{"x", 3}, map[string]any{"tags": []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	got := task.(*testCopy)
	if got == proto || got.From != "x" || got.Mode != 3 || got.Limit != time.Minute || got.Tags[0] != "b" || got.Seen != seen {
		t.Errorf("New = %+v", got)
	}
	if proto.From != "" || proto.Tags[0] != "a" {
		t.Errorf("the prototype was changed: %+v", proto)
	}
	run, err := r.New("run", nil, map[string]any{"command": "uptime"})
	if err != nil || run.(testRun) != (testRun{Command: "uptime", Shell: "/bin/sh"}) {
		t.Errorf("New = %+v, %v, want a value with its default", run, err)
	}
	tests := []struct {
		name   string
		args   []any
		kwargs map[string]any
		want   string
	}{
		{"rnu", nil, nil, `not found: unknown task "rnu" (did you mean "run"?)`},
		{"run", nil, nil, `task run: missing parameter "command"`},
		{"run", []any{1, 2, 3, 4}, map[string]any{"x": 1}, "too many arguments"},
		{"nothing", []any{1}, nil, "too many arguments: 1 given, none taken"},
		{"copy", []any{"nowhere"}, nil, "task copy: from: there is no such place"},
		{"copy", []any{"panic"}, nil, "panicked while it checked its parameters: odd"},
		{"fabric.api.settings", nil, nil, "set the parameters of the task itself"},
		{"fabric.contrib.console.confirm", nil, nil, "asks a person"},
	}
	for _, tt := range tests {
		if _, err := r.New(tt.name, tt.args, tt.kwargs); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%q, %v, %v) = %v, want %q", tt.name, tt.args, tt.kwargs, err, tt.want)
		}
	}
	if _, err := r.New("rnu", nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown task is not ErrNotFound: %v", err)
	}
}

func TestRegistryKnowsItsTasks(t *testing.T) {
	r := testTasks()
	var list []string
	for name := range r.All() {
		list = append(list, name)
	}
	if got := strings.Join(list, " "); got != "nothing run sshfs.mount" {
		t.Errorf("All yields %s", got)
	}
	name, proto, ok := r.Lookup("fabric.api.run")
	if _, isRun := proto.(testRun); name != "run" || !isRun || !ok {
		t.Errorf("Lookup = %s, %v, %v", name, proto, ok)
	}
	if got := r.Aliases("run"); len(got) != 1 || got[0] != "fabric.api.run" {
		t.Errorf("Aliases = %v", got)
	}
	if p := r.Params("fabric.api.run"); len(p) != 3 || p[0].Name != "command" || !p[0].Required || p[1].Default != "/bin/sh" {
		t.Errorf("Params = %+v", p)
	}
	var none *Registry
	for range none.All() {
		t.Error("a nil registry has tasks")
	}
	if _, _, ok := none.Lookup("run"); ok {
		t.Error("a nil registry has a task")
	}
}

func TestRegistryAddPanicsOverMistakes(t *testing.T) {
	for name, add := range map[string]func(r *Registry){
		"a name that is taken":    func(r *Registry) { r.Add("run", testRun{}) },
		"an alias that is taken":  func(r *Registry) { r.Add("x", testRun{}, "fabric.api.run") },
		"no name":                 func(r *Registry) { r.Add("", testRun{}) },
		"no prototype":            func(r *Registry) { r.Add("x", nil) },
		"a nil pointer":           func(r *Registry) { r.Add("x", (*testCopy)(nil)) },
		"a nil function":          func(r *Registry) { r.Add("x", TaskFunc(nil)) },
		"a field nobody can fill": func(r *Registry) { r.Add("x", testBad{}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v, ok := recover().(string); !ok || !strings.HasPrefix(v, "loom: Registry.Add") {
					t.Errorf("Add panicked with %v", v)
				}
			}()
			add(testTasks())
			t.Error("Add did not panic")
		})
	}
}

type testBad struct{ C chan int }

func (testBad) Apply(context.Context, *Session) error { return nil }

func TestRegistrySchema(t *testing.T) {
	got := testTasks().Schema()
	if !json.Valid(got) {
		t.Fatal("the schema is not JSON")
	}
	golden.Compare(t, string(got), "testdata/schema.json")
}

func TestTemplatesAreFilledInForEachNodeAndRun(t *testing.T) {
	seen := new([]string)
	tasks := testTasks()
	tasks.Add("copy", &testCopy{Seen: seen})
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\n",
		"nodes.yaml": "db1: {vars: {n: 1, deep: {er: x}}}\ndb2: {ip: 10.0.0.2, vars: {n: 2, deep: {er: \"y'z\"}}}\n",
		"jobs/a.yaml": `jobs:
  a:
    task: copy
    args: ["{{.Node.Name}} {{.Node.Address}} {{.Job}} {{.Run}} {{.Due}} {{.Due.Format \"2006\"}} {{quote .Node.Vars.deep.er}}"]
    kwargs: {mode: "{{.Node.Vars.n}}", tags: [t, "{{.Node.Vars.n}}"]}
    targets: all
    schedule: manual
  b:
    task: run
    args: ["{{.Node.Name}}"]
    targets: all
    schedule: manual
`,
	})
	m, err := ReadManifest(dir+"/loom.yaml", tasks)
	if err != nil {
		t.Fatal(err)
	}
	a := m.Job("a")
	for _, n := range a.Targets {
		s := &Session{Node: n, Job: "a", RunID: "r1", Due: time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)}
		if err := a.Task.Apply(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	want := "db1 db1 db1 a r1 2026-01-31T02:00:00Z 2026 x\ndb2 db2 10.0.0.2 a r1 2026-01-31T02:00:00Z 2026 'y'\\''z'"
	if got := strings.Join(*seen, "\n"); got != want {
		t.Errorf("applied\n%s\nwant\n%s", got, want)
	}
	writeFiles(t, dir, map[string]string{"jobs/0.yaml": "# so that\n# all lines are others\n"})
	again, err := ReadManifest(dir+"/loom.yaml", tasks)
	if err != nil || !reflect.DeepEqual(a.Task, again.Job("a").Task) {
		t.Errorf("the same task read again is another: %v", err)
	}
	changes, err := a.Task.(Planner).Plan(t.Context(), &Session{Node: a.Targets[0], Job: "a", RunID: "r2"})
	if err != nil || len(changes) != 1 || !strings.Contains(string(changes[0]), "r2") {
		t.Errorf("Plan = %v, %v", changes, err)
	}
	if _, ok := m.Job("b").Task.(Planner); ok {
		t.Error("a task that can't plan can once it has templates")
	}
	gone := &Session{Node: &Node{Name: "new", Vars: map[string]any{}}}
	if err := a.Task.Apply(t.Context(), gone); err == nil || !strings.Contains(err.Error(), "no such variable") {
		t.Errorf("a node that lacks a variable: %v", err)
	}
}

// TestGiven holds that what a task was given is told by the names of its parameters,
// without what it has anyway, and templates as they are written.
func TestGiven(t *testing.T) {
	r := new(Registry)
	r.Add("give", giveTask{Mode: "fast", Every: time.Minute}, "old.give")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"loom.yaml": "nodes: {a: {transport: local}}\njobspath: jobs\n",
		"jobs/a.yaml": `jobs:
  plain: {task: give, args: [x, fast, 90s, '', y, z], targets: a, schedule: manual}
  alias: {task: old.give, kwargs: {name: x, token: hunter2}, targets: a, schedule: manual}
  templates: {task: give, args: ['{{.Node.Name}}', slow], kwargs: {more: [y]}, targets: a, schedule: manual}
  hidden: {task: give, args: ['{{.Node.Name}}'], kwargs: {token: 'of-{{.Node.Name}}'}, targets: a, schedule: manual}
  beside: {task: give, args: ['{{.Node.Name}}', slow, 1s, hunter2], targets: a, schedule: manual}
`} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), r)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]map[string]any{
		"plain":     {"name": "x", "more": []any{"y", "z"}, "every": "1m30s"},
		"alias":     {"name": "x", "token": "[secret]"},
		"templates": {"name": "{{.Node.Name}}", "more": []any{"y"}, "mode": "slow"},
		"hidden":    {"name": "{{.Node.Name}}", "token": "[secret]"},
		"beside":    {"name": "{{.Node.Name}}", "mode": "slow", "every": "1s", "token": "[secret]"},
	} {
		j := m.Job(name)
		if diff := cmp.Diff(want, r.Given(j.TaskName, j.Task)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if all := r.Given("nope", m.Job("plain").Task); all != nil {
		t.Errorf("an unknown task was given %v", all)
	}
}

// A giveTask has parameters of several kinds, the last of which takes the rest.
type giveTask struct {
	TaskFunc `yaml:"-"`
	Name     string `loom:"required"`
	Mode     string
	Every    time.Duration
	Token    Secret
	More     []string `loom:"rest"`
}
