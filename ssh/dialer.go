package ssh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// A Dialer opens connections to nodes over SSH. The zero value does what ssh(1)
// would, without asking anybody anything. Its fields must not change once it is
// in use; Configure may be called at any time. It is safe for concurrent use.
type Dialer struct {
	loom.SSHConfig // how nodes are reached

	// Net makes network connections; nil uses a net.Dialer. Connections to and
	// through jump hosts are made by it as well, for the first of them.
	Net func(ctx context.Context, network, addr string) (net.Conn, error)

	Log *slog.Logger // nil: slog.Default()

	mu     sync.Mutex
	conf   *loom.SSHConfig // of the last Configure
	warned map[string]bool
	failed map[string]*refusal // authentication that failed, by target
	hops   map[string]*hop     // open connections to jump hosts
	pace   pacer

	configs  configs
	hostKeys hostKeyStore
	keys     keyStore
}

// Configure changes how nodes are reached from now on. Open connections stay as
// they are. Nodes that are not tried since authentication failed are tried
// again.
func (d *Dialer) Configure(c loom.SSHConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conf = &c
	d.failed = nil
}

func (d *Dialer) config() loom.SSHConfig {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conf != nil {
		return *d.conf
	}
	return d.SSHConfig
}

func (d *Dialer) log() *slog.Logger {
	if d.Log != nil {
		return d.Log
	}
	return slog.Default()
}

// warnOnce logs a sentence about the configuration the first time.
func (d *Dialer) warnOnce(s string) {
	d.mu.Lock()
	again := d.warned[s]
	if d.warned == nil {
		d.warned = map[string]bool{}
	}
	d.warned[s] = true
	d.mu.Unlock()
	if !again {
		d.log().Warn("ssh_config", "problem", s)
	}
}

// Dial connects to n and authenticates. What it returns reconnects by itself.
// An error is an *Error.
func (d *Dialer) Dial(ctx context.Context, n *loom.Node) (loom.Conn, error) {
	c := &conn{d: d, node: n, second: make(chan struct{}, 1)}
	l, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.links = []*link{l}
	return c, nil
}

// A refusal keeps a node that has refused us from being tried too often: it may
// lock the user out, or this machine.
type refusal struct {
	times int
	at    time.Time
	err   error
}

// pause is how long a target is left alone after so many failures.
func (r *refusal) pause() time.Duration {
	switch r.times {
	case 1:
		return 30 * time.Second
	case 2:
		return 2 * time.Minute
	}
	return 10 * time.Minute
}

// refused returns the error of an earlier attempt that makes another unwise.
func (d *Dialer) refused(t *target) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failed) == 0 {
		return nil
	}
	r := d.failed[t.key()]
	if r == nil {
		return nil
	}
	if left := time.Until(r.at.Add(r.pause())); left > 0 {
		e := t.fail(ClassAuth, r.err)
		if was := (*Error)(nil); errors.As(r.err, &was) {
			e.Err, e.Tried = was.Err, was.Tried
		}
		e.Hint = fmt.Sprintf("not tried again for another %v, so that the node does not lock us out", left.Round(time.Second))
		return e
	}
	return nil
}

// note remembers how authentication went.
func (d *Dialer) note(t *target, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && len(d.failed) == 0 {
		return
	}
	key := t.key()
	if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassAuth {
		if err == nil {
			delete(d.failed, key)
		}
		return
	}
	r := d.failed[key]
	if r == nil {
		r = &refusal{}
		if d.failed == nil {
			d.failed = map[string]*refusal{}
		}
		d.failed[key] = r
	}
	r.times++
	r.at, r.err = time.Now(), err
}

var errConnectTimeout = errors.New("no connection within the connect timeout")

// connect opens one SSH connection to t, through its jump hosts. It tries again
// while the server turns connections away before it has said who it is, as a
// busy one does.
func (d *Dialer) connect(ctx context.Context, t *target) (*link, error) {
	if err := d.refused(t); err != nil {
		return nil, err
	}
	var via *hop
	if len(t.jump) > 0 {
		var err error
		if via, err = d.hop(ctx, t); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.connect, fmt.Errorf("%w (%v)", errConnectTimeout, t.connect))
	defer cancel()

	wait, again := 100*time.Millisecond, false
	var away error // how the server turned us away
	for {
		l, err := d.attempt(ctx, t, via)
		d.note(t, err)
		if err == nil {
			l.via = via
			return l, nil
		}
		if via != nil && !via.link.alive() && !again { // it had died before we came, and nobody knew
			d.leave(via)
			if via, err = d.hop(ctx, t); err != nil {
				return nil, err
			}
			again = true
			continue
		}
		if e := (*Error)(nil); away != nil && errors.Is(context.Cause(ctx), errConnectTimeout) && errors.As(err, &e) && e.Class == ClassTimeout {
			err = away // which says more than that the last try had no time
		}
		if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassReset || !sleep(ctx, jitter(wait)) {
			d.leave(via)
			return nil, err
		}
		away = err
		wait = min(2*wait, 2*time.Second)
	}
}

// sleep waits, and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt makes one connection and one handshake.
func (d *Dialer) attempt(ctx context.Context, t *target, via *hop) (*link, error) {
	raw, leave, err := d.reach(ctx, t, via)
	if err != nil {
		return nil, err
	}
	defer leave()
	return d.handshake(ctx, t, raw)
}

// reach opens the connection that SSH then speaks over, when it is its turn. Leave
// says that the handshake is over.
func (d *Dialer) reach(ctx context.Context, t *target, via *hop) (raw net.Conn, leave func(), err error) {
	leave, err = d.pace.enter(ctx, t.host+" "+strconv.Itoa(t.port))
	if err != nil {
		return nil, nil, t.classify(ctx, err, "waiting for other connections to the same host")
	}
	if raw, err = d.network(ctx, t, via); err != nil {
		leave()
		return nil, nil, t.classify(ctx, err, "connecting")
	}
	return raw, leave, nil
}

// network opens a connection to t.
func (d *Dialer) network(ctx context.Context, t *target, via *hop) (net.Conn, error) {
	addr := net.JoinHostPort(t.host, strconv.Itoa(t.port))
	switch {
	case via != nil:
		return via.link.tunnel(ctx, t)
	case t.proxy != "":
		e := t.fail(ClassConfig, fmt.Errorf("ssh_config has a ProxyCommand for it (%s), which Loom does not run", abbreviate(t.proxy)))
		e.Hint = "use ProxyJump, or the node's jump, or set ProxyCommand none for it"
		return nil, e
	case d.Net != nil:
		return d.Net(ctx, "tcp", addr)
	}
	// The link has a keepalive of its own, which notices more.
	return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", addr)
}

func abbreviate(s string) string {
	if line, _, more := strings.Cut(s, "\n"); more || len(line) > 60 {
		return line[:min(60, len(line))] + "..."
	}
	return s
}
