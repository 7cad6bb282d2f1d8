package loom

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

// A jobFile is what was read of one job manifest.
type jobFile struct {
	name     string
	isOne    bool // it has jobs, or should have
	jobs     []*Job
	after    []afterRef
	problems []*ManifestError
}

// An afterRef is the mention of another job under after, which may be defined
// in any file.
type afterRef struct {
	job   *Job
	other string
	at    *ManifestError // without Err
}

// jobFile reads one job manifest. What is wrong in it, or only with it, is with
// the result and not with the load.
func (l *load) jobFile(name string, text []byte) *jobFile {
	before := len(l.problems)
	f := &jobFile{name: name}
	l.here = name
	tree := l.parse(name, text, l.data)
	if tree.Root != nil && tree.Root.Kind == yaml.MappingNode {
		l.manifest(f, tree.Root, len(text))
	}
	f.problems = l.takeProblems(before)
	f.isOne = f.isOne || len(f.problems) > 0
	return f
}

func (l *load) manifest(f *jobFile, root *yaml.Node, size int) {
	pairs, problems := bind.Pairs(root)
	known := slices.Values([]string{"jobs", "resources"})
	f.isOne = slices.ContainsFunc(pairs, func(p bind.Pair) bool {
		return p.Name == "jobs" || p.Name == "resources" || bind.Nearest(p.Name, known) != "" && !definesAnchor(p.Value)
	})
	if !f.isOne {
		return
	}
	l.report(problems...)
	for _, p := range pairs {
		switch {
		case p.Name == "jobs":
			l.jobs(f, p.Value, source.Budget{Left: 200_000 + size})
		case p.Name == "resources":
			l.report(problemAt(p.Key, "resources need a later version of Loom: this one reads jobs only"))
		case !definesAnchor(p.Value):
			hint := ""
			if near := bind.Nearest(p.Name, known); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			l.report(problemAt(p.Key, "unknown key %q: it is not jobs and defines no anchor%s", p.Name, hint))
		}
	}
}

func (l *load) jobs(f *jobFile, n *yaml.Node, budget source.Budget) {
	if n.Kind == yaml.SequenceNode {
		l.report(problemAt(n, "jobs: write a mapping of names and jobs, not a list"))
		return
	}
	pairs, problems := bind.Pairs(n)
	l.report(within("jobs", problems)...)
	for _, p := range pairs {
		for _, key := range l.keys(p.Value) {
			if key.Name != "targets" && !budget.Spend(key.Value) {
				l.report(problemAt(p.Key, "aliases make this file too large: from here on they stand for too many values"))
				return
			}
		}
		f.jobs = append(f.jobs, l.job(f, p))
	}
}

// A jobReader makes one job of what a manifest says.
type jobReader struct {
	*load
	pair bind.Pair
	keys map[string]bind.Pair
	spec jobSpec
	job  *Job
}

func (l *load) job(f *jobFile, p bind.Pair) *Job {
	r := &jobReader{load: l, pair: p, spec: l.defaults, job: &Job{Name: p.Name, Base: l.top}}
	r.job.File, r.job.Line = l.set.Position(p.Key.Line)
	r.job.Col = p.Key.Column
	if why := badJobName(p.Name); why != "" {
		l.report(problemAt(p.Key, "%s", why))
	}
	if p.Value.Kind != yaml.MappingNode {
		if p.Value.Line != source.Nowhere {
			l.report(problemAt(p.Key, "job %q: write a mapping of task, targets, schedule and so on", p.Name))
		}
		return r.job
	}
	r.keys = l.keys(p.Value)
	l.report(l.binder.Decode(&r.spec, p.Value)...)
	r.words()
	r.when()
	r.what()
	r.where()
	r.describe()
	r.later(f)
	return r.job
}

func badJobName(name string) string {
	odd := func(r rune) bool { return unicode.IsControl(r) || !unicode.IsPrint(r) || r == '/' }
	switch {
	case strings.TrimSpace(name) != name || name == "" || strings.HasPrefix(name, "-") || name == "." || name == "..",
		strings.ContainsFunc(name, odd):
		return fmt.Sprintf("%q can't be the name of a job: it must not be empty, begin with - or a space, or contain / or control characters", name)
	case len(name) > 200:
		return "the name of a job has at most 200 letters"
	}
	return ""
}

// at returns where a key's value is written, in the job or else the defaults.
func (r *jobReader) at(key string) *yaml.Node {
	if p, ok := r.keys[key]; ok {
		return p.Value
	}
	if p, ok := r.defaultKeys[key]; ok {
		return p.Value
	}
	return r.pair.Key
}

// words sets what needs no more than copying.
func (r *jobReader) words() {
	s, j := &r.spec, r.job
	j.Description, j.Owner, j.Runbook, j.Labels = s.Description, s.Owner, s.Runbook, s.Labels
	j.Disabled = !s.Enabled
	j.Timeout, j.Overlap, j.Resumable = s.Timeout, Overlap(s.Overlap), s.Resumable
	j.User, j.Sudo, j.Env, j.Dir = s.User, string(s.Sudo), s.Env, s.Dir
	j.Retries = s.Retries.retries()
	j.Missed = Missed{Policy: MissedPolicy(s.Missed.Policy), Within: s.Missed.Within}
	j.Jitter = Jitter{Max: s.Jitter.Max, ByNode: bool(s.Jitter.By)}
	for _, size := range s.Batch {
		if size == (shareSpec{}) {
			r.report(problemAt(r.at("batch"), "batch: write a number of nodes from 1, or a percentage greater than 0%%"))
		}
		j.Batch.Sizes = append(j.Batch.Sizes, Share(size))
	}
	j.Batch.MaxFailures = (*Share)(s.MaxFailures)
	j.Output = LogFile{File: r.path(s.Log.File), MaxSize: int64(s.Log.MaxSize), Keep: s.Log.Keep}
	if strings.HasPrefix(j.User, "-") || strings.ContainsAny(j.User, " \t\n/:") {
		r.report(problemAt(r.at("user"), "user: %q is not the name of a user", j.User))
	}
}

// A cronKey is an expression in a time zone.
type cronKey struct {
	expr string
	zone *time.Location
}

type cronResult struct {
	schedule Schedule
	err      error
}

// schedule parses an expression, once for all jobs that have it.
func (l *load) schedule(expr *located, zone *time.Location) Schedule {
	key := cronKey{expr.text, zone}
	result, ok := l.cron[key]
	if !ok {
		result.schedule, result.err = ParseSchedule(expr.text, zone)
		l.cron[key] = result
	}
	if result.err != nil {
		l.report(problemAt(expr.node, "%v", result.err))
	}
	return result.schedule
}

// when sets what makes the job due.
func (r *jobReader) when() {
	s, j := &r.spec, r.job
	j.Timezone = r.config.Timezone
	if s.Timezone != nil {
		if j.Timezone = r.zone(s.Timezone); j.Timezone == nil {
			j.Timezone = time.UTC
		}
	}
	var all Schedules
	manual := false
	for i := range s.Schedule {
		expr := &s.Schedule[i]
		if strings.TrimSpace(expr.text) == "manual" {
			manual = true
			continue
		}
		if one := r.schedule(expr, j.Timezone); one != nil {
			all = append(all, one)
		}
	}
	switch {
	case len(all) == 1:
		j.Schedule = all[0]
	case len(all) > 1:
		j.Schedule = all
	}
	if manual && len(s.Schedule) > 1 {
		r.report(problemAt(r.at("schedule"), "schedule: manual means only when asked, so it can't stand beside other schedules"))
	}
	if s.At != nil {
		at, err := time.Parse(time.RFC3339, s.At.text)
		if err != nil {
			r.report(problemAt(s.At.node, "at: write a time with its zone, such as 2026-01-31T15:04:05Z or 2026-01-31T15:04:05+01:00, not %q", s.At.text))
		}
		j.At = at
	}
	for i := range s.NotDuring {
		if b, ok := r.blackout(&s.NotDuring[i]); ok {
			j.NotDuring = append(j.NotDuring, b)
		}
	}
	if len(s.Schedule) == 0 && s.At == nil && len(s.After) == 0 && !r.dubious("schedule") {
		r.report(problemAt(r.pair.Key, "job %q has none of schedule, at and after, so nothing would start it; write schedule: manual if it only runs when asked", j.Name))
	}
}

// dubious says that a key's value was wrong in a way that was reported.
func (r *jobReader) dubious(key string) bool {
	n := r.keys[key].Value
	return n != nil && (n.Line == source.Nowhere || n.Kind == yaml.MappingNode)
}

func (r *jobReader) blackout(b *blackoutSpec) (Blackout, bool) {
	if b.Schedule != nil {
		s := r.schedule(b.Schedule, r.job.Timezone)
		if s != nil && FiresAtStart(s) {
			r.report(problemAt(b.Schedule.node, "not_during: @reboot is no time at which a window could begin"))
		}
		return Blackout{Schedule: s, For: b.For}, s != nil
	}
	from, to := b.From, b.To
	if b.Date != nil {
		from, to = b.Date, b.Date
	}
	if from == nil || to == nil {
		return Blackout{}, false // reported
	}
	start, _, ok1 := r.moment(from)
	last, isDate, ok2 := r.moment(to)
	if !ok1 || !ok2 {
		return Blackout{}, false
	}
	if isDate {
		last = last.AddDate(0, 0, 1) // the day belongs to it
	}
	if !start.Before(last) {
		r.report(problemAt(b.node, "not_during: it ends before it begins"))
		return Blackout{}, false
	}
	return Blackout{From: start, To: last}, true
}

func (r *jobReader) moment(text *located) (t time.Time, isDate, ok bool) {
	if t, err := time.Parse(time.RFC3339, text.text); err == nil {
		return t, false, true
	}
	t, err := time.ParseInLocation(time.DateOnly, text.text, r.job.Timezone)
	if err != nil {
		r.report(problemAt(text.node, "not_during: write a date such as 2026-12-24 or a time such as 2026-12-24T15:04:05Z, not %q", text.text))
	}
	return t, true, err == nil
}

// what sets the task or the steps.
func (r *jobReader) what() {
	s, j := &r.spec, r.job
	_, ownTask := r.keys["task"]
	_, ownSteps := r.keys["steps"]
	switch {
	case ownTask && !ownSteps:
		s.Steps = nil // the defaults'
	case ownSteps && !ownTask:
		s.Task = nil
	}
	switch {
	case s.Task != nil && len(s.Steps) > 0:
		r.report(problemAt(r.keys["steps"].Key, "job %q has both task and steps: move the task into the steps", j.Name))
	case s.Task != nil:
		j.TaskName = s.Task.text
	case len(s.Steps) > 0:
		for _, key := range []string{"args", "kwargs"} {
			if p, ok := r.keys[key]; ok {
				r.report(problemAt(p.Key, "%s belong to a task: move them into a step", key))
			}
		}
	case ownSteps && len(s.Steps) == 0 && r.dubious("steps"), ownTask && r.dubious("task"):
	default:
		r.report(problemAt(r.pair.Key, "job %q has no task", j.Name))
	}
	for i, step := range s.Steps {
		if step.Task == nil {
			continue // reported
		}
		j.Steps = append(j.Steps, Step{Name: step.Name, TaskName: step.Task.text, On: StepOn(step.On)})
		if i == 0 && step.On == onSpec(OnFailed) {
			r.report(problemAt(step.Task.node, "the first step can't run on: failed, since nothing is before it"))
		}
	}
}

// where sets the targets, and binds the tasks, whose parameters may depend on
// them.
func (r *jobReader) where() {
	s, j := &r.spec, r.job
	var words []string
	if s.Targets == nil {
		if !r.dubious("targets") {
			r.report(problemAt(r.pair.Key, "job %q has no targets", j.Name))
		}
	} else {
		c := r.targets(s.Targets)
		j.Targets, words = c.nodes, c.words
	}
	if s.Task != nil && len(s.Steps) == 0 {
		j.Task = r.bindTask(j, s.Task, s.Args, s.Kwargs)
	}
	i := 0
	for _, step := range s.Steps {
		if step.Task != nil {
			j.Steps[i].Task = r.bindTask(j, step.Task, step.Args, step.Kwargs)
			i++
		}
	}
	if j.Description == "" {
		j.Description = j.TaskName
		if j.TaskName == "" {
			var names []string
			for _, step := range j.Steps {
				names = append(names, step.TaskName)
			}
			j.Description = joinWords(names)
		}
		j.Description += " @ " + joinWords(words)
	}
}

// describe checks what refers to the rest of the main file.
func (r *jobReader) describe() {
	if r.spec.Notify.To != nil {
		r.job.Notify.To = []string{} // nobody, if there is none
	}
	for _, on := range r.spec.Notify.On {
		r.job.Notify.On = append(r.job.Notify.On, string(on))
	}
	for _, to := range r.spec.Notify.To {
		if r.config.NotifyTarget(to.text) == nil {
			hint := ""
			if near := bind.Nearest(to.text, r.config.notifyNames()); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			r.report(problemAt(to.node, "notify: the main file has no notification target %q%s", to.text, hint))
		}
		r.job.Notify.To = append(r.job.Notify.To, to.text)
	}
}

// later notes what can be checked only when all files are read.
func (r *jobReader) later(f *jobFile) {
	for _, a := range r.spec.After {
		if a.Job == nil {
			continue // reported
		}
		on := AfterOn(a.On)
		if on == "" {
			on = AfterOK
		}
		r.job.After = append(r.job.After, After{Job: a.Job.text, On: on})
		if at := r.located(problemAt(a.Job.node, "")); at != nil {
			f.after = append(f.after, afterRef{r.job, a.Job.text, at})
		}
	}
}

// maxHints is after how many mistakes in one file no more suggestions are made
// that compare a word with all nodes: something else is wrong then.
const maxHints = 100

// A chosen is what targets come to.
type chosen struct {
	nodes []*Node
	words []string
}

// A targetWord is one pattern, and where it was written.
type targetWord struct {
	text string
	node *yaml.Node
}

// targets resolves targets, once for each place where they are written.
func (l *load) targets(n *yaml.Node) chosen {
	if c, ok := l.chosen[n]; ok {
		return c
	}
	f := flattener{load: l, seen: map[*yaml.Node]bool{}}
	f.flatten(n)
	var c chosen
	for _, w := range f.words {
		c.words = append(c.words, w.text)
	}
	if f.unsure {
		return c
	}
	if !l.lame {
		nodes, bad := l.inventory.chooseHinting(c.words, len(l.problems) < maxHints)
		for _, b := range bad {
			at := n
			if b.i >= 0 {
				at = f.words[b.i].node
			}
			l.report(problemAt(at, "targets: %v", b.err))
		}
		c.nodes = nodes
		if len(bad) > 0 {
			return c // said again for each job that uses it, and then folded
		}
	}
	l.chosen[n] = c
	return c
}

// A flattener makes one list of patterns of nested lists.
type flattener struct {
	*load
	words  []targetWord
	seen   map[*yaml.Node]bool // lists; what a list adds, it adds once
	unsure bool                // something was wrong, and reported
}

func (f *flattener) flatten(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Line == source.Nowhere:
		f.unsure = true
	case n.Kind == yaml.SequenceNode:
		if f.seen[n] {
			return
		}
		f.seen[n] = true
		for _, c := range n.Content {
			f.flatten(c)
		}
	case n.Kind != yaml.ScalarNode:
		f.wrong(n, "targets: write a list of nodes, groups and patterns, not a mapping")
	case isLocalTag(n.Tag) && n.Value == "":
		// An exclusion that was not quoted, which is a tag to YAML.
		f.words = append(f.words, targetWord{n.Tag, n})
	case n.ShortTag() == "!!null" || strings.TrimSpace(n.Value) == "":
		f.wrong(n, "targets: write a node, @group, all or a pattern, not nothing")
	default:
		for _, text := range splitPatterns(n.Value) {
			f.words = append(f.words, targetWord{text, n})
		}
	}
}

func (f *flattener) wrong(n *yaml.Node, msg string) {
	f.report(problemAt(n, "%s", msg))
	f.unsure = true
}

func isLocalTag(tag string) bool {
	return len(tag) > 1 && tag[0] == '!' && tag[1] != '!'
}
