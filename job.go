package loom

import "time"

// A Job is a task, the nodes it is applied to, and when. The manifest loader
// makes them; a Go program may write them down: Name, Task and Targets are
// enough to run one with a [Pool]. A Job must not change once it is in use.
type Job struct {
	Name        string
	Description string
	Owner       string            // whom to ask when it fails
	Runbook     string            // what to read when it fails
	Labels      map[string]string // free data for filtering

	Task     Task   // what to do; or
	Steps    []Step // several tasks, in order on each node
	TaskName string // what the manifest calls Task; for display only

	Targets []*Node

	Schedule Schedule  // nil: only by hand or by another job
	At       time.Time // fires once, at this time, beside Schedule
	Timezone *time.Location
	Disabled bool // its schedule never fires it

	Timeout time.Duration // for each node and attempt; 0: none
	Overlap Overlap       // what a tick does while an earlier run of the job is going

	User string            // logs in to the nodes instead of their own User
	Sudo string            // user that commands become; "": the login user; SudoDefault: the node's choice
	Env  map[string]string // exported to commands, over the node's
	Dir  string            // working directory of commands

	Retries   Retries    // trying again on a node that failed
	Missed    Missed     // ticks that fell while nobody was there
	Jitter    Jitter     // spreads starts
	Batch     Batch      // so many nodes at a time
	After     []After    // jobs whose end fires this one
	NotDuring []Blackout // windows in which its schedule does not fire it
	Output    LogFile    // a file for what it prints
	Notify    Notify     // who hears of it

	File string // where it was defined; "" for a job made in Go
	Line int
	Col  int
}

// SudoDefault as the Sudo of a job is the user that each node's own Sudo names,
// which is root unless it says otherwise.
const SudoDefault = "*"

// A Step is one task of a job that has several.
type Step struct {
	Name     string
	Task     Task
	TaskName string
	On       StepOn // when to run it; zero: if all steps before it went well
}

// StepOn says after which outcome of the earlier steps a step runs.
type StepOn string

// The conditions of a step.
const (
	OnOK     StepOn = "ok" // the default
	OnFailed StepOn = "failed"
	OnAlways StepOn = "always"
)

// Overlap says what becomes of a tick that falls while an earlier run of the
// same job is still going.
type Overlap string

// The overlap policies. The zero value is OverlapSkip.
const (
	OverlapSkip    Overlap = "skip"    // let the tick go, and say so
	OverlapQueue   Overlap = "queue"   // let one tick wait for the run to end
	OverlapReplace Overlap = "replace" // cancel the run, then start
	OverlapAllow   Overlap = "allow"   // run both
)

// Retries says how often, and after what, a job is tried again on one node.
type Retries struct {
	Attempts int           // beside the first; 0: none
	Delay    time.Duration // before the first retry
	Backoff  float64       // each further delay is this much longer; 0: the same
	MaxDelay time.Duration // 0: no limit
	On       []Status      // which results are retried
}

// Missed says what becomes of ticks that fell while no daemon ran.
type Missed struct {
	Policy MissedPolicy
	Within time.Duration // older ones are let go; 0: no limit
}

// MissedPolicy is the policy of [Missed].
type MissedPolicy string

// The policies. The zero value is MissedLatest.
const (
	MissedLatest MissedPolicy = "latest" // one run makes up for all
	MissedSkip   MissedPolicy = "skip"   // none
	MissedAll    MissedPolicy = "all"    // one run each, at most 100
)

// Jitter delays starts by a fixed hash of the job's name, or of the job's and
// the node's, up to Max.
type Jitter struct {
	Max    time.Duration
	ByNode bool
}

// Batch says how many nodes of a run are worked on before the next ones are
// begun, and how many failures end it. The zero value is all at once.
type Batch struct {
	Sizes       []Share // the last one repeats
	MaxFailures *Share  // nil: however many
}

// A Share is a number of nodes, or a percentage of them.
type Share struct {
	N       int
	Percent float64 // if not 0, N is ignored
}

// After fires a job when another job's run ends.
type After struct {
	Job string
	On  AfterOn
}

// AfterOn says which end of the other job counts.
type AfterOn string

// The ends that count.
const (
	AfterOK     AfterOn = "ok" // the default
	AfterFailed AfterOn = "failed"
	AfterAny    AfterOn = "any"
)

// A Blackout is a time in which a schedule does not fire: For from each time
// of Schedule on, or from From to To.
type Blackout struct {
	Schedule Schedule
	For      time.Duration
	From, To time.Time
}

// LogFile is a file that gets a job's output. File may contain {job}, {node}
// and {date}.
type LogFile struct {
	File    string
	MaxSize int64 // bytes; then it is rotated
	Keep    int   // rotated files
}

// Notify says who hears of a job's runs.
type Notify struct {
	On []string
	To []string
}
