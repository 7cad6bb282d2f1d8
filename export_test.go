package loom

import "time"

// LookEvery has s look at the clock so often, so that a simulated year passes
// quickly.
func (s *Scheduler) LookEvery(d time.Duration) { s.look = d }
