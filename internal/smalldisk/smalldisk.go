// Package smalldisk gives tests a disk that is soon full.
package smalldisk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Mount mounts a file system of so many bytes ("4m"), whose root is its owner's
// alone, at a directory until the test ends. Where that can't be done, the test is
// skipped, and fails if CI is set.
func Mount(tb testing.TB, dir, size string) {
	tb.Helper()
	cant := tb.Skipf
	if os.Getenv("CI") != "" {
		cant = tb.Fatalf
	}
	if os.Getuid() != 0 {
		cant("NOT TESTED: a full disk needs root, to mount a small file system")
	}
	if out, err := exec.CommandContext(tb.Context(), "mount", "-t", "tmpfs", "-o", "mode=0700,size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		cant("NOT TESTED: a full disk needs a mount: %v: %s", err, out)
	}
	tb.Cleanup(func() {
		if err := unmount(dir); err != nil {
			tb.Error(err)
		}
	})
}

// Fill leaves no byte free on the file system of a directory, until what it returns
// is called.
func Fill(tb testing.TB, dir string) (free func()) {
	tb.Helper()
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only its size matters
	for _, size := range []int{1 << 16, 1 << 10, 1} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			tb.Fatal(err)
		}
		err = nil
	}
	return func() {
		tb.Helper()
		if err := os.Remove(filler); err != nil {
			tb.Fatal(err)
		}
	}
}
