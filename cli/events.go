package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

func (p *Program) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happens",
		Long: `Events tells what has happened lately, oldest first: runs that began and ended, and
what people did. With -f it goes on with what happens from now on, until Ctrl-C:
also on each node, ticks that are let go, and what becomes of the manifests.

All filters must fit; those given several times, or with commas, name alternatives.
Names of jobs and nodes may be patterns such as 'db*'.`,
		Example: `  ` + p.Name + ` events
  ` + p.Name + ` events -f --job backup --lines
  ` + p.Name + ` events -f --kind run-ended,tick-missed -o json`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	follow := flags.BoolP("follow", "f", false, "go on with what happens from now on")
	n := flags.IntP("number", "n", 0, "how many of those that have happened (default 30, and 10 with -f)")
	since := flags.String("since", "", "only what has happened from this `time` on")
	var f api.EventFilter
	kinds := flags.StringSlice("kind", nil, "only these: "+strings.Join(eventKinds(), ", "))
	flags.StringSliceVar(&f.Jobs, "job", nil, "only of these jobs")
	flags.StringSliceVar(&f.Nodes, "node", nil, "only on these nodes")
	run := flags.String("run", "", "only of this `run`")
	flags.BoolVar(&f.Output, "lines", false, "with -f: each line that is printed too")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(eventKinds(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("job", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return p.completeKnown(cmd, nil, begun)
	})
	_ = cmd.RegisterFlagCompletionFunc("run", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return p.completeRuns(false)(cmd, nil, begun)
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, k := range *kinds {
			if !slices.Contains(eventKinds(), k) {
				return Usage("--kind %s: write %s", k, strings.Join(eventKinds(), ", "))
			}
			f.Kinds = append(f.Kinds, loom.Kind(k))
		}
		for _, pattern := range slices.Concat(f.Jobs, f.Nodes) {
			if _, err := path.Match(pattern, ""); err != nil {
				return Usage("%s: a pattern with a [ needs its ]", pattern)
			}
		}
		if f.Output && !*follow {
			return Usage("--lines needs -f: %s logs RUN tells what a run has printed", p.Name)
		}
		if *n < 0 {
			return Usage("-n %d: write a number from 0", *n)
		}
		most := *n
		if !flags.Changed("number") {
			most = 30
			if *follow {
				most = 10
			}
		}
		ctx := cmd.Context()
		m, err := p.memory(ctx, *state)
		if err != nil {
			return err
		}
		defer m.close()
		if *follow && m.daemon == nil {
			return &Error{Code: ExitUnreachable, Err: errors.New("no daemon runs, so nothing happens"), Hint: fmt.Sprintf("start one (%s -c FILE)", p.Name)}
		}
		if *run != "" {
			r, err := p.findRun(ctx, m, *run)
			if err != nil {
				return err
			}
			f.Runs = []string{r.ID}
		}
		from, err := parseSince("since", *since, m.config.Timezone, time.Now(), false)
		if err != nil {
			return err
		}
		w := eventWriter{p: p, json: *output == "json", now: time.Now()}
		if *follow {
			return p.followEvents(ctx, m, f, from, most, &w)
		}
		past, err := pastEvents(ctx, m, f, from, most)
		if err != nil {
			return err
		}
		if len(past) == 0 && !w.json {
			fmt.Fprintln(p.Stderr, "nothing of that has happened, or it is not kept any more")
		}
		return w.all(past)
	}
	return cmd
}

// eventKinds are those of events that can be asked for.
func eventKinds() []string {
	return []string{string(loom.KindRunStarted), string(loom.KindNodeStarted), string(loom.KindOutput), string(loom.KindChanged),
		string(loom.KindRetry), string(loom.KindNodeEnded), string(loom.KindRunEnded), string(loom.KindTickSkipped),
		string(loom.KindTickMissed), string(loom.KindStoreDown), string(loom.KindStoreBack), string(api.KindManifestBroken),
		string(api.KindManifestMended), string(api.KindManifestLoaded), string(api.KindJobPaused), string(api.KindJobResumed), string(api.KindStopping)}
}

// followEvents shows what has happened, and what happens, without a gap.
func (p *Program) followEvents(ctx context.Context, m *memory, f api.EventFilter, from time.Time, most int, w *eventWriter) error {
	var shown map[string]bool // of the past, which the stream may tell again
	err := m.daemon.Events(ctx, f, func(e api.Event) error {
		switch {
		case e.Kind == api.KindHello && shown == nil:
			past, err := pastEvents(ctx, m, f, from, most)
			if err != nil {
				return err
			}
			shown = map[string]bool{}
			for _, e := range past {
				shown[eventKey(e)] = true
			}
			return w.all(past)
		case e.Kind == api.KindHello, shown[eventKey(e)]:
			return nil
		case e.Kind == api.KindReset:
			fmt.Fprintf(p.Stderr, "%s: something may be missing here: %s\n", p.Name, e.Text)
			return nil
		case e.Kind == api.KindSlow, e.Kind == api.KindBye:
			fmt.Fprintf(p.Stderr, "%s: %s; trying again\n", p.Name, e.Text)
			return nil
		}
		return w.all([]api.Event{e})
	})
	if ctx.Err() != nil {
		return nil // that is how one ends it
	}
	return err
}

// eventKey tells the beginning and the end of a run from all else.
func eventKey(e api.Event) string {
	if e.Ran == nil {
		return ""
	}
	return e.Run + " " + string(e.Kind)
}

// pastEvents returns the last of what is remembered as events, oldest first.
func pastEvents(ctx context.Context, store loom.Archive, f api.EventFilter, from time.Time, most int) ([]api.Event, error) {
	if most == 0 {
		return nil, nil
	}
	wants := func(k loom.Kind) bool { return f.Kinds == nil || slices.Contains(f.Kinds, k) }
	var all []api.Event
	if wants(loom.KindRunStarted) || wants(loom.KindRunEnded) {
		q := loom.RunQuery{Since: from}
		if len(f.Runs) == 1 {
			q.ID = f.Runs[0]
		}
		for fit := 0; fit < most; {
			runs, err := store.Runs(ctx, q)
			if err != nil {
				return nil, err
			}
			for _, r := range runs {
				if !matchAny(f.Jobs, r.Job) || f.Nodes != nil && !slices.ContainsFunc(r.Targets, func(n string) bool { return matchAny(f.Nodes, n) }) {
					continue
				}
				fit++
				one := api.NewRun(r)
				if wants(loom.KindRunStarted) && !r.Started.IsZero() {
					all = append(all, api.Event{Kind: loom.KindRunStarted, Time: one.Started, Job: r.Job, Run: r.ID, Due: one.Due, Plan: r.Plan, Ran: &one})
				}
				if wants(loom.KindRunEnded) && r.Status.Ended() {
					all = append(all, api.Event{Kind: loom.KindRunEnded, Time: cmp.Or(one.Ended, one.Queued), Job: r.Job, Run: r.ID, Due: one.Due, Plan: r.Plan, Ran: &one})
				}
			}
			if len(runs) < 100 {
				break
			}
			q.Before = runs[len(runs)-1].ID
		}
	}
	if f.Runs == nil && f.Nodes == nil && (wants(api.KindJobPaused) || wants(api.KindJobResumed)) {
		done, err := store.Actions(ctx, loom.ActionQuery{Limit: max(most, 100)})
		if err != nil && ExitCode(err) != ExitForbidden { // not all may see what others did
			return nil, err
		}
		for _, a := range done {
			kind := map[string]loom.Kind{loom.VerbPause: api.KindJobPaused, loom.VerbResume: api.KindJobResumed}[a.Verb]
			if kind != "" && wants(kind) && matchAny(f.Jobs, a.Object) && !a.Time.Before(from) {
				all = append(all, api.Event{Kind: kind, Time: a.Time.UTC(), Job: a.Object, By: a.By, Text: a.Why, Until: a.Until.UTC()})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b api.Event) int { return a.Time.Compare(b.Time) })
	return all[max(len(all)-most, 0):], nil
}

// matchAny reports whether a name matches one of the patterns, or there are none.
func matchAny(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok || p == name
	})
}

// An eventWriter shows events.
type eventWriter struct {
	p    *Program
	json bool
	now  time.Time
}

func (w *eventWriter) all(events []api.Event) error {
	for _, e := range events {
		if w.json {
			if err := writeLine(w.p.Stdout, e); err != nil {
				return err
			}
			continue
		}
		text := w.text(e)
		if width := terminal(w.p.Stdout); width > 0 {
			text = flat(text)
			switch e.Kind {
			case loom.KindOutput:
			case loom.KindNodeEnded, loom.KindRetry: // the end says why
				text = shortenMiddle(text, max(width-10, 20))
			default:
				text = shortenCells(text, max(width-10, 20))
			}
		}
		text = paint(w.p.Stdout, eventColour(e), text)
		if _, err := fmt.Fprintf(w.p.Stdout, "%s  %s\n", paint(w.p.Stdout, "2", when(e.Time, w.now)), text); err != nil {
			return err
		}
	}
	return nil
}

// eventColour is red for what went badly, and faint for what hardly matters.
func eventColour(e api.Event) string {
	switch {
	case e.Result != nil && !e.Result.Status.Good(), e.Kind == loom.KindRunEnded && e.Ran != nil && !e.Ran.Status.Good(),
		e.Kind == loom.KindStoreDown, e.Kind == api.KindManifestBroken:
		return "31"
	case e.Kind == loom.KindTickMissed, e.Kind == loom.KindTickSkipped, e.Kind == api.KindJobPaused:
		return "33"
	case e.Kind == loom.KindNodeStarted, e.Kind == loom.KindOutput:
		return "2"
	}
	return ""
}

// text is an event in words.
func (w *eventWriter) text(e api.Event) string {
	because := func(text string) string { return strings.TrimSuffix(text+": "+e.Text, ": ") }
	about := strings.TrimSpace(strings.TrimPrefix(e.Job, "/") + " " + e.Node)
	switch e.Kind {
	case loom.KindRunStarted:
		text := fmt.Sprintf("%s %s %s started", about, runWord(e.Plan), cut(e.Run, shortest))
		if r := e.Ran; r != nil {
			text += fmt.Sprintf(" on %s (%s%s)", count(r.Nodes, "node"), r.Trigger, strings.TrimRight(" by "+cut(r.By, 26), " by"))
			if r.By == "" {
				text = strings.Replace(text, " by)", ")", 1)
			}
		}
		return text
	case loom.KindRunEnded:
		text := fmt.Sprintf("%s %s %s ended", about, runWord(e.Plan), cut(e.Run, shortest))
		if e.Ran != nil {
			r := e.Ran.Loom()
			text += " " + statusWord(r.Status, r.Plan)
			if !r.Started.IsZero() {
				text += " after " + runTook(r, w.now)
			}
			text = strings.TrimSuffix(text+": "+cmp.Or(r.Reason, countsOf(r)), ": ")
		}
		return text
	case loom.KindNodeStarted:
		return about + " started"
	case loom.KindNodeEnded:
		text := about + " ended"
		if r := e.Result; r != nil {
			text = fmt.Sprintf("%s %s after %s", about, statusWord(r.Status, e.Plan), took(max(r.Ended.Sub(r.Started), 0)))
			text = strings.TrimSuffix(text+": "+strings.TrimPrefix(r.Reason, e.Node+": "), ": ")
		}
		return text
	case loom.KindOutput:
		return about + " | " + e.Text
	case loom.KindChanged:
		return fmt.Sprintf("%s %s: %s", about, statusWord(loom.StatusChanged, e.Plan), e.Text)
	case loom.KindRetry:
		return about + " " + e.Text
	case loom.KindTickSkipped, loom.KindTickMissed:
		return because(fmt.Sprintf("%s tick of %s %s", about, when(e.Due, w.now), strings.TrimPrefix(string(e.Kind), "tick-")))
	case api.KindJobPaused:
		text := strings.TrimSpace(fmt.Sprintf("%s disabled %s", about, by(e.By)))
		if !e.Until.IsZero() {
			text += " until " + when(e.Until, w.now)
		}
		return because(text)
	case api.KindJobResumed:
		return because(strings.TrimSpace(fmt.Sprintf("%s enabled %s", about, by(e.By))))
	}
	return because(strings.TrimSpace(about + " " + strings.ReplaceAll(string(e.Kind), "-", " ")))
}

func (p *Program) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit [OBJECT]",
		Short: "Show who did what",
		Long: `Audit lists what people and programs did, newest first: who ran, cancelled, disabled
and enabled what, and why. OBJECT is what it was done to: a job's name, a run's ID.`,
		Example: `  ` + p.Name + ` audit
  ` + p.Name + ` audit backup
  ` + p.Name + ` audit --by ann --since 7d -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeKnown,
	}
	n := cmd.Flags().IntP("number", "n", 30, "how many at most")
	who := cmd.Flags().String("by", "", "only what this user, or token, did")
	verb := cmd.Flags().StringSlice("verb", nil, "only these: run, plan, cancel, pause, resume, ...")
	since := cmd.Flags().String("since", "", "only what was done from this `time` on")
	for flag, of := range map[string]func(loom.Action) string{
		"verb": func(a loom.Action) string { return a.Verb },
		"by":   func(a loom.Action) string { return a.By },
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, p.completeActions(of)) // it is our own flag
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *n < 1 {
			return Usage("-n %d: write a number from 1", *n)
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
		from, err := parseSince("since", *since, m.config.Timezone, now, false)
		if err != nil {
			return err
		}
		q := loom.ActionQuery{}
		if len(args) > 0 {
			q.Object = args[0]
		}
		all, err := actions(ctx, m, q, *n, from, func(a loom.Action) bool {
			return (*who == "" || a.By == *who) && (len(*verb) == 0 || slices.Contains(*verb, a.Verb))
		})
		if err != nil {
			return err
		}
		if *output == "json" {
			list := []api.Action{}
			for _, a := range all {
				list = append(list, api.NewAction(a))
			}
			return writeJSON(p.Stdout, list)
		}
		if len(all) == 0 {
			fmt.Fprintln(p.Stderr, "nobody did anything of that, or it is not kept any more")
			return nil
		}
		t := table{head: []string{"TIME", "WHO", "DID", "TO", "WHY"}}
		for _, a := range all {
			reason := a.Why
			if !a.Until.IsZero() {
				reason = strings.TrimSuffix("until "+when(a.Until, now)+": "+reason, ": ")
			}
			t.add(when(a.Time, now), clean(cmp.Or(a.By, "-")), clean(a.Verb), clean(a.Object), clean(reason))
		}
		t.write(p.Stdout, terminal(p.Stdout))
		return nil
	}
	return cmd
}

// actions returns the newest actions that fit.
func actions(ctx context.Context, store loom.Archive, q loom.ActionQuery, most int, from time.Time, fits func(loom.Action) bool) ([]loom.Action, error) {
	const page = 500
	var all []loom.Action
	for q.Limit = page; ; {
		found, err := store.Actions(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, a := range found {
			if a.Time.Before(from) {
				return all, nil
			}
			if fits(a) {
				all = append(all, a)
			}
			if len(all) == most {
				return all, nil
			}
			q.Before = a.ID
		}
		if len(found) < page {
			return all, nil
		}
	}
}
