package bind

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A Param describes one parameter of a task, or one key of a mapping, to people
// and programs.
type Param struct {
	Name     string  `json:"name"`
	Type     string  `json:"type"` // in words: "duration", "list of string", "octal mode"
	Help     string  `json:"help,omitempty"`
	Required bool    `json:"required,omitempty"`
	Rest     bool    `json:"rest,omitempty"`    // takes the remaining positional args
	Default  any     `json:"default,omitempty"` // as a user would write it ("30s", "0644"); nil if it is the zero value
	Fields   []Param `json:"fields,omitempty"`  // of the struct that the value, or each of its elements, is
}

// Params describes the parameters of a prototype (a struct or a pointer to
// one), in order. Anything else has none.
func Params(proto any) []Param {
	v := structOf(proto)
	if !v.IsValid() {
		return nil
	}
	return params(v, nil)
}

func params(v reflect.Value, within []reflect.Type) []Param {
	if slices.Contains(within, v.Type()) {
		return nil // a recursive type: described once
	}
	within = append(slices.Clip(within), v.Type())
	s, _ := shapeOf(v.Type())
	var out []Param
	for _, f := range s.fields {
		p := Param{Name: f.name, Type: typeName(f.typ, 0), Help: f.help, Required: f.required, Rest: f.rest}
		value := v.FieldByIndex(f.index)
		p.Default = plainDefault(value)
		if inner := structIn(f.typ); inner != nil {
			p.Fields = params(reflect.New(inner).Elem(), within)
		}
		out = append(out, p)
	}
	return out
}

// Schema returns the JSON Schema (2020-12) of a mapping's args and kwargs keys
// for the task whose prototype this is. It says nothing about other keys, so it
// can stand beside what the caller knows of them. Values marshal the same way
// each time.
func Schema(proto any) map[string]any {
	v := structOf(proto)
	args := map[string]any{"items": false}
	kwargs := map[string]any{"type": []any{"object", "null"}, "additionalProperties": false}
	schema := map[string]any{"properties": map[string]any{"args": args, "kwargs": kwargs}}
	if !v.IsValid() {
		args["type"], args["maxItems"] = []any{"array", "null"}, 0
		return schema
	}
	s, _ := shapeOf(v.Type())
	properties := map[string]any{}
	prefix := []any{}
	needs := []any{}
	for i, f := range s.fields {
		p := fieldSchema(f, v, nil)
		properties[f.name] = p
		if f.rest {
			args["items"] = valueSchema(f.typ.Elem(), nil)
		} else {
			prefix = append(prefix, p)
		}
		if f.required {
			needs = append(needs, given(f.name, i))
		}
	}
	kwargs["properties"] = properties
	if s.others != nil {
		kwargs["additionalProperties"] = valueSchema(v.Type().FieldByIndex(s.others).Type.Elem(), nil)
	}
	args["type"] = scalarTypes("array", "null")
	if len(prefix) > 0 {
		args["prefixItems"] = prefix
	}
	if len(needs) > 0 {
		schema["allOf"] = needs
	}
	return schema
}

// given is the schema of a mapping that gives a parameter, by position i or by
// name.
func given(name string, i int) map[string]any {
	byPosition := map[string]any{"type": "array", "minItems": i + 1}
	if i == 0 {
		byPosition["type"] = scalarTypes("array")
	}
	byName := map[string]any{"type": "object", "required": []any{name}}
	return map[string]any{"anyOf": []any{
		map[string]any{"required": []any{"args"}, "properties": map[string]any{"args": byPosition}},
		map[string]any{"required": []any{"kwargs"}, "properties": map[string]any{"kwargs": byName}},
	}}
}

// SchemaOf returns the JSON Schema (2020-12) of what [Decode] accepts for a
// value of v's type; v's own values are the defaults.
func SchemaOf(v any) map[string]any {
	if s := structOf(v); s.IsValid() {
		return structSchema(s, nil)
	}
	if v == nil {
		return map[string]any{}
	}
	return valueSchema(reflect.TypeOf(v), nil)
}

// A Schemer is a type that writes its own JSON Schema, as a [NodeDecoder]
// should: nobody else can know what it accepts.
type Schemer interface {
	JSONSchema() map[string]any
}

func fieldSchema(f field, v reflect.Value, within []reflect.Type) map[string]any {
	schema := maps.Clone(valueSchema(f.typ, within))
	if f.help != "" {
		schema["description"] = f.help
	}
	if def := plainDefault(v.FieldByIndex(f.index)); def != nil {
		schema["default"] = def
	}
	return schema
}

func structSchema(v reflect.Value, within []reflect.Type) map[string]any {
	t := v.Type()
	if slices.Contains(within, t) {
		return map[string]any{}
	}
	within = append(slices.Clip(within), t)
	s, _ := shapeOf(t)
	properties := map[string]any{}
	required := []any{}
	for _, f := range s.fields {
		properties[f.name] = fieldSchema(f, v, within)
		if f.required {
			required = append(required, f.name)
		}
	}
	schema := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if s.others != nil {
		schema["additionalProperties"] = valueSchema(t.FieldByIndex(s.others).Type.Elem(), within)
	}
	if len(required) > 0 {
		schema["required"] = required
	} else {
		schema["type"] = []any{"object", "null"}
	}
	return schema
}

func valueSchema(t reflect.Type, within []reflect.Type) map[string]any {
	if s, ok := reflect.TypeAssert[Schemer](reflect.New(t)); ok {
		return s.JSONSchema()
	}
	switch t {
	case nodeType, nodePtrType:
		return map[string]any{}
	case durationType: // the limits are those of a number, so that 0 needs no unit
		return map[string]any{"type": []any{"string", "integer"}, "minimum": 0, "maximum": 0,
			"pattern": `^(0|([0-9.]+d)([0-9.]+(ns|us|µs|ms|s|m|h))*|([0-9.]+(ns|us|µs|ms|s|m|h))+)$`}
	case fileModeType:
		return map[string]any{"type": []any{"string", "integer"}, "pattern": `^(0o)?0*[0-7]{1,4}$`}
	case timeType:
		return map[string]any{"type": "string", "format": "date-time"}
	}
	if implements(t, nodeDecoder) {
		return map[string]any{}
	}
	if implements(t, textUnmarshaler) {
		return map[string]any{"type": scalarTypes()}
	}
	return kindSchema(t, within)
}

func kindSchema(t reflect.Type, within []reflect.Type) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		return map[string]any{"anyOf": []any{valueSchema(t.Elem(), within), map[string]any{"type": "null"}}}
	case reflect.Struct:
		return structSchema(reflect.New(t).Elem(), within)
	case reflect.Map:
		return map[string]any{"type": []any{"object", "null"}, "additionalProperties": elemSchema(t, within)}
	case reflect.Slice:
		types := []any{"array", "null"}
		if takesScalar(t.Elem()) {
			types = append(types, scalarTypes()...)
		}
		return map[string]any{"type": types, "items": elemSchema(t, within)}
	case reflect.Array:
		return map[string]any{"type": "array", "items": elemSchema(t, within), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.String:
		return map[string]any{"type": scalarTypes()}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	}
	return map[string]any{}
}

// elemSchema is that of t's elements, and ends at types that contain themselves.
func elemSchema(t reflect.Type, within []reflect.Type) map[string]any {
	if slices.Contains(within, t) {
		return map[string]any{}
	}
	return valueSchema(t.Elem(), append(slices.Clip(within), t))
}

// scalarTypes are JSON's names for what YAML may make of a scalar.
func scalarTypes(more ...any) []any {
	return append(more, "string", "number", "boolean")
}

// typeName says what a type is, in words.
func typeName(t reflect.Type, depth int) string {
	switch {
	case depth > 4, t == nodeType:
		return "anything"
	case t == durationType:
		return "duration"
	case t == fileModeType:
		return "octal mode"
	case implements(t, textUnmarshaler), implements(t, nodeDecoder):
		return strings.ToLower(t.Name())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		return "list of " + typeName(t.Elem(), depth+1)
	case reflect.Map:
		return "map of " + typeName(t.Elem(), depth+1)
	case reflect.Struct:
		return "mapping"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	}
	return "anything"
}

// structIn returns the struct type that t is, or whose list, map or pointer it
// is, if its keys are for users to write; else nil.
func structIn(t reflect.Type) reflect.Type {
	for range 4 {
		if t == nodeType || implements(t, textUnmarshaler) {
			return nil
		}
		switch t.Kind() {
		case reflect.Struct:
			return t
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			t = t.Elem()
		default:
			return nil
		}
	}
	return nil
}

// structOf returns the struct that proto is or points to, or nothing.
func structOf(proto any) reflect.Value {
	v := reflect.ValueOf(proto)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.New(v.Type().Elem())
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v
}

// plainDefault returns v as a user would write it, or nil if it is zero or can't
// be written.
func plainDefault(v reflect.Value) any {
	if v.IsZero() {
		return nil
	}
	n, err := encode(v, 0)
	if err != nil {
		return nil
	}
	var d decoder
	var out any
	if d.sane(n) {
		out = d.natural(n)
	}
	return out
}
