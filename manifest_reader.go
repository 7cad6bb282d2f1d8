package loom

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom/internal/durable"
)

// A ManifestReader reads a manifest again and again, as a daemon does, and lets
// no mistake take away what worked:
//
//   - A job manifest with mistakes keeps its own last good text in use, while
//     the others move on.
//   - A main, nodes or data file with mistakes, or a jobspath that can't be
//     read, keeps the whole last good manifest.
//   - Of two definitions of a job, the one that was there before stays.
//
// The last good texts are remembered in memory and in the state directory, so
// this holds across restarts. The zero value reads [DefaultFiles] with no tasks.
// Its fields must not change once Read was called; its methods are safe for
// concurrent use.
type ManifestReader struct {
	File  string    // as ReadManifest has it
	Tasks *Registry // what jobs can do
	State string    // directory to remember good texts in; "": the main file's state

	// Strict remembers nothing: any mistake means that there is no manifest.
	Strict bool

	// Secrets opens what knows the values of ${secret:NAME}. Nil: there can be none.
	Secrets func(SecretsConfig) (SecretSource, error)

	// Key is the file of the key that opens a file of secrets, if the main file names
	// none. "": KeyFile in the main file's state directory.
	Key string

	// Redactor learns the secrets as they are read. Nil: one of the reader's own.
	Redactor *Redactor

	// Check, if not nil, says what else is wrong with the main file: each
	// *ManifestError that its error joins is one more mistake.
	Check func(Config) error

	mu       sync.Mutex
	last     *Manifest // what Read returned last
	good     *savedManifest
	asked    bool // whether there are good texts of an earlier process
	jobsInfo fs.FileInfo
	printed  printed
	told     secretCache
	files    []string
}

// A printed is what an executable nodes file printed.
type printed struct {
	of   stamp
	at   time.Time
	text []byte
}

// Read returns the best manifest there is, and what is wrong with the files: an
// error that joins a *ManifestError for every mistake, which are also the
// manifest's Problems. The manifest is nil only if nothing good is known: a
// caller that has none yet can't start. While nothing changes on the disk, Read
// returns the same jobs, but not the same pointers.
func (r *ManifestReader) Read(ctx context.Context) (*Manifest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Redactor == nil {
		r.Redactor = new(Redactor)
	}
	main, err := findMain(r.File)
	if err != nil && r.Strict {
		return nil, err
	}
	if err != nil {
		problems := []*ManifestError{{File: mainName(r.File), Err: err}}
		if r.last == nil {
			r.recall(r.stateDir(nil), "")
			r.last = r.fromGood(ctx)
		}
		return r.keep(problems, nil)
	}
	a := r.assemble(ctx, main)
	if ctx.Err() != nil {
		return r.last, context.Cause(ctx)
	}
	problems := a.problems()
	if r.Strict {
		r.files = a.disk.files()
		if len(problems) > 0 {
			return nil, joinProblems(problems)
		}
		return a.manifest(), nil
	}
	if len(a.baseProblems) > 0 || a.whole {
		if r.last == nil {
			r.last = r.fromGood(ctx)
		}
		if r.last != nil || len(a.baseProblems) > 0 {
			return r.keep(problems, a.disk)
		}
	}
	m := a.manifest()
	r.files = m.Files
	if len(problems) > 0 && len(m.Jobs) == 0 && r.last == nil {
		return nil, joinProblems(problems)
	}
	r.last = m
	if err := r.accept(a); err != nil {
		problems = append(problems, err)
	}
	return m, joinProblems(problems)
}

// Files returns every file and directory that the last Read looked at, absolute
// and sorted, also if it returned no manifest: a change of one of them is a
// reason to read again.
func (r *ManifestReader) Files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.files)
}

// Refresh makes the next Read run an executable nodes file and the program that
// knows secrets again, however short ago that was.
func (r *ManifestReader) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.printed, r.told = printed{}, secretCache{}
}

// newLoad is newLoad with what r knows.
func (r *ManifestReader) newLoad(ctx context.Context, main string, o origin, d *disk) *load {
	l := newLoad(ctx, main, r.Tasks, o, d)
	l.secrets.open, l.secrets.key, l.secrets.cache, l.secrets.redactor = r.Secrets, r.Key, &r.told, r.Redactor
	return l
}

// keep returns the last good manifest with the problems of now.
func (r *ManifestReader) keep(problems []*ManifestError, d *disk) (*Manifest, error) {
	var files, stale []string
	if d != nil {
		files, stale = d.files(), r.edited(d)
	}
	if r.last == nil {
		r.files = files
		return nil, joinProblems(problems)
	}
	m := *r.last
	m.Problems = problems
	m.Files = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(m.Files), files...))))
	for _, p := range problems {
		stale = append(stale, p.File)
	}
	slices.Sort(stale)
	m.Stale = slices.Compact(stale)
	r.files = m.Files
	r.last = &m
	return &m, joinProblems(problems)
}

// edited returns the files that are not what they are in the good texts.
func (r *ManifestReader) edited(d *disk) []string {
	var files []string
	for name, text := range d.texts {
		if was, ok := r.good.text(name); ok && was != string(text) {
			files = append(files, name)
		}
	}
	return files
}

// mainName is what to call a main file that isn't there.
func mainName(file string) string {
	if file == "" {
		return DefaultFiles()[0]
	}
	first, _, _ := strings.Cut(file, ",")
	return strings.TrimSpace(first)
}

// gone reports a jobspath that has lost all its manifests by becoming another
// directory: a file system that isn't mounted, most likely.
func (r *ManifestReader) gone(a *assembly) []*ManifestError {
	if len(a.entries) > 0 || r.good == nil || len(r.good.Jobs) == 0 || r.jobsInfo == nil {
		return nil
	}
	if info, err := os.Stat(a.jobsPath); err == nil && !os.SameFile(info, r.jobsInfo) {
		return []*ManifestError{{File: a.jobsPath, Err: fmt.Errorf("all %d job manifests are gone, and it is another directory than before: is it mounted?", len(r.good.Jobs))}}
	}
	return nil
}

// A savedManifest is the texts of a good manifest.
type savedManifest struct {
	Main     string            `json:"main"`
	Texts    map[string]string `json:"texts"` // of all files, by absolute name
	Programs []string          `json:"programs,omitempty"`
	Jobs     []string          `json:"jobs"` // the job manifests
}

// accept remembers the texts that are in use now.
func (r *ManifestReader) accept(a *assembly) *ManifestError {
	good := &savedManifest{Main: absolute(a.file), Texts: map[string]string{}}
	for _, name := range []string{a.file, a.dataFile, a.nodesFile} {
		if name == "" {
			continue
		}
		text := a.disk.texts[name]
		if name == a.nodesFile && a.disk.isProgram(name) {
			text = r.printed.text
			good.Programs = append(good.Programs, absolute(name))
		}
		good.Texts[absolute(name)] = string(text)
	}
	for _, e := range a.entries {
		if e.use != nil {
			good.Texts[absolute(e.name)] = e.text
			good.Jobs = append(good.Jobs, absolute(e.name))
		}
	}
	if info, err := os.Stat(a.jobsPath); err == nil {
		r.jobsInfo = info
	}
	same := r.good != nil && r.good.Main == good.Main && maps.Equal(r.good.Texts, good.Texts) &&
		slices.Equal(r.good.Jobs, good.Jobs) && slices.Equal(r.good.Programs, good.Programs)
	r.good = good
	if same {
		return nil
	}
	dir := r.stateDir(a)
	if err := good.save(dir); err != nil {
		return &ManifestError{File: savedName(dir), Err: fmt.Errorf("the manifest can't be remembered for the next start: %w", plainPathError(err))}
	}
	return nil
}

// stateDir returns where good texts are remembered, as far as can be told.
func (r *ManifestReader) stateDir(a *assembly) string {
	switch {
	case r.State != "":
		return r.State
	case a == nil:
		return defaultState(homeDir())
	case a.config.State != "":
		return a.config.State
	}
	// The main file can't be parsed, so look for the line.
	if m := stateLine.FindSubmatch(a.disk.texts[a.file]); m != nil {
		return a.path(strings.TrimSpace(string(m[1])))
	}
	return defaultState(homeDir())
}

// stateLine matches the line that says where the state is.
var stateLine = regexp.MustCompile(`(?m)^state:\s*["']?([^"'#\n\r]+)`)

// remember looks, once, for good texts of an earlier process.
func (r *ManifestReader) remember(a *assembly) {
	r.recall(r.stateDir(a), absolute(a.file))
}

func (r *ManifestReader) recall(dir, main string) {
	if r.asked || r.Strict {
		return
	}
	r.asked = true
	good, err := readSaved(dir)
	if err != nil || main != "" && good.Main != main {
		return // there is none, or it is another configuration's
	}
	r.good = good
}

// fromGood makes a manifest of the good texts, or nil if they aren't good any
// more.
func (r *ManifestReader) fromGood(ctx context.Context) *Manifest {
	if r.good == nil {
		return nil
	}
	d := newDisk()
	a := &assembly{load: r.newLoad(ctx, r.good.Main, r.good, d), disk: d}
	a.check = r.Check
	if !a.base(r.good.read) {
		return nil
	}
	a.baseProblems = a.takeProblems(0)
	for _, name := range r.good.Jobs {
		f := a.jobFile(name, []byte(r.good.Texts[name]))
		a.fileProblems = append(a.fileProblems, f.problems...)
		a.entries = append(a.entries, &entryFile{name: name, fresh: f, use: f})
	}
	if len(a.problems()) > 0 {
		return nil
	}
	return a.manifest()
}

// text returns what a file held; nothing if s is nil.
func (s *savedManifest) text(name string) (string, bool) {
	if s == nil {
		return "", false
	}
	text, ok := s.Texts[absolute(name)]
	return text, ok
}

func (s *savedManifest) read(name string) ([]byte, error) {
	text, ok := s.text(name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func (s *savedManifest) isProgram(name string) bool {
	return slices.Contains(s.Programs, absolute(name))
}

func savedName(state string) string { return filepath.Join(state, "manifest", "good.json") }

// save writes the texts whole or not at all, for nobody else to read: there may
// be passwords in them.
func (s *savedManifest) save(state string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	name := savedName(state)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "good-*") // 0600
	if err != nil {
		return err
	}
	return durable.Replace(f, text, name)
}

func readSaved(state string) (*savedManifest, error) {
	name := savedName(state)
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || !isOurs(info) {
		return nil, fmt.Errorf("%s could have been written by others", name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	s := new(savedManifest)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, err
	}
	return s, nil
}
