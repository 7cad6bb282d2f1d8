package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kevinburke/ssh_config"
)

// A config is what ssh_config files say, in the order in which ssh reads them.
type config struct {
	blocks []block
	ignore []string // what was not understood, as sentences
	files  map[string]time.Time
	seen   time.Time // when the files were looked at
}

// A block is a Host section with its settings. Outer are the sections of the
// files that include this one: all must match too.
type block struct {
	outer    [][]string
	patterns []string
	values   []setting
}

type setting struct{ key, value string } // key in lower case

// configs reads ssh_config files, and again when they have changed.
type configs struct {
	mu   sync.Mutex
	read map[string]*config // by main files
}

// get returns the configuration of these files, of which any may be missing.
func (c *configs) get(files ...string) (*config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strings.Join(files, "\n")
	if have := c.read[key]; have != nil && have.fresh() {
		return have, nil
	}
	conf := &config{files: map[string]time.Time{}, seen: time.Now()}
	for _, f := range files {
		if err := conf.load(f, nil, []string{"*"}, 0); err != nil {
			return nil, err
		}
	}
	if c.read == nil {
		c.read = map[string]*config{}
	}
	c.read[key] = conf
	return conf, nil
}

// fresh reports whether all files are as they were, a glance ago at the latest.
func (c *config) fresh() bool {
	if time.Since(c.seen) < glanceLimit {
		return true
	}
	c.seen = time.Now()
	for file, was := range c.files {
		if !modified(file).Equal(was) {
			return false
		}
	}
	return true
}

// modified returns when a file was changed; zero if there is none.
func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// load reads one file. Its lines before the first Host belong to the section in
// which it is included.
func (c *config) load(file string, outer [][]string, section []string, depth int) error {
	if depth > 16 {
		return fmt.Errorf("%s: too many levels of Include", file)
	}
	c.files[file] = modified(file)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read ssh_config: %w", err)
	}

	// The parser takes only some kinds of Match, and reads Include in its own
	// order, so it gets the stretches between them.
	inner := outer
	if depth > 0 {
		inner = append(slices.Clip(outer), section)
	}
	var stretch bytes.Buffer
	var failure error
	flush := func(line int) {
		if failure == nil {
			failure = c.parse(file, line, stretch.Bytes(), inner, section)
		}
		stretch.Reset()
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		key, value := splitLine(line)
		switch key {
		case "host", "match":
			flush(n)
			section = words(value)
			if key == "match" {
				section = c.match(file, n, section)
			}
		case "include":
			flush(n)
			for _, name := range c.included(file, value) {
				if err := c.load(name, inner, section, depth+1); err != nil {
					return err
				}
			}
		default:
			stretch.WriteString(line)
		}
	}
	flush(n)
	return failure
}

// match returns the patterns of a Match line, which match nothing if it asks
// for more than names.
func (c *config) match(file string, line int, criteria []string) []string {
	switch {
	case len(criteria) == 1 && strings.EqualFold(criteria[0], "all"):
		return []string{"*"}
	case len(criteria) == 2 && (strings.EqualFold(criteria[0], "host") || strings.EqualFold(criteria[0], "originalhost")):
		return strings.Split(criteria[1], ",")
	case len(criteria) == 2 && strings.EqualFold(criteria[0], "final") && strings.EqualFold(criteria[1], "all"):
		return []string{"*"} // what it sets applies last in both
	}
	c.ignore = append(c.ignore, fmt.Sprintf("%s:%d: Match %s is not understood, so this section is left out", file, line, strings.Join(criteria, " ")))
	return nil
}

// included returns the files that an Include names, in order.
func (c *config) included(file, value string) []string {
	var all []string
	for _, pattern := range words(value) {
		pattern = expandHome(pattern)
		if !filepath.IsAbs(pattern) {
			dir := filepath.Join(home(), ".ssh")
			if strings.HasPrefix(file, "/etc/ssh/") {
				dir = "/etc/ssh"
			}
			pattern = filepath.Join(dir, pattern)
		}
		found, err := filepath.Glob(pattern)
		if err != nil {
			c.ignore = append(c.ignore, fmt.Sprintf("%s: Include %s: %v", file, pattern, err))
		}
		all = append(all, found...)
	}
	return all
}

// parse adds a stretch of settings that are all in one section.
func (c *config) parse(file string, line int, text []byte, outer [][]string, section []string) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	parsed, err := ssh_config.DecodeBytes(text)
	if err != nil {
		return fmt.Errorf("%s: before line %d: %w", file, line, err)
	}
	b := block{outer: outer, patterns: section}
	for _, h := range parsed.Hosts {
		for _, n := range h.Nodes {
			if kv, ok := n.(*ssh_config.KV); ok {
				b.values = append(b.values, setting{strings.ToLower(kv.Key), kv.Value})
			}
		}
	}
	c.blocks = append(c.blocks, b)
	return nil
}

// splitLine returns the keyword of a line in lower case, and the rest.
func splitLine(line string) (key, value string) {
	line = strings.TrimSpace(line)
	i := strings.IndexAny(line, " \t=\"")
	if i < 0 || line[0] == '#' {
		return "", ""
	}
	value = strings.TrimLeft(line[i:], " \t")
	value = strings.TrimLeft(strings.TrimPrefix(value, "="), " \t")
	return strings.ToLower(line[:i]), value
}

// words splits a value at blanks outside of quotation marks; a comment ends it.
func words(s string) []string {
	var all []string
	for s = strings.TrimLeft(s, " \t\r\n"); s != "" && s[0] != '#'; s = strings.TrimLeft(s, " \t\r\n") {
		if s[0] == '"' {
			word, rest, _ := strings.Cut(s[1:], `"`)
			all, s = append(all, word), rest
			continue
		}
		end := strings.IndexAny(s, " \t\r\n")
		if end < 0 {
			end = len(s)
		}
		all, s = append(all, s[:end]), s[end:]
	}
	return all
}

// matches reports whether one of names is meant, and none is excluded.
func matches(patterns, names []string) bool {
	found := false
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		for _, name := range names {
			if !glob(strings.ToLower(p), strings.ToLower(name)) {
				continue
			}
			if negated {
				return false
			}
			found = true
		}
	}
	return found
}

// glob matches * and ?.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// all returns every value of a keyword for a host that is known by these names.
func (c *config) all(key string, names ...string) []string {
	var found []string
	for _, b := range c.blocks {
		if !matches(b.patterns, names) || slices.ContainsFunc(b.outer, func(p []string) bool { return !matches(p, names) }) {
			continue
		}
		for _, v := range b.values {
			if v.key == key {
				found = append(found, v.value)
			}
		}
	}
	return found
}

// first returns the first value of a keyword, which is the one that counts.
func (c *config) first(key string, names ...string) string {
	if all := c.all(key, names...); len(all) > 0 {
		return all[0]
	}
	return ""
}

// home returns the home directory of the user that Loom runs as.
func home() string {
	if dir, err := os.UserHomeDir(); err == nil {
		return dir
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return "/"
}

func expandHome(name string) string {
	if name == "~" {
		return home()
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return filepath.Join(home(), rest)
	}
	return name
}

// seconds reads a time as ssh_config has it: a number, or 1h30m.
func seconds(s string) (time.Duration, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(n) * time.Second, n >= 0
	}
	d, err := time.ParseDuration(strings.ToLower(s))
	return d, err == nil && d >= 0
}
