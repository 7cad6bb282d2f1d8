package api

import (
	"maps"
	"slices"
	"time"

	"github.com/dustinlacewell/loom"
)

// A Node is a machine that jobs can target, and what is known of how it is.
type Node struct {
	Name      string    `json:"name"`
	Address   string    `json:"address,omitempty" doc:"Host name or IP; left out: its name, or what ssh_config says" example:"10.0.0.7"`
	Port      int       `json:"port,omitempty" doc:"Left out: ssh_config's, or 22"`
	User      string    `json:"user,omitempty" doc:"Left out: ssh_config's, or the daemon's own"`
	Groups    []string  `json:"groups,omitempty" example:"[\"web\"]"`
	Transport string    `json:"transport" doc:"ssh; or local: the daemon's own machine" example:"ssh"`
	Jump      string    `json:"jump,omitempty" doc:"The node that it is reached through"`
	Disabled  bool      `json:"disabled,omitempty" doc:"It is known, but no job runs on it"`
	Jobs      int       `json:"jobs" doc:"How many jobs target it" example:"3"`
	Reach     NodeReach `json:"reach"`
	Last      *Result   `json:"last,omitempty" doc:"The newest result there"`
}

// The states of a NodeReach.
const (
	Reachable   = "reachable"
	Unreachable = "unreachable"
	Unknown     = "unknown"
)

// A NodeReach is what is known of whether a node can be reached: from the last
// result there that tells, or the last ping since the daemon began, whichever is
// newer.
type NodeReach struct {
	State  string    `json:"state" doc:"reachable, unreachable or unknown" example:"reachable"`
	At     time.Time `json:"at,omitzero" doc:"When that was seen"`
	Run    string    `json:"run,omitempty" doc:"The run that saw it; left out: a ping"`
	Reason string    `json:"reason,omitempty" doc:"Why it is unreachable"`
}

// A NodeDetail is all that there is to say of a node. Passwords and keys are not
// shown, nor the values of variables, among which there may be some.
type NodeDetail struct {
	Node
	Identity    string   `json:"identity,omitempty" doc:"The file of its key"`
	Sudo        string   `json:"sudo,omitempty" doc:"Whom commands with sudo become; left out: root"`
	Shell       string   `json:"shell,omitempty"`
	MaxSessions int      `json:"max_sessions,omitempty" doc:"Commands at once on one connection; left out: that is found out"`
	Vars        []string `json:"vars,omitempty" doc:"The names of its variables"`
	Env         []string `json:"env,omitempty" doc:"The names of what is exported to commands"`
	Targeted    []string `json:"targeted_by,omitempty" doc:"The jobs that target it"`
	Results     []Result `json:"results" doc:"The newest results there, newest first"`
	Ping        *Ping    `json:"ping,omitempty" doc:"The last ping since the daemon began"`
}

// A Ping is how an attempt to reach a node went.
type Ping struct {
	Node    string    `json:"node"`
	At      time.Time `json:"at"`
	OK      bool      `json:"ok" doc:"It was reached, and a command ran there"`
	RTT     float64   `json:"rtt_ms,omitempty" doc:"How long a command there took, once connected"`
	Connect float64   `json:"connect_ms,omitempty" doc:"How long it took to connect; next to nothing if a connection was kept"`
	User    string    `json:"user,omitempty" doc:"Whom commands run as there" example:"deploy"`
	OS      string    `json:"os,omitempty" doc:"Its system" example:"Debian GNU/Linux 13 (trixie) (Linux 6.12 x86_64)"`
	Class   string    `json:"class,omitempty" doc:"What kind of thing went wrong: unknown host, connection refused, no route, timed out, host key unknown, host key changed, authentication failed, ..." example:"connection refused"`
	Error   string    `json:"error,omitempty" doc:"What went wrong, and what to do about it"`
}

// newNode returns a node as the API shows it in a list.
func newNode(n *loom.Node) Node {
	a := Node{Name: n.Name, Address: n.Address, Port: n.Port, User: n.User, Groups: n.Groups, Transport: n.Transport, Disabled: n.Disabled,
		Reach: NodeReach{State: Unknown}}
	if a.Transport == "" {
		a.Transport = "ssh"
	}
	if n.Jump != nil {
		a.Jump = n.Jump.Name
	}
	return a
}

// remember adds what the newest results on the node say, newest first, and the last
// ping, if there was one.
func (a *Node) remember(results []loom.Result, ping *Ping) {
	if len(results) > 0 {
		r := NewResult(results[0])
		a.Last = &r
	}
	for _, r := range results {
		if reach, tells := reachOf(r); tells {
			a.Reach = reach
			break
		}
	}
	if ping == nil || ping.At.Before(a.Reach.At) {
		return
	}
	a.Reach = NodeReach{State: Reachable, At: ping.At}
	if !ping.OK {
		a.Reach.State, a.Reach.Reason = Unreachable, ping.Error
	}
}

// reachOf returns what a result says about its node, if it does.
func reachOf(r loom.Result) (NodeReach, bool) {
	reach := NodeReach{State: Reachable, At: utc(r.Ended), Run: r.Run}
	switch {
	case r.Status == loom.StatusUnreachable:
		reach.State, reach.Reason = Unreachable, r.Reason
	case r.Attempts == 0, !r.Status.Ended(), r.Status == loom.StatusCancelled, r.Status == loom.StatusLost, r.Status == loom.StatusTimeout:
		return NodeReach{}, false // it may have ended before anything was there
	}
	return reach, true
}

// define adds what the manifest says of the node.
func (d *NodeDetail) define(m *loom.Manifest, n *loom.Node) {
	d.Identity, d.Sudo, d.Shell, d.MaxSessions = n.Identity, n.Sudo.User, n.Shell, n.MaxSessions
	d.Vars, d.Env = slices.Sorted(maps.Keys(n.Vars)), slices.Sorted(maps.Keys(n.Env))
	for _, j := range m.Jobs {
		if slices.Contains(j.Targets, n) {
			d.Targeted = append(d.Targeted, j.Name)
		}
	}
}
