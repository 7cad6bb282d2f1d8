package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nothing is a task.
type nothing struct{}

func (nothing) Apply(context.Context, *loom.Session) error { return nil }

// manifest reads a main file with these targets, and jobs a and b.
func manifest(t *testing.T, targets string, more ...string) *loom.Manifest {
	t.Helper()
	m, err := readManifest(t, targets, more...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readManifest(t *testing.T, targets string, more ...string) (*loom.Manifest, error) {
	t.Helper()
	dir := t.TempDir()
	jobs := "jobs:\n  a: {task: nothing, targets: all, schedule: manual, owner: ann, runbook: 'https://wiki/a', labels: {tier: gold}" + strings.Join(more, "") + "}\n" +
		"  b: {task: nothing, targets: all, schedule: manual}\n"
	for name, text := range map[string]string{"loom.yaml": "nodes: {n1: {}, n2: {}}\njobspath: jobs\nnotify:\n" + targets, "jobs/j.yaml": jobs} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reg := new(loom.Registry)
	reg.Add("nothing", nothing{})
	return (&loom.ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: reg, Strict: true, Check: notify.Check}).Read(t.Context())
}

// A crier is a notifier that runs.
type crier struct {
	*notify.Notifier
	t    *testing.T
	stop func()
}

func start(t *testing.T, m *loom.Manifest, state string) *crier {
	t.Helper()
	n := &notify.Notifier{State: state, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Program: "loom", Host: "control",
		Redact: func(s string) string { return strings.ReplaceAll(s, "hunter2", "[secret]") }}
	n.Load(m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	c := &crier{Notifier: n, t: t}
	c.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(c.stop)
	return c
}

// run hands in the events of a run of a job that ended so on n1, and well on n2.
func (c *crier) run(job, id string, status loom.Status, lines ...string) {
	c.t.Helper()
	c.tell(loom.Run{ID: id, Job: job}, status, lines...)
}

// plan is run for one that only tells what would change.
func (c *crier) plan(job, id string, status loom.Status) {
	c.t.Helper()
	c.tell(loom.Run{ID: id, Job: job, Plan: true}, status)
}

func (c *crier) tell(r loom.Run, status loom.Status, lines ...string) {
	c.t.Helper()
	now := time.Now()
	r.Due, r.Trigger, r.Started, r.Status, r.Nodes = now, loom.TriggerSchedule, now, loom.StatusRunning, 2
	observe := func(e loom.Event) {
		e.Time, e.Job, e.Run, e.Plan = now, r.Job, r.ID, r.Plan
		c.Observe(e)
	}
	observe(loom.Event{Kind: loom.KindRunStarted, Ran: &r})
	res := &loom.Result{Status: status, ExitCode: -1, Started: now, Ended: now}
	end := r
	end.Ended, end.Status, end.Counts = now, loom.StatusOK, map[loom.Status]int{status: 1, loom.StatusOK: 1}
	if !status.Good() {
		res.ExitCode, res.Reason = 3, "command backup: exit status 3"
		end.Status = loom.StatusFailed
	} else {
		end.Counts = map[loom.Status]int{loom.StatusOK: 2}
	}
	for _, l := range lines {
		res.Output = append(res.Output, loom.Line{Text: l})
	}
	observe(loom.Event{Kind: loom.KindNodeEnded, Node: "n1", Result: res})
	observe(loom.Event{Kind: loom.KindNodeEnded, Node: "n2", Result: &loom.Result{Status: loom.StatusOK, Ended: now}})
	observe(loom.Event{Kind: loom.KindRunEnded, Ran: &end})
}

// A got is a request that came in.
type got struct {
	path   string
	header http.Header
	body   string
}

// listen is a web server that answers with what status says.
func listen(t *testing.T, status func(n int) int) (string, <-chan got) {
	t.Helper()
	requests := make(chan got, 1000)
	n := 0
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		mu.Lock()
		n++
		code := 200
		if status != nil {
			code = status(n)
		}
		mu.Unlock()
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(code)
		fmt.Fprint(w, "thanks")
		requests <- got{r.URL.RequestURI(), r.Header, string(text)}
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

type cloudEvent struct {
	SpecVersion, ID, Source, Type, Subject, DataContentType string
	Time                                                    time.Time
	Data                                                    notify.News
}

const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// What is posted is a CloudEvent whose signature a library of others accepts.
func TestWebhook(t *testing.T) {
	url, requests := listen(t, nil)
	c := start(t, manifest(t, fmt.Sprintf("  hook: {webhook: {url: '%s/x?y=z', secret: [%s], headers: {Authorization: Bearer abc}}, default: true}\n", url, key)), t.TempDir())
	c.run("a", "run1", loom.StatusFailed, "begin", "\x1b[31mno space\x1b[0m left, password hunter2\x07")
	r := next(t, requests)
	verifier, err := standardwebhooks.NewWebhook(strings.TrimPrefix(key, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify([]byte(r.body), r.header); err != nil {
		t.Errorf("the signature: %v", err)
	}
	if err := verifier.Verify([]byte(r.body+" "), r.header); err == nil {
		t.Error("another body has the same signature")
	}
	if r.path != "/x?y=z" || r.header.Get("Authorization") != "Bearer abc" || !strings.HasPrefix(r.header.Get("Content-Type"), "application/cloudevents+json") {
		t.Errorf("the request is %s %v", r.path, r.header)
	}
	var e cloudEvent
	if err := json.Unmarshal([]byte(r.body), &e); err != nil {
		t.Fatal(err)
	}
	if e.SpecVersion != "1.0" || e.Type != "dev.loom.run.failed.v1" || e.Subject != "a" || e.Source != "/loom/control" || e.ID != r.header.Get("webhook-id") || e.ID == "" {
		t.Errorf("the event is %+v", e)
	}
	want := "a failed on n1 (1 of 2 nodes): command backup: exit status 3"
	if e.Data.Title != want {
		t.Errorf("the title is %q, want %q", e.Data.Title, want)
	}
	for _, part := range []string{"    no space left, password [secret]�\n", "owner    ann\n", "runbook  https://wiki/a\n", "loom show run1\n", "loom logs run1 --node n1\n", "jobs/j.yaml:2\n"} {
		if !strings.Contains(e.Data.Text, part) {
			t.Errorf("the text has no %q:\n%s", part, e.Data.Text)
		}
	}
}

// News come once for each transition, also if the notifier is started anew.
func TestOnceForEachTransition(t *testing.T) {
	url, requests := listen(t, nil)
	m := manifest(t, fmt.Sprintf("  hook: {webhook: '%s', default: true}\n  third: {webhook: '%s/third', default: true, after: 3}\n", url, url))
	state := t.TempDir()
	c := start(t, m, state)
	c.plan("a", "p1", loom.StatusFailed)
	c.run("a", "r1", loom.StatusOK)
	c.run("a", "r2", loom.StatusFailed)
	c.run("a", "r3", loom.StatusFailed)
	if r := next(t, requests); !strings.Contains(r.body, "run.failed") || !strings.Contains(r.body, `"id":"r2"`) {
		t.Errorf("first came %s", r.body)
	}
	c.stop()
	c = start(t, m, state)
	c.run("a", "r3", loom.StatusFailed) // it was dealt with
	c.run("a", "r4", loom.StatusFailed)
	if r := next(t, requests); r.path != "/third" || !strings.Contains(r.body, `"in_a_row":3`) {
		t.Errorf("after three runs came %s %s", r.path, r.body)
	}
	c.run("a", "r5", loom.StatusCancelled)
	c.plan("a", "p2", loom.StatusOK)
	c.run("a", "r6", loom.StatusOK)
	c.run("a", "r7", loom.StatusOK)
	for range 2 {
		if r := next(t, requests); !strings.Contains(r.body, "run.recovered") || !strings.Contains(r.body, `"id":"r6"`) {
			t.Errorf("then came %s", r.body)
		}
	}
	c.run("b", "s1", loom.StatusFailed) // what comes next, if nothing else does
	if r := next(t, requests); !strings.Contains(r.body, `"id":"s1"`) {
		t.Errorf("at the end came %s", r.body)
	}
}

// What could not be delivered is delivered by the next process, under the same ID.
func TestKept(t *testing.T) {
	up := make(chan struct{})
	url, requests := listen(t, func(int) int {
		select {
		case <-up:
			return 200
		default:
			return 503
		}
	})
	m := manifest(t, fmt.Sprintf("  hook: {webhook: '%s', default: true}\n", url))
	state := t.TempDir()
	c := start(t, m, state)
	c.run("a", "r1", loom.StatusFailed)
	first := next(t, requests)
	c.stop()
	standing := one(t, m, state)
	if standing.Pending != 1 || standing.Attempts != 1 || !strings.Contains(standing.Error, "503") {
		t.Errorf("how it stands: %+v", standing)
	}
	close(up)
	torn, err := os.OpenFile(filepath.Join(state, "outbox", "journal"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(torn, `{"add":[{"news":`) // as a crash leaves it
	torn.Close()
	start(t, m, state)
	again := next(t, requests)
	if id := again.header.Get("webhook-id"); id == "" || id != first.header.Get("webhook-id") {
		t.Errorf("the IDs are %q and %q", first.header.Get("webhook-id"), id)
	}
}

func one(t *testing.T, m *loom.Manifest, state string) notify.Standing {
	t.Helper()
	all, err := notify.Look(state, m.Config)
	if err != nil || len(all) != 1 {
		t.Fatalf("Look: %+v, %v", all, err)
	}
	return all[0]
}

func TestTestSaysWhatWasAnswered(t *testing.T) {
	url, _ := listen(t, func(n int) int { return []int{200, 302, 401, 200}[n-1] })
	c := start(t, manifest(t, fmt.Sprintf("  hook: {webhook: '%s/secret-path'}\n  sh: {exec: 'cat >/dev/null; echo hello; exit 4'}\n", url)), t.TempDir())
	for _, want := range []string{"^200 OK: thanks$", "302 Found: thanks, and redirects are not followed", "401 Unauthorized: thanks"} {
		a, err := c.Test(t.Context(), "hook", "me")
		said := a.Said
		if err != nil {
			said = err.Error()
		}
		if !regexp.MustCompile(want).MatchString(said) || strings.Contains(said, "secret-path") {
			t.Errorf("the answer is %q, want %s", said, want)
		}
	}
	if _, err := c.Test(t.Context(), "sh", ""); err == nil || !strings.Contains(err.Error(), "exit status 4: hello") {
		t.Errorf("the command's answer is %v", err)
	}
	if _, err := c.Test(t.Context(), "hok", ""); !errors.Is(err, loom.ErrNotFound) || !strings.Contains(err.Error(), `did you mean "hook"`) {
		t.Errorf("a target that is none: %v", err)
	}
}

func TestPing(t *testing.T) {
	url, requests := listen(t, nil)
	c := start(t, manifest(t, fmt.Sprintf("  hc: {ping: '%s/key/{job}?create=1', jobs: [a]}\n", url)), t.TempDir())
	c.plan("a", "01m874v80gp75v28t88n252gpw", loom.StatusFailed)
	c.run("a", "01m874v80gp75v28t88n252gpx", loom.StatusOK, "all is well")
	c.run("b", "01m874v80gp75v28t88n252gpy", loom.StatusOK)
	c.run("a", "other", loom.StatusFailed, "no space left")
	rid := ""
	for _, want := range []struct{ path, body string }{{"/key/a/start?create=1&rid=", ""}, {"/key/a?create=1&rid=", "all is well"},
		{"/key/a/start?create=1&rid=", ""}, {"/key/a/fail?create=1&rid=", "no space left"}} {
		r := next(t, requests)
		path, id, _ := strings.Cut(r.path, "rid=")
		if path+"rid=" != want.path || !strings.Contains(r.body, want.body) {
			t.Errorf("asked for %s with %q, want %s with %q", r.path, r.body, want.path, want.body)
		}
		if !regexp.MustCompile(`^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`).MatchString(id) {
			t.Errorf("the run's ID is %q, which is no UUID", id)
		}
		if strings.Contains(want.path, "start") {
			rid = id
		} else if rid != id {
			t.Errorf("a run has the IDs %s and %s", rid, id)
		}
	}
}

// A storm is a few messages, and one run one.
func TestStorm(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	url, requests := listen(t, nil)
	c := start(t, manifest(t, fmt.Sprintf("  hook: {webhook: '%s', default: true, on: [failed, node-unreachable]}\n  x: {exec: 'cat >>%s', jobs: [b]}\n", url, out)), t.TempDir())
	now := time.Now()
	for i := range 1000 {
		c.Observe(loom.Event{Kind: loom.KindNodeEnded, Time: now, Job: "a", Run: "r", Node: fmt.Sprintf("n%d", i),
			Result: &loom.Result{Status: loom.StatusUnreachable, ExitCode: -1, Reason: fmt.Sprintf("dial n%d: no route to host", i), Ended: now}})
	}
	c.Observe(loom.Event{Kind: loom.KindRunEnded, Time: now, Job: "a", Run: "r", Ran: &loom.Run{ID: "r", Job: "a", Status: loom.StatusFailed, Ended: now, Nodes: 1000,
		Counts: map[loom.Status]int{loom.StatusUnreachable: 1000}}})
	r := next(t, requests)
	var e cloudEvent
	if err := json.Unmarshal([]byte(r.body), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Data.Failures) != 1 || len(e.Data.Failures[0].Nodes)+e.Data.Failures[0].More != 1000 || len(r.body) > 64<<10 {
		t.Errorf("%d bytes: %+v", len(r.body), e.Data.Failures)
	}
	c.stop() // tells what is waited with
	if r := next(t, requests); !strings.Contains(r.body, "1000 nodes are unreachable") {
		t.Errorf("of the nodes came %.500s", r.body)
	}
}

// A mailbox takes mail.
type mailbox struct {
	mails chan mailed
}

type mailed struct{ from, to, text, user string }

func (b *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailing{box: b}, nil }

type mailing struct {
	box  *mailbox
	mail mailed
}

func (s *mailing) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *mailing) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "loom" || password != "geheim" {
			return errors.New("wrong password")
		}
		s.mail.user = user
		return nil
	}), nil
}
func (s *mailing) Mail(from string, _ *smtp.MailOptions) error { s.mail.from = from; return nil }
func (s *mailing) Rcpt(to string, _ *smtp.RcptOptions) error   { s.mail.to += to; return nil }
func (s *mailing) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.mail.text = string(text)
	s.box.mails <- s.mail
	return err
}
func (s *mailing) Reset()        {}
func (s *mailing) Logout() error { return nil }

func TestEmail(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(web.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	box := &mailbox{mails: make(chan mailed, 10)}
	server := smtp.NewServer(box)
	server.TLSConfig = web.TLS
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	c := start(t, manifest(t, fmt.Sprintf("  ops: {email: {to: ['Ann <ann@example.org>'], from: loom@example.org, server: '%s', user: loom, password: geheim, ca: '%s'}, default: true}\n", l.Addr(), ca)), t.TempDir())
	c.run("a", "r1", loom.StatusFailed, "<script>alert(1)</script>")
	c.run("a", "r2", loom.StatusOK)
	thread := ""
	for _, subject := range []string{"Subject: [loom] a failed on n1", "Subject: [loom] a is well again"} {
		m := next(t, box.mails)
		if m.from != "loom@example.org" || m.to != "ann@example.org" || m.user != "loom" || !strings.Contains(m.text, subject) {
			t.Errorf("the mail is %+v", m)
		}
		if !strings.Contains(m.text, "text/plain") || !strings.Contains(m.text, "text/html") || !strings.Contains(m.text, "Auto-Submitted: auto-generated") {
			t.Errorf("the mail is\n%s", m.text)
		}
		if _, html, _ := strings.Cut(m.text, "text/html"); strings.Contains(html, "<script") {
			t.Errorf("what a job printed is HTML:\n%s", html)
		}
		references := regexp.MustCompile(`(?m)^References: (\S+)`).FindString(m.text)
		if thread != "" && references != thread || references == "" {
			t.Errorf("the mails are of the threads %q and %q", thread, references)
		}
		thread = references
	}
}

func TestChat(t *testing.T) {
	url, requests := listen(t, nil)
	c := start(t, manifest(t, fmt.Sprintf("  team: {chat: 'ntfy://%s/topic?scheme=http', default: true, title: '{{.Kind}} {{.Job.Name}}', body: '{{range .Failures}}{{join \",\" .Nodes}} {{index .Output 0}}{{end}}'}\n", strings.TrimPrefix(url, "http://"))), t.TempDir())
	c.run("a", "r1", loom.StatusFailed, "hello @everyone")
	r := next(t, requests)
	if r.path != "/topic" || !strings.Contains(r.body+r.header.Get("Title"), "n1 hello @\u200beveryone") {
		t.Errorf("the chat got %s %q %v", r.path, r.body, r.header)
	}
}

// The addresses of this machine and its like are refused where a name leads there.
func TestGuard(t *testing.T) {
	c := start(t, manifest(t, "  a: {webhook: 'http://169.254.169.254/latest'}\n  b: {webhook: 'http://[fd00::1]/'}\n  c: {webhook: 'http://0.0.0.0:1/'}\n  d: {webhook: 'http://[64:ff9b::7f00:1]/'}\n  e: {webhook: 'http://[::ffff:169.254.169.254]/'}\n"), t.TempDir())
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if _, err := c.Test(t.Context(), name, ""); err == nil || !strings.Contains(err.Error(), "add it to allow") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	for targets, want := range map[string]string{
		"  x: {webhok: y}\n":                                                  `loom.yaml:4:7: notify.x: unknown key "webhok" (did you mean "webhook"?)`,
		"  x: {default: true}\n":                                              `loom.yaml:4:3: notify.x: say how it is told: write one of webhook, email, chat, exec and ping`,
		"  x: {webhook: 'ftp://y'}\n":                                         `loom.yaml:4:16: notify.x.webhook: write a URL that begins with https:// or http://`,
		"  x: {webhook: {url: 'https://y', secret: [a]}}\n":                   `loom.yaml:4:43: notify.x.webhook.secret: write whsec_ and 24 to 64 bytes in base64, such as ` + "`echo whsec_$(openssl rand -base64 32)` prints",
		"  x: {webhook: 'https://y', on: [faild]}\n":                          `loom.yaml:4:34: notify.x.on[0]: "faild" is nothing that is told (did you mean "failed"?)`,
		"  x: {webhook: 'https://y', title: '{{.Nam}}'}\n":                    `notify.x.title: title:1:2: executing "title" at <.Nam>: can't evaluate field Nam in type notify.News`,
		"  x: {webhook: 'https://y', jobs: ['a[']}\n":                         `notify.x.jobs: the pattern "a[" has a [ without its ]`,
		"  x: {chat: 'slak://y'}\n":                                           `loom.yaml:4:13: notify.x.chat: there is no service "slak" (did you mean "slack"?)`,
		"  x: {email: {server: m, to: y, user: u, password: p, tls: none}}\n": `notify.x.email.to: "y" is no address`,
		"  x: {exec: [/no/such]}\n":                                           `notify.x.exec: exec: "/no/such": stat /no/such: no such file or directory`,
		"  x: {ping: 'https://y', on: [failed]}\n":                            `a ping is for the beginning and the end of each run, so it can't choose`,
		"  'x y': {ping: 'https://y'}\n":                                      `loom.yaml:4:3: notify: "x y" can't be the name of a target`,
		"  ops: {ping: 'https://y'}\n":                                        `jobs/j.yaml:2:124: notify: the main file has no notification target "opps" (did you mean "ops"?)`,
	} {
		more := ""
		if strings.Contains(want, "opps") {
			more = ", notify: [opps]"
		}
		_, err := readManifest(t, targets, more)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v\nwant %s", targets, err, want)
		}
	}
}

// The examples of the manual are read.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 7 {
		t.Fatalf("%d examples", len(examples))
	}
	var kinds []string
	for _, e := range examples {
		dir := t.TempDir()
		for name, text := range map[string]string{"loom.yaml": e[1], "hook.key": key + "\n", "hook.token": "abc", "mail.password": "geheim", "chat.url": "ntfy://ntfy.sh/x", "jobs/a.yaml": ""} {
			_ = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := (&loom.ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: new(loom.Registry), Strict: true, Check: notify.Check}).Read(t.Context())
		if err != nil {
			t.Errorf("%v:\n%s", err, e[1])
			continue
		}
		all, err := notify.Look(dir, m.Config)
		if err != nil {
			t.Error(err)
		}
		for _, s := range all {
			kinds = append(kinds, s.Kind)
		}
	}
	slices.Sort(kinds)
	if got := strings.Join(slices.Compact(kinds), " "); got != "chat email exec ping webhook" {
		t.Errorf("there are examples of %s", got)
	}
}
