//go:build !linux

package smalldisk

import "os/exec"

// unmount takes a file system away, also one that is in use.
func unmount(dir string) error { return exec.Command("umount", "-f", dir).Run() } //nolint:noctx // the test's has ended
