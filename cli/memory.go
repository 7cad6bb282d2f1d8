package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// How long commands wait for others.
const (
	storeTime  = 3 * time.Second // for another command to let go of the store
	storeRetry = 50 * time.Millisecond
)

// errNothing means that nothing was ever remembered where a command looks.
var errNothing = errors.New("nothing is remembered yet")

// A memory is the store of the configuration, as a command may use it: through
// the daemon that has it, or, if none runs, by itself.
type memory struct {
	loom.Store
	daemon *api.Client   // nil: none runs
	remote *remoteDaemon // nil: it is this machine's
	config loom.Config
	dir    string // the state directory
}

// stateFlag adds --state to a command.
func stateFlag(cmd *cobra.Command) *string {
	state := cmd.Flags().String("state", "", "`directory` of what is remembered, instead of the configuration's")
	_ = cmd.MarkFlagDirname("state") // it is our own flag
	return state
}

// memory opens what is remembered. The caller closes it. The error is errNothing
// if there is nothing. Of the configuration no more is read than need be, so that
// mistakes in it are not in the way.
//
// It is the one place that decides where a command's data comes from: from the
// daemon that the user names, from that of this machine, or from its files.
func (p *Program) memory(ctx context.Context, state string) (*memory, error) {
	s, err := p.server(state)
	if err != nil {
		return nil, err
	}
	if s != nil {
		return p.elsewhere(s)
	}
	config, err := loom.ReadConfig(p.Config)
	if errors.Is(err, fs.ErrNotExist) && p.Config == "" && state == "" {
		r, none := p.localDaemon(ctx)
		switch {
		case none == nil:
			return &memory{Store: r.Client, daemon: r.Client, config: loom.Config{Timezone: time.Local}}, nil
		case p.Remote || !errors.Is(none, api.ErrNoDaemon):
			return nil, none
		}
	}
	if err != nil && (state == "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, &Error{Code: ExitFailed, Err: err}
	}
	m := &memory{config: config, dir: cmp.Or(state, config.State)}
	m.config.Store = cmp.Or(m.config.Store, "sqlite")
	for deadline := time.Now().Add(storeTime); ; {
		err := p.open(ctx, m, state != "")
		if err == nil {
			return m, nil
		}
		if !errors.Is(err, loom.ErrStoreDown) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-time.After(storeRetry):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// open tries once. named says that the state directory was named.
func (p *Program) open(ctx context.Context, m *memory, named bool) error {
	client := &api.Client{Socket: filepath.Join(m.dir, api.SocketFile)}
	_, err := client.Runs(ctx, loom.RunQuery{Limit: 1})
	if other := m.config.API.Socket.Path; other != "" && !named && errors.Is(err, fs.ErrPermission) { // it is for those who can't get at the first
		_ = client.Close() // no connection was made
		client = &api.Client{Socket: other}
		_, err = client.Runs(ctx, loom.RunQuery{Limit: 1})
	}
	switch {
	case errors.Is(err, fs.ErrPermission) || ctx.Err() != nil:
		return err
	case !errors.Is(err, api.ErrNoDaemon):
		m.daemon, m.Store = client, client // whatever is wrong with its store, it will say so
		return nil
	case p.Remote && !named:
		return &Error{Code: ExitUnreachable, Err: err, Hint: "a daemon elsewhere is named with --server or --context, a store that no daemon has with --state"}
	}
	if !strings.Contains(m.config.Store, "://") {
		file := filepath.Join(m.dir, storeFile)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return &Error{Code: ExitNotFound, Err: fmt.Errorf("%w in %s: no daemon has run with this state directory", errNothing, m.dir),
				Hint: fmt.Sprintf("start one (%s -c FILE), or name another directory with --state", p.Name)}
		} else if err != nil {
			return err // not permitted, most likely
		}
	}
	m.Store, err = p.Stores.Open(ctx, m.config.Store, m.dir)
	return err
}

// close lets go of the memory. What was written is safe.
func (m *memory) close() {
	if m != nil {
		_ = m.Close()
		m.remote.close()
	}
}

// who names the person who gives an order. "" is left to the daemon, which sees
// who connects.
func (m *memory) who() string {
	if m.remote != nil {
		return ""
	}
	sudo := os.Getenv("SUDO_USER")
	switch u, err := user.Current(); {
	case os.Geteuid() == 0 && sudo != "" && sudo != "root":
		return sudo
	case m.daemon != nil:
		return ""
	case err != nil:
		return fmt.Sprintf("uid %d", os.Getuid())
	default:
		return u.Username
	}
}

// openRun is memory, with the run that it is opened for.
func (p *Program) openRun(ctx context.Context, state, id string) (*memory, loom.Run, error) {
	m, err := p.memory(ctx, state)
	if err != nil {
		return nil, loom.Run{}, err
	}
	r, err := p.findRun(ctx, m, id)
	if err != nil {
		m.close()
		return nil, loom.Run{}, err
	}
	return m, r, nil
}

// findRun returns the run whose ID begins with id.
func (p *Program) findRun(ctx context.Context, store loom.Archive, id string) (loom.Run, error) {
	const shown = 10
	id = strings.ToLower(strings.TrimSpace(id))
	if id == "" {
		return loom.Run{}, Usage("the run's ID is empty")
	}
	found, err := store.Runs(ctx, loom.RunQuery{ID: id, Limit: shown + 1})
	switch {
	case err != nil:
		return loom.Run{}, err
	case len(found) == 0:
		return loom.Run{}, &Error{Code: ExitNotFound, Err: fmt.Errorf("run %s: there is none, or it is not kept any more: %w", id, loom.ErrNotFound),
			Hint: p.Name + " runs lists those there are"}
	case len(found) == 1 || found[0].ID == id:
		return found[0], nil
	}
	var some []string
	for i, r := range found {
		if i == shown {
			some = append(some, "...")
			break
		}
		some = append(some, fmt.Sprintf("%s (%s, %s)", r.ID, r.Job, r.Status))
	}
	return loom.Run{}, &Error{Code: ExitUsage, Err: fmt.Errorf("run %s: several begin so: %s", id, strings.Join(some, ", ")),
		Hint: "give more of the ID"}
}

// shortest is how much of a run's ID is shown at least: its time, to the
// millisecond, and enough of the rest that others hardly ever begin the same.
const shortest = 13

// short returns how much of each of these IDs tells it from the others.
func short(ids []string) int {
	n := shortest
	for i, a := range ids {
		for _, b := range ids[i+1:] {
			same := 0
			for same < len(a) && same < len(b) && a[same] == b[same] {
				same++
			}
			n = max(n, same+1)
		}
	}
	return n
}

// cut is the first n characters of an ID.
func cut(id string, n int) string { return id[:min(n, len(id))] }
