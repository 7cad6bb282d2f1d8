package sshserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// A Machine runs commands and shows files as a real node does, in a directory
// of this one: the home of whoever logs in.
type Machine struct {
	Home string   // an absolute path
	Env  []string // over HOME, USER, LOGNAME, SHELL and PATH; nothing else is inherited
}

// Exec is a Handler. It runs the command with /bin/sh -c, in a session of its
// own, and behaves as OpenSSH without a terminal: a client that goes away only
// closes the command's streams, the exit status is sent when the command ends,
// and the channel stays open while anything holds its output. When ctx ends,
// the command is killed with the processes of its group.
func (m *Machine) Exec(ctx context.Context, r *Request) Exit {
	p, err := m.start(r)
	if err != nil {
		_, _ = fmt.Fprintf(r.Stderr, "%v\n", err)
		return Exit{Status: 255}
	}

	dead := make(chan struct{})  // the shell has ended
	quiet := make(chan struct{}) // and so has its output
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(quiet)
	wg.Go(func() { p.watch(ctx, r, dead, quiet) })

	// A client that does not close its side keeps this one reading after the
	// command's end.
	r.Go(func() {
		_, _ = io.Copy(p.stdin, r.Stdin)
		_ = p.stdin.Close()
		_, _ = io.Copy(io.Discard, r.Stdin) // nobody reads it: but the client may send it
	})
	var output sync.WaitGroup
	output.Go(func() { drain(r.Stdout, p.stdout) })
	output.Go(func() { drain(r.Stderr, p.stderr) })

	err = p.cmd.Wait()
	close(dead)
	r.Ended(exitOf(err, p.cmd.ProcessState))
	output.Wait()
	return Exit{}
}

// A process is a shell and this side of its streams.
type process struct {
	cmd            *exec.Cmd
	stdin          *os.File
	stdout, stderr *os.File
}

func (m *Machine) start(r *Request) (*process, error) {
	cmd := exec.Command("/bin/sh", "-c", r.Command) //nolint:noctx // it outlives its client
	if r.Command == "" {
		cmd = exec.Command("/bin/sh") //nolint:noctx // it outlives its client
	}
	cmd.Dir = m.Home
	cmd.Env = []string{
		"HOME=" + m.Home, "USER=" + r.User, "LOGNAME=" + r.User, "SHELL=/bin/sh",
		"PATH=" + cmp.Or(os.Getenv("PATH"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
	}
	for name, value := range r.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, m.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}

	var ends []*os.File
	pipe := func() (r, w *os.File, err error) {
		r, w, err = os.Pipe()
		if err == nil {
			ends = append(ends, r, w)
		}
		return r, w, err
	}
	in, stdin, err1 := pipe()
	stdout, out, err2 := pipe()
	stderr, errw, err3 := pipe()
	err := errors.Join(err1, err2, err3)
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errw
		err = cmd.Start()
	}
	if err != nil {
		for _, f := range ends {
			_ = f.Close()
		}
		return nil, err
	}
	for _, f := range []*os.File{in, out, errw} {
		_ = f.Close() // the process has its own
	}
	return &process{cmd: cmd, stdin: stdin, stdout: stdout, stderr: stderr}, nil
}

// watch does to the process what the client and the server's end ask for, until
// its output has ended.
func (p *process) watch(ctx context.Context, r *Request, dead, quiet <-chan struct{}) {
	group := -p.cmd.Process.Pid
	done, closed := ctx.Done(), r.Closed
	for {
		select {
		case <-quiet:
			return
		case <-dead:
			_ = p.stdin.Close() // what else reads it belongs to nobody
			dead = nil
		case <-closed:
			closed = nil
			_ = p.stdin.Close()
			_ = p.stdout.Close()
			_ = p.stderr.Close()
		case name := <-r.Signals:
			if sig := unix.SignalNum("SIG" + name); sig != 0 {
				_ = syscall.Kill(group, sig)
			}
		case <-done:
			done = nil
			_ = syscall.Kill(group, syscall.SIGKILL)
			_ = p.stdout.Close() // a process of another group may hold it
			_ = p.stderr.Close()
		}
	}
}

// drain copies what a process prints, and tells the process if nobody wants it.
func drain(to io.Writer, from *os.File) {
	_, _ = io.Copy(to, from)
	_ = from.Close()
}

func exitOf(err error, state *os.ProcessState) Exit {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return Exit{Signal: strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")}
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return Exit{Status: exit.ExitCode()}
	}
	if err != nil {
		return Exit{Status: 255}
	}
	return Exit{}
}

// SFTP shows the files of this machine, and starts in Home.
func (m *Machine) SFTP(ctx context.Context, channel io.ReadWriteCloser) error {
	defer context.AfterFunc(ctx, func() { _ = channel.Close() })()
	srv, err := sftp.NewServer(channel, sftp.WithServerWorkingDirectory(filepath.Clean(m.Home)))
	if err != nil {
		return err
	}
	return srv.Serve()
}
