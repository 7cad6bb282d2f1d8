package loomtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/loomtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type Restart struct{ Unit string }

func (r Restart) Validate() error {
	if r.Unit == "" {
		return errors.New("which unit?")
	}
	return nil
}

func (r Restart) Apply(ctx context.Context, s *loom.Session) error {
	if err := s.Sudo("").Run(ctx, "systemctl restart", r.Unit); err != nil {
		return err
	}
	s.Changed("restarted %s", r.Unit)
	return nil
}

// A node that answers every command badly. A test would let srv.Apply do what is
// done here by hand.
func ExampleNewServer() {
	srv := loomtest.NewServer(func(_ context.Context, cmd string, _ io.Reader, _, errw io.Writer) int {
		fmt.Fprintln(errw, "Unit nginx.service not found.")
		return 5
	})
	defer srv.Close()
	ctx := context.Background()
	conn, err := srv.Dial(ctx, srv.Node())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	err = Restart{Unit: "nginx"}.Apply(ctx, &loom.Session{Node: srv.Node(), Conn: conn})
	fmt.Println(err)
	fmt.Println(srv.Commands())
	// Output:
	// command 'systemctl restart nginx': exit status 5: Unit nginx.service not found.
	// [sudo -u root -- systemctl restart nginx]
}

func TestApply(t *testing.T) {
	srv := loomtest.NewServer(nil)
	changes, err := srv.Apply(t, Restart{Unit: "it's"})
	if err != nil || !slices.Equal(changes, []loom.Change{"restarted it's"}) {
		t.Errorf("Apply = %q, %v; want one change", changes, err)
	}
	if got, want := srv.Commands(), []string{`sudo -u root -- systemctl restart 'it'\''s'`}; !slices.Equal(got, want) {
		t.Errorf("commands = %q, want %q", got, want)
	}
	if _, err := srv.Apply(t, Restart{}); err == nil || len(srv.Commands()) != 1 {
		t.Errorf("an invalid task: %v, and %q was run", err, srv.Commands())
	}
}

func TestHandler(t *testing.T) {
	srv := loomtest.NewServer(func(ctx context.Context, cmd string, in io.Reader, out, errw io.Writer) int {
		text, _ := io.ReadAll(in)
		c := loomtest.CommandOf(ctx)
		_, _ = fmt.Fprintf(out, "%s|%s|%s|%s|%s|%s", cmd, text, c.User, c.Dir, c.Env["A"], c.Env["LOOM_NODE"])
		return len(text)
	})
	srv.Sudo = func(user, password string) bool { return user == "www" && password == "pw" }
	s := srv.Session(t)
	s.Dir, s.Env = "/srv", map[string]string{"A": "b c"}
	var out bytes.Buffer
	err := s.Exec(t.Context(), loom.Command{Text: "wc", User: "www", Password: "pw", Stdin: strings.NewReader("abc"), Stdout: &out})
	if exit, ok := errors.AsType[*loom.ExitError](err); !ok || exit.Code != 3 || out.String() != "wc|abc|www|/srv|b c|node" {
		t.Errorf("Exec = %v, %q", err, &out)
	}
	if err := s.Sudo("root").Run(t.Context(), "id"); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("sudo without a password = %v", err)
	}
}

func TestFiles(t *testing.T) {
	for name, srv := range map[string]*loomtest.Server{"memory": loomtest.NewServer(nil), "real": loomtest.Real(t)} {
		t.Run(name, func(t *testing.T) {
			if err := srv.WriteFile("etc/motd", []byte("old"), 0o640); err != nil {
				t.Fatal(err)
			}
			s := srv.Session(t)
			if got, err := s.ReadFile(t.Context(), "etc/motd"); string(got) != "old" || err != nil {
				t.Errorf("ReadFile = %q, %v; want old", got, err)
			}
			if err := s.WriteFile(t.Context(), "~/etc/motd", []byte("new"), loom.Attr{}); err != nil {
				t.Error(err)
			}
			if got, err := srv.ReadFile("etc/motd"); string(got) != "new" || err != nil {
				t.Errorf("the node has %q, %v; want new", got, err)
			}
			if info, err := srv.Stat("etc/motd"); err != nil || info.Mode() != 0o640 {
				t.Errorf("Stat = %v, %v; want the mode kept", info, err)
			}
			if _, err := s.ReadFile(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("ReadFile(none) = %v, want fs.ErrNotExist", err)
			}
			if got := srv.Commands(); len(got) > 0 {
				t.Errorf("the files were transferred by %q", got)
			}
		})
	}
}

func TestReal(t *testing.T) {
	srv := loomtest.Real(t)
	srv.NoSFTP = true
	s := srv.Session(t)
	if out, err := s.Output(t.Context(), "echo $((6*7)); exec printf %s", "a b"); out != "42\na b" || err != nil {
		t.Errorf("Output = %q, %v", out, err)
	}
	if got := srv.Commands(); !slices.Equal(got, []string{"echo $((6*7)); exec printf %s 'a b'"}) {
		t.Errorf("commands = %q", got)
	}
	if err := s.WriteFile(t.Context(), "f", []byte("by commands"), loom.Attr{}); err != nil {
		t.Error(err)
	}
	if got, err := srv.ReadFile("f"); string(got) != "by commands" || err != nil {
		t.Errorf("the node has %q, %v", got, err)
	}
}

// Three hours pass, and the job is told to stop, and the cable is pulled, all in
// a moment.
func TestFakeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := loomtest.NewServer(func(ctx context.Context, cmd string, _ io.Reader, _, _ io.Writer) int {
			d, _ := time.ParseDuration(strings.TrimPrefix(cmd, "sleep "))
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			return 0
		})
		s := srv.Session(t)
		began := time.Now()
		if err := s.Run(t.Context(), "sleep 3h"); err != nil || time.Since(began) != 3*time.Hour {
			t.Errorf("Run = %v after %v, want nil after 3h", err, time.Since(began))
		}

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, loom.ErrCancelled)
		defer cancel()
		began = time.Now()
		if err := s.Run(ctx, "sleep 3h"); !errors.Is(err, loom.ErrCancelled) || time.Since(began) != time.Minute {
			t.Errorf("Run = %v after %v, want the cause after 1m", err, time.Since(began))
		}

		time.AfterFunc(time.Minute, srv.Stall)
		if err := s.Run(t.Context(), "sleep 3h"); !errors.Is(err, loom.ErrLost) {
			t.Errorf("Run over a pulled cable = %v, want loom.ErrLost", err)
		}
		time.AfterFunc(time.Minute, srv.Drop)
		if err := s.Run(t.Context(), "sleep 3h"); !errors.Is(err, loom.ErrLost) {
			t.Errorf("Run over a cut connection = %v, want loom.ErrLost", err)
		}
		if err := s.Run(t.Context(), "sleep 1s"); err != nil {
			t.Errorf("Run after that = %v, want nil", err)
		}
		gone := errors.New("no such machine")
		srv.Down(gone)
		srv.Drop()
		synctest.Wait() // until it is noticed
		if err := s.Run(t.Context(), "sleep 1s"); !errors.Is(err, loom.ErrUnreachable) || !errors.Is(err, gone) {
			t.Errorf("Run on a node that is down = %v, want loom.ErrUnreachable", err)
		}
	})
}

// A whole pool works on nodes of this kind.
func TestPool(t *testing.T) {
	srv := loomtest.NewServer(nil)
	srv.MaxSessions = 1
	defer srv.Close()
	pool := &loom.Pool{Dialer: srv}
	defer pool.Close()
	job := &loom.Job{Name: "restart", Task: Restart{Unit: "nginx"}}
	for i := range 20 {
		job.Targets = append(job.Targets, &loom.Node{Name: fmt.Sprint("n", i)})
	}
	if err := pool.Run(t.Context(), job, time.Now(), nil); err != nil {
		t.Error(err)
	}
	if got := srv.Commands(); len(got) != 20 {
		t.Errorf("%d commands were run, want 20", len(got))
	}
}
