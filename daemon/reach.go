package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// pingTime is how long a node may take to answer a ping.
const pingTime = 30 * time.Second

// introduce prints a user and a system.
const introduce = `
id -un
os=
[ -r /etc/os-release ] && os=$(. /etc/os-release && echo "$PRETTY_NAME")
if [ -n "$os" ]; then echo "$os ($(uname -srm))"; else uname -srm; fi
`

// Ping is part of api.Control. What it does is not a run: nobody asks later.
func (c *control) Ping(ctx context.Context, n *loom.Node) api.Ping {
	p := api.Ping{Node: n.Name}
	began := time.Now()
	err := c.pool.Run(ctx, &loom.Job{Name: "ping", Targets: []*loom.Node{n}, Timeout: pingTime,
		Task: loom.TaskFunc(func(ctx context.Context, s *loom.Session) error {
			p.Connect = milliseconds(time.Since(began))
			said, err := s.Output(ctx, introduce)
			if err != nil {
				return err
			}
			user, system, ok := strings.Cut(strings.TrimSpace(said), "\n")
			if !ok {
				return fmt.Errorf("the node answers, but not as a POSIX shell would: %q", said)
			}
			p.User, p.OS = user, system
			asked := time.Now()
			_, err = s.Output(ctx, ":")
			p.RTT = milliseconds(time.Since(asked))
			return err
		})}, began, nil)
	p.At, p.OK = time.Now().UTC().Truncate(time.Millisecond), err == nil
	if err != nil {
		p.Class, p.Error = class(err), strings.TrimPrefix(err.Error(), n.Name+": ")
	}
	return p
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// class says what kind of thing went wrong with a node.
func class(err error) string {
	if classed, ok := errors.AsType[interface {
		error
		ErrorClass() string
	}](err); ok {
		return classed.ErrorClass()
	}
	if _, ok := errors.AsType[*loom.TimeoutError](err); ok {
		return "timed out"
	}
	if _, ok := errors.AsType[*loom.ExitError](err); ok {
		return "command failed"
	}
	if errors.Is(err, loom.ErrUnreachable) {
		return "unreachable"
	}
	return "failed"
}

// HostKeys is part of api.Control.
func (c *control) HostKeys(ctx context.Context, n *loom.Node) ([]loom.HostKey, error) {
	k, err := c.keeper(n)
	if err != nil {
		return nil, err
	}
	return k.ShowHostKeys(ctx, n)
}

// Trust is part of api.Control.
func (c *control) Trust(ctx context.Context, n *loom.Node, fingerprints []string) ([]loom.HostKey, error) {
	k, err := c.keeper(n)
	if err != nil {
		return nil, err
	}
	return k.TrustHostKeys(ctx, n, fingerprints...)
}

// keeper returns what knows the host keys of a node.
func (c *control) keeper(n *loom.Node) (loom.HostKeeper, error) {
	k, ok := c.dialer.(loom.HostKeeper)
	if !ok || n.Transport == "local" {
		return nil, fmt.Errorf("node %s has no host keys, as it is not reached over SSH: %w", n.Name, errors.ErrUnsupported)
	}
	return k, nil
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
