//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package cli

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A keyboard reads single keys of a terminal.
type keyboard struct{ file *os.File }

// newKeyboard returns the terminal that p reads from, or nil if that is none.
func (p *Program) newKeyboard() *keyboard {
	f, ok := p.Stdin.(*os.File)
	if !ok || f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &keyboard{f}
}

// key waits for a key. It is 3 for Ctrl-C, which is no signal meanwhile, and 4 if
// the terminal is gone.
func (k *keyboard) key(ctx context.Context) (byte, error) {
	const gone = 4
	fd := int(k.file.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return gone, nil
	}
	if err := quietKeys(fd); err != nil {
		return gone, nil
	}
	defer term.Restore(fd, before) //nolint:errcheck // then it is gone
	for {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor is a small number
		n, err := unix.Poll(ready, int((50 * time.Millisecond).Milliseconds()))
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		var b [1]byte
		if err != nil {
			return gone, nil
		}
		if n, err := k.file.Read(b[:]); err != nil || n == 0 {
			return gone, nil
		}
		return b[0], nil
	}
}

// quietKeys has a terminal give each key at once, without showing it, and Ctrl-C
// as a key. What is written is shown as ever.
func quietKeys(fd int) error {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, setTermios, t)
}
