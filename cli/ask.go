package cli

import (
	"context"
	"errors"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// An inquiry is a memory that can be asked all that the API can: the daemon, or, if
// none runs, this process, with what the manifests say and what is remembered.
type inquiry struct {
	*memory
	api      *api.Client
	manifest *loom.Manifest // of this process; nil: the daemon has it, or it can't be read
	nothing  error          // why nothing is remembered; nil: something is
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
	in := &inquiry{memory: m, manifest: manifest, nothing: err}
	if m == nil {
		in.memory = &memory{Store: noStore{}, config: manifest.Config}
	}
	in.api = (&api.Server{Store: in.Store, Control: p.absent(manifest), Absent: true}).Inside()
	return in, nil
}

// absent is what the API knows in this process, where no daemon runs.
func (p *Program) absent(manifest *loom.Manifest) absent {
	return absent{manifest: manifest}
}

// close lets go of it.
func (in *inquiry) close() {
	if in != nil {
		in.memory.close()
	}
}

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
