package tasks_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

func TestPutFile(t *testing.T) {
	eachShell(t, func(t *testing.T, b *bench, home string) {
		t.Helper()
		local := write(t, t.TempDir(), "it's a file", "one\n")
		task := tasks.Put{LocalPath: local, RemotePath: home + "/there"}

		b.settled(t, task, "put "+home+"/there")
		if got := read(t, home+"/there"); got != "one\n" {
			t.Errorf("there is %q", got)
		}
		write(t, filepath.Dir(local), "it's a file", "two\n") // of the same size
		b.settled(t, task, "put "+home+"/there")
		if got := read(t, home+"/there"); got != "two\n" {
			t.Errorf("there is %q", got)
		}

		// Relative to the home directory, into a directory, below ~.
		b.settled(t, tasks.Put{LocalPath: local}, "put "+home+"/it's a file")
		if err := os.Mkdir(home+"/dir", 0o755); err != nil {
			t.Fatal(err)
		}
		b.settled(t, tasks.Put{LocalPath: local, RemotePath: "dir"}, "put "+home+"/dir/it's a file")
		b.settled(t, tasks.Put{LocalPath: local, RemotePath: "~/dir/name"}, "put "+home+"/dir/name")
		b.settled(t, tasks.Put{LocalPath: local, RemotePath: "~/new/"}, "made the directory "+home+"/new", "put "+home+"/new/it's a file")
	})
}

func TestPutMode(t *testing.T) {
	home := t.TempDir()
	b := newBench(t, shellNode{home: home})
	local := write(t, t.TempDir(), "f", "x")
	there := home + "/f"
	mode := func(want fs.FileMode) {
		t.Helper()
		if info, err := os.Stat(there); err != nil || info.Mode() != want {
			t.Errorf("mode is %v (%v), want %v", info.Mode(), err, want)
		}
	}
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: there}, "put "+there)
	mode(0o644)
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: there, Mode: 0o600}, "changed the mode of "+there+" from 0644 to 0600")
	mode(0o600)
	write(t, filepath.Dir(local), "f", "xy")
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: there}, "put "+there)
	mode(0o600) // kept
	special := 0o755 | fs.ModeSetuid | fs.ModeSetgid
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: there, Mode: special}, "changed the mode of "+there+" from 0600 to 6755")
	mode(special)
	if err := os.Chmod(local, 0o751); err != nil {
		t.Fatal(err)
	}
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: there, MirrorLocalMode: true}, "changed the mode of "+there+" from 6755 to 0751")
	mode(0o751)
}

func TestPutOwner(t *testing.T) {
	needRoot(t)
	home := t.TempDir()
	b := newBench(t, shellNode{home: home})
	local := write(t, t.TempDir(), "dir/f", "x")
	there := home + "/dir/f"
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	byName := tasks.Put{LocalPath: filepath.Dir(local), RemotePath: home, Owner: "nobody", Mode: 0o4711 &^ 0o4000}
	b.settled(t, byName, "made the directory "+home+"/dir", "put "+there)
	byNumber := byName
	byNumber.Owner = nobody.Uid
	b.settled(t, byNumber) // they are the same
	byNumber.Owner, byNumber.Group = "1", "1"
	b.settled(t, byNumber, "gave "+there+" to 1:1")
}

func TestPutTree(t *testing.T) {
	eachShell(t, func(t *testing.T, b *bench, home string) {
		t.Helper()
		here := t.TempDir()
		write(t, here, "site/index.html", "<p>")
		write(t, here, "site/-css/*.css", "p {}")
		write(t, here, "site/.hidden", "")
		write(t, here, "site/with $(touch x) `spaces`/a\tb", "x")
		task := tasks.Put{LocalPath: here + "/site", RemotePath: home + "/www/"}
		b.settled(t, task,
			"made the directory "+home+"/www", "made the directory "+home+"/www/site",
			"made the directory "+home+"/www/site/-css", "put "+home+"/www/site/-css/*.css",
			"put "+home+"/www/site/.hidden", "put "+home+"/www/site/index.html",
			"made the directory "+home+"/www/site/with $(touch x) `spaces`",
			"put "+home+"/www/site/with $(touch x) `spaces`/a\tb")
		write(t, home, "www/site/other", "is left alone")
		write(t, here, "site/index.html", "<p>hi")
		b.settled(t, task, "put "+home+"/www/site/index.html")
		if _, err := os.Stat(home + "/www/site/other"); err != nil {
			t.Error(err)
		}
		if got := read(t, home+"/www/site/with $(touch x) `spaces`/a\tb"); got != "x" {
			t.Errorf("there is %q", got)
		}
	})
}

func TestPutGlob(t *testing.T) {
	home, here := t.TempDir(), t.TempDir()
	b := newBench(t, shellNode{home: home})
	for _, name := range []string{"a.txt", "b.txt", "c.jpg", "[x].txt"} {
		write(t, here, name, name)
	}
	b.settled(t, tasks.Put{LocalPath: here + "/?.txt", RemotePath: home + "/x", UseGlob: true},
		"made the directory "+home+"/x", "put "+home+"/x/a.txt", "put "+home+"/x/b.txt")
	b.settled(t, tasks.Put{LocalPath: here + "/[x].txt", RemotePath: home + "/y", UseGlob: true}, "put "+home+"/y")
	if _, err := b.apply(t.Context(), tasks.Put{LocalPath: here + "/*.png", RemotePath: home, UseGlob: true}); err == nil || !strings.Contains(err.Error(), "nothing here matches") {
		t.Errorf("error is %v, want that nothing matches", err)
	}
	if _, err := b.apply(t.Context(), tasks.Put{LocalPath: here + "/*.txt", RemotePath: home}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want that there is no such file", err)
	}
}

// A node without a tool for checksums is compared by reading.
func TestPutWithoutChecksums(t *testing.T) {
	bare := t.TempDir()
	for _, name := range []string{"sh", "ls", "cat", "chmod", "mv", "mkdir", "rm", "dd", "stat", "readlink"} {
		link(t, bare, name)
	}
	home := t.TempDir()
	b := newBench(t, shellNode{home: home, path: bare})
	local := write(t, t.TempDir(), "f", "one")
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: home + "/f"}, "put "+home+"/f")
	write(t, filepath.Dir(local), "f", "two")
	b.settled(t, tasks.Put{LocalPath: local, RemotePath: home + "/f"}, "put "+home+"/f")

	down := t.TempDir()
	b.settled(t, tasks.Get{RemotePath: home + "/f", LocalPath: down + "/f"}, "got "+down+"/f")
}

func TestPutInTheWay(t *testing.T) {
	home, here := t.TempDir(), t.TempDir()
	b := newBench(t, shellNode{home: home})
	file := write(t, here, "f", "x")
	write(t, here, "dir/f", "x")
	write(t, home, "dir", "a file")
	write(t, home, "in/f/x", "f is a directory")
	if err := os.Symlink(here, here+"/dir/link"); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		task tasks.Put
		want string
	}{
		{tasks.Put{LocalPath: here + "/dir/", RemotePath: home}, "link to a directory"},
		{tasks.Put{LocalPath: file, RemotePath: home + "/in"}, "on the node is none"},
		{tasks.Put{LocalPath: "/dev/null", RemotePath: home}, "neither a file nor a directory"},
		{tasks.Put{LocalPath: file, RemotePath: home + "/no/such/dir"}, "no/such"},
		{tasks.Put{LocalPath: here + "/nothing", RemotePath: home}, "no such file"},
	}
	for _, tt := range tests {
		if changed, err := b.apply(t.Context(), tt.task); err == nil || !strings.Contains(err.Error(), tt.want) || len(changed) > 0 {
			t.Errorf("put %s: changed %q, error is %v, want %q", tt.task.LocalPath, changed, err, tt.want)
		}
	}
	if err := os.Remove(here + "/dir/link"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.apply(t.Context(), tasks.Put{LocalPath: here + "/dir", RemotePath: home}); err == nil || !strings.Contains(err.Error(), "is a directory here") {
		t.Errorf("error is %v, want that a file is in the way", err)
	}
}

func TestGet(t *testing.T) {
	eachShell(t, func(t *testing.T, b *bench, home string) {
		t.Helper()
		down := t.TempDir()
		write(t, home, "log/app/it's.log", "one\n")
		write(t, home, "log/.hidden", "two\n")
		write(t, home, "log/a b", "three\n")

		one := tasks.Get{RemotePath: home + "/log/app/it's.log", LocalPath: down + "/{node}/{path}"}
		b.settled(t, one, "got "+down+"/db1/it's.log")
		if got := read(t, down+"/db1/it's.log"); got != "one\n" {
			t.Errorf("here is %q", got)
		}
		if info, err := os.Stat(down + "/db1/it's.log"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode is %v, %v", info.Mode(), err)
		}
		write(t, home, "log/app/it's.log", "two\n")
		b.settled(t, one, "got "+down+"/db1/it's.log")

		b.settled(t, tasks.Get{RemotePath: "log/", LocalPath: down + "/tree/"},
			"got "+down+"/tree/a b", "got "+down+"/tree/app/it's.log", "got "+down+"/tree/.hidden")
		b.settled(t, tasks.Get{RemotePath: "~/log", LocalPath: down + "/old/%(host)s/%(dirname)s/x-%(basename)s"},
			"got "+down+"/old/db1/x-a b", "got "+down+"/old/db1/app/x-it's.log", "got "+down+"/old/db1/x-.hidden")
		b.settled(t, tasks.Get{RemotePath: home + "/log/*", LocalPath: down + "/glob"},
			"got "+down+"/glob/a b", "got "+down+"/glob/it's.log")
		b.settled(t, tasks.Get{RemotePath: home + "/log/a b", LocalPath: down + "/name"}, "got "+down+"/name")
		b.settled(t, tasks.Get{RemotePath: home + "/log/a b", LocalPath: down}, "got "+down+"/a b")
	})
}

func TestGetRefuses(t *testing.T) {
	home, down := t.TempDir(), t.TempDir()
	b := newBench(t, shellNode{home: home})
	write(t, home, "a/x", "1")
	write(t, home, "b/x", "2")
	if err := os.Symlink("/nowhere", home+"/dangling"); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, remote, local, want string
	}{
		{name: "missing", remote: home + "/none", want: "file does not exist"},
		{name: "no match", remote: home + "/*.none", want: "file does not exist"},
		{name: "two become one", remote: home + "/*", local: down + "/{path}", want: "would both become x"},
	}
	for _, tt := range tests {
		if _, err := b.apply(t.Context(), tasks.Get{RemotePath: tt.remote, LocalPath: tt.local}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q", tt.name, err, tt.want)
		}
	}
	if changed, err := b.apply(t.Context(), tasks.Get{RemotePath: home + "/dangling", LocalPath: down + "/x"}); err != nil || len(changed) > 0 {
		t.Errorf("a link to nowhere: changed %q, %v", changed, err)
	}
	if log := b.log.String(); !strings.Contains(log, "left out") {
		t.Errorf("log is %q, want that it was left out", log)
	}
	for _, local := range []string{"{nod}/x", "%(hots)s"} {
		if err := (tasks.Get{RemotePath: "x", LocalPath: local}).Validate(); err == nil {
			t.Errorf("local_path %q passes", local)
		}
	}
	b.Node.Name = "../../etc"
	if _, err := b.apply(t.Context(), tasks.Get{RemotePath: home + "/a/x", LocalPath: down + "/{node}/{path}"}); err == nil || !strings.Contains(err.Error(), "can't be that of a directory") {
		t.Errorf("error is %v, want that the node's name leads elsewhere", err)
	}
}

// A node that lies about the names of its files can't write outside of the
// directory for them: not by its names, and not through links.
func TestGetHostile(t *testing.T) {
	down := t.TempDir()
	outside := t.TempDir()
	for _, name := range []string{"../x", "/etc/x", "a/../../x", "..", "", "a/../.."} {
		node := lyingNode{answer: "f\t-\t/etc/passwd\t" + name + "\x00"}
		b := newBench(t, node)
		if changed, err := b.apply(t.Context(), tasks.Get{RemotePath: "/x", LocalPath: down + "/{node}/{path}"}); err == nil || len(changed) > 0 {
			t.Errorf("a file called %q: changed %q, %v", name, changed, err)
		}
	}
	if err := os.Symlink(outside, down+"/link"); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, lyingNode{answer: "f\t-\t/etc/passwd\tlink/x\x00"})
	if changed, err := b.apply(t.Context(), tasks.Get{RemotePath: "/x", LocalPath: down + "/{path}"}); err == nil || len(changed) > 0 {
		t.Errorf("through a link: changed %q, %v", changed, err)
	}
	for _, dir := range []string{outside, filepath.Dir(down)} {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(list, func(e fs.DirEntry) bool { return e.Name() == "x" }) {
			t.Errorf("there is a file in %s", dir)
		}
	}
}

// A lyingNode answers all questions with the same.
type lyingNode struct {
	shellNode
	answer string
}

func (n lyingNode) Exec(_ context.Context, c loom.Command) error {
	if strings.Contains(c.Text, "loom_f") {
		_, err := io.WriteString(c.Stdout, n.answer)
		return err
	}
	_, err := io.WriteString(c.Stdout, "\nhostile content")
	return err
}

// TestLocalPath holds that relative paths of the control host start at the session's
// directory, and at the current one if it has none.
func TestLocalPath(t *testing.T) {
	home, here := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Chdir(here)
	for _, tt := range []struct{ base, path, want string }{
		{"/etc/loom", "files/motd", "/etc/loom/files/motd"},
		{"/etc/loom", "../x", "/etc/x"},
		{"/etc/loom", ".", "/etc/loom"},
		{"/etc/loom", "/srv/x/", "/srv/x"},
		{"/etc/loom", "~/x", home + "/x"},
		{"/etc/loom", "~", home},
		{"/etc/loom", "~x", "/etc/loom/~x"},
		{"", "x", here + "/x"},
	} {
		got, err := (&loom.Session{Base: tt.base}).LocalPath(tt.path)
		if err != nil || got != tt.want {
			t.Errorf("LocalPath(%q) from %q = %q, %v; want %q", tt.path, tt.base, got, err, tt.want)
		}
	}
}
