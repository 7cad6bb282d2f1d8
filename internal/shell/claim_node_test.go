package shell

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// on returns a Start whose shell is another one, or has other variables.
func on(words ...string) Start {
	return func(ctx context.Context, _ string) (Process, error) {
		return Local(ctx, strings.Join(words, " "))
	}
}

// attached is what an attach script says.
type attached struct {
	Out, Err string
	Frames   []string
}

func attach(t *testing.T, start Start, c Claim) attached {
	t.Helper()
	c.Nonce = newNonce()
	var out, errs bytes.Buffer
	var got attached
	note := func(w []string) { got.Frames = append(got.Frames, strings.Join(w, " ")) }
	o := Frames{Nonce: c.Nonce, To: &out, Frame: note}
	e := Frames{Nonce: c.Nonce, To: &errs, Frame: note}
	if _, err := Run(t.Context(), start, Command{Text: c.Script(), Stdout: &o, Stderr: &e}, nil); err != nil {
		t.Errorf("attach: %v", err)
	}
	got.Out, got.Err = out.String(), errs.String()
	return got
}

// without returns a PATH that has all of this machine's programs but one.
func without(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	for _, from := range []string{"/usr/bin", "/bin"} {
		entries, err := os.ReadDir(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != name {
				_ = os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name()))
			}
		}
	}
	return dir
}

// applets returns a PATH that has the programs of busybox only.
func applets(t *testing.T, busybox string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command(busybox, "--install", "-s", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// Whatever shell stands for sh on a node, and whatever it lacks, a claim says the
// same, once started and once attached to, and its end is the end of all of it.
func TestClaimOnNodes(t *testing.T) {
	for _, tt := range []struct {
		name, needs string
		start       func(t *testing.T, need string) Start
	}{
		{"this machine", "sh", func(*testing.T, string) Start { return Local }},
		{"bash", "bash", func(_ *testing.T, p string) Start { return on("/usr/bin/env", p) }},
		{"bash as sh", "bash", func(_ *testing.T, p string) Start { return on("/usr/bin/env", p, "--posix") }},
		{"busybox", "busybox", func(t *testing.T, p string) Start {
			t.Helper()
			return on("/usr/bin/env", "PATH="+applets(t, p), p, "sh")
		}},
		{"no setsid", "sh", func(t *testing.T, p string) Start {
			t.Helper()
			return on("/usr/bin/env", "PATH="+without(t, "setsid"), p)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			need, err := exec.LookPath(tt.needs)
			if err != nil {
				t.Skipf("NOT TESTED: this machine has no %s", tt.needs)
			}
			start := tt.start(t, need)
			name := fmt.Sprintf("node-%s-%d", strings.ReplaceAll(tt.name, " ", "-"), os.Getpid())
			t.Cleanup(func() {
				_, _ = Run(context.WithoutCancel(t.Context()), Local, Command{Text: Forget([]string{name + "-1", name + "-2", name + "-3"})}, nil)
			})

			c := Claim{Name: name + "-1", Limit: time.Minute, Command: Command{Text: `printf 'a\0b\377'; cat; echo oops >&2; exit 7`, Stdin: NewInput([]byte("in\\put\n"))}}
			want := attached{Out: "a\x00b\xffin\\put\n", Err: "oops\n", Frames: []string{"new", "exit 7 - -"}}
			for _, word := range []string{"new", "old"} {
				want.Frames[0] = word
				if got := attach(t, start, c); got.Out != want.Out || got.Err != want.Err || !slices.Equal(got.Frames, want.Frames) {
					t.Errorf("%s:\n got %q\nwant %q", word, got, want)
				}
			}

			c = Claim{Name: name + "-2", Command: Command{Text: "kill -s TERM $$; sleep 9"}}
			if got := attach(t, start, c); !slices.Equal(got.Frames, []string{"new", "exit 143 TERM -"}) {
				t.Errorf("a signal: %q", got)
			}

			mark := fmt.Sprintf("47%d.%d", len(tt.name), os.Getpid())
			c = Claim{Name: name + "-3", Limit: time.Second, Command: Command{Text: "echo up; sleep " + mark + " & sleep " + mark}}
			got := attach(t, start, c)
			if got.Out != "up\n" || len(got.Frames) != 2 || !strings.HasSuffix(got.Frames[1], " limit") {
				t.Errorf("its limit: %q", got)
			}
			if s := left(t, mark); s != "" {
				t.Errorf("still there:\n%s", s)
			}
		})
	}
}

// What nobody has asked for in a week is deleted, and what is new or still goes on
// is not; and a node that was swept is left alone for some hours.
func TestClaimSweep(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	dir := filepath.Join(state, "loom")
	start := on("/usr/bin/env", "XDG_STATE_HOME="+state, "/bin/sh")
	old := time.Now().Add(-9 * 24 * time.Hour)
	put := func(name, text string, at time.Time) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	sweep := func(name string) {
		t.Helper()
		attach(t, start, Claim{Name: name, Sweep: true, Command: Command{Text: "true"}})
	}
	stays := func(name string) bool {
		files, _ := filepath.Glob(filepath.Join(dir, name+".*"))
		return len(files) > 0
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip("NOT TESTED: this machine has no /proc")
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	alive := fmt.Sprintf("%s %d %s key\n", strings.TrimSpace(string(boot)), os.Getpid(), strings.Fields(rest)[19])
	put("going-1.c", alive, old)
	put("dead-1.c", "another-boot 1 1 key\n", old)
	put("old-1.c", alive, old)
	put("old-1.x", "0 - - end\n", old)
	put("old-1.o.0", "output\n", old)
	put("new-1.c", alive, time.Now())
	put("new-1.x", "0 - - end\n", time.Now())

	sweep("first")
	until(t, func() bool { return !stays("old-1") && !stays("dead-1") })
	for _, name := range []string{"going-1", "new-1", "first"} {
		if !stays(name) {
			t.Errorf("%s is gone", name)
		}
	}

	// Somebody has just looked; and then that is hours ago, or in the future.
	put("old-2.x", "0 - - end\n", old)
	put("swept", "", time.Now().Add(-time.Hour))
	before := swept(t, dir)
	attach(t, start, Claim{Name: "second", Sweep: true, Forget: []string{"first"}, Command: Command{Text: "true"}})
	until(t, func() bool { return !stays("first") })
	if !stays("old-2") || !swept(t, dir).Equal(before) {
		t.Error("swept again at once")
	}
	for i, at := range []time.Time{time.Now().Add(-7 * time.Hour), time.Now().Add(time.Hour)} {
		put("old-2.x", "0 - - end\n", old)
		put("swept", "", at)
		sweep(fmt.Sprintf("later-%d", i))
		until(t, func() bool { return !stays("old-2") })
	}
}

// swept returns when old claims were last looked for.
func swept(t *testing.T, dir string) time.Time {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "swept"))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// until waits for what a process of another session does.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		<-tick.C
	}
}
