package ssh

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"golang.org/x/crypto/ssh"
)

// A command on a connection that has rested for a moment costs one round trip:
// all of it goes out before anything has come back, since a shell was started
// ahead of need, and OpenSSH has said that it takes what we write.
func TestOneRoundTrip(t *testing.T) {
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
	rested(t, c)
	held.Store(true)
	before := sent.Load()
	done := make(chan error, 1)
	text := "true #" + strings.Repeat("x", 10_000)
	go func() { done <- c.Exec(t.Context(), loom.Command{Text: text}) }()
	for sent.Load() < before+int64(len(text)) { // nothing has come
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is nothing to wait on
	}
	held.Store(false)
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// rested waits until a connection is prepared for the next command: a shell
// waits for it, and the sentry stands.
func rested(t *testing.T, c loom.Conn) {
	t.Helper()
	l := c.(*conn).links[0]
	for {
		l.mu.Lock()
		l.settle()
		spare := l.spare
		l.mu.Unlock()
		if spare != nil && spare.started() != "" && l.sentry.Up() {
			break
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is nothing to wait on
	}
	// What the server says when it takes the request has come when it has
	// answered another.
	_, _ = l.spare.SendRequest("keepalive@openssh.com", true, nil)
}

// A connection that ends at the moment at which a channel is asked for holds
// nobody up: neither who asked, nor who closes it.
func TestChannelOfDyingConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, _ := net.Pipe()
		deaf := &deaf{asked: make(chan struct{}), end: make(chan struct{})}
		defer close(deaf.end)
		l := &link{t: &target{host: "a"}, wire: &wire{Conn: ours}, ssh: deaf, dead: make(chan struct{}), pulse: time.NewTimer(time.Hour), pace: new(pacer)}
		l.wg.Go(func() {
			_, err := l.tunnel(t.Context(), &target{host: "b"})
			if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassJump {
				t.Errorf("tunnel: %v, want that the jump host is gone", err)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		l.wg.Go(func() {
			if _, err := l.opened(ctx, l.ask("session", nil)); !errors.Is(err, context.Canceled) {
				t.Errorf("opened: %v, want that it was canceled", err)
			}
		})
		<-deaf.asked
		<-deaf.asked
		cancel()
		synctest.Wait()
		_ = l.close()
	})
}

// A deaf never answers, as the library when its connection has just ended.
type deaf struct {
	ssh.Conn
	asked, end chan struct{}
}

func (d *deaf) OpenChannel(string, []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	d.asked <- struct{}{}
	<-d.end
	return nil, nil, errClosed
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
