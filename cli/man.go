package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand writes the manual pages, for whoever makes a package.
func (p *Program) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		Long: `Man writes a manual page of each command to a directory, as packages have them:
` + p.Name + `.1, ` + p.Name + `-run.1 and so on.`,
		Example: `  ` + p.Name + ` man /usr/local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManual(root, args[0])
		},
	}
}

// documented reports whether a command has a page.
func documented(cmd *cobra.Command) bool {
	return cmd.Name() != "help" && !cmd.Hidden && !cmd.IsAdditionalHelpTopicCommand()
}

func writeManual(cmd *cobra.Command, dir string) error {
	if !documented(cmd) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, manName(cmd)+".1"), []byte(manPage(cmd)), 0o644); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if err := writeManual(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is the page of a command, for man(7).
func manPage(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(name string) { fmt.Fprintf(&b, ".SH %s\n", name) }
	fmt.Fprintf(&b, ".\\\" Written by \"%s man\": change the help of the command instead.\n", cmd.Root().Name())
	fmt.Fprintf(&b, ".TH %s 1 \"\" Loom \"Loom manual\"\n", strings.ToUpper(manName(cmd)))
	section("NAME")
	fmt.Fprintf(&b, "%s \\- %s\n", roff(manName(cmd)), roff(cmd.Short))
	section("SYNOPSIS")
	fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(manSynopsis(cmd)))
	section("DESCRIPTION")
	b.WriteString(manText(cmd.Long))
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		section("OPTIONS")
		manFlags(&b, flags)
	}
	if flags := cmd.InheritedFlags(); flags.HasAvailableFlags() {
		section("OPTIONS OF ALL COMMANDS")
		manFlags(&b, flags)
	}
	if cmd.Example != "" {
		section("EXAMPLES")
		fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(cmd.Example))
	}
	if !cmd.HasParent() {
		section("ENVIRONMENT")
		for _, v := range [][2]string{
			{envServer, "the daemon to ask, as --server has it"}, {envToken, "the token that says who asks"}, {envContext, "the context to use"},
			{"XDG_CONFIG_HOME", "where loom/config.yaml has the contexts; ~/.config without it"}, {"NO_COLOR", "if it is set, no colours are used"},
		} {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(v[0]), roff(v[1]))
		}
	}
	if others := manOthers(cmd); len(others) > 0 {
		section("SEE ALSO")
		for i, name := range others {
			comma := ","
			if i == len(others)-1 {
				comma = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", roff(name), comma)
		}
	}
	return b.String()
}

func manSynopsis(cmd *cobra.Command) string {
	if !cmd.HasAvailableSubCommands() {
		return cmd.UseLine()
	}
	s := cmd.CommandPath() + " COMMAND [flags]"
	if cmd.Runnable() {
		s = cmd.UseLine() + "\n" + s
	}
	return s
}

// manText sets paragraphs; lines that begin with blanks stay as they are.
func manText(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if strings.Contains("\n"+paragraph, "\n  ") {
			fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(paragraph))
			continue
		}
		b.WriteString(roff(paragraph) + "\n")
	}
	return b.String()
}

func manFlags(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(strings.ReplaceAll(usage, "\n", " ")))
	})
}

// manOthers are the pages that one refers to.
func manOthers(cmd *cobra.Command) []string {
	var all []string
	if cmd.HasParent() {
		all = append(all, manName(cmd.Parent()))
	}
	for _, sub := range cmd.Commands() {
		if documented(sub) {
			all = append(all, manName(sub))
		}
	}
	slices.Sort(all)
	return all
}

// roff is a text that roff(7) prints as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "`", `\(ga`, "'", `\(aq`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
