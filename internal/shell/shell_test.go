package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func sh(t *testing.T, c Command) (string, string, Exit, error) {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	exit, err := Run(t.Context(), Local, c, nil)
	return out.String(), errs.String(), exit, err
}

func TestRun(t *testing.T) {
	tests := []struct {
		name     string
		c        Command
		out, err string
		exit     Exit
	}{
		{"nothing", Command{Text: ""}, "", "", Exit{}},
		{"output", Command{Text: "echo a; echo b >&2"}, "a\n", "b\n", Exit{}},
		{"status", Command{Text: "exit 7"}, "", "", Exit{Code: 7}},
		{"last status", Command{Text: "true\nfalse"}, "", "", Exit{Code: 1}},
		{"return", Command{Text: "return 4"}, "", "", Exit{Code: 4}},
		{"signal", Command{Text: "kill -KILL $$"}, "", "", Exit{-1, "KILL"}},
		{"status like a signal's", Command{Text: "sh -c 'kill -KILL $$'"}, "", "Killed\n", Exit{Code: 137}},
		{"set -e", Command{Text: "set -e\nfalse\necho no"}, "", "", Exit{Code: 1}},
		{"quotes", Command{Text: `printf %s "it's"`}, "it's", "", Exit{}},
		{"environment", Command{Text: `echo "$A"`, Env: map[string]string{"A": "x 'y' $z"}}, "x 'y' $z\n", "", Exit{}},
		{"directory", Command{Text: "pwd", Dir: "/usr"}, "/usr\n", "", Exit{}},
		{"stdin is empty", Command{Text: "cat"}, "", "", Exit{}},
		{"stdin", Command{Text: "cat", Stdin: strings.NewReader("hello\n")}, "hello\n", "", Exit{}},
		{"stdin that nobody reads", Command{Text: "true", Stdin: strings.NewReader("echo no\n")}, "", "", Exit{}},
		{"stdin half read", Command{Text: "read x; echo $x", Stdin: strings.NewReader("a\necho no\n")}, "a\n", "", Exit{}},
		{"status 97 with stdin", Command{Text: "exit 97", Stdin: strings.NewReader("a")}, "", "", Exit{Code: 97}},
		{"wait does not wait for the watcher", Command{Text: "sleep .01 & wait; echo done"}, "done\n", "", Exit{}},
		{"shell", Command{Text: "echo $BASH_VERSION | cut -c1", Shell: "/bin/bash"}, "5\n", "", Exit{}},
		{"no arguments", Command{Text: `echo $# "$@"`}, "0\n", "", Exit{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, exit, err := sh(t, tt.c)
			if err != nil || out != tt.out || errs != tt.err || exit != tt.exit {
				t.Errorf("got %q, %q, %v, %v; want %q, %q, %v", out, errs, exit, err, tt.out, tt.err, tt.exit)
			}
		})
	}
}

// left lists the processes that carry a word on their command line.
func left(t *testing.T, word string) string {
	t.Helper()
	out, err := exec.Command("ps", "-eo", "pid,ppid,pgid,sid,stat,args").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, word) && !strings.HasPrefix(f[4], "Z") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "\n")
}

func TestCancelEndsAll(t *testing.T) {
	for i, text := range []string{
		"sleep WORD",
		"sleep WORD & sleep WORD & wait",
		"setsid sleep WORD & sleep WORD",
		"trap '' TERM; sleep WORD; sleep WORD",
		"nohup setsid sh -c \"trap '' TERM; sleep WORD; sleep WORD\" & sleep WORD",
		"while :; do :; done; sleep WORD",
	} {
		for _, stdin := range []bool{false, true} {
			t.Run(fmt.Sprint(i, stdin), func(t *testing.T) {
				t.Parallel()
				word := fmt.Sprintf("31%d%d.%d", i, len(t.Name()), os.Getpid())
				ctx, cancel := context.WithCancelCause(t.Context())
				why := errors.New("why")
				c := Command{Text: "echo up; " + strings.ReplaceAll(text, "WORD", word)}
				if stdin {
					c.Stdin = strings.NewReader("x")
				}
				c.Stdout = writerFunc(func(p []byte) (int, error) { cancel(why); return len(p), nil })
				begun := time.Now()
				_, err := Run(ctx, Local, c, nil)
				if !errors.Is(err, why) || err.Error() != why.Error() {
					t.Errorf("error %v, want %v", err, why)
				}
				if s := left(t, word); s != "" {
					t.Errorf("still there:\n%s", s)
				}
				t.Log(time.Since(begun))
			})
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
