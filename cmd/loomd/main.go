// Command loomd runs scheduled tasks on a fleet of machines over SSH.
//
// For a loomd with tasks of your own, copy this file into a module of yours, add
// them to the registry as examples/fork does, and go build.
package main

import (
	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

func main() {
	daemon.Main(daemon.Options{
		Tasks:  tasks.Registry(), // registry.Add("acme.deploy", Deploy{}) adds one of yours
		Dialer: &ssh.Dialer{},
		Stores: daemon.Stores{"sqlite": sqlite.Open},
	})
}
