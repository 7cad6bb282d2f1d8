package sshserver

import (
	"cmp"
	"context"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
)

// A Memory is a file system in memory for one user, who owns all of it. It has
// directories, files and symbolic links with exact modes, and heeds the owner's
// bits of them: reading a file that the owner may not read is
// fs.ErrPermission. Names are absolute or relative to Home. It is safe for
// concurrent use.
type Memory struct {
	Home string

	mu  sync.Mutex
	all map[string]*memFile // by clean absolute name
}

// NewMemory returns a file system that has the directories /, /tmp and home.
func NewMemory(home string) *Memory {
	m := &Memory{Home: path.Clean(home), all: map[string]*memFile{}}
	for _, dir := range []string{"/tmp", m.Home} {
		_ = m.MkdirAll(dir, 0o755) // nothing is in the way
	}
	m.all["/tmp"].mode |= fs.ModeSticky | 0o777
	return m
}

// maxLinks is how many symbolic links a name may lead through.
const maxLinks = 40

// A memFile is a file, a directory or a link. Memory's mutex guards it.
type memFile struct {
	fs    *Memory
	mode  fs.FileMode // with the type
	data  []byte      // a link's target
	mtime time.Time
}

// ReadFile returns what is in a file, whatever its mode.
func (m *Memory) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.regular("open", name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(f.data), nil
}

// WriteFile makes a file with this content and exactly this mode, and the
// directories above it.
func (m *Memory) WriteFile(name string, data []byte, mode fs.FileMode) error {
	full := m.clean(name)
	if err := m.MkdirAll(path.Dir(full), 0o755); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	full, f, err := m.walk("open", full, true)
	switch {
	case f == nil && err == nil:
		f = &memFile{fs: m}
		m.all[full] = f
	case err != nil:
		return err
	case f.mode.IsDir():
		return &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	f.mode, f.data, f.mtime = mode&^fs.ModeType, slices.Clone(data), time.Now()
	return nil
}

// MkdirAll makes a directory and those above it.
func (m *Memory) MkdirAll(name string, mode fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := "/"
	if m.all[at] == nil {
		m.all[at] = &memFile{fs: m, mode: fs.ModeDir | 0o755, mtime: time.Now()}
	}
	for part := range strings.SplitSeq(m.clean(name), "/") {
		full, f, err := m.walk("mkdir", path.Join(at, part), true)
		switch {
		case err != nil:
			return err
		case f == nil:
			m.all[full] = &memFile{fs: m, mode: mode.Perm() | fs.ModeDir, mtime: time.Now()}
		case !f.mode.IsDir():
			return &fs.PathError{Op: "mkdir", Path: full, Err: syscall.ENOTDIR}
		}
		at = full
	}
	return nil
}

// Stat describes a file, following links.
func (m *Memory) Stat(name string) (fs.FileInfo, error) { return m.stat(name, true) }

// Lstat describes a file, or a link itself.
func (m *Memory) Lstat(name string) (fs.FileInfo, error) { return m.stat(name, false) }

func (m *Memory) stat(name string, follow bool) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full, f, err := m.must("stat", name, follow)
	if err != nil {
		return nil, err
	}
	return f.info(full), nil
}

// Names returns the names of all files and links, sorted, but not of
// directories.
func (m *Memory) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.all)) {
		if !m.all[name].mode.IsDir() {
			names = append(names, name)
		}
	}
	return names
}

// SFTP serves the files on a channel.
func (m *Memory) SFTP(ctx context.Context, channel io.ReadWriteCloser) error {
	defer context.AfterFunc(ctx, func() { _ = channel.Close() })()
	h := memHandlers{m}
	return sftp.NewRequestServer(channel,
		sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h},
		sftp.WithStartDirectory(m.Home)).Serve()
}

func (m *Memory) clean(name string) string {
	if !path.IsAbs(name) {
		name = path.Join(m.Home, name)
	}
	return path.Clean(name)
}

// walk finds what a name leads to. If only its last element is missing, the
// file is nil without an error: one may be made there.
func (m *Memory) walk(op, name string, follow bool) (full string, f *memFile, err error) {
	full = "/"
	rest := strings.Split(m.clean(name), "/")
	links := 0
	f = m.all["/"]
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		switch {
		case f == nil:
			return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		case !f.mode.IsDir():
			return "", nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		case f.mode&0o100 == 0:
			return "", nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
		}
		next := path.Join(full, part)
		f = m.all[next]
		if f != nil && f.mode&fs.ModeSymlink != 0 && (follow || len(rest) > 0) {
			if links++; links > maxLinks {
				return "", nil, &fs.PathError{Op: op, Path: name, Err: syscall.ELOOP}
			}
			to := string(f.data)
			if path.IsAbs(to) {
				full = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
			f = m.all[full]
			continue
		}
		full = next
	}
	return full, f, nil
}

// must is walk to something that exists.
func (m *Memory) must(op, name string, follow bool) (string, *memFile, error) {
	full, f, err := m.walk(op, name, follow)
	if err == nil && f == nil {
		err = &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return full, f, err
}

func (m *Memory) regular(op, name string) (*memFile, error) {
	_, f, err := m.must(op, name, true)
	if err == nil && f.mode.IsDir() {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.EISDIR}
	}
	return f, err
}

// below returns the names of what is directly in a directory.
func (m *Memory) below(dir string) []string {
	var names []string
	for name := range m.all {
		if name != "/" && path.Dir(name) == dir {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// open opens a file as open(2) does.
func (m *Memory) open(name string, flags sftp.FileOpenFlags, mode fs.FileMode) (*memFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full, f, err := m.walk("open", name, !flags.Creat || !flags.Excl)
	fail := func(err error) (*memFile, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	switch {
	case err != nil:
		return nil, err
	case f == nil && !flags.Creat:
		return fail(fs.ErrNotExist)
	case f == nil:
		if m.all[path.Dir(full)].mode&0o200 == 0 {
			return fail(fs.ErrPermission)
		}
		f = &memFile{fs: m, mode: mode.Perm(), mtime: time.Now()}
		m.all[full] = f
		return f, nil
	case flags.Creat && flags.Excl:
		return fail(syscall.EEXIST)
	case f.mode.IsDir():
		return fail(syscall.EISDIR)
	case flags.Read && f.mode&0o400 == 0, flags.Write && f.mode&0o200 == 0:
		return fail(fs.ErrPermission)
	}
	if flags.Trunc {
		f.data, f.mtime = nil, time.Now()
	}
	return f, nil
}

// ReadAt implements io.ReaderAt.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.resize(max(off+int64(len(p)), int64(len(f.data))))
	f.mtime = time.Now()
	return copy(f.data[off:], p), nil
}

func (f *memFile) resize(size int64) {
	if size <= int64(len(f.data)) {
		f.data = f.data[:size]
		return
	}
	f.data = append(f.data, make([]byte, size-int64(len(f.data)))...)
}

func (f *memFile) info(name string) fs.FileInfo {
	return memInfo{name: path.Base(name), size: int64(len(f.data)), mode: f.mode, mtime: f.mtime}
}

type memInfo struct {
	name  string
	size  int64
	mode  fs.FileMode
	mtime time.Time
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return i.mtime }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return &sftp.FileStat{} } // all is owned by 0

// memHandlers speaks SFTP for a Memory.
type memHandlers struct{ m *Memory }

// Fileread implements sftp.FileReader.
func (h memHandlers) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	f, err := h.m.open(r.Filepath, r.Pflags(), 0)
	if err != nil {
		return nil, coded(err)
	}
	return f, nil
}

// Filewrite implements sftp.FileWriter.
func (h memHandlers) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	f, err := h.OpenFile(r)
	return f, err
}

// OpenFile implements sftp.OpenFileWriter.
func (h memHandlers) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	mode := fs.FileMode(0o644)
	if r.AttrFlags().Permissions {
		mode = r.Attributes().FileMode()
	}
	f, err := h.m.open(r.Filepath, r.Pflags(), mode)
	if err != nil {
		return nil, coded(err)
	}
	return f, nil
}

// Filecmd implements sftp.FileCmder.
func (h memHandlers) Filecmd(r *sftp.Request) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	switch r.Method {
	case "Setstat":
		return coded(h.setstat(r))
	case "Rename":
		return coded(h.m.rename(r.Filepath, r.Target, false))
	case "Remove", "Rmdir":
		return coded(h.m.remove(r.Filepath, r.Method == "Rmdir"))
	case "Mkdir":
		return coded(h.m.make(r.Filepath, &memFile{mode: fs.ModeDir | 0o755}))
	case "Symlink":
		return coded(h.m.make(r.Target, &memFile{mode: fs.ModeSymlink | 0o777, data: []byte(r.Filepath)}))
	}
	return sftp.ErrSSHFxOpUnsupported
}

// PosixRename implements sftp.PosixRenameFileCmder.
func (h memHandlers) PosixRename(r *sftp.Request) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return coded(h.m.rename(r.Filepath, r.Target, true))
}

func (h memHandlers) setstat(r *sftp.Request) error {
	_, f, err := h.m.must("setstat", r.Filepath, true)
	if err != nil {
		return err
	}
	flags, attrs := r.AttrFlags(), r.Attributes()
	if flags.Permissions {
		f.mode = f.mode.Type() | attrs.FileMode()&^fs.ModeType
	}
	if flags.Size {
		f.resize(int64(attrs.Size)) //nolint:gosec // a test's file is small
	}
	if flags.Acmodtime {
		f.mtime = time.Unix(int64(attrs.Mtime), 0)
	}
	return nil
}

func (m *Memory) make(name string, f *memFile) error {
	full, old, err := m.walk("make", name, false)
	switch {
	case err != nil:
		return err
	case old != nil:
		return &fs.PathError{Op: "make", Path: name, Err: syscall.EEXIST}
	case m.all[path.Dir(full)].mode&0o200 == 0:
		return &fs.PathError{Op: "make", Path: name, Err: fs.ErrPermission}
	}
	f.fs, f.mtime = m, time.Now()
	m.all[full] = f
	return nil
}

func (m *Memory) rename(from, to string, replace bool) error {
	old, f, err := m.must("rename", from, false)
	if err != nil {
		return err
	}
	target, there, err := m.walk("rename", to, false)
	fail := func(err error) error { return &os.LinkError{Op: "rename", Old: from, New: to, Err: err} }
	switch {
	case err != nil:
		return err
	case old == target:
		return nil
	case there != nil && !replace:
		return fail(syscall.EEXIST)
	case there != nil && there.mode.IsDir() && !f.mode.IsDir():
		return fail(syscall.EISDIR)
	case there != nil && !there.mode.IsDir() && f.mode.IsDir():
		return fail(syscall.ENOTDIR)
	case there != nil && there.mode.IsDir() && len(m.below(target)) > 0:
		return fail(syscall.ENOTEMPTY)
	case f.mode.IsDir() && strings.HasPrefix(target, old+"/"):
		return fail(syscall.EINVAL)
	case m.all[path.Dir(target)].mode&0o200 == 0, m.all[path.Dir(old)].mode&0o200 == 0:
		return fail(fs.ErrPermission)
	}
	for name, f := range maps.Clone(m.all) {
		if name == old || strings.HasPrefix(name, old+"/") {
			delete(m.all, name)
			m.all[target+strings.TrimPrefix(name, old)] = f
		}
	}
	return nil
}

func (m *Memory) remove(name string, dir bool) error {
	full, f, err := m.must("remove", name, false)
	fail := func(err error) error { return &fs.PathError{Op: "remove", Path: name, Err: err} }
	switch {
	case err != nil:
		return err
	case dir && !f.mode.IsDir():
		return fail(syscall.ENOTDIR)
	case !dir && f.mode.IsDir():
		return fail(syscall.EISDIR)
	case dir && len(m.below(full)) > 0:
		return fail(syscall.ENOTEMPTY)
	case m.all[path.Dir(full)].mode&0o200 == 0:
		return fail(fs.ErrPermission)
	}
	delete(m.all, full)
	return nil
}

// Filelist implements sftp.FileLister.
func (h memHandlers) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	full, f, err := h.m.must("open", r.Filepath, true)
	if err != nil {
		return nil, coded(err)
	}
	if r.Method == "Stat" {
		return infos{f.info(cmp.Or(r.Filepath, full))}, nil
	}
	if !f.mode.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: r.Filepath, Err: syscall.ENOTDIR}
	}
	if f.mode&0o400 == 0 {
		return nil, coded(&fs.PathError{Op: "open", Path: r.Filepath, Err: fs.ErrPermission})
	}
	var list infos
	for _, name := range h.m.below(full) {
		list = append(list, h.m.all[name].info(name))
	}
	return list, nil
}

// Lstat implements sftp.LstatFileLister.
func (h memHandlers) Lstat(r *sftp.Request) (sftp.ListerAt, error) {
	info, err := h.m.Lstat(r.Filepath)
	if err != nil {
		return nil, coded(err)
	}
	return infos{info}, nil
}

// Readlink implements sftp.ReadlinkFileLister.
func (h memHandlers) Readlink(name string) (string, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	_, f, err := h.m.must("readlink", name, false)
	if err == nil && f.mode&fs.ModeSymlink == 0 {
		err = &fs.PathError{Op: "readlink", Path: name, Err: syscall.EINVAL}
	}
	if err != nil {
		return "", coded(err)
	}
	return string(f.data), nil
}

type infos []fs.FileInfo

// ListAt implements sftp.ListerAt.
func (l infos) ListAt(to []fs.FileInfo, from int64) (int, error) {
	if from >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(to, l[from:])
	if n < len(to) {
		return n, io.EOF
	}
	return n, nil
}

// coded gives the errors that the protocol knows the form in which package sftp
// recognises them.
func coded(err error) error {
	switch {
	case err == nil:
		return nil
	case os.IsPermission(err):
		return sftp.ErrSSHFxPermissionDenied
	case os.IsNotExist(err):
		return sftp.ErrSSHFxNoSuchFile
	}
	return err
}
