package cli

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// mostTicks bounds what a simulation prints.
const mostTicks = 10000

func (p *Program) nextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "next [JOB]",
		Short: "Show what will run, and when",
		Long: `Next lists the coming ticks of one job, or of all, in each job's own time zone,
and says where daylight saving has a part in one. With --from and --to it
simulates any period.`,
		Example: `  ` + p.Name + ` next
  ` + p.Name + ` next backup -n 3
  ` + p.Name + ` next --from 2027-03-28 --to 2027-03-29`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeJobs,
	}
	n := cmd.Flags().IntP("number", "n", 10, "how many ticks; without it, a period given by --to has all of its own")
	from := cmd.Flags().String("from", "", "`time` to begin at: 2027-03-28, \"2027-03-28 01:30\", or RFC 3339 (default now)")
	to := cmd.Flags().String("to", "", "`time` to end at")
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := p.manifest()
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
		ticks := Upcoming(jobs, begin, end, most)
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
		if begin, err = parseTime(from, loc); err != nil {
			return begin, end, Usage("--from: %w", err)
		}
	}
	if to != "" {
		if end, err = parseTime(to, loc); err != nil {
			return begin, end, Usage("--to: %w", err)
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

func parseTime(s string, loc *time.Location) (time.Time, error) {
	if loc == nil {
		loc = time.Local
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write one such as 2027-03-28, \"2027-03-28 01:30\" or 2027-03-28T01:30:00Z", s)
}

func (p *Program) nextJSON(ticks []Tick) error {
	type tickJSON struct {
		Time    time.Time `json:"time"`
		Job     string    `json:"job"`
		Targets []string  `json:"targets"`
		Note    string    `json:"note,omitempty"`
	}
	all := []tickJSON{}
	for _, t := range ticks {
		all = append(all, tickJSON{Time: t.Time, Job: t.Job.Name, Targets: names(t.Job.Targets), Note: t.Note})
	}
	return writeJSON(p.Stdout, all)
}

func (p *Program) nextTable(ticks []Tick, jobs []*loom.Job, now time.Time, simulated bool) {
	t := table{head: []string{"TIME", "IN", "JOB", "TARGETS", "NOTE"}}
	for _, tick := range ticks {
		t.add(tick.Time.Format("2006-01-02 15:04:05 MST"), until(tick.Time.Sub(now)), tick.Job.Name,
			shorten(Fold(names(tick.Job.Targets)), 30), tick.Note)
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
		if why := never(j, now); why != "" {
			fmt.Fprintf(p.Stdout, "%s: %s\n", j.Name, why)
		}
	}
}

// never says why a job has no ticks, or returns "".
func never(j *loom.Job, now time.Time) string {
	s := times(j)
	switch {
	case j.Disabled:
		return "disabled, so its schedule does not fire it"
	case s == nil && len(j.After) > 0:
		return "no times of its own: it runs after other jobs"
	case s == nil:
		return "runs only by hand"
	case atStart(s) && s.Next(now).IsZero():
		return "runs when the daemon starts"
	case s.Next(now).IsZero():
		return "is over: it will not run again"
	}
	return ""
}

// A Tick is a time at which a job is due.
type Tick struct {
	Job  *loom.Job
	Time time.Time // in the job's zone
	Note string    // what is unusual about it
}

// Upcoming returns the next ticks of jobs strictly after a time and before end,
// if that is not zero: at most n, in order.
func Upcoming(jobs []*loom.Job, after, end time.Time, n int) []Tick {
	var due ticks
	push := func(j *loom.Job, after time.Time) {
		next := times(j).Next(after)
		if next.IsZero() || !next.After(after) || !end.IsZero() && !next.Before(end) {
			return
		}
		heap.Push(&due, Tick{Job: j, Time: next})
	}
	for _, j := range jobs {
		if !j.Disabled && times(j) != nil {
			push(j, after)
		}
	}
	var all []Tick
	for len(due) > 0 && len(all) < n {
		t := heap.Pop(&due).(Tick)
		push(t.Job, t.Time)
		t.Note = loom.Explain(times(t.Job), t.Time)
		if t.Job.Timezone != nil {
			t.Time = t.Time.In(t.Job.Timezone)
		}
		all = append(all, t)
	}
	return all
}

// times returns all that makes a job due, or nil.
func times(j *loom.Job) loom.Schedule {
	switch {
	case j.At.IsZero():
		return j.Schedule
	case j.Schedule == nil:
		return loom.At(j.At)
	}
	return loom.Schedules{j.Schedule, loom.At(j.At)}
}

// atStart reports whether a schedule fires when the daemon starts.
func atStart(s loom.Schedule) bool {
	switch s := s.(type) {
	case loom.Schedules:
		return slices.ContainsFunc(s, atStart)
	case interface{ Reboot() bool }:
		return s.Reboot()
	}
	return false
}

type ticks []Tick

func (t ticks) Len() int { return len(t) }
func (t ticks) Less(i, j int) bool {
	if c := t[i].Time.Compare(t[j].Time); c != 0 {
		return c < 0
	}
	return t[i].Job.Name < t[j].Job.Name
}
func (t ticks) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *ticks) Push(x any)   { *t = append(*t, x.(Tick)) }
func (t *ticks) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
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

// completeJobs completes the names of jobs.
func (p *Program) completeJobs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	m, err := loom.ReadManifest(p.Config, p.Tasks)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, j := range m.Jobs {
		all = append(all, cobra.CompletionWithDesc(j.Name, j.Description))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
