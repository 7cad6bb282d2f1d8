package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom/internal/sshd"
)

// TestSeed runs the files that came with the first Loom, for two minutes as they
// ask, on six OpenSSH servers that are found through ssh_config alone. Only the
// paths in the main file are other ones. Each server has /tmp, /mnt and
// /etc/fstab of its own, and storage comes from a seventh.
func TestSeed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT TESTED: the original's files, which take two minutes")
	}
	if os.Getenv("LOOM_TEST_SEED") == "" {
		seedApart(t)
		return
	}
	s := newSeed(t)
	s.serve(t)

	for _, n := range []string{"db1", "db2", "db3", "db4"} {
		info, err := os.Stat(filepath.Join(s.root(n), "tmp/loom_was_here"))
		if err != nil {
			t.Errorf("the job left no mark on %s: %v", n, err)
		} else if uid := info.Sys().(*syscall.Stat_t).Uid; uid == 0 {
			t.Errorf("the mark on %s is root's, not mysql's", n)
		}
	}
	if got := s.mounts(t, "production"); got != 1 {
		t.Errorf("production has %d mounts of the storage, want 1", got)
	}
	if got := s.mounts(t, "staging"); got != 0 {
		t.Errorf("staging, which is excluded, has %d mounts of the storage", got)
	}
	if got := s.inside(t, "production", "cat /mnt/storage/file"); got != "stored on attic" {
		t.Errorf("through the mount one reads %q", got)
	}
}

// seedApart runs the test again, alone, with mounts and processes of its own, so
// that this machine's accounts and files stay as they are.
func seedApart(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: the original's files, which need root for mounts and users")
	}
	sshd.Need(t, "sshd", "ssh", "sshfs", "unshare", "useradd")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("NOT TESTED: the original's files: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"--propagation", "private", os.Args[0], "-test.run=^TestSeed$", "-test.v", "-test.timeout=6m")
	cmd.Env = append(os.Environ(), "LOOM_TEST_SEED=1", "TMPDIR=/var/tmp") // nodes have a /tmp of their own
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSeed") {
		t.Errorf("it did not pass: %v", err)
	}
}

// A seed is the fleet of the example.
type seed struct {
	dir     string
	servers map[string]*sshd.Server
}

func (s *seed) root(node string) string { return filepath.Join(s.dir, node) }

// inside runs a shell command where a node's processes are.
func (s *seed) inside(t *testing.T, node, text string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nsenter", "-t", fmt.Sprint(s.servers[node].PID()), "-m", "sh", "-c", text).CombinedOutput()
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", text, node, err, out)
	}
	return strings.TrimSpace(string(out))
}

// mounts counts what is mounted at the storage's mountpoint of a node.
func (s *seed) mounts(t *testing.T, node string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.servers[node].PID()))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), " /mnt/storage ")
}

func newSeed(t *testing.T) *seed {
	t.Helper()
	s := &seed{dir: t.TempDir(), servers: map[string]*sshd.Server{}}
	must(t, "sh", "-c", `chmod 755 "$1" && cp -a /etc "$1/etc" && mount --bind "$1/etc" /etc &&
		mkdir -m 700 "$1/state" && mkdir -p /var/lib/loom && mount --bind "$1/state" /var/lib/loom`, "sh", s.dir)
	for _, user := range []string{"mysql", "staging"} {
		must(t, "sh", "-c", `id "$1" >/dev/null 2>&1 || useradd -M -d /tmp -s /bin/sh -p '*' "$1"`, "sh", user)
	}
	// One port for all: each address is another machine.
	attic := s.start(t, "attic", 9, 0)
	for i, n := range []string{"staging", "production", "db1", "db2", "db3", "db4"} {
		s.start(t, n, i+1, attic.Port)
	}
	must(t, "sh", "-c", `echo stored on attic >"$1"`, "sh", filepath.Join(s.root("attic"), "mnt/storage/file"))

	// How production's root reaches the storage.
	ssh := filepath.Join(s.root("production"), "ssh")
	put(t, filepath.Join(ssh, "config"), fmt.Sprintf("Host attic\n HostName %s\n Port %d\n IdentityFile %s\n UserKnownHostsFile %s\n",
		attic.Address, attic.Port, attic.Identity, attic.KnownHosts))
	put(t, filepath.Join(s.root("production"), "etc/fstab"), "# an fstab without its last newline\nproc /proc proc defaults 0 0")

	// How Loom's user reaches the nodes: the original's addresses and names stay.
	var config strings.Builder
	home := filepath.Join(s.dir, "home")
	for node, host := range map[string]string{"staging": "192.168.1.10", "production": "192.168.1.11", "db1": "", "db2": "", "db3": "", "db4": ""} {
		if host == "" {
			host = node
		}
		n := s.servers[node]
		fmt.Fprintf(&config, "Host %s\n HostName %s\n Port %d\n UserKnownHostsFile %s\n", host, n.Address, n.Port, n.KnownHosts)
		if node != "production" {
			fmt.Fprintf(&config, " IdentityFile %s\n", n.Identity)
		}
	}
	put(t, filepath.Join(home, ".ssh/config"), config.String())
	must(t, "sh", "-c", `mkdir -p "$2/.ssh/loom" && cp "$1" "$2/.ssh/loom/prod" && cp "$1.pub" "$2/.ssh/loom/prod.pub"`, "sh", s.servers["production"].Identity, home)

	must(t, "sh", "-c", `mkdir -p "$2/.loom" && cp -r "$1/." "$2/.loom/"`, "sh", "../../testdata/seed", home)
	put(t, filepath.Join(home, ".loom.yaml"), fmt.Sprintf("nodesfile: %s/.loom/nodes.yaml\njobspath: %[1]s/.loom/jobs/\ndatafile: ~/.loom/data.yaml\n", home))
	return s
}

// start starts a server on an address of its own, with files of its own.
func (s *seed) start(t *testing.T, name string, host, port int) *sshd.Server {
	t.Helper()
	root := s.root(name)
	must(t, "sh", "-c", `mkdir -p "$1/tmp" "$1/mnt/storage" "$1/ssh" && chmod 1777 "$1/tmp" && cp -a /etc "$1"`, "sh", root)
	if name == "production" {
		must(t, "rmdir", filepath.Join(root, "mnt/storage")) // the task makes it
	}
	n := sshd.Start(t, sshd.Options{
		Address: fmt.Sprintf("127.0.11.%d", host), Port: port,
		Under: []string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
			`root=$1; shift; mkdir -p /root/.ssh && mount --bind "$root/mnt" /mnt && mount --bind "$root/etc" /etc &&
			mount --bind "$root/ssh" /root/.ssh && mount --bind "$root/tmp" /tmp && exec "$@"`,
			"sh", root},
	})
	s.servers[name] = n
	return n
}

// serve runs the daemon until both jobs have ended twice, and stops it.
func (s *seed) serve(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Args[0] = "loomd" // which TestMain then is
	cmd.Env = append(os.Environ(), "HOME="+filepath.Join(s.dir, "home"), "GORACE=atexit_sleep_ms=0")
	cmd.Args = append(cmd.Args, "--log-format", "json")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	patience := time.AfterFunc(4*time.Minute, func() { _ = cmd.Process.Kill() })
	defer patience.Stop()

	ended := map[string][]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		t.Log(lines.Text())
		var e struct {
			Msg, Job string
			Nodes    map[string]int
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Msg != "run ended" {
			continue
		}
		var counts []string
		for _, status := range slices.Sorted(maps.Keys(e.Nodes)) {
			counts = append(counts, fmt.Sprint(e.Nodes[status], " ", status))
		}
		ended[e.Job] = append(ended[e.Job], strings.Join(counts, ", "))
		if len(ended["testtask"]) == 2 && len(ended["mountstorage"]) == 2 {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("loomd ended: %v", err)
	}
	for job, want := range map[string][]string{
		"testtask":     {"4 ok", "4 ok"},
		"mountstorage": {"1 changed, 1 skipped", "1 ok, 1 skipped"},
	} {
		if !slices.Equal(ended[job], want) {
			t.Errorf("%s ended %q, want %q", job, ended[job], want)
		}
	}
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
