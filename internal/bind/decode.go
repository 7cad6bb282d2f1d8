package bind

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// A decoder walks nodes and types side by side. It lives for one Bind or
// Decode, and its nodes have passed sane.
type decoder struct {
	params   bool // the names at the top are called parameters, not keys
	problems []Problem
	path     []string // names, and indexes in brackets, down to where we are
	shapes   map[reflect.Type]*shape
}

// value sets v, which is addressable, from n.
func (d *decoder) value(n *yaml.Node, v reflect.Value) {
	n = follow(n)
	if n == nil {
		n = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	switch v.Type() {
	case nodeType:
		v.Set(reflect.ValueOf(n).Elem())
		return
	case nodePtrType:
		v.Set(reflect.ValueOf(n))
		return
	}
	if v.Kind() == reflect.Pointer {
		if isNull(n) {
			v.SetZero()
			return
		}
		elem := reflect.New(v.Type().Elem())
		d.value(n, elem.Elem())
		v.Set(elem)
		return
	}
	switch p := v.Addr().Interface().(type) {
	case NodeDecoder:
		d.adopt(p.DecodeNode(n))
	case encoding.TextUnmarshaler:
		d.text(n, v, p)
	default:
		d.kind(n, v)
	}
}

// adopt takes over the problems of a value that decoded itself.
func (d *decoder) adopt(problems []Problem) {
	for _, p := range problems {
		if strings.HasPrefix(p.Path, paramPrefix) { // from a Bind within
			p.Path, p.Msg = "", p.Path+": "+p.Msg
		}
		p.Path = d.place(p.Path)
		d.problems = append(d.problems, p)
	}
}

// text sets v, whose pointer is u, from a scalar's text.
func (d *decoder) text(n *yaml.Node, v reflect.Value, u encoding.TextUnmarshaler) {
	want := "text"
	if v.Type() == timeType {
		want = "a time such as 2026-01-31T15:04:05Z"
	}
	s, ok := d.scalar(n, want)
	if !ok {
		return
	}
	switch err := u.UnmarshalText([]byte(s)); {
	case err != nil && v.Type() == timeType:
		d.problem(n, "write %s, not %s", want, show(n))
	case err != nil:
		d.problem(n, "%v", err)
	}
}

// kind sets v by what its type is made of.
func (d *decoder) kind(n *yaml.Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v)
	case reflect.Map:
		d.mapping(n, v)
	case reflect.Slice, reflect.Array:
		d.sequence(n, v)
	case reflect.Interface:
		if v.NumMethod() > 0 {
			d.problem(n, "a value of type %v can't be written in YAML", v.Type())
			return
		}
		if x := d.natural(n); x != nil {
			v.Set(reflect.ValueOf(x))
		} else {
			v.SetZero()
		}
	default:
		s, ok := d.scalar(n, want(v.Type()))
		if !ok {
			return
		}
		if err := setText(v, s); err != nil {
			d.problem(n, "%v", err)
		}
	}
}

// scalar returns the text of n as it was written, or reports what was wanted.
func (d *decoder) scalar(n *yaml.Node, want string) (string, bool) {
	switch {
	case isNull(n):
		d.problem(n, "write %s, not nothing", want)
	case n.Kind != yaml.ScalarNode:
		d.problem(n, "write %s, not %s", want, show(n))
	case d.plainTag(n):
		return n.Value, true
	}
	return "", false
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value) {
	if !isNull(n) && !d.plainTag(n) {
		return
	}
	s := d.shape(v.Type())
	given := make([]bool, len(s.fields))
	d.named(s, v, n, given, make([]int, len(s.fields)))
	if isNull(n) || n.Kind == yaml.MappingNode {
		d.missing(s, given, n)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value) {
	if isNull(n) {
		v.SetZero()
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, "write a mapping, not %s", show(n))
		return
	}
	if !d.plainTag(n) {
		return
	}
	t := v.Type()
	pairs := d.pairs(n)
	m := reflect.MakeMapWithSize(t, len(pairs))
	key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
	for _, p := range pairs {
		key.SetZero()
		elem.SetZero()
		d.enter(p.name)
		if t.Key().Kind() == reflect.String && !implements(t.Key(), textUnmarshaler) {
			key.SetString(p.name)
		} else {
			d.value(p.key, key)
		}
		d.value(p.value, elem)
		d.leave()
		if m.MapIndex(key).IsValid() { // 1 and 0x1
			d.twice(p.key, p.name, 0)
		}
		m.SetMapIndex(key, elem)
	}
	v.Set(m)
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value) {
	switch {
	case isNull(n):
		v.SetZero()
	case n.Kind == yaml.SequenceNode:
		if d.plainTag(n) {
			d.list(n.Content, v)
		}
	case n.Kind == yaml.ScalarNode && v.Kind() == reflect.Slice && takesScalar(v.Type().Elem()):
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.value(n, v.Index(0))
	default:
		d.problem(n, "write a list, not %s", show(n))
	}
}

// list sets v, a slice or an array, from nodes.
func (d *decoder) list(nodes []*yaml.Node, v reflect.Value) {
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), len(nodes), len(nodes)))
	} else if v.Len() != len(nodes) {
		var first *yaml.Node
		if len(nodes) > 0 {
			first = follow(nodes[0])
		}
		d.problem(first, "write a list of %d, not of %d", v.Len(), len(nodes))
		return
	}
	for i, n := range nodes {
		d.enter("[" + strconv.Itoa(i) + "]")
		d.value(n, v.Index(i))
		d.leave()
	}
}

// natural returns n as the type that YAML gives it.
func (d *decoder) natural(n *yaml.Node) any {
	n = follow(n)
	switch {
	case isNull(n):
		return nil
	case n.Kind == yaml.ScalarNode:
		return d.naturalScalar(n)
	case !d.plainTag(n):
		return nil
	case n.Kind == yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			d.enter("[" + strconv.Itoa(i) + "]")
			list[i] = d.natural(c)
			d.leave()
		}
		return list
	}
	pairs := d.pairs(n)
	m := make(map[string]any, len(pairs))
	for _, p := range pairs {
		d.enter(p.name)
		m[p.name] = d.natural(p.value)
		d.leave()
	}
	return m
}

func (d *decoder) naturalScalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!bool", "!!int", "!!float":
		var x any
		bare := yaml.Node{Kind: yaml.ScalarNode, Tag: n.Tag, Value: n.Value, Style: n.Style}
		if err := bare.Decode(&x); err != nil {
			d.problem(n, "%s is not a %s", show(n), n.ShortTag())
		}
		return x
	}
	if !d.plainTag(n) {
		return nil
	}
	return n.Value
}

// plainTag reports a tag that has no meaning to us, such as !vault.
func (d *decoder) plainTag(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "", "!", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge", "!!seq", "!!map":
		return true
	}
	d.problem(n, "the tag %s means nothing here", quote(n.Tag))
	return false
}

const paramPrefix = `parameter "`

func (d *decoder) problem(n *yaml.Node, format string, a ...any) {
	p := Problem{Path: d.place(""), Msg: fmt.Sprintf(format, a...)}
	if n != nil {
		p.Line, p.Col = n.Line, n.Column
	}
	d.problems = append(d.problems, p)
}

// place says where we are, or something below it is.
func (d *decoder) place(below string) string {
	path := d.path
	if below != "" {
		path = append(slices.Clip(path), below)
	}
	if len(path) == 0 {
		return ""
	}
	var b strings.Builder
	for i, p := range path {
		if i > 0 && !strings.HasPrefix(p, "[") {
			b.WriteByte('.')
		}
		b.WriteString(p)
	}
	if d.params {
		return paramPrefix + b.String() + `"`
	}
	return b.String()
}

func (d *decoder) enter(name string) { d.path = append(d.path, name) }
func (d *decoder) leave()            { d.path = d.path[:len(d.path)-1] }

func (d *decoder) noun() string {
	if d.params && len(d.path) == 0 {
		return "parameter"
	}
	return "key"
}

func (d *decoder) shape(t reflect.Type) *shape {
	if s, ok := d.shapes[t]; ok {
		return s
	}
	s, _ := shapeOf(t)
	if d.shapes == nil {
		d.shapes = make(map[reflect.Type]*shape)
	}
	d.shapes[t] = s
	return s
}

// setText sets v, of a basic kind, from the text of a scalar.
func setText(v reflect.Value, s string) error {
	t := v.Type()
	switch t {
	case durationType:
		dur, err := ParseDuration(s)
		v.SetInt(int64(dur))
		return err
	case fileModeType:
		mode, err := ParseMode(s)
		v.SetUint(uint64(mode))
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := parseBool(s)
		v.SetBool(b)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := parseInt(s, t.Bits())
		v.SetInt(i)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := parseUint(s, t.Bits())
		v.SetUint(u)
		return err
	case reflect.Float32, reflect.Float64:
		f, err := parseFloat(s, t.Bits())
		v.SetFloat(f)
		return err
	default:
		return errors.New("a value of type " + t.String() + " can't be written in YAML")
	}
	return nil
}

// want says what to write for a value of a basic kind.
func want(t reflect.Type) string {
	switch t {
	case durationType:
		return "a duration such as 5s or 1h30m"
	case fileModeType:
		return "an octal mode such as 0644"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "text"
}

// takesScalar says whether a value of type t can be written as a scalar.
func takesScalar(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if implements(t, textUnmarshaler) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Interface:
		return implements(t, nodeDecoder) && t != nodeType
	}
	return true
}

// implements says whether a pointer to t has iface's methods.
func implements(t, iface reflect.Type) bool { return reflect.PointerTo(t).Implements(iface) }

//nolint:gochecknoglobals // constants that Go can't write as such
var (
	nodeType        = reflect.TypeFor[yaml.Node]()
	nodePtrType     = reflect.TypeFor[*yaml.Node]()
	durationType    = reflect.TypeFor[time.Duration]()
	fileModeType    = reflect.TypeFor[fs.FileMode]()
	timeType        = reflect.TypeFor[time.Time]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	nodeDecoder     = reflect.TypeFor[NodeDecoder]()
	yamlUnmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
)
