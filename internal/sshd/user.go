package sshd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"testing"
	"time"
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
	u, remove, err := AddUser(shell, password)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := remove(); err != nil {
			tb.Log(err)
		}
	})
	return u
}

// AddUser is NewUser for a TestMain. The user stays until remove is called.
func AddUser(shell, password string) (u *user.User, remove func() error, err error) {
	if shell == "" {
		shell = "/bin/sh"
	}
	home, err := os.MkdirTemp("/tmp", "loom-home-")
	if err != nil {
		return nil, nil, err
	}
	name := "loomt" + home[strings.LastIndexByte(home, '-')+1:]
	if err := insist("useradd", "-M", "-d", home, "-s", shell, "-p", "*", name); err != nil {
		return nil, nil, err
	}
	remove = func() error {
		_ = command("", "pkill", "-KILL", "-u", name) // what a failed test has left
		return errors.Join(insist("userdel", name), os.RemoveAll(home))
	}
	err = command("", "chown", name, home)
	if password != "" && err == nil {
		err = command(name+":"+password+"\n", "chpasswd")
	}
	if err == nil {
		u, err = user.Lookup(name)
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return u, remove, nil
}

// insist runs a program that fails while another one holds the list of users.
func insist(name string, args ...string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		err := command("", name, args...)
		if err == nil || tries == 50 {
			return err
		}
		<-tick.C
	}
}

// command runs a program with this input.
func command(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
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
