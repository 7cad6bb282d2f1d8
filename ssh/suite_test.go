package ssh_test

import (
	"log/slog"
	"os"
	"os/user"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/loomtest"
	"github.com/dustinlacewell/loom/ssh"
)

// dialing returns a function that connects to a server as a user.
func dialing(s *sshd.Server, name string) func(*testing.T) loom.Conn {
	return func(t *testing.T) loom.Conn {
		t.Helper()
		d := &ssh.Dialer{
			SSHConfig: loom.SSHConfig{ConfigFile: os.DevNull, KnownHosts: s.KnownHosts},
			Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		c, err := d.Dial(t.Context(), &loom.Node{Name: "n1", Address: s.Address, Port: s.Port, User: name, Identity: s.Identity})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func me(t *testing.T) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// The transport passes the suite against OpenSSH; loomtest runs it against its
// own server.
func TestConn(t *testing.T) {
	loomtest.TestConn(t, dialing(sshd.Start(t, sshd.Options{}), me(t)))
}

// A user who isn't root is forbidden something, and so few sessions that the
// suite's commands have to wait for each other are no reason to fail.
func TestConnOfUser(t *testing.T) {
	s := sshd.Start(t, sshd.Options{Lines: []string{"MaxSessions 2"}})
	loomtest.TestConn(t, dialing(s, sshd.NewUser(t, "", "").Username))
}
