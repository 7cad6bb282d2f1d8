package api

import (
	"context"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// How often the store is asked for more output by who waits for it: at first, and
// when nothing has come for a while.
const (
	lookFirst = 50 * time.Millisecond
	lookLast  = 500 * time.Millisecond
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
// the time to wait is up.
func (s *Server) follow(ctx context.Context, r loom.Run, q loom.OutputQuery, wait time.Duration, stopping <-chan struct{}) (Output, error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	for look := lookFirst; ; look = min(2*look, lookLast) {
		// The run is looked at first, so that one that has ended prints no more.
		chunks, err := s.Store.Output(ctx, q)
		if err != nil {
			return Output{}, err
		}
		out := Output{Chunks: list(chunks, NewChunk), Next: q.After, Ended: r.Status.Ended() && len(chunks) < q.Limit}
		if len(chunks) > 0 {
			out.Next = chunks[len(chunks)-1].Cursor
		}
		if len(chunks) > 0 || out.Ended {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return Output{}, context.Cause(ctx)
		case <-stopping:
			return out, nil
		case <-end.C:
			return out, nil
		case <-time.After(look):
		}
		if r, err = s.run(ctx, r.ID); errors.Is(err, loom.ErrNotFound) {
			out.Ended = true // it was trimmed
			return out, nil
		} else if err != nil {
			return Output{}, err
		}
	}
}
