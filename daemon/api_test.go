package daemon

import (
	"context"
	"errors"
	"fmt"
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
	tasks := registry()
	tasks.Add("shell", shell{}, "sh")
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	var log safeBuffer
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Tasks: tasks, Dialer: &ssh.Dialer{}, Stores: Stores{"sqlite": sqlite.Open}},
			[]string{"-c", filepath.Join(dir, "loom.yaml")}, nil, &log, &log)
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
	log.until(t, "msg=started")
	return stop
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
	for _, other := range []loom.Request{{Key: "x", Why: "for another reason"}, {Key: "x", Why: "to see", Targets: []string{"a"}}} {
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
