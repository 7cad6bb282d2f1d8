package shell

import (
	"bytes"
	"fmt"
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

// Nor does what another shell runs, if there is a secret in it, even if the
// variable that it goes through was in the environment.
func TestPrivateNotInPS(t *testing.T) {
	t.Setenv("_loom_t", "x")
	t.Setenv("t", "x")
	for _, shell := range []string{"/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/zsh", "/usr/bin/fish", "/usr/bin/busybox"} {
		if _, err := exec.LookPath(shell); err != nil || shell == "/usr/bin/busybox" {
			continue // busybox needs its own name before the file
		}
		for _, claimed := range []bool{false, true} {
			t.Run(fmt.Sprint(shell, claimed), func(t *testing.T) {
				// Another canary than the one that grep has in its arguments.
				const text = `sh -c 'tr "\\0" " " </proc/$PPID/cmdline; grep -lsa "canary-471[3]" /proc/[0-9]*/cmdline /proc/[0-9]*/environ'; cat; echo 'it''s' >&2 # canary-4713
exit 3`
				c := Command{Text: text, Shell: shell, Private: true, Stdin: strings.NewReader("input\n")}
				var out, errs string
				var exit Exit
				var err error
				if claimed {
					t.Setenv("XDG_STATE_HOME", t.TempDir())
					c.Stdin = NewInput([]byte("input\n"))
					claim := Claim{Name: "x-1", Nonce: newNonce(), Command: c}
					out, errs, _, err = sh(t, Command{Text: claim.Script()})
					if !strings.Contains(out, "exit 3 - -") {
						t.Errorf("it ended otherwise: %.300q", out)
					}
				} else {
					out, errs, exit, err = sh(t, c)
					if exit != (Exit{Code: 3}) {
						t.Errorf("it ended with %v", exit)
					}
				}
				if err != nil || strings.Contains(out, "/proc/") || !strings.Contains(out, shell+" /dev/fd/9") ||
					!strings.Contains(out, "input\n") || errs != "its\n" && !claimed {
					t.Errorf("%v, %q, and\n%s", err, errs, out)
				}
			})
		}
	}
}
