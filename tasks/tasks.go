// Package tasks is the standard library of tasks: commands, files, mounts,
// services and the network.
//
// Each task is a struct whose exported fields are its parameters, in order, as
// a Python function's would be. A manifest names it by the name it has in
// [Registry]; a Go program uses it as it is:
//
//	job := &loom.Job{Name: "up", Task: tasks.Run{Command: "uptime"}, Targets: nodes}
//
// What all of them hold to:
//
//   - A node needs only a POSIX shell. What more a task needs, it says.
//   - A task that finds the node as it should be is ok and touches nothing;
//     changed means that something was changed. A command that Loom can't look
//     into is ok unless it has a guard (creates, unless), and then changed.
//   - A task that can tell what it would change implements [loom.Planner], and
//     does in Apply what Plan said.
//   - What a manifest says reaches the node's shell as quoted words, never as
//     shell text, except for parameters that are a command. No secret is on a
//     command line.
//   - Paths of the control host may begin with ~, and relative ones start at the
//     directory of the main file, as all others in manifests do; without a
//     manifest where the program runs ([loom.Session.LocalPath]). Paths of the
//     node are relative to the login directory.
package tasks

import "github.com/dustinlacewell/loom"

// Registry returns a new registry with all tasks of this package, under their
// names and the Python import paths that manifests of the first Loom use.
func Registry() *loom.Registry {
	r := new(loom.Registry)
	r.Add("run", Run{}, "fabric.api.run", "fabric.operations.run")
	r.Add("sudo", Sudo{}, "fabric.api.sudo", "fabric.operations.sudo")
	r.Add("local", Local{}, "fabric.api.local", "fabric.operations.local")
	r.Add("script", Script{})
	r.Add("put", Put{UseGlob: true}, "fabric.api.put", "fabric.operations.put")
	r.Add("get", Get{}, "fabric.api.get", "fabric.operations.get")
	r.Add("mount", Mount{}, "loom.system.mount")
	r.Add("unmount", Unmount{}, "loom.system.unmount")
	r.Add("sshfs.mount", SSHFS{turns: newTurns()}, "loom.system.add_sshfs_mount")
	r.Add("service", Service{}, "loom.system.run_daemon_cmd")
	r.Add("hostip", HostIP{}, "loom.system.gethostip")
	r.Add("ping", Ping{})
	r.Add("wait", Wait{})
	return r
}
