package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// An importer makes a manifest of a file of another program.
type importer struct {
	file  string // as the user knows it
	notes []importNote
}

// An importNote says what could not be translated, or not as one may think.
type importNote struct {
	line  int // 0: of the file as a whole
	text  string
	shown bool // as a comment, where it belongs
}

func (i *importer) note(line int, format string, args ...any) string {
	text := clean(fmt.Sprintf(format, args...))
	if one := (importNote{line: line, text: text}); !slices.Contains(i.notes, one) { // the hosts of a range have one line
		i.notes = append(i.notes, one)
	}
	return text
}

// remark is note for what is shown as a comment.
func (i *importer) remark(line int, format string, args ...any) string {
	text := clean(fmt.Sprintf(format, args...))
	i.notes = append(i.notes, importNote{line: line, text: text, shown: true})
	return text
}

// importSource names a file for people.
func importSource(file string) string {
	if file == "-" {
		return "stdin"
	}
	return file
}

// readAll reads a file that is to be imported, or the standard input (-).
func (p *Program) readAll(name string) (string, error) {
	const most = 8 << 20
	in, where := p.Stdin, "the standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close() //nolint:errcheck // it was only read
		in, where = f, name
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > most:
		return "", fmt.Errorf("%s is larger than %d MiB", where, most>>20)
	case !utf8.Valid(text):
		return "", fmt.Errorf("%s is no text in UTF-8", where)
	}
	return string(text), nil
}

func (p *Program) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Make manifests of other programs' files",
		Long: `Import reads what you have, and writes manifests that "` + p.Name + ` check" accepts: to the
standard output, or with --to a whole configuration to a directory. What it can't
translate it says on the standard error, with file and line, and as a comment where
it belongs. It changes nothing that is there.`,
		Example: `  ` + p.Name + ` import crontab /etc/crontab --to /etc/loom
  crontab -l | ` + p.Name + ` import crontab - >~/.loom/jobs/mine.yaml
  ` + p.Name + ` import ansible-inventory hosts.ini >~/.loom/nodes.yaml
  ` + p.Name + ` import ssh-config`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(p.importCrontabCommand(), p.importAnsibleCommand(), p.importSSHCommand())
	return cmd
}

// importInto adds --to to a command.
func importInto(cmd *cobra.Command) *string {
	to := cmd.Flags().String("to", "", "`directory` to write a whole configuration to, instead of the standard output")
	_ = cmd.MarkFlagDirname("to") // it is our own flag
	return to
}

// imported writes what an import has made, of which there is an amount, and tells
// what was left out. part is the file that the standard output gets.
func (p *Program) imported(ctx context.Context, i *importer, to string, n int, what string, part newFile, others ...newFile) error {
	slices.SortStableFunc(i.notes, func(a, b importNote) int { return a.line - b.line })
	for _, note := range i.notes {
		place := i.file
		if note.line > 0 {
			place = fmt.Sprintf("%s:%d", i.file, note.line)
		}
		fmt.Fprintf(p.Stderr, "%s: %s\n", place, note.text)
	}
	if n == 0 {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("%s: there is no %s in it that could be imported", i.file, what)}
	}
	if to == "" {
		_, err := io.WriteString(p.Stdout, part.text)
		return err
	}
	dir, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	main, err := writeNew(dir, append(others, part))
	if err != nil {
		return err
	}
	r := *p
	r.Config = main
	if _, err := r.read(ctx); err != nil {
		return fmt.Errorf("%s was written, but is not all right: %w", main, err)
	}
	fmt.Fprintf(p.Stdout, "%s is written, with %s; look through it, then: %s check -c %[1]s\n", main, count(n, what), p.Name)
	return nil
}

// head is the comment that a file begins with, with what has no other place.
func (i *importer) head(program, how string) string {
	slices.SortStableFunc(i.notes, func(a, b importNote) int { return a.line - b.line })
	lines := []string{fmt.Sprintf("Made by \"%s import %s\" of %s.", program, how, clean(i.file))}
	for _, note := range i.notes {
		switch {
		case note.shown:
		case note.line == 0:
			lines = append(lines, note.text)
		default:
			lines = append(lines, fmt.Sprintf("%s:%d: %s", clean(i.file), note.line, note.text))
		}
	}
	return strings.Join(lines, "\n")
}

// importMain is a main file for what was imported.
func importMain() newFile {
	return newFile{"loom.yaml", "nodesfile: nodes.yaml\njobspath: jobs/\n"}
}

// A yamlMap is a mapping that is built in order, with comments.
type yamlMap struct{ node *yaml.Node }

func newYAML() yamlMap { return yamlMap{&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}} }

// set adds a key. Nothing is added for what is empty.
func (m yamlMap) set(key string, value any) {
	if value == "" {
		return
	}
	var n yaml.Node
	if sub, ok := value.(yamlMap); ok {
		n = *sub.node
	} else if err := n.Encode(value); err != nil {
		return // only what decoding has made comes here, and strings
	}
	quoteOdd(&n)
	m.node.Content = append(m.node.Content, yamlText(key), &n)
}

// comment puts a comment over the last key.
func (m yamlMap) comment(lines ...string) {
	if len(lines) > 0 && len(m.node.Content) >= 2 {
		m.node.Content[len(m.node.Content)-2].HeadComment = strings.Join(lines, "\n")
	}
}

func (m yamlMap) empty() bool { return len(m.node.Content) == 0 }

// text writes the mapping as a document.
func (m yamlMap) text(head string) (string, error) {
	var b bytes.Buffer
	for line := range strings.SplitSeq(head, "\n") {
		b.WriteString("# " + line + "\n")
	}
	b.WriteString("\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(m.node); err != nil {
		return "", err
	}
	return b.String(), e.Close()
}

func yamlText(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	quoteOdd(n)
	return n
}

// quoteOdd has texts that YAML writers are known to write wrong in any other way
// written between quotes.
func quoteOdd(n *yaml.Node) {
	for _, child := range n.Content {
		quoteOdd(child)
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" &&
		(strings.TrimSpace(n.Value) != n.Value || strings.Contains(n.Value, "\n ") || strings.ContainsFunc(n.Value, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') })) {
		n.Style = yaml.DoubleQuotedStyle
	}
}

// literally is a text in which the manifest's references are left to the shell, and
// as a task's parameter its templates too.
func literally(text string, template bool) string {
	for _, scheme := range []string{"env", "file", "secret"} {
		text = strings.ReplaceAll(text, "${"+scheme+":", "$${"+scheme+":")
	}
	if template {
		text = strings.ReplaceAll(text, "{{", `{{"{{"}}`)
	}
	return text
}

// unusual reports whether there are characters in a text that no manifest needs.
func unusual(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\t' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r <= 0x9f
	})
}

// importName makes a name out of a text: letters, digits, - and _.
func importName(text string, taken map[string]bool) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' && b.Len() > 0:
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 40 {
			break
		}
	}
	name := strings.Trim(b.String(), "-_")
	if name == "" || name == "all" {
		name = "job"
	}
	for n, base := 2, name; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	taken[name] = true
	return name
}
