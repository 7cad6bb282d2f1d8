//go:build linux || darwin || freebsd

package api

import "syscall"

// peerOf asks the kernel who is at the other end of a connection.
func peerOf(c syscall.Conn) (peer, error) {
	sc, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var failed error
	if err := sc.Control(func(fd uintptr) { p, failed = peerOfFD(int(fd)) }); err != nil {
		return peer{}, err
	}
	if failed != nil {
		return peer{}, failed
	}
	return p, nil
}
