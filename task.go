package loom

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
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

// A Resumer is a Task of which all that matters is done by [Session.Resumable]. If
// Loom ends while it is applied, it is applied again, under the same claim, and
// goes on where it was. What became of other tasks then is not known.
type Resumer interface {
	Task
	Resumes() bool
}

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
type Registry struct {
	tasks map[string]*registered // by name and by alias
	names []string               // sorted, without aliases
}

// A registered is a task that manifests can use.
type registered struct {
	name    string
	proto   Task
	aliases []string
}

// A Param describes one parameter of a task.
type Param = bind.Param

// Add makes a task available to manifests as name, and as each alias. The
// prototype's type says which parameters the task takes; its field values are
// their defaults. Fields tagged yaml:"-" are wiring that every run shares.
//
// Add panics if a name is taken or the prototype isn't a struct, a pointer to
// one, or a TaskFunc: those are mistakes in the program, not in its input.
func (r *Registry) Add(name string, prototype Task, aliases ...string) {
	f, isFunc := prototype.(TaskFunc)
	switch v := reflect.ValueOf(prototype); {
	case isFunc && f == nil, v.Kind() == reflect.Pointer && v.IsNil():
		panic(fmt.Sprintf("loom: Registry.Add(%q): the prototype is nil", name))
	case !isFunc:
		if err := bind.Check(prototype); err != nil {
			panic(fmt.Sprintf("loom: Registry.Add(%q): %v", name, err))
		}
	}
	if r.tasks == nil {
		r.tasks = make(map[string]*registered)
	}
	t := &registered{name: name, proto: prototype, aliases: slices.Clone(aliases)}
	for _, n := range append([]string{name}, aliases...) {
		if n == "" {
			panic("loom: Registry.Add: a task needs a name")
		}
		if other, taken := r.tasks[n]; taken {
			panic(fmt.Sprintf("loom: Registry.Add(%q): the name %q is taken by %q", name, n, other.name))
		}
		r.tasks[n] = t
	}
	i, _ := slices.BinarySearch(r.names, name)
	r.names = slices.Insert(r.names, i, name)
}

// New returns the task called name with its parameters set, for callers that
// have no manifest. The error joins one for every mistake; it wraps ErrNotFound
// if there is no such task.
func (r *Registry) New(name string, args []any, kwargs map[string]any) (Task, error) {
	t := r.lookup(name)
	if t == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, r.unknown(name))
	}
	a, err := bind.Encode(args)
	if err != nil {
		return nil, fmt.Errorf("task %s: args: %w", name, err)
	}
	k, err := bind.Encode(kwargs)
	if err != nil {
		return nil, fmt.Errorf("task %s: kwargs: %w", name, err)
	}
	task, problems := t.bind(new(bind.Binder), a, k, nil)
	if err := joined(problems); err != nil {
		return nil, fmt.Errorf("task %s: %w", name, err)
	}
	return task, nil
}

// All yields the names and prototypes in order of name, without aliases.
func (r *Registry) All() iter.Seq2[string, Task] {
	return func(yield func(string, Task) bool) {
		if r == nil {
			return
		}
		for _, name := range r.names {
			if !yield(name, r.tasks[name].proto) {
				return
			}
		}
	}
}

// Lookup returns the task of that name or alias: its own name, and its
// prototype.
func (r *Registry) Lookup(name string) (canonical string, prototype Task, ok bool) {
	t := r.lookup(name)
	if t == nil {
		return "", nil, false
	}
	return t.name, t.proto, true
}

// Aliases returns the other names of a task, in the order they were added.
func (r *Registry) Aliases(name string) []string {
	if t := r.lookup(name); t != nil {
		return slices.Clone(t.aliases)
	}
	return nil
}

// Params describes the parameters of a task in order; nil if it has none or
// there is no such task.
func (r *Registry) Params(name string) []Param {
	if t := r.lookup(name); t != nil {
		return bind.Params(t.proto)
	}
	return nil
}

// Given returns the parameters of a task of that name or alias that are not what its
// prototype has, as people would write them in YAML: those of a job's Task, for people
// to read. A [Secret] is hidden; a text that came from a secret is not, so
// [Manifest.Redact] it. Of what a manifest gives by a template it returns
// the template, unless that is for a Secret. It is nil if there are none, or the task can't be written so.
func (r *Registry) Given(name string, task Task) map[string]any {
	t := r.lookup(name)
	if t == nil {
		return nil
	}
	switch written := task.(type) {
	case *templated:
		return written.given()
	case templatedPlanner:
		return written.given()
	}
	given, usual := plainValues(task), plainValues(t.proto)
	maps.DeleteFunc(given, func(name string, value any) bool { return reflect.DeepEqual(value, usual[name]) })
	return given
}

// plainValues returns what is set of a task's parameters, as they are read from YAML,
// without secrets.
func plainValues(task Task) (all map[string]any) {
	n, err := bind.Encode(task)
	if err != nil {
		return nil
	}
	secrets := map[string]bool{}
	secretsIn(reflect.ValueOf(task), secrets)
	hide(n, secrets)
	if n.Decode(&all) != nil {
		return nil
	}
	return all
}

// secretsIn finds the values of all that is a Secret. Encode has seen that nothing
// contains itself.
func secretsIn(v reflect.Value, found map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		secretsIn(v.Elem(), found)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Tag.Get("yaml") != "-" {
				secretsIn(v.Field(i), found)
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			secretsIn(v.MapIndex(key), found)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			secretsIn(v.Index(i), found)
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[Secret]() && v.String() != "" {
			found[v.String()] = true
		}
	default: // no text
	}
}

// hide takes secrets out of what was encoded.
func hide(n *yaml.Node, secrets map[string]bool) {
	if secrets[n.Value] {
		n.Value = Secret(n.Value).String()
	}
	for _, one := range n.Content {
		hide(one, secrets)
	}
}

func (r *Registry) lookup(name string) *registered {
	if r == nil {
		return nil
	}
	return r.tasks[name]
}

// unknown says that there is no such task, and what to use instead.
func (r *Registry) unknown(name string) string {
	if why := notATask(name); why != "" {
		return fmt.Sprintf("%q is not a task: %s", name, why)
	}
	if r != nil {
		if near := bind.Nearest(name, maps.Keys(r.tasks)); near != "" {
			return fmt.Sprintf("unknown task %q (did you mean %q?)", name, near)
		}
	}
	return fmt.Sprintf("unknown task %q: \"loomd tasks\" lists those there are", name)
}

// notATask explains names of Fabric that stand for something else than work on
// one machine. It returns "" for all others.
func notATask(name string) string {
	name, ok := strings.CutPrefix(name, "fabric.")
	if !ok {
		return ""
	}
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "env", "shell_env", "path", "prefix":
		return "set the job's env key"
	case "cd", "lcd":
		return "set the job's dir key"
	case "settings", "hide", "show", "quiet", "warn_only":
		return "set the parameters of the task itself"
	case "hosts", "roles", "runs_once", "execute", "task", "parallel", "serial":
		return "set the job's targets key"
	case "require":
		return "a variable that is missing is an error when the manifest is read"
	case "prompt", "open_shell", "confirm":
		return "it asks a person, which a schedule can't"
	}
	return ""
}

// bind returns a task of its own with its parameters set, or the problems. They
// are at the node at if they have no other place.
func (t *registered) bind(b *bind.Binder, args, kwargs, at *yaml.Node) (Task, []bind.Problem) {
	if f, ok := t.proto.(TaskFunc); ok {
		return f, b.Bind(&struct{}{}, args, kwargs, at)
	}
	proto := reflect.ValueOf(t.proto)
	isPointer := proto.Kind() == reflect.Pointer
	if isPointer {
		proto = proto.Elem()
	}
	v := reflect.New(proto.Type())
	v.Elem().Set(proto)
	if problems := b.Bind(v.Interface(), args, kwargs, at); len(problems) > 0 {
		return nil, problems
	}
	if !isPointer {
		v = v.Elem()
	}
	task := v.Interface().(Task)
	if err := validate(task); err != nil {
		p := bind.Problem{Msg: err.Error()}
		if at != nil {
			p.Line, p.Col = at.Line, at.Column
		}
		return nil, []bind.Problem{p}
	}
	return task, nil
}

// validate asks the task itself. A task that panics over odd parameters must
// not stop a daemon that reads them.
func validate(t Task) (err error) {
	v, ok := t.(Validator)
	if !ok {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the task panicked while it checked its parameters: %v", p)
		}
	}()
	return v.Validate()
}

func joined(problems []bind.Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}
