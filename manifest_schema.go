package loom

import (
	"encoding/json"
	"strings"

	"github.com/dustinlacewell/loom/internal/bind"
)

// Schema returns the JSON Schema (draft 2020-12) of a job manifest that uses
// these tasks, for editors.
func (r *Registry) Schema() []byte {
	job := bind.SchemaOf(builtinDefaults())
	keys := job["properties"].(map[string]any)
	var names []any
	params := map[string]any{}
	for name, proto := range r.All() {
		all := append([]string{name}, r.Aliases(name)...)
		for _, n := range all {
			names = append(names, n)
		}
		params[name] = bind.Schema(proto)
	}
	text := map[string]any{"type": "string"}
	describe := func(key string, schema map[string]any) {
		if old, ok := keys[key].(map[string]any); ok && old["description"] != nil {
			schema["description"] = old["description"]
		}
		keys[key] = schema
	}
	task := func() map[string]any {
		if len(names) == 0 {
			return text
		}
		return map[string]any{"enum": names}
	}
	describe("task", task())
	describe("targets", map[string]any{"$ref": "#/$defs/targets"})
	describe("schedule", anyOf(text, map[string]any{"type": "array", "items": text}))
	describe("at", map[string]any{"type": "string", "format": "date-time"})
	steps := bind.SchemaOf(stepSpec{})
	steps["properties"].(map[string]any)["task"] = task()
	steps["allOf"] = r.perTask()
	describe("steps", map[string]any{"type": "array", "items": steps})
	job["allOf"] = r.perTask()
	job["oneOf"] = []any{map[string]any{"required": []any{"task"}}, map[string]any{"required": []any{"steps"}}}
	job["type"] = "object"

	schema := map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "Loom job manifest",
		"description": "Jobs by name. Other keys at the top may define anchors.",
		"type":        "object",
		"properties":  map[string]any{"jobs": map[string]any{"type": []any{"object", "null"}, "additionalProperties": map[string]any{"$ref": "#/$defs/job"}}},
		"$defs": map[string]any{
			"job":     job,
			"targets": anyOf(text, map[string]any{"type": "array", "items": map[string]any{"$ref": "#/$defs/targets"}}),
			"tasks":   params,
		},
	}
	out, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		panic("loom: Registry.Schema: " + err.Error()) // it is made of maps and strings
	}
	return append(out, '\n')
}

// perTask says of each task what its args and kwargs are.
func (r *Registry) perTask() []any {
	var rules []any
	for name := range r.All() {
		var names []any
		for _, n := range append([]string{name}, r.Aliases(name)...) {
			names = append(names, n)
		}
		rules = append(rules, map[string]any{
			"if":   map[string]any{"required": []any{"task"}, "properties": map[string]any{"task": map[string]any{"enum": names}}},
			"then": map[string]any{"$ref": "#/$defs/tasks/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)},
		})
	}
	return rules
}
