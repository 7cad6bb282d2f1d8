package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/durable"
)

// contexts are the daemons that a user has named, in a file.
type contexts struct {
	Current string                   `yaml:"current,omitempty"`
	All     map[string]*namedContext `yaml:"contexts,omitempty"`

	file string
}

// A namedContext is one of them.
type namedContext struct {
	Server    string `yaml:"server"`
	Token     string `yaml:"token,omitempty"`
	TokenFile string `yaml:"token-file,omitempty"` // relative to the file this is in
	CA        string `yaml:"ca,omitempty"`         // likewise
}

// contextsFile is where the contexts are: $XDG_CONFIG_HOME/loom/config.yaml, or
// below ~/.config.
func contextsFile() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("the contexts' file: %w", err)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "loom", "config.yaml"), nil
}

// readContexts reads the contexts. Without a file there are none. It refuses a file
// with a token that others may read.
func readContexts() (*contexts, error) {
	file, err := contextsFile()
	if err != nil {
		return &contexts{}, nil //nolint:nilerr // without a home there is no such file
	}
	c := &contexts{file: file, All: map[string]*namedContext{}}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	d := yaml.NewDecoder(io.LimitReader(f, 1<<20))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("contexts: %s: %s", file, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n ", ""))
	}
	for name, one := range c.All {
		if one == nil || one.Server == "" {
			return nil, fmt.Errorf("contexts: %s: %s has no server", file, name)
		}
		if one.Token != "" {
			if err := private(f, "contexts: there are tokens in it, and"); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// save writes the contexts, for nobody else to read.
func (c *contexts) save() error {
	var text bytes.Buffer
	text.WriteString("# The daemons that loom knows by name; \"loom context --help\" tells of them.\n")
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(c), e.Close()); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	dir := filepath.Dir(c.file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	f, err := os.CreateTemp(dir, ".config-*.yaml") // mode 0600
	if err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	if err := durable.Replace(f, text.Bytes(), c.file); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	return nil
}

// path is what a name in the file stands for.
func (c *contexts) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return filepath.Join(filepath.Dir(c.file), name)
}

// server returns what a context stands for.
func (c *contexts) server(name, from string) (*server, error) {
	one := c.All[name]
	if one == nil {
		have := strings.Join(append(slices.Sorted(maps.Keys(c.All)), contextLocal), ", ")
		return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("%s: there is no context %q: there are %s", from, name, have), Hint: "context add makes one"}
	}
	s := &server{URL: one.Server, Token: loom.Secret(one.Token), CA: c.path(one.CA), From: "context " + name, By: from}
	if one.TokenFile != "" {
		token, err := readToken(c.path(one.TokenFile))
		if err != nil {
			return nil, fmt.Errorf("context %s: %w", name, err)
		}
		s.Token = token
	}
	return s, nil
}

func (p *Program) contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Name the daemons that commands ask",
		Long: `A context is a daemon with a name, and what is needed to ask it. "context use" makes
one the current one: commands ask it unless --server, --context, $` + envServer + ` or
$` + envContext + ` say otherwise, or files of this machine are named with -c or --state.
The context ` + contextLocal + ` is this machine's own daemon, and is there without being added.

They are kept in ~/.config/loom/config.yaml (or below $XDG_CONFIG_HOME), which nobody
else may read if there are tokens in it.`,
		Example: `  ` + p.Name + ` context add prod --server https://loom.example.org:7077 --token-file ~/prod.token --use
  ` + p.Name + ` context add attic --server ssh://ann@attic
  ` + p.Name + ` context list
  ` + p.Name + ` status --context attic
  ` + p.Name + ` context use ` + contextLocal,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(p.contextListCommand(), p.contextUseCommand(), p.contextAddCommand(), p.contextRemoveCommand(), p.contextShowCommand())
	return cmd
}

// A contextInfo is a context as commands tell of it. It has no token.
type contextInfo struct {
	Name      string `json:"name"`
	Current   bool   `json:"current"`
	Server    string `json:"server"`
	Token     string `json:"token,omitempty"` // where it is
	CA        string `json:"ca,omitempty"`
	ChosenBy  string `json:"chosen_by,omitempty"`
	Reachable *bool  `json:"reachable,omitempty"`
	Version   string `json:"version,omitempty"` // of the daemon
	Problem   string `json:"problem,omitempty"`

	err error // the problem
}

func (c *contexts) info(name string) contextInfo {
	i := contextInfo{Name: name, Current: name == cmp.Or(c.Current, contextLocal)}
	one := c.All[name]
	if one == nil {
		i.Server = "this machine's daemon"
		return i
	}
	i.Server, i.CA = one.Server, one.CA
	switch {
	case one.TokenFile != "":
		i.Token = "in " + c.path(one.TokenFile)
	case one.Token != "":
		i.Token = "in " + c.file
	}
	return i
}

func (p *Program) contextListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the contexts",
		Long:    `List shows the contexts; the current one has a star.`,
		Example: `  ` + p.Name + ` context list -o name`,
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd, "table", "json", "name")
	cmd.RunE = func(*cobra.Command, []string) error {
		c, err := readContexts()
		if err != nil {
			return err
		}
		all := []contextInfo{}
		for _, name := range append(slices.Sorted(maps.Keys(c.All)), contextLocal) {
			all = append(all, c.info(name))
		}
		switch *output {
		case "json":
			return writeJSON(p.Stdout, all)
		case "name":
			for _, one := range all {
				fmt.Fprintln(p.Stdout, one.Name)
			}
			return nil
		}
		t := table{head: []string{"", "CONTEXT", "SERVER", "TOKEN"}}
		for _, one := range all {
			star := ""
			if one.Current {
				star = "*"
			}
			t.add(star, one.Name, clean(one.Server), one.Token)
		}
		t.write(p.Stdout, terminal(p.Stdout))
		return nil
	}
	return cmd
}

func (p *Program) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "use NAME",
		Short: "Have commands ask this daemon",
		Long:  `Use makes a context the current one. "use ` + contextLocal + `" goes back to this machine's daemon.`,
		Example: `  ` + p.Name + ` context use prod
  ` + p.Name + ` context use ` + contextLocal,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: first(p.completeContexts),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readContexts()
			if err != nil {
				return err
			}
			if args[0] == contextLocal {
				c.Current = ""
			} else if c.Current = args[0]; c.All[args[0]] == nil {
				return c.missing(args[0])
			}
			if err := c.save(); err != nil {
				return err
			}
			fmt.Fprintf(p.Stdout, "commands ask %s now: %s\n", args[0], c.info(args[0]).Server)
			if set := cmp.Or(os.Getenv(envServer), os.Getenv(envContext)); set != "" {
				fmt.Fprintf(p.Stderr, "%s: but not in this shell, whose environment says %s\n", p.Name, set)
			}
			return nil
		},
	}
}

// missing is the error that there is no such context.
func (c *contexts) missing(name string) error {
	return &Error{Code: ExitNotFound, Err: fmt.Errorf("there is no context %q: there are %s: %w", name,
		strings.Join(append(slices.Sorted(maps.Keys(c.All)), contextLocal), ", "), loom.ErrNotFound)}
}

func (p *Program) contextAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME --server URL",
		Short: "Give a daemon a name",
		Long: `Add makes a context of what --server, --token or --token-file and --ca say, and
replaces one of the same name. A token of --token is kept in the contexts' file, and
so is one from the standard input (--token-file -), which asks for it on a terminal;
of a token file only the name is kept. Whether the daemon answers is told, but is no
condition.`,
		Example: `  ` + p.Name + ` context add prod --server https://loom.example.org:7077 --token-file - --use
  ` + p.Name + ` context add lab --server https://10.0.0.5:7077 --ca lab.pem --token-file ~/lab.token
  ` + p.Name + ` context add attic --server ssh://ann@attic`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	use := cmd.Flags().Bool("use", false, "make it the current one too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := readContexts()
		if err != nil {
			return err
		}
		name := args[0]
		one, err := p.newContext(name)
		if err != nil {
			return err
		}
		if c.All == nil {
			c.All = map[string]*namedContext{}
		}
		if c.All[name] = one; *use {
			c.Current = name
		}
		if err := c.save(); err != nil {
			return err
		}
		told := ""
		if *use {
			told = ", and commands ask it now"
		}
		fmt.Fprintf(p.Stdout, "context %s is %s%s\n", name, one.Server, told)
		i := p.probe(cmd.Context(), c, name)
		if i.Problem != "" {
			fmt.Fprintf(p.Stderr, "%s: it can't be asked for now: %s\n", p.Name, i.Problem)
		} else {
			fmt.Fprintf(p.Stdout, "it answers, version %s\n", i.Version)
		}
		return nil
	}
	return cmd
}

// newContext makes a context of what the command line says.
func (p *Program) newContext(name string) (*namedContext, error) {
	switch {
	case !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*$`).MatchString(name):
		return nil, Usage("context %q: a name is of letters, digits and _ . @ -", name)
	case name == contextLocal:
		return nil, Usage("the context %s is this machine's own daemon: choose another name", name)
	case p.remote.context != "":
		return nil, Usage("--context has no place here: say --server URL")
	case p.remote.server == "":
		return nil, Usage("say which daemon it is: --server URL")
	}
	r, err := p.reach(&server{URL: p.remote.server, From: "--server"}, true)
	if err != nil {
		return nil, err
	}
	r.close()
	one := &namedContext{Server: p.remote.server}
	token, err := p.token() // a file must be good now
	if err != nil {
		return nil, err
	}
	if file := p.remote.tokenFile; file != "" && file != "-" {
		if one.TokenFile, err = filepath.Abs(file); err != nil {
			return nil, fmt.Errorf("token file: %w", err)
		}
	} else {
		one.Token = string(token)
	}
	if p.remote.ca != "" {
		if one.CA, err = filepath.Abs(p.remote.ca); err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		if _, err := os.Stat(one.CA); err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
	}
	return one, nil
}

// probeTime is how long a daemon may take to say that it is there.
const probeTime = 15 * time.Second

// probe asks a context's daemon whether it is there.
func (p *Program) probe(ctx context.Context, c *contexts, name string) contextInfo {
	var s *server
	var err error
	if name != contextLocal {
		s, err = c.server(name, "context")
	}
	return p.probeServer(ctx, s, err, c.info(name))
}

// probeServer asks a daemon whether it is there. s is nil for this machine's; err is
// why it can't be asked.
func (p *Program) probeServer(ctx context.Context, s *server, err error, i contextInfo) contextInfo {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, errors.New("no answer came in time"))
	defer cancel()
	var status api.Status
	if err == nil {
		status, err = p.statusOf(ctx, s)
	}
	up := err == nil
	i.Reachable = &up
	if i.Version = status.Version; err != nil {
		i.Problem, i.err = err.Error(), err
	}
	return i
}

// statusOf asks a daemon for its status.
func (p *Program) statusOf(ctx context.Context, s *server) (api.Status, error) {
	var r *remoteDaemon
	var err error
	if s == nil {
		r, err = p.localDaemon(ctx)
	} else {
		r, err = p.reach(s, false)
	}
	if err != nil {
		return api.Status{}, err
	}
	defer r.close()
	return r.Status(ctx)
}

func (p *Program) contextRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Aliases:           []string{"remove"},
		Short:             "Forget a context",
		Long:              `Rm forgets a context, and its token if that is in the contexts' file.`,
		Example:           `  ` + p.Name + ` context rm attic`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: first(p.completeContexts),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readContexts()
			if err != nil {
				return err
			}
			if c.All[args[0]] == nil {
				return c.missing(args[0])
			}
			told := ""
			if delete(c.All, args[0]); c.Current == args[0] {
				c.Current, told = "", "; commands ask this machine's daemon now"
			}
			if err := c.save(); err != nil {
				return err
			}
			fmt.Fprintf(p.Stdout, "context %s is forgotten%s\n", args[0], told)
			return nil
		},
	}
}

func (p *Program) contextShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show a context, and whether its daemon answers",
		Long: `Show tells which daemon commands ask, what says so, and whether it answers; or that of
another context. It exits with 3 if it does not answer, with 4 if you are not let in.`,
		Example: `  ` + p.Name + ` context show
  ` + p.Name + ` context show attic`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: first(p.completeContexts),
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i, err := p.shownContext(cmd.Context(), args)
		if err != nil {
			return err
		}
		if *output == "json" {
			err = writeJSON(p.Stdout, i)
		} else {
			t := table{}
			for _, row := range [][2]string{{"context", i.Name}, {"server", clean(i.Server)}, {"chosen by", i.ChosenBy}, {"token", i.Token},
				{"ca", i.CA}, {"daemon", cmp.Or(i.Problem, "answers, version "+i.Version)}} {
				if row[1] != "" {
					t.add(row[0]+":", row[1])
				}
			}
			t.write(p.Stdout, 0)
		}
		if err == nil && i.err != nil {
			return &Error{Code: ExitCode(i.err)}
		}
		return err
	}
	return cmd
}

// shownContext is the context that is named or, without a name, in force.
func (p *Program) shownContext(ctx context.Context, args []string) (contextInfo, error) {
	c, err := readContexts()
	if err != nil {
		return contextInfo{}, err
	}
	if len(args) > 0 {
		if c.All[args[0]] == nil && args[0] != contextLocal {
			return contextInfo{}, c.missing(args[0])
		}
		return p.probe(ctx, c, args[0]), nil
	}
	s, err := p.server("")
	if err != nil {
		return contextInfo{}, err
	}
	if s == nil {
		i := p.probe(ctx, c, contextLocal)
		i.ChosenBy = "nothing else was chosen"
		if p.Config != "" {
			i.ChosenBy = "-c"
		}
		return i, nil
	}
	name, isContext := strings.CutPrefix(s.From, "context ")
	i := contextInfo{Server: s.URL, ChosenBy: s.From, CA: s.CA}
	if isContext {
		i = c.info(name)
		i.ChosenBy = cmp.Or(s.By, "the current context")
	} else if s.Token != "" {
		i.Token = "given"
	}
	return p.probeServer(ctx, s, nil, i), nil
}

// completeContexts completes the names of contexts.
func (p *Program) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, name := range append(slices.Sorted(maps.Keys(c.All)), contextLocal) {
		all = append(all, cobra.CompletionWithDesc(name, c.info(name).Server))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeServers completes what a server begins with.
func (p *Program) completeServers(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"https://", "ssh://", "unix:/"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// first completes the first argument only.
func first(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}
