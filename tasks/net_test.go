package tasks_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

func TestPing(t *testing.T) {
	eachShell(t, func(t *testing.T, b *bench, _ string) {
		t.Helper()
		if changed, err := b.apply(t.Context(), tasks.Ping{}); err != nil || len(changed) > 0 {
			t.Fatalf("changed %q, %v", changed, err)
		}
		out := b.out.String()
		for _, want := range []string{"db1 answers in ", "Linux"} {
			if !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
				t.Errorf("printed %q, want a line with %q", out, want)
			}
		}
	})
}

func TestHostIP(t *testing.T) {
	// A node may have no getent, and then /etc/hosts is read.
	bare := t.TempDir()
	for _, name := range []string{"sh", "sed", "head", "cat"} {
		link(t, bare, name)
	}
	for name, path := range map[string]string{"getent": "", "no getent": bare} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, shellNode{home: t.TempDir(), path: path})
			if _, err := b.apply(t.Context(), tasks.HostIP{Hostname: "localhost"}); err != nil {
				t.Fatal(err)
			}
			if ip := net.ParseIP(strings.TrimSpace(b.out.String())); ip == nil || !ip.IsLoopback() {
				t.Errorf("localhost is %v", ip)
			}
			if _, err := b.apply(t.Context(), tasks.HostIP{Hostname: "nowhere.invalid"}); err == nil || !strings.Contains(err.Error(), "nowhere.invalid has no address") {
				t.Errorf("error is %v, want that there is no address", err)
			}
		})
	}
	for _, bad := range []string{"", "-x", "a b", "a\n"} {
		if err := (tasks.HostIP{Hostname: bad}).Validate(); err == nil {
			t.Errorf("%q passes for a name", bad)
		}
	}
}

// link makes a program of this machine available in a directory.
func link(t *testing.T, dir, name string) {
	t.Helper()
	for _, from := range []string{"/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/"} {
		if _, err := os.Stat(from + name); err == nil {
			if err := os.Symlink(from+name, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Skipf("this machine has no %s", name)
}

func TestWaitRefuses(t *testing.T) {
	tests := []struct {
		task tasks.Wait
		want string
	}{
		{tasks.Wait{}, "exactly one of port, file, url and command to wait for, not 0"},
		{tasks.Wait{Port: 1, File: "x"}, "not 2"},
		{tasks.Wait{File: "x", Host: "h"}, "host needs a port"},
		{tasks.Wait{Port: 70000}, "1 to 65535"},
		{tasks.Wait{Port: 1, Host: "-oProxyCommand=x"}, "host"},
		{tasks.Wait{URL: "ftp://x"}, "http://"},
		{tasks.Wait{URL: "http://"}, "http://"},
		{tasks.Wait{File: "x", State: "open"}, "up or down"},
		{tasks.Wait{File: "x", From: "here"}, "node or control"},
		{tasks.Wait{File: "x", Timeout: -1}, "negative"},
	}
	for _, tt := range tests {
		if err := tt.task.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate of %+v is %v, want %q", tt.task, err, tt.want)
		}
	}
}

// Each thing to wait for is told up from down, from both ends.
func TestWaitLooks(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	noPort := gone.Addr().(*net.TCPAddr).Port
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" {
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	defer web.Close()
	home := t.TempDir()
	file := write(t, home, "it's", "")

	tests := []struct {
		name     string
		up, down tasks.Wait
		last     string // what the error says of down
	}{
		{"port", tasks.Wait{Port: port}, tasks.Wait{Port: noPort}, "listen"},
		{"port of a host", tasks.Wait{Port: port, Host: "127.0.0.1"}, tasks.Wait{Port: noPort, Host: "127.0.0.1"}, ""},
		{"file", tasks.Wait{File: file}, tasks.Wait{File: file + "x"}, "exist"},
		{"url", tasks.Wait{URL: web.URL + "/ok"}, tasks.Wait{URL: web.URL + "/no"}, "503"},
		{"nothing at the url", tasks.Wait{URL: web.URL + "/ok"}, tasks.Wait{URL: "http://127.0.0.1:" + strconv.Itoa(noPort)}, ""},
		{"command", tasks.Wait{Command: "echo not printed; exit 0"}, tasks.Wait{Command: "exit 4"}, "exit status 4"},
	}
	// All at once, since half of them wait for their time to be up.
	const limit = 5 * time.Second
	var wg sync.WaitGroup
	check := func(name string, task tasks.Wait, wants ...string) {
		wg.Go(func() {
			b := newBench(t, shellNode{home: home})
			b.Node.Address = "127.0.0.1"
			task.Interval = limit
			_, err := b.apply(t.Context(), task)
			if len(wants) == 0 && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, want := range wants {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: error is %v, want %q", name, err, want)
				}
			}
			if out := b.out.String() + b.err.String(); out != "" {
				t.Errorf("%s: looking printed %q", name, out)
			}
		})
	}
	for _, from := range []string{"node", "control"} {
		for _, tt := range tests {
			name := from + " " + tt.name
			last := tt.last
			switch {
			case from == "control" && tt.down.Port != 0:
				last = "refused"
			case from == "control" && tt.down.File != "":
				last = "no such file"
			}
			up, down := tt.up, tt.down
			up.From, down.From = from, from
			check(name+", up", up)
			down.Timeout = limit
			check(name+", not up", down, "is not up after 5s", last)
			down.State, down.Timeout = "down", 0
			check(name+", down", down)
			up.State, up.Timeout = "down", limit
			check(name+", not down", up, "is not down after 5s: it is still up")
		}
	}
	wg.Wait()
}

// A node that has no means to look says so at once, rather than after the time
// is up.
func TestWaitCanNot(t *testing.T) {
	bare := t.TempDir()
	link(t, bare, "sh")
	b := newBench(t, shellNode{home: t.TempDir(), path: bare})
	for _, task := range []tasks.Wait{{URL: "http://127.0.0.1:1"}, {Port: 1, Host: "127.0.0.1"}} {
		if _, err := b.apply(t.Context(), task); err == nil || !strings.Contains(err.Error(), "write from: control") {
			t.Errorf("error is %v, want advice", err)
		}
	}
}

// A fakeNode answers each command by a function.
type fakeNode struct {
	loom.Conn
	exec func(ctx context.Context, c loom.Command) error
}

func (n fakeNode) Exec(ctx context.Context, c loom.Command) error { return n.exec(ctx, c) }

func TestWaitTimes(t *testing.T) {
	no := &loom.ExitError{Command: "x", Code: 1}
	tests := []struct {
		name  string
		task  tasks.Wait
		upAt  time.Duration // on the clock
		slow  time.Duration // each look takes
		took  time.Duration
		looks int
		fails string
	}{
		{name: "at once", took: 0, looks: 1},
		{name: "each second", upAt: 2500 * time.Millisecond, took: 3 * time.Second, looks: 4},
		{name: "each interval", task: tasks.Wait{Interval: time.Minute}, upAt: 2500 * time.Millisecond, took: time.Minute, looks: 2},
		{name: "five minutes", task: tasks.Wait{Interval: 7 * time.Second}, upAt: time.Hour, took: 5 * time.Minute, looks: 43, fails: "after 5m0s"},
		{name: "as told", task: tasks.Wait{Timeout: 9500 * time.Millisecond}, upAt: time.Hour, took: 9500 * time.Millisecond, looks: 10, fails: "after 9.5s"},
		{name: "a look that hangs", task: tasks.Wait{Timeout: 2 * time.Minute}, upAt: time.Hour, slow: time.Hour, took: 2 * time.Minute, looks: 4, fails: "no answer within 30s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, looks := time.Now(), 0
				b := newBench(t, fakeNode{exec: func(ctx context.Context, _ loom.Command) error {
					looks++
					select {
					case <-time.After(tt.slow):
					case <-ctx.Done():
						return context.Cause(ctx)
					}
					if time.Since(start) < tt.upAt {
						return no
					}
					return nil
				}})
				tt.task.Command = "x"
				_, err := b.apply(t.Context(), tt.task)
				if tt.fails == "" && err != nil || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
					t.Errorf("error is %v, want %q", err, tt.fails)
				}
				if took := time.Since(start); took != tt.took || looks != tt.looks {
					t.Errorf("took %v and %d looks, want %v and %d", took, looks, tt.took, tt.looks)
				}
			})
		})
	}
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(90*time.Second, func() { cancel(loom.ErrShutdown) })
		b := newBench(t, fakeNode{exec: func(context.Context, loom.Command) error { return &loom.ExitError{Code: 1} }})
		if _, err := b.apply(ctx, tasks.Wait{Command: "x"}); !errors.Is(err, loom.ErrShutdown) {
			t.Errorf("error is %v, want %v", err, loom.ErrShutdown)
		}
	})
	// A node that can't be asked is an error at once.
	b := newBench(t, fakeNode{exec: func(context.Context, loom.Command) error { return loom.ErrUnreachable }})
	if _, err := b.apply(t.Context(), tasks.Wait{Command: "x"}); !errors.Is(err, loom.ErrUnreachable) {
		t.Errorf("error is %v, want %v", err, loom.ErrUnreachable)
	}
}
