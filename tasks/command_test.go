package tasks_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

func TestRun(t *testing.T) {
	tests := []struct {
		name     string
		task     tasks.Run
		out, err string
		fails    string
		log      string
	}{
		{name: "output", task: tasks.Run{Command: "echo out; echo err >&2"}, out: "out\n", err: "err\n"},
		{name: "text is shell", task: tasks.Run{Command: `x='a  b'; echo "$x" | tr a '\$'`}, out: "$  b\n"},
		{name: "exit status", task: tasks.Run{Command: "echo no good >&2; exit 3"}, err: "no good\n", fails: "exit status 3: no good"},
		{name: "warn_only", task: tasks.Run{Command: "exit 3", WarnOnly: true}, log: "exit status 3"},
		{name: "quiet", task: tasks.Run{Command: "echo out; echo err >&2; exit 3", Quiet: true}},
		{name: "combine_stderr", task: tasks.Run{Command: "echo out; echo err >&2; echo out", CombineStderr: true}, out: "out\nerr\nout\n"},
		{name: "env", task: tasks.Run{Command: `echo "$A,$LOOM_NODE,$LOOM_JOB,$LOOM_RUN"`, Env: map[string]string{"A": "it's $HOME\n"}}, out: "it's $HOME\n,db1,nightly,r1\n"},
		{name: "dir", task: tasks.Run{Command: "pwd", Dir: "/usr"}, out: "/usr\n"},
		{name: "stdin", task: tasks.Run{Command: "cat", Stdin: "a\nb"}, out: "a\nb"},
		{name: "no stdin", task: tasks.Run{Command: "cat"}},
		{name: "shell", task: tasks.Run{Command: `echo ${BASH_VERSION:+bash}`, Shell: "bash"}, out: "bash\n"},
		{name: "fabric's shell", task: tasks.Run{Command: `echo hi`, Shell: "True"}, out: "hi\n"},
		{name: "pty", task: tasks.Run{Command: "echo hi", Pty: true}, out: "hi\n", log: "no terminal"},
		{name: "timeout", task: tasks.Run{Command: "sleep 600", Timeout: 50 * time.Millisecond}, fails: "timed out after 50ms"},
		{name: "a timeout is no exit status", task: tasks.Run{Command: "sleep 600", Timeout: 50 * time.Millisecond, WarnOnly: true, Quiet: true}, fails: "timed out after 50ms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, shellNode{home: t.TempDir()})
			if err := tt.task.Validate(); err != nil {
				t.Fatal(err)
			}
			changed, err := b.apply(t.Context(), tt.task)
			if tt.fails == "" && err != nil || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("error is %v, want %q", err, tt.fails)
			}
			if len(changed) > 0 {
				t.Errorf("changed %q, though nobody can know", changed)
			}
			if out, errs := b.out.String(), b.err.String(); out != tt.out || errs != tt.err {
				t.Errorf("printed %q and %q, want %q and %q", out, errs, tt.out, tt.err)
			}
			if log := b.log.String(); !strings.Contains(log, tt.log) || tt.log == "" && !tt.task.Quiet && log != "" {
				t.Errorf("log is %q, want %q", log, tt.log)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	tests := []struct {
		task loom.Validator
		want string
	}{
		{tasks.Run{Command: " \n"}, "command is empty"},
		{tasks.Run{Command: "a\x00b"}, "NUL"},
		{tasks.Run{Command: "x", Stdout: "sys.stdout"}, "leave them out"},
		{tasks.Run{Command: "x", Timeout: -1}, "negative"},
		{tasks.Run{Command: "x", Env: map[string]string{"A-B": ""}}, `"A-B" can't be the name`},
		{tasks.Run{Command: "x", Env: map[string]string{"": ""}}, `"" can't be the name`},
		{tasks.Sudo{Command: "x", Group: "adm"}, "sg adm"},
		{tasks.Sudo{}, "command is empty"},
		{tasks.Local{}, "command is empty"},
		{tasks.Script{}, "file is empty"},
		{tasks.Script{File: "x", Args: []string{"a\x00"}}, "NUL"},
	}
	for _, tt := range tests {
		if err := tt.task.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate of %+v is %v, want %q", tt.task, err, tt.want)
		}
	}
}

func TestGuards(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, "it's here")
	b := newBench(t, shellNode{home: home})
	touch := tasks.Run{Command: "touch \"it's here\"; echo ran", Creates: file}
	unless := tasks.Run{Command: "touch two", Unless: "test -e two"}

	for _, task := range []tasks.Run{touch, unless} {
		plan, err := task.Plan(t.Context(), b.Session)
		if err != nil || len(plan) != 1 {
			t.Errorf("plan is %q and %v, want one change", plan, err)
		}
		changed, err := b.apply(t.Context(), task)
		if err != nil || len(changed) != 1 || changed[0] != string(plan[0]) {
			t.Errorf("first changed %q (%v), want %q", changed, err, plan)
		}
		if plan, err := task.Plan(t.Context(), b.Session); err != nil || len(plan) != 0 {
			t.Errorf("plan is %q and %v, want none", plan, err)
		}
		if changed, err := b.apply(t.Context(), task); !isSkip(err) || len(changed) != 0 {
			t.Errorf("then changed %q (%v), want skipped", changed, err)
		}
	}
	if out := b.out.String(); out != "ran\n" {
		t.Errorf("printed %q, so it ran more than once or a guard printed", out)
	}
	if _, err := (tasks.Run{Command: "true"}).Plan(t.Context(), b.Session); !isSkip(err) {
		t.Errorf("plan without a guard says %v, want that nobody can tell", err)
	}
}

// A failure to ask a guard must not be taken for its answer.
func TestGuardFails(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(loom.ErrShutdown)
	b := newBench(t, shellNode{home: t.TempDir()})
	_, err := b.apply(ctx, tasks.Run{Command: "echo ran", Unless: "false"})
	if !errors.Is(err, loom.ErrShutdown) || b.out.String() != "" {
		t.Errorf("error is %v, want %v and nothing run", err, loom.ErrShutdown)
	}
}

func TestScript(t *testing.T) {
	local := t.TempDir()
	program := read(t, "/bin/true")
	tests := []struct {
		name, text string
		task       tasks.Script
		out, fails string
	}{
		{name: "sh", text: "echo $#", out: "0\n"},
		{name: "args are words", text: `for a; do echo "<$a>"; done`, task: tasks.Script{Args: []string{"", "a b", "it's", "$HOME", "-n", "*"}}, out: "<>\n<a b>\n<it's>\n<$HOME>\n<-n>\n<*>\n"},
		{name: "interpreter of its own", text: "#!/usr/bin/env bash\necho ${BASH_VERSION:+bash}", out: "bash\n"},
		{name: "with an argument", text: "#! /bin/sh  -e\nfalse\necho no", fails: "exit status 1"},
		{name: "interpreter given", text: "{print $1}", task: tasks.Script{Interpreter: "awk -f", Args: []string{"/proc/version"}}, out: "Linux\n"},
		{name: "program", text: program},
		{name: "name", text: `basename "$0"`, out: "name of it.sh\n"},
		{name: "no stdin", text: "cat"},
		{name: "env", text: `echo "$A $LC_ALL"`, task: tasks.Script{Env: map[string]string{"A": "b"}}, out: "b \n"},
		{name: "dir", text: `pwd`, task: tasks.Script{Dir: "/usr"}, out: "/usr\n"},
		{name: "fails", text: "echo bad >&2; exit 7", fails: "exit status 7: bad"},
		{name: "warn_only", text: "exit 7", task: tasks.Script{WarnOnly: true}},
		{name: "timeout", text: "sleep 600", task: tasks.Script{Timeout: 200 * time.Millisecond}, fails: "timed out after 200ms"},
		{name: "killed", text: "kill -9 $$", fails: "exit status"},
		{name: "Windows", text: "#!/bin/sh\r\necho hi\r\n", fails: "dos2unix"},
		{name: "large", text: "# " + strings.Repeat("x", 300_000) + "\necho end", out: "end\n"},
		{name: "empty", text: ""},
	}
	eachShell(t, func(t *testing.T, b *bench, home string) {
		t.Helper()
		for i, tt := range tests {
			task := tt.task
			task.File = write(t, local, filepath.Join(t.Name(), string(rune('a'+i)), "name of it.sh"), tt.text)
			changed, err := b.apply(t.Context(), task)
			if tt.fails == "" && err != nil || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("%s: error is %v, want %q", tt.name, err, tt.fails)
			}
			if out := b.out.String(); out != tt.out || len(changed) > 0 {
				t.Errorf("%s: printed %q and changed %q, want %q", tt.name, out, changed, tt.out)
			}
			if left, _ := os.ReadDir(home); len(left) > 0 {
				t.Errorf("%s: left %v on the node", tt.name, left)
			}
		}
	})
}

// The script is nobody else's to read, wherever it is.
func TestScriptIsPrivate(t *testing.T) {
	b := newBench(t, shellNode{home: t.TempDir()})
	file := write(t, t.TempDir(), "s", `umask; stat -c %a "$0" "$(dirname "$0")"`)
	if _, err := b.apply(t.Context(), tasks.Script{File: file}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.out.String(), "0022\n600\n700\n"; got != want {
		t.Errorf("umask and modes are %q, want %q", got, want)
	}
}

func TestScriptMissing(t *testing.T) {
	b := newBench(t, shellNode{home: t.TempDir()})
	if _, err := b.apply(t.Context(), tasks.Script{File: "/nonexistent/x"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want that there is no such file", err)
	}
	if _, err := b.apply(t.Context(), tasks.Script{File: "/usr"}); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("error is %v, want that it is not a file", err)
	}
}
