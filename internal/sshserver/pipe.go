package sshserver

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Pipe returns the two ends of a connection in memory. Writing never waits: SSH
// bounds by itself how much is on the way, and both its sides begin by writing,
// so that those of net.Pipe would wait for each other forever. Waiting readers
// are durably blocked in the sense of testing/synctest.
func Pipe() (client, server *PipeConn) {
	up, down := newHalf(), newHalf()
	return &PipeConn{in: down, out: up}, &PipeConn{in: up, out: down}
}

// A PipeConn is one end of a Pipe.
type PipeConn struct{ in, out *half }

// Read implements net.Conn.
func (c *PipeConn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn. It never waits.
func (c *PipeConn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close ends the connection for both sides. What is on the way to the other one
// still arrives.
func (c *PipeConn) Close() error {
	c.in.close(net.ErrClosed)
	c.out.close(io.EOF)
	return nil
}

// CloseWrite lets the other side read io.EOF.
func (c *PipeConn) CloseWrite() error {
	c.out.close(io.EOF)
	return nil
}

// Stall lets nothing more arrive on either side, as if the cable had been
// pulled: nobody gets an error.
func (c *PipeConn) Stall() {
	c.in.stall()
	c.out.stall()
}

// LocalAddr implements net.Conn.
func (c *PipeConn) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr implements net.Conn.
func (c *PipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

// SetDeadline implements net.Conn.
func (c *PipeConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *PipeConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn. Nothing waits there.
func (c *PipeConn) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "memory" }
func (pipeAddr) String() string  { return "memory" }

// A half is one direction.
type half struct {
	mu      sync.Mutex
	changed sync.Cond
	data    []byte
	end     error // what reading gives once data is empty; nil: not closed
	stalled bool
	late    bool // the reader's deadline has passed
	timer   *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.end == net.ErrClosed: //nolint:errorlint // it is exactly this one
			return 0, h.end
		case h.late:
			return 0, os.ErrDeadlineExceeded
		case h.stalled:
		case len(h.data) > 0:
			n := copy(p, h.data)
			if h.data = h.data[n:]; len(h.data) == 0 {
				h.data = nil
			}
			return n, nil
		case h.end != nil:
			return 0, h.end
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.end != nil:
		return 0, io.ErrClosedPipe
	case !h.stalled: // else nobody will ever read it
		h.data = append(h.data, p...)
		h.changed.Broadcast()
	}
	return len(p), nil
}

// close ends the direction. A reader's own closing wins over the writer's.
func (h *half) close(end error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == nil || end == net.ErrClosed { //nolint:errorlint // it is exactly this one
		h.end = end
	}
	if h.timer != nil {
		h.timer.Stop()
	}
	h.changed.Broadcast()
}

func (h *half) stall() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalled = true
}

func (h *half) setDeadline(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	h.late = false
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		h.late = true
	default:
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.timer == timer { // else a later deadline has taken its place
				h.late = true
				h.changed.Broadcast()
			}
		})
		h.timer = timer
	}
	h.changed.Broadcast()
}
