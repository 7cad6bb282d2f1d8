package loom

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/dustinlacewell/loom/internal/golden"
)

// TestDiagnostics reads the manifest in each archive and compares what is wrong
// with it to the archive's file "want". A line "chmod 0755 FILE" before the
// files sets a mode.
func TestDiagnostics(t *testing.T) {
	archives, err := filepath.Glob("testdata/diagnostics/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal(err, archives)
	}
	t.Setenv("LOOM_TEST_NAME", "value")
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := unpack(t, ar)
			got := diagnose(dir)
			if golden.Update() {
				update(t, file, ar, got)
				return
			}
			for _, f := range ar.Files {
				if f.Name == "want" && string(f.Data) != got {
					t.Errorf("%s (-want +got; -update accepts):\n%s", file,
						cmp.Diff(strings.Split(string(f.Data), "\n"), strings.Split(got, "\n")))
				}
			}
		})
	}
}

// unpack writes the files of an archive to a new directory, and a main file if
// there is none among them.
func unpack(t testing.TB, ar *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\ndatafile: data.yaml\n", "data.yaml": "", "nodes.yaml": "db1:\ndb2:\nweb1: {groups: [web]}\n"}
	for _, f := range ar.Files {
		files[f.Name] = string(f.Data)
	}
	writeFiles(t, dir, files)
	for line := range strings.Lines(string(ar.Comment)) {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "chmod" {
			continue
		}
		mode, err := strconv.ParseUint(words[1], 8, 32)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, words[2]), os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// diagnose returns all that is said about a manifest.
func diagnose(dir string) string {
	m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
	var b strings.Builder
	if err != nil {
		b.WriteString(err.Error() + "\n")
	}
	if m != nil {
		for _, w := range m.Warnings {
			b.WriteString("warning: " + w.Error() + "\n")
		}
		for _, name := range m.Ignored {
			b.WriteString("ignored: " + name + "\n")
		}
	}
	return strings.ReplaceAll(b.String(), dir+"/", "")
}

func update(t *testing.T, file string, ar *txtar.Archive, got string) {
	t.Helper()
	for i, f := range ar.Files {
		if f.Name == "want" {
			ar.Files[i].Data = []byte(got)
			if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s has no file called want", file)
}
