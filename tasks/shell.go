package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// A program is a piece of POSIX shell of our own. Its name stands for it in
// errors. It gets what varies as $1, $2..., quoted, and never by templating.
type program struct{ name, text string }

// command returns the program applied to words. It runs in the POSIX shell of
// the node whatever the node's own shell is, in the C locale.
func (p program) command(words []string) loom.Command {
	var b strings.Builder
	b.WriteString("loom_f() {\n" + p.text + "\n}\nloom_f")
	for _, w := range words {
		b.WriteString(" " + loom.Quote(w))
	}
	return loom.Command{Text: b.String(), Env: map[string]string{"LC_ALL": "C"}}
}

// ask runs the program and returns what it prints, to the byte. Nothing of that
// is kept with the run.
func (p program) ask(ctx context.Context, s *loom.Session, words ...string) ([]byte, error) {
	var out bytes.Buffer
	c := p.command(words)
	c.Stdout = &out
	err := p.exec(ctx, withoutSecrets(s), c)
	return out.Bytes(), err
}

// run runs the program; what it prints is kept with the run.
func (p program) run(ctx context.Context, s *loom.Session, words ...string) error {
	c := p.command(words)
	c.Stdout, c.Stderr = s.Out, s.Err
	if s.Err == nil {
		c.Stderr = s.Out
	}
	return p.exec(ctx, s, c)
}

func (p program) exec(ctx context.Context, s *loom.Session, c loom.Command) error {
	err := posix(s).Exec(ctx, c)
	if exit, ok := errors.AsType[*loom.ExitError](err); ok {
		exit.Command = p.name
	}
	return err
}

// posix returns the session with the POSIX shell of the node, which the shell
// that the nodes file names for it may not be.
func posix(s *loom.Session) *loom.Session {
	node := *s.Node
	node.Shell = ""
	own := *s
	own.Node = &node
	return &own
}

// withoutSecrets returns the session with an environment that has none: who only
// asks needs none.
func withoutSecrets(s *loom.Session) *loom.Session {
	secret := func(_, value string) bool { return s.Redact(value) != value }
	node, own := *s.Node, *s
	node.Env, own.Env = maps.Clone(node.Env), maps.Clone(s.Env)
	maps.DeleteFunc(node.Env, secret)
	maps.DeleteFunc(own.Env, secret)
	own.Node = &node
	return &own
}

// exitCode returns the exit status of a command that ran and ended by itself.
func exitCode(err error) (int, bool) {
	exit, ok := errors.AsType[*loom.ExitError](err)
	if !ok || exit.Code < 0 {
		return 0, false
	}
	return exit.Code, true
}

// complaint returns the last line that a failed command printed as standard
// error, or else its error.
func complaint(err error) string {
	exit, ok := errors.AsType[*loom.ExitError](err)
	if !ok {
		return err.Error()
	}
	text := strings.TrimRight(exit.Stderr, "\r\n \t")
	if text == "" {
		return err.Error()
	}
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// A step is one change, and how it is made.
type step struct {
	change string
	do     func(ctx context.Context) error
}

// perform makes the changes in order and records each once it is made.
func perform(ctx context.Context, s *loom.Session, steps []step) error {
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			return err
		}
		s.Changed("%s", step.change)
	}
	return nil
}

// changes returns what the steps would change.
func changes(steps []step) []loom.Change {
	var list []loom.Change
	for _, step := range steps {
		list = append(list, loom.Change(step.change))
	}
	return list
}

// logger returns the session's log, which a session made by hand may lack.
func logger(s *loom.Session) *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// limited returns a context that ends after d, if d isn't 0.
func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, &loom.TimeoutError{After: d})
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// absolute checks that a path of a node is one that can be compared and written
// into tables: absolute, and of one line.
func absolute(param, path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%s is empty", param)
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("%s: write an absolute path, not %q", param, path)
	}
	return oneLine(param, path)
}

func oneLine(param, text string) error {
	if strings.ContainsAny(text, "\n\r\x00") {
		return fmt.Errorf("%s: %q has a line break or a NUL in it", param, text)
	}
	return nil
}

// environment checks the names of variables.
func environment(env map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(env)) {
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
		if name == "" || !strings.ContainsRune(letters, rune(name[0])) || strings.Trim(name, letters+"0123456789") != "" {
			errs = append(errs, fmt.Errorf("env: %q can't be the name of a variable", name))
		}
		if strings.Contains(env[name], "\x00") {
			errs = append(errs, fmt.Errorf("env: the value of %s has a NUL in it", name))
		}
	}
	return errors.Join(errs...)
}

func notNegative(param string, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("%s: %v is negative", param, d)
	}
	return nil
}

// brief makes a command or a path short enough to stand in a sentence.
func brief(text string) string {
	const most = 60
	line, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if r := []rune(line); len(r) > most {
		line, more = string(r[:most]), true
	}
	if more {
		line += "…"
	}
	return line
}
