package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dustinlacewell/loom/internal/golden"
	"github.com/dustinlacewell/loom/internal/scripts"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"loomd": main})
}

// TestScripts runs the real program as users do. The scripts in testdata read
// like a manual of it.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       golden.Update(),
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("TZ", "UTC")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would wait a second at each end
			return os.MkdirAll(home, 0o700)
		},
		Cmds: commands(),
	})
}

// commands are those of the scripts.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := scripts.Cmds()
	all["notifysocket"] = notifySocket
	return all
}

// notifySocket FILE listens as systemd does, and writes what it is told to the
// file, a message a line group.
func notifySocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: notifysocket file")
	}
	dir, err := os.MkdirTemp("", "notify") // a socket's name must be short
	ts.Check(err)
	socket := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			_, _ = f.Write(append(buf[:n:n], '\n'))
		}
	}()
	ts.Defer(func() {
		_ = conn.Close()
		<-done
		_ = f.Close()
		_ = os.RemoveAll(dir)
	})
	ts.Setenv("NOTIFY_SOCKET", socket)
}
