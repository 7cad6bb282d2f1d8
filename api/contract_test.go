package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// A contract is what the document says that the server answers.
type contract struct {
	doc *v3.Document
	mu  sync.Mutex // of what follows
	v   validator.Validator
	in  schema_validation.SchemaValidator
}

// theContract is read once, from a server that has all there can be.
var theContract = sync.OnceValues(func() (*contract, error) {
	text, err := documentOf(&api.Server{Store: &memory.Store{}, Feed: &api.Feed{}, Metrics: &api.Metrics{}})
	if err != nil {
		return nil, err
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if ok, wrong := v.ValidateDocument(); !ok {
		return nil, fmt.Errorf("the document is not as OpenAPI wants it: %v", wrong)
	}
	return &contract{doc: &model.Model, v: v, in: schema_validation.NewSchemaValidator()}, nil
})

// documentOf asks a server for its document.
func documentOf(s *api.Server) ([]byte, error) {
	w := &written{header: http.Header{}}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/openapi.json", nil)
	if err != nil {
		return nil, err
	}
	s.Routes().ServeHTTP(w, r)
	return w.text.Bytes(), nil
}

func held(t *testing.T) *contract {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A written answer is kept, beside being sent if there is somebody to send it to.
type written struct {
	to     http.ResponseWriter
	header http.Header
	status int
	text   bytes.Buffer
}

func (w *written) Unwrap() http.ResponseWriter { return w.to }

func (w *written) Header() http.Header {
	if w.to != nil {
		return w.to.Header()
	}
	return w.header
}

func (w *written) WriteHeader(status int) {
	if w.status == 0 {
		w.status, w.header = status, w.Header().Clone()
	}
	if w.to != nil {
		w.to.WriteHeader(status)
	}
}

func (w *written) Write(text []byte) (int, error) {
	if w.status == 0 {
		w.status, w.header = http.StatusOK, w.Header().Clone()
	}
	w.text.Write(text)
	if w.to != nil {
		return w.to.Write(text)
	}
	return len(text), nil
}

// check has each answer of a server held against the document.
func (c *contract) check(t *testing.T) func(http.Handler) http.Handler {
	t.Helper()
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			kept := &written{to: w}
			next.ServeHTTP(kept, r)
			if err := c.holds(r, kept); err != nil {
				t.Errorf("%s %s: the answer is not as the document says: %v\n%.2000s", r.Method, r.URL, err, kept.text.String())
			}
		})
	}
}

// holds returns what is wrong with an answer.
func (c *contract) holds(r *http.Request, w *written) error {
	path := c.path(r)
	if path == "" {
		return nil // it is not in the document
	}
	kind := w.header.Get("Content-Type")
	if strings.HasPrefix(kind, "text/event-stream") {
		return c.events(c.doc.Paths.PathItems.GetOrZero(path).Get, w.text.String())
	}
	if w.status >= 300 && w.status != http.StatusNotModified && kind != "application/problem+json" {
		return fmt.Errorf("status %d and %s, which is no problem", w.status, kind)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(bytes.NewReader(w.text.Bytes()))}
	_, wrong := c.v.GetResponseBodyValidator().ValidateResponseBody(r, answer)
	var all []error
	for _, e := range wrong {
		all = append(all, e)
		for _, s := range e.SchemaValidationErrors {
			all = append(all, s)
		}
	}
	return errors.Join(all...)
}

// path returns the path of the document that a request is for, or "".
func (c *contract) path(r *http.Request) string {
	for path, item := range c.doc.Paths.PathItems.FromOldest() {
		if item.GetOperations().GetOrZero(strings.ToLower(r.Method)) != nil && fits(path, r.URL.EscapedPath()) {
			return path
		}
	}
	return ""
}

// fits reports whether a path is one of those that a pattern stands for.
func fits(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && !strings.HasPrefix(want[i], "{") {
			return false
		}
	}
	return true
}

// events returns what is wrong with a stream: each of its data must be of a type
// that the document names for it.
func (c *contract) events(op *v3.Operation, text string) error {
	var types []string
	if err := op.Extensions.GetOrZero("x-loom-events").Decode(&types); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for message := range strings.SplitSeq(text, "\n\n") {
		_, data, ok := strings.Cut("\n"+message, "\ndata: ")
		if !ok || !strings.HasSuffix(text, "\n\n") {
			continue
		}
		if !slices.ContainsFunc(types, func(name string) bool {
			ok, _ := c.in.ValidateSchemaString(c.doc.Components.Schemas.GetOrZero(name).Schema(), data)
			return ok
		}) {
			return fmt.Errorf("%s is none of %v", data, types)
		}
	}
	return nil
}

// An obliging daemon does all that it is asked for.
type obliging struct {
	*daemon
	tasks loom.Registry
}

func (d *obliging) Exec(_ context.Context, e api.Exec, q loom.Request) (loom.Run, error) {
	return loom.Run{ID: "r9", Job: "exec", By: q.By, Targets: e.Targets, Status: loom.StatusQueued, Trigger: loom.TriggerManual}, nil
}

func (d *obliging) Ping(_ context.Context, n *loom.Node) api.Ping {
	return api.Ping{Node: n.Name, At: time.Now().UTC(), OK: true, RTT: 0.2, User: "ann", OS: "Debian"}
}

func (d *obliging) HostKeys(context.Context, *loom.Node) ([]loom.HostKey, error) {
	return []loom.HostKey{{Type: "ssh-ed25519", Fingerprint: "SHA256:x"}}, nil
}

func (d *obliging) Trust(ctx context.Context, n *loom.Node, _ []string) ([]loom.HostKey, error) {
	return d.HostKeys(ctx, n)
}

func (d *obliging) Tasks() *loom.Registry { return &d.tasks }

// A greet is a task with a parameter.
type greet struct {
	Whom string `help:"who is greeted"`
}

func (greet) Apply(context.Context, *loom.Session) error { return nil }

// whole returns a server of which every operation can succeed, and for it the
// parameters of paths and queries, and bodies by operation.
func whole(t *testing.T) (c *api.Client, params url.Values, bodies map[string]any) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ctx := t.Context()
	if err := store.Adopt(ctx, map[string]string{"j": ""}); err != nil {
		t.Fatal(err)
	}
	fired, err := store.Fire(ctx, "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r1", Targets: []string{"n"}, Nodes: 1}, Claim: true},
		{Job: "j", Run: loom.Run{ID: "r2"}, Claim: true, Overlap: loom.OverlapAllow}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	result := &loom.Result{Node: "n", Status: loom.StatusFailed, Reason: "why", Attempts: 2, Started: now, Ended: now}
	err = store.Finish(ctx, fired[0].Claim, loom.Run{Status: loom.StatusFailed, Ended: now}, []loom.Event{
		{Kind: loom.KindNodeStarted, Node: "n", Time: now},
		{Kind: loom.KindOutput, Node: "n", Stream: loom.Stdout, Text: "a line \xff", Time: now},
		{Kind: loom.KindRetry, Node: "n", Time: now, Result: result},
		{Kind: loom.KindNodeEnded, Node: "n", Time: now, Result: result}})
	if err != nil {
		t.Fatal(err)
	}
	d := &obliging{daemon: &daemon{}}
	d.tasks.Add("greet", greet{})
	dir := t.TempDir()
	for name, text := range map[string]string{
		"loom.yaml":      "nodesfile: nodes.yaml\njobspath: jobs\n",
		"nodes.yaml":     "n: {ip: 127.0.0.1, user: ann, groups: [g], vars: {a: [1, {b: x}]}}\nm: {transport: local}\n",
		"jobs/jobs.yaml": "jobs:\n  j: {task: greet, targets: [n, m], schedule: '0 3 * * *', owner: ann, retries: 1, kwargs: {whom: you}}\n",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if d.manifest, err = loom.ReadManifest(filepath.Join(dir, "loom.yaml"), &d.tasks); err != nil {
		t.Fatal(err)
	}
	tokens, err := api.OpenTokens(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tokens.Create("old", api.RoleViewer, now.Add(time.Hour), "me"); err != nil {
		t.Fatal(err)
	}
	c, _ = serve(t, &api.Server{Tokens: tokens, Store: store, Control: d, Feed: &api.Feed{}, Metrics: &api.Metrics{}, Notifications: heralds{}})
	params = url.Values{"name": {"j"}, "job": {"j"}, "run": {"r1"}, "node": {"n"}, "token": {"old"}, "task": {"greet"}, "target": {"ops"},
		"from": {now.Add(-time.Hour).UTC().Format(time.RFC3339)}}
	bodies = map[string]any{
		"act":     map[string]any{"verb": "pause", "object": "j"},
		"run-job": map[string]any{"why": "to see", "timeout_seconds": 1.5, "max": 2, "plan": true}, "cancel-run": map[string]any{"why": "enough"},
		"pause-job": map[string]any{"why": "moving"}, "retry-run": map[string]any{"failed": true}, "trust-host-keys": map[string]any{},
		"exec":         map[string]any{"targets": []string{"@g"}, "command": "true", "max": 1},
		"create-token": map[string]any{"name": "new", "role": "viewer"},
		"backup":       map[string]any{"file": filepath.Join(t.TempDir(), "copy.db")},
	}
	return c, params, bodies
}

// heralds are one target that is told what happens.
type heralds struct{}

func (heralds) NotifyTargets() []api.NotifyTarget {
	return []api.NotifyTarget{{Name: "ops", Kind: "email", To: "ops@example.org", On: []string{"failed"}, Pending: 1, Error: "no answer",
		Lost: []api.LostNews{{ID: "failed-1", Title: "a failed", Error: "given up"}}}}
}

func (heralds) NotifyTest(_ context.Context, name, _ string) (api.NotifyTest, error) {
	if name != "ops" {
		return api.NotifyTest{}, loom.ErrNotFound
	}
	return api.NotifyTest{Name: name, Kind: "email", To: "ops@example.org", Error: "no answer"}, nil
}

// Every operation of the document is answered as it says, whether it goes well or
// not. What else the tests of this package ask for is held against it too.
func TestContract(t *testing.T) {
	held := held(t)
	c, params, bodies := whole(t)
	for path, item := range held.doc.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			t.Run(op.OperationId, func(t *testing.T) {
				where, query := path, url.Values{}
				for _, p := range op.Parameters {
					if p.In == "path" {
						value := params.Get(p.Name)
						if p.Name == "run" && strings.HasSuffix(path, "/cancel") {
							value = "r2"
						}
						if value == "" {
							t.Fatalf("the path has {%s}: give it a value in whole", p.Name)
						}
						where = strings.ReplaceAll(where, "{"+p.Name+"}", url.PathEscape(value))
					} else if p.Required != nil && *p.Required {
						query[p.Name] = params[p.Name]
					}
				}
				if strings.HasSuffix(path, "/events") {
					return // it has no end: TestEventsFilter reads it
				}
				send := func(query url.Values) (int, string) {
					body := ""
					if op.RequestBody != nil {
						text, err := json.Marshal(bodies[op.OperationId])
						if err != nil {
							t.Fatal(err)
						}
						body = string(text)
					}
					status, _, text := askJSON(t, c, strings.ToUpper(method), where+"?"+query.Encode(), body)
					return status, text
				}
				if strings.HasPrefix(path, api.Prefix) {
					nonsense := maps.Clone(query)
					nonsense["nonsense"] = []string{"1"}
					if status, text := send(nonsense); status < 400 {
						t.Errorf("a parameter that makes no sense is taken: %d %s", status, text)
					}
				}
				if status, text := send(query); status >= 300 {
					t.Errorf("%d %s: give what it needs in whole", status, text)
				}
			})
		}
	}
}

// askJSON is ask for a body of JSON.
func askJSON(t *testing.T, c *api.Client, method, path, body string) (int, string, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://loomd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := wire(t, c).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(text)
}

// An answer that is not as the document says is found.
func TestContractIsHeld(t *testing.T) {
	c := held(t)
	for name, tt := range map[string]struct {
		path, kind, text string
		status           int
	}{
		"a list without items":         {"/api/v1/runs", "application/json", `{}`, 200},
		"a property that is unknown":   {"/api/v1/runs", "application/json", `{"items":[],"more":1}`, 200},
		"a number for a text":          {"/api/v1/runs", "application/json", `{"items":[],"next":1}`, 200},
		"another content type":         {"/api/v1/runs", "text/plain", `{"items":[]}`, 200},
		"a failure that is no problem": {"/api/v1/runs", "application/json", `{"items":[]}`, 404},
		"a problem of another form":    {"/api/v1/runs", "application/problem+json", `{"code":7}`, 404},
		"an event of another form":     {"/api/v1/events", "text/event-stream", "event: hello\ndata: {\"kid\":\"x\"}\n\n", 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://loomd"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		w := &written{header: http.Header{"Content-Type": {tt.kind}}, status: tt.status}
		w.text.WriteString(tt.text)
		if c.holds(r, w) == nil {
			t.Errorf("%s is let through", name)
		}
	}
}
