package joblog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustinlacewell/loom"
)

// A naming is how the name of a log file comes about.
type naming struct{ template, job, node string }

// path returns the name at some time.
func (n naming) path(at time.Time) string {
	if !strings.Contains(n.template, "{") {
		return n.template
	}
	return n.fill(at.Format(time.DateOnly), func(s string) string { return s })
}

// fill puts values into the template, and passes all but the date through a
// function.
func (n naming) fill(date string, literal func(string) string) string {
	var b strings.Builder
	rest := n.template
	for rest != "" {
		i := strings.IndexByte(rest, '{')
		if i < 0 {
			break
		}
		b.WriteString(literal(rest[:i]))
		rest = rest[i:]
		switch {
		case strings.HasPrefix(rest, "{job}"):
			b.WriteString(literal(element(n.job)))
			rest = rest[len("{job}"):]
		case strings.HasPrefix(rest, "{node}"):
			b.WriteString(literal(element(n.node)))
			rest = rest[len("{node}"):]
		case strings.HasPrefix(rest, "{date}"):
			b.WriteString(date)
			rest = rest[len("{date}"):]
		default:
			b.WriteString(literal("{"))
			rest = rest[1:]
		}
	}
	b.WriteString(literal(rest))
	return b.String()
}

// element makes a name one that can't lead out of its directory.
func element(name string) string {
	if name == "." || name == ".." {
		return strings.Repeat("_", len(name))
	}
	if !strings.ContainsAny(name, "/\x00") {
		return name
	}
	return strings.NewReplacer("/", "_", "\x00", "_").Replace(name)
}

// write appends lines to a file, which it makes if need be, and rotates it where
// the rule says so. It returns how many bytes are in the file. An error with all
// of them there means that something else went wrong.
func write(n naming, path string, rule loom.LogFile, lines []byte) (done int, err error) {
	f, size, made, err := open(path)
	if err != nil {
		return 0, err
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close()) // some file systems tell of a full disk only here
		}
	}()
	if made && rule.Keep > 0 && strings.Contains(n.template, "{date}") {
		err = n.prune(path, rule.Keep)
	}
	full := rule.MaxSize > 0
	for done < len(lines) {
		part := lines[done:]
		if full {
			fits := fitting(part, rule.MaxSize-size)
			if fits == 0 && size > 0 {
				next, rotated := rotate(f, path, rule.Keep)
				if err = errors.Join(err, rotated); next == nil {
					full = false // a file that is too large is better than none
					continue
				}
				f, size = next, 0
				continue
			}
			part = part[:max(fits, bytes.IndexByte(part, '\n')+1)]
		}
		wrote, failed := f.Write(part)
		done += wrote
		size += int64(wrote)
		if failed != nil {
			return done, errors.Join(failed, err)
		}
	}
	return done, err
}

// fitting returns how many bytes of lines are whole lines and fit into room.
func fitting(lines []byte, room int64) int {
	if int64(len(lines)) <= room {
		return len(lines)
	}
	return bytes.LastIndexByte(lines[:max(room, 0)], '\n') + 1
}

// open opens a log file to append to it. It doesn't follow a link that is the
// file itself: whoever may write to the directory could have any file that Loom
// may write to extended by what a job prints.
func open(path string) (f *os.File, size int64, made bool, err error) {
	// Without O_NONBLOCK, to open a named pipe would wait for its reader.
	const flags = os.O_WRONLY | os.O_APPEND | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err = os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, 0, false, err
		}
		if f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			return f, 0, true, nil
		} else if errors.Is(err, fs.ErrExist) { // somebody made it just now
			f, err = os.OpenFile(path, flags, 0)
		}
	}
	switch {
	case errors.Is(err, syscall.ELOOP):
		return nil, 0, false, fmt.Errorf("%s is a symbolic link, which a log file must not be: name the file that it leads to, or remove it", path)
	case errors.Is(err, syscall.ENXIO):
		return nil, 0, false, notAFile(path)
	case err != nil:
		return nil, 0, false, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notAFile(path)
	}
	if err != nil {
		return nil, 0, false, errors.Join(err, f.Close())
	}
	return f, info.Size(), false, nil
}

func notAFile(path string) error {
	return fmt.Errorf("%s is no regular file, which a log file must be: remove it, or give the log another name", path)
}

// stamp is when a file was rotated, as it stands behind its name: in UTC, so
// that names sort by time.
const stamp = "20060102T150405.000Z"

// rotate gives a file the time as its last name and begins a new one, of the same
// mode and owner. It closes f. Without a new file it says why, and the old one is
// still there, open and as it was.
func rotate(f *os.File, path string, keep int) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("rotate: %w", err)
	}
	others := rotated(path)
	at := time.Now().UTC()
	if len(others) > 0 { // later than the last, whatever the clock did since
		last, _ := time.Parse(stamp, strings.TrimPrefix(others[len(others)-1], path+".")) // or it would not be there
		if next := last.Add(time.Millisecond); at.Before(next) {
			at = next
		}
	}
	old := path + "." + at.Format(stamp)
	if err := os.Rename(path, old); err != nil {
		if link, ok := errors.AsType[*os.LinkError](err); ok {
			err = link.Err // the new name is another each time
		}
		return nil, fmt.Errorf("rotate %s: %w", path, err)
	}
	next, _, made, err := open(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rotate: %w", err), os.Rename(old, path))
	}
	if was, ok := info.Sys().(*syscall.Stat_t); made && ok {
		_ = next.Chmod(info.Mode().Perm())         // it is private otherwise
		_ = next.Chown(int(was.Uid), int(was.Gid)) // only root can give files away
	}
	return next, errors.Join(f.Close(), removeOldest(append(others, old), keep))
}

// rotated returns the rotated files of a log, oldest first.
func rotated(path string) []string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil // whoever wants to write there will say so
	}
	var files []string
	for _, e := range entries {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if _, err := time.Parse(stamp, suffix); ok && err == nil {
			files = append(files, path+"."+suffix)
		}
	}
	return files
}

// removeOldest removes all but the last keep of files; 0 keeps all.
func removeOldest(files []string, keep int) error {
	var errs []error
	for len(files) > keep && keep > 0 {
		if err := os.Remove(files[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		files = files[1:]
	}
	return errors.Join(errs...)
}

// prune removes the files of all but the last keep days before that of path,
// with those that they were rotated to.
func (n naming) prune(path string, keep int) error {
	const digits = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
	name, err := regexp.Compile("^" + n.fill(`(\d{4}-\d\d-\d\d)`, regexp.QuoteMeta) + `(?:\.\d{8}T\d{6}\.\d{3}Z)?$`)
	if err != nil {
		return fmt.Errorf("remove the logs of earlier days: %w", err)
	}
	glob := n.fill(digits, func(s string) string {
		return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
	})
	dates := name.FindStringSubmatch(path)
	if dates == nil {
		return nil // the directory has a line break in its name, or the like
	}
	today, days := dates[1], map[string][]string{}
	for _, pattern := range []string{glob, glob + ".*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("remove the logs of earlier days: %w", err)
		}
		for _, f := range files {
			m := name.FindStringSubmatch(f)
			if m != nil && m[1] < today && len(slices.Compact(m[1:])) == 1 {
				days[m[1]] = append(days[m[1]], f)
			}
		}
	}
	old := slices.Sorted(maps.Keys(days))
	var errs []error
	for _, day := range old[:max(len(old)-keep, 0)] {
		for _, f := range days[day] {
			if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
