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
	type result struct {
		ch       ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	got := make(chan result, 1)
	l.wg.Go(func() {
		msg := ssh.Marshal(struct {
			Host       string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{t.host, uint32(t.port), "127.0.0.1", 0})
		ch, requests, err := l.ssh.OpenChannel("direct-tcpip", msg)
		got <- result{ch, requests, err}
	})
	select {
	case r := <-got:
		if r.err != nil {
			e := t.fail(ClassRefused, fmt.Errorf("the jump host %s could not connect to it: %w", l.t, r.err))
			if !l.alive() {
				e.Class, e.Err = ClassJump, fmt.Errorf("the jump host %s is gone: %w", l.t, l.why)
			}
			return nil, e
		}
		l.wg.Go(func() { ssh.DiscardRequests(r.requests) })
		return &tunnel{r.ch, l}, nil
	case <-ctx.Done():
		l.wg.Go(func() {
			if r := <-got; r.err == nil { // too late
				_ = r.ch.Close()
				ssh.DiscardRequests(r.requests)
			}
		})
		return nil, context.Cause(ctx)
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
