package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// A daemon is a Control of which tests say what it does.
type daemon struct {
	api.Control // what it does not do itself

	mu       sync.Mutex
	manifest *loom.Manifest
	status   api.Status
	orders   []order
	cancels  []string
	err      error
}

// An order is what Trigger was asked for.
type order struct {
	Job string
	loom.Request
}

func (d *daemon) Manifest() *loom.Manifest { return d.manifest }
func (d *daemon) Status() api.Status       { return d.status }

func (d *daemon) Trigger(_ context.Context, job string, q loom.Request) (loom.Run, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.orders = append(d.orders, order{job, q})
	return loom.Run{ID: "r1", Job: job, By: q.By, Targets: q.Targets, Timeout: q.Timeout, Max: q.Max, Plan: q.Plan, Status: loom.StatusQueued, Trigger: loom.TriggerManual}, d.err
}

func (d *daemon) Cancel(_ context.Context, run, why string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancels = append(d.cancels, run+" "+why)
	return d.err
}

func (d *daemon) Reload(context.Context) error { return d.err }

// A broken store fails at all that is asked of it here.
type broken struct {
	loom.Store
	err error
}

func (b broken) Runs(context.Context, loom.RunQuery) ([]loom.Run, error)  { return nil, b.err }
func (b broken) Jobs(context.Context, ...string) ([]loom.JobState, error) { return nil, b.err }
func (b broken) Act(context.Context, loom.Action) error                   { return b.err }
func (b broken) Take(context.Context, string) (*loom.Claim, error)        { return nil, b.err }
func (b broken) Backup(context.Context, string) error                     { return b.err }

// wire returns an HTTP client whose connections are to c's daemon.
func wire(t *testing.T, c *api.Client) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	}}
	return &http.Client{Transport: tr}
}

// ask sends a request and returns the answer's status, type and text.
func ask(t *testing.T, c *api.Client, method, path, body string) (int, string, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://loomd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
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

func TestErrorsSurvive(t *testing.T) {
	for _, tt := range []struct {
		name   string
		is     error
		status int
	}{
		{"not found", loom.ErrNotFound, 404},
		{"fenced", loom.ErrFenced, 409},
		{"busy", loom.ErrBusy, 409},
		{"shutdown", loom.ErrShutdown, 503},
		{"store down", loom.ErrStoreDown, 503},
		{"exists", fs.ErrExist, 409},
		{"denied", fs.ErrPermission, 403},
		{"unsupported", errors.ErrUnsupported, 501},
		{"any other", nil, 500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sentence := fmt.Errorf("store /x: something broke: mend %q", "it")
			if tt.is != nil {
				sentence = fmt.Errorf("store /x: %w: mend %q", tt.is, "it")
			}
			c, _ := serve(t, &api.Server{Store: broken{err: sentence}, Control: &daemon{err: sentence}})
			_, runs := c.Runs(t.Context(), loom.RunQuery{})
			_, take := c.Take(t.Context(), "me")
			_, trigger := c.Trigger(t.Context(), "j", loom.Request{})
			for name, err := range map[string]error{"Runs": runs, "Take": take, "Trigger": trigger,
				"Act": c.Act(t.Context(), loom.Action{Verb: "look"}), "Backup": c.Backup(t.Context(), "file")} {
				p, ok := errors.AsType[*api.Problem](err)
				if !ok || err.Error() != sentence.Error() || p.Status != tt.status {
					t.Errorf("%s: %#v, want status %d and %q", name, err, tt.status, sentence)
				}
				for _, known := range []error{loom.ErrNotFound, loom.ErrFenced, loom.ErrBusy, loom.ErrShutdown, loom.ErrStoreDown, fs.ErrExist, fs.ErrPermission, errors.ErrUnsupported} {
					if errors.Is(err, known) != (known == tt.is) { //nolint:errorlint // of a table
						t.Errorf("%s: errors.Is(%v, %v) = %v", name, err, known, known != tt.is) //nolint:errorlint // of a table
					}
				}
			}
		})
	}
}

func TestProblems(t *testing.T) {
	store := &memory.Store{}
	c, _ := serve(t, &api.Server{Store: store, Control: &daemon{}})
	for _, id := range []string{"aaa1", "aaa2"} {
		if _, err := store.Fire(t.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: id}, Overlap: loom.OverlapAllow}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/api/v1/runs/nothing", "", 404, "run nothing: not found"},
		{"GET", "/api/v1/runs/aaa", "", 422, "several runs begin so"},
		{"GET", "/api/v1/jobs/nobody", "", 404, `job \"nobody\": not found`},
		{"GET", "/api/v1/runs?jbo=x", "", 422, "query.jbo"},
		{"GET", "/api/v1/runs?limit=1001", "", 422, "query.limit"},
		{"GET", "/api/v1/runs?since=yesterday", "", 422, "query.since"},
		{"GET", "/api/v1/days", "", 422, "query.from"},
		{"POST", "/api/v1/actions", `{"verb":"pause","object":"nobody"}`, 404, "nobody"},
		{"POST", "/api/v1/actions", `{"verb":"pause","objet":"j"}`, 422, "body.objet"},
		{"POST", "/api/v1/actions", `{`, 400, ""},
		{"POST", "/api/v1/actions", strings.Repeat(" ", 1<<20+1), 413, "1048576 bytes"},
		{"POST", "/api/v1/backup", `{"file":"x.db"}`, 501, "can't be copied"},
		{"POST", "/api/v1/ledger/fire", `[`, 422, "fire: "},
		{"POST", "/api/v1/ledger/nothing", `{}`, 404, "/openapi.json"},
		{"PUT", "/api/v1/runs", ``, 405, "nothing answers PUT /api/v1/runs here, but GET"},
		{"DELETE", "/api/v1/jobs/j/pauses", ``, 404, "nothing answers DELETE"},
		{"PATCH", "/api/v1/jobs/j/pause", ``, 405, "but PUT, DELETE"},
		{"POST", "/healthz", ``, 405, "but GET"},
		{"GET", "/api/v1/runs?status=faild", "", 422, "query.status"},
		{"GET", "/api/v1/jobs/j/runs?trigger=hand", "", 422, "query.trigger"},
		{"GET", "/api/v1/jobs?status=broken", "", 422, "query.status"},
		{"GET", "/", "", 404, "/openapi.json"},
	} {
		status, kind, text := ask(t, c, tt.method, tt.path, tt.body)
		var p api.Problem
		if err := json.Unmarshal([]byte(text), &p); err != nil || kind != "application/problem+json" {
			t.Errorf("%s %s: %s %q is no problem: %v", tt.method, tt.path, kind, text, err)
			continue
		}
		if status != tt.status || p.Status != status || !strings.Contains(text, tt.want) {
			t.Errorf("%s %s: %d %s, want %d with %q", tt.method, tt.path, status, text, tt.status, tt.want)
		}
	}
}

func TestDocument(t *testing.T) {
	c, _ := serve(t, &api.Server{Store: &memory.Store{}, Version: "1.2.3"})
	_, _, text := ask(t, c, "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Info    struct{ Version string }
		Paths   map[string]map[string]struct {
			Summary, Description, OperationID string
			Tags                              []string
			Parameters                        []struct{ Name, Description string }
			Responses                         map[string]any
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Info.Version != "1.2.3" {
		t.Errorf("openapi %q of version %q, want 3.1 of 1.2.3", doc.OpenAPI, doc.Info.Version)
	}
	for name, schema := range doc.Components.Schemas {
		for property, p := range schema.Properties {
			if p["description"] == nil && p["$ref"] == nil {
				t.Errorf("type %s: %s is not described", name, property)
			}
		}
	}
	ids := map[string]bool{}
	for path, item := range doc.Paths {
		if !strings.HasPrefix(path, "/api/v1/") && !strings.HasSuffix(path, "z") && path != "/metrics" || strings.Contains(path, "ledger") {
			t.Errorf("path %s is in the document", path)
		}
		for method, op := range item {
			if op.Summary == "" || len(op.Tags) == 0 || op.OperationID == "" || ids[op.OperationID] || len(op.Responses) == 0 {
				t.Errorf("%s %s: %+v: want a summary, tags, responses and an ID of its own", method, path, op)
			}
			ids[op.OperationID] = true
			if op.Description == "" {
				t.Errorf("%s %s: it is not described", method, path)
			}
			for _, p := range op.Parameters {
				if p.Description == "" {
					t.Errorf("%s %s: its parameter %s is not described", method, path, p.Name)
				}
			}
		}
	}
	if len(ids) < 15 {
		t.Errorf("the document has %d operations: %v", len(ids), ids)
	}
}

func TestNoDaemon(t *testing.T) {
	dir := shortDir(t)
	socket := filepath.Join(dir, api.SocketFile)
	c := &api.Client{Socket: socket}
	want := func(what string) {
		t.Helper()
		_, err := c.Status(t.Context())
		if !errors.Is(err, api.ErrNoDaemon) || !errors.Is(err, loom.ErrStoreDown) || !strings.Contains(err.Error(), socket) ||
			!strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "loomd -c") {
			t.Errorf("Status = %v, want ErrNoDaemon and %q", err, what)
		}
	}
	want("no daemon runs with this state directory")
	leave(t, socket)
	want("is gone")
	c = &api.Client{Socket: strings.Repeat("x", 200)}
	if _, err := c.Status(t.Context()); !errors.Is(err, api.ErrNoDaemon) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Status = %v", err)
	}
}

// leave leaves a socket behind, as a daemon does that is killed.
func leave(t *testing.T, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListen(t *testing.T) {
	dir := shortDir(t)
	socket := filepath.Join(dir, api.SocketFile)
	leave(t, socket)
	l, err := api.Listen(t.Context(), dir)
	if err != nil {
		t.Fatalf("over a socket that was left behind: %v", err)
	}
	if info, err := os.Lstat(socket); err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("the socket is %v, %v, want mode 0660", info.Mode(), err)
	}
	if _, err := api.Listen(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another daemon listens there") {
		t.Errorf("Listen where somebody does: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the listener was closed: %v", err)
	}
	if err := os.WriteFile(socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("Listen where a file is: %v", err)
	}
	if text, _ := os.ReadFile(socket); string(text) != "mine" {
		t.Error("a file that is no socket was removed")
	}
	if _, err := api.Listen(t.Context(), filepath.Join(dir, strings.Repeat("x", 90))); err == nil || !strings.Contains(err.Error(), "shorter name") {
		t.Errorf("Listen at a long name: %v", err)
	}
	if _, err := api.Listen(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Listen in no directory: %v", err)
	}
}

func TestOrders(t *testing.T) {
	store, d := &memory.Store{}, &daemon{}
	c, _ := serve(t, &api.Server{Store: store, Control: d})
	ctx, me := t.Context(), whoami(t)
	odd := `a/b "c" ☃ ..%2F`
	r, err := c.Trigger(ctx, odd, loom.Request{By: "somebody else", Why: "to see", Targets: []string{"n1"}, Key: "k"})
	if err != nil || r.ID != "r1" || r.Job != odd || r.By != me {
		t.Errorf("Trigger = %+v, %v", r, err)
	}
	_, _ = c.Trigger(ctx, "j", loom.Request{})
	if status, _, text := ask(t, c, "POST", "/api/v1/jobs/j/runs", ""); status != 200 {
		t.Errorf("a trigger without a body: %d %s", status, text)
	}
	asked := loom.Request{Timeout: 1500 * time.Millisecond, Max: 2, Plan: true}
	if r, err := c.Trigger(ctx, "j", asked); err != nil || r.Timeout != asked.Timeout || r.Max != 2 || !r.Plan {
		t.Errorf("Trigger = %+v, %v", r, err)
	}
	for want, q := range map[string]loom.Request{"expected number >= 1 (body.max)": {Max: -1}, "expected number >= 0 (body.timeout_seconds)": {Timeout: -time.Second}} {
		if _, err := c.Trigger(ctx, "j", q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Trigger(%+v) = %v, want %q", q, err, want)
		}
	}
	asked.By = me
	want := []order{{odd, loom.Request{By: me, Why: "to see", Targets: []string{"n1"}, Key: "k"}},
		{"j", loom.Request{By: me}}, {"j", loom.Request{By: me}}, {"j", asked}}
	if fmt.Sprintf("%#v", d.orders) != fmt.Sprintf("%#v", want) {
		t.Errorf("orders:\n got %#v\nwant %#v", d.orders, want)
	}

	if err := store.Adopt(ctx, map[string]string{"j": ""}); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	if err := c.Act(ctx, loom.Action{Verb: loom.VerbPause, Object: "j", Why: "moving", Until: until}); err != nil {
		t.Fatal(err)
	}
	if jobs, err := c.Jobs(ctx, "j"); err != nil || jobs[0].Pause == nil || jobs[0].Pause.By != me || !jobs[0].Pause.Until.Equal(until) {
		t.Errorf("the paused job: %+v, %v", jobs, err)
	}
	fired, err := store.Fire(ctx, "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r2", Trigger: loom.TriggerManual}, Claim: true}})
	if err != nil || fired[0].Claim.Epoch == 0 {
		t.Fatal(fired, err)
	}
	if err := c.Cancel(ctx, "r2", "wrong node"); err != nil {
		t.Fatal(err)
	}
	if p, _ := store.Beat(ctx, loom.Instance{ID: "x"}); !strings.Contains(p.Cancel["r2"], me) || !strings.Contains(p.Cancel["r2"], "wrong node") {
		t.Errorf("the store says that runs shall end: %q", p.Cancel)
	}
	if err := c.Cancel(ctx, "r3", ""); !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("cancel of no run: %v", err)
	}
	if got := []string{"r2 cancelled by " + me + ": wrong node"}; !slices.Equal(d.cancels, got) {
		t.Errorf("the daemon ended %q, want %q", d.cancels, got)
	}
	if err := c.Reload(ctx); err != nil {
		t.Error(err)
	}
	d.err = errors.Join(errors.New("a.yaml:1:2: bad"), errors.New("b.yaml:3:4: worse"))
	if err := c.Reload(ctx); err == nil || err.Error() != d.err.Error() {
		t.Errorf("Reload of broken files: %v", err)
	}
}

func TestCancelWhileStoreIsDown(t *testing.T) {
	d := &daemon{}
	c, _ := serve(t, &api.Server{Store: broken{err: fmt.Errorf("%w: disk full", loom.ErrStoreDown)}, Control: d})
	if err := c.Cancel(t.Context(), "r", ""); err != nil {
		t.Errorf("of a run that this daemon works on: %v", err)
	}
	d.err = loom.ErrNotFound
	if err := c.Cancel(t.Context(), "r", ""); !errors.Is(err, loom.ErrStoreDown) {
		t.Errorf("of another: %v", err)
	}
}

func TestAlone(t *testing.T) {
	c, _ := serve(t, &api.Server{Store: &memory.Store{}})
	if _, err := c.Trigger(t.Context(), "j", loom.Request{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Trigger: %v", err)
	}
	if err := c.Reload(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Reload: %v", err)
	}
	if st, err := c.Status(t.Context()); err != nil || st.Store.State != api.StoreOK {
		t.Errorf("Status = %+v, %v", st, err)
	}
}

func TestBackup(t *testing.T) {
	store := openSQLite(t, t.TempDir())
	defer store.Close()
	c, _ := serve(t, &api.Server{Store: store})
	if err := store.Adopt(t.Context(), map[string]string{"j": ""}); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := c.Backup(t.Context(), "loom.db"); err != nil { // relative to the client's directory
		t.Fatal(err)
	}
	if err := c.Backup(t.Context(), "loom.db"); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "name another file") {
		t.Errorf("to a file that exists: %v", err)
	}
	if status, _, text := ask(t, c, "POST", "/api/v1/backup", `{"file":"x.db"}`); status != 422 || !strings.Contains(text, "absolute") {
		t.Errorf("to a relative name: %d %s", status, text)
	}
	copied := openSQLite(t, ".")
	defer copied.Close()
	if jobs, err := copied.Jobs(t.Context()); err != nil || len(jobs) != 1 {
		t.Errorf("the copy has the jobs %+v, %v", jobs, err)
	}
}

func TestFollow(t *testing.T) {
	store := &memory.Store{}
	c, stop := serve(t, &api.Server{Store: store})
	ctx := t.Context()
	fired, err := store.Fire(ctx, "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "run1"}, Claim: true}})
	if err != nil {
		t.Fatal(err)
	}
	claim := fired[0].Claim
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range 3 {
			<-time.After(20 * time.Millisecond)
			if err := c.Record(ctx, claim, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Stream: loom.Stdout, Text: fmt.Sprint(i)}}); err != nil {
				t.Error(err)
			}
		}
		if err := c.Finish(ctx, claim, loom.Run{Status: loom.StatusOK}, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Stream: loom.Stdout, Text: "last"}}); err != nil {
			t.Error(err)
		}
	})
	var got []string
	for q := (loom.OutputQuery{Run: "run1", Limit: 1}); ; {
		chunks, ended, err := c.Follow(ctx, q, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, chunk := range chunks {
			got, q.After = append(got, chunk.Lines[0].Text), chunk.Cursor
		}
		if ended {
			break
		}
	}
	if want := []string{"0", "1", "2", "last"}; !slices.Equal(got, want) {
		t.Errorf("followed %q, want %q", got, want)
	}
	if _, _, err := c.Follow(ctx, loom.OutputQuery{Run: "nothing"}, time.Minute); !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("Follow of no run: %v", err)
	}

	wg.Wait()
	if _, err := store.Fire(ctx, "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "run2"}, Claim: true}}); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, ended, err := c.Follow(ctx, loom.OutputQuery{Run: "run2"}, time.Minute)
		if ended {
			err = errors.New("it says that the run has ended")
		}
		waiting <- err
	}()
	asked, cancel := context.WithCancelCause(ctx)
	why := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, _, err := c.Follow(asked, loom.OutputQuery{Run: "run2"}, time.Minute); !errors.Is(err, why) {
		t.Errorf("Follow until its context ended: %v", err)
	}
	stop() // does not wait for those who wait
	if err := <-waiting; err != nil {
		t.Errorf("Follow while the server stops: %v", err)
	}
}

func TestStatus(t *testing.T) {
	store := &memory.Store{}
	started := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	d := &daemon{
		manifest: &loom.Manifest{File: "/etc/loom.yaml", Nodes: []*loom.Node{{Name: "n1"}},
			Jobs:     []*loom.Job{{Name: "bad", Owner: "kim", Runbook: "https://example.com"}, {Name: "good"}},
			Problems: []*loom.ManifestError{{File: "jobs/a.yaml", Line: 3, Col: 5, Err: errors.New("unknown key")}},
			Warnings: []*loom.ManifestError{{File: "jobs/a.yaml"}, {File: "jobs/b.yaml"}}},
		status: api.Status{Started: started, StateDir: "/var/lib/loom", Store: api.StoreStatus{Kind: "memory"},
			Next: []api.NextTick{{Job: "good", Time: started.Add(2 * time.Hour)}}},
	}
	ctx := t.Context()
	if err := store.Adopt(ctx, map[string]string{"bad": "", "good": "", "cancelled": "", "paused": ""}); err != nil {
		t.Fatal(err)
	}
	n := 0
	start := func(job string) loom.Claim {
		t.Helper()
		n++
		fired, err := store.Fire(ctx, "x", []loom.Firing{{Job: job, Run: loom.Run{ID: fmt.Sprintf("run%d", n), Trigger: loom.TriggerManual, Nodes: 2}, Overlap: loom.OverlapAllow, Claim: true}})
		if err != nil {
			t.Fatal(err)
		}
		return fired[0].Claim
	}
	end := func(job string, status loom.Status) time.Time {
		t.Helper()
		c := start(job)
		at := started.Add(time.Duration(n) * time.Minute)
		why := &loom.Result{Status: status, ExitCode: 3, Reason: "exit status 3", Started: at, Ended: at}
		if err := store.Finish(ctx, c, loom.Run{Status: status, Ended: at}, []loom.Event{{Kind: loom.KindNodeEnded, Node: "n7", Result: why}}); err != nil {
			t.Fatal(err)
		}
		return at
	}
	end("bad", loom.StatusOK)
	since := end("bad", loom.StatusFailed)
	end("bad", loom.StatusCancelled)
	end("bad", loom.StatusLost)
	end("good", loom.StatusFailed)
	end("good", loom.StatusChanged)
	end("cancelled", loom.StatusCancelled)
	going := start("bad") // run8
	if err := store.Record(ctx, going, []loom.Event{{Kind: loom.KindNodeStarted, Node: "n1", Time: started}, {Kind: loom.KindNodeStarted, Node: "n2", Time: started},
		{Kind: loom.KindNodeEnded, Node: "n2", Result: &loom.Result{Status: loom.StatusOK, Started: started, Ended: started}}}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []loom.Action{{Verb: loom.VerbPause, Object: "paused", By: "kim", Why: "moving"},
		{Verb: loom.VerbPause, Object: "good", Until: started}} { // that one is over
		if err := store.Act(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	c, _ := serve(t, &api.Server{Store: store, Control: d, Version: "1.2.3"})
	st, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.Version != "1.2.3" || st.PID != os.Getpid() || !st.Started.Equal(started) || st.ConfigFile != "/etc/loom.yaml" || st.StateDir != "/var/lib/loom" ||
		st.Jobs != 2 || st.Nodes != 1 || st.Warnings != 2 || len(st.Next) != 1 || !slices.Equal(st.Problems, []string{"jobs/a.yaml:3:5: unknown key"}) ||
		st.Store != (api.StoreStatus{Kind: "memory", State: "ok"}) || st.Queued != 0 || st.More {
		t.Errorf("Status = %+v", st)
	}
	if len(st.Running) != 1 || st.Running[0].ID != "run8" || !slices.Equal(st.Running[0].Going, []string{"n1"}) || st.Running[0].Counts[loom.StatusOK] != 1 {
		t.Errorf("running: %+v", st.Running)
	}
	want := api.FailingJob{Job: "bad", Since: since.UTC(), Runs: 2, Run: "run4", Status: loom.StatusLost, Reason: "n7: exit status 3", Owner: "kim", Runbook: "https://example.com"}
	if len(st.Failing) != 1 || st.Failing[0] != want {
		t.Errorf("failing: %+v\n   want %+v", st.Failing, want)
	}
	if len(st.Paused) != 1 || st.Paused[0].Job != "paused" || st.Paused[0].By != "kim" || st.Paused[0].Why != "moving" {
		t.Errorf("paused: %+v", st.Paused)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, _, text := ask(t, c, "GET", path, ""); status != 200 || text != "ok\n" {
			t.Errorf("%s: %d %q", path, status, text)
		}
	}
}

func TestStatusWhileStoreIsDown(t *testing.T) {
	d := &daemon{}
	full := fmt.Errorf("%w: /var/lib/loom/loom.db: the disk is full", loom.ErrStoreDown)
	c, _ := serve(t, &api.Server{Store: broken{err: full}, Control: d})
	st, err := c.Status(t.Context())
	if err != nil || st.Store.State != api.StoreDown || st.Store.Reason != full.Error() || st.Store.Since.IsZero() {
		t.Fatalf("Status = %+v, %v", st, err)
	}
	<-time.After(3 * time.Millisecond) // times are kept to the millisecond
	if again, err := c.Status(t.Context()); err != nil || again.Store != st.Store {
		t.Errorf("a second Status has %+v, %v, want %+v", again.Store, err, st.Store)
	}
	ready := func(want int) {
		t.Helper()
		if status, _, text := ask(t, c, "GET", "/readyz", ""); status != want {
			t.Errorf("/readyz: %d %s, want %d", status, text, want)
		}
		if status, _, text := ask(t, c, "GET", "/healthz", ""); status != 200 {
			t.Errorf("/healthz: %d %s", status, text)
		}
	}
	ready(503)

	// What is written fails, what is read does not: the daemon knows.
	d2 := &daemon{status: api.Status{Store: api.StoreStatus{Kind: "sqlite", State: api.StoreDown, Reason: "no space", Since: time.Unix(1, 0).UTC()}}}
	c, _ = serve(t, &api.Server{Store: &memory.Store{}, Control: d2})
	if st, err := c.Status(t.Context()); err != nil || st.Store != d2.status.Store {
		t.Errorf("Status = %+v, %v", st.Store, err)
	}
	ready(503)
	d3 := &daemon{status: api.Status{Stopping: true}}
	c, _ = serve(t, &api.Server{Store: &memory.Store{}, Control: d3})
	ready(503)
}

// whoami is the name of the user who runs the test.
func whoami(t *testing.T) string {
	t.Helper()
	store := &memory.Store{}
	c, stop := serve(t, &api.Server{Store: store})
	defer stop()
	if err := c.Act(t.Context(), loom.Action{Verb: "look"}); err != nil {
		t.Fatal(err)
	}
	did, err := store.Actions(t.Context(), loom.ActionQuery{})
	if err != nil || len(did) != 1 || did[0].By == "" {
		t.Fatal(did, err)
	}
	return did[0].By
}

func TestPanic(t *testing.T) {
	c, _ := serve(t, &api.Server{Store: broken{}, Log: slog.New(slog.DiscardHandler)}) // has no store behind it
	_, err := c.Ticks(t.Context(), loom.TickQuery{Job: "j"})
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != 500 || !strings.Contains(p.Detail, "its log says more") {
		t.Errorf("a request that panics: %v", err)
	}
	if _, err := c.Runs(t.Context(), loom.RunQuery{}); err != nil {
		t.Errorf("the one after: %v", err)
	}
}

// A daemon that is started anew is found again, by a client that was connected to
// the one before.
func TestRestart(t *testing.T) {
	dir := shortDir(t)
	c := &api.Client{Socket: filepath.Join(dir, api.SocketFile)}
	defer c.Close()
	for i := range 5 {
		l, err := api.Listen(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		stop := serveAt(t, &api.Server{Store: &memory.Store{}}, l)
		if err := c.Adopt(t.Context(), map[string]string{"j": ""}); err != nil {
			t.Errorf("at start %d: %v", i, err)
		}
		stop()
		if _, err := c.Runs(t.Context(), loom.RunQuery{}); !errors.Is(err, api.ErrNoDaemon) {
			t.Errorf("after it stopped: %v", err)
		}
	}
}

// An older daemon does not know a newer program's requests.
func TestOlderDaemon(t *testing.T) {
	dir := shortDir(t)
	l, err := api.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 2)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for answer := range answers {
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	})
	c := &api.Client{Socket: filepath.Join(dir, api.SocketFile)}
	for answer, want := range map[string]string{
		"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nnone": "the daemon is older than this program",
		"HTTP/1.1 502 Bad\r\nConnection: close\r\n\r\nnone":       "the daemon answered 502 Bad: none",
		"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{":          "broke off",
		"": "broke off",
	} {
		answers <- answer
		if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answered %q: %v, want %q", answer, err, want)
		}
	}
	close(answers)
}

// Whoever asks for more than fits one answer gets all of it.
func TestPages(t *testing.T) {
	store := &memory.Store{}
	c, _ := serve(t, &api.Server{Store: store})
	ctx := t.Context()
	const n = 2300 // pages have 1000, or 100 chunks
	due := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	var after time.Time
	var firings []loom.Firing
	for i := range n {
		firings = append(firings, loom.Firing{Job: "j", After: after, Due: due, Run: loom.Run{ID: fmt.Sprintf("run%04d", i), Trigger: loom.TriggerSchedule}, Overlap: loom.OverlapAllow, Claim: i == 0})
		after, due = due, due.Add(time.Millisecond)
		if err := store.Act(ctx, loom.Action{Verb: "look"}); err != nil {
			t.Fatal(err)
		}
	}
	fired, err := c.Fire(ctx, "x", firings)
	if err != nil {
		t.Fatal(err)
	}
	for range 250 {
		if err := store.Record(ctx, fired[0].Claim, []loom.Event{{Kind: loom.KindOutput, Node: "n", Stream: loom.Stdout, Text: "x"}}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(what string, want int, seen map[string]bool, err error) {
		t.Helper()
		if err != nil || len(seen) != want {
			t.Errorf("%d different %s, %v, want %d", len(seen), what, err, want)
		}
	}
	for limit, want := range map[int]int{0: 100, 7: 7, 1000: 1000, 2100: 2100, 5000: n} {
		runs, err := c.Runs(ctx, loom.RunQuery{Limit: limit})
		count("runs", want, set(runs, func(r loom.Run) string { return r.ID }), err)
		ticks, err := c.Ticks(ctx, loom.TickQuery{Job: "j", Limit: limit})
		count("ticks", want, set(ticks, func(k loom.Tick) string { return k.Run }), err)
		actions, err := c.Actions(ctx, loom.ActionQuery{Limit: limit})
		count("actions", want, set(actions, func(a loom.Action) string { return fmt.Sprint(a.ID) }), err)
		chunks, err := c.Output(ctx, loom.OutputQuery{Run: "run0000", Limit: limit})
		count("chunks", min(want, 250), set(chunks, func(k loom.Chunk) string { return fmt.Sprint(k.Cursor) }), err)
	}
}

func set[T any](all []T, name func(T) string) map[string]bool {
	names := map[string]bool{}
	for _, v := range all {
		names[name(v)] = true
	}
	return names
}

// A page of jobs has as many as there is room for their last runs, and the next goes
// on behind it.
func TestJobPages(t *testing.T) {
	store := &memory.Store{}
	jobs := map[string]string{}
	for i := range 250 {
		jobs[fmt.Sprintf("job%03d", i)] = ""
	}
	if err := store.Adopt(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	c, _ := serve(t, &api.Server{Store: store})
	for _, tt := range []struct {
		outcomes, limit int
		want            []int
	}{
		{0, 0, []int{100, 100, 50}},
		{0, 1000, []int{100, 100, 50}},
		{0, 90, []int{90, 90, 70}},
		{-1, 1000, []int{250}},
		{100, 1000, []int{30, 30, 30, 30, 30, 30, 30, 30, 10}},
		{1, 200, []int{200, 50}},
	} {
		var sizes []int
		seen := map[string]bool{}
		for q := (api.JobsQuery{Outcomes: tt.outcomes, Limit: tt.limit}); ; {
			page, err := c.ListJobs(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(page.Items))
			for _, j := range page.Items {
				seen[j.Name] = true
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if !slices.Equal(sizes, tt.want) || len(seen) != len(jobs) {
			t.Errorf("%d outcomes, limit %d: pages of %v jobs, want %v; %d different ones", tt.outcomes, tt.limit, sizes, tt.want, len(seen))
		}
	}
}

// The manual names every operation.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := serve(t, &api.Server{Store: &memory.Store{}, Feed: &api.Feed{}})
	_, _, text := ask(t, c, "GET", "/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			if op := strings.ToUpper(method) + " " + strings.TrimPrefix(path, api.Prefix); !strings.Contains(string(manual), "`"+op+"`") {
				t.Errorf("docs/api.md does not have %s", op)
			}
		}
	}
}
