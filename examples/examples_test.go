// Package examples holds complete programs and manifests. Its test builds and
// runs them all.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

// build makes a program of one of the directories here.
func build(t *testing.T, name string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// run runs a program in a home of its own and returns what it prints.
func run(t *testing.T, home, bin string, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func TestLibrary(t *testing.T) {
	t.Parallel()
	out, err := run(t, t.TempDir(), build(t, "library"))
	const want = `db1: hello from db1
web1: hello from web1
web2: hello from web2
picky on db1: failed, exit status 3
run 1 of tick: ok on 3 nodes
run 2 of tick: ok on 3 nodes
`
	if err != nil || out != want {
		t.Errorf("%v, it prints\n%s\nwant\n%s", err, out, want)
	}
}

func TestFork(t *testing.T) {
	t.Parallel()
	bin, home := build(t, "fork"), t.TempDir()
	config := filepath.Join(home, "loom.yaml")
	job := func(text string) {
		t.Helper()
		text = "nodes: {here: {transport: local}}\njobspath: jobs\n---\n" + text
		main, jobs, _ := strings.Cut(text, "---\n")
		for name, text := range map[string]string{config: main, filepath.Join(home, "jobs", "a.yaml"): jobs} {
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect := func(want string, fails bool, args ...string) {
		t.Helper()
		out, err := run(t, home, bin, args...)
		if !strings.Contains(out, want) || (err != nil) != fails {
			t.Errorf("acmed %s: %v, it prints\n%s\nwhich should have\n%s", strings.Join(args, " "), err, out, want)
		}
	}

	expect("channel    string    stable", false, "tasks", "acme.deploy")
	expect("acmed ", false, "version")

	job("jobs: {shop: {task: acme.deploy, args: [shop], kwargs: {channel: stabel}, schedule: manual, targets: all}}\n")
	expect(`there is no channel "stabel": write stable or edge`, true, "check", "-c", config)
	job("jobs: {shop: {task: acme.deploy, args: [shop, '1.2'], schedule: manual, targets: all}}\n")
	expect("1 node, 1 job", false, "check", "-c", config)
	expect("would change: shop: 1.2 instead of nothing", false, "run", "shop", "--local", "--plan", "-c", config)
	expect("changed: shop: 1.2 instead of nothing", false, "run", "shop", "--local", "-c", config)
	expect(`"status": "ok"`, false, "run", "shop", "--local", "-c", config, "-o", "json")
}

func TestManifests(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	m, err := loom.ReadManifest("manifests/loom.yaml", tasks.Registry())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Nodes) != 6 || len(m.Jobs) != 5 || len(m.Warnings) > 0 {
		t.Errorf("%d nodes, %d jobs, warnings %v; want 6, 5 and none", len(m.Nodes), len(m.Jobs), m.Warnings)
	}
}
