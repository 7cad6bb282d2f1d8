package cli

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/dustinlacewell/loom"
)

// A screen is a terminal of 60 columns, and what was written to it.
type screen struct {
	tty  *os.File
	keys *os.File // what is typed goes there
	mu   sync.Mutex
	text strings.Builder
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	s := &screen{tty: tty, keys: master}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		tty.Close()
		master.Close()
		wg.Wait()
	})
	return s
}

// until waits until the screen shows a text, and returns all that was written.
func (s *screen) until(t *testing.T, text string) string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		s.mu.Lock()
		all := s.text.String()
		s.mu.Unlock()
		if strings.Contains(all, text) {
			return all
		}
		if time.Now().After(deadline) {
			t.Errorf("the screen never shows %q:\n%q", text, all) // perhaps in a goroutine of a task, so it must not end there
			return all
		}
	}
}

// press types on the keyboard.
func (s *screen) press(keys string) { _, _ = s.keys.WriteString(keys) }

// calm waits until the last that was drawn does not show a text, and forgets all
// that was written.
func (s *screen) calm(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		s.mu.Lock()
		all := s.text.String()
		at := strings.LastIndex(all, "\r\x1b[")
		if at >= 0 && !strings.Contains(all[at:], text) && strings.HasSuffix(all, "\x1b[J") {
			s.text.Reset()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if time.Now().After(deadline) {
			t.Errorf("the screen never loses %q:\n%q", text, all)
			return
		}
	}
}

// watch runs a task with the view of a terminal.
func watch(t *testing.T, out io.Writer, s *screen, mode viewMode, task loom.TaskFunc, targets ...string) {
	t.Helper()
	v := newView(out, s.tty, mode, len(targets), targets...)
	pool := &loom.Pool{}
	defer pool.Close()
	still := animate(v)
	_ = pool.Run(t.Context(), &loom.Job{Name: "j", Task: task, Targets: nodes(targets...)}, time.Now(), v.observe)
	still()
	v.end()
}

func TestStatusLine(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	s := newScreen(t)
	watch(t, io.Discard, s, viewGrouped, func(_ context.Context, sess *loom.Session) error {
		switch sess.Node.Name {
		case "n1":
			return io.ErrUnexpectedEOF
		case "n2":
			s.until(t, "1/3 done, 1 failed, 0s")
		case "n3":
			s.until(t, "n2, n3 (2)")
		}
		return nil
	}, "n1", "n2", "n3")
	all := s.until(t, "3 nodes in")
	if last := strings.LastIndex(all, "\x1b[J"); last < 0 || last < strings.LastIndex(all, "done") {
		t.Errorf("the block stays:\n%q", all)
	}
}

func TestOutputIsHarmlessOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	hostile := func(ctx context.Context, s *loom.Session) error {
		return s.Run(ctx, `printf '\033]0;owned\007\033[2Jx\n'`)
	}
	for name, mode := range map[string]viewMode{"plain": viewPlain, "stream": viewStream, "grouped": viewGrouped} {
		t.Run(name, func(t *testing.T) {
			s := newScreen(t)
			watch(t, s.tty, s, mode, hostile, "n1")
			all := s.until(t, "^[]0;owned^G^[[2Jx")
			if strings.Contains(all, "\x1b]0") || strings.Contains(all, "\x1b[2J") {
				t.Errorf("control characters of the node reach the terminal:\n%q", all)
			}
		})
	}
}

func TestColours(t *testing.T) {
	hello := func(ctx context.Context, s *loom.Session) error { return s.Run(ctx, "echo hello") }
	for _, tt := range []struct {
		noColor, term string
		want          bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", tt.term)
		s := newScreen(t)
		watch(t, s.tty, s, viewStream, hello, "n1", "n2")
		all := s.until(t, "2 nodes in")
		if got := strings.Contains(all, "\x1b[36mn1 |\x1b[0m hello"); got != tt.want {
			t.Errorf("NO_COLOR=%q TERM=%s: colours %v, want %v:\n%q", tt.noColor, tt.term, got, tt.want, all)
		}
	}
}
