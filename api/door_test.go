package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// tcpPipes are pipes that look as if they came over the network.
type tcpPipes struct{ *pipes }

func (tcpPipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7077} }

// Whoever comes over the network and then dawdles is cut off, in the handshake of
// TLS too.
func TestDawdlers(t *testing.T) {
	cert := certificateFor(t)
	for _, tt := range []struct {
		name, sends string
		tls         bool
		after       time.Duration
		want        string
	}{
		{"says nothing", "", false, headerTime, ""},
		{"begins TLS", "\x16\x03\x01", true, headerTime, ""},
		{"sends a header byte by byte", "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 1000), false, headerTime, ""},
		{"keeps back its body", "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345", false, idleTime, "401 Unauthorized"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				d := &Door{Listener: tcpPipes{p}}
				if tt.tls {
					d.Certificate = cert
				}
				go func() { served <- (&Server{Store: &memory.Store{}, Log: slog.New(slog.DiscardHandler)}).Open(ctx, d) }()
				c := p.dial()
				var wg sync.WaitGroup
				defer wg.Wait()
				defer c.Close()
				wg.Go(func() {
					for i := range len(tt.sends) {
						if _, err := io.WriteString(c, tt.sends[i:i+1]); err != nil {
							return
						}
						<-time.After(50 * time.Millisecond)
					}
				})
				began := time.Now()
				got, _ := io.ReadAll(c) // to the end of the connection
				if took := time.Since(began); took > tt.after+5*time.Second {
					t.Errorf("it was cut off after %v, want %v", took, tt.after)
				}
				if !strings.Contains(string(got), tt.want) {
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

func TestTooManyConnections(t *testing.T) {
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 3, 2, slog.New(slog.DiscardHandler))
	accepted := make(chan net.Conn, 10)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	})
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	dial()
	first, _ := <-accepted, <-accepted
	third := dial()
	_ = third.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third connection from one address is kept: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err == nil {
		t.Error("closing a connection twice is no error")
	}
	dial()
	(<-accepted).Close()
	if l.enter("192.0.2.1"); l.enter("192.0.2.2") && l.enter("192.0.2.3") {
		t.Errorf("there are %d connections", l.conns)
	}
}

func TestFailuresAreBounded(t *testing.T) {
	var f failures
	now := time.Now()
	for i := range 3 * mostFailures {
		f.note(fmt.Sprint(i), now)
	}
	if len(f.of) != mostFailures || f.order.Len() != mostFailures {
		t.Errorf("%d addresses are kept in mind, in a list of %d", len(f.of), f.order.Len())
	}
	var g failures
	for i := range failBurst {
		if wait := g.note("x", now); wait != 0 {
			t.Errorf("failure %d: wait %v", i, wait)
		}
	}
	if wait := g.note("x", now); wait != failEvery {
		t.Errorf("one too many: wait %v", wait)
	}
	if wait := g.note("x", now.Add(failEvery/2)); wait != failEvery/2 {
		t.Errorf("still too many: wait %v", wait)
	}
	if wait := g.note("x", now.Add(failEvery)); wait != 0 {
		t.Errorf("later: wait %v", wait)
	}
	if wait := g.note("x", now.Add(-time.Hour)); wait <= 0 {
		t.Error("a clock that was set back gives chances")
	}
}

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "2001:db8:1:2::5": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64", "::1": "::1",
	} {
		if got := network(netip.MustParseAddr(addr)); got != want {
			t.Errorf("network(%s) = %s, want %s", addr, got, want)
		}
	}
}

// Who comes through a socket is what the system says.
func TestPrincipals(t *testing.T) {
	d := &Door{Group: "loom", Role: RoleOperator, gid: 77}
	self := os.Getuid()
	for _, tt := range []struct {
		peer peer
		want Role
	}{
		{peer{uid: 0}, RoleAdmin}, {peer{uid: self}, RoleAdmin},
		{peer{uid: 4321, groups: []int{5, 77}}, RoleOperator}, {peer{uid: 4321, groups: []int{5}}, ""}, {peer{uid: 4321}, ""},
	} {
		if got, ok := d.principal(tt.peer); got.Role != tt.want || ok != (tt.want != "") || got.own != (tt.want == RoleAdmin) {
			t.Errorf("%+v is %+v, want the role %q", tt.peer, got, tt.want)
		}
	}
	if got, ok := (&Door{}).principal(peer{uid: 4321, groups: []int{0}}); ok {
		t.Errorf("without a group, a member of root's is %+v", got)
	}
}

func TestListenAt(t *testing.T) {
	dir, err := os.MkdirTemp("", "loom") //nolint:usetesting // that of the test may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	group := ownGroup(t)
	file := filepath.Join(dir, "made", "x.sock")
	l, err := ListenAt(t.Context(), file, group, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil { //nolint:gosec // that is what is tried
		t.Fatal(err)
	}
	if _, err := ListenAt(t.Context(), filepath.Join(open, "x.sock"), group, 0); err == nil || !strings.Contains(err.Error(), "chmod go-w "+open) {
		t.Errorf("where others can write: %v", err)
	}
	if _, err := ListenAt(t.Context(), file, "no-such-group", 0); err == nil || !strings.Contains(err.Error(), "groupadd no-such-group") {
		t.Errorf("for no group: %v", err)
	}
}

func TestTokensFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, TokensFile)
	if err := os.WriteFile(file+".new", []byte("half of"), 0o600); err != nil { // of a process that was killed
		t.Fatal(err)
	}
	tokens, err := OpenTokens(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-tokens.Usable():
		t.Error("there is no token, and it is usable")
	default:
	}
	secret, _, err := tokens.Create("a", RoleViewer, time.Now().Add(time.Hour), "me")
	if err != nil {
		t.Fatal(err)
	}
	<-tokens.Usable()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	enter := func() error {
		_, leave, err := tokens.enter(secret, "192.0.2.1", func(error) {})
		if err == nil {
			leave()
		}
		return err
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := enter(); err != nil {
		t.Errorf("a good token: %v", err)
	}
	if all, err := tokens.List(); err != nil || len(all) != 1 || all[0].From != "192.0.2.1" || all[0].Used.IsZero() {
		t.Errorf("List = %+v, %v", all, err)
	}
	if len(tokens.inside) != 0 {
		t.Errorf("who has left is still inside: %v", tokens.inside)
	}
	for name, text := range map[string]string{
		"not JSON": "{", "a newer version": `{"version":2,"tokens":[]}`, "an unknown key": `{"version":1,"tokens":[],"more":1}`,
		"twice":        strings.Replace(string(good), `"tokens": [`, `"tokens": [{"name":"a","role":"admin","created":"2026-01-01T00:00:00Z","expires":"2099-01-01T00:00:00Z","sha256":"`+hashOf("x")+`"},`, 1),
		"a short hash": strings.Replace(string(good), hashOf(secret), "abcd", 1), "a role that is none": strings.Replace(string(good), `"viewer"`, `"root"`, 1),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := enter(); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: a token is let in: %v", name, err)
		}
		if _, _, err := tokens.Create("b", RoleAdmin, time.Now().Add(time.Hour), ""); err == nil {
			t.Errorf("%s: it is written over", name)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := enter(); err != nil {
		t.Errorf("once it is good again: %v", err)
	}
	if err := os.Chmod(file, 0o660); err != nil { //nolint:gosec // that is what is tried
		t.Fatal(err)
	}
	if err := os.WriteFile(file, good, 0o600); err != nil { // does not change the mode
		t.Fatal(err)
	}
	if err := enter(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can write lets in: %v", err)
	}
}

// Several processes that change the tokens at once lose none.
func TestTokensAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			tokens, err := OpenTokens(dir, nil)
			for j := range 5 {
				if err == nil {
					_, _, err = tokens.Create(fmt.Sprintf("t%d-%d", i, j), RoleViewer, time.Now().Add(time.Hour), "")
				}
			}
			if err == nil {
				err = tokens.Revoke(fmt.Sprintf("t%d-0", i))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tokens, err := OpenTokens(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := tokens.List(); err != nil || len(all) != 16 {
		t.Errorf("%d tokens are left, %v", len(all), err)
	}
	if _, _, err := tokens.Create("t1-1", RoleViewer, time.Now().Add(time.Hour), ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("another of the same name: %v", err)
	}
	if err := tokens.Revoke("t1-0"); !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("revoking it twice: %v", err)
	}
}

// A token that expires has those leave who are in with it.
func TestExpiresWhileInside(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tokens, err := OpenTokens(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		secret, _, err := tokens.Create("a", RoleViewer, time.Now().Add(time.Minute), "")
		if err != nil {
			t.Fatal(err)
		}
		watching, stop := context.WithCancel(t.Context())
		defer stop()
		go tokens.watch(watching)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		began := time.Now()
		_, leave, err := tokens.enter(secret, "socket", cancel)
		if err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		leave()
		if took := time.Since(began); took < 59*time.Second || took > time.Minute+5*time.Second || !errors.Is(context.Cause(ctx), errOut) {
			t.Errorf("after %v: %v", took, context.Cause(ctx))
		}
	})
}

func TestCertificateChanges(t *testing.T) {
	cert := certificateFor(t)
	first := cert.get()
	old := cert.files
	next := certificateFor(t)
	if err := os.WriteFile(cert.cert, []byte("half of"), 0o600); err != nil {
		t.Fatal(err)
	}
	look := func() { cert.looked = time.Time{} }
	if look(); cert.get() != first {
		t.Error("a certificate that makes no sense is taken")
	}
	for from, to := range map[string]string{next.cert: cert.cert, next.key: cert.key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if look(); cert.get() == first || os.SameFile(cert.files[0], old[0]) {
		t.Error("a new certificate is not taken")
	}
	if got := cert.get(); string(got.Certificate[0]) != string(next.pair.Certificate[0]) {
		t.Error("it is another one")
	}
}

// FuzzTokens checks that what is understood of a file of tokens is all of it: that
// it is the same once it was written and read again.
func FuzzTokens(f *testing.F) {
	f.Add([]byte(`{"version":1,"tokens":[{"name":"a","role":"viewer","created":"2026-01-01T00:00:00Z","expires":"2026-02-01T00:00:00Z","sha256":"` + hashOf("x") + `"}]}`))
	f.Add([]byte(`{"version":1,"tokens":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseTokens(text)
		if err != nil {
			return
		}
		file := filepath.Join(t.TempDir(), TokensFile)
		if err := writeTokens(file, all); err != nil {
			t.Skip() // a year that JSON has no room for
		}
		again, _, err := readTokens(file)
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q: %d tokens, then %d, %v", text, len(all), len(again), err)
		}
		for i, a := range all {
			b := again[i]
			if !a.Expires.Equal(b.Expires) || a.Name != b.Name || a.Role != b.Role || a.Hash != b.Hash || !RoleAdmin.May(a.Role) {
				t.Errorf("%q: %+v, then %+v", text, a, b)
			}
		}
	})
}
