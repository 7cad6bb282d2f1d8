package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// How often a stream in which nothing happens shows that it is alive, how soon
// readers shall come back, and how many streams there may be at once: of all, and
// of one principal.
const (
	heartbeat   = 15 * time.Second
	comeBack    = 2 * time.Second
	mostStreams = 2048
	mostOfOne   = 1536
)

// eventsKey is where an operation has the types of its events' data.
const eventsKey = "x-loom-events"

// A streamOp is an operation that answers with server-sent events.
type streamOp struct {
	path, tag, id, summary, about string
	data                          any   // of its events
	more                          []any // what else there can be in their place
	stopping                      <-chan struct{}
}

// stream adds an operation whose begin looks at the request, and returns what
// writes the stream until it ends.
func stream[In any](s *Server, api huma.API, o streamOp, begin func(context.Context, *In) (func(context.Context, *eventWriter) error, error)) {
	op := huma.Operation{OperationID: o.id, Method: http.MethodGet, Path: Prefix + o.path, Summary: o.summary, Description: o.about, Tags: []string{o.tag},
		Extensions: map[string]any{roleKey: RoleViewer},
		Responses: map[string]*huma.Response{"200": {
			Description: "Server-sent events, as the HTML standard has them, whose data is JSON. Comments show that the stream is alive.",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}}}
	var types []string
	for _, data := range slices.Concat([]any{o.data}, o.more) {
		t := reflect.TypeOf(data)
		api.OpenAPI().Components.Schemas.Schema(t, true, t.Name()) // so that the document has it
		types = append(types, t.Name())
	}
	op.Extensions[eventsKey] = types
	huma.Register(api, op, func(ctx context.Context, in *In) (*huma.StreamResponse, error) {
		write, err := begin(ctx, in)
		if err != nil {
			return nil, problem(err)
		}
		who := caller(ctx).Name
		if p := s.open.enter(who); p != nil {
			return nil, p
		}
		return &huma.StreamResponse{Body: func(c huma.Context) {
			defer s.open.leave(who)
			c.SetHeader("Content-Type", "text/event-stream")
			c.SetHeader("Cache-Control", "no-store")
			c.SetHeader("X-Accel-Buffering", "no") // a proxy shall not keep it
			w := newEventWriter(c.BodyWriter())
			if err := w.write(fmt.Appendf(nil, "retry: %d\n\n", comeBack.Milliseconds())); err != nil {
				return
			}
			if err := write(ctx, w); err == nil {
				_ = w.flush() // the reader has gone if this fails
			}
		}}, nil
	})
}

// An eventWriter writes server-sent events.
type eventWriter struct {
	w       io.Writer
	control *http.ResponseController
}

func newEventWriter(w io.Writer) *eventWriter {
	e := &eventWriter{w: w}
	if r, ok := w.(http.ResponseWriter); ok {
		e.control = http.NewResponseController(r)
	}
	return e
}

func (w *eventWriter) write(frame []byte) error {
	_, err := w.w.Write(frame)
	return err
}

func (w *eventWriter) flush() error {
	if w.control == nil {
		return nil
	}
	return w.control.Flush()
}

// send writes an event.
func (w *eventWriter) send(id, name string, data any) error { return w.write(frame(id, name, data)) }

// last writes an event after which the stream ends.
func (w *eventWriter) last(kind loom.Kind, why string) error {
	return w.send("", string(kind), Event{Kind: kind, Time: utc(time.Now()), Text: why})
}

// beat shows that the stream is alive, and moves the reader's place to at if that
// is not "".
func (w *eventWriter) beat(at string) error {
	text := ": alive\n\n"
	if at != "" {
		text = ": alive\nid: " + at + "\n\n"
	}
	if err := w.write([]byte(text)); err != nil {
		return err
	}
	return w.flush()
}

// openStreams counts the streams that are open.
type openStreams struct {
	mu  sync.Mutex
	all int
	of  map[string]int
}

// enter returns why a principal gets no more streams, or nil.
func (o *openStreams) enter(who string) *Problem {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all >= mostStreams || o.of[who] >= mostOfOne {
		return &Problem{Type: "about:blank", Title: http.StatusText(http.StatusTooManyRequests), Status: http.StatusTooManyRequests,
			Detail: fmt.Sprintf("%d streams are open, %d of them yours, and there may be %d and %d: close some first", o.all, o.of[who], mostStreams, mostOfOne)}
	}
	if o.of == nil {
		o.of = map[string]int{}
	}
	o.all++
	o.of[who]++
	return nil
}

func (o *openStreams) leave(who string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all--
	if o.of[who]--; o.of[who] == 0 {
		delete(o.of, who)
	}
}

func (o *openStreams) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all
}
