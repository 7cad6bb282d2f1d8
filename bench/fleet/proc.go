package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A proc is a child process. It is waited for once, wherever that is seen.
type proc struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
}

// start starts a command, in a group if there is one. It ends with this program
// even if that is killed.
func start(cmd *exec.Cmd, g *group) (*proc, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if g != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.dir.Fd())
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proc{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// kill ends the process and waits for it.
func (p *proc) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
		return
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// A group is a control group: it knows the processes of a tree, also those that
// left their parent, and what CPU time all of them took. A nil group knows
// nothing: the user may not make one, or the system has none.
type group struct{ dir *os.File }

func newGroup(name string) *group {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			path := filepath.Join(f[1], fmt.Sprintf("fleet-%d-%s", os.Getpid(), name))
			if os.Mkdir(path, 0o755) != nil {
				return nil
			}
			if dir, err := os.Open(path); err == nil {
				return &group{dir}
			}
			_ = os.Remove(path)
		}
	}
	return nil
}

func (g *group) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(g.dir.Name(), name)) // empty if the group is gone
	return string(text)
}

func (g *group) pids() []string { return strings.Fields(g.read("cgroup.procs")) }

func (g *group) count() int {
	if g == nil {
		return 0
	}
	return len(g.pids())
}

// cpu is what all processes of the group, also ended ones, have taken.
func (g *group) cpu() time.Duration {
	if g == nil {
		return 0
	}
	var us int64
	for line := range strings.Lines(g.read("cpu.stat")) {
		if _, err := fmt.Sscanf(line, "usage_usec %d", &us); err == nil {
			break
		}
	}
	return time.Duration(us) * time.Microsecond
}

// rss sums the resident memory of the group. Pages that processes share are
// counted for each.
func (g *group) rss() (total int64) {
	if g == nil {
		return 0
	}
	for _, text := range g.pids() {
		if pid, err := strconv.Atoi(text); err == nil {
			total += rss(pid)
		}
	}
	return total
}

// remove ends what is left in the group, and the group.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	defer g.dir.Close()
	var err error
	for range 200 {
		for _, pid := range g.pids() {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if err = os.Remove(g.dir.Name()); err == nil {
			return nil
		}
		<-time.After(10 * time.Millisecond)
	}
	return err
}

// rss is the resident memory of a process, 0 if it has ended.
func rss(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// onCPU is how long a running process was on a CPU, to the nanosecond.
func onCPU(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	first, _, _ := strings.Cut(string(text), " ")
	ns, _ := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns)
}

// selfCPU is what this process has taken.
func selfCPU() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // can't fail with a valid argument
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// selfPeak is the most memory that this program has had. Rusage would tell what
// its parent had before it became this program, if that was more.
func selfPeak() int64 {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer file.Close()
	var kb int64
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kb); err == nil {
			break
		}
	}
	return kb << 10
}
