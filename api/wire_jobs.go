package api

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/why"
)

// A Job is a job of the manifest, with what is remembered of it. One that is gone
// from the manifest has only that.
type Job struct {
	JobState
	Remembered bool `json:"remembered" doc:"The store knows of it"`

	Description string            `json:"description,omitempty"`
	Owner       string            `json:"owner,omitempty" doc:"Whom to ask when it fails"`
	Runbook     string            `json:"runbook,omitempty" doc:"What to read when it fails"`
	Labels      map[string]string `json:"labels,omitempty"`
	Task        string            `json:"task,omitempty" doc:"What it does, by the task's name; of a job with steps, the first" example:"run"`
	Steps       int               `json:"steps,omitempty" doc:"How many steps it has; left out: it is one task"`
	Nodes       int               `json:"nodes" doc:"How many targets" example:"12"`

	Schedule []string  `json:"schedule,omitempty" doc:"Any of these fires it; left out: it runs by hand, or after others" example:"[\"0 2 * * *\"]"`
	At       time.Time `json:"at,omitzero" doc:"It fires once, at this time"`
	Timezone string    `json:"timezone,omitempty" doc:"IANA zone of the schedule; left out: that of the daemon's machine" example:"Europe/Berlin"`
	After    []string  `json:"after,omitempty" doc:"Jobs whose end fires it"`
	Disabled bool      `json:"disabled,omitempty" doc:"The manifest says that its schedule does not fire it"`
	Next     time.Time `json:"next,omitzero" doc:"Its next tick, whatever comes of it: see next-ticks"`
	Pending  time.Time `json:"pending,omitzero" doc:"A tick that has fallen, with the delay of its jitter, and was not acted on yet"`
	Note     string    `json:"note,omitempty" doc:"What is unusual about that tick, as daylight saving, or why there is none"`

	Outcomes []JobOutcome `json:"outcomes,omitempty" doc:"How its last runs ended, newest first"`

	File string `json:"file,omitempty" doc:"Where it is defined" example:"/etc/loom/jobs/backup.yaml"`
	Line int    `json:"line,omitempty"`
}

// A JobOutcome is how one of the last runs of a job ended, or that it is going.
type JobOutcome struct {
	Run     string       `json:"run" doc:"The run's ID"`
	Status  loom.Status  `json:"status" doc:"queued, running, ok, changed, failed, cancelled or lost"`
	Trigger loom.Trigger `json:"trigger" doc:"schedule, catch-up, manual or after"`
	Due     time.Time    `json:"due,omitzero"`
	Took    float64      `json:"took_seconds,omitempty" doc:"From its start to its end"`
}

// A JobDetail is all that there is to say of a job.
type JobDetail struct {
	Job

	Targets   []string   `json:"targets" doc:"Its nodes"`
	Does      []JobStep  `json:"does,omitempty" doc:"Its task, or its steps in order"`
	Waits     []JobAfter `json:"waits,omitempty" doc:"The jobs whose end fires it, and which ends do"`
	Followers []string   `json:"followers,omitempty" doc:"The jobs that its end fires"`

	Timeout   float64       `json:"timeout_seconds,omitempty" doc:"For each node and attempt; left out: none"`
	Overlap   loom.Overlap  `json:"overlap,omitempty" doc:"When a tick falls while a run is going: skip, queue, replace or allow"`
	Missed    JobMissed     `json:"missed,omitzero" doc:"What becomes of ticks that fall while no daemon runs"`
	Retries   JobRetries    `json:"retries,omitzero"`
	Jitter    JobJitter     `json:"jitter,omitzero"`
	Batch     []string      `json:"batch,omitempty" doc:"So many nodes at a time, then the next; the last repeats" example:"[\"1\", \"25%\"]"`
	MaxFailed string        `json:"max_failures,omitempty" doc:"When more nodes fail, no other is begun" example:"10%"`
	Blackouts []JobBlackout `json:"not_during,omitempty" doc:"When its schedule does not fire it"`

	Resumable bool     `json:"resumable,omitempty" doc:"Its commands outlive the connection and the daemon"`
	User      string   `json:"user,omitempty" doc:"Logs in to the nodes, instead of their own user"`
	Sudo      string   `json:"sudo,omitempty" doc:"Whom its commands become; *: the node's choice"`
	Dir       string   `json:"dir,omitempty"`
	Env       []string `json:"env,omitempty" doc:"The names of what is exported to commands"`
	Log       string   `json:"log,omitempty" doc:"A file for its output"`
	Notify    []string `json:"notify,omitempty" doc:"The targets that hear of it: see list-notify; left out: it names none" example:"[\"ops\"]"`
	NotifyOn  []string `json:"notify_on,omitempty" doc:"What they hear of; left out: what each hears of anyway" example:"[\"failed\", \"recovered\"]"`

	Usual     float64 `json:"usual_seconds,omitempty" doc:"How long its runs take"`
	UsualRuns int     `json:"usual_runs,omitempty" doc:"By how many that was judged"`
	Going     []Run   `json:"going,omitempty" doc:"Its runs that have not ended, newest first"`
	Stale     bool    `json:"stale,omitempty" doc:"Its file has mistakes, and an older text of it is in force"`
}

// A JobStep is one thing that a job does.
type JobStep struct {
	Name string      `json:"name,omitempty"`
	Task string      `json:"task" doc:"The task's name: see get-task"`
	On   loom.StepOn `json:"on,omitempty" doc:"After which outcome of the steps before: ok, failed or always"`

	Params map[string]any `json:"parameters,omitempty" doc:"What the manifest gives the task, by name, apart from what it has anyway: see get-task. What a name calls secret is hidden" example:"{\"command\": \"pg_dump -Fc app\"}"`
}

// A JobAfter is a job whose end fires another.
type JobAfter struct {
	Job string       `json:"job"`
	On  loom.AfterOn `json:"on" doc:"ok, failed or any"`
}

// A JobMissed says what becomes of ticks that fall while nobody is there.
type JobMissed struct {
	Policy loom.MissedPolicy `json:"policy" doc:"latest, skip or all"`
	Within float64           `json:"within_seconds,omitempty" doc:"Older ones stay missed; left out: however old"`
}

// A JobRetries says how often a job is tried again on a node.
type JobRetries struct {
	Attempts int           `json:"attempts" doc:"Beside the first"`
	Delay    float64       `json:"delay_seconds,omitempty"`
	Backoff  float64       `json:"backoff,omitempty" doc:"Each further delay is so much longer"`
	MaxDelay float64       `json:"max_delay_seconds,omitempty"`
	On       []loom.Status `json:"on,omitempty" doc:"Which results are tried again"`
}

// A JobJitter delays starts.
type JobJitter struct {
	Max    float64 `json:"max_seconds"`
	ByNode bool    `json:"by_node,omitempty" doc:"Each node is delayed by itself"`
	Delay  float64 `json:"delay_seconds,omitempty" doc:"How long after each tick the job starts"`
}

// A JobBlackout is a time in which a job's schedule does not fire it.
type JobBlackout struct {
	Schedule string    `json:"schedule,omitempty" doc:"It begins at each of these times; left out: from and to say when"`
	For      float64   `json:"for_seconds,omitempty"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
}

// newJob returns a job as the API shows it in a list. Either j or state may be nil,
// and nothing says that it ran if states are not known.
func newJob(j *loom.Job, state *loom.JobState, now time.Time) Job {
	var a Job
	if state != nil {
		a.JobState, a.Remembered = NewJobState(*state), true
	}
	a.Gone = j == nil
	if j == nil {
		return a
	}
	a.Name, a.Description, a.Owner, a.Runbook, a.Labels = j.Name, j.Description, j.Owner, j.Runbook, j.Labels
	a.Task, a.Steps, a.Nodes = j.TaskName, len(j.Steps), len(j.Targets)
	if len(j.Steps) > 0 {
		a.Task = j.Steps[0].TaskName
	}
	onlyTimes := *j
	onlyTimes.At = time.Time{}
	a.Schedule, a.At, a.Timezone, a.Disabled = why.ScheduleWords(&onlyTimes), utc(j.At), zoneName(j.Timezone), j.Disabled
	for _, after := range j.After {
		a.After = append(a.After, after.Job)
	}
	if state != nil && !j.Disabled && j.Times() != nil {
		if due := j.Times().Next(state.LastTick); !due.IsZero() && due.Add(j.Delay()).Before(now) {
			a.Pending = utc(due)
		}
	}
	if next := why.Upcoming([]*loom.Job{j}, now, time.Time{}, 1); len(next) > 0 {
		a.Next, a.Note = utc(next[0].Time), next[0].Note
	} else {
		a.Note = why.Never(j, now)
	}
	a.File, a.Line = j.File, j.Line
	return a
}

// zoneName is a zone that others know too, or "".
func zoneName(loc *time.Location) string {
	if loc == nil || loc == time.Local {
		return ""
	}
	return loc.String()
}

// newOutcome returns a run as the bar of its job shows it.
func newOutcome(r loom.Run) JobOutcome {
	o := JobOutcome{Run: r.ID, Status: r.Status, Trigger: r.Trigger, Due: utc(r.Due)}
	if !r.Ended.IsZero() && !r.Started.IsZero() {
		o.Took = r.Ended.Sub(r.Started).Seconds()
	}
	return o
}

// shown is a value for everybody to see: without secrets, and without what is under a
// name that calls it one.
func shown(m *loom.Manifest, name string, value any) any {
	if confidentialName.MatchString(name) {
		return "[secret]"
	}
	switch v := value.(type) {
	case string:
		return m.Redact(v)
	case []any:
		return each(v, func(one any) any { return shown(m, "", one) })
	case map[string]any:
		all := map[string]any{}
		for name, one := range v {
			all[m.Redact(name)] = shown(m, name, one)
		}
		return all
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v) // which JSON has no number for
		}
	case map[any]any:
		return m.Redact(fmt.Sprint(v)) // which JSON has no other word for
	}
	return value
}

// define adds what the manifest says of the job.
func (d *JobDetail) define(m *loom.Manifest, tasks *loom.Registry, j *loom.Job) {
	given := func(name string, task loom.Task) map[string]any {
		all, _ := shown(m, "", tasks.Given(name, task)).(map[string]any)
		return all
	}
	d.Targets = nodeNames(j.Targets)
	d.Notify, d.NotifyOn = j.Notify.To, j.Notify.On
	d.Does = []JobStep{{Task: j.TaskName, Params: given(j.TaskName, j.Task)}}
	if len(j.Steps) > 0 {
		d.Does = each(j.Steps, func(s loom.Step) JobStep {
			return JobStep{Name: s.Name, Task: s.TaskName, On: cmp.Or(s.On, loom.OnOK), Params: given(s.TaskName, s.Task)}
		})
	}
	d.Waits = each(j.After, func(a loom.After) JobAfter { return JobAfter{a.Job, cmp.Or(a.On, loom.AfterOK)} })
	for _, other := range m.Jobs {
		if slices.ContainsFunc(other.After, func(a loom.After) bool { return a.Job == j.Name }) {
			d.Followers = append(d.Followers, other.Name)
		}
	}
	d.Timeout, d.Overlap = j.Timeout.Seconds(), cmp.Or(j.Overlap, loom.OverlapSkip)
	d.Missed = JobMissed{cmp.Or(j.Missed.Policy, loom.MissedLatest), j.Missed.Within.Seconds()}
	if r := j.Retries; r.Attempts > 0 {
		d.Retries = JobRetries{r.Attempts, r.Delay.Seconds(), r.Backoff, r.MaxDelay.Seconds(), r.On}
	}
	if j.Jitter.Max > 0 {
		d.Jitter = JobJitter{j.Jitter.Max.Seconds(), j.Jitter.ByNode, j.Delay().Seconds()}
	}
	d.Batch = each(j.Batch.Sizes, shareText)
	if most := j.Batch.MaxFailures; most != nil {
		d.MaxFailed = shareText(*most)
	}
	d.Blackouts = each(j.NotDuring, func(b loom.Blackout) JobBlackout {
		shown := JobBlackout{For: b.For.Seconds(), From: utc(b.From), To: utc(b.To)}
		if b.Schedule != nil {
			shown.Schedule = fmt.Sprint(b.Schedule)
		}
		return shown
	})
	d.Resumable, d.User, d.Sudo, d.Dir, d.Log = j.Resumable, j.User, j.Sudo, j.Dir, j.Output.File
	d.Env = slices.Sorted(maps.Keys(j.Env))
	d.Stale = slices.Contains(m.Stale, j.File)
	d.Timezone = cmp.Or(d.Timezone, zoneName(m.Config.Timezone))
}

// shareText is a share as manifests have it.
func shareText(s loom.Share) string {
	if s.Percent != 0 {
		return fmt.Sprintf("%v%%", s.Percent)
	}
	return fmt.Sprint(s.N)
}

func nodeNames(nodes []*loom.Node) []string {
	return list(nodes, func(n *loom.Node) string { return n.Name })
}

// newNextTick returns a tick as the API shows it.
func newNextTick(t why.Foreseen) NextTick {
	n := NextTick{Job: t.Job.Name, Time: t.Time, Note: t.Note, Timezone: zoneName(t.Job.Timezone), Targets: nodeNames(t.Job.Targets),
		Expect: t.Told.Outcome, Why: t.Told.Why}
	if o := t.Told.Overlap; o != nil {
		n.Overlap = &NextOverlap{Due: o.Due.In(t.Time.Location()), Until: o.Until.In(t.Time.Location()), Usual: o.Usual.Seconds(),
			Policy: o.Policy, Effect: o.Effect}
	}
	return n
}

// An Answer says what became of a tick of a job, or will, and why. Times are in the
// job's zone.
type Answer = why.Answer
