package api_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

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
		got := askAs(t, uid, c.Socket)
		if !strings.HasPrefix(got, want) || uid != 0 && !strings.Contains(got, "this daemon works for root") {
			t.Errorf("uid %d got %q, want %q", uid, got, want)
		}
	}
}

// askAs asks whether a daemon is well, as somebody else.
func askAs(t *testing.T, uid int, socket string) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks it: the thread, which is somebody else, ends with the goroutine
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
			if _, err := unix.Write(fd, []byte("GET /healthz HTTP/1.1\r\nHost: loomd\r\nConnection: close\r\n\r\n")); err != nil {
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
