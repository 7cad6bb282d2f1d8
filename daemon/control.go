package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/cli"
	"github.com/dustinlacewell/loom/internal/why"
)

// nextShown is of how many jobs a status names the next tick.
const nextShown = 10

// A control is what the API knows of the daemon.
type control struct {
	scheduler *loom.Scheduler
	pool      *loom.Pool
	dialer    loom.Dialer
	tasks     *loom.Registry
	reloader  *reloader
	started   time.Time
	state     string
	store     string // its kind
	feed      *api.Feed
	metrics   *api.Metrics
	told      told
	stopping  context.Context //nolint:containedctx // done when the daemon is to stop
}

var _ api.Control = (*control)(nil)

// Manifest is part of api.Control.
func (c *control) Manifest() *loom.Manifest { return c.reloader.latest.Load() }

// Status is part of api.Control.
func (c *control) Status() api.Status {
	s := api.Status{Started: c.started, StateDir: c.state, Stopping: c.stopping.Err() != nil}
	s.Store.Kind = c.store
	if since, err := c.scheduler.Health(); err != nil {
		s.Store.State, s.Store.Since, s.Store.Reason = api.StoreDown, since, err.Error()
	}
	if since, err := c.told.Health(); err != nil {
		s.Outbox = &api.Outbox{Since: since.UTC(), Reason: err.Error()}
	}
	for _, t := range why.Soonest(c.Manifest().Jobs, time.Now(), nextShown) {
		s.Next = append(s.Next, api.NextTick{Job: t.Job.Name, Time: t.Time, Note: t.Note})
	}
	return s
}

// Trigger is part of api.Control.
func (c *control) Trigger(ctx context.Context, job string, q loom.Request) (loom.Run, error) {
	return c.scheduler.Trigger(ctx, job, q)
}

// Cancel is part of api.Control.
func (c *control) Cancel(_ context.Context, run, why string) error {
	return c.scheduler.Cancel(run, why)
}

// Reload is part of api.Control.
func (c *control) Reload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case c.reloader.asked <- answer:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopping.Done():
		return loom.ErrShutdown
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// remember is what a daemon with a store does beside running jobs, until ctx ends.
func (c *control) remember(ctx context.Context, wg *sync.WaitGroup, store loom.Store, log *slog.Logger) {
	if store == nil {
		return
	}
	server := &api.Server{Store: store, Control: c, Feed: c.feed, Metrics: c.metrics, Notifications: c.told, Version: cli.Version(), Log: log}
	server.Redact = c.reloader.reader.Redactor.Redact
	doors, own := openDoors(ctx, server, c.Manifest().Config.API, c.state, log)
	wg.Go(func() { doors.serve(ctx, own) })
	wg.Go(func() { trim(ctx, store, func() loom.History { return c.Manifest().Config.History }, log) })
}
