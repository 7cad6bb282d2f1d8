package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// A supervisor is the service manager that has started this process, if there
// is one and it wants to be told how things stand (sd_notify(3)). Nil tells nobody.
type supervisor struct{ log *slog.Logger }

func (s *supervisor) ready(status string) {
	s.tell(systemd.SdNotifyReady + "\nSTATUS=" + status)
}

// reloading must be followed by ready.
func (s *supervisor) reloading() {
	s.tell(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
}

func (s *supervisor) stopping(status string) {
	s.tell(systemd.SdNotifyStopping + "\nSTATUS=" + status)
}

// status is a line about how things stand.
func (s *supervisor) status(line string) { s.tell("STATUS=" + line) }

func (s *supervisor) tell(what string) {
	if s == nil {
		return
	}
	if _, err := systemd.SdNotify(false, what); err != nil {
		s.log.Warn("service manager can't be told", "err", err)
	}
}

// watchdog tells the service manager that all is well until ctx ends, as often
// as it wants to hear it, if it wants to. It does so only while alive says so.
func (s *supervisor) watchdog(ctx context.Context, alive func() error) {
	limit, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("watchdog is not understood", "err", err)
	}
	if limit <= 0 {
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		if err := alive(); err != nil {
			s.log.Error("watchdog is not told that all is well", "err", err)
		} else {
			s.tell(systemd.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// heartbeat is how long the scheduler may go without a look at the clock, which
// it takes each second, before something is wrong with it.
const heartbeat = 10 * time.Second

// beating returns whether a loop that was last seen at a time is alive.
func beating(last time.Time) error {
	if silent := time.Since(last); silent > heartbeat {
		return fmt.Errorf("the scheduler has not looked at the clock for %v", silent.Round(time.Second))
	}
	return nil
}
