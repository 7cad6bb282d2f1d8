//go:build darwin || freebsd

package api

import "golang.org/x/sys/unix"

// peerOfFD is the user who is at the other end of a socket (unix(4)), with up to
// 16 groups.
func peerOfFD(fd int) (peer, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return peer{}, err
	}
	p := peer{uid: int(cred.Uid)}
	for _, gid := range cred.Groups[:min(int(cred.Ngroups), len(cred.Groups))] {
		p.groups = append(p.groups, int(gid))
	}
	return p, nil
}
