package api

import (
	lru "container/list"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// What a door takes at once, and how often somebody may fail at it.
const (
	mostConns    = 4096 // of a door
	mostFromOne  = 256  // of them from one address, over TCP
	failBurst    = 10   // tokens from one address that are not good
	failEvery    = 6 * time.Second
	mostFailures = 4096 // addresses that are kept in mind
	tellEvery    = time.Minute
)

// A limiter is a listener that lets in no more than so many at once, of all and of
// one address: the rest is hung up on, so that it costs nothing.
type limiter struct {
	net.Listener
	most, fromOne int
	log           *slog.Logger

	mu      sync.Mutex
	conns   int
	from    map[string]int
	refused int
	told    time.Time
}

// limit returns l with limits. fromOne is for addresses; unix sockets have none.
func limit(l net.Listener, most, fromOne int, log *slog.Logger) *limiter {
	return &limiter{Listener: l, most: most, fromOne: fromOne, log: log, from: map[string]int{}}
}

// Accept is part of net.Listener.
func (l *limiter) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := ""
		if at, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			from = network(at.Addr())
		}
		if l.enter(from) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = c.Close() // it has not begun
	}
}

func (l *limiter) enter(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns < l.most && (from == "" || l.from[from] < l.fromOne) {
		l.conns++
		if from != "" {
			l.from[from]++
		}
		return true
	}
	l.refused++
	if now := time.Now(); now.Sub(l.told) >= tellEvery {
		l.told = now
		l.log.Warn("connections are refused: there are too many", "door", l.Addr().String(), "from", from,
			"open", l.conns, "open_from_there", l.from[from], "refused", l.refused)
	}
	return false
}

func (l *limiter) leave(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns--
	if l.from[from]--; l.from[from] <= 0 {
		delete(l.from, from)
	}
}

// A counted connection is one of a limiter's.
type counted struct {
	net.Conn
	leave func()
}

// CloseWrite lets http.Server say the last word before it hangs up.
func (c *counted) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close is part of net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// failures counts what failed, by address. Of addresses that are too many to be
// kept in mind, those are forgotten that have failed least lately. Its zero value
// is ready to use.
type failures struct {
	mu    sync.Mutex
	of    map[string]*lru.Element // of *failure
	order lru.List                // the last to fail first
}

// A failure is a bucket of chances, which fills again.
type failure struct {
	from   string
	chance float64 // how many are left
	at     time.Time
}

// note counts a failure, and returns for how long the address shall not try again,
// if it has failed too often.
func (f *failures) note(from string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.of[from]
	if !ok {
		if f.of == nil {
			f.of = map[string]*lru.Element{}
		}
		if f.order.Len() >= mostFailures {
			oldest := f.order.Back()
			delete(f.of, f.order.Remove(oldest).(*failure).from) // nothing else is in it
		}
		e = f.order.PushFront(&failure{from: from, chance: failBurst, at: now})
		f.of[from] = e
	}
	f.order.MoveToFront(e)
	one := e.Value.(*failure) // as above
	one.chance = min(failBurst, one.chance+float64(max(now.Sub(one.at), 0))/float64(failEvery))
	one.at = now
	if one.chance < 1 {
		return time.Duration((1 - one.chance) * float64(failEvery))
	}
	one.chance--
	return 0
}
