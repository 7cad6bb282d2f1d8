package tasks_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	loomssh "github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/tasks"
)

// TestSudo is about the tasks that become another user, by real sudo on a real
// node.
func TestSudo(t *testing.T) {
	t.Parallel()
	leak := t.TempDir() + "/leak"
	password := "echo leaked >" + leak + "; 'pw"
	free := sshd.NewUser(t, "", password)
	asked := sshd.NewUser(t, "", password)
	sshd.Sudo(t, free.Username, false)
	sshd.Sudo(t, asked.Username, true)
	server := sshd.Start(t, sshd.Options{})

	for name, as := range map[string]string{"without password": free.Username, "with password": asked.Username} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.Node = &loom.Node{Name: "db1", Address: server.Address, Port: server.Port, User: as, Identity: server.Identity}
			b.Node.Sudo.Password = loom.Secret(password) // free has one too, and is not asked
			b.Conn = dialNode(t, server, b.Node)
			testSudo(t, b)
		})
	}
	t.Run("without the password", func(t *testing.T) {
		b := newBench(t, nil)
		b.Node = &loom.Node{Name: "db1", Address: server.Address, Port: server.Port, User: asked.Username, Identity: server.Identity}
		b.Conn = dialNode(t, server, b.Node)
		if _, err := b.apply(t.Context(), tasks.Sudo{Command: "id"}); err == nil || !strings.Contains(err.Error(), "password") || b.out.String() != "" {
			t.Errorf("error is %v, want that there is no password", err)
		}
	})
	if _, err := os.Stat(leak); err == nil {
		t.Error("the password was run as a command")
	}
}

func dialNode(t *testing.T, server *sshd.Server, n *loom.Node) loom.Conn {
	t.Helper()
	d := &loomssh.Dialer{
		SSHConfig: loom.SSHConfig{ConfigFile: write(t, t.TempDir(), "config", ""), KnownHosts: server.KnownHosts},
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	conn, err := d.Dial(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func testSudo(t *testing.T, b *bench) {
	t.Helper()
	// Cat would print a password that came to it.
	for want, task := range map[string]tasks.Sudo{
		"root":       {Command: "id -un; cat"},
		"daemon":     {Command: "id -un; cat", User: "daemon"},
		"root\ngive": {Command: "id -un; cat", Stdin: "give\n"},
		"it's root":  {Command: `echo "it's $(id -un)"; exit 4`, WarnOnly: true},
	} {
		if _, err := b.apply(t.Context(), task); err != nil {
			t.Errorf("%+v: %v", task, err)
		}
		if got := b.out.String() + b.err.String(); got != want+"\n" {
			t.Errorf("%+v printed %q, want %q", task, got, want)
		}
	}

	// The files of another user, and scripts that another user runs.
	here := t.TempDir()
	script := write(t, here, "script", `id -un; stat -c %U "$0"`)
	if _, err := b.apply(t.Context(), tasks.Script{File: script, User: "daemon"}); err != nil {
		t.Error(err)
	}
	if got := b.out.String(); got != "daemon\ndaemon\n" {
		t.Errorf("the script printed %q", got)
	}
	dir := t.TempDir() + "/roots"
	b.settled(t, tasks.Put{LocalPath: script, RemotePath: dir + "/", UseSudo: true, Mode: 0o600, Group: "daemon"},
		"made the directory "+dir, "put "+dir+"/script")
	if got := sh(t, `stat -c '%U %G %a' "$1"`, dir+"/script"); got != "root daemon 600" {
		t.Errorf("it is of %s", got)
	}
	sh(t, `chmod 700 "$1"`, dir)
	down := t.TempDir()
	if _, err := b.apply(t.Context(), tasks.Get{RemotePath: dir, LocalPath: down + "/{path}"}); err == nil {
		t.Error("got what only root may read, without sudo")
	}
	b.settled(t, tasks.Get{RemotePath: dir, LocalPath: down + "/{path}", UseSudo: true}, "got "+down+"/script")
}

// A script is removed from the node also when it is ended before its time.
func TestScriptOverSSH(t *testing.T) {
	t.Parallel()
	server := sshd.Start(t, sshd.Options{NoSFTP: true})
	b := newBench(t, nil)
	b.Node = &loom.Node{Name: "db1", Address: server.Address, Port: server.Port, User: me(), Identity: server.Identity}
	b.Conn = dialNode(t, server, b.Node)
	tmp := t.TempDir()
	b.Env = map[string]string{"TMPDIR": tmp}
	stubborn := write(t, t.TempDir(), "s", "#!/bin/sh\ntrap '' TERM HUP INT\necho up\nsleep 600 & wait\nsleep 600\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	b.Out = writerFunc(func(p []byte) (int, error) {
		cancel(loom.ErrCancelled) // it is up
		return len(p), nil
	})
	if _, err := b.apply(ctx, tasks.Script{File: stubborn}); !errors.Is(err, loom.ErrCancelled) {
		t.Errorf("error is %v, want %v", err, loom.ErrCancelled)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
