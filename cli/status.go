package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/why"
)

// How much of everything a status shows, and what counts as late.
const (
	statusNext = 5
	statusLate = 24 * time.Hour
	tardy      = 15 * time.Second // so late no tick is while all is well
)

func (p *Program) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how things stand",
		Long: `Status tells whether a daemon runs and is well, what runs now, what fails and since
when, what is disabled, what is late, and what comes next. If no daemon answers it
tells what is remembered, and exits with 3.`,
		Example: `  ` + p.Name + ` status
  ` + p.Name + ` status -o json`,
		Args: cobra.NoArgs,
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		in, err := p.asking(ctx, *state, func(ctx context.Context) (*loom.Manifest, error) {
			return cmp.Or(p.known(ctx), new(loom.Manifest)), nil // what is wrong with it is told
		})
		if err != nil {
			return err
		}
		defer in.close()
		s, err := p.standing(ctx, in)
		if err != nil {
			return err
		}
		if *output == "json" {
			err = writeJSON(p.Stdout, s)
		} else {
			p.showStatus(s)
		}
		if err == nil && !s.Daemon {
			return &Error{Code: ExitUnreachable}
		}
		return err
	}
	return cmd
}

// A standing is how things stand, as far as a command can tell.
type standing struct {
	Daemon bool `json:"daemon"`
	api.Status
	Late    []lateJob `json:"late"`
	Nothing string    `json:"-"` // why nothing is remembered

	usual map[string]why.Usual // of jobs that are running
}

// A lateJob has ticks that were not acted on in time.
type lateJob struct {
	Job string    `json:"job"`
	Due time.Time `json:"due"`
	Run string    `json:"run,omitempty"` // the catch-up; "": none yet
	Why string    `json:"why,omitempty"`
}

// standing finds out how things stand.
func (p *Program) standing(ctx context.Context, in *inquiry) (*standing, error) {
	s := &standing{Daemon: in.daemon != nil, Late: []lateJob{}, usual: map[string]why.Usual{}}
	var err error
	if s.Status, err = in.api.Status(ctx); err != nil {
		return nil, err
	}
	if !s.Daemon {
		s.PID, s.Version = 0, ""
		if _, err := p.read(ctx); err != nil {
			for _, problem := range Problems(err) {
				if text := problem.Error(); !slices.Contains(s.Problems, text) { // what is good of the files tells them too
					s.Problems = append(s.Problems, text)
				}
			}
		}
	}
	switch {
	case in.nothing != nil:
		s.Nothing = in.nothing.Error()
		return s, nil
	case !s.Daemon:
		s.Store.Kind, s.StateDir = in.config.Store, in.dir
	}
	if s.Store.State == api.StoreDown {
		return s, nil
	}
	for _, r := range s.Running {
		_, usual, err := why.History(ctx, in, r.Job)
		if err != nil {
			return nil, err
		}
		s.usual[r.Job] = usual
	}
	return s, s.late(ctx, in)
}

// late finds ticks that were not acted on in time: those that wait for a daemon,
// and those that one has made up for lately.
func (s *standing) late(ctx context.Context, in *inquiry) error {
	now := time.Now()
	jobs, err := all(func(cursor string) (api.Page[api.Job], error) {
		return in.api.ListJobs(ctx, api.JobsQuery{Outcomes: -1, Limit: 1000, Cursor: cursor})
	})
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if !j.Pending.IsZero() && now.Sub(j.Pending) > tardy && !j.Gone {
			s.Late = append(s.Late, lateJob{Job: j.Name, Due: j.Pending, Why: "not acted on yet"})
		}
	}
	runs, err := in.Runs(ctx, loom.RunQuery{Trigger: loom.TriggerCatchUp, Since: now.Add(-statusLate)})
	for _, r := range runs {
		s.Late = append(s.Late, lateJob{Job: r.Job, Due: r.Due.UTC(), Run: r.ID, Why: "made up for"})
	}
	slices.SortStableFunc(s.Late, func(a, b lateJob) int { return a.Due.Compare(b.Due) })
	return err
}

// noStore is a store in which nothing is. Only what is read may be called.
type noStore struct{ loom.Store }

func (noStore) Jobs(context.Context, ...string) ([]loom.JobState, error)             { return nil, nil }
func (noStore) Runs(context.Context, loom.RunQuery) ([]loom.Run, error)              { return nil, nil }
func (noStore) Results(context.Context, loom.ResultQuery) ([]loom.Result, error)     { return nil, nil }
func (noStore) RecentRuns(context.Context, int, ...string) ([]loom.Run, error)       { return nil, nil }
func (noStore) RecentResults(context.Context, int, ...string) ([]loom.Result, error) { return nil, nil }
func (noStore) Ticks(context.Context, loom.TickQuery) ([]loom.Tick, error)           { return nil, nil }
func (noStore) Actions(context.Context, loom.ActionQuery) ([]loom.Action, error)     { return nil, nil }
func (noStore) Output(context.Context, loom.OutputQuery) ([]loom.Chunk, error)       { return nil, nil }
func (noStore) Act(context.Context, loom.Action) error                               { return nil }
func (noStore) Close() error                                                         { return nil }

// showStatus tells a person how things stand.
func (p *Program) showStatus(s *standing) {
	now := time.Now()
	p.showDaemon(s, now)
	p.section("PROBLEMS in the manifests (what was good last is in force)", len(s.Problems), func(t *table) {
		for _, problem := range s.Problems {
			t.add(problem)
		}
	})
	running := "RUNNING"
	if !s.Daemon {
		running = "NOT ENDED: a daemon that starts takes it up"
	}
	p.section(running+also(s.Queued, "waiting"), len(s.Running), func(t *table) {
		n := short(idsOfStatus(s.Running))
		for _, r := range s.Running {
			took := runTook(r.Loom(), now)
			if u := s.usual[r.Job]; r.Plan {
				took += " (plan)"
			} else if u.Runs > 0 {
				took += fmt.Sprintf(" (usually %s)", why.Took(u.Took))
			}
			t.add(r.Job, cut(r.ID, n), took, countsOf(r.Loom()), on(r.Going))
		}
	})
	p.section("FAILING", len(s.Failing), func(t *table) {
		for _, f := range s.Failing {
			t.add(f.Job, string(f.Status), "since "+when(f.Since, now), count(f.Runs, "run"), f.Reason)
			about := f.Runbook
			if f.Owner != "" {
				about = strings.TrimSuffix("owner "+f.Owner+", "+f.Runbook, ", ")
			}
			if about != "" {
				t.add("", "", "", "", about)
			}
		}
	})
	if len(s.Failing) > 0 {
		fmt.Fprintf(p.Stdout, "  (%s why JOB tells more)\n", p.Name)
	}
	p.section("DISABLED", len(s.Paused), func(t *table) {
		for _, j := range s.Paused {
			until := "until it is enabled"
			if !j.Until.IsZero() {
				until = "until " + j.Until.Local().Format(time.DateTime)
			}
			t.add(j.Job, until, by(j.By), j.Why)
		}
	})
	p.section("LATE", len(s.Late), func(t *table) {
		for _, l := range s.Late {
			t.add(l.Job, "due "+when(l.Due, now), l.Why, cut(l.Run, shortest))
		}
	})
	p.section("NEXT", len(s.Next), func(t *table) {
		for i, n := range s.Next {
			if i == statusNext {
				break
			}
			note := n.Note
			if n.Expect == loom.OutcomePaused {
				note = strings.TrimSuffix("will not run: the job is disabled; "+note, "; ")
			}
			t.add(n.Job, n.Time.Local().Format("2006-01-02 15:04:05 MST"), why.In(n.Time.Sub(now)), note)
		}
	})
	if s.More {
		fmt.Fprintf(p.Stdout, "\nThere is more than is shown: %s runs has all.\n", p.Name)
	}
}

func (p *Program) showDaemon(s *standing, now time.Time) {
	switch {
	case s.Daemon && s.Stopping:
		fmt.Fprintf(p.Stdout, "daemon: stopping, process %d, version %s\n", s.PID, s.Version)
	case s.Daemon:
		fmt.Fprintf(p.Stdout, "daemon: running for %s, since %s, process %d, version %s\n",
			strings.TrimPrefix(why.In(now.Sub(s.Started)), "in "), stamp(s.Started), s.PID, s.Version)
	default:
		fmt.Fprintf(p.Stdout, "daemon: NOT RUNNING: nothing is fired (start one: %s -c FILE)\n", p.Name)
	}
	problems := ""
	if n := len(s.Problems); n > 0 {
		problems = fmt.Sprintf(" (%s)", count(n, "problem"))
	}
	if s.ConfigFile != "" {
		fmt.Fprintf(p.Stdout, "manifest: %s, %s, %s%s\n", s.ConfigFile, count(s.Jobs, "job"), count(s.Nodes, "node"), problems)
	} else if !s.Daemon {
		fmt.Fprintf(p.Stdout, "manifest: can't be read (%s check says why)\n", p.Name)
	}
	switch {
	case s.Nothing != "":
		fmt.Fprintf(p.Stdout, "store: %s\n", s.Nothing)
	case s.Store.State == api.StoreDown:
		fmt.Fprintf(p.Stdout, "store: DOWN since %s: %s\n", stamp(s.Store.Since), clean(s.Store.Reason))
	default:
		fmt.Fprintf(p.Stdout, "store: %s, in %s\n", s.Store.State, s.StateDir)
	}
	if s.Outbox != nil {
		fmt.Fprintf(p.Stdout, "news: NOT KEPT since %s: %s (they are sent, but those that wait are lost if the daemon ends now)\n", stamp(s.Outbox.Since), clean(s.Outbox.Reason))
	}
}

// section shows what there is of one thing, if there is any.
func (p *Program) section(head string, n int, fill func(t *table)) {
	if n == 0 {
		return
	}
	if colourful(p.Stdout) {
		head = "\x1b[1m" + head + "\x1b[0m"
	}
	fmt.Fprintf(p.Stdout, "\n%s\n", head)
	var t table
	fill(&t)
	for i := range t.rows {
		for j := range t.rows[i] {
			t.rows[i][j] = clean(t.rows[i][j])
		}
		t.rows[i] = slices.Insert(t.rows[i], 0, "")
	}
	t.write(p.Stdout, terminal(p.Stdout))
}

func also(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d %s)", n, what)
}

func by(who string) string {
	if who == "" {
		return ""
	}
	return "by " + who
}

func on(nodes []string) string {
	if len(nodes) == 0 {
		return ""
	}
	return "on " + Fold(nodes)
}

func idsOfStatus(runs []api.RunStatus) []string {
	all := make([]string, len(runs))
	for i, r := range runs {
		all[i] = r.ID
	}
	return all
}
