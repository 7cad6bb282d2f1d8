package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// A pipes listener has connections that need no kernel, so that time can be
// turned on.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

// own is a connection of the user who runs the test.
func own(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peer{uid: os.Getuid()})
}

func TestSlowClients(t *testing.T) {
	store := &memory.Store{}
	fired, err := store.Fire(t.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r"}, Claim: true}})
	if err != nil {
		t.Fatal(err)
	}
	line := loom.Event{Kind: loom.KindOutput, Node: "n", Stream: loom.Stdout, Text: strings.Repeat("x", 300_000)}
	if err := store.Record(t.Context(), fired[0].Claim, []loom.Event{line}); err != nil {
		t.Fatal(err)
	}
	const ask = "GET /api/v1/runs/r/output HTTP/1.1\r\nHost: loomd\r\n\r\n"
	for _, tt := range []struct {
		name, sends string
		after       time.Duration // it is cut off no later than this
		want        string
	}{
		{"says nothing", "", headerTime, ""},
		{"sends half a header", "GET / HTT", headerTime, ""},
		{"sends half a body", "POST /api/v1/reload HTTP/1.1\r\nHost: loomd\r\nContent-Length: 10\r\n\r\n12345", bodyTime, "the request's end did not come"},
		{"reads nothing", ask, writeTime, "-"},
		{"is idle", "GET /healthz HTTP/1.1\r\nHost: loomd\r\n\r\n", idleTime, "ok"},
		{"sends a long header", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 2*headerBytes), 0, "431"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- (&Server{Store: store}).serve(ctx, &Door{Listener: p}, own) }()
				c := p.dial()
				defer c.Close()
				go io.WriteString(c, tt.sends)
				if tt.want == "-" {
					<-time.After(tt.after + time.Second)
				}
				began := time.Now()
				got, _ := io.ReadAll(c) // to the end of the connection
				if took := time.Since(began); took > tt.after+2*time.Second {
					t.Errorf("it was cut off after %v, want %v", took, tt.after)
				}
				if tt.want == "-" {
					if len(got) > 0 && bytes.HasSuffix(got, []byte("}\n")) {
						t.Errorf("all of the answer was kept for it: %d bytes", len(got))
					}
				} else if !strings.Contains(string(got), tt.want) {
					t.Errorf("it got %q, want %q", got, tt.want)
				}
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A request that never ends does not keep a server from stopping.
func TestStopWithinReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		store := &stuck{}
		go func() { served <- (&Server{Store: store}).serve(ctx, &Door{Listener: p}, own) }()
		c, stubborn := p.dial(), p.dial()
		defer c.Close()
		defer stubborn.Close()
		go io.WriteString(c, "GET /api/v1/runs HTTP/1.1\r\nHost: loomd\r\n\r\n")
		go io.WriteString(stubborn, "GET /api/v1/jobs HTTP/1.1\r\nHost: loomd\r\n\r\n")
		synctest.Wait()
		cancel()
		began := time.Now()
		if got, _ := io.ReadAll(c); !strings.Contains(string(got), "urn:loom:store-down") {
			t.Errorf("who was cut off got %q", got)
		}
		if took := time.Since(began); took > stopTime+lastTime+time.Second {
			t.Errorf("it took %v", took)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if !store.ended {
			t.Error("the store is still in use")
		}
	})
}

type stuck struct {
	loom.Store
	ended bool
}

func (s *stuck) Jobs(context.Context, ...string) ([]loom.JobState, error) {
	<-time.After(time.Minute)
	s.ended = true
	return nil, nil
}

func (*stuck) Runs(ctx context.Context, _ loom.RunQuery) ([]loom.Run, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestTrusted(t *testing.T) {
	self := os.Getuid()
	for uid, want := range map[int]bool{0: true, self: true, self + 1: false, 65534: self == 65534} {
		if got := (peer{uid: uid}).trusted(); got != want {
			t.Errorf("uid %d: %v, want %v", uid, got, want)
		}
	}
	h := (&Server{Store: &memory.Store{}}).outer(&Door{Listener: newPipes()}, http.NotFoundHandler())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "http://loomd/", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("of nobody knows whom: %d", w.Code)
	}
}

func TestSplit(t *testing.T) {
	var names []string
	for range 5000 {
		names = append(names, "a name of a job")
	}
	names = append(names, strings.Repeat("x", 50_000))
	requests, seen := 0, 0
	got, err := split(names, func(some []string) ([]string, error) {
		requests++
		seen += len(some)
		if size := len(url.Values{"name": some}.Encode()); size > 60_000 {
			t.Errorf("a request with %d bytes of names", size)
		}
		return some, nil
	})
	if err != nil || seen != len(names) || len(got) != len(names) || requests < 3 {
		t.Errorf("%d names in %d requests, %v", seen, requests, err)
	}
}

// FuzzEvent checks that what a node prints arrives as it was printed.
func FuzzEvent(f *testing.F) {
	f.Add("plain", "n1", "ok", int64(0))
	f.Add("bad \xff\xfe\x00 ☃", "", "failed", int64(1774872000123))
	f.Fuzz(func(t *testing.T, text, node, status string, at int64) {
		when := time.UnixMilli(at % (1 << 44))
		node, status = strings.ToValidUTF8(node, "?"), strings.ToValidUTF8(status, "?")
		e := loom.Event{Kind: loom.KindOutput, Node: node, Text: text, Time: when, Stream: loom.Stderr, More: at%2 == 0,
			Result: &loom.Result{Node: node, Status: loom.Status(status), ExitCode: int(at % 256), Changes: []string{}, Started: when}}
		sent, err := json.Marshal(NewEvent(e))
		if err != nil {
			t.Skip() // a year that JSON has no room for
		}
		var w Event
		if err := json.Unmarshal(sent, &w); err != nil {
			t.Fatalf("%s: %v", sent, err)
		}
		got := w.Loom()
		if got.Text != text || got.Node != node || !got.Time.Equal(when) || got.More != e.More || got.Result.Status != e.Result.Status ||
			got.Result.ExitCode != e.Result.ExitCode || got.Result.Changes == nil || !got.Result.Started.Equal(when) || !got.Result.Ended.IsZero() || got.Ran != nil {
			t.Errorf("sent %+v\n got %+v", e, got)
		}
	})
}

// FuzzRequest checks that whatever is asked for, the answer is what was asked for
// or a problem, and never the server's own mistake.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{"/api/v1/status", "/api/v1/runs?limit=3&status=ok&since=2026-01-02T03:04:05Z", "/api/v1/runs/r/output?after=1",
		"/api/v1/jobs/j/ticks?to=2026-01-02T03:04:05.678Z", "/api/v1/days?from=2026-01-02T03:04:05Z", "/openapi.json", "/api/v1/actions?before=-1"} {
		f.Add("GET", path, "")
	}
	f.Add("POST", "/api/v1/actions", `{"verb":"pause","object":"j","until":"2026-01-02T03:04:05Z"}`)
	f.Add("POST", "/api/v1/ledger/fire", `{"Self":"x","Firings":[{"Job":"j","Run":{"ID":"r"},"Claim":true}]}`)
	f.Add("POST", "/api/v1/ledger/finish", `{"Claim":{"Run":{"ID":"r"},"Owner":"x","Epoch":1},"End":{"Status":"ok"},"Events":[{"kind":"node-ended"}]}`)
	f.Add("POST", "/api/v1/ledger/beat", `{"ID":"x"}`)
	s := &Server{Store: &memory.Store{}}
	h := s.outer(&Door{Listener: newPipes()}, s.routes(f.Context().Done()))
	f.Fuzz(func(t *testing.T, method, path, text string) {
		if strings.Contains(path, "wait=") {
			t.Skip()
		}
		target, err := url.ParseRequestURI(path)
		if err != nil || method != "GET" && method != "POST" {
			t.Skip()
		}
		r := httptest.NewRequestWithContext(own(t.Context(), nil), method, "http://loomd/", strings.NewReader(text))
		r.URL, r.RequestURI = target, path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented && !strings.HasPrefix(path, ledgerPrefix) {
			t.Errorf("%s %s %q: %d %s", method, path, text, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "made a mistake") {
			t.Errorf("%s %s %q panics", method, path, text)
		}
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); w.Code >= 400 && (err != nil || p.Status != w.Code) {
			t.Errorf("%s %s %q: %d %s is no problem", method, path, text, w.Code, w.Body)
		}
	})
}

// What is asked for may take long, once it was asked for in time.
func TestLongWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- (&Server{Store: slow{}}).serve(ctx, &Door{Listener: p}, own) }()
		for path, body := range map[string]string{"backup": `{"file":"/none/x"}`, "ledger/trim": `{}`} {
			c := p.dial()
			defer c.Close()
			go fmt.Fprintf(c, "POST /api/v1/%s HTTP/1.1\r\nHost: loomd\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
			if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
				t.Errorf("%s got %q, %v", path, got, err)
			}
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

type slow struct{ loom.Store }

func (s slow) Trim(ctx context.Context, _ loom.Retention) (loom.Trimmed, error) {
	return loom.Trimmed{}, s.Backup(ctx, "")
}

func (slow) Act(context.Context, loom.Action) error { return nil }

func (slow) Backup(ctx context.Context, _ string) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Hour):
		return nil
	}
}
