package ssh

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// How many connections to one host may be in the making, and how many handshakes
// may be computed at once, over all hosts. A server that says nothing takes no
// place among the latter, and one that is slow takes it only for a while.
const (
	mostAtOnce  = 32
	mostPerHost = 4
	slotLimit   = time.Second
)

// A pacer lets so many handshakes begin. The zero pacer is ready to use.
type pacer struct {
	mu    sync.Mutex
	all   gate
	hosts map[string]*gate

	stirred atomic.Int64 // when something was begun, in nanoseconds
	resting map[*link]struct{}
	dusk    *time.Timer // ends the rest, if links rest
}

// A gate lets so many through at once.
type gate struct {
	inside, most int
	queue        []chan struct{}
	users        int // of a host's gate
}

// enter waits until another connection to this host may be made. The returned
// function says that its handshake is over.
func (p *pacer) enter(ctx context.Context, host string) (leave func(), err error) {
	p.mu.Lock()
	g := p.hosts[host]
	if g == nil {
		if p.hosts == nil {
			p.hosts = map[string]*gate{}
		}
		g = &gate{most: mostPerHost}
		p.hosts[host] = g
	}
	g.users++
	p.mu.Unlock()

	forget := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if g.users--; g.users == 0 {
			delete(p.hosts, host)
		}
	}
	if err := p.pass(ctx, g); err != nil {
		forget()
		return nil, err
	}
	return func() {
		p.exit(g)
		forget()
	}, nil
}

// stir notes that something was begun on some node.
func (p *pacer) stir() { p.stirred.Store(time.Now().UnixNano()) }

// heatDelay is how long nothing must have been begun, on any node, before shells
// are started for the next commands. Work in quick succession, and programs that
// do one thing on many nodes and end, are not to pay for shells that nobody uses.
const heatDelay = 300 * time.Millisecond

// rest has a link warmed when all is calm. One timer serves all links: with one
// each, a fleet at work would be woken by most of them for nothing.
func (p *pacer) rest(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.alive() { // whoever ends it forgets it after that
		return
	}
	if p.resting == nil {
		p.resting = map[*link]struct{}{}
	}
	p.resting[l] = struct{}{}
	switch {
	case len(p.resting) > 1: // it is set
	case p.dusk == nil:
		p.dusk = time.AfterFunc(heatDelay, p.settle)
	default:
		p.dusk.Reset(heatDelay)
	}
}

// forget has a link that ends warmed no more.
func (p *pacer) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.resting, l); len(p.resting) == 0 && p.dusk != nil {
		p.dusk.Stop()
	}
}

// settle warms the links that rest, or waits on if it is too early.
func (p *pacer) settle() {
	p.mu.Lock()
	if calm := p.calm(); calm < heatDelay {
		if len(p.resting) > 0 {
			p.dusk.Reset(heatDelay - calm)
		}
		p.mu.Unlock()
		return
	}
	links := p.resting
	p.resting = nil
	p.mu.Unlock()
	for l := range links {
		l.heat()
	}
}

// calm returns for how long nothing was begun on any node. It is 0 while
// connections are being made. p.mu is held.
func (p *pacer) calm() time.Duration {
	if len(p.hosts) > 0 {
		return 0
	}
	return time.Since(time.Unix(0, p.stirred.Load()))
}

// handshake waits until another handshake may be computed, with a server that
// has said something.
func (p *pacer) handshake(ctx context.Context) (leave func(), err error) {
	p.mu.Lock()
	p.all.most = mostAtOnce
	p.mu.Unlock()
	if err := p.pass(ctx, &p.all); err != nil {
		return func() {}, err
	}
	free := sync.OnceFunc(func() { p.exit(&p.all) })
	timer := time.AfterFunc(slotLimit, free)
	return func() {
		timer.Stop()
		free()
	}, nil
}

func (p *pacer) pass(ctx context.Context, g *gate) error {
	p.mu.Lock()
	if g.inside < g.most && len(g.queue) == 0 {
		g.inside++
		p.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.queue = append(g.queue, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	for i, c := range g.queue {
		if c == turn {
			g.queue = append(g.queue[:i], g.queue[i+1:]...)
			p.mu.Unlock()
			return context.Cause(ctx)
		}
	}
	p.mu.Unlock()
	p.exit(g) // it was our turn already
	return context.Cause(ctx)
}

func (p *pacer) exit(g *gate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(g.queue) > 0 {
		close(g.queue[0]) // who takes over what we held
		g.queue = g.queue[1:]
		return
	}
	g.inside--
}

// jitter spreads a wait, so that those who were turned away together do not
// come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
