package api

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/dustinlacewell/loom"
)

// How much there is of a list in one answer, at most.
const (
	mostItems  = 1000
	mostChunks = 100
	mostWait   = time.Minute
)

// A Page is a part of a list that can be long.
type Page[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"The cursor of the next request, with the other parameters as they were; left out: there is no more"`
}

// A body is what is answered.
type body[T any] struct{ Body T }

// routes returns what the server answers. stopping is closed when those who wait
// for something shall wait no more.
func (s *Server) routes(stopping <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Loom", cmp.Or(s.Version, "devel"))
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Formats = map[string]huma.Format{"application/json": harmless(), "json": harmless()}
	s.redacting(&config)
	config.RejectUnknownQueryParameters = true
	config.Transformers = append(config.Transformers, ownProblem)
	api := humago.New(mux, config)
	api.UseMiddleware(s.doorkeeper)
	s.daemon(api)
	s.jobs(api)
	s.nodes(api)
	s.hands(api)
	s.recent(api)
	s.files(api)
	s.archive(api)
	s.orders(api)
	s.output(api, stopping)
	s.streams(api, stopping)
	s.tokens(api)
	s.notify(api)
	s.ledger(mux)
	s.probes(mux)
	s.metrics(mux)
	document(api.OpenAPI(), s.Metrics != nil)
	documentTags(api.OpenAPI())
	explainOperations(api.OpenAPI())
	s.docs(mux, api.OpenAPI())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if allowed := methodsOf(mux, r); len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			(&Problem{Type: "about:blank", Title: "Method not allowed", Status: http.StatusMethodNotAllowed,
				Detail: fmt.Sprintf("nothing answers %s %s here, but %s: /openapi.json says what that does", r.Method, r.URL.Path, strings.Join(allowed, ", "))}).write(w)
			return
		}
		(&Problem{Type: "about:blank", Title: "Not found", Status: http.StatusNotFound,
			Detail: fmt.Sprintf("nothing answers %s %s here: /openapi.json says what does", r.Method, r.URL.Path)}).write(w)
	})
	return tagged(mux)
}

// methodsOf returns the methods by which what nobody answers would be answered.
func methodsOf(mux *http.ServeMux, r *http.Request) []string {
	var all []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if _, pattern := mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host}); pattern != "" && pattern != "/" {
			all = append(all, method)
		}
	}
	return all
}

// get adds an operation that shows something to every role, the others one that
// changes something for operators.
func get[In, Out any](api huma.API, path, tag, id, summary string, do func(context.Context, *In) (Out, error)) {
	operation(api, RoleViewer, http.MethodGet, path, tag, id, summary, do)
}

func post[In, Out any](api huma.API, path, tag, id, summary string, do func(context.Context, *In) (Out, error)) {
	operation(api, RoleOperator, http.MethodPost, path, tag, id, summary, do)
}

// operation adds an operation for those who have a role. If it changes something,
// what it did is written down with who asked for it: see trail.
func operation[In, Out any](api huma.API, least Role, method, path, tag, id, summary string, do func(context.Context, *In) (Out, error)) {
	op := huma.Operation{OperationID: id, Method: method, Path: Prefix + path, Summary: summary, Tags: []string{tag},
		Extensions:      map[string]any{roleKey: least},
		BodyReadTimeout: -1} // it was read
	huma.Register(api, op, func(ctx context.Context, in *In) (*body[Out], error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, problem(err)
		}
		keep(ctx)
		return &body[Out]{out}, nil
	})
}

// probes add what supervisors ask.
func (s *Server) probes(mux *http.ServeMux) {
	fine := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "ok") // who asked has gone if this fails
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fine(w) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if p := s.ready(r.Context()); p != nil {
			if caller(r.Context()).Role == "" { // why is nobody's business who does not say who asks
				p = &Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: "not ready: the daemon's log and \"loomd status\" say why"}
			}
			p.write(w)
			return
		}
		fine(w)
	})
}

// Done is what is answered when there is nothing to tell.
type Done struct {
	OK bool `json:"ok"`
}

// daemon adds what concerns the daemon as a whole.
func (s *Server) daemon(api huma.API) {
	get(api, "/status", "daemon", "status", "How things stand", func(ctx context.Context, _ *struct{}) (Status, error) {
		return s.Status(ctx), nil
	})
	operation(api, RoleAdmin, http.MethodPost, "/reload", "daemon", "reload", "Read the files again", func(ctx context.Context, _ *struct{}) (Done, error) {
		if s.Control == nil {
			return Done{}, s.alone("read files")
		}
		if err := s.Control.Reload(ctx); err != nil {
			return Done{}, asInvalid(err)
		}
		return Done{true}, nil
	})
	type backup struct {
		Body struct {
			File string `json:"file" doc:"On the daemon's machine: an absolute name, of a file that does not exist"`
		}
	}
	operation(api, RoleAdmin, http.MethodPost, "/backup", "daemon", "backup", "Copy the store to a file", func(ctx context.Context, in *backup) (Done, error) {
		note(ctx, "backup", in.Body.File, "")
		return Done{true}, s.backup(ctx, in.Body.File)
	})
}

// alone says that a server without a daemon can't do what was asked for.
func (s *Server) alone(what string) error {
	return &Problem{Type: "urn:loom:unsupported", Title: "Not supported", Status: http.StatusNotImplemented,
		Detail: "this server only shows what is remembered: it can't " + what}
}

// asInvalid is for errors that are the caller's, whatever they are called.
func asInvalid(err error) error {
	if p := problem(err); p.Status != http.StatusInternalServerError {
		return p
	}
	return invalid(err.Error())
}

func (s *Server) backup(ctx context.Context, file string) error {
	store, ok := s.Store.(loom.Backuper)
	if !ok {
		return &Problem{Type: "urn:loom:unsupported", Title: "Not supported", Status: http.StatusNotImplemented,
			Detail: "this kind of store can't be copied by loom: use the tools of its database"}
	}
	if !filepath.IsAbs(file) {
		return invalid(fmt.Sprintf("back up to %q: give the file's absolute name: the daemon's directory is not yours", file))
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("back up to %s: %w: name another file", file, fs.ErrExist)
	}
	return store.Backup(ctx, file)
}

// archive adds what is remembered.
func (s *Server) archive(api huma.API) {
	s.runs(api)
	type ticks struct {
		Job    string    `path:"job"`
		From   time.Time `query:"from" doc:"Ticks from here on, and ranges that reach to here"`
		To     time.Time `query:"to" doc:"Up to here"`
		Cursor time.Time `query:"cursor" doc:"The next of the page before"`
		Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	get(api, "/jobs/{job}/ticks", "jobs", "list-ticks", "What became of a job's ticks, newest first", func(ctx context.Context, in *ticks) (Page[Tick], error) {
		found, err := s.Store.Ticks(ctx, loom.TickQuery{Job: in.Job, From: local(in.From), To: local(cmp.Or(in.Cursor, in.To)), Limit: in.Limit})
		page := Page[Tick]{Items: list(found, NewTick)}
		if len(found) == in.Limit {
			page.Next = utc(before(found[len(found)-1])).Format(time.RFC3339Nano)
		}
		return page, err
	})
	type days struct {
		Job  string    `query:"job" doc:"Left out: all together"`
		From time.Time `query:"from" required:"true"`
		To   time.Time `query:"to" doc:"Left out: today"`
	}
	get(api, "/days", "runs", "list-days", "How many runs ended how, by day, oldest first", func(ctx context.Context, in *days) (Page[DayCount], error) {
		found, err := s.Store.Days(ctx, loom.DayQuery{Job: in.Job, From: local(in.From), To: local(in.To)})
		return Page[DayCount]{Items: list(found, func(d loom.DayCount) DayCount { return DayCount(d) })}, err
	})
	s.audit(api)
}

// audit adds what people did: by the name that it has as a part of the store, and by
// that which people look for.
func (s *Server) audit(api huma.API) {
	type actions struct {
		Object string    `query:"object" doc:"A job's name, a run's ID, ..."`
		By     string    `query:"by" doc:"Who did it" example:"token ci"`
		Verb   string    `query:"verb" doc:"What was done: run, cancel, pause, resume, reload, backup, trust, ..." example:"run"`
		Since  time.Time `query:"since" doc:"At or after"`
		Until  time.Time `query:"until" doc:"Before"`
		Before int64     `query:"before" minimum:"0" doc:"Only those older than the one with this ID"`
		Cursor string    `query:"cursor" doc:"The next of the page before"`
		Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	show := func(ctx context.Context, in *actions) (Page[Action], error) {
		q := loom.ActionQuery{Object: in.Object, By: in.By, Verb: in.Verb, Since: local(in.Since), Until: local(in.Until), Before: in.Before, Limit: in.Limit}
		if in.Cursor != "" {
			var err error
			if q.Before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil {
				return Page[Action]{}, badCursor(in.Cursor)
			}
		}
		found, err := s.Store.Actions(ctx, q)
		page := Page[Action]{Items: list(found, NewAction)}
		if len(found) == in.Limit {
			page.Next = fmt.Sprint(found[len(found)-1].ID)
		}
		return page, err
	}
	operation(api, RoleAdmin, http.MethodGet, "/audit", "actions", "audit", "Who did what, newest first", show)
	operation(api, RoleAdmin, http.MethodGet, "/actions", "actions", "list-actions", "What people did, newest first: the same as audit", show)
}

// badCursor is the problem with a cursor that no page has.
func badCursor(cursor string) error {
	return invalid(fmt.Sprintf("cursor=%s: give what the page before has as its next, and the other parameters as they were", cursor))
}

// before is where the ticks older than t end.
func before(t loom.Tick) time.Time { return t.Due.Add(-time.Millisecond) }

// runs adds runs and what they did.
func (s *Server) runs(api huma.API) {
	type runs struct {
		ID      string        `query:"id" doc:"Those whose IDs begin with this"`
		Job     string        `query:"job"`
		Status  []loom.Status `query:"status,explode" enum:"queued,running,ok,changed,failed,cancelled,lost" doc:"How they stand, or ended"`
		Trigger loom.Trigger  `query:"trigger" enum:"schedule,catch-up,manual,after" doc:"What started them"`
		Plan    string        `query:"plan" enum:"true,false" doc:"true: only those that told what would change; false: only others; left out: both"`
		Node    string        `query:"node" doc:"Those that were at work there"`
		Text    string        `query:"text" doc:"Part of the job's name, of who asked for it, or of a reason"`
		Since   time.Time     `query:"since" doc:"Queued at or after"`
		Until   time.Time     `query:"until" doc:"Queued before"`
		Before  string        `query:"before" doc:"Only those older than the one with this ID"`
		Cursor  string        `query:"cursor" doc:"The next of the page before"`
		Limit   int           `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	find := func(ctx context.Context, in *runs) (Page[Run], error) {
		q := loom.RunQuery{ID: in.ID, Job: in.Job, Status: in.Status, Trigger: in.Trigger, Node: in.Node,
			Text: in.Text, Since: local(in.Since), Until: local(in.Until), Before: cmp.Or(in.Cursor, in.Before), Limit: in.Limit}
		if in.Plan != "" {
			q.Plan = new(in.Plan == "true")
		}
		found, err := s.Store.Runs(ctx, q)
		page := Page[Run]{Items: list(found, NewRun)}
		if len(found) == in.Limit {
			page.Next = found[len(found)-1].ID
		}
		return page, err
	}
	get(api, "/runs", "runs", "list-runs", "Runs, newest first", find)
	type ofJob struct {
		Job     string        `path:"job"`
		Status  []loom.Status `query:"status,explode" enum:"queued,running,ok,changed,failed,cancelled,lost" doc:"How they stand, or ended"`
		Trigger loom.Trigger  `query:"trigger" enum:"schedule,catch-up,manual,after" doc:"What started them"`
		Plan    string        `query:"plan" enum:"true,false" doc:"true: only those that told what would change; false: only others; left out: both"`
		Node    string        `query:"node" doc:"Those that were at work there"`
		Since   time.Time     `query:"since" doc:"Queued at or after"`
		Until   time.Time     `query:"until" doc:"Queued before"`
		Cursor  string        `query:"cursor" doc:"The next of the page before"`
		Limit   int           `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	get(api, "/jobs/{job}/runs", "jobs", "list-runs-of-job", "Runs of a job, newest first", func(ctx context.Context, in *ofJob) (Page[Run], error) {
		if _, _, err := s.job(ctx, in.Job); err != nil {
			return Page[Run]{}, err
		}
		return find(ctx, &runs{Job: in.Job, Status: in.Status, Trigger: in.Trigger, Plan: in.Plan, Node: in.Node, Since: in.Since, Until: in.Until, Cursor: in.Cursor, Limit: in.Limit})
	})
	type run struct {
		ID string `path:"run" doc:"A run's ID, or its beginning if there is only one of that"`
	}
	get(api, "/runs/{run}", "runs", "get-run", "A run", func(ctx context.Context, in *run) (Run, error) {
		r, err := s.run(ctx, in.ID)
		shown := NewRun(r)
		if err == nil && r.Trigger == loom.TriggerManual {
			var said []string
			if said, err = s.asked(ctx, r); len(said) > 0 {
				shown.Why = said[0]
			}
		}
		return shown, err
	})
	type one struct {
		ID     string        `path:"run" doc:"A run's ID, or its beginning if there is only one of that"`
		Node   string        `query:"node" doc:"Only that of this node"`
		Status []loom.Status `query:"status,explode" doc:"Only those that ended, or stand, so"`
		Cursor string        `query:"cursor" doc:"The next of the page before"`
		Limit  int           `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"How many at most"`
	}
	get(api, "/runs/{run}/results", "runs", "list-results-of-run", "What a run did, by node", func(ctx context.Context, in *one) (Page[Result], error) {
		r, err := s.run(ctx, in.ID)
		if err != nil {
			return Page[Result]{}, err
		}
		found, err := s.Store.Results(ctx, loom.ResultQuery{Runs: []string{r.ID}, Node: in.Node})
		found = slices.DeleteFunc(found, func(r loom.Result) bool { return len(in.Status) > 0 && !slices.Contains(in.Status, r.Status) })
		return paged(list(found, NewResult), in.Cursor, in.Limit, func(r Result) string { return r.Node }), err
	})
	type several struct {
		Run    []string `query:"run,explode" doc:"Their whole IDs"`
		Node   string   `query:"node" doc:"Only those of this node"`
		Cursor int      `query:"cursor" minimum:"0" doc:"The next of the page before"`
		Limit  int      `query:"limit" minimum:"1" maximum:"10000" default:"10000" doc:"How many at most"`
	}
	get(api, "/results", "runs", "list-results", "What several runs did, in their order, then by node", func(ctx context.Context, in *several) (Page[Result], error) {
		found, err := s.Store.Results(ctx, loom.ResultQuery{Runs: in.Run, Node: in.Node})
		end := min(in.Cursor+in.Limit, len(found))
		page := Page[Result]{Items: list(found[min(in.Cursor, end):end], NewResult)}
		if end < len(found) {
			page.Next = strconv.Itoa(end)
		}
		return page, err
	})
}

// run returns the run whose ID is id or, if there is just one, begins with it.
func (s *Server) run(ctx context.Context, id string) (loom.Run, error) {
	found, err := s.Store.Runs(ctx, loom.RunQuery{ID: id, Limit: 2})
	switch {
	case err != nil:
		return loom.Run{}, err
	case len(found) == 0:
		return loom.Run{}, fmt.Errorf("run %s: %w: it never was, or is not kept any more", id, loom.ErrNotFound)
	case len(found) > 1:
		return loom.Run{}, invalid(fmt.Sprintf("run %s: several runs begin so: give more of the ID", id))
	}
	return found[0], nil
}

// A runOrder is what somebody wants of a run of a job.
type runOrder struct {
	Targets []string `json:"targets,omitzero" doc:"Some of the job's nodes; left out: all"`
	Why     string   `json:"why,omitempty"`
	Timeout float64  `json:"timeout_seconds,omitempty" minimum:"0" maximum:"31536000" doc:"For each node and attempt, instead of the job's own; left out, or 0: that" example:"30"`
	Max     int      `json:"max,omitempty" minimum:"1" doc:"How many nodes at once, as far as max_workers lets; left out: as many as it lets" example:"1"`
	Plan    bool     `json:"plan,omitempty" doc:"Only tell what would change: nothing is changed on the nodes. A task that can't tell is skipped there"`
}

// orders adds what people ask for.
func (s *Server) orders(api huma.API) {
	type trigger struct {
		Job  string `path:"job"`
		Key  string `header:"Idempotency-Key" maxLength:"200" doc:"However often a job is triggered with the same key, one run is started"`
		Body *runOrder
	}
	post(api, "/jobs/{job}/runs", "jobs", "run-job", "Run a job now", func(ctx context.Context, in *trigger) (Run, error) {
		if s.Control == nil {
			return Run{}, s.alone("run jobs")
		}
		q := loom.Request{By: caller(ctx).Name, Key: in.Key}
		if d := in.Body; d != nil {
			q.Targets, q.Why = d.Targets, s.harmless(d.Why)
			q.Timeout, q.Max, q.Plan = duration(d.Timeout), d.Max, d.Plan
		}
		r, err := s.trigger(ctx, in.Job, q)
		return NewRun(r), err
	})
	type reason struct {
		Why string `json:"why,omitempty"`
	}
	type cancel struct {
		ID   string `path:"run" doc:"The whole ID"`
		Body *reason
	}
	post(api, "/runs/{run}/cancel", "runs", "cancel-run", "End a run", func(ctx context.Context, in *cancel) (Done, error) {
		a := loom.Action{Verb: loom.VerbCancel, Object: in.ID}
		if in.Body != nil {
			a.Why = in.Body.Why
		}
		return Done{true}, s.act(ctx, a)
	})
	type pause struct {
		Job  string `path:"job"`
		Body *struct {
			Until time.Time `json:"until,omitzero" doc:"Left out: until it is resumed"`
			Why   string    `json:"why,omitempty" doc:"For others to read" example:"db3 gets a new disk"`
		}
	}
	operation(api, RoleOperator, http.MethodPut, "/jobs/{job}/pause", "jobs", "pause-job", "Let a job not be fired, except by hand", func(ctx context.Context, in *pause) (Done, error) {
		a := loom.Action{Verb: loom.VerbPause, Object: in.Job}
		if in.Body != nil {
			a.Until, a.Why = local(in.Body.Until), in.Body.Why
		}
		return Done{true}, s.act(ctx, a)
	})
	type resume struct {
		Job string `path:"job"`
		Why string `query:"why" doc:"That is written down"`
	}
	operation(api, RoleOperator, http.MethodDelete, "/jobs/{job}/pause", "jobs", "resume-job", "Let a job be fired again", func(ctx context.Context, in *resume) (Done, error) {
		return Done{true}, s.act(ctx, loom.Action{Verb: loom.VerbResume, Object: in.Job, Why: in.Why})
	})
	type action struct {
		Body struct {
			Verb   string    `json:"verb" minLength:"1" maxLength:"100" doc:"pause and resume a job, cancel a run; others are only written down"`
			Object string    `json:"object,omitempty" doc:"The job's name, the run's ID, ..."`
			Why    string    `json:"why,omitempty"`
			Until  time.Time `json:"until,omitzero" doc:"Of a pause; left out: until it is resumed"`
			By     string    `json:"by,omitempty" doc:"On whose behalf, if the daemon's own user or root says so; others speak for themselves"`
		}
	}
	post(api, "/actions", "actions", "act", "Pause or resume a job, or cancel a run, and write down who did", func(ctx context.Context, in *action) (Done, error) {
		b := in.Body
		return Done{true}, s.act(ctx, loom.Action{Verb: b.Verb, Object: b.Object, Why: b.Why, Until: local(b.Until), By: b.By})
	})
}

// act does what a person asks for. A run that this daemon works on need not wait
// for the store to tell that it shall end, nor for a store that is down.
func (s *Server) act(ctx context.Context, a loom.Action) error {
	a.By = caller(ctx).onBehalf(a.By)
	a.Why = s.harmless(a.Why)
	noted(ctx, a.Verb, a.Object, a.Why)
	err := s.Store.Act(ctx, a)
	if err == nil {
		s.Feed.acted(a)
	}
	if a.Verb != loom.VerbCancel || s.Control == nil || err != nil && problem(err).Type != "urn:loom:store-down" {
		return err
	}
	why := "cancelled by " + a.By
	if a.Why != "" {
		why += ": " + a.Why
	}
	if s.Control.Cancel(ctx, a.Object, why) == nil {
		return nil
	}
	return err // the run is another daemon's, or the store is down
}
