package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/cli"
	"github.com/dustinlacewell/loom/internal/why"
	"github.com/dustinlacewell/loom/notify"
	"github.com/dustinlacewell/loom/secret"
)

// serveFlags are those of serve.
type serveFlags struct {
	logFormat, logLevel string
	state               string
}

// addServe adds the serve command, which is also what the program does without
// a command.
func addServe(root *cobra.Command, p *cli.Program, proc *process) {
	var f serveFlags
	serve := &cobra.Command{
		Use:   "serve",
		Short: "Run jobs as they fall due, in the foreground",
		Long: `Serve reads the manifests and runs jobs as they fall due, until SIGTERM or
SIGINT. Changes of the files are noticed and take effect at once, new files too. A
broken edit is logged, and what was good last keeps running. SIGHUP has the files
read again.

At a signal to stop, running work gets the grace of the configuration (30s) to
end, and is then ended on the nodes too. A second signal ends it at once.`,
		Example: `  ` + p.Name + ` serve -c /etc/loom/loom.yaml
  ` + p.Name + ` --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), p, proc, &f) },
	}
	root.RunE = serve.RunE
	for _, cmd := range []*cobra.Command{root, serve} {
		flags := cmd.Flags()
		flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
		flags.StringVar(&f.logLevel, "log-level", "info", "debug (with the output of jobs), info, warn or error")
		flags.StringVar(&f.state, "state", "", "`directory` of what is remembered, instead of the configuration's")
		for name, values := range map[string][]string{"log-format": {"text", "json"}, "log-level": {"debug", "info", "warn", "error"}} {
			_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // it is our own flag
		}
	}
	root.AddCommand(serve)
}

// logger returns the log that flags ask for.
func (f *serveFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, cli.Usage("--log-level %s: write debug, info, warn or error", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, cli.Usage("--log-format %s: write text or json", f.logFormat)
}

// serve runs jobs until ctx ends, and all that this needs: parts are closed in
// the reverse of the order in which they are made.
func serve(ctx context.Context, p *cli.Program, proc *process, f *serveFlags) error {
	log, err := f.logger(p.Stderr)
	if err != nil {
		return err
	}
	red := new(loom.Redactor)
	log = slog.New(red.Handler(log.Handler()))
	before := slog.Default()
	slog.SetDefault(log) // for a dialer that was not given one
	defer slog.SetDefault(before)

	r := &reloader{
		reader: &loom.ManifestReader{File: p.Config, Tasks: p.Tasks, State: f.state, Secrets: secret.Open, Key: keyIn(f.state), Redactor: red, Check: notify.Check},
		watch:  newWatcher(log), log: log, asked: make(chan chan error),
	}
	defer r.watch.close()
	again, err := r.begin(ctx)
	if err != nil {
		return &cli.Error{Code: cli.ExitFailed, Err: err}
	}
	m := r.current
	state, err := openState(cmp.Or(f.state, m.Config.State))
	if err != nil {
		return err
	}
	defer state.close() //nolint:errcheck // the kernel unlocks it anyway

	super := &supervisor{log: log}
	store, err := openStore(ctx, p.Stores, m.Config.Store, state.dir, super, log)
	if err != nil {
		return err
	}
	if store != nil {
		defer store.Close() //nolint:errcheck // all that was written is safe
	}

	cli.Configure(p.Dialer, m.Config.SSH)
	pool := &loom.Pool{Dialer: p.Dialer, Max: m.Config.MaxWorkers, Idle: m.Config.SSH.Idle, Output: m.Config.History.Output, Log: log, Redactor: red}
	defer pool.Close() //nolint:errcheck // nobody is left to tell
	logs := newJobLogs(m, log)
	defer logs.close()
	words, feed, metrics := loom.LogEvents(log), new(api.Feed), &api.Metrics{Pool: pool}
	told := newTold(m, store, red, state.dir, p.Name, log)
	scheduler := &loom.Scheduler{Pool: pool, Store: store, Grace: m.Config.Grace, Log: log,
		Observe: func(e loom.Event) { words(e); logs.observe(e); feed.Observe(e); metrics.Observe(e); told.Observe(e) }}
	scheduler.Load(m)

	r.super = super
	r.apply = func(now *loom.Manifest) {
		heed(log, m.Config, now.Config)
		cli.Configure(p.Dialer, now.Config.SSH)
		pool.Resize(now.Config.MaxWorkers)
		logs.load(now)
		scheduler.Load(now)
	}
	r.tell = func(n news) { logNews(log, n); tellNews(feed, n); told.Load(n.Manifest) }

	proc.serving.Store(true)
	defer proc.serving.Store(false)
	var wg sync.WaitGroup
	defer wg.Wait()
	rest, stop := context.WithCancel(context.WithoutCancel(ctx)) // what goes on while running work ends
	defer stop()
	c := &control{scheduler: scheduler, pool: pool, dialer: p.Dialer, tasks: p.Tasks, reloader: r, started: time.Now(), state: state.dir, store: m.Config.Store, stopping: ctx, feed: feed, metrics: metrics, told: told}
	c.remember(rest, &wg, store, log)
	announce(log, m, state.dir) // now that it can be asked
	wg.Go(func() { told.Run(rest) })
	wg.Go(func() { r.run(ctx, proc.reload, again) })
	wg.Go(func() { super.watchdog(rest, func() error { return alive(ctx, scheduler) }) })
	wg.Go(func() {
		select {
		case <-proc.abort:
			log.Warn("second signal: running work is cancelled")
			scheduler.Abort()
		case <-rest.Done():
		}
	})
	wg.Go(func() {
		<-ctx.Done()
		log.Info("stopping", "why", signalName(ctx), "grace", m.Config.Grace)
		super.stopping("waiting for running jobs")
		feed.Publish(api.Event{Kind: api.KindStopping, Time: time.Now().UTC(), Text: signalName(ctx)})
	})
	super.ready(status(m, len(r.told)))
	if err := scheduler.Run(ctx); err != nil {
		log.Warn("running work was cancelled", "err", err)
	}
	stop()
	wg.Wait()
	log.Info("stopped")
	return nil
}

// keyIn returns where the key of the secrets is in a state directory that was
// named, or "".
func keyIn(state string) string {
	if state == "" {
		return ""
	}
	return filepath.Join(state, loom.KeyFile)
}

// announce logs what a daemon starts with.
func announce(log *slog.Logger, m *loom.Manifest, state string) {
	logWarnings(log, m.Warnings)
	for _, p := range m.Problems {
		logProblem(log, p)
	}
	if len(m.Problems) > 0 {
		log.Error("manifest is broken: what is good of it runs", "problems", len(m.Problems))
	}
	log.Info("started", "version", cli.Version(), "file", m.File, "nodes", len(m.Nodes), "jobs", len(m.Jobs), "state", state, "pid", os.Getpid())
}

// heed says what of a changed configuration has to wait for a restart.
func heed(log *slog.Logger, began, now loom.Config) {
	for _, c := range []struct {
		key     string
		changed bool
	}{
		{"state", began.State != now.State},
		{"store", began.Store != now.Store},
		{"grace", began.Grace != now.Grace},
		{"ssh.idle", began.SSH.Idle != now.SSH.Idle},
		{"history.output", began.History.Output != now.History.Output},
		{"api", !sameDoors(began.API, now.API)},
	} {
		if c.changed {
			log.Warn("changed key takes effect at the next start", "key", c.key)
		}
	}
}

// alive reports whether the scheduler is at work. Once it has to stop it looks
// at the clock no more.
func alive(ctx context.Context, s *loom.Scheduler) error {
	if ctx.Err() != nil {
		return nil
	}
	return beating(s.Seen())
}

// status is a line about how things stand.
func status(m *loom.Manifest, problems int) string {
	s := fmt.Sprintf("jobs: %d, nodes: %d", len(m.Jobs), len(m.Nodes))
	if problems > 0 {
		s += fmt.Sprintf(", problems in the manifests: %d", problems)
	}
	if next := why.Upcoming(m.Jobs, time.Now(), time.Time{}, 1); len(next) > 0 {
		s += fmt.Sprintf(", next: %s at %s", next[0].Job.Name, next[0].Time.Format("15:04:05"))
	}
	return s
}
