package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/joblog"
)

// logTime is how long the end of the daemon waits for the log files of jobs.
const logTime = 10 * time.Second

// jobLogs are the log files of the jobs of the current manifest.
type jobLogs struct {
	writer joblog.Writer
	jobs   atomic.Pointer[map[string]*loom.Job]
	log    *slog.Logger
}

// newJobLogs returns the log files of a manifest's jobs. Its observe is for the
// scheduler's events; close must be called once there are no more.
func newJobLogs(m *loom.Manifest, log *slog.Logger) *jobLogs {
	l := &jobLogs{log: log}
	l.writer.Log = log
	l.writer.Job = func(name string) *loom.Job { return (*l.jobs.Load())[name] }
	l.load(m)
	return l
}

// load replaces the jobs. Runs that are going write to the files that they
// began with.
func (l *jobLogs) load(m *loom.Manifest) {
	jobs := map[string]*loom.Job{}
	for _, j := range m.Jobs {
		if j.Output.File != "" {
			jobs[j.Name] = j
		}
	}
	l.jobs.Store(&jobs)
}

func (l *jobLogs) observe(e loom.Event) { l.writer.Observe(e) }

// close writes what waits, and says what could not be written.
func (l *jobLogs) close() {
	ctx, cancel := context.WithTimeoutCause(context.Background(), logTime, errors.New("the disk did not take it in time"))
	defer cancel()
	if err := l.writer.Close(ctx); err != nil {
		l.log.Error("logs of jobs are incomplete", "err", err)
	}
}
