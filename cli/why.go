package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/why"
)

// mostAnswers is how many ticks of a day are explained.
const mostAnswers = 10

func (p *Program) whyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why JOB [TIME]",
		Short: "Tell what became of a tick, or will, and why",
		Long: `Why explains one tick of a job, whether it is past or to come: that it ran and how
that went, that it was skipped, missed, paused, and why, or what stands in its way.
Without a time that is the latest tick and the next one.

TIME is in the job's time zone: 02:30, "yesterday 02:30", 2027-03-28 (all of that
day), "2027-03-28 02:30", RFC 3339, or -2h for the last tick before that. The
beginning of a run's ID does as well, in place of TIME or of both.`,
		Example: `  ` + p.Name + ` why backup
  ` + p.Name + ` why backup "yesterday 02:30"
  ` + p.Name + ` why backup 2027-03-28
  ` + p.Name + ` why backup -2h`,
		Args: cobra.RangeArgs(1, 2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			return p.completeKnown(cmd, args, begun)
		},
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		in, err := p.asking(ctx, *state, p.best)
		if err != nil {
			return err
		}
		defer in.close()
		if in.daemon == nil && in.manifest == nil {
			fmt.Fprintf(p.Stderr, "%s: the manifests can't be read, so only what is remembered is told; \"%s check\" says why\n", p.Name, p.Name)
		}
		now := time.Now()
		answers, err := p.answers(ctx, in, args, now)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(p.Stdout, answers)
		}
		p.answer(answers, now)
		return nil
	}
	return cmd
}

// answers finds out what is meant, and has it explained.
func (p *Program) answers(ctx context.Context, in *inquiry, args []string, now time.Time) ([]api.Answer, error) {
	j, err := in.api.ShowJob(ctx, args[0], 1)
	if errors.Is(err, loom.ErrNotFound) && len(args) == 1 && in.nothing == nil {
		if r, notRun := p.findRun(ctx, in, args[0]); notRun == nil {
			return in.why(ctx, r.Job, api.WhyQuery{Run: r.ID})
		}
	}
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return in.why(ctx, j.Name, api.WhyQuery{})
	}
	zone := cmp.Or(in.config.Timezone, time.Local)
	if loc, err := time.LoadLocation(j.Timezone); err == nil && j.Timezone != "" {
		zone = loc
	}
	at, err := parseMoment(args[1], zone, now)
	if err != nil {
		return p.whyRun(ctx, in, j.Name, args[1], err)
	}
	return p.whyMoment(ctx, in, j.Name, at, now)
}

// why asks what became of ticks, and has their times where the job is at home.
func (in *inquiry) why(ctx context.Context, job string, q api.WhyQuery) ([]api.Answer, error) {
	page, err := in.api.Why(ctx, job, q)
	return page.Items, err
}

// whyMoment explains the ticks at a time that a person named.
func (p *Program) whyMoment(ctx context.Context, in *inquiry, job string, at moment, now time.Time) ([]api.Answer, error) {
	if at.rough {
		from := at.spans[0].from
		before, err := in.why(ctx, job, api.WhyQuery{Before: from})
		if err != nil || !from.After(now) || len(before) > 0 && !before[0].Due.Before(from) {
			return before, err
		}
		return in.why(ctx, job, api.WhyQuery{From: from, To: from.AddDate(5, 0, 0), Limit: 1}) // of what is to come, one wants the tick after that
	}
	var all []api.Answer
	for _, span := range at.spans {
		page, err := in.api.Why(ctx, job, api.WhyQuery{From: span.from, To: span.to, Limit: mostAnswers})
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next != "" {
			fmt.Fprintf(p.Stderr, "there are more ticks: these are the first %d; name a time of the day\n", mostAnswers)
		}
	}
	if at.note != "" {
		fmt.Fprintf(p.Stderr, "%s\n", at.note)
	}
	return all, nil
}

// whyRun explains a run that was named in place of a time.
func (p *Program) whyRun(ctx context.Context, in *inquiry, job, id string, noTime error) ([]api.Answer, error) {
	if in.nothing != nil || strings.ContainsAny(id, " :.") {
		return nil, Usage("%w", noTime)
	}
	r, err := p.findRun(ctx, in, id)
	switch {
	case errors.Is(err, loom.ErrNotFound):
		return nil, Usage("%w; and no run begins so", noTime)
	case err != nil:
		return nil, err
	case r.Job != job:
		return nil, &Error{Code: ExitNotFound, Err: fmt.Errorf("run %s is one of job %s, not of %s", r.ID, r.Job, job)}
	}
	return in.why(ctx, job, api.WhyQuery{Run: r.ID})
}

// answer prints answers for a person.
func (p *Program) answer(answers []why.Answer, now time.Time) {
	width := terminal(p.Stdout)
	if width == 0 {
		width = 100
	}
	for i := 0; i < len(answers); {
		a, same := answers[i], 1
		for i+same < len(answers) && answers[i+same].Text == a.Text && answers[i+same].Job == a.Job {
			same++
		}
		if i > 0 {
			fmt.Fprintln(p.Stdout)
		}
		head := a.Job
		if !a.Due.IsZero() {
			head += " at " + a.Due.Format("2006-01-02 15:04:05 MST")
			switch {
			case same > 1:
				head += fmt.Sprintf(", and %d more until %s", same-1, answers[i+same-1].Due.Format("15:04:05"))
			case a.Outcome != why.OutcomeComing && a.Outcome != why.OutcomeNone:
				head += fmt.Sprintf(" (%s)", why.In(a.Due.Sub(now)))
			}
		}
		i += same
		fmt.Fprintf(p.Stdout, "%s:\n", clean(head))
		for _, line := range wrap(clean(a.Text), max(width-2, 30)) {
			fmt.Fprintf(p.Stdout, "  %s\n", line)
		}
		if a.Owner != "" {
			fmt.Fprintf(p.Stdout, "  owner: %s\n", clean(a.Owner))
		}
		if a.Runbook != "" {
			fmt.Fprintf(p.Stdout, "  runbook: %s\n", clean(a.Runbook))
		}
		if a.Run != nil && len(a.Failures) > 0 {
			fmt.Fprintf(p.Stdout, "  more: %s show %s\n", p.Name, a.Run.ID)
		}
	}
}
