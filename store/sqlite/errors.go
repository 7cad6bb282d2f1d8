package sqlite

import (
	"errors"
	"fmt"
	"io/fs"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/dustinlacewell/loom"
)

// code returns SQLite's result code of err, with its details; 0: it has none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// primary returns SQLite's result code without details.
func primary(err error) int { return code(err) & 0xff }

// damaged reports whether err says that the file's content is wrong.
func damaged(err error) bool {
	c := primary(err)
	return c == lib.SQLITE_CORRUPT || c == lib.SQLITE_NOTADB
}

// unsynced reports whether the system could not bring data to the disk. What
// it had accepted before may then be lost, and asking again says nothing: the
// kernel has forgotten the error.
func unsynced(err error) bool {
	c := code(err)
	return c == lib.SQLITE_IOERR_FSYNC || c == lib.SQLITE_IOERR_DIR_FSYNC
}

// explain puts what SQLite says into a sentence on which a person can act. Other
// errors, and nil, are returned as they are.
func (s *Store) explain(err error) error {
	if err == nil || errors.Is(err, loom.ErrStoreDown) {
		return err
	}
	what := ""
	switch primary(err) {
	case 0:
		if _, ok := errors.AsType[*fs.PathError](err); !ok {
			return err
		}
		what = "can't be reached; loom goes on by itself when it can"
	case lib.SQLITE_FULL:
		what = "the disk is full; free some space and loom goes on by itself"
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		what = "another program has locked the file for " + s.busy().String() + "; end it (fuser says which) and loom goes on by itself"
	case lib.SQLITE_READONLY, lib.SQLITE_PERM:
		what = "the file can't be written: look at its owner, its mode and whether the file system is mounted read-only; loom goes on by itself"
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		what = "the file is damaged, and was left as it is: stop loom, keep a copy, then put a backup in its place or move it away to begin anew"
	case lib.SQLITE_CANTOPEN:
		what = "the file can't be opened: look at its owner, its mode and its directory's"
	case lib.SQLITE_IOERR:
		what = "the disk fails"
		if code(err) == lib.SQLITE_IOERR_SHMSIZE || code(err) == lib.SQLITE_IOERR_SHMOPEN {
			what = "the disk is full, or the directory can't be written; loom goes on by itself"
		}
		if unsynced(err) {
			what = "the disk did not take what was written, so nothing more is: look at the disk, then start loom anew"
		}
	default:
		return fmt.Errorf("store %s: %w", s.file, err)
	}
	return fmt.Errorf("%w: %s: %s (%w)", loom.ErrStoreDown, s.file, what, err)
}
