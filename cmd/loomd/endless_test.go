package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// TestEndlessOutput has a node print much more than anybody wants to keep. The
// daemon's memory, the store and the node's spool stay small, and the record has
// the start and the end, and says what is missing between. LOOM_GIGABYTES says
// how much the node prints (10 takes minutes); without it, it is 300 MB, or 100 if the
// command is resumable, which is slower.
func TestEndlessOutput(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it prints for some seconds")
	}
	sizes := map[bool]int64{false: 300_000_000, true: 100_000_000}
	if s := os.Getenv("LOOM_GIGABYTES"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sizes = map[bool]int64{false: n * 1_000_000_000, true: n * 1_000_000_000}
	}
	bin := filepath.Join(t.TempDir(), "loomd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, transport := range []string{"local", "ssh"} {
		for _, resumable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/resumable %v", transport, resumable), func(t *testing.T) { // one after another: each has the machine
				e := newEndless(t, transport, resumable, sizes[resumable])
				e.run(t, bin)
				e.check(t, resumable)
			})
		}
	}
}

// An endless is a daemon with one job that prints too much.
type endless struct {
	dir    string
	size   int64
	spools []string // where the node may keep output

	peak  int64 // of the daemon's memory
	spool int64 // the most that the node kept
}

const endlessLine = "and on, and on, and on, and on, and on, and on, and on, and on, and on, and on, and on, and on, on" // and a newline

func newEndless(t *testing.T, transport string, resumable bool, size int64) *endless {
	t.Helper()
	e := &endless{dir: t.TempDir(), size: size - size%int64(len(endlessLine)+1)}
	e.spools = []string{filepath.Join(e.dir, "spool")}
	node, known := "{transport: local}", filepath.Join(e.dir, "none")
	if transport == "ssh" {
		s := sshd.Start(t, sshd.Options{Lines: []string{"SetEnv XDG_STATE_HOME=" + filepath.Join(e.dir, "spool")}})
		me, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		node = fmt.Sprintf("{ip: %s, port: %d, user: %s, identity: %s}", s.Address, s.Port, me.Username, s.Identity)
		known = s.KnownHosts
		e.spools = append(e.spools, filepath.Join(s.Dir, ".local")) // root's
	}
	writeFiles(t, e.dir, map[string]string{
		"loom.yaml":  fmt.Sprintf("nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nssh: {config: none, known_hosts: %q}\n", known),
		"none":       "",
		"nodes.yaml": "node: " + node + "\n",
		"jobs/a.yaml": fmt.Sprintf("jobs: {talk: {task: run, args: ['echo the first; yes \"%s\" | head -c %d; echo the last'], "+
			"schedule: '@reboot', targets: node, resumable: %v}}\n", endlessLine, e.size, resumable),
	})
	return e
}

// run runs the daemon until the job has ended, and looks meanwhile how much there
// is in the spool.
func (e *endless) run(t *testing.T, bin string) {
	t.Helper()
	var log lockedBuffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(e.size/5_000_000)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-c", filepath.Join(e.dir, "loom.yaml"))
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(e.dir, "spool"))
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := regexp.MustCompile(`msg="run ended" job=talk .*status=ok`)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for !ended.MatchString(log.String()) {
		var spool int64
		for _, dir := range e.spools {
			spool += treeSize(t, dir)
		}
		e.spool = max(e.spool, spool)
		select {
		case <-tick.C:
		case err := <-exited:
			t.Fatalf("the job did not end well: %v\n%s", err, log.String())
		}
	}
	took := time.Since(began)
	e.peak = peakMemory(t, cmd.Process.Pid)
	cancel()
	if err := <-exited; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("loomd: %v\n%s", err, log.String())
	}
	t.Logf("%d MB in %v; loomd had at most %d MB, the spool %.1f MB", e.size/1e6, took.Round(100*time.Millisecond), e.peak/1e6, float64(e.spool)/1e6)
}

// check holds what was kept against what was printed.
func (e *endless) check(t *testing.T, resumable bool) {
	t.Helper()
	if e.peak > 100_000_000 {
		t.Errorf("loomd had %d MB of memory", e.peak/1e6)
	}
	if e.spool > 48<<20 || resumable && e.spool < 10<<20 { // less, and it was looked for in the wrong place
		t.Errorf("the node kept %d MB", e.spool/1e6)
	}
	state := filepath.Join(e.dir, "state")
	if n := treeSize(t, state); n > 10_000_000 {
		t.Errorf("the state has %d MB", n/1e6)
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(state, "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	runs, err := store.Runs(t.Context(), loom.RunQuery{})
	if err != nil || len(runs) != 1 {
		t.Fatalf("runs: %+v, %v", runs, err)
	}
	results, err := store.Results(t.Context(), loom.ResultQuery{Runs: []string{runs[0].ID}})
	if err != nil || len(results) != 1 {
		t.Fatalf("results: %+v, %v", results, err)
	}
	var lines []loom.Line
	for q := (loom.OutputQuery{Run: runs[0].ID}); ; {
		chunks, err := store.Output(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(chunks) == 0 {
			break
		}
		for _, c := range chunks {
			q.After = c.Cursor
			lines = append(lines, c.Lines...)
		}
	}
	kept, missing := int64(0), int64(0)
	for _, l := range lines {
		if l.Stream == loom.Stdout {
			kept += int64(len(l.Text)) + 1
			continue
		}
		var n, bytes int64
		if _, err := fmt.Sscanf(l.Text, "[%d lines, %d bytes of output not kept]", &n, &bytes); err != nil || missing != 0 {
			t.Errorf("the record has the line %q", l.Text)
		}
		missing = bytes
	}
	printed := e.size + int64(len("the first\nthe last\n"))
	if first, last := lines[0].Text, lines[len(lines)-1].Text; first != "the first" || last != "the last" {
		t.Errorf("the record begins with %q and ends with %q", first, last)
	}
	if kept < 1_000_000 || kept > 1<<20 || kept+missing != printed || results[0].Dropped != missing {
		t.Errorf("of %d bytes %d were kept, and the record says that %d are missing, the result %d", printed, kept, missing, results[0].Dropped)
	}
}

// peakMemory is the most memory that a process has had.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("NOT TESTED: how much memory the daemon needs, without /proc: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	t.Fatalf("process %d has no VmHWM", pid)
	return 0
}

// treeSize is how many bytes are in the files of a directory, which may change
// meanwhile or not be there.
func treeSize(t *testing.T, dir string) int64 {
	t.Helper()
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // it is gone
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
