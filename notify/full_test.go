package notify_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/smalldisk"
)

// soon waits for what comes by itself.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// News that a full disk can't keep are sent all the same, and are kept by themselves
// once there is room, so that the next process has them too.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name  string
		waits bool // for it to be kept before the end
	}{{"room", true}, {"room at the end", false}} {
		t.Run(tt.name, func(t *testing.T) {
			state := t.TempDir()
			smalldisk.Mount(t, state, "1m")
			var up atomic.Bool
			requests := make(chan string, 10)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !up.Load() {
					w.Header().Set("Retry-After", "3600") // so that nothing else is written down meanwhile
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				requests <- r.Header.Get("webhook-id")
			}))
			t.Cleanup(s.Close)
			m := manifest(t, fmt.Sprintf("  hook: {webhook: '%s', default: true}\n", s.URL))
			c := start(t, m, state)
			soon(t, "the journal is there", func() bool {
				_, err := os.Stat(filepath.Join(state, "outbox", "journal"))
				return err == nil
			})
			if since, err := c.Health(); err != nil || !since.IsZero() {
				t.Errorf("before: %v, %v", since, err)
			}
			free := smalldisk.Fill(t, state)
			c.run("a", "r1", loom.StatusFailed, slices.Repeat([]string{strings.Repeat("x", 1000)}, 50)...) // more than is left of the journal's last page
			first := next(t, requests)
			since, err := c.Health()
			if err == nil || !strings.Contains(err.Error(), "no space left on device") || since.IsZero() {
				t.Errorf("with the disk full: %v, %v", since, err)
			}
			soon(t, "it is noted that it was tried", func() bool { return c.Standings()[0].Attempts == 1 })
			if _, err := os.Stat(filepath.Join(state, "outbox", "journal.new")); err == nil {
				t.Error("what could not be written takes up the room that there is")
			}
			free()
			if tt.waits {
				soon(t, "it is kept", func() bool { _, err := c.Health(); return err == nil })
				if s := one(t, m, state); s.Pending != 1 {
					t.Errorf("on the disk is %+v", s)
				}
			}
			c.stop()
			up.Store(true)
			start(t, m, state)
			if again := next(t, requests); again == "" || again != first {
				t.Errorf("the IDs are %q and %q", first, again)
			}
		})
	}
}

// What can't be read of an outbox is left for people to look at, not written over.
func TestUnreadableOutbox(t *testing.T) {
	state := t.TempDir()
	journal := filepath.Join(state, "outbox", "journal")
	if err := os.MkdirAll(journal, 0o700); err != nil { // a directory can be opened and not read, by root too
		t.Fatal(err)
	}
	url, requests := listen(t, nil)
	c := start(t, manifest(t, fmt.Sprintf("  hook: {webhook: '%s', default: true}\n", url)), state)
	c.run("a", "r1", loom.StatusFailed)
	next(t, requests)
	if _, err := c.Health(); err != nil {
		t.Error(err)
	}
	if i, err := os.Stat(journal + ".unreadable"); err != nil || !i.IsDir() {
		t.Errorf("what could not be read: %v", err)
	}
}
