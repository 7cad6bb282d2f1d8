//go:build unix

package loom

import (
	"os/exec"
	"syscall"
)

// endTogether makes the end of cmd's context end all that cmd has started.
func endTogether(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
