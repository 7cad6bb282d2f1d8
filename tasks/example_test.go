package tasks_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

// A task is an ordinary value: a program needs no manifest to apply one.
func ExampleRun() {
	pool := &loom.Pool{} // its nodes are local; others need a Dialer
	defer pool.Close()

	job := &loom.Job{
		Name:    "greet",
		Task:    tasks.Run{Command: `echo "$GREETING, $LOOM_NODE"`, Env: map[string]string{"GREETING": "hello"}},
		Targets: []*loom.Node{{Name: "here", Transport: "local"}},
	}
	err := pool.Run(context.Background(), job, time.Now(), func(e loom.Event) {
		if e.Kind == loom.KindOutput {
			fmt.Println(e.Text)
		}
	})
	fmt.Println(err)
	// Output:
	// hello, here
	// <nil>
}

// A command with a guard runs where it is needed, and says whether it was.
func ExampleRun_guard() {
	dir, err := os.MkdirTemp("", "loom-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	pool := &loom.Pool{}
	defer pool.Close()

	job := &loom.Job{
		Name:    "init",
		Task:    tasks.Run{Command: "touch initialized", Dir: dir, Creates: "initialized"},
		Targets: []*loom.Node{{Name: "here", Transport: "local"}},
	}
	for range 2 {
		_ = pool.Run(context.Background(), job, time.Now(), func(e loom.Event) {
			if e.Kind == loom.KindNodeEnded {
				fmt.Printf("%s %q %q\n", e.Result.Status, e.Result.Changes, e.Result.Reason)
			}
		})
	}
	// Output:
	// changed ["ran touch initialized"] ""
	// skipped [] "initialized exists"
}

// A registry makes tasks of what a manifest, or a person, says. It names every
// mistake.
func ExampleRegistry() {
	registry := tasks.Registry()
	task, err := registry.New("fabric.api.put", []any{"site.conf", "/etc/nginx/conf.d/"}, map[string]any{"mode": "0640"})
	fmt.Printf("%+v %v\n", task.(tasks.Put).Mode, err)

	_, err = registry.New("service", []any{"nginx"}, map[string]any{"acton": "restart"})
	fmt.Println(err)
	// Output:
	// -rw-r----- <nil>
	// task service: unknown parameter "acton" (did you mean "action"?)
}
