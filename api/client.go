package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/dustinlacewell/loom"
)

// A Client asks a daemon. It is the daemon's store too: for whom it may do what
// it wants with it, except to close it. It is safe for concurrent use, and
// connects when it must: a daemon that is started anew is found again.
//
// Errors are those of the daemon, with its words: see the package's comment. If
// nobody listens they wrap ErrNoDaemon, if the system does not let the caller in
// fs.ErrPermission.
type Client struct {
	Socket string // SocketFile in the daemon's state directory

	once      sync.Once
	http      *http.Client
	transport *http.Transport
}

var (
	_ loom.Store    = (*Client)(nil)
	_ loom.Backuper = (*Client)(nil)
)

// Close ends the connections that are not in use. The daemon's store stays open.
func (c *Client) Close() error {
	c.connect().transport.CloseIdleConnections()
	return nil
}

// connect makes the client ready.
func (c *Client) connect() *Client {
	c.once.Do(func() {
		c.transport = &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
			},
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     idleTime / 2,
			DisableCompression:  true,
		}
		c.http = &http.Client{Transport: c.transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // no daemon sends anybody anywhere else
		}}
	})
	return c
}

// A request is what is asked of a daemon.
type request struct {
	method, path string
	query        url.Values
	body         any    // nil: none
	key          string // Idempotency-Key
	again        bool   // to send it twice is as good as once
}

// do sends a request, and decodes the answer into out.
func (c *Client) do(ctx context.Context, q request, out any) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r, err := q.encode(ctx)
	if err != nil {
		return err
	}
	answer, err := c.connect().http.Do(r)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was read to its end
	if answer.StatusCode >= 300 {
		return refused(answer)
	}
	if err := json.NewDecoder(answer.Body).Decode(out); err != nil {
		return c.explain(ctx, err)
	}
	_, err = io.Copy(io.Discard, answer.Body) // so that the connection can be used again
	return c.explain(ctx, err)
}

func (q request) encode(ctx context.Context) (*http.Request, error) {
	var text io.Reader
	if q.body != nil {
		encoded, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("ask the daemon: %w", err)
		}
		text = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "http://loomd"+Prefix+q.path, text)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	r.URL.RawQuery = q.query.Encode()
	r.Header.Set("Accept", "application/json")
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	switch {
	case q.key != "":
		r.Header.Set("Idempotency-Key", q.key)
	case q.again: // not sent, but lets the transport try another connection if an idle one has died
		r.Header["Idempotency-Key"] = nil
	}
	return r, nil
}

// explain says why a request was not answered.
func (c *Client) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	down := &unanswered{socket: c.Socket, err: cause(err)}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		down.what, down.kinds = "no daemon runs with this state directory (start one: loomd -c FILE)", []error{ErrNoDaemon}
	case errors.Is(err, syscall.ECONNREFUSED):
		down.what, down.kinds = "the daemon that was here is gone (start one: loomd -c FILE)", []error{ErrNoDaemon}
	case errors.Is(err, fs.ErrPermission):
		down.what = "you are not let in: ask as the user whose daemon it is, or as root"
	case errors.Is(err, syscall.EINVAL) && len(c.Socket) > longest:
		down.what = "the name is too long for a socket, so no daemon can be there: choose a state directory with a shorter name"
		down.kinds = []error{ErrNoDaemon}
	default:
		down.what = "the daemon broke off before it had answered, and what was asked for may have been done or not"
	}
	return down
}

// unanswered is why there was no answer.
type unanswered struct {
	socket, what string
	kinds        []error
	err          error
}

func (e *unanswered) Error() string { return fmt.Sprintf("socket %s: %s: %v", e.socket, e.what, e.err) }

func (e *unanswered) Unwrap() []error { return append([]error{loom.ErrStoreDown, e.err}, e.kinds...) }

// refused returns the problem that an answer is.
func refused(answer *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(answer.Body, bodyBytes)) // what there is of it is told
	p := &Problem{}
	if err := json.Unmarshal(text, p); err != nil || p.Status == 0 {
		p = &Problem{Type: "about:blank", Title: answer.Status, Status: answer.StatusCode,
			Detail: fmt.Sprintf("the daemon answered %s: %s", answer.Status, bytes.TrimSpace(text))}
	}
	if p.Type == "about:blank" && p.Status == http.StatusNotFound {
		p.Detail = "the daemon is older than this program and does not know what is asked for: start it anew"
	}
	return p
}

// fetch is do for what is asked by GET.
func fetch[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	err := c.do(ctx, request{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

// order is do for what is asked by POST.
func order[T any](ctx context.Context, c *Client, path string, body any, again bool) (T, error) {
	var out T
	err := c.do(ctx, request{method: http.MethodPost, path: path, body: body, again: again}, &out)
	return out, err
}

// Status says how things stand with the daemon.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return fetch[Status](ctx, c, "/status", nil)
}

// Trigger starts a run, in the name of the user whose process this is: By is not
// looked at. See Control.
func (c *Client) Trigger(ctx context.Context, job string, q loom.Request) (loom.Run, error) {
	var r Run
	err := c.do(ctx, request{method: http.MethodPost, path: "/jobs/" + url.PathEscape(job) + "/runs", key: q.Key,
		body: struct {
			Targets []string `json:"targets,omitzero"`
			Why     string   `json:"why,omitempty"`
		}{q.Targets, q.Why}}, &r)
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
		p, err := fetch[Page[Result]](ctx, c, "/results", url.Values(v))
		return some(p.Items, Result.Loom), err
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
	_, err := order[nothing](ctx, c, "/ledger/record", writeRequest{Claim: claim, Events: each(events, newEvent)}, false)
	return err
}

// Finish is part of loom.Ledger.
func (c *Client) Finish(ctx context.Context, claim loom.Claim, end loom.Run, last []loom.Event) error {
	_, err := order[nothing](ctx, c, "/ledger/finish", writeRequest{Claim: claim, End: end, Events: each(last, newEvent)}, true)
	return err
}

// Trim is part of loom.Store.
func (c *Client) Trim(ctx context.Context, keep loom.Retention) (loom.Trimmed, error) {
	return order[loom.Trimmed](ctx, c, "/ledger/trim", keep, true)
}
