// Command lateness measures how late the ticks of many jobs are, and what each
// of them costs, when all of them are remembered: by a loom.Scheduler with the
// SQLite store on a disk, and beside it by robfig/cron, which remembers nothing.
// The tasks do nothing. Each case is a process of its own. It prints Markdown.
// Linux only.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A load is what falls due, and for how long.
type load struct {
	jobs  int
	once  bool          // all at second 0 of each minute, and not spread over it
	every time.Duration // each job falls due so often
	last  time.Duration
	most  int // node-tasks at once
	dir   string
}

// second is when in its period a job falls due.
func (l load) second(job int) int {
	if l.once {
		return 0
	}
	return job % int(l.every/time.Second)
}

// due is the last tick of a job at or before now.
func (l load) due(job int, now time.Time) time.Time {
	offset := time.Duration(l.second(job)) * time.Second
	return now.Add(-offset).Truncate(l.every).Add(offset)
}

// An engine runs a load until ctx ends.
type engine func(ctx context.Context, l load) (*ticks, error)

func engines() map[string]engine {
	return map[string]engine{"Loom": runLoom, "robfig/cron": runRobfig}
}

func main() {
	var l load
	var of, profile string
	flag.IntVar(&l.jobs, "jobs", 10_000, "how many jobs fall due in each minute")
	flag.DurationVar(&l.last, "last", 2*time.Minute+10*time.Second, "how long each case lasts")
	flag.IntVar(&l.most, "max", 50, "tasks at once")
	flag.StringVar(&l.dir, "dir", "", "where the store is; empty: the directory for temporary files")
	flag.StringVar(&of, "case", "", "only this one, in this process")
	flag.StringVar(&profile, "profile", "", "a file for the CPU profile of the one case")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if of != "" {
		err = one(ctx, of, l, profile)
	} else {
		err = all(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lateness:", err)
		os.Exit(1)
	}
}

// all has each case measured by a child process, so that it has its own memory.
func all(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	before, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Printf("%d CPUs, load %s before; %s.\n\n", runtime.NumCPU(), strings.Join(strings.Fields(string(before))[:3], " "), runtime.Version())
	fmt.Println("| jobs | due | engine | ticks | median ms | p99 ms | max ms | begun: median ms | p99 ms | max ms | all ended after, s | CPU µs a tick | resident MB | at most MB |")
	fmt.Println("|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, due := range []string{"spread", "once", "burst"} {
		for _, engine := range []string{"Loom", "robfig/cron"} {
			child := exec.CommandContext(ctx, self, append(os.Args[1:], "-case", engine+" "+due)...)
			child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
			child.WaitDelay = time.Minute
			child.Stdout, child.Stderr = os.Stdout, os.Stderr
			if err := child.Run(); err != nil {
				return fmt.Errorf("%s, %s: %w", engine, due, err)
			}
		}
	}
	return nil
}

// one measures a case and prints its row.
func one(ctx context.Context, name string, l load, profile string) (err error) {
	which, due, _ := strings.Cut(name, " ")
	run := engines()[which]
	if run == nil {
		return fmt.Errorf("there is no engine %q", which)
	}
	words := map[string]string{"spread": "over the minute", "once": "at its first second", "burst": "at one instant"}
	switch l.every = time.Minute; due {
	case "spread":
	case "once":
		l.once = true
	case "burst":
		l.jobs, l.every, l.last, l.once = 1000, 10*time.Second, time.Minute, true
	default:
		return fmt.Errorf("there is no case %q", due)
	}
	dir, err := os.MkdirTemp(l.dir, "lateness-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l.dir = dir
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}

	ctx, stop := context.WithTimeout(ctx, l.last)
	defer stop()
	t, err := run(ctx, l)
	if err != nil {
		return err
	}
	if len(t.begun) == 0 {
		return errors.New("no job ran")
	}
	resident, err := memory("VmRSS")
	if err != nil {
		return err
	}
	most, err := memory("VmHWM")
	if err != nil {
		return err
	}
	fmt.Printf("| %d | %s | %s | %d | %s | %s | %s | %.0f | %.1f | %.1f |\n", l.jobs, words[due], which, len(t.begun),
		quantiles(t.started), quantiles(t.begun), seconds(t.drained), float64(t.cpu.Microseconds())/float64(len(t.begun)), resident, most)
	return nil
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "—"
	}
	return fmt.Sprintf("%.2f", d.Seconds())
}

// quantiles are three cells: the median, that of 99 in 100, and the most.
func quantiles(late []time.Duration) string {
	if len(late) == 0 {
		return "— | — | —"
	}
	slices.Sort(late)
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }
	return ms(late[len(late)/2]) + " | " + ms(late[len(late)*99/100]) + " | " + ms(late[len(late)-1])
}

// onCPU is how long this process was on a CPU.
func onCPU() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // can't fail with a valid argument
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// memory reads a line of this process's status, in megabytes.
func memory(field string) (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
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
	return 0, fmt.Errorf("this process has no %s", cmp.Or(field, "name"))
}
