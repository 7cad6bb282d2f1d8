package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/smalldisk"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/notify"
)

// A heard is news as a webhook gets them.
type heard struct {
	ID   string
	Data notify.News
}

// hook is a webhook that takes news, unless it is not to.
func hook(t *testing.T) (url string, got <-chan heard, refuse *atomic.Bool) {
	t.Helper()
	c := make(chan heard, 100)
	refuse = new(atomic.Bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var h heard
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
			t.Error(err)
		}
		if refuse.Load() {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		c <- h
	}))
	t.Cleanup(s.Close)
	return s.URL, c, refuse
}

// hear waits for the next news, which have to be of this kind.
func hear(t *testing.T, got <-chan heard, kind notify.Kind) heard {
	t.Helper()
	select {
	case h := <-got:
		if h.Data.Kind != kind {
			t.Fatalf("came %s: %s, want %s", h.Data.Kind, h.Data.Title, kind)
		}
		return h
	case <-time.After(30 * time.Second):
		t.Fatalf("no news of %s came", kind)
		panic("unreachable")
	}
}

// until waits for what comes by itself.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// say is what a command prints.
func say(t *testing.T, dir string, args ...string) string {
	t.Helper()
	var out safeBuffer
	if err := Run(t.Context(), Options{Name: "loomd"}, append(args, "-c", filepath.Join(dir, "loom.yaml")), nil, &out, &out); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return out.String()
}

// A full disk takes the store and the outbox away: it is told all the same, the
// status says so, and what nobody took meanwhile is kept once there is room.
func TestNewsOfAFullDisk(t *testing.T) {
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the test may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	smalldisk.Mount(t, state, "4m")
	url, got, _ := hook(t)
	deaf, late, refuse := hook(t)
	refuse.Store(true)
	write(t, dir, "loom.yaml", fmt.Sprintf("nodes: {a: {transport: local}}\njobspath: jobs\nstate: state\ngrace: 1s\nnotify:\n"+
		"  ops: {webhook: '%s', default: true}\n  deaf: {webhook: '%s', default: true, on: [manifest-broken]}\n", url, deaf),
		"jobs/jobs.yaml", "jobs: {tick: {task: echo, args: [hi], schedule: '* * * * * *', targets: a}}\n")
	stop, log := beginLogged(t, dir)
	c := &api.Client{Socket: filepath.Join(state, api.SocketFile)}
	log.until(t, "run ended")

	free := smalldisk.Fill(t, state)
	down := hear(t, got, notify.StoreDown)
	if !strings.Contains(down.Data.Reason, "full") {
		t.Errorf("the reason is %q", down.Data.Reason)
	}
	keys := "" // as many as are more than the journal's last page has room for
	for i := range 20 {
		keys += fmt.Sprintf("    %s%d: 1\n", strings.Repeat("x", 300), i)
	}
	write(t, dir, "jobs/broken.yaml", "jobs:\n  tock:\n"+keys)
	broken := hear(t, got, notify.ManifestBroken)
	log.until(t, "news are sent, but can't be kept")
	until(t, "the status tells of it", func() bool {
		s, err := c.Status(t.Context())
		return err == nil && s.Store.State == api.StoreDown && s.Outbox != nil && !s.Outbox.Since.IsZero() && strings.Contains(s.Outbox.Reason, "no space left")
	})
	if text := say(t, dir, "status"); !strings.Contains(text, "\nstore: DOWN since ") || !strings.Contains(text, "\nnews: NOT KEPT since ") {
		t.Errorf("the status is\n%s", text)
	}

	free()
	if back := hear(t, got, notify.StoreBack); !back.Data.Since.Equal(down.Data.Since) {
		t.Errorf("it is back since %v, and was down since %v", back.Data.Since, down.Data.Since)
	}
	log.until(t, "news that wait are kept again")
	until(t, "all is well", func() bool {
		s, err := c.Status(t.Context())
		return err == nil && s.Store.State == api.StoreOK && s.Outbox == nil
	})
	stop()
	refuse.Store(false)
	begin(t, dir)
	if again := hear(t, late, notify.ManifestBroken); again.ID != broken.ID {
		t.Errorf("who was not there got %s, not %s", again.ID, broken.ID)
	}
}

// A relay leads to a node, or does not.
type relay struct {
	t    *testing.T
	to   string
	addr string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	wg    sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{t: t, to: to, addr: "127.0.0.1:0"}
	r.up()
	t.Cleanup(r.down)
	return r
}

func (r *relay) up() {
	r.t.Helper()
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.l, r.addr = l, l.Addr().String()
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", r.to)
			if err != nil {
				_ = c.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, c, far)
			r.mu.Unlock()
			for _, way := range [][2]net.Conn{{c, far}, {far, c}} {
				r.wg.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				})
			}
		}
	})
}

// down has nobody answer any more, and breaks off what there was.
func (r *relay) down() {
	_ = r.l.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// Who asked for it hears once that a node is lost and once that it is back, also of
// a daemon that was started in between.
func TestNewsOfANode(t *testing.T) {
	s := sshd.Start(t, sshd.Options{})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	url, got, _ := hook(t)
	r := newRelay(t, s.Addr())
	host, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c, dir, stop := living(t, "jobs: {look: {task: sh, args: [uptime], schedule: manual, targets: far}}\n",
		fmt.Sprintf("nodes: {far: {ip: %s, port: %s, user: %s, identity: %s}}\nnotify:\n  ops: {webhook: '%s', default: true, on: [node-unreachable, node-back]}\n", host, port, me.Username, s.Identity, url))
	keys, err := c.HostKeys(t.Context(), "far")
	if err != nil || len(keys) != 1 {
		t.Fatalf("HostKeys = %+v, %v", keys, err)
	}
	if _, err := c.Trust(t.Context(), "far", keys[0].Fingerprint); err != nil {
		t.Fatal(err)
	}
	run := func(want loom.Status) {
		t.Helper()
		began, err := c.Trigger(t.Context(), "look", loom.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if end := await(t, c, began.ID); end.Counts[want] != 1 {
			t.Fatalf("the run ended %s: %v", end.Status, end.Counts)
		}
	}
	run(loom.StatusOK)
	r.down()
	run(loom.StatusUnreachable)
	gone := hear(t, got, notify.NodeUnreachable)
	if !slices.Equal(gone.Data.Nodes, []string{"far"}) || !strings.Contains(gone.Data.Reason, "refused") {
		t.Errorf("of the lost node came %+v", gone.Data)
	}
	run(loom.StatusUnreachable) // is no news
	stop()
	begin(t, dir)
	r.up()
	run(loom.StatusOK)
	if back := hear(t, got, notify.NodeBack); !slices.Equal(back.Data.Nodes, []string{"far"}) {
		t.Errorf("of the node that is back came %+v", back.Data)
	}
	run(loom.StatusOK)
}

// Whoever follows a daemon and comes back to the next one is told that there is a
// gap, and goes on; so does whoever comes back with the cursor of the earlier one
// when the next has told as much already.
func TestEventsAfterARestart(t *testing.T) {
	c, dir, stop := living(t, "jobs: {say: {task: echo, args: [hi], schedule: manual, targets: a}}\n", "nodes: {a: {transport: local}}\n")
	trigger := func() {
		t.Helper()
		began, err := c.Trigger(t.Context(), "say", loom.Request{})
		if err != nil {
			t.Fatal(err)
		}
		await(t, c, began.ID)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	events, ended := make(chan api.Event, 1000), make(chan error, 1)
	follow := func(ctx context.Context, after string, to chan<- api.Event, ended chan<- error) {
		ended <- c.Events(ctx, api.EventFilter{After: after}, func(e api.Event) error { to <- e; return nil })
	}
	go follow(ctx, "", events, ended)
	wait := func(from <-chan api.Event, kinds ...loom.Kind) (passed []loom.Kind, last api.Event) {
		t.Helper()
		late := time.After(30 * time.Second)
		for {
			select {
			case e := <-from:
				if slices.Contains(kinds, e.Kind) {
					return passed, e
				}
				passed = append(passed, e.Kind)
			case <-late:
				t.Fatalf("of %v came nothing, but %v", kinds, passed)
			}
		}
	}
	wait(events, api.KindHello)
	trigger()
	_, last := wait(events, loom.KindRunEnded)
	stop()
	begin(t, dir)
	for range 5 { // so that the new numbers reach the old one
		trigger()
	}
	// The follower has come back by itself.
	if passed, e := wait(events, api.KindReset); slices.Contains(passed, loom.KindRunEnded) || !strings.Contains(e.Text, "started anew") {
		t.Errorf("before it is told of the gap (%q) came %v", e.Text, passed)
	}
	trigger()
	wait(events, loom.KindRunEnded)
	enough := errors.New("enough")
	cancel(enough)
	if err := <-ended; !errors.Is(err, enough) {
		t.Error(err)
	}
	// Somebody else comes back later with a cursor of the earlier process.
	ctx, cancel = context.WithCancelCause(t.Context())
	later := make(chan api.Event, 1000)
	go follow(ctx, last.Cursor, later, ended)
	if passed, e := wait(later, api.KindReset); slices.Contains(passed, loom.KindRunEnded) || !strings.Contains(e.Text, "started anew") {
		t.Errorf("with the cursor %s came %v before it is told of the gap (%q)", last.Cursor, passed, e.Text)
	}
	trigger()
	wait(later, loom.KindRunEnded)
	cancel(enough)
	<-ended
}
