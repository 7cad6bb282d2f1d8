package cli

import "sync"

// Interrupts are where the one who hears the system's signals leaves those of
// Ctrl-C, as long as a command asks for them. The zero value is ready, a nil
// pointer never has any; both are safe for concurrent use.
type Interrupts struct {
	mu  sync.Mutex
	out chan struct{}
}

// Give hands an interrupt to the command, and reports whether it took it: if not,
// the command is to be ended.
func (i *Interrupts) Give() bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.out == nil {
		return false
	}
	select {
	case i.out <- struct{}{}:
	default: // one is waiting to be heeded
	}
	return true
}

// take has interrupts come out of the channel until release is called.
func (i *Interrupts) take() (interrupts <-chan struct{}, release func()) {
	if i == nil {
		return nil, func() {}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	out := make(chan struct{}, 1)
	i.out = out
	return out, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.out == out {
			i.out = nil
		}
	}
}
