package loom

import (
	"context"
	"errors"
	"time"
)

// Errors of stores that callers branch on.
var (
	// ErrFenced means that a claim on a run is no longer held: the run has
	// ended, or was given to another instance. Whoever held it must stop the
	// run's work at once and write nothing more.
	ErrFenced = errors.New("the claim on the run is lost")

	// ErrStoreDown means that the store can't be used now: its disk is full, it
	// is locked, read-only, damaged or gone. The error that wraps it says which,
	// where, and what to do. Nothing of the call was kept, unless its outcome is
	// unknown, and trying again is safe. A store comes back by itself when the
	// cause goes away.
	ErrStoreDown = errors.New("store is down")
)

// A Store is Loom's memory: which ticks were acted on and how, the runs with
// their results and output, pauses, and who did what. Package storetest checks
// all that is said here. A store is safe for concurrent use; every method is
// atomic. Times are kept to the millisecond.
//
// Several instances of Loom may share a store. They share its clock, its ticks
// and its work, so every decision about time is the store's, and every claim
// has an epoch by which a claim that was given away is told from the new one.
//
// A method whose context ends returns its cause. What it should have written
// may then have been written or not. The same is true of a connection that
// breaks. All methods may be repeated with the same arguments to find out.
type Store interface {
	Ledger
	Archive

	// Act does what a person asks for and writes down who asked, in one: see
	// the verbs. A verb that the store does not know is only written down. The
	// error wraps ErrNotFound if there is no such job, or no such run going.
	Act(ctx context.Context, a Action) error

	// Trim deletes what keep no longer asks for, in small steps between which
	// others write, and returns what it deleted. Ticks stay claimed, whatever
	// is trimmed, and nothing of a run that has not ended is. If ctx ends, what
	// was trimmed so far stays so.
	Trim(ctx context.Context, keep Retention) (Trimmed, error)

	// Close waits for what is being written and lets go of the store.
	Close() error
}

// A Backuper is a store that can be copied while it is in use.
type Backuper interface {
	// Backup writes a copy of the store, as it is at one moment, to a file
	// that must not exist yet. The copy is a whole store.
	Backup(ctx context.Context, file string) error
}

// A Sizer is a store that knows how much room it takes.
type Sizer interface {
	// Size returns the bytes that the store's files take.
	Size(ctx context.Context) (int64, error)
}

// A Watcher is a store that tells when there is more to read of a run, so that who
// follows one need not ask again and again. A store that another process may write
// to is one only if it hears of that, too.
type Watcher interface {
	// Watch returns a channel from which something can be received once anything
	// was written in the run since it was watched, or since the last receive: that
	// it printed something, or has ended. It may be received for nothing. A writer
	// waits for nobody who watches. Whoever watches must call done.
	Watch(run string) (news <-chan struct{}, done func())
}

// A Ledger is what running jobs needs from a store.
type Ledger interface {
	// Beat says that an instance is alive, and puts the runs of instances that
	// were silent for longer than the store's time to live back into the queue.
	// An instance beats every fifth of that time, and stops all work when none
	// has succeeded for four fifths of it, unless it is alone.
	Beat(ctx context.Context, self Instance) (Pulse, error)

	// Adopt says which jobs there are: by name, with a fingerprint of what
	// decides when each falls due. A job that is new, returns after it was
	// gone, or has another fingerprint than before begins anew: its last tick is
	// the store's now, so that nothing before counts as missed. The same goes
	// for one whose last tick is more than three hours in the store's future,
	// as the clock must have been wrong then.
	Adopt(ctx context.Context, jobs map[string]string) error

	// Fire acts on ticks and starts runs: see Firing. It returns what became of
	// each, in their order. All is written at once, before it returns.
	Fire(ctx context.Context, self string, firings []Firing) ([]Fired, error)

	// Take claims the run that has waited longest and may start, or returns
	// nil. The claim's epoch is greater than those of all earlier claims on the
	// run; if it is greater than 1, the run was begun by an instance that is
	// silent now, and its results say how far it came. A run that allows no
	// overlap is not claimed while another of its job is going.
	Take(ctx context.Context, self string) (*Claim, error)

	// Record writes what happened in a run: node-started, retry,
	// changed, output and node-ended events, in order; others are passed over.
	// Lines of output come as events only, not from a Result. Nothing is
	// written if the claim is lost: the error then wraps ErrFenced.
	Record(ctx context.Context, c Claim, events []Event) error

	// Finish writes the last events and ends a run with end's Status, Ended,
	// Counts and Reason. If the status is queued, the run is given back. The
	// error wraps ErrFenced if the claim is lost; one who repeats a Finish that
	// has succeeded gets nil.
	Finish(ctx context.Context, c Claim, end Run, last []Event) error
}

// An Archive is what people and programs read from a store.
type Archive interface {
	// Jobs returns the named jobs, or all that were ever adopted or fired, by
	// name.
	Jobs(ctx context.Context, names ...string) ([]JobState, error)

	// Runs returns runs, newest first. Those that are going have the Counts of
	// what has ended.
	Runs(ctx context.Context, q RunQuery) ([]Run, error)

	// RecentRuns returns the newest runs of each of these jobs, so many of each at
	// most: by job in the order asked for, newest first. They are without By,
	// Targets, Timeout, Max, Reason and Counts, so that many jobs can be asked about
	// at once. Plans are not among them.
	RecentRuns(ctx context.Context, most int, jobs ...string) ([]Run, error)

	// RecentResults returns the newest results on each of these nodes, so many of
	// each at most: by node in the order asked for, newest first. They are as
	// Results returns them. Those of plans are not among them.
	RecentResults(ctx context.Context, most int, nodes ...string) ([]Result, error)

	// Results returns results without their output, by run in the order
	// asked for, then by node. Those that have not ended are running.
	Results(ctx context.Context, q ResultQuery) ([]Result, error)

	// Output returns chunks of output, oldest first. Asking again with the last
	// chunk's cursor returns what was added, so a run can be followed whoever
	// executes it. A Watcher says when.
	Output(ctx context.Context, q OutputQuery) ([]Chunk, error)

	// Ticks returns what became of a job's ticks, newest first.
	Ticks(ctx context.Context, q TickQuery) ([]Tick, error)

	// Days returns how many runs ended how, by day, oldest first, plans apart. Counts
	// outlive the runs that were counted.
	Days(ctx context.Context, q DayQuery) ([]DayCount, error)

	// Actions returns what people did, newest first.
	Actions(ctx context.Context, q ActionQuery) ([]Action, error)
}

// An Instance is one process that runs jobs.
type Instance struct {
	ID      string // fresh for each start
	Host    string
	Leaving bool // it stops: its runs go back into the queue at once
}

// A Pulse is what an instance must know.
type Pulse struct {
	Now    time.Time         // the store's clock, by which ticks fall due
	TTL    time.Duration     // how long an instance may be silent; 0: as long as it likes
	Alone  bool              // no other instance can use the store, so silence takes no work away
	Away   time.Time         // when, before this process had the store, an instance was last heard of; zero: not known
	Owned  []string          // the runs that the store thinks the instance holds
	Cancel map[string]string // those of them that shall end, and why
}

// An Outcome is what became of a tick. Each has exactly one.
type Outcome string

// The outcomes.
const (
	OutcomeRan        Outcome = "ran"        // on time
	OutcomeLate       Outcome = "late"       // as a catch-up
	OutcomeSkipped    Outcome = "skipped"    // an earlier run was going
	OutcomeMissed     Outcome = "missed"     // nobody was there
	OutcomePaused     Outcome = "paused"     // a person said so
	OutcomeSuperseded Outcome = "superseded" // a newer one took its place
)

// Runs reports whether a tick of this outcome has a run.
func (o Outcome) Runs() bool { return o == OutcomeRan || o == OutcomeLate }

// A Firing asks a store to act on a tick, or on a range of ticks that nothing
// is run for, or to start a run without a tick.
//
// A tick is acted on only if After is the job's last tick, Due is later than
// that and not in the store's future. It is then the job's last tick, so of all
// who fire it one succeeds, whoever retries, and no tick between is passed over.
// A tick that has an outcome already, from before a clock was set back, keeps
// that one. A job may be named several times in one call, by ticks in order.
//
// If the Outcome has a run, the store may decide otherwise: a paused job fires
// only by hand, and Overlap says what happens while an earlier run of the job is
// queued or going. With replace, runs that have not begun are superseded, those
// that have are asked to end, and the new run waits for them.
//
// Consecutive ticks of the same outcome and reason that have no run are kept as
// one range.
type Firing struct {
	Job     string
	Due     time.Time // the tick; zero: a run without one
	Until   time.Time // the last tick of a range that begins with Due; zero: Due
	Ticks   int       // how many there are in the range; 0: 1
	After   time.Time // the job's last tick as far as the caller knows; zero: none
	Outcome Outcome   // "": ran
	Why     string    // why not, or why late; one sentence

	// Run is the run to start: its ID, Trigger, By, Targets, Plan, Timeout, Max and
	// Nodes, and its Due if the firing has none. The rest is the store's. A firing of
	// a run that exists is a repetition and changes nothing. A plan is no earlier run
	// to any other: it stands in nobody's way.
	Run     Run
	Overlap Overlap
	Key     string // if not "", a run without a tick is started once for each job and key
	Claim   bool   // claim the run at once if it may start
}

// Fired is what became of a firing.
type Fired struct {
	// Outcome is the tick's, as it was written; "" if nothing was, because the
	// job's last tick is not the one that the firing named, or the tick had an
	// outcome. Of a firing without a tick, it is "skipped" or "paused" if the run
	// was refused, which leaves no trace.
	Outcome Outcome
	Why     string

	// Claim.Run is the run; without an ID, there is none. For a key that was
	// used before it is the earlier run. Claim.Epoch is 0 if it was not claimed.
	Claim Claim
}

// A Claim is the right of one instance to work on one run.
type Claim struct {
	Run   Run
	Owner string // an Instance's ID
	Epoch int64  // 0: not claimed
}

// An Attempt is one try of a job on one node that was followed by another.
type Attempt struct {
	Started  time.Time
	Ended    time.Time
	Status   Status
	ExitCode int
	Reason   string
}

// A JobState is what a store knows of a job.
type JobState struct {
	Name     string
	LastTick time.Time // up to here ticks have outcomes; zero: none has
	Pause    *Pause    // nil: not paused
	Last     *Run      // the newest that is no plan; nil: none
	Gone     bool      // it is not among the adopted jobs
}

// A Pause keeps a job from being fired, except by hand.
type Pause struct {
	Since time.Time
	Until time.Time // ticks from here on are fired again; zero: until it is resumed
	By    string
	Why   string
}

// A RunQuery says which runs are wanted. Its zero value is the newest 100.
type RunQuery struct {
	ID      string // those whose IDs begin with this
	Job     string
	Status  []Status
	Trigger Trigger
	Plan    *bool     // only plans, or only others; nil: both
	Node    string    // those that were at work there
	Text    string    // part of the job's name, of By, or of the run's or a result's Reason, in any case
	Since   time.Time // queued at or after
	Until   time.Time // queued before
	Before  string    // a run's ID: only older ones, to page
	Limit   int       // 0: 100
}

// A ResultQuery says which results are wanted.
type ResultQuery struct {
	Runs []string
	Node string // ""; all
}

// An OutputQuery says which output is wanted.
type OutputQuery struct {
	Run   string
	Node  string // "": all
	After int64  // a chunk's cursor; 0: from the beginning
	Limit int    // chunks; 0: 100
}

// A Chunk is a piece of one node's output, of at most 64 KiB.
type Chunk struct {
	Cursor int64 // grows from chunk to chunk
	Node   string
	Lines  []Line
}

// A TickQuery says which ticks are wanted: those from From to To, both
// included, with ranges that reach into that time.
type TickQuery struct {
	Job   string
	From  time.Time
	To    time.Time // zero: no end
	Limit int       // 0: 100
}

// A Tick is what became of one tick of a job, or of a range of them.
type Tick struct {
	Job     string
	Due     time.Time
	Until   time.Time // the last of the range; Due if it is one tick
	Ticks   int       // how many
	Outcome Outcome
	Why     string
	Run     string    // its ID; "": there is none, or it was trimmed
	At      time.Time // when this was written
}

// A DayQuery says which days are wanted: those of From to that of To.
type DayQuery struct {
	Job  string // "": all together
	From time.Time
	To   time.Time // zero: today
}

// A DayCount says how many runs that were queued on a day ended with a status.
type DayCount struct {
	Day    time.Time // its first moment, in the store's time zone
	Status Status
	Runs   int
}

// An Action is what a person, or a program for one, did.
type Action struct {
	ID     int64     // set by the store; grows
	Time   time.Time // set by the store
	By     string    // who
	Verb   string    // what
	Object string    // to what: a job's name, a run's ID, ...
	Why    string
	Until  time.Time // of VerbPause
}

// The verbs that stores act on.
const (
	VerbPause  = "pause"  // a job: replaces the pause it may have
	VerbResume = "resume" // a job
	VerbCancel = "cancel" // a run: at once if it has not begun, else its owner is told by Beat
	VerbRun    = "run"    // a job, by hand; written by Fire
	VerbPlan   = "plan"   // the same, only to tell what would change
)

// An ActionQuery says which actions are wanted.
type ActionQuery struct {
	Object string    // "": all
	By     string    // "": anybody's
	Verb   string    // "": all
	Since  time.Time // at or after
	Until  time.Time // before; zero: no end
	Before int64     // an action's ID: only older ones, to page; 0: the newest
	Limit  int       // 0: 100
}

// Retention says what a store keeps. The zero value keeps all. Runs that have
// not ended are kept in any case, and so is the newest of each job that is still
// among the adopted ones and that is no plan.
type Retention struct {
	Runs        time.Duration // runs with their results and output, for so long after they were queued
	RunsPerJob  int           // and so many of each job
	Output      time.Duration // output, for so long after it was written
	OutputBytes int64         // and so many bytes of it, as compressed, the oldest going first
	Ticks       time.Duration // outcomes of ticks, day counts and actions
}

// Trimmed says what was deleted, and how far the store shrank.
type Trimmed struct {
	Runs, Chunks, Ticks int
	Bytes               int64
}
