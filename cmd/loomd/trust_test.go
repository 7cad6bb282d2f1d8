package main

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom/cli"
	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/tasks"
)

// TestTrustOpenSSH reaches for a real OpenSSH server that is not known, looks at its
// keys, trusts them, and reaches it.
func TestTrustOpenSSH(t *testing.T) {
	t.Parallel()
	node := sshd.Start(t, sshd.Options{})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nssh: {config: none, known_hosts: known}\n",
		"none":      "",
		"nodes.yaml": fmt.Sprintf("real: {ip: %s, port: %d, user: %s, identity: %s}\nhere: {transport: local}\n",
			node.Address, node.Port, me.Username, node.Identity),
		"jobs/a.yaml": "jobs: {hello: {task: run, args: [uptime], schedule: manual, targets: real}}\n",
	})
	give := func(args ...string) (out string, code int) {
		var both bytes.Buffer
		err := daemon.Run(t.Context(), daemon.Options{Tasks: tasks.Registry(), Dialer: &ssh.Dialer{}},
			append(args, "-c", filepath.Join(dir, "loom.yaml")), strings.NewReader(""), &both, &both)
		return both.String(), cli.ExitCode(err)
	}
	if out, code := give("nodes", "ping", "real"); code != 1 || !strings.Contains(out, "real: host key unknown: ") || !strings.Contains(out, "SHA256:") {
		t.Errorf("ping of a node that is not known: %d, %s", code, out)
	}
	if out, code := give("nodes", "trust", "real"); code != 2 || !strings.Contains(out, "ssh-ed25519  SHA256:") || !strings.Contains(out, "nobody to ask") {
		t.Errorf("trust with nobody to ask: %d, %s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "known")); err == nil {
		t.Error("keys were recorded though nobody agreed")
	}
	if out, code := give("nodes", "trust", "real", "--yes"); code != 0 || !strings.Contains(out, "recorded") {
		t.Errorf("trust --yes: %d, %s", code, out)
	}
	if out, code := give("nodes", "trust", "real"); code != 0 || !strings.Contains(out, "0 keys recorded; 1 node known already") {
		t.Errorf("trust of what is known: %d, %s", code, out)
	}
	if out, code := give("nodes", "ping"); code != 0 || !strings.Contains(out, me.Username) || strings.Count(out, "ms ") < 2 {
		t.Errorf("ping: %d, %s", code, out)
	}
}
