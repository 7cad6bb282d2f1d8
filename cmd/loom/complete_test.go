package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/dustinlacewell/loom/internal/sshd"
)

// fleet are files of a daemon that has names to complete.
func fleet() map[string]string {
	return map[string]string{
		".loom/loom.yaml":   "nodesfile: nodes.yaml\njobspath: jobs\nstate: state\n",
		".loom/nodes.yaml":  "web1: {transport: local, groups: [frontend]}\nweb2: {transport: local, groups: [frontend]}\nstorage: {transport: local}\n",
		".loom/jobs/a.yaml": "jobs:\n  backup-nightly: {task: run, args: ['true'], schedule: manual, targets: storage, description: save it, labels: {team: ops}}\n  deploy: {task: run, args: ['true'], schedule: manual, targets: '@frontend'}\n",
	}
}

// home makes a home directory with files in it. Its name is short, as that of a
// socket must be.
func home(t testing.TB, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the test may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// environment is that of a process with a home.
func environment(home string, more ...string) []string {
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, ".config"), "XDG_DATA_HOME=" + filepath.Join(home, ".local"),
		"PATH=" + os.Getenv("PATH"), "TERM=xterm", "LANG=C.UTF-8", "TZ=UTC", "GORACE=atexit_sleep_ms=0", "SSH_AUTH_SOCK="}
	return append(env, more...)
}

// serving runs a daemon until the test ends, and returns when it answers.
func serving(t testing.TB, home string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "loomd", "--state", filepath.Join(home, ".loom/state"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Env = environment(home)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("daemon:\n%s", log.String())
		}
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		if _, err := loom(t, home, "runs"); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("the daemon does not answer: %v", err)
		}
	}
}

// loom runs loom in a home, and returns what it prints.
func loom(t testing.TB, home string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "loom", args...)
	cmd.Env = environment(home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A terminal has a program running on it, which is looked at.
type terminal struct {
	t    *testing.T
	tty  *os.File
	mu   sync.Mutex
	seen strings.Builder
	more chan struct{}
}

// interactive starts a program on a terminal.
func interactive(t *testing.T, home string, args ...string) *terminal {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env, cmd.Dir = environment(home), home
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 160})
	if err != nil {
		t.Fatal(err)
	}
	s := &terminal{t: t, tty: tty, more: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.seen.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		_ = tty.Close()
		<-done
	})
	return s
}

// enter types text.
func (s *terminal) enter(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.tty, text); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits until the screen shows a text after so much of it, and returns where it
// ends.
func (s *terminal) wait(after int, text string) int {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		all := plain(s.seen.String())
		s.mu.Unlock()
		after = min(after, len(all))
		if i := strings.Index(all[after:], text); i >= 0 {
			return after + i + len(text)
		}
		select {
		case <-s.more:
		case <-deadline:
			s.t.Fatalf("the screen does not show %q:\n%s", text, all[after:])
		}
	}
}

// plain is what a terminal shows of a text, near enough.
func plain(text string) string {
	text = regexp.MustCompile(`\x1b(\[[0-9;?>=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[=>78])`).ReplaceAllString(text, "")
	return strings.NewReplacer("\x0f", "", "\x07", "", "\r", "").Replace(text)
}

// TestCompletion completes words in real shells, as people do: by typing, pressing
// Tab and looking at the screen.
func TestCompletion(t *testing.T) {
	t.Parallel()
	sshd.Need(t, "bash", "zsh", "fish")
	dir := home(t, fleet())
	serving(t, dir)
	if out, err := loom(t, dir, "run", "deploy", "--detach"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id, err := loom(t, dir, "runs", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	id = strings.TrimSpace(id)
	if out, err := loom(t, dir, "context", "add", "faraway", "--server", "unix:"+dir+"/.loom/state/loomd.sock"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cases := []struct{ typed, want string }{
		{"loom ver", "loom version"},
		{"loom run back", "loom run backup-nightly"},
		{"loom disable dep", "loom disable deploy"},
		{"loom runs --job back", "loom runs --job backup-nightly"},
		{"loom exec sto", "loom exec storage"},
		{"loom exec web1,sto", "loom exec web1,storage"},
		{"loom exec @fr", "loom exec @frontend"},
		{"loom tasks unm", "loom tasks unmount"},
		{"loom logs " + id[:20], "loom logs " + id},
		{"loom runs --status can", "loom runs --status cancelled"},
		{"loom runs -o na", "loom runs -o name"},
		{"loom context use far", "loom context use faraway"},
		{"loom --context far", "loom --context faraway"},
		{"loom import ansi", "loom import ansible-inventory"},
		{"loom completion fi", "loom completion fish"},
	}
	bash := []string{"--norc", "--noprofile", "-i"}
	for _, shell := range []struct {
		name  string
		args  []string
		setup string
	}{
		{"bash", bash, "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; source /usr/share/bash-completion/bash_completion; source <(loom completion bash)"},
		{"zsh", []string{"-f", "-i"}, "unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; source <(loom completion zsh)"},
		{"fish", []string{"--no-config", "-i"}, "loom completion fish | source"},
	} {
		t.Run(shell.name, func(t *testing.T) {
			if shell.name == "bash" {
				if _, err := os.Stat("/usr/share/bash-completion/bash_completion"); err != nil {
					if os.Getenv("CI") != "" {
						t.Fatal(err)
					}
					t.Skipf("NOT TESTED: completion in bash: %v", err)
				}
			}
			s := interactive(t, dir, append([]string{shell.name}, shell.args...)...)
			prompt := "PS1='ready$ '"
			if shell.name == "fish" {
				prompt = "function fish_prompt; echo 'ready$ '; end; function fish_right_prompt; end; set -g fish_autosuggestion_enabled 0"
			}
			s.enter(shell.setup + "; " + prompt + "; printf '%s-%s\\n' set up\n")
			seen := s.wait(s.wait(0, "set-up"), "ready$ ")
			for i, c := range cases {
				s.enter(c.typed + "\t")
				seen = s.wait(seen, strings.TrimPrefix(c.want, c.typed))
				s.enter(fmt.Sprintf("\x15printf '<%%s>\\n' %d\n", i)) // away with the line
				seen = s.wait(s.wait(seen, fmt.Sprintf("<%d>", i)), "ready$ ")
			}
			// Several that fit are listed.
			s.enter("loom exec web\t\t")
			s.wait(seen, "web2")
		})
	}
}

// BenchmarkComplete is how long it takes to complete the name of a job, of a
// thousand, from a live daemon: what stands between Tab and the word.
func BenchmarkComplete(b *testing.B) {
	files := fleet()
	var jobs strings.Builder
	jobs.WriteString("jobs:\n")
	for i := range 1000 {
		fmt.Fprintf(&jobs, "  job-%04d: {task: run, args: ['true'], schedule: '@daily', targets: all}\n", i)
	}
	files[".loom/jobs/many.yaml"] = jobs.String()
	dir := home(b, files)
	serving(b, dir)
	for b.Loop() {
		if out, err := loom(b, dir, "__complete", "run", "job-01"); err != nil || strings.Count(out, "job-01") != 100 {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
