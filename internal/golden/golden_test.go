package golden_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom/internal/golden"
)

// recorder is a test that notes what it is told.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, a ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, a...))
}

func TestCompare(t *testing.T) {
	if golden.Update() {
		t.Skip("with -update, Compare writes")
	}
	file := filepath.Join(t.TempDir(), "x.golden")
	if err := os.WriteFile(file, []byte("a\nb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	golden.Compare(r, "a\nb\n", file)
	if len(r.failures) != 0 {
		t.Errorf("equal: %q", r.failures)
	}
	golden.Compare(r, "a\nc\n", file)
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], file) {
		t.Errorf("different: %q, want one failure that names the file", r.failures)
	}
}
