package loom_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/tasks"
)

// TestManifestExamples reads every example in docs/manifests.md. Its first line
// says which file it is; the other files are the document's first of their name.
func TestManifestExamples(t *testing.T) {
	t.Setenv("DB_SUDO", "sesame")
	examples := yamlBlocks(t, "docs/manifests.md")
	base := map[string]string{"secrets/db1": "hunter2\n"}
	for _, e := range examples {
		if _, ok := base[e.name]; !ok && !strings.HasPrefix(e.name, "jobs/") {
			base[e.name] = e.text
		}
	}
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"jobs/empty.yaml": "jobs:\n"}
			maps.Copy(files, base)
			files[e.name] = e.text
			for name, text := range files {
				name = filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := loom.ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: tasks.Registry(), Strict: true,
				Secrets: func(loom.SecretsConfig) (loom.SecretSource, error) { return anySecret{}, nil }}
			m, err := r.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(e.name, "jobs/") != (len(m.Jobs) > 0) {
				t.Errorf("%d jobs", len(m.Jobs))
			}
		})
	}
	if len(examples) < 8 {
		t.Errorf("found only %d examples", len(examples))
	}
}

// anySecret has a value for every name.
type anySecret struct{}

func (anySecret) Secret(context.Context, string) (string, error) { return "correct horse", nil }
func (anySecret) Names() []string                                { return nil }
func (anySecret) Files() []string                                { return nil }

type yamlBlock struct{ name, text string }

func yamlBlocks(t *testing.T, file string) []yamlBlock {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []yamlBlock
	for i, part := range strings.Split(string(text), "```") {
		body, isYAML := strings.CutPrefix(part, "yaml\n")
		if i%2 == 0 || !isYAML {
			continue
		}
		first, _, _ := strings.Cut(body, "\n")
		name, ok := strings.CutPrefix(first, "# ")
		if !ok {
			t.Fatalf("an example doesn't begin with its file's name: %s", first)
		}
		blocks = append(blocks, yamlBlock{name, body})
	}
	return blocks
}
