package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// SocketFile is the socket's name in the state directory.
const SocketFile = "loomd.sock"

// GroupSocket is where the socket for others on a machine is best put, and looked
// for without a configuration.
const GroupSocket = "/run/loom/loomd.sock"

// longest is how long a socket's name may be: what every system has room for.
const longest = 103

// Listen makes the socket of a daemon in its state directory, for its owner and
// group. The caller holds the directory's lock. A socket that was left behind is
// replaced, unless somebody answers there; what is no socket is left alone.
// Closing the listener removes the socket.
func Listen(ctx context.Context, dir string) (net.Listener, error) {
	return listen(ctx, filepath.Join(dir, SocketFile), 0o660, -1)
}

// ListenAt makes a socket elsewhere, for a group: mode 0 is 0660. Its directory is
// made if need be, and must not be one in which others could put a socket of
// theirs in its place.
func ListenAt(ctx context.Context, file, group string, mode fs.FileMode) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", file, err)
	}
	dir := filepath.Dir(file)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // others shall get to the socket
		return nil, fmt.Errorf("socket %s: its directory: %w", file, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("socket %s: its directory: %w", file, err)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return nil, fmt.Errorf("socket %s: others can write in its directory (mode %04o), and put their own in its place: chmod go-w %s, or choose another", file, info.Mode().Perm(), dir)
	}
	return listen(ctx, file, cmp.Or(mode, 0o660), gid)
}

// listen makes a socket of a mode and, unless it is -1, a group.
func listen(ctx context.Context, file string, mode fs.FileMode, gid int) (net.Listener, error) {
	if len(file) > longest {
		return nil, fmt.Errorf("socket %s: the name is %d bytes long, and the system takes %d: choose a state directory with a shorter name", file, len(file), longest)
	}
	if err := clear(ctx, file); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", file)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", file, cause(err))
	}
	err = os.Lchown(file, -1, gid)
	if err == nil {
		err = os.Chmod(file, mode) // until then, who is not let in gets no further than to be told so
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", file, cause(err)), l.Close())
	}
	return l, nil
}

// clear removes a socket that nobody listens at.
func clear(ctx context.Context, file string) error {
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", file, cause(err))
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: there is something else of this name: move it away", file)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", file)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("socket %s: another daemon listens there: stop it, or give this one another state directory", file)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("socket %s: %w", file, cause(err))
	}
	return nil
}

// cause is an error without the file's name, which the caller says.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sys.Err
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return err
}

// A peer is who is at the other end of a connection.
type peer struct {
	uid    int
	groups []int // that the process there has
}

// trusted reports whether the peer may do all that the daemon's user may.
func (p peer) trusted() bool { return p.uid == 0 || p.uid == os.Getuid() }

// name returns the peer's name for people.
func (p peer) name() string {
	if u, err := user.LookupId(strconv.Itoa(p.uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(p.uid)
}
