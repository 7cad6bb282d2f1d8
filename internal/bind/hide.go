package bind

import "reflect"

// Hide puts mask in the place of all that is of the type secret in the parameters
// of a prototype, by name, as they were read from YAML. Whatever was written for it
// is hidden, a template too; what is empty is not.
func Hide(proto any, given map[string]any, secret reflect.Type, mask string) {
	if v := structOf(proto); v.IsValid() {
		hide(given, v.Type(), secret, mask)
	}
}

// hide returns what to show of a value that is to be of type t. Lists and mappings
// are changed in place.
func hide(value any, t, secret reflect.Type, mask string) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == secret {
		if value == nil || value == "" {
			return value
		}
		return mask
	}
	switch t.Kind() {
	case reflect.Struct:
		if m, ok := value.(map[string]any); ok {
			s, _ := shapeOf(t)
			for _, f := range s.fields {
				if v, has := m[f.name]; has {
					m[f.name] = hide(v, f.typ, secret, mask)
				}
			}
		}
	case reflect.Map:
		switch m := value.(type) {
		case map[string]any:
			for k, v := range m {
				m[k] = hide(v, t.Elem(), secret, mask)
			}
		case map[any]any:
			for k, v := range m {
				m[k] = hide(v, t.Elem(), secret, mask)
			}
		}
	case reflect.Slice, reflect.Array:
		all, ok := value.([]any)
		if !ok {
			return hide(value, t.Elem(), secret, mask) // one that needs no list
		}
		for i, v := range all {
			all[i] = hide(v, t.Elem(), secret, mask)
		}
	default: // has nothing in it
	}
	return value
}
