package api

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/dustinlacewell/loom"
)

// A JobsQuery says which jobs are wanted. Its zero value is the first 100 of the
// manifest's.
type JobsQuery struct {
	Names    []string // only these
	Match    string   // a pattern for names, with *, ? and []
	Labels   []string // KEY, or KEY=VALUE: all of them
	Status   []string // of the newest run; or paused, disabled, never
	Node     string   // only those that target it
	Gone     bool     // also those that are only remembered
	Outcomes int      // how many of the last runs of each; 0: 30; -1: none
	Cursor   string   // the Next of the page before
	Limit    int      // 0: 100
}

// ListJobs returns a page of jobs, by name.
func (c *Client) ListJobs(ctx context.Context, q JobsQuery) (Page[Job], error) {
	v := values{}
	v.text("name", q.Names...)
	v.text("match", q.Match)
	v.text("label", q.Labels...)
	v.text("status", q.Status...)
	v.text("node", q.Node)
	v.flag("gone", q.Gone)
	v.outcomes(q.Outcomes)
	v.text("cursor", q.Cursor)
	v.number("limit", int64(q.Limit))
	return fetch[Page[Job]](ctx, c, "/jobs", url.Values(v))
}

func (v values) outcomes(n int) {
	if n != 0 {
		v["outcomes"] = []string{strconv.Itoa(max(n, 0))}
	}
}

func (v values) flag(name string, set bool) {
	if set {
		v[name] = []string{"true"}
	}
}

// ShowJob returns all there is to say of a job, with so many of its last runs; 0 is
// 30. The error wraps loom.ErrNotFound if neither the manifest nor the store knows
// it.
func (c *Client) ShowJob(ctx context.Context, job string, outcomes int) (JobDetail, error) {
	v := values{}
	v.outcomes(outcomes)
	return fetch[JobDetail](ctx, c, "/jobs/"+url.PathEscape(job), url.Values(v))
}

// A WhyQuery says which ticks of a job are to be explained. At most one of Time,
// Before, Run, and From with To may be set. Its zero value is the latest tick and
// the next one.
type WhyQuery struct {
	Time     time.Time // the tick at this very moment
	Before   time.Time // the last at or before this one
	From, To time.Time // those from the one until before the other
	Run      string    // that of this run, or the run itself: its ID or the beginning of it
	Cursor   string    // the Next of the page before
	Limit    int       // 0: 10
}

// Why explains what became of ticks of a job, or will.
func (c *Client) Why(ctx context.Context, job string, q WhyQuery) (Page[Answer], error) {
	v := values{}
	v.time("time", q.Time)
	v.time("before", q.Before)
	v.time("from", q.From)
	v.time("to", q.To)
	v.text("run", q.Run)
	v.text("cursor", q.Cursor)
	v.number("limit", int64(q.Limit))
	return fetch[Page[Answer]](ctx, c, "/jobs/"+url.PathEscape(job)+"/why", url.Values(v))
}

// A NextQuery says which ticks to come are wanted. Its zero value is the next ten of
// all jobs.
type NextQuery struct {
	Jobs   []string  // nil: all
	From   time.Time // zero: now
	To     time.Time // zero: no end
	Cursor string    // the Next of the page before
	Limit  int       // 0: 10; at most 1000
}

// Next tells what will run, and when.
func (c *Client) Next(ctx context.Context, q NextQuery) (NextTicks, error) {
	v := values{}
	v.text("job", q.Jobs...)
	v.time("from", q.From)
	v.time("to", q.To)
	v.text("cursor", q.Cursor)
	v.number("limit", int64(q.Limit))
	return fetch[NextTicks](ctx, c, "/next", url.Values(v))
}

// A NodesQuery says which nodes are wanted. Its zero value is the first 100.
type NodesQuery struct {
	Targets []string // patterns, as in a manifest
	Reach   []string // Reachable, Unreachable, Unknown
	Cursor  string   // the Next of the page before
	Limit   int      // 0: 100
}

// ListNodes returns a page of nodes, by name. The error wraps loom.ErrNotFound if a
// pattern selects none.
func (c *Client) ListNodes(ctx context.Context, q NodesQuery) (Page[Node], error) {
	v := values{}
	v.text("targets", q.Targets...)
	v.text("reach", q.Reach...)
	v.text("cursor", q.Cursor)
	v.number("limit", int64(q.Limit))
	return fetch[Page[Node]](ctx, c, "/nodes", url.Values(v))
}

// ShowNode returns all there is to say of a node, with so many of the newest results
// there; 0 is 20. The error wraps loom.ErrNotFound if there is no such node.
func (c *Client) ShowNode(ctx context.Context, node string, results int) (NodeDetail, error) {
	v := values{}
	v.number("results", int64(results))
	return fetch[NodeDetail](ctx, c, "/nodes/"+url.PathEscape(node), url.Values(v))
}

// Jobs is part of loom.Archive.
func (c *Client) Jobs(ctx context.Context, names ...string) ([]loom.JobState, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	states, err := split(names, func(names []string) ([]loom.JobState, error) {
		q := JobsQuery{Names: names, Gone: true, Outcomes: -1, Limit: mostItems}
		var all []loom.JobState
		for {
			p, err := c.ListJobs(ctx, q)
			if err != nil {
				return nil, err
			}
			for _, j := range p.Items {
				if j.Remembered {
					all = append(all, j.Loom())
				}
			}
			if q.Cursor = p.Next; q.Cursor == "" {
				return all, nil
			}
		}
	})
	return states, err
}

// RecentRuns is part of loom.Archive.
func (c *Client) RecentRuns(ctx context.Context, most int, jobs ...string) ([]loom.Run, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	return split(jobs, func(jobs []string) ([]loom.Run, error) {
		v := values{}
		v.text("job", jobs...)
		v.number("most", int64(most))
		p, err := fetch[Page[Run]](ctx, c, "/recent/runs", url.Values(v))
		return some(p.Items, Run.Loom), err
	})
}

// RecentResults is part of loom.Archive.
func (c *Client) RecentResults(ctx context.Context, most int, nodes ...string) ([]loom.Result, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	return split(nodes, func(nodes []string) ([]loom.Result, error) {
		v := values{}
		v.text("node", nodes...)
		v.number("most", int64(most))
		p, err := fetch[Page[Result]](ctx, c, "/recent/results", url.Values(v))
		return some(p.Items, Result.Loom), err
	})
}
