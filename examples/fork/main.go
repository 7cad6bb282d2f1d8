// Command acmed is loomd with a task of Acme's own. It is all that a fork
// needs: everything else, the commands included, comes with daemon.Main.
//
//	go build -o acmed ./examples/fork
//	./acmed tasks acme.deploy
//	./acmed -c loom.yaml
package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

func main() {
	registry := tasks.Registry()
	registry.Add("acme.deploy", Deploy{Channel: "stable", Wait: 30 * time.Second})

	daemon.Main(daemon.Options{
		Name:   "acmed",
		Tasks:  registry,
		Dialer: &ssh.Dialer{},
		Stores: daemon.Stores{"sqlite": sqlite.Open},
	})
}

// Deploy installs a version of an application and waits until it answers. Its
// exported fields are what manifests can set; those of the prototype, above, are
// the defaults.
type Deploy struct {
	App     string        `loom:"required" help:"what to deploy"`
	Version string        `help:"which version; the newest of the channel if it is not given"`
	Channel string        `help:"where versions come from: stable or edge"`
	Wait    time.Duration `help:"how long it may take until it answers"`
}

// Validate is called when the manifest is read, so a mistake is told there and
// not at three in the morning.
func (d Deploy) Validate() error {
	if !slices.Contains([]string{"stable", "edge"}, d.Channel) {
		return fmt.Errorf("there is no channel %q: write stable or edge", d.Channel)
	}
	return nil
}

// Apply deploys, unless the node has the version already. The words after a
// command's text are quoted for the node's shell.
func (d Deploy) Apply(ctx context.Context, s *loom.Session) error {
	changes, err := d.Plan(ctx, s)
	if err != nil || len(changes) == 0 {
		return err
	}
	if err := s.Run(ctx, "mkdir -p apps && printf '%s\\n' >apps/"+loom.Quote(d.App), d.version()); err != nil {
		return fmt.Errorf("install %s: %w", d.App, err)
	}
	s.Changed("%s", changes[0])

	ctx, cancel := context.WithTimeoutCause(ctx, d.Wait, fmt.Errorf("%s does not answer after %v", d.App, d.Wait))
	defer cancel()
	return s.Run(ctx, "until test -s apps/"+loom.Quote(d.App)+"; do sleep 1; done")
}

// Plan tells what Apply would change, for run --plan.
func (d Deploy) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	has, err := s.Query(ctx, "cat apps/"+loom.Quote(d.App)+" 2>/dev/null || true")
	if err != nil || has == d.version() {
		return nil, err
	}
	if has == "" {
		has = "nothing"
	}
	return []loom.Change{loom.Change(fmt.Sprintf("%s: %s instead of %s", d.App, d.version(), has))}, nil
}

func (d Deploy) version() string {
	if d.Version != "" {
		return d.Version
	}
	return "latest-" + d.Channel
}
