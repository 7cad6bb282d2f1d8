package cli

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// tree returns the commands of a program, with their help.
func tree(t *testing.T) (*Program, *cobra.Command) {
	t.Helper()
	p := &Program{Name: "loomd", Tasks: importTasks(), Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard}
	root := p.Command()
	p.completeAll(root)
	return p, root
}

// each visits the commands below one, and it.
func eachCommand(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, visit)
	}
}

// TestTree holds what is the same for each command: it says what it does in a line,
// in some, and by an example that begins with the program's name; flags have a text;
// what prints data offers -o json; words complete or are said not to; and the help
// fits a terminal.
func TestTree(t *testing.T) {
	// What prints no data but says that something was done, or prints a file.
	plain := strings.Fields("context context-use context-add context-rm import import-crontab import-ansible-inventory import-ssh-config " +
		"init schema api man completion dial help logs run exec retry")
	_, root := tree(t)
	eachCommand(root, func(cmd *cobra.Command) {
		path := strings.ReplaceAll(strings.TrimPrefix(cmd.CommandPath(), "loomd "), " ", "-")
		if cmd.Name() == "help" {
			return
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || len(cmd.Short) > 70 {
			t.Errorf("%s: Short is %q: it has to be a line without a full stop", path, cmd.Short)
		}
		if strings.TrimSpace(cmd.Long) == "" {
			t.Errorf("%s has no Long", path)
		}
		if !strings.Contains(cmd.Example, "loomd") || !strings.HasPrefix(cmd.Example, "  ") {
			t.Errorf("%s: Example is %q: it has to show the command", path, cmd.Example)
		}
		if cmd.Runnable() && cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && cmd != root && !cmd.HasSubCommands() {
			t.Errorf("%s completes no words, nor says so", path)
		}
		for _, text := range []string{cmd.Long, cmd.Example} {
			for line := range strings.SplitSeq(text, "\n") {
				if len(line) > 100 {
					t.Errorf("%s: a line of the help is too long: %s", path, line)
				}
			}
		}
		if o := cmd.Flags().Lookup("output"); o == nil && cmd.Runnable() && !cmd.HasSubCommands() && !slices.Contains(plain, path) {
			t.Errorf("%s has no -o", path)
		} else if o != nil && !strings.Contains(o.Usage, "json") {
			t.Errorf("%s: -o has no json: %s", path, o.Usage)
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s --help: %v", path, err)
		}
		for line := range strings.SplitSeq(out.String(), "\n") {
			if len(line) > 100 {
				t.Errorf("%s --help: a line is too long: %s", path, line)
			}
		}
	})
}
