package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	c := dial(t, dialer(t, s.KnownHosts), node(s, localUser()))
	f, err := c.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name := dir + "/file"
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)

	w, err := f.Create(name, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 || info.Size() != 0 {
		t.Errorf("before the first byte: %v, %v", info.Mode(), err)
	}
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		t.Error(err)
	}
	r, err := f.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) || r.Close() != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if _, err := f.Create(name, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what exists: %v", err)
	}
	if _, err := f.Open(dir + "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of what does not exist: %v", err)
	}
	if err := f.Mkdir(dir+"/d", 0o711); err != nil {
		t.Error(err)
	}
	if err := f.Mkdir(dir+"/d", 0o711); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Mkdir of what exists: %v", err)
	}
	if info, err := f.Stat(dir + "/d"); err != nil || info.Mode() != fs.ModeDir|0o711 {
		t.Errorf("directory: %v, %v", info, err)
	}
	if err := os.Symlink("file", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Lstat(dir + "/link"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("link: %v, %v", info, err)
	}
	if infos, err := f.ReadDir(dir); err != nil || len(infos) != 3 {
		t.Errorf("ReadDir: %v, %v", infos, err)
	}
	write(t, dir+"/old", "old")
	if err := f.Rename(name, dir+"/old"); err != nil {
		t.Errorf("Rename over a file: %v", err)
	}
	if err := f.Chmod(dir+"/old", 0o600|fs.ModeSetuid); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(dir + "/old"); err != nil || info.Mode() != 0o600|fs.ModeSetuid {
		t.Errorf("Chmod: %v, %v", info.Mode(), err)
	}
	if err := errors.Join(f.Remove(dir+"/old"), f.Remove(dir+"/d"), f.Close()); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat(dir); err == nil {
		t.Error("Stat after Close")
	}
	if out, _, err := run(t, c, loom.Command{Text: "echo still here"}); out != "still here\n" {
		t.Error(out, err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	f, err = c.Files(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel(loom.ErrCancelled)
	if _, err := f.Stat(dir); !errors.Is(err, loom.ErrCancelled) {
		t.Errorf("after the end of the context: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestNoSFTP(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{NoSFTP: true})
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	for range 3 {
		if _, err := c.Files(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	}
	if out, _, err := run(t, c, loom.Command{Text: "echo still here"}); out != "still here\n" {
		t.Error(out, err)
	}
}

func TestForbiddenFile(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	u := sshd.NewUser(t, "", "")
	c := dial(t, dialer(t, s.KnownHosts), node(s, u.Username))
	f, err := c.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Open("/etc/shadow"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if _, err := f.Create("/etc/loom-test", 0o600); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	w, err := f.Create("relative", 0o600) // to the login directory
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := os.Stat(u.HomeDir + "/relative"); err != nil {
		t.Error(err)
	}
}
