package loom

import "time"

// LookEvery has s look at the clock so often, so that a simulated year passes
// quickly.
func (s *Scheduler) LookEvery(d time.Duration) { s.look = d }

// Unwritten returns how many bytes of output wait for the store.
func (s *Scheduler) Unwritten() int64 { return s.unwritten.Load() }
