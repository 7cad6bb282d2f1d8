package tasks_test

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	loomssh "github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/tasks"
)

// TestSSHFS is the whole of it for real: a node and a storage server, each an
// OpenSSH server, sshfs over FUSE between them, and an /etc/fstab. Since the
// node is this machine, the tests run in mount and process namespaces of their
// own, with a copy of /etc that is theirs.
func TestSSHFS(t *testing.T) {
	t.Parallel()
	if os.Getenv("LOOM_TEST_NAMESPACE") == "" {
		inNamespace(t)
		return
	}
	privateEtc(t)
	t.Run("settles", testSSHFSSettles)
	t.Run("fstab", testSSHFSFstab)
	t.Run("excludes", testSSHFSExcludes)
	t.Run("busy", testSSHFSBusy)
	t.Run("options", testSSHFSOptions)
	t.Run("stacked", testSSHFSStacked)
	t.Run("dead", testSSHFSDead)
	t.Run("hung", testSSHFSHung)
	t.Run("login", testSSHFSLogin)
	t.Run("in the way", testSSHFSInTheWay)
	t.Run("together", testSSHFSTogether)
	t.Run("mount and unmount", testMounts)
	t.Run("script on noexec", testScriptNoexec)
}

// inNamespace runs the calling test again, alone, where it can mount as it likes
// and nothing it starts outlives it.
func inNamespace(t *testing.T) {
	t.Helper()
	needRoot(t)
	sshd.Need(t, "sshd", "ssh", "sshfs", "mount", "unshare")
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("this test needs FUSE: %v", err)
		}
		t.Skipf("NOT TESTED: this test needs FUSE: %v", err)
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"sh", "-c", `"$@"; exit $?`, "sh", os.Args[0], "-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=5m"}
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), "LOOM_TEST_NAMESPACE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
		return
	}
	if strings.Contains(string(out), "--- SKIP") || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("the test did not run:\n%s", out)
	}
	t.Logf("%s", out)
}

// privateEtc puts a copy of /etc in its place.
func privateEtc(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	// Other tests change /etc meanwhile, so that a file may go as it is copied.
	sh(t, `cp -a /etc "$1" 2>/dev/null; [ -s "$1/etc/passwd" ] && mount --bind "$1/etc" /etc`, dir)
}

// sh runs a shell command of the test's and returns what it prints.
func sh(t *testing.T, text string, args ...string) string {
	t.Helper()
	out, err := exec.Command("sh", append([]string{"-c", text, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", text, err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// A storage is a server to mount from, and a node to mount on.
type storage struct {
	*bench
	dir    string // of what is stored
	mounts string // where mountpoints are
	host   string
	server *sshd.Server
}

// newStorage returns a session over SSH with a node that is called staging, and
// whose fstab has this text.
func newStorage(t *testing.T, fstab string) *storage {
	t.Helper()
	node := sshd.Start(t, sshd.Options{})
	server := sshd.Start(t, sshd.Options{Address: "127.0.0.2"})
	st := &storage{dir: t.TempDir(), mounts: t.TempDir(), host: "root@127.0.0.2", server: server}
	writeFstab(t, fstab)
	write(t, st.dir, "a/file", "of a")
	write(t, st.dir, "b/file", "of b")

	config := write(t, t.TempDir(), "config", "")
	d := &loomssh.Dialer{
		SSHConfig: loom.SSHConfig{ConfigFile: config, KnownHosts: node.KnownHosts},
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	n := &loom.Node{Name: "staging", Address: node.Address, Port: node.Port, User: "root", Identity: node.Identity}
	conn, err := d.Dial(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What is still mounted must go before its server does.
		for _, line := range slices.Backward(strings.Split(st.mountinfo(t), "\n")) {
			if f := strings.Fields(line); len(f) > 4 && strings.Contains(line, "fuse.sshfs") {
				_ = exec.Command("umount", "-l", strings.ReplaceAll(f[4], `\040`, " ")).Run()
			}
		}
		_ = conn.Close()
	})
	st.bench = newBench(t, conn)
	st.Node = n
	return st
}

func writeFstab(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile("/etc/fstab", []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/etc/fstab", 0o640); err != nil {
		t.Fatal(err)
	}
}

// mount is one of the server's directories at a mountpoint of a name.
func (st *storage) mount(dir, name string) tasks.SSHFSMount {
	return tasks.SSHFSMount{
		Host: st.host, RemotePath: filepath.Join(st.dir, dir), Mountpoint: filepath.Join(st.mounts, name),
		Identity: st.server.Identity, Port: st.server.Port,
		Options: []string{"defaults", "allow_other", "reconnect", "_netdev", "UserKnownHostsFile=" + st.server.KnownHosts},
	}
}

func (*storage) mountinfo(t *testing.T) string {
	t.Helper()
	return read(t, "/proc/self/mountinfo")
}

// count returns how many mounts there are at a mountpoint of a name.
func (st *storage) count(t *testing.T, name string) int {
	t.Helper()
	at := strings.ReplaceAll(filepath.Join(st.mounts, name), " ", `\040`)
	return strings.Count(st.mountinfo(t), " "+at+" ")
}

// fails applies a task that must fail with words and change nothing.
func (st *storage) fails(t *testing.T, task loom.Task, words ...string) {
	t.Helper()
	before := read(t, "/etc/fstab") + st.mountinfo(t)
	changed, err := st.apply(t.Context(), task)
	if err == nil || len(changed) > 0 {
		t.Fatalf("changed %q, %v; want it to fail", changed, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error is %v, want %q", err, w)
		}
	}
	if after := read(t, "/etc/fstab") + st.mountinfo(t); after != before {
		t.Errorf("it failed, and changed fstab or the mounts:\n%s", after)
	}
}

// Changed once, and ok each minute after: with several mounts, a space in a
// name, the name of one mountpoint being the beginning of another's, and one
// below a link.
func testSSHFSSettles(t *testing.T) {
	st := newStorage(t, "# "+"/mnt/x\n")
	if err := os.Symlink(st.mounts, st.mounts+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"storage2", "storage", "with space", "link/linked"} {
		m := st.mount("a", name)
		st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}},
			"entered "+m.Mountpoint+" in fstab", "mounted "+m.Mountpoint+" from "+st.host+":"+st.dir+"/a")
		if got := read(t, m.Mountpoint+"/file"); got != "of a" {
			t.Errorf("%s has %q", name, got)
		}
	}
	if n := st.count(t, "linked"); n != 1 {
		t.Errorf("%d mounts below the link", n)
	}
	for _, name := range []string{"storage2", "storage", "with space"} {
		if n := st.count(t, name); n != 1 {
			t.Errorf("%s: %d mounts", name, n)
		}
	}
	all := tasks.SSHFS{Mounts: []tasks.SSHFSMount{st.mount("a", "storage"), st.mount("a", "storage2"), st.mount("b", "third")}}
	third := st.mount("b", "third").Mountpoint
	st.settled(t, all, "entered "+third+" in fstab", "mounted "+third+" from "+st.host+":"+st.dir+"/b")

	// Unmounted by hand, it comes back; fstab is as it was.
	sh(t, `umount "$1"`, third)
	st.settled(t, all, "mounted "+third+" from "+st.host+":"+st.dir+"/b")
	// Taken out of fstab by hand, it is entered, and stays mounted.
	sh(t, `grep -v /third /etc/fstab >/etc/f && cat /etc/f >/etc/fstab`)
	st.settled(t, all, "entered "+third+" in fstab")
	// Not to persist, it is only mounted.
	no := false
	fourth := st.mount("b", "fourth")
	fourth.Persist = &no
	before := read(t, "/etc/fstab")
	st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{fourth}}, "mounted "+fourth.Mountpoint+" from "+st.host+":"+st.dir+"/b")
	if read(t, "/etc/fstab") != before {
		t.Error("fstab was written for what isn't to persist")
	}
}

// Fstab keeps each byte that isn't of the entry, and its mode; the spelling of
// the first Loom is understood.
func testSSHFSFstab(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	source := st.host + ":" + st.dir + "/a"
	options := strings.Join(m.Options, ",") + ",IdentityFile=" + m.Identity + ",port=" + strconv.Itoa(m.Port)
	line := source + "\t" + m.Mountpoint + "\tfuse.sshfs\t" + options + "\t0\t0\n"
	around := "#\t" + m.Mountpoint + " \n\n/dev/x  " + m.Mountpoint + "2 ext4\tro 0 2\nodd\n"
	entered, changed, mounted := "entered "+m.Mountpoint+" in fstab", "changed "+m.Mountpoint+" in fstab", "mounted "+m.Mountpoint+" from "+source
	tests := []struct {
		name, before, after string
		want                []string
	}{
		{"empty", "", line, []string{entered, mounted}},
		{"at the end", around, around + line, []string{entered, mounted}},
		{"no final newline", strings.TrimSuffix(around, "\n"), around + line, []string{entered, mounted}},
		{"in place", around + "root@elsewhere:/x " + m.Mountpoint + "/ fuse.sshfs ro\n" + around, around + line + around, []string{changed, mounted}},
		{"other order", around + source + "/ " + m.Mountpoint + " fuse.sshfs rw," + reversed(options) + " 0 0", "", []string{mounted}},
		{"old spelling", around + "sshfs#" + source + "\t" + m.Mountpoint + "\tfuse\t" + options + "\t0 0\n\n", "", []string{mounted}},
		{"old options", "sshfs#" + source + "\t" + m.Mountpoint + "\tfuse\t" + strings.ReplaceAll(options, "_netdev,", "") + "\t0 0\n\n", line + "\n", []string{changed, mounted}},
	}
	for _, tt := range tests {
		writeFstab(t, tt.before)
		st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}, tt.want...)
		if tt.after == "" {
			tt.after = tt.before
		}
		if got := read(t, "/etc/fstab"); got != tt.after {
			t.Errorf("%s: fstab is\n%q, want\n%q", tt.name, got, tt.after)
		}
		if info, err := os.Stat("/etc/fstab"); err != nil || info.Mode() != fs.FileMode(0o640) {
			t.Errorf("%s: mode is %v, %v", tt.name, info.Mode(), err)
		}
		if n := st.count(t, "storage"); n != 1 {
			t.Errorf("%s: %d mounts", tt.name, n)
		}
		sh(t, `umount "$1"`, m.Mountpoint)
	}
	if left, _ := filepath.Glob("/etc/.loom-*"); len(left) > 0 {
		t.Errorf("left %q", left)
	}

	// An old entry that is mounted is brought up to date without a remount, since
	// only a boot would tell the difference.
	writeFstab(t, tests[len(tests)-1].before)
	sh(t, `mount "$1"`, m.Mountpoint)
	before := st.mountinfo(t)
	st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}, changed)
	if st.mountinfo(t) != before {
		t.Error("it was mounted anew")
	}
}

func reversed(options string) string {
	list := strings.Split(options, ",")
	slices.Reverse(list)
	return strings.Join(list, ",")
}

func testSSHFSExcludes(t *testing.T) {
	st := newStorage(t, "# nothing\n")
	for _, by := range []string{"staging", st.Node.Address} {
		m := st.mount("a", "storage")
		m.Excludes = []string{"other", by}
		if changed, err := st.apply(t.Context(), tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}); !isSkip(err) || len(changed) > 0 {
			t.Errorf("excluded by %s: changed %q, %v, want skipped", by, changed, err)
		}
		if plan, err := (tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}).Plan(t.Context(), st.Session); !isSkip(err) || len(plan) > 0 {
			t.Errorf("excluded by %s: plan is %q, %v", by, plan, err)
		}
	}
	if got := read(t, "/etc/fstab"); got != "# nothing\n" || st.count(t, "storage") != 0 {
		t.Errorf("fstab is %q", got)
	}
	a, b := st.mount("a", "storage"), st.mount("b", "other")
	a.Excludes, b.Excludes = []string{"staging"}, []string{"stag", "staging2"}
	st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{a, b}},
		"entered "+b.Mountpoint+" in fstab", "mounted "+b.Mountpoint+" from "+st.host+":"+st.dir+"/b")
}

// A mount in use whose options changed fails and says who uses it, each minute,
// and nothing is ever put over it. Once it is free it changes.
func testSSHFSBusy(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	task := tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}
	st.settled(t, task, "entered "+m.Mountpoint+" in fstab", "mounted "+m.Mountpoint+" from "+st.host+":"+st.dir+"/a")

	user := exec.Command("sleep", "600")
	user.Dir = m.Mountpoint
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	st.settled(t, task) // in use, and as it should be

	m.Options = append(m.Options, "ro")
	task = tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}
	for range 3 {
		st.fails(t, task, "busy", "sleep (pid "+strconv.Itoa(user.Process.Pid)+")", m.Mountpoint)
		if n := st.count(t, "storage"); n != 1 {
			t.Fatalf("%d mounts", n)
		}
	}
	other := st.mount("b", "storage") // another source
	st.fails(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{other}}, "busy")

	_ = user.Process.Kill()
	_ = user.Wait()
	st.settled(t, task, "unmounted "+m.Mountpoint+" ("+st.host+":"+st.dir+"/a)", "changed "+m.Mountpoint+" in fstab",
		"mounted "+m.Mountpoint+" from "+st.host+":"+st.dir+"/a")
	if err := os.WriteFile(m.Mountpoint+"/new", nil, 0o600); err == nil {
		t.Error("it is still mounted for writing")
	}
	st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{other}}, "unmounted "+m.Mountpoint+" ("+st.host+":"+st.dir+"/a)",
		"changed "+m.Mountpoint+" in fstab", "mounted "+m.Mountpoint+" from "+st.host+":"+st.dir+"/b")
	if got := read(t, m.Mountpoint+"/file"); got != "of b" {
		t.Errorf("it has %q", got)
	}
}

// The options of the first Loom, which are the default, mount; and options that
// are for the boot are kept from sshfs.
func testSSHFSOptions(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	m.Options, m.Port, m.Identity = nil, 0, ""
	st.host = "storage-of-test"
	m.Host = st.host
	// What the manifest doesn't say, root's ssh_config does.
	sh(t, `mkdir -p /etc/ssh/ssh_config.d && cat >/etc/ssh/ssh_config.d/test.conf && grep -qs ssh_config.d /etc/ssh/ssh_config || echo "Include /etc/ssh/ssh_config.d/*.conf" >>/etc/ssh/ssh_config`)
	if err := os.WriteFile("/etc/ssh/ssh_config.d/test.conf", fmt.Appendf(nil, "Host storage-of-test\nHostName 127.0.0.2\nPort %d\nUser root\nIdentityFile %s\nUserKnownHostsFile %s\n",
		st.server.Port, st.server.Identity, st.server.KnownHosts), 0o644); err != nil {
		t.Fatal(err)
	}
	st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}, "entered "+m.Mountpoint+" in fstab", "mounted "+m.Mountpoint+" from "+st.host+":"+st.dir+"/a")
	want := st.host + ":" + st.dir + "/a\t" + m.Mountpoint + "\tfuse.sshfs\tdefaults,allow_other,exec,reconnect,transform_symlinks,_netdev\t0\t0\n"
	if got := read(t, "/etc/fstab"); got != want {
		t.Errorf("fstab is %q, want %q", got, want)
	}
	m.Mountpoint += "2"
	m.Options = []string{"reconnect,nofail,x-systemd.automount"} // as fstab has it
	st.settled(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}, "entered "+m.Mountpoint+" in fstab", "mounted "+m.Mountpoint+" from "+st.host+":"+st.dir+"/a")
}

// What the first Loom has stacked, each minute, is taken apart.
func testSSHFSStacked(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	task := tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}
	mounted := "mounted " + m.Mountpoint + " from " + st.host + ":" + st.dir + "/a"
	st.settled(t, task, "entered "+m.Mountpoint+" in fstab", mounted)
	sh(t, `mount "$1"; mount "$1"`, m.Mountpoint)
	if n := st.count(t, "storage"); n != 3 {
		t.Fatalf("%d mounts, and this test is about 3", n)
	}
	st.settled(t, task, "unmounted 3 mounts stacked at "+m.Mountpoint, mounted)
	if n := st.count(t, "storage"); n != 1 {
		t.Errorf("%d mounts", n)
	}
}

// sshfsOf returns the process that serves a mountpoint.
func sshfsOf(t *testing.T, mountpoint string) int {
	t.Helper()
	pid, err := strconv.Atoi(sh(t, `pgrep -f "^sshfs .*$1|/sshfs .*$1|mount.fuse.sshfs .*$1" | head -n 1`, mountpoint))
	if err != nil {
		t.Fatalf("%v in\n%s", err, sh(t, "ps -ef"))
	}
	return pid
}

// A mount whose sshfs is gone fails whoever looks at it.
func testSSHFSDead(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	task := tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}
	mounted := "mounted " + m.Mountpoint + " from " + st.host + ":" + st.dir + "/a"
	st.settled(t, task, "entered "+m.Mountpoint+" in fstab", mounted)
	if err := syscall.Kill(sshfsOf(t, m.Mountpoint), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if _, err := os.Stat(m.Mountpoint); err != nil {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	st.settled(t, task, "detached the dead mount at "+m.Mountpoint, mounted)
	if got, n := read(t, m.Mountpoint+"/file"), st.count(t, "storage"); got != "of a" || n != 1 {
		t.Errorf("%d mounts, with %q", n, got)
	}
}

// A mount whose server does not answer hangs whoever looks at it, for ever.
func testSSHFSHung(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	task := tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}
	mounted := "mounted " + m.Mountpoint + " from " + st.host + ":" + st.dir + "/a"
	st.settled(t, task, "entered "+m.Mountpoint+" in fstab", mounted)

	pid := sshfsOf(t, m.Mountpoint)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Somebody is stuck in it already, beyond the reach of signals.
	stuck := exec.Command("ls", m.Mountpoint)
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	changed, err := st.apply(t.Context(), task)
	if want := []string{"detached the dead mount at " + m.Mountpoint, mounted}; err != nil || !slices.Equal(changed, want) {
		t.Fatalf("changed %q, %v, want %q", changed, err, want)
	}
	st.settled(t, task)
	if got, n := read(t, m.Mountpoint+"/file"), st.count(t, "storage"); got != "of a" || n != 1 {
		t.Errorf("%d mounts, with %q", n, got)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_ = stuck.Wait()
}

// What ssh says, which sshfs throws away, is in the error.
func testSSHFSLogin(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	stranger := st.server.Dir + "/stranger"
	sshd.NewKey(t, stranger)
	tests := []struct {
		name   string
		change func(m *tasks.SSHFSMount)
		want   string
	}{
		{"key", func(m *tasks.SSHFSMount) { m.Identity = stranger }, "staging can't log in to root@127.0.0.2: root@127.0.0.2: Permission denied"},
		{"host key", func(m *tasks.SSHFSMount) { m.Options = nil }, "Host key verification failed"},
		{"port", func(m *tasks.SSHFSMount) { m.Port = 1 }, "Connection refused"},
		{"directory", func(m *tasks.SSHFSMount) { m.RemotePath = "/nonexistent" }, "No such file or directory"},
	}
	for _, tt := range tests {
		bad := m
		tt.change(&bad)
		writeFstab(t, "")
		changed, err := st.apply(t.Context(), tasks.SSHFS{Mounts: []tasks.SSHFSMount{bad}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(changed) != 1 {
			t.Errorf("%s: changed %q, error is %v, want %q", tt.name, changed, err, tt.want)
		}
		if n := st.count(t, "storage"); n != 0 {
			t.Fatalf("%s: %d mounts", tt.name, n)
		}
	}
	// One that fails doesn't keep another from being mounted.
	bad, good := m, st.mount("b", "other")
	bad.Identity = stranger
	_, err := st.apply(t.Context(), tasks.SSHFS{Mounts: []tasks.SSHFSMount{bad, good}})
	if err == nil || !strings.Contains(err.Error(), bad.Mountpoint+": ") || st.count(t, "other") != 1 {
		t.Errorf("%v, and %d mounts of the good one", err, st.count(t, "other"))
	}
}

func testSSHFSInTheWay(t *testing.T) {
	st := newStorage(t, "")
	m := st.mount("a", "storage")
	writeFstab(t, "/dev/sdz1 "+m.Mountpoint+" ext4 defaults 0 2\n")
	st.fails(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}, "/dev/sdz1", "ext4", "take that line out")
	writeFstab(t, "")
	sh(t, `mkdir "$1" && mount -t tmpfs tmpfs "$1"`, m.Mountpoint)
	st.fails(t, tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}, "tmpfs, tmpfs is mounted here")
	sh(t, `umount "$1" && rmdir "$1" && echo >"$1"`, m.Mountpoint)
	if _, err := st.apply(t.Context(), tasks.SSHFS{Mounts: []tasks.SSHFSMount{m}}); err == nil || !strings.Contains(err.Error(), "File exists") {
		t.Errorf("error is %v, want that a file is in the way", err)
	}
}

// Two jobs of the same minute that write the same fstab don't undo each other.
func testSSHFSTogether(t *testing.T) {
	st := newStorage(t, "# first\n")
	reg := tasks.Registry()
	done := make(chan error)
	names := []string{"m0", "m1", "m2", "m3"}
	for _, name := range names {
		m := st.mount("a", name)
		task, err := reg.New("loom.system.add_sshfs_mount", []any{map[string]any{
			"host": m.Host, "remotepath": m.RemotePath, "mountpoint": m.Mountpoint, "options": m.Options,
			"identity": m.Identity, "port": m.Port, "excludes": []any{"other"},
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- task.Apply(t.Context(), st.Session) }()
	}
	for range names {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, name := range names {
		if !strings.Contains(read(t, "/etc/fstab"), filepath.Join(st.mounts, name)) || st.count(t, name) != 1 {
			t.Errorf("%s is not in fstab, or not mounted once:\n%s", name, read(t, "/etc/fstab"))
		}
	}
}

// The tasks mount and unmount, where mounting is harmless.
func testMounts(t *testing.T) {
	st := newStorage(t, "")
	dir := st.mounts + "/with space"
	longer := dir + "2"
	tmpfs := tasks.Mount{Mountpoint: dir, Device: "tmpfs", FSType: "tmpfs", Options: []string{"size=1m"}}
	sh(t, `mkdir "$1" && mount -t tmpfs tmpfs "$1"`, longer)

	st.settled(t, tasks.Unmount{Mountpoint: dir}) // nothing is there
	st.settled(t, tmpfs, "mounted "+dir+" from tmpfs")
	st.settled(t, tasks.Mount{Mountpoint: dir + "/"})
	st.fails(t, tasks.Mount{Mountpoint: dir, Device: "server:/export", FSType: "nfs"}, "tmpfs, tmpfs is mounted here already, not server:/export")

	user := exec.Command("sleep", "600")
	user.Dir = dir
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = user.Process.Kill()
		_ = user.Wait()
	}()
	st.fails(t, tasks.Unmount{Mountpoint: dir}, "busy", "sleep (pid "+strconv.Itoa(user.Process.Pid)+")")
	st.settled(t, tasks.Unmount{Mountpoint: dir, Lazy: true}, "unmounted "+dir+" (tmpfs, tmpfs)")
	if st.count(t, "with space") != 0 || st.count(t, "with space2") != 1 {
		t.Errorf("the mounts are\n%s", st.mountinfo(t))
	}

	// By fstab.
	writeFstab(t, "tmpfs "+strings.ReplaceAll(dir, " ", `\040`)+" tmpfs size=1m 0 0\n")
	st.settled(t, tasks.Mount{Mountpoint: dir}, "mounted "+dir)
	sh(t, `mount -t tmpfs tmpfs "$1"`, dir)
	st.settled(t, tasks.Unmount{Mountpoint: dir}, "unmounted "+dir+" (tmpfs, tmpfs)", "unmounted "+dir+" (tmpfs, tmpfs)")
	st.fails(t, tasks.Mount{Mountpoint: longer + "/none"}, "can't find in")
	st.settled(t, tasks.Unmount{Mountpoint: longer}, "unmounted "+longer+" (tmpfs, tmpfs)")
}

// A script runs where the node's temporary directory forbids execution, and
// where there is no room for it the error says so.
func testScriptNoexec(t *testing.T) {
	st := newStorage(t, "")
	sh(t, `mount -t tmpfs -o noexec,size=64k tmpfs "$1"`, st.mounts)
	t.Cleanup(func() { sh(t, `umount "$1"`, st.mounts) })
	st.Env = map[string]string{"TMPDIR": st.mounts}
	if _, err := st.apply(t.Context(), tasks.Script{File: write(t, t.TempDir(), "s", "#!/bin/sh\necho ran in $(dirname \"$0\")\n")}); err != nil {
		t.Fatal(err)
	}
	if out := st.out.String(); !strings.HasPrefix(out, "ran in "+st.mounts) {
		t.Errorf("printed %q", out)
	}
	large := write(t, t.TempDir(), "s", "#!/bin/sh\n"+strings.Repeat("#\n", 100_000))
	if _, err := st.apply(t.Context(), tasks.Script{File: large}); err == nil || !strings.Contains(err.Error(), "is the disk full?") {
		t.Errorf("error is %v, want that the disk is full", err)
	}
	if left, _ := os.ReadDir(st.mounts); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestSSHFSRefuses(t *testing.T) {
	good := tasks.SSHFSMount{Host: "root@attic", RemotePath: "/a", Mountpoint: "/mnt/a"}
	if err := (tasks.SSHFS{Mounts: []tasks.SSHFSMount{good}}).Validate(); err != nil {
		t.Error(err)
	}
	tests := []struct {
		change func(m *tasks.SSHFSMount)
		want   string
	}{
		{func(m *tasks.SSHFSMount) { m.Mountpoint = "mnt" }, "mountpoint: write an absolute path"},
		{func(m *tasks.SSHFSMount) { m.Mountpoint = "/a\nb" }, "line break"},
		{func(m *tasks.SSHFSMount) { m.Mountpoint = "/mnt/.." }, "/ can't be mounted over"},
		{func(m *tasks.SSHFSMount) { m.Host = "-oProxyCommand=x" }, "host"},
		{func(m *tasks.SSHFSMount) { m.Host = "#x" }, "host"},
		{func(m *tasks.SSHFSMount) { m.Host = "attic:/x" }, "without its path"},
		{func(m *tasks.SSHFSMount) { m.RemotePath = "" }, "remotepath is empty"},
		{func(m *tasks.SSHFSMount) { m.Port = 70000 }, "port"},
		{func(m *tasks.SSHFSMount) { m.Identity = "a,b" }, "comma"},
	}
	for _, tt := range tests {
		bad := good
		tt.change(&bad)
		if err := (tasks.SSHFS{Mounts: []tasks.SSHFSMount{bad}}).Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate of %+v is %v, want %q", bad, err, tt.want)
		}
	}
	if err := (tasks.SSHFS{Mounts: []tasks.SSHFSMount{good, good}}).Validate(); err == nil || !strings.Contains(err.Error(), "same mountpoint") {
		t.Errorf("twice the same mountpoint: %v", err)
	}
}
