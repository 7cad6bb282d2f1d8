package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom/api"
)

// dialCommand is what ssh:// runs on the daemon's machine: requests come by HTTP/2
// on the standard input, so that one ssh carries any number of them, and are handed
// to the daemon's socket.
func (p *Program) dialCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dial [SOCKET]",
		Short: "Hand requests from the standard input to the daemon",
		Long: `Dial is what --server ssh://HOST runs on that host: it looks for the daemon, and
then hands it what comes on the standard input. It is not for people.`,
		Example: `  ssh host ` + p.Name + ` dial`,
		Hidden:  true,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r, err := p.dialled(ctx, args)
			if err != nil {
				return err
			}
			defer r.close()
			fmt.Fprintln(p.Stdout, dialHello)
			return handOn(ctx, r.Socket, p.Stdin, p.Stdout)
		},
	}
}

// dialled returns a client for the daemon of this machine that dial is for.
func (p *Program) dialled(ctx context.Context, args []string) (*remoteDaemon, error) {
	if len(args) == 0 {
		return p.localDaemon(ctx)
	}
	r := &remoteDaemon{Client: &api.Client{Socket: args[0]}}
	answer, err := r.Do(ctx, http.MethodGet, api.Prefix+"/status", nil, nil)
	if err != nil {
		return nil, err
	}
	_ = answer.Body.Close() // that there is one is all
	return r, nil
}

// handOn hands requests that come by HTTP/2 to a daemon's socket, until there are no
// more, or ctx ends.
func handOn(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 16,
		DisableCompression:  true,
	}
	defer transport.CloseIdleConnections()
	l := newOneListener(&stdioConn{Reader: in, Writer: out})
	srv := &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = "http", "loomd"
			},
			Transport:     transport,
			FlushInterval: -1, // who follows something wants each piece at once
			ErrorHandler:  unpassed,
			ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // the answer says it
		},
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				_ = l.Close() // it was the only one
			}
		},
	}
	srv.Protocols.SetUnencryptedHTTP2(true)
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	_ = srv.Close() // the connection has gone
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// unpassed answers what could not be handed on.
func unpassed(w http.ResponseWriter, _ *http.Request, err error) {
	p := api.Problem{Type: "urn:loom:store-down", Title: "The daemon broke off", Status: http.StatusBadGateway,
		Detail: fmt.Sprintf("the daemon broke off before it had answered, and what was asked for may have been done or not: %v", err)}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		p.Type, p.Title, p.Detail = "urn:loom:no-daemon", "No daemon", fmt.Sprintf("the daemon is gone: %v", err)
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked has gone if this fails
}

// A oneListener accepts one connection, and then none until it is closed.
type oneListener struct {
	conns  chan net.Conn
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func newOneListener(c net.Conn) *oneListener {
	l := &oneListener{conns: make(chan net.Conn, 1), addr: c.LocalAddr(), closed: make(chan struct{})}
	l.conns <- c
	return l
}

// Accept is part of net.Listener.
func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is part of net.Listener.
func (l *oneListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is part of net.Listener.
func (l *oneListener) Addr() net.Addr { return l.addr }

// A stdioConn is a connection over the standard input and output. It has no
// deadlines: whoever started the process ends it.
type stdioConn struct {
	io.Reader
	io.Writer
}

// Close closes what can be closed.
func (c *stdioConn) Close() error {
	var errs []error
	for _, one := range []any{c.Writer, c.Reader} {
		if closer, ok := one.(io.Closer); ok {
			errs = append(errs, closer.Close())
		}
	}
	return errors.Join(errs...)
}

type stdioAddr struct{}

func (stdioAddr) Network() string { return "stdio" }
func (stdioAddr) String() string  { return "stdio" }

// The rest of net.Conn.

func (*stdioConn) LocalAddr() net.Addr              { return stdioAddr{} }
func (*stdioConn) RemoteAddr() net.Addr             { return stdioAddr{} }
func (*stdioConn) SetDeadline(time.Time) error      { return nil }
func (*stdioConn) SetReadDeadline(time.Time) error  { return nil }
func (*stdioConn) SetWriteDeadline(time.Time) error { return nil }
