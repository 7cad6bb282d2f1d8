package api_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir returns a directory whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the test may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve has s answer at a socket until the test ends, or stop is called.
func serve(t *testing.T, s *api.Server) (c *api.Client, stop func()) {
	t.Helper()
	dir := shortDir(t)
	l, err := api.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c = &api.Client{Socket: filepath.Join(dir, api.SocketFile)}
	stop = serveAt(t, s, l)
	t.Cleanup(func() { _ = c.Close() })
	return c, stop
}

func serveAt(t *testing.T, s *api.Server, l net.Listener) (stop func()) {
	t.Helper()
	s.Wrap(held(t).check(t))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// A remote is a store of which a test has only the client.
type remote struct {
	*api.Client
	stop  func()
	store loom.Store
}

func (r remote) Close() error {
	err := r.Client.Close()
	r.stop()
	return errors.Join(err, r.store.Close())
}

// overTheWire opens a store and returns a client of a server that has it.
func overTheWire(open storetest.Open) storetest.Open {
	return func(t *testing.T, dir string) loom.Store {
		t.Helper()
		store := open(t, dir)
		c, stop := serve(t, &api.Server{Store: store})
		return remote{c, stop, store}
	}
}

func openMemory(*testing.T, string) loom.Store { return &memory.Store{TTL: 500 * time.Millisecond} }

func openSQLite(t *testing.T, dir string) loom.Store {
	t.Helper()
	s, err := sqlite.Options{TTL: 500 * time.Millisecond}.Open(t.Context(), filepath.Join(dir, "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreOverTheWire(t *testing.T) {
	t.Run("memory", func(t *testing.T) { storetest.Run(t, overTheWire(openMemory)) })
	t.Run("sqlite", func(t *testing.T) {
		storetest.Run(t, overTheWire(openSQLite))
		t.Run("durable", func(t *testing.T) { storetest.RunDurable(t, overTheWire(openSQLite)) })
	})
}
