package loom_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dustinlacewell/loom"

// card is what the root package and tasks may depend on beside the standard
// library, with what those modules depend on themselves.
func card() []string {
	return []string{
		"gopkg.in/yaml.v3", "github.com/adhocore/gronx", "golang.org/x/crypto", "golang.org/x/sync",
		"github.com/pkg/sftp", "github.com/kr/fs", "golang.org/x/sys",
	}
}

// arrows says which of our packages may not import which, by path below the
// module; a path stands for all below it.
func arrows() map[string][]string {
	outer := []string{"api", "cli", "cmd", "daemon", "notify", "resource", "store", "web"}
	return map[string][]string{
		"":       append(outer, "loomtest", "secret", "ssh", "tasks"),
		"tasks":  append(outer, "loomtest", "secret", "ssh"),
		"ssh":    append(outer, "loomtest", "secret", "tasks"),
		"api":    {"cli", "cmd", "daemon", "loomtest", "notify", "resource", "ssh", "store", "tasks", "web"},
		"cli":    {"cmd", "daemon", "loomtest", "ssh", "store", "tasks"},
		"daemon": {"cmd", "loomtest", "ssh", "store", "tasks"},
		"secret": append(outer, "loomtest", "ssh", "tasks"),
		"store":  {"api", "cli", "cmd", "daemon", "loomtest", "notify", "resource", "ssh", "tasks", "web"},
	}
}

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

// list returns the packages that match, and those they need.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("go list: %s", exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	pkgs := map[string]pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs[p.ImportPath] = p
	}
}

// path returns how from comes to import to, for the reader of a failure.
func path(pkgs map[string]pkg, from, to string) string {
	if slices.Contains(pkgs[from].Imports, to) {
		return from + " -> " + to
	}
	for _, next := range pkgs[from].Imports {
		if slices.Contains(pkgs[next].Deps, to) {
			return from + " -> " + path(pkgs, next, to)
		}
	}
	return from + " -> … -> " + to
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func TestDependencies(t *testing.T) {
	pkgs := list(t)
	for _, own := range []string{module, module + "/tasks"} {
		for _, dep := range pkgs[own].Deps {
			allowed := pkgs[dep].Standard || within(dep, module)
			for _, m := range card() {
				allowed = allowed || within(dep, m)
			}
			if !allowed {
				t.Errorf("importers of %s must not pay for %s: %s", own, dep, path(pkgs, own, dep))
			}
		}
	}
	for from, forbidden := range arrows() {
		for name, p := range pkgs {
			if own := strings.TrimSuffix(module+"/"+from, "/"); name != own && (from == "" || !within(name, own)) {
				continue
			}
			for _, dep := range p.Deps {
				for _, to := range forbidden {
					if within(dep, module+"/"+to) {
						t.Errorf("the arrow goes the other way: %s", path(pkgs, name, dep))
					}
				}
			}
		}
	}
	for name, p := range pkgs {
		for _, imp := range p.Imports {
			suite := name == module+"/loomtest" || name == module+"/store/storetest"
			if imp == "testing" && within(name, module) && !suite && !within(name, module+"/internal") {
				t.Errorf("%s imports testing: only loomtest and storetest may", name)
			}
			for _, engine := range []string{"modernc.org/sqlite", "github.com/pressly/goose/v3"} {
				if within(imp, engine) && within(name, module) && name != module+"/store/sqlite" {
					t.Errorf("%s imports %s: only store/sqlite may", name, imp)
				}
			}
		}
	}
}
