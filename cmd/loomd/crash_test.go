package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// TestCrash kills a busy daemon at random moments, again and again, and holds
// what its store says against what the nodes did. LOOM_CRASHES says how often
// (make soak: for long).
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds for each crash")
	}
	crashes := 12
	if s := os.Getenv("LOOM_CRASHES"); s != "" {
		var err error
		if crashes, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(t.TempDir(), "loomd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, resumable := range []bool{true, false} {
		t.Run(fmt.Sprintf("resumable %v", resumable), func(t *testing.T) {
			t.Parallel()
			c := newCrashes(t, bin, resumable)
			for range crashes {
				c.round(t, time.Duration(50+rand.IntN(2000))*time.Millisecond) //nolint:gosec // chance is what is wanted
				if rand.IntN(4) == 0 {                                         //nolint:gosec // likewise
					<-time.After(time.Duration(rand.IntN(4000)) * time.Millisecond) //nolint:gosec // likewise
				}
			}
			c.rest(t)
			c.check(t)
		})
	}
}

// A crashTest is a daemon that dies, and what is known of it.
type crashTest struct {
	bin, dir  string
	resumable bool
	kills     []time.Time
	log       bytes.Buffer
}

func newCrashes(t *testing.T, bin string, resumable bool) *crashTest {
	t.Helper()
	node := sshd.Start(t, sshd.Options{})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	c := &crashTest{bin: bin, dir: t.TempDir(), resumable: resumable}
	var nodes strings.Builder
	for i := range 4 {
		fmt.Fprintf(&nodes, "n%d: {ip: %s, port: %d, user: %s, identity: %s}\n", i, node.Address, node.Port, me.Username, node.Identity)
	}
	command := func(name, do string) string {
		return fmt.Sprintf("'echo begin {{.Run}} >>%[1]s/%[2]s.{{.Node.Name}}; %[3]s; echo end {{.Run}} >>%[1]s/%[2]s.{{.Node.Name}}; echo done'", c.dir, name, do)
	}
	var jobs strings.Builder
	for _, j := range []struct{ name, do, keys string }{
		{"quick", ":", "schedule: '* * * * * *'"},
		{"slow", "sleep 0.9", "schedule: '* * * * * *'"},
		{"queue", "sleep 0.3", "schedule: '*/2 * * * * *', overlap: queue, missed: all"},
		{"skip", ":", "schedule: '*/3 * * * * *', missed: skip"},
		{"follow", ":", "after: [quick], overlap: allow"},
	} {
		fmt.Fprintf(&jobs, "  %s: {task: run, args: [%s], targets: all, timeout: 20s, %s}\n", j.name, command(j.name, j.do), j.keys)
	}
	writeFiles(t, c.dir, map[string]string{
		"loom.yaml": fmt.Sprintf("nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nmax_workers: 30\n"+
			"ssh: {config: none, known_hosts: %s}\nhistory: {keep_runs: 1000000}\ndefaults: {resumable: %v}\n", node.KnownHosts, resumable),
		"none":        "",
		"nodes.yaml":  nodes.String(),
		"jobs/a.yaml": "jobs:\n" + jobs.String(),
	})
	t.Cleanup(func() {
		if t.Failed() {
			text := c.log.Bytes()
			t.Logf("the end of the log:\n%s", text[max(0, len(text)-20_000):])
		}
	})
	return c
}

// writeFiles writes files below a directory, by their names.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *crashTest) start(ctx context.Context, t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, c.bin, "-c", filepath.Join(c.dir, "loom.yaml"))
	cmd.Stdout, cmd.Stderr = &c.log, &c.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// round runs the daemon for a time and kills it.
func (c *crashTest) round(t *testing.T, lives time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lives) // and then: SIGKILL
	defer cancel()
	cmd := c.start(ctx, t)
	err := cmd.Wait()
	c.kills = append(c.kills, time.Now())
	if ctx.Err() == nil {
		t.Fatalf("the daemon ended by itself: %v", err)
	}
}

// rest runs the daemon for long enough that all that was interrupted is dealt
// with, and stops it in good order.
func (c *crashTest) rest(t *testing.T) {
	t.Helper()
	cmd := c.start(t.Context(), t)
	timer := time.NewTimer(6 * time.Second)
	<-timer.C
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the daemon did not stop well: %v", err)
	}
}

// check holds the store against the nodes.
func (c *crashTest) check(t *testing.T) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(c.dir, "state", "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	runs := map[string]loom.Run{}
	all, err := store.Runs(t.Context(), loom.RunQuery{Limit: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		runs[r.ID] = r
		if !r.Status.Ended() && r.Status != loom.StatusQueued {
			t.Errorf("%s run %s is %s", r.Job, r.ID, r.Status)
		}
	}
	for name, period := range map[string]time.Duration{"quick": time.Second, "slow": time.Second, "queue": 2 * time.Second, "skip": 3 * time.Second} {
		checkTicks(t, store, name, period, runs)
	}
	c.checkFollowers(t, runs)
	did := c.executions(t)
	counts := map[loom.Status]int{}
	for _, r := range all {
		results, err := store.Results(t.Context(), loom.ResultQuery{Runs: []string{r.ID}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != loom.StatusQueued && len(results) != 4 {
			t.Errorf("%s run %s (%s, %s) has %d results, want 4", r.Job, r.ID, r.Status, r.Reason, len(results))
		}
		for _, res := range results {
			counts[res.Status]++
			key := r.Job + "." + res.Node + " " + r.ID
			c.checkResult(t, store, r, res, did["begin "+key], did["end "+key])
			delete(did, "begin "+key)
			delete(did, "end "+key)
		}
	}
	for what, n := range did {
		t.Errorf("done on a node and not in the store: %s, %d times", what, n)
	}
	t.Logf("%d crashes, %d runs, results: %v", len(c.kills), len(all), counts)
}

// checkTicks checks that every tick has one outcome, and its run.
func checkTicks(t *testing.T, store loom.Store, job string, period time.Duration, runs map[string]loom.Run) {
	t.Helper()
	ticks, err := store.Ticks(t.Context(), loom.TickQuery{Job: job, Limit: 1 << 30})
	if err != nil || len(ticks) == 0 {
		t.Fatalf("%s has no ticks: %v", job, err)
	}
	var next time.Time // what must follow, going back
	seen := map[loom.Outcome]int{}
	for _, k := range ticks {
		if !next.IsZero() && !k.Until.Equal(next.Add(-period)) {
			t.Errorf("%s: after the tick %v comes %v", job, k.Until, next)
		}
		if want := int(k.Until.Sub(k.Due)/period) + 1; k.Ticks != want {
			t.Errorf("%s: a range from %v to %v has %d ticks, want %d", job, k.Due, k.Until, k.Ticks, want)
		}
		next = k.Due
		seen[k.Outcome] += k.Ticks
		_, has := runs[k.Run]
		if k.Outcome.Runs() != has {
			t.Errorf("%s: tick %v %s has the run %q", job, k.Due, k.Outcome, k.Run)
		}
		if k.Outcome != loom.OutcomeRan && k.Why == "" {
			t.Errorf("%s: tick %v %s, and nobody knows why", job, k.Due, k.Outcome)
		}
	}
	t.Logf("%s: %v", job, seen)
}

// checkFollowers checks that each run that went well was followed once.
func (c *crashTest) checkFollowers(t *testing.T, runs map[string]loom.Run) {
	t.Helper()
	followed := map[string]int{}
	for _, r := range runs {
		if r.Trigger == loom.TriggerAfter {
			followed[r.By]++
		}
	}
	for _, r := range runs {
		want := 0
		if r.Job == "quick" && r.Status.Good() {
			want = 1
		}
		if followed[r.ID] != want && r.Status.Ended() {
			t.Errorf("%s run %s, %s, was followed by %d runs, want %d", r.Job, r.ID, r.Status, followed[r.ID], want)
		}
	}
}

func (c *crashTest) checkResult(t *testing.T, store loom.Store, r loom.Run, res loom.Result, begun, ended int) {
	t.Helper()
	what := fmt.Sprintf("%s run %s on %s, %s (%s), began %d and ended %d times", r.Job, r.ID, res.Node, res.Status, res.Reason, begun, ended)
	switch res.Status {
	case loom.StatusOK:
		if begun != 1 || ended != 1 {
			t.Error(what)
		}
		chunks, err := store.Output(t.Context(), loom.OutputQuery{Run: r.ID, Node: res.Node})
		if err != nil || len(chunks) != 1 || len(chunks[0].Lines) != 1 || chunks[0].Lines[0].Text != "done" {
			t.Errorf("%s: output %+v, %v", what, chunks, err)
		}
	case loom.StatusLost:
		killed := false
		for _, k := range c.kills {
			killed = killed || !res.Started.After(k) && !res.Ended.Before(k)
		}
		if begun > 1 || ended > 1 || c.resumable || !killed {
			t.Error(what)
		}
	case loom.StatusCancelled:
		if begun != 0 {
			t.Error(what)
		}
	default:
		t.Error(what)
	}
}

// executions counts what was done on the nodes.
func (c *crashTest) executions(t *testing.T) map[string]int {
	t.Helper()
	did := map[string]int{}
	files, err := filepath.Glob(filepath.Join(c.dir, "*.n?"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			verb, run, _ := strings.Cut(strings.TrimSpace(line), " ")
			did[verb+" "+filepath.Base(file)+" "+run]++
		}
	}
	return did
}
