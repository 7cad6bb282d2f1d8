// Package ssh reaches nodes over SSH. Its [Dialer] is a loom.Dialer; import it
// as loomssh where golang.org/x/crypto/ssh is about as well.
//
//	pool := &loom.Pool{Dialer: &loomssh.Dialer{}}
//
// # What it does as ssh(1) does
//
// The zero Dialer reads ~/.ssh/config and /etc/ssh/ssh_config, verifies host
// keys against known_hosts, and authenticates with the node's identity, the
// agent, the default keys, certificates and the node's password, without ever
// asking a person. Sections of ssh_config apply to a node if they name it or
// its address; what the node itself says wins. Host, Match host, Match all,
// Include, HostName, Port, User, IdentityFile, IdentitiesOnly, IdentityAgent,
// CertificateFile, ProxyJump, UserKnownHostsFile, GlobalKnownHostsFile,
// StrictHostKeyChecking, HostKeyAlias, HostKeyAlgorithms, ConnectTimeout,
// ServerAliveInterval, Ciphers, MACs and KexAlgorithms are honoured. Sections
// under other kinds of Match are left out with a warning; a ProxyCommand is an
// error. Agents are never forwarded, and whatever the server wants to open
// towards us is refused.
//
// # What a connection is
//
// [Dialer.Dial] returns one connection to the node, over which any number of
// commands run, each in a session of its own. A session is opened ahead of
// need. If the server allows only so many sessions on a connection, further
// commands wait their turn or get a connection more. A connection that breaks
// while nothing runs is replaced without anybody noticing; one that goes silent
// is given up after three keepalive intervals. Handshakes are paced, over all
// nodes and for each host, and tried again if a busy server turns them away
// before it has said anything. After authentication has failed, a node is left
// alone for 30 seconds, then 2 and then 10 minutes.
//
// # What a command is
//
// The login shell of the node may be any: it is only asked to start /bin/sh.
// The command's text goes to that over standard input, so that ps does not show
// it. A marker proves that our shell has begun; without it the outcome is never
// ok, whatever the exit status. If its context ends, or the connection does,
// the node ends the command with all its processes: SIGTERM, some four seconds
// of grace, SIGKILL. That reaches children that have left the process group, as
// the node's /proc tells who belongs to it; a child that has cleared its
// environment and been disowned escapes. On nodes without /proc it is the
// process group that is ended.
//
// A command that has ended well leaves its background children alone. If one of
// them keeps the output open, it is read on until a second has passed in
// silence.
//
// # Errors
//
// Dial's errors, and those of a connection, are an [*Error], with a [Class] to
// branch on, a sentence, and what to do. They wrap loom.ErrUnreachable if
// nothing was run, and loom.ErrLost if something was and nobody knows how it
// ended.
package ssh
