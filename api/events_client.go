package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/dustinlacewell/loom"
)

// How a Client keeps a stream: how soon it comes back when one has broken off, how
// long one may be silent, and how large one event may be.
const (
	againFirst = 100 * time.Millisecond
	againLast  = 5 * time.Second
	silence    = 3 * heartbeat
	frameBytes = 16 << 20
)

// Events passes do what happens, one event after another, until ctx ends, whose
// cause it then returns, or do returns an error, which it returns. It comes back by
// itself when the stream breaks off, and goes on where it was; if it can't, do gets
// an event KindReset. Each time the stream is open do gets an event KindHello, so
// that all that happens after the first is seen. It returns an error at once if
// there is no daemon when it begins, or the daemon refuses.
func (c *Client) Events(ctx context.Context, f EventFilter, do func(Event) error) error {
	v := values{}
	for _, k := range f.Kinds {
		v.text("kind", string(k))
	}
	v.text("job", f.Jobs...)
	v.text("node", f.Nodes...)
	v.text("run", f.Runs...)
	if f.Output {
		v.text("output", "true")
	}
	return c.stream(ctx, "/events", url.Values(v), f.After, func(m message) error {
		e := Event{Kind: loom.Kind(m.name), Cursor: m.id}
		if err := json.Unmarshal(m.data, &e); err != nil {
			return fmt.Errorf("event %s: %w", m.name, err)
		}
		return do(e)
	})
}

// FollowOutput passes do what a run prints, until it has ended, and returns how it
// ended. It comes back by itself when the stream breaks off, and goes on where it
// was. The error wraps loom.ErrNotFound if there is no such run. Of q, Limit is not
// looked at.
func (c *Client) FollowOutput(ctx context.Context, q loom.OutputQuery, do func(loom.Chunk) error) (loom.Run, error) {
	v := values{}
	v.text("node", q.Node)
	v.number("after", q.After)
	var end Run
	err := c.stream(ctx, "/runs/"+url.PathEscape(q.Run)+"/output/stream", url.Values(v), "", func(m message) error {
		switch m.name {
		case "output":
			var chunk Chunk
			if err := json.Unmarshal(m.data, &chunk); err != nil {
				return fmt.Errorf("output: %w", err)
			}
			return do(chunk.Loom())
		case "end":
			if err := json.Unmarshal(m.data, &end); err != nil {
				return fmt.Errorf("end of output: %w", err)
			}
			return errEnd
		case "error":
			p := &Problem{}
			if err := json.Unmarshal(m.data, p); err == nil && p.Status < 500 {
				return p
			}
		}
		return nil
	})
	if errors.Is(err, errEnd) {
		err = nil
	}
	return end.Loom(), err
}

// errEnd is how the reader of a stream says that it has seen its end.
var errEnd = errors.New("end of the stream")

// A message is an event of a stream.
type message struct {
	id, name string
	data     []byte
}

// stream reads server-sent events, and comes back when they break off, until ctx
// ends, do returns an error, or the daemon refuses.
func (c *Client) stream(ctx context.Context, path string, query url.Values, at string, do func(message) error) error {
	s := &reading{client: c, path: path, query: query, at: at, do: do, again: againFirst}
	for {
		err := s.once(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if done, ok := errors.AsType[*enough](err); ok {
			return done.err
		}
		if !s.opened {
			return err
		}
		if p, ok := errors.AsType[*Problem](err); ok && p.Status < 500 && p.Status != http.StatusTooManyRequests {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(s.again/2 + rand.N(s.again/2)): // so that not all come back at once
		}
		s.again = min(2*s.again, againLast)
	}
}

// enough is why a reader wants no more.
type enough struct{ err error }

func (e *enough) Error() string { return e.err.Error() }

// A reading is a stream that is read, through as many requests as it takes.
type reading struct {
	client *Client
	path   string
	query  url.Values
	at     string // the last id
	do     func(message) error
	again  time.Duration // until the next request
	opened bool          // once
}

// errSilent is why a stream is given up that seems open.
var errSilent = fmt.Errorf("nothing came for %v", silence)

// once reads a stream until it ends.
func (s *reading) once(ctx context.Context) error {
	q := request{method: http.MethodGet, path: s.path, query: s.query}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := s.client.encode(ctx, q)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "text/event-stream")
	if s.at != "" {
		r.Header.Set("Last-Event-ID", s.at)
	}
	watch := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watch.Stop()
	answer, err := s.client.send(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it breaks off in any case
	if answer.StatusCode >= 300 {
		return s.client.refused(answer)
	}
	s.opened = true
	return s.client.explain(ctx, s.read(&heard{answer.Body, watch}))
}

// heard is a stream that is watched for silence.
type heard struct {
	io.Reader
	watch *time.Timer
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.watch.Reset(silence)
	}
	return n, err
}

// read passes on the events of a stream as the HTML standard has them, as far as
// this daemon writes them: lines end with a newline.
func (s *reading) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), frameBytes)
	m := message{id: s.at}
	for lines.Scan() {
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			m.id = string(value)
		case "event":
			m.name = string(value)
		case "data":
			m.data = append(m.data, value...)
		case "":
			if len(lines.Bytes()) > 0 {
				continue // a comment
			}
			if s.at = m.id; len(m.data) > 0 {
				if err := s.do(m); err != nil {
					return &enough{err}
				}
				s.again = againFirst
			}
			m = message{id: s.at}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
