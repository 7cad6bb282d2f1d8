package daemon

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/dustinlacewell/loom"
)

// How often the history is trimmed: each hour, give or take some minutes, so
// that several daemons of one store don't do it together; sooner if the store
// was down.
const (
	trimEvery  = time.Hour
	trimSpread = 10 * time.Minute
	trimAgain  = 5 * time.Minute
)

// trim deletes what the configuration no longer keeps, at once and then every
// hour, until ctx ends. It asks for the configuration each time.
func trim(ctx context.Context, store loom.Store, history func() loom.History, log *slog.Logger) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := trimEvery - trimSpread + rand.N(2*trimSpread)
		if err := trimOnce(ctx, store, retention(history()), log); errors.Is(err, loom.ErrStoreDown) {
			wait = trimAgain
		}
		timer.Reset(wait)
	}
}

// trimOnce trims the store, and says what was deleted.
func trimOnce(ctx context.Context, store loom.Store, keep loom.Retention, log *slog.Logger) error {
	if keep == (loom.Retention{}) {
		return nil
	}
	began := time.Now()
	t, err := store.Trim(ctx, keep)
	if t != (loom.Trimmed{}) {
		log.Info("history trimmed", "runs", t.Runs, "ticks", t.Ticks, "chunks", t.Chunks, "bytes", t.Bytes, "took", time.Since(began).Round(time.Millisecond))
	}
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, loom.ErrStoreDown): // whoever needs the store says so loudly
		log.Debug("history can't be trimmed while the store is down", "err", err)
	default:
		log.Warn("history can't be trimmed: it grows until it can", "err", err)
	}
	return err
}

// retention puts the configuration into the store's terms. What became of ticks
// is kept for as long as the runs are, at least.
func retention(h loom.History) loom.Retention {
	keep := loom.Retention{Runs: h.Keep, RunsPerJob: h.KeepRuns, Ticks: h.KeepTicks}
	if keep.Ticks > 0 {
		keep.Ticks = max(keep.Ticks, h.Keep)
	}
	return keep
}
