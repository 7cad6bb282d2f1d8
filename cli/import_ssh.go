package cli

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func (p *Program) importSSHCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh-config [FILE]",
		Short: "Make nodes of the hosts in an ssh configuration",
		Long: `Ssh-config makes a node of each host that an ssh_config(5) names in full, with the
address, user, port, key and jump host that ssh would take for it (the first value of
each that fits). Patterns become no nodes, but what they say of hosts counts. FILE is
~/.ssh/config unless you name another; - is the standard input.

Loom reads your ssh configuration anyway, so a nodes file may be as short as the
names: with --names it is. Without, it also holds where that configuration is missing.
Match blocks, Include, ProxyCommand and certificates are not translated: Loom heeds
them as far as it finds them in the configuration.`,
		Example: `  ` + p.Name + ` import ssh-config >~/.loom/nodes.yaml
  ` + p.Name + ` import ssh-config --names --to ~/.loom
  ` + p.Name + ` import ssh-config ./config`,
		Args: cobra.MaximumNArgs(1),
	}
	only := cmd.Flags().Bool("names", false, "write the names alone, and leave the rest to the ssh configuration")
	to := importInto(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file := "~/.ssh/config"
		if len(args) > 0 {
			file = args[0]
		}
		name := file
		if rest, ok := strings.CutPrefix(file, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return err
			}
			name = filepath.Join(home, rest)
		}
		text, err := p.readAll(name)
		if err != nil {
			return err
		}
		i := &importer{file: importSource(file)}
		nodes := i.sshConfig(text, *only)
		return p.importedNodes(cmd, i, "ssh-config", *to, nodes)
	}
	return cmd
}

// importedNodes writes nodes.
func (p *Program) importedNodes(cmd *cobra.Command, i *importer, how, to string, nodes yamlMap) error {
	whole, err := nodes.text(i.head(p.Name, how))
	if err != nil {
		return err
	}
	first := newFile{"jobs/first.yaml", `jobs:
  uptime:                    # "` + p.Name + ` run uptime --local" tells whether all can be reached
    task: run
    args: [uptime]
    schedule: manual
    targets: all
`}
	return p.imported(cmd.Context(), i, to, len(nodes.node.Content)/2, "node", newFile{"nodes.yaml", whole}, importMain(), first)
}

// An sshBlock is a part of an ssh_config that holds for some hosts.
type sshBlock struct {
	patterns []string
	lines    []sshLine
}

type sshLine struct {
	n         int
	key, rest string
}

// sshConfig returns the nodes of an ssh_config(5).
func (i *importer) sshConfig(text string, namesOnly bool) yamlMap {
	blocks := i.sshBlocks(text)
	nodes, seen := newYAML(), map[string]bool{}
	for _, b := range blocks {
		for _, name := range b.patterns {
			switch {
			case seen[name] || strings.ContainsAny(name, "*?!"):
			case !nodeName(name):
				i.note(b.lines[0].n, "host %s is left out: no node can have that name", name)
			default:
				seen[name] = true
				nodes.set(name, i.sshNode(name, blocks, namesOnly, func(jump string) bool { return sshNames(blocks, jump) }))
				if n := b.lines[0].n; n > 0 {
					nodes.comment(i.sshRemarks(name, blocks)...)
				}
			}
		}
	}
	return nodes
}

// nodeName reports whether a node can have a name.
func nodeName(name string) bool {
	odd := func(r rune) bool { return !isWordRune(r) && r != '.' && r != '-' }
	return name != "" && name != "all" && len(name) <= 255 && isWordRune(rune(name[0])) && !strings.ContainsFunc(name, odd)
}

func isWordRune(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// sshNames reports whether a host is named in full.
func sshNames(blocks []sshBlock, name string) bool {
	for _, b := range blocks {
		for _, p := range b.patterns {
			if p == name && nodeName(name) {
				return true
			}
		}
	}
	return false
}

// sshBlocks reads the file. The first line of each block is that which begins it.
func (i *importer) sshBlocks(text string) []sshBlock {
	blocks := []sshBlock{{patterns: []string{"*"}, lines: []sshLine{{}}}}
	n := 0
	for line := range strings.Lines(text) {
		n++
		key, rest := sshKeyword(line)
		last := &blocks[len(blocks)-1]
		switch key {
		case "":
		case "host":
			blocks = append(blocks, sshBlock{patterns: sshWords(rest), lines: []sshLine{{n: n}}})
		case "match":
			i.note(n, "Match is not translated: what it says holds where Loom finds this configuration")
			blocks = append(blocks, sshBlock{lines: []sshLine{{n: n}}})
		case "include":
			i.note(n, "Include is not followed: import that file too")
		default:
			last.lines = append(last.lines, sshLine{n, key, rest})
		}
	}
	return blocks
}

// sshKeyword reads a line: the keyword in lower case, and its arguments.
func sshKeyword(line string) (key, rest string) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return "", ""
	}
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		return strings.ToLower(line), ""
	}
	rest = strings.TrimLeft(line[end:], " \t")
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t")
	return strings.ToLower(line[:end]), rest
}

// sshWords divides arguments, of which each may be in double quotes. A comment ends
// them.
func sshWords(text string) []string {
	var words []string
	for text = strings.TrimLeft(text, " \t"); text != "" && text[0] != '#'; text = strings.TrimLeft(text, " \t") {
		if text[0] == '"' {
			if end := strings.IndexByte(text[1:], '"'); end >= 0 {
				words, text = append(words, text[1:end+1]), text[end+2:]
				continue
			}
		}
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		words, text = append(words, text[:end]), text[end:]
	}
	return words
}

// sshMatches reports whether a block holds for a host.
func sshMatches(patterns []string, host string) bool {
	found := false
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		p = strings.NewReplacer("[", `\[`, `\`, `\\`).Replace(p)
		if ok, _ := path.Match(p, host); ok { // names have no slashes, and a bad pattern fits none
			if negated {
				return false
			}
			found = true
		}
	}
	return found
}

// value returns the first value of a keyword that holds for a host.
func sshValue(blocks []sshBlock, host, key string) (word string, n int) {
	for _, b := range blocks {
		if !sshMatches(b.patterns, host) {
			continue
		}
		for _, l := range b.lines {
			if words := sshWords(l.rest); l.key == key && len(words) > 0 {
				return words[0], l.n
			}
		}
	}
	return "", 0
}

// sshNode makes a node of a host.
func (i *importer) sshNode(host string, blocks []sshBlock, namesOnly bool, known func(string) bool) yamlMap {
	node := newYAML()
	if namesOnly {
		return node
	}
	get := func(key string) string {
		word, n := sshValue(blocks, host, key)
		if word != "" && unusual(word) {
			i.note(n, "%s is left out: there are control characters in it", key)
			return ""
		}
		return word
	}
	name := get("hostname")
	address := strings.NewReplacer("%%", "%", "%h", host).Replace(name)
	if odd := strings.NewReplacer("%%", "", "%h", "").Replace(name); strings.Contains(odd, "%") || strings.ContainsAny(address, " @/") {
		_, n := sshValue(blocks, host, "hostname")
		i.note(n, "HostName %s of %s is left out: it is no address", name, host)
	} else if address != host {
		node.set("ip", literally(address, false))
	}
	node.set("user", literally(get("user"), false))
	if text := get("port"); text != "" {
		port, err := strconv.Atoi(text)
		switch {
		case err != nil || port <= 0 || port > 65535:
			_, n := sshValue(blocks, host, "port")
			i.note(n, "Port %s of %s is left out: it is no port", text, host)
		case port != 22:
			node.set("port", port)
		}
	}
	switch identity := get("identityfile"); {
	case strings.EqualFold(identity, "none"):
	case strings.ContainsAny(identity, "%$"):
		_, n := sshValue(blocks, host, "identityfile")
		i.note(n, "IdentityFile %s of %s is left out: write what its %% and $ stand for", identity, host)
	default:
		node.set("identity", literally(identity, false))
	}
	i.sshJump(host, get("proxyjump"), blocks, node, known)
	return node
}

// sshJump translates ProxyJump, if it is one that is a node too.
func (i *importer) sshJump(host, jump string, blocks []sshBlock, node yamlMap, known func(string) bool) {
	_, n := sshValue(blocks, host, "proxyjump")
	switch {
	case jump == "" || strings.EqualFold(jump, "none"):
	case known(jump) && jump != host && !sshCircle(blocks, host):
		node.set("jump", jump)
	default:
		i.note(n, "ProxyJump %s of %s is left out: jump: names one node", jump, host)
	}
}

// sshCircle reports whether the jumps that lead to a host lead to themselves.
func sshCircle(blocks []sshBlock, host string) bool {
	seen := map[string]bool{}
	for host != "" && !seen[host] {
		seen[host] = true
		host, _ = sshValue(blocks, host, "proxyjump")
	}
	return host != ""
}

// sshRemarks says what of a host is not in its node.
func (i *importer) sshRemarks(host string, blocks []sshBlock) []string {
	var all []string
	if word, n := sshValue(blocks, host, "proxycommand"); word != "" && !strings.EqualFold(word, "none") {
		all = append(all, i.remark(n, "ProxyCommand of %s is left to the ssh configuration: it holds where Loom finds that", host))
	}
	return all
}
