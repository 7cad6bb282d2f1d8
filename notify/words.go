package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// The bounds of messages.
const (
	titleLength = 250
	textLength  = 16 << 10
)

// stamp is a moment for people.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// clock is a moment of today, or another day.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// took is a length of time for people.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// count is a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// some names a few, and how many there are beside them.
func some(names []string, more, most int) string {
	if extra := len(names) + more - most; extra > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:min(most, len(names))], ", "), len(names)+more-min(most, len(names)))
	} else if more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}

// failed is how many nodes of a run did not do well.
func (r *Run) failed() int {
	n := 0
	for status, c := range r.Counts {
		if !status.Good() {
			n += c
		}
	}
	return n
}

// how says in a few words what went wrong in one way.
func (f *Failure) how() string {
	s := string(f.Status)
	if f.Status == loom.StatusFailed && f.Reason != "" {
		return f.Reason // says how it failed
	}
	if f.Reason != "" && f.Reason != s {
		s += ": " + f.Reason
	}
	return s
}

// title says in a line what n is about.
func (n *News) title() string {
	job := ""
	if n.Job != nil {
		job = n.Job.Name
	}
	switch n.Kind {
	case Failed:
		return job + " failed" + n.where()
	case Failing:
		return fmt.Sprintf("%s still fails, for %s (%s)%s", job, took(n.Time.Sub(n.Since)), count(n.InARow, "run"), n.where())
	case Recovered:
		return fmt.Sprintf("%s is well again, after %s in %s", job, count(n.InARow, "failed run"), took(n.Time.Sub(n.Since)))
	case Late:
		return fmt.Sprintf("%s runs late: it was due at %s", job, clock(n.Run.Due, n.Time))
	case Missed:
		if n.Until.After(n.Since) {
			return fmt.Sprintf("%s was missed: ticks from %s to %s are not made up for", job, clock(n.Since, n.Time), clock(n.Until, n.Time))
		}
		return fmt.Sprintf("%s was missed: the tick at %s is not made up for", job, clock(n.Since, n.Time))
	case Started:
		return fmt.Sprintf("%s began on %s", job, count(n.Run.Nodes, "node"))
	case Ended:
		if n.Run.Status.Good() {
			return fmt.Sprintf("%s ended %s on %s", job, n.Run.Status, count(n.Run.Nodes, "node"))
		}
		return fmt.Sprintf("%s ended %s%s", job, n.Run.Status, n.where())
	case Drift:
		return job + " has drifted" + n.where()
	case NodeUnreachable:
		if len(n.Nodes) == 1 {
			return fmt.Sprintf("node %s is unreachable", n.Nodes[0])
		}
		return fmt.Sprintf("%s are unreachable: %s", count(len(n.Nodes), "node"), some(n.Nodes, 0, 3))
	case NodeBack:
		if len(n.Nodes) == 1 {
			return fmt.Sprintf("node %s can be reached again", n.Nodes[0])
		}
		return fmt.Sprintf("%s can be reached again: %s", count(len(n.Nodes), "node"), some(n.Nodes, 0, 3))
	case ManifestBroken:
		s := fmt.Sprintf("the manifest is broken: %s", count(len(n.Problems), "problem"))
		if len(n.Problems) > 0 {
			s += ": " + n.Problems[0]
		}
		return s
	case ManifestMended:
		return "the manifest is mended"
	case StoreDown:
		return "the store is down: no tick is acted on"
	case StoreBack:
		return "the store is back: ticks are acted on again"
	case Test:
		return "a test: news from Loom arrive here"
	}
	return string(n.Kind)
}

// where says on which nodes a run failed, and why.
func (n *News) where() string {
	if n.Run == nil {
		return ""
	}
	bad := n.Run.failed()
	if len(n.Failures) == 0 {
		switch {
		case n.Reason != "":
			return ": " + n.Reason
		case bad > 0:
			return fmt.Sprintf(" on %d of %s", bad, count(n.Run.Nodes, "node"))
		}
		return ""
	}
	var names []string
	more := 0
	for _, f := range n.Failures {
		names = append(names, f.Nodes...)
		more += f.More
	}
	s := " on " + some(names, more, 3)
	if n.Run.Nodes > bad && bad > 0 {
		s += fmt.Sprintf(" (%d of %s)", bad, count(n.Run.Nodes, "node"))
	} else if bad > 3 {
		s += fmt.Sprintf(" (all %s)", count(n.Run.Nodes, "node"))
	}
	s += ": " + n.Failures[0].how()
	if len(n.Failures) > 1 {
		s += ", and other reasons"
	}
	return s
}

// text says all of it.
func (n *News) text() string {
	var b strings.Builder
	b.WriteString(n.Title)
	b.WriteByte('\n')
	for _, f := range n.Failures {
		fmt.Fprintf(&b, "\n%s: %s\n", some(f.Nodes, f.More, mostNodes), f.how())
		for _, l := range f.Output {
			b.WriteString("    " + l + "\n")
		}
	}
	for _, p := range n.Problems {
		b.WriteString("    " + p + "\n")
	}
	if len(n.Nodes) > 3 {
		fmt.Fprintf(&b, "\n%s\n", some(n.Nodes, 0, mostNamed))
	}
	if n.Reason != "" && len(n.Failures) == 0 {
		fmt.Fprintf(&b, "\n%s\n", n.Reason)
	}
	b.WriteByte('\n')
	for _, f := range n.facts() {
		fmt.Fprintf(&b, "%-8s %s\n", f[0], f[1])
	}
	if len(n.Commands) > 0 {
		b.WriteByte('\n')
	}
	for _, c := range n.Commands {
		b.WriteString(c + "\n")
	}
	return b.String()
}

// facts are what else is known, by name.
func (n *News) facts() [][2]string {
	var all [][2]string
	add := func(name, value string) {
		if value != "" {
			all = append(all, [2]string{name, value})
		}
	}
	if j := n.Job; j != nil {
		what := j.Name
		if j.Description != "" {
			what += ": " + j.Description
		}
		add("job", what)
		add("owner", j.Owner)
		add("runbook", j.Runbook)
		if j.File != "" {
			add("defined", fmt.Sprintf("%s:%d", j.File, j.Line))
		}
	}
	if r := n.Run; r != nil {
		words := []string{string(r.Trigger)}
		if r.By != "" {
			words[0] += " by " + r.By
		}
		if !r.Due.IsZero() {
			words = append(words, "due "+stamp(r.Due))
		}
		if !r.Ended.IsZero() && !r.Started.IsZero() {
			words = append(words, "took "+took(r.Ended.Sub(r.Started)))
		}
		add("run", r.ID+" ("+strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ", ")+")")
		add("nodes", counts(r.Counts))
	}
	if n.InARow > 1 && n.Kind != Recovered {
		add("failing", fmt.Sprintf("since %s, %s in a row", stamp(n.Since), count(n.InARow, "run")))
	} else if n.Job == nil && !n.Since.IsZero() {
		add("since", stamp(n.Since))
	}
	add("by", n.By)
	add("time", stamp(n.Time))
	add("loom on", n.Host)
	return all
}

// counts says how many nodes ended how, those that did not do well first.
func counts(c map[loom.Status]int) string {
	var all []string
	for _, s := range []loom.Status{loom.StatusFailed, loom.StatusTimeout, loom.StatusUnreachable, loom.StatusLost, loom.StatusCancelled,
		loom.StatusChanged, loom.StatusOK, loom.StatusSkipped} {
		if c[s] > 0 {
			all = append(all, fmt.Sprintf("%d %s", c[s], s))
		}
	}
	return strings.Join(all, ", ")
}

// commands are what to type to know more.
func (n *News) commands(program string) []string {
	switch {
	case n.Kind == Missed || n.Kind == Late:
		return []string{program + " why " + loom.Quote(n.Job.Name) + " " + loom.Quote(n.tick().Format(time.RFC3339))}
	case n.Run != nil:
		all := []string{program + " show " + n.Run.ID}
		if len(n.Failures) > 0 && len(n.Failures[0].Nodes) > 0 {
			all = append(all, program+" logs "+n.Run.ID+" --node "+loom.Quote(n.Failures[0].Nodes[0]))
		}
		return all
	case n.Kind == ManifestBroken:
		return []string{program + " check"}
	case n.Kind == StoreDown, n.Kind == StoreBack:
		return []string{program + " status"}
	}
	return nil
}

// tick is the tick that n is about.
func (n *News) tick() time.Time {
	if n.Run != nil && !n.Run.Due.IsZero() {
		return n.Run.Due
	}
	return n.Since
}

// finish cleans n and puts it into words.
func (n *News) finish(c *cleaner, program, host string) {
	n.Host = host
	c.news(n)
	n.Commands = n.commands(program)
	n.Title = c.line(n.title(), titleLength)
	n.Text = c.lines(n.text(), textLength)
}

// digestKind is the kind of many news in one.
const digestKind Kind = "digest"

// digest puts many news that wait for the same target into one.
func digest(all []News) News {
	d := News{Kind: digestKind, Time: all[len(all)-1].Time, Host: all[0].Host, ID: newID(digestKind, len(all), all[0].ID, all[len(all)-1].ID)}
	kinds := map[Kind]int{}
	var order []Kind
	for _, n := range all {
		if kinds[n.Kind]++; kinds[n.Kind] == 1 {
			order = append(order, n.Kind)
		}
	}
	slices.SortStableFunc(order, func(a, b Kind) int { return kinds[b] - kinds[a] })
	var parts []string
	for _, k := range order {
		parts = append(parts, fmt.Sprintf("%d %s", kinds[k], k))
	}
	d.Title = cut(fmt.Sprintf("%d news: %s", len(all), strings.Join(parts, ", ")), titleLength)
	var b strings.Builder
	b.WriteString(d.Title + "\n\n")
	for _, n := range all {
		fmt.Fprintf(&b, "%s  %s\n", n.Time.Local().Format("15:04:05"), n.Title)
	}
	d.Text = cut(b.String(), textLength)
	return d
}
