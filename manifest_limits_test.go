package loom

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// readJobs reads a manifest whose one job file has this text.
func readJobs(t testing.TB, text string) (*Manifest, error) {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml":   "nodesfile: nodes.yaml\njobspath: jobs\n",
		"nodes.yaml":  "db1:\ndb2:\n",
		"jobs/a.yaml": text,
	})
	return ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
}

const oneJob = "{task: nothing, targets: db1, schedule: manual}"

// bomb returns a text whose aliases stand for 9^levels values.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

// TestReadManifestRefusesWhatIsTooMuch holds that hostile files cost little: the
// memory that reading them takes altogether is bounded, and so is the time,
// since memory is what it would be spent on.
func TestReadManifestRefusesWhatIsTooMuch(t *testing.T) {
	merges := "m0: &m0 {k: v}\n"
	for i := 1; i < 40; i++ {
		merges += fmt.Sprintf("m%d: &m%d {<<: [*m%d, *m%d]}\n", i, i, i-1, i-1)
	}
	tests := []struct{ name, text, want string }{
		{"alias bomb", bomb(9) + "jobs:\n  a: {task: run, args: [*a8], targets: db1, schedule: manual}\n", "too"},
		{"alias bomb in targets", bomb(9) + "jobs:\n  a: {task: nothing, targets: *a8, schedule: manual}\n", "too"},
		{"alias bomb in labels", bomb(9) + "jobs:\n  a: {task: nothing, labels: {x: *a8}, targets: db1, schedule: manual}\n", "too"},
		{"alias bomb as a job", bomb(9) + "jobs:\n  a: *a8\n", "write a mapping"},
		{"merge bomb", merges + "jobs:\n  a: {<<: *m39, task: nothing, targets: db1, schedule: manual}\n", "too"},
		{"many bombs", bomb(5) + manyBombs(100), "too many values"},
		{"a list in itself", "x: &x [*x]\njobs:\n  a: {task: run, args: *x, targets: *x, schedule: manual}\n", "contains it"},
		{"deep brackets", "jobs: " + strings.Repeat("[", 20_000), "depth"},
		{"deep mappings", "x: &x " + strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000) + "\njobs:\n  a: {task: run, args: *x, targets: db1, schedule: manual}\n", "deeper"},
		{"deep indents", deepIndents(2000), "deeper"},
		{"a million values", "x: &x [" + strings.Repeat("a,", 1<<20) + "]\njobs: {}\n", "values"},
		{"control", "jobs:\n  a: \"\x01\"\n", "control character 0x01"},
		{"NUL", "jobs:\n  a: \x00\n", "control character 0x00"},
		{"UTF-16", "\xff\xfej\x00o\x00", "UTF-16"},
		{"not UTF-8", "jobs:\n  a: \xe9t\xe9\n", "not UTF-8"},
		{"many documents", strings.Repeat("---\n", 200_000) + "jobs: {}\n", "second document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := readJobs(t, tt.text)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %.300v, want one about %q", err, tt.want)
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 200 {
				t.Errorf("reading %d bytes took %d MiB", len(tt.text), used)
			}
		})
	}
}

// manyBombs is jobs each of which alone is within the bounds.
func manyBombs(n int) string {
	var b strings.Builder
	b.WriteString("jobs:\n")
	for i := range n {
		fmt.Fprintf(&b, "  j%d: {task: run, kwargs: {command: *a4}, targets: db1, schedule: manual}\n", i)
	}
	return b.String()
}

// deepIndents is a list in a list in a list, by indentation alone.
func deepIndents(n int) string {
	return "jobs:\n  a:\n    task: run\n    targets: db1\n    schedule: manual\n    args:\n    " + strings.Repeat("- ", n) + "x\n"
}

func TestReadManifestRefusesHugeFilesUnread(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\n", "nodes.yaml": "db1:\n", "jobs/a.yaml": "",
	})
	if err := os.Truncate(filepath.Join(dir, "jobs/a.yaml"), 100<<20); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "at most 8 MiB") {
		t.Errorf("error %v, want one about the size", err)
	}
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 1 {
		t.Errorf("refusing a file took %d MiB", used)
	}
}

// Keys must cost linear time: twice as many take about twice the memory, which
// counts the work without a clock.
func TestReadManifestIsLinearInKeys(t *testing.T) {
	cost := func(keys int) uint64 {
		var b strings.Builder
		b.WriteString("x: &x\n")
		for i := range keys {
			fmt.Fprintf(&b, "  key%d: 1\n", i)
		}
		b.WriteString("y: &y {<<: *x}\njobs:\n  a: {task: nothing, targets: db1, schedule: manual, labels: *y}\n")
		text := b.String()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := readJobs(t, text)
		runtime.ReadMemStats(&after)
		if err != nil || len(m.Job("a").Labels) != keys {
			t.Fatalf("%d keys: %.300v", keys, err)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := cost(20_000), cost(40_000)
	if large > 3*small {
		t.Errorf("20,000 keys took %d bytes, 40,000 took %d: that is not linear", small, large)
	}
}

func TestReadManifestDoesNotBlockOnWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\n", "nodes.yaml": "db1:\n",
		"jobs/a.yaml": "jobs:\n  a: " + oneJob + "\n", "jobs/dir.yaml/b.yaml": "jobs:\n  b: " + oneJob + "\n",
	})
	fifo := filepath.Join(dir, "jobs/pipe.yaml")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Skip(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "jobs/link.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(dir, "jobs/up")); err != nil {
		t.Fatal(err)
	}
	_, err := ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
	for _, want := range []string{"pipe.yaml: it is a named pipe, not a file", "link.yaml: it is a link to a file that doesn't exist", "it is in"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	for _, name := range []string{"pipe.yaml", "link.yaml", "up"} {
		if err := os.Remove(filepath.Join(dir, "jobs", name)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
	if err != nil || m.Job("a") == nil || m.Job("b") == nil {
		t.Errorf("jobs %v, error %v; want a, and b from a directory called dir.yaml", m, err)
	}
}

func TestReadManifestFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\n", "nodes.yaml": "db1:\n",
		"jobs/..2026/a.yaml": "jobs:\n  a: " + oneJob + "\n",
	})
	for link, to := range map[string]string{"..data": "..2026", "a.yaml": "..data/a.yaml"} {
		if err := os.Symlink(to, filepath.Join(dir, "jobs", link)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), testTasks())
	if err != nil || len(m.Jobs) != 1 {
		t.Fatalf("jobs %v, error %v, want one job", m, err)
	}
	found := strings.Join(m.Files, "\n")
	for _, want := range []string{"jobs/a.yaml", "jobs/..2026/a.yaml", "loom.yaml", "nodes.yaml"} {
		if !strings.Contains(found, filepath.Join(dir, want)) {
			t.Errorf("Files has not %s:\n%s", want, found)
		}
	}
}

func TestReadManifestLooksForTheFirstThatExists(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	if _, err := ReadManifest("", testTasks()); err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "~/.loom.yaml, ~/.loom/loom.yaml, /etc/loom.yaml, /etc/loom/loom.yaml") {
		t.Errorf("error %v, want one that lists where it looked", err)
	}
	writeFiles(t, dir, map[string]string{
		".loom/loom.yaml": "nodesfile: ~/n.yaml\njobspath: j\n", "n.yaml": "db1: {identity: ~/.ssh/key}\n", ".loom/j/a.yaml": "jobs: {a: " + oneJob + "}\n",
	})
	for _, file := range []string{"", "nowhere.yaml, ~/.loom/loom.yaml"} {
		m, err := ReadManifest(file, testTasks())
		if err != nil {
			t.Fatalf("ReadManifest(%q): %v", file, err)
		}
		if m.File != dir+"/.loom/loom.yaml" || m.Job("a") == nil || m.Node("db1").Identity != dir+"/.ssh/key" {
			t.Errorf("ReadManifest(%q) = %s, identity %s", file, m.File, m.Node("db1").Identity)
		}
	}
}
