package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/cli"
	"github.com/dustinlacewell/loom/internal/why"
)

func demoCommand(p *cli.Program, proc *process) *cobra.Command {
	d := demo{p: p, out: p.Stdout}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show Loom at work on machines inside this process",
		Long: `Demo starts a few SSH servers inside this process, each with a directory of its
own to run commands in, writes manifests for them as a user would, runs the jobs,
and shows what happens: one that changes something, one that fails, one that takes
too long, an edit, and a broken edit. Nothing is installed, and nothing is left.`,
		Example: `  ` + p.Name + ` demo
  ` + p.Name + ` demo --for 1m --nodes 12
  ` + p.Name + ` demo --keep                    keep the files that it writes`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&d.length, "for", 24*time.Second, "how long to run")
	cmd.Flags().IntVar(&d.nodes, "nodes", 4, "how many machines")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "keep the files, and say where they are")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if d.nodes < 2 || d.nodes > 200 {
			return cli.Usage("--nodes %d: write a number from 2 to 200", d.nodes)
		}
		if d.length < time.Second {
			return cli.Usage("--for %v: write a duration from 1s", d.length)
		}
		return d.run(cmd.Context(), proc)
	}
	return cmd
}

// A demo is a fleet, and the tour through what Loom does with it.
type demo struct {
	p      *cli.Program
	out    io.Writer
	length time.Duration
	nodes  int
	keep   bool
	dir    string
	began  time.Time

	mu     sync.Mutex
	runs   map[string]map[loom.Status]int // how nodes ended, by job
	count  map[string]int                 // runs of each job
	failed map[string][]string            // of each run, until it ends: which node, and why
	said   map[string]bool                // what need not be said again
}

// run is the whole tour.
func (d *demo) run(ctx context.Context, proc *process) (err error) {
	if d.p.Dialer == nil {
		return errors.New("the demo needs a transport, and this program has none")
	}
	if d.dir, err = os.MkdirTemp("", "loom-demo-"); err != nil {
		return err
	}
	defer func() {
		if !d.keep {
			err = errors.Join(err, os.RemoveAll(d.dir))
		}
	}()
	fleet, err := startFleet(ctx, d.dir, d.nodes)
	if err != nil {
		return err
	}
	defer fleet.stop()
	if err := d.write(fleet); err != nil {
		return err
	}
	d.introduce(fleet)
	m, err := d.serve(ctx, proc)
	if err != nil {
		return err
	}
	d.sumUp(ctx, m)
	return nil
}

// write makes the files as a user would.
func (d *demo) write(f *fleet) error {
	for name, text := range map[string]string{
		"loom.yaml":       demoMain,
		"ssh_config":      "# Your own ~/.ssh/config is not asked in the demo.\n",
		"nodes.yaml":      f.nodesFile(),
		"data.yaml":       demoData,
		"motd":            "Loom was here.\n",
		"jobs/fleet.yaml": strings.ReplaceAll(demoFleet, "DIR", d.dir),
		"jobs/db.yaml":    demoDB,
	} {
		if err := d.edit(name, text); err != nil {
			return err
		}
	}
	return nil
}

// edit writes a file as a careful editor does, whole or not at all.
func (d *demo) edit(name, text string) error {
	name = filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"~")
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

func (d *demo) introduce(f *fleet) {
	names := f.names()
	fmt.Fprintf(d.out, `Here are %d machines that exist only inside this process: each has an SSH server
on 127.0.0.1 and a directory of its own. These files tell Loom about them:

%s
  loom.yaml        where the nodes and jobs are, and whom SSH trusts
  nodes.yaml       %s
  data.yaml        lists that every job file can refer to
  jobs/fleet.yaml  load and motd, on all of them
  jobs/db.yaml     backup and vacuum, on databases:

%s
Now they are served, for %v; ctrl-C ends it.

`, len(names), d.dir, cli.Fold(names), quoted(demoDB), d.length)
}

// quoted sets text off from what is said about it.
func quoted(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  | " + line)
	}
	return b.String()
}

// serve runs the jobs, as the daemon does, while the tour goes on.
func (d *demo) serve(ctx context.Context, proc *process) (*loom.Manifest, error) {
	quiet := slog.New(slog.DiscardHandler)
	r := &reloader{
		reader: &loom.ManifestReader{File: filepath.Join(d.dir, "loom.yaml"), Tasks: d.p.Tasks, State: filepath.Join(d.dir, "state")},
		watch:  newWatcher(quiet), log: quiet, tell: d.news,
	}
	defer r.watch.close()
	again, err := r.begin(ctx)
	if err != nil {
		return nil, &cli.Error{Code: cli.ExitFailed, Err: err}
	}
	cli.Configure(d.p.Dialer, r.current.Config.SSH)
	pool := &loom.Pool{Dialer: d.p.Dialer, Max: 50, Log: quiet}
	defer pool.Close() //nolint:errcheck // the demo is over
	d.began = time.Now()
	d.runs, d.count = map[string]map[loom.Status]int{}, map[string]int{}
	d.failed, d.said = map[string][]string{}, map[string]bool{}
	scheduler := &loom.Scheduler{Pool: pool, Grace: 3 * time.Second, Log: quiet, Observe: d.event}
	scheduler.Load(r.current)
	r.apply = scheduler.Load

	proc.serving.Store(true)
	defer proc.serving.Store(false)
	ctx, cancel := context.WithTimeout(ctx, d.length)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { r.run(ctx, proc.reload, again) })
	wg.Go(func() { d.tour(ctx) })
	wg.Go(func() {
		select {
		case <-proc.abort:
			scheduler.Abort()
		case <-ctx.Done():
		}
	})
	_ = scheduler.Run(ctx) // a job that was cut short at the end is no failure of the demo
	cancel()
	wg.Wait()
	return r.current, nil
}

// tour edits the files in the course of time.
func (d *demo) tour(ctx context.Context) {
	for _, step := range []struct {
		part       float64 // of the whole length
		name, text string
		say        string
	}{
		{0.30, "jobs/web.yaml", demoWeb, "someone adds jobs/web.yaml, with the job logs"},
		{0.50, "jobs/db.yaml", strings.Replace(demoDB, "timeout:", "timout:", 1), "someone mistypes a key in jobs/db.yaml"},
		{0.75, "jobs/db.yaml", strings.Replace(demoDB, "timeout: 2s", "timeout: 1s", 1), "someone mends jobs/db.yaml"},
	} {
		wait := time.NewTimer(time.Until(d.began.Add(time.Duration(step.part * float64(d.length)))))
		defer wait.Stop()
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		d.say("%s", "> "+step.say)
		if err := d.edit(step.name, step.text); err != nil {
			d.say("> which failed: %v", err)
		}
	}
}

// say prints a line of the story.
func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(format, args...)
}

// tell is say when d.mu is held. Lines fit into 80 columns.
func (d *demo) tell(format string, args ...any) {
	line := fmt.Sprintf("%5.1fs  ", time.Since(d.began).Seconds()) + fmt.Sprintf(format, args...)
	for len(line) > 79 {
		cut := strings.LastIndexByte(line[:80], ' ')
		if strings.TrimSpace(line[:max(cut, 0)]) == "" {
			break // one long word
		}
		fmt.Fprintln(d.out, line[:cut])
		line = strings.Repeat(" ", 21) + line[cut+1:]
	}
	fmt.Fprintln(d.out, line)
}

// news tells what came of an edit.
func (d *demo) news(n news) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, one := range []struct {
		what string
		jobs []string
	}{{"new job: ", n.Added}, {"removed job: ", n.Removed}, {"changed job: ", n.Changed}} {
		if len(one.jobs) > 0 {
			d.tell("  loom noticed: %s%s", one.what, few(one.jobs))
		}
	}
	for _, p := range n.Problems {
		short := *p
		if rel, err := filepath.Rel(d.dir, p.File); err == nil {
			short.File = rel
		}
		d.tell("  loom refused: %v", &short)
	}
	if len(n.Problems) > 0 {
		d.tell("  and goes on with what was good last")
	}
	if n.Mended {
		d.tell("  all is well again")
	}
}

// event tells what came of runs.
func (d *demo) event(e loom.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Kind {
	case loom.KindNodeEnded:
		if d.runs[e.Job] == nil {
			d.runs[e.Job] = map[loom.Status]int{}
		}
		d.runs[e.Job][e.Result.Status]++
		if why := e.Node + ": " + reason(e.Result); !e.Result.Status.Good() && !d.said[e.Job+why] {
			d.said[e.Job+why] = true
			d.failed[e.Run] = append(d.failed[e.Run], why)
		}
	case loom.KindRunEnded:
		d.count[e.Job]++
		d.tell("%-8s %-9s %s", e.Job, e.Ran.Status, ended(e.Ran))
		for _, why := range d.failed[e.Run] {
			d.tell("%-8s   %s", "", why)
		}
		delete(d.failed, e.Run)
	case loom.KindTickSkipped, loom.KindTickMissed:
		d.tell("%-8s skipped   %s", e.Job, e.Text)
	}
}

// reason says why a node failed: in the words of the command, if it had some.
func reason(r *loom.Result) string {
	exit, ok := errors.AsType[*loom.ExitError](r.Err)
	if !ok || exit.Stderr == "" {
		return cli.Reason(r)
	}
	return strings.TrimSpace(exit.Stderr)
}

// ended says how the nodes of a run ended.
func ended(r *loom.Run) string {
	var parts []string
	for _, s := range slices.Sorted(maps.Keys(r.Counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", r.Counts[s], s))
	}
	return fmt.Sprintf("%s, in %v", strings.Join(parts, ", "), r.Ended.Sub(r.Started).Round(time.Millisecond))
}

// sumUp ends the tour.
func (d *demo) sumUp(ctx context.Context, m *loom.Manifest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.out
	if ctx.Err() != nil {
		fmt.Fprintf(w, "\n%s.", signalName(ctx))
	}
	fmt.Fprintf(w, "\nIn %v, and how it ended on how many machines:\n\n  %-10s %5s %6s %8s %7s %8s %10s\n", time.Since(d.began).Round(time.Second),
		"JOB", "RUNS", "OK", "CHANGED", "FAILED", "TIMEOUT", "CANCELLED")
	for _, job := range slices.Sorted(maps.Keys(d.count)) {
		c := d.runs[job]
		fmt.Fprintf(w, "  %-10s %5d %6d %8d %7d %8d %10d\n", job, d.count[job], c[loom.StatusOK], c[loom.StatusChanged],
			c[loom.StatusFailed]+c[loom.StatusUnreachable]+c[loom.StatusLost], c[loom.StatusTimeout], c[loom.StatusCancelled])
	}
	fmt.Fprint(w, "\nWhat would have come next:\n\n")
	for _, t := range why.Upcoming(m.Jobs, time.Now(), time.Time{}, 5) {
		fmt.Fprintf(w, "  %s  %-8s on %s\n", t.Time.Format("15:04:05"), t.Job.Name, cli.Fold(targetNames(t.Job)))
	}
	name := cmp.Or(d.p.Name, "loomd")
	if d.keep {
		fmt.Fprintf(w, "\nThe files are in %s; the machines are gone.\n", d.dir)
	}
	fmt.Fprintf(w, `
Now your own machines. Say where they are in ~/.loom.yaml as in the files above
(what ssh NAME knows, Loom knows), and then:

  %[1]s check                             tells every mistake, with its place
  %[1]s tasks                             what jobs can do
  %[1]s run JOB --local                   one job, now
  %[1]s exec all --local -- uptime        any command, on all of them
  %[1]s                                   serves
`, name)
}

func targetNames(j *loom.Job) []string {
	var all []string
	for _, n := range j.Targets {
		all = append(all, n.Name)
	}
	return all
}

// The files of the demo.
const (
	demoMain = `nodesfile: nodes.yaml
jobspath: jobs/
datafile: data.yaml
ssh:
  config: ssh_config
  known_hosts: known_hosts
`
	demoData = `groups:
  - &databases ["@db"]
`
	demoFleet = `jobs:
  load:
    task: run
    args: [uptime]
    schedule: "*/3 * * * * *"
    targets: all
  motd:
    task: put
    args: [DIR/motd, motd]
    schedule: "*/4 * * * * *"
    targets: all
`
	demoDB = `jobs:
  backup:
    task: run
    args: ["mkdir -p backup && cp data/*.sql backup/"]
    schedule: "*/5 * * * * *"     # six fields: the first is seconds
    targets: *databases           # from data.yaml
  vacuum:
    task: run
    args: ["sleep 600"]
    schedule: "*/6 * * * * *"
    targets: [db1]
    timeout: 2s
`
	demoWeb = `jobs:
  logs:
    task: run
    args: ["echo $(date) >> access.log; wc -l < access.log"]
    schedule: "*/2 * * * * *"
    targets: "@web"
`
)
