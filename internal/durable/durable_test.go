package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestPut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	fresh := func() *os.File {
		f, err := os.CreateTemp(dir, ".new-*")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	holds := func(want string) {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("the file has %q, %v; want %q", got, err, want)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("beside it is more: %v, %v", all, err)
		}
	}
	if err := Create(fresh(), []byte("one"), file); err != nil {
		t.Error(err)
	}
	holds("one")
	if err := Create(fresh(), []byte("two"), file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("what is there is created: %v", err)
	}
	holds("one")
	if err := Replace(fresh(), []byte("three"), file); err != nil {
		t.Error(err)
	}
	holds("three")
	closed := fresh()
	_ = closed.Close()
	if err := Replace(closed, []byte("four"), file); err == nil {
		t.Error("what could not be written took the file's place")
	}
	holds("three")
}
