package loom

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
	"github.com/dustinlacewell/loom/internal/redact"
	"github.com/dustinlacewell/loom/internal/source"
)

// SecretsConfig says where the values of ${secret:NAME} are: in an encrypted file,
// in a directory, or known to a program. At most one of the three is set.
type SecretsConfig struct {
	File       string   // encrypted with age; it holds a YAML mapping of names and values
	Identity   string   // file of the key that opens File, never "" if that is set
	Recipients []string // others that are to be able to open File, as age writes them

	Dir string // of files that hold a secret each; their names are the names

	Command []string      // a program and its arguments; the name of the secret follows them
	Timeout time.Duration // for the program
	WorkDir string        // its working directory
}

// A SecretSource knows secrets.
type SecretSource interface {
	// Secret returns the value of a name. The error says why there is none; it
	// wraps ErrNotFound if that is because nothing of this name is known.
	Secret(ctx context.Context, name string) (string, error)

	// Names returns all names, sorted. Nil means that only asking tells.
	Names() []string

	// Files returns the files and directories that it was read from, so far: when
	// one changes, so may a secret.
	Files() []string
}

// A SecretUse is a place where a manifest has ${secret:NAME}.
type SecretUse struct {
	Name      string
	File      string
	Line, Col int
}

// Redact returns text without the secrets and the passwords of the manifest, as
// [Redactor.Redact] does.
func (m *Manifest) Redact(text string) string { return m.redactor.Redact(text) }

// Redactor returns what knows the secrets of the manifest, for a [Pool] that runs
// more than its jobs.
func (m *Manifest) Redactor() *Redactor { return m.redactor }

type secretsSpec struct {
	File       string   `help:"encrypted with age; it holds a mapping of names and secrets"`
	Identity   string   `help:"file of the key that opens it"`
	Recipients []string `help:"others that are to be able to open it"`
	Dir        string   `help:"directory of files that hold a secret each"`
	Command    []string `help:"program that prints the secret whose name it gets, and its arguments"`
	Timeout    positive `help:"how long the program may take"`
}

// KeyFile is the name of the key that opens the file of secrets, in the state
// directory.
const KeyFile = "age.key"

// secretTime is how long a program may take to print a secret, unless the
// configuration says so.
const secretTime = 10 * time.Second

// config puts the keys into the terms of the configuration.
func (s *secretsSpec) config(l *load, state string) SecretsConfig {
	c := SecretsConfig{File: l.path(s.File), Dir: l.path(s.Dir), Recipients: s.Recipients}
	if c.File != "" {
		c.Identity = cmp.Or(l.path(s.Identity), l.secrets.key, filepath.Join(state, KeyFile))
	}
	if len(s.Command) > 0 {
		c.Command = slices.Clone(s.Command)
		if strings.Contains(c.Command[0], "/") {
			c.Command[0] = absolute(l.path(c.Command[0]))
		}
		c.Timeout, c.WorkDir = cmp.Or(time.Duration(s.Timeout), secretTime), cmp.Or(l.dir, ".")
	}
	return c
}

// checkSecrets reports what is wrong between the keys under secrets.
func (l *load) checkSecrets(s *secretsSpec, key *yaml.Node) {
	sources := 0
	for _, given := range []bool{s.File != "", s.Dir != "", len(s.Command) > 0} {
		if given {
			sources++
		}
	}
	switch {
	case sources > 1:
		l.report(problemAt(key, "secrets: file, dir and command exclude each other: keep one"))
	case sources == 0:
		l.report(problemAt(key, "secrets: say where they are: file: secrets.age, dir: PATH, or command: [PROGRAM, ...]"))
	case s.File == "" && (s.Identity != "" || len(s.Recipients) > 0):
		l.report(problemAt(key, "secrets: identity and recipients are for a file of secrets, and there is none"))
	case len(s.Command) > 0 && s.Command[0] == "":
		l.report(problemAt(key, "secrets.command: the program's name is empty"))
	case len(s.Command) == 0 && s.Timeout != 0:
		l.report(problemAt(key, "secrets.timeout is for a command, and there is none"))
	}
}

// secrets are what one reading of a manifest knows of secrets.
type secrets struct {
	open     func(SecretsConfig) (SecretSource, error) // nil: there can be none
	key      string                                    // of a file of secrets; "": in the state directory
	cache    *secretCache
	redactor *Redactor

	source SecretSource // nil: there is none, or it can't be opened
	lame   bool         // that was reported; so whoever needs one says nothing
	down   error        // the source does not answer
	uses   []secretUse
	values map[*yaml.Node][]string // secrets that are in a scalar
}

// A secretUse is a SecretUse of a node whose place is not known yet.
type secretUse struct {
	name string
	at   *yaml.Node
}

// A secretCache remembers what a program said, for as long as the configuration
// lets what a program prints be used.
type secretCache struct {
	config SecretsConfig
	values map[string]cachedSecret
}

type cachedSecret struct {
	value string
	at    time.Time
}

// openSecrets opens the source that the main file names. Node is the value of its
// key.
func (l *load) openSecrets(node *yaml.Node, state string) {
	var spec secretsSpec
	if problems := bind.Decode(&spec, node); len(problems) > 0 {
		l.secrets.lame = true // who reads the rest of the file reports them
		return
	}
	c := spec.config(l, state)
	if l.secrets.open == nil || c.File == "" && c.Dir == "" && len(c.Command) == 0 {
		return
	}
	src, err := l.secrets.open(c)
	if err != nil {
		l.secrets.lame = true
		l.report(problemAt(node, "secrets: %v", err))
		return
	}
	l.secrets.source = src
	if cache := l.secrets.cache; cache != nil && !reflect.DeepEqual(cache.config, c) {
		*cache = secretCache{config: c}
	}
	for _, file := range src.Files() {
		l.disk.note(file)
	}
}

// secret returns the value of ${secret:NAME} in a value; something, if it can't be
// told, so that no other mistake follows.
func (l *load) secret(n *yaml.Node, name string) (string, error) {
	s := &l.secrets
	s.uses = append(s.uses, secretUse{name, n})
	if why := badSecretName(name); why != "" {
		return redact.Mask, fmt.Errorf("${secret:%s}: %s", name, why)
	}
	switch {
	case s.lame:
		return redact.Mask, nil
	case s.source == nil && s.open == nil:
		return redact.Mask, fmt.Errorf("${secret:%s}: this program was made without a way to read secrets", name)
	case s.source == nil:
		return redact.Mask, fmt.Errorf("${secret:%s}: the main file does not say where secrets are: add secrets: {file: secrets.age}", name)
	}
	value, err := l.ask(name)
	for _, file := range s.source.Files() {
		l.disk.note(file)
	}
	switch {
	case err != nil:
		return redact.Mask, fmt.Errorf("${secret:%s}: %w", name, err)
	case value == "":
		return redact.Mask, fmt.Errorf("${secret:%s}: the secret is empty", name)
	case !redact.Fit(value):
		l.warnUnacted(n, "short secret "+name, fmt.Sprintf("the secret %s has fewer than %d characters, so it can't be told from other text: it is shown wherever something prints it", name, redact.Shortest))
	}
	if s.values == nil {
		s.values = map[*yaml.Node][]string{}
	}
	s.values[n] = append(s.values[n], value)
	s.redactor.Add(value)
	return value, nil
}

// ask asks the source, or remembers what it said.
func (l *load) ask(name string) (string, error) {
	s := &l.secrets
	cache := s.cache
	if cache != nil && len(cache.config.Command) > 0 {
		if was, ok := cache.values[name]; ok && time.Since(was.at) < fresh(l.config.InventoryRefresh) {
			return was.value, nil
		}
	}
	if s.down != nil {
		return "", s.down
	}
	value, err := s.source.Secret(l.ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		if names := s.source.Names(); names != nil {
			err = fmt.Errorf("there is no such secret%s", suggestion(name, setOf(names)))
		}
	case err != nil:
		if errors.Is(err, context.DeadlineExceeded) {
			s.down = err // it would keep us waiting for each
		}
	case cache != nil && len(cache.config.Command) > 0:
		if cache.values == nil {
			cache.values = map[string]cachedSecret{}
		}
		cache.values[name] = cachedSecret{value, time.Now()}
	}
	return value, err
}

// fresh is how long what a program printed is used, given how often it is to be
// asked again.
func fresh(refresh time.Duration) time.Duration {
	refresh = cmp.Or(refresh, 5*time.Minute)
	return refresh - refresh/10 // a timer may be early
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// badSecretName says what is wrong with the name of a secret, or nothing.
func badSecretName(name string) string {
	if !secretName.MatchString(name) || strings.Contains("/"+name+"/", "/../") || strings.Contains("/"+name+"/", "/./") || len(name) > 200 {
		return "that can't be the name of a secret: use letters, digits, _ - . and /, and begin with a letter or _"
	}
	return ""
}

// ValidSecretName reports whether ${secret:NAME} can stand for it: letters,
// digits, _ - . and /, beginning with a letter or _.
func ValidSecretName(name string) bool { return badSecretName(name) == "" }

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*$`)

// secretUses returns where secrets are used.
func (l *load) secretUses() []SecretUse {
	var uses []SecretUse
	for _, u := range l.secrets.uses {
		file, line := l.set.Position(u.at.Line)
		uses = append(uses, SecretUse{Name: u.name, File: file, Line: line, Col: u.at.Column})
	}
	slices.SortFunc(uses, func(a, b SecretUse) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return slices.Compact(uses)
}

// quotedText matches what a message quotes.
var quotedText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// conceal takes out of a problem what it quotes of a secret. It may be a part of
// one, if the value was taken apart.
func (l *load) conceal(p bind.Problem) bind.Problem {
	for n, values := range l.secrets.values {
		if n.Line != p.Line || n.Column != p.Col {
			continue
		}
		p.Msg = quotedText.ReplaceAllStringFunc(p.Msg, func(quoted string) string {
			text, err := strconv.Unquote(quoted)
			if err != nil {
				return quoted
			}
			for _, v := range values {
				if text != "" && (strings.Contains(v, strings.TrimSuffix(text, "…")) || strings.Contains(text, v)) {
					return strconv.Quote(redact.Mask)
				}
			}
			return quoted
		})
	}
	return p
}

// conceal has secrets taken out of what the job says, and out of what is only said
// of it.
func (j *Job) conceal(secrets *Redactor) {
	j.secrets = secrets
	j.Description, j.Owner, j.Runbook = secrets.Redact(j.Description), secrets.Redact(j.Owner), secrets.Redact(j.Runbook)
	for key, value := range j.Labels {
		if clean := secrets.Redact(value); clean != value {
			j.Labels = maps.Clone(j.Labels) // it may be that of all jobs
			j.Labels[key] = clean
		}
	}
}

// An Exposer is a Task of which some parameters can be seen by others than who
// they are for: in the list of a node's processes, or in a file that all may read.
// A secret there is warned of when the manifest is read.
type Exposer interface {
	Task
	// Exposes returns, by the parameters' names, what to do instead, as the end of
	// a sentence.
	Exposes() map[string]string
}

// warnExposed warns of secrets that a task's parameters show.
func (l *load) warnExposed(t *registered, args, kwargs *yaml.Node) {
	if len(l.secrets.uses) == 0 {
		return
	}
	e, ok := t.proto.(Exposer)
	if !ok {
		return
	}
	for param, instead := range e.Exposes() {
		for _, n := range l.secretsIn(t.param(param, args, kwargs), nil) {
			l.warnUnacted(n, "secret in "+param, fmt.Sprintf("a secret in %s of %s: %s", param, t.name, instead))
		}
	}
}

// param returns what args and kwargs have for a parameter, or nil.
func (t *registered) param(name string, args, kwargs *yaml.Node) *yaml.Node {
	if pairs, _ := bind.Pairs(kwargs); kwargs != nil {
		for _, p := range pairs {
			if p.Name == name {
				return p.Value
			}
		}
	}
	params := bind.Params(t.proto)
	i := slices.IndexFunc(params, func(p Param) bool { return p.Name == name })
	switch {
	case args == nil || i < 0:
		return nil
	case args.Kind == yaml.AliasNode:
		return t.param(name, args.Alias, nil)
	case args.Kind != yaml.SequenceNode:
		if i == 0 {
			return args
		}
		return nil
	case params[i].Rest && i < len(args.Content):
		return &yaml.Node{Kind: yaml.SequenceNode, Content: args.Content[i:]}
	case i < len(args.Content):
		return args.Content[i]
	}
	return nil
}

// secretsIn returns the scalars below n that have a secret in them.
func (l *load) secretsIn(n *yaml.Node, found []*yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
	case n.Kind == yaml.AliasNode:
		return l.secretsIn(n.Alias, found)
	case n.Kind == yaml.ScalarNode:
		if l.secrets.values[n] != nil {
			found = append(found, n)
		}
	}
	if n != nil {
		for _, c := range n.Content {
			found = l.secretsIn(c, found)
		}
	}
	return found
}

// literally returns n with the braces of secrets written so that a template
// prints them. It is n itself if there are none.
func literally(n *yaml.Node, templates map[*yaml.Node]string) *yaml.Node {
	if n == nil || len(templates) == 0 {
		return n
	}
	if n.Kind == yaml.AliasNode {
		if real := literally(n.Alias, templates); real != n.Alias {
			return real
		}
		return n
	}
	if text, ok := templates[n]; ok {
		out := *n
		out.Value = text
		return &out
	}
	var out *yaml.Node
	for i, c := range n.Content {
		if real := literally(c, templates); real != c {
			if out == nil {
				same := *n
				same.Content = slices.Clone(n.Content)
				out = &same
			}
			out.Content[i] = real
		}
	}
	if out != nil {
		return out
	}
	return n
}

// expand expands the references in the values of a text.
func (l *load) expand(n *yaml.Node) {
	if l.expander == nil {
		l.expander = &source.Expander{Lookup: l.lookup}
	}
	l.report(l.expander.Expand(n)...)
}
