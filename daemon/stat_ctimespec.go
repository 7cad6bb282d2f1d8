//go:build darwin || freebsd || netbsd

package daemon

import (
	"syscall"
	"time"
)

// changeTime is when a file, or what is known about it, was changed.
func changeTime(s *syscall.Stat_t) time.Time { return time.Unix(s.Ctimespec.Unix()) }
