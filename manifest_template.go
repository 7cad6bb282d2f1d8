package loom

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

// bindTask returns the task with its parameters set, or nil if that can't be.
// What is wrong is reported, at each value's place.
func (l *load) bindTask(j *Job, name *located, args, kwargs *yaml.Node) Task {
	t := l.tasks.lookup(name.text)
	if t == nil {
		l.report(problemAt(name.node, "%s", l.tasks.unknown(name.text)))
		return nil
	}
	if refersNowhere(args) || refersNowhere(kwargs) {
		return nil
	}
	l.warnExposed(t, args, kwargs)
	args, kwargs = literally(args, l.expander.Templates), literally(kwargs, l.expander.Templates)
	if !hasTemplate(args) && !hasTemplate(kwargs) {
		task, problems := t.bind(&l.binder, args, kwargs, name.node)
		l.report(problems...)
		return task
	}
	tt := &templated{task: t, args: args, kwargs: kwargs, at: name.node, parsed: map[*yaml.Node]*template.Template{}}
	if problems := tt.parse(args, kwargs); len(problems) > 0 {
		l.report(problems...)
		return nil
	}
	if !l.tryTemplates(j, tt) {
		return nil
	}
	tt = &templated{task: t, args: placeless(args), kwargs: placeless(kwargs)}
	if _, ok := t.proto.(Planner); ok {
		return templatedPlanner{tt}
	}
	return tt
}

// tryTemplates binds the task for each target, with a time and a run that stand
// for any. The same mistake on several nodes is reported once.
func (l *load) tryTemplates(j *Job, tt *templated) bool {
	type found struct {
		node  string
		times int
	}
	sample := templateData{Job: j.Name, Run: newID(time.Time{}), Due: templateTime{time.Now().In(j.Timezone)}}
	problems := map[bind.Problem]*found{}
	var order []bind.Problem
	for _, n := range j.Targets {
		sample.Node = viewOf(n)
		_, bad := tt.bind(&l.binder, sample)
		for _, p := range bad {
			if problems[p] == nil {
				problems[p] = &found{node: n.Name}
				order = append(order, p)
			}
			problems[p].times++
		}
	}
	for _, p := range order {
		f := problems[p]
		switch {
		case f.times == len(j.Targets):
		case f.times == 1:
			p.Msg = fmt.Sprintf("on node %s: %s", f.node, p.Msg)
		case f.times > 1:
			p.Msg = fmt.Sprintf("on node %s and %d more: %s", f.node, f.times-1, p.Msg)
		}
		l.report(p)
	}
	return len(order) == 0
}

// A templated is a task whose parameters hold templates. They are filled and
// bound anew for each node and run. Two that say the same are deeply equal,
// wherever they were read.
type templated struct {
	task         *registered
	args, kwargs *yaml.Node

	// While the manifest is read, and only then:
	at     *yaml.Node
	parsed map[*yaml.Node]*template.Template
}

// given returns the parameters as the manifest has them, by name, without those that
// are a Secret: a template, or what is written beside one, may have a part of it.
func (t *templated) given() map[string]any {
	all := map[string]any{}
	if t.kwargs != nil {
		_ = t.kwargs.Decode(&all) // it was bound once
	}
	var args []any
	if t.args != nil && t.args.Decode(&args) != nil {
		var one any
		_ = t.args.Decode(&one) // a single argument needs no list
		args = []any{one}
	}
	params := bind.Params(t.task.proto)
	for i, p := range params[:min(len(params), len(args))] {
		if p.Rest {
			all[p.Name] = args[i:]
			break
		}
		all[p.Name] = args[i]
	}
	bind.Hide(t.task.proto, all, reflect.TypeFor[Secret](), redacted)
	return all
}

// placeless copies a node, aliases followed, without where it was written. So
// it doesn't hold on to the text it is from.
func placeless(n *yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return placeless(n.Alias)
	}
	out := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value}
	for _, c := range n.Content {
		out.Content = append(out.Content, placeless(c))
	}
	return out
}

// A templatedPlanner is a templated whose task is a Planner.
type templatedPlanner struct{ *templated }

// Apply fills in the templates and applies the task.
func (t *templated) Apply(ctx context.Context, s *Session) error {
	task, err := t.filled(s)
	if err != nil {
		return err
	}
	return task.Apply(ctx, s)
}

// Plan fills in the templates and asks the task.
func (t templatedPlanner) Plan(ctx context.Context, s *Session) ([]Change, error) {
	task, err := t.filled(s)
	if err != nil {
		return nil, err
	}
	return task.(Planner).Plan(ctx, s)
}

// Resumes says what the task says: what is filled in is the same each time.
func (t *templated) Resumes() bool {
	r, ok := t.task.proto.(Resumer)
	return ok && r.Resumes()
}

func (t *templated) filled(s *Session) (Task, error) {
	task, problems := t.bind(new(bind.Binder), templateData{Node: viewOf(s.Node), Job: s.Job, Run: s.RunID, Due: templateTime{s.Due}})
	if err := joined(problems); err != nil {
		return nil, fmt.Errorf("filling in the templates: %w", err)
	}
	return task, nil
}

// The data of a template. Secrets are not in it: what a template can print ends
// up in logs.
type templateData struct {
	Node templateNode
	Job  string
	Run  string
	Due  templateTime
}

type templateNode struct {
	Name, Address, User string
	Port                int
	Groups              []string
	Vars                map[string]any
	Env                 map[string]string
}

func viewOf(n *Node) templateNode {
	v := templateNode{Name: n.Name, Address: n.Address, User: n.User, Port: n.Port, Groups: n.Groups, Vars: n.Vars, Env: n.Env}
	if v.Address == "" {
		v.Address = n.Name
	}
	return v
}

// A templateTime prints as RFC 3339 unless it is told otherwise.
type templateTime struct{ time.Time }

func (t templateTime) String() string { return t.Format(time.RFC3339) }

const templateMark = "{{"

func hasTemplate(n *yaml.Node) bool {
	if n == nil {
		return false
	}
	if n.Kind == yaml.AliasNode {
		return hasTemplate(n.Alias)
	}
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, templateMark) {
		return true
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // keys are names
		}
		if hasTemplate(c) {
			return true
		}
	}
	return false
}

// refersNowhere reports an alias of an anchor that doesn't exist: what is wrong
// with the value then follows from that.
func refersNowhere(n *yaml.Node) bool {
	switch {
	case n == nil:
		return false
	case n.Line == source.Nowhere:
		return true
	case n.Kind == yaml.AliasNode:
		return refersNowhere(n.Alias)
	}
	return slices.ContainsFunc(n.Content, refersNowhere)
}

func parseTemplate(text string) (*template.Template, error) {
	return template.New("").Option("missingkey=error").Funcs(template.FuncMap{"quote": Quote}).Parse(text)
}

// parse parses the templates in all values.
func (t *templated) parse(nodes ...*yaml.Node) []bind.Problem {
	var problems []bind.Problem
	for _, n := range nodes {
		if n == nil {
			continue
		}
		if n.Kind == yaml.AliasNode {
			problems = append(problems, t.parse(n.Alias)...)
			continue
		}
		if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, templateMark) && t.parsed[n] == nil {
			tmpl, err := parseTemplate(n.Value)
			if err != nil {
				problems = append(problems, problemAt(n, "%s", templateProblem(err)))
				continue
			}
			t.parsed[n] = tmpl
		}
		problems = append(problems, t.parse(n.Content...)...)
	}
	return problems
}

// bind returns the task with its templates filled in from data.
func (t *templated) bind(b *bind.Binder, data templateData) (Task, []bind.Problem) {
	f := filler{t: t, data: data}
	args, kwargs := f.fill(t.args), f.fill(t.kwargs)
	if len(f.problems) > 0 {
		return nil, f.problems
	}
	return t.task.bind(b, args, kwargs, t.at)
}

type filler struct {
	t        *templated
	data     templateData
	problems []bind.Problem
}

// fill returns n with its templates filled in; what has none is shared.
func (f *filler) fill(n *yaml.Node) *yaml.Node {
	if !hasTemplate(n) {
		return n
	}
	if n.Kind == yaml.AliasNode {
		return f.fill(n.Alias)
	}
	out := *n
	if n.Kind == yaml.ScalarNode {
		text, err := f.text(n)
		if err != nil {
			f.problems = append(f.problems, problemAt(n, "%s", templateProblem(err)))
		}
		out.Value, out.Tag = text, "!!str"
		return &out
	}
	out.Content = make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			out.Content[i] = c // keys are names
			continue
		}
		out.Content[i] = f.fill(c)
	}
	return &out
}

func (f *filler) text(n *yaml.Node) (string, error) {
	tmpl := f.t.parsed[n]
	if tmpl == nil {
		var err error
		if tmpl, err = parseTemplate(n.Value); err != nil {
			return "", err
		}
	}
	out := &limited{most: 1 << 20}
	err := tmpl.Execute(out, f.data)
	return out.kept.String(), err
}

// templateWhere matches what text/template puts before its messages.
var templateWhere = regexp.MustCompile(`^template: :\d+(?::\d+)?: (?:executing "" at (<.*?>): )?`)

// noField matches what text/template says of a field that isn't there.
var noField = regexp.MustCompile(`^can't evaluate field (\w+) in type loom\.`)

// templateProblem puts a template's error into a sentence.
func templateProblem(err error) string {
	msg := err.Error()
	at := ""
	if m := templateWhere.FindStringSubmatch(msg); m != nil {
		msg, at = msg[len(m[0]):], strings.Trim(m[1], "<>")
	}
	var exec template.ExecError
	if errors.As(err, &exec) && strings.HasPrefix(msg, "map has no entry for key ") {
		return fmt.Sprintf("{{%s}}: the node has no such variable", at)
	}
	if m := noField.FindStringSubmatch(msg); m != nil {
		msg = "there is no " + m[1] + "; a template has .Node (with Name, Address, User, Port, Groups, Vars, Env), .Job, .Run and .Due"
	}
	if at != "" {
		return fmt.Sprintf("{{%s}}: %s", at, msg)
	}
	return "template: " + msg
}
