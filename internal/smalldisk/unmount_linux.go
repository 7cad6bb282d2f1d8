package smalldisk

import "syscall"

// unmount takes a file system away, also one that is in use.
func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
