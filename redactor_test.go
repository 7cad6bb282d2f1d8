package loom

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

const canary = `c4n4ry'S "value"/+x`

// TestPoolTellsNoSecrets has a task tell a secret in every way it can.
func TestPoolTellsNoSecrets(t *testing.T) {
	var log bytes.Buffer
	secrets := new(Redactor)
	secrets.Add(canary, "first-line-of\nsecond-line-of\nx")
	pool := &Pool{Dialer: &bench{}, Redactor: secrets, Log: slog.New(slog.NewJSONHandler(&lockedWriter{w: &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	defer pool.Close()

	encoded := base64.StdEncoding.EncodeToString([]byte("user:" + canary))
	type tell func(context.Context, *Session) error
	for name, do := range map[string]tell{
		"output": func(_ context.Context, s *Session) error {
			_, err := io.WriteString(s.Out, "<"+canary+">\n")
			return err
		},
		"no newline": func(_ context.Context, s *Session) error { _, err := io.WriteString(s.Out, "<"+canary); return err },
		"base64":     func(_ context.Context, s *Session) error { _, err := io.WriteString(s.Out, encoded+"\n"); return err },
		"bytewise": func(_ context.Context, s *Session) error {
			for i := range len(canary) {
				if _, err := io.WriteString(s.Err, canary[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		},
		"a long line": func(_ context.Context, s *Session) error { // which is cut in the middle of it
			_, err := io.WriteString(s.Out, strings.Repeat("x", longestLine-10)+canary+strings.Repeat("y", longestLine)+"\n")
			return err
		},
		"lines": func(_ context.Context, s *Session) error {
			_, err := io.WriteString(s.Out, "first-line-of\r\n\nsecond-line-of\n")
			return err
		},
		"log": func(_ context.Context, s *Session) error {
			s.Log.Info("got "+canary, "err", errors.New(canary), "map", map[string]string{"a": canary}, "bytes", []string{canary})
			return nil
		},
		"log with": func(_ context.Context, s *Session) error {
			s.Log.With("x", canary).WithGroup("g").Info("m", slog.Group("h", "y", canary))
			return nil
		},
		"change": func(_ context.Context, s *Session) error { s.Changed("set it to %q", canary); return nil },
		"error":  func(context.Context, *Session) error { return fmt.Errorf("reading %s: %w", canary, io.EOF) },
		"skip":   func(context.Context, *Session) error { return Skip("not for %s", canary) },
		"panic":  func(context.Context, *Session) error { panic(errors.New(canary)) },
		"exit": func(_ context.Context, s *Session) error {
			return &ExitError{Command: "mysql -p" + canary, Code: 1, Stderr: "bad " + canary}
		},
		"cut": func(_ context.Context, s *Session) error {
			return &ExitError{Command: strings.Repeat("x", 52) + canary, Code: 1} // of it 60 are shown
		},
	} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			var mu sync.Mutex
			var all []Event
			job := &Job{Name: "j", Targets: nodes("a"), Task: TaskFunc(do), Retries: Retries{Attempts: 1, On: []Status{StatusFailed}}}
			err := pool.Run(t.Context(), job, time.Now(), func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, e)
			})
			var told strings.Builder
			fmt.Fprintf(&told, "%v\n%s\n", err, log.String())
			for _, e := range all {
				fmt.Fprintf(&told, "%+v\n", e)
				if r := e.Result; r != nil {
					fmt.Fprintf(&told, "%+v %v\n", *r, r.Err)
				}
			}
			for _, bad := range []string{"c4n4ry", "value", encoded[4:20], "first-line", "second-line"} {
				if strings.Contains(told.String(), bad) {
					t.Errorf("%q is told in\n%.3000s", bad, told.String())
				}
			}
			if !strings.Contains(told.String(), "[secret]") && name != "a long line" { // its mask may be cut, too
				t.Errorf("nothing is told in\n%.3000s", told.String())
			}
			if name == "error" && !errors.Is(err, io.EOF) {
				t.Errorf("the error %v wraps nothing", err)
			}
		})
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// complaining is a Conn of which every command fails, with a long complaint.
type complaining struct{ Conn }

func (complaining) Exec(_ context.Context, c Command) error {
	for i := range len(canary) { // in pieces
		if _, err := io.WriteString(c.Stderr, strings.Repeat(" ", 300)+canary[:i+1]+"\n"); err != nil {
			return err
		}
	}
	return &ExitError{Command: c.Text, Code: 1}
}

func TestSessionErrorsTellNoSecrets(t *testing.T) {
	secrets := new(Redactor)
	secrets.Add(canary)
	s := &Session{Node: &Node{Name: "a"}, Conn: complaining{}, Out: io.Discard, secrets: secrets}
	err := s.Run(t.Context(), "mysql -p"+canary)
	exit, ok := errors.AsType[*ExitError](err)
	if !ok || strings.Contains(exit.Command, "c4n4ry") || strings.Contains(exit.Stderr, canary) || !strings.Contains(exit.Stderr, "[secret]") {
		t.Errorf("got %#v", err)
	}
}

func TestNilRedactor(t *testing.T) {
	var r *Redactor
	if got := r.Redact("text"); got != "text" {
		t.Error(got)
	}
	if got := (&Manifest{}).Redact("text"); got != "text" {
		t.Error(got)
	}
}

func ExampleRedactor() {
	var r Redactor
	r.Add("correct horse")
	fmt.Println(r.Redact("login with correct horse, or Y29ycmVjdCBob3JzZQ=="))
	// Output: login with [secret], or [secret]
}
