package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/internal/golden"
	"github.com/dustinlacewell/loom/internal/scripts"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"loom": recorded, "loomd": loomd})
}

// loomd is cmd/loomd.
func loomd() {
	daemon.Main(daemon.Options{Tasks: tasks.Registry(), Dialer: &ssh.Dialer{}, Stores: daemon.Stores{"sqlite": sqlite.Open}})
}

// TestScripts runs loom as users do, against real daemons and, through OpenSSH,
// against daemons of other machines.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       golden.Update(),
		Setup:               func(e *testscript.Env) error { return setup(t, e) },
		Cmds:                commands(),
	})
}

// setup gives a script two homes: that of the daemon, and that of who asks it.
func setup(t *testing.T, e *testscript.Env) error {
	t.Helper()
	e.Values["t"] = t // ends what scripts start with the whole test
	for name, dir := range map[string]string{"HOME": "home", "THERE": "there"} {
		dir = filepath.Join(e.WorkDir, dir)
		e.Setenv(name, dir)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	e.Setenv("TZ", "UTC")
	e.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would wait a second at each end
	return nil
}

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := maps.Clone(scripts.Cmds())
	all["sshd"], all["fleet"], all["fromfile"] = startSSHD, fleetFile, fromFile
	return all
}

// sshd NAME starts an OpenSSH server, on which the programs of the script are
// found and whose users have the home THERE. The script's ssh finds it as
// NAME.example, where it may log in, and as locked-NAME.example, where it may not; $NAME_address, $NAME_port, $NAME_identity and
// $NAME_known_hosts are for others.
func startSSHD(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sshd name")
	}
	tb := ts.Value("t").(testing.TB)
	name := args[0]
	s := sshd.Start(tb, sshd.Options{After: []string{
		"Match all", fmt.Sprintf("SetEnv PATH=%s HOME=%s TZ=UTC GORACE=atexit_sleep_ms=0", ts.Getenv("PATH"), ts.Getenv("THERE")),
	}})
	for key, value := range map[string]string{"address": s.Address, "port": fmt.Sprint(s.Port), "identity": s.Identity, "known_hosts": s.KnownHosts} {
		ts.Setenv(name+"_"+key, value)
	}
	config := fmt.Sprintf("Host %s.example\n HostName %s\n Port %d\n IdentityFile %s\n IdentitiesOnly yes\n UserKnownHostsFile %s\n",
		name, s.Address, s.Port, s.Identity, s.KnownHosts) +
		fmt.Sprintf("Host locked-%s.example\n HostName %s\n Port %d\n IdentityFile none\n IdentityAgent none\n UserKnownHostsFile %s\n",
			name, s.Address, s.Port, s.KnownHosts) + "Host 127.0.0.1\n UserKnownHostsFile none\n"
	file := ts.MkAbs("ssh_config")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = f.WriteString(config)
	ts.Check(err)
	ts.Check(f.Close())
	wrapSSH(ts, file)
}

// wrapSSH has the script's ssh read a configuration, where it would read that in
// the home of the password file, which is the same for all tests.
func wrapSSH(ts *testscript.TestScript, config string) {
	dir := ts.MkAbs("bin")
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "ssh"), fmt.Appendf(nil, "#!/bin/sh\nexec /usr/bin/ssh -F %s \"$@\"\n", config), 0o755))
	if path := ts.Getenv("PATH"); filepath.SplitList(path)[0] != dir {
		ts.Setenv("PATH", dir+string(filepath.ListSeparator)+path)
	}
}
