package loom_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustinlacewell/loom"
)

// A greet is a task: its fields are its parameters.
type greet struct {
	Whom string `loom:"required" help:"whom to greet"`
}

func (g greet) Apply(ctx context.Context, s *loom.Session) error {
	return s.Run(ctx, "echo hello", g.Whom)
}

func ExampleReadManifest() {
	dir, err := os.MkdirTemp("", "loom")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	files := map[string]string{
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\n",
		"nodes.yaml": "db1: {groups: [db]}\ndb2: {groups: [db]}\n",
		"jobs/greet.yaml": `jobs:
  morning:
    task: greet
    args: [world]
    schedule: "0 8 * * MON-FRI"
    targets: "@db"
  evening:
    task: great
    kwargs: {whom: world}
    schedule: "0 20 * * *"
    targets: [db1, db3]
`,
	}
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			fmt.Println(err)
			return
		}
	}
	tasks := new(loom.Registry)
	tasks.Add("greet", greet{})
	_, err = loom.ReadManifest(filepath.Join(dir, "loom.yaml"), tasks)
	fmt.Println(strings.ReplaceAll(err.Error(), dir+"/", ""))
	// Output:
	// jobs/greet.yaml:8:11: unknown task "great" (did you mean "greet"?)
	// jobs/greet.yaml:11:20: targets: there is no node "db3" (did you mean "db1"?)
}

func ExampleRegistry_New() {
	tasks := new(loom.Registry)
	tasks.Add("greet", greet{})
	task, err := tasks.New("greet", []any{"world"}, nil)
	fmt.Printf("%+v %v\n", task, err)
	_, err = tasks.New("greet", nil, map[string]any{"who": "world"})
	fmt.Println(err)
	// Output:
	// {Whom:world} <nil>
	// task greet: unknown parameter "who" (did you mean "whom"?)
	// missing parameter "whom" (whom to greet)
}
