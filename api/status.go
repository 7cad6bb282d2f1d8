package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// How long the store is given to say how things stand, and how much of it is
// shown of each kind.
const (
	statusTime = 2 * time.Second
	statusMost = 50
)

// A Status is how things stand with a daemon.
type Status struct {
	Version  string    `json:"version"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started,omitzero"`
	Stopping bool      `json:"stopping,omitempty" doc:"It starts no more runs, and ends when those that are going have"`
	StateDir string    `json:"state_dir,omitempty"`

	ConfigFile string   `json:"config_file,omitempty"`
	Jobs       int      `json:"jobs" doc:"In the manifest"`
	Nodes      int      `json:"nodes"`
	Problems   []string `json:"problems" doc:"Mistakes in the manifest: file:line:column: what. An older text of these files is in force"`
	Warnings   int      `json:"warnings" doc:"What the manifest says to no effect"`

	Store   StoreStatus  `json:"store"`
	Outbox  *Outbox      `json:"outbox,omitempty" doc:"Only there if news that wait to be delivered can't be kept"`
	Running []RunStatus  `json:"running" doc:"Runs that are going, newest first"`
	Queued  int          `json:"queued" doc:"Runs that wait to begin; at most 1000 are counted"`
	Next    []NextTick   `json:"next" doc:"The next tick of each of the jobs that fall due first, in order"`
	Failing []FailingJob `json:"failing" doc:"Jobs whose last run did not go well, apart from those that were cancelled"`
	Paused  []PausedJob  `json:"paused"`
	More    bool         `json:"more,omitempty" doc:"Not all that is running, failing or paused is listed"`
}

// A StoreStatus is how things stand with a store.
type StoreStatus struct {
	Kind   string    `json:"kind,omitempty" doc:"sqlite, ..."`
	State  string    `json:"state" doc:"ok or down"`
	Since  time.Time `json:"since,omitzero" doc:"When it was first found down"`
	Reason string    `json:"reason,omitempty" doc:"Why it is down, and what to do. What the store should tell is then missing here"`
}

// The states of stores.
const (
	StoreOK   = "ok"
	StoreDown = "down"
)

// An Outbox is where news are kept that wait to be delivered, and can't be.
type Outbox struct {
	Since  time.Time `json:"since" doc:"When that was first found"`
	Reason string    `json:"reason" doc:"Why. News are delivered all the same, but those that wait are lost if the daemon ends meanwhile"`
}

// A RunStatus is a run that is going.
type RunStatus struct {
	Run
	Going []string `json:"going" doc:"The nodes that it is at work on"`
}

// A NextTick is a tick that is to come. In a Status nothing is said of what will become
// of it, but that its job is paused.
type NextTick struct {
	Job      string       `json:"job"`
	Time     time.Time    `json:"time" doc:"In the job's time zone"`
	Timezone string       `json:"timezone,omitempty" doc:"That zone's IANA name; left out: the daemon's own" example:"Europe/Berlin"`
	Note     string       `json:"note,omitempty" doc:"What is unusual about it, as daylight saving"`
	Targets  []string     `json:"targets,omitempty" doc:"The job's nodes"`
	Expect   loom.Outcome `json:"expect,omitempty" doc:"What will become of it: ran, skipped or paused" example:"ran"`
	Why      string       `json:"why,omitempty" doc:"What stands in its way"`
	Overlap  *NextOverlap `json:"overlap,omitempty" doc:"The run before it that will be going then, if runs take as long as usual"`
}

// A NextOverlap is a run that is expected to be going when a tick falls.
type NextOverlap struct {
	Due    time.Time    `json:"due" doc:"Of that run"`
	Until  time.Time    `json:"until" doc:"When it is expected to end"`
	Usual  float64      `json:"usual_seconds" doc:"How long runs of the job take"`
	Policy loom.Overlap `json:"policy" doc:"skip, queue, replace or allow"`
	Effect string       `json:"effect" doc:"What that does: skipped, waits, ends or beside"`
}

// A FailingJob is one whose last run did not go well.
type FailingJob struct {
	Job     string      `json:"job"`
	Since   time.Time   `json:"since,omitzero" doc:"The end of the first of its runs that did not go well, with none that did since; or, if there are very many, one later"`
	Runs    int         `json:"runs" doc:"How many have not gone well since; 50 may be more"`
	Run     string      `json:"run" doc:"The last"`
	Status  loom.Status `json:"status"`
	Reason  string      `json:"reason,omitempty" doc:"Why the last did not go well; if it was for its nodes, what the first of them says"`
	Owner   string      `json:"owner,omitempty" doc:"Whom to ask"`
	Runbook string      `json:"runbook,omitempty" doc:"What to read"`
}

// A PausedJob is one that is only fired by hand.
type PausedJob struct {
	Job string `json:"job"`
	Pause
}

// health is since when the store has been down, as far as was seen.
type health struct {
	mu    sync.Mutex
	since time.Time
}

// note returns since when the store has been down, given what it said now.
func (h *health) note(err error) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.since = time.Time{}
	} else {
		h.since = cmp.Or(h.since, time.Now().Truncate(time.Millisecond))
	}
	return h.since
}

// errSlow is why a store that does not answer is as good as down.
func errSlow() error { return fmt.Errorf("%w: it did not answer in %v", loom.ErrStoreDown, statusTime) }

// Status says how things stand. A store that is down, or does not answer in
// time, is part of it.
func (s *Server) Status(ctx context.Context) Status {
	st := s.known()
	ctx, cancel := context.WithTimeoutCause(ctx, statusTime, errSlow())
	defer cancel()
	err := s.remembered(ctx, &st)
	since := s.health.note(err)
	if st.Store.State != StoreDown {
		st.Store.State = StoreOK
		if err != nil {
			st.Store.State, st.Store.Since, st.Store.Reason = StoreDown, utc(since), err.Error()
		}
	}
	return st
}

// known is what can be said without the store.
func (s *Server) known() Status {
	var st Status
	var m *loom.Manifest
	if s.Control != nil {
		st, m = s.Control.Status(), s.Control.Manifest()
	}
	st.Version, st.PID = cmp.Or(st.Version, s.Version), cmp.Or(st.PID, os.Getpid())
	st.Started = utc(st.Started.Truncate(time.Millisecond))
	st.Problems = []string{}
	if m != nil {
		st.ConfigFile, st.Jobs, st.Nodes, st.Warnings = m.File, len(m.Jobs), len(m.Nodes), len(m.Warnings)
		st.Problems = list(m.Problems, (*loom.ManifestError).Error)
	}
	if st.Next == nil {
		st.Next = []NextTick{}
	}
	st.Running, st.Failing, st.Paused = []RunStatus{}, []FailingJob{}, []PausedJob{}
	return st
}

// remembered adds what the store knows.
func (s *Server) remembered(ctx context.Context, st *Status) error {
	if err := s.going(ctx, st); err != nil {
		return err
	}
	jobs, err := s.Store.Jobs(ctx)
	if err != nil {
		return err
	}
	var bad []loom.JobState
	for _, j := range jobs {
		if j.Gone || j.Name == loom.ExecJob {
			continue
		}
		if p := j.Pause; p != nil && (p.Until.IsZero() || p.Until.After(time.Now())) {
			for i, n := range st.Next {
				if n.Job == j.Name && (p.Until.IsZero() || n.Time.Before(p.Until)) {
					st.Next[i].Expect = loom.OutcomePaused
				}
			}
			if st.More = st.More || len(st.Paused) == statusMost; len(st.Paused) < statusMost {
				st.Paused = append(st.Paused, PausedJob{j.Name, *NewJobState(j).Pause})
			}
		}
		if j.Last == nil || j.Last.Status.Good() {
			continue
		}
		if len(bad) == statusMost {
			st.More = true
			continue
		}
		bad = append(bad, j)
	}
	return s.failing(ctx, st, bad)
}

// going adds what runs now.
func (s *Server) going(ctx context.Context, st *Status) error {
	runs, err := s.Store.Runs(ctx, loom.RunQuery{Status: []loom.Status{loom.StatusRunning}, Limit: statusMost + 1})
	if err != nil {
		return err
	}
	if st.More = len(runs) > statusMost; st.More {
		runs = runs[:statusMost]
	}
	at := map[string]int{}
	var ids []string
	for i, r := range runs {
		at[r.ID], ids = i, append(ids, r.ID)
		st.Running = append(st.Running, RunStatus{Run: NewRun(r), Going: []string{}})
	}
	results, err := s.Store.Results(ctx, loom.ResultQuery{Runs: ids})
	if err != nil {
		return err
	}
	for _, r := range results {
		if !r.Status.Ended() {
			run := &st.Running[at[r.Run]]
			run.Going = append(run.Going, r.Node)
		}
	}
	queued, err := s.Store.Runs(ctx, loom.RunQuery{Status: []loom.Status{loom.StatusQueued}, Limit: 1000})
	st.Queued = len(queued)
	return err
}

// failing adds those of the jobs that fail, and since when: the newest run of one may
// be going, and the one before may be good. A run that was cancelled says nothing
// about that.
func (s *Server) failing(ctx context.Context, st *Status, bad []loom.JobState) error {
	if len(bad) == 0 {
		return nil
	}
	of, err := s.badRuns(ctx, bad)
	if err != nil {
		return err
	}
	var last []string // the runs whose results may say why
	for _, j := range bad {
		f := failingSince(of[j.Name])
		if f == nil {
			continue
		}
		f.Job = j.Name
		if j.Last.ID == f.Run {
			f.Reason = j.Last.Reason
		} else if r, err := s.run(ctx, f.Run); err == nil { // else it was trimmed meanwhile
			f.Reason = r.Reason
		}
		if f.Reason == "" {
			last = append(last, f.Run)
		}
		if m := s.manifest(); m != nil {
			if job := m.Job(j.Name); job != nil {
				f.Owner, f.Runbook = job.Owner, job.Runbook
			}
		}
		st.Failing = append(st.Failing, *f)
	}
	return s.reasons(ctx, st.Failing, last)
}

// badRuns returns the newest runs of jobs, newest first: as many as tell since when
// each of them fails, which are mostly few, and 50 at most.
func (s *Server) badRuns(ctx context.Context, bad []loom.JobState) (map[string][]loom.Run, error) {
	of := map[string][]loom.Run{}
	asked := list(bad, func(j loom.JobState) string { return j.Name })
	for _, most := range []int{4, 50} {
		runs, err := s.Store.RecentRuns(ctx, most, asked...)
		if err != nil {
			return nil, err
		}
		for _, name := range asked {
			delete(of, name)
		}
		for _, r := range runs {
			of[r.Job] = append(of[r.Job], r)
		}
		asked = slices.DeleteFunc(asked, func(name string) bool {
			return len(of[name]) < most || slices.ContainsFunc(of[name], func(r loom.Run) bool { return r.Status.Good() })
		})
		if len(asked) == 0 {
			break
		}
	}
	return of, nil
}

// failingSince returns how long the newest runs of a job, newest first, did not go
// well, or nil if the last that says anything did.
func failingSince(runs []loom.Run) *FailingJob {
	var f *FailingJob
	for _, r := range runs {
		if !r.Status.Ended() || r.Status == loom.StatusCancelled {
			continue
		}
		if r.Status.Good() {
			break
		}
		if f == nil {
			f = &FailingJob{Run: r.ID, Status: r.Status}
		}
		f.Since = utc(r.Ended)
		f.Runs++
	}
	return f
}

// reasons adds, where a run itself has no reason, what the first of its nodes says.
func (s *Server) reasons(ctx context.Context, failing []FailingJob, runs []string) error {
	if len(runs) == 0 {
		return nil
	}
	results, err := s.Store.Results(ctx, loom.ResultQuery{Runs: runs})
	said := map[string]string{}
	for _, r := range results {
		if said[r.Run] == "" && !r.Status.Good() && r.Reason != "" {
			said[r.Run] = r.Node + ": " + r.Reason
		}
	}
	for i, f := range failing {
		failing[i].Reason = cmp.Or(f.Reason, said[f.Run])
	}
	return err
}

// ready reports why the daemon can't work, or nil.
func (s *Server) ready(ctx context.Context) *Problem {
	var daemon Status
	if s.Control != nil {
		daemon = s.Control.Status()
	}
	if daemon.Stopping {
		return problem(loom.ErrShutdown)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statusTime, errSlow())
	defer cancel()
	_, err := s.Store.Runs(ctx, loom.RunQuery{Limit: 1})
	s.health.note(err)
	if err != nil {
		return problem(err)
	}
	if daemon.Store.State == StoreDown {
		return &Problem{Type: "urn:loom:store-down", Title: "The store is down", Status: http.StatusServiceUnavailable, Detail: daemon.Store.Reason}
	}
	return nil
}
