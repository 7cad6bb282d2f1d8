package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// usedFile is where loom writes down how it was called, if the environment says so.
const usedFile = "LOOM_TEST_USED"

// recorded is loom, which writes down how it was called.
func recorded() {
	if name := os.Getenv(usedFile); name != "" {
		if f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			_, _ = fmt.Fprintln(f, strings.Join(os.Args[1:], " ")) // a test misses it
			_ = f.Close()
		}
	}
	main()
}

// TestSession is a session as a user would have it who has never used Loom from this
// machine: with a daemon elsewhere that is reached by TLS and a token, and by ssh.
// Every command there is has to be used in it.
func TestSession(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]string{
		"tls": "exec loom context add there --server $URL --ca cert.pem --token-file ann.token",
		"ssh": "exec loom context add there --server ssh://root@host.example",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile("testdata/session.tmpl")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			script := strings.ReplaceAll(string(text), "\nCONNECT\n", "\n"+connect+"\n")
			if err := os.WriteFile(filepath.Join(dir, name+".txtar"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			used := filepath.Join(dir, "used")
			t.Cleanup(func() {
				if !t.Failed() {
					allUsed(t, used)
				}
			})
			testscript.Run(t, testscript.Params{
				Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true, Cmds: commands(),
				Setup: func(e *testscript.Env) error {
					e.Setenv(usedFile, used)
					return setup(t, e)
				},
			})
		})
	}
}

// allUsed holds that each command that has a manual page was called. The pages are
// those of the tree: TestManual sees to that.
func allUsed(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(manual, "loom-*.1"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no manual pages: %v", err)
	}
	var names []string
	for _, page := range pages {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(page), "loom-"), ".1"))
	}
	lines := strings.Split(string(text), "\n")
	for _, name := range names {
		if name != "nodes" && slices.ContainsFunc(names, func(other string) bool { return strings.HasPrefix(other, name+"-") }) {
			continue // it has commands below it, and does nothing by itself
		}
		if !slices.ContainsFunc(lines, func(line string) bool { return isCommand(name, strings.Fields(line)) }) {
			t.Errorf("loom %s was never used in the session", strings.ReplaceAll(name, "-", " "))
		}
	}
}

// isCommand reports whether arguments begin with a command, whose name has a - for
// each blank, and may have some of its own.
func isCommand(name string, args []string) bool {
	for n := 1; n <= min(3, len(args)); n++ {
		if strings.Join(args[:n], "-") == name {
			return true
		}
	}
	return false
}

// fleet FILE NODE... writes a nodes file of servers that sshd has started.
func fleetFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fleet file node...")
	}
	var nodes strings.Builder
	for _, name := range args[1:] {
		fmt.Fprintf(&nodes, "%s: {ip: %s, port: %s, user: root, identity: %s}\n",
			name, ts.Getenv(name+"_address"), ts.Getenv(name+"_port"), ts.Getenv(name+"_identity"))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(nodes.String()), 0o600))
}

// fromfile VARIABLE FILE sets a variable to what is in a file, without the newline.
func fromFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fromfile variable file")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}
