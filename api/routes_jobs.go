package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/why"
)

// manifest returns the manifest in force, or nil.
func (s *Server) manifest() *loom.Manifest {
	if s.Control == nil {
		return nil
	}
	return s.Control.Manifest()
}

// inForce is manifest, or the problem that there is none.
func (s *Server) inForce(what string) (*loom.Manifest, error) {
	if m := s.manifest(); m != nil {
		return m, nil
	}
	return nil, s.alone(what)
}

// A jobsQuery says which jobs are wanted.
type jobsQuery struct {
	Name     []string `query:"name,explode" doc:"Only these; those that are not known are left out"`
	Match    string   `query:"match" doc:"Only those whose name matches this pattern, with *, ? and []" example:"backup-*"`
	Label    []string `query:"label,explode" doc:"Only those with this label: KEY, or KEY=VALUE; several must all be there" example:"[\"team=web\"]"`
	Status   []string `query:"status,explode" enum:"queued,running,ok,changed,failed,cancelled,lost,paused,disabled,never" doc:"Only those whose newest run stands so, or that are paused or disabled, or never ran"`
	Node     string   `query:"node" doc:"Only those that target this node"`
	Gone     bool     `query:"gone" doc:"Also those that are remembered, but not in the manifest any more"`
	Outcomes int      `query:"outcomes" minimum:"0" maximum:"100" default:"30" doc:"How many of its last runs each job shows. Of all jobs together a page has at most 3000, so that it may have fewer jobs than limit says"`
	Cursor   string   `query:"cursor" doc:"The next of the page before"`
	Limit    int      `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
}

// jobs adds what concerns jobs.
func (s *Server) jobs(api huma.API) {
	get(api, "/jobs", "jobs", "list-jobs", "Jobs, by name", s.listJobs)
	type job struct {
		Job      string `path:"job"`
		Outcomes int    `query:"outcomes" minimum:"0" maximum:"100" default:"30" doc:"How many of its last runs are shown"`
	}
	get(api, "/jobs/{job}", "jobs", "get-job", "All about a job", func(ctx context.Context, in *job) (JobDetail, error) {
		return s.jobDetail(ctx, in.Job, in.Outcomes)
	})
	get(api, "/jobs/{job}/why", "jobs", "explain-tick", "What became of a tick, or will, and why", s.explain)
	get(api, "/next", "jobs", "next-ticks", "What will run, and when", s.next)
}

// listJobs returns a page of jobs: of the manifest's, and of those remembered if
// they are wanted or there is no manifest.
func (s *Server) listJobs(ctx context.Context, in *jobsQuery) (Page[Job], error) {
	if _, err := path.Match(in.Match, ""); err != nil {
		return Page[Job]{}, invalid(fmt.Sprintf("match=%s: the pattern is not complete: a [ needs its ]", in.Match))
	}
	defined := map[string]*loom.Job{}
	m := s.manifest()
	if m != nil {
		for _, j := range m.Jobs {
			defined[j.Name] = j
		}
	}
	all := map[string]bool{}
	states := map[string]*loom.JobState{}
	known := false // of all jobs, or of those that are left
	remember := func(names ...string) error {
		if known {
			return nil
		}
		if known = true; len(names) > len(defined)/2 && len(in.Name) == 0 {
			names = nil // to seek nearly all takes longer than to read all
		}
		found, err := s.Store.Jobs(ctx, names...)
		for i := range found {
			states[found[i].Name] = &found[i]
		}
		return err
	}
	switch {
	case len(in.Name) > 0:
		if err := remember(in.Name...); err != nil {
			return Page[Job]{}, err
		}
		for _, name := range in.Name {
			all[name] = defined[name] != nil || states[name] != nil
		}
	default:
		if in.Gone || m == nil {
			if err := remember(); err != nil {
				return Page[Job]{}, err
			}
			for name := range states {
				all[name] = true
			}
		}
		for name := range defined {
			all[name] = true
		}
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] && name > in.Cursor && in.matches(name, defined[name]) {
			found = append(found, name)
		}
	}
	if len(in.Status) > 0 && len(found) > 0 {
		if err := remember(found...); err != nil {
			return Page[Job]{}, err
		}
		found = slices.DeleteFunc(found, func(name string) bool { return !in.stands(defined[name], states[name]) })
	}
	page := Page[Job]{Items: []Job{}}
	if most := in.most(); len(found) > most {
		found = found[:most]
		page.Next = found[most-1]
	}
	if len(found) == 0 {
		return page, nil
	}
	if err := remember(found...); err != nil {
		return page, err
	}
	bars, err := s.bars(ctx, in.Outcomes, found...)
	now := time.Now()
	for _, name := range found {
		j := newJob(defined[name], states[name], now)
		if j.Gone && states[name] != nil && m == nil {
			j.Gone = states[name].Gone
		}
		j.Outcomes = bars[name]
		page.Items = append(page.Items, j)
	}
	return page, err
}

// mostOutcomes is how many of the last runs of jobs there are in a page. To find and
// to write them is most of what it takes.
const mostOutcomes = 3000

// most is how many jobs there are in a page at most.
func (q *jobsQuery) most() int {
	if q.Outcomes == 0 {
		return q.Limit
	}
	return min(q.Limit, mostOutcomes/q.Outcomes)
}

// matches reports whether a job is wanted, as far as the manifest can tell.
func (q *jobsQuery) matches(name string, j *loom.Job) bool {
	if ok, _ := path.Match(q.Match, name); q.Match != "" && !ok {
		return false
	}
	if q.Node != "" && (j == nil || !slices.ContainsFunc(j.Targets, func(n *loom.Node) bool { return n.Name == q.Node })) {
		return false
	}
	for _, label := range q.Label {
		key, value, valued := strings.Cut(label, "=")
		if j == nil {
			return false
		}
		if has, ok := j.Labels[key]; !ok || valued && has != value {
			return false
		}
	}
	return true
}

// stands reports whether a job's standing is wanted.
func (q *jobsQuery) stands(j *loom.Job, state *loom.JobState) bool {
	return slices.ContainsFunc(q.Status, func(want string) bool {
		switch {
		case want == "disabled":
			return j != nil && j.Disabled
		case want == "never":
			return state == nil || state.Last == nil
		case state == nil:
			return false
		case want == "paused":
			return state.Pause != nil && (state.Pause.Until.IsZero() || state.Pause.Until.After(time.Now()))
		}
		return state.Last != nil && string(state.Last.Status) == want
	})
}

// bars returns the last runs of jobs.
func (s *Server) bars(ctx context.Context, most int, jobs ...string) (map[string][]JobOutcome, error) {
	if most == 0 {
		return nil, nil
	}
	runs, err := s.Store.RecentRuns(ctx, most, jobs...)
	bars := make(map[string][]JobOutcome, len(jobs))
	for _, r := range runs {
		if bars[r.Job] == nil {
			bars[r.Job] = make([]JobOutcome, 0, most)
		}
		bars[r.Job] = append(bars[r.Job], newOutcome(r))
	}
	return bars, err
}

// job returns a job that the manifest has, or the store, or both.
func (s *Server) job(ctx context.Context, name string) (*loom.Job, *loom.JobState, error) {
	m := s.manifest()
	var j *loom.Job
	if m != nil {
		j = m.Job(name)
	}
	states, err := s.Store.Jobs(ctx, name)
	switch {
	case err != nil:
		return nil, nil, err
	case len(states) > 0:
		return j, &states[0], nil
	case j != nil:
		return j, nil, nil
	}
	hint := ""
	if m != nil {
		all := func(yield func(string) bool) {
			for _, j := range m.Jobs {
				if !yield(j.Name) {
					return
				}
			}
		}
		if near := bind.Nearest(name, all); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
	}
	return nil, nil, fmt.Errorf("there is no job %q%s: %w", name, hint, loom.ErrNotFound)
}

// jobDetail returns all there is to say of a job.
func (s *Server) jobDetail(ctx context.Context, name string, outcomes int) (JobDetail, error) {
	j, state, err := s.job(ctx, name)
	if err != nil {
		return JobDetail{}, err
	}
	d := JobDetail{Job: newJob(j, state, time.Now()), Targets: []string{}}
	m := s.manifest()
	if d.Gone && m == nil {
		d.Gone = state.Gone
	}
	if j != nil {
		tasks, _ := s.registry() // without it nothing is said of parameters
		d.define(m, tasks, j)
	}
	bars, err := s.bars(ctx, outcomes, name)
	if err != nil {
		return d, err
	}
	d.Outcomes = bars[name]
	going, usual, err := why.History(ctx, s.Store, name)
	d.Going, d.Usual, d.UsualRuns = each(going, NewRun), usual.Took.Seconds(), usual.Runs
	return d, err
}

// source returns where answers about ticks come from.
func (s *Server) source(now time.Time) *why.Source {
	src := &why.Source{Archive: s.Store, Now: now, Absent: s.Control == nil || s.Absent}
	if m := s.manifest(); m != nil {
		src.Jobs, src.Keep = m.Job, m.Config.History.KeepTicks
	}
	if s.Control != nil {
		if st := s.Control.Status().Store; st.State == StoreDown {
			src.Down = "the store is down: " + st.Reason
		}
	}
	return src
}

// A whyQuery says which ticks are to be explained.
type whyQuery struct {
	Job    string    `path:"job"`
	Time   time.Time `query:"time" doc:"The tick at this very moment" example:"2027-03-28T02:30:00+01:00"`
	Before time.Time `query:"before" doc:"The last tick at or before this moment"`
	From   time.Time `query:"from" doc:"The ticks from this moment on, until to"`
	To     time.Time `query:"to" doc:"The end of that time, which does not belong to it"`
	Run    string    `query:"run" doc:"The tick of this run, or the run itself: its ID, or the beginning of it"`
	Cursor string    `query:"cursor" doc:"The next of the page before"`
	Limit  int       `query:"limit" minimum:"1" maximum:"100" default:"10" doc:"How many at most"`
}

// explain answers what became of ticks. Without a time that is the latest, and the
// next one.
func (s *Server) explain(ctx context.Context, in *whyQuery) (Page[Answer], error) {
	if _, _, err := s.job(ctx, in.Job); err != nil {
		return Page[Answer]{}, err
	}
	asked := 0
	for _, is := range []bool{!in.Time.IsZero(), !in.Before.IsZero(), !in.From.IsZero() || !in.To.IsZero(), in.Run != ""} {
		if is {
			asked++
		}
	}
	if asked > 1 {
		return Page[Answer]{}, invalid("ask for one of time, before, run, or from and to")
	}
	src := s.source(time.Now())
	one := func(a Answer, err error) (Page[Answer], error) {
		return Page[Answer]{Items: []Answer{a}}, err
	}
	switch {
	case !in.Time.IsZero():
		return one(src.Tick(ctx, in.Job, in.Time))
	case !in.Before.IsZero():
		return one(src.Before(ctx, in.Job, in.Before))
	case in.Run != "":
		r, err := s.run(ctx, in.Run)
		if err == nil && r.Job != in.Job {
			err = fmt.Errorf("run %s is one of job %q, not of %q: %w", r.ID, r.Job, in.Job, loom.ErrNotFound)
		}
		if err != nil {
			return Page[Answer]{}, err
		}
		return one(src.Run(ctx, r))
	case !in.From.IsZero() || !in.To.IsZero():
		return s.explainAll(ctx, src, in)
	}
	found, err := src.Latest(ctx, in.Job)
	return Page[Answer]{Items: found}, err
}

// explainAll answers what became of all ticks in a time.
func (s *Server) explainAll(ctx context.Context, src *why.Source, in *whyQuery) (Page[Answer], error) {
	from := in.From
	if in.Cursor != "" {
		last, err := time.Parse(time.RFC3339Nano, in.Cursor)
		if err != nil {
			return Page[Answer]{}, badCursor(in.Cursor)
		}
		from = last.Add(time.Nanosecond)
	}
	if !in.To.After(from) {
		return Page[Answer]{}, invalid("to must be given, and after from")
	}
	found, more, err := src.Within(ctx, in.Job, from, in.To, in.Limit)
	page := Page[Answer]{Items: found}
	if more && len(found) > 0 {
		page.Next = found[len(found)-1].Due.UTC().Format(time.RFC3339Nano)
	}
	return page, err
}

// A nextQuery says which ticks are wanted.
type nextQuery struct {
	Job    []string  `query:"job,explode" doc:"Only those of these jobs; left out: of all"`
	From   time.Time `query:"from" doc:"From this moment on; left out: now"`
	To     time.Time `query:"to" doc:"Before this moment; left out: without an end"`
	Cursor string    `query:"cursor" doc:"The next of the page before"`
	Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"10" doc:"How many at most"`
}

// NextTicks are ticks that are to come, in order.
type NextTicks struct {
	Page[NextTick]
	Never []JobNever `json:"never,omitempty" doc:"Those of the jobs that have no ticks to come, and why"`
}

// A JobNever says why a job has no ticks.
type JobNever struct {
	Job string `json:"job"`
	Why string `json:"why"`
}

// next foretells ticks.
func (s *Server) next(ctx context.Context, in *nextQuery) (NextTicks, error) {
	m, err := s.inForce("tell what is to come")
	if err != nil {
		return NextTicks{}, err
	}
	jobs, now := m.Jobs, time.Now()
	if len(in.Job) > 0 {
		jobs = nil
		for _, name := range in.Job {
			j, _, err := s.job(ctx, name)
			if err != nil {
				return NextTicks{}, err
			}
			if j == nil {
				return NextTicks{}, fmt.Errorf("job %q is not in the manifest any more: %w", name, loom.ErrNotFound)
			}
			jobs = append(jobs, j)
		}
	}
	begin, skip := now, ""
	if !in.From.IsZero() {
		begin = in.From.Add(-time.Nanosecond) // its own tick counts
	}
	if in.Cursor != "" {
		at, name, _ := strings.Cut(in.Cursor, " ")
		last, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return NextTicks{}, badCursor(in.Cursor)
		}
		begin, skip = last.Add(-time.Nanosecond), name
	}
	all := NextTicks{Page: Page[NextTick]{Items: []NextTick{}}}
	if in.Cursor == "" {
		for _, j := range jobs {
			if text := why.Never(j, now); text != "" {
				all.Never = append(all.Never, JobNever{j.Name, text})
			}
		}
	}
	ticks, told := why.Upcoming(jobs, begin, in.To, in.Limit+1+len(jobs)), 0
	for skip != "" && told < len(ticks) && !ticks[told].Time.After(begin.Add(time.Nanosecond)) && ticks[told].Job.Name <= skip {
		told++
	}
	more := len(ticks) > told+in.Limit
	ticks = ticks[:min(told+in.Limit, len(ticks))]
	foreseen, err := why.Foresee(ctx, s.Store, ticks, begin, now)
	if err != nil {
		return all, err
	}
	for _, t := range foreseen[told:] {
		all.Items = append(all.Items, newNextTick(t))
	}
	if more {
		last := foreseen[len(foreseen)-1]
		all.Next = last.Time.UTC().Format(time.RFC3339Nano) + " " + last.Job.Name
	}
	return all, nil
}

// paged cuts what a list has after a cursor down to a page. key is what a cursor
// says of an item; items are in order of it.
func paged[T any](items []T, cursor string, limit int, key func(T) string) Page[T] {
	if cursor != "" {
		at, found := slices.BinarySearchFunc(items, cursor, func(item T, cursor string) int { return cmp.Compare(key(item), cursor) })
		if found {
			at++
		}
		items = items[at:]
	}
	page := Page[T]{Items: items}
	if len(items) > limit {
		page.Items, page.Next = items[:limit], key(items[limit-1])
	}
	if page.Items == nil {
		page.Items = []T{}
	}
	return page
}
