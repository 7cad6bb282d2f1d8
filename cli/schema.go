package cli

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom/api"
)

func (p *Program) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of job manifests, for editors",
		Long: `Schema prints a JSON Schema (draft 2020-12) of the files below jobspath, from the
tasks of this very program; with --server or --context from those of that daemon. An
editor that uses yaml-language-server (VS Code's YAML extension, Neovim, Helix, Emacs,
Zed) then completes keys and parameters, shows what they mean, and marks mistakes. It
takes the first line of each file:

  # yaml-language-server: $schema=../loom.schema.json

or, for all of them, its settings:

  yaml.schemas: {"/etc/loom/loom.schema.json": "/etc/loom/jobs/**/*.yaml"}

A file whose anchors come from the datafile is not understood by editors as a whole:
they see each file alone. "` + p.Name + ` check" does.`,
		Example: `  ` + p.Name + ` schema >~/.loom/loom.schema.json
  ` + p.Name + ` schema --context prod >loom.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.server("")
			if err != nil {
				return err
			}
			if s == nil {
				_, err := fmt.Fprintf(p.Stdout, "%s\n", p.Tasks.Schema())
				return err
			}
			r, err := p.reach(s, false)
			if err != nil {
				return err
			}
			defer r.close()
			answer, err := r.Do(cmd.Context(), http.MethodGet, api.Prefix+"/schema", nil, nil)
			if err != nil {
				return err
			}
			defer answer.Body.Close() //nolint:errcheck // it was only read
			if answer.StatusCode >= 300 {
				return p.apiRefused(answer)
			}
			_, err = io.Copy(p.Stdout, answer.Body)
			return err
		},
	}
}
