package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadme does what the README says: it writes the files, and gives the
// commands. The nodes do not exist, so what goes to them fails, but as work that
// failed and not as a command that is not understood.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	blocks := regexp.MustCompile("(?s)`~/(\\.loom/[a-z/.]+)`[^`]*(?:`[^`\n]+`[^`]*)*```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 3 {
		t.Fatalf("found %d files in the README, want 3", len(blocks))
	}
	for _, b := range blocks {
		put(t, filepath.Join(home, b[1]), b[2])
	}
	put(t, filepath.Join(home, ".ssh/config"), "Host *\n HostName 127.0.0.1\n Port 1\n")

	commands := regexp.MustCompile(`(?m)^    loomd(| .*?)(?:\s+#.*)?$`).FindAllStringSubmatch(string(text), -1)
	var given []string
	for _, c := range commands {
		args := strings.Fields(c[1])
		given = append(given, strings.Join(args, " "))
		if len(args) == 0 {
			continue // the daemon, which has tests of its own
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Args[0] = "loomd"
		cmd.Env = append(os.Environ(), "HOME="+home, "SSH_AUTH_SOCK=", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		t.Logf("loomd %s\n%s", strings.Join(args, " "), out)
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		want := 0
		if slices.Contains(args, "--local") {
			want = 1
		}
		if code != want {
			t.Errorf("loomd %s: exit status %d, want %d\n%s", strings.Join(args, " "), code, want, out)
		}
	}
	if len(given) < 5 {
		t.Errorf("found only %q in the README", given)
	}
}
