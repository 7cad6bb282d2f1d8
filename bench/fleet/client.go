package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

// A spec tells a client process, on its first line of input, what to connect
// to. Each further line is "run" and asks for a round, or "cpu"; a report answers
// it. At the end of its input the client closes its connections and ends.
type spec struct {
	Hosts      []string
	Port       int
	User       string
	Key        string
	KnownHosts string
	Fanout     int
	Profile    string // begins the names of the files that profiles go to; "": none
}

// A report is how a round went, and what the client process has taken.
type report struct {
	OK   int           // nodes on which true ended well
	Wall time.Duration // of the round, in nanoseconds
	CPU  time.Duration // since the process began
	Peak int64         // bytes, since the process began
	Err  string
}

// A runner runs true on all nodes, over connections that it keeps.
type runner interface {
	round() (ok int, err error)
	close() error
}

// client is this program as one of its own clients.
func client(kind string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	var s spec
	if lines.Scan(); lines.Err() != nil {
		return lines.Err()
	}
	if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
		return err
	}
	r, err := newRunner(kind, s)
	if err != nil {
		return err
	}
	finish, err := profile(s.Profile)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	for lines.Scan() {
		var a report
		if lines.Text() == "run" {
			began := time.Now()
			ok, err := r.round()
			a = report{OK: ok, Wall: time.Since(began)}
			if err != nil {
				a.Err = err.Error()
			}
		}
		a.CPU, a.Peak = selfCPU(), selfPeak()
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return errors.Join(lines.Err(), r.close(), finish())
}

func newRunner(kind string, s spec) (runner, error) {
	switch kind {
	case "bare":
		return newBareLoop(s, false)
	case "guarded":
		return newBareLoop(s, true)
	case "loom":
		return newLoom(s), nil
	}
	return nil, fmt.Errorf("no client %q", kind)
}

// profile starts a CPU profile, and returns what writes it and a profile of
// allocations.
func profile(name string) (finish func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	runtime.MemProfileRate = 4 << 10
	cpu, err := os.Create(name + ".cpu.prof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		heap, err := os.Create(name + ".allocs.prof")
		if err != nil {
			return err
		}
		for range 2 { // what was allocated since the last collection is not in it yet
			runtime.GC()
		}
		return errors.Join(pprof.Lookup("allocs").WriteTo(heap, 0), heap.Close(), cpu.Close())
	}, nil
}

// driven is a tool that is told by lines on its input when to run.
func driven(name, needs string, c func(*fleet, options) *exec.Cmd) tool {
	return tool{name: name, needs: needs,
		cold: func(ctx context.Context, f *fleet, o options) (sample, error) {
			d, err := drive(ctx, f, o, name+"-cold", c(f, o))
			if err != nil {
				return sample{}, err
			}
			return d.whole(ctx)
		},
		keep: func(ctx context.Context, f *fleet, o options) (keeper, error) {
			return drive(ctx, f, o, name+"-warm", c(f, o))
		},
	}
}

// A driver is a client process that was started.
type driver struct {
	fleet   *fleet
	proc    *proc
	in      io.WriteCloser
	reports chan report // closed when the process says nothing more
	errors  *strings.Builder

	began  time.Time
	before int // processes of the nodes
	server time.Duration
}

func drive(ctx context.Context, f *fleet, o options, name string, cmd *exec.Cmd) (*driver, error) {
	d := &driver{fleet: f, reports: make(chan report), errors: &strings.Builder{}}
	cmd.Stderr = d.errors
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	d.in = in
	read, write, err := os.Pipe() // not StdoutPipe, which Wait closes
	if err != nil {
		return nil, err
	}
	cmd.Stdout = write
	d.before, d.server, d.began = f.group.count(), f.group.cpu(), time.Now()
	d.proc, err = start(cmd, nil)
	_ = write.Close() // the client has its own
	if err != nil {
		_ = read.Close() // nobody writes to it
		return nil, err
	}
	go func() {
		defer close(d.reports)
		defer read.Close()
		for dec := json.NewDecoder(read); ; {
			var r report
			if dec.Decode(&r) != nil {
				return
			}
			d.reports <- r
		}
	}()
	s := spec{Hosts: f.hosts, Port: f.port, User: f.user, Key: f.key, KnownHosts: f.knownHosts, Fanout: o.fanout}
	if o.profile != "" {
		s.Profile = filepath.Join(o.profile, strings.ReplaceAll(strings.ToLower(name), " ", "-"))
	}
	return d, json.NewEncoder(d.in).Encode(s)
}

// run has the client run once.
func (d *driver) run(ctx context.Context) (report, error) {
	r, err := d.ask(ctx, "run")
	if err == nil && (r.Err != "" || r.OK != len(d.fleet.hosts)) {
		err = fmt.Errorf("%d of %d nodes are well: %s", r.OK, len(d.fleet.hosts), clip(r.Err))
	}
	return r, err
}

func (d *driver) ask(ctx context.Context, what string) (report, error) {
	if _, err := io.WriteString(d.in, what+"\n"); err != nil {
		return report{}, fmt.Errorf("%w; it said:\n%s", err, d.said())
	}
	select {
	case r, ok := <-d.reports:
		if !ok {
			return r, fmt.Errorf("the client ended; it said:\n%s", d.said())
		}
		return r, nil
	case <-ctx.Done():
		d.proc.kill()
		return report{}, context.Cause(ctx)
	}
}

// said is what the client printed on its standard error, once it has ended.
func (d *driver) said() string {
	d.proc.kill()
	return clip(d.errors.String())
}

// whole measures the process from its start to its end, with one round in it.
func (d *driver) whole(ctx context.Context) (s sample, err error) {
	r, err := d.run(ctx)
	if err := errors.Join(err, d.close()); err != nil {
		return s, err
	}
	state := d.proc.cmd.ProcessState
	s = sample{wall: time.Since(d.began), cpu: state.UserTime() + state.SystemTime(), peak: r.Peak}
	err = d.fleet.settle(ctx, d.before)
	s.server = d.fleet.group.cpu() - d.server
	return s, err
}

// round measures so many rounds, one after the other, and returns what one of
// them took. CPU time counts until nothing goes on any more, on both sides: a
// client may clear up, or prepare for the next round, when it has answered.
func (d *driver) round(ctx context.Context, times int) (s sample, err error) {
	server := d.fleet.group.cpu()
	before, err := d.ask(ctx, "cpu")
	if err != nil {
		return s, err
	}
	for range times {
		r, err := d.run(ctx)
		if err != nil {
			return s, err
		}
		s.wall += r.Wall
	}
	// Processes that keep a connection stay, so there is no number to wait for.
	if err := d.fleet.calm(ctx); err != nil {
		return s, err
	}
	after, err := d.ask(ctx, "cpu")
	n := time.Duration(times)
	return sample{wall: s.wall / n, cpu: (after.CPU - before.CPU) / n, server: (d.fleet.group.cpu() - server) / n, peak: after.Peak}, err
}

func (d *driver) close() error {
	_ = d.in.Close() // the client may have ended
	for range d.reports {
	}
	<-d.proc.done
	if d.proc.err != nil {
		return fmt.Errorf("the client: %w; it said:\n%s", d.proc.err, d.said())
	}
	return nil
}
