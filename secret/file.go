package secret

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
)

// A file is a file of secrets that was read.
type file struct {
	c      loom.SecretsConfig
	values map[string]string
}

func openFile(c loom.SecretsConfig) (*file, error) {
	cipher, err := readCipher(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s: \"loom secret set NAME\" makes it", c.File)
	}
	if err != nil {
		return nil, err
	}
	plain, err := decrypt(c, cipher)
	if err != nil {
		return nil, err
	}
	values, err := Parse(plain)
	if err != nil {
		return nil, fmt.Errorf("what is encrypted in %s: %w", c.File, err)
	}
	return &file{c: c, values: values}, nil
}

// readCipher reads the encrypted file, which all may read but not write.
func readCipher(name string) ([]byte, error) {
	return read(name, maxFile, func(info fs.FileInfo) error {
		if mode := info.Mode().Perm(); mode&0o002 != 0 {
			return fmt.Errorf("%s has mode %04o, so anyone can put other secrets in the place of these: chmod o-w %s", name, mode, name)
		}
		return nil
	})
}

// identities reads the key.
func identities(c loom.SecretsConfig) ([]age.Identity, error) {
	text, err := readPrivate(c.Identity, maxValue)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no key %s that opens %s: copy it there with mode 0600, or name another with identity", c.Identity, c.File)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of %s: %w", c.File, err)
	}
	if bytes.HasPrefix(text, []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("the key %s: %w", c.Identity, withoutPrefix(err))
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("the key %s is none that age knows: it begins with AGE-SECRET-KEY-, or is a private key of SSH", c.Identity)
	}
	return ids, nil
}

func withoutPrefix(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "agessh: ")) }

// decrypt returns what is in an encrypted text.
func decrypt(c loom.SecretsConfig, cipher []byte) ([]byte, error) {
	ids, err := identities(c)
	if err != nil {
		return nil, err
	}
	in := io.Reader(bytes.NewReader(cipher))
	if isArmored(cipher) {
		in = armor.NewReader(in)
	}
	out, err := age.Decrypt(in, ids...)
	if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
		return nil, fmt.Errorf("the key %s does not open %s, which was encrypted for another", c.Identity, c.File)
	}
	if err == nil {
		var plain []byte
		if plain, err = io.ReadAll(out); err == nil {
			return plain, nil
		}
	}
	return nil, fmt.Errorf("%s is no file of age's, or damaged: %w", c.File, err)
}

func isArmored(cipher []byte) bool {
	line, _, _ := bufio.NewReader(bytes.NewReader(cipher)).ReadLine()
	return string(bytes.TrimSpace(line)) == armor.Header
}

// Parse reads what a file of secrets holds: a YAML mapping of names and texts. Its
// errors tell lines, and nothing of the values.
func Parse(plain []byte) (map[string]string, error) {
	values := map[string]string{}
	var doc yaml.Node
	if err := yaml.Unmarshal(plain, &doc); err != nil {
		return nil, errors.New(yamlProblem(err))
	}
	if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
		return values, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: write a mapping of names and secrets", root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		switch _, twice := values[key.Value]; {
		case twice:
			return nil, fmt.Errorf("line %d: %s is there twice", key.Line, key.Value)
		case key.Kind != yaml.ScalarNode || !loom.ValidSecretName(key.Value):
			return nil, fmt.Errorf("line %d: a name has letters, digits, _ - . and /, and begins with a letter or _", key.Line)
		case value.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("line %d: the secret %s is no text; quote it", value.Line, key.Value)
		case value.Value == "":
			return nil, fmt.Errorf("line %d: the secret %s is empty", value.Line, key.Value)
		case len(value.Value) > maxValue:
			return nil, fmt.Errorf("line %d: the secret %s is larger than %d KiB", value.Line, key.Value, maxValue>>10)
		}
		values[key.Value] = value.Value
	}
	return values, nil
}

// yamlProblem is what is wrong with a YAML text, without a part of the text.
func yamlProblem(err error) string {
	line, what, ok := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), ": ")
	if !ok || !strings.HasPrefix(line, "line ") {
		return "it is not YAML"
	}
	for _, known := range []string{"mapping values are not allowed", "did not find expected", "found character that cannot start any token",
		"found unexpected end of stream", "could not find expected", "found a tab character", "found unknown escape character"} {
		if strings.HasPrefix(what, known) {
			return line + ": it is not YAML: " + known
		}
	}
	return line + ": it is not YAML"
}

// Secret returns a value.
func (f *file) Secret(_ context.Context, name string) (string, error) {
	value, ok := f.values[name]
	if !ok {
		return "", fmt.Errorf("%s has no secret %s: %w", f.c.File, name, loom.ErrNotFound)
	}
	return value, nil
}

// Names returns the names in the file.
func (f *file) Names() []string {
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(f.values))))
}

// Files returns the file and its key.
func (f *file) Files() []string { return []string{f.c.File, f.c.Identity} }
