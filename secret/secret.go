// Package secret knows the secrets that manifests refer to as ${secret:NAME}: in
// a file that is encrypted with age, in a directory of files, or known to a
// program such as a password manager.
package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dustinlacewell/loom"
)

// maxSize is how large a secret, and a file of them, may be.
const (
	maxValue = 64 << 10
	maxFile  = 8 << 20
)

// Open opens the source that a configuration names. It fits
// loom.ManifestReader.Secrets.
func Open(c loom.SecretsConfig) (loom.SecretSource, error) {
	switch {
	case c.File != "":
		return openFile(c)
	case c.Dir != "":
		return openDir(c.Dir)
	case len(c.Command) > 0:
		return &program{c: c}, nil
	}
	return nil, errors.New("the configuration does not say where secrets are")
}

// A dir is a directory of which each file is a secret.
type dir struct {
	path string
	read []string // files
}

func openDir(path string) (*dir, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no directory %s: mkdir -m 700 %s", path, path)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", path)
	}
	if err := ours(path, info, 0o022); err != nil {
		return nil, err
	}
	return &dir{path: path}, nil
}

// ours says why a file might be somebody else's, or be open to others in one of
// these ways.
func ours(name string, info fs.FileInfo, open fs.FileMode) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if own := os.Geteuid(); ok && int(stat.Uid) != own && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, who can change it: only what is owned by user %d or root is used; chown it", name, stat.Uid, own)
	}
	if mode := info.Mode().Perm(); mode&open != 0 {
		what, fix := "others can read it", "chmod 600"
		if open == 0o022 {
			what, fix = "others can write to it", "chmod go-w"
		}
		return fmt.Errorf("%s has mode %04o, so %s: %s %s", name, mode, what, fix, name)
	}
	return nil
}

// readPrivate reads a file that nobody else may read.
func readPrivate(name string, most int64) ([]byte, error) {
	return read(name, most, func(info fs.FileInfo) error { return ours(name, info, 0o077) })
}

// read reads a file of at most so many bytes, if what it is satisfies.
func read(name string, most int64, satisfies func(fs.FileInfo) error) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	if err := satisfies(info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is larger than %s", name, size(most))
	}
	return text, err
}

// size is a number of bytes for people.
func size(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// file returns where a secret of a name is.
func (d *dir) file(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// Secret reads a file. A newline at its end is not part of the secret.
func (d *dir) Secret(_ context.Context, name string) (string, error) {
	file := d.file(name)
	d.read = append(d.read, file)
	text, err := readPrivate(file, maxValue)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("there is no file %s: %w", file, loom.ErrNotFound)
	case err != nil:
		return "", err
	}
	return withoutNewline(string(text)), nil
}

func withoutNewline(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r") }

// Names lists the files that can be secrets.
func (d *dir) Names() []string {
	names := []string{}
	_ = filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error { // what can't be read isn't listed
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		rel, err := filepath.Rel(d.path, path)
		if name := filepath.ToSlash(rel); err == nil && !e.IsDir() && loom.ValidSecretName(name) {
			names = append(names, name)
		}
		if e.IsDir() && rel != "." && strings.HasPrefix(e.Name(), ".") {
			return fs.SkipDir
		}
		return nil
	})
	slices.Sort(names)
	return names
}

// Files returns the directory, and the files that were read.
func (d *dir) Files() []string { return append([]string{d.path}, d.read...) }

// reason is what a program said when it failed, made short.
func reason(stderr []byte) string {
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(stderr, []byte("?")))), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	const most = 200
	if r := []rune(line); len(r) > most {
		line = string(r[:most]) + "…"
	}
	return line
}
