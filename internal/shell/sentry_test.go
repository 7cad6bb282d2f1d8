package shell

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A sentry that has said that it is there does its work, though the connection
// breaks while it still says so to the other stream.
func TestSentryOutlivesItsWords(t *testing.T) {
	t.Parallel()
	nonce := newNonce()
	victim := exec.Command("/bin/sh", "-c", "echo; exec sleep 100")
	victim.Env = append(os.Environ(), "LOOM_EXEC="+nonce)
	victim.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	up, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = victim.Process.Kill() // it has ended, if all is well
		_ = victim.Wait()
	})
	_, _ = bufio.NewReader(up).ReadString('\n')

	sh := exec.Command("/bin/sh")
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	unread, broken, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sh.Stderr = broken
	_ = unread.Close() // whoever writes gets SIGPIPE
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	_ = broken.Close()
	id := newNonce()
	if _, err := io.WriteString(in, sentryText(id)); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(said, mark(id)) {
		t.Fatalf("it said %q: %v", said, err)
	}
	_, _ = fmt.Fprintf(in, "+ %s %d %d\n", nonce, victim.Process.Pid, victim.Process.Pid)
	_ = in.Close()
	if err := sh.Wait(); err != nil {
		t.Fatalf("the sentry: %v", err)
	}
	if err := victim.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("what it watched over ended with %v", err)
	}
}
