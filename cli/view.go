package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/why"
)

// A view shows a run while it goes on, and what came of it. It is told by the
// events of the run, whoever does the work.
type view struct {
	out, err io.Writer
	mode     viewMode
	total    int    // how many nodes the run has
	plan     bool   // what is shown as changed would only be
	run      string // the ID of a run that is kept; "": it is not, or not known
	again    string // how to tell more of a run that went badly
	raw      bool   // with viewPlain: nothing but what the node prints

	live bool // how far the run is can be shown below the rest, and changed there

	mu       sync.Mutex
	job      string
	began    time.Time
	ended    time.Time      // zero while the run goes on
	nodes    []string       // the targets, as far as they are known, in order
	given    bool           // that order is the one of the targets
	place    map[string]int // of each in nodes
	column   int            // width of node names
	going    map[string]*goingNode
	results  map[string]*loom.Result
	same     map[string]*loom.Result // of each output the first result that has it
	record   *loom.Run
	trouble  string // what is in the way of seeing how the run goes
	question string

	waiting  []piece // what is to be shown above the block that is on the screen
	open     bool    // the last line that was shown has no end yet
	block    []string
	reported time.Time // when how far the run is was last said, where it can't be drawn
}

// A goingNode is what a node does now.
type goingNode struct {
	since   time.Time
	attempt int
	last    string // the last line that it printed, or why the last attempt failed
}

// A piece is text for one of the outputs.
type piece struct {
	to   io.Writer
	text string
}

type viewMode int

const (
	viewGrouped viewMode = iota // what nodes printed, at the end, the same only once
	viewStream                  // each line at once, after its node's name
	viewPlain                   // one node: what it prints, as it is
	viewJSON                    // nothing but the results
)

// newView makes a view of a run on total nodes, of which some may be known.
func newView(out, err io.Writer, mode viewMode, total int, known ...string) *view {
	v := &view{out: out, err: err, mode: mode, total: total, began: time.Now(), live: terminal(err) > 0 && os.Getenv("TERM") != "dumb",
		place: map[string]int{}, going: map[string]*goingNode{}, results: map[string]*loom.Result{}, same: map[string]*loom.Result{}}
	v.reported = v.began
	for _, n := range known {
		v.know(n)
	}
	v.given = len(known) > 0
	return v
}

// know notes a node of the run. v.mu is held, or nobody else has v.
func (v *view) know(node string) {
	if _, known := v.place[node]; !known {
		v.place[node] = len(v.nodes)
		v.nodes = append(v.nodes, node)
		v.column = max(v.column, utf8.RuneCountInString(node))
	}
}

// observe takes the run's events.
func (v *view) observe(e loom.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e.Kind {
	case loom.KindRunStarted:
		v.job = strings.TrimPrefix(e.Job, "/") // a command has the name of no job
		if e.Ran != nil && !e.Ran.Started.IsZero() {
			v.began = e.Ran.Started
		}
	case loom.KindNodeStarted:
		v.know(e.Node)
		v.going[e.Node] = &goingNode{since: cmp.Or(e.Time, time.Now()), attempt: 1}
	case loom.KindOutput:
		if n := v.going[e.Node]; n != nil && strings.TrimSpace(e.Text) != "" {
			n.last = e.Text
		}
		v.print(e.Node, e.Stream, e.Text, e.More)
	case loom.KindRetry:
		if n := v.going[e.Node]; n != nil && e.Result != nil {
			n.attempt, n.last = e.Result.Attempts+1, e.Text
		}
		if v.mode == viewStream {
			v.print(e.Node, loom.Log, e.Text, false)
		}
	case loom.KindChanged:
		if v.mode == viewStream || v.mode == viewPlain && !v.raw {
			v.print(e.Node, loom.Log, v.changed()+e.Text, false)
		}
	case loom.KindNodeEnded:
		v.know(e.Node)
		delete(v.going, e.Node)
		v.results[e.Node] = v.once(e.Result)
	case loom.KindRunEnded:
		v.record, v.ended = e.Ran, cmp.Or(e.Ran.Ended, time.Now())
	}
}

// once returns r, with the output that another node has already if that is the
// same: a thousand nodes that print the same take the room of one.
func (v *view) once(r *loom.Result) *loom.Result {
	if v.mode != viewGrouped || len(r.Output) == 0 {
		return r
	}
	key := outputKey(r)
	first := v.same[key]
	if first == nil {
		v.same[key] = r
		return r
	}
	shared := *r
	shared.Output = first.Output
	return &shared
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
	if v.mode == viewStream {
		text, more = v.prefix(to, node)+" "+text, false
	}
	if !more {
		text += "\n"
	}
	v.put(to, text)
}

// put shows text: at once, or with the next frame if there are frames. v.mu is
// held.
func (v *view) put(to io.Writer, text string) {
	v.open = !strings.HasSuffix(text, "\n")
	if len(v.block) > 0 || len(v.waiting) > 0 {
		v.waiting = append(v.waiting, piece{to, text})
		return
	}
	_, _ = io.WriteString(to, text)
}

// prefix is a node's name in its colour.
func (v *view) prefix(w io.Writer, node string) string {
	name := fmt.Sprintf("%-*s |", v.column, node)
	if !colourful(w) {
		return name
	}
	colours := []int{36, 33, 32, 35, 34, 96, 93, 92, 95, 94}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[v.place[node]%len(colours)], name)
}

// say shows a sentence about the run itself.
func (v *view) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.put(v.err, fmt.Sprintf(format+"\n", args...))
}

// remark shows what is in the way of seeing how the run goes; "": nothing.
func (v *view) remark(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if text != "" && text != v.trouble && !v.live {
		v.put(v.err, text+"\n")
	}
	v.trouble = text
}

// asks shows a question below all else until it is answered, which "" says.
func (v *view) asks(text string) {
	v.mu.Lock()
	v.question = text
	v.mu.Unlock()
	v.draw(time.Now())
}

// leave takes away what is only shown while the run goes on.
func (v *view) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
}

// end shows what came of the run, and reports whether it went well.
func (v *view) end() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	if !v.given {
		slices.SortFunc(v.nodes, byNumber)
	}
	if v.mode == viewGrouped {
		for _, g := range v.groups(outputKey) {
			v.printGroup(g)
		}
	}
	bad := 0
	for _, g := range v.groups(reasonKey) {
		if g.first.Status.Good() && g.first.Status != loom.StatusSkipped {
			continue
		}
		if !g.first.Status.Good() {
			bad += len(g.nodes)
		}
		fmt.Fprintf(v.err, "%s: %s\n", g.title(), v.reason(g.first))
	}
	if v.record != nil && !v.record.Status.Good() && bad == 0 {
		bad++
		fmt.Fprintf(v.err, "%s\n", strings.TrimSuffix(fmt.Sprintf("the %s ended %s: %s", runWord(v.plan), v.record.Status, clean(v.record.Reason)), ": "))
	}
	if v.total > 1 || bad == 0 && v.mode == viewGrouped || v.run != "" && !v.raw && v.mode != viewJSON {
		fmt.Fprintln(v.err, v.sum())
	}
	if bad > 0 && v.again != "" && terminal(v.err) > 0 && v.mode != viewJSON {
		fmt.Fprintln(v.err, v.again)
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

// sum sums the run up.
func (v *view) sum() string {
	counts := map[loom.Status]int{}
	for _, r := range v.results {
		counts[r.Status]++
	}
	var parts []string
	for _, s := range resultStatuses() {
		if counts[s] == 0 {
			continue
		}
		parts = append(parts, fmt.Sprintf("%d %s", counts[s], statusWord(s, v.plan)))
	}
	if rest := v.total - len(v.results); rest > 0 {
		parts = append(parts, fmt.Sprintf("%d not begun", rest))
	}
	text := fmt.Sprintf("%s in %s: %s", count(v.total, "node"), took(max(cmp.Or(v.ended, time.Now()).Sub(v.began), 0)), strings.Join(parts, ", "))
	if v.run != "" && v.record != nil {
		text = fmt.Sprintf("%s %s ended %s: %s", runWord(v.plan), v.run, statusWord(v.record.Status, v.plan), text)
	}
	return text
}

// statusWord is a status in words: what a plan found to change is not changed.
func statusWord(s loom.Status, plan bool) string {
	if plan && s == loom.StatusChanged {
		return "would change"
	}
	return string(s)
}

// runWord is what a run is called.
func runWord(plan bool) string {
	if plan {
		return "plan"
	}
	return "run"
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
	for _, n := range v.nodes {
		r := v.results[n]
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
		g.nodes = append(g.nodes, n)
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

// outputKey is the same for results that print and change the same.
func outputKey(r *loom.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %t\n", r.Changes, r.Status.Good())
	for _, l := range r.Output {
		fmt.Fprintf(&b, "%s %t %s\n", l.Stream, l.More, l.Text)
	}
	return b.String()
}

// reasonKey is the same for results that ended in the same way.
func reasonKey(r *loom.Result) string { return string(r.Status) + "\x00" + Reason(r) }

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
	if v.record != nil {
		r.Run, r.Job, r.Status, r.Started, r.Ended = v.record.ID, v.record.Job, string(v.record.Status), v.record.Started, v.record.Ended
		for s, n := range v.record.Counts {
			r.Counts[string(s)] = n
		}
	}
	for _, t := range v.nodes {
		one := v.results[t]
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
