package loom

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/source"
)

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
	API     APIConfig
	History History

	Notify  []NotifyTarget // who can be told what happens, by name
	Secrets SecretsConfig
}

// SSHConfig says how nodes are reached. The zero value is what ssh(1) does.
type SSHConfig struct {
	ConfigFile     string        // "": ~/.ssh/config and /etc/ssh/ssh_config
	KnownHosts     string        // "": ssh_config's, else ~/.ssh/known_hosts
	HostKeys       HostKeys      // "": strict
	ConnectTimeout time.Duration // from the first packet to the end of authentication; 0: 10 s
	Keepalive      time.Duration // a connection that stays silent for three of these is lost; 0: 15 s
	Idle           time.Duration // how long an unused connection is kept; 0: 10 min
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
	Keep      time.Duration // runs, with their results and output; 0: however old
	KeepRuns  int           // runs of each job; 0: however many
	KeepTicks time.Duration // what became of ticks, counts of days, and what people did; 0: however old
	Output    int64         // bytes kept of each node's output
}

// A mainSpec is the main file.
type mainSpec struct {
	NodesFile        *located    `yaml:"nodesfile" help:"file of the nodes, or a program that prints them"`
	Nodes            *yaml.Node  `help:"the nodes themselves"`
	JobsPath         *located    `yaml:"jobspath" help:"directory of the job manifests"`
	DataFile         *located    `yaml:"datafile" help:"file of anchors for all manifests"`
	MinWorkers       int         `yaml:"min_workers" help:"kept even when idle"`
	MaxWorkers       int         `yaml:"max_workers" help:"nodes worked on at once, over all jobs"`
	State            *located    `help:"directory of what Loom remembers"`
	Store            string      `help:"sqlite, or a postgres:// URL"`
	Timezone         *located    `help:"IANA time zone of jobs that have none"`
	Defaults         *yaml.Node  `help:"job keys for all jobs"`
	SSH              sshSpec     `yaml:"ssh" help:"how nodes are reached"`
	API              apiSpec     `yaml:"api" help:"where the API listens"`
	History          historySpec `help:"how much is kept of what happened"`
	Notify           *yaml.Node  `help:"notification targets"`
	Secrets          secretsSpec `help:"where secrets are"`
	Grace            time.Duration
	InventoryRefresh time.Duration `yaml:"inventory_refresh"`
}

type sshSpec struct {
	Config         string
	KnownHosts     string       `yaml:"known_hosts"`
	HostKeys       hostKeysSpec `yaml:"host_keys"`
	ConnectTimeout positive     `yaml:"connect_timeout"`
	Keepalive      positive
	Idle           positive
}

type historySpec struct {
	Keep      time.Duration
	KeepRuns  int           `yaml:"keep_runs"`
	KeepTicks time.Duration `yaml:"keep_ticks"`
	Output    sizeSpec
}

type (
	hostKeysSpec HostKeys
	positive     time.Duration
)

func (h *hostKeysSpec) UnmarshalText(text []byte) error {
	return oneOf((*string)(h), text, string(HostKeysStrict), string(HostKeysAcceptNew), string(HostKeysOff))
}

// UnmarshalText reads a duration that zero can't stand for.
func (p *positive) UnmarshalText(text []byte) error {
	d, err := bind.ParseDuration(string(text))
	if err == nil && d == 0 {
		return fmt.Errorf("write a duration greater than 0, such as 10s")
	}
	*p = positive(d)
	return err
}

// unactedConfig says of keys of the main file that are read and checked but not
// acted on what that means.
func unactedConfig(key string) string {
	switch key {
	case "min_workers":
		return noEffect(key, "workers cost nothing while they are idle, so none are kept")
	}
	return ""
}

// main reads the main file. It reports whether there was one to read.
func (l *load) main() bool {
	text, err := l.origin.read(l.file)
	if err != nil {
		l.reportFile(l.file, err)
		return false
	}
	tree := l.parseMain(text)
	if tree.Broken {
		return false
	}
	spec := mainSpec{MaxWorkers: 10, Store: "sqlite", Grace: 30 * time.Second, InventoryRefresh: 5 * time.Minute,
		History: historySpec{Keep: 90 * 24 * time.Hour, KeepRuns: 1000, KeepTicks: 400 * 24 * time.Hour, Output: 1 << 20}}
	root := tree.Root
	if root == nil {
		l.reportFile(l.file, fmt.Errorf("the file is empty: it must at least say where the nodes and jobs are (nodesfile, jobspath)"))
		return false
	}
	if root.Kind == yaml.MappingNode {
		root = withoutAnchors(root, bind.Params(mainSpec{}))
	}
	keys := l.keys(root)
	l.report(bind.Decode(&spec, root)...)
	l.checkMain(&spec, keys)
	l.configure(&spec, keys)
	l.nodesFile, l.inlineNodes = l.mentioned(spec.NodesFile), spec.Nodes
	l.jobsPath, l.dataFile = l.mentioned(spec.JobsPath), l.mentioned(spec.DataFile)
	l.readDefaults(spec.Defaults)
	return true
}

// parseMain is parse for the main file, which says itself where the secrets in it
// are.
func (l *load) parseMain(text []byte) *source.Tree {
	tree, problems := l.set.Parse(l.file, text, nil)
	l.report(problems...)
	if tree.Root != nil {
		keys := l.keys(tree.Root)
		state := defaultState(l.home)
		if s, ok := keys["state"]; ok {
			l.expand(s.Value)
			state = cmp.Or(l.path(s.Value.Value), state)
		}
		if s, ok := keys["secrets"]; ok {
			l.expand(s.Value)
			l.openSecrets(s.Value, state)
		}
	}
	l.expand(tree.Root)
	return tree
}

// keys returns the keys of a mapping by name. Mistakes are reported by whoever
// decodes it.
func (l *load) keys(n *yaml.Node) map[string]bind.Pair {
	pairs, _ := bind.Pairs(n)
	keys := make(map[string]bind.Pair, len(pairs))
	for _, p := range pairs {
		keys[p.Name] = p
	}
	return keys
}

// withoutAnchors returns a mapping without the keys that aren't known and
// define anchors, which is what such keys are for.
func withoutAnchors(n *yaml.Node, known []bind.Param) *yaml.Node {
	out := *n
	out.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		isKnown := slices.ContainsFunc(known, func(p bind.Param) bool { return p.Name == key.Value })
		if isKnown || !definesAnchor(value) {
			out.Content = append(out.Content, key, value)
		}
	}
	return &out
}

func definesAnchor(n *yaml.Node) bool {
	if n == nil || n.Kind == yaml.AliasNode {
		return false
	}
	if n.Anchor != "" {
		return true
	}
	return slices.ContainsFunc(n.Content, definesAnchor)
}

// checkMain reports what is wrong between the keys of the main file.
func (l *load) checkMain(spec *mainSpec, keys map[string]bind.Pair) {
	at := func(name string) *yaml.Node { return keys[name].Value }
	if spec.NodesFile == nil && spec.Nodes == nil {
		l.reportFile(l.file, fmt.Errorf("missing key %q: the file of the nodes, or nodes: with the nodes themselves", "nodesfile"))
	}
	if spec.NodesFile != nil && spec.Nodes != nil {
		l.report(problemAt(keys["nodes"].Key, "nodes and nodesfile are both given: keep one"))
	}
	if spec.JobsPath == nil {
		l.reportFile(l.file, fmt.Errorf("missing key %q: the directory of the job manifests", "jobspath"))
	}
	switch {
	case spec.MaxWorkers < 1:
		l.report(problemAt(at("max_workers"), "max_workers: write a number from 1, not %d", spec.MaxWorkers))
	case spec.MinWorkers < 0:
		l.report(problemAt(at("min_workers"), "min_workers: write a number from 0, not %d", spec.MinWorkers))
	case spec.MinWorkers > spec.MaxWorkers:
		l.report(problemAt(at("min_workers"), "min_workers (%d) is more than max_workers (%d)", spec.MinWorkers, spec.MaxWorkers))
	}
	if s := spec.Store; s != "sqlite" && !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		l.report(problemAt(at("store"), "store: write sqlite or a postgres:// URL"))
	}
	if _, ok := keys["inventory_refresh"]; ok && spec.InventoryRefresh < time.Second {
		l.report(problemAt(at("inventory_refresh"), "inventory_refresh: write a duration from 1s"))
	}
	if p, ok := keys["secrets"]; ok {
		l.checkSecrets(&spec.Secrets, p.Key)
	}
	if spec.History.KeepRuns < 0 {
		l.report(problemAt(at("history"), "history.keep_runs: write a number from 0, not %d", spec.History.KeepRuns))
	}
	for name, p := range keys {
		if why := unactedConfig(name); why != "" {
			l.warnUnacted(p.Key, name, why)
		}
	}
}

// configure makes a Config of the main file.
func (l *load) configure(spec *mainSpec, keys map[string]bind.Pair) {
	c := &l.config
	*c = Config{
		MinWorkers: spec.MinWorkers, MaxWorkers: spec.MaxWorkers,
		State: l.pathOf(spec.State), Store: spec.Store, Grace: spec.Grace,
		Timezone: time.Local, InventoryRefresh: spec.InventoryRefresh,
		SSH: SSHConfig{
			ConfigFile: l.path(spec.SSH.Config), KnownHosts: l.path(spec.SSH.KnownHosts), HostKeys: HostKeys(spec.SSH.HostKeys),
			ConnectTimeout: time.Duration(spec.SSH.ConnectTimeout), Keepalive: time.Duration(spec.SSH.Keepalive), Idle: time.Duration(spec.SSH.Idle),
		},
		API:     l.doors(&spec.API, keys["api"].Value),
		History: History{Keep: spec.History.Keep, KeepRuns: spec.History.KeepRuns, KeepTicks: spec.History.KeepTicks, Output: int64(spec.History.Output)},
	}
	if c.State == "" {
		c.State = defaultState(l.home)
	}
	c.Secrets = spec.Secrets.config(l, c.State)
	if loc := l.zone(spec.Timezone); loc != nil {
		c.Timezone = loc
	}
	if spec.Notify != nil {
		c.Notify = l.notifyTargets(spec.Notify)
	}
	if l.check != nil {
		l.checked(l.check(*c))
	}
}

// within says which key problems of its value are in.
func within(key string, problems []bind.Problem) []bind.Problem {
	for i, p := range problems {
		switch {
		case p.Path == "":
			problems[i].Path = key
		case strings.HasPrefix(p.Path, "["):
			problems[i].Path = key + p.Path
		default:
			problems[i].Path = key + "." + p.Path
		}
	}
	return problems
}

// readDefaults reads what the main file says for all jobs.
func (l *load) readDefaults(n *yaml.Node) {
	l.defaults, l.defaultKeys = builtinDefaults(), nil
	if n == nil {
		return
	}
	l.report(within("defaults", bind.Decode(&l.defaults, n))...)
	l.defaultKeys = l.keys(n)
}

// zone returns a time zone by its name, or nil if there is none.
func (l *load) zone(name *located) *time.Location {
	if name == nil {
		return nil
	}
	loc, ok := l.zones[name.text]
	if !ok {
		var err error
		loc, err = time.LoadLocation(name.text)
		if err != nil || name.text == "" {
			loc = nil
		}
		l.zones[name.text] = loc
	}
	if loc == nil {
		l.report(problemAt(name.node, "unknown time zone %q: write one such as Europe/Berlin, UTC or Local", name.text))
	}
	return loc
}

func (l *load) pathOf(name *located) string {
	if name == nil {
		return ""
	}
	return l.path(name.text)
}

func (l *load) mentioned(name *located) string {
	path := l.pathOf(name)
	if path != "" {
		l.mentions[path] = name.node
	}
	return path
}

// path returns where a path of the configuration leads: relative ones start at
// the main file's directory, ~ is the home directory.
func (l *load) path(name string) string {
	switch {
	case name == "":
		return ""
	case name == "~", strings.HasPrefix(name, "~/"):
		return filepath.Join(l.home, name[1:])
	case filepath.IsAbs(name):
		return filepath.Clean(name)
	}
	return filepath.Join(l.dir, name)
}

func defaultState(home string) string {
	if os.Geteuid() == 0 {
		return "/var/lib/loom"
	}
	return filepath.Join(home, ".loom", "state")
}

// lookup finds what ${env:NAME} and its like stand for.
func (l *load) lookup(n *yaml.Node, scheme, name string) (string, error) {
	switch scheme {
	case "env":
		if !isVariable(name) {
			return "", fmt.Errorf("${env:%s}: that is not the name of a variable; write $${env:%s} if the shell is to read it", name, name)
		}
		if value, ok := os.LookupEnv(name); ok {
			return value, nil
		}
		return "", fmt.Errorf("the environment variable %s of ${env:%s} is not set%s", name, name, l.similarVariable(name))
	case "file":
		text, err := l.disk.read(l.path(name))
		if err != nil {
			return "", fmt.Errorf("${file:%s}: %w", name, err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
	}
	return l.secret(n, name)
}

func (l *load) similarVariable(name string) string {
	names := make(map[string]bool)
	for _, pair := range os.Environ() {
		n, _, _ := strings.Cut(pair, "=")
		names[n] = true
	}
	if near := bind.Nearest(name, maps.Keys(names)); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}
