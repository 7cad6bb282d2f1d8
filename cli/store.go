package cli

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustinlacewell/loom"
)

// Stores are the kinds of store that a program has, by the name that the store
// key of the configuration gives them: sqlite, or the scheme of a URL.
type Stores map[string]OpenStore

// An OpenStore opens a store: where is a URL, or of sqlite the file.
type OpenStore func(ctx context.Context, where string) (loom.Store, error)

// storeFile is the name of a store that is a file, in the state directory.
const storeFile = "loom.db"

// Open opens the store that a configuration names. dir is the state directory,
// in which stores that are files are.
func (s Stores) Open(ctx context.Context, name, dir string) (loom.Store, error) {
	kind, where := name, name
	if scheme, _, isURL := strings.Cut(name, "://"); isURL {
		kind = scheme
	} else {
		where = filepath.Join(dir, storeFile)
	}
	open := s[kind]
	if open == nil {
		have := strings.Join(slices.Sorted(maps.Keys(s)), ", ")
		if have == "" {
			have = "none"
		}
		return nil, &Error{Code: ExitFailed, Err: fmt.Errorf("store: this program has no store of the kind %s; it has: %s", kind, have)}
	}
	return open(ctx, where)
}
