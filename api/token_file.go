package api

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/dustinlacewell/loom/internal/durable"
)

// tokensSize is more than the most tokens take.
const tokensSize = 4 << 20

// refresh reads the file if it has changed. If it can't be read there are no
// tokens. The caller has the lock.
func (t *Tokens) refresh() error {
	info, err := os.Stat(t.file)
	if err == nil && t.read != nil && os.SameFile(info, t.read) && info.ModTime().Equal(t.read.ModTime()) && info.Size() == t.read.Size() {
		return nil
	}
	t.all, t.read, err = readTokens(t.file)
	t.expel(time.Now())
	return err
}

// readTokens returns what the file says, and the file as it was then: nil if
// there is none.
func readTokens(file string) ([]storedToken, os.FileInfo, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("tokens: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("tokens: %w", err)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return nil, nil, fmt.Errorf("tokens: %s is open to others (mode %04o), who could let themselves in: chmod 600 %s", file, info.Mode().Perm(), file)
	}
	text, err := io.ReadAll(io.LimitReader(f, tokensSize))
	if err != nil {
		return nil, nil, fmt.Errorf("tokens: %w", err)
	}
	all, err := parseTokens(text)
	if err != nil {
		return nil, nil, fmt.Errorf("tokens: %s: %w: put a good copy in its place, or remove it and make new tokens", file, err)
	}
	return all, info, nil
}

// parseTokens reads the file's text. All of it must make sense: a token that is
// half understood could let in whom it should not.
func parseTokens(text []byte) ([]storedToken, error) {
	var file tokensFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, err
	}
	if file.Version != tokensVersion {
		return nil, fmt.Errorf("it has the version %d, and this program knows %d", file.Version, tokensVersion)
	}
	names, hashes := map[string]bool{}, map[string]bool{}
	for i, one := range file.Tokens {
		if sum, err := hex.DecodeString(one.Hash); err != nil || len(sum) != 32 {
			return nil, fmt.Errorf("token %d has no SHA-256", i+1)
		}
		if err := checkToken(one.Name, one.Role, one.Expires, one.Expires.Add(-time.Second)); err != nil {
			return nil, err
		}
		if names[one.Name] || hashes[one.Hash] {
			return nil, fmt.Errorf("token %s is there twice", one.Name)
		}
		names[one.Name], hashes[one.Hash] = true, true
	}
	return file.Tokens, nil
}

// used returns tokens with when they were last used, as far as that is known.
func (t *Tokens) used(all []storedToken) []storedToken {
	all = append([]storedToken(nil), all...)
	for i := range all {
		if u, ok := t.uses[all[i].Hash]; ok && u.at.After(all[i].Used) {
			all[i].Used, all[i].From = u.at, u.from
		}
	}
	return all
}

// noteUses writes down when tokens were used, now and then, if no other process
// is in the way. It is no matter if that fails. The caller has the lock.
func (t *Tokens) noteUses(now time.Time) {
	if now.Sub(t.written) < usedEvery {
		return
	}
	t.written = now
	if err := t.change(0, func(all []storedToken) ([]storedToken, error) { return all, nil }); err != nil {
		t.log.Warn("it is not written down when tokens were used", "err", err)
	}
}

// update changes the tokens, in the file too, and what is not good any more has
// to leave.
func (t *Tokens) update(patience time.Duration, change func([]storedToken) ([]storedToken, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.change(patience, change)
}

func (t *Tokens) change(patience time.Duration, change func([]storedToken) ([]storedToken, error)) error {
	unlock, err := lockFile(t.file+".lock", patience)
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	defer unlock()
	all, _, err := readTokens(t.file)
	if err != nil {
		return err
	}
	if all, err = change(t.used(all)); err != nil {
		return err
	}
	if err := writeTokens(t.file, all); err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	t.read = nil // it can't be told from another of the same size and time
	return t.refresh()
}

// writeTokens replaces the file as a whole or not at all, and for good.
func writeTokens(file string, all []storedToken) error {
	text, err := json.MarshalIndent(tokensFile{tokensVersion, all}, "", "  ")
	if err != nil {
		return err
	}
	next := file + ".new" // of one process at a time
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return durable.Replace(f, append(text, '\n'), file)
}
