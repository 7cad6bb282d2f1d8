//go:build !linux && !darwin && !freebsd

package api

import (
	"os"
	"syscall"
)

// peerOf takes whom the modes of the socket and its directory let in for its
// owner.
func peerOf(syscall.Conn) (peer, error) { return peer{uid: os.Getuid()}, nil }
