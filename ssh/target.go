package ssh

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// A target is a node with everything that ssh_config adds to it.
type target struct {
	node string // its name
	host string // what is dialed
	port int
	user string
	name string // what known_hosts calls it

	identity     string   // the node's own; "" if it has none
	identities   []string // of ssh_config
	certificates []string
	only         bool // no other identities
	agent        string
	password     string
	passphrase   string

	userKnown, globalKnown []string
	hostKeys               loom.HostKeys

	connect, keepalive time.Duration
	ciphers, macs      []string
	kex, hostKeyAlgos  []string
	proxy              string // ProxyCommand

	jump []*target // on the way, in order

	maxSessions int
}

// String returns the target as user@host:port.
func (t *target) String() string {
	return t.user + "@" + net.JoinHostPort(t.host, strconv.Itoa(t.port))
}

// key tells targets apart whose connections can not be shared.
func (t *target) key() string {
	keys := []string{fmt.Sprintf("%s %q %q %q %q", t, t.identity, t.password, t.passphrase, t.name)}
	for _, j := range t.jump {
		keys = append(keys, j.key())
	}
	return strings.Join(keys, "\n")
}

// resolve adds to a node what ssh_config says about it.
func (d *Dialer) resolve(n *loom.Node) (*target, error) {
	conf := d.config()
	files := []string{expandHome("~/.ssh/config"), "/etc/ssh/ssh_config"}
	if conf.ConfigFile != "" {
		files = []string{expandHome(conf.ConfigFile)}
	}
	sc, err := d.configs.get(files...)
	if err != nil {
		return nil, &Error{Class: ClassConfig, Node: n.Name, Err: err}
	}
	for _, s := range sc.ignore {
		d.warnOnce(s)
	}
	r := resolver{conf: conf, ssh: sc}
	t, err := r.target(n, nil)
	if err != nil {
		return nil, &Error{Class: ClassConfig, Node: n.Name, Err: err}
	}
	return t, nil
}

type resolver struct {
	conf loom.SSHConfig
	ssh  *config
}

// target resolves a node. Sections of ssh_config apply if they are about its
// name or its address; but HostName counts only where ssh would read it for
// the address, if the node has one.
func (r *resolver) target(n *loom.Node, seen []string) (*target, error) {
	names := []string{n.Name}
	alias := n.Name
	if n.Address != "" && n.Address != n.Name {
		names = append(names, n.Address)
		alias = n.Address
	}
	if alias == "" {
		return nil, fmt.Errorf("a node without name and address can not be reached")
	}
	if strings.HasPrefix(alias, "-") || strings.ContainsAny(alias, " \t\r\n\x00") {
		return nil, fmt.Errorf("%q is not a host's name or address", alias)
	}
	get := func(key string) string { return r.ssh.first(key, names...) }

	t := &target{node: n.Name, host: alias, port: n.Port, user: n.User, password: string(n.Password),
		identity: n.Identity, passphrase: string(n.Passphrase), maxSessions: n.MaxSessions}
	if h := r.ssh.first("hostname", alias); h != "" {
		t.host = strings.NewReplacer("%h", alias, "%%", "%").Replace(h)
	}
	if p := get("port"); t.port == 0 && p != "" {
		port, err := strconv.Atoi(p)
		if err != nil || port < 1 || port > 65535 {
			return nil, fmt.Errorf("ssh_config: port %q of %s is not a number from 1 to 65535", p, alias)
		}
		t.port = port
	}
	if t.port == 0 {
		t.port = 22
	}
	if t.user == "" {
		t.user = get("user")
	}
	if t.user == "" {
		t.user = localUser()
	}
	t.known(r, get)
	t.auth(r, alias, names, get)
	t.limits(r, get)

	t.ciphers, t.macs = list(get("ciphers")), list(get("macs"))
	t.kex, t.hostKeyAlgos = list(get("kexalgorithms")), list(get("hostkeyalgorithms"))
	if t.proxy = get("proxycommand"); strings.EqualFold(t.proxy, "none") {
		t.proxy = ""
	}
	return t, t.way(r, n, get("proxyjump"), append(seen, alias))
}

// known sets what is known of host keys, and what to do about others.
func (t *target) known(r *resolver, get func(string) string) {
	t.name = hostKeyName(t.host, t.port)
	if alias := get("hostkeyalias"); alias != "" {
		t.name = strings.ToLower(alias)
	}
	t.userKnown = []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2"}
	if f := get("userknownhostsfile"); f != "" {
		t.userKnown = words(f)
	}
	if r.conf.KnownHosts != "" {
		t.userKnown = []string{r.conf.KnownHosts}
	}
	t.globalKnown = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	if f := get("globalknownhostsfile"); f != "" {
		t.globalKnown = words(f)
	}
	for _, files := range [][]string{t.userKnown, t.globalKnown} {
		for i, f := range files {
			files[i] = t.expand(f)
		}
	}
	t.hostKeys = r.conf.HostKeys
	if t.hostKeys == "" {
		switch strings.ToLower(get("stricthostkeychecking")) {
		case "accept-new":
			t.hostKeys = loom.HostKeysAcceptNew
		case "no", "off", "false":
			t.hostKeys = loom.HostKeysOff
		default:
			t.hostKeys = loom.HostKeysStrict
		}
	}
}

// auth sets what we authenticate with.
func (t *target) auth(r *resolver, _ string, names []string, get func(string) string) {
	t.only = yes(get("identitiesonly"))
	for _, f := range r.ssh.all("identityfile", names...) {
		if !strings.EqualFold(f, "none") {
			t.identities = append(t.identities, t.expand(f))
		}
	}
	for _, f := range r.ssh.all("certificatefile", names...) {
		t.certificates = append(t.certificates, t.expand(f))
	}
	if t.identity != "" {
		t.identity = t.expand(t.identity)
	}
	switch a := get("identityagent"); {
	case strings.EqualFold(a, "none"):
	case a == "" || a == "SSH_AUTH_SOCK":
		t.agent = os.Getenv("SSH_AUTH_SOCK")
	case strings.HasPrefix(a, "$"):
		t.agent = os.Getenv(strings.Trim(a[1:], "{}"))
	default:
		t.agent = t.expand(a)
	}
}

// limits sets how long things may take.
func (t *target) limits(r *resolver, get func(string) string) {
	t.connect, t.keepalive = r.conf.ConnectTimeout, r.conf.Keepalive
	if s, ok := seconds(get("connecttimeout")); ok && s > 0 && t.connect == 0 {
		t.connect = s
	}
	if t.connect == 0 {
		t.connect = 10 * time.Second
	}
	if s, ok := seconds(get("serveraliveinterval")); ok && s > 0 && t.keepalive == 0 {
		t.keepalive = s
	}
	if t.keepalive == 0 {
		t.keepalive = 15 * time.Second
	}
}

// way sets the hosts that lead to the target: the node's, or ssh_config's.
func (t *target) way(r *resolver, n *loom.Node, proxyJump string, seen []string) error {
	if len(seen) > 16 {
		return fmt.Errorf("the way to %s goes in circles: %s", seen[0], strings.Join(seen, " through "))
	}
	if n.Jump != nil {
		hop, err := r.target(n.Jump, seen)
		if err != nil {
			return err
		}
		t.jump = append(hop.jump, hop)
		hop.jump = nil
		t.proxy = ""
		return nil
	}
	if proxyJump == "" || strings.EqualFold(proxyJump, "none") {
		return nil
	}
	t.proxy = "" // of the two, ssh takes the first; a jump is what we can do best
	for i, spec := range strings.Split(proxyJump, ",") {
		host, err := parseHop(strings.TrimSpace(t.expand(spec)))
		if err != nil {
			return err
		}
		hop, err := r.target(host, seen)
		if err != nil {
			return err
		}
		if i == 0 { // the others are reached through it, whatever ssh_config says of them
			t.jump = hop.jump
		}
		hop.jump = nil
		t.jump = append(t.jump, hop)
	}
	return nil
}

// parseHop reads [user@]host[:port] or an ssh URI.
func parseHop(s string) (*loom.Node, error) {
	u, err := url.Parse("ssh://" + strings.TrimPrefix(s, "ssh://"))
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("ssh_config: ProxyJump %q is not [user@]host[:port]", s)
	}
	n := &loom.Node{Name: u.Hostname(), User: u.User.Username()}
	if p := u.Port(); p != "" {
		n.Port, _ = strconv.Atoi(p) // the parser takes digits only
	}
	return n, nil
}

// expand replaces ~ and the percent signs that ssh_config knows.
func (t *target) expand(s string) string {
	if !strings.Contains(s, "%") {
		return expandHome(s)
	}
	hostname, _ := os.Hostname() // then %l is empty, which is all that can be said
	short, _, _ := strings.Cut(hostname, ".")
	return expandHome(strings.NewReplacer("%%", "%", "%h", t.host, "%n", t.node, "%p", strconv.Itoa(t.port),
		"%r", t.user, "%u", localUser(), "%d", home(), "%l", hostname, "%L", short, "%i", strconv.Itoa(os.Getuid())).Replace(s))
}

func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

func yes(s string) bool { return strings.EqualFold(s, "yes") || strings.EqualFold(s, "true") }

// list reads algorithm names. Lists that change the defaults are left to them.
func list(s string) []string {
	if s == "" || strings.ContainsAny(s[:1], "+-^") || strings.Contains(s, "*") {
		return nil
	}
	return slices.DeleteFunc(strings.Split(s, ","), func(a string) bool { return a == "" })
}
