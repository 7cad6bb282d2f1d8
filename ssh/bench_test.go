package ssh

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"golang.org/x/crypto/ssh"
)

// cpu returns the CPU time that this process has used.
func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// bare opens a connection with nothing but the library.
func bare(tb testing.TB, s *sshd.Server) *ssh.Client {
	tb.Helper()
	key, err := os.ReadFile(s.Identity)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.Addr(), &ssh.ClientConfig{User: me(), Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(s.HostKey), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}})
	if err != nil {
		tb.Error(err)
	}
	return c
}

func bareRun(tb testing.TB, c *ssh.Client) {
	tb.Helper()
	session, err := c.NewSession()
	if err != nil {
		tb.Error(err)
		return
	}
	if err := session.Run("true"); err != nil {
		tb.Error(err)
	}
	_ = session.Close()
}

// fleet is how many nodes the benchmarks have.
const fleet = 20

// BenchmarkFleet runs a command on many nodes at once, in turns with the library
// alone and with Loom, so that both see the same machine: over connections that
// are open (warm), and over new ones (cold). The ratios are what counts.
func BenchmarkFleet(b *testing.B) {
	var servers []*sshd.Server
	for range fleet {
		servers = append(servers, sshd.Start(b, sshd.Options{}))
	}
	all := func(f func(i int)) {
		var wg sync.WaitGroup
		for i := range servers {
			wg.Go(func() { f(i) })
		}
		wg.Wait()
	}
	compare := func(b *testing.B, library, ours func(i int)) {
		b.Helper()
		var wall, used [2]time.Duration
		for b.Loop() {
			for k, f := range []func(int){library, ours} {
				begun, before := time.Now(), cpu()
				all(f)
				wall[k] += time.Since(begun)
				used[k] += cpu() - before
			}
		}
		each := float64(b.N * fleet)
		b.ReportMetric(float64(used[0].Microseconds())/each, "lib-cpu-us")
		b.ReportMetric(float64(used[1].Microseconds())/each, "loom-cpu-us")
		b.ReportMetric(float64(used[1])/float64(used[0]), "cpu-ratio")
		b.ReportMetric(float64(wall[1])/float64(wall[0]), "wall-ratio")
	}
	dialers := make([]*Dialer, fleet)
	for i, s := range servers {
		dialers[i] = dialer(b, s.KnownHosts)
	}
	b.Run("warm", func(b *testing.B) {
		clients, conns := make([]*ssh.Client, fleet), make([]loom.Conn, fleet)
		all(func(i int) {
			clients[i] = bare(b, servers[i])
			c, err := dialers[i].Dial(b.Context(), node(servers[i], me()))
			if err != nil {
				b.Error(err)
			}
			conns[i] = c
		})
		defer all(func(i int) {
			_ = clients[i].Close()
			_ = conns[i].Close()
		})
		compare(b, func(i int) { bareRun(b, clients[i]) }, func(i int) {
			if err := conns[i].Exec(b.Context(), loom.Command{Text: "true"}); err != nil {
				b.Error(err)
			}
		})
	})
	b.Run("cold", func(b *testing.B) {
		compare(b, func(i int) {
			c := bare(b, servers[i])
			bareRun(b, c)
			_ = c.Close()
		}, func(i int) {
			c, err := dialers[i].Dial(b.Context(), node(servers[i], me()))
			if err != nil {
				b.Error(err)
				return
			}
			if err := c.Exec(b.Context(), loom.Command{Text: "true"}); err != nil {
				b.Error(err)
			}
			_ = c.Close()
		})
	})
}

// BenchmarkWarm compares a command over one open connection with the same done
// by the library alone: wall time, our CPU, and the server's.
func BenchmarkWarm(b *testing.B) {
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
		b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "cpu-us/op")
		b.ReportMetric(float64((s.CPU()-theirs).Microseconds())/float64(b.N), "server-us/op")
	}
	b.Run("library", func(b *testing.B) {
		s := sshd.Start(b, sshd.Options{})
		c := bare(b, s)
		measure(b, s, func() { bareRun(b, c) }, func() { _ = c.Close() })
	})
	b.Run("loom", func(b *testing.B) {
		s := sshd.Start(b, sshd.Options{})
		c := dial(b, dialer(b, s.KnownHosts), node(s, me()))
		measure(b, s, func() {
			if err := c.Exec(b.Context(), loom.Command{Text: "true"}); err != nil {
				b.Fatal(err)
			}
		}, func() { _ = c.Close() })
	})
	// In turns with a plain one, so that both see the same machine.
	b.Run("resumable", func(b *testing.B) {
		s := sshd.Start(b, sshd.Options{})
		c := dial(b, dialer(b, s.KnownHosts), node(s, me()))
		session := claiming(c, "bench")
		var took [2]time.Duration
		turns := []func() error{
			func() error { return c.Exec(b.Context(), loom.Command{Text: "true"}) },
			func() error { return session.Exec(b.Context(), loom.Command{Text: "true"}) },
		}
		for b.Loop() {
			for k, f := range turns {
				begun := time.Now()
				if err := f(); err != nil {
					b.Fatal(err)
				}
				took[k] += time.Since(begun)
			}
		}
		b.ReportMetric(float64(took[0].Microseconds())/float64(b.N), "plain-us")
		b.ReportMetric(float64(took[1].Microseconds())/float64(b.N), "resumable-us")
		b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
	})
}
