package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// A Kind is what news are about.
type Kind string

// The kinds of news.
const (
	Failed    Kind = "failed"    // a job's run failed, and the one before had not
	Failing   Kind = "failing"   // a job still fails: a reminder
	Recovered Kind = "recovered" // a job's run went well again
	Late      Kind = "late"      // a run makes up for a tick that nobody was there for
	Missed    Kind = "missed"    // ticks fell while nobody was there, and are not made up for
	Started   Kind = "started"   // a run began
	Ended     Kind = "ended"     // a run ended, however it went
	Drift     Kind = "drift"     // a node is not as a resource says

	NodeUnreachable Kind = "node-unreachable"
	NodeBack        Kind = "node-back"
	ManifestBroken  Kind = "manifest-broken"
	ManifestMended  Kind = "manifest-mended"
	StoreDown       Kind = "store-down"
	StoreBack       Kind = "store-back"

	Test Kind = "test" // somebody wants to know whether news arrive
)

// jobKinds and fleetKinds are the words that on may name.
func jobKinds() []Kind {
	return []Kind{Failed, Recovered, Late, Missed, Started, Ended, Drift}
}

func fleetKinds() []Kind {
	return []Kind{NodeUnreachable, NodeBack, ManifestBroken, ManifestMended, StoreDown, StoreBack}
}

// usual is what is told where nothing says what.
func usual() []Kind {
	return []Kind{Failed, Recovered, Missed, ManifestBroken, ManifestMended, StoreDown, StoreBack}
}

// cloudType is what a kind is called among the events of others.
func (k Kind) cloudType() string {
	what := map[Kind]string{
		Failed: "run.failed", Failing: "run.failing", Recovered: "run.recovered", Late: "run.late", Missed: "tick.missed",
		Started: "run.started", Ended: "run.ended", Drift: "resource.drift", NodeUnreachable: "node.unreachable", NodeBack: "node.back",
		ManifestBroken: "manifest.broken", ManifestMended: "manifest.mended", StoreDown: "store.down", StoreBack: "store.back",
	}[k]
	if what == "" {
		what = string(k)
	}
	return "dev.loom." + what + ".v1"
}

// bad reports whether a person should look at it.
func (k Kind) bad() bool {
	switch k {
	case Failed, Failing, Missed, NodeUnreachable, ManifestBroken, StoreDown, Drift:
		return true
	}
	return false
}

// News is one thing that is told. It is what templates and webhooks see: its JSON
// only grows. All text in it is safe to print, and bounded.
type News struct {
	ID   string    `json:"id"` // the same whenever it is told again
	Kind Kind      `json:"kind"`
	Time time.Time `json:"time"`
	Host string    `json:"host"` // where Loom runs

	Title string `json:"title"` // one line
	Text  string `json:"text"`  // several

	Job *Job `json:"job,omitempty"`
	Run *Run `json:"run,omitempty"`

	Failures []Failure `json:"failures,omitempty"` // of the run, those alike together
	Since    time.Time `json:"since,omitzero"`     // when it began: to fail, to be down, the first missed tick
	Until    time.Time `json:"until,omitzero"`     // the last missed tick
	InARow   int       `json:"in_a_row,omitempty"` // how many runs have failed since
	Nodes    []string  `json:"nodes,omitempty"`    // that are unreachable, or back
	Problems []string  `json:"problems,omitempty"` // of the manifest
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by,omitempty"`       // who asked for a test
	Commands []string  `json:"commands,omitempty"` // that tell more

	Output []string `json:"output,omitempty"` // the last lines of a run that ended, if somebody wants them
}

// A Job is one that news are about.
type Job struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Runbook     string            `json:"runbook,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	File        string            `json:"file,omitempty"`
	Line        int               `json:"line,omitempty"`
}

// A Run is one that news are about.
type Run struct {
	ID      string              `json:"id"`
	Due     time.Time           `json:"due,omitzero"`
	Trigger loom.Trigger        `json:"trigger,omitempty"`
	By      string              `json:"by,omitempty"`
	Started time.Time           `json:"started,omitzero"`
	Ended   time.Time           `json:"ended,omitzero"`
	Status  loom.Status         `json:"status,omitempty"`
	Nodes   int                 `json:"nodes"`
	Counts  map[loom.Status]int `json:"counts,omitempty"`
}

// A Failure is what went wrong in the same way on some nodes of a run.
type Failure struct {
	Nodes    []string    `json:"nodes"`          // at most 20 of them
	More     int         `json:"more,omitempty"` // how many others
	Status   loom.Status `json:"status"`
	ExitCode int         `json:"exit_code"` // -1: none
	Reason   string      `json:"reason,omitempty"`
	Output   []string    `json:"output,omitempty"` // the last lines of the first node
}

// The bounds of what is told.
const (
	mostNodes    = 20 // named of those that failed alike
	mostFailures = 10 // ways to fail
	mostLines    = 20 // of output, of each
	lineLength   = 500
	reasonLength = 1000
	mostProblems = 20
	mostNamed    = 100 // nodes that are unreachable
)

// newID names news after what they are about, so that who makes the same news
// again gives them the same name.
func newID(k Kind, about ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, about...))
	return string(k) + "-" + hex.EncodeToString(sum[:12])
}

// newsOf returns news about a job.
func newsOf(k Kind, j *loom.Job, id string) News {
	return News{ID: id, Kind: k, Job: &Job{Name: j.Name, Description: j.Description, Owner: j.Owner, Runbook: j.Runbook,
		Labels: j.Labels, File: j.File, Line: j.Line}}
}

// about adds a run.
func (n *News) about(r loom.Run) {
	n.Run = &Run{ID: r.ID, Due: r.Due, Trigger: r.Trigger, By: r.By, Started: r.Started, Ended: r.Ended, Status: r.Status,
		Nodes: r.Nodes, Counts: maps.Clone(r.Counts)}
	n.Time, n.Reason = r.Ended, r.Reason
	if n.Time.IsZero() {
		n.Time = r.Started
	}
}

// group puts results that are alike together, the most frequent first.
func group(results []loom.Result) []Failure {
	type key struct {
		status loom.Status
		exit   int
		reason string
	}
	var all []*Failure
	at := map[key]*Failure{}
	sizes := map[*Failure]int{}
	for _, r := range results {
		k := key{r.Status, r.ExitCode, strings.ReplaceAll(r.Reason, r.Node, "")}
		f := at[k]
		if f == nil {
			f = &Failure{Status: r.Status, ExitCode: r.ExitCode, Reason: r.Reason, Output: tail(r.Output)}
			at[k], all = f, append(all, f)
		}
		if sizes[f]++; len(f.Nodes) < mostNodes {
			f.Nodes = append(f.Nodes, r.Node)
		} else {
			f.More++
		}
	}
	slices.SortStableFunc(all, func(a, b *Failure) int { return sizes[b] - sizes[a] })
	out := make([]Failure, 0, len(all))
	for _, f := range all {
		if len(out) == mostFailures { // the rest is counted with the last
			out[len(out)-1].More += sizes[f]
			continue
		}
		out = append(out, *f)
	}
	return out
}

// tail is the last lines of an output, those that were cut joined again.
func tail(lines []loom.Line) []string {
	var out []string
	joins := false
	for _, l := range lines[max(0, len(lines)-4*mostLines):] {
		if joins && len(out) > 0 {
			out[len(out)-1] += l.Text
		} else {
			out = append(out, l.Text)
		}
		joins = l.More
	}
	return slices.Clone(out[max(0, len(out)-mostLines):])
}
