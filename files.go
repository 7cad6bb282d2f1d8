package loom

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// Attr says whose a written file is and who may use it. The zero value keeps
// what the file had; a new one then is the session's user's, with mode 0644.
type Attr struct {
	Mode         fs.FileMode // permission, setuid, setgid and sticky bits; 0: keep
	Owner, Group string      // "": keep
}

// ReadFile returns what is in a file of the node. A missing one is an error
// that errors.Is(err, fs.ErrNotExist).
func (s *Session) ReadFile(ctx context.Context, name string) ([]byte, error) {
	return nil, errors.New("soon")
}

// WriteFile makes a file of the node have this content. It is written whole or
// not at all: to a temporary file beside it, which then takes its name.
func (s *Session) WriteFile(ctx context.Context, name string, data []byte, attr Attr) error {
	return errors.New("soon")
}

// Put copies all of r to a file of the node, whole or not at all, as WriteFile
// does.
func (s *Session) Put(ctx context.Context, r io.Reader, name string, attr Attr) error {
	return errors.New("soon")
}

// Get copies a file of the node to w.
func (s *Session) Get(ctx context.Context, name string, w io.Writer) error {
	return errors.New("soon")
}

// Files opens the node's files as the session's user sees them. The caller
// closes it.
func (s *Session) Files(ctx context.Context) (Files, error) { return nil, errors.New("soon") }
