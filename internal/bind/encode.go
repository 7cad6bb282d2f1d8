package bind

import (
	"encoding"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Encode returns v as a node that [Decode] reads back as v: durations and modes
// as users write them, structs as mappings of what isn't zero. It is how Go
// values become args and kwargs for [Bind]. Nodes it makes have no place. A type
// whose MarshalText hides its value (a secret) stays hidden, and lost.
//
// Numbers are written as they are, so an int meant as a mode reads as octal
// digits (644 is 0644); use an [fs.FileMode]. It fails on values that can't be
// written, such as functions, and on those that contain themselves.
func Encode(v any) (*yaml.Node, error) {
	return encode(reflect.ValueOf(v), 0)
}

func encode(v reflect.Value, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	if !v.IsValid() {
		return scalar("!!null", "null"), nil
	}
	if v.Kind() == reflect.Pointer && v.IsNil() {
		return scalar("!!null", "null"), nil
	}
	if n, done, err := encodeSpecial(v); done {
		return n, err
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return encode(v.Elem(), depth+1)
	case reflect.Struct:
		return encodeStruct(v, depth)
	case reflect.Map:
		return encodeMap(v, depth)
	case reflect.Slice, reflect.Array:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.Len() {
			c, err := encode(v.Index(i), depth+1)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			n.Content = append(n.Content, c)
		}
		return n, nil
	case reflect.String:
		return scalar("!!str", v.String()), nil
	case reflect.Bool:
		return scalar("!!bool", strconv.FormatBool(v.Bool())), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return scalar("!!int", strconv.FormatInt(v.Int(), 10)), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return scalar("!!int", strconv.FormatUint(v.Uint(), 10)), nil
	case reflect.Float32, reflect.Float64:
		return encodeFloat(v), nil
	}
	return nil, fmt.Errorf("a value of type %v can't be written in YAML", v.Type())
}

// encodeSpecial encodes the types that have a way of their own.
func encodeSpecial(v reflect.Value) (n *yaml.Node, done bool, err error) {
	if !v.CanInterface() {
		return nil, true, fmt.Errorf("a value of type %v is not exported", v.Type())
	}
	switch x := v.Interface().(type) {
	case *yaml.Node:
		return x, true, nil
	case yaml.Node:
		return &x, true, nil
	case time.Duration:
		return scalar("!!str", FormatDuration(x)), true, nil
	case fs.FileMode:
		return scalar("!!str", FormatMode(x)), true, nil
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		return scalar("!!str", string(text)), true, err
	}
	if v.CanAddr() {
		if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v.Addr()); ok {
			text, err := m.MarshalText()
			return scalar("!!str", string(text)), true, err
		}
	}
	return nil, false, nil
}

func encodeStruct(v reflect.Value, depth int) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	s, _ := shapeOf(v.Type())
	for _, f := range s.fields {
		value := v.FieldByIndex(f.index)
		if value.IsZero() && !f.required {
			continue
		}
		c, err := encode(value, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		n.Content = append(n.Content, scalar("!!str", f.name), c)
	}
	if s.others != nil {
		m, err := encodeMap(v.FieldByIndex(s.others), depth)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, m.Content...)
	}
	return n, nil
}

func encodeMap(v reflect.Value, depth int) (*yaml.Node, error) {
	type entry struct{ key, value *yaml.Node }
	var entries []entry
	for k, e := range v.Seq2() {
		key, err := encode(k, depth+1)
		if err != nil {
			return nil, err
		}
		value, err := encode(e, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key.Value, err)
		}
		entries = append(entries, entry{key, value})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key.Value, b.key.Value) })
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, e := range entries {
		n.Content = append(n.Content, e.key, e.value)
	}
	return n, nil
}

func encodeFloat(v reflect.Value) *yaml.Node {
	s := strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits())
	if !strings.ContainsAny(s, ".eN") && s != "+Inf" && s != "-Inf" {
		return scalar("!!float", s+".0") // stays a float where the type is not known
	}
	return scalar("!!float", strings.NewReplacer("NaN", ".nan", "+Inf", ".inf", "-Inf", "-.inf").Replace(s))
}

func scalar(tag, text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
}
