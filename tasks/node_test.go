package tasks_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
)

// A shellNode is a connection to a node that is this machine, with a choice of
// shells and of what is on its PATH, and without SFTP: the least that a task may
// count on.
type shellNode struct {
	shell []string // nil: sh
	path  string   // "": this process's
	home  string
}

func (c shellNode) Exec(ctx context.Context, cmd loom.Command) error {
	words := c.shell
	if words == nil {
		words = []string{"sh"}
	}
	if cmd.Shell != "" {
		words = strings.Fields(cmd.Shell)
	}
	program, err := exec.LookPath(words[0])
	if err != nil {
		return err
	}
	x := exec.CommandContext(ctx, program, append(slices.Clone(words[1:]), "-c", cmd.Text)...)
	x.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	x.Cancel = func() error { return syscall.Kill(-x.Process.Pid, syscall.SIGTERM) }
	x.WaitDelay = 5 * time.Second
	x.Dir = cmd.Dir
	if x.Dir == "" {
		x.Dir = c.home
	}
	x.Env = []string{"HOME=" + c.home, "TMPDIR=" + c.home}
	x.Env = append(x.Env, "PATH="+os.Getenv("PATH"))
	if c.path != "" {
		x.Env = append(x.Env, "PATH="+c.path)
	}
	for name, value := range cmd.Env {
		x.Env = append(x.Env, name+"="+value)
	}
	x.Stdout, x.Stderr = cmd.Stdout, cmd.Stderr
	if cmd.Stdin != nil {
		// The command may end while a Read of its input is still going on.
		in, err := x.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(in, cmd.Stdin) // the command may not want all of it
			_ = in.Close()
		}()
	}
	err = x.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &loom.ExitError{Command: cmd.Text, Code: exit.ExitCode()}
	}
	return err
}

func (shellNode) Files(context.Context) (loom.Files, error) { return nil, errors.ErrUnsupported }

func (shellNode) Close() error { return nil }

// A bench is a session and what comes of it.
type bench struct {
	*loom.Session
	out, err, log *locked
	mu            sync.Mutex
	changes       []string
}

// newBench returns a session on a node called db1.
func newBench(t *testing.T, c loom.Conn) *bench {
	t.Helper()
	b := &bench{out: new(locked), err: new(locked), log: new(locked)}
	b.Session = &loom.Session{
		Node: &loom.Node{Name: "db1", Address: "192.0.2.7", User: "ann", Port: 2222, Groups: []string{"db", "eu"}},
		Job:  "nightly", RunID: "r1", Conn: c, Out: b.out, Err: b.err,
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnChange: func(c loom.Change) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changes = append(b.changes, string(c))
		},
	}
	return b
}

// apply applies a task and returns its error and its changes.
func (b *bench) apply(ctx context.Context, task loom.Task) ([]string, error) {
	b.mu.Lock()
	b.changes = nil
	b.mu.Unlock()
	err := task.Apply(ctx, b.Session)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changes, err
}

// settled applies a task twice, and fails unless the plan before each is what
// then changed, the first time want, and the second time nothing.
func (b *bench) settled(t *testing.T, task loom.Task, want ...string) {
	t.Helper()
	for _, want := range [][]string{want, nil} {
		plan, err := task.(loom.Planner).Plan(t.Context(), b.Session)
		if err != nil {
			t.Fatalf("Plan: %v", err)
		}
		got, err := b.apply(t.Context(), task)
		if err != nil {
			t.Fatalf("Apply: %v", err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("changed %q, want %q", got, want)
		}
		var planned []string
		for _, c := range plan {
			planned = append(planned, string(c))
		}
		if !slices.Equal(planned, got) {
			t.Errorf("planned %q, then changed %q", planned, got)
		}
	}
}

// A locked is a buffer that several goroutines may use.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns what was written, and forgets it.
func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// shells are the shells of this machine that nodes have.
func shells() map[string][]string {
	all := map[string][]string{
		"dash": {"dash"}, "bash": {"bash"}, "bash-posix": {"bash", "--posix"}, "ash": {"busybox", "ash"}, "mksh": {"mksh"}, "yash": {"yash"},
	}
	maps.DeleteFunc(all, func(_ string, words []string) bool {
		_, err := exec.LookPath(words[0])
		return err != nil
	})
	return all
}

// eachShell runs a test with a node of each shell, in an empty home directory.
func eachShell(t *testing.T, test func(t *testing.T, b *bench, home string)) {
	t.Helper()
	for name, words := range shells() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			test(t, newBench(t, shellNode{shell: words, home: home}), home)
		})
	}
}

// write makes a file and returns its name.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// isSkip reports whether a task said that there is nothing to do.
func isSkip(err error) bool {
	_, ok := errors.AsType[*loom.SkipError](err)
	return ok
}
