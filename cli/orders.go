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
		Use:   "disable JOB",
		Short: "Keep a job from being fired, except by hand",
		Long: `Disable pauses a job: its schedule does not fire it, nor does the end of another job,
and each tick that is let go is written down with who asked for that and why. It
outlives restarts and changes of the files. Runs that are going go on.

TIME is such as 2h (from now), 18:00, "tomorrow 06:00" or 2027-03-28. A job that is
disabled already gets the new time and reason.`,
		Example: `  ` + p.Name + ` disable backup --until 2h --why "db3 gets a new disk"
  ` + p.Name + ` disable deploy`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeKnown,
	}
	until := cmd.Flags().String("until", "", "`time` from which on it is fired again (default: when it is enabled)")
	reason := cmd.Flags().String("why", "", "a `text` that others see")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.pause(cmd.Context(), *state, *output, loom.Action{Verb: loom.VerbPause, Object: args[0], Why: *reason}, *until)
	}
	return cmd
}

func (p *Program) enableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable JOB",
		Short: "Let a job be fired again that was disabled",
		Long: `Enable ends what disable began. A job whose manifest says enabled: false stays as
that says.`,
		Example:           `  ` + p.Name + ` enable backup`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completePaused,
	}
	reason := cmd.Flags().String("why", "", "a `text` that is written down")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return p.pause(cmd.Context(), *state, *output, loom.Action{Verb: loom.VerbResume, Object: args[0], Why: *reason}, "")
	}
	return cmd
}

// pause pauses a job, or ends that.
func (p *Program) pause(ctx context.Context, state, output string, a loom.Action, until string) error {
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
	j, err := in.api.ShowJob(ctx, a.Object, -1)
	if err != nil {
		return err
	}
	if !j.Remembered {
		return &Error{Code: ExitNotFound, Err: fmt.Errorf("job %q is in the manifests, but no daemon has taken it up yet: %w", a.Object, loom.ErrNotFound),
			Hint: fmt.Sprintf("start one (%s -c FILE), or write enabled: false in the manifest", p.Name)}
	}
	a.By = in.who()
	if err := in.Act(ctx, a); err != nil {
		return err
	}
	return p.paused(output, in, &j, a)
}

// paused tells what was done.
func (p *Program) paused(output string, in *inquiry, was *api.JobDetail, a loom.Action) error {
	type pausedJSON struct {
		Job    string    `json:"job"`
		Paused bool      `json:"paused"`
		Until  time.Time `json:"until,omitzero"`
	}
	done := pausedJSON{a.Object, a.Verb == loom.VerbPause, a.Until}
	tail := ""
	if in.daemon == nil {
		tail = "; no daemon runs now, but the next one knows"
	}
	switch {
	case a.Verb == loom.VerbResume && was.Disabled:
		return p.ordered(output, done, "job %s is not paused, but its schedule does not fire it: %s:%d says enabled: false", a.Object, was.File, was.Line)
	case a.Verb == loom.VerbResume && was.Pause == nil:
		return p.ordered(output, done, "job %s was not disabled%s", a.Object, tail)
	case a.Verb == loom.VerbResume:
		return p.ordered(output, done, "job %s is enabled again%s%s", a.Object, nextOf(was, time.Now()), tail)
	case a.Until.IsZero():
		return p.ordered(output, done, "job %s is disabled until it is enabled (%s enable %s)%s", a.Object, p.Name, a.Object, tail)
	}
	return p.ordered(output, done, "job %s is disabled until %s%s", a.Object, stamp(a.Until), tail)
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
