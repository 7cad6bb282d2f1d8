package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/why"
)

// reachAtOnce is how many nodes are reached for at once.
const reachAtOnce = 32

func (p *Program) nodesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes [TARGETS...]",
		Short: "List nodes, and whether they can be reached",
		Long: `Nodes lists the nodes of the manifest, with what is known of whether they can be
reached: from the last run there, or the last ping. TARGETS are names, @groups,
patterns such as 'web*', !exclusions; left out, all.`,
		Example: `  ` + p.Name + ` nodes
  ` + p.Name + ` nodes @web '!web3'
  ` + p.Name + ` nodes --state unreachable
  ` + p.Name + ` nodes ping all`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeTargets,
	}
	reach := []string{api.Reachable, api.Unreachable, api.Unknown}
	states := cmd.Flags().StringSlice("reach", nil, "only those that are "+strings.Join(reach, ", "))
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json", "name")
	_ = cmd.RegisterFlagCompletionFunc("reach", cobra.FixedCompletions(reach, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, s := range *states {
			if !slices.Contains(reach, s) {
				return Usage("--reach %s: write %s", s, strings.Join(reach, ", "))
			}
		}
		in, err := p.asking(cmd.Context(), *state, p.best)
		if err != nil {
			return err
		}
		defer in.close()
		nodes, err := in.nodes(cmd.Context(), api.NodesQuery{Targets: args, Reach: *states})
		if err != nil {
			return err
		}
		switch *output {
		case "json":
			return writeJSON(p.Stdout, nodes)
		case "name":
			for _, n := range nodes {
				fmt.Fprintln(p.Stdout, n.Name)
			}
			return nil
		}
		if len(nodes) == 0 {
			fmt.Fprintln(p.Stderr, "no node fits")
			return nil
		}
		p.nodesTable(nodes, time.Now())
		return nil
	}
	cmd.AddCommand(p.pingCommand(), p.trustCommand())
	return cmd
}

// nodes returns all nodes that fit, in the order of a person.
func (in *inquiry) nodes(ctx context.Context, q api.NodesQuery) ([]api.Node, error) {
	q.Limit = 1000
	nodes, err := all(func(cursor string) (api.Page[api.Node], error) {
		q.Cursor = cursor
		return in.api.ListNodes(ctx, q)
	})
	slices.SortFunc(nodes, func(a, b api.Node) int { return byNumber(a.Name, b.Name) })
	return nodes, err
}

func (p *Program) nodesTable(nodes []api.Node, now time.Time) {
	t := table{head: []string{"NODE", "REACH", "GROUPS", "ADDRESS", "JOBS", "LAST", "WHY"}}
	for _, n := range nodes {
		last := "-"
		if n.Last != nil {
			_, colour := outcomeSign(n.Last.Status)
			last = paint(p.Stdout, colour, strings.TrimSpace(fmt.Sprintf("%s %s", n.Last.Status, ago(n.Last.Ended, now))))
		}
		t.add(clean(n.Name), p.reachWords(n, now), shorten(clean(strings.Join(n.Groups, ", ")), 24), clean(addressOf(n)), fmt.Sprint(n.Jobs), last, clean(n.Reach.Reason))
	}
	t.write(p.Stdout, terminal(p.Stdout))
}

// ago is how long ago something was, if it was, as exactly as one wants to know.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours())/24)
	}
}

// reachWords says whether a node can be reached, and since when that is known.
func (p *Program) reachWords(n api.Node, now time.Time) string {
	if n.Disabled {
		return paint(p.Stdout, "33", "disabled")
	}
	colour := map[string]string{api.Reachable: "32", api.Unreachable: "31"}[n.Reach.State]
	return paint(p.Stdout, colour, strings.TrimSpace(n.Reach.State+" "+ago(n.Reach.At, now)))
}

// addressOf is where a node is, as far as that is not its name.
func addressOf(n api.Node) string {
	if n.Transport == "local" {
		return "(local)"
	}
	text := cmp.Or(n.Address, n.Name)
	if n.User != "" {
		text = n.User + "@" + text
	}
	if n.Port != 0 {
		text += fmt.Sprintf(":%d", n.Port)
	}
	if n.Jump != "" {
		text += " by " + n.Jump
	}
	return text
}

func (p *Program) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node NAME",
		Short: "Show everything about a node",
		Long: `Node tells how a node is reached and whether it can be, which jobs target it, and
what ran there lately. Passwords, and the values of variables, are not shown.`,
		Example:           `  ` + p.Name + ` node db3`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeTargets,
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in, err := p.asking(cmd.Context(), *state, p.best)
		if err != nil {
			return err
		}
		defer in.close()
		n, err := in.api.ShowNode(cmd.Context(), args[0], 10)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(p.Stdout, n)
		}
		p.showNode(&n, time.Now())
		return nil
	}
	return cmd
}

func (p *Program) showNode(n *api.NodeDetail, now time.Time) {
	p.fact("node", n.Name)
	p.fact("reach", strings.TrimSuffix(p.reachPlain(n.Node, now)+": "+n.Reach.Reason, ": "))
	p.fact("address", addressOf(n.Node))
	p.fact("identity", n.Identity)
	p.fact("groups", strings.Join(n.Groups, ", "))
	if n.Ping != nil && n.Ping.OK {
		p.fact("ping", fmt.Sprintf("%s, as %s, %s, %s", rtt(n.Ping.RTT), n.Ping.User, n.Ping.OS, ago(n.Ping.At, now)))
	}
	p.fact("sudo", n.Sudo)
	p.fact("shell", n.Shell)
	p.fact("vars", strings.Join(n.Vars, ", "))
	p.fact("env", strings.Join(n.Env, ", "))
	p.fact("jobs", strings.Join(n.Targeted, ", "))
	if len(n.Results) == 0 {
		return
	}
	fmt.Fprintln(p.Stdout)
	t := table{head: []string{"RUN", "ENDED", "TOOK", "STATUS", "WHY"}}
	for _, r := range n.Results {
		took := resultTook(new(r.Loom()), now)
		t.add(cut(r.Run, shortest), cmp.Or(ago(r.Ended, now), "-"), why.Took(took), string(r.Status), clean(strings.TrimPrefix(r.Reason, n.Name+": ")))
	}
	t.write(p.Stdout, terminal(p.Stdout))
}

func (p *Program) reachPlain(n api.Node, now time.Time) string {
	plain := *p
	plain.Stdout = io.Discard
	return plain.reachWords(n, now)
}

// rtt is a number of milliseconds.
func rtt(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1fms", ms)
	}
	return fmt.Sprintf("%.0fms", ms)
}

// local has an inquiry be answered in this process though a daemon may run.
func (p *Program) inquiry(ctx context.Context, local bool) (*inquiry, error) {
	if !local {
		return p.asking(ctx, "", p.best)
	}
	m, err := p.best(ctx)
	if err != nil {
		return nil, err
	}
	return p.within(&memory{Store: noStore{}, config: m.Config}, m, errNothing), nil
}

func (p *Program) pingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ping [TARGETS...]",
		Short: "Try whether nodes can be reached",
		Long: `Ping has the daemon, or without one this process, reach for nodes: how long a command
takes there, as whom commands run, and on what system; or what kind of thing is in
the way, and what to do about it. It exits with 1 if any can't be reached.`,
		Example: `  ` + p.Name + ` nodes ping
  ` + p.Name + ` nodes ping @web
  ` + p.Name + ` nodes ping db3 --local`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeTargets,
	}
	local := cmd.Flags().Bool("local", false, "from here, in this process, without the daemon")
	output := outputFlag(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		in, err := p.inquiry(ctx, *local)
		if err != nil {
			return err
		}
		defer in.close()
		nodes, err := in.enabled(ctx, args)
		if err != nil {
			return err
		}
		pings := make([]api.Ping, len(nodes))
		err = p.each(ctx, nodes, func(ctx context.Context, i int) error {
			var err error
			pings[i], err = in.api.Ping(ctx, nodes[i])
			return err
		})
		if err != nil {
			return err
		}
		bad := 0
		for _, one := range pings {
			if !one.OK {
				bad++
			}
		}
		if *output == "json" {
			err = writeJSON(p.Stdout, pings)
		} else {
			p.pingTable(pings)
		}
		if err == nil && bad > 0 {
			return &Error{Code: ExitFailed}
		}
		return err
	}
	return cmd
}

// enabled returns the names of the nodes that a person means, without those that
// are disabled.
func (in *inquiry) enabled(ctx context.Context, targets []string) ([]string, error) {
	nodes, err := in.nodes(ctx, api.NodesQuery{Targets: targets})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range nodes {
		if !n.Disabled {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return nil, &Error{Code: ExitNotFound, Err: fmt.Errorf("%s: all of these nodes are disabled", cmp.Or(strings.Join(targets, " "), "all"))}
	}
	return names, nil
}

// each does something to all nodes, so many at once, and shows how far that is. The
// error is the first that there was, after which no other is begun.
func (p *Program) each(ctx context.Context, nodes []string, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, reachAtOnce)
	var mu sync.Mutex
	done, drawn := 0, false
	for i := range nodes {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, i); err != nil {
				cancel(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; terminal(p.Stderr) > 0 && len(nodes) > 1 {
				fmt.Fprintf(p.Stderr, "\r%d/%d nodes\x1b[K", done, len(nodes))
				drawn = true
			}
		})
	}
	wg.Wait()
	if drawn {
		fmt.Fprint(p.Stderr, "\r\x1b[K")
	}
	return context.Cause(ctx)
}

// pingTable shows how pings went: those that failed last, and those that failed in
// the same way once.
func (p *Program) pingTable(pings []api.Ping) {
	t := table{head: []string{"NODE", "RTT", "CONNECT", "USER", "SYSTEM"}}
	type failure struct {
		nodes []string
		first api.Ping
	}
	var failures []*failure
	for _, one := range pings {
		if one.OK {
			t.add(clean(one.Node), rtt(one.RTT), rtt(one.Connect), clean(one.User), clean(one.OS))
			continue
		}
		at := slices.IndexFunc(failures, func(f *failure) bool { return f.first.Class == one.Class && f.first.Error == one.Error })
		if at < 0 {
			at = len(failures)
			failures = append(failures, &failure{first: one})
		}
		failures[at].nodes = append(failures[at].nodes, one.Node)
	}
	if len(t.rows) > 0 {
		t.write(p.Stdout, terminal(p.Stdout))
	}
	for _, f := range failures {
		title := (&group{nodes: f.nodes}).title()
		text := clean(f.first.Error)
		if class := cmp.Or(f.first.Class, "failed"); !strings.Contains(text, class) { // what the error says is said
			text = class + ": " + text
		}
		fmt.Fprintf(p.Stdout, "%s: %s\n", paint(p.Stdout, "31", title), text)
	}
}

func (p *Program) trustCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust TARGETS...|--all",
		Short: "Show the host keys of nodes, and trust them",
		Long: `Trust asks nodes for their host keys, shows the fingerprints of those that are not
known yet, and, if you say that they are right, has the daemon, or without one this
process, record them, so that it connects. Compare them with what the machines
themselves say, on their consoles:

  for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done

A node that shows another key than it is known by is not trusted anew: the answer
says what to do.`,
		Example: `  ` + p.Name + ` nodes trust db3
  ` + p.Name + ` nodes trust --all --yes`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: p.completeTargets,
	}
	every := cmd.Flags().Bool("all", false, "all nodes")
	yes := cmd.Flags().BoolP("yes", "y", false, "don't ask")
	local := cmd.Flags().Bool("local", false, "from here, in this process, without the daemon")
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *every == (len(args) > 0):
			return Usage("name nodes, or --all")
		case *output == "json" && !*yes:
			return Usage("-o json needs --yes: there is nobody to ask")
		case *every:
			args = []string{"all"}
		}
		ctx := cmd.Context()
		in, err := p.inquiry(ctx, *local)
		if err != nil {
			return err
		}
		defer in.close()
		return p.trust(ctx, in, args, *yes, *output)
	}
	return cmd
}

// A shownKeys is what a node shows, and what came of it.
type shownKeys struct {
	Node    string        `json:"node"`
	Keys    []api.HostKey `json:"keys"`
	Trusted int           `json:"trusted"` // how many are recorded now that were not
	Error   string        `json:"error,omitempty"`
}

// trust shows keys, asks, and has them recorded.
func (p *Program) trust(ctx context.Context, in *inquiry, targets []string, yes bool, output string) error {
	nodes, err := in.enabled(ctx, targets)
	if err != nil {
		return err
	}
	found := make([]shownKeys, len(nodes))
	err = p.each(ctx, nodes, func(ctx context.Context, i int) error {
		found[i] = shownKeys{Node: nodes[i], Keys: []api.HostKey{}}
		keys, err := in.api.HostKeys(ctx, nodes[i])
		if fatal(err) {
			return err
		} else if err != nil {
			found[i].Error = err.Error()
		} else if keys != nil {
			found[i].Keys = keys
		}
		return nil
	})
	if err != nil {
		return err
	}
	unknown := p.showKeys(found, output == "json")
	if unknown > 0 {
		if !yes {
			if err := p.agree(ctx, fmt.Sprintf("Trust %s?", thoseKeys(unknown))); err != nil {
				return err
			}
		}
		err = p.each(ctx, nodes, func(ctx context.Context, i int) error { return in.record(ctx, &found[i]) })
		if err != nil {
			return err
		}
	}
	return p.trusted(found, output)
}

func thoseKeys(n int) string {
	if n == 1 {
		return "this key"
	}
	return fmt.Sprintf("these %d keys", n)
}

// fatal reports whether an error is not about one node.
func fatal(err error) bool {
	return err != nil && (ExitCode(err) == ExitForbidden || ExitCode(err) == ExitUnreachable || errors.Is(err, context.Canceled))
}

// record has those of a node's keys recorded that were shown.
func (in *inquiry) record(ctx context.Context, k *shownKeys) error {
	var prints []string
	for _, key := range k.Keys {
		if key.Known == "" && !key.Changed {
			prints = append(prints, key.Fingerprint)
		}
	}
	if len(prints) == 0 || k.Error != "" {
		return nil
	}
	added, err := in.api.Trust(ctx, k.Node, prints...)
	if fatal(err) {
		return err
	}
	if k.Trusted = len(added); err != nil {
		k.Error = err.Error()
	}
	return nil
}

// showKeys shows keys that are not known, and returns how many there are.
func (p *Program) showKeys(found []shownKeys, quiet bool) (unknown int) {
	t := table{head: []string{"NODE", "KEY", "FINGERPRINT", ""}}
	for _, k := range found {
		for _, key := range k.Keys {
			switch {
			case key.Changed:
				t.add(clean(k.Node), clean(key.Type), clean(key.Fingerprint), paint(p.Stdout, "31", "NOT the key that the node is known by"))
			case key.Known == "":
				unknown++
				t.add(clean(k.Node), clean(key.Type), clean(key.Fingerprint), "")
			}
		}
	}
	if len(t.rows) > 0 && !quiet {
		t.write(p.Stdout, terminal(p.Stdout))
	}
	return unknown
}

// agree asks a person.
func (p *Program) agree(ctx context.Context, question string) error {
	if p.newKeyboard() == nil {
		return &Error{Code: ExitUsage, Err: errors.New("there is nobody to ask: the standard input is no terminal"), Hint: "--yes answers for you, once you have compared the fingerprints"}
	}
	fmt.Fprintf(p.Stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // it ends with the answer, or with the process
		line, _ := bufio.NewReader(p.Stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case text := <-answer:
		if text == "y" || text == "yes" {
			return nil
		}
		return &Error{Code: ExitFailed, Err: errors.New("nothing was recorded")}
	case <-ctx.Done():
		fmt.Fprintln(p.Stderr)
		return context.Cause(ctx)
	}
}

// trusted tells what came of it.
func (p *Program) trusted(found []shownKeys, output string) error {
	bad, added, known := 0, 0, 0
	for _, k := range found {
		added += k.Trusted
		changed := slices.ContainsFunc(k.Keys, func(key api.HostKey) bool { return key.Changed })
		switch {
		case k.Error != "":
			bad++
			if output != "json" {
				fmt.Fprintf(p.Stderr, "%s: %s\n", clean(k.Node), clean(strings.TrimPrefix(k.Error, k.Node+": ")))
			}
		case changed:
			bad++
			if output != "json" {
				fmt.Fprintf(p.Stderr, "%s: it shows another key than it is known by: if that is right, remove the old one (ssh-keygen -R) where it is recorded, and ask again\n", clean(k.Node))
			}
		case k.Trusted == 0:
			known++
		}
	}
	var err error
	if output == "json" {
		err = writeJSON(p.Stdout, found)
	} else {
		text := fmt.Sprintf("%s recorded", count(added, "key"))
		if known > 0 {
			text += fmt.Sprintf("; %s known already", count(known, "node"))
		}
		fmt.Fprintln(p.Stdout, text)
	}
	if err == nil && bad > 0 {
		return &Error{Code: ExitFailed}
	}
	return err
}

func (p *Program) retryCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "retry RUN",
		Short: "Run a job again as an earlier run did",
		Long: `Retry has the daemon run the job of an earlier run again, on the same nodes, or with
--failed only on those where it did not end well, and shows it as run does. RUN is an
ID, or the beginning of one.`,
		Example: `  ` + p.Name + ` retry 0dhqymbe3f2ka --failed
  ` + p.Name + ` retry $(` + p.Name + ` runs --job deploy --status failed -o name -n 1) --detach`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeRuns(false),
	}
	failed := cmd.Flags().Bool("failed", false, "only where it did not end well")
	detach := cmd.Flags().Bool("detach", false, "have the daemon start it, and don't wait for its end")
	f.shows(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		ctx := cmd.Context()
		return p.order(ctx, func(m *memory) (loom.Run, error) {
			r, err := p.findRun(ctx, m, args[0])
			if err != nil {
				return loom.Run{}, err
			}
			return m.daemon.Retry(ctx, r.ID, *failed, "")
		}, *detach, &f)
	}
	return cmd
}
