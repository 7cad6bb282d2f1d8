// Package loom schedules work for fleets of machines and does it over plain
// SSH, with nothing installed on them.
//
// # Words
//
//   - A [Node] is a machine. A [Task] is one thing that can be done to a node:
//     Go code with typed parameters. A [Job] is a task, the nodes it is applied
//     to, and when.
//   - A [Manifest] is the nodes and jobs that were read from files. It does not
//     change; a change of the files makes another.
//   - A run is one firing of a job, a [Result] what it did on one node, and an
//     [Event] anything that happened on the way.
//   - A [Pool] applies tasks to nodes, so many at a time, over connections that
//     it keeps. A [Scheduler] knows when each job falls due, and hands it to the
//     pool. A [Store] is the memory: which ticks were acted on and how, and
//     every run with its results and output.
//   - A [Session] is what a task holds while it works on a node, and a [Conn] is
//     how the bytes get there. A [Dialer] opens them: loom/ssh has the one for
//     SSH, and [Local] is this machine.
//
// Data flows one way: files, Manifest, Scheduler, Pool, Conn, Result, Store.
//
// # Three ways to use it
//
// Run the stock daemon, loomd, with manifests: see the README.
//
// Add tasks of your own to it, in a main of fifteen lines that calls
// daemon.Main with a [Registry] of yours: see examples/fork.
//
// Or use any layer in a program of your own, without manifests:
//
//	pool := &loom.Pool{Dialer: &loomssh.Dialer{}}
//	defer pool.Close()
//	err := pool.Run(ctx, &loom.Job{
//		Name:    "uptime",
//		Task:    tasks.Run{Command: "uptime"},
//		Targets: []*loom.Node{{Name: "db1"}, {Name: "db2", User: "admin"}},
//	}, time.Now(), nil)
//
// The error joins a [*NodeError] for each node that did not end well; pass a
// function instead of nil to see what happens while it happens.
//
// # Writing a task
//
// A task is a struct. Its exported fields are its parameters, which manifests
// set by position or by name, and which are checked when the manifest is read:
//
//	// Restart restarts a systemd unit and waits until it is active.
//	type Restart struct {
//		Unit string        `loom:"required" help:"unit to restart"`
//		Wait time.Duration `help:"how long it may take; a minute if 0"`
//	}
//
//	func (t Restart) Apply(ctx context.Context, s *loom.Session) error {
//		return s.Sudo("").Run(ctx, "systemctl restart --", t.Unit)
//	}
//
// The text of a command is for the node's shell; words after it are quoted, as
// parameters of a query are. A task that can tell what it would change is a
// [Planner] too, and one with rules that types can't express a [Validator].
// Package loomtest has a node to test tasks on, and a suite that says what every
// task owes Loom.
//
// # What it remembers
//
// A [Scheduler] with a [Store] has it keep what becomes of each tick before the
// run begins, and each result when the node has ended. After a crash, the next
// scheduler with the same store goes on with what can go on, says of the rest that
// it is lost, and runs nothing twice. loom/store/sqlite is a store in one file, and
// loom/store/memory one for programs that need no past; loom/store/storetest is what
// every store must pass.
//
// # How it stops
//
//	signal ─► ctx ends ─► Scheduler starts no more runs ─► Grace ─► runs cancelled, cause ErrShutdown
//	                                                        │                │
//	                                     tasks end ─────────┘     commands are ended on the nodes
//	                                                        ▼
//	                              Scheduler.Run returns ─► Pool.Close
//
// What [Scheduler.Run] and [Pool.Run] start, they wait for. There is one
// exception, and it is said in the result: a task that has not returned ten
// seconds after its context ended is left behind.
package loom
