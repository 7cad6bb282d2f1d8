//go:build !unix

package sqlite

import (
	"errors"
	"os"
)

// tryLock refuses: SQLite's write-ahead log is not safe here, and neither is a
// store that two processes may write.
func tryLock(*os.File) (bool, error) {
	return false, errors.New("this system has no file locks that loom could rely on: keep the store on Linux, macOS or BSD")
}
