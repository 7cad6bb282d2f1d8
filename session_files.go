package loom

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pkg/sftp"
)

// Attr says whose a written file is and who may use it. The zero value keeps
// what the file had; a new one then is the session's user's, with mode 0644.
type Attr struct {
	Mode         fs.FileMode // permission, setuid, setgid and sticky bits; 0: keep
	Owner, Group string      // names or numbers; "": keep
}

// ReadFile returns what is in a file of the node. A missing one is an error
// that errors.Is(err, fs.ErrNotExist), a forbidden one fs.ErrPermission. A name
// is absolute or, also if it begins with ~/, relative to the login directory.
func (s *Session) ReadFile(ctx context.Context, name string) ([]byte, error) {
	var b bytes.Buffer
	if err := s.Get(ctx, name, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Get copies a file of the node to w. Names and errors are those of ReadFile.
func (s *Session) Get(ctx context.Context, name string, w io.Writer) error {
	files, err := s.Files(ctx)
	if err != nil {
		return about(ctx, "read", name, err)
	}
	defer files.Close() //nolint:errcheck // nothing was written
	f, err := files.Open(fromLogin(name))
	if err != nil {
		return about(ctx, "read", name, err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	_, err = io.Copy(w, f)
	return about(ctx, "read", name, err)
}

// WriteFile makes a file of the node have this content. It is written whole or
// not at all, as by Put.
func (s *Session) WriteFile(ctx context.Context, name string, data []byte, attr Attr) error {
	return s.Put(ctx, bytes.NewReader(data), name, attr)
}

// Put copies all of r to a file of the node, whole or not at all: to a temporary
// file beside it that only its owner can read, which gets its owner and mode
// when it is complete and on the disk, and then the file's name. Whoever reads
// the file meanwhile sees the old content or the new. Nothing stays behind if
// it fails or ctx ends, unless the node can't be reached any more.
//
// A name that is a symbolic link stays one: the file that it leads to is
// replaced. A directory is not, and those above the file must exist. If the
// owner or group of the old file should be kept and can't be, nobody gets more
// rights by that. Names are those of ReadFile.
func (s *Session) Put(ctx context.Context, r io.Reader, name string, attr Attr) error {
	return about(ctx, "write", name, s.put(ctx, r, fromLogin(name), attr))
}

func (s *Session) put(ctx context.Context, r io.Reader, name string, attr Attr) (err error) {
	files, err := s.Files(ctx)
	if err != nil {
		return err
	}
	defer files.Close() //nolint:errcheck // each file's own Close tells whether it arrived
	name, old, err := s.target(ctx, files, name)
	if err != nil {
		return err
	}

	temp := path.Join(path.Dir(name), ".loom-"+strings.ToLower(rand.Text()))
	f, err := files.Create(temp, 0o600)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err // there is nothing to remove
	}
	defer func() {
		if err != nil {
			s.discard(ctx, temp)
		}
	}()
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if end := f.Close(); err == nil {
		err = end
	}
	if err != nil {
		return err
	}
	mode, err := s.own(ctx, files, temp, old, attr)
	if err != nil {
		return err
	}
	if mode != 0o600 {
		if err := files.Chmod(temp, mode); err != nil {
			return err
		}
	}
	return files.Rename(temp, name)
}

// target finds the file to replace: what is there, or nil, and its name if the
// one given is a link.
func (s *Session) target(ctx context.Context, files Files, name string) (string, fs.FileInfo, error) {
	old, err := files.Lstat(name)
	if err == nil && old.Mode()&fs.ModeSymlink != 0 {
		var out bytes.Buffer
		if err := s.shell(ctx).run("readlink", name, "readlink -f "+word(name), &out); err != nil {
			return "", nil, err
		}
		name = strings.TrimSuffix(out.String(), "\n")
		old, err = files.Lstat(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, nil, nil
	case err != nil:
		return "", nil, err
	case old.IsDir():
		return "", nil, &fs.PathError{Op: "write", Path: name, Err: syscall.EISDIR}
	case !old.Mode().IsRegular():
		return "", nil, &fs.PathError{Op: "write", Path: name, Err: errors.New("not a regular file")}
	}
	return name, old, nil
}

// own gives a new file its owner and group, and says which mode it should have.
func (s *Session) own(ctx context.Context, files Files, temp string, old fs.FileInfo, attr Attr) (fs.FileMode, error) {
	sh := s.shell(ctx)
	mode := attr.Mode & modeBits
	switch {
	case mode != 0:
	case old != nil:
		mode = old.Mode() & modeBits
	default:
		mode = 0o644
	}
	if old != nil {
		now, err := files.Lstat(temp)
		if err != nil {
			return 0, err
		}
		uid, gid, ok := owner(old)
		newUID, newGID, known := owner(now)
		ok = ok && known
		if ok && uid != newUID && attr.Owner == "" {
			if sh.run("chown", temp, fmt.Sprintf("chown %d %s", uid, word(temp)), nil) != nil {
				mode &^= fs.ModeSetuid
			}
		}
		if ok && gid != newGID && attr.Group == "" {
			if sh.run("chgrp", temp, fmt.Sprintf("chgrp %d %s", gid, word(temp)), nil) != nil && attr.Mode == 0 {
				mode = mode&^(fs.ModeSetgid|0o070) | mode&0o007<<3 // the other group are others
			}
		}
		if err := context.Cause(ctx); err != nil {
			return 0, err // else it would pass for an owner that can't be kept
		}
	}
	who := attr.Owner
	if attr.Group != "" {
		who += ":" + attr.Group
	}
	if who == "" {
		return mode, nil
	}
	return mode, sh.run("chown", temp, "chown "+Quote(who)+" "+word(temp), nil)
}

// owner returns who owns a file, if the transport tells.
func owner(info fs.FileInfo) (uid, gid uint32, ok bool) {
	switch st := info.Sys().(type) {
	case *sftp.FileStat:
		return st.UID, st.GID, true
	case *syscall.Stat_t:
		return st.Uid, st.Gid, true
	}
	return 0, 0, false
}

// discardTime is how long removing a temporary file may take once nobody waits
// for the file any more.
const discardTime = 10 * time.Second

// discard removes a temporary file, also if ctx has ended.
func (s *Session) discard(ctx context.Context, temp string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	files, err := s.Files(ctx)
	if err != nil {
		return // the node is out of reach, and the failure that led here says so
	}
	defer files.Close()    //nolint:errcheck // it is only about the temporary file
	_ = files.Remove(temp) // it may never have come to be
}

// Files opens the node's files as the session's user sees them. Operations fail
// once ctx is done. The caller closes it.
//
// The login user's files come by the transport's own means. Those of another
// user, or if there are no such means, by commands of the node: cat, chmod, ls,
// mkdir, mv, rm and rmdir, and stat and dd if it has them.
func (s *Session) Files(ctx context.Context) (Files, error) {
	if s.User == "" {
		files, err := s.Conn.Files(ctx)
		if !errors.Is(err, errors.ErrUnsupported) {
			return files, err
		}
	}
	return s.shell(ctx), nil
}

func (s *Session) shell(ctx context.Context) *shellFiles {
	f := &shellFiles{ctx: ctx, conn: s.Conn, user: s.User}
	if s.User != "" {
		f.password = s.Node.Sudo.Password
	}
	return f
}

// about makes an error say what it is about, unless it does already.
func about(ctx context.Context, op, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// fromLogin returns a name that begins with ~/ as one relative to the login
// directory, where all relative names begin.
func fromLogin(name string) string {
	if name == "~" {
		return "."
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return path.Join(".", rest)
	}
	return name
}

// modeBits are those of a FileMode that chmod(1) can set.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// chmodMode returns a mode as chmod(1) takes it.
func chmodMode(mode fs.FileMode) string {
	n := uint64(mode.Perm())
	for bit, value := range map[fs.FileMode]uint64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			n |= value
		}
	}
	return "0" + strconv.FormatUint(n, 8)
}

// word returns a file's name as one word of the shell that no command takes for
// an option.
func word(name string) string {
	if strings.HasPrefix(name, "-") {
		name = "./" + name
	}
	return Quote(name)
}
