package tasks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// Run runs a shell command on the node. It is ok if the command exits with 0.
// Whether the command changed anything Loom can't know, so Run is never
// changed, unless it has a guard: with Creates or Unless it runs only where it
// is needed, and is then changed.
//
// The command goes to the node's shell as it is written, without a terminal;
// the parameters of Fabric that are about terminals and Python's quoting are
// accepted, since they ask for nothing more.
type Run struct {
	Command       string            `loom:"required" help:"text for the node's shell"`
	Shell         string            `help:"program that runs it, as in SHELL -c COMMAND, where ps shows it; true, false or nothing: the node's own shell"`
	Pty           bool              `help:"accepted for old manifests; no terminal is allocated"`
	CombineStderr bool              `yaml:"combine_stderr" help:"keep standard error as part of standard output"`
	Quiet         bool              `help:"keep nothing of what it prints, and be ok whatever its exit status is"`
	WarnOnly      bool              `yaml:"warn_only" help:"be ok whatever its exit status is, with a warning in the log"`
	Stdout        string            `help:"refused: a Python stream; what the command prints is kept with the run"`
	Stderr        string            `help:"refused, as stdout"`
	Timeout       time.Duration     `help:"end the command and all it has started after this long"`
	ShellEscape   bool              `yaml:"shell_escape" help:"accepted for old manifests; the shell gets the command as it is written"`
	Dir           string            `help:"directory to run it in"`
	Env           map[string]string `help:"variables exported to it, over those of the job and the node"`
	Stdin         string            `help:"text that it reads as standard input"`
	Creates       string            `help:"skip it where this file exists; changed where it does not"`
	Unless        string            `help:"skip it where this command exits with 0; changed where it does not"`
}

func (t Run) command() command {
	return command{
		text: t.Command, shell: t.Shell, pty: t.Pty, combine: t.CombineStderr, quiet: t.Quiet,
		warnOnly: t.WarnOnly, streams: t.Stdout + t.Stderr, timeout: t.Timeout,
		dir: t.Dir, env: t.Env, stdin: t.Stdin, creates: t.Creates, unless: t.Unless,
	}
}

// Validate checks what the types can't.
func (t Run) Validate() error { return t.command().validate() }

// Apply runs the command.
func (t Run) Apply(ctx context.Context, s *loom.Session) error { return t.command().apply(ctx, s) }

// Exposes names what shows a secret in it.
func (Run) Exposes() map[string]string { return exposedCommand() }

// Resumes says that it can be applied again where it was interrupted.
func (t Run) Resumes() bool { return true }

// Plan tells whether a guarded command would run. One without a guard can't
// tell what it would change: its plan is skipped, and says so.
func (t Run) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	return t.command().plan(ctx, s)
}

// Sudo runs a shell command on the node as root, or as another user, by sudo.
// It is otherwise like [Run]. The password that sudo may ask for is the node's;
// it is sent only when sudo asks, and never to the command.
type Sudo struct {
	Command       string            `loom:"required" help:"text for the node's shell"`
	Shell         string            `help:"program that runs it, as in SHELL -c COMMAND, where ps shows it; true, false or nothing: the node's own shell"`
	Pty           bool              `help:"accepted for old manifests; no terminal is allocated"`
	CombineStderr bool              `yaml:"combine_stderr" help:"keep standard error as part of standard output"`
	User          string            `help:"user to become; nothing: the node's sudo user, else root"`
	Quiet         bool              `help:"keep nothing of what it prints, and be ok whatever its exit status is"`
	WarnOnly      bool              `yaml:"warn_only" help:"be ok whatever its exit status is, with a warning in the log"`
	Stdout        string            `help:"refused: a Python stream; what the command prints is kept with the run"`
	Stderr        string            `help:"refused, as stdout"`
	Group         string            `help:"refused: sudo becomes a user, with that user's groups"`
	Timeout       time.Duration     `help:"end the command and all it has started after this long"`
	ShellEscape   bool              `yaml:"shell_escape" help:"accepted for old manifests; the shell gets the command as it is written"`
	Dir           string            `help:"directory to run it in"`
	Env           map[string]string `help:"variables exported to it, over those of the job and the node"`
	Stdin         string            `help:"text that it reads as standard input"`
	Creates       string            `help:"skip it where this file exists; changed where it does not"`
	Unless        string            `help:"skip it where this command exits with 0; changed where it does not"`
}

func (t Sudo) command() command {
	return command{
		text: t.Command, shell: t.Shell, pty: t.Pty, combine: t.CombineStderr, quiet: t.Quiet,
		warnOnly: t.WarnOnly, streams: t.Stdout + t.Stderr, timeout: t.Timeout,
		dir: t.Dir, env: t.Env, stdin: t.Stdin, creates: t.Creates, unless: t.Unless,
	}
}

// Validate checks what the types can't.
func (t Sudo) Validate() error {
	var group error
	if t.Group != "" {
		group = fmt.Errorf("group: sudo becomes a user here, with that user's groups; to use another group write command: sg %s -c '...'", t.Group)
	}
	return errors.Join(t.command().validate(), group, oneLine("user", t.User))
}

// Apply runs the command.
func (t Sudo) Apply(ctx context.Context, s *loom.Session) error {
	return t.command().apply(ctx, s.Sudo(t.User))
}

// Exposes does what [Run.Exposes] does.
func (Sudo) Exposes() map[string]string { return exposedCommand() }

// Resumes does what [Run.Resumes] does.
func (t Sudo) Resumes() bool { return true }

// Plan does what [Run.Plan] does.
func (t Sudo) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	return t.command().plan(ctx, s.Sudo(t.User))
}

// Local runs a shell command on the control host, where Loom runs, once for
// each target: as Loom's own user, whatever sudo the job asks for. Its
// environment names the node: LOOM_NODE, LOOM_NODE_ADDRESS, LOOM_NODE_PORT,
// LOOM_NODE_USER and LOOM_NODE_GROUPS (with spaces between). The node itself
// must be reachable but is not touched. Local is otherwise like [Run].
type Local struct {
	Command  string            `loom:"required" help:"text for /bin/sh on the control host"`
	Capture  bool              `help:"accepted for old manifests; what it prints is always kept with the run"`
	Shell    string            `help:"program that runs it, as in SHELL -c COMMAND; nothing: /bin/sh"`
	WarnOnly bool              `yaml:"warn_only" help:"be ok whatever its exit status is, with a warning in the log"`
	Timeout  time.Duration     `help:"end the command and all it has started after this long"`
	Dir      string            `help:"directory to run it in"`
	Env      map[string]string `help:"variables exported to it, over those of the job"`
	Stdin    string            `help:"text that it reads as standard input"`
	Creates  string            `help:"skip it if this file exists; changed if it does not"`
	Unless   string            `help:"skip it if this command exits with 0; changed if it does not"`
}

func (t Local) command() command {
	return command{
		text: t.Command, shell: t.Shell, warnOnly: t.WarnOnly, timeout: t.Timeout,
		dir: t.Dir, env: t.Env, stdin: t.Stdin, creates: t.Creates, unless: t.Unless,
	}
}

// Exposes does what [Run.Exposes] does.
func (Local) Exposes() map[string]string { return exposedCommand() }

// Validate checks what the types can't.
func (t Local) Validate() error { return t.command().validate() }

// Apply runs the command.
func (t Local) Apply(ctx context.Context, s *loom.Session) error {
	here, err := control(ctx, s)
	if err != nil {
		return err
	}
	defer here.Conn.Close() //nolint:errcheck // a local connection holds nothing that closing could lose
	return t.command().apply(ctx, here)
}

// Plan does what [Run.Plan] does.
func (t Local) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	here, err := control(ctx, s)
	if err != nil {
		return nil, err
	}
	defer here.Conn.Close() //nolint:errcheck // as in Apply
	return t.command().plan(ctx, here)
}

// control returns the session as one on the control host, whose environment
// names the node. The caller closes its connection.
func control(ctx context.Context, s *loom.Session) (*loom.Session, error) {
	n := s.Node
	here := *s
	here.Claim = "" // a command of this machine ends with Loom
	here.Node = &loom.Node{Name: n.Name, Transport: "local"}
	here.User = ""
	here.Env = map[string]string{
		"LOOM_NODE_ADDRESS": address(n),
		"LOOM_NODE_USER":    n.User,
		"LOOM_NODE_GROUPS":  strings.Join(n.Groups, " "),
		"LOOM_NODE_PORT":    "",
	}
	if n.Port != 0 {
		here.Env["LOOM_NODE_PORT"] = strconv.Itoa(n.Port)
	}
	maps.Copy(here.Env, s.Env)
	conn, err := loom.Local{}.Dial(ctx, here.Node)
	if err != nil {
		return nil, fmt.Errorf("run on the control host: %w", err)
	}
	here.Conn = conn
	return &here, nil
}

// address is the host name or IP by which a node is reached.
func address(n *loom.Node) string {
	if n.Address != "" {
		return n.Address
	}
	return n.Name
}

// A command is what the tasks that run one have in common.
type command struct {
	text, shell                   string
	pty, combine, quiet, warnOnly bool
	streams                       string // parameters of Fabric that have no meaning
	timeout                       time.Duration
	dir                           string
	env                           map[string]string
	stdin                         string
	creates, unless               string
}

// exposedCommand says of the parameters that are commands what to do instead of
// writing a secret there.
func exposedCommand() map[string]string {
	const why = "programs that it starts show their arguments to every user of the machine (ps): hand it over with env or stdin, and have the command read it there"
	return map[string]string{"command": why, "unless": why}
}

func (c command) validate() error {
	var errs []error
	if strings.TrimSpace(c.text) == "" {
		errs = append(errs, errors.New("command is empty"))
	}
	if strings.Contains(c.text, "\x00") {
		errs = append(errs, errors.New("command has a NUL in it"))
	}
	if c.streams != "" {
		errs = append(errs, errors.New("stdout and stderr were Python streams and can't be given here; what the command prints is kept with the run, so leave them out"))
	}
	return errors.Join(append(errs, c.validateRest())...)
}

// validateRest checks what a command has beside its text.
func (c command) validateRest() error {
	return errors.Join(environment(c.env), notNegative("timeout", c.timeout), oneLine("creates", c.creates))
}

func (c command) guarded() bool { return c.creates != "" || c.unless != "" }

// apply runs the command unless its guards say that there is nothing to do.
func (c command) apply(ctx context.Context, s *loom.Session) error {
	return c.guard(ctx, s, c.text, func(ctx context.Context, s *loom.Session) error {
		cmd := loom.Command{Text: c.text, Shell: c.ownShell(), Dir: c.dir, Env: c.env}
		if c.stdin != "" {
			cmd.Stdin = strings.NewReader(c.stdin)
		}
		return c.exec(ctx, s, cmd)
	})
}

// guard calls do if the guards let it, within the time limit, and records the
// change if there are guards.
func (c command) guard(ctx context.Context, s *loom.Session, what string, do func(context.Context, *loom.Session) error) error {
	ctx, cancel := limited(ctx, c.timeout)
	defer cancel()
	reason, err := c.needless(ctx, s)
	switch {
	case err != nil:
		return err
	case reason != "":
		return loom.Skip("%s", reason)
	}
	if c.pty {
		logger(s).Warn("no terminal is allocated; leave pty out")
	}
	if err := do(ctx, s); err != nil {
		return err
	}
	if c.guarded() {
		s.Changed("ran %s", brief(s.Redact(what)))
	}
	return nil
}

// exec runs cmd with its output where the parameters want it.
func (c command) exec(ctx context.Context, s *loom.Session, cmd loom.Command) error {
	cmd.Stdout, cmd.Stderr = s.Out, s.Err
	if c.combine || s.Err == nil {
		cmd.Stderr = cmd.Stdout
	}
	if c.quiet {
		cmd.Stdout, cmd.Stderr = nil, nil
	}
	cmd.Last = true
	err := s.Resumable().Exec(ctx, cmd)
	if _, exited := errors.AsType[*loom.ExitError](err); exited && (c.warnOnly || c.quiet) && ctx.Err() == nil {
		logger(s).Warn("command failed, which warn_only lets pass", "err", err)
		return nil
	}
	return err
}

// plan tells whether the command would run.
func (c command) plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	if !c.guarded() {
		return nil, loom.Skip("nobody can tell what a command would change; with creates or unless it could say whether it would run")
	}
	reason, err := c.needless(ctx, s)
	if err != nil || reason != "" {
		return nil, err
	}
	return []loom.Change{loom.Change("ran " + brief(s.Redact(c.text)))}, nil
}

// needless asks the guards and returns why there is nothing to do, or "".
func (c command) needless(ctx context.Context, s *loom.Session) (string, error) {
	if c.creates != "" {
		done, err := c.holds(ctx, s, loom.Command{Text: "test -e " + loom.Quote(c.creates)})
		if err != nil {
			return "", fmt.Errorf("look for %s: %w", c.creates, err)
		}
		if done {
			return c.creates + " exists", nil
		}
	}
	if c.unless != "" {
		done, err := c.holds(ctx, s, loom.Command{Text: c.unless, Shell: c.ownShell(), Env: c.env})
		if err != nil {
			return "", fmt.Errorf("unless: %w", err)
		}
		if done {
			return brief(s.Redact(c.unless)) + " says there is nothing to do", nil
		}
	}
	return "", nil
}

// holds reports whether a command exits with 0.
func (c command) holds(ctx context.Context, s *loom.Session, cmd loom.Command) (bool, error) {
	cmd.Dir = c.dir
	err := s.Resumable().Exec(ctx, cmd)
	if _, exited := exitCode(err); exited {
		return false, nil
	}
	return err == nil, err
}

// ownShell returns the shell that the parameters name. Fabric's shell was
// whether to use one.
func (c command) ownShell() string {
	switch c.shell {
	case "true", "True", "false", "False":
		return ""
	}
	return c.shell
}
