package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/why"
)

func (p *Program) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read the manifests and tell every mistake",
		Long: `Check reads everything that the daemon would read and prints every problem with
its file, line and column. It exits with 1 if there is any. Of a daemon that is named,
with --server or a context, it tells what that finds wrong with its own files.`,
		Example: `  ` + p.Name + ` check
  ` + p.Name + ` check -c /etc/loom/loom.yaml --format json`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd, "text", "json")
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "format" {
			name = "output"
		}
		return pflag.NormalizedName(name)
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if s, err := p.server(""); err != nil {
			return err
		} else if s != nil { // one that is named has manifests of its own
			return p.checkElsewhere(cmd.Context(), *output)
		}
		m, err := p.read(cmd.Context())
		if *output == "json" {
			return p.checkedJSON(m, err)
		}
		if err != nil {
			return p.checkedBadly(err)
		}
		for _, w := range m.Warnings {
			fmt.Fprintf(p.Stderr, "%s (warning)\n", seen(w))
		}
		for _, file := range m.Ignored {
			fmt.Fprintf(p.Stderr, "%s: there are no jobs in it (warning)\n", below(file))
		}
		fmt.Fprintln(p.Stdout, summary(m, time.Now()))
		return nil
	}
	return cmd
}

// checkElsewhere tells what a daemon finds wrong with its files.
func (p *Program) checkElsewhere(ctx context.Context, output string) error {
	mem, err := p.memory(ctx, "")
	if err != nil {
		return err
	}
	defer mem.close()
	info, err := mem.daemon.Manifest(ctx)
	if err != nil {
		return err
	}
	found, err := mem.daemon.Problems(ctx, "")
	if err != nil {
		return err
	}
	m := &loom.Manifest{File: info.File, Nodes: make([]*loom.Node, info.Nodes), Jobs: make([]*loom.Job, info.Jobs)}
	var bad []error
	for _, one := range found {
		e := &loom.ManifestError{File: one.File, Line: one.Line, Col: one.Col, Err: errors.New(one.Text)}
		if one.Severity == "warning" {
			m.Warnings = append(m.Warnings, e)
			continue
		}
		bad = append(bad, e)
	}
	switch err := errors.Join(bad...); {
	case output == "json":
		return p.checkedJSON(m, err)
	case err != nil:
		return p.checkedBadly(err)
	}
	for _, w := range m.Warnings {
		fmt.Fprintf(p.Stderr, "%v (warning)\n", w)
	}
	fmt.Fprintf(p.Stdout, "%s: ok: %s, %s\n", info.File, count(info.Jobs, "job"), count(info.Nodes, "node"))
	return nil
}

// checkedBadly tells all problems.
func (p *Program) checkedBadly(err error) error {
	problems := Problems(err)
	if len(problems) == 0 {
		return &Error{Code: ExitFailed, Err: err}
	}
	files := map[string]bool{}
	for _, problem := range problems {
		files[problem.File] = true
		fmt.Fprintln(p.Stderr, seen(problem))
	}
	fmt.Fprintf(p.Stderr, "%s in %s\n", count(len(problems), "problem"), count(len(files), "file"))
	return &Error{Code: ExitFailed}
}

// A problemJSON is a mistake or a warning for programs.
type problemJSON struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

func problemsJSON(problems []*loom.ManifestError) []problemJSON {
	all := []problemJSON{}
	for _, e := range problems {
		all = append(all, problemJSON{File: e.File, Line: e.Line, Column: e.Col, Message: e.Err.Error()})
	}
	return all
}

func (p *Program) checkedJSON(m *loom.Manifest, err error) error {
	out := struct {
		OK       bool          `json:"ok"`
		File     string        `json:"file,omitempty"`
		Nodes    int           `json:"nodes"`
		Jobs     int           `json:"jobs"`
		Problems []problemJSON `json:"problems"`
		Warnings []problemJSON `json:"warnings"`
	}{OK: err == nil, Problems: problemsJSON(Problems(err)), Warnings: []problemJSON{}}
	if err != nil && len(out.Problems) == 0 {
		out.Problems = append(out.Problems, problemJSON{Message: err.Error()})
	}
	if m != nil {
		out.File, out.Nodes, out.Jobs, out.Warnings = m.File, len(m.Nodes), len(m.Jobs), problemsJSON(m.Warnings)
	}
	if err := writeJSON(p.Stdout, out); err != nil {
		return err
	}
	if err != nil {
		return &Error{Code: ExitFailed}
	}
	return nil
}

// seen is e with its file as seen from the working directory, if it is below.
func seen(e *loom.ManifestError) *loom.ManifestError {
	short := *e
	short.File = below(e.File)
	return &short
}

// below returns the path from the working directory to a file in or below it.
func below(file string) string {
	dir, err := os.Getwd()
	if err != nil {
		return file
	}
	rel, err := filepath.Rel(dir, file)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return file
	}
	return rel
}

// summary says in a line what a manifest holds.
func summary(m *loom.Manifest, now time.Time) string {
	s := fmt.Sprintf("%s: %s, %s", below(m.File), count(len(m.Nodes), "node"), count(len(m.Jobs), "job"))
	if next := why.Upcoming(m.Jobs, now, time.Time{}, 1); len(next) > 0 {
		s += fmt.Sprintf("; next: %s at %s", next[0].Job.Name, clock(next[0].Time, now))
	}
	return s
}
