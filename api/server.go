package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// The patience of a server, and what it takes at once.
const (
	headerTime = 10 * time.Second // for a request's header
	bodyTime   = 30 * time.Second // for its body
	writeTime  = 30 * time.Second // for each piece of the answer
	pieceSize  = 64 << 10
	idleTime   = 2 * time.Minute // between requests
	stopTime   = 5 * time.Second // for requests to end when the server stops
	lastTime   = time.Second     // and to be told that they were cut off

	streamsOfConn = 100 // requests at once over one connection of HTTP/2

	headerBytes = 128 << 10
	bodyBytes   = 1 << 20
	ledgerBytes = 64 << 20
)

// Prefix is where the API begins.
const Prefix = "/api/v1"

// A Server answers requests. Its fields must not change once it serves.
type Server struct {
	Store   loom.Store
	Control Control  // nil: the store is all there is
	Absent  bool     // Control knows the manifest, but no daemon runs
	Feed    *Feed    // what happens; nil: it is not told
	Metrics *Metrics // counts it; nil: nobody does
	Tokens  *Tokens  // nil: nobody comes in with one

	Notifications Notifications // nil: nobody is told anything

	Version string       // of the program
	Log     *slog.Logger // nil: slog.Default()

	// Redact takes secrets out of a text. Nil: there are none.
	Redact func(string) string

	health health
	fleet  fleet
	open   openStreams

	wrap func(http.Handler) http.Handler // for tests: around all that answers

	mu      sync.Mutex
	stop    <-chan struct{}
	handler http.Handler
}

// A Control is what a Server needs of the daemon around it. It is safe for
// concurrent use.
type Control interface {
	// Manifest returns the manifest in force, or nil.
	Manifest() *loom.Manifest

	// Status returns what only the daemon knows: Started, StateDir, Next,
	// Stopping, and of the Store its Kind and, if the daemon finds it down, the
	// rest. The server adds all else. It does not block.
	Status() Status

	// Trigger starts a run of a job. The error wraps loom.ErrNotFound if there is
	// no such job, or a target that is none of its nodes, loom.ErrBusy if its
	// overlap policy does not let it start, loom.ErrShutdown if the daemon stops.
	Trigger(ctx context.Context, job string, q loom.Request) (loom.Run, error)

	// Cancel ends a run that this daemon works on. The error wraps
	// loom.ErrNotFound if it works on no such run. The store may know already
	// that it shall end.
	Cancel(ctx context.Context, run, why string) error

	// Exec starts a run of a command on nodes. The error wraps loom.ErrNotFound if
	// the targets select none, loom.ErrShutdown if the daemon stops.
	Exec(ctx context.Context, e Exec, q loom.Request) (loom.Run, error)

	// Ping tries to reach a node. How that went is in what it returns.
	Ping(ctx context.Context, n *loom.Node) Ping

	// HostKeys and Trust are what loom.HostKeeper does. The error wraps
	// errors.ErrUnsupported if the node is not reached over SSH.
	HostKeys(ctx context.Context, n *loom.Node) ([]loom.HostKey, error)
	Trust(ctx context.Context, n *loom.Node, fingerprints []string) ([]loom.HostKey, error)

	// Tasks returns what manifests can use. It may be nil.
	Tasks() *loom.Registry

	// Reload reads the files again and returns when what they say is in force.
	// The error joins the problems.
	Reload(ctx context.Context) error
}

// Serve is Open for a unix socket through which only the daemon's own user and
// root come in.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return s.Open(ctx, &Door{Listener: l})
}

// Open answers requests that come through a door, until ctx ends. Requests that
// wait for something are then answered at once, others are given a few seconds. It
// returns when all have ended. A server may have any number of doors open at once.
func (s *Server) Open(ctx context.Context, d *Door) error {
	return s.serve(ctx, d, d.identify)
}

// serve is Open, given who says who is at the other end of a connection.
func (s *Server) serve(ctx context.Context, d *Door, identify func(context.Context, net.Conn) context.Context) error {
	if err := d.open(); err != nil {
		return errors.Join(err, d.Listener.Close())
	}
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	if s.Tokens != nil {
		watching, done := context.WithCancel(base)
		defer done()
		tasks.Go(func() { s.Tokens.watch(watching) })
	}
	var active requests
	handler := s.routesFor(ctx.Done())
	if s.wrap != nil {
		handler = s.wrap(handler)
	}
	l := limit(d.Listener, mostConns, mostFromOne, s.log())
	srv := &http.Server{
		Handler:           active.count(s.outer(d, handler)),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       identify,
		ErrorLog:          slog.NewLogLogger(s.log().Handler(), slog.LevelDebug), // what clients do wrong
	}
	served := make(chan error, 1)
	go func() { served <- serveOn(srv, l, d.Certificate) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	if !shutdown(srv, stopTime) {
		cancel(errStopping())
		if !shutdown(srv, lastTime) {
			_ = srv.Close() // they were asked nicely
		}
	}
	active.wait()
	if err == nil {
		err = <-served
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// serveOn serves with TLS, if there is a certificate for it.
func serveOn(srv *http.Server, l net.Listener, c *Certificate) error {
	if c == nil {
		return srv.Serve(l)
	}
	srv.TLSConfig = c.config()
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streamsOfConn, SendPingTimeout: writeTime, PingTimeout: writeTime, WriteByteTimeout: writeTime}
	return srv.ServeTLS(l, "", "")
}

// routesFor returns the routes, which all doors that close together share.
func (s *Server) routesFor(stop <-chan struct{}) http.Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handler == nil || s.stop != stop {
		s.stop, s.handler = stop, s.routes(stop)
	}
	return s.handler
}

// shutdown reports whether all requests have ended in a time.
func shutdown(srv *http.Server, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return srv.Shutdown(ctx) == nil
}

func (s *Server) log() *slog.Logger { return cmp.Or(s.Log, slog.Default()) }

// errStopping is what those get whose request was cut off. Most of them use the
// store, and to them it is down.
func errStopping() error {
	return fmt.Errorf("%w: the daemon that has it is stopping", loom.ErrStoreDown)
}

// requests counts those that are being answered: http.Server does not wait for
// what it closes.
type requests struct {
	mu     sync.Mutex
	closed bool
	active sync.WaitGroup
}

func (q *requests) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			problem(errStopping()).write(w)
			return
		}
		q.active.Add(1)
		q.mu.Unlock()
		defer q.active.Done()
		next.ServeHTTP(w, r)
	})
}

func (q *requests) wait() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.active.Wait()
}

// outer is what happens to each request that comes through a door.
func (s *Server) outer(d *Door, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answer{ResponseWriter: w, control: http.NewResponseController(w)}
		began := time.Now()
		defer func() {
			if v := recover(); v != nil {
				s.log().Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if out.status == 0 {
					problem(errors.New("the daemon made a mistake with this request: its log says more")).write(out)
				}
			}
			out.patience()
			s.log().Debug("request", "method", r.Method, "path", r.URL.Path, "status", out.status, "took", time.Since(began))
		}()
		d.protect(out.Header())
		if len(r.TransferEncoding) > 0 { // whoever sees another end of it than we do shall not go on from there
			out.Header().Set("Connection", "close")
		}
		admitted, leave, p := s.admit(d, out, r)
		if p == nil {
			defer leave()
			p = s.read(out, admitted)
		}
		if p != nil {
			out.hurry(r)
			p.write(out)
			return
		}
		next.ServeHTTP(out, admitted)
	})
}

// read takes all of a request's body, of which there may be so much, in a time
// that is limited. Afterwards no time is: what is asked for may take long.
func (s *Server) read(w *answer, r *http.Request) *Problem {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	most := int64(bodyBytes)
	if caller(r.Context()).own && strings.HasPrefix(r.URL.Path, ledgerPrefix) {
		most = ledgerBytes
	}
	if r.ContentLength > most {
		w.hangUp(r)
		return tooLarge(most)
	}
	_ = w.control.SetReadDeadline(time.Now().Add(bodyTime)) // a connection has one
	text, err := io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, most))
	if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(tooLong.Limit)
	}
	if err != nil {
		return &Problem{Type: "about:blank", Title: "The request is incomplete", Status: http.StatusRequestTimeout,
			Detail: fmt.Sprintf("the request's end did not come: %v", err)}
	}
	_ = w.control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}

func tooLarge(most int64) *Problem {
	return &Problem{Type: "about:blank", Title: "The request is too large", Status: http.StatusRequestEntityTooLarge,
		Detail: fmt.Sprintf("the request is larger than %d bytes, which is all that is taken", most)}
}

// An answer is written in pieces, each of which must be read within a time.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// hangUp has the connection closed after the answer, without reading the request's
// body. A client that is still sending gets a moment to see the answer: so http
// does it where it is told of a body's limit.
func (a *answer) hangUp(r *http.Request) {
	a.Header().Set("Connection", "close")
	if r.Header.Get("Expect") == "" {
		_ = a.control.SetReadDeadline(time.Now().Add(lastTime))
		_, _ = http.MaxBytesReader(a.ResponseWriter, r.Body, 0).Read(make([]byte, 1))
	}
}

// hurry gives what is still to come of a request, which http takes to its end
// before it answers, a moment.
func (a *answer) hurry(r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		_ = a.control.SetReadDeadline(time.Now().Add(lastTime)) // a connection has one
	}
}

func (a *answer) patience() { _ = a.control.SetWriteDeadline(time.Now().Add(writeTime)) }

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(text []byte) (int, error) {
	a.status = cmp.Or(a.status, http.StatusOK)
	written := 0
	for {
		piece := text[written:min(written+pieceSize, len(text))]
		a.patience()
		n, err := a.ResponseWriter.Write(piece)
		if written += n; err != nil || written == len(text) {
			return written, err
		}
	}
}
