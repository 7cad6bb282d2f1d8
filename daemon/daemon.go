// Package daemon is loomd as a function. A program of your own that calls
// [Main] with its tasks is a loomd with these tasks; cmd/loomd is the stock one.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/cli"
)

// Options are what a daemon is made of. All of it may be shared with the rest
// of the program, and must not change while the daemon runs.
type Options struct {
	// Tasks are what manifests can use. Nil is none.
	Tasks *loom.Registry

	// Dialer opens connections to nodes whose transport is not local. If it has
	// a method Configure(loom.SSHConfig), that is called with what the
	// configuration says, each time that is read.
	Dialer loom.Dialer

	// Stores are the kinds of memory that the configuration can choose from. A
	// daemon without any remembers nothing once it ends.
	Stores Stores

	// Name is what users call the program; "": as it was started.
	Name string
}

// Stores are kinds of store by name; see [cli.Stores].
type Stores = cli.Stores

// Main is the main function of a loomd: it does what the arguments say, and
// ends the process with the exit status that cli documents.
//
// SIGTERM or SIGINT stops what goes on in good order: running jobs get the
// grace that the configuration gives them. The second one cancels them, and the
// third ends the process as it is. SIGHUP has the daemon read its files again.
func Main(o Options) { main(o, run) }

// Client is the main function of a loom: Main without the commands that are the
// daemon, for machines that have none. It opens a store only if its user asks for
// work to be done from here (--local), or names one (--state).
func Client(o Options) { main(o, runClient) }

// A runner does what arguments say.
type runner func(ctx context.Context, proc *process, o Options, args []string, stdin io.Reader, stdout, stderr io.Writer) error

func main(o Options, run runner) {
	if o.Name == "" && len(os.Args) > 0 {
		o.Name = filepath.Base(os.Args[0])
	}
	sig := make(chan os.Signal, 8)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ctx, p := listen(context.Background(), sig, die)
	err := run(ctx, p, o, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(cli.ExitCode(err)) //nolint:forbidigo // this is the one place
}

// Run is Main without the process: ctx stands for the signals, and the error,
// which was told on stderr already, for the exit status (see cli.ExitCode). It
// returns when all that it started has ended.
func Run(ctx context.Context, o Options, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	return run(ctx, &process{reload: make(chan struct{}), abort: make(chan struct{})}, o, args, stdin, stdout, stderr)
}

func run(ctx context.Context, proc *process, o Options, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	o.Name = cmp.Or(o.Name, "loomd")
	p := program(o, proc, stdin, stdout, stderr)
	root := p.Command()
	addServe(root, p, proc)
	root.AddCommand(demoCommand(p, proc))
	err := p.Execute(ctx, root, args)
	p.Report(err)
	return err
}

func runClient(ctx context.Context, proc *process, o Options, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	o.Name = cmp.Or(o.Name, "loom")
	p := program(o, proc, stdin, stdout, stderr)
	p.Remote = true
	err := p.Execute(ctx, p.Command(), args)
	p.Report(err)
	return err
}

func program(o Options, proc *process, stdin io.Reader, stdout, stderr io.Writer) *cli.Program {
	if o.Tasks == nil {
		o.Tasks = new(loom.Registry)
	}
	return &cli.Program{Name: o.Name, Tasks: o.Tasks, Dialer: o.Dialer, Stores: o.Stores, Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Interrupts: &proc.interrupts}
}

// A process is how signals reach what runs.
type process struct {
	reload  chan struct{} // a SIGHUP
	abort   chan struct{} // closed by the second signal to stop
	serving atomic.Bool   // SIGHUP is wanted

	interrupts cli.Interrupts // Ctrl-C goes there first
}

// A signalled is the cause of a context that a signal has ended.
type signalled struct{ sig os.Signal }

func (s *signalled) Error() string {
	if s.sig == os.Interrupt {
		return "interrupted"
	}
	return s.sig.String()
}

// listen turns signals into a context that ends, and the rest of a process. The
// last one is for die.
func listen(ctx context.Context, sig <-chan os.Signal, die func(os.Signal)) (context.Context, *process) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &process{reload: make(chan struct{}, 1), abort: make(chan struct{})}
	stops := 0
	abort := sync.OnceFunc(func() { close(p.abort) })
	go func() { // it ends with the process
		for s := range sig {
			if s == syscall.SIGHUP && p.serving.Load() {
				select {
				case p.reload <- struct{}{}:
				default: // one is waiting already
				}
				continue
			}
			if s == os.Interrupt && p.interrupts.Give() {
				continue
			}
			stops++
			switch {
			case stops == 1:
				cancel(&signalled{s})
			case stops == 2 && p.serving.Load():
				abort()
			default:
				die(s)
			}
		}
	}()
	return ctx, p
}

// die ends the process as the signal would have, had nobody listened.
func die(s os.Signal) {
	signal.Reset(s)
	if sig, ok := s.(syscall.Signal); ok {
		_ = syscall.Kill(os.Getpid(), sig) // what follows helps if this doesn't
	}
}

// signalName says why ctx ended.
func signalName(ctx context.Context) string {
	if s, ok := errors.AsType[*signalled](context.Cause(ctx)); ok {
		return s.Error()
	}
	return fmt.Sprint(context.Cause(ctx))
}
