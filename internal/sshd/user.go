package sshd

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"testing"
)

// NewUser makes a user of this machine for the time of the test, with a home
// directory, a login shell ("": /bin/sh) and a password ("": none). The test is
// skipped if it does not run as root.
func NewUser(tb testing.TB, shell, password string) *user.User {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("NOT TESTED: this test makes users, which needs root")
	}
	Need(tb, "useradd", "userdel", "chpasswd")
	if shell == "" {
		shell = "/bin/sh"
	}
	home, err := os.MkdirTemp("/tmp", "loom-home-")
	if err != nil {
		tb.Fatal(err)
	}
	name := "loomt" + strings.ToLower(home[strings.LastIndexByte(home, '-')+1:])
	out, err := exec.Command("useradd", "-M", "-d", home, "-s", shell, "-p", "*", name).CombinedOutput()
	if err != nil {
		tb.Fatalf("useradd: %v\n%s", err, out)
	}
	tb.Cleanup(func() {
		_ = exec.Command("pkill", "-KILL", "-u", name).Run() // what a failed test has left
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			tb.Logf("userdel: %v\n%s", err, out)
		}
		_ = os.RemoveAll(home)
	})
	if password != "" {
		cmd := exec.Command("chpasswd")
		cmd.Stdin = strings.NewReader(name + ":" + password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Fatalf("chpasswd: %v\n%s", err, out)
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command("chown", name, home).CombinedOutput(); err != nil {
		tb.Fatalf("chown: %v\n%s", err, out)
	}
	return u
}

// Sudo lets a user run everything as everybody, with or without a password,
// for the time of the test. Further lines of sudoers may follow.
func Sudo(tb testing.TB, name string, password bool, lines ...string) {
	tb.Helper()
	Need(tb, "sudo", "visudo")
	tag := "NOPASSWD: "
	if password {
		tag = ""
	}
	file := "/etc/sudoers.d/" + name
	text := fmt.Sprintf("%s ALL=(ALL:ALL) %sALL\n%s\n", name, tag, strings.Join(lines, "\n"))
	if err := os.WriteFile(file, []byte(text), 0o440); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.Remove(file) })
	if out, err := exec.Command("visudo", "-c", "-f", file).CombinedOutput(); err != nil {
		tb.Fatalf("visudo: %v\n%s", err, out)
	}
}
