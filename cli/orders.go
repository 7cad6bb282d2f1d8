package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// ordered tells that an order was given.
func (p *Program) ordered(output string, done any, format string, args ...any) error {
	if output == "json" {
		return writeJSON(p.Stdout, done)
	}
	fmt.Fprintf(p.Stdout, format+"\n", args...)
	return nil
}

func (p *Program) cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel RUN",
		Short: "End a run",
		Long: `Cancel ends a run: what it does on the nodes is ended there too. One that has not
begun never will. RUN is an ID, or the beginning of one.`,
		Example: `  ` + p.Name + ` cancel 0dhqymbe3f2ka --why "wrong release"
  ` + p.Name + ` cancel $(` + p.Name + ` runs --job deploy --status running -o name)`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeRuns(true),
	}
	reason := cmd.Flags().String("why", "", "a `text` that is kept with the run")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		m, r, err := p.openRun(ctx, *state, args[0])
		if err != nil {
			return err
		}
		defer m.close()
		if r.Status.Ended() {
			return &Error{Code: ExitFailed, Err: fmt.Errorf("run %s of job %s can't be cancelled: it ended %s at %s", r.ID, r.Job, r.Status, stamp(r.Ended))}
		}
		if err := m.Act(ctx, loom.Action{Verb: loom.VerbCancel, Object: r.ID, By: m.who(), Why: *reason}); err != nil {
			return err
		}
		what := "is cancelled"
		switch {
		case r.Status == loom.StatusRunning && m.daemon == nil:
			what = "is cancelled once a daemon runs, which takes up what was going"
		case r.Status == loom.StatusRunning:
			what = "is being cancelled"
		}
		return p.ordered(*output, map[string]string{"run": r.ID, "job": r.Job}, "run %s of job %s %s", r.ID, r.Job, what)
	}
	return cmd
}

func (p *Program) disableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disable JOB...",
		Short: "Keep jobs from being fired, except by hand",
		Long: `Disable pauses a job: its schedule does not fire it, nor does the end of another job,
and each tick that is let go is written down with who asked for that and why. It
outlives restarts and changes of the files. Runs that are going go on.

TIME is such as 2h (from now), 18:00, "tomorrow 06:00" or 2027-03-28. A job that is
disabled already gets the new time and reason. If one of several jobs does not exist,
none is disabled. -o json writes a list of them if several are named.`,
		Example: `  ` + p.Name + ` disable backup --until 2h --why "db3 gets a new disk"
  ` + p.Name + ` disable deploy migrate`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: several(p.completeKnown),
	}
	until := cmd.Flags().String("until", "", "`time` from which on it is fired again (default: when it is enabled)")
	reason := cmd.Flags().String("why", "", "a `text` that others see")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.pause(cmd.Context(), *state, *output, args, loom.Action{Verb: loom.VerbPause, Why: *reason}, *until)
	}
	return cmd
}

func (p *Program) enableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable JOB...",
		Short: "Let jobs be fired again that were disabled",
		Long: `Enable ends what disable began. A job whose manifest says enabled: false stays as
that says. If one of several jobs does not exist, none is enabled. -o json writes a
list of them if several are named.`,
		Example:           `  ` + p.Name + ` enable backup` + "\n" + `  ` + p.Name + ` enable deploy migrate`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: several(p.completePaused),
	}
	reason := cmd.Flags().String("why", "", "a `text` that is written down")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.pause(cmd.Context(), *state, *output, args, loom.Action{Verb: loom.VerbResume, Why: *reason}, "")
	}
	return cmd
}

// pause pauses jobs, or ends that: all of them, or none if one can't be.
func (p *Program) pause(ctx context.Context, state, output string, jobs []string, a loom.Action, until string) error {
	in, err := p.asking(ctx, state, func(ctx context.Context) (*loom.Manifest, error) { return p.known(ctx), nil })
	if err != nil {
		return err
	}
	defer in.close()
	if in.nothing != nil {
		return in.nothing
	}
	now := time.Now()
	if a.Until, err = parseSince("until", until, in.config.Timezone, now, true); err != nil {
		return err
	}
	if !a.Until.IsZero() && !a.Until.After(now) {
		return Usage("--until %s is not to come: it was %s", until, stamp(a.Until))
	}
	was, err := p.pausable(ctx, in, jobs)
	if err != nil {
		return err
	}
	a.By = in.who()
	done := []pausedJSON{}
	for i := range was {
		if a.Object = was[i].Name; ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := in.Act(ctx, a); err != nil {
			return err
		}
		if done = append(done, pausedJSON{a.Object, a.Verb == loom.VerbPause, a.Until}); output != "json" {
			fmt.Fprintln(p.Stdout, p.paused(in, &was[i], a))
		}
	}
	switch {
	case output != "json":
		return nil
	case len(jobs) == 1:
		return writeJSON(p.Stdout, done[0])
	}
	return writeJSON(p.Stdout, done)
}

// pausable returns the jobs of these names, each once. The error tells of all that
// can't be paused.
func (p *Program) pausable(ctx context.Context, in *inquiry, names []string) ([]api.JobDetail, error) {
	var jobs []api.JobDetail
	var failed []error
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		j, err := in.api.ShowJob(ctx, name, -1)
		switch {
		case err == nil && !j.Remembered:
			err = &Error{Code: ExitNotFound, Err: fmt.Errorf("job %q is in the manifests, but no daemon has taken it up yet: %w", name, loom.ErrNotFound),
				Hint: fmt.Sprintf("start one (%s -c FILE), or write enabled: false in the manifest", p.Name)}
			fallthrough
		case err != nil:
			failed = append(failed, err)
		default:
			jobs = append(jobs, j)
		}
	}
	if len(failed) == 1 {
		return nil, failed[0]
	}
	return jobs, errors.Join(failed...)
}

// A pausedJSON is a job that was paused, or no longer is, for programs.
type pausedJSON struct {
	Job    string    `json:"job"`
	Paused bool      `json:"paused"`
	Until  time.Time `json:"until,omitzero"`
}

// paused tells what was done.
func (p *Program) paused(in *inquiry, was *api.JobDetail, a loom.Action) string {
	tail := ""
	if in.daemon == nil {
		tail = "; no daemon runs now, but the next one knows"
	}
	switch {
	case a.Verb == loom.VerbResume && was.Disabled:
		return fmt.Sprintf("job %s is not paused, but its schedule does not fire it: %s:%d says enabled: false", a.Object, was.File, was.Line)
	case a.Verb == loom.VerbResume && was.Pause == nil:
		return fmt.Sprintf("job %s was not disabled%s", a.Object, tail)
	case a.Verb == loom.VerbResume:
		return fmt.Sprintf("job %s is enabled again%s%s", a.Object, nextOf(was, time.Now()), tail)
	case a.Until.IsZero():
		return fmt.Sprintf("job %s is disabled until it is enabled (%s enable %s)%s", a.Object, p.Name, a.Object, tail)
	}
	return fmt.Sprintf("job %s is disabled until %s%s", a.Object, stamp(a.Until), tail)
}

// nextOf says when a job runs next, if that is known.
func nextOf(j *api.JobDetail, now time.Time) string {
	if j.Next.IsZero() {
		return ""
	}
	t := j.Next.Local()
	if j.Timezone != "" {
		t = zoned(j.Next, j.Timezone)
	}
	return ", and runs next at " + clock(t, now)
}

func (p *Program) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy all that is remembered to a file",
		Long: `Backup writes a copy of the store, as it is at one moment, while the daemon goes on.
The file must not exist yet. A daemon elsewhere writes it on its own machine. To go
back to it, stop the daemon and put the file in the place of loom.db in the state
directory.`,
		Example: `  ` + p.Name + ` backup /srv/backup/loom-$(date +%F).db`,
		Args:    cobra.ExactArgs(1),
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		m, err := p.memory(ctx, *state)
		if err != nil {
			return err
		}
		defer m.close()
		file, err := m.backupFile(args[0])
		if err != nil {
			return err
		}
		store, ok := m.Store.(loom.Backuper)
		if !ok {
			return &Error{Code: ExitFailed, Err: errors.New("this kind of store can't be copied by loom: use the tools of its database")}
		}
		began := time.Now()
		if err := store.Backup(ctx, file); err != nil {
			return err
		}
		return p.backedUp(*output, m, file, time.Since(began))
	}
	return cmd
}

// backupFile returns the name of the file that is to be written, which must not be
// there, as whoever writes it understands it.
func (m *memory) backupFile(name string) (string, error) {
	if m.remote != nil { // which looks whether it is there
		if !filepath.IsAbs(name) {
			return "", Usage("backup %s: the daemon writes it on its own machine: give the file's absolute name", name)
		}
		return name, nil
	}
	file, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(file); err == nil {
		return "", &Error{Code: ExitFailed, Err: fmt.Errorf("%s exists already, and is left as it is", file), Hint: "name a file that is not there yet"}
	}
	return file, nil
}

// backedUp tells that a file was written.
func (p *Program) backedUp(output string, m *memory, file string, after time.Duration) error {
	type backupJSON struct {
		File  string `json:"file"`
		Bytes int64  `json:"bytes"`
	}
	if m.remote != nil {
		return p.ordered(output, map[string]string{"file": file}, "%s written on the daemon's machine in %s", file, took(after))
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrPermission): // the daemon's user may be another
		return p.ordered(output, backupJSON{File: file}, "%s written in %s", file, took(after))
	case err != nil:
		return err
	}
	return p.ordered(output, backupJSON{file, info.Size()}, "%s: %s, written in %s", file, sizeText(info.Size()), took(after))
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	f, units := float64(n)/unit, "KMGT"
	for f >= unit && len(units) > 1 {
		f, units = f/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}
