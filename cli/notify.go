package cli

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/notify"
)

func (p *Program) notifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Who is told what happens, and whether it arrives",
		Long:  "Notify shows who hears of what happens (notify: in the main file), and tries it.",
		Example: `  ` + p.Name + ` notify list
  ` + p.Name + ` notify test ops`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(p.notifyListCommand(), p.notifyTestCommand())
	return cmd
}

func (p *Program) notifyListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the targets of notify, what was delivered last, and what waits",
		Long: `List shows each target of notify in the main file: what was delivered to it last, how
much waits, and why the last attempt was in vain. News that were given up are listed
below. The exit status is 1 if anything waits that was tried in vain.`,
		Example: `  ` + p.Name + ` notify list
  ` + p.Name + ` notify list -o json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	local := cmd.Flags().Bool("local", false, "look into the state directory, without a daemon")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json", "name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := p.notifyTargets(cmd.Context(), *state, *local)
		if err != nil {
			return err
		}
		switch *output {
		case "json":
			return writeJSON(p.Stdout, all)
		case "name":
			for _, t := range all {
				fmt.Fprintln(p.Stdout, t.Name)
			}
			return nil
		}
		return p.showTargets(all)
	}
	return cmd
}

// notifyTargets asks the daemon, or, if none runs or is wanted, looks for itself.
func (p *Program) notifyTargets(ctx context.Context, state string, local bool) ([]api.NotifyTarget, error) {
	if !local {
		m, err := p.memory(ctx, state)
		switch {
		case err == nil && m.daemon != nil:
			defer m.close()
			return m.daemon.Notifications(ctx)
		case err == nil:
			m.close()
		case !errors.Is(err, errNothing):
			return nil, err
		}
	}
	m, err := p.best(ctx)
	if err != nil {
		return nil, err
	}
	dir := m.Config.State
	if state != "" {
		dir = state
	}
	standings, err := notify.Look(dir, m.Config)
	all := []api.NotifyTarget{}
	for _, s := range standings {
		all = append(all, NotifyTarget(s))
	}
	return all, err
}

// showTargets prints targets for people.
func (p *Program) showTargets(all []api.NotifyTarget) error {
	if len(all) == 0 {
		fmt.Fprintln(p.Stdout, "nobody is told anything: write targets under notify in the main file")
		return nil
	}
	now := time.Now()
	t := &table{head: []string{"TARGET", "KIND", "TO", "DELIVERED", "LAST", "WAITING", "ERROR"}}
	failing := false
	for _, one := range all {
		last, waiting := "-", "-"
		if !one.DeliveredAt.IsZero() {
			last = clock(one.DeliveredAt.Local(), now)
		}
		if one.Pending > 0 {
			waiting = fmt.Sprintf("%d since %s", one.Pending, clock(one.Oldest.Local(), now))
			failing = failing || one.Error != ""
		}
		t.add(one.Name, one.Kind, clean(one.To), fmt.Sprint(one.Delivered), last, waiting, clean(one.Error))
	}
	t.write(p.Stdout, terminal(p.Stdout))
	for _, one := range all {
		for i, l := range one.Lost {
			if i == 0 {
				fmt.Fprintf(p.Stdout, "\ngiven up for %s:\n", one.Name)
			}
			fmt.Fprintf(p.Stdout, "  %s  %s: %s\n", clock(l.Time.Local(), now), clean(l.Title), clean(l.Error))
		}
	}
	if failing {
		return &Error{Code: ExitFailed}
	}
	return nil
}

func (p *Program) notifyTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test TARGET",
		Short: "Send a test to a target, and say what the other side answers",
		Long: `Test sends a test to a target of notify, once and at once, and prints what the other
side answered. The daemon sends it, as it sends all else; without one, or with --local,
this machine does.`,
		Example:           `  ` + p.Name + ` notify test ops`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeNotify,
	}
	local := cmd.Flags().Bool("local", false, "send it from here, without a daemon")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := p.testTarget(cmd.Context(), *state, args[0], *local)
		if err != nil {
			return err
		}
		if *output == "json" {
			if err := writeJSON(p.Stdout, t); err != nil {
				return err
			}
			if !t.OK {
				return &Error{Code: ExitFailed}
			}
			return nil
		}
		if !t.OK {
			return &Error{Code: ExitFailed, Err: errors.New(clean(t.Error))}
		}
		d := time.Duration(t.Took * float64(time.Second))
		fmt.Fprintf(p.Stdout, "%s %s to %s: %s (in %s)\n", t.Kind, t.Name, clean(t.To), clean(t.Answer), took(d))
		return nil
	}
	return cmd
}

// testTarget has the daemon send a test, or sends it.
func (p *Program) testTarget(ctx context.Context, state, name string, local bool) (api.NotifyTest, error) {
	if !local {
		m, err := p.memory(ctx, state)
		switch {
		case err == nil && m.daemon != nil:
			defer m.close()
			return m.daemon.TestNotification(ctx, name)
		case err == nil:
			m.close()
		case !errors.Is(err, errNothing):
			return api.NotifyTest{}, err
		}
	}
	m, err := p.best(ctx)
	if err != nil {
		return api.NotifyTest{}, err
	}
	by := ""
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	a, err := notify.Try(ctx, m, name, by, p.Name)
	if errors.Is(err, loom.ErrNotFound) || ctx.Err() != nil {
		return api.NotifyTest{}, err
	}
	return NotifyTest(a, err), nil
}

// completeNotify completes the names of targets.
func (p *Program) completeNotify(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, ok := p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		if m.daemon == nil {
			return nil, errNoList
		}
		targets, err := m.daemon.Notifications(ctx)
		var all []string
		for _, t := range targets {
			all = append(all, described(t.Name, t.Kind+" to "+t.To))
		}
		return all, err
	})
	if c, err := loom.ReadConfig(p.Config); !ok && err == nil {
		for _, t := range c.Notify {
			all = append(all, t.Name)
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// NotifyTarget is how things stand with a target, as the API shows it.
func NotifyTarget(s notify.Standing) api.NotifyTarget {
	t := api.NotifyTarget{Name: s.Name, Kind: s.Kind, To: s.To, On: append([]string{}, s.On...), Default: s.Default, File: s.File, Line: s.Line,
		Delivered: s.Delivered, DeliveredAt: s.At.UTC(), Title: s.Title, Answer: s.Answer,
		Pending: s.Pending, Oldest: s.Oldest.UTC(), Attempts: s.Attempts, Next: s.Next.UTC(), FailedAt: s.FailedAt.UTC(), Error: s.Error,
		Lost: []api.LostNews{}}
	for _, l := range s.Lost {
		t.Lost = append(t.Lost, api.LostNews{ID: l.ID, Title: l.Title, Time: l.Time.UTC(), Error: l.Error})
	}
	return t
}

// NotifyTest is what came of a test, as the API shows it.
func NotifyTest(a notify.Answer, err error) api.NotifyTest {
	t := api.NotifyTest{Name: a.Name, Kind: a.Kind, To: a.To, OK: err == nil, Answer: a.Said, Took: a.Took.Seconds()}
	if err != nil {
		t.Error = strings.TrimSpace(err.Error())
	}
	return t
}
