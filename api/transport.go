package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustinlacewell/loom"
)

// How long a client waits for others.
const (
	dialTime = 10 * time.Second // for a connection, and for its keys
	pingTime = 15 * time.Second // for a sign of life, when several requests share a connection
)

// A Client asks a daemon, by one of three ways: Socket, URL or Dial. It is the
// daemon's store too: for whom it may do what it wants with it, except to close
// it. It is safe for concurrent use, and connects when it must: a daemon that is
// started anew is found again. Its fields must not change after the first request.
//
// Errors are those of the daemon, with its words: see the package's comment. If
// nobody answers they wrap ErrNoDaemon, if the caller is not let in
// fs.ErrPermission.
type Client struct {
	// Socket is a unix socket: SocketFile in the daemon's state directory.
	Socket string

	// URL is where the daemon is reached over a network: https://HOST:PORT, or
	// http:// on this machine. A path is put before the API's own.
	URL   string
	Token loom.Secret // who asks, over a URL; "": nobody in particular
	Roots string      // file of certificates (PEM) to trust instead of the system's; "": those

	// Dial makes a connection that carries HTTP/2, over which all requests go.
	// Name is what errors call where it leads.
	Dial func(ctx context.Context) (net.Conn, error)
	Name string

	once      sync.Once
	base      string // what the API's paths follow
	http      *http.Client
	transport *http.Transport
	broken    error // why nothing can be asked
}

// Close ends the connections that are not in use. The daemon's store stays open.
func (c *Client) Close() error {
	if c.connect(); c.transport != nil {
		c.transport.CloseIdleConnections()
	}
	return nil
}

// connect makes the client ready.
func (c *Client) connect() *Client {
	c.once.Do(func() {
		t := &http.Transport{
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     idleTime / 2,
			DisableCompression:  true,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: pingTime, PingTimeout: pingTime},
		}
		c.base = "http://loomd" + Prefix
		switch {
		case c.Dial != nil:
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) }
			t.Protocols = new(http.Protocols)
			t.Protocols.SetUnencryptedHTTP2(true)
			t.MaxConnsPerHost = 1 // it has room for all requests
		case c.URL != "":
			c.broken = c.overNetwork(t)
		default:
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
			}
		}
		c.transport = t
		c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // no daemon sends anybody anywhere else
		}}
	})
	return c
}

// ErrURL is behind the errors of a client whose URL can't be used, or not with a
// token: nothing was sent.
var ErrURL = errors.New("this URL can't be used")

// A urlError says why, as an ErrURL.
type urlError struct{ text string }

func (e *urlError) Error() string { return e.text }
func (*urlError) Unwrap() error   { return ErrURL }

// overNetwork makes a transport to the client's URL, and says what is wrong with
// that.
func (c *Client) overNetwork(t *http.Transport) error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return &urlError{fmt.Sprintf("server %s: write https://HOST:PORT", c.URL)}
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return &urlError{fmt.Sprintf("server %s: write no more than https://HOST:PORT/PATH: a token is given apart", u.Redacted())}
	}
	if u.Scheme == "http" && c.Token != "" && !loopback(u.Hostname()) {
		return &urlError{fmt.Sprintf("server %s: the token would cross the network for all to read: write https://", c.URL)}
	}
	c.base = strings.TrimRight(u.String(), "/") + Prefix
	t.Proxy = http.ProxyFromEnvironment
	t.DialContext = (&net.Dialer{Timeout: dialTime}).DialContext
	t.TLSHandshakeTimeout = dialTime
	t.ForceAttemptHTTP2 = true
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Roots == "" {
		return nil
	}
	text, err := os.ReadFile(c.Roots)
	if err != nil {
		return fmt.Errorf("certificates to trust: %w", err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("certificates to trust: there is none in %s: it has to be a PEM file (-----BEGIN CERTIFICATE-----)", c.Roots)
	}
	return nil
}

// loopback reports whether a host is this machine for certain.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// where names the daemon, for errors.
func (c *Client) where() string {
	switch {
	case c.Dial != nil:
		return c.Name
	case c.URL != "":
		return c.URL
	}
	return "socket " + c.Socket
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
	r, err := c.encode(ctx, q)
	if err != nil {
		return err
	}
	answer, err := c.send(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read to its end
	if answer.StatusCode >= 300 {
		return c.refused(answer)
	}
	if err := json.NewDecoder(answer.Body).Decode(out); err != nil {
		return c.explain(ctx, err)
	}
	_, err = io.Copy(io.Discard, answer.Body) // so that the connection can be used again
	return c.explain(ctx, err)
}

// Do sends a request of the caller's own making and returns the answer, whatever its
// status is; the caller closes its body. Path is whole: it begins with Prefix, or
// is one of those beside it. The headers are sent beside those that say who asks.
func (c *Client) Do(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.connect().base, Prefix)+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	for name, values := range header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	return c.send(r)
}

// send sends a request. The error says why there is no answer.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if c.connect(); c.broken != nil {
		return nil, c.broken
	}
	if c.Token != "" && c.URL != "" {
		r.Header.Set("Authorization", "Bearer "+string(c.Token))
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return answer, nil
}

func (c *Client) encode(ctx context.Context, q request) (*http.Request, error) {
	var text io.Reader
	if q.body != nil {
		encoded, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("ask the daemon: %w", err)
		}
		text = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, c.connect().base+q.path, text)
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
	down := &unanswered{where: c.where(), err: cause(err)}
	switch {
	case c.Dial != nil && errors.Is(err, ErrNoDaemon), c.Dial != nil && errors.Is(err, fs.ErrPermission):
		return err // whoever dials has said it all
	case c.Dial == nil && c.URL == "":
		c.explainSocket(down, err)
	case c.URL != "":
		c.explainNetwork(down, err)
	}
	if down.what == "" {
		down.what = "the daemon broke off before it had answered, and what was asked for may have been done or not"
	}
	return down
}

// explainSocket says why a socket does not lead to a daemon.
func (c *Client) explainSocket(down *unanswered, err error) {
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
	}
}

// explainNetwork says why a URL does not lead to a daemon.
func (c *Client) explainNetwork(down *unanswered, err error) {
	op, _ := errors.AsType[*net.OpError](err)
	resolve, _ := errors.AsType[*net.DNSError](err)
	_, stranger := errors.AsType[x509.UnknownAuthorityError](err)
	_, misnamed := errors.AsType[x509.HostnameError](err)
	_, outdated := errors.AsType[x509.CertificateInvalidError](err)
	record, plain := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case resolve != nil:
		down.what = "no machine of this name is known here"
	case errors.Is(err, syscall.ECONNREFUSED):
		down.what = "nobody listens there: is the daemon up, and its http: door open on this address?"
	case op != nil && op.Op == "dial" && op.Timeout():
		down.what = "nothing came back: a firewall, a wrong address, or the machine is down"
	case op != nil && op.Op == "dial":
		down.what = "there is no way to it"
	case stranger:
		down.what = "its certificate is by nobody whom this machine trusts: if it is the right one, name the file of its authority, or its own, with --ca"
	case misnamed:
		down.what = "its certificate is for another name: use that in the URL, or have one made for this"
	case outdated:
		down.what = "its certificate does not hold"
	case plain && string(record.RecordHeader[:]) == "HTTP/"[:len(record.RecordHeader)], strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		down.what = "it speaks without TLS: write http:// if it is on this machine, or give it a certificate (api: tls:)"
	default:
		return
	}
	down.kinds = []error{ErrNoDaemon}
}

// unanswered is why there was no answer.
type unanswered struct {
	where, what string
	kinds       []error
	err         error
}

func (e *unanswered) Error() string { return fmt.Sprintf("%s: %s: %v", e.where, e.what, e.err) }

func (e *unanswered) Unwrap() []error { return append([]error{loom.ErrStoreDown, e.err}, e.kinds...) }

// unknown is why a daemon has no answer at all.
const unknown = "the daemon is older than this program and does not know what is asked for: start it anew"

// refused returns the problem that an answer is.
func (c *Client) refused(answer *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(answer.Body, bodyBytes)) // what there is of it is told
	p := &Problem{}
	if err := json.Unmarshal(text, p); err == nil && p.Status != 0 {
		if p.Type == "about:blank" && p.Status == http.StatusNotFound {
			p.Detail = unknown
		}
		return p
	}
	said := &unanswered{where: c.where(), err: errors.New(strings.TrimSuffix(answer.Status+": "+firstLine(text), ": "))}
	switch {
	case answer.StatusCode == http.StatusBadRequest && bytes.Contains(text, []byte("HTTPS server")):
		said.what, said.kinds = "it wants TLS: write https://", []error{ErrNoDaemon}
	case c.URL != "" && answer.StatusCode < 400:
		said.what, said.kinds = "whoever answers there is no loomd", []error{ErrNoDaemon}
	case answer.StatusCode == http.StatusNotFound && c.URL == "":
		return &Problem{Type: "about:blank", Title: answer.Status, Status: answer.StatusCode, Detail: unknown}
	case answer.StatusCode == http.StatusNotFound:
		said.what, said.kinds = "whoever answers there is no loomd, or an older one", []error{ErrNoDaemon}
	case c.URL != "" && answer.StatusCode >= http.StatusBadGateway && answer.StatusCode <= http.StatusGatewayTimeout:
		said.what, said.kinds = "there is something before the daemon, which does not reach it", []error{ErrNoDaemon}
	default:
		return &Problem{Type: "about:blank", Title: answer.Status, Status: answer.StatusCode,
			Detail: fmt.Sprintf("the daemon answered %s", said.err)}
	}
	return said
}

// firstLine is what a page that is meant for people says, as far as it fits.
func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return strings.Trim(strconv.Quote(string(line[:min(len(line), 200)])), `"`)
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
