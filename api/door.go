package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A Door is where requests come in, and who may. Its fields must not change once
// it is served.
//
// Whoever sends a token (Authorization: Bearer) is whom the token says. Through a
// unix socket, the daemon's own user and root come without one, as admins. Nobody
// else does, except to ask whether the daemon is well and for the document.
type Door struct {
	// Listener is where the door is. Serve closes it.
	Listener net.Listener

	// Group names the group whose members come in through a unix socket without a
	// token too, with Role. "": there is none.
	Group string
	Role  Role

	// Certificate is shown to those who come over TCP; nil: there is no TLS.
	Certificate *Certificate

	// Hosts are names by which the door is known, beside the addresses at which
	// it is, those of this machine to itself, and those in the Certificate. A web
	// page that has a browser come by another name is turned away.
	Hosts []string

	gid      int // of Group
	failures failures
	origins  http.CrossOriginProtection
}

// open makes the door ready.
func (d *Door) open() error {
	if d.Group == "" {
		return nil
	}
	gid, err := groupID(d.Group)
	d.gid = gid
	return err
}

// groupID returns the number of a group.
func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("there is no group %q on this machine: make it (groupadd %s), or name another", name, name)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1, fmt.Errorf("group %q has no number: %w", name, err)
	}
	return gid, nil
}

// unix reports whether the door is on this machine only, and the system says who
// comes.
func (d *Door) unix() bool {
	_, ok := d.Listener.Addr().(*net.UnixAddr)
	return ok
}

type peerKey struct{}

// identify notes who is at the other end of a connection, if the system says so.
func (d *Door) identify(ctx context.Context, c net.Conn) context.Context {
	if w, ok := c.(*counted); ok {
		c = w.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	p, err := peerOf(u)
	if err != nil {
		return ctx // nobody is trusted then
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// public reports whether a request over TCP needs no token: what it asks for says
// nothing of what is in there.
func public(r *http.Request) bool {
	if !safe(r.Method) {
		return false
	}
	switch path := r.URL.Path; path {
	case "/healthz", "/readyz", "/docs":
		return true
	default:
		return strings.HasPrefix(path, "/openapi") || strings.HasPrefix(path, "/docs/")
	}
}

// admit looks at a request before anything of it is done. It returns the request
// with the principal whose it is, and what to call when it is done; or why it is
// turned away.
func (s *Server) admit(d *Door, w http.ResponseWriter, r *http.Request) (*http.Request, func(), *Problem) {
	if p := d.misdirected(r); p != nil {
		return nil, nil, p
	}
	if err := d.origins.Check(r); err != nil {
		return nil, nil, problem(fmt.Errorf("%w: a web page of another site sent this request (%q), and only this daemon's own may: %w", fs.ErrPermission, r.Header.Get("Origin"), err))
	}
	text, err := bearer(r)
	switch {
	case err != nil:
		return nil, nil, unauthorized(w, err)
	case text != "":
		return s.admitToken(d, w, r, text)
	case !d.unix() && public(r):
		return r, func() {}, nil
	case !d.unix():
		return nil, nil, unauthorized(w, errors.New("send a token (Authorization: Bearer ...): \"loomd token create\" makes one"))
	}
	peer, known := r.Context().Value(peerKey{}).(peer)
	who, ok := d.principal(peer)
	if !known || !ok {
		return nil, nil, d.refuse(peer, known)
	}
	return r.WithContext(withPrincipal(r.Context(), who)), func() {}, nil
}

// principal returns who comes through a unix socket.
func (d *Door) principal(p peer) (Principal, bool) {
	switch {
	case p.trusted():
		return Principal{Name: p.name(), Role: RoleAdmin, Via: "socket", own: true}, true
	case d.Group != "" && slices.Contains(p.groups, d.gid):
		return Principal{Name: p.name(), Role: d.Role, Via: "socket"}, true
	}
	return Principal{}, false
}

// refuse says why a peer is not let in.
func (d *Door) refuse(p peer, known bool) *Problem {
	who, own := "whoever connects this way", peer{uid: os.Getuid()}
	if known {
		who = "user " + p.name()
	}
	only := "root"
	if own.uid != 0 {
		only = own.name() + " and root"
	}
	if d.Group != "" {
		only += ", and members of the group " + d.Group
	}
	return problem(fmt.Errorf("%w: %s is not let in: this daemon works for %s", fs.ErrPermission, who, only))
}

// bearer returns the token that a request has, or "".
func bearer(r *http.Request) (string, error) {
	all := r.Header.Values("Authorization")
	if len(all) == 0 {
		return "", nil
	}
	scheme, text, _ := strings.Cut(all[0], " ")
	text = strings.TrimSpace(text)
	if len(all) > 1 || !strings.EqualFold(scheme, "Bearer") || text == "" {
		return "", errors.New("the request's Authorization is not understood: send one, which is Bearer and a token")
	}
	return text, nil
}

// admitToken is admit for a request with a token. Addresses from which tokens
// come that are not good are heard out less and less; a good token is good from
// there too, so that nobody can lock out others.
func (s *Server) admitToken(d *Door, w http.ResponseWriter, r *http.Request, text string) (*http.Request, func(), *Problem) {
	if s.Tokens == nil {
		return nil, nil, unauthorized(w, errors.New("this server has no tokens"))
	}
	from := source(r)
	ctx, cancel := context.WithCancelCause(r.Context())
	who, leave, err := s.Tokens.enter(text, from, cancel)
	if err != nil {
		cancel(nil)
		if wait := d.failures.note(from, time.Now()); wait > 0 {
			return nil, nil, tooMany(w, wait)
		}
		s.log().Warn("token refused", "from", from, "err", err)
		return nil, nil, unauthorized(w, err)
	}
	return r.WithContext(withPrincipal(ctx, who)), func() { leave(); cancel(nil) }, nil
}

// source is the address that a request comes from, as failures are counted: all of
// one network of IPv6 is one. "socket" stands for this machine.
func source(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "socket"
	}
	return network(at.Addr())
}

func network(a netip.Addr) string {
	if a = a.Unmap().WithZone(""); a.Is6() && !a.IsLoopback() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// unauthorized says that it is not known, or not believed, who sends a request.
func unauthorized(w http.ResponseWriter, why error) *Problem {
	w.Header().Set("WWW-Authenticate", `Bearer realm="loom"`)
	return problem(fmt.Errorf("%w: %w", errUnauthorized, why))
}

func tooMany(w http.ResponseWriter, wait time.Duration) *Problem {
	seconds := int((wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	return &Problem{Type: "urn:loom:too-many", Title: "Too many requests", Status: http.StatusTooManyRequests,
		Detail: fmt.Sprintf("too many tokens that are not good came from your address: try again in %d seconds, with one that is", seconds)}
}

// misdirected returns why a request is not for this door, or nil. A name that is
// not the door's own may be another site's, which has had a browser look here for
// it (DNS rebinding).
func (d *Door) misdirected(r *http.Request) *Problem {
	host := hostOf(r.Host)
	if d.known(host, r) {
		return nil
	}
	return &Problem{Type: "urn:loom:misdirected", Title: "Misdirected request", Status: http.StatusMisdirectedRequest,
		Detail: fmt.Sprintf("this daemon is not known as %q: use the address it listens at, or add the name to hosts: under api: in its configuration", host)}
}

// hostOf is the name in a Host header, without its port.
func hostOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func (d *Door) known(host string, r *http.Request) bool {
	if host == "localhost" || slices.ContainsFunc(d.Hosts, func(h string) bool { return hostOf(h) == host }) {
		return true
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		return addr.IsLoopback() || local != nil && hostOf(local.String()) == addr.Unmap().String()
	}
	if d.unix() {
		return !strings.Contains(host, ".") // no site is called so
	}
	return d.Certificate != nil && d.Certificate.names(host)
}

// protect adds the headers that tell browsers to do nothing with an answer but
// what it is for. Whoever answers with a page says what may be done with that.
func (d *Door) protect(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if d.Certificate != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// harmless is JSON in which what would mean something to HTML is escaped, should
// anybody put it there as it is.
func harmless() huma.Format {
	return huma.Format{
		Marshal:   func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
		Unmarshal: json.Unmarshal,
	}
}
