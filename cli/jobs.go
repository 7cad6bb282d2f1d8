package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/why"
)

// jobStandings are those that jobs can be chosen by.
func jobStandings() []string { return append(runStatuses(), "paused", "disabled", "never") }

func (p *Program) jobsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs [PATTERN]",
		Short: "List jobs, how they went lately, and when they run next",
		Long: `Jobs lists the jobs of the manifest. LAST is how the last runs ended, the newest on
the right: o ok, + changed, x failed, - cancelled, ? lost, > going; with colours they
are bars, of which the red ones failed. PATTERN is such as 'db-*', or a part of the
name. All filters must fit.`,
		Example: `  ` + p.Name + ` jobs
  ` + p.Name + ` jobs backup
  ` + p.Name + ` jobs --failing
  ` + p.Name + ` jobs --label team=web -o name`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeKnown,
	}
	q := api.JobsQuery{Limit: 1000}
	flags := cmd.Flags()
	flags.StringSliceVar(&q.Labels, "label", nil, "only those with this label: `KEY or KEY=VALUE`")
	flags.StringSliceVar(&q.Status, "status", nil, "only those whose newest run stands so: "+strings.Join(jobStandings(), ", "))
	flags.StringVar(&q.Node, "node", "", "only those that target this node")
	flags.BoolVar(&q.Gone, "gone", false, "those too that are remembered, but not in the manifest any more")
	failing := flags.Bool("failing", false, "only those whose newest run failed, or is lost")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json", "name")
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(jobStandings(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, s := range q.Status {
			if !slices.Contains(jobStandings(), s) {
				return Usage("--status %s: write %s", s, strings.Join(jobStandings(), ", "))
			}
		}
		if *failing {
			q.Status = append(q.Status, string(loom.StatusFailed), string(loom.StatusLost))
		}
		if len(args) > 0 {
			var err error
			if q.Match, err = patternOf(args[0]); err != nil {
				return err
			}
		}
		ctx := cmd.Context()
		in, err := p.asking(ctx, *state, p.best)
		if err != nil {
			return err
		}
		defer in.close()
		jobs, err := all(func(cursor string) (api.Page[api.Job], error) {
			q.Cursor = cursor
			return in.api.ListJobs(ctx, q)
		})
		if err != nil {
			return err
		}
		switch *output {
		case "json":
			return writeJSON(p.Stdout, jobs)
		case "name":
			for _, j := range jobs {
				fmt.Fprintln(p.Stdout, j.Name)
			}
			return nil
		}
		if len(jobs) == 0 {
			fmt.Fprintln(p.Stderr, "no job fits")
			return nil
		}
		p.jobsTable(jobs, time.Now())
		return nil
	}
	return cmd
}

// patternOf makes a pattern of what a person wrote: a part of a name will do.
func patternOf(text string) (string, error) {
	if _, err := path.Match(text, ""); err != nil {
		return "", Usage("%s: a pattern with a [ needs its ]", text)
	}
	if !strings.ContainsAny(text, "*?[") {
		text = "*" + text + "*"
	}
	return text, nil
}

func (p *Program) jobsTable(jobs []api.Job, now time.Time) {
	t := table{head: []string{"JOB", "LAST", "STATUS", "NEXT", "NODES", "SCHEDULE"}}
	width := terminal(p.Stdout)
	bars := 10
	if width >= 120 {
		bars = 30
	}
	about := width >= 120 && slices.ContainsFunc(jobs, func(j api.Job) bool { return j.Description != "" })
	if about {
		t.head = append(t.head, "ABOUT")
	}
	for _, j := range jobs {
		row := []string{shorten(clean(j.Name), 40), p.outcomes(j.Outcomes, bars), p.stands(j.Last, now), p.nextWords(j, now), fmt.Sprint(j.Nodes), scheduleOf(j)}
		if about {
			row[5] = shorten(row[5], 40)
			row = append(row, clean(j.Description))
		}
		t.add(row...)
	}
	t.write(p.Stdout, width)
}

// outcomes draws how the last runs ended, the newest on the right.
func (p *Program) outcomes(last []api.JobOutcome, most int) string {
	last = last[:min(len(last), most)] // the newest come first
	var b strings.Builder
	for _, o := range slices.Backward(last) {
		sign, colour := outcomeSign(o.Status)
		if colourful(p.Stdout) {
			sign = "▇"
		}
		b.WriteString(paint(p.Stdout, colour, sign))
	}
	if b.Len() == 0 {
		return "-"
	}
	return b.String()
}

// outcomeSign is a status in one character, and in a colour.
func outcomeSign(s loom.Status) (sign, colour string) {
	switch s {
	case loom.StatusOK, loom.StatusSkipped:
		return "o", "32"
	case loom.StatusChanged:
		return "+", "33"
	case loom.StatusCancelled:
		return "-", "2"
	case loom.StatusLost:
		return "?", "35"
	case loom.StatusQueued, loom.StatusRunning:
		return ">", "34"
	}
	return "x", "31"
}

// stands says how the newest run stands.
func (p *Program) stands(last *api.Run, now time.Time) string {
	if last == nil {
		return "never ran"
	}
	r := last.Loom()
	text := string(r.Status)
	switch {
	case r.Status == loom.StatusRunning:
		text += " for " + took(max(now.Sub(r.Started), 0))
	case !r.Ended.IsZero():
		text += " " + ago(r.Ended, now)
	}
	_, colour := outcomeSign(r.Status)
	return paint(p.Stdout, colour, text)
}

// nextWords says when a job runs next, or why it doesn't.
func (p *Program) nextWords(j api.Job, now time.Time) string {
	switch pause := j.Pause; {
	case j.Gone:
		return "gone"
	case j.Disabled:
		return paint(p.Stdout, "33", "disabled")
	case pause != nil && pause.Until.IsZero():
		return paint(p.Stdout, "33", "paused")
	case pause != nil && pause.Until.After(now):
		return paint(p.Stdout, "33", "paused until "+soon(pause.Until, now))
	case !j.Next.IsZero():
		return why.In(j.Next.Sub(now))
	case len(j.After) > 0:
		return "after " + shorten(clean(strings.Join(j.After, ", ")), 20)
	}
	return "by hand"
}

// soon is a moment to come: no more of it than one needs.
func soon(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	switch {
	case t.YearDay() == now.YearDay() && t.Year() == now.Year():
		return t.Format("15:04")
	case t.Sub(now) < 300*24*time.Hour:
		return t.Format("01-02 15:04")
	}
	return t.Format(time.DateOnly)
}

// scheduleOf is a job's schedule as the manifest has it.
func scheduleOf(j api.Job) string {
	all := slices.Clone(j.Schedule)
	if !j.At.IsZero() {
		all = append(all, "at "+stamp(j.At))
	}
	if len(all) == 0 {
		return "-"
	}
	text := strings.Join(all, " | ")
	if j.Timezone != "" {
		text += " " + j.Timezone
	}
	return clean(text)
}

func (p *Program) jobCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job NAME",
		Short: "Show everything about a job",
		Long: `Job tells what a job does, when and where, what it is to do when something goes
wrong, who looks after it, how its last runs went, and when it runs next.`,
		Example: `  ` + p.Name + ` job backup
  ` + p.Name + ` job backup -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeKnown,
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
		j, err := in.api.ShowJob(ctx, args[0], 0)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(p.Stdout, j)
		}
		return p.showJob(ctx, in, &j)
	}
	return cmd
}

// showJob tells a person all about a job.
func (p *Program) showJob(ctx context.Context, in *inquiry, j *api.JobDetail) error {
	const shown = 5
	now := time.Now()
	p.fact("job", j.Name)
	p.fact("about", j.Description)
	p.painted("status", p.stands(j.Last, now))
	p.painted("last", p.outcomes(j.Outcomes, 30))
	if j.Stale {
		p.fact("stale", "its file has mistakes, and an older text of it is in force: "+p.Name+" check tells them")
	}
	for i, s := range scheduleWords(j) {
		p.fact([]string{"schedule", ""}[min(i, 1)], s)
	}
	p.fact("paused", pauseWords(j.Pause, now))
	if j.Disabled {
		p.fact("disabled", fmt.Sprintf("the manifest says enabled: false (%s:%d)", j.File, j.Line))
	}
	if len(j.Targets) > 0 {
		p.fact("targets", fmt.Sprintf("%s (%d)", Fold(j.Targets), len(j.Targets)))
	}
	for i, s := range j.Does {
		text := s.Task
		if s.Name != "" {
			text += ": " + s.Name
		}
		if s.On != "" && s.On != loom.OnOK {
			text += fmt.Sprintf(" (on %s)", s.On)
		}
		text += given(s.Params)
		p.fact([]string{"does", ""}[min(i, 1)], text)
	}
	for _, f := range policyFacts(j) {
		p.fact(f[0], f[1])
	}
	p.fact("owner", j.Owner)
	p.fact("runbook", j.Runbook)
	var labels []string
	for k, v := range j.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	p.fact("labels", strings.Join(labels, ", "))
	if len(j.Followers) > 0 {
		p.fact("then", "its end fires "+strings.Join(j.Followers, ", "))
	}
	if j.UsualRuns > 0 {
		p.fact("takes", why.Took(seconds(j.Usual))+" usually")
	}
	if j.File != "" {
		p.fact("file", fmt.Sprintf("%s:%d", j.File, j.Line))
	}

	runs, err := in.Runs(ctx, loom.RunQuery{Job: j.Name, Limit: shown})
	if err != nil {
		return err
	}
	if len(runs) > 0 {
		fmt.Fprintln(p.Stdout)
		p.runsTable(p.Stdout, runs, now)
	}
	if j.Gone || j.Next.IsZero() {
		return nil
	}
	next, err := in.api.Next(ctx, api.NextQuery{Jobs: []string{j.Name}, Limit: shown})
	if err != nil {
		return err
	}
	fmt.Fprintln(p.Stdout)
	p.nextTable(next, now, false)
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// given says what parameters a task has: in a line, those that are long not whole.
func given(params map[string]any) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		text := fmt.Sprint(params[name])
		if one, ok := params[name].(string); !ok {
			if b, err := json.Marshal(params[name]); err == nil {
				text = string(b)
			}
		} else if first, rest, more := strings.Cut(strings.TrimSpace(one), "\n"); more {
			text = fmt.Sprintf("%s (and %s)", first, count(strings.Count(rest, "\n")+1, "more line"))
		}
		all = append(all, name+": "+shorten(text, 300))
	}
	if len(all) == 0 {
		return ""
	}
	return " {" + strings.Join(all, ", ") + "}"
}

// pauseWords says until when a job is paused, by whom and why.
func pauseWords(pause *api.Pause, now time.Time) string {
	if pause == nil || !pause.Until.IsZero() && !pause.Until.After(now) {
		return ""
	}
	text := "until it is enabled"
	if !pause.Until.IsZero() {
		text = "until " + stamp(pause.Until)
	}
	text += strings.TrimRight(" "+by(pause.By), " ")
	return strings.TrimSuffix(text+": "+pause.Why, ": ")
}

// policyFacts are what a job does when something is not as it should be, as far as
// that is not what all jobs do.
func policyFacts(j *api.JobDetail) [][2]string {
	var all [][2]string
	add := func(name, format string, args ...any) {
		all = append(all, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if j.Gone {
		return nil
	}
	if j.Timeout > 0 {
		add("timeout", "%s for each node and attempt", bind.FormatDuration(seconds(j.Timeout)))
	}
	if r := j.Retries; r.Attempts > 0 {
		text := fmt.Sprintf("%d more, %s apart", r.Attempts, bind.FormatDuration(seconds(r.Delay)))
		if r.Backoff > 1 {
			text += fmt.Sprintf(", each time %v times as long", r.Backoff)
		}
		if len(r.On) > 0 {
			text += fmt.Sprintf(" (on %s)", joined(r.On))
		}
		add("retries", "%s", text)
	}
	add("overlap", "%s", map[loom.Overlap]string{
		loom.OverlapSkip:    "skip: a tick is let go while a run is going",
		loom.OverlapQueue:   "queue: one run waits while another is going",
		loom.OverlapReplace: "replace: a run ends the one that is going",
		loom.OverlapAllow:   "allow: runs go on beside each other",
	}[cmp.Or(j.Overlap, loom.OverlapSkip)])
	missed := map[loom.MissedPolicy]string{
		loom.MissedLatest: "latest: one run makes up for ticks that fell while no daemon ran",
		loom.MissedSkip:   "skip: ticks that fell while no daemon ran are let go",
		loom.MissedAll:    "all: each tick that fell while no daemon ran is made up for",
	}[cmp.Or(j.Missed.Policy, loom.MissedLatest)]
	if j.Missed.Within > 0 && j.Missed.Policy != loom.MissedSkip {
		missed += ", within " + bind.FormatDuration(seconds(j.Missed.Within))
	}
	if len(j.Schedule) > 0 || !j.At.IsZero() {
		add("missed", "%s", missed)
	}
	if j.Jitter.Max > 0 {
		text := fmt.Sprintf("up to %s; this job starts %s after its time", bind.FormatDuration(seconds(j.Jitter.Max)), bind.FormatDuration(seconds(j.Jitter.Delay)))
		if j.Jitter.ByNode {
			text = fmt.Sprintf("up to %s, each node by itself", bind.FormatDuration(seconds(j.Jitter.Max)))
		}
		add("jitter", "%s", text)
	}
	if len(j.Batch) > 0 {
		text := "so many nodes at a time: " + strings.Join(j.Batch, ", then ")
		if j.MaxFailed != "" {
			text += fmt.Sprintf("; no more are begun when %s have failed", j.MaxFailed)
		}
		add("batch", "%s", text)
	}
	for _, b := range j.Blackouts {
		if b.Schedule != "" {
			add("not", "%s, for %s", b.Schedule, bind.FormatDuration(seconds(b.For)))
		} else {
			add("not", "from %s to %s", stamp(b.From), stamp(b.To))
		}
	}
	as := strings.TrimPrefix(strings.TrimSpace(j.User+" by sudo as "+j.Sudo), "by sudo as ")
	switch {
	case j.Sudo == "":
		as = j.User
	case j.User == "":
		as = "by sudo"
		if j.Sudo != "*" {
			as += " as " + j.Sudo
		}
	}
	if as != "" {
		add("as", "%s", as)
	}
	if j.Log != "" {
		add("log", "%s", j.Log)
	}
	if len(j.Notify) > 0 {
		text := strings.Join(j.Notify, ", ")
		if len(j.NotifyOn) > 0 {
			text += " (on " + strings.Join(j.NotifyOn, ", ") + ")"
		}
		add("notify", "%s", text)
	}
	return all
}

func joined[S ~string](all []S) string {
	text := make([]string, len(all))
	for i, s := range all {
		text[i] = string(s)
	}
	return strings.Join(text, ", ")
}

// scheduleWords says what fires a job, each in a line.
func scheduleWords(j *api.JobDetail) []string {
	var lines []string
	zone := ""
	if j.Timezone != "" {
		zone = " (" + j.Timezone + ")"
	}
	for _, s := range j.Schedule {
		line := s
		if words := scheduleText(s); words != "" {
			line = fmt.Sprintf("%s: %s", s, words)
		}
		lines = append(lines, line+zone)
	}
	if !j.At.IsZero() {
		lines = append(lines, "once, at "+stamp(j.At))
	}
	for _, w := range j.Waits {
		when := map[loom.AfterOn]string{loom.AfterOK: "when %s has ended well", loom.AfterFailed: "when %s has failed", loom.AfterAny: "when %s has ended"}[w.On]
		lines = append(lines, fmt.Sprintf(cmp.Or(when, "after %s"), w.Job))
	}
	if len(lines) == 0 && !j.Gone {
		lines = append(lines, "manual: only by hand")
	}
	return lines
}
