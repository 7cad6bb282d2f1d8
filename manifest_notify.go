package loom

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

// A NotifyTarget is what the main file says under one name of notify. What may
// stand there is for the package to say that sends the news: it calls Decode. The
// values are those that references stand for, so there may be secrets in them.
type NotifyTarget struct {
	Name string
	File string // where it is written
	Line int
	Col  int

	value *yaml.Node // with lines of File
	dir   string     // at which relative paths start
	home  string
}

// Decode sets what dst points to from what is written, as a manifest's keys are
// set: a struct from a mapping of its fields, with the tags that a [Task] has. Dst
// may decode itself: see package internal/bind. The error joins a *ManifestError
// for every mistake.
func (t NotifyTarget) Decode(dst any) error {
	if t.value == nil {
		return nil
	}
	var problems []*ManifestError
	for _, p := range within(t.path(), bind.Decode(dst, t.value)) {
		if p.Line == source.Nowhere {
			continue // it was reported
		}
		problems = append(problems, &ManifestError{File: t.File, Line: p.Line, Col: p.Col, Err: errors.New(p.Error())})
	}
	return joinProblems(sortProblems(problems))
}

// Problem returns a mistake in what is written under a path of keys, such as
// "webhook.url", or as much of it as there is.
func (t NotifyTarget) Problem(path, msg string) *ManifestError {
	e := &ManifestError{File: t.File, Line: t.Line, Col: t.Col}
	where := t.path()
	n := t.value
	for key := range strings.SplitSeq(path, ".") {
		pairs, _ := bind.Pairs(n)
		i := slices.IndexFunc(pairs, func(p bind.Pair) bool { return p.Name == key })
		if path == "" || i < 0 {
			break
		}
		n = pairs[i].Value
		where = where + "." + key
		if n == nil || n.Line < 1 {
			break
		}
		e.Line, e.Col = n.Line, n.Column
	}
	e.Err = errors.New(where + ": " + msg)
	return e
}

// Path returns where a path in the configuration leads: see [ReadManifest].
func (t NotifyTarget) Path(name string) string {
	return (&load{dir: t.dir, home: t.home}).path(name)
}

func (t NotifyTarget) path() string { return "notify." + t.Name }

// notifyTargets reads the names under notify.
func (l *load) notifyTargets(n *yaml.Node) []NotifyTarget {
	var entries map[string]*yaml.Node
	l.report(within("notify", bind.Decode(&entries, n))...)
	pairs, _ := bind.Pairs(n)
	var targets []NotifyTarget
	for _, p := range pairs {
		if p.Key == nil || p.Key.Line < 1 {
			continue
		}
		t := NotifyTarget{Name: p.Name, Col: p.Key.Column, value: l.own(entries[p.Name], map[*yaml.Node]*yaml.Node{}), dir: l.dir, home: l.home}
		t.File, t.Line = l.set.Position(p.Key.Line)
		if strings.TrimSpace(p.Name) == "" || strings.ContainsAny(p.Name, " \t\r\n/,") {
			l.report(problemAt(p.Key, "notify: %q can't be the name of a target: it must not be empty or contain spaces, commas or /", p.Name))
		}
		targets = append(targets, t)
	}
	slices.SortFunc(targets, func(a, b NotifyTarget) int { return strings.Compare(a.Name, b.Name) })
	return targets
}

// own returns a copy of a node whose lines are those of its file. What refers to
// itself does so in the copy.
func (l *load) own(n *yaml.Node, copies map[*yaml.Node]*yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	if c := copies[n]; c != nil {
		return c
	}
	c := new(*n)
	copies[n] = c
	if n.Line > 0 {
		_, c.Line = l.set.Position(n.Line)
	}
	c.Alias = l.own(n.Alias, copies)
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = l.own(child, copies)
	}
	return c
}

// NotifyTarget returns the notification target of that name, or nil.
func (c Config) NotifyTarget(name string) *NotifyTarget {
	i, ok := slices.BinarySearchFunc(c.Notify, name, func(t NotifyTarget, name string) int { return strings.Compare(t.Name, name) })
	if !ok {
		return nil
	}
	return &c.Notify[i]
}

// notifyNames returns the names of all targets.
func (c Config) notifyNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, t := range c.Notify {
			if !yield(t.Name) {
				return
			}
		}
	}
}

// checked reports what others found wrong, apart from what only follows from a
// mistake that was reported: the value of a reference that leads nowhere is not what
// it should be.
func (l *load) checked(err error) {
	reported := map[string]bool{}
	for _, p := range l.problems {
		reported[fmt.Sprint(p.File, ":", p.Line)] = p.Line > 0
	}
	for _, p := range mistakes(err) {
		if !reported[fmt.Sprint(p.File, ":", p.Line)] {
			l.problems = append(l.problems, p)
		}
	}
}

// mistakes returns those that an error joins. One without a place is a mistake
// all the same.
func mistakes(err error) []*ManifestError {
	if err == nil {
		return nil
	}
	if e, ok := err.(*ManifestError); ok { //nolint:errorlint // the tree of errors is walked here
		return []*ManifestError{e}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []*ManifestError{{Err: err}}
	}
	var all []*ManifestError
	for _, one := range joined.Unwrap() {
		all = append(all, mistakes(one)...)
	}
	return all
}
