package ssh

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

// From the second command on there is no waiting for a channel: the request to
// execute goes out before anything has come back. (OpenSSH takes the script only
// after that, so a command costs two round trips, as it does without Loom.)
func TestChannelAhead(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	var held atomic.Bool
	release := make(chan struct{})
	var sent atomic.Int64
	d := dialer(t, s.KnownHosts)
	d.Net = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &gated{Conn: c, held: &held, release: release, sent: &sent}, err
	}
	c := dial(t, d, node(s, me()))
	if _, _, err := run(t, c, loom.Command{Text: "true"}); err != nil {
		t.Fatal(err)
	}
	l := c.(*conn).links[0]
	for { // until the next channel is open
		l.mu.Lock()
		ready := l.spare != nil
		l.mu.Unlock()
		if ready {
			break
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is nothing to wait on
	}
	held.Store(true)
	before := sent.Load()
	done := make(chan error, 1)
	go func() { done <- c.Exec(t.Context(), loom.Command{Text: "true"}) }()
	for sent.Load() < before+int64(len("exec/bin/sh")) { // nothing has come
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is nothing to wait on
	}
	held.Store(false)
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A gated is a connection that passes nothing to us while it is held.
type gated struct {
	net.Conn
	held    *atomic.Bool
	release chan struct{}
	sent    *atomic.Int64
}

func (c *gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.held.Load() {
		<-c.release
	}
	return n, err
}

func (c *gated) Write(p []byte) (int, error) {
	c.sent.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// The pacer lets only so many in, in order, and forgets those that gave up.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		var inside, most atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				leave, err := p.enter(t.Context(), "h")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Second) //nolint:forbidigo // in the bubble's time
				inside.Add(-1)
				leave()
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		wg.Go(func() {
			synctest.Wait()
			for range 30 {
				if _, err := p.enter(ctx, "h"); err == nil {
					t.Error("got in out of turn")
				}
			}
		})
		wg.Wait()
		if most.Load() != mostPerHost || len(p.hosts) != 0 {
			t.Errorf("%d at once, %d hosts left", most.Load(), len(p.hosts))
		}

		// Slow servers do not keep others out for long.
		begun := time.Now()
		for range 3 * mostAtOnce {
			if _, err := p.handshake(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took != 2*slotLimit {
			t.Errorf("took %v", took)
		}
		time.Sleep(slotLimit) //nolint:forbidigo // in the bubble's time
	})
}
