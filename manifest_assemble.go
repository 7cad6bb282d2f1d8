package loom

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom/internal/bind"
)

// An assembly is a manifest being put together: the base, and for each job
// manifest its text of now or, if that has mistakes, its last good one.
type assembly struct {
	*load
	good    *savedManifest // nil: there is none
	disk    *disk
	entries []*entryFile
	ignored []string

	baseProblems []*ManifestError
	fileProblems []*ManifestError
	whole        bool // what was good before no longer fits, so that nothing of now can be used
}

// An entryFile is one job manifest: as it is now, and what is used of it.
type entryFile struct {
	name  string
	fresh *jobFile
	use   *jobFile // nil: nothing
	text  string   // of use
	stale bool     // use is not fresh
}

func (a *assembly) problems() []*ManifestError {
	all := sortProblems(append(slices.Clone(a.baseProblems), a.fileProblems...))
	for i, p := range all {
		if err := a.secrets.redactor.error(p.Err); err != p.Err { //nolint:errorlint // whether it is another one
			all[i] = &ManifestError{File: p.File, Line: p.Line, Col: p.Col, Err: err}
		}
	}
	return all
}

// assemble reads everything, again if it changes meanwhile, so that the result
// is never part old and part new.
func (r *ManifestReader) assemble(ctx context.Context, main string) *assembly {
	for range 5 {
		if a := r.assembleOnce(ctx, main); !a.disk.changed() {
			return a
		}
	}
	a := r.assembleOnce(ctx, main)
	if a.disk.changed() && r.last != nil {
		// It never rests. What was read may be part old and part new, so what was
		// there before stays until it does.
		a.baseProblems = append(a.baseProblems, &ManifestError{File: main,
			Err: errors.New("the files keep changing while they are read; they will be read again")})
	}
	return a
}

func (r *ManifestReader) assembleOnce(ctx context.Context, main string) *assembly {
	d := newDisk()
	a := &assembly{load: r.newLoad(ctx, main, d, d), disk: d}
	a.check = r.Check
	ok := a.base(func(file string) ([]byte, error) { return r.nodesText(ctx, a.load, d, file) })
	r.remember(a)
	a.good = r.good
	a.baseProblems = a.takeProblems(0)
	if !ok || a.jobsPath == "" {
		return a
	}
	found, problems := d.list(a.jobsPath)
	for _, p := range problems {
		a.reportFile(p.File, p.Err)
	}
	a.baseProblems = append(a.baseProblems, a.takeProblems(0)...)
	for _, name := range found.misnamed {
		a.misnamed(name)
	}
	for _, name := range found.manifests {
		if !a.isOwn(name) {
			a.add(name)
		}
	}
	a.baseProblems = append(a.baseProblems, r.gone(a)...)
	a.settleNames()
	a.settleAfter()
	return a
}

// nodesText returns what is in the nodes file, or what it prints if it is a
// program. That is kept for as long as the main file's inventory_refresh says.
func (r *ManifestReader) nodesText(ctx context.Context, l *load, d *disk, file string) ([]byte, error) {
	if !d.isProgram(file) {
		return d.read(file)
	}
	d.seen[file] = true
	info, err := os.Stat(file)
	if err != nil {
		return nil, plainPathError(err)
	}
	d.stamps[file] = stamp{info}
	if err := readable(info, file); err != nil {
		return nil, err
	}
	if r.printed.of.same(info) && time.Since(r.printed.at) < fresh(l.config.InventoryRefresh) {
		return r.printed.text, nil
	}
	text, err := runInventory(ctx, file, cmp.Or(l.dir, "."))
	if err != nil {
		return nil, err
	}
	r.printed = printed{of: stamp{info}, at: time.Now(), text: text}
	return text, nil
}

// isOwn reports whether a file is the main, the nodes or the data file, which
// may lie under jobspath.
func (a *assembly) isOwn(name string) bool {
	info, err := os.Stat(name)
	if err != nil {
		return false
	}
	for _, own := range []string{a.file, a.nodesFile, a.dataFile} {
		if own == "" {
			continue
		}
		if other, err := os.Stat(own); err == nil && os.SameFile(info, other) {
			return true
		}
	}
	return false
}

// hasJobs matches a line that makes a file a job manifest.
var hasJobs = regexp.MustCompile(`(?m)^["']?(jobs|resources)["']?\s*:`)

// misnamed reports a file that holds jobs under a name that isn't read.
func (a *assembly) misnamed(name string) {
	text, err := a.disk.read(name)
	if err != nil {
		return // it is not ours
	}
	if at := hasJobs.FindIndex(text); at != nil {
		a.fileProblems = append(a.fileProblems, &ManifestError{File: name, Line: 1 + bytes.Count(text[:at[0]], []byte("\n")), Col: 1,
			Err: fmt.Errorf("only *.yaml is read: rename the file to %s.yaml", strings.TrimSuffix(name, name[strings.LastIndexByte(name, '.'):]))})
	}
}

// add reads one job manifest, and its last good text if it has mistakes.
func (a *assembly) add(name string) {
	e := &entryFile{name: name}
	text, err := a.disk.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("it is a link to a file that doesn't exist")
		fallthrough
	case err != nil:
		e.fresh = &jobFile{name: name, isOne: true, problems: []*ManifestError{{File: name, Err: err}}}
	default:
		e.fresh = a.jobFile(name, text)
	}
	if !e.fresh.isOne {
		a.ignored = append(a.ignored, name)
		return
	}
	a.entries = append(a.entries, e)
	if len(e.fresh.problems) == 0 {
		e.use, e.text = e.fresh, string(text)
		return
	}
	a.fileProblems = append(a.fileProblems, e.fresh.problems...)
	a.retreat(e)
}

// retreat uses the last good text of a file whose text of now can't be used.
func (a *assembly) retreat(e *entryFile) {
	was := e.use
	e.use, e.stale = nil, false
	if len(a.baseProblems) > 0 {
		return
	}
	text, ok := a.good.text(e.name)
	if !ok {
		return
	}
	if was != nil && e.text == text {
		a.whole = true // it was good, and is what it was: something else has changed
		return
	}
	older := a.jobFile(e.name, []byte(text))
	if len(older.problems) > 0 {
		a.whole = true
		return
	}
	e.use, e.text, e.stale = older, text, true
}

// settleNames sees to it that no two files define a job of the same name. What
// was there before stays; of two new ones the first does.
func (a *assembly) settleNames() {
	order := slices.Clone(a.entries)
	rank := func(e *entryFile) int {
		if was, ok := a.good.text(e.name); ok && e.use != nil && was == e.text {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(order, func(x, y *entryFile) int { return cmp.Compare(rank(x), rank(y)) })
	owner := map[string]*Job{}
	claim := func(f *jobFile) (clashes []*ManifestError) {
		for _, j := range f.jobs {
			if first := owner[j.Name]; first != nil {
				clashes = append(clashes, &ManifestError{File: j.File, Line: j.Line, Col: j.Col,
					Err: fmt.Errorf("job %q is already defined at %s:%d", j.Name, first.File, first.Line)})
			}
		}
		if len(clashes) == 0 {
			for _, j := range f.jobs {
				owner[j.Name] = j
			}
		}
		return clashes
	}
	for _, e := range order {
		if e.use == nil {
			if a.good == nil { // only to report: what has mistakes is not used
				a.fileProblems = append(a.fileProblems, claim(e.fresh)...)
			}
			continue
		}
		clashes := claim(e.use)
		if len(clashes) == 0 {
			continue
		}
		a.fileProblems = append(a.fileProblems, clashes...)
		a.retreat(e)
		if e.use != nil && len(claim(e.use)) > 0 {
			e.use, a.whole = nil, true
		}
	}
}

// settleAfter sees to it that jobs under after exist and don't wait for each
// other in a circle.
func (a *assembly) settleAfter() {
	for {
		names, all := a.jobNames()
		bad := a.unknownAfter(names, all)
		if len(bad) == 0 {
			bad = a.circles()
		}
		if len(bad) == 0 {
			return
		}
		for _, e := range a.entries {
			if problems := bad[e]; len(problems) > 0 {
				a.fileProblems = append(a.fileProblems, problems...)
				a.retreat(e)
			}
		}
	}
}

// jobNames returns the names of all jobs, also of those in files with mistakes,
// and whether there can be no others.
func (a *assembly) jobNames() (names map[string]bool, all bool) {
	names, all = map[string]bool{}, true
	for _, e := range a.entries {
		for _, f := range []*jobFile{e.fresh, e.use} {
			if f == nil {
				continue
			}
			for _, j := range f.jobs {
				names[j.Name] = true
			}
		}
		if e.use == nil && len(e.fresh.jobs) == 0 {
			all = false
		}
	}
	return names, all
}

func (a *assembly) unknownAfter(names map[string]bool, all bool) map[*entryFile][]*ManifestError {
	bad := map[*entryFile][]*ManifestError{}
	for _, e := range a.entries {
		if e.use == nil || !all {
			continue
		}
		for _, ref := range e.use.after {
			if names[ref.other] {
				continue
			}
			p := *ref.at
			hint := ""
			if len(bad[e]) < maxHints {
				hint = suggestion(ref.other, names)
			}
			p.Err = fmt.Errorf("after: there is no job %q%s", ref.other, hint)
			bad[e] = append(bad[e], &p)
		}
	}
	return bad
}

// circles finds jobs that wait for themselves, and reports each circle once.
func (a *assembly) circles() map[*entryFile][]*ManifestError {
	type waiting struct {
		entry *entryFile
		refs  []afterRef
	}
	jobs := map[string]*waiting{}
	var order []string
	for _, e := range a.entries {
		if e.use == nil {
			continue
		}
		for _, ref := range e.use.after {
			w := jobs[ref.job.Name]
			if w == nil {
				w = &waiting{entry: e}
				jobs[ref.job.Name] = w
				order = append(order, ref.job.Name)
			}
			w.refs = append(w.refs, ref)
		}
	}
	const walking, done = 1, 2
	state := map[string]int{}
	bad := map[*entryFile][]*ManifestError{}
	var way []string
	var walk func(name string)
	walk = func(name string) {
		w := jobs[name]
		if w == nil || state[name] == done || len(way) > 10_000 {
			return
		}
		state[name] = walking
		way = append(way, name)
		for _, ref := range w.refs {
			if state[ref.other] != walking {
				walk(ref.other)
				continue
			}
			circle := append(slices.Clone(way[slices.Index(way, ref.other):]), ref.other)
			p := *ref.at
			p.Err = fmt.Errorf("after: jobs can't wait for each other in a circle (%s)", strings.Join(circle, " → "))
			bad[w.entry] = append(bad[w.entry], &p)
		}
		way = way[:len(way)-1]
		state[name] = done
	}
	for _, name := range order {
		walk(name)
	}
	return bad
}

// manifest returns what was put together.
func (a *assembly) manifest() *Manifest {
	m := &Manifest{File: a.file, Config: a.config, Nodes: a.inventory.nodes, Files: a.disk.files(),
		Warnings: a.allWarnings(), Problems: a.problems(), Ignored: a.ignored, Secrets: a.secretUses(),
		inventory: a.inventory, redactor: a.secrets.redactor}
	for _, e := range a.entries {
		if e.use == nil {
			continue
		}
		m.Jobs = append(m.Jobs, e.use.jobs...)
		for _, j := range e.use.jobs {
			j.conceal(m.redactor)
		}
		if e.stale {
			m.Stale = append(m.Stale, e.name)
		}
	}
	m.Sources = a.sources()
	slices.SortFunc(m.Jobs, func(x, y *Job) int { return strings.Compare(x.Name, y.Name) })
	return m
}

// sources returns the files that people write.
func (a *assembly) sources() []string {
	names := append([]string{a.file, a.dataFile}, a.ignored...)
	if a.nodesFile != "" && !a.disk.isProgram(a.nodesFile) {
		names = append(names, a.nodesFile)
	}
	for _, e := range a.entries {
		names = append(names, e.name)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	for i, name := range names {
		names[i] = absolute(name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// suggestion names what a word may have meant.
func suggestion(word string, names map[string]bool) string {
	if near := bind.Nearest(word, maps.Keys(names)); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
