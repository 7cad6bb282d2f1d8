package loomtest_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/loomtest"
)

// A Line is a task that makes a file have a line.
type Line struct {
	File, Line string

	tries map[string]int // of the faulty ones below
}

func (l Line) missing(ctx context.Context, s *loom.Session) (old []byte, missing bool, err error) {
	old, err = s.ReadFile(ctx, l.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	return old, !bytes.Contains(append([]byte("\n"), old...), []byte("\n"+l.Line+"\n")), nil
}

func (l Line) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	_, missing, err := l.missing(ctx, s)
	if err != nil || !missing {
		return nil, err
	}
	return []loom.Change{loom.Change("add a line to " + l.File)}, nil
}

func (l Line) Apply(ctx context.Context, s *loom.Session) error {
	old, missing, err := l.missing(ctx, s)
	if err != nil || !missing {
		return err
	}
	if err := s.WriteFile(ctx, l.File, append(old, l.Line+"\n"...), loom.Attr{}); err != nil {
		return err
	}
	s.Changed("add a line to %s", l.File)
	return nil
}

func memory(t *testing.T) *loomtest.Server {
	t.Helper()
	srv := loomtest.NewServer(nil)
	if err := srv.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return srv
}

func real(t *testing.T) *loomtest.Server {
	t.Helper()
	return loomtest.Real(t)
}

func TestTask(t *testing.T) {
	loomtest.TestTask(t, Line{File: "/etc/hosts", Line: "10.0.0.1 db"}, memory)
	loomtest.TestTask(t, Line{File: "by hand", Line: "it's"}, real)
	loomtest.TestTask(t, Restart{Unit: "nginx"}, memory)
	loomtest.TestTask(t, loom.TaskFunc(func(context.Context, *loom.Session) error {
		return loom.Skip("nothing to do")
	}), memory)
}

// Tasks that each break one promise.

type remembers struct{ Line }

func (r *remembers) Apply(ctx context.Context, s *loom.Session) error {
	r.tries["apply"]++
	return r.Line.Apply(ctx, s)
}

type shares struct{ Line }

func (s shares) Apply(ctx context.Context, session *loom.Session) error {
	s.tries["apply"]++
	return s.Line.Apply(ctx, session)
}

type deaf struct{}

func (deaf) Apply(ctx context.Context, s *loom.Session) error {
	return s.Run(context.WithoutCancel(ctx), "sleep 1d")
}

type careless struct{}

func (careless) Apply(ctx context.Context, s *loom.Session) error {
	_ = s.Run(ctx, "sleep 1d")
	return nil
}

type plansByDoing struct{ Line }

func (p plansByDoing) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	quiet := *s
	quiet.OnChange = nil
	return []loom.Change{"a line"}, p.Apply(ctx, &quiet)
}

type always struct{ Line }

func (a always) Plan(context.Context, *loom.Session) ([]loom.Change, error) {
	return []loom.Change{"a line"}, nil
}

type again struct{ Line }

func (a again) Apply(ctx context.Context, s *loom.Session) error {
	s.Changed("a line")
	return a.Line.Apply(ctx, s)
}

func bad() map[string]struct {
	task loom.Task
	says string
} {
	line := Line{File: "/etc/hosts", Line: "10.0.0.1 db", tries: map[string]int{}}
	return map[string]struct {
		task loom.Task
		says string
	}{
		"remembers":      {&remembers{line}, "Apply has changed the task"},
		"shares":         {shares{line}, "Apply has changed the task"},
		"deaf":           {deaf{}, "Apply has not returned 10s after its context ended"},
		"careless":       {careless{}, "though the node never answered"},
		"plans by doing": {plansByDoing{line}, "Plan has changed the node's files"},
		"always":         {always{line}, "Plan still tells"},
		"again":          {again{line}, "the second Apply changed"},
		"fails":          {loom.TaskFunc(func(context.Context, *loom.Session) error { return errors.New("no") }), "must be one on which it succeeds"},
	}
}

// The suite tells good tasks from bad ones: each of these fails it, in a process
// of its own, with the right words.
func TestTaskFails(t *testing.T) {
	const name = "LOOMTEST_BAD_TASK"
	if bad, is := bad()[os.Getenv(name)]; is {
		loomtest.TestTask(t, bad.task, memory)
		return
	}
	for which, b := range bad() {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTaskFails$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), name+"="+which)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), b.says) || !strings.Contains(string(out), "the contract: ") {
				t.Errorf("the suite says %v\n%s\nwant that it fails and says %q", err, out, b.says)
			}
		})
	}
}

// A Conn that breaks promises fails the suite.

type badConn struct {
	loom.Conn
	how string
}

func (c badConn) Exec(ctx context.Context, cmd loom.Command) error {
	switch c.how {
	case "swallows errors":
		_ = c.Conn.Exec(ctx, cmd)
		return nil
	case "mixes streams":
		cmd.Stderr = cmd.Stdout
	case "trims":
		if b, ok := cmd.Stdout.(*bytes.Buffer); ok {
			defer func() { b.Truncate(len(bytes.TrimRight(b.Bytes(), "\n"))) }()
		}
	case "shows":
		cmd.Shell = "/bin/sh"
	case "lets go":
		done := make(chan error, 1)
		go func() { done <- c.Conn.Exec(context.WithoutCancel(ctx), cmd) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return c.Conn.Exec(ctx, cmd)
}

func TestConnFails(t *testing.T) {
	const name = "LOOMTEST_BAD_CONN"
	if how := os.Getenv(name); how != "" {
		loomtest.TestConn(t, func(t *testing.T) loom.Conn {
			t.Helper()
			return badConn{loomtest.Real(t).Session(t).Conn, how}
		})
		return
	}
	for how, check := range map[string]string{
		"swallows errors": "exit_status", "mixes streams": "streams", "trims": "environment", "shows": "secret_text", "lets go": "cancel",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConnFails$/^"+check+"$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), name+"="+how)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "the contract: ") {
				t.Errorf("the suite says %v\n%s\nwant that it fails in %s", err, out, check)
			}
		})
	}
}
