package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/joblog"
)

// runFlags are those of run and exec.
type runFlags struct {
	local   bool
	stream  bool
	output  *string
	most    int
	timeout time.Duration

	why     string   // for what, if it is remembered
	command bool     // it is no job, but what a person typed, and is not remembered if it is done from here
	targets []string // instead of the job's own; nil: those

	given func(flag string) bool
}

func (f *runFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.local, "local", false, "do the work from here, in this process, without the daemon")
	cmd.Flags().IntVar(&f.most, "max", 0, "at most so many nodes at once (default the max_workers of the configuration)")
	f.shows(cmd)
}

// shows adds the flags that say how work is shown.
func (f *runFlags) shows(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stream, "stream", false, "show each line at once, after its node's name")
	f.output = outputFlag(cmd, "text", "json")
	f.given = cmd.Flags().Changed
}

func (p *Program) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run JOB",
		Short: "Run a job now",
		Long: `Run has the daemon apply a job to its targets now, whatever its schedule is. On a
terminal it shows how far the run is and what each node does; at the end what they
printed, the same of several nodes only once, and where it failed, and why. It exits
with 1 if the job failed on any node. Ctrl-C asks whether to cancel the run or to
leave it to the daemon; where there is nobody to ask, the daemon goes on with it.

With --plan nothing is changed on the nodes: each task that can tell says what it
would change there, each that can't is skipped. Such a run is remembered as a plan,
beside the job's own runs: it does not count as the job's last, no other job follows
it, nobody is told of it, and it stands in no other run's way.

With --local the work is done from here, in this process, and is remembered where
the daemon's is. Ctrl-C then ends the work on the nodes.`,
		Example: `  ` + p.Name + ` run backup
  ` + p.Name + ` run backup --on db3 --detach --why "the disk was full"
  ` + p.Name + ` run motd --plan
  ` + p.Name + ` run upgrade --max 1 --timeout 20m
  ` + p.Name + ` run backup --local --on 'db*' --stream`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeJobs,
	}
	on := cmd.Flags().StringArray("on", nil, "`targets` instead of the job's own: names, @groups, patterns, !exclusions")
	plan := cmd.Flags().Bool("plan", false, "only tell what would change, and change nothing")
	detach := cmd.Flags().Bool("detach", false, "have the daemon start it, and don't wait for its end")
	why := cmd.Flags().String("why", "", "a `text` that is kept with the run")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "end it on a node after this long, instead of the job's own timeout")
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if !f.local {
			q := loom.Request{Why: *why, Timeout: f.timeout, Max: f.most, Plan: *plan}
			return p.order(cmd.Context(), func(m *memory) (loom.Run, error) {
				return p.trigger(cmd.Context(), m, args[0], *on, q)
			}, *detach, &f)
		}
		if *detach {
			return Usage("--detach and --local exclude each other: there would be nobody to do the work")
		}
		f.why = *why
		m, err := p.best(cmd.Context())
		if err != nil {
			return err
		}
		found, err := findJob(m, args[0])
		if err != nil {
			return err
		}
		j := *found // the manifest's own stays as it is
		if len(*on) > 0 {
			if j.Targets, err = selectNodes(m, *on); err != nil {
				return err
			}
		}
		if len(*on) > 0 {
			f.targets = names(j.Targets)
		}
		if f.timeout > 0 {
			j.Timeout = f.timeout
		}
		if *plan {
			return p.work(cmd.Context(), m, j.Plan(), &f, true)
		}
		return p.work(cmd.Context(), m, &j, &f, false)
	}
	return cmd
}

func (p *Program) execCommand() *cobra.Command {
	f := runFlags{command: true}
	var sudo sudoFlag
	var e api.Exec
	cmd := &cobra.Command{
		Use:   "exec TARGETS -- COMMAND",
		Short: "Run a command on many nodes at once",
		Long: `Exec has the daemon run a command on nodes, or with --local this process, and shows
what they print. The words after -- are joined by spaces, as ssh does, and are a text
for the nodes' shell. With one node its output is passed on as it comes; with several
it is shown when all have ended, and what is the same on several nodes only once, or
with --stream at once. It exits with 1 if the command failed on any node.`,
		Example: `  ` + p.Name + ` exec all -- uptime
  ` + p.Name + ` exec '@web,!web3' --sudo -- systemctl reload nginx
  ` + p.Name + ` exec @db --stream --timeout 30s -- 'dmesg | tail -n 3'
  ` + p.Name + ` exec db1 --local -- cat /etc/motd`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(args) < 2:
				return errors.New("exec needs targets and a command: exec TARGETS -- COMMAND")
			case dash == 0:
				return errors.New("the targets stand before the --")
			}
			return nil
		},
		ValidArgsFunction: p.completeTargets,
	}
	cmd.Flags().Var(&sudo, "sudo", "run it by sudo as this user")
	cmd.Flag("sudo").NoOptDefVal = sudoUsual
	cmd.Flags().StringVar(&e.User, "user", "", "log in to the nodes as this `user`, instead of their own")
	cmd.Flags().StringVar(&e.Dir, "dir", "", "`directory` on the nodes to run it in")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "end it on a node after this long (default 1h)")
	detach := cmd.Flags().Bool("detach", false, "have the daemon start it, and don't wait for its end")
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		ctx := cmd.Context()
		dash := max(cmd.ArgsLenAtDash(), 1)
		e.Targets, e.Command, e.Timeout, e.Max = args[:dash], strings.Join(args[dash:], " "), f.timeout.Seconds(), f.most
		if sudo.set {
			e.Sudo = cmp.Or(sudo.user, "*")
		}
		switch {
		case f.local && *detach:
			return Usage("--detach and --local exclude each other: there would be nobody to do the work")
		case !f.local:
			return p.order(ctx, func(m *memory) (loom.Run, error) { return m.daemon.Exec(ctx, e, "") }, *detach, &f)
		}
		m, err := p.best(ctx)
		if err != nil {
			return err
		}
		targets, err := selectNodes(m, e.Targets)
		if err != nil {
			return err
		}
		return p.work(ctx, m, &loom.Job{
			Name: "exec", TaskName: "exec", Targets: targets, Timeout: e.Limit(), User: e.User, Sudo: e.Sudo, Dir: e.Dir,
			Task: loom.TaskFunc(func(ctx context.Context, s *loom.Session) error { return s.Run(ctx, e.Command) }),
		}, &f, false)
	}
	return cmd
}

// A sudoFlag is a flag that may have a user.
type sudoFlag struct {
	set  bool
	user string // "": the node's own choice
}

const sudoUsual = "root"

var _ pflag.Value = (*sudoFlag)(nil)

func (s *sudoFlag) String() string { return s.user }
func (s *sudoFlag) Type() string   { return "user" }
func (s *sudoFlag) Set(v string) error {
	s.set, s.user = true, v
	if v == sudoUsual {
		s.user = "" // root, unless the node says otherwise
	}
	return nil
}

// mode is how to show what is done.
func (f *runFlags) mode(plain bool) viewMode {
	switch {
	case *f.output == "json":
		return viewJSON
	case f.stream:
		return viewStream
	case plain:
		return viewPlain
	}
	return viewGrouped
}

// check says what is wrong with the flags.
func (f *runFlags) check() error {
	switch {
	case f.most < 0, f.most == 0 && f.given("max"):
		return Usage("--max %d: write a number from 1", f.most)
	case f.timeout < 0, f.timeout == 0 && f.given("timeout"):
		return Usage("--timeout %v: write a duration such as 30s", f.timeout)
	case f.stream && *f.output == "json":
		return Usage("--stream and -o exclude each other")
	}
	return nil
}

// trigger has the daemon start a run of a job.
func (p *Program) trigger(ctx context.Context, mem *memory, job string, on []string, q loom.Request) (loom.Run, error) {
	q.By = mem.who()
	if len(on) > 0 {
		in := inquiry{memory: mem, api: mem.daemon}
		var err error
		if q.Targets, err = in.enabled(ctx, on); err != nil {
			return loom.Run{}, err
		}
	}
	return mem.daemon.Trigger(ctx, job, q)
}

// selectNodes is Manifest.Select for what a person typed.
func selectNodes(m *loom.Manifest, patterns []string) ([]*loom.Node, error) {
	nodes, err := m.Select(patterns...)
	switch {
	case err != nil:
		return nil, &Error{Code: ExitNotFound, Err: err}
	case len(nodes) == 0:
		return nil, &Error{Code: ExitNotFound, Err: fmt.Errorf("%s: all of these nodes are disabled", strings.Join(patterns, " "))}
	}
	return nodes, nil
}

// logTime is how long the end of a job waits for its log files.
const logTime = 10 * time.Second

// work runs a job from here, shows it, and writes its log.
func (p *Program) work(ctx context.Context, m *loom.Manifest, j *loom.Job, f *runFlags, plan bool) error {
	if len(j.Targets) == 0 {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("job %s has no targets: all of its nodes are disabled", j.Name)}
	}
	v := newView(p.Stdout, p.Stderr, f.mode(len(j.Targets) == 1 && !plan), len(j.Targets), names(j.Targets)...)
	v.plan, v.raw = plan, f.command && v.mode == viewPlain

	pool := &loom.Pool{Dialer: p.Dialer, Max: m.Config.MaxWorkers, Output: m.Config.History.Output, Log: slog.New(slog.DiscardHandler),
		Redactor: m.Redactor()}
	if f.most > 0 {
		pool.Max = f.most
	}
	defer pool.Close() //nolint:errcheck // the work is done
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		v.say("%s: %v: ending the work on the nodes; once more leaves them alone", p.Name, context.Cause(ctx))
	})
	logs := &joblog.Writer{Job: func(string) *loom.Job { return j }, Log: slog.New(slog.DiscardHandler)}
	observe := func(e loom.Event) {
		v.observe(e)
		logs.Observe(e)
	}
	still := animate(v)
	err := p.do(ctx, m, pool, j, f, observe, v.say)
	still()
	if !stop() {
		<-said
	}
	closing, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), logTime, errors.New("the disk did not take it in time"))
	defer cancel()
	if err := logs.Close(closing); err != nil {
		v.say("%s: %v", p.Name, err)
	}
	if err != nil {
		return err
	}

	return p.shown(v)
}

// shown shows what came of a run that has ended, and returns an error if that is
// not well.
func (p *Program) shown(v *view) error {
	if v.mode == viewJSON {
		if err := writeJSON(p.Stdout, v.json()); err != nil {
			return err
		}
	}
	if !v.end() {
		return &Error{Code: ExitFailed}
	}
	return nil
}

// do runs a job, and has it remembered if it is one of the manifest's. What comes
// of it is in the events; the error is that it was not begun.
func (p *Program) do(ctx context.Context, m *loom.Manifest, pool *loom.Pool, j *loom.Job, f *runFlags, observe func(loom.Event), say func(string, ...any)) error {
	if f.command || len(p.Stores) == 0 {
		_ = pool.Run(ctx, j, time.Now(), observe) // the events tell all that the error does
		return nil
	}
	mem, err := p.memory(ctx, m.Config.State)
	if errors.Is(err, errNothing) {
		mem = &memory{config: m.Config, dir: m.Config.State}
		mem.Store, err = p.Stores.Open(ctx, m.Config.Store, m.Config.State)
	}
	if err == nil {
		defer mem.close()
		once := &loom.Scheduler{Pool: pool, Store: mem.Store, Log: pool.Log, Observe: observe}
		_, err = once.Once(ctx, j, loom.Request{By: mem.who(), Why: cmp.Or(f.why, "run --local"), Targets: f.targets,
			Timeout: f.timeout, Max: f.most})
	}
	switch {
	case errors.Is(err, loom.ErrBusy):
		return &Error{Code: ExitFailed, Err: err, Hint: "wait for it, or give the job overlap: allow"}
	case ctx.Err() == nil && err != nil: // the work matters more
		say("%s: this run will not be remembered: %v", p.Name, err)
		_ = pool.Run(ctx, j, time.Now(), observe) // as above
	}
	return nil
}
