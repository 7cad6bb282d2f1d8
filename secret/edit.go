package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dustinlacewell/loom"
)

// header is what an empty file of secrets begins with in an editor.
const header = "# A name and a secret on each line, as YAML has it:\n# db/password: correct horse battery staple\n"

// Edit decrypts the file into a private one, in memory if this machine has a place
// for that, has edit change it, and encrypts it again. If what is in it then can't
// be a file of secrets, again is asked whether to go on with it; else nothing is
// changed. The private file is overwritten and removed in any case.
func Edit(c loom.SecretsConfig, edit func(file string) error, again func(problem error) bool) error {
	if c.File == "" {
		return ErrElsewhere
	}
	return Rewrite(c, func(plain []byte) ([]byte, error) {
		if len(plain) == 0 {
			plain = []byte(header)
		}
		dir, err := privateDir()
		if err != nil {
			return nil, err
		}
		defer wipe(dir)
		file := filepath.Join(dir, "secrets.yaml")
		if err := os.WriteFile(file, plain, 0o600); err != nil {
			return nil, err
		}
		for {
			if err := edit(file); err != nil {
				return nil, err
			}
			text, err := readPrivate(file, maxFile)
			if err == nil {
				_, err = Parse(text)
			}
			if err == nil {
				return text, nil
			}
			if !again(err) {
				return nil, fmt.Errorf("nothing was changed: %w", err)
			}
		}
	})
}

// privateDir makes a directory that only its user can enter: in memory, if there
// is such a place.
func privateDir() (string, error) {
	for _, place := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm", os.TempDir()} {
		if !filepath.IsAbs(place) {
			continue
		}
		if dir, err := os.MkdirTemp(place, "loom-secret-"); err == nil { // 0700
			return dir, nil
		}
	}
	return "", errors.New("there is no place for a private file: neither $XDG_RUNTIME_DIR, /dev/shm nor the temporary directory can be written")
}

// wipe overwrites all files of a directory, what editors have left there too, and
// removes it.
func wipe(dir string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error { // what can't be wiped is removed all the same
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // as above
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		defer f.Close() //nolint:errcheck // it is removed
		if info, err := f.Stat(); err == nil {
			_, _ = f.Write(bytes.Repeat([]byte{0}, int(info.Size()))) // as above
			_ = f.Sync()
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
