package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/bind"
)

// mostTicks bounds what a simulation prints.
const mostTicks = 10000

func (p *Program) nextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "next [JOB]",
		Short: "Show what will run, and when",
		Long: `Next lists the coming ticks of one job, or of all, in each job's own time zone,
and says where daylight saving has a part in one, where a blackout or a pause keeps
it from running, and where the run before it, if it takes as long as runs of the job
usually do, is still going then, with what the job's overlap policy makes of that.
With --from and --to it simulates any period.`,
		Example: `  ` + p.Name + ` next
  ` + p.Name + ` next backup -n 3
  ` + p.Name + ` next --from 2027-03-28 --to 2027-03-29`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeJobs,
	}
	n := cmd.Flags().IntP("number", "n", 10, "how many ticks; without it, a period given by --to has all of its own")
	from := cmd.Flags().String("from", "", "`time` to begin at: 2027-03-28, \"2027-03-28 01:30\", \"tomorrow 02:30\", 3h, or RFC 3339 (default now)")
	to := cmd.Flags().String("to", "", "`time` to end at")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *n < 1 {
			return Usage("-n %d: write a number from 1", *n)
		}
		ctx := cmd.Context()
		in, err := p.asking(ctx, *state, p.manifest)
		if err != nil {
			return err
		}
		defer in.close()
		now := time.Now()
		begin, end, err := period(*from, *to, now, in.config.Timezone)
		if err != nil {
			return err
		}
		q := api.NextQuery{Jobs: args, To: end}
		if *from != "" {
			q.From = begin.Add(time.Nanosecond)
		}
		most := *n
		if !end.IsZero() && !cmd.Flags().Changed("number") {
			most = mostTicks
		}
		next, err := nextTicks(ctx, in.api, q, most)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(p.Stdout, next.Items)
		}
		p.nextTable(next, now, *from != "")
		if len(next.Items) == mostTicks {
			fmt.Fprintf(p.Stderr, "%s: these are the first %d; -n and --from show others\n", p.Name, mostTicks)
		}
		return nil
	}
	return cmd
}

// nextTicks asks for ticks page by page, until there are as many as are wanted.
func nextTicks(ctx context.Context, client *api.Client, q api.NextQuery, most int) (api.NextTicks, error) {
	const page = 1000
	var all api.NextTicks
	all.Items = []api.NextTick{}
	for {
		q.Limit = min(most-len(all.Items), page)
		next, err := client.Next(ctx, q)
		if err != nil {
			return all, err
		}
		if q.Cursor == "" {
			all.Never = next.Never
		}
		for _, t := range next.Items {
			t.Time = zoned(t.Time, t.Timezone)
			if t.Overlap != nil {
				t.Overlap.Due, t.Overlap.Until = zoned(t.Overlap.Due, t.Timezone), zoned(t.Overlap.Until, t.Timezone)
			}
			all.Items = append(all.Items, t)
		}
		if q.Cursor = next.Next; q.Cursor == "" || len(all.Items) >= most {
			return all, nil
		}
	}
}

// zoned is a time in the zone in which the daemon has told it, as far as that is
// known here.
func zoned(t time.Time, zone string) time.Time {
	if zone != "" {
		if loc, err := time.LoadLocation(zone); err == nil {
			return t.In(loc)
		}
		return t
	}
	_, there := t.Zone()
	if _, here := t.Local().Zone(); here == there {
		return t.Local()
	}
	return t
}

// period reads --from and --to.
func period(from, to string, now time.Time, loc *time.Location) (begin, end time.Time, err error) {
	begin = now
	if from != "" {
		if begin, err = parseSince("from", from, loc, now, true); err != nil {
			return begin, end, err
		}
	}
	if to != "" {
		if end, err = parseSince("to", to, loc, now, true); err != nil {
			return begin, end, err
		}
		if !end.After(begin) {
			return begin, end, Usage("--to %s is not after the beginning, %s", to, begin.Round(time.Second).Format(time.DateTime))
		}
	}
	if from != "" {
		begin = begin.Add(-time.Nanosecond) // its own tick counts
	}
	return begin, end, nil
}

// note is what is unusual about a tick.
func note(t api.NextTick) string {
	verdict := t.Why
	if t.Expect == loom.OutcomeSkipped {
		verdict = "skipped: " + t.Why
	}
	switch {
	case t.Why == "":
		return t.Note
	case t.Note == "":
		return verdict
	}
	return t.Note + "; " + verdict
}

func (p *Program) nextTable(next api.NextTicks, now time.Time, simulated bool) {
	t := table{head: []string{"TIME", "IN", "JOB", "TARGETS", "NOTE"}}
	for _, tick := range next.Items {
		t.add(tick.Time.Format("2006-01-02 15:04:05 MST"), until(tick.Time.Sub(now)), clean(tick.Job),
			shorten(Fold(tick.Targets), 30), clean(note(tick)))
	}
	if simulated { // how far that is from now doesn't matter
		t.head = slices.Delete(t.head, 1, 2)
		for i := range t.rows {
			t.rows[i] = slices.Delete(t.rows[i], 1, 2)
		}
	}
	if len(t.rows) > 0 {
		t.write(p.Stdout, terminal(p.Stdout))
	}
	for _, j := range next.Never {
		fmt.Fprintf(p.Stdout, "%s: %s\n", clean(j.Job), j.Why)
	}
}

// until says how long it is to a time.
func until(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24+0.5))
}

// clock is a time without the date, if that is today's.
func clock(t, now time.Time) string {
	if local := now.In(t.Location()); local.YearDay() == t.YearDay() && local.Year() == t.Year() {
		return t.Format("15:04:05 MST")
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// findJob returns a job by its name.
func findJob(m *loom.Manifest, name string) (*loom.Job, error) {
	if j := m.Job(name); j != nil {
		return j, nil
	}
	all := map[string]bool{}
	for _, j := range m.Jobs {
		all[j.Name] = true
	}
	hint := ""
	if near := bind.Nearest(name, maps.Keys(all)); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return nil, &Error{Code: ExitNotFound, Err: fmt.Errorf("there is no job %q%s: %w", name, hint, loom.ErrNotFound)}
}

func names(nodes []*loom.Node) []string {
	all := make([]string, len(nodes))
	for i, n := range nodes {
		all[i] = n.Name
	}
	return all
}
