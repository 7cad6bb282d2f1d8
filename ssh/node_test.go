package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

// Whatever the login shell and its start-up files do, either our shell runs or
// an error says that it did not.
func TestLoginShells(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	text := `echo "it's" '$HOME'; echo oops >&2; test -n "$BASH_VERSION$FISH_VERSION$tcsh" && echo wrong shell; exit 3`
	for _, shell := range []string{"/usr/bin/fish", "/bin/tcsh", "/bin/csh", "/bin/bash", "/bin/sh", "/bin/zsh"} {
		t.Run(filepath.Base(shell), func(t *testing.T) {
			sshd.Need(t, shell)
			u := sshd.NewUser(t, shell, "")
			c := dial(t, dialer(t, s.KnownHosts), node(s, u.Username))
			for range 2 {
				out, errs, err := run(t, c, loom.Command{Text: text})
				exit := (*loom.ExitError)(nil)
				if !errors.As(err, &exit) || exit.Code != 3 || out != "it's $HOME\n" || errs != "oops\n" {
					t.Errorf("got %q, %q, %v", out, errs, err)
				}
			}
		})
	}
	for _, tt := range []struct {
		name, shell, rc string
		runs            bool
		says            string
	}{
		{"noise", "/bin/bash", "echo welcome; echo warning >&2; printf 'no newline'", true, ""},
		{"exit 3", "/bin/bash", "echo go away; exit 3", false, "exit status 3"},
		{"exit 0", "/bin/bash", "exit 0", false, "said nothing"},
		{"nologin", "/usr/sbin/nologin", "", false, "not available"},
		{"false", "/bin/false", "", false, "exit status 1"},
		{"restricted", "/bin/rbash", "", false, "restricted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sshd.Need(t, tt.shell)
			u := sshd.NewUser(t, tt.shell, "")
			if err := os.WriteFile(filepath.Join(u.HomeDir, ".bashrc"), []byte(tt.rc+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			c := dial(t, dialer(t, s.KnownHosts), node(s, u.Username))
			for range 2 {
				out, errs, err := run(t, c, loom.Command{Text: "echo ran"})
				if tt.runs {
					if out != "ran\n" || errs != "" || err != nil {
						t.Errorf("got %q, %q, %v", out, errs, err)
					}
					continue
				}
				e := (*Error)(nil)
				if !errors.As(err, &e) || e.Class != ClassShell || !errors.Is(err, loom.ErrUnreachable) || !strings.Contains(err.Error(), tt.says) || out != "" {
					t.Errorf("got %q, %q, %v", out, errs, err)
				}
				t.Log(err)
			}
		})
	}
}

func TestForcedCommand(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{After: []string{"ForceCommand echo only this"}})
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	_, _, err := run(t, c, loom.Command{Text: "echo ran"})
	if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassShell || !strings.Contains(err.Error(), "only this") {
		t.Errorf("got %v", err)
	}
}

func TestStdin(t *testing.T) {
	t.Parallel()
	for _, sessions := range []int{1, 10} {
		s := sshd.Start(t, sshd.Options{Lines: []string{fmt.Sprint("MaxSessions ", sessions)}})
		c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
		data := make([]byte, 10<<20)
		_, _ = rand.Read(data)
		out, _, err := run(t, c, loom.Command{Text: "cat", Stdin: bytes.NewReader(data)})
		if err != nil || out != string(data) {
			t.Errorf("10 MB with %d sessions: %d bytes, %v", sessions, len(out), err)
		}
		// Many at once need two sessions each.
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				out, _, err := run(t, c, loom.Command{Text: "cat; exit 9", Stdin: strings.NewReader(fmt.Sprint(i))})
				exit := (*loom.ExitError)(nil)
				if out != fmt.Sprint(i) || !errors.As(err, &exit) || exit.Code != 9 {
					t.Errorf("%d: %q, %v", i, out, err)
				}
			})
		}
		wg.Wait()
		// A reader that never ends does not hold a command up that does not read.
		r, w := io.Pipe()
		if _, _, err := run(t, c, loom.Command{Text: "exit 0", Stdin: r}); err != nil {
			t.Error(err)
		}
		_ = w.Close()
	}
}

func TestMaxSessions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ allows, preset int }{{1, 0}, {1, 1}, {3, 0}, {10, 2}} {
		s := sshd.Start(t, sshd.Options{Lines: []string{fmt.Sprint("MaxSessions ", tt.allows)}})
		n := node(s, me())
		n.MaxSessions = tt.preset
		c := dial(t, dialer(t, s.KnownHosts), n)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if out, _, err := run(t, c, loom.Command{Text: fmt.Sprint("sleep .1; echo ", i)}); out != fmt.Sprintln(i) {
					t.Errorf("MaxSessions %d, preset %d, command %d: %q, %v", tt.allows, tt.preset, i, out, err)
				}
			})
		}
		wg.Wait()
		if n := strings.Count(s.Log(), "Accepted publickey"); n > mostLinks {
			t.Errorf("MaxSessions %d: %d connections", tt.allows, n)
		}
	}
	t.Run("none", func(t *testing.T) {
		s := sshd.Start(t, sshd.Options{Lines: []string{"MaxSessions 0"}})
		c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
		_, _, err := run(t, c, loom.Command{Text: "true"})
		if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassSession || !errors.Is(err, loom.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	})
}

// A server that takes three connections at a time is reached by thirty.
func TestMaxStartups(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{Lines: []string{"MaxStartups 3"}})
	d := dialer(t, s.KnownHosts)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			n := node(s, me())
			n.Name = fmt.Sprint("n", i)
			c, err := d.Dial(t.Context(), n)
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.Exec(t.Context(), loom.Command{Text: "true"}); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		})
	}
	wg.Wait()
}

// A background child that keeps the output open does not hold the command up,
// and lives on.
func TestBackground(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	w := word()()
	out, _, err := run(t, c, loom.Command{Text: "echo a; sleep " + w + " & exit 4"})
	exit := (*loom.ExitError)(nil)
	if out != "a\n" || !errors.As(err, &exit) || exit.Code != 4 {
		t.Errorf("got %q, %v", out, err)
	}
	if left(t, w) == "" {
		t.Error("the child is gone")
	}
	_, _, _ = run(t, c, loom.Command{Text: "pkill -f 'sleep " + w + "'"})
	gone(t, w)
}

// A connection that broke while nothing ran is opened again, unseen.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	p := newProxy(t, s.Addr())
	d := dialer(t, "")
	d.HostKeys = loom.HostKeysOff
	c := dial(t, d, p.behind(s, me()))
	for range 3 {
		if out, _, err := run(t, c, loom.Command{Text: "echo hello"}); out != "hello\n" {
			t.Fatal(out, err)
		}
		l := c.(*conn).links[0]
		p.cut()
		<-l.dead
	}
}

// A network that swallows everything is noticed by the missing signs of life,
// and what it has left on the node is ended when it is back.
func TestSilence(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	p := newProxy(t, s.Addr())
	d := dialer(t, "")
	d.HostKeys, d.Keepalive = loom.HostKeysOff, 300*time.Millisecond
	n := p.behind(s, me())
	c := dial(t, d, n)
	w := word()()
	up := newWaiter()
	done := make(chan error, 1)
	go func() {
		done <- c.Exec(t.Context(), loom.Command{Text: "echo up; setsid sleep " + w + " & sleep " + w, Stdout: up})
	}()
	<-up.came
	p.silence()
	err := <-done
	if !errors.Is(err, loom.ErrLost) {
		t.Errorf("got %v, want one that is lost", err)
	}
	t.Log(err)
	if left(t, w) == "" {
		t.Error("the node has noticed, so this shows nothing")
	}
	if out, _, err := run(t, c, loom.Command{Text: "echo back"}); out != "back\n" {
		t.Error(out, err)
	}
	gone(t, w)
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	c, err := dialer(t, s.KnownHosts).Dial(t.Context(), node(s, me()))
	if err != nil {
		t.Fatal(err)
	}
	up, w := newWaiter(), word()()
	done := make(chan error, 1)
	go func() {
		done <- c.Exec(context.WithoutCancel(t.Context()), loom.Command{Text: "echo up; sleep " + w, Stdout: up})
	}()
	<-up.came
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, loom.ErrLost) {
		t.Errorf("what ran: %v, want one that is lost", err)
	}
	if _, _, err := run(t, c, loom.Command{Text: "true"}); !errors.Is(err, loom.ErrUnreachable) {
		t.Errorf("afterwards: %v, want one that is unreachable", err)
	}
	gone(t, w)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
