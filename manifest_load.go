package loom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

// A load is one reading of the files: the main, nodes and data file first, which
// are its base, then one job manifest after the other.
type load struct {
	ctx    context.Context //nolint:containedctx // a reading has one, and asks others where it looks up values
	tasks  *Registry
	origin origin
	disk   *disk // where values of ${file:PATH} always come from
	file   string
	dir    string // of the main file
	top    string // the same, absolute
	home   string

	binder   bind.Binder
	expander *source.Expander
	secrets  secrets
	here     string // the file that a problem without a place is in
	set      source.Set
	check    func(Config) error // what else may be wrong with the main file; nil: nothing
	programs map[string]bool    // texts that are what a program printed
	zones    map[string]*time.Location
	cron     map[cronKey]cronResult
	chosen   map[*yaml.Node]chosen // targets that were resolved already

	mentions map[string]*yaml.Node // files that the main file names

	// What the main file says.
	config      Config
	nodesFile   string
	inlineNodes *yaml.Node
	jobsPath    string
	dataFile    string
	defaults    jobSpec
	defaultKeys map[string]bind.Pair

	data      *source.Tree
	inventory *inventory
	lame      bool // the nodes are not all there, so that targets can't be judged

	problems []*ManifestError
	warnings map[string]*warning // by file and key
}

// A warning counts what it is about in one file.
type warning struct {
	at    *ManifestError
	why   string
	count int
}

// newLoad begins a reading of the main file and what it names, from o.
func newLoad(ctx context.Context, file string, tasks *Registry, o origin, d *disk) *load {
	return &load{ctx: ctx, secrets: secrets{redactor: new(Redactor)}, tasks: tasks, origin: o, disk: d, file: file, dir: dirOf(file), top: absolute(dirOf(file)), home: homeDir(),
		programs: map[string]bool{}, zones: map[string]*time.Location{}, cron: map[cronKey]cronResult{},
		chosen: map[*yaml.Node]chosen{}, warnings: map[string]*warning{}, mentions: map[string]*yaml.Node{}, defaults: builtinDefaults()}
}

// parse reads one text and expands the references in its values. What it finds
// wrong is reported.
func (l *load) parse(name string, text []byte, shared *source.Tree) *source.Tree {
	tree, problems := l.set.Parse(name, text, shared)
	l.report(problems...)
	l.expand(tree.Root)
	return tree
}

// report notes problems, whose lines are in the numbering of l.set.
func (l *load) report(problems ...bind.Problem) {
	for _, p := range problems {
		if e := l.located(p); e != nil {
			l.problems = append(l.problems, e)
		}
	}
}

// located returns a problem as the user sees it, or nil if it only follows from
// another one.
func (l *load) located(p bind.Problem) *ManifestError {
	if p.Line == source.Nowhere {
		return nil
	}
	p = l.conceal(p)
	file, line := l.set.Position(p.Line)
	if p.First > 0 {
		first, n := l.set.Position(p.First)
		if first == file {
			p.First = n
		} else {
			p.First = 0
			p.Msg += fmt.Sprintf(", first at %s:%d", first, n)
		}
	}
	switch {
	case file == "":
		return &ManifestError{File: cmp.Or(l.here, l.file), Err: errors.New(p.Error())}
	case l.programs[file]:
		return &ManifestError{File: file, Err: fmt.Errorf("line %d of what it prints: %s", line, p.Error())}
	}
	return &ManifestError{File: file, Line: line, Col: p.Col, Err: errors.New(p.Error())}
}

// reportFile reports what is wrong with a whole file. One that isn't there is
// reported where the main file names it.
func (l *load) reportFile(file string, err error) {
	if n := l.mentions[file]; n != nil && errors.Is(err, fs.ErrNotExist) {
		l.report(problemAt(n, "there is no %s", file))
		return
	}
	l.problems = append(l.problems, &ManifestError{File: file, Err: err})
}

// warn notes that something is accepted that has not the effect one may think.
// The same about several places in a file is one warning.
func (l *load) warnUnacted(key *yaml.Node, name, why string) {
	e := l.located(problemAt(key, "%s", name))
	if e == nil {
		return
	}
	id := e.File + "\x00" + name
	w := l.warnings[id]
	if w == nil {
		w = &warning{at: e, why: why}
		l.warnings[id] = w
	}
	w.count++
	if e.Line < w.at.Line {
		w.at = e
	}
}

// allWarnings puts the warnings into sentences.
func (l *load) allWarnings() []*ManifestError {
	var out []*ManifestError
	for w := range maps.Values(l.warnings) {
		places := ""
		if w.count > 1 {
			places = fmt.Sprintf(" (in %d places of this file)", w.count)
		}
		out = append(out, &ManifestError{File: w.at.File, Line: w.at.Line, Col: w.at.Col,
			Err: errors.New(l.secrets.redactor.Redact(w.why + places))})
	}
	return sortProblems(out)
}

// base reads the main, the data and the nodes file. It reports whether there is
// something to read job manifests with.
func (l *load) base(nodes func(file string) ([]byte, error)) bool {
	if !l.main() {
		return false
	}
	l.readData()
	l.readNodes(nodes)
	return true
}

func (l *load) readData() {
	if l.dataFile == "" {
		return
	}
	text, err := l.origin.read(l.dataFile)
	if err != nil {
		l.reportFile(l.dataFile, err)
		l.data = &source.Tree{Name: l.dataFile, Broken: true}
		return
	}
	l.data = l.parse(l.dataFile, text, nil)
	if l.data.End > 0 {
		l.report(bind.Problem{Line: l.data.End, Col: 1,
			Msg: `the data file ends its document here ("..."), but the manifests go on where it ends: remove the line`})
	}
	if l.data.Root == nil {
		return
	}
	pairs, problems := bind.Pairs(l.data.Root)
	if l.data.Root.Kind == yaml.MappingNode {
		problems = nil // a key twice harms nobody: only anchors count here
	}
	l.report(problems...)
	for _, p := range pairs {
		if p.Name == "jobs" || p.Name == "resources" {
			l.report(problemAt(p.Key, "the data file only defines anchors: move %s to a file under jobspath", p.Name))
		}
	}
}

// joinWords joins words for people: all if they are few, else the first.
func joinWords(words []string) string {
	const most = 5
	if len(words) > most+1 {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", len(words)-most)
	}
	return strings.Join(words, ", ")
}

// dirOf returns the directory of a file, "" if that is the current one.
func dirOf(file string) string {
	if i := strings.LastIndexAny(file, `/`); i >= 0 {
		return file[:i+1]
	}
	return ""
}

// takeProblems returns the problems since mark and forgets them.
func (l *load) takeProblems(mark int) []*ManifestError {
	out := slices.Clone(l.problems[mark:])
	l.problems = l.problems[:mark]
	return out
}
