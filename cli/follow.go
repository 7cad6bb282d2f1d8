package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
)

// How often a run is looked at that a daemon works on: soon again while something
// happens, and the less often the more nodes there are to look at.
const (
	followFirst   = 100 * time.Millisecond
	followLast    = 500 * time.Millisecond
	followPerNode = 500 * time.Microsecond
	followAway    = 2 * time.Minute // so long a daemon may be away that is started anew
)

// A follower tells what happens in a run that a daemon works on in the events that
// the one who does the work would get. It asks for what is remembered and not for
// the daemon's own events: of several daemons with one store another may have the
// run, and one that is started anew takes it up.
type follower struct {
	store   loom.Archive
	id      string
	observe func(loom.Event)
	say     func(note string) // what is in the way; "": nothing is any more

	begun bool
	after int64 // the last chunk of output that was seen
	nodes map[string]*followed
}

// A followed is what was told of a node.
type followed struct {
	attempts, changes int
	output            []loom.Line
	ended             bool
}

// follow returns the run once it has ended and all of it was told. A daemon that
// is away for a while is waited for.
func (f *follower) follow(ctx context.Context) (loom.Run, error) {
	f.nodes = map[string]*followed{}
	pause := followFirst
	var away time.Time
	for {
		r, news, err := f.look(ctx)
		switch {
		case ctx.Err() != nil:
			return r, context.Cause(ctx)
		case errors.Is(err, loom.ErrStoreDown):
			if away.IsZero() {
				away = time.Now()
			}
			if time.Since(away) > followAway {
				return r, err
			}
			f.say(fmt.Sprintf("waiting for the daemon: %v", err))
			pause = followLast
		case err != nil:
			return r, err
		default:
			if !away.IsZero() {
				away = time.Time{}
				f.say("")
			}
			if r.Status.Ended() {
				f.observe(loom.Event{Kind: loom.KindRunEnded, Time: r.Ended, Job: r.Job, Run: r.ID, Due: r.Due, Plan: r.Plan, Ran: &r})
				return r, nil
			}
			pause = min(pause*3/2, followLast)
			if news {
				pause = followFirst
			}
			pause = max(pause, min(time.Duration(r.Nodes)*followPerNode, 2*time.Second))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return r, context.Cause(ctx)
		}
	}
}

// look tells what has happened since the last time.
func (f *follower) look(ctx context.Context) (r loom.Run, news bool, err error) {
	// What is asked for first is older: when a run has ended its results have,
	// and when a node has its output is there.
	found, err := f.store.Runs(ctx, loom.RunQuery{ID: f.id, Limit: 1})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("run %s is not kept any more: %w", f.id, loom.ErrNotFound)
	}
	if err != nil {
		return r, false, err
	}
	r = found[0]
	if !f.begun && !r.Started.IsZero() {
		f.begun, news = true, true
		f.tell(r, loom.Event{Kind: loom.KindRunStarted, Time: r.Started, Ran: &r})
	}
	results, err := f.store.Results(ctx, loom.ResultQuery{Runs: []string{f.id}})
	if err != nil {
		return r, news, err
	}
	for i := range results {
		news = f.node(r, &results[i]) || news
	}
	printed, err := f.printed(ctx, r)
	if err != nil {
		return r, news || printed, err
	}
	for i := range results {
		news = f.nodeEnded(r, &results[i]) || news
	}
	return r, news || printed, nil
}

func (f *follower) tell(r loom.Run, e loom.Event) {
	e.Job, e.Run, e.Due, e.Plan = r.Job, r.ID, r.Due, r.Plan
	f.observe(e)
}

// node tells that a node was begun, and begun again.
func (f *follower) node(r loom.Run, res *loom.Result) (news bool) {
	n := f.nodes[res.Node]
	if n == nil {
		n, news = &followed{}, true
		f.nodes[res.Node] = n
		if !res.Started.IsZero() {
			f.tell(r, loom.Event{Kind: loom.KindNodeStarted, Time: res.Started, Node: res.Node})
		}
	}
	for ; n.attempts < len(res.Earlier); n.attempts++ {
		a := res.Earlier[n.attempts]
		news = true
		f.tell(r, loom.Event{Kind: loom.KindRetry, Time: a.Ended, Node: res.Node,
			Text: fmt.Sprintf("attempt %d ended %s: %s", n.attempts+1, a.Status, a.Reason),
			Result: &loom.Result{Node: res.Node, Status: a.Status, ExitCode: a.ExitCode, Reason: a.Reason, Attempts: n.attempts + 1,
				Started: a.Started, Ended: a.Ended}})
	}
	return news
}

// printed tells what was printed.
func (f *follower) printed(ctx context.Context, r loom.Run) (news bool, err error) {
	for {
		chunks, err := f.store.Output(ctx, loom.OutputQuery{Run: f.id, After: f.after})
		if err != nil || len(chunks) == 0 {
			return news, err
		}
		for _, c := range chunks {
			f.after, news = c.Cursor, true
			n := f.nodes[c.Node]
			if n == nil { // it was begun after the results were read
				n = &followed{}
				f.nodes[c.Node] = n
				f.tell(r, loom.Event{Kind: loom.KindNodeStarted, Time: c.Lines[0].Time, Node: c.Node})
			}
			for _, l := range c.Lines {
				f.tell(r, loom.Event{Kind: loom.KindOutput, Time: l.Time, Node: c.Node, Stream: l.Stream, Text: l.Text, More: l.More})
			}
			n.output = append(n.output, c.Lines...)
		}
	}
}

// nodeEnded tells what a node changed, and that it has ended.
func (f *follower) nodeEnded(r loom.Run, res *loom.Result) (news bool) {
	n := f.nodes[res.Node]
	for ; n.changes < len(res.Changes); n.changes++ {
		news = true
		f.tell(r, loom.Event{Kind: loom.KindChanged, Time: time.Now(), Node: res.Node, Text: res.Changes[n.changes]})
	}
	if n.ended || !res.Status.Ended() {
		return news
	}
	whole := *res
	whole.Output, n.output, n.ended = slices.Clip(n.output), nil, true
	f.tell(r, loom.Event{Kind: loom.KindNodeEnded, Time: res.Ended, Node: res.Node, Result: &whole})
	return true
}
