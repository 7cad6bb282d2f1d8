package cli

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/reach"
	"github.com/dustinlacewell/loom/internal/why"
)

// An inquiry is a memory that can be asked all that the API can: the daemon, or, if
// none runs, this process, with what the manifests say and what is remembered.
type inquiry struct {
	*memory
	api      *api.Client
	manifest *loom.Manifest // of this process; nil: the daemon has it, or it can't be read
	nothing  error          // why nothing is remembered; nil: something is
	absent   absent
}

// asking opens an inquiry, which the caller closes. If no daemon runs, read reads the
// manifests; a failure of that matters only if nothing is remembered either.
func (p *Program) asking(ctx context.Context, state string, read func(context.Context) (*loom.Manifest, error)) (*inquiry, error) {
	m, err := p.memory(ctx, state)
	switch {
	case errors.Is(err, errNothing):
		m = nil
	case err != nil:
		return nil, err
	case m.daemon != nil:
		return &inquiry{memory: m, api: m.daemon}, nil
	}
	manifest, bad := read(ctx)
	if bad != nil && m == nil {
		return nil, bad
	}
	return p.within(m, manifest, err), nil
}

// within returns an inquiry that this process answers. m is nil if nothing is
// remembered, as nothing then says.
func (p *Program) within(m *memory, manifest *loom.Manifest, nothing error) *inquiry {
	in := &inquiry{memory: m, manifest: manifest, nothing: nothing, absent: p.absent(manifest)}
	if m == nil {
		in.memory = &memory{Store: noStore{}, config: manifest.Config}
	}
	in.api = (&api.Server{Store: in.Store, Control: in.absent, Absent: true, Version: Version(), Log: slog.New(slog.DiscardHandler)}).Inside()
	return in
}

// close lets go of it.
func (in *inquiry) close() {
	if in != nil {
		in.absent.close()
		in.memory.close()
	}
}

// absent stands for a daemon that does not run: what need not be one can be done.
type absent struct {
	manifest *loom.Manifest // nil: it can't be read
	tasks    *loom.Registry
	dialer   loom.Dialer
	pool     *loom.Pool
}

var _ api.Control = absent{}

func (p *Program) absent(manifest *loom.Manifest) absent {
	a := absent{manifest: manifest, tasks: p.Tasks, dialer: p.Dialer}
	if manifest != nil {
		a.pool = &loom.Pool{Dialer: p.Dialer, Max: manifest.Config.MaxWorkers, Log: slog.New(slog.DiscardHandler)}
	}
	return a
}

func (a absent) close() {
	if a.pool != nil {
		_ = a.pool.Close() // nothing is at work any more
	}
}

func (a absent) Manifest() *loom.Manifest { return a.manifest }
func (a absent) Tasks() *loom.Registry    { return a.tasks }

func (a absent) Status() api.Status {
	var s api.Status
	if a.manifest != nil {
		for _, t := range why.Soonest(a.manifest.Jobs, time.Now(), statusNext) {
			s.Next = append(s.Next, api.NextTick{Job: t.Job.Name, Time: t.Time, Note: t.Note})
		}
	}
	return s
}

func (a absent) Ping(ctx context.Context, n *loom.Node) api.Ping { return reach.Ping(ctx, a.pool, n) }

func (a absent) HostKeys(ctx context.Context, n *loom.Node) ([]loom.HostKey, error) {
	k, err := reach.Keeper(a.dialer, n)
	if err != nil {
		return nil, err
	}
	return k.ShowHostKeys(ctx, n)
}

func (a absent) Trust(ctx context.Context, n *loom.Node, fingerprints []string) ([]loom.HostKey, error) {
	k, err := reach.Keeper(a.dialer, n)
	if err != nil {
		return nil, err
	}
	return k.TrustHostKeys(ctx, n, fingerprints...)
}

func (absent) Trigger(context.Context, string, loom.Request) (loom.Run, error) {
	return loom.Run{}, api.ErrNoDaemon
}

func (absent) Exec(context.Context, api.Exec, loom.Request) (loom.Run, error) {
	return loom.Run{}, api.ErrNoDaemon
}

func (absent) Cancel(context.Context, string, string) error { return api.ErrNoDaemon }
func (absent) Reload(context.Context) error                 { return api.ErrNoDaemon }

// all returns all pages of a list.
func all[T any](page func(cursor string) (api.Page[T], error)) ([]T, error) {
	found := []T{}
	for cursor := ""; ; {
		p, err := page(cursor)
		if err != nil {
			return nil, err
		}
		found = append(found, p.Items...)
		if cursor = p.Next; cursor == "" {
			return found, nil
		}
	}
}
