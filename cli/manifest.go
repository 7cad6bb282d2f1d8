package cli

import (
	"context"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/notify"
	"github.com/dustinlacewell/loom/secret"
)

// read reads the configuration as the daemon does, except that any mistake means
// that there is no manifest.
func (p *Program) read(ctx context.Context) (*loom.Manifest, error) {
	r := loom.ManifestReader{File: p.Config, Tasks: p.Tasks, Strict: true, Secrets: secret.Open, Check: notify.Check}
	return r.Read(ctx)
}
