package ssh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom/internal/shell"
	"golang.org/x/crypto/ssh"
)

// A link is one SSH connection.
type link struct {
	t    *target
	wire *wire
	ssh  ssh.Conn
	via  *hop // the jump host it goes through
	pace *pacer

	freed func() // called when a channel was dropped, if not nil

	dead chan struct{} // closed when it can not be used any more
	once sync.Once
	why  error          // it is dead; after dead
	wg   sync.WaitGroup // its goroutines

	mu      sync.Mutex
	spare   *channel      // open, for the next command
	pulse   *time.Timer   // nothing was heard of it for a while
	sentry  shell.Sentry  // watches over the commands that run for long
	alone   bool          // there is no room for the sentry
	opening <-chan opened // where a channel that is being opened ahead will be
	used    bool          // a channel was taken
	single  bool          // one was, for a command that may be the only one for now
	open    int           // channels in use
	limit   int           // how many may be open; 0: not known
	learned time.Time     // when we were told; zero: it is the node's setting
	closed  time.Time     // when one was closed
}

// An opened is what became of a channel that was asked for.
type opened struct {
	channel *channel
	err     error
}

// A channel is an open session.
type channel struct {
	ssh.Channel
	requests <-chan *ssh.Request

	mu   sync.Mutex
	line string // the program that was started in it; "": none
}

// exec starts the program that line names, if none was started ahead. It does
// not wait for a reply: what the program says will be one. (OpenSSH's server
// lets us write only after it has taken the request, so what is written at once
// still waits for that; not so if the program was started ahead.)
func (c *channel) exec(line string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != "" {
		return nil
	}
	c.line = line
	_, err := c.SendRequest("exec", false, append(binary.BigEndian.AppendUint32(nil, uint32(len(line))), line...))
	return err
}

// started returns the program that was started ahead.
func (c *channel) started() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line
}

// A wire is a network connection that remembers when it was last heard of, and
// what came first, and that can send two packets at once.
type wire struct {
	net.Conn
	heard atomic.Int64 // when, in nanoseconds
	admit func() error // called once, when something has come and before it is passed on
	ahead []byte       // was read, and not asked for yet

	mu   sync.Mutex
	head []byte
	full bool // nobody wants more of head

	sending sync.Mutex
	pairing bool        // the next packet is to go out with the one after it
	held    []byte      // it
	late    *time.Timer // it goes out alone
}

// pairLimit is how long a packet waits for the one that it is to go out with.
const pairLimit = time.Millisecond

func (w *wire) Read(p []byte) (int, error) {
	if len(w.ahead) == 0 && len(p) == 1 { // the library asks for the first line so
		line := make([]byte, 256)
		n, err := w.read(line)
		if n == 0 {
			return 0, err
		}
		w.ahead = line[:n]
	}
	if len(w.ahead) > 0 {
		n := copy(p, w.ahead)
		w.ahead = w.ahead[n:]
		return n, nil
	}
	return w.read(p)
}

func (w *wire) read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
		if w.mu.Lock(); !w.full {
			w.head = append(w.head, p[:min(n, 256)]...)
			w.full = len(w.head) >= 256
		}
		w.mu.Unlock()
		if admit := w.admit; admit != nil {
			w.admit = nil
			if err := admit(); err != nil {
				return 0, err
			}
		}
	}
	return n, err
}

// pair has the next packet wait for the one that follows it, since sending is
// most of what a packet costs, here and on the node. It is for two that are
// about to be written; a new exchange of keys may still come between them and
// hold the second back, so the first does not wait for long.
func (w *wire) pair() {
	if !w.sending.TryLock() {
		return // something else is being sent, perhaps for long
	}
	defer w.sending.Unlock()
	w.pairing = true
	if w.late == nil {
		w.late = time.AfterFunc(pairLimit, w.flush)
	} else {
		w.late.Reset(pairLimit)
	}
}

func (w *wire) flush() {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.pairing = false
	if len(w.held) > 0 {
		_, _ = w.Conn.Write(w.held) // if it breaks, it will be noticed
		w.held = w.held[:0]
	}
}

func (w *wire) Write(p []byte) (int, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	if w.pairing {
		w.pairing = false
		w.held = append(w.held, p...)
		return len(p), nil
	}
	if len(w.held) == 0 {
		return w.Conn.Write(p)
	}
	w.late.Stop()
	both := append(w.held, p...)
	w.held = both[:0]
	if cap(both) > 1<<10 {
		w.held = nil // large ones are rare
	}
	if _, err := w.Conn.Write(both); err != nil {
		return 0, err
	}
	return len(p), nil
}

// first returns what the other side said first.
func (w *wire) first() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.head)
}

// silence says how long nothing has come.
func (w *wire) silence() time.Duration { return time.Since(time.Unix(0, w.heard.Load())) }

// handshake turns a network connection into a link. It closes raw if it fails.
func (d *Dialer) handshake(ctx context.Context, t *target, raw net.Conn) (*link, error) {
	check, err := d.newHostKeyCheck(t)
	if err != nil {
		_ = raw.Close() // nothing was said on it
		return nil, err
	}
	a := &auth{d: d, t: t}
	defer a.close()
	w := &wire{Conn: raw}
	leave := func() {}
	w.admit = func() (err error) {
		leave, err = d.pace.handshake(ctx)
		return err
	}
	defer func() { leave() }()
	w.heard.Store(time.Now().UnixNano())
	conf := &ssh.ClientConfig{
		User:              t.user,
		Auth:              a.methods(),
		HostKeyAlgorithms: check.algorithms(),
		HostKeyCallback: func(host string, addr net.Addr, key ssh.PublicKey) error {
			err := check.check(host, addr, key)
			a.begun = err == nil
			return err
		},
		ClientVersion: "SSH-2.0-Loom",
	}
	conf.Ciphers, conf.MACs, conf.KeyExchanges = t.ciphers, t.macs, t.kex

	// The library knows no deadline for this; closing ends it.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, chans, requests, err := ssh.NewClientConn(w, t.String(), conf)
	if !stop() && err == nil { // it was closed at the last moment
		_ = conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, a.explain(ctx, w, err)
	}
	w.mu.Lock()
	w.head, w.full = nil, true
	w.mu.Unlock()

	l := &link{t: t, wire: w, ssh: conn, dead: make(chan struct{}), limit: t.maxSessions, pace: &d.pace}
	l.sentry.Start, l.sentry.Go = l.startSentry, l.spawn
	l.wg.Go(func() { l.serve(chans, requests) })
	l.mu.Lock() // until pulse is set
	l.pulse = time.AfterFunc(t.keepalive, l.keepAlive)
	l.mu.Unlock()
	l.prepare(false)
	return l, nil
}

// explain says why a handshake failed.
func (a *auth) explain(ctx context.Context, w *wire, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	t, said := a.t, w.first()
	cut := ctx.Err() != nil
	switch {
	case a.begun && !cut && !broken(err):
		e := t.fail(ClassAuth, fmt.Errorf("authentication failed for user %s", t.user))
		if s := err.Error(); !strings.Contains(s, "unable to authenticate") {
			e.Err = fmt.Errorf("authentication failed for user %s: %w", t.user, err)
		}
		e.Tried = a.tried
		e.Hint = "is the public key in the user's authorized_keys?"
		return e
	case a.begun && !cut && len(a.tried) > 0:
		e := t.fail(ClassAuth, fmt.Errorf("the server hung up during authentication of user %s: %w", t.user, err))
		e.Tried = a.tried
		return e
	case a.begun:
		return t.classify(ctx, err, "during authentication")
	case strings.Contains(said, "SSH-2.0-") || strings.Contains(said, "SSH-1.99-"):
		if strings.Contains(err.Error(), "no common algorithm") {
			return t.fail(ClassNegotiation, err)
		}
		return t.classify(ctx, err, "during the key exchange")
	case said == "":
		return t.classify(ctx, err, "before the server said anything")
	case busy(said):
		return t.fail(ClassReset, fmt.Errorf("the server turns connections away: %q", strings.TrimSpace(said)))
	case cut && !strings.Contains(said, "\n"):
		return t.classify(ctx, err, fmt.Sprintf("while the server introduced itself (%q)", said))
	}
	e := t.fail(ClassNotSSH, fmt.Errorf("what answers there is not an SSH server; it said %q", said))
	e.Hint = "is the port right?"
	return e
}

// busy reports whether a server's first words are those of an OpenSSH that has
// too many connections, or has had enough of us.
func busy(said string) bool {
	return strings.HasPrefix(said, "Exceeded MaxStartups") || strings.HasPrefix(said, "Not allowed at this time")
}

// broken reports whether err is the network's.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &op)
}

// serve answers what the server asks for: nothing is granted. It ends with the
// connection.
func (l *link) serve(chans <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	for chans != nil || requests != nil {
		select {
		case c, ok := <-chans:
			if !ok {
				chans = nil
				continue
			}
			_ = c.Reject(ssh.Prohibited, "no channels to this side") // if it breaks, both end
		case r, ok := <-requests:
			if !ok {
				requests = nil
				continue
			}
			_ = r.Reply(false, nil)
		}
	}
	l.fail(l.ssh.Wait())
}

// keepAlive asks for a sign of life when nothing has come for a while, and gives
// the connection up when three of them have passed.
func (l *link) keepAlive() {
	every := l.t.keepalive
	again := func(d time.Duration) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.alive() {
			l.pulse.Reset(d)
		}
	}
	if s := l.wire.silence(); s < every {
		again(every - s)
		return
	}
	l.spawn(func() {
		if l.ping(2*every) == nil {
			again(every)
		}
	})
}

// ping asks the server for a sign of life and waits for it. The connection is
// given up if it does not come.
func (l *link) ping(within time.Duration) error {
	timer := time.AfterFunc(within, func() {
		l.fail(fmt.Errorf("nothing was heard of it for %v", l.wire.silence().Round(time.Millisecond)))
	})
	defer timer.Stop()
	_, _, err := l.ssh.SendRequest("keepalive@openssh.com", true, nil)
	return err
}

// fail gives the connection up.
func (l *link) fail(why error) {
	l.once.Do(func() {
		if why == nil {
			why = io.EOF
		}
		l.why = why
		close(l.dead)
		_ = l.wire.Close() // and with it all that waits for it
	})
}

// alive reports whether the link can be used.
func (l *link) alive() bool {
	select {
	case <-l.dead:
		return false
	default:
		return true
	}
}

// close ends the link and waits for its goroutines. A server that does not
// answer can not hold it up.
func (l *link) close() error {
	l.fail(errClosed)
	l.pace.forget(l)
	l.mu.Lock() // whoever spawns, does so before or not at all
	l.pulse.Stop()
	opening := l.opening
	l.opening = nil
	l.mu.Unlock()
	l.wg.Wait()
	if opening != nil {
		l.discard(opening)
	}
	return nil
}

// spawn runs f in a goroutine that close waits for, or returns false if the link
// is dead.
func (l *link) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.alive() {
		return false
	}
	l.wg.Go(f)
	return true
}

// startSentry starts the shell of the link's sentry. Its session is not one of
// those that are counted: a limit that is learned says how many commands there
// may be beside it.
func (l *link) startSentry(_ context.Context, line string) (shell.Process, error) {
	ch, err := l.session()
	if err == nil {
		err = ch.exec(line)
	}
	l.mu.Lock()
	if l.alone = err != nil; !l.alone && l.limit > 0 && l.learned.IsZero() {
		l.limit-- // the node's setting counts all
	}
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	p := &process{channel: ch, link: l, stderr: ch.Stderr(), known: make(chan struct{}), closed: make(chan struct{})}
	if !l.spawn(p.wait) {
		return nil, l.why
	}
	return p, nil
}

// crowded reports whether the server has so little room that a sentry would take
// too much of it. l.mu is held.
func (l *link) crowded() bool { return l.alone || l.limit > 0 && l.limit < 4 }

// process starts a program in a channel that was taken.
func (l *link) process(ch *channel, line string) (*process, error) {
	ahead := ch.started() != ""
	if err := ch.exec(line); err != nil {
		l.drop()
		return nil, l.t.fail(ClassReset, fmt.Errorf("the connection broke before the command: %w", err))
	}
	p, err := l.adopt(ch)
	if err == nil {
		p.ahead = ahead
	}
	return p, err
}

// adopt waits for the end of a channel that was taken, and drops it then.
func (l *link) adopt(ch *channel) (*process, error) {
	p := &process{channel: ch, link: l, stderr: ch.Stderr(), known: make(chan struct{}), closed: make(chan struct{})}
	if !l.spawn(func() {
		p.wait()
		l.drop()
	}) {
		l.drop()
		return nil, l.t.fail(ClassReset, fmt.Errorf("the connection broke before the command: %w", l.why))
	}
	return p, nil
}

// heat starts a shell in the channel that was opened ahead, so that the next
// command need not wait for the login shell and its start-up files, and the
// sentry, so that it needs no watcher of its own.
func (l *link) heat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open > 0 || !l.alive() {
		return
	}
	l.settle()
	c, crowded := l.spare, l.crowded()
	l.wg.Go(func() {
		if c == nil {
			c = l.ahead()
		}
		if c != nil {
			_ = c.exec(shell.Line) // if the connection breaks, it will be noticed
		}
		if !crowded {
			l.sentry.Begin()
		}
	})
}

var errClosed = shell.ErrClosed

// prepare asks for a channel for the next command, if there is room for one. If
// paired is true, the caller is about to write something too.
func (l *link) prepare(paired bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settle(); l.spare != nil || l.opening != nil || l.full() || !l.alive() {
		return
	}
	if paired {
		l.wire.pair()
	}
	l.opening = l.ask("session", nil)
}

// ahead opens a channel for the next command, unless one was asked for already or
// there is no room for it.
func (l *link) ahead() *channel {
	l.mu.Lock()
	needless := l.spare != nil || l.opening != nil || l.full()
	l.mu.Unlock()
	if needless {
		return nil
	}
	c, err := l.session()
	l.mu.Lock()
	l.learn(err)
	needless = l.spare != nil || l.opening != nil // a command came meanwhile
	if err == nil && !needless {
		l.spare = c
	}
	l.mu.Unlock()
	switch {
	case err != nil:
		return nil
	case needless:
		_ = c.Close() // an error means that it is closed
		ssh.DiscardRequests(c.requests)
		return nil
	}
	return c
}

// settle takes the channel that was asked for ahead, if it is there. l.mu is
// held.
func (l *link) settle() {
	select {
	case o := <-l.opening:
		l.opening, l.spare = nil, o.channel
		l.learn(o.err)
	default:
	}
}

// full reports whether the server would open no further channel. What we were
// told of that holds for a minute. l.mu is held.
func (l *link) full() bool {
	if !l.learned.IsZero() && time.Since(l.learned) > time.Minute {
		l.limit, l.learned = 0, time.Time{}
	}
	return l.limit > 0 && l.open >= l.limit
}

// session opens a channel, which takes a round trip. It ends with the link at
// the latest.
func (l *link) session() (*channel, error) { return l.await(l.ask("session", nil)) }

// await waits for a session that was asked for.
func (l *link) await(answer <-chan opened) (*channel, error) {
	timer := time.AfterFunc(3*l.t.connect, func() { l.fail(errors.New("it did not answer a request for a session")) })
	defer timer.Stop()
	return l.opened(context.Background(), answer)
}

// ask asks for a channel of a kind. The answer may never come if the link dies:
// the library waits for ever for a channel that is asked for at the moment at
// which the connection ends (its mux has then closed all channels that it knows,
// and the first write that fails is not reported), so it is left behind.
func (l *link) ask(kind string, data []byte) <-chan opened {
	answer := make(chan opened, 1)
	go func() {
		for wait := 5 * time.Millisecond; ; wait *= 2 {
			c, requests, err := l.ssh.OpenChannel(kind, data)
			if err == nil {
				answer <- opened{channel: &channel{Channel: c, requests: requests}}
				return
			}
			// A server may still count a session that it has just closed.
			_, refused := errors.AsType[*ssh.OpenChannelError](err)
			if kind != "session" || !refused || wait > 100*time.Millisecond || !l.justClosed() || !l.rest(wait) {
				answer <- opened{err: err}
				return
			}
		}
	}()
	return answer
}

// rest waits, and reports whether the link is alive.
func (l *link) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.dead:
		return false
	}
}

// opened waits for a channel that was asked for. It returns when the link dies
// at the latest.
func (l *link) opened(ctx context.Context, answer <-chan opened) (*channel, error) {
	select {
	case o := <-answer:
		return o.channel, o.err
	case <-l.dead:
		l.discard(answer)
		return nil, l.why
	case <-ctx.Done():
		l.spawn(func() { l.discard(answer) })
		return nil, context.Cause(ctx)
	}
}

// discard closes a channel that comes too late. On a dead link it comes at once,
// or never.
func (l *link) discard(answer <-chan opened) {
	select {
	case o := <-answer:
		if o.err == nil {
			_ = o.channel.Close() // an error means that it is closed
			ssh.DiscardRequests(o.channel.requests)
		}
		return
	case <-l.dead:
	}
	late := time.NewTimer(time.Second)
	defer late.Stop()
	select {
	case <-answer:
	case <-late.C:
	}
}

// justClosed reports whether a channel was closed a moment ago, or none is open.
func (l *link) justClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open <= 1 || time.Since(l.closed) < 200*time.Millisecond
}

// learn takes from a refusal how many channels the server allows. l.mu is held.
func (l *link) learn(err error) {
	if _, refused := errors.AsType[*ssh.OpenChannelError](err); refused && l.open > 0 {
		l.limit, l.learned = l.open, time.Now()
	}
}

// room reports whether a channel may be had.
func (l *link) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	return l.spare != nil || !l.full()
}

// take returns a channel in which the program that line names can be started, or
// was. It is counted as open until drop is called.
//
// The next one is asked for at once, unless this is the first and may be the last
// for now: then heat does it.
func (l *link) take(line string, last bool) (*channel, error) {
	l.pace.stir()
	l.mu.Lock()
	l.used, l.single = true, last && !l.used
	single := l.single
	l.settle()
	c, wanted := l.spare, l.opening
	l.spare = nil
	if c == nil {
		l.opening = nil // it is ours, if there is one
	}
	l.open++
	l.mu.Unlock()

	var err error
	switch {
	case c != nil && c.fits(line) && !c.closed():
	case c == nil && wanted != nil:
		c, err = l.await(wanted)
	default:
		c, err = l.session()
	}
	if err != nil {
		l.mu.Lock()
		l.open--
		l.learn(err)
		l.mu.Unlock()
		return nil, err
	}
	if !single {
		l.prepare(true)
	}
	return c, nil
}

// fits reports whether the program can still be started in a channel that was
// opened ahead, or was. If not, the channel is of no more use.
func (c *channel) fits(line string) bool {
	if had := c.started(); had == "" || had == line {
		return true
	}
	_ = c.Close() // an error means that it is closed
	return false
}

// closed reports whether the server has closed a channel that was opened ahead,
// or the program that was started in it has ended.
func (c *channel) closed() bool {
	for {
		select {
		case r, ok := <-c.requests:
			if !ok {
				return true
			}
			if _, ended := parseExit(r); ended {
				_ = c.Close() // an error means that it is closed
				return true
			}
			_ = r.Reply(false, nil)
		default:
			return false
		}
	}
}

// drop says that a channel is closed.
func (l *link) drop() {
	l.mu.Lock()
	l.open--
	l.closed = time.Now()
	single := l.single
	l.mu.Unlock()
	if !single {
		l.prepare(false)
	}
	l.pace.rest(l)
	if l.freed != nil {
		l.freed()
	}
}
