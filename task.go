package loom

import (
	"context"
	"iter"
)

// A Task is one thing Loom can do to one node.
//
// A Task is a value: its exported fields are its parameters. The manifest
// loader fills them once, when the manifest is read, and the same value is then
// applied to every target node, often at the same time. Apply must therefore
// not change its receiver; give it a value receiver and it can't.
type Task interface {
	// Apply does the work on the node that s is connected to. It returns nil
	// if the node is now as the task wants it, an error made by Skip if there
	// is nothing to do, and promptly once ctx is done.
	Apply(ctx context.Context, s *Session) error
}

// TaskFunc adapts an ordinary function to a Task that has no parameters.
type TaskFunc func(ctx context.Context, s *Session) error

// Apply calls f.
func (f TaskFunc) Apply(ctx context.Context, s *Session) error { return f(ctx, s) }

// A Validator is a Task with rules that its field types can't express.
// Validate is called once, after the manifest has filled the fields.
type Validator interface {
	Validate() error
}

// A Planner is a Task that can tell what Apply would change, without changing
// anything. A dry run calls only Plan.
type Planner interface {
	Plan(ctx context.Context, s *Session) ([]Change, error)
}

// A Change is one thing that a task would change, in the words of
// [Session.Changed].
type Change string

// A Registry maps the names that manifests use to tasks. The zero Registry is
// empty and ready to use. Adding is not safe while the registry is in use;
// everything else is safe for concurrent use.
type Registry struct{}

// Add makes a task available to manifests as name, and as each alias. The
// prototype's type says which parameters the task takes; its field values are
// their defaults. Fields tagged yaml:"-" are wiring that every run shares.
//
// Add panics if a name is taken or the prototype isn't a struct, a pointer to
// one, or a TaskFunc: those are mistakes in the program, not in its input.
func (r *Registry) Add(name string, prototype Task, aliases ...string) { panic("soon") }

// New returns the task called name with its parameters set, for callers that
// have no manifest. The error joins one for every mistake.
func (r *Registry) New(name string, args []any, kwargs map[string]any) (Task, error) { panic("soon") }

// All yields the names and prototypes in order of name, without aliases.
func (r *Registry) All() iter.Seq2[string, Task] { panic("soon") }

// Schema returns the JSON Schema of a manifest that uses these tasks.
func (r *Registry) Schema() []byte { panic("soon") }
