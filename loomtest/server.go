package loomtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/shell"
	"github.com/dustinlacewell/loom/internal/sshserver"
	"github.com/dustinlacewell/loom/ssh"
)

// A Handler says what a node answers to a command: cmd is the text as the task
// gave it, in what it reads, out and errw what it prints, and the result its
// exit status. ctx ends when the command is to end; a handler that takes notice
// of that only later is taken for killed after five seconds. [CommandOf] tells
// the rest about the command. A handler is called concurrently if its commands
// are.
type Handler func(ctx context.Context, cmd string, in io.Reader, out, errw io.Writer) int

// A Server is a node. Its fields must not be changed once it is in use; its
// methods are safe for concurrent use.
type Server struct {
	// Sudo says whether a password lets the login user become another one; it is
	// asked with "" first, as a user of whom sudo wants no password needs none.
	// Nil lets everybody become everybody. A node of Real has the machine's sudo.
	Sudo func(user, password string) bool

	// NoSFTP makes a node without file transfer.
	NoSFTP bool

	// MaxSessions is how many channels one connection may have; 0 is any number.
	MaxSessions int

	handler Handler
	machine *sshserver.Machine // of Real
	memory  *sshserver.Memory
	once    sync.Once
	ssh     *sshserver.Server
	shell   *shell.Emulator

	mu    sync.Mutex
	ran   []loom.Command
	down  error
	hang  bool // answer nothing more
	asked bool // something was wanted while it hung
	wires []*wire
}

// NewServer returns a node that answers commands as the handler says; nil
// answers all with success and nothing else. It starts nothing before it is
// dialed.
func NewServer(h Handler) *Server {
	if h == nil {
		h = func(context.Context, string, io.Reader, io.Writer, io.Writer) int { return 0 }
	}
	return &Server{handler: h, memory: sshserver.NewMemory("/home/loom")}
}

// Real returns a node that runs its commands with this machine's /bin/sh, in a
// directory that is its home and is gone when the test ends. What it does to
// files elsewhere, it does to this machine's.
func Real(tb testing.TB) *Server {
	tb.Helper()
	return &Server{machine: &sshserver.Machine{Home: tb.TempDir()}}
}

// Node returns a node that Dial reaches. It may be changed before it is used.
func (s *Server) Node() *loom.Node {
	n := &loom.Node{Name: "node", Address: "node.test", User: "loom"}
	if s.machine != nil {
		if me, err := user.Current(); err == nil {
			n.User = me.Username // who commands do run as
		}
	}
	return n
}

// Session connects to the node until the test ends. What the task prints and
// logs is shown with the test's own output.
func (s *Server) Session(tb testing.TB) *loom.Session {
	tb.Helper()
	n := s.Node()
	w := &wire{server: s}
	conn, err := w.dial(tb.Context(), n, tb.Output())
	if err != nil {
		w.close()
		tb.Fatalf("connecting to the node: %v", err)
	}
	tb.Cleanup(func() {
		_ = conn.Close() // the test is over
		w.close()
	})
	return &loom.Session{
		Node: n, Job: "test", Due: time.Now(), Conn: conn,
		Log: slog.New(slog.NewTextHandler(tb.Output(), nil)),
		Out: tb.Output(), Err: tb.Output(),
	}
}

// Apply validates a task, applies it in a new session, and returns the changes
// that it reported. It does not end before its session's connection has.
func (s *Server) Apply(tb testing.TB, task loom.Task) ([]loom.Change, error) {
	tb.Helper()
	if v, ok := task.(loom.Validator); ok {
		if err := v.Validate(); err != nil {
			return nil, err
		}
	}
	return apply(tb.Context(), s.Session(tb), task)
}

func apply(ctx context.Context, s *loom.Session, task loom.Task) ([]loom.Change, error) {
	var mu sync.Mutex
	var changes []loom.Change
	s.OnChange = func(c loom.Change) {
		mu.Lock()
		defer mu.Unlock()
		changes = append(changes, c)
	}
	err := task.Apply(ctx, s)
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(changes), err
}

// Dial connects to the node, whatever its name and address are: a Server is a
// loom.Dialer. Who uses it calls Close in the end.
func (s *Server) Dial(ctx context.Context, n *loom.Node) (loom.Conn, error) {
	w := &wire{server: s}
	s.mu.Lock()
	s.wires = append(s.wires, w)
	s.mu.Unlock()
	return w.dial(ctx, n, io.Discard)
}

// Close ends everything that connections made by Dial have started on the node,
// and waits for it.
func (s *Server) Close() error {
	s.mu.Lock()
	wires := s.wires
	s.wires = nil
	s.mu.Unlock()
	for _, w := range wires {
		w.close()
	}
	return nil
}

// Drop cuts all connections, in the middle of whatever they do. The node can be
// dialed again at once.
func (s *Server) Drop() { s.server().Drop() }

// Stall keeps all that is sent over the connections that are open from
// arriving, as if a cable had been pulled: nobody gets an error. New
// connections work.
func (s *Server) Stall() {
	for _, c := range s.server().Conns() {
		if p, ok := c.(*sshserver.PipeConn); ok {
			p.Stall()
		}
	}
}

// Down makes dialing the node fail with an error from now on, and work again
// with nil. Open connections stay.
func (s *Server) Down(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// Commands returns the commands that were run so far, in the order in which
// they began: the texts as the task gave them, with "sudo -u USER -- " before
// those for another user.
func (s *Server) Commands() []string {
	var all []string
	for _, c := range s.Ran() {
		if c.User != "" {
			c.Text = "sudo -u " + c.User + " -- " + c.Text
		}
		all = append(all, c.Text)
	}
	return all
}

// Ran returns the commands that were run so far, without passwords and streams,
// in the order in which they began.
func (s *Server) Ran() []loom.Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ran)
}

type commandKey struct{}

// CommandOf returns the command that a handler is called for, by the handler's
// context: with its user ("": the login user), directory, environment and
// shell, but no streams.
func CommandOf(ctx context.Context) loom.Command {
	c, _ := ctx.Value(commandKey{}).(loom.Command)
	return c
}

// WriteFile puts a file on the node, with exactly this mode, and the directories
// above it. Names are absolute, or relative to the login directory.
func (s *Server) WriteFile(name string, data []byte, mode fs.FileMode) error {
	if s.memory != nil {
		return s.memory.WriteFile(name, data, mode)
	}
	name = s.path(name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, data, mode); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// ReadFile returns what is in a file of the node, whatever its mode.
func (s *Server) ReadFile(name string) ([]byte, error) {
	if s.memory != nil {
		return s.memory.ReadFile(name)
	}
	return os.ReadFile(s.path(name))
}

// Stat describes a file of the node.
func (s *Server) Stat(name string) (fs.FileInfo, error) {
	if s.memory != nil {
		return s.memory.Stat(name)
	}
	return os.Stat(s.path(name))
}

func (s *Server) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.machine.Home, name)
}

// server returns the SSH server, which is made at the first use.
func (s *Server) server() *sshserver.Server {
	s.once.Do(func() {
		s.shell = &shell.Emulator{Exec: s.emulate, Sudo: s.Sudo}
		s.ssh = &sshserver.Server{Exec: s.exec, MaxSessions: s.MaxSessions, Admit: s.admit}
		switch {
		case s.NoSFTP:
		case s.memory != nil:
			s.ssh.SFTP = s.memory.SFTP
		default:
			s.ssh.SFTP = s.machine.SFTP
		}
	})
	return s.ssh
}

// hangs reports whether the node answers nothing more, and notes that it was
// asked.
func (s *Server) hangs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = s.asked || s.hang
	return s.hang
}

// admit lets no file transfer go on while the node hangs.
func (s *Server) admit(ctx context.Context, what string) error {
	if what != "sftp" || !s.hangs() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *Server) exec(ctx context.Context, r *sshserver.Request) sshserver.Exit {
	if s.machine != nil && !s.hangs() {
		c, in, ok := shell.Sniff(r.Command, r.Stdin)
		if ok {
			s.note(c)
		}
		r.Stdin = in
		return s.machine.Exec(ctx, r)
	}
	exit, ok := s.shell.Serve(ctx, r.Command, shell.Terminal{In: r.Stdin, Out: r.Stdout, Err: r.Stderr, Go: r.Go})
	if !ok {
		_, _ = fmt.Fprintf(r.Stderr, "sh: %s: this node understands only what Loom sends\n", r.Command)
		return sshserver.Exit{Status: 127}
	}
	return sshserver.Exit{Status: exit.Code, Signal: exit.Signal}
}

func (s *Server) emulate(ctx context.Context, c shell.Command) shell.Exit {
	ctx = context.WithValue(ctx, commandKey{}, s.note(c))
	if s.hangs() {
		<-ctx.Done()
		return shell.Exit{}
	}
	return shell.Exit{Code: s.handler(ctx, c.Text, c.Stdin, c.Stdout, c.Stderr)}
}

func (s *Server) note(c shell.Command) loom.Command {
	noted := loom.Command{Text: c.Text, Shell: c.Shell, Dir: c.Dir, Env: c.Env, User: c.User}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ran = append(s.ran, noted)
	return noted
}

// A wire is all that one call of Dial or Session has started on the node.
type wire struct {
	server *Server
	wait   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ends   []context.CancelFunc
}

var errClosed = errors.New("the node is closed")

// dial connects by a dialer that knows nothing of this machine's user: neither
// keys nor hosts nor configuration.
func (w *wire) dial(ctx context.Context, n *loom.Node, log io.Writer) (loom.Conn, error) {
	d := &ssh.Dialer{
		SSHConfig: loom.SSHConfig{ConfigFile: os.DevNull, KnownHosts: os.DevNull, HostKeys: loom.HostKeysOff},
		Net:       w.connect,
		Log:       slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	at := *n
	at.User = cmp.Or(n.User, "loom")
	return d.Dial(ctx, &at)
}

func (w *wire) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s := w.server
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down != nil {
		return nil, down
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	serving, end := context.WithCancel(context.Background()) // a node does not end with who dials it
	w.ends = append(w.ends, end)
	client, server := sshserver.Pipe()
	w.wait.Go(func() { _ = s.server().ServeConn(serving, server) }) // the client is told what is wrong
	return client, nil
}

func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	for _, end := range w.ends {
		end()
	}
	w.mu.Unlock()
	w.wait.Wait()
}

// snapshot tells all about the node's files, so that two of them differ if
// anything was done to a file.
func (s *Server) snapshot() (string, error) {
	var b strings.Builder
	if s.memory != nil {
		for _, name := range s.memory.Names() {
			info, err := s.memory.Lstat(name)
			if err != nil {
				return "", err
			}
			data, _ := s.memory.ReadFile(name) // a link that leads nowhere has none
			fmt.Fprintf(&b, "%s %v %q\n", name, info.Mode(), data)
		}
		return b.String(), nil
	}
	err := filepath.WalkDir(s.machine.Home, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var data []byte
		if d.Type().IsRegular() {
			if data, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%s %v %q\n", name, info.Mode(), data)
		return nil
	})
	return b.String(), err
}
