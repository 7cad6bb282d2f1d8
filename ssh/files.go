package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/dustinlacewell/loom"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// Files opens the node's files by SFTP.
func (c *conn) Files(ctx context.Context) (loom.Files, error) {
	l, ch, err := c.session(ctx, "", false)
	if err != nil {
		return nil, err
	}
	p, err := l.adopt(ch)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, p.Close)
	fail := func(err error) (loom.Files, error) {
		stop()
		p.Close()
		switch {
		case ctx.Err() != nil:
			return nil, l.t.fail(ClassSession, fmt.Errorf("gave up opening its files: %w", context.Cause(ctx)))
		case !l.alive():
			return nil, l.t.fail(ClassReset, fmt.Errorf("the connection broke while opening its files: %w", l.why))
		}
		return nil, fmt.Errorf("%s: no SFTP: %w: %w", l.t, err, errors.ErrUnsupported)
	}
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	if err != nil || !ok {
		return fail(errors.Join(err, errors.New("the server has no such subsystem")))
	}
	client, err := sftp.NewClientPipe(ch, ch, sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true))
	if err != nil {
		return fail(err)
	}
	return &files{ctx: ctx, stop: stop, sftp: client, process: p}, nil
}

// files is a node's file system, by SFTP.
type files struct {
	ctx     context.Context //nolint:containedctx // its operations end with the context that it was opened with, and say so
	stop    func() bool
	sftp    *sftp.Client
	process *process
}

// begin is called before every operation: what ends with the context may take a
// moment to do so.
func (f *files) begin(op, name string) error { return wrap(op, name, context.Cause(f.ctx)) }

// explain tells why an operation failed, if it is not the file's fault.
func (f *files) explain(err error) error {
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrExist) || errors.Is(err, io.EOF):
		return err
	case f.ctx.Err() != nil:
		return context.Cause(f.ctx)
	case !f.process.link.alive():
		e := f.process.link.t.fail(ClassLost, fmt.Errorf("the connection was lost: %w", f.process.link.why))
		return e
	}
	return err
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (f *files) Open(name string) (io.ReadCloser, error) {
	if err := f.begin("open", name); err != nil {
		return nil, err
	}
	r, err := f.sftp.Open(name)
	if err != nil {
		return nil, wrap("open", name, f.explain(err))
	}
	return &reader{r, f}, nil
}

// A reader is an open file of the node.
type reader struct {
	*sftp.File
	f *files
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.File.Read(p)
	return n, r.f.explain(err)
}

func (r *reader) WriteTo(w io.Writer) (int64, error) {
	n, err := r.File.WriteTo(w)
	return n, r.f.explain(err)
}

// Create makes a file. SFTP in this library can not say with which mode, so
// that the server's default is used for a moment: while the file is empty, and
// nothing is written to it before its mode is right.
func (f *files) Create(name string, perm fs.FileMode) (loom.File, error) {
	if err := f.begin("create", name); err != nil {
		return nil, err
	}
	w, err := f.sftp.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) { // version 3 of the protocol has no word for it
			if _, serr := f.sftp.Lstat(name); serr == nil {
				err = fs.ErrExist
			}
		}
		return nil, wrap("create", name, f.explain(err))
	}
	if err := w.Chmod(perm); err != nil {
		_ = w.Close() // the first error is the one to tell
		_ = f.sftp.Remove(name)
		return nil, wrap("create", name, f.explain(err))
	}
	return &writer{w, f}, nil
}

// A writer is a new file of the node.
type writer struct {
	*sftp.File
	f *files
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	return n, w.f.explain(err)
}

func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.File.ReadFrom(r)
	return n, w.f.explain(err)
}

func (w *writer) Close() error { return w.f.explain(w.File.Close()) }

// Sync flushes the file to the disk if the server can.
func (w *writer) Sync() error {
	if _, ok := w.f.sftp.HasExtension("fsync@openssh.com"); !ok {
		return nil
	}
	return w.f.explain(w.File.Sync())
}

func (f *files) Stat(name string) (fs.FileInfo, error) {
	if err := f.begin("stat", name); err != nil {
		return nil, err
	}
	info, err := f.sftp.Stat(name)
	return info, wrap("stat", name, f.explain(err))
}

func (f *files) Lstat(name string) (fs.FileInfo, error) {
	if err := f.begin("lstat", name); err != nil {
		return nil, err
	}
	info, err := f.sftp.Lstat(name)
	return info, wrap("lstat", name, f.explain(err))
}

func (f *files) ReadDir(name string) ([]fs.FileInfo, error) {
	if err := f.begin("readdir", name); err != nil {
		return nil, err
	}
	infos, err := f.sftp.ReadDir(name)
	return infos, wrap("readdir", name, f.explain(err))
}

func (f *files) Rename(from, to string) error {
	if err := f.begin("rename", to); err != nil {
		return err
	}
	if _, ok := f.sftp.HasExtension("posix-rename@openssh.com"); !ok {
		return wrap("rename", to, f.explain(f.sftp.Rename(from, to)))
	}
	return wrap("rename", to, f.explain(f.sftp.PosixRename(from, to)))
}

// Remove removes a file or an empty directory.
func (f *files) Remove(name string) error {
	if err := f.begin("remove", name); err != nil {
		return err
	}
	return wrap("remove", name, f.explain(f.sftp.Remove(name)))
}

func (f *files) Mkdir(name string, perm fs.FileMode) error {
	if err := f.begin("mkdir", name); err != nil {
		return err
	}
	if err := f.sftp.Mkdir(name); err != nil {
		if _, serr := f.sftp.Lstat(name); serr == nil {
			err = fs.ErrExist
		}
		return wrap("mkdir", name, f.explain(err))
	}
	return wrap("mkdir", name, f.explain(f.sftp.Chmod(name, perm)))
}

func (f *files) Chmod(name string, perm fs.FileMode) error {
	if err := f.begin("chmod", name); err != nil {
		return err
	}
	return wrap("chmod", name, f.explain(f.sftp.Chmod(name, perm)))
}

func (f *files) Close() error {
	if !f.stop() && f.ctx.Err() != nil {
		_ = f.sftp.Close() // the context has ended it
		return nil
	}
	err := f.sftp.Close()
	f.process.Close()
	if err != nil && strings.Contains(err.Error(), "EOF") {
		return nil // the server was faster
	}
	return err
}
