package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/cli"
)

// storeRetry is how often a store that can't be used at the start is tried again.
const storeRetry = time.Second

// openStore opens the store that the configuration names, or returns nil if the
// program has none. It waits as long as the store can't be used: while a command
// that was started by hand has it, say, or the disk is full.
func openStore(ctx context.Context, stores cli.Stores, name, dir string, super *supervisor, log *slog.Logger) (loom.Store, error) {
	if len(stores) == 0 {
		log.Warn("this program has no store: what happens is forgotten when it ends")
		return nil, nil
	}
	said := ""
	for {
		store, err := stores.Open(ctx, name, dir)
		if err == nil || !errors.Is(err, loom.ErrStoreDown) {
			return store, err
		}
		if text := err.Error(); text != said {
			said = text
			log.Error("store can't be opened: nothing runs until it can", "err", err)
			super.status("store: " + text)
		}
		timer := time.NewTimer(storeRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}
