package why

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/overlap"
)

// Explain says what became of the tick that the facts are about, or will. Every
// moment has an answer, also one at which there is no tick.
func Explain(f Facts) Answer {
	a := Answer{Job: f.Name, Due: f.Due}
	if !f.Due.IsZero() {
		a.Due = inZone(f.Job, f.Due)
	}
	f.policy(&a)
	times := timesOf(f.Job)
	switch {
	case f.Due.IsZero() && f.Run != nil:
		f.untimed(&a)
	case f.Tick != nil:
		f.recorded(&a)
	case !fires(times, f.Due):
		f.none(&a)
	case f.Job.Disabled:
		a.Outcome = OutcomeDisabled
		a.Text = "disabled: " + f.disabled()
	case f.Due.After(f.Now):
		f.coming(&a)
	case f.State == nil || f.Due.After(f.State.LastTick):
		f.pending(&a)
	default:
		f.unknown(&a)
	}
	if f.Job != nil && len(a.Failures) > 0 {
		a.Owner, a.Runbook = f.Job.Owner, f.Job.Runbook
	}
	if !f.Due.IsZero() && a.Outcome != OutcomeNone && times != nil {
		a.Note = loom.Explain(times, f.Due)
		if a.Note != "" {
			a.Text += "; " + noteText(a.Note, !f.Due.After(f.Now))
		}
	}
	return a
}

// policy tells what the answer depends on.
func (f *Facts) policy(a *Answer) {
	if j := f.Job; j != nil {
		a.Policy = &AnswerPolicy{Overlap: cmp.Or(j.Overlap, loom.OverlapSkip), Missed: cmp.Or(j.Missed.Policy, loom.MissedLatest),
			MissedWithin: j.Missed.Within.Seconds(), Delay: j.Delay().Seconds()}
	}
	if p := f.paused(); p != nil {
		a.Pause = &AnswerPause{Since: p.Since, Until: p.Until, By: p.By, Why: p.Why}
	}
}

// paused returns the pause that the job has now, or nil.
func (f *Facts) paused() *loom.Pause {
	if f.State == nil || f.State.Pause == nil || !f.State.Pause.Until.IsZero() && !f.State.Pause.Until.After(f.Now) {
		return nil
	}
	return f.State.Pause
}

// disabled says where that is written.
func (f *Facts) disabled() string {
	text := "the manifest says enabled: false, so the schedule does not fire the job"
	if f.Job.File != "" {
		text += fmt.Sprintf(" (%s:%d)", f.Job.File, f.Job.Line)
	}
	return text
}

// noteText is what is unusual about a tick, in the tense that fits.
func noteText(note string, past bool) string {
	if !past {
		return note
	}
	return strings.NewReplacer("does not exist", "did not exist", "do not exist", "did not exist", "occurs", "occurred",
		"; runs at ", ", so the tick was at ", "; runs the ", "; it counted the ", "; this is ", "; this was ").Replace(note)
}

// recorded puts into words what is written of a tick.
func (f *Facts) recorded(a *Answer) {
	t := f.Tick
	a.Outcome, a.Why = t.Outcome, t.Why
	switch t.Outcome {
	case loom.OutcomeRan:
		a.Text = "ran" + f.startedLate() + f.ran(a, ": ")
	case loom.OutcomeLate:
		a.Text = "ran late"
		if f.Run != nil && !f.Run.Started.IsZero() {
			a.Text += ", at " + f.clock(f.Run.Started)
		}
		a.Text += ": " + t.Why + f.ran(a, "; ")
	case loom.OutcomeSkipped:
		a.Text = "skipped: " + past(t.Why)
	case loom.OutcomeMissed:
		a.Text = "missed: " + t.Why
		if f.MadeUp != nil {
			a.CaughtUpBy = f.MadeUp.ID
			a.Text += fmt.Sprintf("; caught up by run %s at %s", f.MadeUp.ID, f.clock(cmp.Or(f.MadeUp.Started, f.MadeUp.Queued)))
		}
	case loom.OutcomePaused:
		a.Text = past(cmp.Or(t.Why, "paused"))
	case loom.OutcomeSuperseded:
		a.Text = "superseded before it began: " + t.Why
	default:
		a.Text = strings.TrimRight(fmt.Sprintf("%s: %s", t.Outcome, t.Why), ": ")
	}
	if t.Ticks > 1 {
		a.Text += fmt.Sprintf("; the same goes for all %d ticks from %s to %s", t.Ticks, f.clock(t.Due), f.clock(t.Until))
	}
}

// past is a reason that was written when it held.
func past(why string) string {
	if rest, ok := strings.CutPrefix(why, overlap.Busy); ok {
		return strings.Replace(overlap.Busy, " is ", " was ", 1) + rest
	}
	return why
}

// startedLate says that a run began noticeably after its tick.
func (f *Facts) startedLate() string {
	if f.Run == nil || f.Run.Started.IsZero() {
		return ""
	}
	by := f.Run.Started.Sub(f.Run.Due)
	switch delay := time.Duration(0); {
	case by < 2*time.Second:
		return ""
	case f.Job != nil && f.Job.Delay() > 0:
		if delay = f.Job.Delay(); by >= delay && by < delay+2*time.Second {
			return fmt.Sprintf(" %s after its time, as its jitter says", Took(by))
		}
	}
	return fmt.Sprintf(" %s after its time", Took(by))
}

// ran says how the tick's run went.
func (f *Facts) ran(a *Answer, sep string) string {
	if f.Run == nil {
		return "; its run is not kept any more"
	}
	return sep + f.run(a)
}

// run says how a run goes, or went.
func (f *Facts) run(a *Answer) string {
	r := f.Run
	a.Run = &AnswerRun{ID: r.ID, Trigger: r.Trigger, By: r.By, Status: r.Status, Started: r.Started, Ended: r.Ended,
		Nodes: r.Nodes, Counts: r.Counts, Reason: r.Reason}
	a.Failures = failures(f.Results)
	nodes := plural(r.Nodes, "node")
	switch r.Status {
	case loom.StatusQueued:
		text := fmt.Sprintf("run %s waits to begin", r.ID)
		if n := len(f.Going); n > 1 {
			text += fmt.Sprintf(", as run %s is going", f.Going[n-1].ID)
		}
		return text
	case loom.StatusRunning:
		return f.running()
	case loom.StatusOK, loom.StatusChanged, loom.StatusSkipped:
		return fmt.Sprintf("run %s ended %s after %s on %s", r.ID, r.Status, Took(r.Ended.Sub(r.Started)), nodes)
	}
	text := fmt.Sprintf("run %s %s", r.ID, ended(r.Status))
	bad := 0
	for _, one := range a.Failures {
		bad += len(one.Nodes)
	}
	if bad > 0 {
		text += fmt.Sprintf(" on %d of %s", bad, nodes)
	}
	if !r.Started.IsZero() {
		text += ", after " + Took(r.Ended.Sub(r.Started))
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	for i, one := range a.Failures {
		if i == 2 {
			return text + fmt.Sprintf("; and %s", plural(len(a.Failures)-i, "other reason"))
		}
		text += "; " + one.text()
	}
	return text
}

// ended says how a run came to its end.
func ended(s loom.Status) string {
	switch s {
	case loom.StatusFailed:
		return "failed"
	case loom.StatusCancelled, loom.StatusLost:
		return "was " + string(s)
	case loom.StatusQueued:
		return "waits to begin"
	case loom.StatusRunning:
		return "is going"
	}
	return "ended " + string(s)
}

// running says how far a run has come.
func (f *Facts) running() string {
	r := f.Run
	text := fmt.Sprintf("run %s has been going for %s", r.ID, Took(f.Now.Sub(r.Started)))
	if f.Usual.Runs > 0 {
		text += fmt.Sprintf(" (it usually takes %s)", Took(f.Usual.Took))
	}
	var at []string
	ended := 0
	for _, res := range f.Results {
		if res.Status.Ended() {
			ended++
		} else {
			at = append(at, res.Node)
		}
	}
	if len(at) > 0 {
		text += " on " + some(at)
	}
	return text + fmt.Sprintf("; %d of %s have ended", ended, plural(r.Nodes, "node"))
}

func (one AnswerFailure) text() string {
	text := fmt.Sprintf("%s: %s", some(one.Nodes), one.Status)
	switch {
	case one.Reason == "":
	case strings.HasPrefix(one.Reason, string(one.Status)) || one.Status == loom.StatusTimeout:
		text = fmt.Sprintf("%s: %s", some(one.Nodes), one.Reason)
	default:
		text += ": " + one.Reason
	}
	return text
}

// failures puts nodes together that ended badly in the same way, in the order of
// the results.
func failures(results []loom.Result) []AnswerFailure {
	var all []AnswerFailure
	for _, r := range results {
		if !r.Status.Ended() || r.Status.Good() {
			continue
		}
		reason := strings.TrimPrefix(r.Reason, r.Node+": ")
		at := slices.IndexFunc(all, func(f AnswerFailure) bool { return f.Status == r.Status && f.Reason == reason })
		if at < 0 {
			at = len(all)
			all = append(all, AnswerFailure{Status: r.Status, Reason: reason})
		}
		all[at].Nodes = append(all[at].Nodes, r.Node)
	}
	return all
}

// untimed puts into words why a run without a tick was started.
func (f *Facts) untimed(a *Answer) {
	a.Outcome = loom.OutcomeRan
	r := f.Run
	text := "ran"
	switch r.Trigger {
	case loom.TriggerManual:
		text = "ran by hand"
		if r.Plan {
			text = "only told what it would change"
		}
		if r.By != "" {
			text += ", as " + r.By + " asked for it"
		}
		if f.Asked != nil && f.Asked.Why != "" {
			a.Why = f.Asked.Why
			text += " (" + f.Asked.Why + ")"
		}
	case loom.TriggerAfter:
		text = "ran after run " + r.By
		if f.Before != nil {
			text = fmt.Sprintf("ran after job %s, whose run %s %s", f.Before.Job, f.Before.ID, ended(f.Before.Status))
		}
	case loom.TriggerSchedule:
		text = "ran as the daemon started"
	}
	a.Due = inZone(f.Job, cmp.Or(r.Due, r.Queued))
	a.Text = text + ": " + f.run(a)
}

// coming says what will become of a tick.
func (f *Facts) coming(a *Answer) {
	a.Outcome, a.Expect = OutcomeComing, loom.OutcomeRan
	for _, n := range f.Job.Targets {
		a.Targets = append(a.Targets, n.Name)
	}
	told := Foretold{Outcome: loom.OutcomeRan}
	if f.Foretold != nil {
		told = *f.Foretold
	}
	a.Expect, a.Why = told.Outcome, told.Why
	in := In(f.Due.Sub(f.Now))
	switch {
	case told.Outcome == loom.OutcomePaused:
		a.Text = fmt.Sprintf("falls %s and will not run: %s", in, told.Why)
		return
	case told.Outcome == loom.OutcomeSkipped && told.Overlap == nil:
		a.Text = fmt.Sprintf("falls %s and will not run: %s", in, told.Why)
		return
	case told.Outcome == loom.OutcomeSkipped:
		a.Text = fmt.Sprintf("falls %s and will probably be skipped: %s", in, told.Why)
		return
	}
	a.Text = fmt.Sprintf("will run %s on %s", in, plural(len(f.Job.Targets), "node"))
	if d := f.Job.Delay(); d > 0 {
		a.Text += fmt.Sprintf(", %s after its time, as its jitter says", Took(d))
	}
	if told.Why != "" {
		a.Text += "; " + told.Why
	} else {
		a.Text += f.unless()
	}
	if f.Absent {
		a.Text += fmt.Sprintf(". No daemon runs now: if none does then, %s", f.ifMissed())
	}
}

// unless says what may come between.
func (f *Facts) unless() string {
	still := "an earlier run is still going then"
	if n := len(f.Going); n > 0 {
		still = fmt.Sprintf("run %s, which has been going since %s, still is then", f.Going[n-1].ID,
			f.clock(cmp.Or(f.Going[n-1].Started, f.Going[n-1].Queued)))
	}
	policy := cmp.Or(f.Job.Overlap, loom.OverlapSkip)
	usual := ""
	if f.Usual.Runs > 0 {
		usual = ", it usually takes " + Took(f.Usual.Took)
	}
	tail := fmt.Sprintf(" (overlap: %s%s)", policy, usual)
	switch policy {
	case loom.OverlapAllow:
		return ""
	case loom.OverlapQueue:
		return ", or when that has ended if " + still + tail
	case loom.OverlapReplace:
		return ", and ends what is going if " + still + tail
	}
	return ", unless " + still + tail
}

// ifMissed says what becomes of a tick that falls while nobody is there.
func (f *Facts) ifMissed() string {
	m := f.Job.Missed
	within := ""
	if m.Within > 0 {
		within = " if that is within " + Took(m.Within)
	}
	switch cmp.Or(m.Policy, loom.MissedLatest) {
	case loom.MissedSkip:
		return "it is missed, and the next daemon lets it go (missed: skip)"
	case loom.MissedAll:
		return fmt.Sprintf("the next daemon makes up for it%s (missed: all)", within)
	}
	return fmt.Sprintf("the next daemon makes up for it%s and no later one was missed too (missed: latest)", within)
}

// pending says why a tick that has fallen was not acted on.
func (f *Facts) pending(a *Answer) {
	a.Outcome = OutcomePending
	ago := In(f.Due.Sub(f.Now))
	start := f.Due.Add(f.Job.Delay())
	switch {
	case start.After(f.Now):
		a.Why = "its jitter delays it by " + Took(f.Job.Delay())
		a.Text = fmt.Sprintf("will run at %s: %s", f.clock(start), a.Why)
	case f.Absent:
		a.Why = "no daemon runs"
		a.Text = fmt.Sprintf("fell %s and was not acted on: no daemon runs. If one starts now, %s", ago, f.madeUp())
	case f.Down != "":
		a.Why = f.Down
		a.Text = fmt.Sprintf("fell %s and was not acted on: %s", ago, f.Down)
	case f.State == nil:
		a.Why = "the daemon has not taken up the job yet"
		a.Text = fmt.Sprintf("fell %s and was not acted on: %s", ago, a.Why)
	default:
		a.Text = fmt.Sprintf("fell %s, and the daemon is about to act on it", ago)
	}
}

// madeUp says what a daemon that starts now makes of a tick that was missed.
func (f *Facts) madeUp() string {
	m := f.Job.Missed
	late := f.Now.Sub(f.Due)
	switch policy := cmp.Or(m.Policy, loom.MissedLatest); {
	case f.State == nil:
		return "it begins with the ticks from then on, as the job is new to it"
	case policy == loom.MissedSkip:
		return "it counts it as missed and lets it go (missed: skip)"
	case m.Within > 0 && late > m.Within:
		return fmt.Sprintf("it counts it as missed, as it was due more than %s before (missed: %s within %s)", Took(m.Within), policy, Took(m.Within))
	case policy == loom.MissedLatest && !next(timesOf(f.Job), f.Due).IsZero() && !next(timesOf(f.Job), f.Due).After(f.Now):
		return "a later tick makes up for it (missed: latest)"
	default:
		return fmt.Sprintf("it makes up for it at once (missed: %s)", policy)
	}
}

// unknown says why nothing is written of a tick.
func (f *Facts) unknown(a *Answer) {
	a.Outcome = OutcomeUnknown
	switch {
	case f.Keep > 0 && f.Due.Before(f.Now.Add(-f.Keep)):
		a.Why = fmt.Sprintf("what became of ticks is kept for %s (history.keep_ticks)", days(f.Keep))
	case f.Earlier == nil:
		a.Why = "it is from before the first tick of the job that is remembered: the job, or its schedule, is newer, or no daemon had this memory then"
	default:
		a.Why = fmt.Sprintf("there was no such tick then, as the manifest had the job with another schedule, disabled, or not at all. The last that is remembered before was at %s: %s",
			f.clock(f.Earlier.Until), f.Earlier.Outcome)
	}
	a.Text = "nothing is remembered of it: " + a.Why
}

// none says that there is no tick.
func (f *Facts) none(a *Answer) {
	a.Outcome = OutcomeNone
	j := f.Job
	times := timesOf(j)
	switch {
	case j == nil && f.State == nil:
		a.Why = "there is no such job"
	case j == nil:
		a.Why = "the job is not in the manifest any more"
	case loom.FiresAtStart(times) && next(times, f.Due).IsZero():
		a.Why = "the job runs when the daemon starts, and at no other time"
	case times == nil && len(j.After) > 0:
		a.Why = "the job has no times of its own: it runs " + f.chain()
	case times == nil:
		a.Why = "the job runs only by hand"
	default:
		a.Why = fmt.Sprintf("the schedule %s does not fire then", scheduleText(j))
		if j.Disabled {
			a.Why += ", and " + f.disabled()
		}
	}
	a.Text = "no tick: " + a.Why
	a.Previous, a.Next = Previous(times, f.Due), next(times, f.Due)
	if e := f.Earlier; e != nil && !e.Until.Before(a.Previous) {
		a.Previous = e.Until
		a.Text += fmt.Sprintf("; the one before was at %s: %s", f.clock(e.Until), e.Outcome)
	} else if !a.Previous.IsZero() && !a.Previous.After(f.Now) {
		a.Text += fmt.Sprintf("; the one before was at %s", f.clock(a.Previous))
	} else if !a.Previous.IsZero() {
		a.Text += fmt.Sprintf("; the one before is at %s", f.clock(a.Previous))
	}
	switch {
	case a.Next.IsZero():
	case a.Next.After(f.Now):
		a.Text += fmt.Sprintf("; the next is at %s", f.clock(a.Next))
	default:
		a.Text += fmt.Sprintf("; the next was at %s", f.clock(a.Next))
	}
	if !a.Previous.IsZero() {
		a.Previous = inZone(j, a.Previous)
	}
	if !a.Next.IsZero() {
		a.Next = inZone(j, a.Next)
	}
}

// chain says after which jobs this one runs, and what has become of those.
func (f *Facts) chain() string {
	var parts []string
	for _, u := range f.Upstream {
		on := cmp.Or(u.After.On, loom.AfterOK)
		text := fmt.Sprintf("after job %s", u.After.Job)
		switch on {
		case loom.AfterOK:
			text += " when that went well"
		case loom.AfterFailed:
			text += " when that failed"
		}
		if r := u.Last; r != nil {
			when := cmp.Or(r.Ended, r.Started, r.Queued)
			at := "at"
			if !r.Status.Ended() {
				at = "since"
			}
			text += fmt.Sprintf(" (its last run, %s, %s %s %s)", r.ID, ended(r.Status), at, f.clock(when))
		} else {
			text += " (which has no run that is remembered)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", and ")
}

// clock is a moment in the job's zone: without the date if that is the tick's.
func (f *Facts) clock(t time.Time) string {
	t = inZone(f.Job, t)
	about := inZone(f.Job, cmp.Or(f.Due, f.Now))
	if t.YearDay() == about.YearDay() && t.Year() == about.Year() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// In says how far away a moment is: in 3h, or 5m ago.
func In(d time.Duration) string {
	if d > -time.Second && d <= 0 {
		return "just now"
	}
	ago := d < 0
	if ago {
		d = -d
	}
	text := days(d)
	if ago {
		return text + " ago"
	}
	return "in " + text
}

// days is a rough duration.
func days(d time.Duration) string {
	switch {
	case d < time.Hour:
		return bind.FormatDuration(d.Round(time.Second))
	case d < 48*time.Hour:
		return bind.FormatDuration(d.Round(time.Minute))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24+0.5))
}

// plural is a number and what is counted.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// some joins the first of many names.
func some(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
