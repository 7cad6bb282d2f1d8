package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

func (p *Program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		Example: `  ` + p.Name + ` token create ann --role operator` + "\n" + `  ` + p.Name + ` token list` + "\n" + `  ` + p.Name + ` token revoke ann`,
		Short:   "Let others use the daemon over the network",
		Long: `A token lets whoever has it use the daemon over the network, as far as its role goes:
viewers see all that is shown, operators run, end and pause jobs, admins may do
everything, commands of their own included. Each has a name, which is what the audit
says, and a time at which it expires.

The daemon keeps only what it recognises a token by, in tokens.json in its state
directory: a token is shown when it is made, and never again. If no daemon runs, the
file is changed by itself.`,
	}
	cmd.AddCommand(p.tokenCreateCommand(), p.tokenListCommand(), p.tokenRevokeCommand())
	return cmd
}

func (p *Program) tokenCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Make a token, and show it this once",
		Long: `Create makes a token and prints it: alone on standard output, so that it can go to a
file, with the rest on standard error.

TIME is such as 30d or 12h (from now), or 2027-03-28; the most is five years.`,
		Example: `  ` + p.Name + ` token create ann --role operator
  ` + p.Name + ` token create dashboard --role viewer --expires 365d
  (umask 077; ` + p.Name + ` token create ci --role operator > ci.token)`,
		Args: cobra.ExactArgs(1),
	}
	role := cmd.Flags().String("role", "", "`role`: viewer, operator or admin")
	expires := cmd.Flags().String("expires", "90d", "`time` from which on it is not good any more")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp)) // it is our own flag
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *role == "" {
			return Usage("say what the token is good for: --role viewer, operator or admin")
		}
		as, err := api.ParseRole(*role)
		if err != nil {
			return Usage("--role: %w", err)
		}
		ctx, now := cmd.Context(), time.Now()
		k, err := p.keeper(ctx, *state)
		if err != nil {
			return err
		}
		defer k.close()
		until, err := parseSince("expires", *expires, k.zone, now, true)
		if err != nil {
			return err
		}
		if !until.After(now) {
			return Usage("--expires %s is not to come: it was %s", *expires, stamp(until))
		}
		made, err := k.create(ctx, args[0], as, until)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(p.Stdout, made)
		}
		fmt.Fprintf(p.Stderr, "token %s (%s) is good until %s; it is shown only now:\n", made.Name, made.Role, stamp(made.Expires))
		fmt.Fprintln(p.Stdout, made.Secret)
		return nil
	}
	return cmd
}

func (p *Program) tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Long:    `List shows what is known of each token, except the token: that is known to nobody but who has it.`,
		Example: `  ` + p.Name + ` token list` + "\n" + `  ` + p.Name + ` token list -o json`,
		Short:   "List the tokens, and when each was last used",
		Args:    cobra.NoArgs,
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "table", "json", "name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		k, err := p.keeper(cmd.Context(), *state)
		if err != nil {
			return err
		}
		defer k.close()
		all, err := k.list(cmd.Context())
		if err != nil {
			return err
		}
		return p.listTokens(all, *output)
	}
	return cmd
}

func (p *Program) listTokens(all []api.Token, output string) error {
	switch output {
	case "json":
		return writeJSON(p.Stdout, append([]api.Token{}, all...))
	case "name":
		for _, t := range all {
			fmt.Fprintln(p.Stdout, t.Name)
		}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintf(p.Stderr, "there are no tokens: %s token create NAME --role viewer makes one\n", p.Name)
		return nil
	}
	now := time.Now()
	t := table{head: []string{"TOKEN", "ROLE", "EXPIRES", "LAST USED", "FROM", "MADE BY"}}
	for _, one := range all {
		expires, used := stamp(one.Expires), "never"
		if one.Expired {
			expires = "EXPIRED " + when(one.Expires, now)
		}
		if !one.Used.IsZero() {
			used = when(one.Used, now)
		}
		t.add(clean(one.Name), string(one.Role), expires, used, cmp.Or(clean(one.From), "-"), clean(one.By))
	}
	t.write(p.Stdout, terminal(p.Stdout))
	return nil
}

func (p *Program) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME...",
		Short: "Let a token let nobody in any more",
		Long: `Revoke takes effect at once: whoever is reading a stream with the token is cut off
within seconds.`,
		Example:           `  ` + p.Name + ` token revoke ann`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeTokens,
	}
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		k, err := p.keeper(cmd.Context(), *state)
		if err != nil {
			return err
		}
		defer k.close()
		var failed []error
		revoked := []revokedJSON{}
		for _, name := range args {
			if err := k.revoke(cmd.Context(), name); err != nil {
				failed = append(failed, err)
				continue
			}
			if revoked = append(revoked, revokedJSON{name}); *output != "json" {
				fmt.Fprintf(p.Stdout, "token %s is revoked\n", name)
			}
		}
		if *output == "json" {
			failed = append(failed, writeJSON(p.Stdout, revoked))
		}
		return errors.Join(failed...)
	}
	return cmd
}

// A revokedJSON is a token that was revoked, for programs.
type revokedJSON struct {
	Name string `json:"name"`
}

// completeTokens completes the names of tokens.
func (p *Program) completeTokens(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeAway)
	defer cancel()
	state, _ := cmd.Flags().GetString("state")
	k, err := p.keeper(ctx, state)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer k.close()
	all, _ := k.list(ctx) // what can't be had completes nothing
	var names []string
	for _, t := range all {
		if strings.HasPrefix(t.Name, begun) {
			names = append(names, cobra.CompletionWithDesc(t.Name, string(t.Role)))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// A keeper is who has the tokens: the daemon, or the state directory if none runs.
type keeper struct {
	zone   *time.Location
	memory *memory // nil: there is no store yet
	daemon *api.Client
	tokens *api.Tokens
	by     string
}

// keeper finds who has the tokens. There need not be a store yet.
func (p *Program) keeper(ctx context.Context, state string) (*keeper, error) {
	m, err := p.memory(ctx, state)
	if err == nil && m.daemon != nil {
		return &keeper{zone: m.config.Timezone, memory: m, daemon: m.daemon}, nil
	}
	if err != nil {
		elsewhere, _ := p.server(state) // it was asked before
		down := errors.Is(err, errNothing) || errors.Is(err, loom.ErrStoreDown) && !errors.Is(err, fs.ErrPermission)
		if elsewhere != nil || p.Remote && state == "" || !down {
			return nil, err
		}
	}
	m.close()
	config, err := loom.ReadConfig(p.Config)
	if err != nil && (state == "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, &Error{Code: ExitFailed, Err: err}
	}
	dir := cmp.Or(state, config.State)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	tokens, err := api.OpenTokens(dir, nil)
	if err != nil {
		return nil, err
	}
	return &keeper{zone: config.Timezone, tokens: tokens, by: (&memory{}).who()}, nil
}

func (k *keeper) close() { k.memory.close() }

func (k *keeper) create(ctx context.Context, name string, role api.Role, expires time.Time) (api.NewToken, error) {
	if k.daemon != nil {
		return k.daemon.CreateToken(ctx, name, role, expires)
	}
	secret, made, err := k.tokens.Create(name, role, expires, k.by)
	return api.NewToken{Token: made, Secret: secret}, err
}

func (k *keeper) list(ctx context.Context) ([]api.Token, error) {
	if k.daemon != nil {
		return k.daemon.Tokens(ctx)
	}
	return k.tokens.List()
}

func (k *keeper) revoke(ctx context.Context, name string) error {
	if k.daemon != nil {
		return k.daemon.RevokeToken(ctx, name)
	}
	return k.tokens.Revoke(name)
}
