package ssh

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/dustinlacewell/loom/internal/shell"
	"golang.org/x/crypto/ssh"
)

// A process is a program in a session: a shell.Process.
type process struct {
	*channel
	link   *link
	stderr io.Reader
	ahead  bool // the program was started before it was needed

	known  chan struct{} // closed when exit or err is set
	closed chan struct{} // closed when the channel is
	exit   shell.Exit
	err    error
}

var errNoStatus = errors.New("the session ended without an exit status")

// Sentry returns the sentry of the connection, if it is there yet.
func (p *process) Sentry() *shell.Sentry {
	if !p.link.sentry.Up() {
		return nil
	}
	return &p.link.sentry
}

// wait takes what the server says about the end, of which the first counts, and
// returns when the channel is closed.
func (p *process) wait() {
	told := false
	for r := range p.requests {
		if exit, ok := parseExit(r); ok && !told {
			told = true
			p.exit = exit
			close(p.known)
		}
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
	if !told {
		p.err = errNoStatus
		// If it is the connection that broke, its channels end a moment earlier.
		moment := time.NewTimer(250 * time.Millisecond)
		select {
		case <-p.link.dead:
			p.err = p.link.why
		case <-moment.C:
		}
		moment.Stop()
		close(p.known)
	}
	close(p.closed)
}

func parseExit(r *ssh.Request) (shell.Exit, bool) {
	switch r.Type {
	case "exit-status":
		if len(r.Payload) != 4 {
			return shell.Exit{}, false
		}
		// No process ends with more than 255, and that must not look like 0.
		return shell.Exit{Code: int(min(binary.BigEndian.Uint32(r.Payload), 255))}, true
	case "exit-signal":
		var signal struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}
		if ssh.Unmarshal(r.Payload, &signal) != nil || signal.Name == "" {
			return shell.Exit{}, false
		}
		return shell.Exit{Code: -1, Signal: signal.Name}, true
	}
	return shell.Exit{}, false
}

// ReadErr reads its standard error.
func (p *process) ReadErr(b []byte) (int, error) { return p.stderr.Read(b) }

// Done is closed when Exit has its answer.
func (p *process) Done() <-chan struct{} { return p.known }

// Exit waits for the end.
func (p *process) Exit() (shell.Exit, error) {
	<-p.known
	return p.exit, p.err
}

// closeLimit is how long a server may take to close a channel that we have
// closed, before the connection is given up.
const closeLimit = 10 * time.Second

// Close closes the channel. A server that does not answer, or a network that
// takes nothing, must not hold us up.
func (p *process) Close() {
	select {
	case <-p.closed:
		return
	default:
	}
	p.link.spawn(func() { // on a dead link it is closed already
		timer := time.AfterFunc(closeLimit, func() {
			p.link.fail(errors.New("it did not close a session"))
		})
		defer timer.Stop()
		_ = p.channel.Close() // an error means that it is closed
		<-p.closed
	})
}
