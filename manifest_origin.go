package loom

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dustinlacewell/loom/internal/source"
)

// An origin is where the texts of a manifest come from: the disk, or what was
// kept of an earlier reading.
type origin interface {
	read(name string) ([]byte, error)
	isProgram(name string) bool
}

// A listing is what is under jobspath.
type listing struct {
	manifests []string // *.yaml, sorted
	misnamed  []string // *.yml and the like that hold jobs
}

// maxDirs is how deep directories may be nested under jobspath.
const maxDirs = 32

// A disk is the files as they are. It remembers what it has read, to tell
// whether that has changed meanwhile, and what to watch.
type disk struct {
	texts  map[string][]byte
	stamps map[string]stamp  // of files that were read
	trails map[string]string // the links that led to them
	ways   ways
	dirs   map[string]string // their entries when they were listed
	seen   map[string]bool   // all that was looked at
}

// A stamp tells one state of a file from another.
type stamp struct {
	info fs.FileInfo // nil: it was not there
}

func (s stamp) same(info fs.FileInfo) bool {
	if s.info == nil || info == nil {
		return s.info == nil && info == nil
	}
	return os.SameFile(s.info, info) && s.info.Size() == info.Size() && s.info.ModTime().Equal(info.ModTime()) && s.info.Mode() == info.Mode()
}

func newDisk() *disk {
	return &disk{texts: map[string][]byte{}, stamps: map[string]stamp{}, trails: map[string]string{}, ways: ways{}, dirs: map[string]string{}, seen: map[string]bool{}}
}

// read returns what is in a regular file of ours, once. It never blocks on
// things that are no files, and reads no more than a manifest may have.
func (d *disk) read(name string) ([]byte, error) {
	if text, ok := d.texts[name]; ok {
		return text, nil
	}
	d.seen[name] = true
	d.trails[name] = d.ways.trail(name)
	info, err := os.Stat(name)
	d.stamps[name] = stamp{info}
	if err != nil {
		return nil, plainPathError(err)
	}
	if err := readable(info, name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	if info, err = f.Stat(); err != nil {
		return nil, plainPathError(err)
	}
	d.stamps[name] = stamp{info}
	if err := readable(info, name); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, source.MaxSize+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	d.texts[name] = text
	return text, nil
}

// note takes notice of a file or directory that somebody else reads.
func (d *disk) note(name string) {
	if d.seen[name] {
		return
	}
	d.seen[name] = true
	d.trails[name] = d.ways.trail(name)
	info, err := os.Stat(name)
	if err != nil {
		info = nil
	}
	d.stamps[name] = stamp{info}
}

func readable(info fs.FileInfo, name string) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is %s, not a file", kindOf(info.Mode()))
	case info.Size() > source.MaxSize:
		return fmt.Errorf("the file has %d bytes, and Loom reads at most %d MiB: split it", info.Size(), source.MaxSize>>20)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("anyone on this machine can write to it, and so decide what Loom runs: chmod o-w %s", name)
	}
	return nil
}

// isOurs reports whether nobody but us, and root, can have written a file.
func isOurs(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && info.Mode().Perm()&0o022 == 0
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// plainPathError leaves out the path, which stands before the message already.
func plainPathError(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

func (d *disk) isProgram(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// list finds the manifests under dir. Links are followed; names that begin
// with a dot are not looked at.
func (d *disk) list(dir string) (listing, []*ManifestError) {
	var l listing
	problems := d.walk(dir, &l, nil)
	slices.Sort(l.manifests)
	slices.Sort(l.misnamed)
	return l, problems
}

func (d *disk) walk(dir string, l *listing, above []fs.FileInfo) []*ManifestError {
	fail := func(err error) []*ManifestError { return []*ManifestError{{File: dir, Err: err}} }
	d.seen[dir] = true
	info, err := os.Stat(dir)
	if err != nil {
		return fail(plainPathError(err))
	}
	if !info.IsDir() {
		return fail(fmt.Errorf("it is %s, not a directory of job manifests", strings.Replace(kindOf(info.Mode()), "a device", "a file", 1)))
	}
	if len(above) > maxDirs {
		return fail(fmt.Errorf("directories are nested deeper than %d levels", maxDirs))
	}
	for _, up := range above {
		if os.SameFile(up, info) {
			return fail(errors.New("it is a link to a directory that it is in"))
		}
	}
	above = append(slices.Clip(above), info)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fail(plainPathError(err))
	}
	d.dirs[dir] = entryNames(entries)
	var problems []*ManifestError
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := filepath.Join(dir, e.Name())
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			if target, err := os.Stat(name); err == nil {
				isDir = target.IsDir()
			}
		}
		ext := filepath.Ext(name)
		switch {
		case isDir:
			problems = append(problems, d.walk(name, l, above)...)
		case ext == ".yaml":
			l.manifests = append(l.manifests, name)
		case strings.EqualFold(ext, ".yml") || strings.EqualFold(ext, ".yaml"):
			l.misnamed = append(l.misnamed, name)
		}
	}
	return problems
}

func entryNames(entries []fs.DirEntry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Name())
		b.WriteByte(0)
	}
	return b.String()
}

// changed reports whether anything that was read is another now, so that what
// was read may be part old and part new.
func (d *disk) changed() bool {
	now := ways{}
	for name, trail := range d.trails {
		if now.trail(name) != trail {
			return true
		}
	}
	for name, s := range d.stamps {
		info, err := os.Stat(name)
		if err != nil {
			info = nil
		}
		if !s.same(info) {
			return true
		}
	}
	for dir, names := range d.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil || entryNames(entries) != names {
			return true
		}
	}
	return false
}

// ways remembers where directories are and which links led there.
type ways map[string]way

type way struct{ real, trail string }

// trail names the symbolic links that lead to a file, and when each was made. A
// directory that is swapped behind a link, and swapped back, has another trail:
// what was read before and after is not from one set of files.
func (w ways) trail(name string) string { return w.follow(absolute(name), 0).trail }

// follow follows the links of an absolute path.
func (w ways) follow(path string, depth int) way {
	const deepest = 40 // as deep as Linux goes
	dir, base := filepath.Split(path)
	if base == "" || depth > deepest {
		return way{real: path}
	}
	dir = filepath.Clean(dir)
	above, ok := w[dir]
	if !ok {
		above = w.follow(dir, depth)
		w[dir] = above
	}
	here := way{real: filepath.Join(above.real, base), trail: above.trail}
	info, err := os.Lstat(here.real)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return here
	}
	target, err := os.Readlink(here.real)
	if err != nil {
		return here
	}
	var inode uint64
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = stat.Ino
	}
	here.trail += fmt.Sprintf("%s %d %d %s\n", here.real, inode, info.ModTime().UnixNano(), target)
	if !filepath.IsAbs(target) {
		target = filepath.Join(above.real, target)
	}
	there := w.follow(filepath.Clean(target), depth+1)
	return way{real: there.real, trail: here.trail + there.trail}
}

// files returns all that was looked at, absolute and sorted, and where links
// among them lead.
func (d *disk) files() []string {
	all := make(map[string]bool, len(d.seen))
	for name := range d.seen {
		abs := absolute(name)
		all[abs] = true
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			all[real] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func absolute(name string) string {
	if abs, err := filepath.Abs(name); err == nil {
		return abs
	}
	return name
}
