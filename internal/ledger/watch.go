package ledger

import "sync"

// Watches are those who wait for something to be written in a run: what a
// loom.Watcher has behind it. The zero value is ready. It is safe for concurrent use.
type Watches struct {
	mu sync.Mutex
	of map[string]map[chan struct{}]struct{} // by the run's ID; only runs that somebody watches
}

// Watch is what loom.Watcher says.
func (w *Watches) Watch(run string) (news <-chan struct{}, done func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[string]map[chan struct{}]struct{}{}
	}
	if w.of[run] == nil {
		w.of[run] = map[chan struct{}]struct{}{}
	}
	w.of[run][c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.of[run], c); len(w.of[run]) == 0 {
			delete(w.of, run)
		}
	}
}

// Wake wakes those who watch the run, and waits for none of them.
func (w *Watches) Wake(run string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.of[run] {
		select {
		case c <- struct{}{}:
		default: // it was woken, and has not looked yet
		}
	}
}
