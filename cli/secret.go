package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/secret"
)

func (p *Program) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "secret",
		Example: `  ` + p.Name + ` secret init` + "\n" + `  ` + p.Name + ` secret set db/password <password.txt` + "\n" + `  ` + p.Name + ` secret list`,
		Short:   "Keep the secrets that manifests refer to",
		Long: `Secret keeps what manifests refer to as ${secret:NAME}: in the encrypted file or the
directory that the configuration names under secrets. It works on these files of
this machine; a daemon that runs with them notices the change.

Values are never told. Nor are they taken from the command line, where every user
of this machine could see them.`,
	}
	state := cmd.PersistentFlags().String("state", "", "`directory` of the key, instead of the configuration's")
	_ = cmd.MarkPersistentFlagDirname("state") // it is our own flag
	cmd.AddCommand(p.secretInitCommand(state), p.secretSetCommand(state), p.secretListCommand(state), p.secretRemoveCommand(state), p.secretEditCommand(state))
	return cmd
}

// secrets returns where the configuration has its secrets.
func (p *Program) secrets(state string) (loom.SecretsConfig, error) {
	if r := p.remote; r.server != "" || r.context != "" && r.context != contextLocal {
		return loom.SecretsConfig{}, Usage("secrets are files of the machine that the daemon runs on: use this command there")
	}
	config, err := loom.ReadConfig(p.Config)
	if err != nil {
		return loom.SecretsConfig{}, &Error{Code: ExitFailed, Err: err}
	}
	c := config.Secrets
	if state != "" && c.Identity == filepath.Join(config.State, loom.KeyFile) {
		c.Identity = filepath.Join(state, loom.KeyFile)
	}
	if c.File == "" && c.Dir == "" && len(c.Command) == 0 {
		return c, &Error{Code: ExitFailed, Err: errors.New("the configuration does not say where secrets are"),
			Hint: "add to it: secrets: {file: secrets.age}"}
	}
	return c, nil
}

// keptElsewhere explains why secrets can't be changed.
func (p *Program) keptElsewhere(c loom.SecretsConfig, err error) error {
	if errors.Is(err, secret.ErrElsewhere) && len(c.Command) > 0 {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("%w (%s): change them there", err, c.Command[0])}
	}
	return err
}

func (p *Program) secretInitCommand(state *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "init",
		Example: `  ` + p.Name + ` secret init`,
		Short:   "Make the key of the encrypted file",
		Long: `Init makes the key that opens the encrypted file, in the state directory, readable
by its user alone, and prints its public half: others can encrypt for it with age.
The first "secret set" does so too. Without the key the secrets are lost: keep a
copy of it where the copies of the file are not.`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.secrets(*state)
		if err != nil {
			return err
		}
		if c.File == "" {
			return &Error{Code: ExitFailed, Err: errors.New("only a file of secrets has a key, and the configuration names none")}
		}
		public, err := secret.MakeKey(c)
		if err != nil {
			return err
		}
		p.wroteDown(cmd.Context(), *state, "secret init", c.Identity)
		if *output == "json" {
			return writeJSON(p.Stdout, map[string]string{"identity": c.Identity, "public": public})
		}
		fmt.Fprintf(p.Stderr, "%s: made the key %s\n", p.Name, c.Identity)
		fmt.Fprintln(p.Stdout, public)
		return nil
	}
	return cmd
}

// kept tells of one that changed where secrets are kept, under which name, if it is
// one, and of which only programs are told on standard output.
func (p *Program) kept(output string, c loom.SecretsConfig, name, what string) error {
	if output != "json" {
		if what != "" {
			fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, what)
		}
		return nil
	}
	return writeJSON(p.Stdout, struct {
		Name string `json:"name,omitempty"`
		In   string `json:"in"`
	}{name, c.File + c.Dir})
}

func (p *Program) secretSetCommand(state *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Give a secret a value",
		Long: `Set reads the value from standard input, without the newline at its end, or asks for
it on a terminal, where it does not show. Several lines can be a value, such as a key.`,
		Example: `  ` + p.Name + ` secret set db/password
  pwgen 32 1 | ` + p.Name + ` secret set hook
  ` + p.Name + ` secret set deploy-key <id_ed25519`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return errors.New("secret set needs a name")
			case len(args) > 1:
				return errors.New("the value of a secret does not belong on the command line, where others can see it: write it to standard input; and change it, since your shell may have kept it")
			}
			return nil
		},
		ValidArgsFunction: p.completeSecrets(state),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := p.secrets(*state)
		if err != nil {
			return err
		}
		name := args[0]
		if !loom.ValidSecretName(name) {
			return Usage("%q can't be the name of a secret: use letters, digits, _ - . and /, and begin with a letter or _", name)
		}
		if len(c.Command) > 0 {
			return p.keptElsewhere(c, secret.ErrElsewhere)
		}
		value, err := p.readSecret(name)
		if err != nil {
			return err
		}
		if err := secret.Set(c, name, value); err != nil {
			return p.keptElsewhere(c, err)
		}
		if !loom.Redactable(value) {
			fmt.Fprintf(p.Stderr, "%s: warning: so short a secret can't be told from other text, and is shown wherever something prints it\n", p.Name)
		}
		p.wroteDown(cmd.Context(), *state, "secret set", name)
		return p.kept(*output, c, name, name+" is set in "+below(c.File+c.Dir))
	}
	return cmd
}

// readSecret reads a value from standard input, or asks for it.
func (p *Program) readSecret(name string) (string, error) {
	if f, ok := p.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		ask := func(what string) (string, error) {
			fmt.Fprintf(p.Stderr, "%s: ", what)
			text, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(p.Stderr)
			return string(text), err
		}
		value, err := ask("Value of " + name)
		if err != nil {
			return "", err
		}
		again, err := ask("Once more")
		if err == nil && again != value {
			err = errors.New("these are two different values: nothing was changed")
		}
		return value, err
	}
	if p.Stdin == nil {
		return "", Usage("the value comes from standard input, and there is none")
	}
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(p.Stdin, most))
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), err
}

// A secretJSON is a secret for programs.
type secretJSON struct {
	Name    string   `json:"name"`
	Missing bool     `json:"missing,omitempty"`
	Used    []string `json:"used"`
}

func (p *Program) secretListCommand(state *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Long:    `List shows no values.`,
		Example: `  ` + p.Name + ` secret list` + "\n" + `  ` + p.Name + ` secret list -o json`,
		Short:   "List the names of secrets, and where they are used",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd, "table", "json", "name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.secrets(*state)
		if err != nil {
			return err
		}
		all, err := p.listSecrets(cmd.Context(), c)
		if err != nil {
			return err
		}
		switch *output {
		case "json":
			return writeJSON(p.Stdout, all)
		case "name":
			for _, s := range all {
				if !s.Missing {
					fmt.Fprintln(p.Stdout, s.Name)
				}
			}
			return nil
		}
		if len(all) == 0 {
			fmt.Fprintf(p.Stderr, "there are no secrets: %s secret set NAME sets one\n", p.Name)
			return nil
		}
		t := table{head: []string{"NAME", "USED"}}
		for _, s := range all {
			used := strings.Join(s.Used, ", ")
			switch {
			case s.Missing:
				used = "MISSING: " + used
			case used == "":
				used = "-"
			}
			t.add(s.Name, used)
		}
		t.write(p.Stdout, terminal(p.Stdout))
		return nil
	}
	return cmd
}

// listSecrets returns all secrets, those that are only referred to too.
func (p *Program) listSecrets(ctx context.Context, c loom.SecretsConfig) ([]secretJSON, error) {
	src, err := secret.Open(c)
	var names []string
	switch {
	case err == nil:
		names = src.Names()
	case c.File != "" && !exists(c.File): // no secret was set yet
	default:
		return nil, err
	}
	used, err := p.secretUses(ctx)
	if err != nil {
		return nil, err
	}
	all := []secretJSON{}
	every := map[string]bool{}
	for _, n := range names {
		every[n] = true
	}
	known := maps.Clone(every)
	for n := range used {
		every[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(every)) {
		s := secretJSON{Name: n, Used: used[n], Missing: !known[n] && len(c.Command) == 0}
		if s.Used == nil {
			s.Used = []string{}
		}
		all = append(all, s)
	}
	return all, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// secretUses returns where manifests refer to secrets, by name. It doesn't matter
// whether there are such.
func (p *Program) secretUses(ctx context.Context) (map[string][]string, error) {
	dir, err := os.MkdirTemp("", "loom-") // nothing is to be remembered of it
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what can't be removed harms nobody
	r := loom.ManifestReader{File: p.Config, Tasks: p.Tasks, State: dir,
		Secrets: func(loom.SecretsConfig) (loom.SecretSource, error) { return anySecret{}, nil }}
	m, err := r.Read(ctx)
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: the manifests have mistakes, so not all uses of secrets may be listed; \"%s check\" tells them\n", p.Name, p.Name)
	}
	used := map[string][]string{}
	if m == nil {
		return used, nil
	}
	for _, u := range m.Secrets {
		used[u.Name] = append(used[u.Name], fmt.Sprintf("%s:%d:%d", below(u.File), u.Line, u.Col))
	}
	return used, nil
}

// anySecret has a value for every name.
type anySecret struct{}

func (anySecret) Secret(context.Context, string) (string, error) { return "any value", nil }
func (anySecret) Names() []string                                { return nil }
func (anySecret) Files() []string                                { return nil }

func (p *Program) secretRemoveCommand(state *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "rm NAME",
		Long:              `Rm removes a secret where secrets are kept. What refers to it is a mistake from then on.`,
		Example:           `  ` + p.Name + ` secret rm db/password`,
		Aliases:           []string{"remove"},
		Short:             "Remove a secret",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeSecrets(state),
	}
	force := cmd.Flags().Bool("force", false, "although manifests refer to it, which they can't be read without")
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := p.secrets(*state)
		if err != nil {
			return err
		}
		name := args[0]
		used, err := p.secretUses(cmd.Context())
		if err != nil {
			return err
		}
		if places := used[name]; len(places) > 0 && !*force {
			return &Error{Code: ExitFailed, Err: fmt.Errorf("%s is used at %s", name, strings.Join(places, ", ")), Hint: "--force removes it all the same"}
		}
		if err := secret.Remove(c, name); err != nil {
			return p.keptElsewhere(c, err)
		}
		p.wroteDown(cmd.Context(), *state, "secret rm", name)
		return p.kept(*output, c, name, name+" is removed")
	}
	return cmd
}

func (p *Program) secretEditCommand(state *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "edit",
		Example: `  ` + p.Name + ` secret edit`,
		Short:   "Edit all secrets in an editor",
		Long: `Edit decrypts the file of secrets into a private one, in memory where the machine has
a place for that, opens it in $VISUAL or $EDITOR, and encrypts it again when the
editor has ended. Editors may keep copies elsewhere: "vim -n -i NONE" does not.`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.secrets(*state)
		if err != nil {
			return err
		}
		if c.Dir != "" {
			return &Error{Code: ExitFailed, Err: fmt.Errorf("the secrets are files of their own: edit those in %s", c.Dir)}
		}
		screen := p.Stdout
		if *output == "json" {
			screen = p.Stderr // standard output is for the answer
		}
		err = secret.Edit(c, func(file string) error { return p.editor(cmd.Context(), file, screen) }, p.editAgain)
		if err != nil {
			return p.keptElsewhere(c, err)
		}
		p.wroteDown(cmd.Context(), *state, "secret edit", c.File)
		return p.kept(*output, c, "", "")
	}
	return cmd
}

// editor opens a file in the user's editor, which shows it on screen.
func (p *Program) editor(ctx context.Context, file string, screen io.Writer) error {
	words := strings.Fields(os.Getenv("VISUAL"))
	if len(words) == 0 {
		words = strings.Fields(os.Getenv("EDITOR"))
	}
	if len(words) == 0 {
		words = []string{"vi"}
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], file)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Stdin, screen, p.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("nothing was changed: the editor %s: %w", words[0], err)
	}
	return nil
}

// editAgain asks whether to mend what was edited.
func (p *Program) editAgain(problem error) bool {
	f, ok := p.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	fmt.Fprintf(p.Stderr, "%v\nEdit again? [Y/n] ", problem)
	answer := make([]byte, 64)
	n, err := f.Read(answer)
	return err == nil && !strings.HasPrefix(strings.ToLower(strings.TrimSpace(string(answer[:n]))), "n")
}

// wroteDown has it remembered that somebody changed secrets, if there is a memory.
func (p *Program) wroteDown(ctx context.Context, state, verb, object string) {
	config, err := loom.ReadConfig(p.Config)
	if err != nil {
		return // it could be read before
	}
	mem, err := p.memory(ctx, cmp.Or(state, config.State)) // that of the files, whatever other daemon is asked otherwise
	if err == nil {
		defer mem.close()
		err = mem.Act(ctx, loom.Action{Verb: verb, Object: object, By: mem.who()})
	}
	if err != nil && !errors.Is(err, errNothing) {
		fmt.Fprintf(p.Stderr, "%s: the audit log can't be told: %v\n", p.Name, err)
	}
}

// completeSecrets completes the names of secrets.
func (p *Program) completeSecrets(state *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := p.secrets(*state)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		src, err := secret.Open(c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return src.Names(), cobra.ShellCompDirectiveNoFileComp
	}
}
