package loom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// A shellConn is this machine, reached by nothing: it runs commands with a shell
// in a directory, and has no file transfer unless files says so.
type shellConn struct {
	dir   string
	shell []string
	files bool
}

func (c shellConn) Exec(ctx context.Context, cmd Command) error {
	p := exec.CommandContext(ctx, c.shell[0], append(slices.Clone(c.shell[1:]), "-c", cmd.Text)...)
	p.Dir, p.Stdout, p.Stderr = c.dir, cmd.Stdout, cmd.Stderr
	p.Env = append(os.Environ(), "LC_ALL="+cmd.Env["LC_ALL"])
	if cmd.Stdin != nil {
		in, err := p.StdinPipe()
		if err != nil {
			return err
		}
		go func() { // it ends with the reader, which may be after the command
			_, _ = io.Copy(in, cmd.Stdin)
			_ = in.Close()
		}()
	}
	err := p.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return &ExitError{Command: cmd.Text, Code: exit.ExitCode()}
	}
	return err
}

func (c shellConn) Files(context.Context) (Files, error) {
	if c.files {
		return osFiles{c.dir}, nil
	}
	return nil, errors.ErrUnsupported
}

func (shellConn) Close() error { return nil }

// osFiles is this machine's files by system calls.
type osFiles struct{ dir string }

func (f osFiles) at(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(f.dir, name)
}

func (f osFiles) Open(name string) (io.ReadCloser, error)   { return os.Open(f.at(name)) }
func (f osFiles) Stat(name string) (fs.FileInfo, error)     { return os.Stat(f.at(name)) }
func (f osFiles) Lstat(name string) (fs.FileInfo, error)    { return os.Lstat(f.at(name)) }
func (f osFiles) Rename(from, to string) error              { return os.Rename(f.at(from), f.at(to)) }
func (f osFiles) Remove(name string) error                  { return os.Remove(f.at(name)) }
func (f osFiles) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(f.at(name), perm) }
func (f osFiles) Chmod(name string, mode fs.FileMode) error { return os.Chmod(f.at(name), mode) }
func (f osFiles) Close() error                              { return nil }
func (f osFiles) Create(n string, m fs.FileMode) (File, error) {
	return os.OpenFile(f.at(n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, m)
}

func (f osFiles) ReadDir(name string) ([]fs.FileInfo, error) {
	list, err := os.ReadDir(f.at(name))
	var infos []fs.FileInfo
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, err
}

// eachFiles runs a test with every way to a node's files.
func eachFiles(t *testing.T, test func(t *testing.T, s *Session, dir string)) {
	t.Helper()
	for _, shell := range []string{"transfer", "sh", "bash", "dash", "busybox sh"} {
		t.Run(shell, func(t *testing.T) {
			conn := shellConn{dir: t.TempDir(), shell: strings.Fields(shell), files: shell == "transfer"}
			if conn.files {
				conn.shell = []string{"sh"}
			}
			if _, err := exec.LookPath(conn.shell[0]); err != nil {
				t.Skipf("no %s here", shell)
			}
			if shell == "busybox sh" {
				// Its own tools before those of the machine.
				bin := t.TempDir()
				for _, tool := range []string{"cat", "chmod", "chown", "chgrp", "dd", "ls", "mkdir", "mv", "readlink", "rm", "rmdir", "stat"} {
					busybox, _ := exec.LookPath("busybox")
					if err := os.Symlink(busybox, filepath.Join(bin, tool)); err != nil {
						t.Fatal(err)
					}
				}
				t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			}
			test(t, &Session{Node: &Node{Name: "here"}, Conn: conn}, conn.dir)
		})
	}
}

// Names that a careless script would trip over.
func oddNames() []string {
	return []string{"plain", "-rf", "a b", "it's", `"q"`, "$HOME", "`id`", "new\nline", "*", ".hidden", "..x", "ünï", `back\slash`, "No such file or directory"}
}

func TestWriteFile(t *testing.T) {
	ctx := t.Context()
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		for _, name := range oddNames() {
			if err := s.WriteFile(ctx, name, []byte("content of "+name), Attr{}); err != nil {
				t.Errorf("WriteFile(%q): %v", name, err)
			}
			if got, err := s.ReadFile(ctx, name); string(got) != "content of "+name || err != nil {
				t.Errorf("ReadFile(%q) = %q, %v", name, got, err)
			}
			wantMode(t, filepath.Join(dir, name), 0o644)
		}
		if err := s.WriteFile(ctx, "~/plain", []byte("again"), Attr{Mode: 0o750 | fs.ModeSetuid}); err != nil {
			t.Error(err)
		}
		wantMode(t, filepath.Join(dir, "plain"), 0o750|fs.ModeSetuid)
		if err := s.WriteFile(ctx, filepath.Join(dir, "plain"), nil, Attr{}); err != nil {
			t.Error(err)
		}
		wantMode(t, filepath.Join(dir, "plain"), 0o750|fs.ModeSetuid) // kept
		if got, err := s.ReadFile(ctx, "~/plain"); len(got) != 0 || err != nil {
			t.Errorf("ReadFile of an empty file = %q, %v", got, err)
		}
		wantOnly(t, dir, oddNames())
	})
}

func wantMode(t *testing.T, name string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Error(err)
	} else if info.Mode() != want {
		t.Errorf("mode of %q = %v, want %v", name, info.Mode(), want)
	}
}

func wantOnly(t *testing.T, dir string, want []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		t.Errorf("in the directory are %q, want %q", got, want)
	}
}

func TestPutBig(t *testing.T) {
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		data := bytes.Repeat([]byte("0123456789abcde\n"), 3<<16)
		if err := s.Put(t.Context(), iotest.HalfReader(bytes.NewReader(data)), "big", Attr{}); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := s.Get(t.Context(), "big", &got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("Get gave %d bytes, %v; want the %d that were put", got.Len(), err, len(data))
		}
	})
}

// Whatever stops a Put, the old file stays as it was and nothing else appears.
func TestPutFails(t *testing.T) {
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		if err := s.WriteFile(t.Context(), "f", []byte("old"), Attr{}); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("the source is broken")
		err := s.Put(t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), "f", Attr{})
		if !errors.Is(err, broken) {
			t.Errorf("Put from a broken reader: %v, want its error", err)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		err = s.Put(ctx, io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) {
			cancel(ErrCancelled)
			return 0, ctx.Err()
		})), "f", Attr{})
		if !errors.Is(err, ErrCancelled) {
			t.Errorf("Put whose context ends: %v, want the cause", err)
		}

		if err := s.WriteFile(t.Context(), "f", []byte("new"), Attr{Owner: "no-such-user-here"}); err == nil {
			t.Error("WriteFile for a user who isn't there succeeded")
		}
		if err := s.WriteFile(t.Context(), "none/f", nil, Attr{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("WriteFile into a missing directory: %v, want fs.ErrNotExist", err)
		}
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteFile(t.Context(), "d", nil, Attr{}); !errors.Is(err, syscall.EISDIR) {
			t.Errorf("WriteFile to a directory: %v, want EISDIR", err)
		}
		if got, err := s.ReadFile(t.Context(), "f"); string(got) != "old" || err != nil {
			t.Errorf("after it all f = %q, %v; want old", got, err)
		}
		wantOnly(t, dir, []string{"f", "d"})
		wantOnly(t, filepath.Join(dir, "d"), nil)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWriteFileLink(t *testing.T) {
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "real"), 0o755); err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{"link": "real/f", "again": "link", "dangling": "real/new"} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"link", "again", "dangling"} {
			if err := s.WriteFile(t.Context(), name, []byte(name), Attr{}); err != nil {
				t.Errorf("WriteFile(%s): %v", name, err)
			}
			wantMode(t, filepath.Join(dir, name), fs.ModeSymlink|0o777)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "real", "f")); string(got) != "again" || err != nil {
			t.Errorf("real/f = %q, %v; want again", got, err)
		}
		wantOnly(t, filepath.Join(dir, "real"), []string{"f", "new"})
	})
}

// Owner and group are kept, or set.
func TestWriteFileOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		name := filepath.Join(dir, "f")
		steps := []struct {
			attr     Attr
			uid, gid uint32
			mode     fs.FileMode
		}{
			{Attr{}, 0, 0, 0o644},
			{Attr{Owner: "12345", Mode: 0o755 | fs.ModeSetuid}, 12345, 0, 0o755 | fs.ModeSetuid},
			{Attr{}, 12345, 0, 0o755 | fs.ModeSetuid},
			{Attr{Group: "54321", Mode: 0o640}, 12345, 54321, 0o640},
			{Attr{}, 12345, 54321, 0o640},
			{Attr{Owner: "root", Group: "0"}, 0, 0, 0o640},
		}
		for i, step := range steps {
			if err := s.WriteFile(t.Context(), "f", []byte(fmt.Sprint(i)), step.attr); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if st := info.Sys().(*syscall.Stat_t); st.Uid != step.uid || st.Gid != step.gid || info.Mode() != step.mode {
				t.Errorf("step %d: %d:%d %v, want %d:%d %v", i, st.Uid, st.Gid, info.Mode(), step.uid, step.gid, step.mode)
			}
		}
	})
}

func TestReadFileErrors(t *testing.T) {
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		for name, want := range map[string]error{
			"none": fs.ErrNotExist, "no/such": fs.ErrNotExist, ".": syscall.EISDIR,
			"Permission denied": fs.ErrNotExist, "-n": fs.ErrNotExist,
		} {
			_, err := s.ReadFile(t.Context(), name)
			if !errors.Is(err, want) {
				t.Errorf("ReadFile(%s) = %v, want %v", name, err, want)
			}
			if path, ok := errors.AsType[*fs.PathError](err); !ok || filepath.Base(path.Path) != filepath.Base(filepath.Join(dir, name)) && path.Path != name {
				t.Errorf("ReadFile(%s) = %v, want an error about it", name, err)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(ErrShutdown)
		if _, err := s.ReadFile(ctx, "none"); !s.Conn.(shellConn).files && !errors.Is(err, ErrShutdown) {
			t.Errorf("ReadFile after its context = %v, want the cause", err)
		}
	})
}

// Files by shell commands do what the contract of Files says, exactly as those
// by system calls do.
func TestShellFiles(t *testing.T) {
	eachFiles(t, func(t *testing.T, s *Session, dir string) {
		files, err := s.Files(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := files.Close(); err != nil {
				t.Error(err)
			}
		}()
		want := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}

		old := syscall.Umask(0o027)
		defer syscall.Umask(old)
		for _, name := range oddNames() {
			f, err := files.Create(name, 0o600)
			want("create "+name, err, nil)
			if err != nil {
				continue
			}
			wantMode(t, filepath.Join(dir, name), 0o600) // before its first byte
			_, err = io.WriteString(f, name)
			want("write", err, nil)
			want("sync", f.Sync(), nil)
			want("close", f.Close(), nil)
			_, err = files.Create(name, 0o600)
			want("create again "+name, err, fs.ErrExist)
			want("chmod", files.Chmod(name, 0o751|fs.ModeSetgid), nil)
			wantMode(t, filepath.Join(dir, name), 0o751|fs.ModeSetgid)
			info, err := files.Stat(name)
			want("stat", err, nil)
			if err == nil && (info.Name() != name || info.Size() != int64(len(name)) || info.Mode() != 0o751|fs.ModeSetgid || info.ModTime().IsZero()) {
				t.Errorf("stat %q = %q %d %v %v", name, info.Name(), info.Size(), info.Mode(), info.ModTime())
			}
		}
		list, err := files.ReadDir(".")
		want("readdir", err, nil)
		var names []string
		for _, info := range list {
			names = append(names, info.Name())
			if info.Size() != int64(len(info.Name())) {
				t.Errorf("readdir says that %q has %d bytes", info.Name(), info.Size())
			}
		}
		slices.Sort(names)
		if all := slices.Sorted(slices.Values(oddNames())); !slices.Equal(names, all) {
			t.Errorf("readdir = %q, want %q", names, all)
		}

		want("symlink", os.Symlink("/dev/null", filepath.Join(dir, "null")), nil)
		_, err = files.Create("null", 0o600)
		want("create over a link", err, fs.ErrExist)
		info, err := files.Lstat("null")
		want("lstat", err, nil)
		if err == nil && info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("lstat of a link: %v", info.Mode())
		}
		info, err = files.Stat("null")
		want("stat", err, nil)
		if err == nil && info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
			t.Errorf("stat of /dev/null: %v", info.Mode())
		}

		want("mkdir", files.Mkdir("d", 0o700), nil)
		wantMode(t, filepath.Join(dir, "d"), fs.ModeDir|0o700)
		want("mkdir again", files.Mkdir("d", 0o700), fs.ErrExist)
		list, err = files.ReadDir("d")
		want("readdir", err, nil)
		if len(list) != 0 {
			t.Errorf("readdir of an empty directory = %v", list)
		}
		want("rename", files.Rename("plain", "-rf"), nil)
		if b, err := os.ReadFile(filepath.Join(dir, "-rf")); string(b) != "plain" {
			t.Errorf("after the rename: %q, %v", b, err)
		}
		if err := files.Rename("-rf", "d"); err == nil {
			t.Error("a file replaced a directory")
		}
		want("rename", files.Rename("-rf", "d/f"), nil)
		want("remove a full directory", files.Remove("d"), syscall.ENOTEMPTY)
		want("remove", files.Remove("d/f"), nil)
		want("remove", files.Remove("d"), nil)
		want("remove a link", files.Remove("null"), nil)
		for what, err := range map[string]error{
			"remove":  files.Remove("none"),
			"rename":  files.Rename("none", "x"),
			"chmod":   files.Chmod("none", 0o600),
			"mkdir":   files.Mkdir("none/x", 0o700),
			"stat":    second(files.Stat("none")),
			"lstat":   second(files.Lstat("none")),
			"readdir": second(files.ReadDir("none")),
			"open":    second(files.Open("none")),
			"create":  second(files.Create("none/x", 0o600)),
		} {
			want(what+" of what is missing", err, fs.ErrNotExist)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// Reading may end before the file does, even if that is never.
func TestShellReaderClose(t *testing.T) {
	files, err := (&Session{Node: &Node{}, Conn: shellConn{dir: t.TempDir(), shell: []string{"sh"}}}).Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := files.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(f, make([]byte, 100)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Close(), files.Close()); err != nil {
		t.Error(err)
	}
}

func TestStatLine(t *testing.T) {
	tests := []struct {
		line     string
		mode     fs.FileMode
		size     int64
		uid, gid uint32
	}{
		{"81a4 12 1700000000 1 2", 0o644, 12, 1, 2},
		{"43ff 4096 1700000000 0 0", fs.ModeDir | fs.ModeSticky | 0o777, 4096, 0, 0},
		{"-rw-r--r--   1 1 2 12 Jan  1 00:00 a b", 0o644, 12, 1, 2},
		{"drwxrwsrwt.  1 0 3 4096 Jan  1 00:00 d", fs.ModeDir | fs.ModeSetgid | fs.ModeSticky | 0o777, 4096, 0, 3},
		{"-rwSr-x--T@  1 0 0 5 Jan  1 00:00 f", fs.ModeSetuid | fs.ModeSticky | 0o650, 5, 0, 0},
		{"crw-rw-rw-  1 0 0 1, 3 Jan  1 00:00 null", fs.ModeDevice | fs.ModeCharDevice | 0o666, 0, 0, 0},
		{"lrwxrwxrwx 1 0 0 5 Jan  1 00:00 l -> there", fs.ModeSymlink | 0o777, 5, 0, 0},
	}
	for _, tt := range tests {
		info, err := statLine(tt.line)
		if err != nil {
			t.Errorf("statLine(%q): %v", tt.line, err)
			continue
		}
		if uid, gid, _ := owner(info); info.Mode() != tt.mode || info.Size() != tt.size || uid != tt.uid || gid != tt.gid {
			t.Errorf("statLine(%q) = %v %d %d:%d", tt.line, info.Mode(), info.Size(), uid, gid)
		}
	}
	for _, line := range []string{"", "x", "81a4 12", "-rw 1 2 3 4", "zzzzzzzzzz 1 2 3 4", "81a4 -x 1 2 3"} {
		if info, err := statLine(line); err == nil {
			t.Errorf("statLine(%q) = %v, want an error", line, info)
		}
	}
}

// A mode that chmod is told is the mode that ls and stat then tell.
func FuzzMode(f *testing.F) {
	for _, seed := range []uint32{0, 0o644, 0o7777, 0o100755, 0o41777} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw uint32) {
		mode := rawMode(raw)
		var again uint32
		if _, err := fmt.Sscanf(chmodMode(mode), "%o", &again); err != nil || again != raw&0o7777 {
			t.Errorf("chmodMode(rawMode(%o)) = %s, want %o", raw, chmodMode(mode), raw&0o7777)
		}
	})
}

func FuzzList(f *testing.F) {
	f.Add("1\n81a4 12 1700000000 1 2\n./a\x00")
	f.Add("2\ngone\n-rw-r--r-- 1 1 2 12 Jan 1 00:00 b\na\x00./b\x00")
	f.Add("9999999999\n")
	f.Fuzz(func(t *testing.T, out string) {
		list, err := parseList(strings.NewReader(out))
		if err != nil {
			return
		}
		for _, info := range list {
			if strings.ContainsAny(info.Name(), "\x00/") && info.Name() != "/" {
				t.Errorf("a file is named %q", info.Name())
			}
		}
	})
}
