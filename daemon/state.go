package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dustinlacewell/loom/cli"
)

// A state is the directory of what the daemon remembers, which belongs to one
// daemon at a time.
type state struct {
	dir  string
	lock *os.File
}

// openState makes the directory if need be and takes it. It refuses one that
// others can look into, or that another daemon has.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return nil, &cli.Error{Code: cli.ExitFailed,
			Err: fmt.Errorf("state directory %s is open to others (mode %04o), and secrets are kept there: chmod 700 %s", dir, info.Mode().Perm(), dir)}
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close() //nolint:errcheck // it was only read
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another daemon%s runs with the state directory %s: stop it, or give this one another (--state)", holder(name), dir)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	s := &state{dir: dir, lock: f}
	if err := s.sign(); err != nil {
		_ = s.close() // the error says it all
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return s, nil
}

// sign writes down who holds the lock, for whoever wants to know.
func (s *state) sign() error {
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.lock, "%d\n", os.Getpid())
	return err
}

// close gives the directory back. The file stays: to remove it would let two
// daemons lock two files of the same name.
func (s *state) close() error {
	return errors.Join(s.lock.Truncate(0), s.lock.Close())
}

// holder names the process that holds a lock, if it has signed.
func holder(name string) string {
	text, err := fs.ReadFile(os.DirFS(filepath.Dir(name)), filepath.Base(name))
	if pid := strings.TrimSpace(string(text)); err == nil && pid != "" {
		return fmt.Sprintf(" (process %s)", pid)
	}
	return ""
}
