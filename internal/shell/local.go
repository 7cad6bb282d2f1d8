package shell

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Local starts a program of this machine, in a session of its own.
func Local(_ context.Context, line string) (Process, error) {
	words := strings.Fields(strings.TrimPrefix(line, "exec "))
	p := &child{done: make(chan struct{})}
	p.cmd = exec.Command(words[0], words[1:]...) // Run ends it, in its own way
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if home, err := os.UserHomeDir(); err == nil {
		p.cmd.Dir = home // as after logging in
	}

	// Pipes of our own, since cmd's end when the process has, and what it has
	// left behind may still write.
	var theirs []*os.File
	pipe := func(ours **os.File, in bool) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		if in {
			r, w = w, r
		}
		*ours = r
		theirs = append(theirs, w)
		return nil
	}
	err := errors.Join(pipe(&p.stdin, true), pipe(&p.stdout, false), pipe(&p.stderr, false))
	if err == nil {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = p.cmd.Start()
	}
	for _, f := range theirs {
		_ = f.Close()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	go p.wait()
	return p, nil
}

// A child is a process of this machine.
type child struct {
	cmd                   *exec.Cmd
	stdin, stdout, stderr *os.File
	done                  chan struct{}
	err                   error // of Wait; after done
}

func (p *child) wait() {
	p.err = p.cmd.Wait()
	_ = p.stdin.Close() // tells the watcher
	close(p.done)
}

func (p *child) Write(b []byte) (int, error)   { return p.stdin.Write(b) }
func (p *child) CloseWrite() error             { return p.stdin.Close() }
func (p *child) Read(b []byte) (int, error)    { return p.stdout.Read(b) }
func (p *child) ReadErr(b []byte) (int, error) { return p.stderr.Read(b) }
func (p *child) Done() <-chan struct{}         { return p.done }

func (p *child) Exit() (Exit, error) {
	<-p.done
	state := p.cmd.ProcessState
	if state == nil {
		return Exit{}, p.err
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return Exit{Code: -1, Signal: signalName(ws.Signal())}, nil
	}
	return Exit{Code: state.ExitCode()}, nil
}

// Close lets go of the process. One that still runs ends, since its watcher
// reads the end of its standard input.
func (p *child) Close() {
	for _, f := range []io.Closer{p.stdin, p.stdout, p.stderr} {
		if f != (*os.File)(nil) {
			_ = f.Close()
		}
	}
}

// signalName returns the name of a signal as SSH has it.
func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGABRT: "ABRT", syscall.SIGALRM: "ALRM", syscall.SIGFPE: "FPE", syscall.SIGHUP: "HUP",
		syscall.SIGILL: "ILL", syscall.SIGINT: "INT", syscall.SIGKILL: "KILL", syscall.SIGPIPE: "PIPE",
		syscall.SIGQUIT: "QUIT", syscall.SIGSEGV: "SEGV", syscall.SIGTERM: "TERM", syscall.SIGUSR1: "USR1",
		syscall.SIGUSR2: "USR2", syscall.SIGBUS: "BUS", syscall.SIGSYS: "SYS", syscall.SIGTRAP: "TRAP",
		syscall.SIGXCPU: "XCPU", syscall.SIGXFSZ: "XFSZ",
	}
	if name := names[s]; name != "" {
		return name
	}
	return strings.ToUpper(strings.ReplaceAll(s.String(), " ", "-"))
}
