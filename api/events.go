package api

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// What an Event can be about, beside the kinds of package loom. The last four
// concern the stream itself, whatever is asked for.
const (
	KindManifestBroken loom.Kind = "manifest-broken" // Text says how; what was good last is in force
	KindManifestMended loom.Kind = "manifest-mended"
	KindManifestLoaded loom.Kind = "manifest-loaded" // what the files say now is in force
	KindJobPaused      loom.Kind = "job-paused"      // By whom, until when, Text why
	KindJobResumed     loom.Kind = "job-resumed"
	KindStopping       loom.Kind = "stopping" // the daemon starts no more runs

	KindHello loom.Kind = "hello" // the stream is open: what happens from now on is sent
	KindReset loom.Kind = "reset" // there may be a gap before this, Text says why: look anew at what matters
	KindSlow  loom.Kind = "slow"  // the reader was too slow: events were lost, and the stream ends
	KindBye   loom.Kind = "bye"   // the stream ends, Text says why
)

// An Event is one thing that happened. Kinds of events may be added.
type Event struct {
	// Cursor is the place in the stream behind the event; "" if it has none.
	Cursor string `json:"-"`

	Kind   loom.Kind   `json:"kind" doc:"What it is about"`
	Time   time.Time   `json:"time,omitzero"`
	Job    string      `json:"job,omitempty"`
	Run    string      `json:"run,omitempty" doc:"Its ID"`
	Due    time.Time   `json:"due,omitzero" doc:"Of the run, or the tick"`
	Until  time.Time   `json:"until,omitzero" doc:"The last tick, if it is about several; the end of a pause"`
	Node   string      `json:"node,omitempty" doc:"Left out: it is about the whole run"`
	Plan   bool        `json:"plan,omitempty" doc:"The run only tells what its job would change"`
	Stream loom.Stream `json:"stream,omitempty" doc:"Of output: stdout, stderr, or log for the task's own words"`
	Text   string      `json:"text,omitempty" doc:"A line of output, a change, or a reason"`
	Raw    []byte      `json:"raw,omitempty" doc:"The line's bytes, if they are not UTF-8"`
	More   bool        `json:"more,omitempty" doc:"The line goes on in the next"`
	By     string      `json:"by,omitempty" doc:"Who did it"`
	Result *Result     `json:"result,omitempty" doc:"Of node-ended, and of retry: that of the attempt"`
	Ran    *Run        `json:"ran,omitempty" doc:"Of run-started and run-ended"`
}

// NewEvent returns e as the API shows it.
func NewEvent(e loom.Event) Event {
	w := Event{Kind: e.Kind, Time: utc(e.Time), Job: e.Job, Run: e.Run, Due: utc(e.Due), Until: utc(e.Until), Node: e.Node, Plan: e.Plan,
		Stream: e.Stream, Text: e.Text, Raw: raw(e.Text), More: e.More}
	if e.Result != nil {
		r := NewResult(*e.Result)
		w.Result = &r
	}
	if e.Ran != nil {
		r := NewRun(*e.Ran)
		w.Ran = &r
	}
	return w
}

// Loom is the reverse of NewEvent, as far as loom.Event has room for it.
func (e Event) Loom() loom.Event {
	l := loom.Event{Kind: e.Kind, Time: local(e.Time), Job: e.Job, Run: e.Run, Due: local(e.Due), Until: local(e.Until), Node: e.Node, Plan: e.Plan,
		Stream: e.Stream, Text: text(e.Text, e.Raw), More: e.More}
	if e.Result != nil {
		r := e.Result.Loom()
		l.Result = &r
	}
	if e.Ran != nil {
		r := e.Ran.Loom()
		l.Ran = &r
	}
	return l
}

// size is about how much memory the event takes, as itself and as it is sent.
func (e *Event) size() int {
	n := 600 + 3*(len(e.Job)+len(e.Run)+len(e.Node)+len(e.Text)+len(e.Raw)+len(e.By))
	if r := e.Result; r != nil {
		n += 400 + 3*len(r.Reason) + 300*len(r.Earlier)
		for _, c := range r.Changes {
			n += 16 + 3*len(c)
		}
	}
	if r := e.Ran; r != nil {
		n += 500 + 3*len(r.Reason)
		for _, t := range r.Targets {
			n += 16 + 3*len(t)
		}
	}
	return n
}

// An EventFilter says which events are wanted. Its zero value is all but output.
// An event must be of one of the kinds, of one of the jobs, and so on. Names of
// jobs and nodes may be patterns, as in path.Match.
type EventFilter struct {
	Kinds  []loom.Kind // nil: all, lines of output only if Output is set
	Jobs   []string    // nil: all, and what is about no job
	Nodes  []string    // nil: all, and what is about no node
	Runs   []string    // their whole IDs; nil: all, and what is about no run
	Output bool        // lines of output too
	After  string      // a Cursor: what came after it; "": what happens from now on
}

func (f *EventFilter) wantsOutput() bool {
	return f.Output || slices.Contains(f.Kinds, loom.KindOutput)
}

// lets reports whether an event is wanted.
func (f *EventFilter) lets(e *Event) bool {
	switch {
	case e.Kind == loom.KindOutput && !f.wantsOutput():
	case f.Kinds != nil && !slices.Contains(f.Kinds, e.Kind) && (e.Kind != loom.KindOutput || !f.Output):
	case f.Runs != nil && !slices.Contains(f.Runs, e.Run):
	case !matches(f.Jobs, e.Job), !matches(f.Nodes, e.Node):
	default:
		return true
	}
	return false
}

// matches reports whether a name matches one of the patterns, or there are none.
func matches(patterns []string, name string) bool {
	if patterns == nil {
		return true
	}
	return name != "" && slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok || p == name
	})
}

// check returns what is wrong with a filter, or nil.
func (f *EventFilter) check() error {
	for _, k := range f.Kinds {
		if !slices.Contains(eventKinds(), k) {
			return invalid(fmt.Sprintf("there are no events of kind %q: there are %v", k, eventKinds()))
		}
	}
	for _, p := range slices.Concat(f.Jobs, f.Nodes) {
		if _, err := path.Match(p, ""); err != nil {
			return invalid(fmt.Sprintf("pattern %q: %v", p, err))
		}
	}
	return nil
}

// eventKinds are the kinds of events that can be asked for.
func eventKinds() []loom.Kind {
	return []loom.Kind{loom.KindRunStarted, loom.KindNodeStarted, loom.KindOutput, loom.KindChanged, loom.KindRetry, loom.KindNodeEnded,
		loom.KindRunEnded, loom.KindTickSkipped, loom.KindTickMissed, loom.KindStoreDown, loom.KindStoreBack,
		KindManifestBroken, KindManifestMended, KindManifestLoaded, KindJobPaused, KindJobResumed, KindStopping}
}

// streams adds what goes on for as long as somebody reads it.
func (s *Server) streams(api huma.API, stopping <-chan struct{}) {
	type events struct {
		Kind   []loom.Kind `query:"kind,explode" doc:"Only of these kinds; left out: all but output"`
		Job    []string    `query:"job,explode" doc:"Only about jobs of these names; * and ? stand for others"`
		Node   []string    `query:"node,explode" doc:"Only about nodes of these names; * and ? stand for others"`
		Run    []string    `query:"run,explode" doc:"Only about the runs with these IDs"`
		Output bool        `query:"output" doc:"Lines of output too"`
		After  string      `query:"after" doc:"As Last-Event-ID, for those who can't set that"`
		Last   string      `header:"Last-Event-ID" doc:"The id of the last event that was read: what came after it is sent. Left out: what happens from now on"`
	}
	stream(s, api, streamOp{path: "/events", tag: "events", id: "stream-events", summary: "What happens, as it happens", stopping: stopping,
		about: "What this daemon does. The event's name is the kind in its data. The first is hello, once the stream is open; " +
			"reset says that events before it may be lost, since the daemon was started anew or has forgotten them: ask anew for what matters; " +
			"slow, that this reader has lost events, and bye, that the stream ends: go on with the last id that was read.",
		data: Event{}},
		func(_ context.Context, in *events) (func(context.Context, *eventWriter) error, error) {
			f := EventFilter{Kinds: in.Kind, Jobs: in.Job, Nodes: in.Node, Runs: in.Run, Output: in.Output, After: in.Last}
			if f.After == "" {
				f.After = in.After
			}
			if s.Feed == nil {
				return nil, s.alone("tell what happens")
			}
			if err := f.check(); err != nil {
				return nil, err
			}
			return func(ctx context.Context, w *eventWriter) error { return s.tell(ctx, w, f, stopping) }, nil
		})
	type output struct {
		ID    string `path:"run" doc:"A run's ID, or its beginning if there is only one of that"`
		Node  string `query:"node" doc:"Left out: all"`
		After int64  `query:"after" minimum:"0" doc:"A chunk's cursor; left out: from the beginning"`
		Last  int64  `header:"Last-Event-ID" minimum:"0" doc:"The same, for those who come back"`
	}
	stream(s, api, streamOp{path: "/runs/{run}/output/stream", tag: "runs", id: "stream-output", summary: "What a run prints, as it does", stopping: stopping,
		about: "Events output have chunks of output, whose cursors are their ids. At last an event end has the run, as it ended. " +
			"Events error have a problem, and bye says that the stream ends though the run goes on: go on with the last id that was read.",
		data: Chunk{}, more: []any{Run{}, Problem{}, Event{}}},
		func(ctx context.Context, in *output) (func(context.Context, *eventWriter) error, error) {
			r, err := s.run(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			q := loom.OutputQuery{Run: r.ID, Node: in.Node, After: max(in.After, in.Last), Limit: mostChunks}
			return func(ctx context.Context, w *eventWriter) error { return s.print(ctx, w, r, q, stopping) }, nil
		})
}

// tell sends what happens until the daemon stops, or the reader is gone or too
// slow.
func (s *Server) tell(ctx context.Context, w *eventWriter, f EventFilter, stopping <-chan struct{}) error {
	l, gap := s.Feed.listen(f, f.After)
	defer l.leave()
	first := Event{Kind: KindHello, Time: utc(time.Now())}
	if gap != "" {
		first.Kind, first.Text = KindReset, gap
	}
	if err := w.send(l.here(), string(KindHello), Event{Kind: KindHello, Time: first.Time}); err != nil {
		return err
	}
	if gap != "" {
		if err := w.send(l.here(), string(KindReset), first); err != nil {
			return err
		}
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for sent := l.here(); ; {
		found, news, err := l.next()
		if err != nil {
			return w.last(KindSlow, "you read too slowly: events were lost to you")
		}
		for _, it := range found {
			if err := w.write(s.Feed.encode(it)); err != nil {
				return err
			}
		}
		if len(found) > 0 {
			sent = l.feed.cursor(found[len(found)-1].number)
			continue
		}
		if err := w.flush(); err != nil {
			return err
		}
		select {
		case <-news:
		case <-beat.C:
			at := ""
			if here := l.here(); here != sent {
				at, sent = here, here
			}
			if err := w.beat(at); err != nil {
				return err
			}
		case <-ctx.Done():
			return w.last(KindBye, context.Cause(ctx).Error())
		case <-stopping:
			return w.last(KindBye, "the daemon is stopping")
		}
	}
}

// print sends what a run prints until it has ended.
func (s *Server) print(ctx context.Context, w *eventWriter, r loom.Run, q loom.OutputQuery, stopping <-chan struct{}) error {
	for {
		out, err := s.follow(ctx, r, q, heartbeat, stopping)
		if ctx.Err() != nil {
			return w.last(KindBye, context.Cause(ctx).Error())
		}
		if err == nil && out.Ended {
			r, err = s.run(ctx, r.ID)
		}
		if err != nil {
			return w.send("", "error", problem(err))
		}
		for _, c := range out.Chunks {
			if err := w.send(fmt.Sprint(c.Cursor), "output", c); err != nil {
				return err
			}
		}
		q.After = out.Next
		switch {
		case out.Ended:
			return w.send("", "end", NewRun(r))
		case len(out.Chunks) == 0:
			err = w.beat("")
		default:
			err = w.flush()
		}
		if err != nil {
			return err
		}
		gather := time.After(0)
		if n := len(out.Chunks); n > 0 && n < q.Limit {
			gather = time.After(gatherFirst + time.Duration(s.open.count())*gatherPerStream)
		}
		select {
		case <-stopping:
			return w.last(KindBye, "the daemon is stopping")
		case <-ctx.Done():
			return w.last(KindBye, context.Cause(ctx).Error())
		case <-gather:
		}
	}
}

// acted tells of what a person did.
func (f *Feed) acted(a loom.Action) {
	kinds := map[string]loom.Kind{loom.VerbPause: KindJobPaused, loom.VerbResume: KindJobResumed}
	if kind := kinds[a.Verb]; kind != "" && f != nil {
		f.Publish(Event{Kind: kind, Time: utc(time.Now()), Job: a.Object, By: a.By, Text: a.Why, Until: utc(a.Until)})
	}
}
