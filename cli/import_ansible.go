package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

func (p *Program) importAnsibleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ansible-inventory FILE",
		Short: "Make nodes of an Ansible inventory",
		Long: `Ansible-inventory makes nodes of an inventory of Ansible's, INI or YAML: hosts and
ranges of them (web[01:20]), groups, groups of groups, and variables, of which those
of the inner group come before those of the outer one. What ansible_host, _user, _port,
_connection, _ssh_private_key_file, _become and a -J of _ssh_common_args say becomes
keys of the node, other variables its vars. FILE may be -, the standard input.

Passwords and vault values are not taken over: write them as ${secret:NAME}. Files in
group_vars and host_vars are not read. An inventory that is a program, or that
"ansible-inventory --list" prints, needs no import: a nodes file can be that.`,
		Example: `  ` + p.Name + ` import ansible-inventory hosts.ini >~/.loom/nodes.yaml
  ` + p.Name + ` import ansible-inventory inventory.yaml --to /etc/loom`,
		Args: cobra.ExactArgs(1),
	}
	to := importInto(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := p.readAll(args[0])
		if err != nil {
			return err
		}
		a := newAnsible(importSource(args[0]))
		if err := a.read(text); err != nil {
			return err
		}
		for _, dir := range []string{"group_vars", "host_vars"} {
			if found, _ := filepath.Glob(filepath.Join(filepath.Dir(args[0]), dir, "*")); len(found) > 0 && args[0] != "-" {
				a.note(0, "what is in %s is not taken over", filepath.Join(filepath.Dir(args[0]), dir))
			}
		}
		return p.importedNodes(cmd, a.importer, "ansible-inventory", *to, a.nodes())
	}
	return cmd
}

// An ansible is an inventory of Ansible's.
type ansible struct {
	*importer
	hosts  map[string]*ansibleHost
	order  []string // of the hosts
	groups map[string]*ansibleGroup
}

type ansibleHost struct {
	line int
	vars map[string]any
}

type ansibleGroup struct {
	hosts    map[string]bool
	children map[string]bool
	vars     map[string]any
}

func newAnsible(file string) *ansible {
	return &ansible{importer: &importer{file: file}, hosts: map[string]*ansibleHost{}, groups: map[string]*ansibleGroup{}}
}

func (a *ansible) group(name string) *ansibleGroup {
	if a.groups[name] == nil {
		a.groups[name] = &ansibleGroup{hosts: map[string]bool{}, children: map[string]bool{}, vars: map[string]any{}}
	}
	return a.groups[name]
}

// host returns a host, or nil if no node can have its name.
func (a *ansible) host(name string, line int) *ansibleHost {
	if h := a.hosts[name]; h != nil {
		return h
	}
	if !nodeName(name) {
		a.note(line, "host %s is left out: no node can have that name: give it one, and the address as ansible_host", name)
		return nil
	}
	a.hosts[name] = &ansibleHost{line: line, vars: map[string]any{}}
	a.order = append(a.order, name)
	return a.hosts[name]
}

// mostHosts bounds what ranges stand for.
const mostHosts = 20000

// read reads an inventory of whichever kind.
func (a *ansible) read(text string) error {
	if strings.HasPrefix(strings.TrimSpace(text), "{") && json.Valid([]byte(text)) {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("%s is JSON, as \"ansible-inventory --list\" prints it, which needs no import", a.file),
			Hint: "write it to a file, and name that in the main file: nodesfile: " + filepath.Base(a.file)}
	}
	ini := regexp.MustCompile(`(?m)^\s*\[`).MatchString(text)
	if !ini && regexp.MustCompile(`(?m)^[^#\n]*:\s*(#.*)?$`).MatchString(text) {
		return a.readYAML(text)
	}
	section, kind := "ungrouped", ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if unusual(line) {
			a.note(n, "left out: there are control characters in it")
			continue
		}
		if line[0] == '[' && bracketed(line) == "" {
			head, _, ok := strings.Cut(line[1:], "]")
			section, kind, _ = strings.Cut(head, ":")
			if !ok || kind != "" && kind != "vars" && kind != "children" {
				return &Error{Code: ExitFailed, Err: fmt.Errorf("%s:%d: %s is not the beginning of a group: [NAME], [NAME:vars] or [NAME:children]", a.file, n, clean(line))}
			}
			a.group(section)
			continue
		}
		switch kind {
		case "vars":
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				a.note(n, "left out: it is no NAME=VALUE")
				continue
			}
			a.group(section).vars[strings.TrimSpace(key)] = iniValue(strings.TrimSpace(value))
		case "children":
			child, _, _ := strings.Cut(line, " ")
			a.group(child)
			a.group(section).children[child] = true
		default:
			a.hostLine(n, section, line)
		}
	}
	return nil
}

// hostLine reads a host of an INI inventory, or a range of them, with variables.
func (a *ansible) hostLine(n int, section, line string) {
	words := iniWords(line)
	if address := bracketed(line); address != "" {
		a.host(address, n) // which says what to do
		return
	}
	pattern, port := words[0], ""
	if i := strings.LastIndexByte(pattern, ':'); i > strings.LastIndexByte(pattern, ']') {
		if _, err := strconv.Atoi(pattern[i+1:]); err == nil && i > 0 && !strings.HasSuffix(pattern[:i], ":") {
			pattern, port = pattern[:i], pattern[i+1:]
		}
	}
	names, err := hostRange(pattern)
	if err != nil {
		a.note(n, "left out: %v", err)
		return
	}
	for _, name := range names {
		if len(a.hosts) >= mostHosts {
			a.note(n, "the rest is left out: there are more than %d hosts", mostHosts)
			return
		}
		h := a.host(name, n)
		if h == nil {
			continue
		}
		a.group(section).hosts[name] = true
		if port != "" {
			h.vars["ansible_port"] = iniValue(port)
		}
		for _, word := range words[1:] {
			if key, value, ok := strings.Cut(word, "="); ok {
				h.vars[key] = iniValue(value)
			} else {
				a.note(n, "%s is left out: it is no NAME=VALUE", word)
			}
		}
	}
}

// bracketed returns the address that a line such as [fe80::1]:22 begins with, which is
// a host and no group; "" if it does not.
func bracketed(line string) string {
	inner, _, ok := strings.Cut(strings.TrimPrefix(line, "["), "]")
	if _, err := netip.ParseAddr(inner); !ok || line[0] != '[' || err != nil {
		return ""
	}
	return inner
}

// iniWords divides a line as a shell would, as Ansible does. A comment ends it.
func iniWords(line string) []string {
	var words []string
	var b strings.Builder
	quote, begun := byte(0), false
	for i := 0; i < len(line); i++ {
		ch := line[i]
		switch {
		case quote == 0 && (ch == ' ' || ch == '\t'):
			if begun {
				words = append(words, b.String())
				b.Reset()
			}
			begun = false
			continue
		case quote == 0 && ch == '#' && !begun:
			i = len(line)
			continue
		case quote == 0 && (ch == '"' || ch == '\''):
			quote = ch
		case ch == quote:
			quote = 0
		case ch == '\\' && quote != '\'' && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		default:
			b.WriteByte(ch)
		}
		begun = true
	}
	if begun {
		words = append(words, b.String())
	}
	if len(words) == 0 {
		words = []string{""}
	}
	return words
}

// iniValue is a value of an INI inventory, which may be written as in Python.
func iniValue(text string) any {
	if n := len(text); n >= 2 && (text[0] == '"' || text[0] == '\'') && text[n-1] == text[0] {
		return text[1 : n-1]
	}
	if n, err := strconv.Atoi(text); err == nil && strconv.Itoa(n) == text {
		return n
	}
	switch text {
	case "True", "true":
		return true
	case "False", "false":
		return false
	case "None":
		return nil
	}
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		var value any
		if json.Unmarshal([]byte(strings.ReplaceAll(text, "'", `"`)), &value) == nil {
			return value
		}
	}
	return text
}

// hostRange returns the hosts that a pattern such as web[01:20] or db-[a:c] stands
// for: both ends belong to it, and a third number is the step.
func hostRange(pattern string) ([]string, error) {
	before, rest, ok := strings.Cut(pattern, "[")
	if !ok {
		return []string{pattern}, nil
	}
	inner, after, ok := strings.Cut(rest, "]")
	ends := strings.Split(inner, ":")
	if !ok || len(ends) < 2 || len(ends) > 3 {
		return nil, fmt.Errorf("%s is no range of hosts: write web[01:20]", pattern)
	}
	tails, err := hostRange(after)
	if err != nil {
		return nil, err
	}
	step := 1
	if len(ends) == 3 {
		if step, err = strconv.Atoi(ends[2]); err != nil || step < 1 {
			return nil, fmt.Errorf("%s is no range of hosts: its step is no number", pattern)
		}
	}
	var middle []string
	low, errLow := strconv.Atoi(ends[0])
	high, errHigh := strconv.Atoi(ends[1])
	switch {
	case errLow == nil && errHigh == nil && low >= 0 && low <= high && high-low < mostHosts:
		for n := low; n <= high; n += step {
			middle = append(middle, fmt.Sprintf("%0*d", widthOf(ends[0]), n))
		}
	case len(ends[0]) == 1 && len(ends[1]) == 1 && ends[0] <= ends[1] && errLow != nil && errHigh != nil:
		for r := int(ends[0][0]); r <= int(ends[1][0]); r += step {
			middle = append(middle, string(rune(r)))
		}
	default:
		return nil, fmt.Errorf("%s is no range of hosts: it goes from %s to %s", pattern, ends[0], ends[1])
	}
	if len(middle)*len(tails) > mostHosts {
		return nil, fmt.Errorf("%s stands for more than %d hosts", pattern, mostHosts)
	}
	var all []string
	for _, m := range middle {
		for _, tail := range tails {
			all = append(all, before+m+tail)
		}
	}
	return all, nil
}

// widthOf is how many digits numbers of a range have: as many as its beginning, if
// that has zeros before it.
func widthOf(low string) int {
	if strings.HasPrefix(low, "0") {
		return len(low)
	}
	return 0
}

// readYAML reads a YAML inventory.
func (a *ansible) readYAML(text string) error {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("%s: %s", a.file, strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("%s is no inventory: it has to be a mapping of groups", a.file)}
	}
	a.eachKey(doc.Content[0], func(key, value *yaml.Node) { a.yamlGroup(key, value, 0) })
	return nil
}

// eachKey visits the keys of a mapping.
func (a *ansible) eachKey(n *yaml.Node, do func(key, value *yaml.Node)) {
	if n = dealias(n); n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		do(n.Content[i], dealias(n.Content[i+1]))
	}
}

func dealias(n *yaml.Node) *yaml.Node {
	for depth := 0; n.Kind == yaml.AliasNode && depth < 10; depth++ {
		n = n.Alias
	}
	return n
}

func (a *ansible) yamlGroup(key, n *yaml.Node, depth int) {
	const deepest = 50
	g := a.group(key.Value)
	if depth > deepest {
		a.note(key.Line, "group %s is left out: groups nest too deep", key.Value)
		return
	}
	a.eachKey(n, func(part, value *yaml.Node) {
		switch part.Value {
		case "hosts":
			a.eachKey(value, func(name, vars *yaml.Node) { a.yamlHosts(g, name, vars) })
		case "children":
			a.eachKey(value, func(child, below *yaml.Node) {
				g.children[child.Value] = true
				a.yamlGroup(child, below, depth+1)
			})
		case "vars":
			a.yamlVars(value, g.vars)
		default:
			a.note(part.Line, "%s of group %s is left out: a group has hosts, children and vars", part.Value, key.Value)
		}
	})
}

func (a *ansible) yamlHosts(g *ansibleGroup, name, vars *yaml.Node) {
	names, err := hostRange(name.Value)
	if err != nil {
		a.note(name.Line, "left out: %v", err)
		return
	}
	for _, one := range names {
		if len(a.hosts) >= mostHosts {
			return
		}
		if h := a.host(one, name.Line); h != nil {
			g.hosts[one] = true
			a.yamlVars(vars, h.vars)
		}
	}
}

func (a *ansible) yamlVars(n *yaml.Node, vars map[string]any) {
	a.eachKey(n, func(key, value *yaml.Node) {
		if value.Tag == "!vault" {
			a.note(key.Line, "%s is left out: it is in a vault: write it as ${secret:NAME}", key.Value)
			return
		}
		var v any
		if err := value.Decode(&v); err != nil {
			a.note(key.Line, "%s is left out: it can't be read", key.Value)
			return
		}
		vars[key.Value] = v
	})
}

// parents returns the groups that a host is in, the outermost first: of those that
// are equally far in, by name, as Ansible has it.
func (a *ansible) groupsOf(host string) []string {
	depth := map[string]int{}
	var up func(name string, way map[string]bool) int
	up = func(name string, way map[string]bool) int {
		if d, ok := depth[name]; ok {
			return d
		}
		if way[name] {
			return 0
		}
		way[name] = true
		d := 1
		for parent, g := range a.groups {
			if g.children[name] {
				d = max(d, up(parent, way)+1)
			}
		}
		delete(way, name)
		depth[name] = d
		return d
	}
	in := map[string]bool{}
	var climb func(name string)
	climb = func(name string) {
		if in[name] {
			return
		}
		in[name] = true
		for parent, g := range a.groups {
			if g.children[name] {
				climb(parent)
			}
		}
	}
	for name, g := range a.groups {
		if g.hosts[host] {
			climb(name)
		}
	}
	all := slices.Sorted(maps.Keys(in))
	slices.SortStableFunc(all, func(x, y string) int {
		return up(x, map[string]bool{}) - up(y, map[string]bool{})
	})
	return all
}

// nodes returns the nodes.
func (a *ansible) nodes() yamlMap {
	out := newYAML()
	for _, name := range slices.Sorted(maps.Keys(a.groups)) {
		if name != "all" && name != "ungrouped" && !nodeName(name) {
			a.note(0, "group %s is left out: no group can have that name", name)
		}
	}
	for _, name := range a.order {
		h := a.hosts[name]
		groups := a.groupsOf(name)
		vars := map[string]any{}
		if all := a.groups["all"]; all != nil {
			maps.Copy(vars, all.vars)
		}
		for _, g := range groups {
			maps.Copy(vars, a.groups[g].vars)
		}
		maps.Copy(vars, h.vars)
		if how := vars["ansible_connection"]; how != nil && !slices.Contains([]any{"local", "ssh", "smart", "paramiko", "paramiko_ssh", "ssh_paramiko", "libssh", "ansible.netcommon.libssh"}, how) {
			a.note(h.line, "host %s is left out: Loom reaches machines by ssh, not by ansible_connection %v", name, how)
			continue
		}
		node, remarks := a.node(name, h.line, vars)
		groups = slices.DeleteFunc(groups, func(g string) bool { return g == "all" || g == "ungrouped" || !nodeName(g) })
		if slices.Sort(groups); len(groups) > 0 {
			node.set("groups", groups)
		}
		if own := a.ownVars(vars); !own.empty() {
			node.set("vars", own)
		}
		out.set(name, node)
		out.comment(remarks...)
	}
	return out
}

// node makes a node of what variables say.
func (a *ansible) node(host string, line int, vars map[string]any) (node yamlMap, remarks []string) {
	say := func(format string, args ...any) { remarks = append(remarks, a.remark(line, format, args...)) }
	node = newYAML()
	get := func(names ...string) string {
		value := ""
		for _, name := range names {
			if v, ok := vars[name]; ok {
				delete(vars, name)
				if value == "" && v != nil {
					value = fmt.Sprint(v)
				}
			}
		}
		if strings.Contains(value, "{{") {
			say("%s of %s is left out: it is a template: %s", names[0], host, value)
			return ""
		}
		if unusual(value) {
			say("%s of %s is left out: there are control characters in it", names[0], host)
			return ""
		}
		return literally(value, false)
	}
	local := vars["ansible_connection"] == "local"
	delete(vars, "ansible_connection")
	if local {
		node.set("transport", "local")
	}
	address, user := get("ansible_host", "ansible_ssh_host"), get("ansible_user", "ansible_ssh_user")
	port, key := get("ansible_port", "ansible_ssh_port"), get("ansible_ssh_private_key_file", "ansible_private_key_file")
	if !local {
		if strings.ContainsAny(address, " /@") {
			say("the address %s of %s is left out", address, host)
		} else if address != host {
			node.set("ip", address)
		}
		node.set("user", user)
		if n, err := strconv.Atoi(port); port != "" && (err != nil || n <= 0 || n > 65535) {
			say("ansible_port %s of %s is left out: it is no port", port, host)
		} else if port != "" && n != 22 {
			node.set("port", n)
		}
		node.set("identity", key)
		a.jump(host, get("ansible_ssh_common_args", "ansible_ssh_extra_args"), node, say)
	}
	if become := get("ansible_become", "ansible_sudo"); become == "true" || become == "yes" || become == "True" {
		say("ansible_become of %s: jobs that need it say sudo: true", host)
	}
	if user := get("ansible_become_user", "ansible_sudo_user"); user != "" && user != "root" {
		sudo := newYAML()
		sudo.set("user", user)
		node.set("sudo", sudo)
	}
	var rest []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		switch {
		case !strings.HasPrefix(name, "ansible_"), unusual(name):
		case strings.HasSuffix(name, "pass") || strings.HasSuffix(name, "password") || strings.HasSuffix(name, "passphrase"):
			say("%s of %s is left out: write password: ${secret:NAME}", name, host)
		case !strings.HasSuffix(name, "_interpreter"): // nodes need none
			rest = append(rest, name)
		}
	}
	if len(rest) > 0 {
		say("left out of %s, as Loom has nothing like it: %s", host, strings.Join(rest, ", "))
	}
	return node, remarks
}

// jump translates a jump host, if it is a node too.
func (a *ansible) jump(host, args string, node yamlMap, say func(string, ...any)) {
	if args == "" {
		return
	}
	m := regexp.MustCompile(`^-(?:J|o ?ProxyJump[= ])\s*([^\s,]+)$`).FindStringSubmatch(strings.Trim(args, `"' `))
	if m == nil || a.hosts[m[1]] == nil || m[1] == host || a.hosts[m[1]].vars["ansible_ssh_common_args"] != nil {
		say("ssh arguments of %s are left out: %s: write them in your ssh configuration", host, args)
		return
	}
	for _, g := range a.groupsOf(m[1]) { // whose own way may lead back
		if a.groups[g].vars["ansible_ssh_common_args"] != nil {
			say("ssh arguments of %s are left out: %s: the way to %s has some too", host, args, m[1])
			return
		}
	}
	if all := a.groups["all"]; all != nil && all.vars["ansible_ssh_common_args"] != nil {
		say("ssh arguments of %s are left out: %s: they are those of all hosts", host, args)
		return
	}
	node.set("jump", m[1])
}

// ownVars are the variables that mean nothing to Ansible itself.
func (a *ansible) ownVars(vars map[string]any) yamlMap {
	own := newYAML()
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if strings.HasPrefix(name, "ansible_") || unusual(name) || name == "" {
			continue
		}
		if text, err := json.Marshal(vars[name]); err != nil || strings.ContainsAny(string(text), "\x00\x7f") {
			a.note(0, "the variable %s is left out: no manifest can hold its value", name)
			continue
		}
		own.node.Content = append(own.node.Content, yamlText(name), yamlValue(vars[name]))
	}
	return own
}

// yamlValue is a value in which references are left alone.
func yamlValue(v any) *yaml.Node {
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		return yamlText("")
	}
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		for _, child := range n.Content {
			walk(child)
		}
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			n.Value = literally(n.Value, false)
		}
	}
	walk(n)
	quoteOdd(n)
	return n
}
