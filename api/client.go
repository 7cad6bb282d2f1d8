package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/dustinlacewell/loom"
)

var (
	_ loom.Store    = (*Client)(nil)
	_ loom.Backuper = (*Client)(nil)
)

// Status says how things stand with the daemon.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return fetch[Status](ctx, c, "/status", nil)
}

// Trigger starts a run, in the name of the user whose process this is: By is not
// looked at. See Control.
func (c *Client) Trigger(ctx context.Context, job string, q loom.Request) (loom.Run, error) {
	var r Run
	err := c.do(ctx, request{method: http.MethodPost, path: "/jobs/" + url.PathEscape(job) + "/runs", key: q.Key,
		body: runOrder{Targets: q.Targets, Why: q.Why, Timeout: q.Timeout.Seconds(), Max: q.Max, Plan: q.Plan}}, &r)
	return r.Loom(), err
}

// Cancel ends a run, in the name of the user whose process this is. The error
// wraps loom.ErrNotFound if no such run is going.
func (c *Client) Cancel(ctx context.Context, run, why string) error {
	_, err := order[Done](ctx, c, "/runs/"+url.PathEscape(run)+"/cancel", map[string]string{"why": why}, false)
	return err
}

// Reload has the daemon read its files again, and returns when what they say is
// in force. The error says what is wrong with them.
func (c *Client) Reload(ctx context.Context) error {
	_, err := order[Done](ctx, c, "/reload", nil, true)
	return err
}

// Backup is part of loom.Backuper. The daemon writes the file.
func (c *Client) Backup(ctx context.Context, file string) error {
	abs, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("back up to %s: %w", file, err)
	}
	_, err = order[Done](ctx, c, "/backup", map[string]string{"file": abs}, false)
	return err
}

// Run returns the run whose ID is id or, if there is just one, begins with it.
func (c *Client) Run(ctx context.Context, id string) (loom.Run, error) {
	r, err := fetch[Run](ctx, c, "/runs/"+url.PathEscape(id), nil)
	return r.Loom(), err
}

// Follow returns output as Output does, except that it waits, up to a minute, for
// some to come. ended says that no more will. The error wraps loom.ErrNotFound if
// there is no such run.
func (c *Client) Follow(ctx context.Context, q loom.OutputQuery, wait time.Duration) (chunks []loom.Chunk, ended bool, err error) {
	out, err := c.output(ctx, q, wait)
	return each(out.Chunks, Chunk.Loom), out.Ended, err
}

func (c *Client) output(ctx context.Context, q loom.OutputQuery, wait time.Duration) (Output, error) {
	v := values{}
	v.text("node", q.Node)
	v.number("after", q.After)
	v.number("limit", int64(min(cmp.Or(q.Limit, mostChunks), mostChunks)))
	v.number("wait", int64(min(wait, mostWait).Round(time.Second).Seconds()))
	return fetch[Output](ctx, c, "/runs/"+url.PathEscape(q.Run)+"/output", url.Values(v))
}

// values are the parameters of a request; what is zero is left out.
type values url.Values

func (v values) text(name string, values ...string) {
	for _, value := range values {
		if value != "" {
			v[name] = append(v[name], value)
		}
	}
}

func (v values) number(name string, n int64) {
	if n != 0 {
		v[name] = []string{strconv.FormatInt(n, 10)}
	}
}

func (v values) time(name string, t time.Time) {
	if !t.IsZero() {
		v[name] = []string{t.UTC().Format(time.RFC3339Nano)}
	}
}

// Act is part of loom.Store. If a.By is empty it is the user whose process this
// is.
func (c *Client) Act(ctx context.Context, a loom.Action) error {
	_, err := order[Done](ctx, c, "/actions", struct {
		Verb   string    `json:"verb"`
		Object string    `json:"object,omitempty"`
		Why    string    `json:"why,omitempty"`
		Until  time.Time `json:"until,omitzero"`
		By     string    `json:"by,omitempty"`
	}{a.Verb, a.Object, a.Why, utc(a.Until), a.By}, false)
	return err
}

// split asks for what concerns many in several requests, as a request has room
// for so many names.
func split[T any](names []string, ask func(names []string) ([]T, error)) ([]T, error) {
	const room = 32 << 10
	var all []T
	for {
		n, size := 0, 0
		for n < len(names) && (n == 0 || size+len(names[n]) < room) {
			size += 3*len(names[n]) + 8 // as it may be escaped
			n++
		}
		found, err := ask(names[:n])
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
		if names = names[n:]; len(names) == 0 {
			return all, nil
		}
	}
}

// some is each, but nil for nothing.
func some[From, To any](all []From, convert func(From) To) []To {
	if len(all) == 0 {
		return nil
	}
	return each(all, convert)
}

// pages asks for a list page by page until there are as many as were asked for.
func pages[T any](limit, most int, ask func(limit int, last *T) ([]T, error)) ([]T, error) {
	limit = cmp.Or(limit, 100)
	var all []T
	for {
		var last *T
		if len(all) > 0 {
			last = &all[len(all)-1]
		}
		n := min(limit-len(all), most)
		found, err := ask(n, last)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
		if len(found) < n || len(all) >= limit {
			return all, nil
		}
	}
}

// Runs is part of loom.Archive.
func (c *Client) Runs(ctx context.Context, q loom.RunQuery) ([]loom.Run, error) {
	v := values{}
	v.text("id", q.ID)
	v.text("job", q.Job)
	v.text("trigger", string(q.Trigger))
	if q.Plan != nil {
		v.text("plan", strconv.FormatBool(*q.Plan))
	}
	v.text("node", q.Node)
	v.text("text", q.Text)
	v.time("since", q.Since)
	v.time("until", q.Until)
	v.text("before", q.Before)
	for _, s := range q.Status {
		v.text("status", string(s))
	}
	return pages(q.Limit, mostItems, func(limit int, last *loom.Run) ([]loom.Run, error) {
		v.number("limit", int64(limit))
		if last != nil {
			v["before"] = []string{last.ID}
		}
		p, err := fetch[Page[Run]](ctx, c, "/runs", url.Values(v))
		return some(p.Items, Run.Loom), err
	})
}

// Results is part of loom.Archive.
func (c *Client) Results(ctx context.Context, q loom.ResultQuery) ([]loom.Result, error) {
	return split(q.Runs, func(runs []string) ([]loom.Result, error) {
		v := values{}
		v.text("run", runs...)
		v.text("node", q.Node)
		var all []loom.Result
		for {
			p, err := fetch[Page[Result]](ctx, c, "/results", url.Values(v))
			all = append(all, some(p.Items, Result.Loom)...)
			if err != nil || p.Next == "" {
				return all, err
			}
			v["cursor"] = []string{p.Next}
		}
	})
}

// Output is part of loom.Archive.
func (c *Client) Output(ctx context.Context, q loom.OutputQuery) ([]loom.Chunk, error) {
	chunks, err := pages(q.Limit, mostChunks, func(limit int, last *loom.Chunk) ([]loom.Chunk, error) {
		q.Limit = limit
		if last != nil {
			q.After = last.Cursor
		}
		out, err := c.output(ctx, q, 0)
		return some(out.Chunks, Chunk.Loom), err
	})
	if errors.Is(err, loom.ErrNotFound) {
		return nil, nil
	}
	return chunks, err
}

// Ticks is part of loom.Archive.
func (c *Client) Ticks(ctx context.Context, q loom.TickQuery) ([]loom.Tick, error) {
	v := values{}
	v.time("from", q.From)
	v.time("to", q.To)
	return pages(q.Limit, mostItems, func(limit int, last *loom.Tick) ([]loom.Tick, error) {
		v.number("limit", int64(limit))
		if last != nil {
			v.time("to", before(*last))
		}
		p, err := fetch[Page[Tick]](ctx, c, "/jobs/"+url.PathEscape(q.Job)+"/ticks", url.Values(v))
		return some(p.Items, Tick.Loom), err
	})
}

// Days is part of loom.Archive.
func (c *Client) Days(ctx context.Context, q loom.DayQuery) ([]loom.DayCount, error) {
	v := values{"from": {utc(q.From).Format(time.RFC3339Nano)}}
	v.text("job", q.Job)
	v.time("to", q.To)
	p, err := fetch[Page[DayCount]](ctx, c, "/days", url.Values(v))
	return some(p.Items, func(d DayCount) loom.DayCount { return loom.DayCount(d) }), err
}

// Actions is part of loom.Archive.
func (c *Client) Actions(ctx context.Context, q loom.ActionQuery) ([]loom.Action, error) {
	v := values{}
	v.text("object", q.Object)
	v.text("by", q.By)
	v.text("verb", q.Verb)
	v.time("since", q.Since)
	v.time("until", q.Until)
	v.number("before", q.Before)
	return pages(q.Limit, mostItems, func(limit int, last *loom.Action) ([]loom.Action, error) {
		v.number("limit", int64(limit))
		if last != nil {
			v.number("before", last.ID)
		}
		p, err := fetch[Page[Action]](ctx, c, "/actions", url.Values(v))
		return some(p.Items, Action.Loom), err
	})
}

// Beat is part of loom.Ledger.
func (c *Client) Beat(ctx context.Context, self loom.Instance) (loom.Pulse, error) {
	p, err := order[loom.Pulse](ctx, c, "/ledger/beat", self, true)
	p.Now, p.Away = local(p.Now), local(p.Away)
	p.Alone = false // there is the daemon
	return p, err
}

// Adopt is part of loom.Ledger.
func (c *Client) Adopt(ctx context.Context, jobs map[string]string) error {
	_, err := order[nothing](ctx, c, "/ledger/adopt", adoptRequest{jobs}, true)
	return err
}

// Fire is part of loom.Ledger.
func (c *Client) Fire(ctx context.Context, self string, firings []loom.Firing) ([]loom.Fired, error) {
	a, err := order[fireAnswer](ctx, c, "/ledger/fire", fireRequest{self, firings}, true)
	for i := range a.Fired {
		localRun(&a.Fired[i].Claim.Run)
	}
	return a.Fired, err
}

// Take is part of loom.Ledger.
func (c *Client) Take(ctx context.Context, self string) (*loom.Claim, error) {
	a, err := order[takeAnswer](ctx, c, "/ledger/take", takeRequest{self}, false) // twice would take two
	if a.Claim != nil {
		localRun(&a.Claim.Run)
	}
	return a.Claim, err
}

// Record is part of loom.Ledger.
func (c *Client) Record(ctx context.Context, claim loom.Claim, events []loom.Event) error {
	_, err := order[nothing](ctx, c, "/ledger/record", writeRequest{Claim: claim, Events: each(events, NewEvent)}, false)
	return err
}

// Finish is part of loom.Ledger.
func (c *Client) Finish(ctx context.Context, claim loom.Claim, end loom.Run, last []loom.Event) error {
	_, err := order[nothing](ctx, c, "/ledger/finish", writeRequest{Claim: claim, End: end, Events: each(last, NewEvent)}, true)
	return err
}

// Trim is part of loom.Store.
func (c *Client) Trim(ctx context.Context, keep loom.Retention) (loom.Trimmed, error) {
	return order[loom.Trimmed](ctx, c, "/ledger/trim", keep, true)
}
