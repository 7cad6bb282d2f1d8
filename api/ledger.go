package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/dustinlacewell/loom"
)

const ledgerPrefix = Prefix + "/ledger/"

// What is sent to and from the ledger is what package loom has, under its names
// in Go; only events, of which there are many, are made small.
type (
	adoptRequest struct{ Jobs map[string]string }
	fireRequest  struct {
		Self    string
		Firings []loom.Firing
	}
	fireAnswer   struct{ Fired []loom.Fired }
	takeRequest  struct{ Self string }
	takeAnswer   struct{ Claim *loom.Claim }
	writeRequest struct {
		Claim  loom.Claim
		End    loom.Run // of finish
		Events []Event
	}
	nothing struct{}
)

// ledger adds the operations with which another process of the same user runs
// jobs and records them in this daemon's store.
func (s *Server) ledger(mux *http.ServeMux) {
	call(mux, "beat", s.Store.Beat)
	call(mux, "adopt", func(ctx context.Context, q adoptRequest) (nothing, error) {
		return nothing{}, s.Store.Adopt(ctx, q.Jobs)
	})
	call(mux, "fire", func(ctx context.Context, q fireRequest) (fireAnswer, error) {
		for i := range q.Firings {
			if r := &q.Firings[i].Run; r.Trigger == loom.TriggerManual && r.By == "" {
				r.By = caller(ctx).Name
			}
		}
		fired, err := s.Store.Fire(ctx, q.Self, q.Firings)
		return fireAnswer{fired}, err
	})
	call(mux, "take", func(ctx context.Context, q takeRequest) (takeAnswer, error) {
		c, err := s.Store.Take(ctx, q.Self)
		return takeAnswer{c}, err
	})
	call(mux, "record", func(ctx context.Context, q writeRequest) (nothing, error) {
		return nothing{}, s.Store.Record(ctx, q.Claim, each(q.Events, Event.Loom))
	})
	call(mux, "finish", func(ctx context.Context, q writeRequest) (nothing, error) {
		return nothing{}, s.Store.Finish(ctx, q.Claim, q.End, each(q.Events, Event.Loom))
	})
	call(mux, "trim", s.Store.Trim)
}

// call adds an operation of the ledger.
func call[In, Out any](mux *http.ServeMux, name string, do func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+ledgerPrefix+name, func(w http.ResponseWriter, r *http.Request) {
		if who := caller(r.Context()); !who.own {
			problem(fmt.Errorf("%w: the ledger is for the daemon's own user, on its own machine", fs.ErrPermission)).write(w)
			return
		}
		var in In
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			invalid(fmt.Sprintf("%s: %v", name, err)).write(w)
			return
		}
		out, err := do(r.Context(), in)
		if err != nil {
			problem(err).write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // who asked has gone if this fails
	})
}

// localRun has a run's times as those who are here know them.
func localRun(r *loom.Run) {
	for _, t := range []*time.Time{&r.Due, &r.Queued, &r.Started, &r.Ended} {
		*t = local(*t)
	}
}
