package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
)

// Inside returns a client that asks s without a daemon, a socket or a network: what
// is asked for is done in the caller's own process, and may be whatever the
// process may do. Streams are not served. The client is good for as long as s is.
func (s *Server) Inside() *Client {
	me := Principal{Name: peer{uid: os.Getuid()}.name(), Role: RoleAdmin, Via: "inside", own: true}
	c := &Client{Name: "this process"}
	c.once.Do(func() {
		c.base = "http://loomd" + Prefix
		c.http = &http.Client{Transport: inside{s.routesFor(nil), me}}
	})
	return c
}

// inside answers requests with a handler.
type inside struct {
	handler http.Handler
	who     Principal
}

// RoundTrip is part of http.RoundTripper.
func (i inside) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close() //nolint:errcheck // it is memory
	out := &written{header: http.Header{}}
	ctx := withPrincipal(r.Context(), i.who)
	i.handler.ServeHTTP(out, r.WithContext(ctx))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	return &http.Response{Status: http.StatusText(out.status), StatusCode: out.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.header, Body: io.NopCloser(&out.body), ContentLength: int64(out.body.Len()), Request: r}, nil
}

// written is an answer that is kept.
type written struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *written) Header() http.Header { return w.header }

func (w *written) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *written) Write(text []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(text)
}
