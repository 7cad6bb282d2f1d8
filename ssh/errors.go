package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/dustinlacewell/loom"
)

// Class says what kind of thing went wrong between Loom and a node.
type Class string

// The classes of errors. With all but ClassLost and ClassSudo nothing was run,
// and the error is a loom.ErrUnreachable; ClassLost is a loom.ErrLost.
const (
	ClassConfig         Class = "configuration"         // ssh_config, a key file or the node itself can not be used
	ClassDNS            Class = "unknown host"          // the name has no address
	ClassRefused        Class = "connection refused"    // nobody listens there
	ClassNoRoute        Class = "no route"              // the network does not lead there
	ClassTimeout        Class = "timed out"             // silence
	ClassReset          Class = "connection reset"      // hung up on before authentication
	ClassNotSSH         Class = "not an ssh server"     // something else answered
	ClassNegotiation    Class = "no common algorithm"   // the two have no algorithm in common
	ClassHostKeyUnknown Class = "host key unknown"      // nobody has said yet that this is the node
	ClassHostKeyChanged Class = "host key changed"      // this is not the node that was known
	ClassHostKeyRevoked Class = "host key revoked"      // somebody has said that this is not the node
	ClassAuth           Class = "authentication failed" // the node does not let us in
	ClassJump           Class = "jump host"             // a host on the way is the trouble
	ClassSession        Class = "session refused"       // the node lets us in, but gives us nothing
	ClassShell          Class = "shell did not start"   // the node runs something, but not our shell
	ClassSudo           Class = "sudo"                  // the node runs our shell, but not as the user wanted
	ClassLost           Class = "connection lost"       // it broke while something ran
	ClassClosed         Class = "closed"                // the connection's owner has closed it
)

// An Error says why a node could not be reached, or what came between. Test
// for its meaning with errors.Is and loom.ErrUnreachable or loom.ErrLost.
type Error struct {
	Class Class
	Node  string   // as the manifest calls it
	Addr  string   // user@host:port
	Err   error    // what happened; its text is the sentence
	Tried []string // with ClassAuth: what was offered, and what could not be
	Hint  string   // what to do about it, if that is known
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Addr != "" {
		b.WriteString(e.Addr + ": ")
	}
	b.WriteString(e.Err.Error())
	if len(e.Tried) > 0 {
		b.WriteString("; tried " + strings.Join(e.Tried, ", "))
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// ErrorClass returns the error's class, for those who don't know this package.
func (e *Error) ErrorClass() string { return string(e.Class) }

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

// Is makes the error a loom.ErrUnreachable or a loom.ErrLost, by its class.
func (e *Error) Is(target error) bool {
	switch target {
	case loom.ErrUnreachable:
		return e.Class != ClassLost && e.Class != ClassSudo
	case loom.ErrLost:
		return e.Class == ClassLost
	}
	return false
}

// classify turns what the network says into an error. What it is about, doing,
// says how far things had come.
func (t *target) classify(ctx context.Context, err error, doing string) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	e := t.fail(ClassReset, err)
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		e.Class = ClassDNS
		e.Err = fmt.Errorf("%s has no address: %w", t.host, err)
		e.Hint = "give the node an ip, or ssh_config a HostName"
		if dns.IsTimeout || dns.IsTemporary {
			e.Hint = "the name server did not help; trying again may"
		}
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Class = ClassRefused
		e.Err = &said{"connection refused" + t.elsewhere(err), err}
		e.Hint = "is sshd running there, and on this port?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Class = ClassNoRoute
		e.Err = &said{"no route to the host" + t.elsewhere(err) + besides(err, syscall.EHOSTUNREACH), err}
		e.Hint = "is the node up, and its network?"
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		e.Class = ClassTimeout
		e.Err = fmt.Errorf("timed out %s: %w", doing, err)
		if cause := context.Cause(ctx); cause != nil {
			e.Err = fmt.Errorf("timed out %s: %w", doing, cause)
			if !errors.Is(cause, errConnectTimeout) {
				e.Err = fmt.Errorf("gave up %s: %w", doing, cause)
			}
		}
	default:
		e.Err = fmt.Errorf("the connection broke %s: %w", doing, err)
	}
	return e
}

// A said is an error in better words than its own.
type said struct {
	text string
	err  error
}

func (e *said) Error() string { return e.text }
func (e *said) Unwrap() error { return e.err }

// elsewhere returns the address that was tried, if it is not the one by which the
// target is called anyway.
func (t *target) elsewhere(err error) string {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Addr == nil || op.Addr.String() == net.JoinHostPort(t.host, strconv.Itoa(t.port)) {
		return ""
	}
	return " at " + op.Addr.String()
}

// besides returns what the system says, if it is something else than usual.
func besides(err error, usual syscall.Errno) string {
	no, ok := errors.AsType[syscall.Errno](err)
	if !ok || no == usual {
		return ""
	}
	return ": " + no.Error()
}

// fail makes an error about this target.
func (t *target) fail(class Class, err error) *Error {
	return &Error{Class: class, Node: t.node, Addr: t.String(), Err: err}
}
