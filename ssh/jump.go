package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// A hop is a connection to a jump host, shared by all that go through it.
type hop struct {
	key   string
	ready chan struct{} // closed when link and err are set
	link  *link
	err   error
	tired bool // err is only that its maker's context ended
	users int
}

// hop returns the last of t's jump hosts, connected. leave gives it back.
func (d *Dialer) hop(ctx context.Context, t *target) (*hop, error) {
	host := *t.jump[len(t.jump)-1]
	host.jump = t.jump[:len(t.jump)-1]
	for {
		h, mine := d.enter(host.key())
		if mine {
			l, err := d.connect(ctx, &host)
			if err != nil {
				h.err = t.through(&host, err)
				h.tired = ctx.Err() != nil
			}
			h.link = l
			close(h.ready)
		}
		select {
		case <-h.ready:
		case <-ctx.Done():
			d.leave(h)
			return nil, t.through(&host, host.classify(ctx, context.Cause(ctx), "waiting for it"))
		}
		switch {
		case h.err == nil && h.link.alive():
			return h, nil
		case h.err != nil && (mine || !h.tired):
			d.leave(h)
			return nil, h.err
		}
		d.leave(h) // it has died, or its maker gave up: the next one tries
	}
}

// through says that a jump host is the trouble.
func (t *target) through(host *target, err error) error {
	e := t.fail(ClassJump, fmt.Errorf("through jump host %w", err))
	if was := (*Error)(nil); errors.As(err, &was) {
		e.Class = was.Class
		if was.Class == ClassAuth {
			e.Class = ClassJump // it is not this node that refuses
		}
	}
	return e
}

// enter returns the hop of this key, and whether the caller has to open it.
func (d *Dialer) enter(key string) (h *hop, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h = d.hops[key]
	if h != nil && h.usable() {
		h.users++
		return h, false
	}
	if d.hops == nil {
		d.hops = map[string]*hop{}
	}
	h = &hop{key: key, ready: make(chan struct{}), users: 1}
	d.hops[key] = h
	return h, true
}

// usable reports whether a hop is open or being opened.
func (h *hop) usable() bool {
	select {
	case <-h.ready:
		return h.err == nil && h.link.alive()
	default:
		return true
	}
}

// leave gives a hop back. The last one closes it.
func (d *Dialer) leave(h *hop) {
	if h == nil {
		return
	}
	d.mu.Lock()
	h.users--
	last := h.users == 0
	if last && d.hops[h.key] == h {
		delete(d.hops, h.key)
	}
	d.mu.Unlock()
	if last && h.link != nil {
		_ = h.link.close()
		d.leave(h.link.via)
	}
}

// tunnel opens a connection to t from the jump host l.
func (l *link) tunnel(ctx context.Context, t *target) (net.Conn, error) {
	c, err := l.opened(ctx, l.ask("direct-tcpip", ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{t.host, uint32(t.port), "127.0.0.1", 0})))
	switch {
	case err == nil && l.spawn(func() { ssh.DiscardRequests(c.requests) }):
		return &tunnel{c, l}, nil
	case !l.alive():
		return nil, t.fail(ClassJump, fmt.Errorf("the jump host %s is gone: %w", l.t, l.why))
	case ctx.Err() != nil:
		return nil, err
	}
	return nil, t.fail(ClassRefused, fmt.Errorf("the jump host %s could not connect to it: %w", l.t, err))
}

// dying reports whether a jump host is gone, when what went through it is: that is
// noticed a moment earlier.
func (l *link) dying() bool {
	moment := time.NewTimer(100 * time.Millisecond)
	defer moment.Stop()
	select {
	case <-l.dead:
		return true
	case <-moment.C:
		return false
	}
}

// A tunnel is a network connection from a jump host on.
type tunnel struct {
	ssh.Channel
	link *link
}

func (t *tunnel) LocalAddr() net.Addr  { return t.link.wire.LocalAddr() }
func (t *tunnel) RemoteAddr() net.Addr { return t.link.wire.RemoteAddr() }

// The deadlines are not used: what we want to end, we close.
func (t *tunnel) SetDeadline(time.Time) error      { return nil }
func (t *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (t *tunnel) SetWriteDeadline(time.Time) error { return nil }
