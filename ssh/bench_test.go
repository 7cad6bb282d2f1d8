package ssh

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"golang.org/x/crypto/ssh"
)

// cpu returns the CPU time that this process has used, in nanoseconds.
func cpu() int64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return r.Utime.Nano() + r.Stime.Nano()
}

// bare opens a connection with nothing but the library.
func bare(tb testing.TB, s *sshd.Server, user string) *ssh.Client {
	tb.Helper()
	key, err := os.ReadFile(s.Identity)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.Addr(), &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(s.HostKey), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// BenchmarkWarm compares a command over an open connection with the same done by
// the library alone: wall time, our CPU, and the server's.
func BenchmarkWarm(b *testing.B) {
	user := sshd.NewUser(b, "/bin/bash", "").Username
	measure := func(b *testing.B, s *sshd.Server, run func(), done func()) {
		b.Helper()
		run()
		ours, theirs := cpu(), s.CPU()
		for b.Loop() {
			run()
		}
		ours = cpu() - ours
		done()
		for len(s.Connections()) > 0 {
			time.Sleep(time.Millisecond) //nolint:forbidigo // waits for processes of others
		}
		b.ReportMetric(float64(ours)/1e3/float64(b.N), "cpu-us/op")
		b.ReportMetric(float64((s.CPU()-theirs).Microseconds())/float64(b.N), "server-us/op")
	}
	b.Run("bare", func(b *testing.B) {
		s := sshd.Start(b, sshd.Options{})
		c := bare(b, s, user)
		measure(b, s, func() {
			session, err := c.NewSession()
			if err != nil {
				b.Fatal(err)
			}
			if err := session.Run("true"); err != nil {
				b.Fatal(err)
			}
			_ = session.Close()
		}, func() { _ = c.Close() })
	})
	b.Run("loom", func(b *testing.B) {
		s := sshd.Start(b, sshd.Options{})
		c := dial(b, dialer(b, s.KnownHosts), node(s, user))
		measure(b, s, func() {
			if err := c.Exec(b.Context(), loom.Command{Text: "true"}); err != nil {
				b.Fatal(err)
			}
		}, func() { _ = c.Close() })
	})
}
