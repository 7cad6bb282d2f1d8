// Package durable puts files in their places whole, or not at all, and so that they
// are there after a power cut too.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace writes text to f, a new file in the directory of file, closes it, and has
// it take the place of file. If that fails, f is removed, and file is as it was.
func Replace(f *os.File, text []byte, file string) error {
	return put(f, text, file, os.Rename)
}

// Create is Replace for a file that must not be there: the error wraps fs.ErrExist
// if it is.
func Create(f *os.File, text []byte, file string) error {
	return put(f, text, file, func(from, to string) error {
		if err := os.Link(from, to); err != nil { // unlike a rename it replaces nothing
			return err
		}
		return os.Remove(from)
	})
}

func put(f *os.File, text []byte, file string, move func(from, to string) error) error {
	_, err := f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = move(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error counts
		return err
	}
	return SyncDir(filepath.Dir(file))
}

// SyncDir brings a directory's entries to the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
