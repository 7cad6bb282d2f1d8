package joblog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustinlacewell/loom"
)

// limits are the package's own, unless a test has others.
type limits struct {
	waiting, file, stuck, writers int
	retry                         time.Duration
	write                         func(naming, string, loom.LogFile, []byte) (int, error)
}

func (l limits) orDefaults() limits {
	l.waiting, l.file = cmp.Or(l.waiting, mostWaiting), cmp.Or(l.file, mostOfFile)
	l.stuck, l.writers = cmp.Or(l.stuck, mostStuck), cmp.Or(l.writers, mostWriters)
	l.retry = cmp.Or(l.retry, time.Second)
	if l.write == nil {
		l.write = write
	}
	return l
}

// A file is what waits to be written to one file.
type file struct {
	path   string
	naming naming
	rule   loom.LogFile // of whoever wrote last

	pending   []byte // whole lines, but for the first if the disk took a part of it
	size      int    // bytes, with those that are being written
	lost      int    // lines left out since the last that was taken
	lostBytes int
	zone      *time.Location // of the last line

	busy  bool // it waits for a writer, or has one
	bad   error
	delay time.Duration
	retry *time.Timer // armed while it waits to be tried again
}

// add puts a line at the end of what waits for a file, or leaves it out.
func (w *Writer) add(n naming, at time.Time, rule loom.LogFile, line []byte) {
	l := w.limits.orDefaults()
	path := n.path(at)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	f := w.files[path]
	if f == nil {
		if w.files == nil {
			w.files = map[string]*file{}
		}
		f = &file{path: path}
		w.files[path] = f
	}
	f.naming, f.rule, f.zone = n, rule, at.Location()
	full := f.size+len(line) > l.file || w.waiting+len(line) > l.waiting || f.bad != nil && w.stuck+len(line) > l.stuck
	if full || f.lost > 0 { // in order: the next is taken when the file says that these are missing
		f.lost++
		f.lostBytes += len(line)
		first, bad := f.lost == 1, f.bad
		w.mu.Unlock()
		if first && bad == nil {
			w.log().Warn("log of a job can't be written as fast as it grows: lines are left out", "file", path)
		} else if first {
			w.log().Warn("log of a job can't be written for long: lines are left out", "file", path, "err", bad)
		}
		return
	}
	f.pending = append(f.pending, line...)
	w.count(f, len(line))
	w.schedule(f)
	w.mu.Unlock()
}

// count notes that n bytes more wait for f. w.mu is held, as it is by all that
// follows.
func (w *Writer) count(f *file, n int) {
	f.size += n
	w.waiting += n
	if f.bad != nil {
		w.stuck += n
	}
}

// schedule has f written as soon as a writer is free.
func (w *Writer) schedule(f *file) {
	if f.busy || f.retry != nil {
		return
	}
	f.busy = true
	w.ready = append(w.ready, f)
	if w.writers < w.limits.orDefaults().writers {
		w.writers++
		go w.work() // Close waits for it
	}
}

// work writes files until none is ready.
func (w *Writer) work() {
	l := w.limits.orDefaults()
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.ready) > 0 {
		f := w.ready[0]
		w.ready = w.ready[1:]
		data, naming, path, rule := f.pending, f.naming, f.path, f.rule
		f.pending = nil
		w.mu.Unlock()
		n, err := l.write(naming, path, rule, data)
		w.mu.Lock()
		if say := w.wrote(f, data[n:], n, err); say != nil {
			w.mu.Unlock()
			say()
			w.mu.Lock()
		}
	}
	w.writers--
	if w.closed && w.writers == 0 {
		close(w.idle)
	}
}

// wrote notes how writing went: n bytes are on disk, and rest is not. It returns
// what there is to tell of it, which takes time.
func (w *Writer) wrote(f *file, rest []byte, n int, err error) (say func()) {
	l := w.limits.orDefaults()
	f.busy = false
	w.count(f, -n)
	if len(rest) > 0 {
		f.pending = append(rest, f.pending...)
	}
	say = w.judge(f, err)
	if f.lost > 0 && f.size <= l.file/2 && (err == nil || w.closed) {
		line := entry(time.Now().In(f.zone), "-", "#", fmt.Sprintf("%d lines, %d bytes of output are missing here: they came faster than they could be written", f.lost, f.lostBytes))
		f.lost, f.lostBytes = 0, 0
		f.pending = append(f.pending, line...)
		w.count(f, len(line))
	}
	switch {
	case len(f.pending) > 0 && (err == nil || n > 0 && !w.closed):
		f.busy = true
		w.ready = append(w.ready, f) // whoever asks is free in a moment
	case len(f.pending) > 0 && !w.closed:
		f.delay = min(max(2*f.delay, l.retry), time.Minute)
		f.retry = time.AfterFunc(f.delay, func() { w.again(f) })
	case len(f.pending) == 0 && f.bad == nil:
		delete(w.files, f.path)
	}
	return say
}

// judge returns what there is to tell when a file can't be written, or can be
// again. Only a change is told, not each attempt.
func (w *Writer) judge(f *file, err error) (say func()) {
	was, path, log := f.bad, f.path, w.log()
	switch {
	case err == nil && was == nil:
		return nil
	case err == nil:
		w.stuck -= f.size
		f.bad, f.delay = nil, 0
		return func() { log.Info("log of a job is written again", "file", path) }
	case was == nil:
		w.stuck += f.size
	}
	f.bad = err
	if over := w.stuck - w.limits.orDefaults().stuck; over > 0 {
		w.shorten(f, over)
	}
	if was != nil && was.Error() == err.Error() {
		return nil
	}
	return func() { log.Error("log of a job can't be written: it is tried again", "file", path, "err", err) }
}

// shorten leaves out the last lines of what waits for f, at least so many bytes
// of them if there are as many. The first stays, which may have been begun.
func (w *Writer) shorten(f *file, by int) {
	keep := bytes.LastIndexByte(f.pending[:max(len(f.pending)-by, 0)], '\n') + 1
	keep = max(keep, bytes.IndexByte(f.pending, '\n')+1)
	cut := f.pending[keep:]
	f.lost += bytes.Count(cut, []byte{'\n'})
	f.lostBytes += len(cut)
	w.count(f, -len(cut))
	f.pending = f.pending[:keep:keep]
}

// again tries a file that could not be written.
func (w *Writer) again(f *file) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.retry != nil {
		f.retry = nil
		w.schedule(f)
	}
}

// Close writes what waits, and tries files that could not be written once more.
// The error says what is not on disk, or may not be. If ctx ends first, Close
// returns without waiting longer for a disk that hangs.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed, w.idle = true, make(chan struct{})
		for _, f := range w.files {
			if f.retry != nil {
				f.retry.Stop()
				f.retry = nil // so that one that fires now finds nothing to do
				w.schedule(f)
			}
		}
		if w.writers == 0 {
			close(w.idle)
		}
	}
	w.mu.Unlock()
	var late error
	select {
	case <-w.idle:
	case <-ctx.Done():
		late = context.Cause(ctx)
	}
	w.mu.Lock()
	var errs []error
	for _, f := range w.files {
		if err := cmp.Or(f.bad, late); err != nil { // what went well was forgotten
			errs = append(errs, fmt.Errorf("log file %s: %d bytes are not written: %w", f.path, f.size, err))
		}
	}
	return errors.Join(errs...)
}
