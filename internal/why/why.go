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
	Due     time.Time    `json:"due,omitzero" doc:"The tick, in the job's time zone; left out: it is about a run without one, or no moment"`
	Outcome loom.Outcome `json:"outcome" doc:"ran, late, skipped, missed, paused or superseded; coming, pending, disabled, unknown, or none if there is no such tick"`
	Text    string       `json:"text" doc:"The answer, for a person"`
	Why     string       `json:"why,omitempty" doc:"The reason alone"`
	Note    string       `json:"note,omitempty" doc:"What is unusual about the moment, as daylight saving"`

	Expect     loom.Outcome    `json:"expect,omitempty" doc:"What will become of a tick that is to come: ran, skipped or paused"`
	Targets    []string        `json:"targets,omitempty"`
	Run        *AnswerRun      `json:"run,omitempty" doc:"The tick's run"`
	CaughtUpBy string          `json:"caught_up_by,omitempty" doc:"The ID of the run that made up for a missed tick"`
	Failures   []AnswerFailure `json:"failures,omitempty" doc:"Where the run ended badly"`
	Owner      string          `json:"owner,omitempty" doc:"Whom to ask about a failure"`
	Runbook    string          `json:"runbook,omitempty" doc:"What to read about a failure"`

	Policy   *AnswerPolicy `json:"policy,omitempty"`
	Pause    *AnswerPause  `json:"pause,omitempty" doc:"The one that the job has now"`
	Previous time.Time     `json:"previous,omitzero" doc:"The tick before"`
	Next     time.Time     `json:"next,omitzero" doc:"The tick after"`
}

// An AnswerRun is a run in an Answer.
type AnswerRun struct {
	ID      string              `json:"id"`
	Trigger loom.Trigger        `json:"trigger" doc:"schedule, catch-up, manual or after"`
	By      string              `json:"by,omitempty" doc:"Who asked for it, or the run that it follows"`
	Status  loom.Status         `json:"status" doc:"queued, running, ok, changed, failed, cancelled or lost"`
	Started time.Time           `json:"started,omitzero"`
	Ended   time.Time           `json:"ended,omitzero"`
	Nodes   int                 `json:"nodes" doc:"How many targets"`
	Counts  map[loom.Status]int `json:"counts,omitempty" doc:"How many targets ended how"`
	Reason  string              `json:"reason,omitempty" doc:"Why it ended so"`
}

// An AnswerFailure is nodes on which a run ended badly in the same way.
type AnswerFailure struct {
	Nodes  []string    `json:"nodes"`
	Status loom.Status `json:"status"`
	Reason string      `json:"reason,omitempty"`
}

// An AnswerPolicy is what the job's keys say about ticks.
type AnswerPolicy struct {
	Overlap      loom.Overlap      `json:"overlap" doc:"skip, queue, replace or allow"`
	Missed       loom.MissedPolicy `json:"missed" doc:"latest, skip or all"`
	MissedWithin float64           `json:"missed_within_seconds,omitempty" doc:"Older ticks stay missed"`
	Delay        float64           `json:"delay_seconds,omitempty" doc:"The job's jitter"`
}

// An AnswerPause is the one that a job has now.
type AnswerPause struct {
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero" doc:"Left out: until it is resumed"`
	By    string    `json:"by,omitempty"`
	Why   string    `json:"why,omitempty"`
}
