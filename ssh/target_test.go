package ssh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

func resolved(t *testing.T, config string, n *loom.Node) (*target, error) {
	t.Helper()
	d := dialer(t, "")
	d.ConfigFile = write(t, t.TempDir()+"/config", config)
	d.KnownHosts = ""
	return d.resolve(n)
}

func TestResolve(t *testing.T) {
	t.Parallel()
	me := localUser()
	for _, tt := range []struct {
		name, config string
		node         loom.Node
		want         string // user@host:port
	}{
		{"nothing", "", loom.Node{Name: "db1"}, me + "@db1:22"},
		{"node only", "", loom.Node{Name: "db1", Address: "10.0.0.1", Port: 2222, User: "u"}, "u@10.0.0.1:2222"},
		{"by name", "Host db*\n HostName %h.example\n Port 2200\n User mysql\n", loom.Node{Name: "db1"}, "mysql@db1.example:2200"},
		{"node wins", "Host *\n Port 1\n User x\n", loom.Node{Name: "db1", Port: 2, User: "u"}, "u@db1:2"},
		{"redirected address", "Host 192.168.1.10 staging\n HostName 127.0.0.1\n Port 2201\n User u\n", loom.Node{Name: "staging", Address: "192.168.1.10"}, "u@127.0.0.1:2201"},
		{"by name, but the address is the node's", "Host staging\n HostName elsewhere\n Port 2201\n", loom.Node{Name: "staging", Address: "192.168.1.10"}, me + "@192.168.1.10:2201"},
		{"excluded", "Host * !192.168.1.10\n Port 1\n", loom.Node{Name: "staging", Address: "192.168.1.10"}, me + "@192.168.1.10:22"},
		{"first wins", "Host a\n Port 1\nHost *\n Port 2\n User z\n", loom.Node{Name: "a"}, "z@a:1"},
		{"before any Host", "Port 7\nHost b\n Port 1\n", loom.Node{Name: "a"}, me + "@a:7"},
		{"equals, quotes, comments, tabs", "Host\ta\t\"b c\"\n\tPort = 7 # seven\n\tUser=\"u\"\n", loom.Node{Name: "a"}, "u@a:7"},
		{"case", "HOST A\n pOrT 7\n", loom.Node{Name: "a"}, me + "@a:7"},
		{"Match host", "Match host a,b\n Port 7\n", loom.Node{Name: "b"}, me + "@b:7"},
		{"Match all", "Match all\n Port 7\n", loom.Node{Name: "b"}, me + "@b:7"},
		{"Match that is not understood", "Match exec \"touch /tmp/never\"\n Port 7\nHost b\n Port 8\n", loom.Node{Name: "b"}, me + "@b:8"},
		{"IPv6", "", loom.Node{Name: "a", Address: "fe80::1"}, me + "@[fe80::1]:22"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := resolved(t, tt.config, &tt.node)
			if err != nil || got.String() != tt.want {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
	t.Run("settings", func(t *testing.T) {
		got, err := resolved(t, `Host a
  IdentityFile ~/%h-%r.key
  IdentityFile /keys/two
  IdentitiesOnly yes
  UserKnownHostsFile /k/%h /k/more
  StrictHostKeyChecking accept-new
  HostKeyAlias Other
  ConnectTimeout 3
  ServerAliveInterval 5
  Ciphers aes256-ctr,aes128-ctr
  ProxyJump u@j1:2222,j2
Host j1
  ProxyJump j0
  HostName jump.example
`, &loom.Node{Name: "a", User: "u"})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{home() + "/a-u.key", "/keys/two"}; !slices.Equal(got.identities, want) || !got.only {
			t.Errorf("identities %q, want %q", got.identities, want)
		}
		if want := []string{"/k/a", "/k/more"}; !slices.Equal(got.userKnown, want) || got.name != "other" || got.hostKeys != loom.HostKeysAcceptNew {
			t.Errorf("known hosts %q of %q, %s", got.userKnown, got.name, got.hostKeys)
		}
		if got.connect != 3*time.Second || got.keepalive != 5*time.Second || len(got.ciphers) != 2 {
			t.Errorf("got %v, %v, %q", got.connect, got.keepalive, got.ciphers)
		}
		var way []string
		for _, j := range got.jump {
			way = append(way, j.String())
		}
		if want := "[" + localUser() + "@j0:22 u@jump.example:2222 " + localUser() + "@j2:22]"; fmt.Sprint(way) != want {
			t.Errorf("way %v, want %s", way, want)
		}
	})
	for _, tt := range []struct{ name, config, says string }{
		{"bad port", "Host a\nPort x\n", "port"},
		{"circle", "Host a\nProxyJump b\nHost b\nProxyJump a\n", "in circles"},
		{"bad jump", "Host a\nProxyJump u@\n", "ProxyJump"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := resolved(t, tt.config, &loom.Node{Name: "a"})
			if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassConfig || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, name := range []string{"", "-oProxyCommand=touch x", "a b", "a\nb"} {
		if _, err := resolved(t, "", &loom.Node{Name: name}); err == nil {
			t.Errorf("%q is a host", name)
		}
	}
}

func TestInclude(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/one.conf", "Port 7\nHost b\n User inner\n")
	write(t, dir+"/two.conf", "Host *\n User two\n")
	config := "Host a b\n Include " + dir + "/o*.conf\n User after\nHost *\n Include " + dir + "/two.conf\n"
	for name, want := range map[string]string{"a": "after@a:7", "b": "inner@b:7", "c": "two@c:22"} {
		if got, err := resolved(t, config, &loom.Node{Name: name}); err != nil || got.String() != want {
			t.Errorf("got %v, %v; want %s", got, err, want)
		}
	}
	write(t, dir+"/loop.conf", "Include "+dir+"/loop.conf\n")
	if _, err := resolved(t, "Include "+dir+"/loop.conf\n", &loom.Node{Name: "a"}); err == nil {
		t.Error("a loop of files was read")
	}

	// What has changed is read again.
	d := dialer(t, "")
	d.ConfigFile = write(t, dir+"/main", "Include "+dir+"/part\n")
	part := write(t, dir+"/part", "Port 1\n")
	for _, port := range []int{1, 2} {
		write(t, part, fmt.Sprintf("Port %d\n", port))
		at := time.Now().Add(time.Duration(port) * time.Minute)
		if err := os.Chtimes(part, at, at); err != nil {
			t.Fatal(err)
		}
		for _, c := range d.configs.read { // as if it had been a while ago
			c.seen = time.Time{}
		}
		if got, err := d.resolve(&loom.Node{Name: "a"}); err != nil || got.port != port {
			t.Errorf("got %v, %v; want port %d", got, err, port)
		}
	}
}

// FuzzConfig compares with ssh -G.
func FuzzConfig(f *testing.F) {
	f.Add("Host a\n Port 22\n User u\n", "a")
	f.Add("Host * !b\n Port=22\nHost b\n User \"x\" # c\n", "b")
	f.Add("Port 1\nHost a? *b\nHostName h.x\n", "ab")
	f.Fuzz(func(t *testing.T, config, host string) {
		sshd.Need(t, "ssh")
		plain := func(s string) bool {
			return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" && s != ""
		}
		lower := strings.ToLower(config)
		if !plain(host) || len(config) > 300 || strings.ContainsAny(config, "$`\\;|&%'{}~\r\f\v") || !ascii(strings.NewReplacer("\n", "", "\t", "").Replace(config)) {
			t.Skip()
		}
		for _, word := range []string{"match", "include", "proxy", "canon", "command", "exec", "tag"} {
			if strings.Contains(lower, word) {
				t.Skip()
			}
		}
		file := write(t, t.TempDir()+"/config", config)
		out, err := exec.Command("ssh", "-G", "-F", file, "--", host).Output()
		if err != nil {
			t.Skip() // ssh is stricter about what it does not know
		}
		want := map[string]string{}
		for line := range strings.Lines(string(out)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
			if _, ok := want[k]; !ok {
				want[k] = v
			}
		}
		got, err := resolved(t, config, &loom.Node{Name: host})
		if err != nil {
			t.Fatalf("%v; ssh takes it:\n%s", err, config)
		}
		if net.ParseIP(want["hostname"]) != nil && net.ParseIP(got.host) == nil {
			t.Skip() // ssh writes an odd spelling of an address, 0 say, as it is usually written
		}
		if got.host != want["hostname"] && strings.ToLower(got.host) != want["hostname"] || fmt.Sprint(got.port) != want["port"] || got.user != want["user"] {
			t.Errorf("%q for %s: got %v, ssh says %s@%s:%s", config, host, got, want["user"], want["hostname"], want["port"])
		}
	})
}

// The example's nodes are redirected by ssh_config alone.
func TestRedirected(t *testing.T) {
	t.Parallel()
	config := ""
	var known []string
	nodes := []*loom.Node{{Name: "staging", User: me(), Address: "192.168.1.10"}, {Name: "production", User: me(), Address: "192.168.1.11"}, {Name: "db1"}}
	for _, n := range nodes {
		s := sshd.Start(t, sshd.Options{})
		alias := n.Address
		if alias == "" {
			alias = n.Name
		}
		config += fmt.Sprintf("Host %s\n HostName %s\n Port %d\n User %s\n IdentityFile %s\n", alias, s.Address, s.Port, me(), s.Identity)
		text, err := os.ReadFile(s.KnownHosts)
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, string(text))
	}
	d := dialer(t, write(t, t.TempDir()+"/known", strings.Join(known, "")))
	d.ConfigFile = write(t, t.TempDir()+"/config", config)
	for _, n := range nodes {
		c := dial(t, d, n)
		if out, _, err := run(t, c, loom.Command{Text: "echo " + n.Name}); out != n.Name+"\n" {
			t.Error(out, err)
		}
	}
}

// The way leads over two jump hosts, whose connections are shared.
func TestJump(t *testing.T) {
	t.Parallel()
	j1, j2, end := sshd.Start(t, sshd.Options{}), sshd.Start(t, sshd.Options{}), sshd.Start(t, sshd.Options{})
	known := ""
	for _, s := range []*sshd.Server{j1, j2, end} {
		text, err := os.ReadFile(s.KnownHosts)
		if err != nil {
			t.Fatal(err)
		}
		known += string(text)
	}
	file := write(t, t.TempDir()+"/known", known)
	hop := func(name string, s *sshd.Server, jump *loom.Node) *loom.Node {
		n := node(s, me())
		n.Name, n.Jump = name, jump
		return n
	}
	config := fmt.Sprintf("Host end*\n ProxyJump j1,j2\nHost j1\n HostName %s\n Port %d\n IdentityFile %s\nHost j2\n HostName %s\n Port %d\n IdentityFile %s\n",
		j1.Address, j1.Port, j1.Identity, j2.Address, j2.Port, j2.Identity)
	for _, way := range []string{"nodes", "ssh_config"} {
		t.Run(way, func(t *testing.T) {
			before := []int{strings.Count(j1.Log(), "Accepted publickey"), strings.Count(j2.Log(), "Accepted publickey")}
			d := dialer(t, file)
			var jump *loom.Node
			if way == "nodes" {
				jump = hop("j2", j2, hop("j1", j1, nil))
			} else {
				d.ConfigFile = write(t, t.TempDir()+"/config", config)
			}
			var conns []loom.Conn
			for i := range 5 {
				c, err := d.Dial(t.Context(), hop(fmt.Sprint("end", i), end, jump))
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, c)
			}
			for _, c := range conns {
				if out, _, err := run(t, c, loom.Command{Text: "echo hello"}); out != "hello\n" {
					t.Error(out, err)
				}
			}
			after := []int{strings.Count(j1.Log(), "Accepted publickey"), strings.Count(j2.Log(), "Accepted publickey")}
			if after[0] != before[0]+1 || after[1] != before[1]+1 {
				t.Errorf("%v connections to the jump hosts, before %v", after, before)
			}
			for _, c := range conns {
				_ = c.Close()
			}
			if len(d.hops) != 0 {
				t.Error("connections to jump hosts are left open")
			}
		})
	}
	t.Run("dead", func(t *testing.T) {
		nobody := &loom.Node{Name: "nobody", Address: "127.0.0.1", Port: 1}
		d := dialer(t, file)
		_, err := d.Dial(t.Context(), hop("end", end, hop("j2", j2, nobody)))
		if !errors.Is(err, loom.ErrUnreachable) || !strings.Contains(err.Error(), "jump host") || !strings.Contains(err.Error(), "127.0.0.1:1") {
			t.Error(err)
		}
		t.Log(err)
		_, err = d.Dial(t.Context(), &loom.Node{Name: "end", Address: "127.0.0.1", Port: 1, User: "u", Jump: hop("j1", j1, nil)})
		if !errors.Is(err, loom.ErrUnreachable) || !strings.Contains(err.Error(), "could not connect") {
			t.Error(err)
		}
		t.Log(err)
	})
	t.Run("dies", func(t *testing.T) {
		p := newProxy(t, j1.Addr())
		d := dialer(t, "")
		d.HostKeys = loom.HostKeysOff
		c := dial(t, d, hop("end", end, p.behind(j1, me())))
		up := newWaiter()
		done := make(chan error, 1)
		go func() { done <- c.Exec(t.Context(), loom.Command{Text: "echo up; sleep 100", Stdout: up}) }()
		<-up.came
		p.cut()
		err := <-done
		if !errors.Is(err, loom.ErrLost) || !strings.Contains(err.Error(), "jump host") {
			t.Error(err)
		}
		t.Log(err)
		if out, _, err := run(t, c, loom.Command{Text: "echo again"}); out != "again\n" {
			t.Error(out, err)
		}
	})
}

func TestProxyCommand(t *testing.T) {
	t.Parallel()
	d := dialer(t, "")
	d.ConfigFile = write(t, filepath.Join(t.TempDir(), "config"), "Host a\n ProxyCommand nc %h %p\n")
	_, err := d.Dial(t.Context(), &loom.Node{Name: "a"})
	if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassConfig || !strings.Contains(err.Error(), "ProxyJump") {
		t.Error(err)
	}
}
