package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// A fortress is a server whose door is on the network, with a token of each role.
type fortress struct {
	url    string
	addr   string
	dir    string
	tokens *api.Tokens
	store  *memory.Store
	secret map[api.Role]string
	client *http.Client
	log    *lockedBuffer
}

// A lockedBuffer is what many write to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// build opens a door on the loopback, after change has had its way with it. When
// the test ends, nothing that was logged may have a token in it.
func build(t *testing.T, change func(*api.Door)) *fortress {
	t.Helper()
	f := &fortress{dir: t.TempDir(), store: &memory.Store{}, secret: map[api.Role]string{}, log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if f.tokens, err = api.OpenTokens(f.dir, log); err != nil {
		t.Fatal(err)
	}
	for _, role := range api.Roles() {
		if f.secret[role], _, err = f.tokens.Create("the-"+string(role), role, time.Now().Add(time.Hour), "test"); err != nil {
			t.Fatal(err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := &api.Door{Listener: l}
	scheme := "http"
	if change != nil {
		change(door)
	}
	if door.Certificate != nil {
		scheme = "https"
	}
	f.addr = l.Addr().String()
	f.url = scheme + "://" + f.addr
	tr := &http.Transport{DisableCompression: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it is our own
	f.client = &http.Client{Transport: tr}
	s := &api.Server{Store: f.store, Control: &daemon{}, Tokens: f.tokens, Feed: &api.Feed{}, Log: log}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Open(ctx, door) }()
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Open: %v", err)
		}
		if strings.Contains(f.log.String(), api.TokenPrefix) {
			t.Errorf("a token is in the log:\n%s", f.log)
		}
	})
	return f
}

// ask sends a request with these headers, in pairs, and returns the answer with its
// text.
func (f *fortress) ask(t *testing.T, method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	answer, err := f.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), api.TokenPrefix) && path != "/api/v1/tokens" {
		t.Errorf("%s %s: a token is in the answer: %s", method, path, text)
	}
	return answer, string(text)
}

// as is the header of somebody with a role.
func (f *fortress) as(role api.Role) string { return "Bearer " + f.secret[role] }

// refused checks that an answer is a problem of a status.
func refused(t *testing.T, what string, answer *http.Response, text string, status int) {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(text), &p); err != nil || answer.StatusCode != status || p.Status != status || p.Detail == "" {
		t.Errorf("%s: %d %s, want a problem of status %d", what, answer.StatusCode, text, status)
	}
}

// An op is an operation of the document.
type op struct {
	method, path string
	role         api.Role
}

// operations returns all operations of the document, with something in place of
// what varies in their paths.
func (f *fortress) operations(t *testing.T) []op {
	t.Helper()
	_, text := f.ask(t, "GET", "/openapi.json", nil)
	var doc struct {
		Paths map[string]map[string]struct {
			Role api.Role `json:"x-loom-role"`
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var all []op
	for path, item := range doc.Paths {
		for method, one := range item {
			all = append(all, op{strings.ToUpper(method), regexp.MustCompile(`{\w+}`).ReplaceAllString(path, "x"), one.Role})
		}
	}
	if len(all) < 20 {
		t.Fatalf("the document has %d operations", len(all))
	}
	return all
}

func (o op) changes() bool { return o.method != "GET" && o.method != "HEAD" }

// Every operation there is, now and later, is closed to those without a token and
// to those without its role.
func TestNobodyGetsInWithout(t *testing.T) {
	f := build(t, nil)
	for _, o := range f.operations(t) {
		if o.path == "/healthz" || o.path == "/readyz" { // whether it is well is all that they say
			continue
		}
		what := o.method + " " + o.path
		answer, text := f.ask(t, o.method, o.path, strings.NewReader("{}"), "Content-Type", "application/json")
		refused(t, what+" without a token", answer, text, http.StatusUnauthorized)
		if answer.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: who has no token is not asked for one", what)
		}
		for _, role := range api.Roles() {
			if role.May(o.role) {
				continue
			}
			answer, text := f.ask(t, o.method, o.path, strings.NewReader("{}"), "Content-Type", "application/json", "Authorization", f.as(role))
			refused(t, what+" as "+string(role), answer, text, http.StatusForbidden)
		}
		if o.changes() && api.RoleViewer.May(o.role) {
			t.Errorf("%s changes something and is for viewers", what)
		}
	}
	for _, path := range []string{"/metrics", "/api/v1/nothing", "/", "/api/v1/ledger/take"} {
		answer, text := f.ask(t, "POST", path, nil)
		refused(t, path, answer, text, http.StatusUnauthorized)
	}
	answer, text := f.ask(t, "POST", "/api/v1/ledger/take", strings.NewReader(`{"Self":"x"}`), "Authorization", f.as(api.RoleAdmin))
	refused(t, "the ledger, for an admin from elsewhere", answer, text, http.StatusForbidden)
	if did, err := f.store.Actions(t.Context(), loom.ActionQuery{}); err != nil || len(did) != 0 {
		t.Errorf("what was refused is in the audit as done: %+v, %v", did, err)
	}
}

func TestWrongTokens(t *testing.T) {
	f := build(t, nil)
	good := f.secret[api.RoleAdmin]
	for name, header := range map[string]string{
		"no scheme":      good,
		"basic":          "Basic " + good,
		"empty":          "Bearer ",
		"one bit off":    "Bearer " + good[:len(good)-1] + map[bool]string{true: "b", false: "a"}[good[len(good)-1] == 'a'],
		"shorter":        "Bearer " + good[:len(good)-1],
		"longer":         "Bearer " + good + "a",
		"in capitals":    "Bearer " + strings.ToUpper(good),
		"two":            "Bearer " + good + " " + good,
		"its hash":       "Bearer " + hashOf(good),
		"something long": "Bearer " + strings.Repeat("x", 50_000),
	} {
		answer, text := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", header)
		refused(t, name, answer, text, http.StatusUnauthorized)
	}
	if answer, text := f.ask(t, "GET", "/api/v1/status?token="+good+"&access_token="+good, nil); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token in the address: %d %s", answer.StatusCode, text)
	}
	if answer, text := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", "bearer "+good); answer.StatusCode != http.StatusOK {
		t.Errorf("the good one: %d %s", answer.StatusCode, text)
	}
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestExpiredToken(t *testing.T) {
	f := build(t, nil)
	const secret = api.TokenPrefix + "old"
	file := filepath.Join(f.dir, api.TokensFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old := fmt.Sprintf(`{"name":"old","role":"admin","created":"2020-01-01T00:00:00Z","expires":"%s","sha256":"%s"},`,
		time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), hashOf(secret))
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), `"tokens": [`, `"tokens": [`+old, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	answer, said := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", "Bearer "+secret)
	refused(t, "an expired token", answer, said, http.StatusUnauthorized)
	if !strings.Contains(said, "has expired") {
		t.Errorf("it is not said that it has expired: %s", said)
	}
	if answer, said := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", f.as(api.RoleViewer)); answer.StatusCode != http.StatusOK {
		t.Errorf("another one: %d %s", answer.StatusCode, said)
	}
}

// Whoever revokes a token, through the daemon or in its state directory, has done
// so at once, for those who read a stream too.
func TestRevokedToken(t *testing.T) {
	elsewhere := func(t *testing.T, f *fortress) error {
		t.Helper()
		other, err := api.OpenTokens(f.dir, nil) // as another process does
		if err != nil {
			return err
		}
		return other.Revoke("the-viewer")
	}
	here := func(t *testing.T, f *fortress) error {
		t.Helper()
		answer, text := f.ask(t, "DELETE", "/api/v1/tokens/the-viewer", nil, "Authorization", f.as(api.RoleAdmin))
		if answer.StatusCode != http.StatusOK {
			return errors.New(text)
		}
		return nil
	}
	for name, revoke := range map[string]func(*testing.T, *fortress) error{"over the API": here, "in the file": elsewhere} {
		t.Run(name, func(t *testing.T) {
			f := build(t, nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, "GET", f.url+"/api/v1/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", f.as(api.RoleViewer))
			stream, err := f.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Body.Close()
			if first, err := bufio.NewReader(stream.Body).ReadString('\n'); err != nil || stream.StatusCode != http.StatusOK {
				t.Fatalf("%d %q %v", stream.StatusCode, first, err)
			}
			if err := revoke(t, f); err != nil {
				t.Fatal(err)
			}
			answer, text := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", f.as(api.RoleViewer))
			refused(t, "the next request", answer, text, http.StatusUnauthorized)
			began := time.Now()
			if _, err := io.Copy(io.Discard, stream.Body); ctx.Err() != nil {
				t.Errorf("the stream goes on: %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the stream went on for %v", took)
			}
		})
	}
}

// A web page of another site can't have a browser do anything here.
func TestCrossOrigin(t *testing.T) {
	f := build(t, nil)
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"another site", []string{"Origin", "https://evil.example"}, 403},
		{"another site, as new browsers say it", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another port of ours", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"a subdomain", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"a page without an origin", []string{"Origin", "null"}, 403},
		{"our own page", []string{"Origin", f.url, "Sec-Fetch-Site", "same-origin"}, 200},
		{"no browser", nil, 200},
	} {
		for _, kind := range []string{"application/json", "text/plain"} {
			headers := append([]string{"Authorization", f.as(api.RoleAdmin), "Content-Type", kind}, tt.headers...)
			answer, text := f.ask(t, "POST", "/api/v1/reload", nil, headers...)
			if answer.StatusCode != tt.status {
				t.Errorf("%s (%s): %d %s, want %d", tt.name, kind, answer.StatusCode, text, tt.status)
			}
			for name := range answer.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: the answer says %s: %s", tt.name, name, answer.Header.Get(name))
				}
			}
		}
	}
	answer, _ := f.ask(t, "OPTIONS", "/api/v1/reload", nil, "Origin", "https://evil.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization")
	if answer.StatusCode < 400 || answer.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another site is told that it may ask: %d %v", answer.StatusCode, answer.Header)
	}
}

// A name that leads here without being ours is another site's (DNS rebinding).
func TestForeignHost(t *testing.T) {
	f := build(t, func(d *api.Door) { d.Hosts = []string{"loom.example", "ops.example:7077"} })
	_, port, _ := net.SplitHostPort(f.addr)
	for host, ok := range map[string]bool{
		f.addr: true, "127.0.0.1": true, "localhost:" + port: true, "LOCALHOST.": true, "[::1]:" + port: true,
		"loom.example": true, "Loom.Example:443": true, "ops.example": true,
		"evil.example": false, "evil.example:" + port: false, "loom.example.evil.example": false, "localhost.evil.example": false,
		"127.0.0.1.evil.example": false, "10.1.2.3": false, "xloom.example": false, "loomd": false, "0.0.0.0": false,
	} {
		for _, path := range []string{"/healthz", "/api/v1/status"} {
			answer, text := f.ask(t, "GET", path, nil, "Host", host, "Authorization", f.as(api.RoleViewer))
			if got := answer.StatusCode == http.StatusOK; got != ok {
				t.Errorf("Host %s: %d %s, want it let in: %v", host, answer.StatusCode, text, ok)
			}
			if !ok {
				refused(t, host, answer, text, http.StatusMisdirectedRequest)
			}
		}
	}
}

// send writes raw text to the door, and returns all that comes back until it is
// closed.
func (f *fortress) send(t *testing.T, text string) string {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, text) // it may hang up
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	got, _ := io.ReadAll(c) // it may hang up harshly
	return string(got)
}

func TestPathTraversal(t *testing.T) {
	f := build(t, nil)
	for _, path := range []string{
		"/api/v1/jobs/..%2f..%2f..%2fetc%2fpasswd", "/api/v1/jobs/../../../etc/passwd", "/api/v1/runs/..%2f..%2ftokens.json/output",
		"/../../etc/passwd", "//etc/passwd", "/api/v1/jobs/%2e%2e/%2e%2e/tokens", "/api/v1/jobs/..%5c..%5cx", "/docs/../../tokens.json",
		"/docs/..%2f..%2ftokens.json", "/openapi/../api/v1/tokens", "/healthz/../api/v1/tokens", "/docs/../api/v1/tokens", "/openapi.json/../api/v1/tokens",
		"/api/v1/manifest/sources?file=/etc/passwd", "/api/v1/manifest/sources?file=../../../../etc/passwd", "/api/v1/jobs/%00",
	} {
		for _, token := range []string{"", "Authorization: " + f.as(api.RoleViewer) + "\r\n"} {
			got := f.send(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+token+"Connection: close\r\n\r\n")
			status, _, _ := strings.Cut(strings.TrimPrefix(got, "HTTP/1.1 "), " ")
			if status == "200" && !strings.Contains(path, "jobs") || strings.Contains(got, "root:") || strings.Contains(got, "sha256") || status == "" || status[0] == '5' && status != "501" {
				t.Errorf("GET %s got %q", path, got)
			}
		}
	}
}

// Whoever sees two requests where we see one, or the other way round, gets nothing
// from it: there is one answer, and the connection ends.
func TestSmuggling(t *testing.T) {
	f := build(t, nil)
	auth := "Authorization: " + f.as(api.RoleAdmin) + "\r\n"
	inner := "POST /api/v1/actions HTTP/1.1\r\nHost: localhost\r\n" + auth + "Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"verb\":\"smuggled\"}"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)
	head := "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n" + auth
	for _, tt := range []struct{ name, text string }{
		{"a length and chunks", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner},
		{"chunks and a length", head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner},
		{"a request within chunks", head + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked},
		{"two lengths", head + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + inner},
		{"a list of lengths", head + "Content-Length: 0, 5\r\n\r\n" + inner},
		{"a length that is none", head + "Content-Length: +0\r\n\r\n" + inner},
		{"two encodings", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner},
		{"an encoding that is not known", head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner},
		{"a space before the colon", head + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner},
		{"a bare CR in a header", head + "X: a\rTransfer-Encoding: chunked\r\n\r\n" + inner},
		{"a NUL in a header", head + "X: a\x00b\r\n\r\n" + inner},
		{"no host", strings.Replace(head, "Host: localhost\r\n", "", 1) + "\r\n" + inner},
		{"two hosts", strings.Replace(head, "Host: localhost\r\n", "Host: localhost\r\nHost: evil.example\r\n", 1) + "\r\n" + inner},
		{"chunk sizes that are none", head + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + inner},
		{"chunks that end with LF alone", head + "Transfer-Encoding: chunked\r\n\r\n1\n;\n0\n\n" + inner},
		{"a request in the header of another", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.ReplaceAll(inner, "\r\n", "\n ") + "\r\nConnection: close\r\n\r\n"},
	} {
		got := f.send(t, tt.text)
		if n := strings.Count(got, "HTTP/1.1 "); n != 1 {
			t.Errorf("%s: %d answers: %q", tt.name, n, got)
		}
	}
	// Lines may end with LF alone, as RFC 9112 has it: it is still one request.
	if got := f.send(t, strings.ReplaceAll("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "\r\n", "\n")); strings.Count(got, "HTTP/1.1 ") != 1 {
		t.Errorf("lines that end with LF: %q", got)
	}
	did, err := f.store.Actions(t.Context(), loom.ActionQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range did {
		if a.Verb == "smuggled" {
			t.Errorf("a request was smuggled in: %+v", a)
		}
	}
}

// A zero is a body that never ends, and counts what is taken of it.
type zero struct{ taken atomic.Int64 }

func (z *zero) Read(p []byte) (int, error) {
	clear(p)
	z.taken.Add(int64(len(p)))
	return len(p), nil
}

// A gigabyte is refused before much of it has come, from whoever sends it.
func TestHugeBody(t *testing.T) {
	f := build(t, nil)
	const most = 8 << 20 // what is under way, and what is taken before it is too much
	for _, tt := range []struct {
		name, auth string
		length     int64
		status     int
	}{
		{"of a stranger", "Bearer " + api.TokenPrefix + "x", 1 << 30, 401},
		{"as announced", f.as(api.RoleAdmin), 1 << 30, 413},
		{"in chunks", f.as(api.RoleAdmin), -1, 413},
	} {
		z := &zero{}
		r, err := http.NewRequestWithContext(t.Context(), "POST", f.url+"/api/v1/actions", io.LimitReader(z, 1<<30))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = tt.length
		r.Header.Set("Authorization", tt.auth)
		answer, err := f.client.Do(r)
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode != tt.status {
				t.Errorf("%s: %s, want %d", tt.name, answer.Status, tt.status)
			}
		} else if tt.status == 413 { // who is not let in may be hung up on while it talks
			t.Errorf("%s: %v", tt.name, err)
		}
		if n := z.taken.Load(); n > most {
			t.Errorf("%s: %d bytes were taken", tt.name, n)
		}
	}
}

// What nodes print is data, whatever it looks like.
func TestHostileOutput(t *testing.T) {
	f := build(t, nil)
	const evil = "<script>alert(1)</script>\x1b]0;owned\x07\x1b[2J</textarea>\u2028"
	fired, err := f.store.Fire(t.Context(), "x", []loom.Firing{{Job: "j", Run: loom.Run{ID: "r1"}, Claim: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Record(t.Context(), fired[0].Claim, []loom.Event{{Kind: loom.KindOutput, Node: evil, Stream: loom.Stdout, Text: evil}}); err != nil {
		t.Fatal(err)
	}
	answer, text := f.ask(t, "GET", "/api/v1/runs/r1/output", nil, "Authorization", f.as(api.RoleViewer))
	if strings.Contains(text, "<script") || strings.ContainsAny(text, "\x1b\x07\u2028") {
		t.Errorf("output is not escaped: %q", text)
	}
	var out api.Output
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Chunks) != 1 || out.Chunks[0].Lines[0].Text != evil {
		t.Errorf("output is not what was printed: %+v, %v", out, err)
	}
	h := answer.Header
	for name, want := range map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store", "Strict-Transport-Security": ""} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	answer, text = f.ask(t, "GET", "/api/v1/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E", nil, "Authorization", f.as(api.RoleViewer))
	if answer.StatusCode != http.StatusNotFound || strings.Contains(text, "<script") || answer.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("what was asked for comes back as it is: %d %s", answer.StatusCode, text)
	}
}

// Whoever guesses is told to wait, and nobody else is.
func TestGuessing(t *testing.T) {
	f := build(t, nil)
	told := 0
	for i := range 30 {
		answer, text := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", fmt.Sprintf("Bearer %sguess%d", api.TokenPrefix, i))
		if answer.StatusCode != http.StatusTooManyRequests {
			refused(t, "a guess", answer, text, http.StatusUnauthorized)
			continue
		}
		refused(t, "one guess too many", answer, text, http.StatusTooManyRequests)
		if after := answer.Header.Get("Retry-After"); after == "" || after == "0" {
			t.Errorf("Retry-After is %q", after)
		}
		told++
	}
	if told < 15 {
		t.Errorf("%d of 30 guesses were too many", told)
	}
	if answer, text := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", f.as(api.RoleViewer)); answer.StatusCode != http.StatusOK {
		t.Errorf("somebody else at that address: %d %s", answer.StatusCode, text)
	}
}

// A token goes from the one who makes it to the one who uses it, and is nowhere
// else.
func TestTokenOverTheAPI(t *testing.T) {
	f := build(t, nil)
	admin := []string{"Authorization", f.as(api.RoleAdmin), "Content-Type", "application/json"}
	answer, text := f.ask(t, "POST", "/api/v1/tokens", strings.NewReader(`{"name":"ci","role":"operator"}`), admin...)
	var made api.NewToken
	if err := json.Unmarshal([]byte(text), &made); err != nil || answer.StatusCode != http.StatusOK || !strings.HasPrefix(made.Secret, api.TokenPrefix) || len(made.Secret) < 50 {
		t.Fatalf("%d %s", answer.StatusCode, text)
	}
	if left := time.Until(made.Expires); left < api.TokenTime-time.Minute || left > api.TokenTime {
		t.Errorf("it is good for %v", left)
	}
	if answer, text := f.ask(t, "POST", "/api/v1/actions", strings.NewReader(`{"verb":"look","object":"j","by":"root"}`), "Authorization", "Bearer "+made.Secret, "Content-Type", "application/json"); answer.StatusCode != http.StatusOK {
		t.Errorf("with the token: %d %s", answer.StatusCode, text)
	}
	_, text = f.ask(t, "GET", "/api/v1/tokens", nil, admin...)
	if strings.Contains(text, made.Secret) || strings.Contains(text, hashOf(made.Secret)) || !strings.Contains(text, `"from":"127.0.0.1"`) {
		t.Errorf("the list says %s", text)
	}
	did, err := f.store.Actions(t.Context(), loom.ActionQuery{})
	if err != nil || len(did) != 2 {
		t.Fatal(did, err)
	}
	for i, want := range []loom.Action{{By: "token ci", Verb: "look", Object: "j"}, {By: "token the-admin", Verb: "create-token", Object: "ci"}} {
		if got := did[i]; got.By != want.By || got.Verb != want.Verb || got.Object != want.Object || strings.Contains(got.Why, made.Secret) {
			t.Errorf("the audit says %+v, want %+v", got, want)
		}
	}
	kept, err := os.ReadFile(filepath.Join(f.dir, api.TokensFile))
	if err != nil || bytes.Contains(kept, []byte(made.Secret)) || bytes.Contains(kept, []byte(made.Secret[len(api.TokenPrefix):])) {
		t.Errorf("the file has the token: %s, %v", kept, err)
	}
	for body, status := range map[string]int{
		`{"name":"ci","role":"viewer"}`: 409, `{"name":"x","role":"root"}`: 422, `{"name":"../x","role":"viewer"}`: 422,
		`{"name":"x","role":"viewer","expires":"2020-01-01T00:00:00Z"}`: 422, `{"name":"x","role":"viewer","expires":"2999-01-01T00:00:00Z"}`: 422,
	} {
		answer, text := f.ask(t, "POST", "/api/v1/tokens", strings.NewReader(body), admin...)
		refused(t, body, answer, text, status)
	}
	answer, text = f.ask(t, "DELETE", "/api/v1/tokens/nobody", nil, admin...)
	refused(t, "revoking what is not", answer, text, 404)
}

// certify writes a certificate for names, and returns its files.
func certify(t *testing.T, dir string, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certify(t, dir, "loom.example")
	f := build(t, func(d *api.Door) {
		var err error
		if d.Certificate, err = api.LoadCertificate(cert, key, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	})
	answer, text := f.ask(t, "GET", "/api/v1/status", nil, "Authorization", f.as(api.RoleViewer), "Host", "loom.example")
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Strict-Transport-Security") == "" || answer.TLS.Version != tls.VersionTLS13 || answer.ProtoMajor != 2 {
		t.Errorf("%s %s over %s: %v", answer.Status, text, answer.Proto, answer.Header)
	}
	answer, text = f.ask(t, "GET", "/api/v1/status", nil, "Authorization", f.as(api.RoleViewer), "Host", "evil.example")
	refused(t, "a name that the certificate does not have", answer, text, http.StatusMisdirectedRequest)
	old := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}} //nolint:gosec // that is what is tried
	if c, err := old.DialContext(t.Context(), "tcp", f.addr); err == nil {
		t.Errorf("TLS 1.2 is spoken: %v", c.Close())
	}
	if got := f.send(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 400 ") {
		t.Errorf("without TLS: %q", got)
	}
	if err := os.Chmod(key, 0o644); err != nil { //nolint:gosec // that is what is tried
		t.Fatal(err)
	}
	if _, err := api.LoadCertificate(cert, key, nil); err == nil || !strings.Contains(err.Error(), "chmod 600 "+key) {
		t.Errorf("a key that all can read: %v", err)
	}
	if _, err := api.LoadCertificate(cert, filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no key: %v", err)
	}
}
