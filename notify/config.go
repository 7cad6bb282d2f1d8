package notify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// A target is who is told, what, and how.
type target struct {
	name, kind string // kind: the key that it has in the main file
	to         string // where news go, without what is secret of it
	file       string
	line       int

	on      []Kind // nil: the usual
	jobs    []string
	labels  map[string]string
	isUsual bool // hears of what concerns nobody in particular

	repeat time.Duration // remind after so long; 0: never
	after  int           // failed runs in a row after which it is told
	giveUp time.Duration // try for so long
	limit  int           // messages in a minute; 0: however many
	folds  bool          // many news at once can be one message
	time   time.Duration // for one attempt

	wordings wordings
	sender   sender
}

// A sender delivers messages.
type sender interface {
	// send delivers a message and returns what the other side answered, for
	// people. It returns when ctx ends. The error may be a *refusal.
	send(ctx context.Context, m message) (answer string, err error)
}

// A message is what is delivered.
type message struct {
	News
	title, text string // as the target words it
}

// A refusal is an answer that is not the one that was hoped for.
type refusal struct {
	err   error
	only  bool          // this message is refused; others may be welcome
	final bool          // it is of no use to try again
	wait  time.Duration // not before; 0: nothing was said
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// A spec is a target as it is written.
type spec struct {
	Webhook *webhookSpec `help:"a URL that news are posted to"`
	Email   *emailSpec   `help:"addresses that they are mailed to"`
	Chat    *chatSpec    `help:"URLs of chats and services"`
	Exec    *execSpec    `help:"a command that is run on this machine"`
	Ping    *pingSpec    `help:"a URL that is asked for when a run begins and ends"`

	On      []kindSpec        `help:"what it hears of"`
	Jobs    []string          `help:"names or patterns of jobs that it hears of, whether they name it or not"`
	Labels  map[string]string `help:"labels of such jobs"`
	Default bool              `help:"it hears of jobs that name nobody, and of nodes, manifests and the store"`
	Repeat  time.Duration     `help:"remind after so long of jobs that still fail"`
	After   int               `help:"how many runs in a row must fail"`
	GiveUp  time.Duration     `yaml:"give_up" help:"how long delivery is tried"`
	Limit   *int              `help:"messages in a minute; what is more is put together, or waits"`
	Title   string            `help:"template of the first line"`
	Body    string            `help:"template of the rest"`
}

type kindSpec Kind

// UnmarshalText reads what news are about.
func (k *kindSpec) UnmarshalText(text []byte) error {
	all := slices.Concat(jobKinds(), fleetKinds())
	words := make([]string, len(all))
	for i, one := range all {
		if words[i] = string(one); string(text) == words[i] {
			*k = kindSpec(one)
			return nil
		}
	}
	hint := ": write " + strings.Join(words, ", ")
	if near := bind.Nearest(string(text), slices.Values(words)); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return fmt.Errorf("%q is nothing that is told%s", text, hint)
}

// Check says what is wrong with the targets that a configuration has: its error
// joins a *loom.ManifestError for every mistake. It is for [loom.ReadManifest] and
// [loom.ManifestReader].
func Check(c loom.Config) error {
	_, err := read(c)
	return err
}

// read returns the targets of a configuration that are good.
func read(c loom.Config) ([]*target, error) {
	var targets []*target
	var errs []error
	for _, t := range c.Notify {
		one, problems := newTarget(t)
		if len(problems) > 0 {
			errs = append(errs, problems...)
			continue
		}
		targets = append(targets, one)
	}
	return targets, errors.Join(errs...)
}

// A reading is a target being read.
type reading struct {
	at       loom.NotifyTarget
	problems []error
}

func (r *reading) wrong(path, format string, a ...any) {
	r.problems = append(r.problems, r.at.Problem(path, fmt.Sprintf(format, a...)))
}

func newTarget(at loom.NotifyTarget) (*target, []error) {
	var s spec
	if err := at.Decode(&s); err != nil {
		return nil, []error{err}
	}
	r := &reading{at: at}
	t := &target{name: at.Name, file: at.File, line: at.Line, jobs: s.Jobs, labels: s.Labels, isUsual: s.Default,
		repeat: s.Repeat, after: max(s.After, 1), giveUp: s.GiveUp, time: 10 * time.Second}
	for _, k := range s.On {
		t.on = append(t.on, Kind(k))
	}
	r.kind(t, &s)
	for _, p := range s.Jobs {
		if _, err := path.Match(p, ""); err != nil {
			r.wrong("jobs", "the pattern %q has a [ without its ]", p)
		}
	}
	if s.Limit != nil {
		if t.limit = *s.Limit; *s.Limit < 1 {
			r.wrong("limit", "write a number of messages from 1, not %d", *s.Limit)
		}
	}
	if s.After < 0 {
		r.wrong("after", "write a number of runs from 1, not %d", s.After)
	}
	if s.Repeat != 0 && s.Repeat < time.Minute {
		r.wrong("repeat", "write a duration from 1m")
	}
	if t.giveUp == 0 {
		t.giveUp = 24 * time.Hour
		if t.kind == "ping" {
			t.giveUp = time.Hour
		}
	}
	r.words(t, &s)
	return t, r.problems
}

// kind sets how a target is told.
func (r *reading) kind(t *target, s *spec) {
	var kinds []string
	use := func(kind string) { kinds = append(kinds, kind) }
	if s.Webhook != nil {
		use("webhook")
		t.limit = 600
		t.sender, t.to = s.Webhook.sender(r, t)
	}
	if s.Email != nil {
		use("email")
		t.limit, t.folds, t.time = 10, true, 30*time.Second
		t.sender, t.to = s.Email.sender(r, t)
	}
	if s.Chat != nil {
		use("chat")
		t.limit, t.folds, t.time = 10, true, 30*time.Second
		t.sender, t.to = s.Chat.sender(r, t)
	}
	if s.Exec != nil {
		use("exec")
		t.limit, t.time = 60, 30*time.Second
		t.sender, t.to = s.Exec.sender(r, t)
	}
	if s.Ping != nil {
		use("ping")
		t.sender, t.to = s.Ping.sender(r, t)
		t.on = []Kind{Started, Ended}
		if len(s.On) > 0 {
			r.wrong("on", "a ping is for the beginning and the end of each run, so it can't choose")
		}
		if s.Title != "" || s.Body != "" {
			r.wrong("", "a ping has no words of its own: leave out title and body")
		}
	}
	switch len(kinds) {
	case 0:
		r.wrong("", "say how it is told: write one of webhook, email, chat, exec and ping")
	case 1:
		t.kind = kinds[0]
	default:
		r.wrong(kinds[1], "a target is told in one way, and this one has %s: make another target of it", strings.Join(kinds, " and "))
	}
}

// words sets a target's own templates.
func (r *reading) words(t *target, s *spec) {
	for _, w := range []struct {
		key, text string
		max       int
	}{{"title", s.Title, titleLength}, {"body", s.Body, textLength}} {
		if w.text == "" {
			continue
		}
		parsed, err := parseWording(w.key, w.text)
		switch {
		case err != nil:
			r.wrong(w.key, "%v", err)
		case w.key == "title":
			t.wordings.title = parsed
		default:
			t.wordings.body = parsed
		}
	}
}

// hears reports whether a target hears of a kind of news of a job, or, if j is nil,
// of what is not about a job.
func (t *target) hears(k Kind, j *loom.Job) bool {
	as := k
	if k == Failing {
		as = Failed
	}
	if k == Test {
		return true
	}
	if j == nil {
		if len(t.on) == 0 {
			return t.isUsual && slices.Contains(usual(), as)
		}
		return t.kind != "ping" && slices.Contains(t.on, as)
	}
	named := slices.Contains(j.Notify.To, t.name)
	if !named && !t.concerns(j) {
		return false
	}
	on := t.on
	if t.kind != "ping" && len(j.Notify.On) > 0 && (named || j.Notify.To == nil && t.isUsual) {
		on = nil
		for _, word := range j.Notify.On {
			on = append(on, Kind(word))
		}
	}
	if len(on) == 0 {
		on = usual()
	}
	return slices.Contains(on, as)
}

// concerns reports whether a target hears of a job that does not name it.
func (t *target) concerns(j *loom.Job) bool {
	filtered := len(t.jobs) > 0 || len(t.labels) > 0
	if t.isUsual && j.Notify.To != nil || !t.isUsual && !filtered {
		return false
	}
	if len(t.jobs) > 0 && !slices.ContainsFunc(t.jobs, func(p string) bool { ok, _ := path.Match(p, j.Name); return ok }) {
		return false
	}
	for key, want := range t.labels {
		if j.Labels[key] != want {
			return false
		}
	}
	return true
}

// short decodes a target's kind that may be written as one value.
func short(n *yaml.Node, whole, one any) []bind.Problem {
	if n.Kind == yaml.MappingNode {
		return bind.Decode(whole, n)
	}
	return bind.Decode(one, n)
}
