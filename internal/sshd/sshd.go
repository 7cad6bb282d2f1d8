// Package sshd starts real OpenSSH servers for tests. Each has keys, a
// configuration and a port of its own, on a loopback address, and is gone when
// the test ends.
package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Options say how a server differs from the usual one. The zero value is a
// server on 127.0.0.1 and a free port, which knows one key and takes no
// passwords.
type Options struct {
	Address string   // "": 127.0.0.1
	Port    int      // 0: a free one
	Lines   []string // of sshd_config, before all others, so that they win
	After   []string // of sshd_config, after all others: for Match
	NoSFTP  bool

	// Under is a program that starts the server in its own place, with its
	// arguments: unshare, say. It must become the server, not wait for it.
	Under []string
}

// A Server is an OpenSSH server that runs.
type Server struct {
	Address string
	Port    int
	Dir     string // its files

	Identity   string // file of a private key that it lets in, as any user
	KnownHosts string // file that knows its host key
	HostKey    ssh.PublicKey

	log string
	cmd *exec.Cmd
}

// Start starts a server. The test is skipped if there is none on this machine,
// but not where the environment has CI: there it fails.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	program := find(tb, "sshd")
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where it locks itself in
			tb.Fatal(err)
		}
	}
	dir := tb.TempDir()
	s := &Server{
		Address: o.Address, Port: o.Port, Dir: dir,
		Identity: filepath.Join(dir, "id"), KnownHosts: filepath.Join(dir, "known_hosts"),
		log: filepath.Join(dir, "log"),
	}
	if s.Address == "" {
		s.Address = "127.0.0.1"
	}
	s.HostKey = NewKey(tb, filepath.Join(dir, "host"))
	client := NewKey(tb, s.Identity)
	write(tb, filepath.Join(dir, "authorized_keys"), string(ssh.MarshalAuthorizedKey(client)))
	for tries := 0; ; tries++ {
		if o.Port == 0 {
			s.Port = freePort(tb, s.Address)
		}
		s.Know(tb)
		s.configure(tb, o)
		if s.run(tb, append(o.Under, program)) {
			return s
		}
		if o.Port != 0 || tries == 20 {
			tb.Fatalf("port %d is taken", s.Port)
		}
	}
}

// find returns the path of a program, or ends the test.
func find(tb testing.TB, name string) string {
	tb.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/libexec"} {
		if file := filepath.Join(dir, name); executable(file) {
			return file
		}
	}
	file, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("this test needs %s: %v", name, err)
		}
		tb.Skipf("NOT TESTED: this test needs %s: %v", name, err)
	}
	return file
}

// Need ends the test if one of these programs is not installed, as Start does.
func Need(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, p := range programs {
		find(tb, p)
	}
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func freePort(tb testing.TB, address string) int {
	tb.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// NewKey makes a key pair in file and file.pub, and returns the public one.
func NewKey(tb testing.TB, file string) ssh.PublicKey {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, file, string(pem.EncodeToMemory(block)))
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, file+".pub", string(ssh.MarshalAuthorizedKey(key)))
	return key
}

func write(tb testing.TB, file, text string) {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Know writes the server's own host key to its known_hosts.
func (s *Server) Know(tb testing.TB) {
	tb.Helper()
	write(tb, s.KnownHosts, fmt.Sprintf("[%s]:%d %s", s.Address, s.Port, ssh.MarshalAuthorizedKey(s.HostKey)))
}

func (s *Server) configure(tb testing.TB, o Options) {
	tb.Helper()
	lines := append([]string{}, o.Lines...)
	lines = append(lines,
		"ListenAddress "+s.Address,
		"Port "+strconv.Itoa(s.Port),
		"HostKey "+filepath.Join(s.Dir, "host"),
		"AuthorizedKeysFile "+filepath.Join(s.Dir, "authorized_keys"),
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"UseDNS no",
		"PermitRootLogin yes",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"MaxStartups 1000",
		"LogLevel VERBOSE",
		"AcceptEnv none",
	)
	if !o.NoSFTP {
		lines = append(lines, "Subsystem sftp internal-sftp")
	}
	lines = append(lines, o.After...)
	// Root's own start-up files, which bash reads for every command, may do
	// anything on a developer's machine.
	lines = append(lines, "Match User root", "SetEnv HOME="+s.Dir)
	write(tb, filepath.Join(s.Dir, "sshd_config"), strings.Join(lines, "\n")+"\n")

	// The server reads its files as the user who logs in.
	if err := os.Chmod(filepath.Join(s.Dir, "authorized_keys"), 0o644); err != nil {
		tb.Fatal(err)
	}
	for dir := s.Dir; strings.HasPrefix(dir, os.TempDir()+string(filepath.Separator)); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
}

// run starts the process and waits until it listens. It returns false if another
// one took the port first.
func (s *Server) run(tb testing.TB, program []string) bool {
	tb.Helper()
	config := filepath.Join(s.Dir, "sshd_config")
	program = append(slices.Clip(program), "-D", "-f", config, "-E", s.log)
	s.cmd = exec.Command(program[0], program[1:]...)
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	var failure error
	go func() {
		defer close(ended)
		failure = s.cmd.Wait()
	}()
	tb.Cleanup(func() {
		s.stop()
		<-ended
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		select {
		case <-ended:
			log := s.Log()
			if !strings.Contains(log, "already in use") {
				tb.Fatalf("sshd ended: %v\n%s", failure, log)
			}
			_ = os.Remove(s.log)
			return false
		default:
		}
		if strings.Contains(s.Log(), "Server listening on") { // what answers at the port might be another
			return true
		}
	}
	return false
}

// Addr returns the server's address and port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Address, strconv.Itoa(s.Port)) }

// Log returns what the server has logged.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.log) // a server that logged nothing has no log
	return string(b)
}

// stop ends the server and its connections, but not what runs on them.
func (s *Server) stop() {
	for _, pid := range s.Connections() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone already
	}
	_ = s.cmd.Process.Kill()
}

// CPU returns how much processor time the connections that have ended took,
// with all that ran on them and was waited for.
func (s *Server) CPU() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.Atoi(fields[13])   // children's, in ticks
	system, _ := strconv.Atoi(fields[14]) // a number, says proc(5)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// PID returns the number of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Connections returns the server's processes that each serve one connection.
func (s *Server) Connections() []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	children := map[int][]int{}
	name := map[int]string{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
		fields := strings.Fields(string(b[end+1:]))
		pid, err1 := strconv.Atoi(strings.TrimSpace(string(b[:open])))
		parent, err2 := strconv.Atoi(fields[1])
		if errors.Join(err1, err2) == nil {
			children[parent] = append(children[parent], pid)
			name[pid] = string(b[open+1 : end])
		}
	}
	var found []int
	var visit func(int)
	visit = func(pid int) {
		for _, child := range children[pid] {
			if strings.HasPrefix(name[child], "sshd") {
				found = append(found, child)
				visit(child)
			}
		}
	}
	visit(s.cmd.Process.Pid)
	return found
}
