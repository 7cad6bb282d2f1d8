package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The bounds of what the other side says.
const (
	answerBytes = 64 << 10 // read
	answerShown = 300
	mostWait    = 6 * time.Hour // that it may ask for
)

// An httpSpec is how a web server is reached.
type httpSpec struct {
	CA      string        `yaml:"ca" help:"file of certificates to trust instead of the system's"`
	Allow   []string      `help:"addresses, or networks, that are refused otherwise: 127.0.0.1, 10.0.0.0/8"`
	Timeout time.Duration `help:"time for one attempt"`
}

// guarded returns a client for one URL of the configuration. It follows no
// redirect, uses no proxy, and connects to no address of this machine, its own
// network or a cloud's metadata service, unless the configuration says so: what a
// name leads to is not always up to who wrote it down.
func (s *httpSpec) guarded(r *reading, t *target, key, address string) *http.Client {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		r.wrong(key, "that is no URL: %v", bare(err))
		return nil
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		r.wrong(key, "write a URL that begins with https:// or http://")
		return nil
	case u.User != nil:
		r.wrong(key, "write no password into a URL, which others log: use a header")
		return nil
	}
	if s.Timeout < 0 || s.Timeout > 5*time.Minute {
		r.wrong(t.kindOf(key)+".timeout", "write a duration up to 5m")
	} else if s.Timeout > 0 {
		t.time = s.Timeout
	}
	g := r.guard(t.kindOf(key), u.Hostname(), s.Allow)
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		config.RootCAs = r.pool(t.kindOf(key)+".ca", s.CA)
	}
	return &http.Client{
		Transport:     g.transport(config),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport returns one that connects through the guard, and uses no proxy.
func (g *guard) transport(config *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: g.control}
	return &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: answerBytes, IdleConnTimeout: time.Second, MaxIdleConnsPerHost: 1, DisableCompression: true,
	}
}

// guard returns the guard of one host of the configuration, and says what is wrong
// in what it is to allow.
func (r *reading) guard(kind, host string, allow []string) *guard {
	g := &guard{host: host, kind: kind}
	for _, a := range allow {
		p, err := netip.ParsePrefix(a)
		if one, err2 := netip.ParseAddr(a); err2 == nil {
			p, err = netip.PrefixFrom(one, one.BitLen()), nil
		}
		if err != nil {
			r.wrong(kind+".allow", "%q is neither an address nor a network such as 10.0.0.0/8", a)
			continue
		}
		g.allow = append(g.allow, p.Masked())
	}
	return g
}

// kindOf is the first key of a path.
func (t *target) kindOf(path string) string {
	kind, _, _ := strings.Cut(path, ".")
	return kind
}

// pool reads certificates.
func (r *reading) pool(key, name string) *x509.CertPool {
	file := r.at.Path(name)
	text, err := os.ReadFile(file)
	if err != nil {
		r.wrong(key, "%v", err)
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		r.wrong(key, "there is no certificate in %s", file)
		return nil
	}
	return pool
}

// A guard looks at the addresses that a client connects to.
type guard struct {
	host  string // of the URL
	kind  string // of the target, which is the key under which allow stands
	allow []netip.Prefix
}

// control is asked once a name is resolved, so that what is looked at is what is
// connected to.
func (g *guard) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %s: %w", address, err)
	}
	return g.refuse(ap.Addr())
}

// refuse returns why an address is not connected to, or nil.
func (g *guard) refuse(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(a) {
			return nil
		}
	}
	if written, err := netip.ParseAddr(strings.Trim(g.host, "[]")); err == nil && a.IsLoopback() && written.Unmap() == a || g.host == "localhost" && a.IsLoopback() {
		return nil // whoever wrote that meant it
	}
	if what := inner(a); what != "" {
		return &guardError{fmt.Sprintf("%s leads to %s, which is %s: add it to allow (allow: [%q] under %s) if that is meant", g.host, a, what, a, g.kind)}
	}
	return nil
}

type guardError struct{ why string }

func (e *guardError) Error() string { return e.why }

// inner says what an address is that no public name should lead to, or "".
func inner(a netip.Addr) string {
	in := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(a) }
	switch {
	case a.IsUnspecified(), in("0.0.0.0/8"):
		return "no address of anybody"
	case a.IsLoopback():
		return "this machine"
	case a.IsLinkLocalUnicast(), in("fd00:ec2::/32"), in("100.100.100.200/32"), in("192.0.0.192/32"), in("168.63.129.16/32"):
		return "of this link, where clouds have their metadata service"
	case a.IsMulticast(), in("255.255.255.255/32"):
		return "many machines at once"
	case in("fc00::/7"):
		return "a private network"
	case in("64:ff9b::/96"), in("64:ff9b:1::/48"), in("2002::/16"), in("::/96"):
		return "a way into IPv4 addresses that can't be looked at"
	}
	return ""
}

// exchange sends a request and returns what was answered, for people.
func exchange(ctx context.Context, c *http.Client, method, address string, header http.Header, body []byte) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return "", bare(err)
	}
	r.Header = header.Clone()
	r.Header.Set("User-Agent", agent())
	answer, err := c.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", bare(err)
	}
	defer answer.Body.Close()                                       //nolint:errcheck // it was only read
	text, _ := io.ReadAll(io.LimitReader(answer.Body, answerBytes)) // what there is of it is told
	said := answer.Status
	if shown := newCleaner(nil).line(strings.TrimSpace(string(text)), answerShown); shown != "" {
		said += ": " + shown
	}
	switch code := answer.StatusCode; {
	case code >= 200 && code < 300:
		return said, nil
	case code >= 300 && code < 400:
		return "", &refusal{err: fmt.Errorf("it answered %s, and redirects are not followed: write the URL that it leads to", said), only: true}
	case code == http.StatusGone:
		return "", &refusal{err: fmt.Errorf("it answered %s", said), only: true, final: true}
	default:
		alone := code < 500 && code != http.StatusTooManyRequests && code != http.StatusRequestTimeout && code != http.StatusTooEarly
		return "", &refusal{err: fmt.Errorf("it answered %s", said), only: alone, wait: retryAfter(answer.Header.Get("Retry-After"), time.Now())}
	}
}

// bare returns an error without the URL, in which there may be a secret.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// retryAfter is how long an answer asks to wait.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	var d time.Duration
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), mostWait)
}

// agent names this program to others.
func agent() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	return "loom/" + version
}
