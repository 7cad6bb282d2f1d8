package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

// claiming returns a session that claims its commands.
func claiming(c loom.Conn, claim string) *loom.Session {
	return (&loom.Session{Node: &loom.Node{Name: "n1"}, Conn: c, Claim: claim}).Resumable()
}

// spool is where a user's claims are. Whoever logs in as root has a home of the
// server's.
func spool(tb testing.TB, s *sshd.Server, name string) string {
	tb.Helper()
	if name == "root" {
		return filepath.Join(s.Dir, ".local/state/loom")
	}
	u, err := user.Lookup(name)
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(u.HomeDir, ".local/state/loom")
}

// kept returns the files of a claim, whose name ends with a number.
func kept(tb testing.TB, dir, name string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, name+"-[0-9]*.*"))
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// A record is what became of a command.
type record struct {
	Out, Err string
	Code     int
	Signal   string
	Error    string
}

// lineOf is where a shell says a mistake is, which depends on what is before it.
var lineOf = regexp.MustCompile(`sh: [0-9]+:`)

func outcome(t *testing.T, exec func(context.Context, loom.Command) error, c loom.Command) record {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if c.Shell == "merged" {
		c.Shell, c.Stderr = "", &out
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := exec(ctx, c)
	r := record{Out: out.String(), Err: lineOf.ReplaceAllString(errs.String(), "sh: N:")}
	if exit := (*loom.ExitError)(nil); errors.As(err, &exit) {
		r.Code, r.Signal = exit.Code, exit.Signal
	} else if err != nil {
		r.Error = err.Error()
	}
	return r
}

// A command that is claimed does what it does plainly, and does it again for
// whoever attaches later, whatever the login shell and the user.
func TestClaimedIsLikePlain(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	asked := sshd.NewUser(t, "/bin/bash", "open sesame").Username
	sshd.Sudo(t, asked, true, "Defaults:"+asked+" use_pty")
	commands := []loom.Command{
		{Text: "true"},
		{Text: "echo hello; echo oops >&2; exit 7"},
		{Text: "exit 137"},
		{Text: "exit 255"},
		{Text: "kill -KILL $$"},
		{Text: "kill -TERM $$; sleep 9"},
		{Text: "kill -s USR1 $$; sleep 9"},
		{Text: "trap 'exit 3' TERM; kill -TERM 0; sleep 9"},
		{Text: `printf 'a\0b'; printf 'c\377d' >&2; printf e`},
		{Text: "pwd; echo $# $0; umask; id -un"},
		{Text: "pwd", Dir: "/usr"},
		{Text: "echo never", Dir: "/no/such/directory"},
		{Text: `echo "$A"; env | grep -c LOOM_EXEC`, Env: map[string]string{"A": "it's \"$HOME\" `id` \\ \n*"}},
		{Text: "echo 'never closed"},
		{Text: "cat; wc -c", Stdin: strings.NewReader("a\x00b\\0101%s'\nend")},
		{Text: "cat", Stdin: strings.NewReader("")},
		{Text: `echo "$A $0"`, Shell: "/bin/bash", Env: map[string]string{"A": "b"}},
		{Text: "echo a >&2", Shell: "merged"},
		{Text: "head -c 3000000 /dev/zero | tr '\\0' x; seq 20000 >&2"},
		{Text: "x='" + strings.Repeat("y", 300<<10) + "'; echo ${#x}"},
		{Text: "sleep 60 & echo started"},
		{Text: "setsid sleep 60 & echo started"},
	}
	for _, tt := range []struct {
		name, login, user string
		password          loom.Secret
	}{
		{"dash", sshd.NewUser(t, "/bin/sh", "").Username, "", ""},
		{"fish", sshd.NewUser(t, "/usr/bin/fish", "").Username, "", ""},
		{"csh", sshd.NewUser(t, "/bin/csh", "").Username, "", ""},
		{"sudo with password", asked, "root", "open sesame"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, dialer(t, s.KnownHosts), node(s, tt.login))
			list := commands
			if tt.name != "dash" {
				list = commands[:14]
			}
			for i, cmd := range list {
				cmd.User, cmd.Password = tt.user, tt.password
				likePlain(t, c, cmd, fmt.Sprintf("like-%s-%d-%d", tt.login, os.Getpid(), i))
			}
		})
	}
}

func likePlain(t *testing.T, c loom.Conn, cmd loom.Command, name string) {
	t.Helper()
	input, fed := cmd.Stdin.(*strings.Reader)
	size := int64(0)
	if fed {
		size = input.Size()
	}
	renew := func() { // each reader is used by one at a time
		if fed {
			cmd.Stdin = io.NewSectionReader(input, 0, size)
		}
	}
	renew()
	want := outcome(t, c.Exec, cmd)
	var session *loom.Session
	for k := range 2 {
		renew()
		session = claiming(c, name)
		if got := outcome(t, session.Exec, cmd); got != want {
			t.Errorf("%.60q, time %d:\n got %.300q\nwant %.300q", cmd.Text, k+1, fmt.Sprint(got), fmt.Sprint(want))
		}
	}
	if err := session.Acknowledge(t.Context()); err != nil {
		t.Error(err)
	}
}

// numbers prints its lines, and notes that it was started.
func numbers(note string, n int) string {
	return fmt.Sprintf("echo run >>%s; i=0; while [ $i -lt %d ]; do echo line $i; echo side $i >&2; i=$((i+1)); sleep .01; done; exit 5", note, n)
}

func wanted(word string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %d\n", word, i)
	}
	return b.String()
}

func startedOnce(t *testing.T, note string) {
	t.Helper()
	if b, err := os.ReadFile(note); string(b) != "run\n" {
		t.Errorf("it was started %d times, %v", bytes.Count(b, []byte("\n")), err)
	}
}

// A cutter is a writer that cuts the connection now and then.
type cutter struct {
	bytes.Buffer
	cut   func()
	every int
	last  int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.Len()-c.last > c.every {
		c.last = c.Len()
		c.cut()
	}
	return c.Buffer.Write(p)
}

func TestClaimOutlivesLink(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	p := newProxy(t, s.Addr())
	d := dialer(t, "")
	d.HostKeys = loom.HostKeysOff
	c := dial(t, d, p.behind(s, me()))
	note := filepath.Join(os.TempDir(), fmt.Sprintf("loom-note-%d", os.Getpid()))
	defer func() { _ = os.Remove(note) }()
	out, errs := &cutter{cut: p.cut, every: 500}, &bytes.Buffer{}
	session := claiming(c, fmt.Sprintf("cuts-%d", os.Getpid()))
	err := session.Exec(t.Context(), loom.Command{Text: numbers(note, 250), Stdout: out, Stderr: errs})
	exit := (*loom.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Code != 5 || out.String() != wanted("line", 250) || errs.String() != wanted("side", 250) {
		t.Errorf("%v, %d and %d bytes of output", err, out.Len(), errs.Len())
	}
	startedOnce(t, note)
	if err := session.Acknowledge(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whoever comes after Loom has died gets all of the output and the exit status.
func TestClaimOutlivesLoom(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	note := filepath.Join(os.TempDir(), fmt.Sprintf("loom-note2-%d", os.Getpid()))
	defer func() { _ = os.Remove(note) }()
	name := fmt.Sprintf("crash-%d", os.Getpid())
	cmd := loom.Command{Text: numbers(note, 200)}
	for range 3 { // it dies in the middle
		c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
		up := newWaiter()
		done := make(chan error, 1)
		go func() {
			first := cmd
			first.Stdout = up
			done <- claiming(c, name).Exec(t.Context(), first)
		}()
		<-up.came
		_ = c.Close()
		if err := <-done; !errors.Is(err, loom.ErrLost) {
			t.Errorf("a closed connection: %v, want one that is lost", err)
		}
	}
	var wg sync.WaitGroup
	for range 2 {
		c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
		wg.Go(func() {
			want := record{Out: wanted("line", 200), Err: wanted("side", 200), Code: 5}
			if got := outcome(t, claiming(c, name).Exec, cmd); got != want {
				t.Errorf("got %.200q", fmt.Sprint(got))
			}
		})
	}
	wg.Wait()
	startedOnce(t, note)

	// The files are private, and gone when they are no longer wanted.
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	dir := spool(t, s, me())
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the spool: %v, %v", info.Mode(), err)
	}
	session := claiming(c, name)
	other := outcome(t, session.Exec, loom.Command{Text: "another command"})
	if !strings.Contains(other.Error, "another command") {
		t.Errorf("another command under the same claim: %v", other)
	}
	session = claiming(c, name)
	_ = outcome(t, session.Exec, cmd)
	if len(kept(t, dir, name)) == 0 {
		t.Errorf("nothing is kept in %s", dir)
	}
	if err := session.Acknowledge(t.Context()); err != nil {
		t.Error(err)
	}
	if left := kept(t, dir, name); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The end of the context ends all of a claim's processes, and so does the node by
// itself when nobody can reach it.
func TestClaimEnds(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{Lines: []string{"MaxSessions 100"}})
	free := sshd.NewUser(t, "/bin/sh", "").Username
	sshd.Sudo(t, free, false, "")
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, shape := range shapes {
		login, as, dir := me(), "", spool(t, s, me())
		if i%2 == 1 {
			login, as, dir = free, "root", "/root/.local/state/loom" // sudo does not keep HOME
		}
		for _, how := range []string{"cancel", "limit"} {
			// Not t.Parallel, which runs only as many as there are processors.
			wg.Go(func() {
				t.Run(how+"/"+shape.name, func(t *testing.T) {
					c := dial(t, dialer(t, s.KnownHosts), node(s, login))
					endClaimed(t, c, how, loom.Command{Text: shape.text, User: as}, dir, fmt.Sprintf("end-%s-%d-%d", how, os.Getpid(), i))
				})
			})
		}
	}
}

func endClaimed(t *testing.T, c loom.Conn, how string, cmd loom.Command, dir, name string) {
	t.Helper()
	w, up := word()(), newWaiter()
	cmd.Text, cmd.Stdout = "echo up; "+strings.ReplaceAll(cmd.Text, "WORD", w), up
	if strings.Contains(cmd.Text, "while :") {
		cmd.Shell = "/bin/sh"
	}
	why := errors.New("why not")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	if how == "limit" {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, 4*time.Second)
		defer stop()
	}
	session := claiming(c, name)
	done := make(chan error, 1)
	go func() { done <- session.Exec(ctx, cmd) }()
	select {
	case <-up.came:
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	}
	if how == "limit" {
		_ = c.Close()
		<-done
		gone(t, w)
		for _, f := range kept(t, dir, name) {
			_ = os.Remove(f)
		}
		return
	}
	link := c.(*conn).links[0]
	cancel(why)
	if err := <-done; !errors.Is(err, why) || err.Error() != why.Error() {
		t.Errorf("error %v, want %v", err, why)
	}
	if s := left(t, w); s != "" {
		t.Errorf("still there when Exec returned:\n%s", s)
	}
	if err := session.Acknowledge(t.Context()); err != nil {
		t.Error(err)
	}
	if !link.alive() {
		t.Errorf("the connection did not outlive the command: %v", link.why)
	}
}

// What can't be known is lost, and never run again.
func TestClaimLost(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	u := sshd.NewUser(t, "/bin/sh", "")
	dir := spool(t, s, u.Username)
	for _, tt := range []struct{ name, script, says string }{
		{"restarted", "sed -i s/^[^\\ ]*/another-boot/ FILE.c", "restarted"},
		{"supervisor killed", "read -r b p r <FILE.c; kill -9 $p", "gone"},
		{"claimed and never begun", ": >FILE.c; rm -f FILE.p", "gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := "lost-" + strings.ReplaceAll(tt.name, " ", "-")
			cmd := loom.Command{Text: "echo run >>$HOME/" + name + "; echo up; exec sleep 30"}
			c := dial(t, dialer(t, s.KnownHosts), node(s, u.Username))
			up := newWaiter()
			done := make(chan error, 1)
			go func() {
				first := cmd
				first.Stdout = up
				done <- claiming(c, name).Exec(t.Context(), first)
			}()
			<-up.came
			_ = c.Close()
			<-done
			c = dial(t, dialer(t, s.KnownHosts), node(s, u.Username))
			if _, errs, err := run(t, c, loom.Command{Text: strings.ReplaceAll(tt.script, "FILE", filepath.Join(dir, name+"-1"))}); err != nil {
				t.Fatal(err, errs)
			}
			err := claiming(c, name).Exec(t.Context(), cmd)
			if !errors.Is(err, loom.ErrLost) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want one that is lost and says %q", err, tt.says)
			}
			if b, _ := os.ReadFile(filepath.Join(u.HomeDir, name)); string(b) != "run\n" {
				t.Errorf("it ran %d times", bytes.Count(b, []byte("\n")))
			}
		})
	}
}

// A spool that somebody else could write is not used.
func TestClaimSpool(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	for _, tt := range []struct {
		name, says string
		prepare    func(dir string) error
	}{
		{"link", "symbolic link", func(dir string) error { return os.Symlink(t.TempDir(), dir) }},
		{"another's", "another user", func(dir string) error { return os.Mkdir(dir, 0o777) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("NOT TESTED: only root can make another's directory")
			}
			u := sshd.NewUser(t, "/bin/sh", "")
			dir := spool(t, s, u.Username)
			if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), tt.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			c := dial(t, dialer(t, s.KnownHosts), node(s, u.Username))
			got := outcome(t, claiming(c, "spool").Exec, loom.Command{Text: "echo ran"})
			if got.Out != "" || !strings.Contains(got.Error, tt.says) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// However much a command prints while nobody listens, the node keeps its
// beginning and its end, and who listens gets all.
func TestClaimOutput(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	const size = 40 << 20
	name := fmt.Sprintf("flood-%d", os.Getpid())
	cmd := loom.Command{Text: fmt.Sprintf("echo first; head -c %d /dev/zero; echo last", size)}
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	session := claiming(c, name)
	got := outcome(t, session.Exec, cmd)
	if len(got.Out) != size+len("first\nlast\n") || got.Error != "" {
		t.Errorf("who listens got %d bytes, %s", len(got.Out), got.Error)
	}
	var stored int64
	for _, f := range kept(t, spool(t, s, me()), name) {
		if info, err := os.Stat(f); err == nil {
			stored += info.Size()
		}
	}
	if stored < 20<<20 || stored > 32<<20 {
		t.Errorf("the node keeps %d bytes", stored)
	}
	again := outcome(t, claiming(c, name).Exec, cmd)
	if !strings.HasPrefix(again.Out, "first\n") || !strings.HasSuffix(again.Out, "last\n") ||
		!strings.Contains(again.Out, "bytes of output were not kept on the node]\n") || len(again.Out) > 32<<20 {
		t.Errorf("who comes later got %d bytes, %s", len(again.Out), again.Error)
	}
	if err := session.Acknowledge(t.Context()); err != nil {
		t.Error(err)
	}
}
