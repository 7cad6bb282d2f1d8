package loom

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// APIConfig says through which doors others reach the daemon, beside the socket
// in the state directory, which is for its own user.
type APIConfig struct {
	Listen string       // "unix": the socket in the state directory
	Socket SocketConfig // another one, for others on the machine
	HTTP   string       // "host:port"; "": not on the network
	TLS    TLSConfig    // of HTTP
	Hosts  []string     // names by which HTTP is known, beside its address and those in its certificate

	file string
	at   map[string]place // of its keys
}

// SocketConfig says who else on the machine may come in, through a socket that is
// not in the state directory. Without Path and Group there is none.
type SocketConfig struct {
	Path  string
	Group string      // whose members come in
	Role  string      // as what; "": operator
	Mode  fs.FileMode // of the file; 0: 0660
}

// TLSConfig says which certificate HTTP has. Without one there is no TLS.
type TLSConfig struct {
	Cert, Key string // files
}

type place struct{ line, col int }

// Problem returns err with the place of a key of api: in the configuration, such
// as "tls".
func (c APIConfig) Problem(key string, err error) *ManifestError {
	at := c.at[key]
	return &ManifestError{File: c.file, Line: at.line, Col: at.col, Err: fmt.Errorf("api.%s: %w", key, err)}
}

// Exposed returns why HTTP must stay closed, as others could listen in and pass
// themselves off as the daemon; or nil.
func (c APIConfig) Exposed() *ManifestError {
	if c.HTTP == "" || c.TLS.Cert != "" || loopback(c.HTTP) {
		return nil
	}
	_, port, _ := net.SplitHostPort(c.HTTP)
	return c.Problem("http", fmt.Errorf("%s can be reached by others than this machine, and without TLS they can read every token: "+
		"this door stays closed. Give it a certificate (tls: {cert: FILE, key: FILE}), or listen on 127.0.0.1:%s, or leave it out and use --server ssh://HOST", c.HTTP, port))
}

// loopback reports whether an address is reached from this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

type apiSpec struct {
	Listen listenSpec  `help:"unix: the socket in the state directory"`
	Socket *socketSpec `help:"a socket for others on this machine"`
	HTTP   addressSpec `yaml:"http" help:"address to listen at, with the port"`
	TLS    *tlsSpec    `yaml:"tls" help:"certificate of http"`
	Hosts  []string    `help:"names by which http is known, beside its address and those in the certificate"`
}

type socketSpec struct {
	Path  string   `help:"file of the socket"`
	Group string   `help:"group whose members come in"`
	Role  roleSpec `help:"what they may do: viewer, operator or admin"`
	Mode  modeSpec `help:"of the file, such as 0660"`
}

type tlsSpec struct {
	Cert string `loom:"required" help:"file of the certificate and those that vouch for it, in PEM"`
	Key  string `loom:"required" help:"file of its key, in PEM"`
}

type (
	listenSpec  string
	addressSpec string
	roleSpec    string
	modeSpec    fs.FileMode
)

func (l *listenSpec) UnmarshalText(text []byte) error {
	err := oneOf((*string)(l), text, "unix")
	if _, _, address := net.SplitHostPort(string(text)); err != nil && address == nil {
		return fmt.Errorf("%w; for an address write http: %s", err, text)
	}
	return err
}

func (r *roleSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(r), text, "viewer", "operator", "admin")
}

func (a *addressSpec) UnmarshalText(text []byte) error {
	*a = addressSpec(text)
	if len(text) == 0 {
		return nil
	}
	_, port, err := net.SplitHostPort(string(text))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("write an address such as 127.0.0.1:7077, not %q", text)
	}
	return nil
}

// UnmarshalText reads the mode of a socket, of which only reading and writing
// together mean anything.
func (m *modeSpec) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 12)
	for bits := n; err == nil && bits > 0; bits >>= 3 {
		if b := bits & 7; b != 0 && b != 6 {
			err = errors.New("not a mode of a socket")
		}
	}
	if err != nil || n == 0 || n > 0o666 {
		return fmt.Errorf("write the mode of a socket, such as 0660, not %q", text)
	}
	*m = modeSpec(n)
	return nil
}

// doors makes an APIConfig of what the main file says at a node, and warns of
// what would be open too far.
func (l *load) doors(spec *apiSpec, n *yaml.Node) APIConfig {
	c := APIConfig{Listen: "unix", HTTP: string(spec.HTTP), Hosts: spec.Hosts, file: l.file, at: map[string]place{}}
	keys := map[string]bind.Pair{}
	if n != nil {
		keys = l.keys(n)
	}
	for name, pair := range keys {
		c.at[name] = place{pair.Key.Line, pair.Key.Column}
	}
	if s := spec.Socket; s != nil {
		c.Socket = SocketConfig{Path: l.path(s.Path), Group: s.Group, Role: string(s.Role), Mode: fs.FileMode(s.Mode)}
		if s.Group == "" {
			l.report(problemAt(keys["socket"].Key, "api.socket: say which group it is for: the daemon's own user has a socket in the state directory"))
		}
	}
	if t := spec.TLS; t != nil {
		c.TLS = TLSConfig{Cert: l.path(t.Cert), Key: l.path(t.Key)}
		if spec.HTTP == "" {
			l.report(problemAt(keys["tls"].Key, "api.tls: there is no api.http that it could be for"))
		}
	}
	if e := c.Exposed(); e != nil {
		l.warnUnacted(keys["http"].Key, "http", errors.Unwrap(e.Err).Error())
	}
	return c
}
