package why

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/ledger"
)

// A Source is where facts come from.
type Source struct {
	Archive loom.Archive // nil: nothing is remembered
	Jobs    func(name string) *loom.Job
	Now     time.Time
	Keep    time.Duration // see Facts
	Absent  bool
	Down    string
}

// Tick explains the tick of a job at a moment, or that there is none.
func (s *Source) Tick(ctx context.Context, job string, due time.Time) (Answer, error) {
	f, err := s.job(ctx, job)
	if err != nil {
		return Answer{}, err
	}
	f.Due = due
	if s.Archive != nil {
		if err := s.ledger(ctx, &f); err != nil {
			return Answer{}, err
		}
		if f.Tick != nil && f.Tick.Run != "" {
			if err := s.run(ctx, &f, f.Tick.Run); err != nil {
				return Answer{}, err
			}
		}
	}
	if f.Job != nil && due.After(s.Now) && fires(timesOf(f.Job), due) {
		told := s.foretell(&f)
		f.Foretold = &told
	}
	return Explain(f), nil
}

// Run explains a run: by its tick, if it has one.
func (s *Source) Run(ctx context.Context, r loom.Run) (Answer, error) {
	if r.Trigger != loom.TriggerManual && r.Trigger != loom.TriggerAfter {
		found, err := s.Archive.Ticks(ctx, loom.TickQuery{Job: r.Job, From: r.Due, To: r.Due})
		if err != nil {
			return Answer{}, err
		}
		for _, t := range found {
			if t.Run == r.ID {
				return s.Tick(ctx, r.Job, r.Due)
			}
		}
	}
	f, err := s.job(ctx, r.Job)
	if err == nil {
		err = s.run(ctx, &f, r.ID)
	}
	if err != nil {
		return Answer{}, err
	}
	if f.Run == nil { // it was trimmed meanwhile
		f.Run = &r
	}
	if err := s.cause(ctx, &f); err != nil {
		return Answer{}, err
	}
	return Explain(f), nil
}

// Latest returns what the job did last and the tick that comes next, as far as
// there are any.
func (s *Source) Latest(ctx context.Context, job string) ([]Answer, error) {
	f, err := s.job(ctx, job)
	if err != nil {
		return nil, err
	}
	var all []Answer
	add := func(a Answer, err error) error {
		if err == nil {
			all = append(all, a)
		}
		return err
	}
	last := Previous(timesOf(f.Job), s.Now.Add(time.Nanosecond))
	known := false
	if s.Archive != nil {
		ticks, err := s.Archive.Ticks(ctx, loom.TickQuery{Job: job, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(ticks) > 0 && (!ticks[0].Until.Before(last) || f.State != nil && !last.After(f.State.LastTick)) {
			last, known = ticks[0].Until, true
		}
	}
	if r := f.last(); r != nil && r.Queued.After(last) && (r.Trigger == loom.TriggerManual || r.Trigger == loom.TriggerAfter) {
		if err := add(s.Run(ctx, *r)); err != nil {
			return nil, err
		}
	}
	if !last.IsZero() && (known || f.State == nil || last.After(f.State.LastTick)) {
		if err := add(s.Tick(ctx, job, last)); err != nil {
			return nil, err
		}
	}
	if coming := next(timesOf(f.Job), s.Now); !coming.IsZero() || len(all) == 0 || timesOf(f.Job) == nil {
		a, err := s.Tick(ctx, job, cmp.Or(coming, s.Now))
		if coming.IsZero() {
			a.Due = time.Time{} // it is about no moment
		}
		if err := add(a, err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (f *Facts) last() *loom.Run {
	if f.State == nil {
		return nil
	}
	return f.State.Last
}

// job gets what concerns the job, whatever the tick.
func (s *Source) job(ctx context.Context, name string) (Facts, error) {
	f := Facts{Now: s.Now, Name: name, Keep: s.Keep, Absent: s.Absent, Down: s.Down}
	if s.Jobs != nil {
		f.Job = s.Jobs(name)
	}
	if s.Archive == nil {
		s.upstream(&f, nil)
		return f, nil
	}
	names := []string{name}
	if f.Job != nil {
		for _, a := range f.Job.After {
			names = append(names, a.Job)
		}
	}
	states, err := s.Archive.Jobs(ctx, names...)
	if err != nil {
		return f, err
	}
	byName := map[string]*loom.JobState{}
	for i := range states {
		byName[states[i].Name] = &states[i]
	}
	f.State = byName[name]
	s.upstream(&f, byName)
	f.Going, f.Usual, err = History(ctx, s.Archive, name)
	return f, err
}

func (s *Source) upstream(f *Facts, states map[string]*loom.JobState) {
	if f.Job == nil {
		return
	}
	for _, a := range f.Job.After {
		u := Upstream{After: a}
		if state := states[a.Job]; state != nil {
			u.Last = state.Last
		}
		f.Upstream = append(f.Upstream, u)
	}
}

// History returns the runs of a job that have not ended, newest first, and how
// long its runs take. Plans are not among them.
func History(ctx context.Context, archive loom.Archive, job string) (going []loom.Run, usual Usual, err error) {
	recent, err := archive.Runs(ctx, loom.RunQuery{Job: job, Plan: new(false), Limit: 2 * sampled})
	if err != nil {
		return nil, Usual{}, err
	}
	going, usual = history(recent)
	return going, usual, nil
}

// history is History, given the newest runs of a job.
func history(recent []loom.Run) (going []loom.Run, usual Usual) {
	for _, r := range recent {
		if !r.Status.Ended() {
			going = append(going, r)
		}
	}
	return going, UsualOf(recent)
}

// ledger gets what is written of the tick, and of the one before.
func (s *Source) ledger(ctx context.Context, f *Facts) error {
	found, err := s.Archive.Ticks(ctx, loom.TickQuery{Job: f.Name, From: f.Due, To: f.Due, Limit: 1})
	if err != nil {
		return err
	}
	for _, t := range found {
		ends := t.Due.Equal(f.Due) || t.Until.Equal(f.Due)
		if ends || f.Job != nil && fires(timesOf(f.Job), f.Due) || f.Job == nil {
			f.Tick = &t
		}
	}
	if f.Tick != nil && f.Tick.Outcome == loom.OutcomeMissed {
		return s.madeUp(ctx, f)
	}
	before, err := s.Archive.Ticks(ctx, loom.TickQuery{Job: f.Name, To: f.Due.Add(-time.Millisecond), Limit: 1})
	if err != nil || len(before) == 0 {
		return err
	}
	f.Earlier = &before[0]
	if f.Earlier.Until.After(f.Due) { // a range that goes on, of another schedule
		f.Earlier.Until = f.Earlier.Due
	}
	return nil
}

// madeUp looks for the catch-up of a tick that was missed: the first late tick
// after it, with nothing but missed ones between.
func (s *Source) madeUp(ctx context.Context, f *Facts) error {
	const far = 100
	// The run was queued when the tick was written down, or a little later.
	runs, err := s.Archive.Runs(ctx, loom.RunQuery{Job: f.Name, Trigger: loom.TriggerCatchUp,
		Since: f.Tick.At.Add(-time.Minute), Until: f.Tick.At.Add(time.Minute), Limit: far})
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(runs) {
		if r.Due.After(f.Tick.Until) {
			f.MadeUp = &r
			return nil
		}
	}
	return nil
}

// run gets a run and what it did.
func (s *Source) run(ctx context.Context, f *Facts, id string) error {
	found, err := s.Archive.Runs(ctx, loom.RunQuery{ID: id, Limit: 1})
	if err != nil || len(found) == 0 {
		return err
	}
	f.Run = &found[0]
	f.Results, err = s.Archive.Results(ctx, loom.ResultQuery{Runs: []string{id}})
	return err
}

// cause gets who or what started a run that has no tick.
func (s *Source) cause(ctx context.Context, f *Facts) error {
	switch f.Run.Trigger {
	case loom.TriggerAfter:
		before, err := s.Archive.Runs(ctx, loom.RunQuery{ID: f.Run.By, Limit: 1})
		if err == nil && len(before) > 0 && f.Run.By != "" {
			f.Before = &before[0]
		}
		return err
	case loom.TriggerManual:
		actions, err := s.Archive.Actions(ctx, loom.ActionQuery{Object: f.Name})
		if err != nil {
			return err
		}
		for _, a := range actions {
			if a.Verb == ledger.Verb(*f.Run) && a.By == f.Run.By && a.Time.Equal(f.Run.Queued) {
				f.Asked = &a
				break
			}
		}
	}
	return nil
}

// foretell plays the job's ticks up to the one that is asked about.
func (s *Source) foretell(f *Facts) Foretold {
	var pause *loom.Pause
	if f.State != nil {
		pause = f.State.Pause
	}
	fc := NewForecast(f.Job, pause, f.Usual, f.Going, s.Now)
	fc.WarmUp(s.Now, f.Due)
	return fc.Tick(f.Due)
}

// played is how many ticks are played at most to know what goes on at a moment.
const played = 20_000

// WarmUp plays the ticks between two moments that can matter after the second.
func (f *Forecast) WarmUp(from, to time.Time) {
	if back := to.Add(-2*f.usual.Took - f.job.Delay() - time.Second); back.After(from) {
		from = back
	}
	times, _ := Between(timesOf(f.job), from.Add(time.Nanosecond), to, played)
	for _, t := range times {
		f.Tick(t)
	}
}

// Within explains the ticks of a job from one moment until before another, at most
// so many, and reports whether there are more. If there is none, the one answer
// says so.
func (s *Source) Within(ctx context.Context, job string, from, to time.Time, most int) (answers []Answer, more bool, err error) {
	var times loom.Schedule
	if s.Jobs != nil {
		times = timesOf(s.Jobs(job))
	}
	dues, more := Between(times, from, to, most)
	if s.Archive != nil {
		written, err := s.Archive.Ticks(ctx, loom.TickQuery{Job: job, From: from, To: to.Add(-time.Millisecond), Limit: most})
		if err != nil {
			return nil, false, err
		}
		for _, t := range written {
			for _, end := range []time.Time{t.Due, t.Until} {
				if !end.Before(from) && end.Before(to) {
					dues = append(dues, end)
				}
			}
		}
	}
	slices.SortFunc(dues, time.Time.Compare)
	dues = slices.CompactFunc(dues, time.Time.Equal)
	if len(dues) == 0 {
		dues = []time.Time{from}
	}
	if len(dues) > most {
		dues, more = dues[:most], true
	}
	for _, due := range dues {
		a, err := s.Tick(ctx, job, due)
		if err != nil {
			return nil, false, err
		}
		answers = append(answers, a)
	}
	return answers, more, nil
}

// Before explains the last tick of a job at or before a moment.
func (s *Source) Before(ctx context.Context, job string, at time.Time) (Answer, error) {
	var last time.Time
	if s.Jobs != nil {
		last = Previous(timesOf(s.Jobs(job)), at.Add(time.Nanosecond))
	}
	if s.Archive != nil {
		written, err := s.Archive.Ticks(ctx, loom.TickQuery{Job: job, To: at, Limit: 1})
		if err != nil {
			return Answer{}, err
		}
		if len(written) > 0 {
			if t := written[0]; !t.Until.After(at) && t.Until.After(last) {
				last = t.Until
			} else if t.Due.After(last) {
				last = t.Due
			}
		}
	}
	if last.IsZero() {
		last = at
	}
	return s.Tick(ctx, job, last)
}
