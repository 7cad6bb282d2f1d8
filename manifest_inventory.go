package loom

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

// A nodeSpec is a node as a nodes file has it.
type nodeSpec struct {
	IP          string         `yaml:"ip" help:"host name or address to connect to"`
	User        string         `help:"logs in"`
	Password    Secret         `help:"of the user"`
	Identity    string         `help:"file of a private key, or of the .pub beside it"`
	Passphrase  Secret         `help:"opens the identity"`
	Port        *int           `help:"of the SSH server"`
	Groups      []located      `help:"targets can name as @group"`
	Vars        map[string]any `help:"free data for templates and tasks"`
	Jump        *located       `help:"node to connect through"`
	Transport   transportSpec  `help:"ssh, or local for the machine that Loom runs on"`
	Sudo        nodeSudoSpec   `help:"how commands become another user"`
	Shell       string         `help:"program that runs commands"`
	Env         envSpec        `help:"exported to commands"`
	MaxSessions int            `yaml:"max_sessions" help:"channels at once on one connection"`
	Disabled    bool           `help:"no job runs on it"`
}

type transportSpec string

func (t *transportSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(t), text, "ssh", "local")
}

// A nodeSudoSpec is true, or a mapping.
type nodeSudoSpec struct {
	Password Secret `help:"that sudo asks for"`
	User     string `help:"to become, if not root"`
}

func (s *nodeSudoSpec) DecodeNode(n *yaml.Node) []bind.Problem {
	*s = nodeSudoSpec{}
	if n.Kind == yaml.ScalarNode {
		var yes bool
		return bind.Decode(&yes, n) // sudo without a password is how a node is anyway
	}
	return bind.Decode(s, n)
}

// readNodes makes the inventory. Get returns the text of a nodes file.
func (l *load) readNodes(get func(file string) ([]byte, error)) {
	var root *yaml.Node
	switch {
	case l.inlineNodes != nil:
		root = l.inlineNodes
	case l.nodesFile == "":
		l.lame = true
	default:
		root = l.nodesRoot(get)
	}
	var nodes []*Node
	if root != nil {
		l.here = cmp.Or(l.nodesFile, l.file)
		nodes = l.nodes(root)
	}
	l.inventory = newInventory(nodes)
}

func (l *load) nodesRoot(get func(file string) ([]byte, error)) *yaml.Node {
	text, err := get(l.nodesFile)
	if err != nil {
		l.reportFile(l.nodesFile, err)
		l.lame = true
		return nil
	}
	l.programs[l.nodesFile] = l.origin.isProgram(l.nodesFile)
	if n, err := fromAnsible(text); err != nil {
		l.reportFile(l.nodesFile, err)
		l.lame = true
		return nil
	} else if n != nil {
		return n
	}
	tree := l.parse(l.nodesFile, text, l.data)
	l.lame = l.lame || tree.Broken
	return tree.Root
}

// nodes makes the nodes of the mapping of a nodes file.
func (l *load) nodes(root *yaml.Node) []*Node {
	pairs, problems := bind.Pairs(root)
	l.report(problems...)
	l.lame = l.lame || root.Kind != yaml.MappingNode
	budget := source.Budget{Left: 1_000_000 + 10*len(root.Content)}
	specs := make(map[string]*nodeSpec, len(pairs))
	byName := make(map[string]*Node, len(pairs))
	nodes := make([]*Node, 0, len(pairs))
	for _, p := range pairs {
		spec := new(nodeSpec)
		if !budget.Spend(p.Value) {
			l.report(problemAt(p.Key, "aliases make this file too large: they stand for more than a million values"))
			break
		}
		if why := badName(p.Name, "node"); why != "" {
			l.report(problemAt(p.Key, "%s", why))
		}
		l.report(within(p.Name, l.binder.Decode(spec, p.Value))...)
		n := l.node(p, spec)
		specs[p.Name], byName[p.Name] = spec, n
		nodes = append(nodes, n)
	}
	l.jumps(nodes, specs, byName)
	return nodes
}

func (l *load) node(p bind.Pair, spec *nodeSpec) *Node {
	n := &Node{
		Name: p.Name, Address: spec.IP, User: spec.User, Password: spec.Password, Identity: l.path(spec.Identity),
		Passphrase: spec.Passphrase, Vars: spec.Vars, Transport: string(spec.Transport),
		Sudo: Sudo{User: spec.Sudo.User, Password: spec.Sudo.Password}, Shell: spec.Shell, Env: spec.Env,
		MaxSessions: spec.MaxSessions, Disabled: spec.Disabled,
	}
	for _, password := range []Secret{n.Password, n.Passphrase, n.Sudo.Password} {
		if string(password) != n.User && string(password) != n.Name { // what all may know would only hide other text
			l.secrets.redactor.Add(string(password))
		}
	}
	at := func(key string) *yaml.Node {
		if pair, ok := l.keys(p.Value)[key]; ok {
			return pair.Value
		}
		return p.Key
	}
	if spec.Port != nil {
		n.Port = *spec.Port
		if n.Port < 1 || n.Port > 65535 {
			l.report(problemAt(at("port"), "%s.port: write a port from 1 to 65535, not %d", n.Name, n.Port))
		}
	}
	if n.MaxSessions < 0 {
		l.report(problemAt(at("max_sessions"), "%s.max_sessions: write a number from 0, not %d", n.Name, n.MaxSessions))
	}
	if strings.HasPrefix(n.Address, "-") || strings.ContainsAny(n.Address, " \t\n") {
		l.report(problemAt(at("ip"), "%s.ip: %q is not a host name or an address", n.Name, n.Address))
	}
	for _, g := range spec.Groups {
		if why := badName(g.text, "group"); why != "" {
			l.report(problemAt(g.node, "%s", why))
			continue
		}
		n.Groups = append(n.Groups, g.text)
	}
	slices.Sort(n.Groups)
	n.Groups = slices.Compact(n.Groups)
	return n
}

// badName says what is wrong with the name of a node or a group, or nothing.
func badName(name, what string) string {
	good := func(r rune) bool {
		return r < 0x80 && (isVariable("_"+string(r)) || r == '.' || r == '-')
	}
	switch {
	case name == "all":
		return fmt.Sprintf("no %s can be called all: in targets it stands for all nodes", what)
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !good(r) }) || strings.ContainsRune(".-", rune(name[0])):
		hint := ""
		if what == "node" {
			hint = "; the address goes into the node's ip"
		}
		return fmt.Sprintf("%q can't be the name of a %s: use letters, digits, - . and _, and begin with a letter or digit%s", name, what, hint)
	case len(name) > 255:
		return fmt.Sprintf("the name of a %s has at most 255 letters", what)
	}
	return ""
}

// jumps connects nodes with those they are reached through.
func (l *load) jumps(nodes []*Node, specs map[string]*nodeSpec, byName map[string]*Node) {
	for _, n := range nodes {
		jump := specs[n.Name].Jump
		if jump == nil {
			continue
		}
		via, ok := byName[jump.text]
		if !ok {
			hint := ""
			if near := bind.Nearest(jump.text, maps.Keys(byName)); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			l.report(problemAt(jump.node, "%s.jump: there is no node %q%s", n.Name, jump.text, hint))
			continue
		}
		n.Jump = via
	}
	const walking, done = 1, 2
	state := make(map[*Node]int, len(nodes))
	for _, n := range nodes {
		var way []*Node
		at := n
		for at != nil && state[at] == 0 {
			state[at] = walking
			way = append(way, at)
			at = at.Jump
		}
		if at != nil && state[at] == walking {
			var names []string
			for _, via := range way[slices.Index(way, at):] {
				names = append(names, via.Name)
			}
			l.report(problemAt(specs[at.Name].Jump.node, "%s.jump: the way to a node can't lead through itself (%s)",
				at.Name, strings.Join(append(names, at.Name), " → ")))
			at.Jump = nil // nobody must walk in circles
		}
		for _, via := range way {
			state[via] = done
		}
	}
}

// The bounds of a program that prints nodes.
const (
	programTime   = 30 * time.Second
	programOutput = source.MaxSize
)

// runInventory runs an executable nodes file and returns what it prints. If
// that is Ansible's JSON without the variables of hosts, it is asked for each
// host's, as Ansible does.
func runInventory(ctx context.Context, file, dir string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, programTime, fmt.Errorf("the program did not end within %v", programTime))
	defer cancel()
	out, err := runProgram(ctx, file, dir, "--list")
	if err != nil {
		return nil, err
	}
	inv, err := ansibleJSON(out)
	if err != nil || inv == nil || inv.hasMeta() {
		return out, nil // a mistake in it is reported when it is read
	}
	vars := map[string]json.RawMessage{}
	for _, host := range inv.hosts() {
		one, err := runProgram(ctx, file, dir, "--host", host)
		if err != nil {
			return nil, err
		}
		if vars[host] = bytes.TrimSpace(one); !json.Valid(one) {
			return nil, fmt.Errorf("what it prints for --host %s is not JSON", host)
		}
	}
	return inv.withVars(vars)
}

func runProgram(ctx context.Context, file, dir string, args ...string) ([]byte, error) {
	stdout, stderr := &limited{most: programOutput}, &tail{most: 4 << 10}
	cmd := exec.CommandContext(ctx, absolute(file), args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all it has started ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case stdout.over:
		return nil, fmt.Errorf("it printed more than %d MiB", programOutput>>20)
	case errors.Is(err, syscall.ENOEXEC):
		return nil, fmt.Errorf("it is executable, so Loom ran it, but it is no program (chmod -x %s if it holds the nodes themselves): %w", file, plainPathError(err))
	case err != nil:
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			return nil, fmt.Errorf("running it: %w", plainPathError(err))
		}
		return nil, fmt.Errorf("running it: %w: %s", plainPathError(err), said)
	}
	return stdout.kept.Bytes(), nil
}

// A limited keeps what is written, up to a limit. It doesn't embed the buffer,
// whose ReadFrom would pass by the limit.
type limited struct {
	kept bytes.Buffer
	most int
	over bool
}

func (w *limited) Write(p []byte) (int, error) {
	if w.kept.Len()+len(p) > w.most {
		w.over = true
		return 0, fmt.Errorf("more than %d bytes", w.most)
	}
	return w.kept.Write(p)
}
