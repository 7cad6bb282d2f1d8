package daemon

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/reach"
)

// Ping is part of api.Control.
func (c *control) Ping(ctx context.Context, n *loom.Node) api.Ping { return reach.Ping(ctx, c.pool, n) }

// HostKeys is part of api.Control.
func (c *control) HostKeys(ctx context.Context, n *loom.Node) ([]loom.HostKey, error) {
	k, err := reach.Keeper(c.dialer, n)
	if err != nil {
		return nil, err
	}
	return k.ShowHostKeys(ctx, n)
}

// Trust is part of api.Control.
func (c *control) Trust(ctx context.Context, n *loom.Node, fingerprints []string) ([]loom.HostKey, error) {
	k, err := reach.Keeper(c.dialer, n)
	if err != nil {
		return nil, err
	}
	return k.TrustHostKeys(ctx, n, fingerprints...)
}

// Exec is part of api.Control.
func (c *control) Exec(ctx context.Context, e api.Exec, q loom.Request) (loom.Run, error) {
	nodes, err := c.Manifest().Select(e.Targets...)
	if err != nil {
		return loom.Run{}, fmt.Errorf("%w: %w", loom.ErrNotFound, err)
	}
	if len(nodes) == 0 {
		return loom.Run{}, fmt.Errorf("%s: all of these nodes are disabled: %w", strings.Join(e.Targets, " "), loom.ErrNotFound)
	}
	q.Targets = nil
	for _, n := range nodes {
		q.Targets = append(q.Targets, n.Name)
	}
	return c.scheduler.Start(ctx, &loom.Job{
		Name: loom.ExecJob, TaskName: "exec", Targets: nodes, Overlap: loom.OverlapAllow,
		Timeout: e.Limit(), User: e.User, Sudo: e.Sudo, Env: e.Env, Dir: e.Dir,
		Task: loom.TaskFunc(func(ctx context.Context, s *loom.Session) error { return s.Run(ctx, e.Command) }),
	}, q)
}

// Tasks is part of api.Control.
func (c *control) Tasks() *loom.Registry { return c.tasks }
