// Package cli is the command tree that loomd and its forks share: reading the
// manifests, running jobs and commands from this machine, and what the daemon
// remembers. The daemon adds what only it can do.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/notify"
	"github.com/dustinlacewell/loom/secret"
)

// The exit statuses of every command. They do not change.
const (
	ExitOK          = 0
	ExitFailed      = 1 // the work failed, on some nodes at least
	ExitUsage       = 2 // the command line makes no sense
	ExitUnreachable = 3 // there is no daemon to talk to
	ExitForbidden   = 4 // not permitted
	ExitNotFound    = 5 // no such job, node, task or run
)

// A Program is what commands work with. Name and the writers must be set.
type Program struct {
	Name   string // as users call it
	Tasks  *loom.Registry
	Dialer loom.Dialer
	Stores Stores

	Stdin          io.Reader
	Stdout, Stderr io.Writer

	Interrupts *Interrupts // where commands that handle Ctrl-C themselves get it; nil: it ends them

	Config string // the -c flag, once the command line was read
	Remote bool   // it opens no store by itself, except one that --state or --local means

	remote remoteFlags
	quiet  bool        // nobody is there to be asked
	asked  loom.Secret // a token that was read from the standard input
	began  bool        // a command was found, and its flags and arguments make sense
}

// An Error is one that has an exit status of its own.
type Error struct {
	Code int
	Err  error // nil: all was said already
	Hint string
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "failed"
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode returns the exit status that stands for err.
func ExitCode(err error) int {
	own, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return ExitOK
	case ok:
		return own.Code
	case errors.Is(err, loom.ErrNotFound):
		return ExitNotFound
	case errors.Is(err, fs.ErrPermission):
		return ExitForbidden
	case errors.Is(err, api.ErrNoDaemon):
		return ExitUnreachable
	case errors.Is(err, api.ErrURL):
		return ExitUsage
	}
	return ExitFailed
}

// Usage returns an error about the command line.
func Usage(format string, args ...any) error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Execute reads args with the command tree root, which came from Command, and
// does what they say. Errors about the command line are told from those of the
// work by their exit status.
func (p *Program) Execute(ctx context.Context, root *cobra.Command, args []string) error {
	p.completeAll(root)
	explainArgs(root)
	p.explainHelp(root)
	if slices.Contains(args, cobra.ShellCompRequestCmd) {
		unquoteFlags(root)
	}
	root.SetArgs(pastTimes(args))
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		p.began = true
		if o := cmd.Flags().Lookup("output"); o != nil && o.Value.String() == "yaml" {
			p.Stdout = &yamlWriter{Writer: p.Stdout}
			_ = o.Value.Set("json") // the same, in other words
		}
	}
	var lost error
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if lost = strayed(cmd); lost == nil {
			help(cmd, args)
		}
	})
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = lost
	}
	if err != nil && !p.began {
		return &Error{Code: ExitUsage, Err: err, Hint: cmd.CommandPath() + " --help says more"}
	}
	return err
}

// explainArgs has commands that get too many arguments, or too few, say what they
// take.
func explainArgs(cmd *cobra.Command) {
	for _, one := range cmd.Commands() {
		explainArgs(one)
	}
	check := cmd.Args
	if check == nil || !cmd.Runnable() {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil || !strings.HasPrefix(err.Error(), "accepts ") && !strings.HasPrefix(err.Error(), "requires ") && !strings.HasPrefix(err.Error(), "unknown command ") {
			return err // which says it better
		}
		usage := strings.TrimSuffix(cmd.UseLine(), " [flags]")
		for n := range len(args) + 1 {
			if check(cmd, args[:n]) == nil {
				return fmt.Errorf("%q is too much: write %s", args[n], usage)
			}
		}
		if len(args) == 0 {
			return fmt.Errorf("something is missing: write %s", usage)
		}
		return fmt.Errorf("something is missing after %q: write %s", args[len(args)-1], usage)
	}
}

// explainHelp has help about a command that does not exist be a mistake.
func (p *Program) explainHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return // it is there
	}
	show := help.Run
	help.RunE = func(cmd *cobra.Command, args []string) error {
		p.began = true
		about, rest, err := root.Find(args)
		if about == nil {
			about = root
		}
		if about.HasSubCommands() && len(args) > 0 && (err != nil || len(rest) > 0) {
			if len(rest) == 0 {
				rest = args
			}
			return &Error{Code: ExitUsage, Err: errors.New(noCommand(about, rest[0])), Hint: about.CommandPath() + " --help lists the commands"}
		}
		show(cmd, args)
		return nil
	}
}

// unquoteFlags takes the backquotes, which name a flag's value where help is shown,
// out of what is said of flags where words are completed.
func unquoteFlags(cmd *cobra.Command) {
	for _, one := range cmd.Commands() {
		unquoteFlags(one)
	}
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		set.VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
	}
}

// strayed says that a command, of which the help is about to be shown since it does
// nothing by itself, has none of the name that was given below it.
func strayed(cmd *cobra.Command) error {
	words := cmd.Flags().Args()
	if asked, _ := cmd.Flags().GetBool("help"); asked || cmd.Runnable() || len(words) == 0 {
		return nil
	}
	return errors.New(noCommand(cmd, words[0]))
}

// noCommand says that a command has none of that name below it.
func noCommand(cmd *cobra.Command, name string) string {
	text := fmt.Sprintf("unknown command %q for %q", name, cmd.CommandPath())
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		text += fmt.Sprintf(" (did you mean %q?)", near[0])
	}
	return text
}

// Report tells a person what went wrong.
func (p *Program) Report(err error) {
	own, _ := errors.AsType[*Error](err)
	if err == nil || own != nil && own.Err == nil {
		return
	}
	if problems := Problems(err); len(problems) > 0 {
		for _, problem := range problems {
			fmt.Fprintln(p.Stderr, problem)
		}
		return
	}
	text := strings.TrimRight(err.Error(), "\n")
	if errors.Is(err, loom.ErrNotFound) { // which the sentence says already
		text = strings.TrimPrefix(text, "not found: ")
		if strings.HasPrefix(text, "there is no") || strings.Contains(text, ": there is no") {
			text = strings.TrimSuffix(text, ": not found")
		}
	}
	hint := ""
	if own != nil {
		hint = own.Hint
	}
	if strings.HasPrefix(text, "no configuration file: ") && errors.Is(err, fs.ErrNotExist) {
		text = strings.TrimSuffix(text, ": "+fs.ErrNotExist.Error())
		hint = cmp.Or(hint, fmt.Sprintf("-c names one, and %s init DIRECTORY writes a first one", p.Name))
	}
	fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name, text)
	if hint != "" {
		fmt.Fprintf(p.Stderr, "%s: hint: %s\n", p.Name, hint)
	}
}

// Command returns the command tree.
func (p *Program) Command() *cobra.Command {
	about := "Without a command, " + p.Name + " serves: it runs jobs as they fall due, in the foreground."
	examples := "  " + p.Name + " demo                             a fleet of machines inside this process\n" +
		"  " + p.Name + " serve                            run jobs as they fall due\n"
	if p.Remote {
		about = p.Name + " asks a daemon, loomd, which runs on this machine or another."
		examples = "  " + p.Name + " context add prod --server ssh://ops@loom --use\n"
	}
	root := &cobra.Command{
		Use:   p.Name,
		Short: "cron for a fleet of machines, over plain SSH",
		Long: `Loom is cron for a fleet: YAML manifests say what runs, when and where, and Loom
runs it on all those machines at once over plain SSH.

` + about + `

Exit status: 0 ok, 1 the work failed, 2 wrong usage, 3 no daemon to talk to,
4 not permitted, 5 no such job, node, task or run.`,
		Example: examples + `  ` + p.Name + ` check                            read the manifests, tell every mistake
  ` + p.Name + ` next                             what will run, and when
  ` + p.Name + ` run backup                       run a job now, live
  ` + p.Name + ` exec @web -- uptime              a command, on many machines at once
  ` + p.Name + ` status                           what runs, what fails, what comes next
  ` + p.Name + ` why backup "yesterday 02:30"     what became of a tick, and why`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().StringVarP(&p.Config, "config", "c", "",
		"main configuration `file`, or several, of which the first that exists is used (default "+strings.Join(loom.DefaultFiles(), ", ")+")")
	p.addRemote(root)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped 100 "))
	root.AddCommand(p.contextCommand(), p.dialCommand(), p.apiCommand(), p.initCommand(), p.schemaCommand(), p.importCommand())
	root.AddCommand(p.checkCommand(), p.nextCommand(), p.runCommand(), p.execCommand(), p.tasksCommand(), p.versionCommand(),
		p.statusCommand(), p.runsCommand(), p.showCommand(), p.logsCommand(), p.whyCommand(),
		p.cancelCommand(), p.disableCommand(), p.enableCommand(), p.backupCommand(), p.tokenCommand())
	root.AddCommand(p.jobsCommand(), p.jobCommand(), p.nodesCommand(), p.nodeCommand(), p.retryCommand(), p.eventsCommand(), p.auditCommand())
	root.AddCommand(p.secretCommand(), p.notifyCommand())
	root.AddCommand(p.completionCommand(root), p.manCommand(root))
	return root
}

// manifest reads the configuration, and has the dialer heed it.
func (p *Program) manifest(ctx context.Context) (*loom.Manifest, error) {
	m, err := p.read(ctx)
	if err != nil {
		return nil, &Error{Code: ExitFailed, Err: err}
	}
	Configure(p.Dialer, m.Config.SSH)
	return m, nil
}

// best reads as much of the configuration as is good, for work that is asked
// for now: a mistake in a job that has nothing to do with it must not be in the
// way.
func (p *Program) best(ctx context.Context) (*loom.Manifest, error) {
	dir, err := os.MkdirTemp("", "loom-") // nothing is to be remembered of it
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what can't be removed harms nobody
	r := loom.ManifestReader{File: p.Config, Tasks: p.Tasks, State: dir, Secrets: secret.Open, Check: notify.Check}
	m, err := r.Read(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case m == nil:
		return nil, &Error{Code: ExitFailed, Err: err}
	case err != nil:
		fmt.Fprintf(p.Stderr, "%s: the manifests have mistakes that don't matter here; \"%s check\" tells them\n", p.Name, p.Name)
	}
	Configure(p.Dialer, m.Config.SSH)
	return m, nil
}

// Configure tells a dialer how the configuration wants nodes to be reached, if
// it has a method for that.
func Configure(d loom.Dialer, c loom.SSHConfig) {
	if d, ok := d.(interface{ Configure(loom.SSHConfig) }); ok {
		d.Configure(c)
	}
}

// Problems returns the mistakes in configuration files that err tells of.
func Problems(err error) []*loom.ManifestError {
	switch e := err.(type) { //nolint:errorlint // the tree of errors is walked here
	case nil:
		return nil
	case *loom.ManifestError:
		return []*loom.ManifestError{e}
	case interface{ Unwrap() []error }:
		var all []*loom.ManifestError
		for _, one := range e.Unwrap() {
			all = append(all, Problems(one)...)
		}
		return all
	}
	return Problems(errors.Unwrap(err))
}

// outputFlag adds -o to a command. What can be written as JSON can as YAML too, which
// the command need not know of.
func outputFlag(cmd *cobra.Command, usual string, others ...string) *string {
	all := append([]string{usual}, others...)
	if i := slices.Index(all, "json"); i >= 0 {
		all = slices.Insert(all, i+1, "yaml")
	}
	choice := strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
	o := cmd.Flags().StringP("output", "o", usual, choice)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)) // it is our own flag
	check := cmd.PreRunE
	cmd.PreRunE = func(c *cobra.Command, args []string) error {
		for _, one := range all {
			if *o == one {
				if check != nil {
					return check(c, args)
				}
				return nil
			}
		}
		return Usage("-o %s: write %s", *o, choice)
	}
	return o
}

// terminal returns the width of the terminal that w is, or 0.
func terminal(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		return 80
	}
	return width
}

// colourful reports whether colours on w are of use.
func colourful(w io.Writer) bool {
	return terminal(w) > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
