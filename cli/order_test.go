package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

// A yard is a daemon at work, as far as commands can tell: a scheduler with a store,
// and its API on a socket.
type yard struct {
	absent
	dir       string
	scheduler *loom.Scheduler
}

// NotifyTargets and NotifyTest are part of api.Notifications.
func (y *yard) NotifyTargets() []api.NotifyTarget {
	return []api.NotifyTarget{{Name: "ops", Kind: "webhook", To: "https://chat.example/…"}}
}

func (y *yard) NotifyTest(context.Context, string, string) (api.NotifyTest, error) {
	return api.NotifyTest{}, errors.ErrUnsupported
}

func (y *yard) Trigger(ctx context.Context, job string, q loom.Request) (loom.Run, error) {
	return y.scheduler.Trigger(ctx, job, q)
}

func (y *yard) Cancel(_ context.Context, run, why string) error { return y.scheduler.Cancel(run, why) }

func (y *yard) Exec(ctx context.Context, e api.Exec, q loom.Request) (loom.Run, error) {
	nodes, err := y.manifest.Select(e.Targets...)
	if err != nil {
		return loom.Run{}, err
	}
	q.Targets = names(nodes)
	return y.scheduler.Start(ctx, &loom.Job{Name: loom.ExecJob, TaskName: "exec", Targets: nodes, Overlap: loom.OverlapAllow,
		Task: loom.TaskFunc(func(ctx context.Context, s *loom.Session) error { return s.Run(ctx, e.Command) })}, q)
}

func newYard(t *testing.T, nodes int, jobs string) *yard {
	t.Helper()
	dir := t.TempDir()
	var all strings.Builder
	for i := range nodes {
		fmt.Fprintf(&all, "n%d: {transport: local, groups: [all-of-them]}\n", i+1)
	}
	for name, text := range map[string]string{"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\nstate: s\ntimezone: UTC\nmax_workers: 50\n",
		"nodes.yaml": all.String(), "jobs/a.yaml": jobs} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(dir, "s")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := loom.ReadManifest(filepath.Join(dir, "loom.yaml"), tasks.Registry())
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(state, "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	pool := &loom.Pool{Max: 50, Log: quiet}
	y := &yard{absent: absent{manifest: m, tasks: tasks.Registry(), pool: pool}, dir: dir,
		scheduler: &loom.Scheduler{Pool: pool, Store: store, Grace: time.Millisecond, Log: quiet}}
	var feed api.Feed
	y.scheduler.Observe = feed.Observe
	y.scheduler.Load(m)
	l, err := api.Listen(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = y.scheduler.Run(ctx) })
	server := &api.Server{Store: store, Control: y, Feed: &feed, Notifications: y, Log: quiet}
	wg.Go(func() { _ = server.Serve(ctx, l) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		pool.Close()
		store.Close()
	})
	return y
}

// give gives a command on a terminal, or, if there is none, on pipes.
func (y *yard) give(t *testing.T, s *screen, interrupts *Interrupts, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &Program{Name: "loom", Tasks: tasks.Registry(), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Interrupts: interrupts}
	if s != nil {
		p.Stdin, p.Stdout, p.Stderr = s.tty, s.tty, s.tty
	}
	err := p.Execute(t.Context(), p.Command(), append([]string{"-c", filepath.Join(y.dir, "loom.yaml")}, args...))
	p.Report(err)
	return out.String(), errs.String(), ExitCode(err)
}

const yardJobs = `jobs:
  hello: {task: run, args: ["echo hello"], targets: all, schedule: manual}
  mixed: {task: run, args: ["test $LOOM_NODE != n2 || { echo no space >&2; exit 3; }; echo fine"], targets: all, schedule: manual}
  long: {task: run, args: ["echo begun; sleep 600"], targets: all, schedule: manual}
  guarded: {task: run, args: ["exit 9"], kwargs: {unless: "false"}, targets: all, schedule: manual}
`

// TestOrders gives commands on pipes to a daemon, and reads what they say.
func TestOrders(t *testing.T) {
	y := newYard(t, 3, yardJobs)
	for _, tt := range []struct {
		args, stdout, stderr string
		code                 int
	}{
		{"run hello", "n[1-3] (3):\n  hello\n", "ended ok: 3 nodes in ", 0},
		{"run hello --on n2", "hello\n", "ended ok: 1 node in ", 0},
		{"run mixed", "n1, n3 (2):\n  fine\nn2:\n  no space\n", "n2: failed: command ", 1},
		{"run hello --stream --on n1,n3", "n1 | hello\n", ": 2 ok", 0},
		{"run hello -o json", `"text": "hello"`, "", 0},
		{"run hello --on n7", "", `no node "n7"`, 5},
		{"run nope", "", `there is no job "nope"` + "\n", 5},
		{"run helo", "", `there is no job "helo" (did you mean "hello"?)` + "\n", 5},
		{"job helo", "", `there is no job "helo" (did you mean "hello"?)` + "\n", 5},
		{"run", "", "something is missing: write loom run JOB\n", 2},
		{"run hello you", "", `"you" is too much: write loom run JOB` + "\n", 2},
		{"import cron x", "", `unknown command "cron" for "loom import" (did you mean "crontab"?)` + "\n", 2},
		{"context", "Available Commands:", "", 0},
		{"context --help", "Available Commands:", "", 0},
		{"status now", "", `"now" is too much: write loom status` + "\n", 2},
		{"run hello -o yaml --on n2", "    output:\n      - time: ", "", 0},
		{"exec all -- echo hi   there", "n[1-3] (3):\n  hi there\n", "3 ok", 0},
		{"exec n3 -- echo out", "out\n", "", 0},
		{"exec n3 -- exit 4", "", "exit status 4", 1},
		{"exec all --max 2 -- true", "", "3 ok", 0},
		{"exec all --max 0 -- true", "", "--max 0: write a number from 1", 2},
		{"run guarded --max 0", "", "--max 0: write a number from 1", 2},
		{"run guarded --timeout -1s", "", "--timeout -1s: write a duration", 2},
		{"run guarded --timeout 0s", "", "--timeout 0s: write a duration", 2},
		{"run guarded --plan", "n[1-3] (3):\n  would change: ", "ended would change: 3 nodes in ", 0},
		{"run hello --plan --on n1", "", "n1: skipped: ", 0},
		{"run guarded --plan -o json --on n1", `"plan": true`, "", 0},
		{"run long --timeout 100ms --max 1 --on n1,n2", "begun\n", "n1, n2 (2): timed out after 100ms", 1},
		{"runs --job guarded --plan", "plan (", "", 0},
		{"runs --job guarded --plan=false", "", "no run fits", 0},
		{"jobs guarded", "never ran", "", 0},
		{"run guarded --local --plan --on n1", "n1:\n  would change: ", "1 would change", 0},
		{"exec all --local -- echo here", "n[1-3] (3):\n  here\n", "3 ok", 0},
		{"retry zzz", "", "there is none", 5},
		{"nodes", "n1 ", "", 0},
		{"nodes --reach reachable -o name", "n1\nn2\nn3\n", "", 0},
		{"nodes n9", "", `no node "n9"`, 5},
		{"nodes ping n1", "ms", "", 0},
		{"nodes trust n1", "0 keys recorded\n", "no host keys", 1},
		{"node n2", "node      n2\n", "", 0},
		{"jobs", "hello", "", 0},
		{"jobs ell -o name", "hello\n", "", 0},
		{"jobs --failing -o name", "mixed\n", "", 0},
		{"jobs --status nonsense", "", "--status nonsense: write", 2},
		{"job mixed", "manual: only by hand", "", 0},
		{"job mixd", "", `did you mean "mixed"`, 5},
		{"events --job mixed --kind run-ended", "mixed run ", "", 0},
		{"audit --verb run", "hello", "", 0},
		{"why hello", "ran by hand", "", 0},
		{"disable hello --why rest", "job hello is disabled", "", 0},
		{"jobs hello", "paused", "", 0},
		{"job hello", "does      run {command: echo hello}\n", "", 0},
		{"enable hello", "job hello is enabled again", "", 0},
		{"disable hello nope mixd", "", `there is no job "nope"`, 5},
		{"disable hello nope mixd", "", `there is no job "mixd" (did you mean "mixed"?)`, 5},
		{"enable hello", "job hello was not disabled", "", 0}, // all or none
		{"disable hello mixed hello", "job hello is disabled until it is enabled (loom enable hello)\njob mixed is disabled", "", 0},
		{"enable hello mixed -o json", `"job": "mixed",`, "", 0},
		{"enable hello", "job hello was not disabled", "", 0},
		{"disable", "", "something is missing: write loom disable JOB...\n", 2},
		{"runs --job mixd", "", "there is no job \"mixd\" (did you mean \"mixed\"?)\nno run fits;", 0},
		{"help nosuch", "", `unknown command "nosuch" for "loom"`, 2},
		{"help stats", "", `unknown command "stats" for "loom" (did you mean "status"?)` + "\nloom: hint: loom --help lists the commands\n", 2},
		{"help import cron", "", `unknown command "cron" for "loom import" (did you mean "crontab"?)`, 2},
		{"help import crontab", "Usage:\n  loom import crontab ", "", 0},
		{"help", "Available Commands:", "", 0},
		{"__complete jobs --sta", "--status\t", "", 0},
		{"next", "hello: runs only by hand\n", "", 0},
	} {
		stdout, stderr, code := y.give(t, nil, nil, words(tt.args)...)
		if strings.HasPrefix(tt.args, "__complete") && strings.Contains(stdout, "`") {
			t.Errorf("%s: there are backquotes in what is said of flags:\n%s", tt.args, stdout)
		}
		if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: exit status %d, want %d\nstdout:\n%swants %q\nstderr:\n%swants %q", tt.args, code, tt.code, stdout, tt.stdout, stderr, tt.stderr)
		}
	}
	id, _, _ := y.give(t, nil, nil, "runs", "--job", "mixed", "-o", "name", "-n", "1", "--status", "failed")
	if stdout, stderr, code := y.give(t, nil, nil, "retry", strings.TrimSpace(id), "--failed"); code != 1 || stdout != "" || !strings.Contains(stderr, "1 node in ") {
		t.Errorf("retry --failed: %d, %q, %q; want it on the one node where it failed", code, stdout, stderr)
	}
}

// TestInterrupt presses Ctrl-C while a run of the daemon is shown, and answers what
// is asked then.
func TestInterrupt(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	t.Setenv("TERM", "xterm")
	for _, tt := range []struct {
		name, key, says string
		code            int
		status          loom.Status
	}{
		{"cancel", "c", "ended cancelled: 2 nodes", 1, loom.StatusCancelled},
		{"detach", "d", "goes on:", 0, loom.StatusRunning},
		{"again", "\x03", "goes on:", 0, loom.StatusRunning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			y := newYard(t, 2, yardJobs)
			s := newScreen(t)
			var interrupts Interrupts
			var wg sync.WaitGroup
			wg.Go(func() {
				s.until(t, "n1, n2 (2)")
				s.until(t, "begun")
				if !interrupts.Give() {
					t.Error("nobody takes Ctrl-C")
				}
				s.until(t, "[d]etach")
				s.press(" ") // any other key: it goes on
				s.calm(t, "[d]etach")
				interrupts.Give()
				s.until(t, "[d]etach")
				s.press(tt.key)
			})
			_, _, code := y.give(t, s, &interrupts, "run", "long")
			wg.Wait()
			all := s.until(t, tt.says)
			if code != tt.code {
				t.Errorf("exit status %d, want %d:\n%q", code, tt.code, all)
			}
			if tail := all[strings.LastIndex(all, "\x1b[J"):]; strings.Contains(tail, "Ctrl-C: [c]") {
				t.Errorf("the question stays:\n%q", all)
			}
			out, _, _ := y.give(t, nil, nil, "runs", "--job", "long", "--status", string(tt.status), "-o", "name")
			if strings.Count(out, "\n") != 1 {
				t.Errorf("no run is %s", tt.status)
			}
			if interrupts.Give() {
				t.Error("Ctrl-C is taken though nothing is shown any more")
			}
		})
	}
}

// TestInterruptWithoutTerminal has nobody to ask.
func TestInterruptWithoutTerminal(t *testing.T) {
	y := newYard(t, 1, yardJobs)
	var interrupts Interrupts
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				interrupts.Give()
			}
		}
	})
	_, stderr, code := y.give(t, nil, &interrupts, "run", "long")
	close(stop)
	wg.Wait()
	if code != 1 || !strings.Contains(stderr, "interrupted: run ") || !strings.Contains(stderr, "goes on") || !strings.Contains(stderr, "logs -f") {
		t.Errorf("exit status %d, %q", code, stderr)
	}
}

// TestCrowd shows a run on a thousand nodes: no more than fits.
func TestCrowd(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	t.Setenv("TERM", "xterm")
	s := newScreen(t)
	const crowd = 1000
	v := newView(io.Discard, s.tty, viewGrouped, crowd)
	at := time.Now()
	v.observe(loom.Event{Kind: loom.KindRunStarted, Job: "deploy", Ran: &loom.Run{Started: at}})
	for i := range crowd - 100 {
		node := fmt.Sprintf("n%d", i)
		v.observe(loom.Event{Kind: loom.KindNodeStarted, Node: node, Time: at.Add(time.Duration(i))})
		v.observe(loom.Event{Kind: loom.KindOutput, Node: node, Stream: loom.Stdout, Text: fmt.Sprintf("doing %d\x1b[2J", i/2)})
		if i < 200 {
			v.observe(loom.Event{Kind: loom.KindNodeEnded, Node: node, Result: &loom.Result{Node: node, Status: loom.StatusFailed, Reason: fmt.Sprint("reason ", i/4)}})
		}
	}
	lines := v.frame(at.Add(90 * time.Second))
	if len(lines) > 22 {
		t.Errorf("%d lines on a terminal of 24", len(lines))
	}
	for _, line := range lines {
		if cells(line) > 59 {
			t.Errorf("%d columns on a terminal of 60: %q", cells(line), line)
		}
		if strings.Contains(line, "\x1b") {
			t.Errorf("control characters of a node reach the screen: %q", line)
		}
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"deploy [xx", "200/1000 done, 200 failed, 1m30s", "n[0-3] (4): failed: reason 0", "more\n", "more at work, 100 to come", "n200, n201 (2)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the screen lacks %q:\n%s", want, text)
		}
	}
}

// TestSameOutputOnce keeps what many nodes print in the room of one.
func TestSameOutputOnce(t *testing.T) {
	v := newView(io.Discard, io.Discard, viewGrouped, 2)
	for _, n := range []string{"a", "b"} {
		v.observe(loom.Event{Kind: loom.KindNodeEnded, Node: n, Result: &loom.Result{Node: n, Status: loom.StatusOK, Output: []loom.Line{{Text: "same"}}}})
	}
	if &v.results["a"].Output[0] != &v.results["b"].Output[0] {
		t.Error("the same output is kept twice")
	}
}

func TestScheduleText(t *testing.T) {
	for expr, want := range map[string]string{
		"* * * * *":         "every minute",
		"*/5 * * * *":       "every 5 minutes",
		"0 * * * *":         "every hour, on the hour",
		"15,45 * * * *":     "every hour, at minute 15 and 45",
		"0 */2 * * *":       "every 2 hours, on the hour",
		"30 4 * * *":        "every day at 04:30",
		"0 6,18 * * *":      "every day at 06:00 and 18:00",
		"30 4 * * 1-5":      "on Monday to Friday at 04:30",
		"30 4 * * sun":      "on Sunday at 04:30",
		"0 0 1 * *":         "on day 1 of each month at 00:00",
		"0 0 1 1,7 *":       "on day 1 in January and July at 00:00",
		"*/10 9-17 * * 1-5": "every 10 minutes from 09:00 to 17:59, on Monday to Friday",
		"*/3 * * * * *":     "every 3 seconds",
		"0 30 4 * * *":      "every day at 04:30",
		"@daily":            "every day at 00:00",
		"@every 90m":        "every 90m",
		"@reboot":           "when the daemon starts",
		"0 0 1 * 1":         "", // cron's rules about both are better seen than read
		"1-5/2 3 * * *":     "",
		"nonsense":          "",
		"60 4 * * 9":        "",
		"":                  "",
	} {
		if got := scheduleText(expr); got != want {
			t.Errorf("scheduleText(%q) = %q, want %q", expr, got, want)
		}
	}
}

func TestShortenMiddle(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"short", 9, "short"},
		{"command 'a long one': exit status 7", 22, "comman…: exit status 7"},
		{"日本語日本語日本語", 9, "日…本語"},
	} {
		got := shortenMiddle(tt.text, tt.n)
		if cells(got) > tt.n || tt.n == 22 && got != tt.want {
			t.Errorf("shortenMiddle(%q, %d) = %q, of %d columns", tt.text, tt.n, got, cells(got))
		}
	}
}

// TestElsewhere gives commands to a daemon that is named, on a machine without
// manifests.
func TestElsewhere(t *testing.T) {
	y := newYard(t, 3, yardJobs+"  daily: {task: run, args: [\"true\"], targets: '@all-of-them', schedule: '0 4 * * *', timezone: Europe/Berlin}\n")
	t.Setenv("HOME", t.TempDir())
	copied := filepath.Join(t.TempDir(), "copy.db")
	give := func(args ...string) (stdout, stderr string, code int) {
		var out, errs bytes.Buffer
		p := &Program{Name: "loom", Tasks: new(loom.Registry), Remote: true, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
		err := p.Execute(t.Context(), p.Command(), append([]string{"--server", "unix:" + filepath.Join(y.dir, "s", api.SocketFile)}, args...))
		p.Report(err)
		return out.String(), errs.String(), ExitCode(err)
	}
	for _, tt := range []struct {
		args, stdout string
		code         int
	}{
		{"run hello --on n1,n2", "n1, n2 (2):\n  hello\n", 0},
		{"run hello --on !n2,all", "n1, n3 (2):\n  hello\n", 0},
		{"exec @all-of-them -- echo hi", "n[1-3] (3):\n  hi\n", 0},
		{"jobs", "in ", 0},
		{"job daily", "schedule  0 4 * * *: every day at 04:00 (Europe/Berlin)\n", 0},
		{"nodes -o name", "n1\nn2\nn3\n", 0},
		{"status", "daemon: ", 0},
		{"check", "loom.yaml: ok: 5 jobs, 3 nodes\n", 0},
		{"why daily", "will run in ", 0},
		{"next daily -n 1", "04:00:00 CE", 0},
		{"disable daily --until 2h --why rest", "job daily is disabled until ", 0},
		{"enable daily", "job daily is enabled again, and runs next at ", 0},
		{"audit --verb pause", "rest", 0},
		{"runs --job hello -o name", "\n", 0},
		{"backup copy.db", "", ExitUsage}, // whose directory would that be in
		{"backup " + copied, "copy.db written on the daemon's machine in ", 0},
		{"backup " + copied, "", ExitFailed}, // it is there
	} {
		stdout, stderr, code := give(words(tt.args)...)
		if code != tt.code || !strings.Contains(stdout, tt.stdout) {
			t.Errorf("%s: exit status %d, want %d\nstdout:\n%swants %q\nstderr:\n%s", tt.args, code, tt.code, stdout, tt.stdout, stderr)
		}
	}
	id, _, _ := give("runs", "--job", "hello", "-o", "name", "-n", "1")
	if stdout, stderr, code := give("show", strings.TrimSpace(id)); code != 0 || !strings.Contains(stdout, "why       ran by hand") {
		t.Errorf("show: %d, %s%s", code, stdout, stderr)
	}
}

// TestFollowEvents follows what happens from before a run to after it.
func TestFollowEvents(t *testing.T) {
	y := newYard(t, 2, yardJobs)
	s := newScreen(t)
	t.Setenv("NO_COLOR", "1")
	y.give(t, nil, nil, "run", "hello")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		p := &Program{Name: "loom", Tasks: tasks.Registry(), Stdout: s.tty, Stderr: s.tty}
		if err := p.Execute(ctx, p.Command(), []string{"events", "-f", "--lines", "-c", filepath.Join(y.dir, "loom.yaml")}); err != nil {
			t.Errorf("events -f = %v", err)
		}
	})
	s.until(t, "hello run ") // the past is shown once the stream is open
	y.give(t, nil, nil, "run", "mixed")
	all := s.until(t, "mixed run ")
	for _, want := range []string{"started on 2 nodes (manua", "mixed n1 started", "mixed n1 | fine", "mixed n2 failed…", ": exit status 3: no space", "ended failed after "} {
		all = s.until(t, want)
	}
	stop()
	wg.Wait()
	if strings.Count(all, "started on 2 nodes") != 2 { // with that of the past
		t.Errorf("the beginning of the run is told more than once:\n%s", all)
	}
}

// TestCompleteFromTheDaemon completes words that only a daemon knows.
func TestCompleteFromTheDaemon(t *testing.T) {
	y := newYard(t, 1, yardJobs)
	for _, args := range [][]string{{"run", "hello"}, {"disable", "hello"}} {
		if _, errs, code := y.give(t, nil, nil, args...); code != 0 {
			t.Fatal(errs)
		}
	}
	for args, want := range map[string]string{
		"audit --verb": "pause\n", "audit --by": (&memory{}).who() + "\n", "enable": "hello\n",
		"notify test": "ops\twebhook to https://chat.example/…\n",
	} {
		var out bytes.Buffer
		p := &Program{Name: "loom", Tasks: tasks.Registry(), Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard, Remote: true}
		all := append([]string{"__complete", "--server", "unix:" + filepath.Join(y.dir, "s", api.SocketFile)}, strings.Fields(args)...)
		if err := p.Execute(t.Context(), p.Command(), append(all, "")); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s completes %q, %v; want %q", args, out.String(), err, want)
		}
	}
}

// TestPaintedFacts shows a job on a terminal with colours, of which nothing may be
// seen but the colours.
func TestPaintedFacts(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	y := newYard(t, 1, yardJobs)
	if _, errs, code := y.give(t, nil, nil, "run", "hello"); code != 0 {
		t.Fatal(errs)
	}
	s := newScreen(t)
	y.give(t, s, nil, "job", "hello")
	all := s.until(t, "file ")
	if strings.Contains(all, "^[") || !strings.Contains(all, "status    \x1b[32mok ") {
		t.Errorf("colours are not made, or spelt out:\n%q", all)
	}
}

// TestYAML holds that what programs are told as YAML is what they are told as JSON.
func TestYAML(t *testing.T) {
	y := newYard(t, 3, yardJobs)
	if _, errs, code := y.give(t, nil, nil, "run", "mixed"); code != ExitFailed {
		t.Fatal(errs)
	}
	id, _, _ := y.give(t, nil, nil, "runs", "-o", "name")
	for _, args := range []string{"jobs", "job mixed", "nodes", "node n1", "runs", "show " + id, "logs " + id, "events", "audit", "tasks", "tasks run", "check", "version", "why mixed"} {
		read := func(output string) (all []any) {
			out, errs, code := y.give(t, nil, nil, append(strings.Fields(args), "-o", output)...)
			if code != 0 {
				t.Fatalf("%s -o %s: %d, %s", args, output, code, errs)
			}
			for d := yaml.NewDecoder(strings.NewReader(out)); ; { // JSON is YAML
				var v any
				if err := d.Decode(&v); errors.Is(err, io.EOF) {
					return all
				} else if err != nil {
					t.Fatalf("%s -o %s: %v\n%s", args, output, err, out)
				}
				all = append(all, v)
			}
		}
		if args == "logs "+id || args == "events" { // each line is a value
			out, _, _ := y.give(t, nil, nil, append(strings.Fields(args), "-o", "json")...)
			if docs := read("yaml"); len(docs) != strings.Count(out, "\n") {
				t.Errorf("%s: %d documents of\n%s", args, len(docs), out)
			}
			continue
		}
		if diff := cmp.Diff(read("json"), read("yaml")); diff != "" {
			t.Errorf("%s: YAML differs from JSON:\n%s", args, diff)
		}
	}
}

// TestPlainWords holds that a text that has no quotes in YAML is a text there.
func TestPlainWords(t *testing.T) {
	for _, s := range []string{"", "true", "No", "y", "null", "~", "1", "1e3", "0x1f", "2026-11-24", "-", "a: b", "a #b", "{a}", "*a", "&a", "a ", " a",
		"a\nb", "a\tb", "a\x1b[31m", "ünïcode", "ok", "exit status 1", "/etc/x", "run @ all", "@every", "=", "a=b", "ann@example.org", "off", "12:30:45", "\ufeff"} {
		var out bytes.Buffer
		if err := (&yamlWriter{Writer: &out}).value(map[string]any{"k": s, "l": []string{s}}); err != nil {
			t.Fatal(err)
		}
		var back struct {
			K any
			L []any
		}
		if err := yaml.Unmarshal(out.Bytes(), &back); err != nil || back.K != s || back.L[0] != s {
			t.Errorf("%q is %#v in\n%s%v", s, back, out.String(), err)
		}
		if back := strings.TrimSpace(strings.TrimPrefix(strings.Split(out.String(), "\n")[0], "k:")); slices.Contains([]string{"off", "no", "y", "No"}, back) {
			t.Errorf("%q is no text in older YAML", s)
		}
	}
}
