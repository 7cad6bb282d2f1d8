package loom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustinlacewell/loom/internal/redact"
	"github.com/dustinlacewell/loom/internal/shell"
)

// A Session is one task at work on one node. Loom and tests make one; a task
// may copy it to change how its commands run.
type Session struct {
	Node  *Node
	Job   string
	RunID string
	Due   time.Time // of the run

	Log  *slog.Logger // goes to Loom's log and to the run's output
	Out  io.Writer    // what the run prints; kept with the run
	Err  io.Writer    // what it prints as standard error; nil: Out
	Conn Conn

	// How commands run, and whose the files are.
	User string            // sudo to this user; "": the login user
	Dir  string            // "": the login directory
	Env  map[string]string // over the node's own

	// Base is the directory of the control host at which LocalPath begins;
	// "": the current one.
	Base string

	// Claim names the run's work on this node, so that it is found again, and
	// done once: see [Session.Resumable]. "": commands end with the connection.
	Claim   string
	claims  *claims
	claimed bool // commands are claimed
	last    bool // no other task comes after this one

	// OnChange is called for each change that the task reports; nil ignores
	// them.
	OnChange func(Change)

	secrets *Redactor
}

// Run runs a shell command and copies what it prints to s.Out and s.Err. The
// words are quoted and appended to cmd:
//
//	s.Run(ctx, "systemctl restart", unit)
func (s *Session) Run(ctx context.Context, cmd string, words ...string) error {
	return s.Exec(ctx, Command{Text: join(cmd, words), Stdout: s.Out, Stderr: s.stderr()})
}

// Output runs a shell command as Run does and returns what it prints on standard
// output, without the newlines at its end. Standard error goes to s.Err.
func (s *Session) Output(ctx context.Context, cmd string, words ...string) (string, error) {
	var out bytes.Buffer
	err := s.Exec(ctx, Command{Text: join(cmd, words), Stdout: &out, Stderr: s.stderr()})
	return strings.TrimRight(out.String(), "\r\n"), err
}

// Query runs a shell command that asks the node something: what it prints on
// standard output is returned as by Output, and neither that nor standard error
// is kept with the run. The error still tells the end of standard error.
func (s *Session) Query(ctx context.Context, cmd string, words ...string) (string, error) {
	var out bytes.Buffer
	err := s.Exec(ctx, Command{Text: join(cmd, words), Stdout: &out})
	return strings.TrimRight(out.String(), "\r\n"), err
}

// Exec runs c with the session's user, directory and environment, where c does
// not set its own.
func (s *Session) Exec(ctx context.Context, c Command) error {
	c.Env = s.environment(c.Env)
	if c.Dir == "" {
		c.Dir = s.Dir
	}
	if c.Shell == "" {
		c.Shell = s.Node.Shell
	}
	if c.User == "" {
		c.User = s.User
	}
	if c.User != "" && c.Password == "" {
		c.Password = s.Node.Sudo.Password
	}

	if c.Shell != "" && !c.Private {
		c.Private = s.Redact(c.Text) != c.Text
	}

	c.Last = c.Last && s.last
	end := &tail{next: c.Stderr, most: 4 << 10, clean: s.secrets.stream()}
	if shell.Same(c.Stdout, c.Stderr) {
		c.Stdout = end // they must stay the same writer
	}
	c.Stderr = end
	exec := s.Conn.Exec
	if s.claimed {
		exec = s.resume
	}
	err := exec(ctx, c)
	if exit, ok := errors.AsType[*ExitError](err); ok {
		exit.Command = s.Redact(exit.Command) // before it is made shorter, which may cut a secret in two
		if exit.Stderr == "" {
			exit.Stderr = end.String()
		}
	}
	return err
}

// Redact returns text without the secrets that the manifest knows. What a task
// prints, logs, reports as a change or returns as an error is redacted by itself:
// this is for text that is made shorter before, so that a secret may be cut in two.
func (s *Session) Redact(text string) string { return s.secrets.Redact(text) }

// LocalPath makes a path of the control host absolute: one that is relative starts
// at s.Base, and ~ is the home directory of the user that Loom runs as. Tasks pass
// what a manifest gives them as such a path through it.
func (s *Session) LocalPath(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	switch {
	case ok && (rest == "" || rest[0] == '/'):
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		path = filepath.Join(home, rest)
	case s.Base != "" && !filepath.IsAbs(path):
		path = filepath.Join(s.Base, path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return abs, nil
}

func (s *Session) environment(own map[string]string) map[string]string {
	env := map[string]string{"LOOM_NODE": s.Node.Name}
	if s.Job != "" {
		env["LOOM_JOB"] = s.Job
	}
	if s.RunID != "" {
		env["LOOM_RUN"] = s.RunID
	}
	maps.Copy(env, s.Node.Env)
	maps.Copy(env, s.Env)
	maps.Copy(env, own)
	return env
}

// Sudo returns the same session as another user of the node; "" is the node's
// sudo user, which is root unless it says otherwise.
func (s *Session) Sudo(user string) *Session {
	if user == "" {
		user = s.Node.Sudo.User
	}
	if user == "" {
		user = "root"
	}
	as := *s
	as.User = user
	return &as
}

// Changed records a change, which turns an ok result into a changed one.
func (s *Session) Changed(format string, args ...any) {
	if s.OnChange != nil {
		s.OnChange(Change(fmt.Sprintf(format, args...)))
	}
}

func (s *Session) stderr() io.Writer {
	if s.Err != nil {
		return s.Err
	}
	return s.Out
}

// Quote returns s as one word of a POSIX shell.
func Quote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// join appends words, quoted, to a shell command.
func join(cmd string, words []string) string {
	var b strings.Builder
	b.WriteString(cmd)
	for _, w := range words {
		b.WriteByte(' ')
		b.WriteString(Quote(w))
	}
	return b.String()
}

// A tail passes on what is written and remembers the end of it.
type tail struct {
	next  io.Writer
	most  int
	clean *redact.Stream // takes secrets out of what is remembered; nil: there are none
	end   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	if t.clean != nil {
		t.keep(t.clean.Next(p))
	} else {
		t.keep(p)
	}
	if t.next == nil {
		return len(p), nil
	}
	return t.next.Write(p)
}

func (t *tail) keep(p []byte) {
	t.end = append(t.end, p...)
	if extra := len(t.end) - t.most; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
	}
}

// String returns the end of what was written, which must be all.
func (t *tail) String() string {
	if t.clean != nil {
		t.keep(t.clean.End())
	}
	return string(t.end)
}
