package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/why"
)

// A view shows a run while it goes on, and what came of it.
type view struct {
	out, err io.Writer
	mode     viewMode
	targets  []*loom.Node
	plan     bool // what is shown as changed would only be

	mu      sync.Mutex
	line    string // the status line on the screen
	began   time.Time
	running []string
	results map[string]*loom.Result
	run     *loom.Run
	column  int // width of node names
}

type viewMode int

const (
	viewGrouped viewMode = iota // what nodes printed, at the end, the same only once
	viewStream                  // each line at once, after its node's name
	viewPlain                   // one node: what it prints, as it is
	viewJSON                    // nothing but the results
)

func newView(out, err io.Writer, mode viewMode, targets []*loom.Node) *view {
	v := &view{out: out, err: err, mode: mode, targets: targets, began: time.Now(), results: map[string]*loom.Result{}}
	for _, n := range targets {
		v.column = max(v.column, len([]rune(n.Name)))
	}
	return v
}

// observe takes the run's events.
func (v *view) observe(e loom.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e.Kind {
	case loom.KindNodeStarted:
		v.running = append(v.running, e.Node)
	case loom.KindOutput:
		v.print(e.Node, e.Stream, e.Text, e.More)
	case loom.KindChanged:
		if v.mode == viewStream || v.mode == viewPlain {
			v.print(e.Node, loom.Log, v.changed()+e.Text, false)
		}
	case loom.KindNodeEnded:
		v.running = slices.DeleteFunc(v.running, func(n string) bool { return n == e.Node })
		v.results[e.Node] = e.Result
	case loom.KindRunEnded:
		v.run = e.Ran
	}
}

func (v *view) changed() string {
	if v.plan {
		return "would change: "
	}
	return "changed: "
}

// print shows a line of output at once, if it is to be shown now. v.mu is held.
func (v *view) print(node string, s loom.Stream, text string, more bool) {
	if v.mode != viewStream && v.mode != viewPlain {
		return
	}
	to := v.out
	if s != loom.Stdout {
		to = v.err
	}
	if terminal(to) > 0 {
		text = clean(text)
	}
	v.erase()
	switch {
	case v.mode == viewStream:
		fmt.Fprintf(to, "%s %s\n", v.prefix(to, node), text)
	case more:
		fmt.Fprint(to, text)
	default:
		fmt.Fprintln(to, text)
	}
}

// prefix is a node's name in its colour.
func (v *view) prefix(w io.Writer, node string) string {
	name := fmt.Sprintf("%-*s |", v.column, node)
	if !colourful(w) {
		return name
	}
	colours := []int{36, 33, 32, 35, 34, 96, 93, 92, 95, 94}
	i := slices.IndexFunc(v.targets, func(n *loom.Node) bool { return n.Name == node })
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[max(i, 0)%len(colours)], name)
}

// say shows a sentence about the run itself.
func (v *view) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	fmt.Fprintf(v.err, format+"\n", args...)
}

// draw shows how far the run is in one line of the terminal.
func (v *view) draw() {
	width := terminal(v.err)
	if width == 0 || v.mode == viewPlain {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	bad := 0
	for _, r := range v.results {
		if !r.Status.Good() {
			bad++
		}
	}
	line := fmt.Sprintf("%d/%d done", len(v.results), len(v.targets))
	if bad > 0 {
		line += fmt.Sprintf(", %d failed", bad)
	}
	line += fmt.Sprintf(", %v", time.Since(v.began).Round(time.Second))
	if len(v.running) > 0 {
		line += ": " + Fold(v.running)
	}
	v.line = shorten(line, width-1)
	fmt.Fprint(v.err, v.line)
}

// erase takes the status line away. v.mu is held.
func (v *view) erase() {
	if v.line != "" {
		fmt.Fprint(v.err, "\r\x1b[K")
		v.line = ""
	}
}

// end shows what came of the run, and reports whether it went well.
func (v *view) end() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	if v.mode == viewGrouped {
		for _, g := range v.groups(groupOutput) {
			v.printGroup(g)
		}
	}
	bad := 0
	for _, g := range v.groups(groupReason) {
		if g.first.Status.Good() && g.first.Status != loom.StatusSkipped {
			continue
		}
		if !g.first.Status.Good() {
			bad += len(g.nodes)
		}
		fmt.Fprintf(v.err, "%s: %s\n", g.title(), v.reason(g.first))
	}
	if len(v.targets) > 1 || bad == 0 && v.mode == viewGrouped {
		fmt.Fprintln(v.err, v.total())
	}
	return bad == 0
}

// reason says how a node ended, and why.
func (v *view) reason(r *loom.Result) string {
	text, why := string(r.Status), Reason(r)
	switch {
	case r.Status == loom.StatusTimeout, strings.HasPrefix(why, text):
		text = why
	case why != "":
		text += ": " + why
	}
	if terminal(v.err) > 0 {
		text = clean(text)
	}
	return text
}

// total sums the run up.
func (v *view) total() string {
	counts := map[loom.Status]int{}
	for _, r := range v.results {
		counts[r.Status]++
	}
	var parts []string
	for _, s := range []loom.Status{loom.StatusOK, loom.StatusChanged, loom.StatusSkipped, loom.StatusFailed,
		loom.StatusTimeout, loom.StatusUnreachable, loom.StatusLost, loom.StatusCancelled} {
		if counts[s] == 0 {
			continue
		}
		word := string(s)
		if v.plan && s == loom.StatusChanged {
			word = "would change"
		}
		parts = append(parts, fmt.Sprintf("%d %s", counts[s], word))
	}
	return fmt.Sprintf("%s in %s: %s", count(len(v.targets), "node"), took(time.Since(v.began)), strings.Join(parts, ", "))
}

// took is a duration for people who have waited: why.Took, but to the second
// however long it is.
func took(d time.Duration) string {
	if d < time.Hour {
		return why.Took(d)
	}
	return bind.FormatDuration(d.Round(time.Second))
}

// A group is nodes that came out the same.
type group struct {
	nodes []string
	first *loom.Result
}

func (g *group) title() string {
	if len(g.nodes) == 1 {
		return g.nodes[0]
	}
	return fmt.Sprintf("%s (%d)", Fold(g.nodes), len(g.nodes))
}

// groups puts nodes together whose results have the same key, good ones first,
// else in order of the targets.
func (v *view) groups(key func(*loom.Result) string) []*group {
	var all []*group
	byKey := map[string]*group{}
	for _, n := range v.targets {
		r := v.results[n.Name]
		if r == nil {
			continue
		}
		k := key(r)
		g := byKey[k]
		if g == nil {
			g = &group{first: r}
			byKey[k] = g
			all = append(all, g)
		}
		g.nodes = append(g.nodes, n.Name)
	}
	slices.SortStableFunc(all, func(a, b *group) int {
		switch good := a.first.Status.Good(); {
		case good == b.first.Status.Good():
			return 0
		case good:
			return -1
		}
		return 1
	})
	return all
}

func groupOutput(r *loom.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %t\n", r.Changes, r.Status.Good())
	for _, l := range r.Output {
		fmt.Fprintf(&b, "%s %t %s\n", l.Stream, l.More, l.Text)
	}
	return b.String()
}

func groupReason(r *loom.Result) string { return string(r.Status) + "\x00" + Reason(r) }

// Reason is why a node is not ok, without the node's name before it.
func Reason(r *loom.Result) string { return strings.TrimPrefix(r.Reason, r.Node+": ") }

// printGroup shows what nodes printed and changed. Nodes that did neither are
// not worth a word if they are ok: the sum has them.
func (v *view) printGroup(g *group) {
	if len(g.first.Output) == 0 && len(g.first.Changes) == 0 {
		return
	}
	title := g.title() + ":"
	if colourful(v.out) {
		title = "\x1b[1m" + title + "\x1b[0m"
	}
	fmt.Fprintln(v.out, title)
	begin := true
	for _, l := range g.first.Output {
		if begin {
			fmt.Fprint(v.out, "  ")
		}
		text := l.Text
		if terminal(v.out) > 0 {
			text = clean(text)
		}
		fmt.Fprint(v.out, text)
		if begin = !l.More; begin {
			fmt.Fprintln(v.out)
		}
	}
	for _, c := range g.first.Changes {
		if terminal(v.out) > 0 {
			c = clean(c)
		}
		fmt.Fprintf(v.out, "  %s%s\n", v.changed(), c)
	}
}

// json is the run for programs.
func (v *view) json() any {
	type lineJSON struct {
		Time   time.Time `json:"time"`
		Stream string    `json:"stream"`
		Text   string    `json:"text"`
		More   bool      `json:"more,omitempty"`
	}
	type nodeJSON struct {
		Node     string     `json:"node"`
		Status   string     `json:"status"`
		ExitCode *int       `json:"exit_code,omitempty"`
		Reason   string     `json:"reason,omitempty"`
		Changes  []string   `json:"changes"`
		Started  time.Time  `json:"started"`
		Ended    time.Time  `json:"ended"`
		Output   []lineJSON `json:"output"`
		Dropped  int64      `json:"dropped,omitempty"`
	}
	type runJSON struct {
		Run     string         `json:"run"`
		Job     string         `json:"job"`
		Plan    bool           `json:"plan,omitempty"`
		Status  string         `json:"status"`
		Started time.Time      `json:"started"`
		Ended   time.Time      `json:"ended"`
		Counts  map[string]int `json:"counts"`
		Nodes   []nodeJSON     `json:"nodes"`
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r := runJSON{Plan: v.plan, Counts: map[string]int{}, Nodes: []nodeJSON{}}
	if v.run != nil {
		r.Run, r.Job, r.Status, r.Started, r.Ended = v.run.ID, v.run.Job, string(v.run.Status), v.run.Started, v.run.Ended
		for s, n := range v.run.Counts {
			r.Counts[string(s)] = n
		}
	}
	for _, t := range v.targets {
		one := v.results[t.Name]
		if one == nil {
			continue
		}
		n := nodeJSON{Node: one.Node, Status: string(one.Status), Reason: one.Reason, Changes: one.Changes,
			Started: one.Started, Ended: one.Ended, Output: []lineJSON{}, Dropped: one.Dropped}
		if one.ExitCode >= 0 {
			n.ExitCode = &one.ExitCode
		}
		if n.Changes == nil {
			n.Changes = []string{}
		}
		for _, l := range one.Output {
			n.Output = append(n.Output, lineJSON{Time: l.Time, Stream: string(l.Stream), Text: l.Text, More: l.More})
		}
		r.Nodes = append(r.Nodes, n)
	}
	return r
}
