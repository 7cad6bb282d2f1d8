package loom_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dustinlacewell/loom"
)

// TestReadConfig checks that mistakes don't hide where the memory is.
func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "loom.yaml")
	for _, text := range []string{
		"state: memory\nnodes: {a: {}}\njobspath: jobs\n",
		"state: memory\n",
		"state: memory\nstore: nonsense\njobspath: [1]\nunknown: 3\nnodesfile: none.yaml\n",
		"state: memory # here\nnodes: {{\n",
		"state: 'memory'\n\tnodes: []\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := loom.ReadConfig(file)
		if err != nil || c.State != filepath.Join(dir, "memory") || c.Store == "" || c.Timezone == nil {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	if _, err := loom.ReadConfig(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}
