package daemon

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A watcher notices that files have changed: at once where the kernel tells, and
// by comparing how they look where it does not. One goroutine uses it.
type watcher struct {
	log *slog.Logger
	fs  *fsnotify.Watcher // nil: the kernel does not tell

	paths []string               // what is watched
	looks uint64                 // how they looked when they were read
	dirs  map[string]fs.FileInfo // directories that the kernel tells about, as they were
	names map[string]bool        // whose coming and going matters: the files, and the links on the way to them
	trees map[string]bool        // directories of which every entry matters
	full  map[string]bool        // files that had something in them
	blind bool                   // it was said that the kernel does not tell of all
}

func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, dirs: map[string]fs.FileInfo{}}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		w.goBlind(err)
	}
	return w
}

func (w *watcher) close() {
	if w.fs != nil {
		_ = w.fs.Close() // nothing is lost with it
	}
}

// goBlind says, once, that the kernel's help is not to be had.
func (w *watcher) goBlind(err error) {
	if w.blind {
		return
	}
	w.blind = true
	hint := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		hint = "raise the sysctls fs.inotify.max_user_watches and fs.inotify.max_user_instances"
	}
	w.log.Warn("kernel does not tell of all changed files: they are looked at every ten seconds instead", "err", err, "hint", hint)
}

// events are what the kernel tells; both are nil if it doesn't.
func (w *watcher) events() (<-chan fsnotify.Event, <-chan error) {
	if w.fs == nil {
		return nil, nil
	}
	return w.fs.Events, w.fs.Errors
}

// concerns reports whether an event may be about what is watched.
func (w *watcher) concerns(e fsnotify.Event) bool {
	if w.names[e.Name] {
		return true
	}
	base := filepath.Base(e.Name)
	temporary := strings.HasPrefix(base, ".") || strings.HasPrefix(base, "#") || strings.HasSuffix(base, "~")
	return w.trees[filepath.Dir(e.Name)] && !temporary
}

// watch has paths watched instead of those before. It reports whether one of
// them was changed after a time, or may have been while nobody looked.
func (w *watcher) watch(paths []string, since time.Time) (dirty bool) {
	w.paths = paths
	w.names, w.trees, w.full = map[string]bool{}, map[string]bool{}, map[string]bool{}
	want := map[string]bool{}
	way := wayfinder{}
	for _, path := range paths {
		steps := way.to(path)
		for _, step := range steps {
			w.names[step] = true
			want[filepath.Dir(step)] = true
		}
		end := steps[len(steps)-1]
		switch info, err := os.Stat(end); {
		case err != nil:
		case info.IsDir():
			w.trees[end] = true
			want[end] = true
		default:
			w.full[path] = info.Size() > 0
		}
	}
	w.listen(want)

	var newest time.Time
	w.looks, newest = look(paths)
	return newest.After(since.Add(-20 * time.Millisecond)) // a file system's clock ticks slowly
}

// listen has the kernel tell about these directories and no others.
func (w *watcher) listen(want map[string]bool) {
	if w.fs == nil {
		return
	}
	for dir, was := range w.dirs {
		now, err := os.Stat(dir)
		if !want[dir] || err != nil || !os.SameFile(was, now) {
			_ = w.fs.Remove(dir) // it may be gone
			delete(w.dirs, dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(want)) {
		if w.dirs[dir] != nil {
			continue
		}
		info, err := os.Stat(dir)
		if err == nil {
			err = w.fs.Add(dir)
		}
		switch {
		case err == nil:
			w.dirs[dir] = info
		case !errors.Is(err, fs.ErrNotExist):
			w.goBlind(err)
		}
	}
}

// changed reports whether what is watched looks other than when it was read.
func (w *watcher) changed() bool {
	now, _ := look(w.paths)
	return now != w.looks
}

// emptied reports whether a file that had something in it is empty: whoever
// writes it anew has only begun, most likely.
func (w *watcher) emptied() bool {
	for path, full := range w.full {
		if !full {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			return true
		}
	}
	return false
}

// look returns a number that stands for how files look from outside, and when
// the last of them was changed.
func look(paths []string) (uint64, time.Time) {
	h := fnv.New64a()
	var newest time.Time
	for _, path := range paths {
		for _, stat := range []func(string) (fs.FileInfo, error){os.Stat, os.Lstat} {
			info, err := stat(path)
			if err != nil {
				fmt.Fprintf(h, "%s -\n", path)
				continue
			}
			s, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				continue
			}
			changed := changeTime(s)
			if changed.After(newest) {
				newest = changed
			}
			fmt.Fprintf(h, "%s %d %d %d %o %d %d\n", path, s.Dev, s.Ino, s.Size, s.Mode, info.ModTime().UnixNano(), changed.UnixNano())
		}
	}
	return h.Sum64(), newest
}

// A wayfinder finds the symbolic links on the way to files. It remembers those
// of directories.
type wayfinder map[string][]string

// to returns every link on the way to path, as a path without links before its
// last element, and at last where path leads.
func (f wayfinder) to(path string) []string { return f.follow(path, 0) }

func (f wayfinder) follow(path string, links int) []string {
	dir := filepath.Dir(path)
	if dir == path || links > 40 {
		return []string{path}
	}
	steps, known := f[dir]
	if !known {
		steps = f.follow(dir, links)
		f[dir] = steps
	}
	real := filepath.Join(steps[len(steps)-1], filepath.Base(path))
	steps = slices.Clone(steps[:len(steps)-1])
	target, err := os.Readlink(real)
	if err != nil {
		return append(steps, real)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(real), target)
	}
	return append(append(steps, real), f.follow(target, links+1)...)
}
