package joblog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A desk is a writer, what it logs, and the jobs there are.
type desk struct {
	Writer
	mu   sync.Mutex
	said bytes.Buffer
	jobs map[string]*loom.Job
}

func newDesk(jobs ...*loom.Job) *desk {
	d := &desk{jobs: map[string]*loom.Job{}}
	for _, j := range jobs {
		d.jobs[j.Name] = j
	}
	d.Job = func(name string) *loom.Job { return d.jobs[name] }
	d.Log = slog.New(slog.NewTextHandler(d, nil))
	return d
}

func (d *desk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.said.Write(p)
}

// told returns the messages that were logged.
func (d *desk) told() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for line := range strings.Lines(d.said.String()) {
		_, msg, _ := strings.Cut(line, `msg="`)
		msg, _, _ = strings.Cut(msg, `"`)
		all = append(all, msg)
	}
	return all
}

func (d *desk) print(job, node string, lines ...string) {
	for _, l := range lines {
		d.Observe(loom.Event{Kind: loom.KindOutput, Time: noon, Job: job, Run: "r1", Node: node, Stream: loom.Stdout, Text: l})
	}
}

func (d *desk) close(t *testing.T) {
	t.Helper()
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func logging(name, file string) *loom.Job {
	return &loom.Job{Name: name, Timezone: time.UTC, Output: loom.LogFile{File: file}}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// texts returns what stands behind the sign in each line.
func texts(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(line, "| ")
		all = append(all, strings.TrimSuffix(rest, "\n"))
	}
	return all
}

func numbers(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("line %04d", i))
	}
	return all
}

func TestWriterTellsARun(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	own, shared := logging("backup", filepath.Join(dir, "{job}.log")), logging("other job", filepath.Join(dir, "all.log"))
	own.Timezone = berlin
	d := newDesk(own, shared, &loom.Job{Name: "none"})
	for i, e := range []loom.Event{
		{Kind: loom.KindRunStarted, Ran: &loom.Run{}},
		{Kind: loom.KindNodeStarted, Node: "db1"},
		{Kind: loom.KindOutput, Node: "db1", Stream: loom.Stdout, Text: "dumping  shop "},
		{Kind: loom.KindOutput, Node: "db1", Stream: loom.Stderr, Text: "slow"},
		{Kind: loom.KindOutput, Node: "db1", Stream: loom.Stdout, Text: "a long", More: true},
		{Kind: loom.KindOutput, Node: "db1", Stream: loom.Stdout, Text: ""},
		{Kind: loom.KindRetry, Node: "db1", Text: "attempt 1 of 2 ended failed: no\nnot now", Result: &loom.Result{}},
		{Kind: loom.KindOutput, Node: "db1", Stream: loom.Log, Text: "level=INFO msg=again"},
		{Kind: loom.KindChanged, Node: "db1", Text: "wrote /a"},
		{Kind: loom.KindNodeEnded, Node: "db1", Result: &loom.Result{Status: loom.StatusChanged, Attempts: 2, Started: noon, Ended: noon.Add(1234567 * time.Microsecond)}},
		{Kind: loom.KindNodeEnded, Node: "db2", Result: &loom.Result{Status: loom.StatusCancelled, Reason: "not begun"}},
		{Kind: loom.KindRunEnded, Ran: &loom.Run{}},
	} {
		for job := range d.jobs {
			e.Job, e.Run, e.Due, e.Time = job, "run-"+job, noon, noon.Add(time.Duration(i)*time.Millisecond)
			d.Observe(e)
		}
	}
	for _, kind := range []loom.Kind{loom.KindRunStarted, loom.KindNodeStarted, loom.KindChanged, loom.KindRunEnded} {
		d.Observe(loom.Event{Kind: kind, Job: "backup", Run: "plan", Node: "db1", Plan: true, Text: "not logged", Time: noon, Ran: &loom.Run{}})
	}
	d.close(t)
	want := `2026-03-01T13:00:00.001+01:00 db1 # started, run run-backup, due 2026-03-01T12:00:00Z
2026-03-01T13:00:00.002+01:00 db1 | dumping  shop 
2026-03-01T13:00:00.003+01:00 db1 ! slow
2026-03-01T13:00:00.004+01:00 db1 |+ a long
2026-03-01T13:00:00.005+01:00 db1 |
2026-03-01T13:00:00.006+01:00 db1 # attempt 1 of 2 ended failed: no^Jnot now
2026-03-01T13:00:00.007+01:00 db1 : level=INFO msg=again
2026-03-01T13:00:00.008+01:00 db1 # changed: wrote /a
2026-03-01T13:00:00.009+01:00 db1 # ended changed after 1.235s in attempt 2
2026-03-01T13:00:00.010+01:00 db2 # ended cancelled after 0s: not begun
`
	if got := read(t, filepath.Join(dir, "backup.log")); got != want {
		t.Errorf("the log is\n%swant\n%s", got, want)
	}
	want = strings.NewReplacer("T13:", "T12:", "+01:00", "Z", " db1", " db1 other job", " db2", " db2 other job", "run-backup", "run-other job").Replace(want)
	if got := read(t, filepath.Join(dir, "all.log")); got != want {
		t.Errorf("the log whose name doesn't tell the job is\n%swant\n%s", got, want)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 || len(d.runs) != 0 || len(d.files) != 0 {
		t.Errorf("left are %d files, %d runs and %d logs in memory, want 2, 0, 0", len(files), len(d.runs), len(d.files))
	}
}

func TestNames(t *testing.T) {
	kiritimati := time.FixedZone("", 14*3600)
	for _, tt := range []struct{ template, job, node, want string }{
		{"/l/x.log", "j", "n", "/l/x.log"},
		{"/l/{job}/{node}-{date}.log", "j", "n", "/l/j/n-2026-03-02.log"},
		{"/l/{node}/{node}{date}", "j", "n", "/l/n/n2026-03-02"},
		{"/l/{node}", "j", "..", "/l/__"},
		{"/l/{job}", "../../etc/passwd", "n", "/l/.._.._etc_passwd"},
		{"/l/{job}", "{node}", "n", "/l/{node}"},
		{"/l/{what}{", "j", "n", "/l/{what}{"},
	} {
		if got := (naming{tt.template, tt.job, tt.node}).path(noon.In(kiritimati)); got != tt.want {
			t.Errorf("%s for job %s, node %s = %s, want %s", tt.template, tt.job, tt.node, got, tt.want)
		}
	}
}

func TestWriterFollowsTheDate(t *testing.T) {
	dir := t.TempDir()
	j := logging("j", filepath.Join(dir, "{date}.log"))
	j.Timezone = time.FixedZone("", 3600)
	d := newDesk(j)
	for _, at := range []time.Time{noon.Add(11*time.Hour - time.Millisecond), noon.Add(11 * time.Hour)} {
		d.Observe(loom.Event{Kind: loom.KindOutput, Time: at, Job: "j", Run: "r", Node: "n", Stream: loom.Stdout, Text: "x"})
	}
	d.close(t)
	if a, b := read(t, filepath.Join(dir, "2026-03-01.log")), read(t, filepath.Join(dir, "2026-03-02.log")); !strings.HasPrefix(a, "2026-03-01T23:59:59.999+01:00 n j | x\n") ||
		!strings.HasPrefix(b, "2026-03-02T00:00:00.000+01:00 n j | x\n") {
		t.Errorf("the days have %q and %q", a, b)
	}
}

func TestWriterMakesFilesForNobodyElse(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := t.TempDir()
	file := filepath.Join(dir, "a", "b", "j.log")
	d := newDesk(logging("j", file))
	d.print("j", "n", "x")
	d.close(t)
	for name, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700, filepath.Dir(filepath.Dir(file)): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func TestWriterRefusesWhatIsNoFile(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		make       func(path string) error
	}{
		{"link", "is a symbolic link", func(p string) error { return os.Symlink(p+".target", p) }},
		{"link to a file", "is a symbolic link", func(p string) error {
			return errors.Join(os.WriteFile(p+".target", nil, 0o600), os.Symlink(p+".target", p))
		}},
		{"pipe", "no regular file", func(p string) error { return syscall.Mkfifo(p, 0o600) }},
		{"directory", "is a directory", func(p string) error { return os.Mkdir(p, 0o700) }},
		{"device", "is a symbolic link", func(p string) error { return os.Symlink("/dev/full", p) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "j.log")
			if err := tt.make(file); err != nil {
				t.Fatal(err)
			}
			d := newDesk(logging("j", file))
			d.print("j", "n", "secret")
			err := d.Close(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), file) {
				t.Errorf("Close = %v, want that %s %s", err, file, tt.says)
			}
			if text, err := os.ReadFile(file + ".target"); err == nil && len(text) > 0 {
				t.Errorf("the link was followed: %q", text)
			}
		})
	}
	if _, _, _, err := open("/dev/null"); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("open(/dev/null) = %v", err)
	}
}

func TestWriterFollowsLinksToDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o700), os.Symlink("real", filepath.Join(dir, "logs"))); err != nil {
		t.Fatal(err)
	}
	d := newDesk(logging("j", filepath.Join(dir, "logs", "j.log")))
	d.print("j", "n", "x")
	d.close(t)
	read(t, filepath.Join(dir, "real", "j.log"))
}

func TestWriterRotates(t *testing.T) {
	for _, tt := range []struct {
		name      string
		max       int64
		keep      int
		files     int // rotated
		lines     int // of 100 of 46 bytes each, in all files
		inCurrent int
	}{
		{"never", 0, 3, 0, 100, 100},
		{"all are kept", 460, 0, 9, 100, 10},
		{"not quite ten", 459, 0, 11, 100, 1},
		{"the last two are kept", 460, 2, 2, 30, 10},
		{"a line is never cut", 10, 4, 4, 5, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "j.log")
			for _, name := range []string{"j.log.old", "j.log.20260101", "k.log.20260101T000000.000Z"} { // not ours
				if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			j := logging("{job}", file)
			j.Name, j.Output.MaxSize, j.Output.Keep = "job", tt.max, tt.keep
			// In several goes, as if Loom had been restarted.
			for part := range slices.Chunk(numbers(100), 7) {
				d := newDesk(j)
				d.print("job", "node", part...)
				d.close(t)
			}
			old := rotated(file)
			if len(old) != tt.files {
				t.Errorf("%d files were rotated and kept, want %d: %q", len(old), tt.files, old)
			}
			var all []string
			for _, f := range append(old, file) {
				text := read(t, f)
				if tt.max > 46 && int64(len(text)) > tt.max {
					t.Errorf("%s has %d bytes, more than %d", f, len(text), tt.max)
				}
				all = append(all, texts(text)...)
			}
			if want := numbers(100)[100-tt.lines:]; !slices.Equal(all, want) {
				t.Errorf("the files have %q,\nwant %q", all, want)
			}
			if n := len(texts(read(t, file))); n != tt.inCurrent {
				t.Errorf("the current file has %d lines, want %d", n, tt.inCurrent)
			}
			if left, _ := os.ReadDir(dir); len(left) != 3+1+tt.files {
				t.Errorf("%d files are left, want %d", len(left), 3+1+tt.files)
			}
		})
	}
}

func TestRotationKeepsTheMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.log")
	if err := errors.Join(os.WriteFile(file, []byte("old\n"), 0o600), os.Chmod(file, 0o640)); err != nil {
		t.Fatal(err)
	}
	j := logging("j", file)
	j.Output.MaxSize = 10
	d := newDesk(j)
	d.print("j", "n", "x")
	d.close(t)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 || len(rotated(file)) != 1 {
		t.Errorf("after rotation the file is %v (%v), and there are %d others", info.Mode(), err, len(rotated(file)))
	}
}

func TestWriterRemovesTheLogsOfEarlierDays(t *testing.T) {
	dir := t.TempDir()
	stays := []string{
		"a[x]-n-2026-02-27.log", "a[x]-n-2026-02-28.log", "a[x]-n-2026-02-28.log.20260228T000000.000Z",
		"a[x]-n-2027-01-01.log", "a[x]-m-2026-01-01.log", "a[x]-n-2026-01-1.log", "ax-n-2026-01-01.log",
		"a[x]-n-2026-01-01.log.gz", "a[x]-n-2026-01-01.log.bak", "b-n-2026-01-01.log", "a[x]-n-old-2026-01-01.log",
	}
	goes := []string{"a[x]-n-2026-02-26.log", "a[x]-n-2025-12-31.log", "a[x]-n-2025-12-31.log.20251231T000000.000Z"}
	for _, name := range slices.Concat(stays, goes) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := logging("a[x]", filepath.Join(dir, "{job}-{node}-{date}.log"))
	j.Output.Keep = 2
	d := newDesk(j)
	d.print("a[x]", "n", "x")
	d.close(t)
	var left []string
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		left = append(left, f.Name())
	}
	want := slices.Sorted(slices.Values(append(stays, "a[x]-n-2026-03-01.log")))
	slices.Sort(left)
	if !slices.Equal(left, want) {
		t.Errorf("left are %q,\nwant     %q", left, want)
	}
}

func TestWriterRetriesAndTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		blocker := filepath.Join(dir, "logs")
		if err := os.WriteFile(blocker, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDesk(logging("j", filepath.Join(blocker, "j.log")), logging("fine", filepath.Join(dir, "fine.log")))
		for _, line := range numbers(10) {
			d.print("j", "n", line)
			d.print("fine", "n", line)
			time.Sleep(time.Minute) //nolint:forbidigo // the fake clock's
		}
		if got := d.told(); !slices.Equal(got, []string{"log of a job can't be written: it is tried again"}) {
			t.Errorf("told %q while the file could not be written, want once", got)
		}
		if err := os.Remove(blocker); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the fake clock's
		synctest.Wait()
		if got := d.told(); len(got) != 2 || got[1] != "log of a job is written again" {
			t.Errorf("told %q", got)
		}
		d.close(t)
		for _, file := range []string{"logs/j.log", "fine.log"} {
			if got := texts(read(t, filepath.Join(dir, file))); !slices.Equal(got, numbers(10)) {
				t.Errorf("%s has %q", file, got)
			}
		}
	})
}

func TestWriterGoesOnWhenADiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(logging("j", "/logs/j.log"))
		var disk bytes.Buffer
		var mu sync.Mutex
		room := 100
		d.limits.write = func(_ naming, _ string, _ loom.LogFile, lines []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			n := min(len(lines), room)
			room -= n
			disk.Write(lines[:n])
			if n < len(lines) {
				return n, syscall.ENOSPC
			}
			return n, nil
		}
		d.print("j", "n", numbers(20)...)
		time.Sleep(time.Hour) //nolint:forbidigo // the fake clock's
		synctest.Wait()
		mu.Lock()
		if disk.Len() != 100 {
			t.Errorf("%d bytes are on the full disk, want 100", disk.Len())
		}
		room = 1 << 20
		mu.Unlock()
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the fake clock's
		d.close(t)
		if got := texts(disk.String()); !slices.Equal(got, numbers(20)) {
			t.Errorf("the log has %q", got)
		}
	})
}

func TestWriterLeavesLinesOutAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(logging("j", "/logs/j.log"), logging("other", "/logs/other.log"))
		d.limits.file = 2000
		disk := map[string]*bytes.Buffer{"/logs/j.log": {}, "/logs/other.log": {}}
		hang := make(chan struct{})
		d.limits.write = func(_ naming, path string, _ loom.LogFile, lines []byte) (int, error) {
			if path == "/logs/j.log" {
				<-hang
			}
			return disk[path].Write(lines)
		}
		d.print("j", "n", numbers(1000)...) // it returns, for all that the disk doesn't
		d.print("other", "n", numbers(20)...)
		synctest.Wait()
		if got := texts(disk["/logs/other.log"].String()); !slices.Equal(got, numbers(20)) {
			t.Errorf("a file waits for the disk of another: it has %q", got)
		}
		close(hang)
		synctest.Wait()
		d.print("j", "n", "after")
		d.close(t)
		got := texts(disk["/logs/j.log"].String())
		line := len("2026-03-01T12:00:00.000Z n j | line 0000\n")
		took := 2000 / line
		if len(got) != took+2 || !slices.Equal(got[:took], numbers(took)) || got[took+1] != "after" {
			t.Fatalf("the log has %q, want the first %d lines, a marker, and one line after", got, took)
		}
		if marker := strings.Split(disk["/logs/j.log"].String(), "\n")[took]; !strings.HasSuffix(marker,
			fmt.Sprintf(" - # %d lines, %d bytes of output are missing here: they came faster than they could be written", 1000-took, (1000-took)*line)) {
			t.Errorf("the marker is %q", marker)
		}
		if got := d.told(); !slices.Equal(got, []string{"log of a job can't be written as fast as it grows: lines are left out"}) {
			t.Errorf("told %q", got)
		}
	})
}

func TestFilesThatCannotBeWrittenLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(logging("bad", "/bad/{node}"), logging("good", "/good"))
		d.limits.waiting, d.limits.stuck = 20_000, 5_000
		good := 0
		d.limits.write = func(_ naming, path string, _ loom.LogFile, lines []byte) (int, error) {
			if path == "/good" {
				good += bytes.Count(lines, []byte("\n"))
				return len(lines), nil
			}
			return 0, syscall.EROFS
		}
		for i := range 100 {
			d.print("bad", fmt.Sprint("n", i), numbers(20)...)
			synctest.Wait()
			d.print("good", "n", numbers(10)...)
			synctest.Wait()
		}
		time.Sleep(time.Hour) //nolint:forbidigo // the fake clock's
		if good != 1000 {
			t.Errorf("%d lines of a good file were written, want 1000", good)
		}
		d.Writer.mu.Lock()
		// One line of each file may stay beyond the limit.
		if d.stuck > 5_000+100*60 || d.waiting != d.stuck {
			t.Errorf("%d bytes wait, %d of them for files that can't be written", d.waiting, d.stuck)
		}
		d.Writer.mu.Unlock()
		if err := d.Close(t.Context()); !errors.Is(err, syscall.EROFS) || strings.Count(err.Error(), "\n") != 99 {
			t.Errorf("Close = %v, want the 100 files", err)
		}
	})
}

func TestCloseDoesNotWaitForADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(logging("j", "/logs/j.log"))
		hang := make(chan struct{})
		d.limits.write = func(_ naming, _ string, _ loom.LogFile, lines []byte) (int, error) {
			<-hang
			return len(lines), nil
		}
		d.print("j", "n", "x")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, loom.ErrShutdown)
		defer cancel()
		if err := d.Close(ctx); !errors.Is(err, loom.ErrShutdown) || !strings.Contains(err.Error(), "/logs/j.log: 33 bytes are not written") {
			t.Errorf("Close = %v", err)
		}
		close(hang)
		if err := d.Close(t.Context()); err != nil {
			t.Errorf("Close, when the disk is back = %v", err)
		}
		d.print("j", "n", "too late")
	})
}

func TestWriterHasFewFilesOpen(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(logging("j", filepath.Join(dir, "{node}.log")))
	var mu sync.Mutex
	now, most := 0, 0
	d.limits.write = func(n naming, path string, rule loom.LogFile, lines []byte) (int, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			now--
		}()
		return write(n, path, rule, lines)
	}
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() { d.print("j", fmt.Sprintf("n%04d", i), numbers(5)...) })
	}
	wg.Wait()
	d.close(t)
	if most > mostWriters {
		t.Errorf("%d files were open at once, want at most %d", most, mostWriters)
	}
	for i := range 2000 {
		if got := texts(read(t, filepath.Join(dir, fmt.Sprintf("n%04d.log", i)))); !slices.Equal(got, numbers(5)) {
			t.Fatalf("the log of node %d has %q", i, got)
		}
	}
	if len(d.told()) != 0 || d.waiting != 0 {
		t.Errorf("told %q; %d bytes wait", d.told(), d.waiting)
	}
}

func TestARunEndsWithTheLogItBeganWith(t *testing.T) {
	dir := t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	d := newDesk(logging("j", before))
	say := func(kind loom.Kind, run, text string) {
		d.Observe(loom.Event{Kind: kind, Time: noon, Job: "j", Run: run, Node: "n", Text: text})
	}
	say(loom.KindRunStarted, "r1", "")
	say(loom.KindOutput, "r1", "one")
	d.jobs["j"] = logging("j", after)
	say(loom.KindRunStarted, "r2", "")
	say(loom.KindOutput, "r2", "new")
	delete(d.jobs, "j")
	say(loom.KindOutput, "r1", "two")
	say(loom.KindRunEnded, "r1", "")
	say(loom.KindOutput, "r3", "of a job that is gone")
	d.close(t)
	if a, b := texts(read(t, before)), texts(read(t, after)); !slices.Equal(a, []string{"one", "two"}) || !slices.Equal(b, []string{"new"}) {
		t.Errorf("the old log has %q, the new one %q", a, b)
	}
}

func FuzzEntry(f *testing.F) {
	for _, s := range []string{"plain", "caf\xc3\xa9 \xe9", "a\r2026-03-01T12:00:00.000Z n | forged", "a\nb", "\x1b[2K\x1b[1A", "\u009b31m", "\t\x00\x7f", "\xc2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line := string(entry(noon, "n", "|", text))
		rest, ok := strings.CutPrefix(line, "2026-03-01T12:00:00.000Z n |")
		if !ok || strings.Index(line, "\n") != len(line)-1 {
			t.Fatalf("%q makes %q", text, line)
		}
		rest = strings.TrimSuffix(rest, "\n")
		for i, r := range rest {
			if _, n := utf8.DecodeRuneInString(rest[i:]); n > 1 || r < utf8.RuneSelf {
				if r != '\t' && unicode.IsControl(r) {
					t.Fatalf("%q makes %q, with a control character", text, line)
				}
			}
		}
		harmless := !strings.ContainsFunc(text, func(r rune) bool { return r != '\t' && unicode.IsControl(r) })
		if harmless && strings.TrimPrefix(rest, " ") != text && text != "" && rest != " "+text {
			t.Fatalf("%q was changed to %q", text, rest)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	d := newDesk(logging("j", filepath.Join(b.TempDir(), "{node}.log")), &loom.Job{Name: "none"})
	for _, job := range []string{"j", "none"} {
		b.Run(job, func(b *testing.B) {
			e := loom.Event{Kind: loom.KindOutput, Time: noon, Job: job, Run: "r1", Node: "n", Stream: loom.Stdout, Text: strings.Repeat("x", 80)}
			b.ReportAllocs()
			for b.Loop() {
				d.Observe(e)
			}
		})
	}
	_ = d.Close(b.Context())
}
