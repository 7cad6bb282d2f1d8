package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func tool(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	sshd.Need(tb, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func write(tb testing.TB, file, text string) string {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

func TestHostKeys(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	name := hostKeyName(s.Address, s.Port)
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.HostKey)))
	other := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshd.NewKey(t, t.TempDir()+"/other"))))
	rsa := t.TempDir() + "/rsa"
	tool(t, "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa)
	rsaKey, err := os.ReadFile(rsa + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	hashed := write(t, t.TempDir()+"/hashed", name+" "+key+"\n")
	tool(t, "ssh-keygen", "-q", "-H", "-f", hashed)
	hashedText, err := os.ReadFile(hashed)
	if err != nil || !strings.HasPrefix(string(hashedText), "|1|") {
		t.Fatal(string(hashedText), err)
	}
	fingerprint := ssh.FingerprintSHA256(s.HostKey)
	tests := []struct {
		name, known string
		mode        loom.HostKeys
		class       Class
		says        string
	}{
		{"known", name + " " + key, "", "", ""},
		{"hashed", string(hashedText), "", "", ""},
		{"pattern", "[127.0.0.*]:* " + key, "", "", ""},
		{"among rubbish", "rubbish\n@what x y z\n" + name + " ssh-ed25519 !!!\n" + name + " " + key, "", "", ""},
		{"unknown", "", "", ClassHostKeyUnknown, fingerprint},
		{"unknown here", "other.example " + key, "", ClassHostKeyUnknown, name + " " + key},
		{"unknown on this port", "127.0.0.1 " + key, "", ClassHostKeyUnknown, ""},
		{"excluded", "!" + name + ",[127.0.0.*]:* " + key, "", ClassHostKeyUnknown, ""},
		{"unknown, off", "", loom.HostKeysOff, "", ""},
		{"changed", name + " " + other, "", ClassHostKeyChanged, fingerprint},
		{"changed, accept-new", name + " " + other, loom.HostKeysAcceptNew, ClassHostKeyChanged, "ssh-keygen -R"},
		{"changed, off", name + " " + other, loom.HostKeysOff, ClassHostKeyChanged, fingerprint},
		{"other kind", name + " " + string(rsaKey), loom.HostKeysAcceptNew, ClassHostKeyChanged, "another kind"},
		{"one of two", name + " " + other + "\n" + name + " " + key, "", "", ""},
		{"revoked", "@revoked " + name + " " + key + "\n" + name + " " + key, loom.HostKeysOff, ClassHostKeyRevoked, fingerprint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := dialer(t, write(t, t.TempDir()+"/known", tt.known))
			d.HostKeys = tt.mode
			before := strings.Count(s.Log(), "Accepted publickey")
			n := node(s, me())
			n.Password = "must not be sent"
			c, err := d.Dial(t.Context(), n)
			if err == nil {
				_ = c.Close()
			}
			e := &Error{}
			if errors.As(err, &e); e.Class != tt.class || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("got class %q, %v; want %q", e.Class, err, tt.class)
			}
			if err != nil && (!errors.Is(err, loom.ErrUnreachable) || strings.Count(s.Log(), "Accepted publickey") != before) {
				t.Errorf("got in, or not unreachable: %v", err)
			}
		})
	}
	if strings.Contains(s.Log(), "Failed password") {
		t.Error("a password was sent to a host that was not known")
	}
}

// A host that offers keys of several kinds is asked for the kind that is known.
func TestHostKeyKinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, kind := range []string{"rsa", "ecdsa"} {
		tool(t, "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", dir+"/"+kind)
	}
	s := sshd.Start(t, sshd.Options{Lines: []string{"HostKey " + dir + "/rsa", "HostKey " + dir + "/ecdsa"}})
	files := []string{s.Dir + "/host.pub", dir + "/rsa.pub", dir + "/ecdsa.pub"}
	for _, file := range files {
		key, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		known := write(t, t.TempDir()+"/known", hostKeyName(s.Address, s.Port)+" "+string(key))
		_ = dial(t, dialer(t, known), node(s, me()))
	}
}

func TestAcceptNew(t *testing.T) {
	t.Parallel()
	var servers []*sshd.Server
	for range 3 {
		servers = append(servers, sshd.Start(t, sshd.Options{}))
	}
	known := t.TempDir() + "/new/known"
	if err := os.Mkdir(filepath.Dir(known), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, known, "# no newline at the end")
	d := dialer(t, known)
	d.HostKeys = loom.HostKeysAcceptNew
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			c, err := d.Dial(t.Context(), node(servers[i%3], me()))
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	wg.Wait()
	text, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	want := "# no newline at the end\n"
	if lines := strings.Count(string(text), "\n"); !strings.HasPrefix(string(text), want) || lines != 4 {
		t.Errorf("got %d lines:\n%s", lines, text)
	}
	for _, s := range servers { // ssh reads it too
		tool(t, "ssh-keygen", "-F", hostKeyName(s.Address, s.Port), "-f", known)
		_ = dial(t, dialer(t, known), node(s, me()))
	}
}

func TestHostCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshd.NewKey(t, dir+"/ca"))))
	start := func(names, validity string) *sshd.Server {
		key := filepath.Join(t.TempDir(), "key")
		sshd.NewKey(t, key)
		tool(t, "ssh-keygen", "-q", "-s", dir+"/ca", "-h", "-I", "x", "-n", names, "-V", validity, key+".pub")
		return sshd.Start(t, sshd.Options{Lines: []string{"HostKey " + key, "HostCertificate " + key + "-cert.pub"}})
	}
	good := start("127.0.0.1,else", "+1h")
	try := func(s *sshd.Server, known string) error {
		c, err := dialer(t, write(t, t.TempDir()+"/known", known)).Dial(t.Context(), node(s, me()))
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	name := hostKeyName(good.Address, good.Port)
	if err := try(good, "@cert-authority [127.0.0.1]:* "+ca); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"authority of others":    try(good, "@cert-authority *.example.com "+ca),
		"revoked authority":      try(good, "@cert-authority [127.0.0.1]:* "+ca+"\n@revoked * "+ca+"\n@revoked [*]:* "+ca),
		"an authority is no key": try(good, name+" "+ca),
		"other name":             try(start("elsewhere", "+1h"), "@cert-authority [127.0.0.1]:* "+ca),
		"expired":                try(start("127.0.0.1", "20200101:20200102"), "@cert-authority [127.0.0.1]:* "+ca),
	} {
		if !errors.Is(err, loom.ErrUnreachable) {
			t.Errorf("%s: %v", what, err)
		}
		t.Log(what, err)
	}
}

// FuzzKnownHosts compares with the library, which reads the same format more
// strictly: what both understand, both decide alike.
func FuzzKnownHosts(f *testing.F) {
	key, err := ssh.ParsePublicKey(fixedKey)
	if err != nil {
		f.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	for _, s := range []string{"a.example", "*.example,!b.example", "[a.example]:2222", "[*]:2222", "?.example", "10.0.0.1", knownhosts.HashHostname("a.example")} {
		f.Add(s, "a.example", 22)
		f.Add(s, "b.example", 2222)
	}
	f.Fuzz(func(t *testing.T, hosts, host string, port int) {
		port = (port&0xffff)%65535 + 1
		if strings.ContainsAny(hosts, " \t\r\n\v\f#@\x00\u0085\u00a0") || strings.ToLower(hosts+host) != hosts+host || host == "" ||
			strings.ContainsAny(host, "[]:%,*?!| \t\r\n") || hosts == "" || !ascii(hosts+host) {
			t.Skip()
		}
		if strings.ContainsAny(hosts, "[]:") && !strings.HasPrefix(hosts, "[") {
			t.Skip() // the library splits addresses, ssh and we match strings
		}
		text := hosts + " " + line + "\n"
		file := write(t, t.TempDir()+"/known", text)
		check, err := knownhosts.New(file)
		if err != nil {
			return // it does not understand; we leave lines out
		}
		addr := net.JoinHostPort(host, fmt.Sprint(port))
		want := check(addr, &net.TCPAddr{}, key) == nil
		var store hostKeyStore
		found, err := store.about(hostKeyName(host, port), []string{file})
		if err != nil {
			t.Fatal(err)
		}
		var lines []knownKey
		for _, k := range parseKnownHosts(file, []byte(text)) {
			if k.covers(hostKeyName(host, port)) {
				lines = append(lines, k)
			}
		}
		if len(found) != len(lines) {
			t.Errorf("%q: the index finds %d lines about %s port %d, there are %d", hosts, len(found), host, port, len(lines))
		}
		got := slices.ContainsFunc(found, func(k knownKey) bool { return bytes.Equal(k.key.Marshal(), key.Marshal()) })
		if got != want && !strings.ContainsAny(hosts, "*?") { // it matches ports apart from hosts
			t.Errorf("%q covers %s port %d: %v, the library says %v", hosts, host, port, got, want)
		}
	})
}

// What is known about one host of a large fleet.
func BenchmarkKnownHosts(b *testing.B) {
	key, err := ssh.ParsePublicKey(fixedKey)
	if err != nil {
		b.Fatal(err)
	}
	name := func(i int) string { return hostKeyName(fmt.Sprintf("node%05d", i), 2200) }
	for _, kind := range []string{"plain", "hashed"} {
		b.Run(kind, func(b *testing.B) {
			var text strings.Builder
			for i := range 10_000 {
				line := knownHostsLine(name(i), key)
				if kind == "hashed" {
					line = strings.Replace(line, name(i), knownhosts.HashHostname(name(i)), 1)
				}
				text.WriteString(line + "\n")
			}
			file := write(b, b.TempDir()+"/known", text.String())
			var store hostKeyStore
			b.ReportAllocs()
			for b.Loop() {
				if found, err := store.about(name(4711), []string{file}); err != nil || len(found) != 1 {
					b.Fatal(len(found), err)
				}
			}
		})
	}
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] < ' ' {
			return false
		}
	}
	return true
}

// fixedKey is an ed25519 public key in wire form.
var fixedKey = ssh.Marshal(struct {
	Type string
	Key  []byte
}{ssh.KeyAlgoED25519, bytes.Repeat([]byte{7}, 32)})
