package api

import (
	"math"
	"time"
	"unicode/utf8"

	"github.com/dustinlacewell/loom"
)

// The types below are what package loom calls the same, as JSON. Times are in
// UTC, a time that is not known is left out. Text that is not UTF-8 has U+FFFD in
// place of what is not, except that Raw keeps the bytes of a line of output.

// A Run is one firing of a job.
type Run struct {
	ID      string              `json:"id" doc:"26 characters that sort by time"`
	Job     string              `json:"job"`
	Due     time.Time           `json:"due,omitzero" doc:"When it should have started"`
	Trigger loom.Trigger        `json:"trigger" doc:"schedule, catch-up, manual or after"`
	By      string              `json:"by,omitempty" doc:"Who asked for it, or the run that it follows"`
	Why     string              `json:"why,omitempty" doc:"What who asked for it said, as far as get-run knows: of a command given by hand, the command"`
	Targets []string            `json:"targets,omitzero" doc:"The nodes that were asked for; left out: all of the job's"`
	Plan    bool                `json:"plan,omitempty" doc:"It only told what the job would change: that is what changed and changes mean here. It is none of the job's own results"`
	Timeout float64             `json:"timeout_seconds,omitempty" doc:"For each node, if it was asked for; left out: the job's own"`
	Max     int                 `json:"max,omitempty" doc:"How many nodes at once, if that was asked for; left out: as many as max_workers lets"`
	Queued  time.Time           `json:"queued,omitzero"`
	Started time.Time           `json:"started,omitzero"`
	Ended   time.Time           `json:"ended,omitzero"`
	Status  loom.Status         `json:"status" doc:"queued, running, ok, changed, failed, cancelled or lost"`
	Reason  string              `json:"reason,omitempty" doc:"Why it ended so, if the results don't say"`
	Nodes   int                 `json:"nodes" doc:"How many targets"`
	Counts  map[loom.Status]int `json:"counts,omitzero" doc:"How many targets ended how"`
}

// NewRun returns r as the API shows it.
func NewRun(r loom.Run) Run {
	return Run{ID: r.ID, Job: r.Job, Due: utc(r.Due), Trigger: r.Trigger, By: r.By, Targets: r.Targets,
		Plan: r.Plan, Timeout: r.Timeout.Seconds(), Max: r.Max, Queued: utc(r.Queued),
		Started: utc(r.Started), Ended: utc(r.Ended), Status: r.Status, Reason: r.Reason, Nodes: r.Nodes, Counts: r.Counts}
}

// Loom is the reverse of NewRun.
func (r Run) Loom() loom.Run {
	return loom.Run{ID: r.ID, Job: r.Job, Due: local(r.Due), Trigger: r.Trigger, By: r.By, Targets: r.Targets,
		Plan: r.Plan, Timeout: duration(r.Timeout), Max: r.Max, Queued: local(r.Queued),
		Started: local(r.Started), Ended: local(r.Ended), Status: r.Status, Reason: r.Reason, Nodes: r.Nodes, Counts: r.Counts}
}

// A Result is what a run did on one node.
type Result struct {
	Run      string      `json:"run,omitempty"`
	Job      string      `json:"job,omitempty"`
	Node     string      `json:"node"`
	Status   loom.Status `json:"status" doc:"running, ok, changed, failed, timeout, unreachable, cancelled, skipped or lost"`
	ExitCode int         `json:"exit_code" doc:"Of the command that failed; -1 if none did, or a signal ended it"`
	Changes  []string    `json:"changes,omitzero" doc:"What the task changed"`
	Reason   string      `json:"reason,omitempty" doc:"Why it is not ok"`
	Attempts int         `json:"attempts" doc:"How often it was tried; 0 if it was not begun"`
	Started  time.Time   `json:"started,omitzero"`
	Ended    time.Time   `json:"ended,omitzero"`
	Earlier  []Attempt   `json:"earlier,omitzero" doc:"The attempts before the last"`
	Dropped  int64       `json:"dropped,omitempty" doc:"Bytes of output that were not kept"`
}

// An Attempt is one try that was followed by another.
type Attempt struct {
	Started  time.Time   `json:"started,omitzero"`
	Ended    time.Time   `json:"ended,omitzero"`
	Status   loom.Status `json:"status"`
	ExitCode int         `json:"exit_code"`
	Reason   string      `json:"reason,omitempty"`
}

// NewResult returns r as the API shows it: without its output and its error.
func NewResult(r loom.Result) Result {
	return Result{Run: r.Run, Job: r.Job, Node: r.Node, Status: r.Status, ExitCode: r.ExitCode, Changes: r.Changes, Reason: r.Reason, Attempts: r.Attempts,
		Started: utc(r.Started), Ended: utc(r.Ended), Dropped: r.Dropped,
		Earlier: each(r.Earlier, func(a loom.Attempt) Attempt {
			return Attempt{Started: utc(a.Started), Ended: utc(a.Ended), Status: a.Status, ExitCode: a.ExitCode, Reason: a.Reason}
		})}
}

// Loom is the reverse of NewResult.
func (r Result) Loom() loom.Result {
	return loom.Result{Run: r.Run, Job: r.Job, Node: r.Node, Status: r.Status, ExitCode: r.ExitCode, Changes: r.Changes, Reason: r.Reason, Attempts: r.Attempts,
		Started: local(r.Started), Ended: local(r.Ended), Dropped: r.Dropped,
		Earlier: each(r.Earlier, func(a Attempt) loom.Attempt {
			return loom.Attempt{Started: local(a.Started), Ended: local(a.Ended), Status: a.Status, ExitCode: a.ExitCode, Reason: a.Reason}
		})}
}

// A Chunk is a piece of one node's output.
type Chunk struct {
	Cursor int64  `json:"cursor" doc:"Grows from chunk to chunk"`
	Node   string `json:"node"`
	Lines  []Line `json:"lines"`
}

// A Line is a line of output.
type Line struct {
	Time   time.Time   `json:"time,omitzero"`
	Stream loom.Stream `json:"stream" doc:"stdout, stderr, or log for the task's own words"`
	Text   string      `json:"text"`
	Raw    []byte      `json:"raw,omitempty" doc:"The line's bytes, if they are not UTF-8"`
	More   bool        `json:"more,omitempty" doc:"The line goes on in the next of its stream"`
}

// NewChunk returns c as the API shows it.
func NewChunk(c loom.Chunk) Chunk {
	return Chunk{Cursor: c.Cursor, Node: c.Node, Lines: each(c.Lines, func(l loom.Line) Line {
		return Line{Time: utc(l.Time), Stream: l.Stream, Text: l.Text, Raw: raw(l.Text), More: l.More}
	})}
}

// Loom is the reverse of NewChunk.
func (c Chunk) Loom() loom.Chunk {
	return loom.Chunk{Cursor: c.Cursor, Node: c.Node, Lines: each(c.Lines, func(l Line) loom.Line {
		return loom.Line{Time: local(l.Time), Stream: l.Stream, Text: text(l.Text, l.Raw), More: l.More}
	})}
}

// A JobState is what the store knows of a job.
type JobState struct {
	Name     string    `json:"name"`
	LastTick time.Time `json:"last_tick,omitzero" doc:"Up to here ticks have outcomes"`
	Pause    *Pause    `json:"pause,omitempty" doc:"Left out: it is not paused"`
	Last     *Run      `json:"last,omitempty" doc:"The newest run that was no plan"`
	Gone     bool      `json:"gone,omitempty" doc:"It is not in the manifest any more"`
}

// A Pause keeps a job from being fired, except by hand.
type Pause struct {
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero" doc:"Left out: until it is resumed"`
	By    string    `json:"by,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// NewJobState returns j as the API shows it.
func NewJobState(j loom.JobState) JobState {
	s := JobState{Name: j.Name, LastTick: utc(j.LastTick), Gone: j.Gone}
	if p := j.Pause; p != nil {
		s.Pause = &Pause{Since: utc(p.Since), Until: utc(p.Until), By: p.By, Why: p.Why}
	}
	if j.Last != nil {
		r := NewRun(*j.Last)
		s.Last = &r
	}
	return s
}

// Loom is the reverse of NewJobState.
func (j JobState) Loom() loom.JobState {
	s := loom.JobState{Name: j.Name, LastTick: local(j.LastTick), Gone: j.Gone}
	if p := j.Pause; p != nil {
		s.Pause = &loom.Pause{Since: local(p.Since), Until: local(p.Until), By: p.By, Why: p.Why}
	}
	if j.Last != nil {
		r := j.Last.Loom()
		s.Last = &r
	}
	return s
}

// A Tick is what became of one tick of a job, or of a range of them.
type Tick struct {
	Job     string       `json:"job"`
	Due     time.Time    `json:"due"`
	Until   time.Time    `json:"until" doc:"The last of the range; due if it is one tick"`
	Ticks   int          `json:"ticks" doc:"How many"`
	Outcome loom.Outcome `json:"outcome" doc:"ran, late, skipped, missed, paused or superseded"`
	Why     string       `json:"why,omitempty"`
	Run     string       `json:"run,omitempty" doc:"Its ID; left out: there is none, or it is not kept any more"`
	At      time.Time    `json:"at,omitzero" doc:"When this was written down"`
}

// NewTick returns t as the API shows it.
func NewTick(t loom.Tick) Tick {
	return Tick{Job: t.Job, Due: utc(t.Due), Until: utc(t.Until), Ticks: t.Ticks, Outcome: t.Outcome, Why: t.Why, Run: t.Run, At: utc(t.At)}
}

// Loom is the reverse of NewTick.
func (t Tick) Loom() loom.Tick {
	return loom.Tick{Job: t.Job, Due: local(t.Due), Until: local(t.Until), Ticks: t.Ticks, Outcome: t.Outcome, Why: t.Why, Run: t.Run, At: local(t.At)}
}

// A DayCount says how many runs that were queued on a day ended with a status.
type DayCount struct {
	Day    time.Time   `json:"day" doc:"Its first moment, in the time zone in which days are counted"`
	Status loom.Status `json:"status"`
	Runs   int         `json:"runs"`
}

// An Action is what a person, or a program for one, did.
type Action struct {
	ID     int64     `json:"id"`
	Time   time.Time `json:"time"`
	By     string    `json:"by,omitempty"`
	Verb   string    `json:"verb"`
	Object string    `json:"object,omitempty" doc:"A job's name, a run's ID, ..."`
	Why    string    `json:"why,omitempty"`
	Until  time.Time `json:"until,omitzero" doc:"Of a pause"`
}

// NewAction returns a as the API shows it.
func NewAction(a loom.Action) Action {
	return Action{ID: a.ID, Time: utc(a.Time), By: a.By, Verb: a.Verb, Object: a.Object, Why: a.Why, Until: utc(a.Until)}
}

// Loom is the reverse of NewAction.
func (a Action) Loom() loom.Action {
	return loom.Action{ID: a.ID, Time: local(a.Time), By: a.By, Verb: a.Verb, Object: a.Object, Why: a.Why, Until: local(a.Until)}
}

// each converts a slice; nil stays nil.
func each[From, To any](all []From, convert func(From) To) []To {
	if all == nil {
		return nil
	}
	converted := make([]To, len(all))
	for i, v := range all {
		converted[i] = convert(v)
	}
	return converted
}

// list is each for a list that JSON shows even if it is empty.
func list[From, To any](all []From, convert func(From) To) []To {
	if all == nil {
		return []To{}
	}
	return each(all, convert)
}

// duration is how long so many seconds are.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

// utc is t for those who can be anywhere.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// local is t for those who are here.
func local(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Local()
}

// raw returns the bytes of text that JSON can't hold, or nil.
func raw(text string) []byte {
	if utf8.ValidString(text) {
		return nil
	}
	return []byte(text)
}

// text is the reverse of raw.
func text(text string, raw []byte) string {
	if raw != nil {
		return string(raw)
	}
	return text
}
