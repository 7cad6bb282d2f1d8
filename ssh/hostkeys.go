package ssh

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
	"golang.org/x/crypto/ssh"
)

// hostKeyName returns what known_hosts calls a host.
func hostKeyName(host string, port int) string {
	host = strings.ToLower(host)
	if port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// A knownKey is one line of a known_hosts file.
type knownKey struct {
	marker string // "", "@cert-authority" or "@revoked"
	hosts  string // patterns, or a hash
	key    ssh.PublicKey
	place  string // file:line
}

// parseKnownHosts reads known_hosts lines. Those that are not understood are
// left out, as ssh does.
func parseKnownHosts(file string, text []byte) []knownKey {
	var all []knownKey
	n := 0
	for line := range bytes.Lines(text) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		var k knownKey
		if fields[0][0] == '@' {
			k.marker, fields = fields[0], fields[1:]
			if k.marker != "@cert-authority" && k.marker != "@revoked" {
				continue
			}
		}
		if len(fields) < 3 {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil {
			continue
		}
		key, err := ssh.ParsePublicKey(blob)
		if err != nil || key.Type() != fields[1] {
			continue
		}
		k.hosts, k.key, k.place = fields[0], key, file+":"+strconv.Itoa(n)
		all = append(all, k)
	}
	return all
}

// covers reports whether the line is about the host of this name.
func (k *knownKey) covers(name string) bool {
	if strings.HasPrefix(k.hosts, "|") {
		return hashMatches(k.hosts, name)
	}
	return matches(strings.Split(k.hosts, ","), []string{name})
}

// hashMatches reports whether |1|salt|hash is the name's.
func hashMatches(hash, name string) bool {
	parts := strings.Split(hash, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return false
	}
	salt, err1 := base64.StdEncoding.DecodeString(parts[2])
	want, err2 := base64.StdEncoding.DecodeString(parts[3])
	if err1 != nil || err2 != nil {
		return false
	}
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return hmac.Equal(mac.Sum(nil), want)
}

// A hostKeyStore reads known_hosts files, and again when they have changed.
type hostKeyStore struct {
	glances glances

	mu    sync.Mutex
	files map[string]*knownFile
}

type knownFile struct {
	modified time.Time
	size     int64
	keys     []knownKey
	plain    map[string][]int // lines whose hosts are mere names, by each of them in lower case
	others   []int            // lines that have to be asked, one by one
}

// index sorts the lines, so that a fleet of many nodes does not read all lines
// for each of them.
func (f *knownFile) index() {
	f.plain = map[string][]int{}
	for i, k := range f.keys {
		if strings.ContainsAny(k.hosts, "|*?!") {
			f.others = append(f.others, i)
			continue
		}
		for name := range strings.SplitSeq(strings.ToLower(k.hosts), ",") {
			f.plain[name] = append(f.plain[name], i)
		}
	}
}

// about returns the lines about a host, in their order.
func (f *knownFile) about(name string) []knownKey {
	lines := slices.Clone(f.plain[strings.ToLower(name)])
	for _, i := range f.others {
		if f.keys[i].covers(name) {
			lines = append(lines, i)
		}
	}
	slices.Sort(lines)
	var found []knownKey
	for _, i := range slices.Compact(lines) { // a line may name a host twice
		found = append(found, f.keys[i])
	}
	return found
}

// about returns what the files say about a host.
func (s *hostKeyStore) about(name string, files []string) ([]knownKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []knownKey
	for _, file := range files {
		known, err := s.read(file)
		if err != nil {
			return nil, err
		}
		found = append(found, known.about(name)...)
	}
	return found, nil
}

// read returns what a file says. s.mu is held.
func (s *hostKeyStore) read(file string) (*knownFile, error) {
	info, err := s.glances.look(file)
	if errors.Is(err, fs.ErrNotExist) || strings.EqualFold(file, "none") || file == os.DevNull {
		return &knownFile{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read known host keys: %w", err)
	}
	have := s.files[file]
	if have != nil && have.modified.Equal(info.ModTime()) && have.size == info.Size() {
		return have, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read known host keys: %w", err)
	}
	if s.files == nil {
		s.files = map[string]*knownFile{}
	}
	have = &knownFile{modified: info.ModTime(), size: info.Size(), keys: parseKnownHosts(file, text)}
	have.index()
	s.files[file] = have
	return have, nil
}

// add records a key at the first contact, unless somebody has by now.
func (s *hostKeyStore) add(t *target, key ssh.PublicKey) (file string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(t.userKnown) == 0 {
		return "", errors.New("there is no known_hosts file to record it in")
	}
	file = t.userKnown[0]
	known, err := s.read(file)
	if err != nil {
		return "", err
	}
	for _, k := range known.about(t.name) {
		if k.marker == "" {
			if bytes.Equal(k.key.Marshal(), key.Marshal()) {
				return file, nil
			}
			return "", fmt.Errorf("%s has meanwhile got another key for it", k.place)
		}
	}
	return file, s.write(file, t, key)
}

// record records a key that somebody has confirmed, beside those of other types.
func (s *hostKeyStore) record(t *target, key ssh.PublicKey) (file string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(t.userKnown) == 0 {
		return "", errors.New("there is no known_hosts file to record it in")
	}
	file = t.userKnown[0]
	return file, s.write(file, t, key)
}

// write adds a line to a file. s.mu is held.
func (s *hostKeyStore) write(file string, t *target, key ssh.PublicKey) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	line := knownHostsLine(t.name, key) + "\n"
	if end, err := f.Seek(0, 2); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line) // one write, so that other programs' lines stay whole
	delete(s.files, file)
	s.glances.forget(file)
	return errors.Join(err, f.Close())
}

func knownHostsLine(name string, key ssh.PublicKey) string {
	return name + " " + strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}

// hostKeyCheck verifies one server's key. It is made for one handshake.
type hostKeyCheck struct {
	d     *Dialer
	t     *target
	known []knownKey
}

// newHostKeyCheck reads what is known about t.
func (d *Dialer) newHostKeyCheck(t *target) (*hostKeyCheck, error) {
	known, err := d.hostKeys.about(t.name, append(slices.Clip(t.userKnown), t.globalKnown...))
	if err != nil {
		return nil, t.fail(ClassConfig, err)
	}
	return &hostKeyCheck{d, t, known}, nil
}

// algorithms returns what to ask the server for: first what is known, since it
// would else show another of its keys, and that would look like a change.
func (c *hostKeyCheck) algorithms() []string {
	if len(c.t.hostKeyAlgos) > 0 {
		return c.t.hostKeyAlgos
	}
	supported := supportedHostKeys()
	all := make([]string, 0, 2*len(supported))
	add := func(algos ...string) {
		for _, a := range algos {
			if !slices.Contains(all, a) && slices.Contains(supported, a) {
				all = append(all, a)
			}
		}
	}
	isCert := func(a string) bool { return strings.Contains(a, "-cert-") }
	if slices.ContainsFunc(c.known, func(k knownKey) bool { return k.marker == "@cert-authority" }) {
		add(ssh.CertAlgoED25519v01)
		for _, a := range supported {
			if isCert(a) {
				add(a)
			}
		}
	}
	for _, k := range c.known {
		switch {
		case k.marker != "":
		case k.key.Type() == ssh.KeyAlgoRSA:
			add(ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			add(k.key.Type())
		}
	}
	add(ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256)
	for _, a := range supported {
		if !isCert(a) {
			add(a)
		}
	}
	return all
}

// supportedHostKeys are the algorithms that the library has: it makes new lists
// of all its algorithms each time it is asked.
var supportedHostKeys = sync.OnceValue(func() []string { return ssh.SupportedAlgorithms().HostKeys }) //nolint:gochecknoglobals // a constant

// check is the ssh.HostKeyCallback.
func (c *hostKeyCheck) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		done, err := c.certificate(cert)
		if done {
			return err
		}
		key = cert.Key // nobody vouches for it: then it is a key like others
	}
	same := func(k knownKey) bool { return bytes.Equal(k.key.Marshal(), key.Marshal()) }
	var known []knownKey
	for _, k := range c.known {
		switch {
		case k.marker == "@revoked" && same(k):
			return c.revoked(key, k)
		case k.marker == "":
			known = append(known, k)
		}
	}
	if slices.ContainsFunc(known, same) {
		return nil
	}
	if len(known) > 0 {
		return c.changed(key, known)
	}
	switch c.t.hostKeys {
	case loom.HostKeysOff:
		return nil
	case loom.HostKeysAcceptNew:
		file, err := c.d.hostKeys.add(c.t, key)
		if err != nil {
			return c.t.fail(ClassHostKeyUnknown, fmt.Errorf("the host key is new and could not be recorded: %w", err))
		}
		c.d.log().Info("recorded a new host key", "node", c.t.node, "host", c.t.name,
			"key", key.Type(), "fingerprint", ssh.FingerprintSHA256(key), "file", file)
		return nil
	}
	return c.unknown(key)
}

// certificate checks a host certificate, if there is an authority that may
// vouch for this host.
func (c *hostKeyCheck) certificate(cert *ssh.Certificate) (done bool, err error) {
	is := func(marker string, key ssh.PublicKey) *knownKey {
		for _, k := range c.known {
			if k.marker == marker && bytes.Equal(k.key.Marshal(), key.Marshal()) {
				return &k
			}
		}
		return nil
	}
	for _, key := range []ssh.PublicKey{cert.Key, cert.SignatureKey} {
		if k := is("@revoked", key); k != nil {
			return true, c.revoked(key, *k)
		}
	}
	authority := is("@cert-authority", cert.SignatureKey)
	if authority == nil {
		return false, nil
	}
	host := c.t.name
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	checker := ssh.CertChecker{IsHostAuthority: func(ssh.PublicKey, string) bool { return true }}
	if err := checker.CheckHostKey(net.JoinHostPort(host, "22"), nil, cert); err != nil {
		e := c.t.fail(ClassHostKeyUnknown, fmt.Errorf("the host certificate, signed by the authority of %s, is not valid: %w", authority.place, err))
		e.Hint = "sign the host's key again, with the name " + host
		return true, e
	}
	return true, nil
}

func (c *hostKeyCheck) revoked(key ssh.PublicKey, k knownKey) error {
	e := c.t.fail(ClassHostKeyRevoked, fmt.Errorf("its host key %s %s is revoked by %s", key.Type(), ssh.FingerprintSHA256(key), k.place))
	e.Hint = "give the host a new key, or find out who answers in its place"
	return e
}

func (c *hostKeyCheck) changed(key ssh.PublicKey, known []knownKey) error {
	var was []string
	sameType := false
	for _, k := range known {
		was = append(was, fmt.Sprintf("%s %s (%s)", k.key.Type(), ssh.FingerprintSHA256(k.key), k.place))
		sameType = sameType || k.key.Type() == key.Type()
	}
	what := "the host key has changed: it is known by"
	if !sameType {
		what = "the host shows a key of another kind: it is known by"
	}
	e := c.t.fail(ClassHostKeyChanged, fmt.Errorf("%s %s, and now shows %s %s", what, strings.Join(was, " and "),
		key.Type(), ssh.FingerprintSHA256(key)))
	e.Hint = fmt.Sprintf("nothing was sent to it. If it was installed anew, run: ssh-keygen -R '%s' -f %s ; and trust the new key. If not, somebody may be listening in",
		c.t.name, strings.TrimRight(placeFile(known[0].place), ":"))
	return e
}

func placeFile(place string) string { return place[:strings.LastIndexByte(place, ':')] }

func (c *hostKeyCheck) unknown(key ssh.PublicKey) error {
	e := c.t.fail(ClassHostKeyUnknown, fmt.Errorf("the host key is not known: %s %s", key.Type(), ssh.FingerprintSHA256(key)))
	file := "~/.ssh/known_hosts"
	if len(c.t.userKnown) > 0 {
		file = c.t.userKnown[0]
	}
	e.Hint = fmt.Sprintf("if the host itself shows this fingerprint (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), add this line to %s: %s",
		file, knownHostsLine(c.t.name, key))
	return e
}
