package loom

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"sync"

	"github.com/dustinlacewell/loom/internal/shell"
)

// Local is a Dialer for nodes whose transport is local: commands run on the
// machine that Loom runs on, as the user it runs as, in that user's home
// directory, and end with Loom at the latest.
type Local struct{}

// Dial returns a connection that needs no network.
func (Local) Dial(ctx context.Context, n *Node) (Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	c := &localConn{node: n.Name}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	return c, nil
}

var errLocalClosed = shell.ErrClosed

// A localConn runs commands on this machine.
type localConn struct {
	node string
	ctx  context.Context //nolint:containedctx // it is the connection: what runs over it ends with it
	end  context.CancelCauseFunc

	mu     sync.Mutex // guards wg.Add against Close
	closed bool
	wg     sync.WaitGroup
}

// enter counts an operation, unless the connection is closed.
func (c *localConn) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("%s: %w: %w", c.node, ErrUnreachable, errLocalClosed)
	}
	c.wg.Add(1)
	return nil
}

func (c *localConn) Exec(ctx context.Context, cmd Command) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	defer stop()

	sc := shell.Command{Text: cmd.Text, Shell: cmd.Shell, Private: cmd.Private, Dir: cmd.Dir, Env: cmd.Env,
		Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr, Merged: shell.Same(cmd.Stdout, cmd.Stderr)}
	if me, err := user.Current(); cmd.User != "" && (err != nil || cmd.User != me.Username) {
		sc.User, sc.Password = cmd.User, string(cmd.Password)
	}
	exit, err := shell.Run(ctx, shell.Local, sc, nil)
	unstarted := (*shell.NotStartedError)(nil)
	switch {
	case errors.Is(err, shell.ErrLost):
		return fmt.Errorf("%s: %w: %w", c.node, ErrLost, err)
	case errors.As(err, &unstarted):
		return fmt.Errorf("%s: %w: %w", c.node, ErrUnreachable, err)
	case err != nil:
		return fmt.Errorf("%s: %w", c.node, err)
	case exit != shell.Exit{}:
		return &ExitError{Command: cmd.Text, Code: exit.Code, Signal: exit.Signal}
	}
	return nil
}

func (c *localConn) Files(ctx context.Context) (Files, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.wg.Done()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return &localFiles{ctx: ctx, home: home}, nil
}

func (c *localConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end(errLocalClosed)
	c.wg.Wait()
	return nil
}

// localFiles is this machine's file system.
type localFiles struct {
	ctx  context.Context //nolint:containedctx // its operations end with the context that it was opened with
	home string
}

// name makes a name absolute.
func (f *localFiles) name(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(f.home, name)
}

// done is the error of every operation after the end of the context.
func (f *localFiles) done() error { return context.Cause(f.ctx) }

func (f *localFiles) Open(name string) (io.ReadCloser, error) {
	if err := f.done(); err != nil {
		return nil, err
	}
	return os.Open(f.name(name))
}

func (f *localFiles) Create(name string, perm fs.FileMode) (File, error) {
	if err := f.done(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(f.name(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm&0o600) // no wider than asked for, from the start
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(perm); err != nil { // the umask may have had its say
		_ = file.Close() // the first error is the one to tell
		_ = os.Remove(file.Name())
		return nil, err
	}
	return file, nil
}

func (f *localFiles) Stat(name string) (fs.FileInfo, error) {
	if err := f.done(); err != nil {
		return nil, err
	}
	return os.Stat(f.name(name))
}

func (f *localFiles) Lstat(name string) (fs.FileInfo, error) {
	if err := f.done(); err != nil {
		return nil, err
	}
	return os.Lstat(f.name(name))
}

func (f *localFiles) ReadDir(name string) ([]fs.FileInfo, error) {
	if err := f.done(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(f.name(name))
	if err != nil {
		return nil, err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (f *localFiles) Rename(from, to string) error {
	if err := f.done(); err != nil {
		return err
	}
	return os.Rename(f.name(from), f.name(to))
}

func (f *localFiles) Remove(name string) error {
	if err := f.done(); err != nil {
		return err
	}
	return os.Remove(f.name(name))
}

func (f *localFiles) Mkdir(name string, perm fs.FileMode) error {
	if err := f.done(); err != nil {
		return err
	}
	if err := os.Mkdir(f.name(name), perm&0o700); err != nil {
		return err
	}
	return os.Chmod(f.name(name), perm)
}

func (f *localFiles) Chmod(name string, perm fs.FileMode) error {
	if err := f.done(); err != nil {
		return err
	}
	return os.Chmod(f.name(name), perm)
}

func (f *localFiles) Close() error { return nil }
