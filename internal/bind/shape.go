package bind

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A shape is what the decoder knows of a struct type.
type shape struct {
	fields []field
	byName map[string]int // index in fields
	others []int          // index of the inline map; nil if there is none
}

type field struct {
	name           string
	index          []int
	typ            reflect.Type
	help           string
	required, rest bool
}

func (s *shape) list() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return names
}

func (s *shape) names() string { return strings.Join(s.list(), ", ") }

// shapeOf returns the shape of t, which is empty unless t is a struct, and the
// programmer's mistakes in it.
func shapeOf(t reflect.Type) (*shape, []error) {
	s := &shape{byName: make(map[string]int)}
	if t.Kind() != reflect.Struct {
		return s, nil
	}
	var errs []error
	s.walk(t, nil, func(format string, a ...any) {
		errs = append(errs, fmt.Errorf(format, a...))
	})
	for i, f := range s.fields {
		if f.rest && i != len(s.fields)-1 {
			errs = append(errs, fmt.Errorf("parameter %q takes the rest, but %q comes after it", f.name, s.fields[i+1].name))
		}
	}
	return s, errs
}

func (s *shape) walk(t reflect.Type, index []int, mistake func(string, ...any)) {
	for i := range t.NumField() {
		sf := t.Field(i)
		name, opts, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		inline := slices.Contains(strings.Split(opts, ","), "inline")
		if name == "-" || !sf.IsExported() && (!sf.Anonymous || !inline) {
			continue
		}
		at := append(slices.Clone(index), i)
		if inline {
			s.inline(sf, at, mistake)
			continue
		}
		f := field{name: name, index: at, typ: sf.Type, help: sf.Tag.Get("help")}
		if f.name == "" {
			f.name = strings.ToLower(sf.Name)
		}
		for opt := range strings.SplitSeq(sf.Tag.Get("loom"), ",") {
			switch opt {
			case "required":
				f.required = true
			case "rest":
				f.rest = true
				if sf.Type.Kind() != reflect.Slice {
					mistake("field %s takes the rest, so it must be a slice, not %v", sf.Name, sf.Type)
				}
			case "":
			default:
				mistake("field %s: unknown option loom:%q", sf.Name, opt)
			}
		}
		if _, ok := s.byName[f.name]; ok {
			mistake("two fields are called %q", f.name)
			continue
		}
		s.byName[f.name] = len(s.fields)
		s.fields = append(s.fields, f)
	}
}

func (s *shape) inline(sf reflect.StructField, at []int, mistake func(string, ...any)) {
	switch {
	case sf.Type.Kind() == reflect.Struct:
		s.walk(sf.Type, at, mistake)
	case sf.Type.Kind() == reflect.Map && sf.Type.Key().Kind() == reflect.String && sf.IsExported():
		if s.others != nil {
			mistake("field %s: there can be only one inline map", sf.Name)
		}
		s.others = at
	default:
		mistake("field %s: only a struct or a map with string keys can be inline, not %v", sf.Name, sf.Type)
	}
}

// Check returns the programmer's mistakes in a prototype, all joined: it isn't
// a struct or a pointer to one, a field's type can't be written in YAML, two
// fields share a name, a rest field is not the last or no slice, a tag has
// unknown words.
func Check(proto any) error {
	t := reflect.TypeOf(proto)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return fmt.Errorf("%T is not a struct or a pointer to one", proto)
	}
	c := checker{seen: make(map[reflect.Type]bool)}
	c.structure(t, "", true)
	return errors.Join(c.errs...)
}

type checker struct {
	errs []error
	seen map[reflect.Type]bool // so that recursive types end
}

func (c *checker) structure(t reflect.Type, path string, top bool) {
	s, errs := shapeOf(t)
	for _, err := range errs {
		c.errs = append(c.errs, fmt.Errorf("%v: %w", t, err))
	}
	for _, f := range s.fields {
		at := strings.TrimPrefix(path+"."+f.name, ".")
		if f.rest && !top {
			c.errs = append(c.errs, fmt.Errorf("%v: %s can't take the rest: only a task's own parameters have positions", t, at))
		}
		c.typ(f.typ, at)
	}
	if s.others != nil {
		c.typ(t.FieldByIndex(s.others).Type.Elem(), strings.TrimPrefix(path+".*", "."))
	}
}

func (c *checker) typ(t reflect.Type, path string) {
	if c.seen[t] || t == nodeType || t == nodePtrType {
		return
	}
	c.seen[t] = true
	if implements(t, nodeDecoder) || implements(t, textUnmarshaler) {
		return
	}
	if implements(t, yamlUnmarshaler) {
		c.errs = append(c.errs, fmt.Errorf("parameter %s: %v has UnmarshalYAML, which is not used: give it UnmarshalText or DecodeNode", path, t))
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		c.structure(t, path, false)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		c.typ(t.Elem(), path)
	case reflect.Map:
		if !takesScalar(t.Key()) || t.Key().Kind() == reflect.Pointer {
			c.errs = append(c.errs, fmt.Errorf("parameter %s: %v can't be a mapping's key", path, t.Key()))
		}
		c.typ(t.Key(), path)
		c.typ(t.Elem(), path)
	case reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Uintptr, reflect.Complex64, reflect.Complex128:
		c.unsupported(t, path)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			c.unsupported(t, path)
		}
	}
}

func (c *checker) unsupported(t reflect.Type, path string) {
	c.errs = append(c.errs, fmt.Errorf("parameter %s: a value of type %v can't be written in YAML; hide wiring with yaml:\"-\"", path, t))
}
