package loomtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
)

// TestConn checks a transport. The dial function opens a new connection for
// each check, to a node that has a POSIX shell with the usual commands; all of
// them lead to the same node. The checks make files in a directory of the
// node's /tmp, and remove them.
func TestConn(t *testing.T, dial func(*testing.T) loom.Conn) {
	c := connCase{dial: dial}
	run(t, "exit status", "Exec returns nil for exit status 0, else an *ExitError with the status and the text.", c.exit)
	run(t, "signal", "An ExitError of a command that a signal ended has the code -1 and the signal's name.", c.signal)
	run(t, "streams", "Stdout and Stderr each get what the command prints there, and nothing else.", c.streams)
	run(t, "one writer", "If Stdout and Stderr are the same writer, Write is not called concurrently.", c.oneWriter)
	run(t, "nil streams", "Nil streams are an empty file, and discard.", c.nilStreams)
	run(t, "stdin", "Stdin is what the command reads, to its end and not further, however much it is.", c.stdin)
	run(t, "stdin unread", "A command need not read Stdin, and Exec may return while a Read of it is still going on.", c.stdinUnread)
	run(t, "output", "Exec returns when the command's output has ended: all of it, however much it is.", c.output)
	run(t, "texts", "Text is any shell text, and arrives as it is.", c.texts)
	run(t, "secret text", "Text is never on a command line that ps shows.", c.secret)
	run(t, "environment", "Env is exported to the command; Dir is where it runs; Shell runs it.", c.environment)
	run(t, "directory", "A command whose directory does not exist is not run.", c.noDirectory)
	run(t, "cancel", "If ctx ends first, Exec ends the command with all processes it has started and returns ctx's cause.", c.cancel)
	run(t, "cancelled", "Nothing is run for a ctx that has ended.", c.cancelled)
	run(t, "at once", "A Conn is safe for concurrent use.", c.atOnce)
	run(t, "close", "Close ends the connection and every command still running over it; its methods then return errors that wrap ErrUnreachable.", c.close)
	run(t, "files", "Files are the node's files as its commands see them.", c.files)
	run(t, "file errors", "A missing file is an error that errors.Is(err, fs.ErrNotExist).", c.fileErrors)
	run(t, "create", "Create makes a new file with exactly this mode; it is an error if name exists.", c.create)
	run(t, "rename", "Rename replaces its target.", c.rename)
	run(t, "files at once", "Files is safe for concurrent use, and its operations fail once ctx is done.", c.filesAtOnce)
}

type connCase struct{ dial func(*testing.T) loom.Conn }

// open returns a connection that ends with the test.
func (c connCase) open(t *testing.T) loom.Conn {
	t.Helper()
	conn := c.dial(t)
	t.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	return conn
}

// limit is how long a command that ends by itself may take.
const limit = time.Minute

// sh runs a command and returns what it printed.
func sh(t *testing.T, conn loom.Conn, c loom.Command) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the command took longer than %v", limit))
	defer cancel()
	var out, errw bytes.Buffer
	c.Stdout, c.Stderr = &out, &errw
	err = conn.Exec(ctx, c)
	return out.String(), errw.String(), err
}

// want runs a command that is to succeed and print this.
func want(t *testing.T, conn loom.Conn, c loom.Command, stdout string) {
	t.Helper()
	got, errs, err := sh(t, conn, c)
	if got != stdout || err != nil {
		t.Errorf("%q printed %q and %q, %v; want %q", c.Text, got, errs, err, stdout)
	}
}

func (c connCase) exit(t *testing.T) {
	conn := c.open(t)
	for _, code := range []int{0, 1, 2, 97, 126, 127, 128, 137, 255} {
		text := fmt.Sprintf("exit %d", code)
		_, _, err := sh(t, conn, loom.Command{Text: text})
		exit, ok := errors.AsType[*loom.ExitError](err)
		switch {
		case code == 0 && err != nil:
			t.Errorf("%s = %v, want nil", text, err)
		case code != 0 && (!ok || exit.Code != code || exit.Signal != "" || exit.Command != text):
			t.Errorf("%s = %#v, want an ExitError with this code", text, err)
		}
	}
	if _, _, err := sh(t, conn, loom.Command{Text: "false\ntrue"}); err != nil {
		t.Errorf("false, then true = %v, want the status of the last command, 0", err)
	}
	if _, _, err := sh(t, conn, loom.Command{Text: ""}); err != nil {
		t.Errorf("an empty command = %v, want nil", err)
	}
}

func (c connCase) signal(t *testing.T) {
	conn := c.open(t)
	for _, name := range []string{"KILL", "TERM", "USR1"} {
		_, _, err := sh(t, conn, loom.Command{Text: "kill -s " + name + " $$; sleep 100"})
		if exit, ok := errors.AsType[*loom.ExitError](err); !ok || exit.Code != -1 || exit.Signal != name {
			t.Errorf("a command that ends by signal %s = %#v, want an ExitError that says so", name, err)
		}
	}
}

func (c connCase) streams(t *testing.T) {
	conn := c.open(t)
	out, errs, err := sh(t, conn, loom.Command{Text: `printf 'a\0b'; printf 'c\377d' >&2; printf e`})
	if out != "a\x00be" || errs != "c\xffd" || err != nil {
		t.Errorf("got %q and %q, %v; want the bytes as they are, each where it belongs", out, errs, err)
	}
}

// A careful writer tells when it is written to concurrently.
type careful struct {
	busy   atomic.Bool
	caught atomic.Bool
	n      int
}

func (w *careful) Write(p []byte) (int, error) {
	if !w.busy.CompareAndSwap(false, true) {
		w.caught.Store(true)
	}
	w.n += len(p)
	w.busy.Store(false)
	return len(p), nil
}

func (c connCase) oneWriter(t *testing.T) {
	conn := c.open(t)
	w := &careful{}
	text := "i=0; while [ $i -lt 2000 ]; do echo 123456789; echo 123456789 >&2; i=$((i+1)); done"
	if err := conn.Exec(t.Context(), loom.Command{Text: text, Stdout: w, Stderr: w}); err != nil {
		t.Fatal(err)
	}
	if w.caught.Load() || w.n != 40000 {
		t.Errorf("the writer got %d bytes, and concurrent writes: %v; want 40000, false", w.n, w.caught.Load())
	}
}

func (c connCase) nilStreams(t *testing.T) {
	conn := c.open(t)
	err := conn.Exec(t.Context(), loom.Command{Text: "[ -z \"$(cat)\" ] && head -c 300000 /dev/zero && head -c 300000 /dev/zero >&2"})
	if err != nil {
		t.Errorf("without any stream: %v", err)
	}
}

func (c connCase) stdin(t *testing.T) {
	conn := c.open(t)
	want(t, conn, loom.Command{Text: "cat", Stdin: strings.NewReader("")}, "")
	want(t, conn, loom.Command{Text: "cat", Stdin: strings.NewReader("a\nb")}, "a\nb")
	want(t, conn, loom.Command{Text: "read -r x; echo \"$x\"; cat", Stdin: strings.NewReader("go\nquit\nexit\n")}, "go\nquit\nexit\n")
	const size = 10 << 20
	want(t, conn, loom.Command{Text: "wc -c | tr -d ' '", Stdin: io.LimitReader(zeros{}, size)}, fmt.Sprintln(size))
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data) // never fails
	want(t, conn, loom.Command{Text: "cat", Stdin: bytes.NewReader(data)}, string(data))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (c connCase) stdinUnread(t *testing.T) {
	conn := c.open(t)
	want(t, conn, loom.Command{Text: "echo done", Stdin: io.LimitReader(zeros{}, 10<<20)}, "done\n")
	r, w := io.Pipe() // nobody writes, and nobody closes it while the command runs
	want(t, conn, loom.Command{Text: "echo done", Stdin: r}, "done\n")
	_ = w.Close()
	_, _, err := sh(t, conn, loom.Command{Text: "exit 3", Stdin: io.LimitReader(zeros{}, 10<<20)})
	if exit, ok := errors.AsType[*loom.ExitError](err); !ok || exit.Code != 3 {
		t.Errorf("a command that fails without reading its input = %v, want exit status 3", err)
	}
	want(t, conn, loom.Command{Text: "echo still here"}, "still here\n")
}

// A counter checks that what it gets is all zeros.
type counter struct {
	n     int64
	other bool
}

func (w *counter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	w.other = w.other || len(bytes.Trim(p, "\x00")) > 0
	return len(p), nil
}

func (c connCase) output(t *testing.T) {
	conn := c.open(t)
	for _, size := range []int64{1 << 20, 10 << 20} {
		var out, errs counter
		text := fmt.Sprintf("head -c %d /dev/zero & head -c %[1]d /dev/zero >&2; wait", size)
		err := conn.Exec(t.Context(), loom.Command{Text: text, Stdout: &out, Stderr: &errs})
		if err != nil || out.n != size || errs.n != size || out.other || errs.other {
			t.Errorf("%d bytes on each stream: got %d and %d, %v", size, out.n, errs.n, err)
		}
	}
}

func (c connCase) texts(t *testing.T) {
	conn := c.open(t)
	for _, word := range []string{
		"it's", `"`, "$HOME", "`id`", `\`, `\\'`, "a\nb", "  ", "*", "~", "!x", "#", "-n", "%s", "{a,b}", "ünï çødé", "\xff\xfe", "\t", "}\n_loom;exit\n", ";", "&", "|", ">x", "<(x)",
	} {
		want(t, conn, loom.Command{Text: "printf %s " + loom.Quote(word)}, word)
		want(t, conn, loom.Command{Text: "cat <<'END'\n" + strings.ReplaceAll(word, "\n", " ") + "\nEND\n"}, strings.ReplaceAll(word, "\n", " ")+"\n")
	}
	long := strings.Repeat("x", 300<<10) // more than one argument of exec(2) may have
	want(t, conn, loom.Command{Text: "x='" + long + "'; echo ${#x}"}, fmt.Sprintln(len(long)))
	want(t, conn, loom.Command{Text: "# only a comment"}, "")
	want(t, conn, loom.Command{Text: "f() { echo $#; }; f a b; set -- c; echo $1 \"$@\"; unset x; echo ${x-unset}"}, "2\nc c\nunset\n")
	want(t, conn, loom.Command{Text: "cd /; (exit 3); echo $?; { echo a; } | cat; true && echo b"}, "3\na\nb\n")
	if _, errs, err := sh(t, conn, loom.Command{Text: "echo 'never closed"}); err == nil {
		t.Errorf("a text that is no shell text succeeded, and printed %q", errs)
	}
}

func (c connCase) secret(t *testing.T) {
	conn := c.open(t)
	secret := strings.ToLower(rand.Text())
	text := fmt.Sprintf(": %s; ps -eo args | grep -c '%s[%s]'; :", secret, secret[:10], secret[10:11])
	want(t, conn, loom.Command{Text: text, Env: map[string]string{"HIDDEN": secret}}, "0\n")
}

func (c connCase) environment(t *testing.T) {
	conn := c.open(t)
	value := "a 'b' \"c\" $d `e` \\ \n*"
	want(t, conn, loom.Command{Text: `printf %s "$A"; sh -c 'printf %s "$B"'`, Env: map[string]string{"A": value, "B": "ü"}}, value+"ü")
	want(t, conn, loom.Command{Text: "pwd", Dir: "/usr"}, "/usr\n")
	want(t, conn, loom.Command{Text: "pwd", Dir: "/"}, "/\n")
	want(t, conn, loom.Command{Text: `printf %s "$A"; pwd; echo 'it'"'"'s'`, Shell: "/bin/sh", Dir: "/usr", Env: map[string]string{"A": value}}, value+"/usr\nit's\n")
	home, _, err := sh(t, conn, loom.Command{Text: "pwd"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, conn, loom.Command{Text: "pwd", Dir: "."}, home)
}

func (c connCase) noDirectory(t *testing.T) {
	conn := c.open(t)
	out, _, err := sh(t, conn, loom.Command{Text: "echo ran", Dir: "/no/such/directory"})
	if out != "" || err == nil {
		t.Errorf("in a directory that does not exist: %q, %v; want an error", out, err)
	}
}

// A signpost is a writer that tells when the first line has come.
type signpost struct {
	mu   sync.Mutex
	got  bytes.Buffer
	line chan string
}

func newSignpost() *signpost { return &signpost{line: make(chan string, 1)} }

func (w *signpost) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got.Write(p)
	if line, err := w.got.ReadString('\n'); err == nil {
		select {
		case w.line <- strings.TrimSpace(line):
		default:
		}
	}
	return len(p), nil
}

// alive returns those of the processes that are still there.
func alive(t *testing.T, conn loom.Conn, pids string) string {
	t.Helper()
	out, _, err := sh(t, conn, loom.Command{Text: "for p in " + pids + "; do case $(ps -o stat= -p $p) in ''|Z*) ;; *) echo $p ;; esac; done"})
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(out)
}

// remaining returns those of the processes that do not end within some seconds:
// a busy node that is to kill them may need more than Exec waits for.
func remaining(t *testing.T, conn loom.Conn, pids string) string {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	left := alive(t, conn, pids)
	for tries := 0; left != "" && tries < 60; tries++ {
		<-tick.C
		left = alive(t, conn, pids)
	}
	return left
}

func (c connCase) cancel(t *testing.T) {
	conn := c.open(t)
	var wg sync.WaitGroup
	for name, text := range map[string]string{
		"a command":               "echo $$; exec sleep 1000",
		"with children":           "sleep 1000 & a=$!; sleep 1000 & echo $$ $a $!; wait",
		"with a pipeline":         "{ sleep 1000; echo x; } | cat & echo $$ $!; wait",
		"one that prints":         "echo $$; while :; do echo x; done",
		"one that ignores a TERM": "trap '' TERM; echo $$; while :; do sleep 1; done",
	} {
		wg.Go(func() { cancelOne(t, conn, name, loom.Command{Text: text}) })
		wg.Go(func() {
			r, w := io.Pipe() // which stays open
			cancelOne(t, conn, name+", with input,", loom.Command{Text: text, Stdin: r})
			_ = w.Close()
		})
	}
	wg.Wait()
}

// cancelOne runs a command that never ends, and that begins by printing its
// processes, and cancels it then.
func cancelOne(t *testing.T, conn loom.Conn, name string, cmd loom.Command) {
	t.Helper()
	why := errors.New("the suite has seen enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	sign := newSignpost()
	cmd.Stdout = sign
	ended := make(chan error, 1)
	go func() { ended <- conn.Exec(ctx, cmd) }()
	select {
	case pids := <-sign.line:
		cancel(why)
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("%s, cancelled = %v, want the cause", name, err)
		}
		if left := remaining(t, conn, pids); left != "" {
			t.Errorf("%s, cancelled: still there some time after: %s", name, left)
		}
	case err := <-ended:
		t.Errorf("%s has ended by itself: %v", name, err)
	}
}

func (c connCase) cancelled(t *testing.T) {
	conn := c.open(t)
	why := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	var out bytes.Buffer
	if err := conn.Exec(ctx, loom.Command{Text: "echo ran", Stdout: &out}); !errors.Is(err, why) || out.Len() > 0 {
		t.Errorf("Exec = %v, and printed %q; want the cause", err, &out)
	}
	if files, err := conn.Files(ctx); err == nil {
		if _, err := files.Stat("/"); !errors.Is(err, why) {
			t.Errorf("Stat = %v, want the cause", err)
		}
		_ = files.Close()
	} else if !errors.Is(err, why) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Files = %v, want the cause", err)
	}
}

func (c connCase) atOnce(t *testing.T) {
	conn := c.open(t)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			text := fmt.Sprint("number ", i)
			cmd := loom.Command{Text: "cat; exit " + fmt.Sprint(i), Stdin: strings.NewReader(text)}
			if i%2 == 0 {
				cmd = loom.Command{Text: "printf %s '" + text + "'; exit " + fmt.Sprint(i)}
			}
			out, _, err := sh(t, conn, cmd)
			code := 0
			if exit, ok := errors.AsType[*loom.ExitError](err); ok {
				code = exit.Code
			} else if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			if out != text || code != i {
				t.Errorf("%s got %q and exit status %d", text, out, code)
			}
		})
	}
	wg.Wait()
}

func (c connCase) close(t *testing.T) {
	conn, other := c.open(t), c.open(t)
	sign := newSignpost()
	ended := make(chan error, 1)
	go func() {
		ended <- conn.Exec(t.Context(), loom.Command{Text: "sleep 1000 & echo $$ $!; wait", Stdout: sign})
	}()
	pids := ""
	select {
	case pids = <-sign.line:
	case err := <-ended:
		t.Fatalf("the command ended by itself: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("a command over a connection that was closed = nil, want an error")
	}

	if left := remaining(t, other, pids); left != "" {
		t.Errorf("still there some time after Close: %s", left)
	}

	if err := conn.Exec(t.Context(), loom.Command{Text: "true"}); !errors.Is(err, loom.ErrUnreachable) {
		t.Errorf("Exec after Close = %v, want one that wraps loom.ErrUnreachable", err)
	}
	if _, err := conn.Files(t.Context()); !errors.Is(err, loom.ErrUnreachable) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Files after Close = %v, want one that wraps loom.ErrUnreachable", err)
	}
	_ = conn.Close() // a second time does no harm
}

// room opens the node's files, and makes a directory for the test. The test is
// skipped if the transport has no files.
func (c connCase) room(t *testing.T) (loom.Conn, loom.Files, string) {
	t.Helper()
	conn := c.open(t)
	files, err := conn.Files(t.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("the transport has no files of its own")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := "/tmp/loomtest-" + strings.ToLower(rand.Text())
	want(t, conn, loom.Command{Text: "mkdir " + dir}, "")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := conn.Exec(ctx, loom.Command{Text: "rm -rf " + dir}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = files.Close() }) // a test may have closed it, or its context
	return conn, files, dir
}

// must ends the test if something failed.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, files loom.Files, name string, data []byte, mode fs.FileMode) {
	t.Helper()
	f, err := files.Create(name, mode)
	must(t, err)
	_, err = io.Copy(f, bytes.NewReader(data))
	must(t, errors.Join(err, f.Sync(), f.Close()))
}

func read(t *testing.T, files loom.Files, name string) []byte {
	t.Helper()
	f, err := files.Open(name)
	must(t, err)
	data, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	return data
}

func (c connCase) files(t *testing.T) {
	conn, files, dir := c.room(t)
	data := make([]byte, 3<<20+17)
	_, _ = rand.Read(data) // never fails
	for _, name := range []string{"plain", "-x", "a b", "it's", "new\nline", "*", "ünï", `b\s`, ".hidden"} {
		name = path.Join(dir, name)
		write(t, files, name, []byte(name), 0o600)
		want(t, conn, loom.Command{Text: "cat " + loom.Quote(name)}, name)
		if got := read(t, files, name); string(got) != name {
			t.Errorf("%q has %q", name, got)
		}
	}
	write(t, files, dir+"/big", data, 0o600)
	if got := read(t, files, dir+"/big"); !bytes.Equal(got, data) {
		t.Errorf("of %d bytes came back %d, or others", len(data), len(got))
	}
	want(t, conn, loom.Command{Text: "wc -c < " + dir + "/big | tr -d ' '"}, fmt.Sprintln(len(data)))

	info, err := files.Stat(dir + "/big")
	must(t, err)
	if info.Name() != "big" || info.Size() != int64(len(data)) || info.Mode() != 0o600 || info.IsDir() {
		t.Errorf("Stat = %q, %d bytes, %v", info.Name(), info.Size(), info.Mode())
	}
	must(t, files.Mkdir(dir+"/sub", 0o711))
	want(t, conn, loom.Command{Text: "ln -s big " + dir + "/link; ln -s sub " + dir + "/sublink"}, "")
	for name, mode := range map[string]fs.FileMode{"sub": fs.ModeDir | 0o711, "sublink": fs.ModeDir | 0o711, "link": 0o600} {
		if info, err := files.Stat(path.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("Stat(%s) = %v, %v; want %v", name, info, err, mode)
		}
	}
	for _, name := range []string{"link", "sublink"} {
		if info, err := files.Lstat(path.Join(dir, name)); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("Lstat(%s) = %v, %v; want a link", name, info, err)
		}
	}
	list, err := files.ReadDir(dir)
	must(t, err)
	var names []string
	for _, info := range list {
		names = append(names, info.Name())
	}
	slices.Sort(names)
	if want := []string{"*", "-x", ".hidden", "a b", `b\s`, "big", "it's", "link", "new\nline", "plain", "sub", "sublink", "ünï"}; !slices.Equal(names, want) {
		t.Errorf("ReadDir = %q, want %q", names, want)
	}

	// A name without a directory is in the one where commands begin.
	home := path.Base(dir) + "-home"
	write(t, files, home, []byte("home"), 0o600)
	want(t, conn, loom.Command{Text: "cat " + home}, "home")
	must(t, files.Remove(home))
	must(t, errors.Join(files.Remove(dir+"/link"), files.Remove(dir+"/sub")))
	want(t, conn, loom.Command{Text: "ls -d " + dir + "/big"}, dir+"/big\n")
}

func (c connCase) fileErrors(t *testing.T) {
	conn, files, dir := c.room(t)
	none := dir + "/none"
	_, openErr := files.Open(none)
	_, createErr := files.Create(none+"/x", 0o600)
	_, statErr := files.Stat(none)
	_, lstatErr := files.Lstat(none)
	_, listErr := files.ReadDir(none)
	for what, err := range map[string]error{
		"Open": openErr, "Create": createErr, "Stat": statErr, "Lstat": lstatErr, "ReadDir": listErr,
		"Rename": files.Rename(none, dir+"/x"), "Remove": files.Remove(none),
		"Mkdir": files.Mkdir(none+"/x", 0o700), "Chmod": files.Chmod(none, 0o600),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of what does not exist = %v, want fs.ErrNotExist", what, err)
		}
	}
	must(t, files.Mkdir(dir+"/d", 0o700))
	write(t, files, dir+"/d/f", nil, 0o600)
	if err := files.Remove(dir + "/d"); err == nil {
		t.Error("Remove of a directory that is not empty = nil")
	}
	if err := files.Mkdir(dir+"/d", 0o700); err == nil {
		t.Error("Mkdir of a directory that exists = nil")
	}
	if err := files.Rename(dir+"/d/f", dir+"/d"); err == nil {
		t.Error("Rename of a file over a directory = nil")
	}

	if out, _, _ := sh(t, conn, loom.Command{Text: "id -u"}); out == "0\n" {
		t.Log("not tested: nothing is forbidden to root")
		return
	}
	must(t, files.Chmod(dir+"/d/f", 0))
	if _, err := files.Open(dir + "/d/f"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Open of a file that may not be read = %v, want fs.ErrPermission", err)
	}
	must(t, files.Chmod(dir+"/d", 0o500))
	if _, err := files.Create(dir+"/d/x", 0o600); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Create where nothing may be written = %v, want fs.ErrPermission", err)
	}
	if err := files.Remove(dir + "/d/f"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Remove where nothing may be written = %v, want fs.ErrPermission", err)
	}
	must(t, files.Chmod(dir+"/d", 0o700))
}

func (c connCase) create(t *testing.T) {
	conn, files, dir := c.room(t)
	for _, mode := range []fs.FileMode{0o600, 0o644, 0o666, 0o777, 0o400, 0o750} {
		name := fmt.Sprintf("%s/%o", dir, mode)
		f, err := files.Create(name, mode)
		must(t, err)
		if info, err := files.Stat(name); err != nil || info.Mode() != mode || info.Size() != 0 {
			t.Errorf("before its first byte: %v, %v; want an empty file with %v", info, err, mode)
		}
		_, err = io.WriteString(f, "content")
		must(t, errors.Join(err, f.Close()))
		if info, err := files.Stat(name); err != nil || info.Mode() != mode || info.Size() != 7 {
			t.Errorf("after its last byte: %v, %v; want 7 bytes with %v", info, err, mode)
		}
		if _, err := files.Create(name, mode); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create of a file that exists = %v, want fs.ErrExist", err)
		}
	}
	want(t, conn, loom.Command{Text: "ln -s nowhere " + dir + "/dangling"}, "")
	if _, err := files.Create(dir+"/dangling", 0o600); err == nil {
		t.Error("Create over a link that leads nowhere = nil: the file is another one")
	}
	must(t, files.Chmod(dir+"/600", 0o640|fs.ModeSetgid))
	if info, err := files.Stat(dir + "/600"); err != nil || info.Mode()&fs.ModePerm != 0o640 {
		t.Errorf("after Chmod: %v, %v; want 0640", info, err)
	}
}

func (c connCase) rename(t *testing.T) {
	_, files, dir := c.room(t)
	write(t, files, dir+"/a", []byte("new"), 0o640)
	write(t, files, dir+"/b", []byte("old"), 0o600)
	must(t, files.Rename(dir+"/a", dir+"/b"))
	if got := read(t, files, dir+"/b"); string(got) != "new" {
		t.Errorf("after the rename: %q, want new", got)
	}
	if info, err := files.Stat(dir + "/b"); err != nil || info.Mode() != 0o640 {
		t.Errorf("after the rename: %v, %v; want the new file's mode", info, err)
	}
	if _, err := files.Stat(dir + "/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name: %v, want fs.ErrNotExist", err)
	}
	must(t, files.Mkdir(dir+"/d", 0o700))
	must(t, files.Rename(dir+"/d", dir+"/e"))
}

func (c connCase) filesAtOnce(t *testing.T) {
	conn, files, dir := c.room(t)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			name := fmt.Sprint(dir, "/", i)
			data := bytes.Repeat([]byte{byte(i)}, 100_000)
			f, err := files.Create(name, 0o600)
			if err == nil {
				_, err = f.Write(data)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Errorf("file %d: %v", i, err)
				return
			}
			r, err := files.Open(name)
			if err != nil {
				t.Errorf("file %d: %v", i, err)
				return
			}
			got, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data) {
				t.Errorf("file %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()

	why := errors.New("the suite has seen enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	more, err := conn.Files(ctx)
	must(t, err)
	_, err = more.Stat(dir)
	must(t, err)
	cancel(why)
	if _, err := more.Stat(dir); !errors.Is(err, why) {
		t.Errorf("Stat after the context's end = %v, want the cause", err)
	}
	_ = more.Close() // it has ended
	if _, err := files.Stat(dir); err != nil {
		t.Errorf("other Files of the connection: %v", err)
	}
}
