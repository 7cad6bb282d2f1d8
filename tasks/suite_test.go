package tasks_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/loomtest"
	"github.com/dustinlacewell/loom/tasks"
)

// The stock tasks keep the promises that all tasks make.
func TestSuite(t *testing.T) {
	here := t.TempDir()
	if err := os.MkdirAll(filepath.Join(here, "site", "css"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"site/index.html", "site/css/it's.css", "deploy.sh"} {
		if err := os.WriteFile(filepath.Join(here, name), []byte("echo hello >done\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		task loom.Task
	}{
		{"run", tasks.Run{Command: "echo hello"}},
		{"put a file", tasks.Put{LocalPath: filepath.Join(here, "deploy.sh"), RemotePath: "bin/", Mode: 0o750}},
		{"put a directory", tasks.Put{LocalPath: filepath.Join(here, "site"), RemotePath: "www"}},
		{"script", tasks.Script{File: filepath.Join(here, "deploy.sh"), Creates: "done"}},
		{"ping", tasks.Ping{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			loomtest.TestTask(t, tt.task, func(t *testing.T) *loomtest.Server {
				t.Helper()
				srv := loomtest.Real(t)
				for _, dir := range []string{"bin/.keep", "www/.keep"} {
					if err := srv.WriteFile(dir, nil, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				return srv
			})
		})
	}
}
