package ssh

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
)

func TestTrust(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, kind := range []string{"rsa", "ecdsa"} {
		tool(t, "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", dir+"/"+kind)
	}
	s := sshd.Start(t, sshd.Options{Lines: []string{"HostKey " + dir + "/rsa", "HostKey " + dir + "/ecdsa"}})
	file := dir + "/known"
	d := dialer(t, file)
	n := node(s, me())
	if _, err := d.Dial(t.Context(), n); err == nil {
		t.Fatal("a host that nobody has trusted lets us in")
	}
	shown, err := d.ShowHostKeys(t.Context(), n)
	if err != nil || len(shown) != 3 {
		t.Fatalf("ShowHostKeys = %+v, %v, want three", shown, err)
	}
	for _, k := range shown {
		if k.Known != "" || k.Changed {
			t.Errorf("a key that nobody knows: %+v", k)
		}
	}
	if _, err := d.TrustHostKeys(t.Context(), n, "SHA256:nobody"); err == nil || !strings.Contains(err.Error(), shown[0].Fingerprint) {
		t.Errorf("trust of a key that is not shown: %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("what is not shown was recorded all the same")
	}
	added, err := d.TrustHostKeys(t.Context(), n, shown[0].Fingerprint)
	if err != nil || len(added) != 1 || added[0].Fingerprint != shown[0].Fingerprint {
		t.Errorf("TrustHostKeys of one = %+v, %v", added, err)
	}
	c, err := d.Dial(t.Context(), n)
	if err != nil {
		t.Fatalf("a host that was trusted: %v", err)
	}
	_ = c.Close()
	if added, err = d.TrustHostKeys(t.Context(), n); err != nil || len(added) != 2 {
		t.Errorf("TrustHostKeys of all = %+v, %v, want the other two", added, err)
	}
	if shown, err = d.ShowHostKeys(t.Context(), n); err != nil || shown[2].Known == "" || shown[0].Changed {
		t.Errorf("ShowHostKeys once they are trusted = %+v, %v", shown, err)
	}

	other := sshd.Start(t, sshd.Options{})
	stranger, err := os.ReadFile(other.Dir + "/host.pub")
	if err != nil {
		t.Fatal(err)
	}
	d = dialer(t, write(t, dir+"/changed", hostKeyName(s.Address, s.Port)+" "+string(stranger)))
	if shown, err = d.ShowHostKeys(t.Context(), n); err != nil || !shown[0].Changed {
		t.Errorf("ShowHostKeys of a host that has changed = %+v, %v", shown, err)
	}
	var e *Error
	if _, err = d.TrustHostKeys(t.Context(), n); !errors.As(err, &e) || e.Class != ClassHostKeyChanged || !strings.Contains(err.Error(), "ssh-keygen -R") {
		t.Errorf("trust of a key that has changed: %v", err)
	}
	if _, err := d.ShowHostKeys(t.Context(), &loom.Node{Name: "gone", Address: "127.0.0.1", Port: 1}); !errors.As(err, &e) || e.Class != ClassRefused {
		t.Errorf("ShowHostKeys where nobody listens: %v", err)
	}
}
