package api

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// A counting store counts how often it is asked for output.
type counting struct {
	loom.Store
	asked atomic.Int32
}

func (c *counting) Output(ctx context.Context, q loom.OutputQuery) ([]loom.Chunk, error) {
	c.asked.Add(1)
	return c.Store.Output(ctx, q)
}

// telling is a counting store that is a loom.Watcher too.
type telling struct {
	*counting
	loom.Watcher
}

// Who follows a run has what it prints as soon as it is written, without asking the
// store meanwhile; only if that can't tell it is asked again and again.
func TestFollowWakes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tells bool
	}{{"a store that tells", true}, {"a store that others share", false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := &memory.Store{}
				store := &counting{Store: memory}
				s := &Server{Store: store}
				if tt.tells {
					s.Store = telling{store, memory}
				}
				fired, err := memory.Fire(t.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r1"}, Claim: true}})
				if err != nil {
					t.Fatal(err)
				}
				follow := func(after int64) (out Output, took time.Duration, asked int32) {
					began, before := time.Now(), store.asked.Load()
					r, err := s.run(t.Context(), "r1")
					if err == nil {
						out, err = s.follow(t.Context(), r, loom.OutputQuery{Run: "r1", After: after, Limit: 10}, time.Minute, nil)
					}
					if err != nil {
						t.Error(err)
					}
					return out, time.Since(began), store.asked.Load() - before
				}
				soon := func(do func() error) {
					time.AfterFunc(20*time.Second+time.Millisecond, func() {
						if err := do(); err != nil {
							t.Error(err)
						}
					})
				}
				check := func(what string, took time.Duration, asked int32) {
					if at := took - 20*time.Second - time.Millisecond; tt.tells && (at != 0 || asked != 3) || !tt.tells && (at > lookLast || asked < 20) {
						t.Errorf("%s came %v after it was written, and the store was asked %d times", what, at, asked)
					}
				}

				soon(func() error {
					return memory.Record(t.Context(), fired[0].Claim, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Text: "one"}})
				})
				out, took, asked := follow(0)
				if len(out.Chunks) != 1 || out.Chunks[0].Lines[0].Text != "one" || out.Ended {
					t.Errorf("got %+v", out)
				}
				check("a line", took, asked)

				soon(func() error {
					return memory.Finish(t.Context(), fired[0].Claim, loom.Run{Status: loom.StatusOK}, nil)
				})
				end, took, asked := follow(out.Next)
				if len(end.Chunks) != 0 || !end.Ended || end.Next != out.Next {
					t.Errorf("got %+v", end)
				}
				check("the end", took, asked)
			})
		})
	}
}

// What is printed without a rest is not fetched line by line, and none of it is lost
// or comes twice.
func TestStreamGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &memory.Store{}
		store := &counting{Store: memory}
		s := &Server{Store: telling{store, memory}}
		fired, err := memory.Fire(t.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r1"}, Claim: true}})
		if err != nil {
			t.Fatal(err)
		}
		const lines = 1000
		go func() { // the stream ends after it
			for range lines {
				if err := memory.Record(t.Context(), fired[0].Claim, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Text: "a line"}}); err != nil {
					t.Error(err)
				}
				<-time.After(100 * time.Microsecond)
			}
			if err := memory.Finish(t.Context(), fired[0].Claim, loom.Run{Status: loom.StatusOK}, nil); err != nil {
				t.Error(err)
			}
		}()
		w := httptest.NewRecorder()
		if err := s.print(t.Context(), newEventWriter(w), fired[0].Claim.Run, loom.OutputQuery{Run: "r1", Limit: mostChunks}, nil); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(w.Body.String(), "event: output\n"); n != lines || !strings.Contains(w.Body.String(), "event: end\n") {
			t.Errorf("%d chunks of %d came", n, lines)
		}
		if n := store.asked.Load(); n > lines/5 {
			t.Errorf("the store was asked %d times for %d lines", n, lines)
		}
	})
}
