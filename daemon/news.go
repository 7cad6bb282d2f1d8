package daemon

import (
	"context"
	"errors"
	"log/slog"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/cli"
	"github.com/dustinlacewell/loom/notify"
)

// A told is who tells people what happens, as the API sees it.
type told struct{ *notify.Notifier }

var _ api.Notifications = told{}

// newTold returns what is to be handed events and manifests, and whose Run tells
// them.
func newTold(m *loom.Manifest, store loom.Store, red *loom.Redactor, state, program string, log *slog.Logger) told {
	n := &notify.Notifier{State: state, Log: log, Redact: red.Redact, Program: program}
	if store != nil {
		n.Archive = store
	}
	n.Load(m)
	return told{n}
}

// NotifyTargets is part of api.Notifications.
func (t told) NotifyTargets() []api.NotifyTarget {
	all := []api.NotifyTarget{}
	for _, s := range t.Standings() {
		all = append(all, cli.NotifyTarget(s))
	}
	return all
}

// NotifyTest is part of api.Notifications.
func (t told) NotifyTest(ctx context.Context, name, by string) (api.NotifyTest, error) {
	a, err := t.Test(ctx, name, by)
	if errors.Is(err, loom.ErrNotFound) || ctx.Err() != nil {
		return api.NotifyTest{}, err
	}
	return cli.NotifyTest(a, err), nil
}
