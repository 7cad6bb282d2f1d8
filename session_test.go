package loom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

// A scripted connection answers every command the same way and remembers the
// last one.
type scripted struct {
	Conn
	last        Command
	stdout, err string
	result      error
}

func (c *scripted) Exec(_ context.Context, cmd Command) error {
	c.last = cmd
	write := func(w io.Writer, text string) {
		if w != nil {
			_, _ = io.WriteString(w, text)
		}
	}
	write(cmd.Stdout, c.stdout)
	write(cmd.Stderr, c.err)
	return c.result
}

func TestSessionCommands(t *testing.T) {
	node := &Node{Name: "db1", Shell: "/bin/bash", Env: map[string]string{"A": "node", "B": "node", "C": "node"},
		Sudo: Sudo{User: "postgres", Password: "hunter2"}}
	tests := []struct {
		name string
		do   func(ctx context.Context, s *Session) error
		want Command
	}{
		{"words are quoted", func(ctx context.Context, s *Session) error { return s.Run(ctx, "rm --", "a b", "it's", "") },
			Command{Text: `rm -- 'a b' 'it'\''s' ''`}},
		{"as the node's sudo user", func(ctx context.Context, s *Session) error { return s.Sudo("").Run(ctx, "id") },
			Command{Text: "id", User: "postgres", Password: "hunter2"}},
		{"as a user by name", func(ctx context.Context, s *Session) error { return s.Sudo("root").Run(ctx, "id") },
			Command{Text: "id", User: "root", Password: "hunter2"}},
		{"a command's own settings win", func(ctx context.Context, s *Session) error {
			return s.Exec(ctx, Command{Text: "id", Dir: "/tmp", Shell: "/bin/zsh", Env: map[string]string{"C": "own"}})
		}, Command{Text: "id", Dir: "/tmp", Shell: "/bin/zsh", Env: map[string]string{"C": "own"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &scripted{}
			s := &Session{Node: node, Job: "backup", RunID: "r1", Conn: c, Dir: "/srv", Env: map[string]string{"B": "job"}}
			if err := tt.do(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			want := tt.want
			env := map[string]string{"A": "node", "B": "job", "C": "node", "LOOM_NODE": "db1", "LOOM_JOB": "backup", "LOOM_RUN": "r1"}
			maps.Copy(env, want.Env)
			want.Env = env
			if want.Dir == "" {
				want.Dir = "/srv"
			}
			if want.Shell == "" {
				want.Shell = "/bin/bash"
			}
			got := c.last
			got.Stdin, got.Stdout, got.Stderr = nil, nil, nil
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("the node was asked (-want +got):\n%s", d)
			}
			if s.User != "" {
				t.Error("Sudo changed the session that it was called on")
			}
		})
	}
}

func TestSessionOutput(t *testing.T) {
	failed := &ExitError{Command: "x", Code: 2}
	c := &scripted{stdout: "one\ntwo\r\n\n", err: "warning\n", result: failed}
	var out, errs strings.Builder
	s := &Session{Node: &Node{Name: "n"}, Conn: c, Out: &out, Err: &errs}

	got, err := s.Output(t.Context(), "x")
	if got != "one\ntwo" || out.String() != "" || errs.String() != "warning\n" {
		t.Errorf("Output = %q, with %q and %q kept", got, out.String(), errs.String())
	}
	if exit := (*ExitError)(nil); !errors.As(err, &exit) || exit.Stderr != "warning\n" {
		t.Errorf("Output = %#v, want the end of standard error in it", err)
	}
	if want := "command x: exit status 2: warning"; err.Error() != want {
		t.Errorf("error = %q, want %q", err, want)
	}

	errs.Reset()
	if got, _ := s.Query(t.Context(), "x"); got != "one\ntwo" || out.String()+errs.String() != "" {
		t.Errorf("Query = %q and kept %q", got, out.String()+errs.String())
	}

	s.Err = nil // both streams to one writer
	_ = s.Run(t.Context(), "x")
	if out.String() != "one\ntwo\r\n\nwarning\n" || c.last.Stdout != c.last.Stderr {
		t.Errorf("Run kept %q; one writer for both: %v", out.String(), c.last.Stdout == c.last.Stderr)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	n := Node{Name: "n", Password: "hunter2", Sudo: Sudo{Password: "hunter2"}, Jump: &Node{Passphrase: "hunter2"}}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "node", n, "password", n.Password)
	j, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(n), fmt.Sprintf("%v %+v %#v %s %q %x", n, n, n, n.Password, n.Password, n.Password),
		fmt.Sprintf("%#v", n.Jump), log.String(), string(j), string(y),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("a secret is in %s", text)
		}
	}
}

// FuzzQuote holds that a shell reads a quoted word as what it was.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a b", "it's", "$HOME `id` \\ \"", "-n", "a\nb", "\x01\xff", "~", "*", "a=b", "é{1,2}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			t.Skip("no shell word holds a NUL")
		}
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "printf %s "+Quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("the shell read %q for %q: %v", out, s, err)
		}
	})
}

func ExampleQuote() {
	fmt.Println("rm --", Quote("it's here"))
	// Output: rm -- 'it'\''s here'
}
