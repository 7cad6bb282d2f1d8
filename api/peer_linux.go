package api

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerOfFD is the user who is at the other end of a socket (unix(7)), with all
// groups that the process there has.
func peerOfFD(fd int) (peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, err
	}
	return peer{uid: int(cred.Uid), groups: append(peerGroups(fd), int(cred.Gid))}, nil
}

// peerGroups are the supplementary groups; none if the kernel does not tell.
func peerGroups(fd int) []int {
	const most = 65536 // NGROUPS_MAX
	for size := 64; size <= most; size *= 4 {
		buf := make([]byte, 4*size)
		n := uint32(len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&n)), 0)
		if errno == unix.ERANGE {
			continue
		}
		if errno != 0 {
			return nil
		}
		var groups []int
		for ; n >= 4; n -= 4 {
			groups = append(groups, int(binary.NativeEndian.Uint32(buf)))
			buf = buf[4:]
		}
		return groups
	}
	return nil
}
