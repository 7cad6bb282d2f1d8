package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// Modes alone would let others in here: the kernel's word about who they are
// keeps them out.
func TestStrangerIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	c, _ := serve(t, &api.Server{Store: &memory.Store{}})
	for name, mode := range map[string]os.FileMode{c.Socket: 0o666, filepath.Dir(c.Socket): 0o755} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for uid, want := range map[int]string{65534: "HTTP/1.1 403 ", 0: "HTTP/1.1 200 "} {
		got := askAs(t, uid, 65534, c.Socket)
		if !strings.HasPrefix(got, want) || uid != 0 && !strings.Contains(got, "this daemon works for root") {
			t.Errorf("uid %d got %q, want %q", uid, got, want)
		}
	}
}

// Members of the door's group come in, by whichever of their groups that is.
func TestGroupComesIn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	group, err := user.LookupGroup("daemon")
	if err != nil {
		t.Skip(err)
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // others shall get to the socket
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "x.sock")
	l, err := api.ListenAt(t.Context(), socket, "daemon", 0o666)
	if err != nil {
		t.Fatal(err)
	}
	s := &api.Server{Store: &memory.Store{}, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Open(ctx, &api.Door{Listener: l, Group: "daemon", Role: api.RoleViewer}) }()
	for _, tt := range []struct {
		name     string
		uid, gid int
		groups   []int
		method   string
		want     string
	}{
		{"a member", 65534, gid, nil, "GET", "HTTP/1.1 200 "},
		{"a member by another of its groups", 65534, 65534, []int{12345, gid}, "GET", "HTTP/1.1 200 "},
		{"a member who wants more", 65534, gid, nil, "POST", "HTTP/1.1 403 "},
		{"no member", 65534, 65534, []int{12345}, "GET", "HTTP/1.1 403 "},
	} {
		if got := askLike(t, tt.uid, tt.gid, tt.groups, socket, tt.method, "/api/v1/actions"); tt.method == "POST" && !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if got := askLike(t, tt.uid, tt.gid, tt.groups, socket, "GET", "/api/v1/status"); tt.method == "GET" && !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// askAs asks whether a daemon is well, as somebody else.
func askAs(t *testing.T, uid, gid int, socket string) string {
	t.Helper()
	return askLike(t, uid, gid, nil, socket, "GET", "/healthz")
}

// askLike asks a daemon for something, as somebody else with these groups.
func askLike(t *testing.T, uid, gid int, groups []int, socket, method, path string) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks it: the thread, which is somebody else, ends with the goroutine
		list := make([]uint32, len(groups)+1)
		for i, one := range groups {
			list[i] = uint32(one)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0])), 0); e != 0 {
			got <- e.Error()
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
			got <- e.Error()
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			got <- e.Error()
			return
		}
		got <- func() string {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err.Error()
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
				return err.Error()
			}
			if _, err := unix.Write(fd, []byte(method+" "+path+" HTTP/1.1\r\nHost: loomd\r\nConnection: close\r\n\r\n")); err != nil {
				return err.Error()
			}
			var all bytes.Buffer
			for piece := make([]byte, 4096); ; {
				n, err := unix.Read(fd, piece)
				if n <= 0 || err != nil {
					return all.String()
				}
				all.Write(piece[:n])
			}
		}()
	}()
	return <-got
}
