// Package why puts into words what became of a tick of a job, or will, and why.
// [Explain] is a function from facts to an answer; [Gather] gets the facts from a
// store.
package why

import (
	"time"

	"github.com/dustinlacewell/loom"
)

// Facts are what is known about one tick of a job, or about a run that has none.
type Facts struct {
	Now  time.Time
	Name string    // the job's
	Job  *loom.Job // nil: it is not in the manifest
	Due  time.Time // the moment that is asked about; zero: it is about Run

	State    *loom.JobState // nil: the store does not know the job
	Tick     *loom.Tick     // what is written of the tick; nil: nothing
	Earlier  *loom.Tick     // the newest that is written of before Due; nil: none
	Keep     time.Duration  // how long what became of ticks is kept; 0: however long
	Absent   bool           // no daemon runs
	Down     string         // why the daemon acts on no ticks now; "": it does
	Run      *loom.Run      // the tick's; nil: there is none, or it is not kept any more
	Results  []loom.Result  // the run's
	MadeUp   *loom.Run      // the catch-up after a tick that was missed; nil: none
	Asked    *loom.Action   // what a person said who asked for the run; nil: nothing is known
	Before   *loom.Run      // the run that Run follows, of a job that this one is after
	Upstream []Upstream     // the jobs that this one is after
	Going    []loom.Run     // of the job's, that have not ended now, newest first
	Usual    Usual
	Foretold *Foretold // of a tick to come
}

// An Upstream is a job whose end fires another.
type Upstream struct {
	After loom.After
	Last  *loom.Run // nil: none is known
}

// The outcomes beside those of package loom.
const (
	OutcomeComing   loom.Outcome = "coming"   // it has not fallen yet
	OutcomePending  loom.Outcome = "pending"  // it has fallen, and was not acted on yet
	OutcomeDisabled loom.Outcome = "disabled" // the manifest says that the schedule does not fire the job
	OutcomeUnknown  loom.Outcome = "unknown"  // nothing is remembered of it
	OutcomeNone     loom.Outcome = "none"     // there is no tick at that time
)

// An Answer says what became of a tick, or will.
type Answer struct {
	Job     string       `json:"job"`
	Due     time.Time    `json:"due,omitzero"`
	Outcome loom.Outcome `json:"outcome"`
	Text    string       `json:"text"`
	Why     string       `json:"why,omitempty"`
	Note    string       `json:"note,omitempty"`

	Expect     loom.Outcome `json:"expect,omitempty"`
	Targets    []string     `json:"targets,omitempty"`
	Run        *Run         `json:"run,omitempty"`
	CaughtUpBy string       `json:"caught_up_by,omitempty"`
	Failures   []Failure    `json:"failures,omitempty"`
	Owner      string       `json:"owner,omitempty"`
	Runbook    string       `json:"runbook,omitempty"`

	Policy   *Policy   `json:"policy,omitempty"`
	Pause    *Pause    `json:"pause,omitempty"`
	Previous time.Time `json:"previous,omitzero"`
	Next     time.Time `json:"next,omitzero"`
}

// A Run is a run in an Answer.
type Run struct {
	ID      string              `json:"id"`
	Trigger loom.Trigger        `json:"trigger"`
	By      string              `json:"by,omitempty"`
	Status  loom.Status         `json:"status"`
	Started time.Time           `json:"started,omitzero"`
	Ended   time.Time           `json:"ended,omitzero"`
	Nodes   int                 `json:"nodes"`
	Counts  map[loom.Status]int `json:"counts,omitempty"`
	Reason  string              `json:"reason,omitempty"`
}

// A Failure is nodes on which a run ended badly in the same way.
type Failure struct {
	Nodes  []string    `json:"nodes"`
	Status loom.Status `json:"status"`
	Reason string      `json:"reason,omitempty"`
}

// A Policy is what the job's keys say about ticks.
type Policy struct {
	Overlap      loom.Overlap      `json:"overlap"`
	Missed       loom.MissedPolicy `json:"missed"`
	MissedWithin float64           `json:"missed_within_seconds,omitempty"`
	Delay        float64           `json:"delay_seconds,omitempty"`
}

// A Pause is the one that a job has now.
type Pause struct {
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	By    string    `json:"by,omitempty"`
	Why   string    `json:"why,omitempty"`
}
