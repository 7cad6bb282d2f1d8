package loom

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// conns keeps open connections, one for each node and user, and closes those
// that nobody uses for a while.
type conns struct {
	dial func(context.Context, *Node) (Conn, error)
	idle time.Duration

	mu     sync.Mutex
	kept   map[string]*kept
	spools map[string]*spools
	closed bool
	timers sync.WaitGroup // closings in progress
}

// A kept is one connection, or one being opened.
type kept struct {
	key   string
	ready chan struct{} // closed when conn and err are set
	conn  Conn
	err   error

	users int
	stale bool // no longer in the map: the last user closes it
	timer *time.Timer
}

var errPoolClosed = errors.New("the pool is closed")

// get returns an open connection to n, which put takes back. One dial serves
// all that wait for the same node; if it ended only since its caller gave up,
// the next one tries.
func (c *conns) get(ctx context.Context, n *Node) (*kept, error) {
	key := connKey(n)
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, errPoolClosed)
		}
		k := c.kept[key]
		if k == nil {
			return c.open(ctx, n, key) // unlocks
		}
		k.users++
		if k.timer != nil {
			k.timer.Stop()
		}
		c.mu.Unlock()

		select {
		case <-k.ready:
		case <-ctx.Done():
			c.put(k, false)
			return nil, context.Cause(ctx)
		}
		switch {
		case k.err == nil:
			return k, nil
		case errors.Is(k.err, errGaveUp):
			continue
		}
		return nil, k.err
	}
}

// errGaveUp marks a dial that failed since its caller's context ended.
var errGaveUp = errors.New("gave up")

// open dials. c.mu is held, and released.
func (c *conns) open(ctx context.Context, n *Node, key string) (*kept, error) {
	k := &kept{key: key, ready: make(chan struct{}), users: 1}
	if c.kept == nil {
		c.kept = map[string]*kept{}
	}
	c.kept[key] = k
	c.mu.Unlock()

	conn, err := c.dial(ctx, n)
	if err == nil {
		k.conn = conn
		close(k.ready)
		return k, nil
	}
	k.err = err
	if ctx.Err() != nil {
		k.err = fmt.Errorf("%w: %w", errGaveUp, err)
	}
	c.mu.Lock()
	delete(c.kept, key)
	c.mu.Unlock()
	close(k.ready)
	return nil, err
}

// put gives a connection back. A broken one is not used again.
func (c *conns) put(k *kept, broken bool) {
	c.mu.Lock()
	k.users--
	if broken && !k.stale {
		k.stale = true
		delete(c.kept, k.key)
	}
	last := k.users == 0
	switch {
	case !last || k.stale || c.closed:
	case k.timer == nil:
		k.timer = time.AfterFunc(c.idle, func() { c.expire(k) })
	default:
		k.timer.Reset(c.idle)
	}
	ends := last && k.stale && k.conn != nil
	c.mu.Unlock()
	if ends {
		_ = k.conn.Close() // it is broken: there is nothing to tell
	}
}

// expire closes a connection that was idle for long enough.
func (c *conns) expire(k *kept) {
	c.mu.Lock()
	if k.users > 0 || k.stale || c.closed {
		c.mu.Unlock()
		return
	}
	k.stale = true
	delete(c.kept, k.key)
	c.timers.Add(1)
	c.mu.Unlock()
	defer c.timers.Done()
	c.tidy(k)
	_ = k.conn.Close() // nobody is left to tell
}

// count returns how many connections to other machines are open.
func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.kept {
		select {
		case <-k.ready:
			if _, here := k.conn.(*localConn); !here {
				n++
			}
		default: // it is being opened
		}
	}
	return n
}

// spoolsOf returns what is known of what a node keeps for us.
func (c *conns) spoolsOf(k *kept) *spools {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spools == nil {
		c.spools = map[string]*spools{}
	}
	if c.spools[k.key] == nil {
		c.spools[k.key] = new(spools)
	}
	return c.spools[k.key]
}

// tidyWithin is how long a node may take to delete what it keeps for us, before
// the connection is closed. It does so in a week by itself.
const tidyWithin = 3 * time.Second

// tidy deletes what a node keeps for us and is no longer wanted.
func (c *conns) tidy(k *kept) {
	ctx, cancel := context.WithTimeout(context.Background(), tidyWithin)
	defer cancel()
	_ = c.spoolsOf(k).flush(ctx, k.conn) // the node deletes it later
}

func (c *conns) close() error {
	c.mu.Lock()
	c.closed = true
	all := c.kept
	c.kept = nil
	c.mu.Unlock()

	var wg sync.WaitGroup
	for _, k := range all {
		if k.timer != nil {
			k.timer.Stop()
		}
		wg.Go(func() {
			<-k.ready
			if k.conn != nil {
				c.tidy(k)
				_ = k.conn.Close() // work is over: a connection that ends badly harms nobody
			}
		})
	}
	wg.Wait()
	c.timers.Wait()
	return nil
}

// connKey names all about a node that a connection depends on, so that a
// manifest that was read again shares connections with the one before.
func connKey(n *Node) string {
	key := make([]byte, 0, 128)
	text := func(s string) { // with its length, so that texts can't run into each other
		key = append(strconv.AppendInt(key, int64(len(s)), 10), ':')
		key = append(key, s...)
	}
	for ; n != nil; n = n.Jump {
		for _, s := range [...]string{n.Name, n.Address, n.User, string(n.Password), n.Identity, string(n.Passphrase), n.Transport} {
			text(s)
		}
		key = strconv.AppendInt(key, int64(n.Port), 10)
		key = strconv.AppendInt(append(key, '/'), int64(n.MaxSessions), 10)
		key = append(key, '\n')
	}
	return string(key)
}
