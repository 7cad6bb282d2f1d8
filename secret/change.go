package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/durable"
)

// ErrElsewhere means that secrets are changed where they are kept, not by Loom.
var ErrElsewhere = errors.New("the secrets come from a program")

// Set gives a secret a value, and makes what is missing: the key, the file or the
// directory. What is there is replaced whole or not at all.
func Set(c loom.SecretsConfig, name, value string) error {
	if !loom.ValidSecretName(name) {
		return fmt.Errorf("%q can't be the name of a secret: use letters, digits, _ - . and /, and begin with a letter or _", name)
	}
	switch {
	case value == "":
		return errors.New("the value is empty")
	case len(value) > maxValue:
		return fmt.Errorf("the value has %d bytes, and a secret has at most %d KiB", len(value), maxValue>>10)
	case c.File != "":
		return Rewrite(c, func(plain []byte) ([]byte, error) { return setText(plain, name, value) })
	case c.Dir != "":
		return setFile(c.Dir, name, value)
	}
	return ErrElsewhere
}

// Remove removes a secret. The error wraps loom.ErrNotFound if there is none.
func Remove(c loom.SecretsConfig, name string) error {
	switch {
	case c.File != "":
		return Rewrite(c, func(plain []byte) ([]byte, error) { return removeText(plain, name) })
	case c.Dir != "":
		file := (&dir{path: c.Dir}).file(name)
		err := fs.ErrNotExist
		if loom.ValidSecretName(name) {
			err = os.Remove(file)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no secret %s in %s: %w", name, c.Dir, loom.ErrNotFound)
		}
		return err
	}
	return ErrElsewhere
}

// Rewrite decrypts the file, has its text changed, and encrypts it again: for its
// own key and the recipients of the configuration. Nobody else who uses Rewrite
// does so meanwhile, and nobody sees a half of it. If there is neither file nor key,
// both are made.
func Rewrite(c loom.SecretsConfig, change func(plain []byte) ([]byte, error)) error {
	name := c.File
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real // what is replaced is the file, not the link
	}
	_, err := readCipher(name)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	if missing {
		if _, err := MakeKey(c); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	unlock, err := lock(c.Identity)
	if err != nil {
		return fmt.Errorf("the key of %s: %w", c.File, err)
	}
	defer unlock()

	var plain []byte
	old, err := readCipher(name) // once more, now that it is ours
	if err == nil {
		if plain, err = decrypt(c, old); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := change(plain)
	if err != nil || bytes.Equal(text, plain) && old != nil {
		return err
	}
	if _, err := Parse(text); err != nil {
		return err
	}
	cipher, err := encrypt(c, text, old == nil || isArmored(old))
	if err != nil {
		return err
	}
	return replace(name, cipher, 0o644) // it is encrypted; a file that is there keeps its mode
}

// lock keeps others from changing the file that a key opens.
func lock(key string) (unlock func(), err error) {
	f, err := os.Open(key)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close() // it was only opened
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// MakeKey makes the key, for its user alone, and returns its public half. The
// error wraps fs.ErrExist if there is one. It makes none if there is a file that
// another key must have encrypted.
func MakeKey(c loom.SecretsConfig) (public string, err error) {
	if _, err := os.Lstat(c.Identity); err == nil {
		return "", fmt.Errorf("there is a key already: %s: %w", c.Identity, fs.ErrExist)
	}
	if _, err := os.Stat(c.File); err == nil {
		return "", fmt.Errorf("%s was encrypted for another key, and there is no %s: copy that key there with mode 0600, or remove the file", c.File, c.Identity)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(c.Identity), 0o700); err != nil {
		return "", err
	}
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), id.Recipient(), id)
	return id.Recipient().String(), create(c.Identity, []byte(text))
}

// encrypt encrypts for the file's own key and the recipients.
func encrypt(c loom.SecretsConfig, plain []byte, armored bool) ([]byte, error) {
	ids, err := identities(c)
	if err != nil {
		return nil, err
	}
	var to []age.Recipient
	for _, id := range ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			to = append(to, id.Recipient())
		case *age.HybridIdentity:
			to = append(to, id.Recipient())
		case *agessh.Ed25519Identity:
			to = append(to, id.Recipient())
		case *agessh.RSAIdentity:
			to = append(to, id.Recipient())
		default:
			return nil, fmt.Errorf("the key %s can open %s, but not say who else may: use a key of age-keygen or ssh-keygen", c.Identity, c.File)
		}
	}
	for _, text := range c.Recipients {
		r, err := recipient(text)
		if err != nil {
			return nil, fmt.Errorf("secrets.recipients: %q is none that age knows: write age1..., or a public key of SSH", text)
		}
		to = append(to, r)
	}
	var out bytes.Buffer
	var sink io.WriteCloser = nopCloser{&out}
	if armored {
		sink = armor.NewWriter(&out)
	}
	w, err := age.Encrypt(sink, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt %s: %w", c.File, err)
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close(), sink.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func recipient(text string) (age.Recipient, error) {
	if strings.HasPrefix(text, "ssh-") {
		return agessh.ParseRecipient(text)
	}
	all, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil || len(all) != 1 {
		return nil, errors.Join(err, errors.New("not one recipient"))
	}
	return all[0], nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// setText sets a key of a YAML text, and leaves all else as it is.
func setText(plain []byte, name, value string) ([]byte, error) {
	doc, root, err := mapping(plain)
	if err != nil {
		return nil, err
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	if strings.Contains(value, "\n") {
		node.Style = yaml.LiteralStyle
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			node.LineComment = root.Content[i+1].LineComment
			root.Content[i+1] = node
			return textOf(doc, name, value)
		}
	}
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, node)
	return textOf(doc, name, value)
}

// removeText removes a key of a YAML text.
func removeText(plain []byte, name string) ([]byte, error) {
	doc, root, err := mapping(plain)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			root.Content = append(root.Content[:i:i], root.Content[i+2:]...)
			return textOf(doc, "", "")
		}
	}
	return nil, fmt.Errorf("there is no secret %s: %w", name, loom.ErrNotFound)
}

func mapping(plain []byte) (doc, root *yaml.Node, err error) {
	if _, err := Parse(plain); err != nil {
		return nil, nil, err
	}
	doc = new(yaml.Node)
	if err := yaml.Unmarshal(plain, doc); err != nil {
		return nil, nil, errors.New(yamlProblem(err))
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		doc = &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	return doc, doc.Content[0], nil
}

// textOf returns the text of a document in which a name has a value, if it says
// exactly that: YAML has no way to write some.
func textOf(doc *yaml.Node, name, value string) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(doc), enc.Close()); err != nil {
		return nil, errors.New("the value can't be written as YAML")
	}
	if values, err := Parse(out.Bytes()); name != "" && (err != nil || values[name] != value) {
		return nil, errors.New("the value is not text that YAML can hold: encode it, with base64 for one")
	}
	return out.Bytes(), nil
}

// setFile writes a secret that is a file of its own.
func setFile(path, name, value string) error {
	file := (&dir{path: path}).file(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if _, err := openDir(path); err != nil {
		return err
	}
	return replace(file, []byte(value), 0o600)
}

// replace puts a file in the place of another, whole or not at all. One that is
// there keeps its mode and owner.
func replace(name string, text []byte, mode fs.FileMode) error {
	owner := -1
	group := -1
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
		owner, group = ownerOf(info)
	} else if info, err := os.Stat(filepath.Dir(name)); err == nil {
		owner, group = ownerOf(info) // who keeps files there is to read this one
	}
	return write(name, text, mode, owner, group, durable.Replace)
}

// create makes a private file that isn't there yet.
func create(name string, text []byte) error {
	owner, group := -1, -1
	if info, err := os.Stat(filepath.Dir(name)); err == nil {
		owner, group = ownerOf(info)
	}
	return write(name, text, 0o600, owner, group, durable.Create)
}

// ownerOf returns whose a file is, if we may give files away.
func ownerOf(info fs.FileInfo) (owner, group int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return int(stat.Uid), int(stat.Gid)
	}
	return -1, -1
}

// write writes a file beside its place, and then puts it there.
func write(name string, text []byte, mode fs.FileMode, owner, group int, put func(f *os.File, text []byte, file string) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".loom-*") // 0600
	if err != nil {
		return err
	}
	if owner >= 0 {
		err = f.Chown(owner, group)
	}
	if err = errors.Join(err, f.Chmod(mode)); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return put(f, text, name)
}
