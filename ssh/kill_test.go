package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

// shapes are commands that are hard to end: WORD marks their processes.
var shapes = []struct{ name, text string }{
	{"plain", "sleep WORD"},
	{"background", "sleep WORD & sleep WORD & wait"},
	{"setsid", "setsid sleep WORD & sleep WORD"},
	{"deaf", "trap '' TERM; sleep WORD; sleep WORD; sleep WORD"},
	{"deaf and setsid", `nohup setsid sh -c "trap '' TERM; sleep WORD; sleep WORD" >/dev/null 2>&1 & sleep WORD`},
	{"busy", ": WORD; while :; do :; done"},
}

// A waiter is an io.Writer that tells when something was written.
type waiter struct {
	mu   sync.Mutex
	b    bytes.Buffer
	once sync.Once
	came chan struct{}
}

func newWaiter() *waiter { return &waiter{came: make(chan struct{})} }

func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.once.Do(func() { close(w.came) })
	return w.b.Write(p)
}

// gone waits until no process carries the word.
func gone(tb testing.TB, word string) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		s := left(tb, word)
		if s == "" {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("still there:\n%s", s)
		}
	}
}

// word returns a number of seconds that no other test sleeps for.
var word = sync.OnceValue(func() func() string {
	var mu sync.Mutex
	n := 0
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		n++
		return fmt.Sprintf("9%d.%04d", os.Getpid(), n)
	}
})

// TestEnd ends commands in every way, as every kind of user, and looks whether
// something is left of them.
func TestEnd(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{Lines: []string{"MaxSessions 100"}})
	plain := sshd.NewUser(t, "/bin/bash", "").Username
	free := sshd.NewUser(t, "/bin/sh", "").Username
	asked := sshd.NewUser(t, "/bin/bash", "open sesame").Username
	sshd.Sudo(t, free, false, "Defaults:"+free+" !use_pty")
	sshd.Sudo(t, asked, true, "Defaults:"+asked+" use_pty")
	ways := []string{"cancel", "cut", "kill sshd"}
	for k, u := range []struct {
		name, login, user string
		password          loom.Secret
	}{
		{"root", localUser(), "", ""},
		{"user", plain, "", ""},
		{"sudo", free, "root", ""},
		{"sudo with password", asked, "root", "open sesame"},
	} {
		// Each shape in another way with each user; and with and without input.
		// Not t.Parallel, which runs only as many as there are processors.
		var wg sync.WaitGroup
		for i, shape := range shapes {
			how := ways[(i+k)%len(ways)]
			wg.Go(func() {
				t.Run(u.name+"/"+how+"/"+shape.name, func(t *testing.T) {
					end(t, s, how, u.login, loom.Command{Text: shape.text, User: u.user, Password: u.password}, (i+k/2)%2 == 1, false)
				})
			})
		}
		wg.Wait()
	}
}

// TestEndWatched does so over a connection that was used before, where one sentry
// watches over all commands.
func TestEndWatched(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{Lines: []string{"MaxSessions 100"}})
	user := sshd.NewUser(t, "/bin/bash", "").Username
	for i, how := range []string{"cancel", "cut", "kill sshd"} {
		var wg sync.WaitGroup
		for k, shape := range shapes {
			login := []string{localUser(), user}[(i+k)%2]
			wg.Go(func() {
				t.Run(how+"/"+shape.name, func(t *testing.T) {
					end(t, s, how, login, loom.Command{Text: shape.text}, false, true)
				})
			})
		}
		wg.Wait()
	}
}

func end(t *testing.T, s *sshd.Server, how, login string, cmd loom.Command, stdin, watched bool) {
	t.Helper()
	w := word()()
	p := newProxy(t, s.Addr())
	d := dialer(t, "")
	d.HostKeys = loom.HostKeysOff
	c := dial(t, d, p.behind(s, login))
	if watched {
		if _, _, err := run(t, c, loom.Command{Text: "true"}); err != nil {
			t.Fatal(err)
		}
		rested(t, c)
	}
	up := newWaiter()
	cmd.Text, cmd.Stdout = "echo $PPID; "+strings.ReplaceAll(cmd.Text, "WORD", w), up
	if strings.Contains(cmd.Text, "while :") { // then there is no process but the shell, so give it a name
		cmd.Shell = "/bin/sh"
	}
	if stdin {
		cmd.Stdin = strings.NewReader("some input\n")
	}
	why := errors.New("why not")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- c.Exec(ctx, cmd) }()
	select {
	case <-up.came:
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	}
	if left(t, w) == "" {
		t.Log("not seen yet")
	}
	if l := c.(*conn).links[0]; watched {
		for l.sentry.Watched() == 0 {
			time.Sleep(time.Millisecond) //nolint:forbidigo // there is nothing to wait on
		}
		_ = l.ping(time.Minute) // now the server has it
	}
	switch how {
	case "cancel":
		cancel(why)
		if err := <-done; !errors.Is(err, why) || err.Error() != why.Error() {
			t.Errorf("error %v, want %v", err, why)
		}
		if s := left(t, w); s != "" {
			t.Errorf("still there when Exec returned:\n%s", s)
		}
		if out, _, err := run(t, c, loom.Command{Text: "echo next"}); out != "next\n" {
			t.Errorf("then: %q, %v", out, err)
		}
	case "cut":
		p.cut()
		if err := <-done; !errors.Is(err, loom.ErrLost) || errors.Is(err, loom.ErrUnreachable) {
			t.Errorf("error %v, want one that is lost", err)
		}
		gone(t, w)
	case "kill sshd":
		// Only our own connection's: its socket's other end is the proxy's.
		out, _, err := run(t, c, loom.Command{Text: "echo $PPID"})
		var pid int
		if _, serr := fmt.Sscan(out, &pid); err != nil || serr != nil {
			t.Fatal(out, err, serr)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		if err := <-done; !errors.Is(err, loom.ErrLost) {
			t.Errorf("error %v, want one that is lost", err)
		}
		gone(t, w)
	}
}
