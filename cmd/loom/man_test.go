package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dustinlacewell/loom/internal/golden"
	"github.com/dustinlacewell/loom/internal/sshd"
)

const manual = "../../docs/man"

// TestManual holds that the manual pages are what the commands say now (run it with
// -update to write them), and that groff has nothing to say against them.
func TestManual(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, program := range []string{"loom", "loomd"} {
		cmd := exec.CommandContext(t.Context(), program, "man", dir)
		cmd.Env = environment(t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("found %d pages: %v", len(pages), err)
	}
	kept, _ := filepath.Glob(filepath.Join(manual, "*.1"))
	for _, old := range kept {
		if _, err := os.Stat(filepath.Join(dir, filepath.Base(old))); err == nil {
			continue
		}
		if !golden.Update() {
			t.Errorf("%s is of a command that there is no more", old)
		} else if err := os.Remove(old); err != nil {
			t.Error(err)
		}
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		golden.Compare(t, string(text), filepath.Join(manual, filepath.Base(page)))
	}
	sshd.Need(t, "groff")
	cmd := exec.CommandContext(t.Context(), "groff", append([]string{"-man", "-ww", "-z", "-Tutf8"}, pages...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil || said.Len() > 0 {
		t.Errorf("groff: %v\n%s", err, said.String())
	}
}
