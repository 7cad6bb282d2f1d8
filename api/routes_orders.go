package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/ledger"
)

// execTime is how long a command may take on a node, unless it is said how long.
const execTime = time.Hour

// An Exec is a command that somebody gives by hand.
type Exec struct {
	Targets []string          `json:"targets" minItems:"1" doc:"Patterns, as in a manifest: names, @groups, all, patterns with *, ? and [], exclusions with !" example:"[\"@web\", \"!web3\"]"`
	Command string            `json:"command" minLength:"1" maxLength:"65536" doc:"Text for the nodes' shell" example:"systemctl reload nginx"`
	Sudo    string            `json:"sudo,omitempty" doc:"Whom the command becomes by sudo; *: the node's choice, which is root unless it says otherwise; left out: nobody" example:"root"`
	User    string            `json:"user,omitempty" doc:"Logs in to the nodes, instead of their own user"`
	Env     map[string]string `json:"env,omitempty" doc:"Exported to the command"`
	Dir     string            `json:"dir,omitempty" doc:"Working directory; left out: the login directory"`
	Timeout float64           `json:"timeout_seconds,omitempty" minimum:"0" maximum:"31536000" doc:"For each node; left out: an hour" example:"30"`
	Max     int               `json:"max,omitempty" minimum:"1" doc:"How many nodes at once, as far as max_workers lets; left out: as many as it lets" example:"1"`
}

// Limit returns how long the command may take on each node.
func (e Exec) Limit() time.Duration {
	if e.Timeout <= 0 {
		return execTime
	}
	return duration(e.Timeout)
}

// words tell what was asked for: that is kept with the run.
func (e Exec) words() string {
	var how []string
	for _, h := range [][2]string{{"sudo", e.Sudo}, {"user", e.User}, {"dir", e.Dir}, {"env", strings.Join(slices.Sorted(maps.Keys(e.Env)), " ")}} {
		if h[1] != "" {
			how = append(how, h[0]+": "+h[1])
		}
	}
	if e.Timeout > 0 {
		how = append(how, "timeout: "+e.Limit().String())
	}
	if e.Max > 0 {
		how = append(how, fmt.Sprintf("max: %d", e.Max))
	}
	if len(how) == 0 {
		return e.Command
	}
	return e.Command + " (" + strings.Join(how, "; ") + ")"
}

// hands adds what works on nodes.
func (s *Server) hands(api huma.API) {
	type exec struct {
		Key  string `header:"Idempotency-Key" maxLength:"200" doc:"However often a command is sent with the same key, it is run once"`
		Body Exec
	}
	operation(api, RoleAdmin, http.MethodPost, "/exec", "runs", "exec", "Run a command on nodes now", func(ctx context.Context, in *exec) (Run, error) {
		if s.Control == nil {
			return Run{}, s.alone("run commands")
		}
		q := loom.Request{By: caller(ctx).Name, Why: s.harmless(in.Body.words()), Key: in.Key, Timeout: duration(in.Body.Timeout), Max: in.Body.Max}
		noted(ctx, loom.VerbRun, loom.ExecJob, q.Why)
		r, err := s.Control.Exec(ctx, in.Body, q)
		if err == nil && in.Key != "" {
			var targets []string
			if targets, err = s.selected(in.Body.Targets); err == nil {
				q.Targets = targets
				err = s.sameOrder(ctx, r, q)
			}
		}
		return NewRun(r), err
	})
	type retry struct {
		Run  string `path:"run" doc:"A run's ID, or its beginning if there is only one of that"`
		Key  string `header:"Idempotency-Key" maxLength:"200" doc:"However often a run is tried again with the same key, one is started"`
		Body *struct {
			Failed bool `json:"failed,omitempty" doc:"Only on the nodes that did not end well"`
		}
	}
	post(api, "/runs/{run}/retry", "runs", "retry-run", "Run a job again, as an earlier run did", func(ctx context.Context, in *retry) (Run, error) {
		return s.retry(ctx, in.Run, in.Key, in.Body != nil && in.Body.Failed)
	})
	type node struct {
		Node string `path:"node"`
	}
	post(api, "/nodes/{node}/ping", "nodes", "ping-node", "Try to reach a node", func(ctx context.Context, in *node) (Ping, error) {
		_, n, err := s.node(in.Node, "reach nodes")
		if err != nil {
			return Ping{}, err
		}
		p := s.Control.Ping(ctx, n)
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		s.fleet.pinged(p)
		return p, nil
	})
	get(api, "/nodes/{node}/hostkeys", "nodes", "list-host-keys", "The host keys that a node shows, and whether they are known", func(ctx context.Context, in *node) (Page[HostKey], error) {
		_, n, err := s.node(in.Node, "reach nodes")
		if err != nil {
			return Page[HostKey]{}, err
		}
		keys, err := s.Control.HostKeys(ctx, n)
		return Page[HostKey]{Items: list(keys, newHostKey)}, err
	})
	type trust struct {
		Node string `path:"node"`
		Body *struct {
			Fingerprints []string `json:"fingerprints,omitempty" doc:"The keys that were looked at; left out: all that the node shows" example:"[\"SHA256:jFmiPbM3eMuVM0OIqgIvcpDEoU7GRzQ4H3b6Wx8aE1A\"]"`
		}
	}
	post(api, "/nodes/{node}/hostkeys", "nodes", "trust-host-keys", "Record host keys of a node as its own", func(ctx context.Context, in *trust) (Page[HostKey], error) {
		_, n, err := s.node(in.Node, "reach nodes")
		if err != nil {
			return Page[HostKey]{}, err
		}
		var prints []string
		if in.Body != nil {
			prints = in.Body.Fingerprints
		}
		keys, err := s.Control.Trust(ctx, n, prints)
		var added []string
		for _, k := range keys {
			added = append(added, k.Type+" "+k.Fingerprint)
		}
		note(ctx, "trust", in.Node, strings.Join(added, ", "))
		return Page[HostKey]{Items: list(keys, newHostKey)}, err
	})
}

// A HostKey is a key that a node shows.
type HostKey struct {
	Type        string `json:"type" example:"ssh-ed25519"`
	Fingerprint string `json:"fingerprint" example:"SHA256:jFmiPbM3eMuVM0OIqgIvcpDEoU7GRzQ4H3b6Wx8aE1A"`
	Known       string `json:"known,omitempty" doc:"Where it is recorded; left out: it is not known" example:"/root/.ssh/known_hosts:7"`
	Changed     bool   `json:"changed,omitempty" doc:"The node is known by another key of this type, or this one is revoked: it is not trusted"`
}

func newHostKey(k loom.HostKey) HostKey { return HostKey(k) }

// harmless is a text without secrets.
func (s *Server) harmless(text string) string {
	if s.Redact == nil {
		return text
	}
	return s.Redact(text)
}

// selected returns the names of the nodes that patterns select.
func (s *Server) selected(patterns []string) ([]string, error) {
	m, err := s.inForce("run commands")
	if err != nil {
		return nil, err
	}
	nodes, err := m.Select(patterns...)
	return nodeNames(nodes), err
}

// retry runs a job again as an earlier run did: on all of its nodes, or on those
// where it did not end well.
func (s *Server) retry(ctx context.Context, id, key string, failed bool) (Run, error) {
	m, err := s.inForce("run jobs")
	if err != nil {
		return Run{}, err
	}
	was, err := s.run(ctx, id)
	if err != nil {
		return Run{}, err
	}
	j := m.Job(was.Job)
	switch {
	case was.Job == loom.ExecJob:
		return Run{}, invalid(fmt.Sprintf("run %s was a command, not a job: give the command once more", was.ID))
	case j == nil:
		return Run{}, fmt.Errorf("run %s was one of job %q, which is not in the manifest any more: %w", was.ID, was.Job, loom.ErrNotFound)
	case !was.Status.Ended():
		return Run{}, fmt.Errorf("%w: run %s: wait for its end, or cancel it", loom.ErrBusy, was.ID)
	}
	q := loom.Request{By: caller(ctx).Name, Key: key, Targets: was.Targets, Why: "again, as run " + was.ID,
		Timeout: was.Timeout, Max: was.Max, Plan: was.Plan}
	if failed {
		q.Why = "again where run " + was.ID + " did not end well"
		if q.Targets, err = s.bad(ctx, was, j); err != nil {
			return Run{}, err
		}
	}
	if q.Targets, err = stillThere(was, j, q.Targets); err != nil {
		return Run{}, err
	}
	r, err := s.trigger(ctx, was.Job, q)
	return NewRun(r), err
}

// trigger starts a run of a job.
func (s *Server) trigger(ctx context.Context, job string, q loom.Request) (loom.Run, error) {
	noted(ctx, ledger.Verb(loom.Run{Plan: q.Plan}), job, q.Why)
	r, err := s.Control.Trigger(ctx, job, q)
	if err == nil && q.Key != "" {
		err = s.sameOrder(ctx, r, q)
	}
	return r, err
}

// bad returns the nodes on which a run did not end well, or was not begun.
func (s *Server) bad(ctx context.Context, was loom.Run, j *loom.Job) ([]string, error) {
	results, err := s.Store.Results(ctx, loom.ResultQuery{Runs: []string{was.ID}})
	if err != nil {
		return nil, err
	}
	left := was.Targets
	if left == nil {
		left = nodeNames(j.Targets)
	}
	well := map[string]bool{}
	for _, r := range results {
		well[r.Node] = r.Status.Good()
		if !well[r.Node] && !slices.Contains(left, r.Node) {
			left = append(slices.Clip(left), r.Node)
		}
	}
	left = slices.DeleteFunc(slices.Clone(left), func(node string) bool { return well[node] })
	if len(left) == 0 {
		return nil, invalid(fmt.Sprintf("run %s ended well on all nodes: there is nothing to do again", was.ID))
	}
	return left, nil
}

// stillThere returns which of these nodes the job still targets; nil is all.
func stillThere(was loom.Run, j *loom.Job, nodes []string) ([]string, error) {
	if nodes == nil {
		return nil, nil
	}
	there := nodeNames(j.Targets)
	left := slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return !slices.Contains(there, node) })
	if len(left) == 0 {
		return nil, fmt.Errorf("job %q has none of the nodes of run %s any more: %w", j.Name, was.ID, loom.ErrNotFound)
	}
	return left, nil
}

// asked returns what those said who may have asked for a run: for what.
func (s *Server) asked(ctx context.Context, r loom.Run) ([]string, error) {
	q := loom.ActionQuery{Object: r.Job}
	const far = 10 // pages
	var all []string
	for range far {
		found, err := s.Store.Actions(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, a := range found {
			if a.Verb == ledger.Verb(r) && a.By == r.By && a.Time.Equal(r.Queued) {
				all = append(all, a.Why)
			}
			q.Before = a.ID
		}
		if len(found) < 100 || found[len(found)-1].Time.Before(r.Queued) {
			break
		}
	}
	return all, nil
}

// sameOrder returns the problem that a key has started a run that was asked for in
// another way. What was said of it may not be kept any more.
func (s *Server) sameOrder(ctx context.Context, r loom.Run, q loom.Request) error {
	said, err := s.asked(ctx, r)
	if err != nil {
		return err
	}
	same := slices.Equal(r.Targets, q.Targets) && r.Plan == q.Plan && r.Max == q.Max && (r.Timeout-q.Timeout).Abs() < time.Millisecond
	if same && (len(said) == 0 || slices.Contains(said, q.Why)) {
		return nil
	}
	return &Problem{Type: "urn:loom:key-used", Title: "The key was used for something else", Status: http.StatusUnprocessableEntity,
		Detail: fmt.Sprintf("the Idempotency-Key %q has started run %s, which was asked for in another way: nothing was started now. Choose a new key for each order", q.Key, r.ID)}
}
