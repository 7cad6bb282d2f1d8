package loom

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"
)

// What the pool itself costs: its connections and its task do nothing. An
// operation is one run on 1,000 nodes; ns/node is the figure to watch.
func BenchmarkPoolRun(b *testing.B) {
	const size = 1000
	null := TaskFunc(func(context.Context, *Session) error { return nil })
	tests := []struct {
		name string
		task Task
		emit func(Event)
		cold bool // a new pool each time: connections have to be opened
	}{
		{name: "kept connections", task: null},
		{name: "new connections", task: null, cold: true},
		{name: "events", task: null, emit: func(Event) {}},
		{name: "one command", task: TaskFunc(func(ctx context.Context, s *Session) error { return s.Run(ctx, "true") })},
		{name: "one line", task: TaskFunc(func(_ context.Context, s *Session) error {
			_, err := io.WriteString(s.Out, "Filesystem is 43% full\n")
			return err
		})},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			job := &Job{Name: "null", Task: tt.task, Targets: numbered("node", size)}
			fresh := func() *Pool { return &Pool{Dialer: nullDialer{}, Max: 50, Log: quiet()} }
			p := fresh()
			defer func() { _ = p.Close() }()
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Run(b.Context(), job, time.Time{}, tt.emit); err != nil {
					b.Fatal(err)
				}
				if tt.cold {
					_ = p.Close()
					p = fresh()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/node")
		})
	}
}

// nullDialer's connections run nothing, well.
type nullDialer struct{}

func (nullDialer) Dial(context.Context, *Node) (Conn, error) { return nullDialer{}, nil }
func (nullDialer) Exec(context.Context, Command) error       { return nil }
func (nullDialer) Files(context.Context) (Files, error)      { return nil, io.EOF }
func (nullDialer) Close() error                              { return nil }

// How fast a node's output is cut into lines, kept in bounds and told.
func BenchmarkOutput(b *testing.B) {
	tests := []struct {
		name string
		text []byte
	}{
		{"short lines", bytes.Repeat([]byte("123456789\n"), 100_000)},
		{"log lines", bytes.Repeat(fmt.Appendf(nil, "%0119d\n", 0), 8_333)},
		{"one long line", bytes.Repeat([]byte("x"), 1_000_000)},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			w := &work{pool: &Pool{}, job: &Job{Name: "print"}, emit: func(Event) {}}
			b.SetBytes(int64(len(tt.text)))
			b.ReportAllocs()
			for b.Loop() {
				o := newOutput(w, "node")
				out := o.writer(Stdout)
				for p := tt.text; len(p) > 0; { // as it comes from the network
					n := min(len(p), 32<<10)
					_, _ = out.Write(p[:n])
					p = p[n:]
				}
				o.close()
			}
		})
	}
}
