package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/bind"
)

func (p *Program) showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show RUN",
		Short: "Show everything about a run",
		Long: `Show tells why a run was started, how it went on each node, what it changed, and
why it failed. Nodes that came out the same are shown once. RUN is an ID, or the
beginning of one.`,
		Example: `  ` + p.Name + ` show 0dhqymbe3f2ka
  ` + p.Name + ` show 0dhqymbe3f2ka -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeRuns(false),
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		in, err := p.asking(ctx, *state, func(ctx context.Context) (*loom.Manifest, error) { return p.known(ctx), nil })
		if err != nil {
			return err
		}
		defer in.close()
		if in.nothing != nil {
			return in.nothing
		}
		r, err := p.findRun(ctx, in, args[0])
		if err != nil {
			return err
		}
		results, err := in.Results(ctx, loom.ResultQuery{Runs: []string{r.ID}})
		if err != nil {
			return err
		}
		var a api.Answer
		if found, err := in.why(ctx, r.Job, api.WhyQuery{Run: r.ID}); err == nil && len(found) > 0 {
			a = found[0]
		} else if err != nil && !errors.Is(err, loom.ErrNotFound) { // the job may be forgotten
			return err
		}
		if *output == "json" {
			return p.showJSON(r, results, a)
		}
		p.showRun(r, results, a)
		return nil
	}
	return cmd
}

// known reads the jobs of the manifest, as far as they are good, or returns nil:
// what is remembered can be told without them.
func (p *Program) known(ctx context.Context) *loom.Manifest {
	quiet := *p
	quiet.Stderr = discard{}
	m, err := quiet.best(ctx)
	if err != nil {
		return nil
	}
	return m
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func (p *Program) showJSON(r loom.Run, results []loom.Result, a api.Answer) error {
	type showJSON struct {
		api.Run
		Why     string       `json:"why"`
		Owner   string       `json:"owner,omitempty"`
		Runbook string       `json:"runbook,omitempty"`
		Results []api.Result `json:"results"`
	}
	s := showJSON{Run: api.NewRun(r), Why: a.Text, Owner: a.Owner, Runbook: a.Runbook, Results: []api.Result{}}
	for _, one := range results {
		s.Results = append(s.Results, api.NewResult(one))
	}
	return writeJSON(p.Stdout, s)
}

// fact writes one line about something.
func (p *Program) fact(name, text string) {
	p.painted(name, clean(text))
}

// painted is fact of a text that is harmless, and may have colours of ours.
func (p *Program) painted(name, text string) {
	if text != "" {
		fmt.Fprintf(p.Stdout, "%-9s %s\n", name, text)
	}
}

// stamp is a moment in full.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}

func (p *Program) showRun(r loom.Run, results []loom.Result, a api.Answer) {
	now := time.Now()
	p.fact("run", r.ID)
	p.fact("job", r.Job)
	status := statusWord(r.Status, r.Plan)
	if counts := countsOf(r); len(r.Counts) > 0 {
		status += fmt.Sprintf(" (%s)", counts)
	}
	p.fact("status", status)
	p.fact("reason", r.Reason)
	p.fact("why", a.Text)
	p.fact("trigger", string(r.Trigger))
	p.fact("by", r.By)
	if r.Plan {
		p.fact("plan", "it only told what would change")
	}
	if r.Timeout > 0 {
		p.fact("timeout", fmt.Sprintf("%s for each node, as was asked for", bind.FormatDuration(r.Timeout)))
	}
	if r.Max > 0 {
		p.fact("max", fmt.Sprintf("%s at once, as was asked for", count(r.Max, "node")))
	}
	if r.Targets != nil {
		p.fact("only on", Fold(r.Targets))
	}
	p.fact("due", stamp(r.Due))
	if r.Queued.Sub(r.Due).Abs() > time.Second {
		p.fact("queued", stamp(r.Queued))
	}
	p.fact("started", stamp(r.Started))
	if r.Ended.IsZero() && !r.Started.IsZero() {
		p.fact("ended", fmt.Sprintf("not yet: it has been going for %s", took(max(now.Sub(r.Started), 0))))
	} else if !r.Started.IsZero() {
		p.fact("ended", fmt.Sprintf("%s, after %s", stamp(r.Ended), took(r.Ended.Sub(r.Started))))
	}
	p.fact("owner", a.Owner)
	p.fact("runbook", a.Runbook)
	if len(results) == 0 {
		fmt.Fprintln(p.Stdout, "\nNo node has been begun.")
		return
	}
	p.showResults(results, r.Plan, now)
	if rest := r.Nodes - len(results); rest > 0 {
		what := "were not begun"
		if !r.Status.Ended() {
			what = "are to come"
		}
		fmt.Fprintf(p.Stdout, "\n%s %s\n", count(rest, "node"), what)
	}
	fmt.Fprintf(p.Stdout, "\n%s logs %s shows what they printed\n", p.Name, r.ID)
}

// showResults shows what became of each node, those that came out the same once:
// the good ones last, as they are of least interest.
func (p *Program) showResults(results []loom.Result, plan bool, now time.Time) {
	type same struct {
		nodes    []string
		first    *loom.Result
		from, to time.Duration // how long they took
	}
	var groups []*same
	byKey := map[string]*same{}
	for i := range results {
		r := &results[i]
		key := resultKey(r)
		d := resultTook(r, now)
		g := byKey[key]
		if g == nil {
			g = &same{first: r, from: d, to: d}
			byKey[key], groups = g, append(groups, g)
		}
		g.nodes = append(g.nodes, r.Node)
		g.from, g.to = min(g.from, d), max(g.to, d)
	}
	slices.SortStableFunc(groups, func(a, b *same) int {
		return cmp.Compare(rank(a.first.Status), rank(b.first.Status))
	})
	for _, g := range groups {
		title := Fold(g.nodes)
		if len(g.nodes) > 1 {
			title += fmt.Sprintf(" (%d)", len(g.nodes))
		}
		span := took(g.from)
		if to := took(g.to); to != span {
			span += " to " + to
		}
		switch {
		case g.first.Started.IsZero():
			span = ""
		case !g.first.Status.Ended():
			span = " for " + span
		default:
			span = " after " + span
		}
		fmt.Fprintf(p.Stdout, "\n%s: %s%s\n", clean(title), statusWord(g.first.Status, plan), span)
		p.showResult(g.first, plan)
	}
}

// rank orders statuses by how much they matter to who asks.
func rank(s loom.Status) int {
	switch {
	case !s.Ended():
		return 1
	case s.Good():
		return 2
	}
	return 0
}

func resultTook(r *loom.Result, now time.Time) time.Duration {
	switch {
	case r.Started.IsZero():
		return 0
	case r.Ended.IsZero():
		return max(now.Sub(r.Started), 0)
	}
	return max(r.Ended.Sub(r.Started), 0)
}

// resultKey is equal for results that are told in the same words.
func resultKey(r *loom.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %d %d %q %q", r.Status, r.ExitCode, r.Attempts, r.Dropped, Reason(r), r.Changes)
	for _, a := range r.Earlier {
		fmt.Fprintf(&b, " %s %d %q", a.Status, a.ExitCode, strings.TrimPrefix(a.Reason, r.Node+": "))
	}
	return b.String()
}

func (p *Program) showResult(r *loom.Result, plan bool) {
	line := func(format string, args ...any) { fmt.Fprintf(p.Stdout, "  "+format+"\n", args...) }
	reason := Reason(r)
	if reason != "" {
		line("%s", clean(reason))
	}
	if status := fmt.Sprintf("exit status %d", r.ExitCode); r.ExitCode > 0 && !strings.Contains(reason, status) {
		line("%s", status)
	}
	for i, a := range r.Earlier {
		text, reason := string(a.Status), strings.TrimPrefix(a.Reason, r.Node+": ")
		switch {
		case a.Status == loom.StatusTimeout, strings.HasPrefix(reason, text):
			text = reason
		case reason != "":
			text += ": " + reason
		}
		line("attempt %d, at %s, for %s: %s", i+1, a.Started.Local().Format(time.TimeOnly), took(a.Ended.Sub(a.Started)), clean(text))
	}
	for _, c := range r.Changes {
		line("%s: %s", statusWord(loom.StatusChanged, plan), clean(c))
	}
	if r.Dropped > 0 {
		line("%d bytes of output were not kept", r.Dropped)
	}
}
