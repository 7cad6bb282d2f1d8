// Package bind turns what a user wrote in YAML into Go structs, and says what
// is wrong with it, all of it, each mistake at its place.
//
// A struct reads like a function's signature. Its exported fields, in order,
// are the parameters; each can be given by position (args) or by name (kwargs):
//
//	type Run struct {
//		Command string        `loom:"required" help:"shell command line"`
//		Shell   string        `help:"shell to run it with"`
//		Timeout time.Duration `help:"give up after this long"`
//		DB      *sql.DB       `yaml:"-"` // wiring, not a parameter
//	}
//
// A name is the yaml tag, else the field's name in lower case. The tags are
//
//	yaml:"name"             the name; "-" hides the field
//	yaml:",inline"          a struct whose fields stand among these, or a map
//	                        with string keys that takes every unknown name
//	loom:"required"         must be given
//	loom:"rest"             last field, a slice: takes the remaining args
//	loom:"rest,required"    the same, at least one
//	help:"one line"         for people
//
// The type of a field, not YAML's guess, decides how a value is read, so quotes
// around it make no difference:
//
//   - A string takes any scalar as it was written: 1.10, 0644, yes, 2026-01-31.
//   - A bool takes true, false, yes, no, on, off, y and n.
//   - An integer takes decimal, 0x, 0o and 0b, with _ between digits; not 010,
//     which means ten to some and eight to others.
//   - A [time.Duration] takes what [ParseDuration] takes: 5s, 1h30m, 90d.
//   - An [io/fs.FileMode] takes what [ParseMode] takes: octal, with or without
//     leading 0.
//   - A [time.Time] takes RFC 3339.
//   - A slice takes a list; a list of one scalar may be written as that scalar.
//   - A map takes a mapping, a struct a mapping of its fields.
//   - An [encoding.TextUnmarshaler] takes a scalar's text.
//   - A [NodeDecoder] takes the node itself.
//   - A [yaml.Node] or pointer to one takes the node untouched, to be decoded
//     later; if an alias was written, the node that it stands for.
//   - An interface{} takes what YAML says it is: nil, bool, int, float64,
//     string, []any, map[string]any. Dates stay strings.
//   - A pointer takes what it points to, or null. Null is otherwise an empty
//     list, mapping or struct, and an error for every other type.
//
// Aliases are followed, and a mistake behind one is reported where it was
// written. Merge keys (<<) work: what a mapping says itself wins over what it
// merges, and earlier merges win over later ones. Documents that refer to
// themselves, or grow out of proportion by aliases, are refused.
package bind

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"gopkg.in/yaml.v3"
)

// A Problem is one mistake in what a user wrote. Its Error is a sentence
// without the place, for callers who know the file's name.
type Problem struct {
	Line, Col int    // where, counted from 1; 0 if the value came from no file
	Path      string // which value: `retries.delay`, `parameter "mounts[1].host"`; empty at the top
	Msg       string // what is wrong with it, without Path
	First     int    // if something is given twice, the line of the first; else 0
}

// Error says what is wrong and with which value.
func (p Problem) Error() string {
	s := p.Msg
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.First > 0 {
		s = fmt.Sprintf("%s, first at line %d", s, p.First)
	}
	return s
}

// A NodeDecoder decodes itself from a node, as types do that can be written in
// more than one way (retries: 3, or retries: {attempts: 3, delay: 5s}). The
// node is never an alias and never nil. The problems' paths are relative to it.
// A DecodeNode may hand its receiver to [Decode] for the ordinary way.
type NodeDecoder interface {
	DecodeNode(n *yaml.Node) []Problem
}

// Bind sets the fields of the struct that dst points to from positional args
// and named kwargs; either may be nil or null, and args may be a single scalar.
// It returns every problem, in the order of their places, and nil if there are
// none; after a problem dst is not fit for use. A missing parameter is reported
// at the node at, which may be nil.
//
// The struct holds the defaults beforehand, and may be a shallow copy of a
// prototype: Bind replaces the slices, maps and pointers in its parameters by
// copies, and a value given replaces the default wholly, never merging with it,
// so nothing that Bind or a later owner of dst does reaches the prototype.
func Bind(dst any, args, kwargs, at *yaml.Node) []Problem {
	return new(Binder).Bind(dst, args, kwargs, at)
}

// A Binder binds and decodes as [Bind] and [Decode] do, and remembers what it
// has learnt of each type: use one for many values of few types. Its zero value
// is ready to use, by one goroutine at a time.
type Binder struct {
	shapes map[reflect.Type]*shape
}

// Bind is the function Bind.
func (b *Binder) Bind(dst any, args, kwargs, at *yaml.Node) []Problem {
	v := pointee(dst)
	d := b.decoder(true)
	s := d.shape(v.Type())
	d.independent(s, v)
	if d.sane(args) && d.sane(kwargs) {
		given := make([]bool, len(s.fields))
		lines := d.positional(s, v, follow(args), given)
		d.named(s, v, follow(kwargs), given, lines)
		d.missing(s, given, at)
	}
	return d.sorted()
}

// Decode sets what dst points to from n, most often a struct from a mapping,
// and returns every problem, as [Bind] does. It fills structs in place: what n
// does not mention keeps its value, in nested structs too, while lists, maps and
// pointers are replaced. It does not ask dst's own DecodeNode or UnmarshalText.
func Decode(dst any, n *yaml.Node) []Problem {
	return new(Binder).Decode(dst, n)
}

func (b *Binder) decoder(params bool) decoder {
	if b.shapes == nil {
		b.shapes = make(map[reflect.Type]*shape)
	}
	return decoder{params: params, shapes: b.shapes}
}

// Decode is the function Decode.
func (b *Binder) Decode(dst any, n *yaml.Node) []Problem {
	v := pointee(dst)
	d := b.decoder(false)
	switch {
	case !d.sane(n):
	case v.Kind() == reflect.Pointer:
		d.value(n, v)
	default:
		d.kind(follow(n), v)
	}
	return d.sorted()
}

// pointee panics unless dst is a pointer to something: a mistake in the program.
func pointee(dst any) reflect.Value {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		panic(fmt.Sprintf("bind: dst is a %T, not a pointer to what is to be set", dst))
	}
	return v.Elem()
}

// independent replaces what the parameters share with a prototype.
func (d *decoder) independent(s *shape, v reflect.Value) {
	var c cloner
	for _, f := range s.fields {
		field := v.FieldByIndex(f.index)
		field.Set(c.clone(field, 0))
	}
	if s.others != nil {
		field := v.FieldByIndex(s.others)
		field.Set(c.clone(field, 0))
	}
}

// positional sets fields from args, in order, and returns the line of each.
func (d *decoder) positional(s *shape, v reflect.Value, args *yaml.Node, given []bool) []int {
	lines := make([]int, len(s.fields))
	list, ok := d.arguments(args)
	if !ok {
		return lines
	}
	for i, arg := range list {
		if i >= len(s.fields) {
			d.problem(follow(arg), "too many arguments: %d given, %s", len(list), atMost(s))
			break
		}
		f := s.fields[i]
		given[i] = true
		lines[i] = line(arg)
		d.enter(f.name)
		field := v.FieldByIndex(f.index)
		field.SetZero()
		if f.rest && field.Kind() == reflect.Slice {
			d.list(list[i:], field)
			d.leave()
			break
		}
		d.value(arg, field)
		d.leave()
	}
	return lines
}

func (d *decoder) arguments(args *yaml.Node) ([]*yaml.Node, bool) {
	switch {
	case isNull(args):
		return nil, true
	case args.Kind == yaml.SequenceNode:
		return args.Content, true
	case args.Kind == yaml.ScalarNode:
		return []*yaml.Node{args}, true
	}
	d.problem(args, "write args as a list, not %s", show(args))
	return nil, false
}

func atMost(s *shape) string {
	if len(s.fields) == 0 {
		return "none taken"
	}
	return fmt.Sprintf("at most %d taken (%s)", len(s.fields), s.names())
}

// named sets fields from the mapping n, and notes which in given. Lines says
// where those that were given already were given.
func (d *decoder) named(s *shape, v reflect.Value, n *yaml.Node, given []bool, lines []int) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		if d.params && len(d.path) == 0 {
			d.problem(n, "write kwargs as a mapping of names and values, not %s", show(n))
		} else {
			d.problem(n, "write a mapping, not %s", show(n))
		}
		return
	}
	for _, p := range d.pairs(n) {
		i, known := s.byName[p.name]
		switch {
		case known && given[i]:
			d.twice(p.key, p.name, lines[i])
		case known:
			given[i] = true
			field := v.FieldByIndex(s.fields[i].index)
			d.enter(p.name)
			if d.params && len(d.path) == 1 {
				field.SetZero()
			}
			d.value(p.value, field)
			d.leave()
		case s.others != nil:
			d.other(p, v.FieldByIndex(s.others))
		default:
			d.unknown(s, p.key)
		}
	}
}

// other puts a name that is no field's into the inline map.
func (d *decoder) other(p pair, m reflect.Value) {
	if m.IsNil() {
		m.Set(reflect.MakeMap(m.Type()))
	}
	elem := reflect.New(m.Type().Elem()).Elem()
	d.enter(p.name)
	d.value(p.value, elem)
	d.leave()
	m.SetMapIndex(reflect.ValueOf(p.name).Convert(m.Type().Key()), elem)
}

func (d *decoder) unknown(s *shape, key *yaml.Node) {
	hint := ""
	if near := Nearest(key.Value, slices.Values(s.list())); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	} else if len(s.fields) == 0 {
		hint = ": there are none"
	} else if len(s.fields) <= 8 {
		hint = fmt.Sprintf(" (known: %s)", s.names())
	}
	d.problem(key, "unknown %s %s%s", d.noun(), quote(key.Value), hint)
}

func (d *decoder) twice(key *yaml.Node, name string, first int) {
	d.problem(key, "%s %s is given twice", d.noun(), quote(name))
	d.problems[len(d.problems)-1].First = first
}

func (d *decoder) missing(s *shape, given []bool, at *yaml.Node) {
	for i, f := range s.fields {
		if !f.required || given[i] {
			continue
		}
		help := ""
		if f.help != "" {
			help = " (" + f.help + ")"
		}
		d.problem(at, "missing %s %q%s", d.noun(), f.name, help)
	}
}

// sorted returns the problems in the order of the text, without repetitions.
func (d *decoder) sorted() []Problem {
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return slices.Compact(d.problems)
}
