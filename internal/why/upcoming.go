package why

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
)

// A Tick is a time at which a job is due.
type Tick struct {
	Job  *loom.Job
	Time time.Time // in the job's zone
	Note string    // what is unusual about it
}

// Upcoming returns the next ticks of jobs strictly after a time and before end,
// if that is not zero: at most n, in order.
func Upcoming(jobs []*loom.Job, after, end time.Time, n int) []Tick {
	return upcoming(jobs, after, end, n, true)
}

// Soonest returns the next tick of each of the n jobs that fall due first, in order:
// a job that falls due every minute does not hide the others.
func Soonest(jobs []*loom.Job, after time.Time, n int) []Tick {
	return upcoming(jobs, after, time.Time{}, n, false)
}

func upcoming(jobs []*loom.Job, after, end time.Time, n int, again bool) []Tick {
	var due ticks
	push := func(j *loom.Job, after time.Time) {
		next := j.Times().Next(after)
		if next.IsZero() || !next.After(after) || !end.IsZero() && !next.Before(end) {
			return
		}
		heap.Push(&due, Tick{Job: j, Time: next})
	}
	for _, j := range jobs {
		if !j.Disabled && j.Times() != nil {
			push(j, after)
		}
	}
	var all []Tick
	for len(due) > 0 && len(all) < n {
		t := heap.Pop(&due).(Tick)
		if again {
			push(t.Job, t.Time)
		}
		t.Note = loom.Explain(t.Job.Times(), t.Time)
		if t.Job.Timezone != nil {
			t.Time = t.Time.In(t.Job.Timezone)
		}
		all = append(all, t)
	}
	return all
}

type ticks []Tick

func (t ticks) Len() int { return len(t) }
func (t ticks) Less(i, j int) bool {
	if c := t[i].Time.Compare(t[j].Time); c != 0 {
		return c < 0
	}
	return t[i].Job.Name < t[j].Job.Name
}
func (t ticks) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *ticks) Push(x any)   { *t = append(*t, x.(Tick)) }
func (t *ticks) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}

// A Foreseen is a tick, and what will become of it.
type Foreseen struct {
	Tick
	Told Foretold
}

// Foresee foretells what becomes of ticks, which are all there are after begin. It
// heeds what an archive remembers; nil is nothing. What is past when it begins it
// foretells without what is going or paused now.
func Foresee(ctx context.Context, archive loom.Archive, ticks []Tick, begin, now time.Time) ([]Foreseen, error) {
	known, err := recall(ctx, archive, ticks)
	if err != nil {
		return nil, err
	}
	forecasts := map[string]*Forecast{}
	all := make([]Foreseen, len(ticks))
	for i, t := range ticks {
		f := forecasts[t.Job.Name]
		if f == nil {
			f = known.forecast(t.Job, begin, now)
			forecasts[t.Job.Name] = f
		}
		all[i] = Foreseen{t, f.Tick(t.Time)}
	}
	return all, nil
}

// A recollection is what is known of several jobs.
type recollection struct {
	runs   map[string][]loom.Run // the newest, newest first
	pauses map[string]*loom.Pause
}

// recall asks an archive, once, about the jobs of ticks.
func recall(ctx context.Context, archive loom.Archive, ticks []Tick) (*recollection, error) {
	if archive == nil || len(ticks) == 0 {
		return nil, nil
	}
	var names []string
	for _, t := range ticks {
		names = append(names, t.Job.Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	r := &recollection{runs: map[string][]loom.Run{}, pauses: map[string]*loom.Pause{}}
	runs, err := archive.RecentRuns(ctx, 2*sampled, names...)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		r.runs[run.Job] = append(r.runs[run.Job], run)
	}
	states, err := archive.Jobs(ctx, names...)
	for _, s := range states {
		r.pauses[s.Name] = s.Pause
	}
	return r, err
}

// forecast begins a forecast of a job's ticks after begin.
func (r *recollection) forecast(j *loom.Job, begin, now time.Time) *Forecast {
	if r == nil {
		return NewForecast(j, nil, Usual{}, nil, now)
	}
	going, usual := history(r.runs[j.Name])
	pause, from := r.pauses[j.Name], now
	if begin.Before(now) {
		going, pause, from = nil, nil, time.Time{}
	}
	f := NewForecast(j, pause, usual, going, now)
	f.WarmUp(from, begin.Add(time.Nanosecond))
	return f
}
