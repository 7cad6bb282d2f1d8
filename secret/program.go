package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dustinlacewell/loom"
)

// A program is asked for each secret.
type program struct{ c loom.SecretsConfig }

// Secret runs the program, without a shell, with the name as its last argument.
// What it prints is the secret, without a newline at the end.
func (p *program) Secret(ctx context.Context, name string) (string, error) {
	late := fmt.Errorf("%s did not answer within %v: %w", filepath.Base(p.c.Command[0]), p.c.Timeout, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, p.c.Timeout, late)
	defer cancel()
	var stdout, stderr bounded
	cmd := exec.CommandContext(ctx, p.c.Command[0], append(p.c.Command[1:len(p.c.Command):len(p.c.Command)], name)...)
	cmd.Dir = p.c.WorkDir
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all it has started ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	who := filepath.Base(p.c.Command[0])
	switch exit := (*exec.ExitError)(nil); {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.As(err, &exit):
		return "", fmt.Errorf("%s ended with %w: %s", who, exit, reason(stderr.kept.Bytes()))
	case err != nil:
		return "", fmt.Errorf("%s could not be run: %w", who, err)
	case stdout.over:
		return "", fmt.Errorf("%s printed more than the %d KiB that a secret may have", who, maxValue>>10)
	}
	return withoutNewline(stdout.kept.String()), nil
}

// Names returns nil: a program only answers.
func (p *program) Names() []string { return nil }

// Files returns the program itself, if it was named by its path.
func (p *program) Files() []string {
	if filepath.IsAbs(p.c.Command[0]) {
		return []string{p.c.Command[0]}
	}
	return nil
}

// A bounded keeps the beginning of what is written.
type bounded struct {
	kept bytes.Buffer
	over bool
}

func (b *bounded) Write(text []byte) (int, error) {
	room := maxValue - b.kept.Len()
	if len(text) > room {
		b.over = true
		b.kept.Write(text[:max(room, 0)])
		return len(text), nil
	}
	return b.kept.Write(text)
}
