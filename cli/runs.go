package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/why"
)

// runStatuses are those that runs can have.
func runStatuses() []string {
	return []string{"queued", "running", "ok", "changed", "failed", "cancelled", "lost"}
}

// runTriggers are those that runs can have.
func runTriggers() []string { return []string{"schedule", "catch-up", "manual", "after"} }

func (p *Program) runsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List what has run, and how it went",
		Long: `Runs lists the runs that are remembered, newest first. All filters must fit; those
that can be given several times, or with commas, name alternatives. Times are
such as 2h or 7d (so long ago), 02:30, "yesterday 02:30", 2027-03-28.`,
		Example: `  ` + p.Name + ` runs
  ` + p.Name + ` runs --job backup --status failed,lost --since 7d
  ` + p.Name + ` runs --node db3 --text "no space"
  ` + p.Name + ` runs --job motd --plan
  ` + p.Name + ` runs -n 20 --before 0dhqymbe3f2ka`,
		Args: cobra.NoArgs,
	}
	var q loom.RunQuery
	flags := cmd.Flags()
	flags.StringVar(&q.Job, "job", "", "only runs of this job")
	status := flags.StringSlice("status", nil, strings.Join(runStatuses(), ", "))
	flags.StringVar(&q.Node, "node", "", "only runs that were at work on this node")
	since := flags.String("since", "", "only runs from this `time` on")
	to := flags.String("until", "", "only runs before this `time`")
	trigger := flags.String("trigger", "", strings.Join(runTriggers(), ", "))
	plan := flags.Bool("plan", false, "only runs that told what would change (--plan=false: only others)")
	flags.StringVar(&q.Text, "text", "", "part of the job's name, of who asked for it, or of a reason")
	n := flags.IntP("number", "n", 30, "how many at most")
	before := flags.String("before", "", "only those older than this `run`, to see more")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json", "name")
	_ = cmd.RegisterFlagCompletionFunc("job", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return p.completeKnown(cmd, nil, begun)
	})
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(runStatuses(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("trigger", cobra.FixedCompletions(runTriggers(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("before", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return p.completeRuns(false)(cmd, nil, begun)
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *n < 1 {
			return Usage("-n %d: write a number from 1", *n)
		}
		for _, s := range *status {
			if !slices.Contains(runStatuses(), s) {
				return Usage("--status %s: write %s", s, strings.Join(runStatuses(), ", "))
			}
			q.Status = append(q.Status, loom.Status(s))
		}
		if *trigger != "" && !slices.Contains(runTriggers(), *trigger) {
			return Usage("--trigger %s: write %s", *trigger, strings.Join(runTriggers(), ", "))
		}
		q.Trigger, q.Limit = loom.Trigger(*trigger), *n+1
		if flags.Changed("plan") {
			q.Plan = plan
		}
		ctx := cmd.Context()
		m, err := p.memory(ctx, *state)
		if errors.Is(err, errNothing) {
			return p.nothing(err, *output)
		}
		if err != nil {
			return err
		}
		defer m.close()
		now := time.Now()
		if q.Since, err = parseSince("since", *since, m.config.Timezone, now, false); err != nil {
			return err
		}
		if q.Until, err = parseSince("until", *to, m.config.Timezone, now, false); err != nil {
			return err
		}
		if *before != "" {
			r, err := p.findRun(ctx, m, *before)
			if err != nil {
				return err
			}
			q.Before = r.ID
		}
		runs, err := m.Runs(ctx, q)
		if err != nil {
			return err
		}
		more := len(runs) > *n
		runs = runs[:min(len(runs), *n)]
		return p.listRuns(ctx, m, runs, *output, more, filtered(cmd), q.Job)
	}
	return cmd
}

// filtered reports whether flags of runs leave runs out.
func filtered(cmd *cobra.Command) bool {
	return slices.ContainsFunc([]string{"job", "status", "node", "since", "until", "trigger", "plan", "text", "before"}, cmd.Flags().Changed)
}

// nothing is the list of what there is when there is nothing.
func (p *Program) nothing(err error, output string) error {
	switch output {
	case "json":
		return writeJSON(p.Stdout, []string{})
	case "table":
		fmt.Fprintln(p.Stderr, err)
		if own, ok := errors.AsType[*Error](err); ok {
			fmt.Fprintln(p.Stderr, own.Hint)
		}
	}
	return nil
}

func (p *Program) listRuns(ctx context.Context, m *memory, runs []loom.Run, output string, more, some bool, job string) error {
	switch output {
	case "json":
		all := []api.Run{}
		for _, r := range runs {
			all = append(all, api.NewRun(r))
		}
		return writeJSON(p.Stdout, all)
	case "name":
		for _, r := range runs {
			fmt.Fprintln(p.Stdout, r.ID)
		}
		return nil
	}
	if len(runs) == 0 {
		return p.noRuns(ctx, m, some, job)
	}
	p.runsTable(p.Stdout, runs, time.Now())
	if more {
		last := runs[len(runs)-1].ID
		fmt.Fprintf(p.Stderr, "there are more: --before %s, or a greater -n\n", cut(last, short(idsOf(runs))))
	}
	return nil
}

// noRuns says why a list of runs is empty.
func (p *Program) noRuns(ctx context.Context, m *memory, some bool, job string) error {
	if job != "" {
		client := m.daemon
		if client == nil {
			in := p.within(m, p.known(ctx), nil)
			defer in.absent.close()
			client = in.api
		}
		if _, err := client.ShowJob(ctx, job, -1); errors.Is(err, loom.ErrNotFound) {
			fmt.Fprintln(p.Stderr, strings.TrimSuffix(err.Error(), ": "+loom.ErrNotFound.Error()))
		}
	}
	if some {
		one, err := m.Runs(ctx, loom.RunQuery{Limit: 1})
		if err != nil {
			return err
		}
		if len(one) > 0 {
			fmt.Fprintf(p.Stderr, "no run fits; the newest of all is %s of %s, %s\n", one[0].ID, one[0].Job, why.In(time.Until(one[0].Queued)))
			return nil
		}
	}
	if m.daemon == nil {
		fmt.Fprintf(p.Stderr, "nothing has run yet, and no daemon runs (start one: %s -c FILE)\n", p.Name)
	} else {
		fmt.Fprintf(p.Stderr, "nothing has run yet: %s next tells what will\n", p.Name)
	}
	return nil
}

func idsOf(runs []loom.Run) []string {
	all := make([]string, len(runs))
	for i, r := range runs {
		all[i] = r.ID
	}
	return all
}

// runsTable shows runs.
func (p *Program) runsTable(w io.Writer, runs []loom.Run, now time.Time) {
	t := table{head: []string{"RUN", "JOB", "STARTED", "TOOK", "TRIGGER", "STATUS", "NODES"}}
	n := short(idsOf(runs))
	for _, r := range runs {
		started := "-"
		switch {
		case !r.Started.IsZero():
			started = when(r.Started, now)
		case !r.Status.Ended():
			started = "due " + when(r.Due, now)
		}
		trigger := string(r.Trigger)
		if r.Plan {
			trigger = "plan"
		}
		if r.Trigger == loom.TriggerManual && r.By != "" {
			trigger += " (" + r.By + ")"
		}
		t.add(cut(r.ID, n), shorten(clean(r.Job), 40), started, runTook(r, now), shorten(clean(trigger), 30), statusWord(r.Status, r.Plan), countsOf(r))
	}
	t.write(w, terminal(p.Stdout))
}

// when is a moment in the past: no more of it than one needs.
func when(t, now time.Time) string {
	t = t.Local()
	now = now.Local()
	switch {
	case t.Year() == now.Year() && t.YearDay() == now.YearDay():
		return t.Format("15:04:05")
	case t.Year() == now.Year():
		return t.Format("01-02 15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// runTook is how long a run took, or has been going.
func runTook(r loom.Run, now time.Time) string {
	switch {
	case r.Started.IsZero():
		return "-"
	case r.Ended.IsZero():
		return took(max(now.Sub(r.Started), 0)) + "…"
	}
	return took(max(r.Ended.Sub(r.Started), 0))
}

// resultStatuses are those of results, the good ones first.
func resultStatuses() []loom.Status {
	return []loom.Status{loom.StatusOK, loom.StatusChanged, loom.StatusSkipped, loom.StatusFailed, loom.StatusTimeout,
		loom.StatusUnreachable, loom.StatusLost, loom.StatusCancelled}
}

// countsOf says on how many nodes a run ended how.
func countsOf(r loom.Run) string {
	var parts []string
	ended := 0
	for _, s := range resultStatuses() {
		if n := r.Counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, statusWord(s, r.Plan)))
			ended += n
		}
	}
	if rest := r.Nodes - ended; rest > 0 && !r.Status.Ended() {
		parts = append(parts, fmt.Sprintf("%d to go", rest))
	}
	if len(parts) == 0 {
		return fmt.Sprint(r.Nodes)
	}
	return strings.Join(parts, ", ")
}
