package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// killTime is how long a command whose time is up is given to end by itself.
const killTime = 3 * time.Second

// An execSpec is a command on this machine.
type execSpec struct {
	Command []string          `loom:"required" help:"a program and its arguments, or a line for sh"`
	Env     map[string]string `help:"more variables"`
	Timeout time.Duration     `help:"time for one attempt"`
}

// DecodeNode reads a command, or a mapping.
func (s *execSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	problems := short(n, s, &s.Command)
	if n.Kind == yaml.ScalarNode {
		s.shell()
		return problems
	}
	pairs, _ := bind.Pairs(n)
	for _, p := range pairs {
		if p.Name == "command" && p.Value != nil && p.Value.Kind == yaml.ScalarNode {
			s.shell()
		}
	}
	return problems
}

// shell has a line be read by a shell.
func (s *execSpec) shell() {
	if len(s.Command) == 1 && s.Command[0] != "" {
		s.Command = []string{"/bin/sh", "-c", s.Command[0]}
	}
}

// A command is run with the event on its standard input.
type command struct {
	argv []string
	env  []string
}

func (s *execSpec) sender(r *reading, t *target) (sender, string) {
	c := &command{argv: s.Command}
	if len(s.Command) == 0 || s.Command[0] == "" {
		r.wrong("exec", "write a command")
		return nil, ""
	}
	if name := s.Command[0]; strings.HasPrefix(name, "~/") || strings.Contains(name, "/") && !strings.HasPrefix(name, "/") {
		c.argv = append([]string{r.at.Path(name)}, s.Command[1:]...)
	}
	if _, err := exec.LookPath(c.argv[0]); err != nil {
		r.wrong("exec", "%v", err)
	}
	for name, value := range s.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			r.wrong("exec.env", "%q can't be a variable", name)
		}
		c.env = append(c.env, name+"="+value)
	}
	if s.Timeout < 0 || s.Timeout > time.Hour {
		r.wrong("exec.timeout", "write a duration up to 1h")
	} else if s.Timeout > 0 {
		t.time = s.Timeout
	}
	to := c.argv[0]
	if to == "/bin/sh" && len(c.argv) == 3 {
		to, _, _ = strings.Cut(strings.TrimSpace(c.argv[2]), " ")
	}
	return c, to
}

func (c *command) send(ctx context.Context, m message) (string, error) {
	body, err := event(m)
	if err != nil {
		return "", &refusal{err: err, only: true, final: true}
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(c.inherited(), "LOOM_KIND="+string(m.Kind), "LOOM_ID="+m.ID, "LOOM_TITLE="+m.title)
	if m.Job != nil {
		cmd.Env = append(cmd.Env, "LOOM_JOB="+m.Job.Name)
	}
	if m.Run != nil {
		cmd.Env = append(cmd.Env, "LOOM_RUN="+m.Run.ID)
	}
	cmd.Env = append(cmd.Env, c.env...)
	cmd.Stdin = bytes.NewReader(append(body, '\n'))
	out := &last{most: 4096}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it and all that it starts
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killTime
	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	said := newCleaner(nil).line(strings.TrimSpace(out.String()), answerShown)
	switch {
	case ctx.Err() != nil:
		return "", &refusal{err: fmt.Errorf("%w%s", context.Cause(ctx), after(said)), only: true}
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it ended well, and what it left behind kept its output open
	case errors.Is(err, syscall.EPIPE):
		err = nil // it did not care to read the event
	}
	if err != nil {
		return "", &refusal{err: fmt.Errorf("%w%s", err, after(said)), only: true}
	}
	return "exit status 0" + after(said), nil
}

// inherited is what a command gets of Loom's own environment, in which there may
// be secrets.
func (c *command) inherited() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// after is what was said, if anything was.
func after(said string) string {
	if said == "" {
		return ""
	}
	return ": " + said
}

// last keeps the end of what is written to it.
type last struct {
	text []byte
	most int
}

var _ io.Writer = (*last)(nil)

func (l *last) Write(p []byte) (int, error) {
	l.text = append(l.text, p...)
	if extra := len(l.text) - l.most; extra > 0 {
		l.text = append(l.text[:0], l.text[extra:]...)
	}
	return len(p), nil
}

func (l *last) String() string { return string(l.text) }
