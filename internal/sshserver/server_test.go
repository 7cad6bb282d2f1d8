package sshserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves one connection in memory until the test ends.
func dial(t *testing.T, srv *Server, cfg *ssh.ClientConfig) (*ssh.Client, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	near, far := Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeConn(ctx, far)
	}()
	t.Cleanup(func() { cancel(); <-done })
	if cfg == nil {
		cfg = &ssh.ClientConfig{User: "ann"}
	}
	cfg.HostKeyCallback = ssh.FixedHostKey(srv.HostKey())
	conn, channels, requests, err := ssh.NewClientConn(near, "memory", cfg)
	if err != nil {
		_ = near.Close()
		return nil, err
	}
	client := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { _ = client.Close() })
	return client, nil
}

func mustDial(t *testing.T, srv *Server) *ssh.Client {
	t.Helper()
	client, err := dial(t, srv, nil)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func session(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMachine(t *testing.T) {
	home := t.TempDir()
	m := &Machine{Home: home}
	client := mustDial(t, &Server{Exec: m.Exec, SFTP: m.SFTP})
	tests := []struct {
		name, command, in string
		out, errs, end    string
	}{
		{"status", "exit 3", "", "", "", "Process exited with status 3"},
		{"not found", "exec /no/such/program", "", "", "not found", "Process exited with status 127"},
		{"streams", "echo a; echo b >&2", "", "a\n", "b\n", ""},
		{"stdin", "tr a-z A-Z", "hello", "HELLO", "", ""},
		{"signal", "kill -9 $$", "", "", "", "Process exited with status 137 from signal KILL"},
		{"environment", `pwd; echo "$HOME $USER"; env | grep -c SECRET`, "", home + "\n" + home + " ann\n0\n", "", "Process exited with status 1"},
		{"child holds the output", "(sleep 0.05; echo late) & echo early", "", "early\nlate\n", "", ""},
		{"own session", `[ "$(ps -o sid= -p $$ | tr -d ' ')" = $$ ] && echo leader`, "", "leader\n", "", ""},
	}
	t.Setenv("SECRET", "not for nodes")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := session(t, client)
			var out, errs bytes.Buffer
			s.Stdin, s.Stdout, s.Stderr = strings.NewReader(tt.in), &out, &errs
			err := s.Run(tt.command)
			if out.String() != tt.out || !strings.Contains(errs.String(), tt.errs) {
				t.Errorf("%s printed %q and %q, want %q and %q", tt.command, &out, &errs, tt.out, tt.errs)
			}
			if got := fmt.Sprint(err); err != nil && got != tt.end || err == nil && tt.end != "" {
				t.Errorf("%s ended with %v, want %q", tt.command, err, tt.end)
			}
		})
	}
}

// A client that goes away ends what reads or writes, and nothing else; the
// server's end kills the rest.
func TestMachineClientGone(t *testing.T) {
	home := t.TempDir()
	m := &Machine{Home: home}
	ctx, cancel := context.WithCancel(t.Context())
	srv := &Server{Exec: m.Exec}
	near, far := Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.ServeConn(ctx, far)
	}()
	conn, channels, requests, err := ssh.NewClientConn(near, "memory",
		&ssh.ClientConfig{User: "ann", HostKeyCallback: ssh.FixedHostKey(srv.HostKey())})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)

	// FIFOs: opening one waits for the other side, so the test does not poll.
	for _, f := range []string{"started", "eof"} {
		if err := session(t, client).Run("mkfifo " + f); err != nil {
			t.Fatal(err)
		}
	}
	s := session(t, client)
	if _, err := s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo $$ > started; cat; echo end > eof; exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	pid := readFile(t, filepath.Join(home, "started"))
	_ = client.Close()
	if got := readFile(t, filepath.Join(home, "eof")); got != "end" {
		t.Errorf("after its client had gone the command wrote %q, want end", got)
	}
	cancel()
	<-served
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Errorf("process %s outlives the server", pid)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestMachineSignal(t *testing.T) {
	m := &Machine{Home: t.TempDir()}
	client := mustDial(t, &Server{Exec: m.Exec})
	s := session(t, client)
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.01; done"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if exit, ok := errors.AsType[*ssh.ExitError](s.Wait()); !ok || exit.ExitStatus() != 7 || string(rest) != "got it\n" {
		t.Errorf("after SIGTERM: %v, output %q; want status 7 and %q", exit, rest, "got it\n")
	}
}

func TestLogin(t *testing.T) {
	key := newKey(t)
	other := newKey(t)
	byKey := &Server{Exec: whoami, Authorized: func(user string, k ssh.PublicKey) bool {
		return user == "ann" && bytes.Equal(k.Marshal(), key.PublicKey().Marshal())
	}}
	password := func(user, password string) bool { return user == "ann" && password == "pw" }
	byPassword := &Server{Exec: whoami, Password: password}
	interactive := &Server{Exec: whoami, Password: password, Interactive: true}
	answer := ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		return slicesRepeat("pw", len(questions)), nil
	})
	tests := []struct {
		name string
		srv  *Server
		auth []ssh.AuthMethod
		want string // "" is refused
	}{
		{"nobody asks", &Server{Exec: whoami}, nil, "ann "},
		{"key", byKey, []ssh.AuthMethod{ssh.PublicKeys(key)}, "ann " + ssh.FingerprintSHA256(key.PublicKey())},
		{"second key", byKey, []ssh.AuthMethod{ssh.PublicKeys(other, key)}, "ann " + ssh.FingerprintSHA256(key.PublicKey())},
		{"wrong key", byKey, []ssh.AuthMethod{ssh.PublicKeys(other)}, ""},
		{"password", byPassword, []ssh.AuthMethod{ssh.Password("pw")}, "ann "},
		{"wrong password", byPassword, []ssh.AuthMethod{ssh.Password("no")}, ""},
		{"interactive", interactive, []ssh.AuthMethod{answer}, "ann "},
		{"nothing", byPassword, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, err := dial(t, tt.srv, &ssh.ClientConfig{User: "ann", Auth: tt.auth})
			if err != nil {
				if tt.want != "" {
					t.Errorf("login: %v, want %q", err, tt.want)
				}
				return
			}
			if out, err := session(t, client).Output("who"); err != nil || string(out) != tt.want {
				t.Errorf("who = %q, %v; want %q", out, err, tt.want)
			}
		})
	}
}

func whoami(_ context.Context, r *Request) Exit {
	_, _ = fmt.Fprintf(r.Stdout, "%s %s", r.User, r.Key)
	return Exit{}
}

func slicesRepeat(s string, n int) []string {
	var all []string
	for range n {
		all = append(all, s)
	}
	return all
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestMaxSessions(t *testing.T) {
	free := make(chan struct{})
	srv := &Server{MaxSessions: 2, Exec: func(ctx context.Context, _ *Request) Exit {
		select {
		case <-free:
		case <-ctx.Done():
		}
		return Exit{}
	}}
	client := mustDial(t, srv)
	first, second := session(t, client), session(t, client)
	for _, s := range []*ssh.Session{first, second} {
		if err := s.Start(""); err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.NewSession()
	if open, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || open.Reason != ssh.ConnectionFailed {
		t.Errorf("third session: %v, want that opening failed", err)
	}
	close(free)
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	_ = session(t, client).Close() // there is room again, at once
}

func TestRefusals(t *testing.T) {
	no := func(what string) *Server {
		return &Server{
			Exec: whoami, SFTP: NewMemory("/").SFTP,
			Admit: func(_ context.Context, w string) error {
				if w == what {
					return errors.New("not today")
				}
				return nil
			},
		}
	}
	if _, err := mustDial(t, no("session")).NewSession(); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("session: %v, want a refusal with the reason", err)
	}
	if err := session(t, mustDial(t, no("exec"))).Run("x"); err == nil {
		t.Error("exec was not refused")
	}
	if _, err := sftp.NewClient(mustDial(t, no("sftp"))); err == nil {
		t.Error("sftp was not refused")
	}
	if _, err := mustDial(t, &Server{}).Dial("tcp", "example.org:1"); err == nil {
		t.Error("direct-tcpip was not refused")
	}
}

func TestForward(t *testing.T) {
	inner := &Server{Exec: whoami}
	ctx := t.Context()
	outer := &Server{Forward: func(_ context.Context, address string) (net.Conn, error) {
		if address != "inner:22" {
			return nil, fmt.Errorf("no route to %s", address)
		}
		near, far := Pipe()
		go func() { _ = inner.ServeConn(ctx, far) }()
		return near, nil
	}}
	client := mustDial(t, outer)
	if _, err := client.Dial("tcp", "other:22"); err == nil || !strings.Contains(err.Error(), "no route to other:22") {
		t.Errorf("other: %v, want no route", err)
	}
	c, err := client.Dial("tcp", "inner:22")
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(c, "inner",
		&ssh.ClientConfig{User: "bob", HostKeyCallback: ssh.FixedHostKey(inner.HostKey())})
	if err != nil {
		t.Fatal(err)
	}
	through := ssh.NewClient(conn, channels, requests)
	defer through.Close()
	if out, err := session(t, through).Output("who"); string(out) != "bob " || err != nil {
		t.Errorf("through the jump: %q, %v; want bob", out, err)
	}
}

// A server on a real socket ends with its context, whatever its clients do.
func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &Machine{Home: t.TempDir()}
	srv := &Server{Exec: m.Exec}
	done := make(chan error)
	go func() { done <- srv.Serve(ctx, l) }()

	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	client, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(srv.HostKey())})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := session(t, client)
	if err := s.Start("sleep 1000"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	if err := s.Wait(); err == nil {
		t.Error("the command ended well though the server was stopped")
	}
}

// Three hours pass on a fake clock; then the cable is pulled, and nobody notices
// until a deadline does.
func TestFakeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		srv := &Server{Exec: func(ctx context.Context, r *Request) Exit {
			select {
			case <-time.After(3 * time.Hour):
				_, _ = io.WriteString(r.Stdout, "done")
			case <-ctx.Done():
			}
			return Exit{}
		}}
		client := mustDial(t, srv)
		if out, err := session(t, client).Output("x"); string(out) != "done" || err != nil || time.Since(began) != 3*time.Hour {
			t.Errorf("Output = %q, %v after %v; want done after 3h", out, err, time.Since(began))
		}

		srv.Conns()[0].(*PipeConn).Stall()
		s := make(chan error)
		go func() {
			_, err := client.NewSession()
			s <- err
		}()
		synctest.Wait()
		select {
		case err := <-s:
			t.Errorf("a stalled connection gave %v", err)
		default:
		}
		srv.Drop()
		_ = client.Close()
		<-s
	})
}

func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		if err := a.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v, want that the deadline has passed", err)
		}
		_ = a.SetReadDeadline(time.Time{})
		_, _ = b.Write([]byte("last words"))
		_ = b.Close()
		if got, err := io.ReadAll(a); string(got) != "last words" || err != nil {
			t.Errorf("ReadAll = %q, %v; want what was written before Close", got, err)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("Write to a closed connection succeeded")
		}
		_ = a.Close()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close = %v, want net.ErrClosed", err)
		}
	})
}

// Both file systems do what clients rely on.
func TestFiles(t *testing.T) {
	m := &Machine{Home: t.TempDir()}
	for name, serve := range map[string]func(context.Context, io.ReadWriteCloser) error{
		"machine": m.SFTP, "memory": NewMemory("/home/ann").SFTP,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := sftp.NewClient(mustDial(t, &Server{SFTP: serve}))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			testFiles(t, c)
		})
	}
}

func testFiles(t *testing.T, c *sftp.Client) {
	t.Helper()
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	put := func(name, text string) {
		t.Helper()
		f, err := c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		check("create "+name, err, nil)
		if err != nil {
			return
		}
		check("chmod", f.Chmod(0o640), nil)
		_, err = f.Write([]byte(text))
		check("write", err, nil)
		check("close", f.Close(), nil)
	}
	get := func(name string) string {
		t.Helper()
		f, err := c.Open(name)
		check("open "+name, err, nil)
		if err != nil {
			return ""
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		check("read", err, nil)
		return string(b)
	}

	_, err := c.Open("none")
	check("open none", err, fs.ErrNotExist)
	_, err = c.Open("none/at/all")
	check("open none/at/all", err, fs.ErrNotExist)
	put("a", "one")
	put("b", "two")
	if _, err := c.OpenFile("a", os.O_WRONLY|os.O_CREATE|os.O_EXCL); err == nil {
		t.Error("exclusive creation of an existing file succeeded")
	}
	check("rename", c.PosixRename("a", "b"), nil)
	if got := get("b"); got != "one" {
		t.Errorf("after the rename b = %q, want one", got)
	}
	info, err := c.Stat("b")
	check("stat", err, nil)
	if err == nil && (info.Mode() != 0o640 || info.Size() != 3 || info.Name() != "b") {
		t.Errorf("stat b = %v, %d bytes; want -rw-r-----, 3", info.Mode(), info.Size())
	}

	check("mkdir", c.Mkdir("d"), nil)
	wd, err := c.Getwd()
	check("getwd", err, nil)
	check("symlink", c.Symlink(wd+"/b", "d/link"), nil)
	if got := get("d/link"); got != "one" {
		t.Errorf("through the link: %q, want one", got)
	}
	if info, err := c.Lstat("d/link"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("lstat d/link = %v, %v; want a link", info, err)
	}
	if to, err := c.ReadLink("d/link"); to != wd+"/b" || err != nil {
		t.Errorf("readlink = %q, %v; want %s/b", to, err, wd)
	}
	if err := c.RemoveDirectory("d"); err == nil {
		t.Error("a directory that is not empty was removed")
	}
	list, err := c.ReadDir("d")
	if err != nil || len(list) != 1 || list[0].Name() != "link" {
		t.Errorf("readdir d = %v, %v; want link", list, err)
	}
	if err := c.PosixRename("b", "d"); err == nil {
		t.Error("a file replaced a directory")
	}
	check("rename d", c.Rename("d", "e"), nil)
	check("remove", c.Remove("e/link"), nil)
	check("rmdir", c.RemoveDirectory("e"), nil)

	if os.Getuid() != 0 {
		check("chmod", c.Chmod("b", 0), nil)
		_, err = c.Open("b")
		check("open a forbidden file", err, fs.ErrPermission)
	}
}

// Whoever owns a file and may not read it is told so; root is not asked on a
// real machine, so only the one in memory is.
func TestMemoryForbidden(t *testing.T) {
	m := NewMemory("/home/ann")
	if err := m.WriteFile("secret", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.MkdirAll("locked", 0o500); err != nil {
		t.Fatal(err)
	}
	c, err := sftp.NewClient(mustDial(t, &Server{SFTP: m.SFTP}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Rename("secret", "locked"); err == nil {
		t.Error("plain rename replaced its target")
	}
	if _, err := c.Open("secret"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("open = %v, want fs.ErrPermission", err)
	}
	if _, err := c.Create("locked/x"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("create = %v, want fs.ErrPermission", err)
	}
	if err := m.WriteFile("new/deep/file", []byte("y"), 0o600); err != nil {
		t.Error(err)
	}
	if got := m.Names(); fmt.Sprint(got) != "[/home/ann/new/deep/file /home/ann/secret]" {
		t.Errorf("Names = %v", got)
	}
}
