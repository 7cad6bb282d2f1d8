package loom

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readNodes reads a manifest whose nodes file is this program.
func readProgram(t *testing.T, script string) (*Manifest, error) {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": "nodesfile: nodes\njobspath: jobs\n", "nodes": "#!/bin/sh\n" + script,
		"jobs/a.yaml": "jobs:\n  a: {task: nothing, targets: all, schedule: manual}\n",
	})
	if err := os.Chmod(filepath.Join(dir, "nodes"), 0o755); err != nil {
		t.Fatal(err)
	}
	return (&ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: testTasks(), Strict: true}).Read(t.Context())
}

const ansibleList = `cat <<'END'
{
  "_meta": {"hostvars": {
    "web1": {"ansible_host": "10.0.0.1", "ansible_user": "deploy", "ansible_port": 2222, "role": "front", "n": 3, "x": 1.5},
    "db1": {"ansible_ssh_pass": "hunter2", "ansible_become_password": "sesame", "ansible_ssh_private_key_file": "/k", "size": null},
    "here": {"ansible_connection": "local"}
  }},
  "all": {"children": ["ungrouped", "prod"], "vars": {"region": "eu", "role": "none"}},
  "prod": {"children": ["web", "db"], "vars": {"env": "prod", "tier": "any"}},
  "web": {"hosts": ["web1"], "vars": {"tier": "web"}},
  "db": ["db1"],
  "ungrouped": {"hosts": ["here"]}
}
END
`

func TestReadManifestRunsAnAnsibleInventory(t *testing.T) {
	m, err := readProgram(t, `[ "$1" = --list ] || exit 9`+"\n"+ansibleList)
	if err != nil {
		t.Fatal(err)
	}
	want := []*Node{
		{Name: "db1", Password: "hunter2", Identity: "/k", Sudo: Sudo{Password: "sesame"}, Groups: []string{"db", "prod"},
			Vars: map[string]any{"region": "eu", "role": "none", "env": "prod", "tier": "any", "size": nil}},
		{Name: "here", Transport: "local", Vars: map[string]any{"region": "eu", "role": "none"}},
		{Name: "web1", Address: "10.0.0.1", User: "deploy", Port: 2222, Groups: []string{"prod", "web"},
			Vars: map[string]any{"region": "eu", "role": "front", "env": "prod", "tier": "web", "n": 3, "x": 1.5}},
	}
	if diff := cmp.Diff(want, m.Nodes); diff != "" {
		t.Error(diff)
	}
}

func TestReadManifestAsksAnAnsibleInventoryForEachHost(t *testing.T) {
	m, err := readProgram(t, `case $1 in
--list) echo '{"web": ["web1", "web2"]}' ;;
--host) echo "{\"ansible_host\": \"$2.example.org\"}" ;;
esac
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range m.Nodes {
		if n.Address != n.Name+".example.org" || len(n.Groups) != 1 {
			t.Errorf("node %+v, want its address by --host", *n)
		}
	}
}

func TestReadManifestRunsAProgram(t *testing.T) {
	m, err := readProgram(t, "pwd >&2\necho 'db1: {ip: 10.0.0.1, vars: {n: 010}}'\necho 'db2:'\n")
	if err != nil || names(m.Nodes) != "db1 db2" {
		t.Fatalf("nodes %v, error %v", m, err)
	}
}

func TestReadManifestRefusesBadPrograms(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"fails", "echo nothing here >&2; exit 4\n", "nodes: running it: exit status 4: nothing here"},
		{"never ends its output", "cat /dev/zero\n", "more than 8 MiB"},
		{"not JSON after all", "echo '{\"web\": {\"hosts\": [1, 2]}}'\n", `nodes: it is an Ansible inventory, but the group "web" can't be read`},
		{"a group in itself", "echo '{\"_meta\": {}, \"a\": {\"children\": [\"b\"]}, \"b\": {\"children\": [\"a\"]}}'\n", "can't be its own child"},
		{"cannot be reached", "echo '{\"_meta\": {\"hostvars\": {\"w\": {\"ansible_connection\": \"winrm\"}}}}'\n", `host "w": it can't be reached by`},
		{"bad name", "echo '{\"_meta\": {\"hostvars\": {\"a b\": {}}}}'\n", `nodes: "a b" can't be the name of a node`},
		{"bad YAML", "echo 'db1: ['\n", "nodes: line 1 of what it prints"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readProgram(t, tt.script)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %.500v, want %q", err, tt.want)
			}
		})
	}
}

func TestReadManifestSaysThatAPlainFileIsExecutable(t *testing.T) {
	r := newReaderRig(t)
	if err := os.Chmod(filepath.Join(r.dir, "nodes.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.expect("no manifest", "", "nodes.yaml: it is executable, so Loom ran it, but it is no program (chmod -x nodes.yaml if")
}

func TestRunInventoryEndsWithItsContext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes")
	// A child holds the output open: it must end too, or Run waits for it.
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho > started\nsleep 1000 & sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := runInventory(ctx, file, filepath.Dir(file))
		done <- err
	}()
	for {
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), "started")); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("the program ended by itself: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel(ErrShutdown)
	if err := <-done; !errors.Is(err, ErrShutdown) {
		t.Errorf("error %v, want the context's cause", err)
	}
}

func TestManifestReaderKeepsWhatAProgramPrinted(t *testing.T) {
	r := newReaderRig(t)
	r.write("nodes.sh", "#!/bin/sh\necho run >> runs\necho 'db1:'\necho 'db2:'\n")
	if err := os.Chmod(filepath.Join(r.dir, "nodes.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("loom.yaml", "nodesfile: nodes.sh\njobspath: jobs\ndatafile: data.yaml\nstate: state\n")
	r.expect("a b", "")
	r.write("jobs/c.yaml", "jobs:\n  c: "+oneJob+"\n")
	r.expect("a b c", "")
	runs := func() int {
		text, err := os.ReadFile(filepath.Join(r.dir, "runs"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "run")
	}
	if got := runs(); got != 1 {
		t.Errorf("the program ran %d times for an edited job, want once", got)
	}
	r.Refresh()
	r.expect("a b c", "")
	if got := runs(); got != 2 {
		t.Errorf("the program ran %d times after Refresh, want twice", got)
	}
	r.write("nodes.sh", "#!/bin/sh\nexit 1\n")
	if err := os.Chmod(filepath.Join(r.dir, "nodes.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.expect("a b c", "nodes.sh", "nodes.sh: running it: exit status 1")
	r.restart()
	r.expect("a b c", "nodes.sh", "nodes.sh: running it: exit status 1")
}

func TestReadManifestReadsNodes(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LOOM_TEST_PASSWORD", "from env")
	t.Setenv("HOME", "/home/x")
	writeFiles(t, dir, map[string]string{
		"loom.yaml": `jobspath: jobs
datafile: data.yaml
state: ${env:HOME}/state
nodes:
  gate: {ip: 192.0.2.1, port: 2222}
  db1:
    user: root
    password: ${env:LOOM_TEST_PASSWORD}
    identity: ~/.ssh/id.pub
    passphrase: ${file:phrase}
    groups: [db, prod, db]
    vars: {role: master, mode: 0644, n: 12, "yes": no}
    jump: gate
    sudo: {password: 0123, user: admin}
    shell: /bin/bash
    env: {LANG: C, N: 1}
    max_sessions: 4
  here: {transport: local, sudo: true}
  off: {disabled: true, ip: "$${env:X}"}
`,
		"data.yaml": "", "phrase": "open\n", "jobs/x.yaml": "",
	})
	m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
	if err != nil {
		t.Fatal(err)
	}
	gate := &Node{Name: "gate", Address: "192.0.2.1", Port: 2222}
	want := []*Node{
		{Name: "db1", User: "root", Password: "from env", Identity: "/home/x/.ssh/id.pub", Passphrase: "open", Groups: []string{"db", "prod"},
			Vars: map[string]any{"role": "master", "mode": 420, "n": 12, "yes": "no"}, Jump: gate,
			Sudo: Sudo{User: "admin", Password: "0123"}, Shell: "/bin/bash", Env: map[string]string{"LANG": "C", "N": "1"}, MaxSessions: 4},
		gate,
		{Name: "here", Transport: "local"},
		{Name: "off", Address: "${env:X}", Disabled: true},
	}
	if diff := cmp.Diff(want, m.Nodes); diff != "" {
		t.Error(diff)
	}
	if m.Config.State != "/home/x/state" {
		t.Errorf("state %s", m.Config.State)
	}
}
