package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/golden"
	ram "github.com/dustinlacewell/loom/store/memory"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

// A desk is where commands are given: a configuration, and a memory of it.
type desk struct {
	t      *testing.T
	dir    string
	config string
	store  loom.Store
	open   OpenStore
}

const deskJobs = `jobs:
  backup:
    task: run
    args: [pg_dump]
    schedule: "0 * * * *"
    timezone: UTC
    targets: all
    owner: ann@example.org
    runbook: https://wiki.example.org/backup
  report:
    task: run
    args: [uptime]
    after: [backup]
    timezone: UTC
    targets: db1
  cleanup:
    task: run
    args: [uptime]
    schedule: "*/30 * * * *"
    timezone: UTC
    not_during: [{schedule: "0 3 * * *", for: 45m}]
    targets: db1
`

// newDesk makes one. Without an open function its memory is one of this process.
func newDesk(t *testing.T, open OpenStore) *desk {
	t.Helper()
	dir := t.TempDir()
	d := &desk{t: t, dir: dir, config: filepath.Join(dir, "loom.yaml"), open: open}
	d.put("loom.yaml", "nodes: {db1: {}, db2: {}, db3: {}}\njobspath: jobs\nstate: state\ntimezone: UTC\n")
	d.put("jobs/a.yaml", deskJobs)
	if open == nil {
		d.store = &ram.Store{Zone: time.UTC}
		d.put("state/loom.db", "") // it is only looked for
		d.open = func(context.Context, string) (loom.Store, error) { return d.store, nil }
	}
	return d
}

func (d *desk) put(name, text string) {
	d.t.Helper()
	name = filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// give gives a command.
func (d *desk) give(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	p := &Program{Name: "loomd", Tasks: tasks.Registry(), Stores: Stores{"sqlite": d.open}, Stdout: &out, Stderr: &errs}
	err := p.Execute(d.t.Context(), p.Command(), append(args, "-c", d.config))
	p.Report(err)
	clean := func(s string) string {
		return strings.ReplaceAll(strings.ReplaceAll(s, d.dir, "DIR"), "paused by "+(&memory{}).who(), "paused by USER")
	}
	return clean(out.String()), clean(errs.String()), ExitCode(err)
}

// transcript is what a person sees who gives these commands.
func (d *desk) transcript(commands ...string) string {
	d.t.Helper()
	var b strings.Builder
	for _, c := range commands {
		out, errs, code := d.give(words(c)...)
		fmt.Fprintf(&b, "$ loomd %s\n%s", c, out)
		for line := range strings.Lines(errs) {
			fmt.Fprintf(&b, "! %s", line)
		}
		if code != 0 {
			fmt.Fprintf(&b, "exit status %d\n", code)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// words splits a command as a shell would that knows only double quotes.
func words(s string) []string {
	var all []string
	for i, part := range strings.Split(s, `"`) {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

// fire acts on a tick, or starts a run by hand or after another.
func (d *desk) fire(f loom.Firing) loom.Claim {
	d.t.Helper()
	f.Claim, f.Run.Job, f.Run.Nodes = true, f.Job, max(f.Run.Nodes, 1)
	if !f.Due.IsZero() {
		f.Run.Due = f.Due
		states, err := d.store.Jobs(d.t.Context(), f.Job)
		if err != nil || len(states) != 1 {
			d.t.Fatal(states, err)
		}
		f.After = states[0].LastTick
	}
	fired, err := d.store.Fire(d.t.Context(), "me", []loom.Firing{f})
	if err != nil {
		d.t.Fatal(err)
	}
	return fired[0].Claim
}

func (d *desk) record(c loom.Claim, events ...loom.Event) {
	d.t.Helper()
	for i := range events {
		if events[i].Time.IsZero() {
			events[i].Time = time.Now()
		}
	}
	if err := d.store.Record(d.t.Context(), c, events); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) finish(c loom.Claim, status loom.Status, counts map[loom.Status]int) {
	d.t.Helper()
	if err := d.store.Finish(d.t.Context(), c, loom.Run{Status: status, Counts: counts}, nil); err != nil {
		d.t.Fatal(err)
	}
}

// pass lets time pass on the clock of a bubble.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // it takes no time

func started(node string) loom.Event { return loom.Event{Kind: loom.KindNodeStarted, Node: node} }

func printed(node string, s loom.Stream, text string) loom.Event {
	return loom.Event{Kind: loom.KindOutput, Node: node, Stream: s, Text: text}
}

func nodeEnded(node string, began time.Time, s loom.Status, code int, reason string, changes ...string) loom.Event {
	return loom.Event{Kind: loom.KindNodeEnded, Node: node, Result: &loom.Result{Node: node, Status: s, ExitCode: code, Reason: reason,
		Changes: changes, Attempts: 1, Started: began, Ended: time.Now()}}
}

// fill remembers a night: the clock is that of the bubble, which begins on
// 2000-01-01 at 00:00 UTC.
func (d *desk) fill() {
	ctx, utc := d.t.Context(), time.UTC
	at := func(hour, minute int) time.Time { return time.Date(2000, 1, 1, hour, minute, 0, 0, utc) }
	until := func(t time.Time) { pass(time.Until(t)) }
	act := func(a loom.Action) {
		if err := d.store.Act(ctx, a); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := d.store.Adopt(ctx, map[string]string{"backup": "1", "report": "2", "cleanup": "3"}); err != nil {
		d.t.Fatal(err)
	}

	until(at(1, 0)) // all is well
	c := d.fire(loom.Firing{Job: "backup", Due: at(1, 0), Run: loom.Run{ID: "00vhndk4r0aaaa000000000001", Trigger: loom.TriggerSchedule, Nodes: 3}})
	d.record(c, started("db1"), started("db2"), started("db3"), printed("db1", loom.Stdout, "42 tables"), printed("db2", loom.Stdout, "42 tables"))
	pass(10 * time.Minute)
	d.record(c, nodeEnded("db1", at(1, 0), loom.StatusOK, -1, ""), nodeEnded("db2", at(1, 0), loom.StatusOK, -1, ""),
		nodeEnded("db3", at(1, 0), loom.StatusChanged, -1, "", "/srv/dump: made"))
	d.finish(c, loom.StatusChanged, map[loom.Status]int{loom.StatusOK: 2, loom.StatusChanged: 1})
	after := d.fire(loom.Firing{Job: "report", Key: "after", Run: loom.Run{ID: "00vhnfz0r0aaaa000000000002", Trigger: loom.TriggerAfter, By: c.Run.ID}})
	d.record(after, started("db1"), nodeEnded("db1", time.Now(), loom.StatusOK, -1, ""))
	d.finish(after, loom.StatusOK, map[loom.Status]int{loom.StatusOK: 1})

	until(at(2, 0)) // the disk is full
	c = d.fire(loom.Firing{Job: "backup", Due: at(2, 0), Run: loom.Run{ID: "00vhnk1sr0aaaa000000000003", Trigger: loom.TriggerSchedule, Nodes: 3}})
	d.record(c, started("db1"), started("db2"), started("db3"), printed("db1", loom.Stdout, "42 tables"),
		printed("db2", loom.Stderr, "pg_dump: \x1b[31mno space left\x1b[0m"), printed("db2", loom.Log, "giving up"))
	d.record(c, loom.Event{Kind: loom.KindRetry, Node: "db2", Result: &loom.Result{Node: "db2", Status: loom.StatusUnreachable,
		Reason: "unreachable: no route to host", Started: at(2, 0), Ended: at(2, 0).Add(5 * time.Second)}})
	until(at(3, 5))
	c2 := d.fire(loom.Firing{Job: "backup", Due: at(3, 0), Run: loom.Run{ID: "00vhnpff80aaaa000000000004", Trigger: loom.TriggerSchedule, Nodes: 3}})
	if c2.Run.ID != "" {
		d.t.Fatal("two runs at once")
	}
	d.record(c, nodeEnded("db1", at(2, 0), loom.StatusOK, -1, ""), nodeEnded("db2", at(2, 0), loom.StatusFailed, 1, "command pg_dump: exit status 1: no space left"),
		nodeEnded("db3", at(2, 0), loom.StatusFailed, 1, "command pg_dump: exit status 1: no space left"))
	d.finish(c, loom.StatusFailed, map[loom.Status]int{loom.StatusOK: 1, loom.StatusFailed: 2})

	until(at(5, 4)) // nobody was there
	d.fire(loom.Firing{Job: "backup", Due: at(4, 0), Outcome: loom.OutcomeMissed, Why: "no daemon was running from 2000-01-01 03:10:00 to 2000-01-01 05:04:00, and a later one makes up for it"})
	late := d.fire(loom.Firing{Job: "backup", Due: at(5, 0), Outcome: loom.OutcomeLate, Why: "no daemon was running from 2000-01-01 03:10:00 to 2000-01-01 05:04:00",
		Run: loom.Run{ID: "00vhnxbvc0aaaa000000000005", Trigger: loom.TriggerCatchUp, Nodes: 3}})
	d.record(late, started("db1"))
	pass(10 * time.Minute)
	d.record(late, nodeEnded("db1", at(5, 4), loom.StatusFailed, 1, "no such host"))
	d.finish(late, loom.StatusFailed, map[loom.Status]int{loom.StatusFailed: 1})

	act(loom.Action{Verb: loom.VerbPause, Object: "cleanup", By: "ann", Why: "moving house", Until: at(12, 0)})
	until(at(6, 0))
	d.fire(loom.Firing{Job: "cleanup", Due: at(6, 0), Run: loom.Run{ID: "never", Trigger: loom.TriggerSchedule}})
	hand := d.fire(loom.Firing{Job: "backup", Why: "after the new disk", Run: loom.Run{ID: "00vhp0jg00aaaa000000000006", Trigger: loom.TriggerManual, By: "ann", Nodes: 2,
		Targets: []string{"db2", "db3"}, Due: at(6, 0)}})
	d.record(hand, started("db2"), started("db3"), printed("db2", loom.Stdout, "42 tables"), nodeEnded("db2", at(6, 0), loom.StatusOK, -1, ""))
	pass(90 * time.Second)
}

// TestTranscript gives commands after a night of which all is known, and compares
// what a person sees.
func TestTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil)
		d.fill()
		golden.Compare(t, d.transcript(
			"status",
			"runs", "runs --job backup --status failed", "runs --node db3 -n 1", "runs --trigger after -o name", `runs --text "NO SPACE" -o name`,
			"runs --since 2h", `runs --until "02:00" -o name`, "runs --before 00vhnk1 -o name", "runs --job nope",
			"show 00vhnk1", "show 00vhndk", "show 00vhp0", "show 00vh", "show zz",
			"logs 00vhnk1", "logs 00vhnk1 --node db2", "logs 00vhnk1 --timestamps --stream stdout", "logs 00vhnk1 --node db9", "logs 00vhnf", "logs -f 00vhp0",
			"why backup", "why backup 01:00", "why backup 02:00", "why backup 03:00", "why backup 04:00", "why backup 05:00", "why backup 02:30",
			"why backup -3h", "why backup +2h", "why backup yesterday", "why backup 00vhp0", "why report", "why 00vhnf", "why cleanup", "why cleanup 03:30", `why cleanup "tomorrow 03:30"`,
			"why bakcup", "why backup someday", "why report 00vhndk",
			"next -n 6", `next cleanup --from "tomorrow 02:45" --to "tomorrow 04:00"`,
			"cancel 00vhndk", `cancel 00vhp0 --why "enough"`,
			`disable report --why "no printer"`, `disable backup --until 2h`, "disable backup --until 2h30", "disable backup --until yesterday", "disable nope", "why backup 07:00", "enable report", "enable report",
			"backup copy.db",
			"runs --status bad", "runs -n 0", "logs 00vhnk1 --stream x",
		), "testdata/memory.golden")
	})
}

// TestJSON checks that the answers for programs are what docs/commands.md says.
func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil)
		d.fill()
		golden.Compare(t, d.transcript("runs --job report -o json", "show 00vhnk1 -o json", "logs 00vhnk1 -o json", "why backup 03:00 -o json",
			"why backup 02:00 -o json", "why backup 12:00 -o json", "why cleanup -o json", "disable backup --until 1h -o json", "enable backup -o json",
			"next backup -n 1 -o json", "status -o json"), "testdata/memory_json.golden")
	})
}

// TestOverlaps foretells the ticks of a job whose runs take longer than the time
// between them.
func TestOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil)
		d.put("jobs/a.yaml", `jobs:
  skips: &job
    task: run
    args: [sync]
    schedule: "*/30 * * * *"
    timezone: UTC
    targets: db1
  queues: {<<: *job, overlap: queue}
  replaces: {<<: *job, overlap: replace}
  besides: {<<: *job, overlap: allow}
`)
		jobs := []string{"skips", "queues", "replaces", "besides"}
		prints := map[string]string{}
		for _, j := range jobs {
			prints[j] = "1"
		}
		if err := d.store.Adopt(t.Context(), prints); err != nil {
			t.Fatal(err)
		}
		for i, took := range []time.Duration{35 * time.Minute, 45 * time.Minute, 40 * time.Minute} {
			var claims []loom.Claim
			for _, j := range jobs {
				claims = append(claims, d.fire(loom.Firing{Job: j, Run: loom.Run{ID: fmt.Sprintf("%s-%d", j, i), Trigger: loom.TriggerManual}}))
			}
			pass(took)
			for _, c := range claims {
				d.finish(c, loom.StatusOK, nil)
			}
		}
		golden.Compare(t, d.transcript("next skips -n 4", "next queues -n 4", "next replaces -n 4", "next besides -n 4",
			"next queues --from 2000-01-02 --to 2000-01-02T02:00", "why skips 03:00", "why queues 03:00", "next skips -n 2 -o json"), "testdata/overlaps.golden")
	})
}

// TestNothing gives commands where no daemon ever ran.
func TestNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, func(context.Context, string) (loom.Store, error) { return nil, errors.New("must not be made") })
		golden.Compare(t, d.transcript("status", "runs", "runs -o json", "why backup", "next backup -n 1", "show 00", "disable backup", "backup x.db"),
			"testdata/nothing.golden")
	})
}

// TestBrokenManifest checks that what is remembered can be told however broken the
// files are.
func TestBrokenManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil)
		d.fill()
		d.put("loom.yaml", "nodes: {db1: {}, db2: {\njobspath: [\nstate: state\n")
		for _, c := range []string{"runs", "show 00vhnk1", "logs 00vhnk1", "why backup 02:00", "why backup", "disable backup", "enable backup"} {
			if out, errs, code := d.give(strings.Fields(c)...); code != 0 || out == "" {
				t.Errorf("%s: %d, %s%s", c, code, out, errs)
			}
		}
		if out, errs, code := d.give("status"); code != ExitUnreachable || !strings.Contains(out, "PROBLEMS") || !strings.Contains(out, "backup  failed") {
			t.Errorf("status: %d, %s%s", code, out, errs)
		}
	})
}

// TestProblemsAreCounted holds that mistakes are not taken for nodes that have some.
func TestProblemsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil)
		d.put("jobs/b.yaml", "jobs: {x: {task: run, args: [x], targets: all, schedule: manual, owners: ann}}\n")
		if out, errs, _ := d.give("status"); !strings.Contains(out, " nodes (1 problem)\n") {
			t.Errorf("status: %s%s", out, errs)
		}
	})
}

// TestStoreOfItsOwn uses a store in a file, as commands do when no daemon runs.
func TestStoreOfItsOwn(t *testing.T) {
	d := newDesk(t, sqlite.Open)
	store, err := sqlite.Open(t.Context(), filepath.Join(d.dir, "state/loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	d.store = store
	if err := store.Adopt(t.Context(), map[string]string{"backup": "1"}); err != nil {
		t.Fatal(err)
	}
	c := d.fire(loom.Firing{Job: "backup", Run: loom.Run{ID: "r1", Trigger: loom.TriggerManual, By: "ann"}})
	d.record(c, started("db1"), printed("db1", loom.Stdout, "hello"))
	d.finish(c, loom.StatusOK, nil)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"runs", "show r1", "logs r1", "why r1", "disable backup --why because", "why backup", "backup " + filepath.Join(d.dir, "copy.db")} {
		if out, errs, code := d.give(strings.Fields(c)...); code != 0 || out == "" {
			t.Errorf("%s: %d, %s%s", c, code, out, errs)
		}
	}
	if _, errs, code := d.give("backup", filepath.Join(d.dir, "copy.db")); code != ExitFailed || !strings.Contains(errs, "exists already") {
		t.Errorf("backup over a file: %d, %s", code, errs)
	}
	copied, err := sqlite.Open(t.Context(), filepath.Join(d.dir, "copy.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	states, err := copied.Jobs(t.Context(), "backup")
	if err != nil || len(states) != 1 || states[0].Pause == nil || states[0].Pause.Why != "because" || states[0].Pause.By == "" {
		t.Errorf("the copy has %+v, %v", states, err)
	}
}

// TestThroughTheDaemon asks a daemon's socket, and follows a run that goes on.
func TestThroughTheDaemon(t *testing.T) {
	d := newDesk(t, func(context.Context, string) (loom.Store, error) { return nil, errors.New("the daemon has it") })
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the test may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d.store = &ram.Store{}
	ctx, stop := context.WithCancel(t.Context())
	l, err := api.Listen(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- (&api.Server{Store: d.store}).Serve(ctx, l) }()
	defer func() { stop(); <-served }()

	if err := d.store.Adopt(ctx, map[string]string{"backup": "1"}); err != nil {
		t.Fatal(err)
	}
	c := d.fire(loom.Firing{Job: "backup", Run: loom.Run{ID: "r1", Trigger: loom.TriggerManual, By: "ann", Nodes: 2}})
	d.record(c, started("db1"), started("db2"), printed("db1", loom.Stdout, "one"))
	end := make(chan struct{})
	go func() {
		defer close(end)
		d.record(c, printed("db2", loom.Stderr, "two"), nodeEnded("db1", time.Now(), loom.StatusOK, -1, ""), nodeEnded("db2", time.Now(), loom.StatusOK, -1, ""))
		d.finish(c, loom.StatusOK, map[loom.Status]int{loom.StatusOK: 2})
	}()
	out, errs, code := d.give("logs", "-f", "r1", "--state", dir)
	<-end
	if want := "db1 | one\ndb2 | two\n"; out != want || code != 0 {
		t.Errorf("logs -f: %d, %q %q, want %q", code, out, errs, want)
	}
	if out, errs, code := d.give("disable", "backup", "--state", dir); code != 0 || strings.Contains(out, "no daemon") {
		t.Errorf("disable: %d, %s%s", code, out, errs)
	}
	states, err := d.store.Jobs(ctx, "backup")
	if err != nil || states[0].Pause == nil || states[0].Pause.By == "" {
		t.Errorf("paused by nobody: %+v, %v", states, err)
	}
	out, errs, code = d.give("status", "-o", "json", "--state", dir)
	var st struct {
		Daemon bool
		Paused []struct{ Job string }
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != 0 || !st.Daemon || len(st.Paused) != 1 {
		t.Errorf("status: %d, %s%s %v", code, out, errs, err)
	}
}

// TestCommandsDoc gives the commands of docs/commands.md and compares what they
// print with what is written there.
func TestCommandsDoc(t *testing.T) {
	const file = "../docs/commands.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "```console\n", "```\n"
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil)
		d.fill()
		parts := strings.Split(string(text), begin)
		for i, part := range parts[1:] {
			example, rest, _ := strings.Cut(part, end)
			line, _, _ := strings.Cut(example, "\n")
			command, ok := strings.CutPrefix(line, "$ loomd ")
			if !ok {
				t.Fatalf("no command: %s", line)
			}
			out, errs, _ := d.give(words(command)...)
			shown := strings.ReplaceAll(line+"\n"+out+errs, "DIR", "/etc/loom")
			if shown != example && !golden.Update() {
				t.Errorf("%s prints\n%s\nand the manual says\n%s", line, shown, example)
			}
			parts[i+1] = shown + end + rest
		}
		if len(parts) < 10 {
			t.Errorf("found only %d examples", len(parts)-1)
		}
		if golden.Update() {
			if err := os.WriteFile(file, []byte(strings.Join(parts, begin)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestLogsOnATerminal checks that what nodes print can do nothing to a terminal.
func TestLogsOnATerminal(t *testing.T) {
	d := newDesk(t, nil)
	if err := d.store.Adopt(t.Context(), map[string]string{"backup": "1"}); err != nil {
		t.Fatal(err)
	}
	c := d.fire(loom.Firing{Job: "backup", Run: loom.Run{ID: "r1", Trigger: loom.TriggerManual, By: "\x1b]0;owned\x07"}})
	d.record(c, started("db1"), printed("db1", loom.Stdout, "\x1b[2Jgone"), nodeEnded("db1", time.Now(), loom.StatusFailed, 1, "\x1b[2Jwhy", "\x1b[2Jthis"))
	d.finish(c, loom.StatusFailed, nil)
	s := newScreen(t)
	t.Setenv("NO_COLOR", "1")
	for _, command := range []string{"logs", "show", "why", "runs"} {
		p := &Program{Name: "loomd", Tasks: tasks.Registry(), Stores: Stores{"sqlite": d.open}, Stdout: s.tty, Stderr: s.tty}
		args := []string{command, "-c", d.config}
		if command != "runs" {
			args = append(args, "r1")
		}
		if err := p.Execute(t.Context(), p.Command(), args); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	fmt.Fprintln(s.tty, "the end")
	if text := s.until(t, "the end"); !strings.Contains(text, "^[[2Jgone") || strings.ContainsAny(text, "\x1b\x07") {
		t.Errorf("a terminal is sent %q", text)
	}
}
