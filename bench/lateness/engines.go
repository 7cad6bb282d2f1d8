package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	robfig "github.com/robfig/cron/v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// ticks are what a load came to.
type ticks struct {
	cpu time.Duration // from when the jobs were known to the end

	mu      sync.Mutex
	started []time.Duration // how late runs were started, as their events say
	begun   []time.Duration // how late the tasks began
	drained time.Duration   // the longest from a tick until it was recorded that its run had ended
}

func (t *ticks) add(list *[]time.Duration, late time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*list = append(*list, late)
}

// runLoom has a scheduler run the load, as loomd would: with the SQLite store,
// and a log of what happens.
func runLoom(ctx context.Context, l load) (_ *ticks, err error) {
	store, err := sqlite.Open(ctx, filepath.Join(l.dir, "loom.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	t := &ticks{}
	node := &loom.Node{Name: "here", Transport: "local"}
	m := &loom.Manifest{}
	for i := range l.jobs {
		when, err := loom.ParseSchedule(expression(l, i), time.UTC)
		if err != nil {
			return nil, err
		}
		m.Jobs = append(m.Jobs, &loom.Job{Name: fmt.Sprintf("job%05d", i), Schedule: when, Targets: []*loom.Node{node},
			Task: loom.TaskFunc(func(_ context.Context, s *loom.Session) error {
				t.add(&t.begun, time.Since(s.Due))
				return nil
			})})
	}
	words := loom.LogEvents(slog.New(slog.NewTextHandler(io.Discard, nil)))
	pool := &loom.Pool{Max: l.most}
	defer func() { err = errors.Join(err, pool.Close()) }()
	s := &loom.Scheduler{Pool: pool, Store: &finishes{Store: store, ticks: t}, Grace: time.Minute, Observe: func(e loom.Event) {
		words(e)
		switch e.Kind {
		case loom.KindRunStarted:
			t.add(&t.started, e.Time.Sub(e.Due))
		case loom.KindTickMissed, loom.KindTickSkipped, loom.KindStoreDown:
			panic(fmt.Sprintf("%s %s: %s", e.Kind, e.Job, e.Text))
		}
	}}
	s.Load(m)
	before := onCPU()
	err = s.Run(ctx)
	t.cpu = onCPU() - before
	return t, err
}

// finishes is a store that tells how long after their ticks runs are recorded as
// ended.
type finishes struct {
	loom.Store
	ticks *ticks
}

func (f *finishes) Finish(ctx context.Context, c loom.Claim, end loom.Run, last []loom.Event) error {
	err := f.Store.Finish(ctx, c, end, last)
	f.ticks.mu.Lock()
	defer f.ticks.mu.Unlock()
	f.ticks.drained = max(f.ticks.drained, time.Since(c.Run.Due))
	return err
}

// runRobfig has robfig/cron call as many functions.
func runRobfig(ctx context.Context, l load) (*ticks, error) {
	t := &ticks{}
	c := robfig.New(robfig.WithSeconds(), robfig.WithLocation(time.UTC))
	for i := range l.jobs {
		_, err := c.AddFunc(expression(l, i), func() {
			now := time.Now()
			t.add(&t.begun, now.Sub(l.due(i, now)))
		})
		if err != nil {
			return nil, err
		}
	}
	before := onCPU()
	c.Start()
	<-ctx.Done()
	<-c.Stop().Done()
	t.cpu = onCPU() - before
	return t, nil
}

// expression is when a job falls due, with seconds.
func expression(l load, job int) string {
	if l.every < time.Minute {
		return fmt.Sprintf("*/%d * * * * *", int(l.every/time.Second))
	}
	return fmt.Sprintf("%d * * * * *", l.second(job))
}
