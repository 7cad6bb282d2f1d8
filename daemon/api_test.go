package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// shell is a task.
type shell struct{ Command string }

func (t shell) Apply(ctx context.Context, s *loom.Session) error { return s.Run(ctx, t.Command) }

func (t shell) Plan(context.Context, *loom.Session) ([]loom.Change, error) {
	return []loom.Change{loom.Change("ran " + t.Command)}, nil
}

// living starts a daemon with a store, and returns its client and its directory. stop
// ends it.
func living(t *testing.T, jobs string, more string) (c *api.Client, dir string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the test may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	write(t, dir, "loom.yaml", more+"jobspath: jobs\nstate: state\nssh: {known_hosts: known, host_keys: strict}\ngrace: 1s\n", "jobs/jobs.yaml", jobs)
	stop = begin(t, dir)
	return &api.Client{Socket: filepath.Join(dir, "state", api.SocketFile)}, dir, stop
}

// begin starts a daemon in a directory.
func begin(t *testing.T, dir string) (stop func()) {
	t.Helper()
	stop, _ = beginLogged(t, dir)
	return stop
}

// beginLogged is begin, and returns what the daemon logs.
func beginLogged(t *testing.T, dir string) (stop func(), log *safeBuffer) {
	t.Helper()
	tasks := registry()
	tasks.Add("shell", shell{}, "sh")
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	log = new(safeBuffer)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Tasks: tasks, Dialer: &ssh.Dialer{}, Stores: Stores{"sqlite": sqlite.Open}},
			[]string{"-c", filepath.Join(dir, "loom.yaml")}, nil, log, log)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel(errors.New("enough"))
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	}
	t.Cleanup(stop)
	c := &api.Client{Socket: filepath.Join(dir, "state", api.SocketFile)}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		if _, err := c.Status(t.Context()); err == nil {
			return stop, log
		} else if time.Now().After(deadline) {
			t.Fatalf("the daemon does not answer: %v\n%s", err, log.String())
		}
	}
}

// await waits for the end of a run.
func await(t *testing.T, c *api.Client, id string) loom.Run {
	t.Helper()
	q := loom.OutputQuery{Run: id}
	for {
		chunks, ended, err := c.Follow(t.Context(), q, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range chunks {
			q.After = k.Cursor
		}
		if ended {
			r, err := c.Run(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	}
}

// printed is what a run printed, by node.
func printed(t *testing.T, c *api.Client, run string) string {
	t.Helper()
	chunks, err := c.Output(t.Context(), loom.OutputQuery{Run: run})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, k := range chunks {
		for _, l := range k.Lines {
			all = append(all, k.Node+": "+l.Text)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

const twoNodes = "nodes:\n  a: {transport: local, groups: [web], env: {CODE: '0', WHO: ann}}\n  b: {transport: local, groups: [web], env: {CODE: '3'}}\n" +
	"  dead: {ip: 127.0.0.1, port: 1, password: hunter22}\n"

// A run by hand is as was asked for, and so is one that tries it again.
func TestTerms(t *testing.T) {
	c, dir, stop := living(t, `jobs:
  both: {task: shell, args: [date], schedule: manual, targets: '@web', overlap: queue}
  next: {task: shell, args: [date], targets: a, after: {job: both, on: any}}
  slow: {task: shell, args: ['echo begun; sleep 1000'], schedule: manual, targets: '@web', overlap: queue}
`, twoNodes)
	ctx := t.Context()

	// One that waits behind another, over a start of the daemon.
	first, err := c.Trigger(ctx, "slow", loom.Request{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Trigger(ctx, "slow", loom.Request{Timeout: 200 * time.Millisecond, Max: 1})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	begin(t, dir)
	await(t, c, first.ID)
	r := await(t, c, second.ID)
	if r.Timeout != 200*time.Millisecond || r.Max != 1 || r.Counts[loom.StatusTimeout] != 2 {
		t.Errorf("the run that waited: %+v", r)
	}
	results, err := c.Results(ctx, loom.ResultQuery{Runs: []string{r.ID}})
	if err != nil || len(results) != 2 {
		t.Fatal(results, err)
	}
	slices.SortFunc(results, func(a, b loom.Result) int { return a.Started.Compare(b.Started) })
	if results[1].Started.Before(results[0].Ended) {
		t.Errorf("with max 1 it was at work on both nodes at once: %+v", results)
	}

	plan, err := c.Trigger(ctx, "both", loom.Request{Plan: true, Key: "p"})
	if err != nil || !plan.Plan {
		t.Fatalf("Trigger = %+v, %v", plan, err)
	}
	if plan = await(t, c, plan.ID); plan.Counts[loom.StatusChanged] != 2 || plan.Status != loom.StatusChanged {
		t.Errorf("the plan: %+v", plan)
	}
	again, err := c.Retry(ctx, plan.ID, false, "")
	if err != nil || !again.Plan {
		t.Errorf("Retry of a plan = %+v, %v", again, err)
	}
	await(t, c, again.ID)
	if r, err := c.Retry(ctx, second.ID, true, ""); err != nil || r.Timeout != second.Timeout || r.Max != 1 {
		t.Errorf("Retry = %+v, %v", r, err)
	} else {
		await(t, c, r.ID)
	}
	if runs, err := c.Runs(ctx, loom.RunQuery{Job: "next"}); err != nil || len(runs) != 0 {
		t.Errorf("plans were followed by %+v, %v", runs, err)
	}
	if states, err := c.Jobs(ctx, "both"); err != nil || states[0].Last != nil {
		t.Errorf("the job is %+v, %v", states, err)
	}
	if actions, err := c.Actions(ctx, loom.ActionQuery{Object: "both"}); err != nil || len(actions) != 2 || actions[0].Verb != loom.VerbPlan {
		t.Errorf("the audit has %+v, %v", actions, err)
	}
}

func TestHands(t *testing.T) {
	c, dir, stop := living(t, `jobs:
  flaky: {task: shell, args: ['echo "$LOOM_NOTHING"here; exit "$CODE"'], schedule: manual, targets: '@web', description: sometimes fails}
  nightly: {task: shell, args: [date], schedule: '0 2 * * *', timezone: Europe/Berlin, targets: a, labels: {team: ops}}
`, twoNodes)
	ctx := t.Context()

	r, err := c.Exec(ctx, api.Exec{Targets: []string{"@web", "!b"}, Command: `echo "hello $WHO $MORE"; exit 0`, Env: map[string]string{"MORE": "too"}}, "k1")
	if err != nil || r.Job != loom.ExecJob {
		t.Fatalf("Exec = %+v, %v", r, err)
	}
	if r = await(t, c, r.ID); r.Status != loom.StatusOK || r.Nodes != 1 {
		t.Errorf("the run of a command: %+v", r)
	}
	if got := printed(t, c, r.ID); got != "a: hello ann too" {
		t.Errorf("the command printed %q", got)
	}
	if shown, err := c.ShowRun(ctx, r.ID); err != nil || !strings.Contains(shown.Why, `echo "hello $WHO $MORE"; exit 0 (env: MORE)`) || shown.By == "" {
		t.Errorf("ShowRun = %+v, %v", shown, err)
	}
	again, err := c.Exec(ctx, api.Exec{Targets: []string{"a"}, Command: `echo "hello $WHO $MORE"; exit 0`, Env: map[string]string{"MORE": "too"}}, "k1")
	if err != nil || again.ID != r.ID {
		t.Errorf("the same key: %+v, %v", again, err)
	}
	for _, other := range []api.Exec{{Targets: []string{"a"}, Command: "false"}, {Targets: []string{"b"}, Command: `echo "hello $WHO $MORE"; exit 0`, Env: map[string]string{"MORE": ""}}} {
		if r, err := c.Exec(ctx, other, "k1"); err == nil || !strings.Contains(err.Error(), "asked for in another way") {
			t.Errorf("the same key for another command: %+v, %v", r, err)
		}
	}
	if _, err := c.Exec(ctx, api.Exec{Targets: []string{"webb"}, Command: "true"}, ""); !errors.Is(err, loom.ErrNotFound) || !strings.Contains(err.Error(), `"webb"`) {
		t.Errorf("Exec where there is nothing: %v", err)
	}

	long, err := c.Exec(ctx, api.Exec{Targets: []string{"all", "!dead"}, Command: "echo begun; sleep 1000"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if chunks, _, err := c.Follow(ctx, loom.OutputQuery{Run: long.ID}, time.Minute); err != nil || len(chunks) == 0 {
		t.Fatal(chunks, err)
	}
	if err := c.Cancel(ctx, long.ID, "wrong"); err != nil {
		t.Error(err)
	}
	if r := await(t, c, long.ID); r.Status != loom.StatusCancelled {
		t.Errorf("a command that was cancelled: %+v", r)
	}
	if r, err := c.Exec(ctx, api.Exec{Targets: []string{"a"}, Command: "sleep 1000", Timeout: 0.2}, ""); err != nil {
		t.Error(err)
	} else if r = await(t, c, r.ID); r.Counts[loom.StatusTimeout] != 1 {
		t.Errorf("a command that takes too long: %+v", r)
	}

	r, err = c.Trigger(ctx, "flaky", loom.Request{Key: "x", Why: "to see"})
	if err != nil {
		t.Fatal(err)
	}
	if twice, err := c.Trigger(ctx, "flaky", loom.Request{Key: "x", Why: "to see"}); err != nil || twice.ID != r.ID {
		t.Errorf("Trigger with the same key = %+v, %v", twice, err)
	}
	for _, other := range []loom.Request{{Key: "x", Why: "for another reason"}, {Key: "x", Why: "to see", Targets: []string{"a"}},
		{Key: "x", Why: "to see", Max: 1}, {Key: "x", Why: "to see", Timeout: time.Minute}, {Key: "x", Why: "to see", Plan: true}} {
		if r, err := c.Trigger(ctx, "flaky", other); err == nil || !strings.Contains(err.Error(), "Choose a new key") {
			t.Errorf("Trigger with the same key for something else = %+v, %v", r, err)
		}
	}
	if r = await(t, c, r.ID); r.Counts[loom.StatusFailed] != 1 || r.Counts[loom.StatusOK] != 1 {
		t.Fatalf("the run: %+v", r)
	}
	retried, err := c.Retry(ctx, r.ID, true, "y")
	if err != nil || !slices.Equal(retried.Targets, []string{"b"}) || retried.Job != "flaky" {
		t.Errorf("Retry where it failed = %+v, %v", retried, err)
	}
	if twice, err := c.Retry(ctx, r.ID[:20], true, "y"); err != nil || twice.ID != retried.ID {
		t.Errorf("Retry with the same key = %+v, %v", twice, err)
	}
	await(t, c, retried.ID)
	if whole, err := c.Retry(ctx, r.ID, false, ""); err != nil || whole.Targets != nil || whole.Nodes != 2 {
		t.Errorf("Retry of all = %+v, %v", whole, err)
	} else {
		await(t, c, whole.ID)
	}
	if _, err := c.Retry(ctx, long.ID, false, ""); err == nil || !strings.Contains(err.Error(), "was a command") {
		t.Errorf("Retry of a command: %v", err)
	}

	jobs, err := c.ListJobs(ctx, api.JobsQuery{})
	if err != nil || len(jobs.Items) != 2 || len(jobs.Items[0].Outcomes) != 3 || jobs.Items[1].Next.IsZero() || jobs.Items[0].Line != 2 {
		t.Errorf("ListJobs = %+v, %v", jobs, err)
	}
	if st, err := c.Status(ctx); err != nil || len(st.Failing) != 1 || st.Failing[0].Job != "flaky" {
		t.Errorf("what fails: %+v, %v", st.Failing, err)
	}
	actions, err := c.Actions(ctx, loom.ActionQuery{})
	verbs := map[string]int{}
	for _, a := range actions {
		verbs[a.Verb+" "+a.Object]++
	}
	if err != nil || verbs["run "+loom.ExecJob] != 3 || verbs["run flaky"] != 3 || verbs["cancel "+long.ID] != 1 {
		t.Errorf("the audit has %v, %v", verbs, err)
	}

	last, err := c.Exec(ctx, api.Exec{Targets: []string{"a"}, Command: "echo begun; sleep 1000"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Follow(ctx, loom.OutputQuery{Run: last.ID}, time.Minute); err != nil {
		t.Fatal(err)
	}
	stop()
	begin(t, dir)
	if r, err := c.Run(ctx, last.ID); err != nil || !r.Status.Ended() || r.Status.Good() {
		t.Errorf("a command that went on when the daemon stopped: %+v, %v", r, err)
	}
}

func TestPing(t *testing.T) {
	s := sshd.Start(t, sshd.Options{})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	c, _, _ := living(t, "jobs: {}\n", twoNodes+fmt.Sprintf("  far: {ip: %s, port: %d, user: %s, identity: %s}\n", s.Address, s.Port, me.Username, s.Identity))
	ctx := t.Context()
	p, err := c.Ping(ctx, "a")
	if err != nil || !p.OK || p.User == "" || p.OS == "" || p.RTT <= 0 {
		t.Errorf("Ping = %+v, %v", p, err)
	}
	if p, err = c.Ping(ctx, "dead"); err != nil || p.OK || p.Class != "connection refused" || !strings.Contains(p.Error, "is sshd running") {
		t.Errorf("Ping of a dead node = %+v, %v", p, err)
	}
	if p, err = c.Ping(ctx, "far"); err != nil || p.OK || p.Class != "host key unknown" {
		t.Errorf("Ping of a node that nobody trusts = %+v, %v", p, err)
	}
	keys, err := c.HostKeys(ctx, "far")
	if err != nil || len(keys) != 1 || keys[0].Known != "" {
		t.Fatalf("HostKeys = %+v, %v", keys, err)
	}
	if added, err := c.Trust(ctx, "far", keys[0].Fingerprint); err != nil || len(added) != 1 {
		t.Errorf("Trust = %+v, %v", added, err)
	}
	if p, err = c.Ping(ctx, "far"); err != nil || !p.OK {
		t.Errorf("Ping of a node that is trusted = %+v, %v", p, err)
	}
	if _, err := c.Ping(ctx, "farr"); !errors.Is(err, loom.ErrNotFound) || !strings.Contains(err.Error(), `did you mean "far"`) {
		t.Errorf("Ping of no node: %v", err)
	}
	if _, err := c.HostKeys(ctx, "a"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("HostKeys of the machine itself: %v", err)
	}
	if _, err := c.HostKeys(ctx, "dead"); !errors.Is(err, loom.ErrUnreachable) {
		t.Errorf("HostKeys of a dead node: %v", err)
	}
	nodes, err := c.ListNodes(ctx, api.NodesQuery{Reach: []string{api.Unreachable}})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "dead" || nodes.Items[0].Reach.Reason == "" {
		t.Errorf("unreachable nodes = %+v, %v", nodes, err)
	}
	if n, err := c.ShowNode(ctx, "far", 0); err != nil || n.Reach.State != api.Reachable || n.Ping == nil || n.Identity == "" {
		t.Errorf("ShowNode = %+v, %v", n, err)
	}
}

func TestShows(t *testing.T) {
	c, dir, _ := living(t, `jobs:
  backup: {task: shell, args: [sleep 0.01], schedule: '0 2 * * *', timezone: Europe/Berlin, targets: a, labels: {team: ops, tier: gold}, owner: ann, env: {TOKEN_OF: x}}
  check: {task: shell, args: ['exit 4'], schedule: ['0 3 * * *', '0 15 * * *'], targets: '@web', labels: {team: web}, timeout: 1m, retries: 2}
  hourly: {task: echo, args: [hi], schedule: '@hourly', targets: b}
  report: {task: echo, args: [done], after: backup, targets: a}
`, twoNodes)
	ctx := t.Context()
	for _, job := range []string{"backup", "check"} {
		r, err := c.Trigger(ctx, job, loom.Request{})
		if err != nil {
			t.Fatal(err)
		}
		await(t, c, r.ID)
	}
	reports, err := c.Runs(ctx, loom.RunQuery{Job: "report"})
	if err != nil || len(reports) != 1 {
		t.Fatal(reports, err)
	}
	await(t, c, reports[0].ID)

	for _, tt := range []struct {
		q    api.JobsQuery
		want string
	}{
		{api.JobsQuery{}, "backup check hourly report"},
		{api.JobsQuery{Match: "*e*"}, "check report"},
		{api.JobsQuery{Names: []string{"report", "backup", "nobody"}}, "backup report"},
		{api.JobsQuery{Labels: []string{"team"}}, "backup check"},
		{api.JobsQuery{Labels: []string{"team=ops", "tier=gold"}}, "backup"},
		{api.JobsQuery{Labels: []string{"team=ops", "tier=silver"}}, ""},
		{api.JobsQuery{Status: []string{"failed"}}, "check"},
		{api.JobsQuery{Status: []string{"ok", "never"}}, "backup hourly report"},
		{api.JobsQuery{Node: "b"}, "check hourly"},
		{api.JobsQuery{Node: "b", Status: []string{"never"}}, "hourly"},
	} {
		var got []string
		tt.q.Limit = 1 // page by page
		for {
			p, err := c.ListJobs(ctx, tt.q)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range p.Items {
				got = append(got, j.Name)
			}
			if tt.q.Cursor = p.Next; p.Next == "" {
				break
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("jobs %+v: %q, want %q", tt.q, got, tt.want)
		}
	}
	if _, err := c.ListJobs(ctx, api.JobsQuery{Match: "["}); err == nil || !strings.Contains(err.Error(), "a [ needs its ]") {
		t.Errorf("a pattern that is not complete: %v", err)
	}

	d, err := c.ShowJob(ctx, "check", 0)
	if err != nil || !slices.Equal(d.Targets, []string{"a", "b"}) || !slices.Equal(d.Schedule, []string{"0 3 * * *", "0 15 * * *"}) ||
		d.Timeout != 60 || d.Retries.Attempts != 2 || d.Does[0].Task != "shell" || d.Does[0].Params["command"] != "exit 4" || len(d.Does[0].Params) != 1 || d.Outcomes[0].Status != loom.StatusFailed || d.UsualRuns != 1 {
		t.Errorf("ShowJob = %+v, %v", d, err)
	}
	if d, err = c.ShowJob(ctx, "backup", 0); err != nil || d.Timezone != "Europe/Berlin" || !slices.Equal(d.Followers, []string{"report"}) || !slices.Equal(d.Env, []string{"TOKEN_OF"}) {
		t.Errorf("ShowJob = %+v, %v", d, err)
	}
	if _, err = c.ShowJob(ctx, "bakcup", 0); !errors.Is(err, loom.ErrNotFound) || !strings.Contains(err.Error(), `did you mean "backup"`) {
		t.Errorf("ShowJob of none: %v", err)
	}

	until := time.Now().Add(48 * time.Hour)
	if err := c.Pause(ctx, "hourly", until, "moving"); err != nil {
		t.Fatal(err)
	}
	day := time.Date(2035, 3, 25, 0, 0, 0, 0, time.UTC) // in Berlin there is no 02:30 then
	var all []string
	q := api.NextQuery{From: day, To: day.Add(24 * time.Hour), Limit: 5}
	for {
		p, err := c.Next(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if q.Cursor == "" && (len(p.Never) != 1 || p.Never[0].Job != "report") {
			t.Errorf("jobs without ticks: %+v", p.Never)
		}
		for _, n := range p.Items {
			all = append(all, n.Job+" "+n.Time.UTC().Format("15:04"))
		}
		if q.Cursor = p.Next; p.Next == "" {
			break
		}
	}
	unique := slices.Compact(slices.Sorted(slices.Values(all)))
	if len(all) != 27 || len(unique) != 27 {
		t.Errorf("of a day there are %d ticks, %d of them different: %q", len(all), len(unique), all)
	}
	soon, err := c.Next(ctx, api.NextQuery{Jobs: []string{"hourly"}, Limit: 1})
	if err != nil || len(soon.Items) != 1 || soon.Items[0].Expect != loom.OutcomePaused || !strings.Contains(soon.Items[0].Why, "moving") {
		t.Errorf("the next tick of a job that is paused: %+v, %v", soon, err)
	}
	if err := c.Resume(ctx, "hourly", "moved"); err != nil {
		t.Error(err)
	}
	if s, err := c.Jobs(ctx, "hourly"); err != nil || s[0].Pause != nil {
		t.Errorf("a job that was resumed: %+v, %v", s, err)
	}

	latest, err := c.Why(ctx, "check", api.WhyQuery{})
	if err != nil || len(latest.Items) != 2 || latest.Items[0].Run == nil || latest.Items[1].Outcome != "coming" {
		t.Errorf("Why = %+v, %v", latest, err)
	}
	if a, err := c.Why(ctx, "report", api.WhyQuery{Run: reports[0].ID[:20]}); err != nil || !strings.Contains(a.Items[0].Text, "backup") {
		t.Errorf("Why of a run = %+v, %v", a, err)
	}
	many, err := c.Why(ctx, "check", api.WhyQuery{From: day, To: day.AddDate(0, 0, 7), Limit: 4})
	if err != nil || len(many.Items) != 4 || many.Next == "" {
		t.Fatalf("Why of a week = %+v, %v", many, err)
	}
	rest, err := c.Why(ctx, "check", api.WhyQuery{From: day, To: day.AddDate(0, 0, 7), Limit: 100, Cursor: many.Next})
	if err != nil || len(rest.Items) != 10 || !rest.Items[0].Due.After(many.Items[3].Due) {
		t.Errorf("Why of the rest of a week = %d, %v", len(rest.Items), err)
	}
	if _, err := c.Why(ctx, "check", api.WhyQuery{Run: reports[0].ID}); !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("Why of another job's run: %v", err)
	}

	nodes, err := c.ListNodes(ctx, api.NodesQuery{Targets: []string{"@web", "!b"}})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "a" || nodes.Items[0].Jobs != 3 || nodes.Items[0].Reach.State != api.Reachable || nodes.Items[0].Last == nil {
		t.Errorf("ListNodes = %+v, %v", nodes, err)
	}
	if n, err := c.ShowNode(ctx, "dead", 0); err != nil || n.Reach.State != api.Unknown || n.Port != 1 || len(n.Results) != 0 {
		t.Errorf("ShowNode = %+v, %v", n, err)
	}

	m, err := c.Manifest(ctx)
	if err != nil || m.Jobs != 4 || m.Nodes != 3 || m.Groups["web"] != 2 || m.Problems != 0 {
		t.Errorf("Manifest = %+v, %v", m, err)
	}
	sources, err := c.Sources(ctx)
	if err != nil || len(sources) != 2 || !slices.Equal(sources[0].Jobs, []string{"backup", "check", "hourly", "report"}) {
		t.Errorf("Sources = %+v, %v", sources, err)
	}
	main, err := c.Source(ctx, filepath.Join(dir, "loom.yaml"))
	if err != nil || !strings.Contains(main.Text, "jobspath: jobs") || strings.Contains(main.Text, "hunter22") || !strings.Contains(main.Text, "dead") {
		t.Errorf("Source = %+v, %v", main, err)
	}
	for _, file := range []string{"/etc/passwd", filepath.Join(dir, "jobs", "..", "..", "etc", "passwd"), filepath.Join(dir, "jobs"), filepath.Join(dir, "state", "loom.db"), "jobs.yaml"} {
		if s, err := c.Source(ctx, file); !errors.Is(err, loom.ErrNotFound) {
			t.Errorf("Source of %s = %+v, %v", file, s, err)
		}
	}
	tasks, err := c.Tasks(ctx)
	if err != nil || len(tasks) != 2 || tasks[1].Name != "shell" || !slices.Equal(tasks[1].Aliases, []string{"sh"}) || len(tasks[1].Params) != 1 {
		t.Errorf("Tasks = %+v, %v", tasks, err)
	}
	if one, err := c.Task(ctx, "sh"); err != nil || one.Name != "shell" {
		t.Errorf("Task = %+v, %v", one, err)
	}
	if _, err := c.Task(ctx, "shel"); !errors.Is(err, loom.ErrNotFound) || !strings.Contains(err.Error(), `did you mean "shell"`) {
		t.Errorf("Task of none: %v", err)
	}
	if schema, err := c.Schema(ctx); err != nil || !strings.Contains(string(schema), `"$schema"`) {
		t.Errorf("Schema = %.100s, %v", schema, err)
	}

	write(t, dir, "jobs/bad.yaml", "jobs:\n  bad: {task: shel, targets: a, schedule: manual}\n")
	if err := c.Reload(ctx); err == nil {
		t.Error("a broken manifest is reloaded without a word")
	}
	problems, err := c.Problems(ctx, "error")
	if err != nil || len(problems) == 0 || problems[0].Line != 2 || filepath.Base(problems[0].File) != "bad.yaml" || !strings.Contains(problems[0].Error(), "bad.yaml:2:") {
		t.Errorf("Problems = %+v, %v", problems, err)
	}
	if _, err := c.Actions(ctx, loom.ActionQuery{By: "nobody"}); err != nil {
		t.Error(err)
	}
	audit, err := c.Actions(ctx, loom.ActionQuery{Verb: loom.VerbPause})
	if err != nil || len(audit) != 1 || audit[0].Why != "moving" || audit[0].Object != "hourly" {
		t.Errorf("the audit of pauses = %+v, %v", audit, err)
	}
}

// What has not changed is not sent again.
func TestTags(t *testing.T) {
	c, dir, _ := living(t, "jobs: {one: {task: echo, args: [hi], schedule: manual, targets: a}}\n", twoNodes)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	}}}
	get := func(path, tag string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://loomd"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			r.Header.Set("If-None-Match", `"other", W/`+tag)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode == http.StatusNotModified && len(text) > 0 {
			t.Errorf("%s: not modified, but %q", path, text)
		}
		return answer.StatusCode, answer.Header.Get("ETag")
	}
	for _, path := range []string{"/openapi.json", "/api/v1/jobs", "/api/v1/nodes", "/api/v1/schema", "/api/v1/tasks", "/api/v1/tasks/sh", "/api/v1/manifest", "/api/v1/manifest/sources"} {
		status, tag := get(path, "")
		if status != http.StatusOK || tag == "" {
			t.Errorf("%s: %d, ETag %q", path, status, tag)
		}
		if status, _ := get(path, tag); status != http.StatusNotModified {
			t.Errorf("%s, once more: %d", path, status)
		}
	}
	_, tag := get("/api/v1/jobs", "")
	write(t, dir, "jobs/more.yaml", "jobs: {two: {task: echo, args: [hi], schedule: manual, targets: a}}\n")
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, now := get("/api/v1/jobs", tag); status != http.StatusOK || now == tag {
		t.Errorf("jobs that have changed: %d, the tag is the same: %v", status, now == tag)
	}
	if status, tag := get("/api/v1/tasks/nobody", ""); status != http.StatusNotFound || tag != "" {
		t.Errorf("no task: %d with ETag %q", status, tag)
	}
}
