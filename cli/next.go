package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/why"
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
		m, err := p.manifest(cmd.Context())
		if err != nil {
			return err
		}
		jobs, now := m.Jobs, time.Now()
		if len(args) > 0 {
			j, err := findJob(m, args[0])
			if err != nil {
				return err
			}
			jobs = []*loom.Job{j}
		}
		begin, end, err := period(*from, *to, now, m.Config.Timezone)
		if err != nil {
			return err
		}
		most := *n
		if !end.IsZero() && !cmd.Flags().Changed("number") {
			most = mostTicks
		}
		if most < 1 {
			return Usage("-n %d: write a number from 1", most)
		}
		ticks, err := p.foresee(cmd.Context(), *state, why.Upcoming(jobs, begin, end, most), begin, now)
		if err != nil {
			return err
		}
		if *output == "json" {
			return p.nextJSON(ticks)
		}
		p.nextTable(ticks, jobs, now, *from != "")
		if len(ticks) == mostTicks {
			fmt.Fprintf(p.Stderr, "%s: these are the first %d; -n and --from show others\n", p.Name, mostTicks)
		}
		return nil
	}
	return cmd
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

// foresee foretells what becomes of ticks, which are all there are after begin. It
// heeds what is remembered, as far as there is anything.
func (p *Program) foresee(ctx context.Context, state string, ticks []why.Tick, begin, now time.Time) ([]why.Foreseen, error) {
	m, err := p.memory(ctx, state)
	if err != nil {
		if !errors.Is(err, errNothing) && len(p.Stores) > 0 {
			fmt.Fprintf(p.Stderr, "%s: overlaps and pauses are not foretold: %v\n", p.Name, err)
		}
		return why.Foresee(ctx, nil, ticks, begin, now)
	}
	defer m.close()
	return why.Foresee(ctx, m, ticks, begin, now)
}

// note is what is unusual about a tick.
func note(t why.Foreseen) string {
	switch {
	case t.Told.Why == "":
		return t.Note
	case t.Note == "":
		return verdict(t)
	}
	return t.Note + "; " + verdict(t)
}

// verdict is what stands in the way of a tick.
func verdict(t why.Foreseen) string {
	if t.Told.Outcome == loom.OutcomeSkipped {
		return "skipped: " + t.Told.Why
	}
	return t.Told.Why
}

func (p *Program) nextJSON(ticks []why.Foreseen) error {
	type overlapJSON struct {
		Due    time.Time    `json:"due"`
		Until  time.Time    `json:"until"`
		Usual  float64      `json:"usual_seconds"`
		Policy loom.Overlap `json:"policy"`
		Effect string       `json:"effect"`
	}
	type tickJSON struct {
		Time    time.Time    `json:"time"`
		Job     string       `json:"job"`
		Targets []string     `json:"targets"`
		Note    string       `json:"note,omitempty"`
		Expect  loom.Outcome `json:"expect"`
		Why     string       `json:"why,omitempty"`
		Overlap *overlapJSON `json:"overlap,omitempty"`
	}
	all := []tickJSON{}
	for _, t := range ticks {
		one := tickJSON{Time: t.Time, Job: t.Job.Name, Targets: names(t.Job.Targets), Note: t.Note, Expect: t.Told.Outcome, Why: t.Told.Why}
		if o := t.Told.Overlap; o != nil {
			one.Overlap = &overlapJSON{o.Due.In(t.Time.Location()), o.Until.In(t.Time.Location()), o.Usual.Seconds(), o.Policy, o.Effect}
		}
		all = append(all, one)
	}
	return writeJSON(p.Stdout, all)
}

func (p *Program) nextTable(ticks []why.Foreseen, jobs []*loom.Job, now time.Time, simulated bool) {
	t := table{head: []string{"TIME", "IN", "JOB", "TARGETS", "NOTE"}}
	for _, tick := range ticks {
		t.add(tick.Time.Format("2006-01-02 15:04:05 MST"), until(tick.Time.Sub(now)), tick.Job.Name,
			shorten(Fold(names(tick.Job.Targets)), 30), note(tick))
	}
	if simulated { // how far that is from now doesn't matter
		t.head = slices.Delete(t.head, 1, 2)
		for i := range t.rows {
			t.rows[i] = slices.Delete(t.rows[i], 1, 2)
		}
	}
	if len(ticks) > 0 {
		t.write(p.Stdout, terminal(p.Stdout))
	}
	for _, j := range jobs {
		if text := why.Never(j, now); text != "" {
			fmt.Fprintf(p.Stdout, "%s: %s\n", j.Name, text)
		}
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
