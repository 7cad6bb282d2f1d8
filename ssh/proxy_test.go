package ssh

import (
	"net"
	"sync"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

// A proxy stands between us and a server, and does to the connections what
// networks do.
type proxy struct {
	addr  *net.TCPAddr
	mu    sync.Mutex
	conns []net.Conn
	stall chan struct{} // closed: nothing passes any more, and nobody is told
}

func newProxy(tb testing.TB, to string) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{addr: l.Addr().(*net.TCPAddr), stall: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			stall := p.stalled()
			wg.Go(func() { pass(c, s, stall) })
			wg.Go(func() { pass(s, c, stall) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func pass(to, from net.Conn, stall <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-stall:
			if err == nil {
				continue // until it is cut
			}
			return
		default:
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_ = from.Close()
			_ = to.Close()
			return
		}
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	p.conns = nil
}

// silence lets nothing pass any more over the open connections. New ones are
// not concerned.
func (p *proxy) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.stall)
	p.stall = make(chan struct{})
}

func (p *proxy) stalled() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stall
}

// behind returns a node that is reached through the proxy.
func (p *proxy) behind(s *sshd.Server, user string) *loom.Node {
	n := node(s, user)
	n.Address, n.Port = p.addr.IP.String(), p.addr.Port
	return n
}
