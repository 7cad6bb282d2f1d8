package shell

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// FuzzQuote: every shell reads a quoted word back as it was, as text of a
// command and as a variable.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "it's", "'", `\`, "\n", "$(id)`id`", "-n", "\xff\x01", "é", "_loom;exit\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.IndexByte(s, 0) >= 0 {
			t.Skip()
		}
		c := &Command{Text: "printf %s " + Quote(s) + `;printf %s "$A"`, Env: map[string]string{"A": s}}
		for _, sh := range [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}} {
			path, err := exec.LookPath(sh[0])
			if err != nil {
				continue
			}
			cmd := exec.Command(path, sh[1:]...)
			cmd.Stdin = strings.NewReader(script{c: c, nonce: "n", quiet: true}.text())
			out, err := cmd.Output()
			_, out, _ = bytes.Cut(out, []byte("\n"))
			if err != nil || string(out) != s+s {
				t.Errorf("%v reads %q as %q, %v", sh, s, out, err)
			}
		}
	})
}

// A part of a script runs nothing.
func TestTruncated(t *testing.T) {
	text := script{c: &Command{Text: "echo ran"}, nonce: "n"}.text()
	for n := range len(text) - len("_loom;exit\n") {
		cmd := exec.Command("/bin/sh")
		cmd.Stdin = strings.NewReader(text[:n])
		if out, _ := cmd.Output(); len(out) > 0 { // that it fails is what we want
			t.Fatalf("the first %d bytes print %q", n, out)
		}
	}
}

// What is run does not show in the list of processes.
func TestNotInPS(t *testing.T) {
	out, _, exit, err := sh(t, Command{Text: ": canary-4711; cat /proc/*/cmdline | tr '\\0' ' '", Env: map[string]string{"A": "canary-4712"}})
	if err != nil || exit != (Exit{}) && !strings.Contains(out, "cat") || strings.Contains(out, "canary-471") {
		t.Errorf("%v, %v, %q", exit, err, out)
	}
}
