// Command idle measures what loomd costs while nothing falls due: the memory
// and CPU time of a daemon with many idle jobs, and how long it takes to read
// a large manifest. It builds loomd, unless it is given one, and runs it as a
// user would. It prints Markdown. Linux only.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	loomd := flag.String("loomd", "", "the binary to measure; empty: build it")
	settle := flag.Duration("settle", 10*time.Second, "how long the daemon is left alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *loomd, *settle)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, loomd string, settle time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "idle-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if loomd == "" {
		loomd = filepath.Join(dir, "loomd")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", loomd, "github.com/dustinlacewell/loom/cmd/loomd")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building loomd: %w\n%s", err, out)
		}
	}
	b := bench{loomd: loomd, dir: dir, settle: settle}
	fmt.Println("| jobs | files | loomd check s | its CPU s | ready after s | resident MB | at most MB | CPU s while idle |")
	fmt.Println("|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, size := range []struct{ jobs, files int }{{1, 1}, {1000, 100}, {10_000, 1000}} {
		if err := b.measure(ctx, size.jobs, size.files); err != nil {
			return fmt.Errorf("%d jobs in %d files: %w", size.jobs, size.files, err)
		}
	}
	fmt.Printf("\nIdle for %v; the jobs run commands on 100 nodes, once a year.\n", settle)
	return nil
}

type bench struct {
	loomd, dir string
	settle     time.Duration
}

// measure prints the table's row for so many jobs.
func (b *bench) measure(ctx context.Context, jobs, files int) error {
	dir := filepath.Join(b.dir, strconv.Itoa(jobs))
	config, err := write(dir, jobs, files)
	if err != nil {
		return err
	}
	began := time.Now()
	checker := exec.CommandContext(ctx, b.loomd, "check", "-c", config)
	if out, err := checker.CombinedOutput(); err != nil {
		return fmt.Errorf("loomd check: %w\n%s", err, out)
	}
	check, checkCPU := time.Since(began), checker.ProcessState.UserTime()+checker.ProcessState.SystemTime()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var said bytes.Buffer
	daemon := exec.CommandContext(ctx, b.loomd, "serve", "-c", config)
	daemon.Cancel = func() error { return daemon.Process.Signal(syscall.SIGTERM) }
	daemon.WaitDelay = 10 * time.Second
	daemon.Stdout, daemon.Stderr = &said, &said
	ready, err := notify(ctx, daemon, dir)
	if err != nil {
		return err
	}
	defer func() { _ = ready.Close() }()
	began = time.Now()
	if err := daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()

	waiting := make(chan error, 1)
	go func() { waiting <- awaitReady(ready) }()
	select {
	case err = <-waiting:
	case err = <-ended:
		return fmt.Errorf("loomd ended: %w\n%s", err, said.String())
	}
	if err == nil {
		err = b.report(ctx, daemon.Process.Pid, jobs, files, check, checkCPU, time.Since(began))
	}
	cancel()
	if end := <-ended; err == nil && end != nil && !errors.Is(end, context.Canceled) {
		err = fmt.Errorf("loomd: %w\n%s", end, said.String())
	}
	return err
}

// report leaves the daemon alone for a while and prints what it then has.
func (b *bench) report(ctx context.Context, pid, jobs, files int, check, checkCPU, start time.Duration) error {
	before, err := onCPU(pid)
	if err != nil {
		return err
	}
	select {
	case <-time.After(b.settle):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := onCPU(pid)
	if err != nil {
		return err
	}
	resident, err := memory(pid, "VmRSS")
	if err != nil {
		return err
	}
	most, err := memory(pid, "VmHWM")
	if err != nil {
		return err
	}
	fmt.Printf("| %d | %d | %.2f | %.2f | %.2f | %.1f | %.1f | %.3f |\n", jobs, files,
		check.Seconds(), checkCPU.Seconds(), start.Seconds(), resident, most, (after - before).Seconds())
	return nil
}

// notify has the daemon tell when it is ready, as it tells systemd.
func notify(ctx context.Context, daemon *exec.Cmd, dir string) (net.PacketConn, error) {
	path := filepath.Join(dir, "notify")
	var l net.ListenConfig
	c, err := l.ListenPacket(ctx, "unixgram", path)
	daemon.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	return c, err
}

func awaitReady(c net.PacketConn) error {
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("waiting until loomd says that it is ready: %w", err)
		}
		for line := range strings.Lines(string(buf[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// write makes a configuration whose jobs never fall due while it is looked at.
func write(dir string, jobs, files int) (config string, err error) {
	if err := os.MkdirAll(filepath.Join(dir, "jobs"), 0o700); err != nil {
		return "", err
	}
	var nodes strings.Builder
	for i := range 100 {
		fmt.Fprintf(&nodes, "web%02d: {ip: 127.0.0.1, user: loom, groups: [web, rack%d]}\n", i, i%10)
	}
	texts := map[string]string{
		"nodes.yaml": nodes.String(),
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs/\nstate: state\n",
	}
	for f := range files {
		var b strings.Builder
		b.WriteString("jobs:\n")
		for i := f; i < jobs; i += files {
			fmt.Fprintf(&b, `  job%05d:
    task: run
    args: ["/usr/local/bin/backup --verbose --keep 7 /srv/%d"]
    description: back up tenant %d
    schedule: "%d %d 1 1 *"
    targets: ["@rack%d", "!web05"]
    timeout: 10m
    retries: 2
`, i, i, i, i%60, i%24, i%10)
		}
		texts[fmt.Sprintf("jobs/%04d.yaml", f)] = b.String()
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "loom.yaml"), nil
}

// onCPU is how long all of a process's threads were on a CPU.
func onCPU(pid int) (total time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, t := range threads {
		text, readErr := os.ReadFile(t)
		if readErr != nil {
			continue // the thread ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, parseErr := strconv.ParseInt(first, 10, 64)
		err = errors.Join(err, parseErr)
		total += time.Duration(ns)
	}
	return total, err
}

// memory reads a line of a process's status, in megabytes.
func memory(pid int, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if name, value, _ := strings.Cut(line, ":"); name == field {
			_, err := fmt.Sscanf(strings.TrimSpace(value), "%f kB", &kb)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}
