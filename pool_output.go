package loom

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dustinlacewell/loom/internal/redact"
)

// longestLine is how many bytes of one line go into one event; a longer line
// takes several.
const longestLine = 8 << 10

// A Line is one line of output, or a piece of a very long one.
type Line struct {
	Time   time.Time
	Stream Stream
	Text   string // without the newline
	More   bool   // the line goes on in the next of the same stream
}

// An output takes what a task prints on one node, cuts it into lines, emits
// each at once, and keeps the first and the last of them, so that its size is
// bounded however much a node prints.
type output struct {
	work *work
	node string

	mu      sync.Mutex
	clean   map[Stream]*redact.Stream // without secrets, before it is cut
	partial map[Stream][]byte
	closed  bool

	half       int64 // bytes kept at each end
	head, tail []Line
	headSize   int64
	tailSize   int64
	lines      int64 // dropped between head and tail
	dropped    int64 // in bytes
}

func newOutput(w *work, node string) *output {
	return &output{work: w, node: node, half: w.pool.keep() / 2}
}

// writer returns a writer for one of the streams.
func (o *output) writer(s Stream) *streamWriter { return &streamWriter{o, s} }

type streamWriter struct {
	out    *output
	stream Stream
}

// Write emits the lines that p completes. It waits for whoever takes the
// events, so a node can't print faster than they are dealt with.
func (w *streamWriter) Write(p []byte) (int, error) {
	w.out.write(w.stream, p)
	return len(p), nil
}

func (o *output) write(s Stream, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return // an abandoned task still talks
	}
	o.cut(s, o.redacted(s, p))
}

// redacted returns what can be told of p, and of what was held back before.
func (o *output) redacted(s Stream, p []byte) []byte {
	if o.work.secrets == nil {
		return p
	}
	if o.clean == nil {
		o.clean = map[Stream]*redact.Stream{}
	}
	if o.clean[s] == nil {
		o.clean[s] = o.work.secrets.stream()
	}
	return o.clean[s].Next(p)
}

// cut makes lines of what comes. o.mu is held.
func (o *output) cut(s Stream, p []byte) {
	for len(p) > 0 {
		held := o.partial[s]
		i := bytes.IndexByte(p, '\n')
		if room := longestLine - len(held); i < 0 && len(p) >= room || i >= room {
			o.line(s, append(held, p[:room]...), true)
			p = p[room:]
		} else if i < 0 {
			o.hold(s, append(held, p...))
			return
		} else {
			o.line(s, append(held, p[:i]...), false)
			p = p[i+1:]
		}
		o.hold(s, held[:0])
	}
}

func (o *output) hold(s Stream, b []byte) {
	if o.partial == nil {
		o.partial = map[Stream][]byte{}
	}
	o.partial[s] = b
}

// line emits and keeps one line. o.mu is held.
func (o *output) line(s Stream, b []byte, more bool) {
	if !more {
		b = bytes.TrimSuffix(b, []byte{'\r'})
	}
	l := Line{Time: time.Now(), Stream: s, Text: string(b), More: more}
	o.keep(l)
	o.work.event(Event{Kind: KindOutput, Time: l.Time, Node: o.node, Stream: s, Text: l.Text, More: more})
}

func (o *output) keep(l Line) {
	size := int64(len(l.Text)) + 1
	if len(o.tail) == 0 && o.headSize+size <= o.half {
		o.head = append(o.head, l)
		o.headSize += size
		return
	}
	o.tail = append(o.tail, l)
	o.tailSize += size
	for o.tailSize > o.half && len(o.tail) > 1 {
		first := int64(len(o.tail[0].Text)) + 1
		o.tail[0] = Line{} // let go of the text
		o.tail = o.tail[1:]
		o.tailSize -= first
		o.dropped += first
		o.lines++
	}
}

// close emits what is left of unfinished lines, and returns what was kept and
// how many bytes were not. The marker between the two ends says so too.
func (o *output) close() ([]Line, int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range []Stream{Stdout, Stderr, Log} {
		if held := o.clean[s]; held != nil {
			o.cut(s, held.End())
		}
		if b := o.partial[s]; len(b) > 0 {
			o.line(s, b, false)
		}
	}
	o.closed, o.partial = true, nil
	if o.dropped == 0 {
		return append(o.head, o.tail...), 0
	}
	marker := Line{Time: o.tail[0].Time, Stream: Log,
		Text: fmt.Sprintf("[%d lines, %d bytes of output not kept]", o.lines, o.dropped)}
	return append(append(o.head, marker), o.tail...), o.dropped
}

// A taskLog is the handler of a task's log: what is logged goes to Loom's log,
// with whose it is, and to the output. Most tasks log nothing, so it does its
// work when they do.
type taskLog struct {
	loom           slog.Handler
	out            *output
	job, run, node string
}

// Enabled reports whether either of the two takes the level.
func (h *taskLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.loom.Enabled(ctx, level)
}

// Handle gives a record to both.
func (h *taskLog) Handle(ctx context.Context, r slog.Record) error {
	return h.both().Handle(ctx, r)
}

// WithAttrs returns a handler that adds these attributes.
func (h *taskLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.both().WithAttrs(attrs)
}

// WithGroup returns a handler that opens a group.
func (h *taskLog) WithGroup(name string) slog.Handler {
	return h.both().WithGroup(name)
}

func (h *taskLog) both() slog.Handler {
	whose := []slog.Attr{slog.String("job", h.job), slog.String("run", h.run), slog.String("node", h.node)}
	// The events of the output say when and whose it is.
	text := slog.NewTextHandler(h.out.writer(Log), &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	return slog.NewMultiHandler(h.loom.WithAttrs(whose), text)
}
