package ssh

import (
	"bytes"
	"errors"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

// claiming returns a session that claims its commands.
func claiming(c loom.Conn, claim string) *loom.Session {
	return (&loom.Session{Node: &loom.Node{Name: "n1"}, Conn: c, Claim: claim}).Resumable()
}

func TestResumable(t *testing.T) {
	t.Parallel()
	s := sshd.Start(t, sshd.Options{})
	c := dial(t, dialer(t, s.KnownHosts), node(s, me()))
	for range 2 {
		var out, errs bytes.Buffer
		err := claiming(c, "first").Exec(t.Context(), loom.Command{Text: "echo hello; echo oops >&2; exit 7", Stdout: &out, Stderr: &errs})
		exit := (*loom.ExitError)(nil)
		if !errors.As(err, &exit) || exit.Code != 7 || out.String() != "hello\n" || errs.String() != "oops\n" {
			t.Errorf("%q %q %v", out.String(), errs.String(), err)
		}
	}
}
