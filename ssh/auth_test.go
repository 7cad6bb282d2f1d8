package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// startAgent serves an ssh-agent with these private key files.
func startAgent(t *testing.T, files ...string) string {
	t.Helper()
	keys := agent.NewKeyring()
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.ParseRawPrivateKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Add(agent.AddedKey{PrivateKey: key, Comment: "in the agent"}); err != nil {
			t.Fatal(err)
		}
	}
	socket := t.TempDir() + "/agent"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeAgent(keys, c) // until the client hangs up
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return socket
}

func TestAuth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := sshd.NewKey(t, dir+"/ca")
	write(t, dir+"/ca.pub", string(ssh.MarshalAuthorizedKey(ca)))
	s := sshd.Start(t, sshd.Options{Lines: []string{"PasswordAuthentication yes", "TrustedUserCAKeys " + dir + "/ca.pub"}})
	with := func() string { // a key that the server knows
		t.Helper()
		file := t.TempDir() + "/key"
		public := sshd.NewKey(t, file)
		f, err := os.OpenFile(s.Dir+"/authorized_keys", os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.Write(ssh.MarshalAuthorizedKey(public))
			_ = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	stranger := t.TempDir() + "/stranger"
	sshd.NewKey(t, stranger)
	u := sshd.NewUser(t, "/bin/sh", "correct horse").Username

	inAgent := with()
	socket := startAgent(t, inAgent)
	onlyPublic := t.TempDir() + "/there.pub"
	text, err := os.ReadFile(inAgent + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	write(t, onlyPublic, string(text))

	certified := t.TempDir() + "/certified"
	sshd.NewKey(t, certified)
	tool(t, "ssh-keygen", "-q", "-s", dir+"/ca", "-I", "x", "-n", u, "-V", "+1h", certified+".pub")
	expired := t.TempDir() + "/expired"
	sshd.NewKey(t, expired)
	tool(t, "ssh-keygen", "-q", "-s", dir+"/ca", "-I", "x", "-n", u, "-V", "20200101:20200102", expired+".pub")

	encrypted := with()
	tool(t, "ssh-keygen", "-q", "-p", "-a", "1", "-P", "", "-N", "sesame", "-f", encrypted)
	wide := with()
	if err := os.Chmod(wide, 0o644); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name   string
		node   loom.Node
		config string
		fails  string // with words like these
	}{
		{"identity", loom.Node{Identity: s.Identity}, "", ""},
		{"public identity", loom.Node{Identity: s.Identity + ".pub"}, "", ""},
		{"identity of ssh_config", loom.Node{}, "IdentityFile " + s.Identity, ""},
		{"second identity of ssh_config", loom.Node{}, "IdentityFile " + stranger + "\nIdentityFile " + s.Identity, ""},
		{"encrypted", loom.Node{Identity: encrypted, Passphrase: "sesame"}, "", ""},
		{"encrypted, no passphrase", loom.Node{Identity: encrypted}, "", "it is encrypted"},
		{"encrypted, wrong passphrase", loom.Node{Identity: encrypted, Passphrase: "x"}, "", "does not open it"},
		{"agent", loom.Node{}, "IdentityAgent " + socket, ""},
		{"agent, only others", loom.Node{}, "IdentityAgent " + socket + "\nIdentitiesOnly yes\nIdentityFile " + stranger, "stranger"},
		{"agent, public identity", loom.Node{Identity: onlyPublic}, "IdentitiesOnly yes\nIdentityAgent " + socket, ""},
		{"public identity without agent", loom.Node{Identity: onlyPublic}, "", "neither beside it nor in the agent"},
		{"no such agent", loom.Node{}, "IdentityAgent /nonexistent", "the agent /nonexistent (not used"},
		{"certificate", loom.Node{Identity: certified}, "", ""},
		{"expired certificate", loom.Node{Identity: expired}, "", "expired"},
		{"certificate of ssh_config", loom.Node{Identity: certified}, "CertificateFile " + certified + "-cert.pub", ""},
		{"password", loom.Node{Password: "correct horse"}, "", ""},
		{"password after key", loom.Node{Identity: stranger, Password: "correct horse"}, "", ""},
		{"wrong password", loom.Node{Identity: stranger, Password: "battery staple"}, "", "the node's password"},
		{"stranger", loom.Node{Identity: stranger}, "", "key " + stranger},
		{"missing key", loom.Node{Identity: "/nonexistent/key"}, "", "no such file"},
		{"others can read the key", loom.Node{Identity: wide}, "", "chmod 600"},
		{"nothing", loom.Node{}, "", "no key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := dialer(t, s.KnownHosts)
			d.ConfigFile = write(t, t.TempDir()+"/config", "Host *\n"+tt.config+"\n")
			n := tt.node
			n.Name, n.Address, n.Port, n.User = "n1", s.Address, s.Port, u
			c, err := d.Dial(t.Context(), &n)
			if err == nil {
				_ = c.Close()
			}
			if tt.fails == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e := &Error{}
			if !errors.As(err, &e) || e.Class != ClassAuth || !errors.Is(err, loom.ErrUnreachable) || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "battery") {
				t.Errorf("it tells the password: %v", err)
			}
		})
	}
}

// After a failure a node is left alone for a while.
func TestAuthBackoff(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	d := dialer(t, s.KnownHosts)
	n := node(s, me())
	n.Identity = t.TempDir() + "/key"
	sshd.NewKey(t, n.Identity)
	for range 3 {
		_, err := d.Dial(t.Context(), n)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassAuth {
			t.Fatal(err)
		}
		t.Log(err)
	}
	if tries := strings.Count(s.Log(), "Connection from"); tries > 2 { // one is the helper's own
		t.Errorf("%d connections", tries)
	}
	_ = dial(t, d, node(s, me())) // with another key it is another matter
	d.Configure(d.SSHConfig)
	_, err := d.Dial(t.Context(), n)
	if err == nil || strings.Contains(err.Error(), "not tried again") {
		t.Errorf("after Configure: %v", err)
	}
}

func TestSudo(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	const password = "correct 'horse' $HOME"
	free := sshd.NewUser(t, "/usr/bin/tcsh", password).Username
	asked := sshd.NewUser(t, "/bin/bash", password).Username
	barred := sshd.NewUser(t, "/bin/sh", password).Username
	logfile := t.TempDir() + "/sudo"
	sshd.Sudo(t, free, false)
	sshd.Sudo(t, asked, true, "Defaults:"+asked+" lecture=always,passwd_tries=3,logfile="+logfile)
	script := `id -un; cat; echo "$HOME" "$A"; exit 5`
	for _, tt := range []struct {
		name, login, user string
		password          loom.Secret
		stdin             string
		out               string
		fails             string
	}{
		{"without password", free, "root", "", "", "root\n/root a\n", ""},
		{"to an ordinary user", free, barred, "", "", barred + "\n/tmp/", ""},
		{"password that is not asked for", free, "root", password, "", "root\n/root a\n", ""},
		{"password that is not asked for, and input", free, "root", password, "x\n", "root\nx\n/root a\n", ""},
		{"password", asked, "root", password, "", "root\n/root a\n", ""},
		{"password, and input", asked, "root", password, "x\n", "root\nx\n/root a\n", ""},
		{"no password", asked, "root", "", "", "", "sudo: {password: ...}"},
		{"wrong password", asked, "root", "battery", "", "", "sudo refused the password"},
		{"barred", barred, "root", password, "", "", "sudoers"},
		{"nobody", free, "nobody-of-that-name", "", "", "", "unknown user"},
		{"self", asked, asked, "", "", asked + "\n/tmp/", ""},
		{"evil", free, "-s", "", "", "", "can not be a user's name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, dialer(t, s.KnownHosts), node(s, tt.login))
			cmd := loom.Command{Text: script, User: tt.user, Password: tt.password, Env: map[string]string{"A": "a"}}
			if tt.stdin != "" {
				cmd.Stdin = strings.NewReader(tt.stdin)
			}
			out, errs, err := run(t, c, cmd)
			if strings.Contains(out+errs, "horse") || err != nil && strings.Contains(err.Error(), "horse") {
				t.Errorf("the password is in the output: %q %q %v", out, errs, err)
			}
			if tt.fails != "" {
				if out != "" || err == nil || !strings.Contains(err.Error(), tt.fails) || errors.Is(err, loom.ErrUnreachable) {
					t.Errorf("got %q, %q, %v", out, errs, err)
				}
				t.Log(err)
				return
			}
			exit := (*loom.ExitError)(nil)
			if !errors.As(err, &exit) || exit.Code != 5 || !strings.HasPrefix(out, tt.out) || errs != "" {
				t.Errorf("got %q, %q, %v", out, errs, err)
			}
		})
	}
	log, err := os.ReadFile(logfile)
	if err != nil || !strings.Contains(string(log), "1 incorrect password attempt") {
		t.Errorf("a wrong password was tried more than once: %v\n%s", err, log)
	}
}

// A password goes to one hidden question for it; other questions get no answer.
func TestKeyboardInteractive(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		questions []string
		echo      bool
		ok        bool
	}{
		{"password", []string{"Password: "}, false, true},
		{"somebody's password", []string{"(root@host) Password for root:"}, false, true},
		{"one-time code", []string{"Verification code: "}, false, false},
		{"shown", []string{"Password: "}, true, false},
		{"two", []string{"Password: ", "Verification code: "}, false, false},
		{"new password", []string{"New password: "}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heard := make(chan []string, 1)
			conf := &ssh.ServerConfig{
				KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
					echos := make([]bool, len(tt.questions))
					echos[0] = tt.echo
					answers, err := ask("", "", tt.questions, echos)
					heard <- answers
					if err != nil || answers[0] != "sesame" {
						return nil, errors.New("no")
					}
					return nil, nil
				},
			}
			addr := serve(t, conf, nil)
			d := dialer(t, "")
			d.HostKeys = loom.HostKeysOff
			c, err := d.Dial(t.Context(), &loom.Node{Name: "n1", Address: addr.IP.String(), Port: addr.Port, User: "u", Password: "sesame"})
			if err == nil {
				_ = c.Close()
			}
			if answers := <-heard; (err == nil) != tt.ok || !tt.ok && len(answers) > 0 {
				t.Errorf("got %v, answered %q", err, answers)
			}
			t.Log(err)
		})
	}
}

// serve runs SSH servers of the library on a port of its own; each connection
// is handed to handle, or does nothing.
func serve(t *testing.T, conf *ssh.ServerConfig, handle func(*ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request)) *net.TCPAddr {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	conf.AddHostKey(signer)
	return listen(t, func(c net.Conn) {
		conn, chans, requests, err := ssh.NewServerConn(c, conf)
		if err != nil {
			return
		}
		if handle != nil {
			handle(conn, chans, requests)
			return
		}
		go ssh.DiscardRequests(requests)
		for n := range chans {
			_ = n.Reject(ssh.Prohibited, "nothing here")
		}
	})
}
