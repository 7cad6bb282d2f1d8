package loom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// A Manifest is what the configuration files say. It does not change; reading
// them again makes another.
type Manifest struct {
	File   string // the main file
	Config Config
	Nodes  []*Node  // by name
	Jobs   []*Job   // by name
	Files  []string // every file and directory it was read from, absolute and sorted

	// Sources are those of the Files that people write it in, also if there is
	// nothing in them: not programs, secrets, or what values refer to.
	Sources []string

	// Warnings are not mistakes: what is accepted but not acted on, for one.
	Warnings []*ManifestError

	// Problems are the mistakes in files of which an older text is in use, or
	// none. Only a ManifestReader lets a manifest have any.
	Problems []*ManifestError
	Stale    []string // the files of which an older text is in use, sorted

	// Ignored are the *.yaml files under jobspath that hold neither jobs nor
	// anything else of Loom's.
	Ignored []string

	Secrets []SecretUse // by name and place

	inventory *inventory
	redactor  *Redactor
}

// A ManifestError is one mistake in a configuration file, at its place.
type ManifestError struct {
	File      string
	Line, Col int // from 1; 0 if the mistake is not at one place
	Err       error
}

func (e *ManifestError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	case e.Col == 0:
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Col, e.Err)
}

func (e *ManifestError) Unwrap() error { return e.Err }

// DefaultFiles are the main files that are looked for if none is named, in this
// order. The first that exists is used.
func DefaultFiles() []string {
	return []string{"~/.loom.yaml", "~/.loom/loom.yaml", "/etc/loom.yaml", "/etc/loom/loom.yaml"}
}

// ReadManifest reads the main file and all that it names. File may be several
// candidates, separated by commas, of which the first that exists is used; ""
// is [DefaultFiles]. The error joins a *ManifestError for every mistake, sorted
// by file and line, and then there is no manifest; it wraps fs.ErrNotExist if
// there is no main file.
//
// An executable nodes file is run, for 30 seconds at most. A manifest that uses
// secrets needs a [ManifestReader], which can be told how to read them.
func ReadManifest(file string, reg *Registry) (*Manifest, error) {
	return (&ManifestReader{File: file, Tasks: reg, Strict: true}).Read(context.Background())
}

// ReadConfig reads the main file alone, and returns what it says as far as that
// makes sense, however many mistakes there are in it: enough to find out where
// Loom keeps its memory. The error wraps fs.ErrNotExist if there is no main file.
func ReadConfig(file string) (Config, error) {
	main, err := findMain(file)
	if err != nil {
		return Config{}, err
	}
	d := newDisk()
	a := &assembly{load: newLoad(context.Background(), main, nil, d, d), disk: d}
	a.main()
	c := a.config
	c.State = new(ManifestReader).stateDir(a)
	c.Store = cmp.Or(c.Store, "sqlite")
	if c.Timezone == nil {
		c.Timezone = time.Local
	}
	return c, nil
}

// findMain returns the first candidate that exists.
func findMain(file string) (string, error) {
	candidates := strings.Split(file, ",")
	if _, err := os.Stat(file); err == nil {
		return file, nil // it has a comma in its own name
	}
	if strings.TrimSpace(file) == "" {
		candidates = DefaultFiles()
	}
	var looked []string
	for _, c := range candidates {
		c = strings.TrimSpace(c)
		if c == "" {
			continue
		}
		name := c
		if rest, ok := strings.CutPrefix(c, "~/"); ok {
			name = filepath.Join(homeDir(), rest)
		}
		if _, err := os.Stat(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return name, nil // one that can't be read is a mistake to report, not to pass over
		}
		looked = append(looked, c)
	}
	return "", fmt.Errorf("no configuration file: looked for %s: %w", strings.Join(looked, ", "), fs.ErrNotExist)
}

func homeDir() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return "/"
	}
	return home
}

// Node returns the node of that name, or nil.
func (m *Manifest) Node(name string) *Node {
	i, ok := sort.Find(len(m.Nodes), func(i int) int { return strings.Compare(name, m.Nodes[i].Name) })
	if !ok {
		return nil
	}
	return m.Nodes[i]
}

// Job returns the job of that name, or nil.
func (m *Manifest) Job(name string) *Job {
	i, ok := sort.Find(len(m.Jobs), func(i int) int { return strings.Compare(name, m.Jobs[i].Name) })
	if !ok {
		return nil
	}
	return m.Jobs[i]
}

// Select returns the nodes that target patterns select, in order of name and
// without those that are disabled. A pattern is a node's name, "@" and a group,
// "all", or a name with *, ? and [] in it; "!" before it takes its nodes away,
// wherever it stands. Several may be in one string, with commas or spaces
// between them. The error joins one for each pattern that matches no node.
func (m *Manifest) Select(patterns ...string) ([]*Node, error) {
	inv := m.inventory
	if inv == nil {
		inv = newInventory(m.Nodes)
	}
	var words []string
	for _, p := range patterns {
		words = append(words, splitPatterns(p)...)
	}
	nodes, bad := inv.choose(words)
	errs := make([]error, len(bad))
	for i, b := range bad {
		errs[i] = b.err
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return nodes, nil
}

func joinProblems(problems []*ManifestError) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

func sortProblems(problems []*ManifestError) []*ManifestError {
	slices.SortStableFunc(problems, func(a, b *ManifestError) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			strings.Compare(a.Err.Error(), b.Err.Error()))
	})
	return slices.CompactFunc(problems, func(a, b *ManifestError) bool {
		return a.File == b.File && a.Line == b.Line && a.Col == b.Col && a.Err.Error() == b.Err.Error()
	})
}
