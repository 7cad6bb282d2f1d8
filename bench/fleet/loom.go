package main

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/tasks"
)

// A loomRunner is Loom as a Go program uses it: a pool, the SSH transport, and
// the task that manifests call run.
type loomRunner struct {
	pool *loom.Pool
	job  *loom.Job
}

func newLoom(s spec) *loomRunner {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	job := &loom.Job{Name: "true", Task: tasks.Run{Command: "true"}}
	for _, h := range s.Hosts {
		job.Targets = append(job.Targets, &loom.Node{Name: h, Port: s.Port, User: s.User, Identity: s.Key})
	}
	config := loom.SSHConfig{ConfigFile: os.DevNull, KnownHosts: s.KnownHosts}
	return &loomRunner{job: job, pool: &loom.Pool{Dialer: &ssh.Dialer{SSHConfig: config, Log: log}, Max: s.Fanout, Log: log}}
}

func (r *loomRunner) round() (int, error) {
	var ok atomic.Int64
	err := r.pool.Run(context.Background(), r.job, time.Now(), func(e loom.Event) {
		if e.Kind == loom.KindNodeEnded && e.Result.Status.Good() {
			ok.Add(1)
		}
	})
	return int(ok.Load()), err
}

func (r *loomRunner) close() error { return r.pool.Close() }
