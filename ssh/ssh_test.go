package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	_ = os.Unsetenv("SSH_AUTH_SOCK") // tests that want an agent start one
	tester = localUser()
	remove := func() error { return nil }
	if os.Getuid() == 0 { // root's start-up files may be anything
		u, r, err := sshd.AddUser("/bin/bash", "")
		if err != nil {
			panic(err)
		}
		tester, remove = u.Username, r
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := remove(); err != nil {
			panic(err)
		}
		os.Exit(code) //nolint:forbidigo // that is how it is done
	}))
}

var tester string

// dialer returns a Dialer that knows nothing but what the test tells it.
func dialer(tb testing.TB, known string) *Dialer {
	tb.Helper()
	empty := tb.TempDir() + "/config"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	return &Dialer{
		SSHConfig: loom.SSHConfig{ConfigFile: empty, KnownHosts: known},
		Log:       slog.New(slog.NewTextHandler(tb.Output(), nil)),
	}
}

func node(s *sshd.Server, user string) *loom.Node {
	return &loom.Node{Name: "n1", Address: s.Address, Port: s.Port, User: user, Identity: s.Identity}
}

// dial connects to a node until the test ends.
func dial(tb testing.TB, d *Dialer, n *loom.Node) loom.Conn {
	tb.Helper()
	c, err := d.Dial(tb.Context(), n)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// run runs a command and returns what it printed.
func run(tb testing.TB, c loom.Conn, cmd loom.Command) (string, string, error) {
	tb.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	ctx, cancel := context.WithTimeout(tb.Context(), 60*time.Second)
	defer cancel()
	err := c.Exec(ctx, cmd)
	return out.String(), errs.String(), err
}

// me is the user that tests log in as.
func me() string { return tester }

// left lists the processes of this machine that carry a word on their command
// line.
func left(tb testing.TB, word string) string {
	tb.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		tb.Fatal("this test needs /proc", err)
	}
	var found []string
	for _, dir := range dirs {
		line, err := os.ReadFile(dir + "/cmdline")
		if err == nil && bytes.Contains(line, []byte(word)) { // a zombie has none
			found = append(found, dir+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return strings.Join(found, "\n")
}

func TestExec(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	tests := []struct {
		name     string
		cmd      loom.Command
		out, err string
		exit     loom.ExitError
	}{
		{"output", loom.Command{Text: "echo a; echo b >&2"}, "a\n", "b\n", loom.ExitError{}},
		{"status", loom.Command{Text: "exit 7"}, "", "", loom.ExitError{Code: 7}},
		{"signal", loom.Command{Text: "kill -KILL $$"}, "", "", loom.ExitError{Code: -1, Signal: "KILL"}},
		{"directory", loom.Command{Text: "pwd", Dir: "/usr"}, "/usr\n", "", loom.ExitError{}},
		{"environment", loom.Command{Text: `echo "$A"`, Env: map[string]string{"A": "x'y"}}, "x'y\n", "", loom.ExitError{}},
		{"stdin", loom.Command{Text: "cat", Stdin: strings.NewReader("hello")}, "hello", "", loom.ExitError{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, err := run(t, c, tt.cmd)
			var exit loom.ExitError
			if e := (*loom.ExitError)(nil); errors.As(err, &e) {
				exit = loom.ExitError{Code: e.Code, Signal: e.Signal}
			} else if err != nil {
				t.Fatal(err)
			}
			if out != tt.out || errs != tt.err || exit != tt.exit {
				t.Errorf("got %q, %q, %+v", out, errs, exit)
			}
		})
	}
	t.Run("all statuses", func(t *testing.T) {
		for code := range 256 {
			_, _, err := run(t, c, loom.Command{Text: fmt.Sprint("exit ", code)})
			exit := &loom.ExitError{}
			if errors.As(err, &exit); exit.Code != code {
				t.Fatalf("exit %d: %v", code, err)
			}
		}
	})
}
