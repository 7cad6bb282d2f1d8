package loom

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

// An ansibleInventory is what an Ansible dynamic inventory prints for --list.
type ansibleInventory map[string]ansibleGroup

type ansibleGroup struct {
	Hosts    []string                  `json:"hosts"`
	Children []string                  `json:"children"`
	Vars     map[string]any            `json:"vars"`
	HostVars map[string]map[string]any `json:"hostvars"` // of _meta only
}

// UnmarshalJSON also takes a list of hosts alone.
func (g *ansibleGroup) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		return json.Unmarshal(text, &g.Hosts)
	}
	type group ansibleGroup
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return dec.Decode((*group)(g))
}

// ansibleJSON reads a text as an Ansible inventory. It returns nil if the text
// is something else.
func ansibleJSON(text []byte) (ansibleInventory, error) {
	text = bytes.TrimSpace(text)
	if !bytes.HasPrefix(text, []byte("{")) {
		return nil, nil
	}
	var top map[string]json.RawMessage
	if json.Unmarshal(text, &top) != nil {
		return nil, nil // YAML can begin so too
	}
	if !looksAnsible(top) {
		return nil, nil
	}
	inv := make(ansibleInventory, len(top))
	for name, raw := range top {
		var g ansibleGroup
		if err := json.Unmarshal(raw, &g); err != nil {
			return nil, fmt.Errorf("it is an Ansible inventory, but the group %q can't be read: %w", name, err)
		}
		inv[name] = g
	}
	return inv, nil
}

func looksAnsible(top map[string]json.RawMessage) bool {
	for name, raw := range top {
		var keys struct{ Hosts, Children json.RawMessage }
		isList := bytes.HasPrefix(bytes.TrimSpace(raw), []byte("["))
		if name == "_meta" || name == "all" || isList || json.Unmarshal(raw, &keys) == nil && (keys.Hosts != nil || keys.Children != nil) {
			return true
		}
	}
	return false
}

func (inv ansibleInventory) hasMeta() bool {
	_, ok := inv["_meta"]
	return ok
}

// hosts returns the names of all hosts, sorted.
func (inv ansibleInventory) hosts() []string {
	all := map[string]bool{}
	for name, g := range inv {
		if name == "_meta" {
			for host := range g.HostVars {
				all[host] = true
			}
			continue
		}
		for _, host := range g.Hosts {
			all[host] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// withVars returns the inventory as JSON with the variables of its hosts.
func (inv ansibleInventory) withVars(vars map[string]json.RawMessage) ([]byte, error) {
	out := make(map[string]any, len(inv)+1)
	for name, g := range inv {
		out[name] = map[string]any{"hosts": g.Hosts, "children": g.Children, "vars": g.Vars}
	}
	out["_meta"] = map[string]any{"hostvars": vars}
	return json.Marshal(out)
}

// fromAnsible returns the nodes of an Ansible inventory as a nodes file has
// them, or nil if the text is no such inventory.
func fromAnsible(text []byte) (*yaml.Node, error) {
	inv, err := ansibleJSON(text)
	if inv == nil || err != nil {
		return nil, err
	}
	groups, depth, err := inv.memberships()
	if err != nil {
		return nil, err
	}
	nodes := make(map[string]any)
	for _, host := range inv.hosts() {
		vars := make(map[string]any)
		in := slices.Sorted(maps.Keys(groups[host]))
		slices.SortStableFunc(in, func(a, b string) int { return depth[a] - depth[b] }) // parents first
		maps.Copy(vars, inv["all"].Vars)
		for _, g := range in {
			maps.Copy(vars, inv[g].Vars)
		}
		maps.Copy(vars, inv["_meta"].HostVars[host])
		node, err := ansibleNode(vars)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", host, err)
		}
		in = slices.DeleteFunc(in, func(g string) bool { return g == "all" || g == "ungrouped" })
		if len(in) > 0 {
			node["groups"] = in
		}
		nodes[host] = node
	}
	return bind.Encode(nodes)
}

// memberships returns the groups that each host is in, also through their
// children, and how deep each group lies under others.
func (inv ansibleInventory) memberships() (groups map[string]map[string]bool, depth map[string]int, err error) {
	parents := make(map[string][]string)
	for name, g := range inv {
		for _, child := range g.Children {
			parents[child] = append(parents[child], name)
		}
	}
	depth = make(map[string]int)
	var measure func(name string, below int) error
	measure = func(name string, below int) error {
		if below > 100 {
			return errors.New("a group can't be its own child")
		}
		d := 0
		for _, parent := range parents[name] {
			if _, ok := depth[parent]; !ok {
				if err := measure(parent, below+1); err != nil {
					return fmt.Errorf("group %q: %w", name, err)
				}
			}
			d = max(d, depth[parent]+1)
		}
		depth[name] = d
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(inv)) {
		if err := measure(name, 0); err != nil {
			return nil, nil, err
		}
	}
	groups = make(map[string]map[string]bool)
	var join func(host, group string)
	join = func(host, group string) {
		if groups[host] == nil {
			groups[host] = make(map[string]bool)
		}
		if groups[host][group] {
			return
		}
		groups[host][group] = true
		for _, parent := range parents[group] {
			join(host, parent)
		}
	}
	for name, g := range inv {
		if name == "_meta" {
			continue
		}
		for _, host := range g.Hosts {
			join(host, name)
		}
	}
	return groups, depth, nil
}

// ansibleNode makes the keys of a node of a host's variables.
func ansibleNode(vars map[string]any) (map[string]any, error) {
	take := func(names ...string) any {
		for _, name := range names {
			if v, ok := vars[name]; ok && v != nil {
				for _, n := range names {
					delete(vars, n)
				}
				return v
			}
		}
		return nil
	}
	node := make(map[string]any)
	set := func(key string, v any) {
		if v != nil {
			node[key] = v
		}
	}
	set("ip", take("ansible_host", "ansible_ssh_host"))
	set("user", take("ansible_user", "ansible_ssh_user"))
	set("port", take("ansible_port", "ansible_ssh_port"))
	set("password", take("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"))
	set("identity", take("ansible_ssh_private_key_file", "ansible_private_key_file"))
	sudo := make(map[string]any)
	if v := take("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"); v != nil {
		sudo["password"] = v
	}
	if v := take("ansible_become_user", "ansible_sudo_user"); v != nil {
		sudo["user"] = v
	}
	if len(sudo) > 0 {
		node["sudo"] = sudo
	}
	switch how := fmt.Sprint(take("ansible_connection")); how {
	case "<nil>", "ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh":
	case "local", "ansible.builtin.local":
		node["transport"] = "local"
	default:
		return nil, fmt.Errorf("it can't be reached by ansible_connection %q: leave it out of the inventory", strings.TrimSpace(how))
	}
	if len(vars) > 0 {
		node["vars"] = plainNumbers(vars)
	}
	return node, nil
}

// plainNumbers returns v with the types that YAML would give its numbers.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return int(n)
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = plainNumbers(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plainNumbers(e)
		}
		return out
	}
	return v
}
