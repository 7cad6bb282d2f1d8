package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom/daemon"
)

// mostExposed is what the unit may score: systemd calls up to 2 as good as it
// gets for a service that needs the network.
const mostExposed = 2.0

// analyze runs systemd-analyze, on a copy of the unit whose program exists.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	file := filepath.Join(t.TempDir(), "loomd.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit(t), "/usr/local/bin/loomd", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, append(args, file)...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func unit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/loomd.service")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUnitIsUnderstood(t *testing.T) {
	if out := analyze(t, "verify"); strings.Contains(out, "loomd.service:") {
		t.Errorf("systemd-analyze verify says\n%s", out)
	}
}

func TestUnitIsHardened(t *testing.T) {
	out := analyze(t, "security", "--offline=true")
	m := regexp.MustCompile(`Overall exposure level for loomd.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > mostExposed {
		t.Errorf("exposure level %s, want at most %v:\n%s", m[1], mostExposed, out)
	}
}

// TestUnitCallsWhatThereIs holds the unit's command line against the program's
// help.
func TestUnitCallsWhatThereIs(t *testing.T) {
	line := regexp.MustCompile(`(?m)^ExecStart=\S+ (.*)$`).FindStringSubmatch(unit(t))
	if line == nil {
		t.Fatal("the unit has no ExecStart")
	}
	words := strings.Fields(line[1])
	var help bytes.Buffer
	if err := daemon.Run(t.Context(), daemon.Options{}, []string{words[0], "--help"}, nil, &help, &help); err != nil {
		t.Fatal(err)
	}
	for _, word := range words {
		if strings.HasPrefix(word, "--") && !strings.Contains(help.String(), word) {
			t.Errorf("the unit says %s, which %s does not know:\n%s", word, words[0], &help)
		}
	}
}
