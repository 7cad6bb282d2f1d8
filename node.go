package loom

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
)

// A Node is a machine that jobs can target. It is plain data: the manifest
// loader makes them from the nodes file, a Go program may write them down. A
// Node must not change once a [Pool] has seen it.
//
// Only Name is required. Everything that is left out comes from where
// ssh(1) would take it: ssh_config first, then the defaults.
type Node struct {
	Name    string // what manifests call it; also its host name if Address is empty
	Address string // host name or IP to connect to
	Port    int    // 0: ssh_config's, else 22
	User    string // "": ssh_config's, else the user that Loom runs as

	Password   Secret // offered for password and keyboard-interactive authentication
	Identity   string // file of a private key, or of the .pub beside it or in the agent
	Passphrase Secret // opens Identity if it is encrypted

	Groups []string       // sorted, without "all"
	Vars   map[string]any // free data for templates and tasks

	Jump        *Node             // connect through this node; it may have a Jump itself
	Transport   string            // "" or "ssh": over SSH; "local": the machine Loom runs on
	Sudo        Sudo              // how commands become another user here
	Shell       string            // program that runs commands, as in Shell -c TEXT; "": /bin/sh
	Env         map[string]string // exported to every command
	MaxSessions int               // channels at once on one connection; 0: find out
	Disabled    bool              // known, but no job runs on it
}

// Sudo says how commands become another user on a node. The zero value is
// root, without a password.
type Sudo struct {
	User     string // "": root
	Password Secret // "": sudo must not ask for one
}

// A Secret is a string that does not print: not with fmt, not in logs, not in
// JSON. Convert it to a string to use it.
type Secret string

const redacted = "[secret]"

// String returns a placeholder, or "" for an empty Secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString does for %#v what String does for %v.
func (s Secret) GoString() string { return `loom.Secret("` + s.String() + `")` }

// LogValue keeps the secret out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON keeps the secret out of JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML keeps the secret out of YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// A Dialer opens connections to nodes. It is safe for concurrent use.
type Dialer interface {
	// Dial connects to n and authenticates. If that fails the error wraps
	// ErrUnreachable and says what was tried; if ctx ends first it wraps ctx's
	// cause as well.
	Dial(ctx context.Context, n *Node) (Conn, error)
}

// A HostKey is a key by which a node is known, or that it shows.
type HostKey struct {
	Type        string // ssh-ed25519, ...
	Fingerprint string // SHA256:...
	Known       string // file:line that has it; "": none does
	Changed     bool   // another key of this type is known, so it is not trusted
}

// A HostKeeper is a Dialer that can tell which keys nodes show, and be told to trust
// them.
type HostKeeper interface {
	// ShowHostKeys asks a node for its keys. Nothing is sent to it but that question.
	// The error is as that of Dial.
	ShowHostKeys(ctx context.Context, n *Node) ([]HostKey, error)

	// TrustHostKeys records the keys that a node shows: those of these fingerprints, or
	// all if there are none. It returns those that were new. Nothing is recorded if
	// the node does not show one of them, or if one is Changed: the error then
	// says what to do.
	TrustHostKeys(ctx context.Context, n *Node, fingerprints ...string) ([]HostKey, error)
}

// A Conn is an open connection to one node. Transports implement it; tasks use
// a [Session]. It is safe for concurrent use.
//
// A Conn outlives single breakdowns if its transport can reconnect. Once it
// can not, its methods return errors that wrap ErrUnreachable (nothing was
// run) or ErrLost (something may have been), and its owner closes it.
type Conn interface {
	// Exec runs a command and returns when it and its output have ended: nil
	// for exit status 0, else an *ExitError.
	//
	// If ctx ends first, Exec ends the command with all processes it has
	// started on the node (SIGTERM, then SIGKILL after a grace of some
	// seconds) and returns ctx's cause. If the connection breaks while the
	// command runs, the node ends the command likewise, and the error wraps
	// ErrLost. An error that wraps ErrUnreachable means that nothing was run.
	Exec(ctx context.Context, c Command) error

	// Files opens the node's files as the login user sees them. The caller
	// closes what it gets; its operations fail once ctx is done. The error
	// wraps errors.ErrUnsupported if the node has no file transfer of its own:
	// a Session then works through Exec.
	Files(ctx context.Context) (Files, error)

	// Close ends the connection and every command still running over it.
	Close() error
}

// A Command is a text for the node's shell, and its streams.
type Command struct {
	Text  string            // any shell text; never on a command line that ps shows, unless Shell is set and Private is not
	Shell string            // program that runs it, as in Shell -c Text; "": /bin/sh
	Dir   string            // working directory; "": the login directory
	Env   map[string]string // exported to the command

	// User is who runs the command. If it is not "" and not the login user,
	// sudo is used, with Password if it asks for one and never otherwise.
	User     string
	Password Secret

	// Private keeps Text out of the arguments of Shell, which every user of the
	// node can see: Shell reads it as a file, /dev/fd/9. A [Session] sets it if
	// there is a secret in Text.
	Private bool

	// Stdin is what the command reads; nil is an empty file. Exec may return
	// while a Read of it is still going on.
	Stdin io.Reader

	// Stdout and Stderr get what the command prints, in pieces of any size; nil
	// discards. If they are the same writer, Write is not called concurrently.
	Stdout, Stderr io.Writer

	// Last says that the caller has no other command for the node after this one,
	// as far as it knows, so that the connection need not get ready for one at
	// once.
	Last bool
}

// Files is what Loom needs of a node's file system. Names are absolute, or
// relative to the login directory; a missing file is an error that
// errors.Is(err, fs.ErrNotExist), a forbidden one fs.ErrPermission. It is safe
// for concurrent use.
type Files interface {
	Open(name string) (io.ReadCloser, error)

	// Create makes a new file with exactly this mode, from its first byte on;
	// it is an error if name exists.
	Create(name string, perm fs.FileMode) (File, error)

	Stat(name string) (fs.FileInfo, error)  // follows links
	Lstat(name string) (fs.FileInfo, error) // does not
	ReadDir(name string) ([]fs.FileInfo, error)
	Rename(from, to string) error // replaces to
	Remove(name string) error     // a file or an empty directory
	Mkdir(name string, perm fs.FileMode) error
	Chmod(name string, perm fs.FileMode) error
	Close() error
}

// A File is a new file being written. Close reports whether all of it arrived.
type File interface {
	io.WriteCloser
	Sync() error // flush to the disk if the node can; nil if it can not
}
