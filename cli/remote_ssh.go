package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/shell"
)

// dialHello is what "loomd dial" says once it has reached its daemon. What a
// login prints before is not for us.
const dialHello = "loomd dial 1: HTTP/2 follows"

// A tunnel leads to the daemon of another machine, through the user's own ssh to a
// "loomd dial" there. It may be dialled several times.
type tunnel struct {
	name    string // for errors: ssh://user@host
	command []string

	mu     sync.Mutex
	closed bool
	ends   []*tunnelEnd
}

// newTunnel reads a URL: ssh://[USER@]HOST[:PORT][/SOCKET][?loomd=PROGRAM]. If
// quiet, ssh asks no questions.
func newTunnel(u *url.URL, quiet bool) (*tunnel, error) {
	args := []string{"ssh", "-T", "-a", "-x", "-e", "none", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none",
		"-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"}
	if quiet {
		args = append(args, "-o", "BatchMode=yes")
	}
	name := url.URL{Scheme: "ssh", Host: u.Host}
	if u.User != nil {
		if _, has := u.User.Password(); has {
			return nil, errors.New("a password has no place in an ssh URL: ssh asks for it, or better takes a key")
		}
		name.User = u.User
		args = append(args, "-l", u.User.Username())
	}
	if port := u.Port(); port != "" {
		args = append(args, "-p", port)
	}
	q := u.Query()
	program := q.Get("loomd")
	if q.Del("loomd"); len(q) > 0 || u.Fragment != "" || strings.HasPrefix(u.Hostname(), "-") {
		return nil, fmt.Errorf("%s: write ssh://[USER@]HOST[:PORT][/SOCKET][?loomd=PROGRAM]", u.Redacted())
	}
	args = append(args, "--", u.Hostname(), dialLine(program, u.Path))
	// An interrupt is for the command, which may want to ask the daemon for
	// something then: ssh leaves signals alone that are ignored when it starts.
	return &tunnel{name: name.String(), command: append([]string{"sh", "-c", `trap '' INT; exec "$@"`, "sh"}, args...)}, nil
}

// dialLine is the command on the other machine, for whatever shell is there.
func dialLine(program, socket string) string {
	line := `PATH="$PATH:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:$HOME/bin:$HOME/.local/bin:$HOME/go/bin"; exec `
	if program == "" {
		program = "loomd"
	}
	line += shell.Quote(program) + " dial"
	if strings.Trim(socket, "/") != "" {
		line += " " + shell.Quote(socket)
	}
	return "sh -c " + shell.Quote(line)
}

// dial starts an ssh and returns when the daemon answers through it.
func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	end, err := t.start()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = end.Close() })
	err = end.greet()
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return end, nil
}

// socketPair returns two ends of a stream that no other program gets. Not every
// system can make them so at once.
func socketPair() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// start starts an ssh that is on the list of what has to end.
func (t *tunnel) start() (*tunnelEnd, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	fds, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("%s: a pair of sockets: %w", t.name, err)
	}
	theirs, file := os.NewFile(uintptr(fds[0]), "ssh"), os.NewFile(uintptr(fds[1]), "ssh")
	defer theirs.Close() //nolint:errcheck // the process has its own
	ours, err := net.FileConn(file)
	_ = file.Close() // the connection has its own
	if err != nil {
		return nil, fmt.Errorf("%s: a pair of sockets: %w", t.name, err)
	}
	end := &tunnelEnd{Conn: ours, name: t.name, in: bufio.NewReader(ours), done: make(chan struct{})}
	end.cmd = exec.Command(t.command[0], t.command[1:]...) //nolint:noctx // it lives as long as the connection
	end.cmd.Stdin, end.cmd.Stdout, end.cmd.Stderr = theirs, theirs, &end.said
	end.cmd.WaitDelay = time.Second // an ssh that stays in the background keeps the errors open
	if err := end.cmd.Start(); err != nil {
		_ = ours.Close() // it leads nowhere
		return nil, &unreached{t.name, "ssh can't be run here", err.Error(), api.ErrNoDaemon}
	}
	t.ends = append(t.ends, end)
	go end.wait()
	return end, nil
}

// close ends every ssh, and waits for that.
func (t *tunnel) close() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.closed = true
	ends := t.ends
	t.mu.Unlock()
	for _, end := range ends {
		_ = end.Close() // there is nobody to tell
	}
}

// A tunnelEnd is a connection through an ssh.
type tunnelEnd struct {
	net.Conn
	name string
	in   *bufio.Reader
	cmd  *exec.Cmd
	said lastWords
	done chan struct{} // closed when the process has ended, with exit
	exit error

	closing sync.Once
}

func (e *tunnelEnd) wait() {
	e.exit = e.cmd.Wait()
	close(e.done)
}

// killTime is how long an ssh that was told to end may take.
const killTime = 2 * time.Second

// Close ends the ssh and returns when it has ended.
func (e *tunnelEnd) Close() error {
	var err error
	e.closing.Do(func() {
		err = e.Conn.Close()
		_ = e.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-e.done:
		case <-time.After(killTime):
			_ = e.cmd.Process.Kill() // likewise
		}
	})
	<-e.done
	return err
}

// Read reads what the daemon says. At the end it says why that is.
func (e *tunnelEnd) Read(b []byte) (int, error) {
	n, err := e.in.Read(b)
	if errors.Is(err, io.EOF) {
		err = e.ended()
	}
	return n, err
}

// greet waits for the word that the daemon is there.
func (e *tunnelEnd) greet() error {
	const most = 64 << 10
	for read := 0; read < most; {
		line, err := e.in.ReadSlice('\n')
		if strings.TrimSpace(string(line)) == dialHello {
			return nil
		}
		read += len(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			err = e.ended()
			_ = e.Close() // it has ended
			return err
		}
	}
	_ = e.Close() // nothing sensible came
	return &unreached{e.name, "what answers is no \"loomd dial\"", e.said.last(), api.ErrNoDaemon}
}

// ended says why the ssh has ended: it closes its output just before.
func (e *tunnelEnd) ended() error {
	select {
	case <-e.done:
	case <-time.After(killTime):
		return io.ErrUnexpectedEOF
	}
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](e.exit); ok {
		code = exit.ExitCode()
	}
	return explainSSH(e.name, code, e.said.text())
}

// unreached is why a daemon can't be asked through ssh.
type unreached struct {
	where, what, said string
	kind              error // api.ErrNoDaemon or fs.ErrPermission
}

func (e *unreached) Error() string {
	if e.said == "" {
		return e.where + ": " + e.what
	}
	return fmt.Sprintf("%s: %s: %s", e.where, e.what, e.said)
}

func (e *unreached) Unwrap() []error { return []error{e.kind, loom.ErrStoreDown} }

// explainSSH says what it means that ssh to where ended with a status and these
// words on its standard error.
func explainSSH(where string, code int, said string) error {
	u := &unreached{where: where, said: lastLine(said), kind: api.ErrNoDaemon}
	host := strings.TrimPrefix(where, "ssh://")
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(said, w) {
				return true
			}
		}
		return false
	}
	switch {
	case code == 255 && has("REMOTE HOST IDENTIFICATION HAS CHANGED"):
		u.what, u.said = "its host key is another than before: find out why before anything else, then: ssh-keygen -R", "Host key verification failed."
	case code == 255 && has("Host key verification failed", "host key is known for"):
		u.what = "ssh does not know its host key: connect once by hand, and compare the fingerprint: ssh " + host
	case code == 255 && has("Permission denied", "Too many authentication failures", "No supported authentication methods"):
		u.what, u.kind = "ssh was not let in: this has to work first: ssh "+host, fs.ErrPermission
	case code == 255:
		u.what = "ssh did not get there"
	case code == ExitForbidden:
		u.what, u.kind = "the daemon there does not let you in", fs.ErrPermission
	case code == ExitUnreachable:
		u.what = "there is no daemon"
	case code == ExitUsage && has("unknown command"):
		u.what = "the loomd there is older than this program"
	case code == 126 || code == 127:
		u.what = "there is no loomd on its PATH: install it there, or say where it is: " + where + "?loomd=/PATH/OF/loomd"
	case code == 0:
		u.what = "ssh has ended"
	default:
		u.what = fmt.Sprintf("ssh has ended with status %d", code)
	}
	return u
}

// lastLine returns the last line that is no hint, without the name of the program
// that said it.
func lastLine(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(clean(strings.TrimSpace(line)), "loomd: ")
		if line != "" && !strings.HasPrefix(line, "hint: ") {
			last = line
		}
	}
	return last
}

// lastWords keeps the last of what is written to it. It is safe for concurrent use.
type lastWords struct {
	mu   sync.Mutex
	kept []byte
}

func (w *lastWords) Write(b []byte) (int, error) {
	const most = 16 << 10
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, b...)
	if len(w.kept) > most {
		w.kept = bytes.Clone(w.kept[len(w.kept)-most:])
	}
	return len(b), nil
}

func (w *lastWords) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.kept)
}

func (w *lastWords) last() string { return lastLine(w.text()) }
