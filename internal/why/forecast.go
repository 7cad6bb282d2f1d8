package why

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/ledger"
	"github.com/dustinlacewell/loom/internal/overlap"
)

// Usual is how long runs of a job take. The zero value is that it is not known.
type Usual struct {
	Took time.Duration
	Runs int // how many it was judged by
}

// sampled is how many runs say what is usual.
const sampled = 20

// UsualOf returns the median of the last runs that went to their end, newest
// first.
func UsualOf(runs []loom.Run) Usual {
	var took []time.Duration
	for _, r := range runs {
		if r.Status.Ended() && r.Status != loom.StatusCancelled && r.Status != loom.StatusLost && !r.Started.IsZero() && len(took) < sampled {
			took = append(took, max(r.Ended.Sub(r.Started), 0))
		}
	}
	if len(took) == 0 {
		return Usual{}
	}
	slices.Sort(took)
	n := len(took)
	return Usual{Took: (took[(n-1)/2] + took[n/2]) / 2, Runs: n}
}

// A Foretold is what will become of a tick, as far as can be told.
type Foretold struct {
	Outcome loom.Outcome // ran, skipped or paused
	Why     string       // "": nothing stands in its way
	Overlap *Overlap     // nil: no earlier run is expected to be going
}

// An Overlap is a tick that falls while the run before it is expected to go on.
type Overlap struct {
	Due    time.Time     // of that run
	Until  time.Time     // when that is expected to end
	Usual  time.Duration // how long runs of the job take
	Policy loom.Overlap
	Effect string // what the policy does
}

// What an overlap policy does.
const (
	EffectSkipped = "skipped" // the tick has no run
	EffectWaits   = "waits"   // its run begins when the earlier one has ended
	EffectEnds    = "ends"    // its run ends the earlier one
	EffectBeside  = "beside"  // both runs go on at once
)

// A Forecast foretells what becomes of a job's ticks, given in order: it plays
// runs that take as long as they usually do. It is not safe for concurrent use.
type Forecast struct {
	job   *loom.Job
	pause *loom.Pause
	usual Usual
	busy  []expected // runs that have not ended, oldest first
}

// An expected is a run that is, or will be, going.
type expected struct{ due, from, until time.Time }

// NewForecast begins a forecast at now, when runs are going.
func NewForecast(job *loom.Job, pause *loom.Pause, usual Usual, going []loom.Run, now time.Time) *Forecast {
	f := &Forecast{job: job, pause: pause, usual: usual}
	for _, r := range slices.Backward(going) { // they come newest first
		from := cmp.Or(r.Started, now)
		until := from.Add(usual.Took)
		if !until.After(now) {
			until = now // any moment
		}
		f.busy = append(f.busy, expected{r.Due, from, until})
	}
	return f
}

// Tick foretells what becomes of a tick that is later than those before.
func (f *Forecast) Tick(due time.Time) Foretold {
	if why := f.job.Blackout(due); why != "" {
		return Foretold{Outcome: loom.OutcomeSkipped, Why: why}
	}
	if why, paused := ledger.Paused(f.pause, loom.TriggerSchedule, due); paused {
		return Foretold{Outcome: loom.OutcomePaused, Why: why}
	}
	start := due.Add(f.job.Delay())
	f.busy = slices.DeleteFunc(f.busy, func(e expected) bool { return !e.until.After(start) })
	told := Foretold{Outcome: loom.OutcomeRan}
	if len(f.busy) > 0 && f.usual.Runs > 0 {
		told = f.overlaps(start)
	}
	if told.Outcome == loom.OutcomeRan {
		f.start(due, start, told.Overlap)
	}
	return told
}

// overlaps says what the policy does to a run that would start while others go.
func (f *Forecast) overlaps(start time.Time) Foretold {
	first, last := f.busy[0], f.busy[len(f.busy)-1]
	policy := cmp.Or(f.job.Overlap, loom.OverlapSkip)
	var going []overlap.Run
	for _, e := range f.busy {
		waits := e.from.After(start)
		going = append(going, overlap.Run{Due: e.due, Waits: waits, Begun: !waits})
	}
	o := &Overlap{Due: first.due, Until: first.until, Usual: f.usual.Took, Policy: policy}
	from, usual := f.clock(first.due), Took(f.usual.Took)
	v := overlap.Admit(string(policy), "", false, going)
	switch {
	case v.Refused != "":
		o.Effect = EffectSkipped
		why := fmt.Sprintf("the run from %s usually takes %s and is still going then", from, usual)
		if policy == loom.OverlapQueue {
			why += ", and one waits already"
		}
		return Foretold{loom.OutcomeSkipped, why + f.policy(), o}
	case policy == loom.OverlapAllow:
		o.Effect = EffectBeside
		return Foretold{loom.OutcomeRan, fmt.Sprintf("beside the run from %s, which usually takes %s%s", from, usual, f.policy()), o}
	case policy == loom.OverlapReplace:
		o.Effect = EffectEnds
		return Foretold{loom.OutcomeRan, fmt.Sprintf("ends the run from %s, which usually takes %s%s", from, usual, f.policy()), o}
	}
	o.Effect, o.Until = EffectWaits, last.until
	return Foretold{loom.OutcomeRan, fmt.Sprintf("waits until about %s for the run from %s%s", f.clock(last.until), from, f.policy()), o}
}

func (f *Forecast) policy() string {
	return fmt.Sprintf(" (overlap: %s)", cmp.Or(f.job.Overlap, loom.OverlapSkip))
}

// start has a run begin.
func (f *Forecast) start(due, start time.Time, o *Overlap) {
	if o != nil {
		switch o.Effect {
		case EffectEnds:
			f.busy = f.busy[:0]
		case EffectWaits:
			start = o.Until
		}
	}
	f.busy = append(f.busy, expected{due, start, start.Add(f.usual.Took)})
}

func (f *Forecast) clock(t time.Time) string { return Clock(inZone(f.job, t)) }

// Clock is the time of day, with seconds if there are any.
func Clock(t time.Time) string {
	if t.Second() != 0 {
		return t.Format(time.TimeOnly)
	}
	return t.Format("15:04")
}

// inZone is t where the job is at home.
func inZone(j *loom.Job, t time.Time) time.Time {
	if j != nil && j.Timezone != nil {
		return t.In(j.Timezone)
	}
	return t.Local()
}

// Took is a duration for people.
func Took(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return bind.FormatDuration(d.Round(time.Second))
	}
	return bind.FormatDuration(d.Round(time.Minute))
}
