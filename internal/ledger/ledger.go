// Package ledger has the rules that all stores share, as functions of values:
// which firings make sense, and what a batch of events means for each node.
package ledger

import (
	"fmt"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
)

// ClockWrong is how far in the future a job's last tick must be for the clock
// to have been wrong when it was taken.
const ClockWrong = 3 * time.Hour

// Check finds mistakes in firings that no store could make sense of.
func Check(firings []loom.Firing) error {
	for _, f := range firings {
		if err := check(f); err != nil {
			return fmt.Errorf("fire job %q: %w", f.Job, err)
		}
	}
	return nil
}

func check(f loom.Firing) error {
	runs := f.Outcome == "" || f.Outcome.Runs()
	switch {
	case f.Job == "":
		return fmt.Errorf("the firing names no job")
	case runs && f.Run.ID == "":
		return fmt.Errorf("the run has no ID")
	case f.Due.IsZero() && !runs:
		return fmt.Errorf("a firing without a tick can't be %s", f.Outcome)
	case !f.Due.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Due):
		return fmt.Errorf("the range of ticks ends before it begins")
	case runs && !f.Until.IsZero() && !f.Until.Equal(f.Due):
		return fmt.Errorf("a range of ticks has no run")
	}
	return nil
}

// Verb returns what a person did who asked for a run.
func Verb(r loom.Run) string {
	if r.Plan {
		return loom.VerbPlan
	}
	return loom.VerbRun
}

// Bad reports whether runs of this status are few and looked for.
func Bad(s loom.Status) bool { return s != loom.StatusOK && s != loom.StatusChanged }

// Paused reports whether p keeps a firing that is due at due from starting a
// run, and says why.
func Paused(p *loom.Pause, trigger loom.Trigger, due time.Time) (string, bool) {
	if p == nil || trigger == loom.TriggerManual || !p.Until.IsZero() && !due.Before(p.Until) {
		return "", false
	}
	why := "paused"
	if p.By != "" {
		why += " by " + p.By
	}
	if !p.Until.IsZero() {
		why += " until " + p.Until.Format("2006-01-02 15:04:05")
	}
	if p.Why != "" {
		why += ": " + p.Why
	}
	return why, true
}

// Asked says who asked for something, and why.
func Asked(a loom.Action) string {
	why := "asked for"
	if a.By != "" {
		why += " by " + a.By
	}
	if a.Why != "" {
		why += ": " + a.Why
	}
	return why
}

// A NodeRecord is what a batch of events means for one node.
type NodeRecord struct {
	Node    string
	Started time.Time      // zero: it was before
	Earlier []loom.Attempt // to be added to those before
	Changes []string       // to be added to those before
	End     *loom.Result   // nil: not yet; its Changes replace what was before, and so does Earlier if there is any
	Lines   []loom.Line
}

// Fold sorts events by node, in the order of their first.
func Fold(events []loom.Event) []*NodeRecord {
	var all []*NodeRecord
	byNode := map[string]*NodeRecord{}
	for _, e := range events {
		switch e.Kind {
		case loom.KindNodeStarted, loom.KindRetry, loom.KindChanged, loom.KindOutput, loom.KindNodeEnded:
		default:
			continue
		}
		n := byNode[e.Node]
		if n == nil {
			n = &NodeRecord{Node: e.Node}
			byNode[e.Node], all = n, append(all, n)
		}
		n.add(e)
	}
	return all
}

func (n *NodeRecord) add(e loom.Event) {
	switch e.Kind {
	case loom.KindNodeStarted:
		n.Started = e.Time
	case loom.KindRetry:
		if r := e.Result; r != nil {
			n.Earlier = append(n.Earlier, loom.Attempt{Started: r.Started, Ended: r.Ended,
				Status: r.Status, ExitCode: r.ExitCode, Reason: r.Reason})
		}
	case loom.KindChanged:
		n.Changes = append(n.Changes, e.Text)
	case loom.KindOutput:
		n.Lines = append(n.Lines, loom.Line{Time: e.Time, Stream: e.Stream, Text: e.Text, More: e.More})
	case loom.KindNodeEnded:
		if e.Result == nil {
			return
		}
		r := *e.Result
		r.Node, r.Output, r.Err = n.Node, nil, nil
		r.Changes, r.Earlier = slices.Clone(r.Changes), slices.Clone(r.Earlier)
		n.Changes = nil
		if r.Earlier != nil {
			n.Earlier = nil
		}
		n.End = &r
	}
}

// Milli cuts t to what stores keep. The zero time stays so.
func Milli(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli())
}
