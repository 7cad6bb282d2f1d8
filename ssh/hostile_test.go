package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"golang.org/x/crypto/ssh"
)

// listen accepts connections and hands each to a function, until the test ends.
func listen(t *testing.T, handle func(net.Conn)) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr)
}

func at(addr *net.TCPAddr) *loom.Node {
	return &loom.Node{Name: "n1", Address: addr.IP.String(), Port: addr.Port, User: "u", Password: "sesame"}
}

// impatient is a dialer that takes any host key and waits for nobody.
func impatient(t *testing.T) *Dialer {
	t.Helper()
	d := dialer(t, "")
	d.HostKeys, d.ConnectTimeout = loom.HostKeysOff, 2*time.Second
	return d
}

func drip(c net.Conn, text string) {
	for i := 0; ; i++ {
		if _, err := io.WriteString(c, text[i%len(text):i%len(text)+1]); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // it is meant to be slow
	}
}

func TestWhatAnswers(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	hold := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, tt := range []struct {
		name  string
		addr  *net.TCPAddr
		class Class
		says  string
	}{
		{"nobody", closed.Addr().(*net.TCPAddr), ClassRefused, "refused"},
		{"mute", listen(t, hold), ClassTimeout, "before the server said anything"},
		{"slow", listen(t, func(c net.Conn) { drip(c, "SSH-3.") }), ClassTimeout, "timed out"},
		{"endless", listen(t, func(c net.Conn) { drip(c, "x\r\n") }), ClassNotSSH, "not an SSH server"},
		{"http", listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n") }), ClassNotSSH, "HTTP/1.0 400"},
		{"stuck in the key exchange", listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n"); hold(c) }), ClassTimeout, "key exchange"},
		{"hangs up", listen(t, func(net.Conn) {}), ClassReset, "broke"},
		{"too many", listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "Exceeded MaxStartups\r\n") }), ClassReset, "turns connections away"},
		{"stuck in authentication", serve(t, &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
			time.Sleep(4 * time.Second) //nolint:forbidigo // longer than we wait
			return nil, errors.New("no")
		}}, nil), ClassTimeout, "authentication"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := impatient(t).Dial(t.Context(), at(tt.addr))
			if err == nil {
				_ = c.Close()
			}
			e := &Error{}
			if !errors.As(err, &e) || e.Class != tt.class || !errors.Is(err, loom.ErrUnreachable) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %q: %v", e.Class, err)
			}
			if tt.class == ClassRefused {
				if want := fmt.Sprintf("u@%s: connection refused; is sshd running there, and on this port?", tt.addr); !strings.HasSuffix(err.Error(), want) {
					t.Errorf("got %q, which has to end in %q", err, want)
				}
			}
			t.Log(err)
		})
	}
	t.Run("no such host", func(t *testing.T) {
		d := impatient(t)
		d.Net = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}
		}
		_, err := d.Dial(t.Context(), &loom.Node{Name: "nowhere.invalid"})
		if e := (*Error)(nil); !errors.As(err, &e) || e.Class != ClassDNS {
			t.Error(err)
		}
	})
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(loom.ErrShutdown)
		_, err := impatient(t).Dial(ctx, at(listen(t, hold)))
		if !errors.Is(err, loom.ErrShutdown) || !errors.Is(err, loom.ErrUnreachable) {
			t.Error(err)
		}
	})
}

// misbehave is a server that lets everybody in and whose sessions do as told
// after they have read our script and answered with its marker.
func misbehave(t *testing.T, session func(ch ssh.Channel, conn *ssh.ServerConn)) *net.TCPAddr {
	t.Helper()
	conf := &ssh.ServerConfig{NoClientAuth: true}
	return serve(t, conf, func(conn *ssh.ServerConn, chans <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
		go ssh.DiscardRequests(requests)
		for n := range chans {
			ch, requests, err := n.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range requests {
					if r.Type == "exec" {
						go session(ch, conn)
					}
					_ = r.Reply(r.Type == "exec", nil)
				}
			}()
		}
	})
}

// script reads the script, or returns "" if it does not come.
func script(ch ssh.Channel) string {
	var text []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(text), "_loom;exit") {
		n, err := ch.Read(buf)
		if err != nil {
			return ""
		}
		text = append(text, buf[:n]...)
	}
	return string(text)
}

// mark answers a script with its marker.
func mark(ch ssh.Channel) {
	text := script(ch)
	if text == "" {
		return
	}
	at := strings.Index(text, "echo loom-")
	mark := text[at+len("echo ") : at+len("echo loom-")+20]
	_, _ = fmt.Fprintln(ch.Stderr(), mark)
	_, _ = fmt.Fprintln(ch, mark, 1000, 1000)
}

func status(ch ssh.Channel, code uint32) {
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
}

func TestSessionsThatEndOddly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		session func(ssh.Channel, *ssh.ServerConn)
		want    error // ErrLost or ErrUnreachable; nil: exit status 3
	}{
		{"two statuses", func(ch ssh.Channel, _ *ssh.ServerConn) {
			mark(ch)
			status(ch, 3)
			status(ch, 0)
			_ = ch.Close()
		}, nil},
		{"status without close", func(ch ssh.Channel, _ *ssh.ServerConn) {
			mark(ch)
			status(ch, 3)
		}, nil},
		{"close without status", func(ch ssh.Channel, _ *ssh.ServerConn) {
			mark(ch)
			_ = ch.Close()
		}, loom.ErrLost},
		{"hang up without status", func(ch ssh.Channel, conn *ssh.ServerConn) {
			mark(ch)
			_ = conn.Close()
		}, loom.ErrLost},
		{"hang up before the marker", func(ch ssh.Channel, conn *ssh.ServerConn) {
			script(ch) // without it, nothing was run, which is known
			_ = conn.Close()
		}, loom.ErrLost},
		{"close before the marker", func(ch ssh.Channel, _ *ssh.ServerConn) { _ = ch.Close() }, loom.ErrUnreachable},
		{"status 0 without marker", func(ch ssh.Channel, _ *ssh.ServerConn) {
			_, _ = io.WriteString(ch, "all is well")
			status(ch, 0)
			_ = ch.Close()
		}, loom.ErrUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := impatient(t)
			c := dial(t, d, at(misbehave(t, tt.session)))
			_, _, err := run(t, c, loom.Command{Text: "true"})
			exit := (*loom.ExitError)(nil)
			switch {
			case tt.want == nil && (!errors.As(err, &exit) || exit.Code != 3),
				tt.want != nil && !errors.Is(err, tt.want),
				errors.Is(err, loom.ErrLost) && errors.Is(err, loom.ErrUnreachable):
				t.Errorf("got %v, want %v", err, tt.want)
			}
			t.Log(err)
		})
	}
}

// A server that opens channels to us is refused them.
func TestServerOpensChannels(t *testing.T) {
	t.Parallel()
	refused := make(chan error, 4)
	conf := &ssh.ServerConfig{NoClientAuth: true}
	addr := serve(t, conf, func(conn *ssh.ServerConn, chans <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
		go ssh.DiscardRequests(requests)
		go func() {
			for n := range chans {
				_ = n.Reject(ssh.Prohibited, "no")
			}
		}()
		for _, kind := range []string{"auth-agent@openssh.com", "forwarded-tcpip", "x11", "session"} {
			_, _, err := conn.OpenChannel(kind, nil)
			refused <- err
		}
	})
	_ = dial(t, impatient(t), at(addr))
	for range 4 {
		if e := (*ssh.OpenChannelError)(nil); !errors.As(<-refused, &e) {
			t.Error("a channel was accepted")
		}
	}
}
