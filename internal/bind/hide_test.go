package bind

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type hush string

func TestHide(t *testing.T) {
	type inner struct {
		Key  hush
		Name string
		More []inner
	}
	type proto struct {
		Token *hush
		Plain string
		Keys  []hush
		ByID  map[string]hush `yaml:"by_id"`
		In    inner
		Ins   []*inner
	}
	given := map[string]any{
		"token": "{{.Node.Vars.pw}}", "plain": "x", "keys": []any{"a", "", "{{.Job}}"}, "by_id": map[string]any{"one": "b"},
		"in":   map[string]any{"key": 7, "name": "y", "more": []any{map[string]any{"key": "c"}}},
		"ins":  map[string]any{"key": "d", "name": "z"},
		"what": "is no parameter",
	}
	Hide(&proto{}, given, reflect.TypeFor[hush](), "***")
	want := map[string]any{
		"token": "***", "plain": "x", "keys": []any{"***", "", "***"}, "by_id": map[string]any{"one": "***"},
		"in":   map[string]any{"key": "***", "name": "y", "more": []any{map[string]any{"key": "***"}}},
		"ins":  map[string]any{"key": "***", "name": "z"},
		"what": "is no parameter",
	}
	if diff := cmp.Diff(want, given); diff != "" {
		t.Error(diff)
	}
}
