// Package sshserver is an SSH and SFTP server inside the process: the nodes of
// a demonstration and of tests. It behaves as OpenSSH's does where a client
// could tell, and can be told to misbehave. It is no server to put before
// strangers.
package sshserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// A Server says what connections are answered with. The zero value lets
// everybody in, by any name, and can do nothing for them. It must not be
// changed once it serves; it may serve any number of listeners and connections
// at once.
type Server struct {
	// Exec runs the commands that clients ask for, and their login shells, which
	// are empty commands. If it is nil the server refuses to run any.
	Exec Handler

	// SFTP speaks the file transfer protocol on a channel until that ends. If it
	// is nil the server has no such subsystem.
	SFTP func(ctx context.Context, channel io.ReadWriteCloser) error

	// Forward connects a client that wants to jump through this server. If it is
	// nil that is prohibited.
	Forward func(ctx context.Context, address string) (net.Conn, error)

	// Authorized and Password say who may log in, and with what; a nil one is a
	// method that the server does not offer. If both are nil, anybody may.
	// Authorized is also asked about keys that a client merely offers, so it
	// must not remember what it was asked: what a client has proved is in
	// Request.Key.
	Authorized func(user string, key ssh.PublicKey) bool
	Password   func(user, password string) bool

	// Interactive asks for the password by the keyboard-interactive method
	// instead, as servers do that use PAM.
	Interactive bool

	// Key is the host's key. If it is nil, the server makes one of its own.
	Key ssh.Signer

	// MaxSessions is how many sessions one connection may have open; 0 is any
	// number.
	MaxSessions int

	// Wrap gets every connection before a byte is exchanged, and returns what to
	// use instead. It may wait, write something odd, or return an error to hang
	// up.
	Wrap func(ctx context.Context, c net.Conn) (net.Conn, error)

	// Admit is asked before the server does what a client wants, which is one of
	// "session", "exec", "sftp" and "direct-tcpip". An error refuses it, and it
	// may wait as long as ctx lets it. Nil admits all.
	Admit func(ctx context.Context, what string) error

	once sync.Once
	made ssh.Signer

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

// A Handler runs one command and says how it ended. Its ctx ends when the
// server does. A client that closes the channel ends nothing by itself: as with
// OpenSSH, reading then gives io.EOF and writing an error, and Closed is closed.
type Handler func(ctx context.Context, r *Request) Exit

// A Request is a command that a client wants to be run.
type Request struct {
	User    string // who logged in
	Key     string // the SHA256 fingerprint of the key that let the user in, if one did
	Command string // "" is a login shell
	Env     map[string]string

	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Closed is closed when the client has closed the channel, or the connection
	// is gone.
	Closed <-chan struct{}

	// Signals gets the names of the signals that the client sends, as "TERM". One
	// that nobody takes in time is lost.
	Signals <-chan string

	channel ssh.Channel
	ended   sync.Once
	wait    *sync.WaitGroup
}

// An Exit says how a command ended: with a status, or by a signal, named as
// "KILL".
type Exit struct {
	Status int
	Signal string
}

// Ended tells the client how the command ended while its output may still go
// on, as OpenSSH does. What the handler returns is then of no importance.
func (r *Request) Ended(e Exit) {
	r.ended.Do(func() {
		if e.Signal == "" {
			status := binary.BigEndian.AppendUint32(nil, uint32(e.Status)) //nolint:gosec // the protocol has 32 bits
			_, _ = r.channel.SendRequest("exit-status", false, status)     // a client that is gone needs none
			return
		}
		_, _ = r.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}{Name: e.Signal}))
	})
}

// Go runs f in a goroutine that may outlive the handler: the server waits for
// it after it has closed the channel.
func (r *Request) Go(f func()) { r.wait.Go(f) }

// HostKey returns the key by which clients know the server.
func (s *Server) HostKey() ssh.PublicKey { return s.signer().PublicKey() }

func (s *Server) signer() ssh.Signer {
	s.once.Do(func() {
		s.made = s.Key
		if s.made != nil {
			return
		}
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err == nil {
			s.made, err = ssh.NewSignerFromKey(key)
		}
		if err != nil {
			panic(fmt.Sprintf("sshserver: making a host key: %v", err)) // there is no randomness: nothing works
		}
	})
	return s.made
}

// Serve answers connections to l until ctx ends, which also ends all of them,
// and returns when nothing that they started is left. The error is nil then,
// and else says why l gave no more connections. Serve closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()

	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close() // it came too late
			}
			return nil
		}
		if err != nil {
			_ = l.Close() // the first error tells more
			return err
		}
		wg.Go(func() { _ = s.ServeConn(ctx, c) }) // a client's going away is no news
	}
}

// ServeConn answers one connection and closes it. It returns when the
// connection has ended, or ctx has, and nothing that it started is left: a
// command that goes on without its client keeps it waiting until ctx ends.
func (s *Server) ServeConn(ctx context.Context, c net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.track(c)()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer c.Close() //nolint:errcheck // it has ended

	if s.Wrap != nil {
		wrapped, err := s.Wrap(ctx, c)
		if err != nil {
			return err
		}
		c = wrapped
		defer c.Close() //nolint:errcheck // it has ended
		defer context.AfterFunc(ctx, func() { _ = wrapped.Close() })()
	}

	conn, channels, requests, err := ssh.NewServerConn(c, s.config())
	if err != nil {
		return fmt.Errorf("ssh handshake: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { ssh.DiscardRequests(requests) })

	link := &link{server: s, conn: conn, wait: &wg}
	for offer := range channels {
		wg.Go(func() { link.channel(ctx, offer) })
	}
	return conn.Wait()
}

// Drop cuts all open connections, in the middle of whatever they do. The server
// goes on to accept new ones.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close() // that is the point
	}
}

// Conns returns the connections that are open, those that have not logged in
// included.
func (s *Server) Conns() []net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []net.Conn
	for c := range s.open {
		all = append(all, c)
	}
	return all
}

func (s *Server) track(c net.Conn) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[net.Conn]struct{}{}
	}
	s.open[c] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	}
}

func (s *Server) admit(ctx context.Context, what string) error {
	if s.Admit == nil {
		return nil
	}
	return s.Admit(ctx, what)
}

var errDenied = errors.New("permission denied")

// fingerprint is where a connection's permissions hold the key that was proved.
// The callback may be asked about several keys before one of them is, so only
// what it returned for that one says who is there.
const fingerprint = "fingerprint"

func (s *Server) config() *ssh.ServerConfig {
	cfg := &ssh.ServerConfig{NoClientAuth: s.Authorized == nil && s.Password == nil}
	if s.Authorized != nil {
		cfg.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !s.Authorized(c.User(), key) {
				return nil, errDenied
			}
			return &ssh.Permissions{Extensions: map[string]string{fingerprint: ssh.FingerprintSHA256(key)}}, nil
		}
	}
	switch {
	case s.Password == nil:
	case s.Interactive:
		cfg.KeyboardInteractiveCallback = func(c ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil {
				return nil, err
			}
			if len(answers) != 1 || !s.Password(c.User(), answers[0]) {
				return nil, errDenied
			}
			return nil, nil
		}
	default:
		cfg.PasswordCallback = func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if !s.Password(c.User(), string(password)) {
				return nil, errDenied
			}
			return nil, nil
		}
	}
	cfg.AddHostKey(s.signer())
	return cfg
}

// A link is one connection that has logged in.
type link struct {
	server *Server
	conn   *ssh.ServerConn
	wait   *sync.WaitGroup // of everything that was started for it

	mu       sync.Mutex
	sessions int
}

func (l *link) channel(ctx context.Context, offer ssh.NewChannel) {
	var err error
	switch kind := offer.ChannelType(); kind {
	case "session":
		if err = l.server.admit(ctx, kind); err == nil {
			l.session(ctx, offer)
			return
		}
	case "direct-tcpip":
		if err = l.server.admit(ctx, kind); err == nil && l.server.Forward == nil {
			err = errors.New("administratively prohibited")
		}
		if err == nil {
			l.forward(ctx, offer)
			return
		}
	default:
		_ = offer.Reject(ssh.UnknownChannelType, "unknown channel type")
		return
	}
	_ = offer.Reject(ssh.Prohibited, err.Error())
}

func (l *link) session(ctx context.Context, offer ssh.NewChannel) {
	if !l.enter() {
		_ = offer.Reject(ssh.ConnectionFailed, "open failed") // OpenSSH's words
		return
	}
	ch, requests, err := offer.Accept()
	if err != nil {
		l.leave()
		return
	}
	closed := make(chan struct{})
	signals := make(chan string, 8)
	env := map[string]string{}
	busy := false
	for req := range requests {
		ok := false
		switch req.Type {
		case "env":
			var v struct{ Name, Value string }
			// What Debian's sshd_config accepts.
			if ssh.Unmarshal(req.Payload, &v) == nil && !busy && (v.Name == "LANG" || strings.HasPrefix(v.Name, "LC_")) {
				env[v.Name], ok = v.Value, true
			}
		case "exec", "shell":
			text, valid := execText(req)
			if ok = valid && !busy && l.server.Exec != nil && l.server.admit(ctx, "exec") == nil; ok {
				busy = true
				r := &Request{
					User: l.conn.User(), Command: text, Env: env,
					Stdin: ch, Stdout: ch, Stderr: ch.Stderr(),
					Closed: closed, Signals: signals, channel: ch, wait: l.wait,
				}
				if l.conn.Permissions != nil {
					r.Key = l.conn.Permissions.Extensions[fingerprint]
				}
				answer(req, true) // before the output
				l.wait.Go(func() { l.exec(ctx, r) })
				continue
			}
		case "subsystem":
			var v struct{ Name string }
			if ssh.Unmarshal(req.Payload, &v) == nil && v.Name == "sftp" && !busy && l.server.SFTP != nil {
				ok = l.server.admit(ctx, "sftp") == nil
			}
			if ok {
				busy = true
				answer(req, true)
				l.wait.Go(func() { l.sftp(ctx, ch) })
				continue
			}
		case "signal":
			var v struct{ Name string }
			if ssh.Unmarshal(req.Payload, &v) == nil {
				select {
				case signals <- v.Name:
				default:
				}
			}
		}
		answer(req, ok)
	}
	close(closed)
	if !busy {
		l.leave()
		_ = ch.Close() // the client has
	}
}

func answer(req *ssh.Request, ok bool) {
	if req.WantReply {
		_ = req.Reply(ok, nil) // a client that is gone needs none
	}
}

func execText(req *ssh.Request) (text string, ok bool) {
	if req.Type == "shell" {
		return "", true
	}
	var v struct{ Command string }
	err := ssh.Unmarshal(req.Payload, &v)
	return v.Command, err == nil
}

func (l *link) exec(ctx context.Context, r *Request) {
	end := Exit{Status: 255} // of a handler that does not return
	defer func() {
		r.Ended(end)
		_ = r.channel.CloseWrite()
		l.leave() // first: a client that saw the end may open the next at once
		_ = r.channel.Close()
	}()
	end = l.server.Exec(ctx, r)
}

func (l *link) sftp(ctx context.Context, ch ssh.Channel) {
	err := l.server.SFTP(ctx, ch)
	status := []byte{0, 0, 0, 0}
	if err != nil && !errors.Is(err, io.EOF) {
		status[3] = 1
	}
	_, _ = ch.SendRequest("exit-status", false, status) // a client that is gone needs none
	l.leave()
	_ = ch.Close()
}

// enter takes one of the sessions that the connection may have.
func (l *link) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server.MaxSessions > 0 && l.sessions >= l.server.MaxSessions {
		return false
	}
	l.sessions++
	return true
}

func (l *link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions--
}

func (l *link) forward(ctx context.Context, offer ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		FromHost string
		FromPort uint32
	}
	if err := ssh.Unmarshal(offer.ExtraData(), &to); err != nil {
		_ = offer.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	c, err := l.server.Forward(ctx, net.JoinHostPort(to.Host, strconv.FormatUint(uint64(to.Port), 10)))
	if err != nil {
		_ = offer.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer c.Close() //nolint:errcheck // both sides have ended
	ch, requests, err := offer.Accept()
	if err != nil {
		return
	}
	defer ch.Close() //nolint:errcheck // both sides have ended
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		ssh.DiscardRequests(requests)
		_ = c.Close() // the channel is closed, so nobody reads it
	})
	wg.Go(func() {
		_, _ = io.Copy(ch, c) // however it ended, the other side learns of it
		_ = ch.CloseWrite()
	})
	_, _ = io.Copy(c, ch)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	} else {
		_ = c.Close()
	}
}
