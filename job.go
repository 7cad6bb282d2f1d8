package loom

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

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

	// Resumable lets the payload of its tasks outlive the connection, and Loom:
	// see [Session.Resumable].
	Resumable bool

	// Base is the directory of the control host at which relative paths that its
	// tasks are given start: that of the main file. "": where Loom runs.
	Base string

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

	secrets *Redactor // of the manifest it is from
	plan    bool      // it is what Plan returned
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
// and {date}, which is the day of each line in the job's time zone.
type LogFile struct {
	File    string
	MaxSize int64 // bytes; then it is rotated; 0: never
	Keep    int   // rotated files, and if File has a {date} files of earlier days; 0: all
}

// Notify says who hears of a job's runs.
type Notify struct {
	On []string // what they hear of; nil: what each target hears of anyway
	To []string // names of notification targets; empty but not nil: nobody; nil: whoever hears of jobs that name nobody
}

// next tells whether a result is tried again, and after how long. A lost
// result never is: nobody knows whether it happened.
func (r Retries) next(res *Result) (time.Duration, bool) {
	on := r.On
	if len(on) == 0 {
		on = []Status{StatusUnreachable, StatusFailed, StatusTimeout}
	}
	if res.Attempts > r.Attempts || res.Status == StatusLost || !slices.Contains(on, res.Status) {
		return 0, false
	}
	delay := float64(r.Delay)
	if r.Backoff > 0 {
		delay *= math.Pow(r.Backoff, float64(res.Attempts-1))
	}
	most := float64(r.MaxDelay)
	if most <= 0 {
		most = float64(math.MaxInt64 / 2)
	}
	return time.Duration(min(delay, most)), true
}

// size returns how many of rest nodes make up batch i of a run on all nodes.
func (b Batch) size(i, all, rest int) int {
	if len(b.Sizes) == 0 {
		return rest
	}
	return min(b.Sizes[min(i, len(b.Sizes)-1)].of(all, true), rest)
}

// of returns the share of n nodes: rounded up and at least one if it says how
// many are worked on, rounded down if it is a limit.
func (s Share) of(n int, up bool) int {
	switch exact := s.Percent / 100 * float64(n); {
	case s.Percent == 0 && up:
		return max(s.N, 1)
	case s.Percent == 0:
		return s.N
	case up:
		return max(int(math.Ceil(exact)), 1)
	default:
		return int(exact)
	}
}

// of returns the delay for these names: always the same, and spread evenly.
func (j Jitter) of(names ...string) time.Duration {
	if j.Max <= 0 {
		return 0
	}
	h := fnv.New64a()
	for _, n := range names {
		fmt.Fprintf(h, "%q", n)
	}
	// The hash's low bits are mixed best; whole milliseconds are fine enough.
	steps := uint64(j.Max/time.Millisecond) + 1
	return time.Duration(h.Sum64()%steps) * time.Millisecond
}

// Delay returns how long after each of its ticks the job starts: its jitter. One
// by node does not count, as the run is begun then.
func (j *Job) Delay() time.Duration {
	if j.Jitter.ByNode {
		return 0
	}
	return j.Jitter.of(j.Name)
}

// covers reports whether t is in the blackout.
func (b Blackout) covers(t time.Time) bool {
	if b.Schedule == nil {
		return !t.Before(b.From) && t.Before(b.To)
	}
	begin := b.Schedule.Next(t.Add(-b.For))
	return !begin.IsZero() && !begin.After(t)
}

// Blackout says which of NotDuring keeps the schedule from firing the job at t, or
// returns "".
func (j *Job) Blackout(t time.Time) string {
	for _, b := range j.NotDuring {
		switch {
		case !b.covers(t):
		case b.Schedule == nil:
			return fmt.Sprintf("not_during %s to %s", b.From.Format(time.RFC3339), b.To.Format(time.RFC3339))
		default:
			begin := b.Schedule.Next(t.Add(-b.For))
			return fmt.Sprintf("not_during %v for %v, which began at %s", b.Schedule, b.For, begin.Format(time.RFC3339))
		}
	}
	return ""
}

// follows reports whether the end of a run of another job fires j.
func (j *Job) follows(other string, end Status) bool {
	return slices.ContainsFunc(j.After, func(a After) bool {
		if a.Job != other {
			return false
		}
		switch a.On {
		case AfterAny:
			return true
		case AfterFailed:
			return !end.Good() && end != StatusCancelled
		default:
			return end.Good()
		}
	})
}

// resumes reports whether an attempt of the job that was interrupted can go on
// where it was: it can if nothing that it does is done without a claim.
func (j *Job) resumes() bool {
	can := func(t Task) bool {
		r, ok := t.(Resumer)
		return ok && r.Resumes()
	}
	if len(j.Steps) == 0 {
		return j.Resumable && can(j.Task)
	}
	return j.Resumable && !slices.ContainsFunc(j.Steps, func(s Step) bool { return !can(s.Task) })
}
