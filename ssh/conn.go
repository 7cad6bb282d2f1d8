package ssh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/shell"
	"golang.org/x/crypto/ssh"
)

// mostLinks is how many connections to one node may be open, where the server
// allows each only so many sessions.
const mostLinks = 8

// A conn is what Dial returns: one connection to a node, usually.
type conn struct {
	d      *Dialer
	node   *loom.Node
	second chan struct{} // held by who has one session and needs another
	peer   shell.Peer

	mu      sync.Mutex
	links   []*link
	most    int           // links that may be open; 0: mostLinks
	dialing chan struct{} // closed when the dial in progress is over
	queue   []chan struct{}
	orphans []orphan // what broken connections may have left on the node
	closed  bool
	wg      sync.WaitGroup
}

// An orphan is a command whose connection broke.
type orphan struct {
	mark           string
	user, password string
}

func (c *conn) dial(ctx context.Context) (*link, error) {
	t, err := c.d.resolve(c.node)
	if err != nil {
		return nil, err
	}
	return c.d.connect(ctx, t)
}

// Exec runs a command.
func (c *conn) Exec(ctx context.Context, cmd loom.Command) error {
	login, err := c.login()
	if err != nil {
		return err
	}
	sc := shell.Command{Text: cmd.Text, Shell: cmd.Shell, Private: cmd.Private, Dir: cmd.Dir, Env: cmd.Env,
		Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr, Merged: shell.Same(cmd.Stdout, cmd.Stderr), Peer: &c.peer}
	if cmd.User != "" && cmd.User != login {
		sc.User, sc.Password = cmd.User, string(cmd.Password)
	}
	x := &execution{conn: c, cmd: &sc, last: cmd.Last}
	defer x.done()
	if sc.Stdin != nil {
		// It needs two sessions. If many had one and waited for the other, none
		// might get it.
		select {
		case c.second <- struct{}{}:
			x.second = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	exit, err := shell.Run(ctx, x.start, sc, x.marked)
	if x.stale(err) {
		exit, err = shell.Run(ctx, x.start, sc, x.marked)
	}
	switch {
	case err != nil:
		return x.explain(ctx, err)
	case exit != shell.Exit{}:
		return &loom.ExitError{Command: cmd.Text, Code: exit.Code, Signal: exit.Signal}
	}
	return nil
}

// login returns the user that we log in as.
func (c *conn) login() (string, error) {
	c.mu.Lock()
	for _, l := range c.links {
		defer c.mu.Unlock()
		return l.t.user, nil
	}
	c.mu.Unlock()
	t, err := c.d.resolve(c.node)
	if err != nil {
		return "", err
	}
	return t.user, nil
}

// An execution is one command at work.
type execution struct {
	conn    *conn
	cmd     *shell.Command
	last    bool // no other is known to follow
	second  bool // it holds conn.second
	started int
	link    *link // on which it began
	mark    string
	ahead   bool // its shell was started before there was a command
}

// stale reports whether the shell that was started ahead had ended before it got
// the command, so that another one may have it.
func (x *execution) stale(err error) bool {
	if !x.ahead || err == nil {
		return false
	}
	unstarted, ok := errors.AsType[*shell.NotStartedError](err)
	if !ok || !unstarted.Ended || !x.link.alive() {
		return false
	}
	x.started = 0
	return true
}

// start is a shell.Start. The first process is the command's.
func (x *execution) start(ctx context.Context, line string) (shell.Process, error) {
	p, err := x.conn.process(ctx, line, x.last)
	if err != nil {
		return nil, err
	}
	if x.started++; x.started == 1 {
		x.link, x.ahead = p.link, p.ahead
	} else if x.second {
		x.second = false
		<-x.conn.second
	}
	return p, nil
}

// marked keeps the mark of a command for which nobody vouches.
func (x *execution) marked(mark string) { x.mark = mark }

func (x *execution) done() {
	if x.second {
		<-x.conn.second
	}
	if x.mark != "" && x.link != nil {
		x.conn.mu.Lock()
		x.conn.orphans = append(x.conn.orphans, orphan{x.mark, x.cmd.User, x.cmd.Password})
		x.conn.mu.Unlock()
	}
}

// explain turns what the shell says into an error about the node.
func (x *execution) explain(ctx context.Context, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) || x.link == nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
		return err
	}
	t := x.link.t
	refused, unstarted := (*shell.SudoError)(nil), (*shell.NotStartedError)(nil)
	switch {
	case errors.As(err, &refused):
		return t.sudoError(refused)
	case errors.Is(err, shell.ErrLost), errors.As(err, &unstarted) && !unstarted.Ended && !x.link.alive():
		return x.lost(err)
	case errors.As(err, &unstarted):
		e := t.fail(ClassShell, err)
		e.Hint = fmt.Sprintf("the login shell of %s must be able to start /bin/sh: try ssh %[1]s@%s exec /bin/sh", t.user, t.host)
		return e
	}
	return err
}

func (x *execution) lost(err error) error {
	if !x.link.alive() {
		err = x.link.why
		if x.link.via != nil && x.link.via.link.dying() {
			err = fmt.Errorf("the jump host %s is gone: %w", x.link.via.link.t, x.link.via.link.why)
		}
		err = fmt.Errorf("the connection was lost while the command ran: %w", err)
	} else if !errors.Is(err, shell.ErrLost) {
		err = fmt.Errorf("%w: %w", shell.ErrLost, err)
	}
	e := x.link.t.fail(ClassLost, err)
	e.Hint = "the node ends the command when it notices; how far it came is not known"
	return e
}

func (t *target) sudoError(err *shell.SudoError) error {
	e := t.fail(ClassSudo, err)
	switch {
	case err.Refused:
		e.Hint = "it was tried once, so as not to lock the user out; mend the node's sudo: {password: ...}"
	case err.Needs:
		e.Hint = "give the node sudo: {password: ...}, or " + t.user + " a NOPASSWD line in sudoers"
	case strings.Contains(err.Output, "not found"):
		e.Hint = "install sudo on the node, or log in as " + err.User
	}
	return e
}

// process starts a program in a new session.
func (c *conn) process(ctx context.Context, line string, last bool) (*process, error) {
	l, ch, err := c.session(ctx, line, last)
	if err != nil {
		return nil, err
	}
	return l.process(ch, line)
}

// session returns a channel of a link that lives, and waits until there is
// room for one.
func (c *conn) session(ctx context.Context, line string, last bool) (*link, *channel, error) {
	mine := false // it is our turn
	for tries := 0; ; {
		l, wait, err := c.link(ctx, mine)
		if err != nil {
			return nil, nil, err
		}
		if l == nil {
			select {
			case <-wait:
				mine = true
				continue
			case <-ctx.Done():
				c.forget(wait)
				return nil, nil, &Error{Class: ClassSession, Node: c.node.Name,
					Err: fmt.Errorf("gave up waiting for a free session: %w", context.Cause(ctx))}
			}
		}
		if err := l.fresh(); err != nil {
			continue // it is dead now, and another takes its place
		}
		ch, err := l.take(line, last)
		if err == nil {
			c.pass()
			return l, ch, nil
		}
		switch _, refused := errors.AsType[*ssh.OpenChannelError](err); {
		case refused && l.busy():
			continue // it has as many as it may
		case refused:
			e := l.t.fail(ClassSession, fmt.Errorf("the server refused a session: %w", err))
			e.Hint = "does its sshd_config have MaxSessions 0, or is the account for forwarding only?"
			return nil, nil, e
		}
		l.fail(err)
		if tries++; tries > 2 {
			return nil, nil, l.t.fail(ClassReset, fmt.Errorf("the connection broke before the command: %w", err))
		}
	}
}

// busy reports whether channels are in use, or one is there or on its way for the
// next command, so that waiting for one makes sense.
func (l *link) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open > 0 || l.spare != nil || l.opening != nil
}

// fresh makes sure that the link is not one of those that have died in silence:
// it has been heard of lately, or answers now.
func (l *link) fresh() error {
	if l.wire.silence() < l.t.keepalive+time.Second {
		return nil
	}
	return l.ping(2 * l.t.keepalive)
}

// link returns a link with room, dials one, or returns a channel that is
// closed when it is worthwhile to ask again.
func (c *conn) link(ctx context.Context, mine bool) (*link, chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, &Error{Class: ClassClosed, Node: c.node.Name, Err: errClosed}
	}
	c.links = slices.DeleteFunc(c.links, func(l *link) bool {
		if l.alive() {
			return false
		}
		c.wg.Go(func() { c.bury(l) })
		return true
	})
	if mine || len(c.queue) == 0 {
		for _, l := range c.links {
			if l.room() {
				return l, nil, nil
			}
		}
		most := c.most
		if most == 0 {
			most = mostLinks
		}
		if c.dialing == nil && (len(c.links) < most || len(c.links) == 0) {
			return c.dialMore(ctx)
		}
	}
	wait := make(chan struct{})
	if mine { // it was our turn, so it is the next one
		c.queue = append([]chan struct{}{wait}, c.queue...)
	} else {
		c.queue = append(c.queue, wait)
	}
	return nil, wait, nil
}

// dialMore adds a link. c.mu is held, except while dialing.
func (c *conn) dialMore(ctx context.Context) (*link, chan struct{}, error) {
	c.dialing = make(chan struct{})
	c.wg.Add(1)
	c.mu.Unlock()
	l, err := c.dial(ctx)
	c.mu.Lock()
	defer c.wg.Done()
	close(c.dialing)
	c.dialing = nil
	c.wakeLocked()
	switch {
	case err == nil && c.closed:
		c.wg.Go(func() { c.bury(l) })
		return nil, nil, &Error{Class: ClassClosed, Node: c.node.Name, Err: errClosed}
	case err == nil:
		l.freed = c.wake
		c.links = append(c.links, l)
		c.reapOrphans()
		return l, nil, nil
	case len(c.links) > 0 && ctx.Err() == nil:
		c.most = len(c.links) // it lets us have no more of them
		wait := make(chan struct{})
		c.queue = append(c.queue, wait)
		return nil, wait, nil
	}
	return nil, nil, err
}

// reapOrphans ends what earlier connections have left on the node, now that
// there is a way to it again. c.mu is held.
func (c *conn) reapOrphans() {
	for len(c.orphans) > 0 {
		o := c.orphans[0]
		c.orphans = c.orphans[1:]
		c.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			start := func(ctx context.Context, line string) (shell.Process, error) { return c.process(ctx, line, false) }
			if err := shell.Reap(ctx, start, o.user, o.password, []string{o.mark}); err != nil {
				c.d.log().Warn("what a lost command left on the node may still run", "node", c.node.Name, "err", err)
			}
		})
	}
}

// wake lets the next one in the queue look for a session.
func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

// pass lets the next one have its turn too, if there is still room.
func (c *conn) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 && slices.ContainsFunc(c.links, func(l *link) bool { return l.alive() && l.room() }) {
		c.wakeLocked()
	}
}

func (c *conn) wakeLocked() {
	if len(c.queue) > 0 {
		close(c.queue[0])
		c.queue = c.queue[1:]
	}
}

// forget takes a place in the queue back.
func (c *conn) forget(wait chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.queue, wait); i >= 0 {
		c.queue = slices.Delete(c.queue, i, i+1)
		return
	}
	c.wakeLocked() // it was our turn: let the next one have it
}

// bury closes a link and leaves its jump host.
func (c *conn) bury(l *link) {
	_ = l.close()
	c.d.leave(l.via)
}

// Close ends the connection and everything that runs over it.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	links := c.links
	c.links = nil
	for len(c.queue) > 0 {
		c.wakeLocked()
	}
	c.mu.Unlock()
	for _, l := range links {
		c.bury(l)
	}
	c.wg.Wait()
	return nil
}
