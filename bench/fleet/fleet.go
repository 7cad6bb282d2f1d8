package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A fleet is a number of loopback nodes with OpenSSH servers, and the files
// that clients need to reach them.
type fleet struct {
	dir   string
	user  string
	port  int
	hosts []string

	key        string // of the client
	knownHosts string
	config     string // ssh_config; connects anew each time
	muxConfig  string // ssh_config; uses masters that are there
	hostsFile  string // one host a line
	manifest   string // Loom's

	group      *group // of the servers
	servers    []*proc
	masters    []*proc // ssh processes that keep a connection to each node
	madeRunDir bool
}

// perServer is how many ListenAddress lines one sshd takes.
const perServer = 16

// bashrc is how a node's startup file begins on Debian: bash reads it for every
// command that sshd starts, and leaves it here.
const bashrc = `# ~/.bashrc: executed by bash(1) for non-login shells.
case $- in
    *i*) ;;
      *) return;;
esac
`

func startFleet(ctx context.Context, n, fanout int) (_ *fleet, err error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	f := &fleet{user: me.Username}
	if f.dir, err = os.MkdirTemp("", "fleet-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()
	for i := range n {
		f.hosts = append(f.hosts, fmt.Sprintf("127.0.10.%d", i+1))
	}
	if err := f.choosePort(); err != nil {
		return nil, err
	}
	if err := f.write(fanout); err != nil {
		return nil, err
	}
	f.group = newGroup("nodes")
	return f, f.serve(ctx)
}

// choosePort finds a port that the first node can listen on. The others are
// addresses of the same machine that hardly anything else uses.
func (f *fleet) choosePort() error {
	l, err := net.Listen("tcp", f.hosts[0]+":0")
	if err != nil {
		return err
	}
	f.port = l.Addr().(*net.TCPAddr).Port
	return l.Close()
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

// write makes keys and configurations.
func (f *fleet) write(fanout int) error {
	f.key, f.knownHosts, f.config, f.muxConfig = f.path("id"), f.path("known_hosts"), f.path("ssh_config"), f.path("mux_config")
	f.hostsFile, f.manifest = f.path("hosts"), f.path("loom.yaml")
	public, err := newKey(f.key)
	if err != nil {
		return err
	}
	hostPublic, err := newKey(f.path("host_key"))
	if err != nil {
		return err
	}
	for _, d := range []string{"home", "m", "jobs"} {
		if err := os.Mkdir(f.path(d), 0o700); err != nil {
			return err
		}
	}
	var known, nodes strings.Builder
	for _, h := range f.hosts {
		fmt.Fprintf(&known, "[%s]:%d %s\n", h, f.port, hostPublic)
		fmt.Fprintf(&nodes, "%s: {ip: %s, port: %d, user: %s, identity: %s}\n", h, h, f.port, f.user, f.key)
	}
	client := fmt.Sprintf(`Host *
  User %s
  Port %d
  IdentityFile %s
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
`, f.user, f.port, f.key, f.knownHosts)
	files := map[string]string{
		"authorized_keys": public + "\n",
		"ansible.cfg":     "",
		"home/.bashrc":    bashrc,
		"known_hosts":     known.String(),
		"nodes.yaml":      nodes.String(),
		"loom.yaml": fmt.Sprintf("nodesfile: nodes.yaml\njobspath: jobs/\nmax_workers: %d\nstate: state\nssh: {config: /dev/null, known_hosts: %s}\n",
			fanout, f.knownHosts),
		"ssh_config": client,
		"mux_config": client + "  ControlPath " + f.path("m/%h") + "\n",
		"hosts":      strings.Join(f.hosts, "\n") + "\n",
		"client.py":  fabricProgram,
	}
	for name, text := range files {
		if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// newKey makes a key pair, writes the private one, and returns the public one
// as authorized_keys has it.
func newKey(file string) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
}

const sshd = "/usr/sbin/sshd"

// serve starts the servers and waits until all of them listen.
func (f *fleet) serve(ctx context.Context) error {
	if os.Geteuid() == 0 { // sshd wants an empty directory to lock itself into
		if err := os.Mkdir("/run/sshd", 0o755); err == nil {
			f.madeRunDir = true
		} else if !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for i := 0; i < len(f.hosts); i += perServer {
		hosts := f.hosts[i:min(i+perServer, len(f.hosts))]
		config := f.path(fmt.Sprintf("sshd_config.%d", i))
		if err := os.WriteFile(config, []byte(f.serverConfig(hosts)), 0o600); err != nil {
			return err
		}
		cmd := exec.Command(sshd, "-D", "-e", "-f", config)
		log, err := os.Create(f.path(fmt.Sprintf("sshd.%d.log", i)))
		if err != nil {
			return err
		}
		cmd.Stderr = log
		p, err := start(cmd, f.group)
		_ = log.Close() // the server has its own handle
		if err != nil {
			return fmt.Errorf("starting %s (Debian: apt install openssh-server): %w", sshd, err)
		}
		f.servers = append(f.servers, p)
		for _, h := range hosts {
			if err := f.waitFor(ctx, p, h); err != nil {
				text, _ := os.ReadFile(log.Name())
				return fmt.Errorf("%w; it says:\n%s", err, text)
			}
		}
	}
	return f.settle(ctx, len(f.servers))
}

func (f *fleet) serverConfig(hosts []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
LogLevel ERROR
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 10000
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
Ciphers aes128-gcm@openssh.com,aes128-ctr
Subsystem sftp internal-sftp
SetEnv HOME=%s
`, f.port, f.path("host_key"), f.path("authorized_keys"), f.path("home"))
	for _, h := range hosts {
		fmt.Fprintln(&b, "ListenAddress", h)
	}
	return b.String()
}

// waitFor returns when the node accepts connections.
func (f *fleet) waitFor(ctx context.Context, p *proc, host string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, fmt.Errorf("%s on %s does not listen after 10 s", sshd, host))
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", host, f.port))
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s for %s ended: %w", sshd, host, p.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// settle waits until the servers have at most n processes left, so that the end
// of one measurement is not counted into the next.
func (f *fleet) settle(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		pause := 20 * time.Millisecond
		if f.group == nil {
			pause = 500 * time.Millisecond
		} else if f.group.count() <= n {
			return nil
		}
		select {
		case <-time.After(pause):
			if f.group == nil {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("the nodes still have %d processes, %d before: %w", f.group.count(), n, context.Cause(ctx))
		}
	}
}

// calm waits until the servers' processes have been the same number for half a
// second: what Loom starts ahead of need, it starts when all has been calm for a
// while, and it is to be counted as its own.
func (f *fleet) calm(ctx context.Context) error {
	for last, same := -1, 0; same < 25; same++ {
		if n := f.group.count(); n != last {
			last, same = n, 0
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// stop ends the servers and what they have started, and removes the fleet's
// files. Without control groups the servers' children are left to end when
// their clients have, which is at once.
func (f *fleet) stop() error {
	for _, p := range append(f.masters, f.servers...) {
		p.kill()
	}
	err := f.group.remove()
	if f.madeRunDir {
		err = errors.Join(err, os.Remove("/run/sshd"))
	}
	return errors.Join(err, os.RemoveAll(f.dir))
}
