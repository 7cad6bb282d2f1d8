package loom

import (
	"context"
	"log/slog"
	"time"
)

// A Pool applies tasks to nodes, a bounded number at a time, over connections
// that it keeps. Its fields must not change after the first Run. The zero Pool
// lacks only a Dialer, and not even that if all nodes are local.
type Pool struct {
	Dialer Dialer        // opens connections to nodes whose transport is not local
	Max    int           // node-tasks at once, over all runs; 0: 10
	Idle   time.Duration // how long an unused connection is kept; 0: 10 minutes
	Output int64         // bytes of output kept for each node: half from the start, half from the end; 0: 1 MiB
	Log    *slog.Logger  // nil: slog.Default()
}

// Run applies j to each of its targets, and returns when it has ended on all
// of them. A node that fails doesn't stop the others: the error joins a
// *NodeError for each. The job was due at due. Run passes emit, if not nil,
// what happens: from several goroutines, in order for each node.
func (p *Pool) Run(ctx context.Context, j *Job, due time.Time, emit func(Event)) error { return nil }

// Close closes the connections. No Run may be in progress.
func (p *Pool) Close() error { return nil }
