package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/smalldisk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is a store's file and how to open it.
type place struct {
	*testing.T
	file string
}

func newPlace(t *testing.T) place {
	t.Helper()
	return place{t, filepath.Join(t.TempDir(), "state", "loom.db")}
}

func (p place) open() *Store {
	p.Helper()
	s, err := Options{Busy: 50 * time.Millisecond}.Open(p.Context(), p.file)
	if err != nil {
		p.Fatal(err)
	}
	return s
}

func (p place) close(s *Store) {
	p.Helper()
	if err := s.Close(); err != nil {
		p.Error(err)
	}
}

// other opens the file as another program would.
func (p place) other() *sql.DB {
	p.Helper()
	db, err := sql.Open("sqlite", address(p.file, "busy_timeout(5000)"))
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { db.Close() })
	return db
}

func (p place) exec(db *sql.DB, query string) {
	p.Helper()
	if _, err := db.ExecContext(p.Context(), query); err != nil {
		p.Fatalf("%s: %v", query, err)
	}
}

// begin starts a run by hand; what it returns tells whether that was written.
func begin(ctx context.Context, s *Store, job, id string) error {
	_, err := s.Fire(ctx, "a", []loom.Firing{{Job: job, Run: loom.Run{ID: id, Trigger: loom.TriggerManual}, Overlap: loom.OverlapAllow, Claim: true}})
	return err
}

// fill makes n runs with a result and some output.
func (p place) fill(s *Store, n int) {
	p.Helper()
	for i := range n {
		p.whole(s, fmt.Sprint("job ", i%3), fmt.Sprintf("fill%022d", i))
	}
}

// whole is a run from its begin to its end.
func (p place) whole(s *Store, job, id string) {
	p.Helper()
	fired, err := s.Fire(p.Context(), "a", []loom.Firing{{Job: job, Run: loom.Run{ID: id, Trigger: loom.TriggerManual}, Overlap: loom.OverlapAllow, Claim: true}})
	if err != nil {
		p.Fatal(err)
	}
	err = s.Finish(p.Context(), fired[0].Claim, loom.Run{Status: loom.StatusOK, Counts: map[loom.Status]int{loom.StatusOK: 1}}, []loom.Event{
		{Kind: loom.KindNodeStarted, Node: "n1", Time: time.Now()},
		{Kind: loom.KindOutput, Node: "n1", Time: time.Now(), Stream: loom.Stdout, Text: strings.Repeat(id, 20)},
		{Kind: loom.KindNodeEnded, Node: "n1", Result: &loom.Result{Status: loom.StatusOK, ExitCode: -1, Ended: time.Now()}},
	})
	if err != nil {
		p.Fatal(err)
	}
}

func (p place) count(s *Store) int {
	p.Helper()
	runs, err := s.Runs(p.Context(), loom.RunQuery{Limit: 1 << 20})
	if err != nil {
		p.Fatal(err)
	}
	return len(runs)
}

// down checks that err is a sentence that names the file and what to do.
func (p place) down(err error, words ...string) {
	p.Helper()
	if !errors.Is(err, loom.ErrStoreDown) {
		p.Fatalf("error %v, want ErrStoreDown", err)
	}
	for _, w := range append(words, p.file) {
		if !strings.Contains(err.Error(), w) {
			p.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestPrivate(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer p.close(s)
	p.fill(s, 1)
	if info, err := os.Stat(filepath.Dir(p.file)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
	files, err := filepath.Glob(p.file + "*")
	if err != nil || len(files) != 4 { // itself, log, index, lock
		t.Errorf("files %q, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

func TestInUse(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	_, err := Open(t.Context(), p.file)
	if err == nil || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) || !strings.Contains(err.Error(), p.file) {
		t.Errorf("opened twice: %v", err)
	}
	p.close(s)
	p.close(p.open())
	if err := begin(t.Context(), s, "j", "x"); !errors.Is(err, loom.ErrStoreDown) {
		t.Errorf("a store that was closed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestRefused(t *testing.T) {
	whole := newPlace(t)
	s := whole.open()
	whole.fill(s, 40)
	whole.close(s)
	good, err := os.ReadFile(whole.file)
	if err != nil {
		t.Fatal(err)
	}
	foreign := newPlace(t)
	if err := os.MkdirAll(filepath.Dir(foreign.file), 0o700); err != nil {
		t.Fatal(err)
	}
	foreign.exec(foreign.other(), "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
	theirs, err := os.ReadFile(foreign.file)
	if err != nil {
		t.Fatal(err)
	}
	zeroed := bytes.Clone(good)
	clear(zeroed[4096:])
	schema := bytes.Clone(good)
	copy(schema[100:4096], bytes.Repeat([]byte{0xa5}, 4096))
	for _, tt := range []struct {
		name    string
		content []byte
		says    string
	}{
		{"empty", nil, "is empty"},
		{"short", good[:50], "is cut short"},
		{"text", []byte(strings.Repeat("these are my passwords\n", 100)), "is not a SQLite database"},
		{"another program's", theirs, "not a store of loom's"},
		{"cut", good[:len(good)-5000], "is cut short"},
		{"cut to a page", good[:4096], "is cut short"},
		{"zeroes", zeroed, "damaged"},
		{"noise for a schema", schema, "damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p.file, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), p.file)
			p.down(err, tt.says, "left as it is", "backup")
			if now, err := os.ReadFile(p.file); err != nil || !bytes.Equal(now, tt.content) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
	p := newPlace(t)
	if err := os.MkdirAll(p.file, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), p.file)
	p.down(err, "not a regular file")
}

func TestNewerSchema(t *testing.T) {
	p := newPlace(t)
	p.close(p.open())
	p.exec(p.other(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
	_, err := Open(t.Context(), p.file)
	if err == nil || !strings.Contains(err.Error(), "newer loom") || !strings.Contains(err.Error(), "99") || !strings.Contains(err.Error(), p.file) {
		t.Errorf("a newer store: %v", err)
	}
}

// The fixture is what version 1 of the schema wrote.
func TestMigration(t *testing.T) {
	script, err := os.ReadFile("testdata/schema1.sql")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
		t.Fatal(err)
	}
	db := p.other()
	p.exec(db, string(script))
	p.exec(db, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	db.Close()

	s := p.open()
	defer p.close(s)
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if n := p.count(s); n != 2 {
		t.Errorf("%d runs, want the 2 of before", n)
	}
	if err := s.Act(t.Context(), loom.Action{By: "kim", Verb: loom.VerbPause, Object: "backup"}); err != nil {
		t.Error(err)
	}
	states, err := s.Jobs(t.Context())
	if err != nil || len(states) != 1 || states[0].Pause == nil || states[0].LastTick.IsZero() || states[0].Last.Reason != "it broke" {
		t.Errorf("jobs %+v, %v", states, err)
	}
	for text, want := range map[string]int{"IT BROKE": 1, "Exit Status": 1, "backup": 2, "nothing": 0} {
		if found, err := s.Runs(t.Context(), loom.RunQuery{Text: text}); err != nil || len(found) != want {
			t.Errorf("%d runs with %q, want %d: %v", len(found), text, want, err)
		}
	}
}

// What is trimmed leaves nothing in the index of texts.
func TestTrimmedTexts(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer func() { p.close(s) }()
	indexed := func() (n int) {
		t.Helper()
		if err := s.reading.QueryRowContext(t.Context(), "SELECT count(*) FROM said").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 5 {
		fired, err := s.Fire(t.Context(), "a", []loom.Firing{{Job: "j", Claim: true, Overlap: loom.OverlapAllow, Run: loom.Run{ID: fmt.Sprintf("%026d", i), Trigger: loom.TriggerSchedule}}})
		if err != nil {
			t.Fatal(err)
		}
		end := loom.Run{Status: loom.StatusOK}
		if i > 0 {
			end = loom.Run{Status: loom.StatusFailed, Reason: fmt.Sprint("it broke ", i)}
		}
		if err := s.Finish(t.Context(), fired[0].Claim, end, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := indexed(); n != 4 {
		t.Errorf("texts of %d runs are indexed, want those of the 4 that have some", n)
	}
	if _, err := s.Trim(t.Context(), loom.Retention{RunsPerJob: 2}); err != nil {
		t.Fatal(err)
	}
	if n := indexed(); n != 2 {
		t.Errorf("texts of %d runs are indexed after all but 2 runs were trimmed", n)
	}
	if found, err := s.Runs(t.Context(), loom.RunQuery{Text: "broke"}); err != nil || len(found) != 2 {
		t.Errorf("%d runs are found, want 2: %v", len(found), err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLocked(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer func() { p.close(s) }()
	conn, err := p.other().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hold := func() {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
			t.Fatal(err)
		}
	}
	release := func() {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
	}
	hold()
	p.down(begin(t.Context(), s, "j", "one"), "locked")
	if n := p.count(s); n != 0 {
		t.Errorf("%d runs while it is locked", n)
	}
	release()
	if err := begin(t.Context(), s, "j", "one"); err != nil {
		t.Errorf("after the lock: %v", err)
	}

	// One who waits longer than the lock is held notices nothing.
	p.close(s)
	s, err = Options{Busy: time.Minute}.Open(t.Context(), p.file)
	if err != nil {
		t.Fatal(err)
	}
	hold()
	done := make(chan error)
	go func() { done <- begin(t.Context(), s, "j", "two") }()
	select {
	case err := <-done:
		t.Fatalf("written while it was locked: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	release()
	if err := <-done; err != nil {
		t.Errorf("after the lock: %v", err)
	}
	if n := p.count(s); n != 2 {
		t.Errorf("%d runs, want 2", n)
	}
}

// Who could not be heard because the store was down keeps its runs.
func TestOutageTakesNothingAway(t *testing.T) {
	p := newPlace(t)
	const ttl = 200 * time.Millisecond
	s, err := Options{TTL: ttl, Busy: 20 * time.Millisecond}.Open(t.Context(), p.file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(s)
	fired, err := s.Fire(t.Context(), "a", []loom.Firing{{Job: "j", Claim: true, Run: loom.Run{ID: fmt.Sprintf("%026d", 1)}}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.other().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	p.down(begin(t.Context(), s, "j", "two"), "locked")
	for end := time.Now().Add(2 * ttl); time.Now().Before(end); {
		if _, err := s.Beat(t.Context(), loom.Instance{ID: "a"}); !errors.Is(err, loom.ErrStoreDown) {
			t.Fatalf("Beat = %v while the file is locked", err)
		}
	}
	if _, err := conn.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b", "a"} { // the other comes first
		pulse, err := s.Beat(t.Context(), loom.Instance{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if id == "a" && !slices.Equal(pulse.Owned, []string{fired[0].Claim.Run.ID}) {
			t.Errorf("after the outage a owns %q, want its run", pulse.Owned)
		}
	}
}

// Requests that share a transaction succeed and fail each on its own.
func TestSharedTransaction(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	s.options.Busy = time.Minute // for the sentence only
	defer p.close(s)
	fired, err := s.Fire(t.Context(), "a", []loom.Firing{{Job: "j", Run: loom.Run{ID: "held"}, Claim: true}})
	if err != nil {
		t.Fatal(err)
	}
	good := fired[0].Claim
	stale := good
	stale.Epoch = 7

	entered, leave := make(chan struct{}), make(chan struct{})
	go func() {
		_ = s.write(context.Background(), func(*tx) error { close(entered); <-leave; return nil })
	}()
	<-entered
	const n = 30
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, want := good, error(nil)
			if i%3 == 0 {
				c, want = stale, loom.ErrFenced
			}
			err := s.Record(t.Context(), c, []loom.Event{{Kind: loom.KindNodeStarted, Node: fmt.Sprint("node ", i), Time: time.Now()}})
			if !errors.Is(err, want) {
				t.Errorf("request %d: %v, want %v", i, err, want)
			}
		})
	}
	no := errors.New("no")
	wg.Go(func() { // writes before it fails
		err := s.write(t.Context(), func(x *tx) error {
			if _, err := x.node("ghost"); err != nil {
				return err
			}
			return errors.Join(x.exec("INSERT INTO jobs (name) VALUES ('never')"), no)
		})
		if !errors.Is(err, no) {
			t.Errorf("a request that writes and fails: %v", err)
		}
	})
	for len(s.requests) < n+1 { // all wait for the one before
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the requests never came")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := begin(ctx, s, "j", "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("a request whose context has ended: %v", err)
	}
	close(leave)
	wg.Wait()
	results, err := s.Results(t.Context(), loom.ResultQuery{Runs: []string{"held"}})
	if err != nil || len(results) != n*2/3 {
		t.Errorf("%d results, %v; want %d", len(results), err, n*2/3)
	}
	for _, r := range results {
		var i int
		if _, err := fmt.Sscanf(r.Node, "node %d", &i); err != nil || i%3 == 0 {
			t.Errorf("a request that failed has written %s", r.Node)
		}
	}
	for _, table := range []string{"jobs", "nodes"} {
		if id, err := s.number(t.Context(), table, map[string]string{"jobs": "never", "nodes": "ghost"}[table]); id != 0 || err != nil {
			t.Errorf("a request that failed has written to %s (%v)", table, err)
		}
	}
	if err := s.Record(t.Context(), good, []loom.Event{{Kind: loom.KindNodeStarted, Node: "ghost", Time: time.Now()}}); err != nil {
		t.Errorf("a node that a failed request named first: %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A power cut can't be had in a test; what makes the file outlive one can.
func TestSettings(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer p.close(s)
	want := map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1", "auto_vacuum": "2"}
	err := s.write(t.Context(), func(x *tx) error {
		for name, value := range want {
			var got string
			if err := x.get("PRAGMA "+name, nil, &got); err != nil || got != value {
				t.Errorf("%s is %s, want %s (%v)", name, got, value, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDeleted(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer p.close(s)
	p.fill(s, 5)
	aside := p.file + ".aside"
	if err := os.Rename(p.file, aside); err != nil {
		t.Fatal(err)
	}
	p.down(begin(t.Context(), s, "j", "one"), "deleted", "backup")
	if n := p.count(s); n != 5 {
		t.Errorf("%d runs can be read, want 5", n)
	}
	saved := filepath.Join(t.TempDir(), "saved.db")
	if err := s.Backup(t.Context(), saved); err != nil {
		t.Errorf("backup of a deleted store: %v", err)
	}
	if err := os.WriteFile(p.file, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.down(begin(t.Context(), s, "j", "one"), "replaced")
	if err := os.Rename(aside, p.file); err != nil {
		t.Fatal(err)
	}
	if err := begin(t.Context(), s, "j", "one"); err != nil {
		t.Errorf("after it was put back: %v", err)
	}
	copied := place{t, saved}
	c := copied.open()
	defer copied.close(c)
	if n := copied.count(c); n != 5 {
		t.Errorf("the backup has %d runs, want 5", n)
	}
}

// mount gives the test a small file system of its own.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	smalldisk.Mount(t, dir, size)
	return dir
}

func TestFull(t *testing.T) {
	dir := mount(t, "6m")
	p := place{t, filepath.Join(dir, "loom.db")}
	s := p.open()
	defer p.close(s)
	p.fill(s, 5)
	for round := range 3 {
		free := smalldisk.Fill(t, dir)
		var err error
		written := p.count(s)
		for i := 0; err == nil; i++ { // what is free in the log is used up first
			if err = begin(t.Context(), s, "j", fmt.Sprintf("full %d %d", round, i)); err == nil {
				written++
			}
		}
		p.down(err, "full")
		if n := p.count(s); n != written {
			t.Errorf("%d runs, want the %d that were acknowledged", n, written)
		}
		free()
		if err := begin(t.Context(), s, "j", fmt.Sprint("free ", round)); err != nil {
			t.Fatalf("after space was freed: %v", err)
		}
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := mount(t, "6m")
	p := place{t, filepath.Join(dir, "loom.db")}
	s := p.open()
	p.fill(s, 1)
	p.close(s)
	remount := func(mode string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,"+mode, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	remount("ro")
	if _, err := Open(t.Context(), p.file); !errors.Is(err, syscall.EROFS) {
		t.Errorf("opened on a read-only file system: %v", err)
	}
	remount("rw")
	p.close(p.open())
}

func TestBackup(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer p.close(s)
	p.fill(s, 20)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				p.whole(s, "busy", fmt.Sprintf("busy%022d", i))
			}
		}
	})
	for i := range 3 {
		file := filepath.Join(t.TempDir(), "copy.db")
		before := p.count(s)
		if err := s.Backup(t.Context(), file); err != nil {
			t.Fatal(err)
		}
		after := p.count(s)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the copy: %v, %v", info.Mode(), err)
		}
		if err := s.Backup(t.Context(), file); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a backup over another: %v", err)
		}
		left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
		if err != nil || len(left) != 1 {
			t.Errorf("files %q, %v", left, err)
		}
		copied := place{t, file}
		c := copied.open()
		if err := c.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if n := copied.count(c); n < before || n > after {
			t.Errorf("copy %d has %d runs, want %d to %d", i, n, before, after)
		}
		copied.whole(c, "j", "in the copy")
		copied.close(c)
	}
	close(stop)
	wg.Wait()
}

func TestShrinks(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer p.close(s)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range 8 {
		id := fmt.Sprint("run ", i)
		fired, err := s.Fire(t.Context(), "a", []loom.Firing{{Job: "j", Run: loom.Run{ID: id}, Overlap: loom.OverlapAllow, Claim: true}})
		if err != nil {
			t.Fatal(err)
		}
		var events []loom.Event
		for range 100 {
			text := make([]byte, 4000)
			for i := range text {
				text[i] = byte(noise.Uint32())
			}
			events = append(events, loom.Event{Kind: loom.KindOutput, Node: "n1", Text: string(text)})
		}
		if err := s.Finish(t.Context(), fired[0].Claim, loom.Run{Status: loom.StatusOK}, events); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		rows, err := s.writing.QueryContext(t.Context(), "PRAGMA wal_checkpoint(truncate)")
		if err := every(rows, err, func(*sql.Rows) error { return nil }); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(p.file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	done, err := s.Trim(t.Context(), loom.Retention{RunsPerJob: 1})
	if err != nil {
		t.Fatal(err)
	}
	after := size()
	if done.Runs != 7 || done.Bytes < 7*400_000 || before-after < done.Bytes*9/10 {
		t.Errorf("trimmed %+v, and the file went from %d to %d bytes", done, before, after)
	}
	var kept, counted int64
	if err := s.reading.QueryRowContext(t.Context(), "SELECT (SELECT sum(length(data)) FROM output), (SELECT value FROM meta)").Scan(&kept, &counted); err != nil || kept != counted {
		t.Errorf("%d bytes of output are kept and %d counted, %v", kept, counted, err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// Others write between the steps of a trimming.
func TestTrimLetsWrite(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	defer p.close(s)
	const firings = 2*slice + 100
	batch := make([]loom.Firing, firings)
	for i := range batch {
		batch[i] = loom.Firing{Job: "j", Run: loom.Run{ID: fmt.Sprint("run ", i)}, Overlap: loom.OverlapAllow}
	}
	if _, err := s.Fire(t.Context(), "a", batch); err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context(), func(t *tx) error { return t.exec("UPDATE runs SET status = 'ok', queued = queued - 100000") }); err != nil {
		t.Fatal(err)
	}
	trimmed := make(chan error)
	go func() {
		done, err := s.Trim(t.Context(), loom.Retention{Runs: time.Minute})
		if err == nil && done.Runs != firings-1 { // the last of a job is kept
			err = fmt.Errorf("trimmed %+v", done)
		}
		trimmed <- err
	}()
	seen := map[int]bool{}
	for i := 0; ; i++ {
		select {
		case err := <-trimmed:
			if err != nil {
				t.Error(err)
			}
			if n := len(seen); n < 3 {
				t.Errorf("it was trimmed in %d steps that others could write between", n)
			}
			return
		default:
		}
		if err := begin(t.Context(), s, "other", fmt.Sprint("other ", i)); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := s.reading.QueryRowContext(t.Context(), "SELECT count(*) FROM runs JOIN jobs ON jobs.id = job WHERE name = 'j'").Scan(&left); err != nil {
			t.Fatal(err)
		}
		seen[left] = true
	}
}

// TestFlips reads and writes stores of which some bytes are wrong. Whatever
// comes back, it must not be a panic.
func TestFlips(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	p.fill(s, 30)
	p.close(s)
	good, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	rounds := 24
	if n, err := strconv.Atoi(os.Getenv("LOOM_FLIPS")); err == nil {
		rounds = n
	}
	var refused, failed, fine int
	for round := range rounds {
		dice := rand.New(rand.NewPCG(uint64(round), 7))
		bad := bytes.Clone(good)
		for range 1 + dice.IntN(20) {
			bad[dice.IntN(len(bad))] ^= byte(1 + dice.IntN(255))
		}
		file := filepath.Join(t.TempDir(), "loom.db")
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Options{Busy: 50 * time.Millisecond}.Open(t.Context(), file)
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), file) {
				t.Errorf("round %d: %q does not name the file", round, err)
			}
			continue
		}
		if err := useAll(t.Context(), s); err != nil {
			failed++
		} else {
			fine++
		}
		_ = s.Close()
	}
	t.Logf("of %d damaged stores %d were refused, %d failed in use, %d were as good as whole", rounds, refused, failed, fine)
	if refused == 0 || failed == 0 {
		t.Error("the flips hit nothing: the test is blind")
	}
}

// useAll does a bit of all, and returns what fails.
func useAll(ctx context.Context, s *Store) error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	add(s.Check(ctx))
	runs, err := s.Runs(ctx, loom.RunQuery{})
	add(err)
	for _, r := range runs {
		_, err := s.Results(ctx, loom.ResultQuery{Runs: []string{r.ID}})
		add(err)
		_, err = s.Output(ctx, loom.OutputQuery{Run: r.ID})
		add(err)
	}
	_, err = s.Runs(ctx, loom.RunQuery{Node: "n1", Text: "x"})
	add(err)
	_, err = s.Jobs(ctx)
	add(err)
	_, err = s.Days(ctx, loom.DayQuery{})
	add(err)
	add(begin(ctx, s, "job 0", "new"))
	_, err = s.Trim(ctx, loom.Retention{RunsPerJob: 2})
	add(err)
	return errors.Join(errs...)
}

// TestKill kills a process that writes, at moments of chance, and looks whether
// all that it was told is written can be read.
func TestKill(t *testing.T) {
	p := newPlace(t)
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("LOOM_KILLS")); err == nil {
		rounds = n
	}
	acknowledged := map[string]bool{}
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWriteUntilKilled$")
		cmd.Env = append(os.Environ(), "LOOM_STORE="+p.file, fmt.Sprint("LOOM_ROUND=", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		die := 20 + rand.IntN(150) // acknowledgements from now
		for n := 0; lines.Scan(); n++ {
			id, ok := strings.CutPrefix(lines.Text(), "ack ")
			if ok {
				acknowledged[id] = true
			} else if n < die {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			if n == die {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		s := p.open()
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		runs, err := s.Runs(t.Context(), loom.RunQuery{Limit: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		written := map[string]loom.Run{}
		for _, r := range runs {
			written[r.ID] = r
		}
		for id := range acknowledged {
			if r := written[id]; r.Status != loom.StatusOK {
				t.Errorf("round %d: run %s was acknowledged and is %+v", round, id, r)
			}
		}
		for _, r := range runs {
			if r.Status == loom.StatusOK { // whole or not at all
				if res, err := s.Results(t.Context(), loom.ResultQuery{Runs: []string{r.ID}}); err != nil || len(res) != 1 || res[0].Status != loom.StatusOK {
					t.Errorf("round %d: run %s has results %+v, %v", round, r.ID, res, err)
				}
			}
		}
		p.close(s)
	}
	if len(acknowledged) < 20*rounds {
		t.Errorf("only %d runs were acknowledged", len(acknowledged))
	}
}

// TestWriteUntilKilled is what TestKill kills.
func TestWriteUntilKilled(t *testing.T) {
	file := os.Getenv("LOOM_STORE")
	if file == "" {
		t.Skip("part of TestKill")
	}
	p := place{t, file}
	s := p.open()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 4 {
		wg.Go(func() {
			for n := range 100_000 {
				id := fmt.Sprintf("r%s-%d-%d", os.Getenv("LOOM_ROUND"), i, n)
				p.whole(s, fmt.Sprint("job ", i), id)
				mu.Lock()
				_, _ = os.Stdout.WriteString("ack " + id + "\n")
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}
