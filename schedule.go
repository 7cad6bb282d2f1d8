package loom

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// A Schedule says when a job is due. It is safe for concurrent use.
type Schedule interface {
	// Next returns the first time strictly after t at which the job is due, or
	// the zero Time if there is none.
	Next(t time.Time) time.Time
}

// ParseSchedule parses a cron expression, "@every 5m" or another macro, in loc
// (nil: UTC). It refuses an expression that is never due, and says what to
// write instead.
func ParseSchedule(expr string, loc *time.Location) (Schedule, error) {
	return nil, errors.New("soon")
}

// A Scheduler runs jobs when they are due.
type Scheduler struct {
	Pool  *Pool
	Grace time.Duration // how long running tasks may go on after a stop
	Log   *slog.Logger  // nil: slog.Default()

	// Observe, if not nil, is called for every event, from several goroutines.
	// It must not block.
	Observe func(Event)
}

// Load replaces the jobs, at any time. Runs that are going end with the job
// they began with; a job that is unchanged keeps its next tick.
func (s *Scheduler) Load(m *Manifest) {}

// Run runs jobs as they fall due until ctx is done. Then it starts no more,
// lets those that are going end for up to Grace, cancels what is left with
// ErrShutdown as the cause, and returns when the last has ended: nil if none
// had to be cancelled, else ErrShutdown. Closing the pool is the caller's.
func (s *Scheduler) Run(ctx context.Context) error { return nil }

// Trigger starts a run of a job now and returns without waiting for its end.
// The error wraps ErrNotFound if there is no such job.
func (s *Scheduler) Trigger(ctx context.Context, job string) (Run, error) { return Run{}, nil }

// Cancel ends a run that is going, with ErrCancelled as the cause.
func (s *Scheduler) Cancel(run string) error { return nil }
