package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/cli"
	"github.com/dustinlacewell/loom/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a task.
type echo struct{ Text string }

func (t echo) Apply(ctx context.Context, s *loom.Session) error { return s.Run(ctx, "echo", t.Text) }

func registry() *loom.Registry {
	r := new(loom.Registry)
	r.Add("echo", echo{})
	return r
}

// write makes files below dir from the pairs of a name and a text.
func write(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		name := filepath.Join(dir, pairs[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(pairs[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	mainFile = "nodes: {a: {transport: local}}\njobspath: jobs\nstate: state\n"
	oneJob   = "jobs: {one: {task: echo, args: [hello], schedule: '* * * * * *', targets: a}}\n"
	twoJob   = "jobs: {two: {task: echo, args: [hello], schedule: '@hourly', targets: a}}\n"
)

// A safeBuffer is a buffer for several goroutines.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// until waits for a text to appear.
func (b *safeBuffer) until(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(b.String(), text); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", text, b.String())
		}
	}
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob)
	ctx, stop := context.WithCancelCause(t.Context())
	var log safeBuffer
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Tasks: registry()}, []string{"-c", filepath.Join(dir, "loom.yaml")}, nil, &log, &log)
	}()
	log.until(t, `msg="run ended" job=one`)
	write(t, dir, "jobs/two.yaml", twoJob)
	log.until(t, `msg="manifest reloaded" added=two`)
	stop(errors.New("enough"))
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil after its context", err)
	}
	if !strings.Contains(log.String(), "msg=stopping why=enough") {
		t.Errorf("the log does not say why it stops:\n%s", log.String())
	}
	if lock, err := os.ReadFile(filepath.Join(dir, "state", "lock")); err != nil || len(lock) > 0 {
		t.Errorf("lock = %q, %v; want it empty after the end", lock, err)
	}
}

func TestRunTellsErrors(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"chek"}, cli.ExitUsage, `unknown command "chek"`},
		{[]string{"check", "-c", "nowhere.yaml"}, cli.ExitFailed, "nowhere.yaml"},
		{[]string{"demo"}, cli.ExitFailed, "needs a transport"},
		{[]string{"tasks", "ecko"}, cli.ExitNotFound, `did you mean "echo"`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var out bytes.Buffer
			err := Run(t.Context(), Options{Tasks: registry()}, tt.args, nil, &out, &out)
			if got := cli.ExitCode(err); got != tt.code {
				t.Errorf("exit code of %v = %d, want %d", err, got, tt.code)
			}
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("it says\n%s\nwhich lacks %q", &out, tt.want)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	sig := make(chan os.Signal)
	died := make(chan os.Signal, 1)
	ctx, p := listen(t.Context(), sig, func(s os.Signal) { died <- s })
	defer close(sig)
	p.serving.Store(true)

	sig <- syscall.SIGHUP
	sig <- syscall.SIGHUP // while the first waits
	<-p.reload
	if ctx.Err() != nil {
		t.Fatal("SIGHUP ended the context")
	}
	sig <- syscall.SIGTERM
	<-ctx.Done()
	if got := context.Cause(ctx).Error(); got != "terminated" {
		t.Errorf("cause = %q, want terminated", got)
	}
	sig <- os.Interrupt
	<-p.abort
	select {
	case s := <-died:
		t.Fatalf("died of %v, the second signal", s)
	default:
	}
	sig <- os.Interrupt
	<-died
}

func TestSIGHUPEndsWhatDoesNotServe(t *testing.T) {
	sig := make(chan os.Signal)
	died := make(chan os.Signal, 1)
	ctx, _ := listen(t.Context(), sig, func(s os.Signal) { died <- s })
	defer close(sig)
	sig <- syscall.SIGHUP
	<-ctx.Done()
	sig <- os.Interrupt
	<-died
}

func TestStateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode = %v, %v; want 0700", info.Mode(), err)
	}
	_, err = openState(dir)
	if want := fmt.Sprintf("another daemon (process %d)", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the second one = %v, want %q", err, want)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if s, err = openState(dir); err != nil {
		t.Fatalf("after the first one's end: %v", err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}

	if err := os.Chmod(dir, 0o750); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("one that is open to others = %v, want a refusal that says what to do", err)
	}
	if _, err := openState("/proc/nowhere"); err == nil || !strings.Contains(err.Error(), "/proc/nowhere") {
		t.Errorf("one that can't be made = %v", err)
	}
}

func TestHeartbeat(t *testing.T) {
	if err := beating(time.Now().Add(-2 * time.Second)); err != nil {
		t.Errorf("a look two seconds ago: %v", err)
	}
	if err := beating(time.Now().Add(-time.Minute)); err == nil || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("a look a minute ago = %v, want an error that says so", err)
	}
	if err := alive(t.Context(), &loom.Scheduler{}); err == nil {
		t.Error("a scheduler that never ran is alive")
	}
}

func TestWayThroughLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "v1/a.yaml", "x", "plain/b.yaml", "y")
	for link, target := range map[string]string{
		"jobs/..data": "../v1", "jobs/a.yaml": "..data/a.yaml", "etc": filepath.Join(dir, "jobs"),
		"loop1": "loop2", "loop2": "loop1", "dangling": "nowhere/x",
	} {
		write(t, dir, "jobs/keep", "")
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"plain/b.yaml", []string{"plain/b.yaml"}},
		{"jobs/a.yaml", []string{"jobs/a.yaml", "jobs/..data", "v1/a.yaml"}},
		{"etc/a.yaml", []string{"etc", "jobs/a.yaml", "jobs/..data", "v1/a.yaml"}},
		{"dangling", []string{"dangling", "nowhere/x"}},
		{"not/there", []string{"not/there"}},
	} {
		way := wayfinder{}
		for range 2 { // what it remembers is no other than what it finds
			var got []string
			for _, step := range way.to(filepath.Join(dir, tt.path)) {
				rel, _ := filepath.Rel(dir, step)
				got = append(got, rel)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("way to %s = %q, want %q", tt.path, got, tt.want)
			}
		}
	}
	if steps := (wayfinder{}).to(filepath.Join(dir, "loop1")); len(steps) < 2 {
		t.Errorf("way through a loop = %q", steps)
	}
}

func TestEventsThatMatter(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "loom.yaml", mainFile, "jobs/a.yaml", oneJob)
	w := newWatcher(slog.New(slog.DiscardHandler))
	defer w.close()
	w.watch([]string{filepath.Join(dir, "loom.yaml"), filepath.Join(dir, "jobs"), filepath.Join(dir, "jobs/a.yaml")}, time.Now())
	for name, want := range map[string]bool{
		"loom.yaml": true, "loom.yaml~": false, "other.yaml": false, "jobs": true, "jobs/a.yaml": true, "jobs/new.yaml": true,
		"jobs/dir": true, "jobs/.a.yaml.swp": false, "jobs/#a.yaml#": false, "jobs/a.yaml~": false, "jobs/..data": false,
	} {
		if got := w.concerns(fsnotify.Event{Name: filepath.Join(dir, name)}); got != want {
			t.Errorf("%s concerns us: %v, want %v", name, got, want)
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(w.fs.WatchList())), []string{dir, filepath.Join(dir, "jobs")}) {
		t.Errorf("watched: %q", w.fs.WatchList())
	}
	// A directory that another one has taken the place of is watched anew.
	if err := os.Rename(filepath.Join(dir, "jobs"), filepath.Join(dir, "was")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "jobs/a.yaml", oneJob)
	if !w.changed() {
		t.Error("another directory looks the same")
	}
	w.watch(w.paths, time.Now())
	if info, err := os.Stat(filepath.Join(dir, "jobs")); err != nil || !os.SameFile(info, w.dirs[filepath.Join(dir, "jobs")]) {
		t.Errorf("watched is not the directory that is there now (%v)", err)
	}
}

func TestChangeDuringTheReading(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", "x")
	w := &watcher{log: slog.New(slog.DiscardHandler), dirs: map[string]fs.FileInfo{}}
	before := time.Now().Add(-time.Second)
	if !w.watch([]string{filepath.Join(dir, "a")}, before) {
		t.Error("a file that was written after the reading began is taken for read")
	}
	if w.watch([]string{filepath.Join(dir, "a")}, time.Now().Add(time.Minute)) {
		t.Error("a file that was written long ago is read again")
	}
}

// TestReadingAgain has files read that may have changed while nobody looked,
// however they look now.
func TestReadingAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob)
	var log safeBuffer
	l := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r := &reloader{
		reader: &loom.ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: registry()},
		watch:  newWatcher(l), log: l, apply: func(*loom.Manifest) {}, tell: func(news) {},
	}
	defer r.watch.close()
	again, err := r.begin(t.Context())
	if err != nil || !again {
		t.Fatalf("begin with files that were just written = %v, %v; want that they are read again", again, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx, nil, again) })
	log.until(t, `msg="manifest read"`)
	stop()
	wg.Wait()
	if n := strings.Count(log.String(), "manifest read"); n != 1 {
		t.Errorf("they were read %d times, want once more", n)
	}
}

// TestWhereTheKernelDoesNotTell has a reloader without the kernel's help notice
// an edit, on a fake clock.
func TestWhereTheKernelDoesNotTell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob)
	synctest.Test(t, func(t *testing.T) {
		var told []news
		log := slog.New(slog.DiscardHandler)
		r := &reloader{
			reader: &loom.ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: registry()},
			watch:  &watcher{log: log, dirs: map[string]fs.FileInfo{}}, log: log,
			apply: func(*loom.Manifest) {}, tell: func(n news) { told = append(told, n) },
		}
		again, err := r.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.run(ctx, nil, again)
		}()
		write(t, dir, "jobs/two.yaml", twoJob)
		<-time.After(rescan + patience)
		synctest.Wait()
		if len(told) != 1 || !slices.Equal(told[0].Added, []string{"two"}) {
			t.Errorf("news = %+v, want the job two", told)
		}

		// A broken edit is told once, not with each look.
		write(t, dir, "jobs/two.yaml", "jobs: {two: {tsk: echo}}\n")
		<-time.After(5 * rescan)
		synctest.Wait()
		if len(told) != 2 || len(told[1].Problems) == 0 || !told[1].same() {
			t.Errorf("news = %+v, want problems, once", told)
		}
		write(t, dir, "jobs/two.yaml", twoJob)
		<-time.After(2 * rescan)
		synctest.Wait()
		if len(told) != 3 || !told[2].Mended || !told[2].same() {
			t.Errorf("news = %+v, want that all is well again", told)
		}
		stop()
		<-done
	})
}

func TestWhatIsDifferent(t *testing.T) {
	node := func(name, address string) *loom.Node { return &loom.Node{Name: name, Address: address} }
	a, b := node("a", ""), node("b", "")
	job := func(name string, line int, targets ...*loom.Node) *loom.Job {
		return &loom.Job{Name: name, Line: line, Task: echo{name}, Targets: targets}
	}
	old := &loom.Manifest{Nodes: []*loom.Node{a, b}, Jobs: []*loom.Job{job("gone", 1, a), job("moved", 2, a), job("other", 3, a)}}
	now := &loom.Manifest{Nodes: []*loom.Node{a, node("b", "10.0.0.1")},
		Jobs: []*loom.Job{job("moved", 5, node("a", "")), job("new", 1, a), job("other", 3, a, b)}}
	var n news
	n.compare(old, now)
	if !slices.Equal(n.Added, []string{"new"}) || !slices.Equal(n.Removed, []string{"gone"}) ||
		!slices.Equal(n.Changed, []string{"other"}) || !slices.Equal(n.Nodes, []string{"b"}) || n.Config {
		t.Errorf("compare = %+v", n)
	}
	var same news
	same.compare(now, now)
	if !same.same() {
		t.Errorf("compare with itself = %+v", same)
	}
}

func TestKeysThatWait(t *testing.T) {
	var log bytes.Buffer
	began := loom.Config{State: "a", Grace: time.Second, MaxWorkers: 1}
	now := began
	now.Grace, now.MaxWorkers = time.Minute, 5
	heed(slog.New(slog.NewTextHandler(&log, nil)), began, now)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "key=grace") {
		t.Errorf("log = %q, want one line about grace", got)
	}
}

func TestFewNames(t *testing.T) {
	many := make([]string, 25)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	if got, want := few(many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 15 more"; got != want {
		t.Errorf("few = %q, want %q", got, want)
	}
}

// reloading runs a reloader on the files of dir and returns what it tells.
func reloading(t *testing.T, dir string) <-chan news {
	t.Helper()
	told := make(chan news, 100)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := &reloader{
		reader: &loom.ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: registry()},
		watch:  newWatcher(log), log: log,
		apply: func(*loom.Manifest) {}, tell: func(n news) { told <- n },
	}
	again, err := r.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx, nil, again) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		r.watch.close()
	})
	return told
}

// next returns the next news.
func next(t *testing.T, told <-chan news) news {
	t.Helper()
	select {
	case n := <-told:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is told")
		return news{}
	}
}

func TestDirectoryThatGoesAndComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob)
	told := reloading(t, dir)
	away := filepath.Join(dir, "away")
	if err := os.Rename(filepath.Join(dir, "jobs"), away); err != nil {
		t.Fatal(err)
	}
	if n := next(t, told); len(n.Problems) == 0 || len(n.Manifest.Jobs) != 1 {
		t.Errorf("without the directory: %+v, want a problem, and the job kept", n)
	}
	if err := os.Rename(away, filepath.Join(dir, "jobs")); err != nil {
		t.Fatal(err)
	}
	if n := next(t, told); !n.Mended || len(n.Manifest.Jobs) != 1 {
		t.Errorf("with it again: %+v, want that all is well", n)
	}
	write(t, dir, "jobs/two.yaml", twoJob)
	if n := next(t, told); !slices.Equal(n.Added, []string{"two"}) {
		t.Errorf("a file in it: %+v, want its job", n)
	}
}

// TestStorm has files change all the time: they are read about once a second,
// not at each change, and what is there at the end is what is known.
func TestStorm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob)
	told := reloading(t, dir)
	begun := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	i := 0
	for ; time.Since(begun) < 2500*time.Millisecond; i++ {
		write(t, dir, "jobs/two.yaml", fmt.Sprintf("jobs: {two-%d: {task: echo, args: [x], schedule: '@hourly', targets: a}}\n", i))
		<-tick.C
	}
	last := fmt.Sprintf("two-%d", i-1)
	readings := 0
	for {
		n := next(t, told)
		readings++
		if slices.Contains(n.Added, last) {
			break
		}
	}
	if readings > 15 {
		t.Errorf("%d changes were read in %d readings, want them gathered", i, readings)
	}
}

// TestSwaps swaps a directory of manifests behind a link again and again, as
// Kubernetes does: what is known is the one or the other, never a mix.
func TestSwaps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile)
	for _, v := range []string{"a", "b"} {
		job := fmt.Sprintf("{task: echo, args: [x], schedule: '@hourly', targets: a, description: %s}", v)
		write(t, dir, "v"+v+"/1.yaml", "jobs: {first: "+job+"}\n", "v"+v+"/2.yaml", "jobs: {second: "+job+"}\n", "jobs/keep", "")
	}
	link := func(target, name string) {
		t.Helper()
		temporary := filepath.Join(dir, "jobs", "..tmp")
		if err := errors.Join(os.Symlink(target, temporary), os.Rename(temporary, filepath.Join(dir, "jobs", name))); err != nil {
			t.Fatal(err)
		}
	}
	link("../va", "..data")
	link("..data/1.yaml", "1.yaml")
	link("..data/2.yaml", "2.yaml")
	told := reloading(t, dir)
	stop := time.After(1500 * time.Millisecond)
	for i, going := 0, true; going; i++ {
		link([]string{"../va", "../vb"}[i%2], "..data")
		select {
		case <-stop:
			going = false
		default:
		}
	}
	write(t, dir, "vb/3.yaml", "jobs: {last: {task: echo, args: [x], schedule: '@hourly', targets: a}}\n")
	link("../vb", "..data")
	link("..data/3.yaml", "3.yaml")
	for {
		n := next(t, told)
		jobs := map[string]string{}
		for _, j := range n.Manifest.Jobs {
			jobs[j.Name] = j.Description
		}
		for _, p := range n.Problems { // that they do not rest may be said, and what was there before stays
			if !strings.Contains(p.Error(), "keep changing") {
				t.Error(p)
			}
		}
		if jobs["first"] == "" || jobs["first"] != jobs["second"] {
			t.Fatalf("a mix: %v, problems %v", jobs, n.Problems)
		}
		if _, ok := jobs["last"]; ok {
			return
		}
	}
}

// TestSlowWriter empties a manifest and fills it a moment later: its job does not
// vanish meanwhile.
func TestSlowWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob, "jobs/two.yaml", twoJob)
	told := reloading(t, dir)
	write(t, dir, "jobs/one.yaml", "")
	select {
	case n := <-told:
		t.Errorf("an empty file is news: %+v", n)
	case <-time.After(patience + 2*settle):
	}
	write(t, dir, "jobs/one.yaml", strings.Replace(oneJob, "hello", "changed", 1))
	if n := next(t, told); !slices.Equal(n.Changed, []string{"one"}) || len(n.Removed) > 0 {
		t.Errorf("news = %+v, want a changed job", n)
	}
	write(t, dir, "jobs/one.yaml", "") // in earnest
	if n := next(t, told); !slices.Equal(n.Removed, []string{"one"}) {
		t.Errorf("news = %+v, want that the job is gone", n)
	}
}

func TestBlindnessIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	w := &watcher{log: slog.New(slog.NewTextHandler(&log, nil))}
	w.goBlind(&os.PathError{Op: "add", Path: "x", Err: syscall.ENOSPC})
	w.goBlind(syscall.EMFILE)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "max_user_watches") {
		t.Errorf("log = %q, want one line that says what to raise", got)
	}
	if events, failures := w.events(); events != nil || failures != nil {
		t.Error("there are events without the kernel")
	}
}

func TestReloadTellsNewWarnings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "loom.yaml", mainFile, "jobs/one.yaml", oneJob)
	told := reloading(t, dir)
	write(t, dir, "loom.yaml", mainFile+"min_workers: 2\n")
	n := next(t, told)
	var log bytes.Buffer
	logNews(slog.New(slog.NewTextHandler(&log, nil)), n)
	if !strings.Contains(log.String(), "loom.yaml:4:1") || !strings.Contains(log.String(), "min_workers") {
		t.Errorf("log:\n%swant the warning and its place", &log)
	}
}

// TestNewSecretTakesEffect has a daemon notice that a secret is another one, and
// tell neither.
func TestNewSecretTakesEffect(t *testing.T) {
	for _, where := range []string{"file: secrets.age", "dir: secrets"} {
		t.Run(where, func(t *testing.T) {
			dir, state := t.TempDir(), t.TempDir()
			if err := os.Chmod(state, 0o700); err != nil { //nolint:gosec // a directory
				t.Fatal(err)
			}
			write(t, dir, "loom.yaml", mainFile+"secrets: {"+where+"}\n",
				"jobs/one.yaml", "jobs: {one: {task: echo, args: ['it is ${secret:word}, or old-value of-it'], schedule: '* * * * * *', targets: a}}\n")
			c := loom.SecretsConfig{File: filepath.Join(dir, "secrets.age"), Identity: filepath.Join(state, loom.KeyFile)}
			if strings.HasPrefix(where, "dir") {
				c = loom.SecretsConfig{Dir: filepath.Join(dir, "secrets")}
			}
			if err := secret.Set(c, "word", "old-value of-it"); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancelCause(t.Context())
			var log safeBuffer
			done := make(chan error, 1)
			go func() {
				done <- Run(ctx, Options{Tasks: registry()}, []string{"-c", filepath.Join(dir, "loom.yaml"), "--state", state, "--log-level", "debug"}, nil, &log, &log)
			}()
			log.until(t, `text="it is [secret], or [secret]"`)
			if err := secret.Set(c, "word", "new-value of-it"); err != nil {
				t.Fatal(err)
			}
			log.until(t, `msg="manifest reloaded" changed=one`)
			before := strings.Count(log.String(), "or [secret]")
			for deadline := time.Now().Add(20 * time.Second); strings.Count(log.String(), "or [secret]") == before && time.Now().Before(deadline); {
				<-time.After(5 * time.Millisecond)
			}
			stop(errors.New("enough"))
			if err := <-done; err != nil || strings.Contains(log.String(), "-value") {
				t.Errorf("Run = %v, and it said\n%s", err, log.String())
			}
		})
	}
}
