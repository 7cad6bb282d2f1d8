package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A tool is something that runs commands on many nodes.
type tool struct {
	name  string
	needs string // program that must be installed
	forks bool   // starts anew each warm round, over the connections of ssh masters
	cold  func(context.Context, *fleet, options) (sample, error)
	keep  func(context.Context, *fleet, options) (keeper, error) // nil: it keeps no connections
}

// A keeper holds open connections and runs true over all of them, so many times
// in a row, and returns what one time took.
type keeper interface {
	round(ctx context.Context, times int) (sample, error)
	close() error
}

const (
	bare        = "bare loop"
	bareGuarded = "guarded loop"
	loomTool    = "Loom"
	loomdTool   = "loomd exec"
)

// tools lists all that can be measured. The bare loop comes first: the others
// are compared with it.
func tools() []tool {
	self := func(kind string) func(*fleet, options) *exec.Cmd {
		return func(*fleet, options) *exec.Cmd { return exec.Command("/proc/self/exe", "client", kind) }
	}
	return []tool{
		driven(bare, "", self("bare")),
		driven(bareGuarded, "", self("guarded")),
		driven(loomTool, "", self("loom")),
		{name: loomdTool, cold: once(func(f *fleet, o options, _ string) *exec.Cmd {
			return exec.Command(o.loomd, "exec", "--local", "-c", f.manifest, "all", "--", "true")
		})},
		forking("pssh", "parallel-ssh", func(f *fleet, o options, config string) *exec.Cmd {
			return exec.Command("parallel-ssh", "-h", f.hostsFile, "-p", strconv.Itoa(o.fanout), "-t", "0", "-x", "-F "+config, "true")
		}),
		forking("pdsh", "pdsh", func(f *fleet, o options, config string) *exec.Cmd {
			cmd := exec.Command("pdsh", "-S", "-R", "ssh", "-f", strconv.Itoa(o.fanout), "-w", "^"+f.hostsFile, "true")
			cmd.Env = append(os.Environ(), "PDSH_SSH_ARGS_APPEND=-F "+config)
			return cmd
		}),
		forking("clush", "clush", func(f *fleet, o options, config string) *exec.Cmd {
			return exec.Command("clush", "-S", "-f", strconv.Itoa(o.fanout), "--hostfile", f.hostsFile, "-o", "-F "+config, "true")
		}),
		driven("Fabric", "fab", func(f *fleet, _ options) *exec.Cmd {
			args := append(interpreter("fab"), f.path("client.py"))
			return exec.Command(args[0], args[1:]...)
		}),
		forking("Ansible raw", "ansible", func(f *fleet, o options, config string) *exec.Cmd {
			cmd := exec.Command("ansible", "all", "-i", f.hostsFile, "-f", strconv.Itoa(o.fanout), "-m", "raw", "-a", "true")
			cmd.Env = append(os.Environ(), "ANSIBLE_CONFIG="+f.path("ansible.cfg"), "ANSIBLE_SSH_ARGS=-F "+config, "ANSIBLE_LOCAL_TEMP="+f.path("ansible"))
			return cmd
		}),
	}
}

// interpreter is the program that runs an installed script: only that one knows
// where the script's libraries are.
func interpreter(script string) []string {
	path, _ := exec.LookPath(script) // it is installed, see choose
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	if program, ok := strings.CutPrefix(line, "#!"); ok {
		return strings.Fields(program)
	}
	return []string{"python3"}
}

func names() []string {
	var all []string
	for _, t := range tools() {
		all = append(all, t.name)
	}
	return all
}

// choose returns the tools to measure, the bare loop among them, and what was
// left out since it isn't installed.
func choose(o options) (chosen []tool, missing []string, err error) {
	for _, name := range o.tools {
		if !slices.Contains(names(), name) {
			return nil, nil, fmt.Errorf("no tool %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, t := range tools() {
		wanted := len(o.tools) == 0 || slices.Contains(o.tools, t.name) || t.name == bare
		_, notFound := exec.LookPath(t.needs)
		switch {
		case !wanted:
		case t.name == loomdTool && o.loomd == "":
			missing = append(missing, t.name+" (no -loomd)")
		case t.needs != "" && notFound != nil:
			missing = append(missing, t.name)
		default:
			chosen = append(chosen, t)
		}
	}
	return chosen, missing, nil
}

// A command makes the command line of a tool that uses an ssh_config.
type command func(f *fleet, o options, config string) *exec.Cmd

// forking is a tool that starts an ssh for each node.
func forking(name, needs string, c command) tool {
	return tool{name: name, needs: needs, forks: true, cold: once(c), keep: overMasters(c)}
}

// once measures a whole invocation.
func once(c command) func(context.Context, *fleet, options) (sample, error) {
	return func(ctx context.Context, f *fleet, o options) (sample, error) {
		return invoke(ctx, f, c(f, o, f.config), nil)
	}
}

// invoke runs a command to its end and measures it, its children, and masters
// that work for it.
func invoke(ctx context.Context, f *fleet, cmd *exec.Cmd, masters []*proc) (s sample, err error) {
	g := newGroup("client")
	defer func() { err = errors.Join(err, g.remove()) }()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out

	before, servers, helpers := f.group.count(), f.group.cpu(), sum(masters, onCPU)
	began := time.Now()
	p, err := start(cmd, g)
	if err != nil {
		return s, err
	}
	peak := p.watch(ctx, g)
	s.wall = time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return s, err
	}
	if p.err != nil {
		return s, fmt.Errorf("%s: %w; it said:\n%s", strings.Join(cmd.Args, " "), p.err, clip(out.String()))
	}
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() + sum(masters, onCPU) - helpers
	s.peak = peak + sum(masters, rss)
	err = f.settle(ctx, before)
	s.server = f.group.cpu() - servers
	return s, err
}

// watch waits for the process, ends it if ctx ends first, and returns the most
// memory that its group was seen to have.
func (p *proc) watch(ctx context.Context, g *group) (peak int64) {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-p.done:
			return peak
		case <-ctx.Done():
			p.kill()
			return peak
		case <-look.C:
			peak = max(peak, g.rss())
		}
	}
}

func sum[T ~int64](ps []*proc, of func(pid int) T) (total T) {
	for _, p := range ps {
		total += of(p.cmd.Process.Pid)
	}
	return total
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "..."
	}
	return s
}

// A muxed is a tool that is started anew each round, over the connections of
// the fleet's ssh masters.
type muxed struct {
	fleet   *fleet
	options options
	command command
}

// overMasters sees to it that the masters are there. All forking tools share
// them, since what a master holds is a connection and nothing of the tool.
func overMasters(c command) func(context.Context, *fleet, options) (keeper, error) {
	return func(ctx context.Context, f *fleet, o options) (keeper, error) {
		return &muxed{f, o, c}, f.openMasters(ctx)
	}
}

// round runs the tool once; only a driver is asked for more.
func (m *muxed) round(ctx context.Context, _ int) (sample, error) {
	return invoke(ctx, m.fleet, m.command(m.fleet, m.options, m.fleet.muxConfig), m.fleet.masters)
}

// close leaves the masters to the fleet, as other tools use them.
func (m *muxed) close() error { return nil }

// openMasters starts an ssh for each node that keeps a connection for others.
func (f *fleet) openMasters(ctx context.Context) error {
	for i := len(f.masters); i < len(f.hosts); i++ {
		host := f.hosts[i]
		p, err := start(exec.Command("ssh", "-F", f.muxConfig, "-N", "-o", "ControlMaster=yes", host), nil)
		if err != nil {
			return err
		}
		f.masters = append(f.masters, p)
		if err := p.waitForFile(ctx, f.path("m/"+host)); err != nil {
			return fmt.Errorf("ssh master for %s: %w", host, err)
		}
	}
	return nil
}

func (p *proc) waitForFile(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %w", p.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
