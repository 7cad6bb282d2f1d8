package api

import (
	"context"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// How often a store that does not tell of more output, since other processes write
// to it as well, is asked by who waits for it: at first, and when nothing has come for
// a while.
const (
	lookFirst = 50 * time.Millisecond
	lookLast  = 500 * time.Millisecond
)

// How long a stream, after some output, lets more of it gather before it looks again,
// so that what is printed without a rest is not fetched line by line: longer, the more
// streams there are.
const (
	gatherFirst     = 5 * time.Millisecond
	gatherPerStream = 50 * time.Microsecond
)

// An Output is some of what a run printed.
type Output struct {
	Chunks []Chunk `json:"chunks"`
	Next   int64   `json:"next" doc:"Ask again with after=this for what comes next"`
	Ended  bool    `json:"ended" doc:"The run has ended and this is the last of its output"`
}

// output adds what runs print.
func (s *Server) output(api huma.API, stopping <-chan struct{}) {
	type output struct {
		ID    string `path:"run" doc:"A run's ID, or its beginning if there is only one of that"`
		Node  string `query:"node" doc:"Left out: all"`
		After int64  `query:"after" minimum:"0" doc:"A chunk's cursor; left out: from the beginning"`
		Limit int    `query:"limit" minimum:"1" maximum:"100" default:"100" doc:"How many chunks at most, of up to 64 KiB each"`
		Wait  int    `query:"wait" minimum:"0" maximum:"60" doc:"How many seconds to wait for output if there is none and the run is going"`
	}
	get(api, "/runs/{run}/output", "runs", "get-output", "What a run printed, oldest first", func(ctx context.Context, in *output) (Output, error) {
		r, err := s.run(ctx, in.ID)
		if err != nil {
			return Output{}, err
		}
		q := loom.OutputQuery{Run: r.ID, Node: in.Node, After: in.After, Limit: in.Limit}
		return s.follow(ctx, r, q, time.Duration(in.Wait)*time.Second, stopping)
	})
}

// follow returns output of a run as soon as there is any, the run has ended, or
// the time to wait is up. A store that tells when there is more is not asked before.
func (s *Server) follow(ctx context.Context, r loom.Run, q loom.OutputQuery, wait time.Duration, stopping <-chan struct{}) (Output, error) {
	out, err := s.printed(ctx, r, q)
	if err != nil || len(out.Chunks) > 0 || out.Ended || wait == 0 {
		return out, err
	}
	var news <-chan struct{}
	if w, ok := s.Store.(loom.Watcher); ok {
		var done func()
		news, done = w.Watch(r.ID)
		defer done()
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	for look := lookFirst; ; look = min(2*look, lookLast) {
		// What came before it was watched is found now.
		if r, err = s.run(ctx, r.ID); errors.Is(err, loom.ErrNotFound) {
			out.Ended = true // it was trimmed
			return out, nil
		} else if err != nil {
			return Output{}, err
		}
		if out, err = s.printed(ctx, r, q); err != nil || len(out.Chunks) > 0 || out.Ended {
			return out, err
		}
		var again <-chan time.Time
		if news == nil {
			again = time.After(look)
		}
		select {
		case <-ctx.Done():
			return Output{}, context.Cause(ctx)
		case <-stopping:
			return out, nil
		case <-end.C:
			return out, nil
		case <-news:
		case <-again:
		}
	}
}

// printed returns what there is of a run's output. The run was looked at before, so
// one that has ended prints no more.
func (s *Server) printed(ctx context.Context, r loom.Run, q loom.OutputQuery) (Output, error) {
	chunks, err := s.Store.Output(ctx, q)
	if err != nil {
		return Output{}, err
	}
	out := Output{Chunks: list(chunks, NewChunk), Next: q.After, Ended: r.Status.Ended() && len(chunks) < q.Limit}
	if len(chunks) > 0 {
		out.Next = chunks[len(chunks)-1].Cursor
	}
	return out, nil
}
