package api_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// benchClient returns a client of a server that remembers nothing on disk, so that
// what is measured is the way there and back.
func benchClient(b *testing.B) (*api.Client, *memory.Store) {
	b.Helper()
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the benchmark may be too long
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := api.Listen(ctx, dir)
	if err != nil {
		b.Fatal(err)
	}
	store := &memory.Store{}
	served := make(chan error, 1)
	go func() { served <- (&api.Server{Store: store}).Serve(ctx, l) }()
	c := &api.Client{Socket: filepath.Join(dir, api.SocketFile)}
	b.Cleanup(func() {
		_ = c.Close()
		cancel()
		if err := <-served; err != nil {
			b.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return c, store
}

func BenchmarkBeat(b *testing.B) {
	c, _ := benchClient(b)
	for b.Loop() {
		if _, err := c.Beat(b.Context(), loom.Instance{ID: "x"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecord1000Lines(b *testing.B) {
	c, store := benchClient(b)
	var events []loom.Event
	for i := range 1000 {
		events = append(events, loom.Event{Kind: loom.KindOutput, Node: "n1", Stream: loom.Stdout, Text: fmt.Sprintf("line %d of what a command has to say", i)})
	}
	fired, err := store.Fire(b.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r"}, Claim: true}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := c.Record(b.Context(), fired[0].Claim, events); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRuns100(b *testing.B) {
	c, store := benchClient(b)
	for i := range 100 {
		if _, err := store.Fire(b.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: fmt.Sprintf("r%03d", i)}, Overlap: loom.OverlapAllow}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if runs, err := c.Runs(b.Context(), loom.RunQuery{}); err != nil || len(runs) != 100 {
			b.Fatal(len(runs), err)
		}
	}
}
