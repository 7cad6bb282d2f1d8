// Command loom asks a loomd, on this machine or another, and tells what it says.
package main

import (
	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

func main() {
	daemon.Client(daemon.Options{
		Tasks:  tasks.Registry(),
		Dialer: &ssh.Dialer{},
		Stores: daemon.Stores{"sqlite": sqlite.Open},
	})
}
