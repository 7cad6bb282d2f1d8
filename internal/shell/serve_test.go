package shell

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// start makes an Emulator the other side of Run.
func (e *Emulator) start(ctx context.Context, line string) (Process, error) {
	p := &emulatedProcess{done: make(chan struct{})}
	in, stdin := io.Pipe()
	var out, errs *io.PipeWriter
	p.stdin = stdin
	p.stdout, out = io.Pipe()
	p.stderr, errs = io.Pipe()
	var wg sync.WaitGroup
	ctx, p.cancel = context.WithCancel(ctx)
	ctx = context.WithoutCancel(ctx) // a node knows nothing of our contexts
	go func() {
		exit, ok := e.Serve(ctx, line, Terminal{In: in, Out: out, Err: errs, Go: wg.Go})
		if !ok {
			exit = Exit{Code: 127}
		}
		p.exit = exit
		close(p.done)
		_ = out.Close()
		_ = errs.Close()
		_ = in.Close()
		wg.Wait()
	}()
	return p, nil
}

type emulatedProcess struct {
	stdin          *io.PipeWriter
	stdout, stderr *io.PipeReader
	cancel         context.CancelFunc
	done           chan struct{}
	exit           Exit
}

func (p *emulatedProcess) Write(b []byte) (int, error)   { return p.stdin.Write(b) }
func (p *emulatedProcess) CloseWrite() error             { return p.stdin.Close() }
func (p *emulatedProcess) Read(b []byte) (int, error)    { return p.stdout.Read(b) }
func (p *emulatedProcess) ReadErr(b []byte) (int, error) { return p.stderr.Read(b) }
func (p *emulatedProcess) Done() <-chan struct{}         { return p.done }
func (p *emulatedProcess) Exit() (Exit, error)           { <-p.done; return p.exit, nil }
func (p *emulatedProcess) Close() {
	p.cancel()
	_ = p.stdin.Close()
	_ = p.stdout.Close()
	_ = p.stderr.Close()
}

func TestEmulator(t *testing.T) {
	echo := func(_ context.Context, c Command) Exit {
		in, _ := io.ReadAll(c.Stdin)
		_, _ = fmt.Fprintf(c.Stdout, "%q in %q as %q by %q with %v reads %q", c.Text, c.Dir, c.User, c.Shell, c.Env, in)
		_, _ = io.WriteString(c.Stderr, "aside")
		return Exit{Code: 3}
	}
	sudo := func(user, password string) bool { return user == "www" || password == "pw" }
	hostile := "echo 'it''s'\n}\n_loom;exit\nunset g x;export LOOM_EXEC=x 'y"
	tests := []struct {
		name string
		c    Command
		want string
	}{
		{"plain", Command{Text: "uptime"}, `"uptime" in "" as "" by "" with map[] reads ""`},
		{"hostile", Command{Text: hostile, Dir: "/it's", Env: map[string]string{"A": "'\n", "B": hostile}, Shell: "/bin/it's"},
			fmt.Sprintf(`%q in "/it's" as "" by "/bin/it's" with %v reads ""`, hostile, map[string]string{"A": "'\n", "B": hostile})},
		{"private", Command{Text: hostile, Shell: "/bin/it's", Private: true}, fmt.Sprintf(`%q in "" as "" by "/bin/it's" with map[] reads ""`, hostile)},
		{"stdin", Command{Text: "cat", Stdin: strings.NewReader("a\nb")}, `"cat" in "" as "" by "" with map[] reads "a\nb"`},
		{"user", Command{Text: "id", User: "www"}, `"id" in "" as "www" by "" with map[] reads ""`},
		{"password not needed", Command{Text: "id", User: "www", Password: "x"}, `"id" in "" as "www" by "" with map[] reads ""`},
		{"password", Command{Text: "id", User: "root", Password: "pw", Stdin: strings.NewReader("x")}, `"id" in "" as "root" by "" with map[] reads "x"`},
	}
	e := &Emulator{Exec: echo, Sudo: sudo}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			tt.c.Stdout, tt.c.Stderr = &out, &errs
			exit, err := Run(t.Context(), e.start, tt.c, nil)
			if err != nil || exit.Code != 3 || out.String() != tt.want || errs.String() != "aside" {
				t.Errorf("got %v, %v, %q, %q; want %q", exit, err, &out, &errs, tt.want)
			}
		})
	}

	for password, want := range map[string]*SudoError{
		"": {User: "root", Needs: true}, "wrong": {User: "root", Refused: true},
	} {
		_, err := Run(t.Context(), e.start, Command{Text: "id", User: "root", Password: password}, nil)
		if got, ok := errors.AsType[*SudoError](err); !ok || got.Needs != want.Needs || got.Refused != want.Refused {
			t.Errorf("with password %q: %v, want %v", password, err, want)
		}
	}
}

// A command is told to end, with and without input; one that does not listen is
// let go after the time that a watcher would take to kill it.
func TestEmulatorCancel(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		for _, input := range []bool{false, true} {
			t.Run(fmt.Sprintf("deaf %v input %v", deaf, input), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					began := make(chan struct{})
					e := &Emulator{Exec: func(ctx context.Context, _ Command) Exit {
						close(began)
						if deaf {
							<-release
						}
						<-ctx.Done()
						return Exit{}
					}}
					defer close(release)
					ctx, cancel := context.WithCancelCause(t.Context())
					c := Command{Text: "sleep 1d"}
					if input {
						c.Stdin = strings.NewReader("x")
					}
					go func() { <-began; cancel(errEnded) }()
					from := time.Now()
					if _, err := Run(ctx, e.start, c, nil); !errors.Is(err, errEnded) {
						t.Errorf("Run = %v, want the cause", err)
					}
					if took := time.Since(from); took > killTime || !deaf && took > 0 {
						t.Errorf("it took %v", took)
					}
				})
			})
		}
	}
}

// What parseScript finds in a script is what was put into it.
func FuzzScript(f *testing.F) {
	f.Add("uptime", "", "", "", "", false, false)
	f.Add("echo 'a'\n}\n_loom;exit\n", "/x", "/bin/it's", "A", "'\\''", true, true)
	f.Add("\\'", "-", "", "LOOM", "unset g x;export LOOM_EXEC=", true, false)
	f.Fuzz(func(t *testing.T, text, dir, shell, name, value string, feeds, sudo bool) {
		c := &Command{Text: text, Dir: dir, Shell: shell}
		if validName(name) {
			c.Env = map[string]string{name: value}
		}
		if c.check() != nil {
			t.Skip()
		}
		whole := script{c: c, nonce: newNonce(), feeds: feeds, sudo: sudo}.text()
		const more = "the command's own input"
		r := bufio.NewReader(strings.NewReader(whole + more))
		read, err := readScript(r)
		if rest, _ := io.ReadAll(r); err != nil || read != whole || string(rest) != more {
			t.Fatalf("readScript = %q, %v, then %q", read, err, rest)
		}
		s, err := parseScript(read)
		if err != nil {
			t.Fatal(err)
		}
		if s.c.Text != text || s.c.Dir != directory(dir) || s.c.Shell != shell || !maps.Equal(s.c.Env, c.Env) || s.feeds != feeds || s.sudo != sudo {
			t.Errorf("parseScript = %+v %+v, want %+v", s, s.c, c)
		}
	})
}
