// Package golden compares what a test got with a file that holds what it should
// be. Run the tests with -update to write the files anew, and read the diff.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//nolint:gochecknoglobals // a flag must be known before flags are parsed, and there is one for the whole project
var update = flag.Bool("update", false, "write golden files anew")

// Update reports whether the golden files are to be written anew.
func Update() bool { return *update }

// Compare fails the test if got isn't what the file holds, and says how they
// differ. File is relative to the test's package, such as testdata/help.golden.
// With -update it writes the file instead.
func Compare(tb testing.TB, got, file string) {
	tb.Helper()
	if *update {
		write(tb, got, file)
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		tb.Fatalf("%v (run the test with -update to write it)", err)
	}
	if got != string(want) {
		tb.Errorf("%s differs (-want +got; -update accepts):\n%s", file,
			cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")))
	}
}

func write(tb testing.TB, got, file string) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
		tb.Fatal(err)
	}
}
