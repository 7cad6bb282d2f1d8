package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

func (p *Program) tasksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tasks [NAME]",
		Short: "Show what tasks there are and what parameters they take",
		Long: `Tasks lists what a manifest's task key may name, from the code of this very
program. With a name it shows the parameters in order: args fill them by position,
kwargs by name.`,
		Example: `  ` + p.Name + ` tasks
  ` + p.Name + ` tasks put`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completeTasks,
	}
	output := outputFlag(cmd, "table", "json", "name")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return p.listTasks(*output)
		}
		t, ok := api.NewTaskInfo(p.Tasks, args[0])
		if !ok {
			_, err := p.Tasks.New(args[0], nil, nil)
			return &Error{Code: ExitNotFound, Err: err, Hint: p.Name + " tasks lists those there are"}
		}
		switch *output {
		case "json":
			return writeJSON(p.Stdout, t)
		case "name":
			fmt.Fprintln(p.Stdout, t.Name)
			return nil
		}
		p.showTask(t)
		return nil
	}
	return cmd
}

func (p *Program) listTasks(output string) error {
	all := []api.TaskInfo{}
	for name := range p.Tasks.All() {
		one, _ := api.NewTaskInfo(p.Tasks, name) // it is there
		all = append(all, one)
	}
	switch output {
	case "json":
		return writeJSON(p.Stdout, all)
	case "name":
		for _, one := range all {
			fmt.Fprintln(p.Stdout, one.Name)
		}
		return nil
	}
	t := table{head: []string{"TASK", "PARAMETERS"}}
	for _, one := range all {
		t.add(one.Name, signature(one.Params))
	}
	t.write(p.Stdout, terminal(p.Stdout))
	return nil
}

// signature names parameters in order, optional ones in brackets.
func signature(params []loom.Param) string {
	words := make([]string, len(params))
	for i, param := range params {
		word := param.Name
		if param.Rest {
			word += "..."
		}
		if !param.Required {
			word = "[" + word + "]"
		}
		words[i] = word
	}
	return strings.Join(words, " ")
}

func (p *Program) showTask(t api.TaskInfo) {
	fmt.Fprintf(p.Stdout, "%s (%s)\n", t.Name, t.GoType)
	if len(t.Aliases) > 0 {
		fmt.Fprintf(p.Stdout, "also called %s\n", strings.Join(t.Aliases, ", "))
	}
	if t.DryRun {
		fmt.Fprintln(p.Stdout, "can tell what it would change: run JOB --plan")
	}
	if len(t.Params) == 0 {
		fmt.Fprintln(p.Stdout, "\nIt takes no parameters.")
		return
	}
	fmt.Fprintln(p.Stdout)
	out := table{head: []string{"PARAMETER", "TYPE", "DEFAULT", "MEANING"}}
	addParams(&out, t.Params, "")
	p.writeWrapped(&out)
}

func addParams(t *table, params []loom.Param, indent string) {
	for _, param := range params {
		def := ""
		switch {
		case param.Required:
			def = "required"
		case param.Default != nil:
			def = fmt.Sprint(param.Default)
		}
		name := indent + param.Name
		if param.Rest {
			name += "..."
		}
		t.add(name, param.Type, def, param.Help)
		addParams(t, param.Fields, indent+"  ")
	}
}

// writeWrapped prints a table whose last column goes on in the lines below.
func (p *Program) writeWrapped(t *table) {
	width := terminal(p.Stdout)
	if width == 0 {
		width = 100
	}
	used := 0
	for i := range len(t.head) - 1 {
		widest := len(t.head[i])
		for _, row := range t.rows {
			widest = max(widest, len([]rune(row[i])))
		}
		used += widest + 2
	}
	wide := table{head: t.head}
	last := len(t.head) - 1
	for _, row := range t.rows {
		for i, line := range wrap(row[last], max(width-used, 30)) {
			if i > 0 {
				row = make([]string, len(t.head))
			}
			wide.add(append(row[:last:last], line)...)
		}
	}
	wide.write(p.Stdout, 0)
}
