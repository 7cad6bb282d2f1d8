package loom

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// A jobSpec is a job as a manifest has it. Defaults are jobSpecs too: what a
// job doesn't say is what they say.
type jobSpec struct {
	Task        *located          `help:"name of the task; \"loomd tasks\" lists them"`
	Args        *yaml.Node        `help:"parameters of the task by position"`
	Kwargs      *yaml.Node        `help:"parameters of the task by name"`
	Steps       []stepSpec        `help:"several tasks, in order on each node, instead of task"`
	Targets     *yaml.Node        `help:"nodes, groups, patterns and exclusions"`
	Schedule    []located         `help:"cron expression, or several; manual: only when asked"`
	At          *located          `help:"one time at which it runs once"`
	After       afterSpecs        `help:"jobs whose end starts it"`
	Description string            `help:"what it is for; default: task @ targets"`
	Owner       string            `help:"whom to ask when it fails"`
	Runbook     string            `help:"what to read when it fails"`
	Labels      map[string]string `help:"free data for filtering"`
	Enabled     bool              `help:"whether its schedule starts it"`
	Timezone    *located          `help:"IANA time zone of the schedule"`
	Timeout     time.Duration     `help:"time for each node and attempt; 0: no end"`
	Retries     retriesSpec       `help:"attempts on a node beside the first"`
	Resumable   bool              `help:"whether the payload of run, sudo and script outlives the connection and Loom"`
	Overlap     overlapSpec       `help:"what a tick does while an earlier run is going"`
	Missed      missedSpec        `help:"what becomes of ticks that fell while nobody was there"`
	Jitter      jitterSpec        `help:"longest delay that spreads starts"`
	Batch       []shareSpec       `help:"how many nodes at a time; a list for a rollout"`
	MaxFailures *shareSpec        `yaml:"max_failures" help:"failed nodes after which the rest isn't started"`
	User        string            `help:"logs in instead of the node's own user"`
	Sudo        jobSudoSpec       `help:"true, or the user that commands become"`
	Env         envSpec           `help:"exported to commands"`
	Dir         string            `help:"working directory of commands"`
	Log         logSpec           `help:"file for what it prints"`
	Notify      notifySpec        `help:"who hears of its runs"`
	NotDuring   blackoutSpecs     `yaml:"not_during" help:"times in which its schedule doesn't start it"`
}

// builtinDefaults is what a job is if neither it nor the main file say
// otherwise.
func builtinDefaults() jobSpec {
	return jobSpec{
		Enabled:   true,
		Timeout:   time.Hour,
		Resumable: true,
		Overlap:   overlapSpec(OverlapSkip),
		Missed:    missedSpec{Policy: policySpec(MissedLatest), Within: time.Hour},
	}
}

func noEffect(key, instead string) string {
	return key + " has no effect in this version of Loom: " + instead
}

// A located is a text, and where it was written.
type located struct {
	text string
	node *yaml.Node
}

// DecodeNode reads the text.
func (l *located) DecodeNode(n *yaml.Node) []bind.Problem {
	l.node = n
	return bind.Decode(&l.text, n)
}

// JSONSchema describes a text.
func (located) JSONSchema() map[string]any { return map[string]any{"type": "string"} }

type stepSpec struct {
	Task   *located   `loom:"required" help:"name of the task"`
	Args   *yaml.Node `help:"parameters by position"`
	Kwargs *yaml.Node `help:"parameters by name"`
	Name   string     `help:"what to call the step"`
	On     onSpec     `help:"ok, failed or always: run it if the steps before it went so"`
}

type (
	onSpec      StepOn
	overlapSpec Overlap
	policySpec  MissedPolicy
	afterOnSpec AfterOn
	byNodeSpec  bool
	sizeSpec    int64
	statusSpec  Status
)

func (o *onSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(o), text, string(OnOK), string(OnFailed), string(OnAlways))
}

func (o *overlapSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(o), text, string(OverlapSkip), string(OverlapQueue), string(OverlapReplace), string(OverlapAllow))
}

func (p *policySpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(p), text, string(MissedLatest), string(MissedSkip), string(MissedAll))
}

func (a *afterOnSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(a), text, string(AfterOK), string(AfterFailed), string(AfterAny))
}

func (s *statusSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(s), text, string(StatusUnreachable), string(StatusFailed), string(StatusTimeout))
}

func (b *byNodeSpec) UnmarshalText(text []byte) error {
	var by string
	err := oneOf(&by, text, "job", "node")
	*b = by == "node"
	return err
}

func (s *sizeSpec) UnmarshalText(text []byte) error {
	n, err := parseSize(string(text))
	*s = sizeSpec(n)
	return err
}

// JSONSchema describes the words.
func (onSpec) JSONSchema() map[string]any { return wordSchema("ok", "failed", "always") }

// JSONSchema describes the words.
func (overlapSpec) JSONSchema() map[string]any {
	return wordSchema("skip", "queue", "replace", "allow")
}

// JSONSchema describes the words.
func (policySpec) JSONSchema() map[string]any { return wordSchema("latest", "skip", "all") }

// JSONSchema describes the words.
func (afterOnSpec) JSONSchema() map[string]any { return wordSchema("ok", "failed", "any") }

// JSONSchema describes the words.
func (statusSpec) JSONSchema() map[string]any {
	return wordSchema("unreachable", "failed", "timeout")
}

// JSONSchema describes the words.
func (byNodeSpec) JSONSchema() map[string]any { return wordSchema("job", "node") }

// oneOf sets dst to the text if it is one of the words.
func oneOf(dst *string, text []byte, words ...string) error {
	*dst = string(text)
	if slices.Contains(words, *dst) {
		return nil
	}
	hint := ""
	if near := bind.Nearest(*dst, slices.Values(words)); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return fmt.Errorf("write %s, not %q%s", either(words), *dst, hint)
}

// either joins words as in "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// parseSize reads a number of bytes: 4096, 64KB, 10MiB.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "BKMGTikmgtb ")
	n, err := strconv.ParseFloat(digits, 64)
	factor := map[string]float64{"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
		"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[strings.ToUpper(strings.TrimSpace(s[len(digits):]))]
	if err != nil || factor == 0 || !(n >= 0 && n*factor < 1<<62) {
		return 0, fmt.Errorf("write a size such as 10MiB, not %q", s)
	}
	return int64(n * factor), nil
}

// A retriesSpec is a number, or a mapping.
type retriesSpec struct {
	Attempts int           `help:"beside the first"`
	Delay    time.Duration `help:"before the first retry"`
	Backoff  float64       `help:"each further delay is this much longer"`
	MaxDelay time.Duration `yaml:"max_delay" help:"longest delay"`
	On       []statusSpec  `help:"results that are tried again"`
}

func (r *retriesSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	*r = retriesSpec{}
	var problems []bind.Problem
	if n.Kind == yaml.ScalarNode {
		problems = bind.Decode(&r.Attempts, n)
	} else {
		problems = bind.Decode(r, n)
	}
	if len(problems) > 0 {
		return problems
	}
	switch {
	case r.Attempts < 0 || r.Attempts > 1000:
		return wrong(n, "write a number from 0 to 1000, not %d", r.Attempts)
	case r.Backoff != 0 && (r.Backoff < 1 || r.Backoff > 100):
		return wrong(n, "backoff: write a number from 1 to 100, not %v", r.Backoff)
	}
	return nil
}

// JSONSchema describes both forms.
func (retriesSpec) JSONSchema() map[string]any {
	type mapping retriesSpec
	return anyOf(map[string]any{"type": "integer", "minimum": 0, "maximum": 1000}, bind.SchemaOf(mapping{}))
}

func (r retriesSpec) retries() Retries {
	out := Retries{Attempts: r.Attempts, Delay: r.Delay, Backoff: r.Backoff, MaxDelay: r.MaxDelay}
	for _, s := range r.On {
		out.On = append(out.On, Status(s))
	}
	return out
}

// A missedSpec is a word, or a mapping.
type missedSpec struct {
	Policy policySpec    `help:"latest: one run for all of them; skip: none; all: one each"`
	Within time.Duration `help:"older ones stay missed; 0: however old"`
}

func (m *missedSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	*m = builtinDefaults().Missed
	if n.Kind == yaml.ScalarNode {
		return decodeText(&m.Policy, n)
	}
	return bind.Decode(m, n)
}

// JSONSchema describes both forms.
func (missedSpec) JSONSchema() map[string]any {
	type mapping missedSpec
	return anyOf(policySpec("").JSONSchema(), bind.SchemaOf(mapping{}))
}

// A jitterSpec is a duration, or a mapping.
type jitterSpec struct {
	Max time.Duration `loom:"required" help:"longest delay"`
	By  byNodeSpec    `help:"job: all nodes of a job alike; node: each its own"`
}

func (j *jitterSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	*j = jitterSpec{}
	if n.Kind == yaml.ScalarNode {
		return bind.Decode(&j.Max, n)
	}
	return bind.Decode(j, n)
}

// JSONSchema describes both forms.
func (jitterSpec) JSONSchema() map[string]any {
	type mapping jitterSpec
	return anyOf(bind.SchemaOf(time.Duration(0)), bind.SchemaOf(mapping{}))
}

// A shareSpec is a number of nodes, or a percentage.
type shareSpec Share

func (s *shareSpec) UnmarshalText(text []byte) error {
	percent, isPercent := strings.CutSuffix(string(text), "%")
	n, err := strconv.ParseFloat(strings.TrimSpace(percent), 64)
	switch {
	case err != nil || n < 0 || (!isPercent && n != float64(int(n))) || n > 1e6:
		return fmt.Errorf("write a number of nodes or a percentage such as 25%%, not %q", text)
	case isPercent && n > 100:
		return fmt.Errorf("write at most 100%%, not %q", text)
	case isPercent:
		*s = shareSpec{Percent: n}
	default:
		*s = shareSpec{N: int(n)}
	}
	return nil
}

// JSONSchema describes both forms.
func (shareSpec) JSONSchema() map[string]any {
	return map[string]any{"type": []any{"integer", "string"}, "minimum": 0, "pattern": `^[0-9.]+ *%?$`}
}

// A jobSudoSpec is true, false, or a user.
type jobSudoSpec string

func (s *jobSudoSpec) UnmarshalText(text []byte) error {
	switch t := string(text); t {
	case "true", "yes", "on":
		*s = SudoDefault
	case "false", "no", "off":
		*s = ""
	case "":
		return errors.New("write true, or a user, not nothing")
	default:
		if strings.HasPrefix(t, "-") || strings.ContainsAny(t, " \t\n/:") {
			return fmt.Errorf("%q is not the name of a user", t)
		}
		*s = jobSudoSpec(t)
	}
	return nil
}

// JSONSchema describes all forms.
func (jobSudoSpec) JSONSchema() map[string]any {
	return map[string]any{"type": []any{"boolean", "string"}}
}

// An envSpec is environment variables.
type envSpec map[string]string

func (e *envSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	problems := bind.Decode((*map[string]string)(e), n)
	pairs, _ := bind.Pairs(n)
	for _, p := range pairs {
		if !isVariable(p.Name) {
			problems = append(problems, wrong(p.Key, "%q is not the name of a variable: use letters, digits and _", p.Name)...)
		}
		if strings.ContainsRune((*e)[p.Name], 0) {
			problems = append(problems, wrong(p.Value, "a variable can't hold a zero byte")...)
		}
	}
	return problems
}

// JSONSchema describes the mapping.
func (envSpec) JSONSchema() map[string]any { return bind.SchemaOf(map[string]string{}) }

func isVariable(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// leastLogSize is the smallest size at which logs may be rotated: a mistaken unit
// would make a file for each line.
const leastLogSize = 4 << 10

// A logSpec is a path, or a mapping.
type logSpec struct {
	File    string   `loom:"required" help:"path; {job}, {node} and {date} stand for themselves"`
	MaxSize sizeSpec `yaml:"max_size" help:"begin a new file at this size; default: never"`
	Keep    int      `help:"old files to keep; default: all"`
}

func (l *logSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	*l = logSpec{}
	var problems []bind.Problem
	if n.Kind == yaml.ScalarNode {
		problems = bind.Decode(&l.File, n)
	} else {
		problems = bind.Decode(l, n)
	}
	if len(problems) > 0 {
		return problems
	}
	if l.Keep < 0 {
		return wrong(n, "keep: write a number of files from 0, which is all, not %d", l.Keep)
	}
	if l.MaxSize > 0 && l.MaxSize < leastLogSize {
		return wrong(n, "max_size: write at least 4KiB, or nothing for a file that is never rotated")
	}
	for rest := l.File; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed || !slices.Contains([]string{"job", "node", "date"}, name) {
			return wrong(n, "{%s: only {job}, {node} and {date} can stand in the name of a log file", after)
		}
		rest = tail
	}
	return nil
}

// JSONSchema describes both forms.
func (logSpec) JSONSchema() map[string]any {
	type mapping logSpec
	return anyOf(map[string]any{"type": "string"}, bind.SchemaOf(mapping{}))
}

// A notifySpec is names of notification targets, or a mapping.
type notifySpec struct {
	On []newsSpec `help:"what is told"`
	To []located  `help:"who is told: names under notify in the main file"`
}

func (t *notifySpec) DecodeNode(n *yaml.Node) []bind.Problem {
	*t = notifySpec{}
	if n.Kind == yaml.MappingNode {
		return bind.Decode(t, n)
	}
	return bind.Decode(&t.To, n)
}

// JSONSchema describes both forms.
func (notifySpec) JSONSchema() map[string]any {
	type mapping notifySpec
	return anyOf(map[string]any{"type": []any{"string", "array"}, "items": map[string]any{"type": "string"}}, bind.SchemaOf(mapping{}))
}

type newsSpec string

func (e *newsSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(e), text, "started", "ended", "failed", "recovered", "late", "missed", "drift")
}

// JSONSchema describes the words.
func (newsSpec) JSONSchema() map[string]any {
	return wordSchema("started", "ended", "failed", "recovered", "late", "missed", "drift")
}

// An afterSpec is a job's name, or a mapping.
type afterSpec struct {
	Job *located    `loom:"required" help:"name of a job"`
	On  afterOnSpec `help:"ok, failed or any end of it"`
}

func (a *afterSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	if n.Kind == yaml.ScalarNode {
		a.Job = new(located)
		return a.Job.DecodeNode(n)
	}
	return bind.Decode(a, n)
}

// afterSpecs is one, or a list of them.
type afterSpecs []afterSpec

func (a *afterSpecs) DecodeNode(n *yaml.Node) []bind.Problem {
	return bind.Decode((*[]afterSpec)(a), listed(n))
}

// JSONSchema describes all forms.
func (afterSpecs) JSONSchema() map[string]any {
	type mapping afterSpec
	one := []any{map[string]any{"type": "string"}, bind.SchemaOf(mapping{})}
	return anyOf(append(one, map[string]any{"type": "array", "items": map[string]any{"anyOf": one}})...)
}

// A blackoutSpec is a date, a span, or a schedule and how long it lasts.
type blackoutSpec struct {
	Date     *located      `yaml:"-"`
	Schedule *located      `help:"when it begins"`
	For      time.Duration `help:"how long it lasts from there"`
	From     *located      `help:"date or time at which it begins"`
	To       *located      `help:"date, which belongs to it, or time at which it ends"`

	node *yaml.Node
}

func (b *blackoutSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	b.node = n
	if n.Kind == yaml.ScalarNode {
		b.Date = new(located)
		return b.Date.DecodeNode(n)
	}
	if problems := bind.Decode(b, n); len(problems) > 0 {
		return problems
	}
	repeats := b.Schedule != nil && b.For > 0 && b.From == nil && b.To == nil
	spans := b.Schedule == nil && b.For == 0 && b.From != nil && b.To != nil
	if b.Date != nil || repeats == spans {
		return wrong(n, "write a date, or {schedule, for}, or {from, to}")
	}
	return nil
}

// blackoutSpecs is one, or a list of them.
type blackoutSpecs []blackoutSpec

func (b *blackoutSpecs) DecodeNode(n *yaml.Node) []bind.Problem {
	return bind.Decode((*[]blackoutSpec)(b), listed(n))
}

// JSONSchema describes all forms.
func (blackoutSpecs) JSONSchema() map[string]any {
	text := map[string]any{"type": "string"}
	one := []any{text,
		map[string]any{"type": "object", "additionalProperties": false, "required": []any{"schedule", "for"},
			"properties": map[string]any{"schedule": text, "for": bind.SchemaOf(time.Duration(0))}},
		map[string]any{"type": "object", "additionalProperties": false, "required": []any{"from", "to"},
			"properties": map[string]any{"from": text, "to": text}}}
	return anyOf(append(one, map[string]any{"type": "array", "items": map[string]any{"anyOf": one}})...)
}

// decodeText reads a scalar as the type that dst points to, by its own
// UnmarshalText: Decode doesn't ask the outermost type for it.
func decodeText[T any](dst *T, n *yaml.Node) []bind.Problem {
	p := dst
	problems := bind.Decode(&p, n)
	if p != nil {
		*dst = *p
	}
	return problems
}

// listed returns n as a list if it is a mapping.
func listed(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: n.Line, Column: n.Column, Content: []*yaml.Node{n}}
}

// wrong is one problem at a node.
func wrong(n *yaml.Node, format string, a ...any) []bind.Problem {
	return []bind.Problem{problemAt(n, format, a...)}
}

func problemAt(n *yaml.Node, format string, a ...any) bind.Problem {
	p := bind.Problem{Msg: fmt.Sprintf(format, a...)}
	if n != nil {
		p.Line, p.Col = n.Line, n.Column
	}
	return p
}

func wordSchema(words ...any) map[string]any { return map[string]any{"enum": words} }

func anyOf(forms ...any) map[string]any { return map[string]any{"anyOf": forms} }
