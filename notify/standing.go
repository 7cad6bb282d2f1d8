package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// A Standing is how things stand with a target.
type Standing struct {
	Name, Kind string
	To         string   // where news go, without what is secret of it
	On         []string // what it hears of, if the job does not say
	Default    bool     // it hears of jobs that name nobody, and of the fleet
	File       string   // where it is defined
	Line       int

	Delivered int       // how many news were
	At        time.Time // when the last was; zero: none was
	Title     string    // of the last
	Answer    string    // of the other side

	Pending  int       // news that wait
	Oldest   time.Time // since when the first does
	Attempts int       // of the first
	Next     time.Time // when it is tried again
	FailedAt time.Time // the last attempt that was in vain
	Error    string    // and why; "" once something was delivered

	Lost []Lost // the last news that were given up, newest first
}

// Lost is news that were given up.
type Lost struct {
	ID, Title string
	Time      time.Time
	Error     string
}

// Standings says how things stand with all targets, by name. Those that are not in
// the manifest any more are among them as long as something waits for them.
func (n *Notifier) Standings() []Standing {
	n.mu.Lock()
	targets := n.targets
	n.mu.Unlock()
	n.boxMu.Lock()
	defer n.boxMu.Unlock()
	return standings(targets, n.open)
}

// Health returns since when news that wait can't be kept in the state directory, and
// why, or a zero time and nil. They are delivered all the same, and are lost if the
// process ends meanwhile.
func (n *Notifier) Health() (since time.Time, err error) {
	n.boxMu.Lock()
	defer n.boxMu.Unlock()
	if n.open == nil {
		return time.Time{}, nil
	}
	return n.open.since, n.open.err
}

// Look says what [Notifier.Standings] does of a notifier that does not run, from what
// is in the state directory.
func Look(state string, c loom.Config) ([]Standing, error) {
	targets, err := read(c)
	if err != nil {
		return nil, err
	}
	b := newBox(journalName(state))
	if err := b.read(func(error) {}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("what waits to be delivered: %w", err)
	}
	return standings(targets, b), nil
}

func standings(targets []*target, b *box) []Standing {
	if b == nil {
		b = newBox("")
	}
	all := map[string]*Standing{}
	for _, t := range targets {
		s := &Standing{Name: t.name, Kind: t.kind, To: t.to, Default: t.isUsual, File: t.file, Line: t.line}
		on := t.on
		if len(on) == 0 {
			on = usual()
			if !t.isUsual {
				on = slices.DeleteFunc(on, func(k Kind) bool { return slices.Contains(fleetKinds(), k) })
			}
		}
		for _, k := range on {
			s.On = append(s.On, string(k))
		}
		all[t.name] = s
	}
	for name, items := range b.items {
		s := all[name]
		if s == nil {
			s = &Standing{Name: name}
			all[name] = s
		}
		first := items[0]
		s.Pending, s.Oldest, s.Attempts, s.Next = len(items), first.Added, first.Attempts, first.Next
	}
	for name, is := range b.past.Targets {
		if s := all[name]; s != nil {
			s.Delivered, s.At, s.Title, s.Answer = is.Count, is.Delivered, is.Title, is.Answer
			s.FailedAt = is.Failed
			if is.Failed.After(is.Delivered) {
				s.Error = is.Error
			}
		}
	}
	for _, d := range slices.Backward(b.past.Dead) {
		if s := all[d.To]; s != nil {
			s.Lost = append(s.Lost, Lost{ID: d.ID, Title: d.Title, Time: d.Time, Error: d.Error})
		}
	}
	out := make([]Standing, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[name])
	}
	return out
}

// An Answer is what came of a test.
type Answer struct {
	Name, Kind, To string
	Said           string // what the other side answered
	Took           time.Duration
}

// Test sends a test to a target, now and once, and returns what the other side
// answered. By is who asks for it. The error wraps loom.ErrNotFound if there is no
// such target.
func (n *Notifier) Test(ctx context.Context, name, by string) (Answer, error) {
	n.mu.Lock()
	targets := n.targets
	n.mu.Unlock()
	return test(ctx, targets, name, by, n.host(), n.program(), newCleaner(n.Redact))
}

// Try is [Notifier.Test] for the targets of a manifest, without a notifier.
func Try(ctx context.Context, m *loom.Manifest, name, by, program string) (Answer, error) {
	targets, err := read(m.Config)
	if err != nil {
		return Answer{}, err
	}
	n := &Notifier{Program: program}
	return test(ctx, targets, name, by, n.host(), program, newCleaner(m.Redact))
}

func test(ctx context.Context, targets []*target, name, by, host, program string, c *cleaner) (Answer, error) {
	i := slices.IndexFunc(targets, func(t *target) bool { return t.name == name })
	if i < 0 {
		hint := ""
		var names []string
		for _, t := range targets {
			names = append(names, t.name)
		}
		if near := bind.Nearest(name, slices.Values(names)); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
		return Answer{}, fmt.Errorf("notification target %q%s: %w", name, hint, loom.ErrNotFound)
	}
	t := targets[i]
	n := News{ID: newID(Test, name, time.Now().UnixNano()), Kind: Test, Time: time.Now(), By: by}
	n.finish(c, program, host)
	m := message{News: n}
	m.title, m.text = t.wordings.word(&n, c)
	began := time.Now()
	said, err := t.attempt(ctx, m)
	a := Answer{Name: t.name, Kind: t.kind, To: t.to, Said: c.line(said, reasonLength), Took: time.Since(began)}
	if err != nil {
		return a, fmt.Errorf("%s %s to %s: %s", t.kind, t.name, t.to, c.line(err.Error(), reasonLength))
	}
	return a, nil
}
