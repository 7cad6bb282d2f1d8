package loom_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
)

func TestLocal(t *testing.T) {
	conn, err := loom.Local{}.Dial(t.Context(), &loom.Node{Name: "here", Transport: "local"})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	err = conn.Exec(t.Context(), loom.Command{Text: `echo "$A"; cat; echo oops >&2; exit 3`, Env: map[string]string{"A": "it's"},
		Stdin: strings.NewReader("input\n"), Stdout: &out, Stderr: &errs})
	exit := (*loom.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "it's\ninput\n" || errs.String() != "oops\n" {
		t.Errorf("got %q, %q, %v", out.String(), errs.String(), err)
	}

	files, err := conn.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := t.TempDir() + "/file"
	f, err := files.Create(name, 0o664)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o664 {
		t.Errorf("mode %v, %v: the umask must not matter", info.Mode(), err)
	}
	if _, err := files.Create(name, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what exists: %v", err)
	}

	if err := errors.Join(files.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
	if err := conn.Exec(t.Context(), loom.Command{Text: "true"}); !errors.Is(err, loom.ErrUnreachable) {
		t.Errorf("after Close: %v", err)
	}
}

// Closing ends what runs.
func TestLocalClose(t *testing.T) {
	conn, err := loom.Local{}.Dial(t.Context(), &loom.Node{Name: "here"})
	if err != nil {
		t.Fatal(err)
	}
	up := make(writes, 1)
	done := make(chan error, 1)
	go func() { done <- conn.Exec(t.Context(), loom.Command{Text: "echo up; sleep 1000", Stdout: up}) }()
	<-up
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("it ended well")
	}
}

// writes is a writer that tells of every write.
type writes chan struct{}

func (w writes) Write(p []byte) (int, error) {
	w <- struct{}{}
	return len(p), nil
}
