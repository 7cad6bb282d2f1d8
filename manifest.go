package loom

import (
	"errors"
	"fmt"
	"time"
)

// A Manifest is what the configuration files say. It does not change; reading
// them again makes another.
type Manifest struct {
	File   string // the main file
	Config Config
	Nodes  []*Node  // by name
	Jobs   []*Job   // by name
	Files  []string // every file and directory it was read from, absolute and sorted
}

// Config is what the main file says beside where nodes and jobs are.
type Config struct {
	MinWorkers int
	MaxWorkers int
	State      string        // directory of what Loom remembers
	Store      string        // "sqlite", or a URL
	Grace      time.Duration // how long running work may go on after a stop
	Timezone   *time.Location

	InventoryRefresh time.Duration // of an executable nodes file

	SSH     SSHConfig
	History History
}

// SSHConfig says how nodes are reached. The zero value is what ssh(1) does.
type SSHConfig struct {
	ConfigFile     string        // "": ~/.ssh/config and /etc/ssh/ssh_config
	KnownHosts     string        // "": ssh_config's, else ~/.ssh/known_hosts
	HostKeys       HostKeys      // "": strict
	ConnectTimeout time.Duration // from the first packet to the end of authentication; 0: 10 s
	Keepalive      time.Duration // a connection that stays silent for three of these is lost; 0: 15 s
}

// HostKeys says what is done about host keys that are not known.
type HostKeys string

// The host key modes.
const (
	HostKeysStrict    HostKeys = "strict"     // refuse, and say how to trust it
	HostKeysAcceptNew HostKeys = "accept-new" // record it at the first contact
	HostKeysOff       HostKeys = "off"        // accept any that is not known
)

// History says how much is kept of what happened.
type History struct {
	Keep     time.Duration
	KeepRuns int
	Output   int64 // bytes kept of each node's output
}

// A ManifestError is one mistake in a configuration file, at its place.
type ManifestError struct {
	File      string
	Line, Col int // from 1; 0 if the mistake is not at one place
	Err       error
}

func (e *ManifestError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	case e.Col == 0:
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Col, e.Err)
}

func (e *ManifestError) Unwrap() error { return e.Err }

// ReadManifest reads the main file and all that it names. The error joins a
// *ManifestError for every mistake, and then there is no manifest.
func ReadManifest(file string, reg *Registry) (*Manifest, error) { return nil, errors.New("soon") }

// Node returns the node of that name, or nil.
func (m *Manifest) Node(name string) *Node { return nil }

// Job returns the job of that name, or nil.
func (m *Manifest) Job(name string) *Job { return nil }

// Select returns the nodes that target patterns select, in order of name.
func (m *Manifest) Select(patterns ...string) ([]*Node, error) { return nil, nil }
