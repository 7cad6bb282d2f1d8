// Command library uses Loom from Go, without manifests and without the daemon.
// Its nodes are local, so that it runs anywhere; to reach others, give the pool
// &ssh.Dialer{} and the nodes their names.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pool := &loom.Pool{Max: 4} // for SSH: Dialer: &ssh.Dialer{}
	defer pool.Close()         //nolint:errcheck // the work is done by then

	nodes := []*loom.Node{
		{Name: "web1", Transport: "local"},
		{Name: "web2", Transport: "local"},
		{Name: "db1", Transport: "local"},
	}
	if err := onceOnAll(ctx, pool, nodes); err != nil {
		return err
	}
	failures(ctx, pool, nodes)
	return scheduled(ctx, pool, nodes)
}

// onceOnAll runs one command on all nodes at once.
func onceOnAll(ctx context.Context, pool *loom.Pool, nodes []*loom.Node) error {
	var mu sync.Mutex
	var lines []string
	err := pool.Run(ctx, &loom.Job{
		Name:    "greet",
		Task:    tasks.Run{Command: "echo hello from $LOOM_NODE"},
		Targets: nodes,
	}, time.Now(), func(e loom.Event) { // from several goroutines
		if e.Kind == loom.KindOutput {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, e.Node+": "+e.Text)
		}
	})
	sort.Strings(lines) // nodes end in any order
	for _, line := range lines {
		fmt.Println(line)
	}
	return err
}

// failures shows what the error of a run tells: each node that did not end well,
// and why.
func failures(ctx context.Context, pool *loom.Pool, nodes []*loom.Node) {
	err := pool.Run(ctx, &loom.Job{
		Name:    "picky",
		Task:    tasks.Run{Command: `test "$LOOM_NODE" != db1 || exit 3`},
		Targets: nodes,
	}, time.Now(), nil)

	if node, ok := errors.AsType[*loom.NodeError](err); ok {
		fmt.Printf("%s on %s: %s", node.Job, node.Node, node.Status)
		if exit, ok := errors.AsType[*loom.ExitError](err); ok {
			fmt.Printf(", exit status %d", exit.Code)
		}
		fmt.Println()
	}
}

// scheduled runs a task of this program's own each second, until it has run
// twice on every node.
func scheduled(ctx context.Context, pool *loom.Pool, nodes []*loom.Node) error {
	everySecond, err := loom.ParseSchedule("* * * * * *", time.Local)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()

	var mu sync.Mutex
	runs := 0
	scheduler := &loom.Scheduler{
		Pool:  pool,
		Grace: 10 * time.Second, // for what runs when it is told to stop
		Observe: func(e loom.Event) {
			if e.Kind != loom.KindRunEnded {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if runs++; runs <= 2 {
				fmt.Printf("run %d of %s: %s on %d nodes\n", runs, e.Job, e.Ran.Status, e.Ran.Counts[loom.StatusOK])
			}
			if runs == 2 {
				stop()
			}
		},
	}
	scheduler.Load(&loom.Manifest{Jobs: []*loom.Job{{
		Name:     "tick",
		Task:     loom.TaskFunc(func(ctx context.Context, s *loom.Session) error { return s.Run(ctx, "true") }),
		Targets:  nodes,
		Schedule: everySecond,
	}}})
	return scheduler.Run(ctx) // returns when all that it started has ended
}
