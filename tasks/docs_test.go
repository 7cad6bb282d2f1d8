package tasks_test

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"text/template"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/golden"
	"github.com/dustinlacewell/loom/tasks"
)

// The manual is made of a text written by hand and of what the code says of
// itself: the tasks' comments and parameters. go test -update writes it anew.
func TestManual(t *testing.T) {
	m := manual{registry: tasks.Registry(), comments: comments(t)}
	text, err := template.New("tasks.md.tmpl").Funcs(template.FuncMap{"task": m.task, "aliases": m.aliases}).ParseFiles("testdata/tasks.md.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := text.Execute(&out, nil); err != nil {
		t.Fatal(err)
	}
	for name := range m.registry.All() {
		if !strings.Contains(out.String(), "\n## "+name+"\n") {
			t.Errorf("the manual lacks the task %s", name)
		}
	}
	golden.Compare(t, out.String(), "../docs/tasks.md")
}

type manual struct {
	registry *loom.Registry
	comments map[string]string // of types
}

// task describes a task and its parameters.
func (m manual) task(name string) (string, error) {
	_, proto, ok := m.registry.Lookup(name)
	if !ok {
		return "", fmt.Errorf("no task %s", name)
	}
	var b strings.Builder
	b.WriteString(m.comments[reflect.TypeOf(proto).Name()])
	table(&b, m.registry.Params(name))
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func table(b *strings.Builder, params []loom.Param) {
	if len(params) == 0 {
		b.WriteString("\nIt has no parameters.\n")
		return
	}
	b.WriteString("\n| parameter | type | |\n|---|---|---|\n")
	var inner []loom.Param
	for _, p := range params {
		name, kind, help := "`"+p.Name+"`", p.Type, p.Help
		if p.Required {
			name = "**" + name + "**"
		}
		if p.Rest {
			kind += ", all further args"
		}
		if p.Default != nil {
			help += fmt.Sprintf(" (%v)", p.Default)
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, kind, strings.ReplaceAll(help, "|", "\\|"))
		if len(p.Fields) > 0 {
			inner = p.Fields
		}
	}
	if inner != nil {
		b.WriteString("\nEach of these is a mapping:\n")
		table(b, inner)
	}
}

func (m manual) aliases() string {
	var b strings.Builder
	b.WriteString("| | task |\n|---|---|\n")
	for name := range m.registry.All() {
		for _, alias := range m.registry.Aliases(name) {
			fmt.Fprintf(&b, "| `%s` | [%s](#%s) |\n", alias, name, strings.ReplaceAll(name, ".", ""))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// comments returns the doc comments of the package's types, as Markdown.
func comments(t *testing.T) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var parsed []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	pkg, err := doc.NewFromFiles(files, parsed, "github.com/dustinlacewell/loom/tasks")
	if err != nil {
		t.Fatal(err)
	}
	byType := map[string]string{}
	for _, typ := range pkg.Types {
		byType[typ.Name] = markdown(typ.Doc)
	}
	return byType
}

// markdown writes a comment as a page of Markdown: a paragraph a line, and names
// of Go as those of manifests.
func markdown(comment string) string {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(comment), "\n\n") {
		b.WriteString(strings.Join(strings.Fields(paragraph), " ") + "\n\n")
	}
	text := strings.TrimSuffix(b.String(), "\n")
	for name, param := range map[string]string{
		"[Run]": "[run](#run)", "RemotePath": "`remote_path`", "LocalPath": "`local_path`",
		"Creates or Unless": "`creates` or `unless`", "Port, File, URL and Command": "`port`, `file`, `url` and `command`",
		"every Interval": "every `interval`", "after Timeout": "after `timeout`", "when Settle is over": "when `settle` is over",
		"with Args": "with `args`", "Lazy detaches": "`lazy` detaches",
	} {
		text = strings.ReplaceAll(text, name, param)
	}
	return text
}

// Every example of the manual loads, with a fleet that has what they name.
func TestManualExamples(t *testing.T) {
	_, text, _ := strings.Cut("\n"+read(t, "../docs/tasks.md"), "\n```yaml\n")
	for i, block := range strings.Split(text, "\n```yaml\n") {
		example, _, _ := strings.Cut(block, "\n```")
		m, err := readManifest(t, example)
		if err != nil {
			t.Errorf("example %d: %v\n%s", i+1, err, example)
			continue
		}
		if len(m.Jobs) != 1 {
			t.Errorf("example %d has %d jobs", i+1, len(m.Jobs))
		}
	}
}

// readManifest reads a jobs file, beside a main file and nodes.
func readManifest(t *testing.T, jobs string) (*loom.Manifest, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "jobs/jobs.yaml", jobs)
	write(t, dir, "nodes.yaml", `
db1: {groups: [db, build, web]}
db2: {groups: [db]}
staging: {}
production: {}
db3: {}
db4: {}
`)
	main := write(t, dir, "loom.yaml", "nodesfile: nodes.yaml\njobspath: jobs/\n")
	return loom.ReadManifest(main, tasks.Registry())
}
