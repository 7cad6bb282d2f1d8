// Command fleet measures what it costs the control machine to run true on many
// nodes: with Loom, with a bare loop over golang.org/x/crypto/ssh, and with
// those of pdsh, pssh, clush, Fabric and Ansible that are installed.
//
// The nodes are real: OpenSSH servers on loopback addresses, started here and
// ended with the program. Every tool checks host keys (Fabric's default
// excepted), uses the same key exchange, since the servers offer only
// curve25519, and has the same number of connections at work. The machine may
// be busy with other things, so tools take turns and each is compared with the
// bare loop of the same repetition; CPU seconds count first, wall seconds last.
//
// It prints Markdown. Linux only; run as root it also counts what the nodes
// spend and how much memory tools of several processes take.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	nodes, fanout, reps, rounds int
	tools                       []string
	phases                      []string
	profile                     string
	loomd                       string
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "client" {
		fail(client(os.Args[2], os.Stdin, os.Stdout))
		return
	}
	var o options
	var tools, phases string
	flag.IntVar(&o.nodes, "nodes", 200, "number of nodes, at most 200")
	flag.IntVar(&o.fanout, "fanout", 50, "nodes at once")
	flag.IntVar(&o.reps, "reps", 3, "cold repetitions, and warm rounds of tools that start anew each time")
	flag.IntVar(&o.rounds, "rounds", 9, "warm rounds of tools that keep their connections")
	flag.StringVar(&tools, "tools", "", "comma-separated; empty: all that are installed of "+strings.Join(names(), ","))
	flag.StringVar(&phases, "phases", "cold,warm,steady", "what to measure")
	flag.StringVar(&o.profile, "profile", "", "directory for CPU and memory profiles of the Go clients")
	flag.StringVar(&o.loomd, "loomd", "", "a loomd binary to measure too; it must know: loomd exec --local")
	flag.Parse()
	o.tools, o.phases = split(tools), split(phases)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	stop()
	fail(err)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// run brings up the nodes, measures, and takes all down.
func run(ctx context.Context, o options) (err error) {
	if o.nodes < 1 || o.nodes > 200 || o.fanout < 1 || o.reps < 1 || o.rounds < 1 {
		return errors.New("flags: between 1 and 200 nodes, everything else at least 1")
	}
	tools, missing, err := choose(o)
	if err != nil {
		return err
	}
	f, err := startFleet(ctx, o.nodes, o.fanout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()

	describe(os.Stdout, o, missing)
	if slices.Contains(o.phases, "cold") {
		if err := cold(ctx, f, o, tools); err != nil {
			return err
		}
	}
	if slices.Contains(o.phases, "warm") {
		if err := warm(ctx, f, o, tools, 1, "warm: over open connections, with a pause between the rounds"); err != nil {
			return err
		}
	}
	if slices.Contains(o.phases, "steady") {
		tools = slices.DeleteFunc(tools, func(t tool) bool { return t.forks })
		return warm(ctx, f, o, tools, inARow, fmt.Sprintf("steady: over open connections, %d rounds in a row", inARow))
	}
	return nil
}

// inARow is how many rounds without a pause make a steady load.
const inARow = 5

// cold starts every tool with nothing open, o.reps times.
func cold(ctx context.Context, f *fleet, o options, tools []tool) error {
	t := newTable(o, "cold: start, connect, authenticate, run, end")
	for rep := range o.reps {
		for _, tool := range rotate(tools, rep) {
			s, err := tool.cold(ctx, f, o)
			if err != nil {
				return fmt.Errorf("%s, cold: %w", tool.name, err)
			}
			t.add(rep, tool.name, s)
		}
	}
	t.print(os.Stdout, tools)
	return nil
}

// warm opens connections with every tool that can keep them, and then has each
// run over them, so many times in a row. Tools that are started anew each round, over connections that
// ssh masters keep, take part in the first o.reps rounds only.
func warm(ctx context.Context, f *fleet, o options, tools []tool, times int, title string) (err error) {
	t := newTable(o, title)
	var open []tool
	keepers := map[string]keeper{}
	defer func() {
		for _, k := range keepers {
			err = errors.Join(err, k.close())
		}
	}()
	for _, tool := range tools {
		if tool.keep == nil {
			continue
		}
		k, err := tool.keep(ctx, f, o)
		if err != nil {
			return fmt.Errorf("%s, opening connections: %w", tool.name, err)
		}
		keepers[tool.name] = k
		open = append(open, tool)
	}
	// Round 0 opens what is not open yet, and is not counted.
	for round := range o.rounds + 1 {
		for _, tool := range rotate(open, round) {
			if tool.forks && round > o.reps {
				continue
			}
			s, err := keepers[tool.name].round(ctx, times)
			if err != nil {
				return fmt.Errorf("%s, warm: %w", tool.name, err)
			}
			if round > 0 {
				t.add(round, tool.name, s)
			}
		}
	}
	t.print(os.Stdout, open)
	return nil
}

// rotate returns s from its nth element on, so that no tool always follows the
// same one.
func rotate(s []tool, n int) []tool {
	n %= len(s)
	return append(slices.Clone(s[n:]), s[:n]...)
}
