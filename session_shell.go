package loom

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
)

// shellFiles are a node's files by the commands that every POSIX system has. A
// file that is written reaches the disk when it is closed, if the node has a dd
// that can do so.
type shellFiles struct {
	ctx      context.Context //nolint:containedctx // Files is opened with one, and its methods take none
	conn     Conn
	user     string
	password Secret

	work sync.WaitGroup // commands of open files
}

// run runs a script about a file. What it prints goes to out.
func (f *shellFiles) run(op, name, script string, out io.Writer) error {
	return f.exec(f.ctx, op, name, Command{Text: script, Stdout: out})
}

// exec runs a command about a file with nothing that the node or the session
// asks for but the user, and with messages in English.
func (f *shellFiles) exec(ctx context.Context, op, name string, c Command) error {
	end := &tail{most: 4 << 10}
	c.User, c.Password, c.Stderr = f.user, f.password, end
	c.Env = map[string]string{"LC_ALL": "C"}
	err := f.conn.Exec(ctx, c)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return shellError(op, name, end.String(), err)
}

// shellError makes an error of what a command said about a file. The messages
// are those of strerror(3), which are the same everywhere, and of the shells
// that have their own.
func shellError(op, name, stderr string, err error) error {
	exit, ok := errors.AsType[*ExitError](err)
	if err == nil || !ok {
		return err
	}
	why := lastLine(stderr)
	about := func(err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
	for words, known := range map[string]error{
		"No such file or directory":      fs.ErrNotExist,
		"No such file":                   fs.ErrNotExist, // dash
		"no such file":                   fs.ErrNotExist, // busybox
		"Directory nonexistent":          fs.ErrNotExist, // dash
		"nonexistent directory":          fs.ErrNotExist, // busybox
		"Permission denied":              fs.ErrPermission,
		"Operation not permitted":        fs.ErrPermission,
		"Read-only file system":          syscall.EROFS,
		"File exists":                    fs.ErrExist,
		"cannot overwrite existing file": fs.ErrExist, // bash
		"Is a directory":                 syscall.EISDIR,
		"Not a directory":                syscall.ENOTDIR,
		"Directory not empty":            syscall.ENOTEMPTY,
		"No space left on device":        syscall.ENOSPC,
	} {
		if strings.HasSuffix(why, words) {
			return about(known)
		}
	}
	exit.Stderr = stderr
	return about(err)
}

// no is shell text that ends a script with a message, as if a command had.
func no(message string) string { return "{ echo '" + message + "' >&2; exit 1; }" }

// Open begins to read. The script says that it could open the file by a newline.
func (f *shellFiles) Open(name string) (io.ReadCloser, error) {
	file := word(name)
	script := "[ ! -d " + file + " ] || " + no("Is a directory") + "\n" +
		"exec 3< " + file + " && echo && cat <&3"
	ctx, cancel := context.WithCancel(f.ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	f.work.Go(func() {
		defer close(done)
		_ = w.CloseWithError(f.exec(ctx, "read", name, Command{Text: script, Stdout: w})) // never fails; nil is io.EOF
	})
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		cancel()
		<-done
		return nil, err
	}
	return &shellReader{PipeReader: r, cancel: cancel, done: done}, nil
}

type shellReader struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the command, which may be in the middle of the file.
func (r *shellReader) Close() error {
	r.cancel()
	_ = r.PipeReader.Close() // never fails
	<-r.done
	return nil
}

// Create begins to write. The script says that it has made the file by a
// newline, and reads the content after that.
func (f *shellFiles) Create(name string, perm fs.FileMode) (File, error) {
	file := word(name)
	script := "[ ! -e " + file + " ] && [ ! -h " + file + " ] || " + no("File exists") + "\n" +
		"set -C; umask 077\n" +
		"exec 3> " + file + " && chmod " + chmodMode(perm) + " " + file + " && echo && cat >&3 && " +
		"{ dd conv=fsync,notrunc </dev/null >&3 2>/dev/null || :; }"
	in, content := io.Pipe()
	ready, said := io.Pipe()
	w := &shellWriter{PipeWriter: content, done: make(chan struct{})}
	f.work.Go(func() {
		defer close(w.done)
		w.err = f.exec(f.ctx, "create", name, Command{Text: script, Stdin: in, Stdout: said})
		_ = said.CloseWithError(w.err) // never fails
		_ = in.CloseWithError(w.err)   // never fails; nil is io.ErrClosedPipe
	})
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		<-w.done
		return nil, err
	}
	f.work.Go(func() { _, _ = io.Copy(io.Discard, ready) }) // there is no more; it ends with the command
	return w, nil
}

type shellWriter struct {
	*io.PipeWriter
	done chan struct{}
	err  error // once done
}

// Sync has nothing to do: Close does it.
func (w *shellWriter) Sync() error { return nil }

// Close waits until the node has all of the content.
func (w *shellWriter) Close() error {
	_ = w.PipeWriter.Close() // never fails
	<-w.done
	return w.err
}

// The format of statLine, for stat commands that take one: those of GNU and
// busybox. Others leave it to ls, which does not tell the time so that one could
// read it.
const statFormat = `'%f %s %Y %u %g'`

func (f *shellFiles) Stat(name string) (fs.FileInfo, error)  { return f.stat(name, "L") }
func (f *shellFiles) Lstat(name string) (fs.FileInfo, error) { return f.stat(name, "") }

func (f *shellFiles) stat(name, follow string) (fs.FileInfo, error) {
	file := word(name)
	option := ""
	if follow != "" {
		option = "-" + follow + " "
	}
	script := "stat " + option + "-c " + statFormat + " " + file + " 2>/dev/null || ls -ldn" + follow + " " + file
	var out bytes.Buffer
	if err := f.run("stat", name, script, &out); err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	info, err := statLine(line)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	info.name = path.Base(name)
	return info, nil
}

// ReadDir lists a directory: for each of the three patterns that together match
// all but . and .., the script prints how many files there are, a line about
// each, and then their names, each with a NUL.
func (f *shellFiles) ReadDir(name string) ([]fs.FileInfo, error) {
	dir := word(name)
	script := "ls -d " + dir + "/. >/dev/null || exit\n" + // cd has no message that is the same everywhere
		"unset CDPATH; cd " + dir + " && [ -r . ] || " + no("Permission denied") + `
list() {
	[ -e "$1" ] || [ -h "$1" ] || return 0
	echo $#
	all=$(stat -c ` + statFormat + ` "$@" 2>/dev/null) && printf '%s\n' "$all" ||
	for f do stat -c ` + statFormat + ` "$f" 2>/dev/null || ls -ldn "$f" 2>/dev/null || echo gone; done
	printf '%s\0' "$@"
}
list ./* && list ./.[!.]* && list ./..?*
`
	var out bytes.Buffer
	if err := f.run("readdir", name, script, &out); err != nil {
		return nil, err
	}
	list, err := parseList(&out)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return list, nil
}

func parseList(out io.Reader) ([]fs.FileInfo, error) {
	var list []fs.FileInfo
	r := bufio.NewReader(out)
	for {
		count, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) && count == "" {
			return list, nil
		}
		n, err := strconv.Atoi(strings.TrimSuffix(count, "\n"))
		if err != nil {
			return nil, fmt.Errorf("the node's shell said %q, not a number of files", count)
		}
		var lines []string
		for range n {
			line, err := r.ReadString('\n')
			if err != nil {
				return nil, io.ErrUnexpectedEOF
			}
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
		for _, line := range lines {
			name, err := r.ReadString(0)
			if err != nil {
				return nil, io.ErrUnexpectedEOF
			}
			if line == "gone" {
				continue // between being matched and being looked at
			}
			info, err := statLine(line)
			if err != nil {
				return nil, err
			}
			info.name = path.Base(strings.TrimSuffix(name, "\x00"))
			list = append(list, info)
		}
	}
}

func (f *shellFiles) Rename(from, to string) error {
	return f.run("rename", from, "[ ! -d "+word(to)+" ] || "+no("Is a directory")+"\nmv -f "+word(from)+" "+word(to), nil)
}

func (f *shellFiles) Remove(name string) error {
	file := word(name)
	return f.run("remove", name, "if [ -d "+file+" ] && [ ! -h "+file+" ]; then rmdir "+file+"; else rm "+file+"; fi", nil)
}

func (f *shellFiles) Mkdir(name string, perm fs.FileMode) error {
	return f.run("mkdir", name, "mkdir -m "+chmodMode(perm)+" "+word(name), nil)
}

func (f *shellFiles) Chmod(name string, perm fs.FileMode) error {
	return f.run("chmod", name, "chmod "+chmodMode(perm)+" "+word(name), nil)
}

// Close waits for the commands of files that were opened: their own Close ends
// them, or the context does.
func (f *shellFiles) Close() error {
	f.work.Wait()
	return nil
}

// A shellInfo is a file as stat(1) or ls(1) describes it.
type shellInfo struct {
	name  string
	size  int64
	mode  fs.FileMode
	mtime time.Time // zero if only ls could be asked
	owner sftp.FileStat
}

func (i *shellInfo) Name() string       { return i.name }
func (i *shellInfo) Size() int64        { return i.size }
func (i *shellInfo) Mode() fs.FileMode  { return i.mode }
func (i *shellInfo) ModTime() time.Time { return i.mtime }
func (i *shellInfo) IsDir() bool        { return i.mode.IsDir() }

// Sys returns what the other transport does.
func (i *shellInfo) Sys() any { return &i.owner }

// statLine reads a line of stat -c, or of ls -ldn.
func statLine(line string) (*shellInfo, error) {
	bad := fmt.Errorf("the node's stat said %q", line)
	word := strings.Fields(line)
	if len(word) < 5 {
		return nil, bad
	}
	i := &shellInfo{}
	size, uid, gid := word[1], word[3], word[4]
	if raw, err := strconv.ParseUint(word[0], 16, 32); err == nil && len(word) == 5 {
		i.mode = rawMode(uint32(raw))
		seconds, err := strconv.ParseInt(word[2], 10, 64)
		if err != nil {
			return nil, bad
		}
		i.mtime = time.Unix(seconds, 0)
	} else {
		mode, ok := lsMode(word[0])
		if !ok {
			return nil, bad
		}
		i.mode = mode
		size, uid, gid = word[4], word[2], word[3]
		if mode&fs.ModeDevice != 0 {
			size = "0" // it is the device's number
		}
	}
	n, err1 := strconv.ParseInt(size, 10, 64)
	u, err2 := strconv.ParseUint(uid, 10, 32)
	g, err3 := strconv.ParseUint(gid, 10, 32)
	if errors.Join(err1, err2, err3) != nil {
		return nil, bad
	}
	i.size = n
	i.owner = sftp.FileStat{Size: uint64(n), UID: uint32(u), GID: uint32(g)} //nolint:gosec // a size is not negative
	return i, nil
}

// rawMode makes a mode of st_mode, whose numbers are the same on all systems
// that have such a stat command.
func rawMode(raw uint32) fs.FileMode {
	mode := fs.FileMode(raw & 0o777)
	switch raw & 0o170000 {
	case 0o140000:
		mode |= fs.ModeSocket
	case 0o120000:
		mode |= fs.ModeSymlink
	case 0o060000:
		mode |= fs.ModeDevice
	case 0o040000:
		mode |= fs.ModeDir
	case 0o020000:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case 0o010000:
		mode |= fs.ModeNamedPipe
	}
	for bit, value := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if raw&bit != 0 {
			mode |= value
		}
	}
	return mode
}

// lsMode reads a mode as ls prints it: "drwxr-sr-t", perhaps with a mark for an
// access list behind it.
func lsMode(s string) (fs.FileMode, bool) {
	if len(s) < 10 {
		return 0, false
	}
	kinds := map[byte]fs.FileMode{
		'-': 0, 'd': fs.ModeDir, 'l': fs.ModeSymlink, 'p': fs.ModeNamedPipe, 's': fs.ModeSocket,
		'b': fs.ModeDevice, 'c': fs.ModeDevice | fs.ModeCharDevice,
	}
	mode, ok := kinds[s[0]]
	if !ok {
		return 0, false
	}
	special := [3]fs.FileMode{fs.ModeSetuid, fs.ModeSetgid, fs.ModeSticky}
	for i, c := range s[1:10] {
		bit := fs.FileMode(0o400 >> i)
		last := i%3 == 2
		switch {
		case c == '-':
		case c == rune("rwx"[i%3]):
			mode |= bit
		case last && (c == 's' || c == 't'):
			mode |= bit | special[i/3]
		case last && (c == 'S' || c == 'T'):
			mode |= special[i/3]
		default:
			return 0, false
		}
	}
	return mode, true
}
