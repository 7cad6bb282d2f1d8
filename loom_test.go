package loom

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLogEventsOfALogForWarnings has a log that takes warnings get what did not
// go well, and nothing else.
func TestLogEventsOfALogForWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		event Event
		told  bool
	}{
		{Event{Kind: KindRunStarted, Ran: &Run{Status: StatusRunning}}, false},
		{Event{Kind: KindOutput, Text: "hello"}, false},
		{Event{Kind: KindNodeEnded, Result: &Result{Status: StatusOK}}, false},
		{Event{Kind: KindNodeEnded, Result: &Result{Status: StatusTimeout}}, true},
		{Event{Kind: KindRetry, Result: &Result{Status: StatusFailed}}, true},
		{Event{Kind: KindRunEnded, Ran: &Run{Status: StatusChanged}}, false},
		{Event{Kind: KindRunEnded, Ran: &Run{Status: StatusFailed}}, true},
		{Event{Kind: KindTickMissed}, true},
		{Event{Kind: KindStoreBack}, false},
		{Event{Kind: KindStoreDown}, true},
	}
	for _, tt := range tests {
		tt.event.Job = "nightly"
		var log bytes.Buffer
		LogEvents(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))(tt.event)
		if told := strings.Contains(log.String(), "job=nightly"); told != tt.told {
			t.Errorf("%s: told %v, want %v: %s", tt.event.Kind, told, tt.told, log.String())
		}
	}
}
