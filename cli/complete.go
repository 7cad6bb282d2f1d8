package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// How long the completion of a word waits for a daemon: nobody waits for a word
// longer than it takes to type it. Of the way to another machine that can't be
// asked.
const (
	completeHere = 100 * time.Millisecond
	completeAway = time.Second
)

// completeMost is how many words are offered.
const completeMost = 200

// shells are those that words can be completed in.
func shells() []string { return []string{"bash", "zsh", "fish"} }

func (p *Program) completionCommand(root *cobra.Command) *cobra.Command {
	root.CompletionOptions.DisableDefaultCmd = true
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what completes words in your shell",
		Long: `Completion prints a script for a shell, which completes commands, flags and their
values, and names of jobs, nodes, groups, tasks and runs, as the daemon has them that
is asked. Where that does not answer at once, names come from this machine's files.

  bash   source <(` + p.Name + ` completion bash) in ~/.bashrc; it needs the package bash-completion.
         For all users: /usr/share/bash-completion/completions/` + p.Name + `
  zsh    source <(` + p.Name + ` completion zsh) in ~/.zshrc, after compinit.
         For all users: /usr/share/zsh/vendor-completions/_` + p.Name + `
  fish   ` + p.Name + ` completion fish | source in ~/.config/fish/config.fish.
         For all users: /usr/share/fish/vendor_completions.d/` + p.Name + `.fish`,
		Example: `  source <(` + p.Name + ` completion bash)
  ` + p.Name + ` completion fish >~/.config/fish/completions/` + p.Name + `.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: shells(),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return bashCompletion(root, p.Stdout)
			case "zsh":
				return root.GenZshCompletion(p.Stdout)
			}
			return root.GenFishCompletion(p.Stdout, true)
		},
	}
}

// bashCompletion writes cobra's script for bash, except that commas, which targets
// have, are not taken for characters that need a backslash: bash's printf %q puts one
// there, so that no word with a comma would ever fit.
func bashCompletion(root *cobra.Command, w io.Writer) error {
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	text := script.String()
	for after, variable := range map[string]string{
		`printf -v comp "%q" "${compline%%$tab*}" &>/dev/null || comp=$(printf "%q" "${compline%%$tab*}")`: "comp",
		`COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]%%$tab*}")`:                                             "COMPREPLY[0]",
		`COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]}")`:                                                    "COMPREPLY[0]",
	} {
		text = strings.ReplaceAll(text, after, after+"; "+variable+`=${`+variable+`//\\,/,}`)
	}
	_, err := io.WriteString(w, text)
	return err
}

// completeAll gives the commands of a tree that complete nothing by themselves what
// their usage and their flags' names say.
func (p *Program) completeAll(root *cobra.Command) {
	words := map[string]cobra.CompletionFunc{
		"JOB": p.completeKnown, "[JOB]": p.completeKnown, "RUN": p.completeRuns(false), "TARGETS": p.completeTargets,
		"NODE": p.completeNodes, "NODE...": p.completeNodes, "[NODE...]": p.completeNodes,
		"FILE": files, "[FILE]": files, "DIRECTORY": directories, "[DIRECTORY]": directories,
	}
	flags := map[string]cobra.CompletionFunc{
		"job": p.completeKnown, "run": p.completeRuns(false), "node": p.completeNodes, "on": p.completeTargets, "targets": p.completeTargets,
		"label": p.completeLabels, "status": cobra.FixedCompletions(runStatuses(), cobra.ShellCompDirectiveNoFileComp), "user": cobra.NoFileCompletions,
	}
	for _, cmd := range root.Commands() {
		p.completeAll(cmd)
		if _, use, _ := strings.Cut(cmd.Use, " "); cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
			word, _, _ := strings.Cut(use, " ")
			complete := words[word]
			switch {
			case complete == nil && word == "[PATTERN]" && cmd.Name() == "nodes":
				complete = p.completeTargets
			case complete == nil && word == "[PATTERN]":
				complete = p.completeKnown
			case complete == nil:
				complete = cobra.NoFileCompletions
			}
			cmd.ValidArgsFunction = complete
			if !strings.Contains(word, "...") {
				cmd.ValidArgsFunction = first(complete)
			}
		}
		for name, complete := range flags {
			if _, has := cmd.GetFlagCompletionFunc(name); cmd.Flags().Lookup(name) != nil && !has {
				_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
					return complete(cmd, nil, begun)
				}) // it is there
			}
		}
	}
}

// several completes each of several words as complete does the first, those that are
// there already left out.
func several(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		all, how := complete(cmd, nil, begun)
		return slices.DeleteFunc(all, func(one string) bool {
			word, _, _ := strings.Cut(one, "\t")
			return slices.Contains(args, word)
		}), how
	}
}

func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// live calls ask with what is remembered, for as long as one may wait. It is quiet,
// and says false if nobody answered.
func (p *Program) live(cmd *cobra.Command, ask func(ctx context.Context, m *memory) ([]string, error)) ([]string, bool) {
	quiet := *p
	quiet.Stderr, quiet.quiet = discard{}, true
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	state, _ := cmd.Flags().GetString("state")
	patience := completeHere
	if s, err := quiet.server(state); err != nil {
		return nil, true // there is nothing to be had, from here neither
	} else if s != nil && !strings.HasPrefix(s.URL, "unix:") {
		patience = completeAway
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := quiet.memory(ctx, state)
	if err != nil {
		return nil, false
	}
	defer m.close()
	all, err := ask(ctx, m)
	return all, err == nil || m.remote != nil // another daemon's names are not those of the files here
}

// errNoList means that what is remembered does not have a list of something.
var errNoList = errors.New("no daemon has a list of it")

// local returns what files of this machine say, once no daemon has answered.
func (p *Program) local(cmd *cobra.Command, list func(m *loom.Manifest) []string) []string {
	quiet := *p
	quiet.Stderr = discard{}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeAway)
	defer cancel()
	m := quiet.known(ctx)
	if m == nil {
		return nil
	}
	return list(m)
}

// complete is live for what files do not say.
func (p *Program) complete(cmd *cobra.Command, ask func(ctx context.Context, m *memory) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	all, _ := p.live(cmd, ask)
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeJobs completes the name of a job that can be fired.
func (p *Program) completeJobs(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	return p.completeKnown(cmd, args, begun)
}

// completeKnown completes the name of a job.
func (p *Program) completeKnown(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, ok := p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		if m.daemon == nil {
			return nil, errNoList
		}
		page, err := m.daemon.ListJobs(ctx, api.JobsQuery{Match: literalGlob(begun) + "*", Outcomes: -1, Limit: completeMost})
		var all []string
		for _, j := range page.Items {
			all = append(all, described(j.Name, j.Description))
		}
		return all, err
	})
	if !ok {
		all = p.local(cmd, func(m *loom.Manifest) []string {
			var all []string
			for _, j := range m.Jobs {
				all = append(all, described(j.Name, j.Description))
			}
			return all
		})
	}
	if len(all) == 0 && !ok { // what no file has any more may be remembered
		all, _ = p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
			states, err := m.Jobs(ctx)
			var all []string
			for _, s := range states {
				all = append(all, s.Name)
			}
			return all, err
		})
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// described is a word with what it means, in one line.
func described(word, text string) string {
	if text = clean(strings.TrimSpace(text)); text == "" {
		return word
	}
	return cobra.CompletionWithDesc(word, shorten(strings.ReplaceAll(text, "\t", " "), 60))
}

// literalGlob is a pattern that fits a text alone.
func literalGlob(text string) string {
	return strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]").Replace(text)
}

// completeRuns completes the IDs of runs, the newest first: only those that are
// going, or all.
func (p *Program) completeRuns(going bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return p.complete(cmd, func(ctx context.Context, m *memory) ([]string, error) {
			q := loom.RunQuery{ID: strings.ToLower(begun), Limit: 50}
			if going {
				q.Status = []loom.Status{loom.StatusQueued, loom.StatusRunning}
			}
			found, err := m.Runs(ctx, q)
			var all []string
			for _, r := range found {
				all = append(all, described(r.ID, fmt.Sprintf("%s, %s, %s", r.Job, r.Status, r.Queued.Format("15:04:05"))))
			}
			return all, err
		})
	}
}

// completeNode completes the nodes that the run in args was at work on; without one
// all.
func (p *Program) completeNode(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return p.completeNodes(cmd, nil, begun)
	}
	return p.complete(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		r, err := p.findRun(ctx, m, args[0])
		if err != nil {
			return nil, err
		}
		results, err := m.Results(ctx, loom.ResultQuery{Runs: []string{r.ID}})
		var all []string
		for _, one := range results {
			all = append(all, described(one.Node, string(one.Status)))
		}
		return all, err
	})
}

// completeActions completes what the newest actions have of something.
func (p *Program) completeActions(of func(loom.Action) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.complete(cmd, func(ctx context.Context, m *memory) ([]string, error) {
			done, err := m.Actions(ctx, loom.ActionQuery{Limit: 500})
			var all []string
			for _, a := range done {
				if word := of(a); word != "" && !slices.Contains(all, word) {
					all = append(all, word)
				}
			}
			slices.Sort(all)
			return all, err
		})
	}
}

// completePaused completes the names of jobs that are paused.
func (p *Program) completePaused(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.complete(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		states, err := m.Jobs(ctx)
		var all []string
		for _, s := range states {
			if s.Pause != nil {
				all = append(all, described(s.Name, s.Pause.Why))
			}
		}
		return all, err
	})
}

// A completedNode is what of a node completions need.
type completedNode struct {
	name, about string
	groups      []string
}

// completable returns all nodes.
func (p *Program) completable(cmd *cobra.Command) []completedNode {
	var nodes []completedNode
	_, ok := p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		if m.daemon == nil {
			return nil, errNoList
		}
		for q := (api.NodesQuery{Limit: 1000}); ; {
			page, err := m.daemon.ListNodes(ctx, q)
			if err != nil {
				nodes = nil
				return nil, err
			}
			for _, n := range page.Items {
				nodes = append(nodes, completedNode{n.Name, n.Address, n.Groups})
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				return nil, nil
			}
		}
	})
	if !ok {
		p.local(cmd, func(m *loom.Manifest) []string {
			for _, n := range m.Nodes {
				nodes = append(nodes, completedNode{n.Name, n.Address, n.Groups})
			}
			return nil
		})
	}
	return nodes
}

// completeNodes completes names of nodes.
func (p *Program) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var all []string
	for _, n := range p.completable(cmd) {
		if !slices.Contains(args, n.name) {
			all = append(all, described(n.name, n.about))
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeTargets completes the names of nodes and groups, in each part of a list.
func (p *Program) completeTargets(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	head := begun[:strings.LastIndex(begun, ",")+1]
	if strings.HasPrefix(begun[len(head):], "!") {
		head += "!"
	}
	nodes := p.completable(cmd)
	counts := map[string]int{"all": len(nodes)}
	all := []string{}
	for _, n := range nodes {
		all = append(all, described(head+n.name, n.about))
		for _, g := range n.groups {
			counts["@"+g]++
		}
	}
	if len(nodes) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for name, n := range counts {
		all = append(all, described(head+name, count(n, "node")))
	}
	slices.Sort(all)
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeTargetsFlag is completeTargets for a flag.
func (p *Program) completeTargetsFlag(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return p.completeTargets(cmd, nil, begun)
}

// completeLabels completes labels of jobs, as KEY=VALUE.
func (p *Program) completeLabels(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	labels := map[string]bool{}
	add := func(all map[string]string) {
		for key, value := range all {
			labels[key+"="+value] = true
		}
	}
	_, ok := p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		if m.daemon == nil {
			return nil, errNoList
		}
		page, err := m.daemon.ListJobs(ctx, api.JobsQuery{Outcomes: -1, Limit: 1000})
		for _, j := range page.Items {
			add(j.Labels)
		}
		return nil, err
	})
	if !ok {
		p.local(cmd, func(m *loom.Manifest) []string {
			for _, j := range m.Jobs {
				add(j.Labels)
			}
			return nil
		})
	}
	all := []string{}
	for label := range labels {
		all = append(all, label)
	}
	slices.Sort(all)
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeTasks completes the name of a task: of the daemon that is asked by name,
// or of this program.
func (p *Program) completeTasks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		if m.remote == nil {
			return nil, nil
		}
		answer, err := m.daemon.Do(ctx, http.MethodGet, api.Prefix+"/tasks", nil, nil)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close() //nolint:errcheck // it was only read
		var page api.Page[struct{ Name string }]
		err = json.NewDecoder(answer.Body).Decode(&page)
		var all []string
		for _, t := range page.Items {
			all = append(all, t.Name)
		}
		return all, err
	})
	if len(all) == 0 {
		for name := range p.Tasks.All() {
			all = append(all, name)
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeAPI completes methods and the paths that the daemon has.
func (p *Program) completeAPI(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	methods := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	if len(args) > 1 || len(args) == 1 && !slices.Contains(methods, strings.ToUpper(args[0])) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := p.live(cmd, func(ctx context.Context, m *memory) ([]string, error) {
		if m.daemon == nil {
			return nil, nil
		}
		answer, err := m.daemon.Do(ctx, http.MethodGet, "/openapi.json", nil, nil)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close() //nolint:errcheck // it was only read
		var document struct{ Paths map[string]json.RawMessage }
		err = json.NewDecoder(answer.Body).Decode(&document)
		paths := map[string]bool{}
		for path := range document.Paths {
			path, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, api.Prefix), "/"), "{")
			paths[path] = true
		}
		var all []string
		for path := range paths {
			all = append(all, path)
		}
		return all, err
	})
	slices.Sort(all)
	if len(args) == 0 {
		all = append(all, methods...)
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
