package loom

import (
	"strings"
	"testing"
)

// TestPolicyMistakes reads policies that are wrong: each is an error at load
// that says so, never a silence.
func TestPolicyMistakes(t *testing.T) {
	for _, tt := range []struct{ job, says string }{
		{"schedule: manual, after: k2", `"k2" (did you mean "k"?)`},
		{"after: j", "in a circle (j → j)"},
		{"after: k3", "in a circle (j → k3 → k4 → j)"},
		{"at: '2026-01-01 00:00'", "write a time with its zone"},
		{"at: '2026-13-01T00:00:00Z'", "write a time with its zone"},
		{"schedule: manual, batch: 0", "batch"},
		{"schedule: manual, batch: [1, 0%]", "batch"},
		{"schedule: manual, batch: -1", "batch"},
		{"schedule: manual, batch: 1.5", "batch"},
		{"schedule: manual, max_failures: -1", "max_failures"},
		{"schedule: manual, max_failures: 101%", "max_failures"},
		{"schedule: manual, retries: -1", "retries"},
		{"schedule: manual, retries: {attempts: 2, backoff: 0.5}", "backoff"},
		{"schedule: manual, retries: {attempts: 2, delay: -1s}", "delay"},
		{"schedule: manual, retries: {attempts: 2, max_delay: -1s}", "max_delay"},
		{"schedule: manual, retries: {attempts: 2, on: lost}", "on"},
		{"schedule: manual, retries: {attempts: 2, on: [skipped]}", "on"},
		{"schedule: manual, timeout: -1s", "timeout"},
		{"schedule: manual, jitter: -1s", "jitter"},
		{"schedule: manual, jitter: {by: node}", `missing key "max"`},
		{"schedule: manual, missed: {policy: latest, within: -1s}", "within"},
		{"schedule: manual, overlap: none", "overlap"},
		{"schedule: manual, not_during: {schedule: '0 0 * * *'}", "not_during"},
		{"schedule: manual, not_during: {schedule: '0 0 * * *', for: -1h}", "not_during"},
		{"schedule: manual, not_during: {schedule: '0 0 30 2 *', for: 1h}", "never"},
		{"schedule: manual, not_during: {schedule: '@reboot', for: 1h}", "@reboot is no time"},
		{"schedule: manual, not_during: {from: 2026-01-02, to: 2026-01-01}", "ends before it begins"},
		{"schedule: manual, not_during: {from: 2026-01-02}", "not_during"},
		{"schedule: manual, log: {file: /l, max_size: 100}", "write at least 4KiB"},
		{"schedule: manual, log: {file: /l, keep: -1}", "keep"},
		{"schedule: manual, log: {max_size: 1MiB}", "file"},
		{"schedule: manual, log: '/l/{host}'", "{host"},
		{"schedule: []", "has none of schedule, at and after"},
		{"schedule: [manual, '* * * * *']", "manual"},
		{"targets: n0", "has none of schedule, at and after"},
	} {
		job := tt.job
		if !strings.Contains(job, "targets") {
			job += ", targets: n0"
		}
		_, _, err := policyFiles(t, "", "  j: {task: print, "+job+"}\n  k: {task: print, targets: n0, schedule: manual}\n"+
			"  k3: {task: print, targets: n0, after: k4}\n  k4: {task: print, targets: n0, after: [k, j]}")
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want an error with %q", tt.job, err, tt.says)
		}
	}
}
