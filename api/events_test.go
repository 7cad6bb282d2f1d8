package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// errEnough ends a stream.
var errEnough = errors.New("enough")

func TestEventsFilter(t *testing.T) {
	f := &api.Feed{}
	c, _ := serve(t, &api.Server{Store: &memory.Store{}, Feed: f})
	happens := []loom.Event{
		{Kind: loom.KindRunStarted, Job: "backup-a", Run: "r1", Ran: &loom.Run{ID: "r1", Job: "backup-a", Status: loom.StatusRunning}},
		{Kind: loom.KindOutput, Job: "backup-a", Run: "r1", Node: "db1", Stream: loom.Stdout, Text: "out\xff"},
		{Kind: loom.KindNodeEnded, Job: "backup-a", Run: "r1", Node: "db1", Result: &loom.Result{Node: "db1", Status: loom.StatusOK}},
		{Kind: loom.KindRunEnded, Job: "backup-a", Run: "r1", Ran: &loom.Run{ID: "r1", Job: "backup-a", Status: loom.StatusOK}},
		{Kind: loom.KindRunStarted, Job: "clean", Run: "r2", Ran: &loom.Run{ID: "r2", Job: "clean"}},
		{Kind: loom.KindStoreDown, Text: "disk full"},
	}
	for _, tt := range []struct {
		name   string
		filter api.EventFilter
		want   []int
	}{
		{"all but output", api.EventFilter{}, []int{0, 2, 3, 4, 5}},
		{"all", api.EventFilter{Output: true}, []int{0, 1, 2, 3, 4, 5}},
		{"some kinds", api.EventFilter{Kinds: []loom.Kind{loom.KindRunEnded, loom.KindStoreDown}}, []int{3, 5}},
		{"a kind and output", api.EventFilter{Kinds: []loom.Kind{loom.KindRunEnded}, Output: true}, []int{1, 3}},
		{"output as a kind", api.EventFilter{Kinds: []loom.Kind{loom.KindOutput}}, []int{1}},
		{"a pattern of jobs", api.EventFilter{Jobs: []string{"x", "backup-*"}}, []int{0, 2, 3}},
		{"a node", api.EventFilter{Nodes: []string{"db?"}, Output: true}, []int{1, 2}},
		{"a run", api.EventFilter{Runs: []string{"r2"}}, []int{4}},
		{"a run of another job", api.EventFilter{Runs: []string{"r2"}, Jobs: []string{"backup-*"}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want, got []loom.Event
			for _, i := range tt.want {
				want = append(want, happens[i])
			}
			last := api.Event{Kind: api.KindStopping, Job: "backup-a", Node: "db1", Run: "r2"}
			if tt.filter.Kinds != nil {
				tt.filter.Kinds = append(tt.filter.Kinds, last.Kind)
			}
			err := c.Events(t.Context(), tt.filter, func(e api.Event) error {
				switch e.Kind {
				case api.KindHello:
					for _, e := range happens {
						f.Observe(e)
					}
					f.Publish(last)
				case api.KindStopping:
					return errEnough
				default:
					if e.Cursor == "" {
						t.Errorf("no cursor: %+v", e)
					}
					got = append(got, e.Loom())
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Error(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEventsOfOrders(t *testing.T) {
	store := &memory.Store{}
	c, _ := serve(t, &api.Server{Store: store, Feed: &api.Feed{}})
	if err := store.Adopt(t.Context(), map[string]string{"j": ""}); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	var got []string
	err := c.Events(t.Context(), api.EventFilter{Jobs: []string{"j"}}, func(e api.Event) error {
		switch e.Kind {
		case api.KindHello:
			for _, a := range []loom.Action{{Verb: loom.VerbPause, Object: "nobody"}, {Verb: "look", Object: "j"},
				{Verb: loom.VerbPause, Object: "j", Why: "moving", Until: until}, {Verb: loom.VerbResume, Object: "j"}} {
				_ = c.Act(t.Context(), a)
			}
			return nil
		case api.KindJobPaused:
			if !e.Until.Equal(until) {
				t.Errorf("paused until %v, want %v", e.Until, until)
			}
		}
		if got = append(got, fmt.Sprint(e.Kind, " ", e.Job, " ", e.By, " ", e.Text)); len(got) == 2 {
			return errEnough
		}
		return nil
	})
	me := whoami(t)
	if want := []string{"job-paused j " + me + " moving", "job-resumed j " + me + " "}; !errors.Is(err, errEnough) || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// Whoever comes back goes on where it was, as long as it is the same daemon.
func TestEventsComeBack(t *testing.T) {
	dir, store := shortDir(t), &memory.Store{}
	f := &api.Feed{}
	begin := func(f *api.Feed) func() {
		l, err := api.Listen(t.Context(), dir)
		if err != nil {
			t.Error(err)
			return func() {}
		}
		return serveAt(t, &api.Server{Store: store, Feed: f}, l)
	}
	stop := begin(f)
	c := &api.Client{Socket: dir + "/" + api.SocketFile}
	defer c.Close()
	var got []string
	hellos := 0
	ended := make(chan struct{})
	end := func() { stop(); ended <- struct{}{} }
	err := c.Events(t.Context(), api.EventFilter{}, func(e api.Event) error {
		got = append(got, fmt.Sprint(e.Kind, " ", e.Text))
		switch {
		case e.Kind == api.KindHello:
			if hellos++; hellos == 1 {
				f.Observe(loom.Event{Kind: loom.KindChanged, Text: "one"})
			}
		case e.Text == "one":
			go end()
		case e.Kind == api.KindBye && hellos == 1:
			f.Observe(loom.Event{Kind: loom.KindChanged, Text: "two"}) // while the listener is away
			<-ended
			stop = begin(f)
		case e.Text == "two":
			go end()
		case e.Kind == api.KindBye:
			<-ended
			f = &api.Feed{}
			stop = begin(f)
		case e.Kind == api.KindReset:
			f.Observe(loom.Event{Kind: loom.KindChanged, Text: "three"})
		case e.Text == "three":
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	want := []string{"hello ", "changed one", "bye the daemon is stopping", "hello ", "changed two", "bye the daemon is stopping",
		"hello ", "reset the daemon was started anew since, and what came before that is not known", "changed three"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestEventsRefused(t *testing.T) {
	c, stop := serve(t, &api.Server{Store: &memory.Store{}, Feed: &api.Feed{}})
	alone, _ := serve(t, &api.Server{Store: &memory.Store{}})
	never := func(e api.Event) error { t.Errorf("%+v", e); return nil }
	for name, tt := range map[string]struct {
		c      *api.Client
		filter api.EventFilter
		want   string
	}{
		"a kind that is none":       {c, api.EventFilter{Kinds: []loom.Kind{"run-strated"}}, `no events of kind "run-strated": there are [run-started `},
		"a pattern that is none":    {c, api.EventFilter{Jobs: []string{"[a"}}, `pattern "[a": syntax error`},
		"a server without a daemon": {alone, api.EventFilter{}, "only shows what is remembered"},
	} {
		if err := tt.c.Events(t.Context(), tt.filter, never); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := c.FollowOutput(t.Context(), loom.OutputQuery{Run: "nothing"}, nil); !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("the output of no run: %v", err)
	}
	stop()
	if err := c.Events(t.Context(), api.EventFilter{}, never); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	if err := c.Events(ctx, api.EventFilter{}, never); !errors.Is(err, errEnough) {
		t.Errorf("after its context has ended: %v", err)
	}
}

func TestFollowOutput(t *testing.T) {
	store := &memory.Store{}
	c, _ := serve(t, &api.Server{Store: store, Feed: &api.Feed{}})
	ctx := t.Context()
	fired, err := store.Fire(ctx, "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r1"}, Claim: true}})
	if err != nil {
		t.Fatal(err)
	}
	claim := fired[0].Claim
	print := func(texts ...string) {
		var events []loom.Event
		for _, text := range texts {
			events = append(events, loom.Event{Kind: loom.KindOutput, Node: "n1", Stream: loom.Stdout, Text: text})
		}
		if err := store.Record(ctx, claim, events); err != nil {
			t.Error(err)
		}
	}
	print("one")
	var got []string
	cursor := int64(0)
	end, err := c.FollowOutput(ctx, loom.OutputQuery{Run: "r1"}, func(chunk loom.Chunk) error {
		for _, l := range chunk.Lines {
			got = append(got, chunk.Node+" "+l.Text)
			switch l.Text {
			case "one":
				cursor = chunk.Cursor
				print("two", "th\xffree")
			case "th\xffree":
				if err := store.Finish(ctx, claim, loom.Run{Status: loom.StatusFailed, Reason: "why not"}, nil); err != nil {
					t.Error(err)
				}
			}
		}
		return nil
	})
	if err != nil || end.ID != "r1" || end.Status != loom.StatusFailed || end.Reason != "why not" {
		t.Errorf("it ended as %+v, %v", end, err)
	}
	if want := []string{"n1 one", "n1 two", "n1 th\xffree"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	if _, err := c.FollowOutput(ctx, loom.OutputQuery{Run: "r", After: cursor}, func(chunk loom.Chunk) error {
		got = append(got, chunk.Lines[0].Text)
		return nil
	}); err != nil || !slices.Equal(got, []string{"two"}) {
		t.Errorf("after the first chunk: %q, %v", got, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loomd/api/v1/runs/r1/output/stream?after=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Last-Event-ID", fmt.Sprint(cursor))
	answer, err := wire(t, c).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if kind := answer.Header.Get("Content-Type"); err != nil || kind != "text/event-stream" || strings.Count(string(text), "event: output\n") != 1 ||
		!strings.Contains(string(text), "event: end\ndata: {\"id\":\"r1\"") {
		t.Errorf("%s: %s, %v", kind, text, err)
	}
}

// A stream whose store breaks says so, and goes on when it is mended.
func TestFollowOutputOverAnOutage(t *testing.T) {
	store := &faltering{Store: &memory.Store{}}
	c, _ := serve(t, &api.Server{Store: store, Feed: &api.Feed{}})
	fired, err := store.Fire(t.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r1"}, Claim: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Record(t.Context(), fired[0].Claim, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Text: "one"}}); err != nil {
		t.Fatal(err)
	}
	store.fails.Store(1)
	lines := 0
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.FollowOutput(ctx, loom.OutputQuery{Run: "r1"}, func(loom.Chunk) error {
		if lines++; lines == 1 {
			store.fails.Store(2)
		}
		return store.Finish(ctx, fired[0].Claim, loom.Run{Status: loom.StatusOK}, nil)
	}); err != nil || lines != 1 {
		t.Errorf("%d lines, %v", lines, err)
	}
}

// A faltering store fails to tell of output so many times.
type faltering struct {
	loom.Store
	fails atomic.Int32
}

func (f *faltering) Output(ctx context.Context, q loom.OutputQuery) ([]loom.Chunk, error) {
	if f.fails.Add(-1) >= 0 {
		return nil, fmt.Errorf("%w: the disk is full", loom.ErrStoreDown)
	}
	return f.Store.Output(ctx, q)
}
