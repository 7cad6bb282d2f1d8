//go:build darwin || freebsd

package api

import "golang.org/x/sys/unix"

// peerUID is the user who is at the other end of a socket (unix(4)).
func peerUID(fd int) (int, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
