package bind

import "reflect"

// A cloner copies values so that the copies share no slice, map or pointer with
// the originals, as far as exported fields go.
type cloner struct {
	made map[uintptr]reflect.Value // copies of maps and pointers, so that what is shared or cyclic stays so
}

func (c *cloner) clone(v reflect.Value, depth int) reflect.Value {
	if depth > maxDepth {
		return v
	}
	switch v.Kind() {
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(c.clone(v.Index(i), depth+1))
		}
		return out
	case reflect.Array:
		out := reflect.New(v.Type()).Elem()
		for i := range v.Len() {
			out.Index(i).Set(c.clone(v.Index(i), depth+1))
		}
		return out
	case reflect.Map, reflect.Pointer:
		if v.IsNil() {
			return v
		}
		return c.reference(v, depth)
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		out := reflect.New(v.Type()).Elem()
		out.Set(c.clone(v.Elem(), depth+1))
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		if v.Type() == nodeType {
			return out
		}
		for i := range v.NumField() {
			if f := out.Field(i); f.CanSet() {
				f.Set(c.clone(f, depth+1))
			}
		}
		return out
	}
	return v
}

// reference clones a map or a pointer that isn't nil.
func (c *cloner) reference(v reflect.Value, depth int) reflect.Value {
	if out, ok := c.made[v.Pointer()]; ok && out.Type() == v.Type() {
		return out
	}
	if v.Kind() == reflect.Pointer && opaque(v.Type().Elem()) {
		return v
	}
	if c.made == nil {
		c.made = make(map[uintptr]reflect.Value)
	}
	if v.Kind() == reflect.Pointer {
		out := reflect.New(v.Type().Elem())
		c.made[v.Pointer()] = out
		out.Elem().Set(c.clone(v.Elem(), depth+1))
		return out
	}
	out := reflect.MakeMapWithSize(v.Type(), v.Len())
	c.made[v.Pointer()] = out
	for k, e := range v.Seq2() {
		out.SetMapIndex(k, c.clone(e, depth+1))
	}
	return out
}

// opaque says that a copy of a t might not work, since it has fields that we
// can't see (a mutex, say).
func opaque(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			return true
		}
	}
	return t == nodeType
}
