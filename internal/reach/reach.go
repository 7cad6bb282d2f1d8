// Package reach tries whether nodes can be reached, and finds out by which keys
// they are known: for the daemon, and for commands that do without one.
package reach

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

// Ping tries to reach a node, and tells how that went. What it does is not a run:
// nobody asks later.
func Ping(ctx context.Context, pool *loom.Pool, n *loom.Node) api.Ping {
	p := api.Ping{Node: n.Name}
	began := time.Now()
	err := pool.Run(ctx, &loom.Job{Name: "ping", Targets: []*loom.Node{n}, Timeout: pingTime,
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

// Keeper returns what knows the host keys of a node. The error wraps
// errors.ErrUnsupported if there is no such thing.
func Keeper(d loom.Dialer, n *loom.Node) (loom.HostKeeper, error) {
	k, ok := d.(loom.HostKeeper)
	if !ok || n.Transport == "local" {
		return nil, fmt.Errorf("node %s has no host keys, as it is not reached over SSH: %w", n.Name, errors.ErrUnsupported)
	}
	return k, nil
}
