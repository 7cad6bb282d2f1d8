package secret_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fileConfig(t *testing.T) loom.SecretsConfig {
	t.Helper()
	dir := t.TempDir()
	return loom.SecretsConfig{File: filepath.Join(dir, "secrets.age"), Identity: filepath.Join(dir, "state", loom.KeyFile)}
}

func get(t *testing.T, c loom.SecretsConfig, name string) string {
	t.Helper()
	src, err := secret.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	value, err := src.Secret(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func set(t *testing.T, c loom.SecretsConfig, name, value string) {
	t.Helper()
	if err := secret.Set(c, name, value); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, file, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chmod(file, mode)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func mode(t *testing.T, file string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// values are hard to write down.
func values() map[string]string {
	return map[string]string{
		"plain": "correct horse", "number": "0123", "yes": "yes", "null": "null", "tag": "!!binary aGk=", "alias": "*x", "quote": `it's "it"`,
		"colon": "a: b # c", "space": " padded ", "lines": "one\n two\n\nthree\n", "key": "-----BEGIN X-----\nabc\n-----END X-----\n",
		"unicode": "pässwörd €", "brace": "{{.Node}} ${env:HOME}", "db/main.pw-1": "nested", "return": "a\rb\r\n", "tab": "a\tb", "dash": "- a", "percent": "%x",
	}
}

func TestFileKeepsValues(t *testing.T) {
	c := fileConfig(t)
	for name, value := range values() {
		set(t, c, name, value)
	}
	for name, want := range values() {
		if got := get(t, c, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	src, err := secret.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := src.Names(), slices.Sorted(maps.Keys(values())); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := src.Files(); !slices.Equal(got, []string{c.File, c.Identity}) {
		t.Errorf("files %q", got)
	}
	if got := mode(t, c.Identity); got != 0o600 {
		t.Errorf("the key has mode %o", got)
	}
	if text := read(t, c.File); !strings.HasPrefix(text, armor.Header) || strings.Contains(text, "correct") {
		t.Errorf("the file is\n%s", text)
	}
	if err := secret.Remove(c, "plain"); err != nil {
		t.Error(err)
	}
	if err := secret.Remove(c, "plain"); !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if got := get(t, c, "lines"); got != values()["lines"] {
		t.Errorf("another one is %q now", got)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(c.File), ".loom-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestFileKeepsModeLinkCommentsAndForm(t *testing.T) {
	c := fileConfig(t)
	real := filepath.Join(filepath.Dir(c.File), "real.age")
	if err := os.Symlink("real.age", c.File); err != nil {
		t.Fatal(err)
	}
	// As others would write it: binary, with a comment.
	public, err := secret.MakeKey(c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.ParseX25519Recipient(public)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("# of the team\nold: \"x y z\" # ask ann\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, real, out.String(), 0o640)
	set(t, c, "new", "value of it")
	if info, err := os.Lstat(c.File); err != nil || info.Mode()&fs.ModeSymlink == 0 || mode(t, real) != 0o640 {
		t.Errorf("the link is %v, the file's mode %o", info.Mode(), mode(t, real))
	}
	if strings.HasPrefix(read(t, real), "-----") {
		t.Error("a binary file has become text")
	}
	var text []byte
	err = secret.Rewrite(c, func(plain []byte) ([]byte, error) { text = bytes.Clone(plain); return plain, nil })
	if want := "# of the team\nold: \"x y z\" # ask ann\nnew: value of it\n"; err != nil || string(text) != want {
		t.Errorf("%v, it holds\n%s", err, text)
	}
}

// TestFileForOthers has a second person open the file, and a key of SSH be the
// file's own.
func TestFileForOthers(t *testing.T) {
	c := fileConfig(t)
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	sshd.NewKey(t, filepath.Join(filepath.Dir(c.File), "id"))
	c.Identity = filepath.Join(filepath.Dir(c.File), "id")
	c.Recipients = []string{other.Recipient().String()}
	set(t, c, "db", "correct horse")
	if got := get(t, c, "db"); got != "correct horse" {
		t.Errorf("by SSH's key: %q", got)
	}
	theirs := loom.SecretsConfig{File: c.File, Identity: filepath.Join(filepath.Dir(c.File), "theirs")}
	write(t, theirs.Identity, other.String()+"\n", 0o600)
	if got := get(t, theirs, "db"); got != "correct horse" {
		t.Errorf("by the other key: %q", got)
	}
	c.Recipients = []string{"age1nonsense"}
	if err := secret.Set(c, "db", "x y z"); err == nil || !strings.Contains(err.Error(), `secrets.recipients: "age1nonsense"`) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestSetsAtOnceLoseNothing(t *testing.T) {
	c := fileConfig(t)
	set(t, c, "first", "value")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := secret.Set(c, fmt.Sprintf("s%d", i), "value"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	src, err := secret.Open(c)
	if err != nil || len(src.Names()) != 9 {
		t.Errorf("%v, %v", src, err)
	}
}

// mistakes have a sentence each.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, c *loom.SecretsConfig)
		want string // with DIR for the directory
	}{
		{"nothing there", func(*testing.T, *loom.SecretsConfig) {}, `there is no file DIR/secrets.age: "loom secret set NAME" makes it`},
		{"no key", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			set(t, *c, "a", "value")
			c.Identity += "x"
		},
			"there is no key DIR/state/age.keyx that opens DIR/secrets.age: copy it there with mode 0600, or name another with identity"},
		{"another key", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			set(t, *c, "a", "value")
			other := fileConfig(t)
			set(t, other, "a", "value")
			c.Identity = other.Identity
		}, "the key IDENTITY does not open DIR/secrets.age, which was encrypted for another"},
		{"a key for all to see", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			set(t, *c, "a", "value")
			write(t, c.Identity, read(t, c.Identity), 0o640)
		}, "the key of DIR/secrets.age: IDENTITY has mode 0640, so others can read it: chmod 600 IDENTITY"},
		{"no key at all", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			set(t, *c, "a", "value")
			write(t, c.Identity, "hello", 0o600)
		},
			"the key IDENTITY is none that age knows: it begins with AGE-SECRET-KEY-, or is a private key of SSH"},
		{"a file for all to change", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			set(t, *c, "a", "value")
			write(t, c.File, read(t, c.File), 0o666)
		},
			"DIR/secrets.age has mode 0666, so anyone can put other secrets in the place of these: chmod o-w DIR/secrets.age"},
		{"no file of age's", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			set(t, *c, "a", "value")
			write(t, c.File, "a: value", 0o600)
		},
			"DIR/secrets.age is no file of age's, or damaged: "},
		{"no directory", func(_ *testing.T, c *loom.SecretsConfig) { *c = loom.SecretsConfig{Dir: filepath.Dir(c.File) + "/s"} },
			"there is no directory DIR/s: mkdir -m 700 DIR/s"},
		{"a directory for all to change", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			*c = loom.SecretsConfig{Dir: filepath.Dir(c.File) + "/s"}
			if err := errors.Join(os.Mkdir(c.Dir, 0o700), os.Chmod(c.Dir, 0o777)); err != nil { //nolint:gosec // that is the point
				t.Fatal(err)
			}
		}, "DIR/s has mode 0777, so others can write to it: chmod go-w DIR/s"},
		{"a secret for all to see", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			dir := filepath.Dir(c.File) + "/s"
			*c = loom.SecretsConfig{Dir: dir}
			write(t, dir+"/a", "value", 0o644)
		}, "DIR/s/a has mode 0644, so others can read it: chmod 600 DIR/s/a"},
		{"no such secret", func(t *testing.T, c *loom.SecretsConfig) {
			t.Helper()
			dir := filepath.Dir(c.File) + "/s"
			*c = loom.SecretsConfig{Dir: dir}
			write(t, dir+"/b", "value", 0o600)
		}, "there is no file DIR/s/a: not found"},
		{"no such program", func(_ *testing.T, c *loom.SecretsConfig) {
			*c = loom.SecretsConfig{Command: []string{"/nonexistent/pass"}, Timeout: time.Second}
		}, "pass could not be run: fork/exec /nonexistent/pass: no such file or directory"},
		{"a program that fails", func(_ *testing.T, c *loom.SecretsConfig) {
			*c = loom.SecretsConfig{Command: []string{"sh", "-c", `echo "no $1" >&2; exit 3`, "x"}, Timeout: time.Minute}
		}, "sh ended with exit status 3: no a"},
		{"a program that hangs", func(_ *testing.T, c *loom.SecretsConfig) {
			*c = loom.SecretsConfig{Command: []string{"sh", "-c", `sleep 60 & wait`}, Timeout: 50 * time.Millisecond}
		}, "sh did not answer within 50ms: context deadline exceeded"},
		{"a program that prints too much", func(_ *testing.T, c *loom.SecretsConfig) {
			*c = loom.SecretsConfig{Command: []string{"sh", "-c", `head -c 100000 /dev/zero`}, Timeout: time.Minute}
		}, "sh printed more than the 64 KiB that a secret may have"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := fileConfig(t)
			dir := filepath.Dir(c.File)
			tt.make(t, &c)
			src, err := secret.Open(c)
			if err == nil {
				_, err = src.Secret(t.Context(), "a")
			}
			if want := strings.NewReplacer("DIR", dir, "IDENTITY", c.Identity).Replace(tt.want); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestForeignOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: to give files away needs root")
	}
	dir := t.TempDir()
	write(t, dir+"/a", "value", 0o600)
	if err := os.Chown(dir+"/a", 12345, 12345); err != nil {
		t.Fatal(err)
	}
	_, err := mustOpen(t, dir).Secret(t.Context(), "a")
	if want := dir + "/a belongs to user 12345, who can change it: only what is owned by user 0 or root is used; chown it"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	// Who keeps the files there is to read what root sets.
	if err := os.Chown(dir, 0, 4321); err != nil {
		t.Fatal(err)
	}
	set(t, loom.SecretsConfig{Dir: dir}, "b", "value")
	if out, err := exec.CommandContext(t.Context(), "stat", "-c", "%u %g %a", dir+"/b").Output(); err != nil || string(out) != "0 4321 600\n" {
		t.Errorf("the new one has %s, %v", out, err)
	}
}

func mustOpen(t *testing.T, dir string) loom.SecretSource {
	t.Helper()
	src, err := secret.Open(loom.SecretsConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	c := loom.SecretsConfig{Dir: dir}
	set(t, c, "db/password", "correct horse\n")
	set(t, c, "hook", "battery staple")
	write(t, dir+"/.hidden", "x", 0o600)
	write(t, dir+"/crlf", "x y z\r\n", 0o400)
	src := mustOpen(t, dir)
	if got, want := src.Names(), []string{"crlf", "db/password", "hook"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := get(t, c, "db/password") + "|" + get(t, c, "crlf"); got != "correct horse|x y z" {
		t.Errorf("got %q", got)
	}
	if got := mode(t, dir+"/db/password"); got != 0o600 {
		t.Errorf("mode %o", got)
	}
	if err := errors.Join(secret.Remove(c, "hook"), secret.Set(c, "../x", "y"), secret.Remove(c, "../s/crlf")); err == nil || !strings.Contains(err.Error(), `"../x" can't be the name`) || !errors.Is(err, loom.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	c := loom.SecretsConfig{Command: []string{"sh", "-c", `echo "$PWD $1"`, "x"}, Timeout: time.Minute, WorkDir: dir}
	if got := get(t, c, "$(id);'a"); got != dir+" $(id);'a" {
		t.Errorf("got %q", got)
	}
	if err := secret.Set(c, "a", "value"); !errors.Is(err, secret.ErrElsewhere) {
		t.Errorf("set: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	src, err := secret.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.Secret(ctx, "a"); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestEdit(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	c := fileConfig(t)
	edit := func(text string) func(string) error {
		return func(file string) error {
			if got := mode(t, file); got != 0o600 || mode(t, filepath.Dir(file)) != 0o700 || !strings.HasPrefix(file, run+"/") {
				t.Errorf("%s has mode %o", file, got)
			}
			write(t, file+".swp", "copy", 0o600)
			return os.WriteFile(file, []byte(text), 0o600)
		}
	}
	no := func(error) bool { return false }
	if err := secret.Edit(c, edit("a: value of a\nb: value of b\n"), no); err != nil || get(t, c, "b") != "value of b" {
		t.Errorf("edited: %v", err)
	}
	before := read(t, c.File)
	for text, want := range map[string]string{
		"a: [hunter2]\n": "nothing was changed: line 1: the secret a is no text; quote it", "a: x\nb: *hunter2\n": "nothing was changed: it is not YAML",
		"a: x\na: hunter2\n": "nothing was changed: line 2: a is there twice", "hunter2": "nothing was changed: line 1: write a mapping of names and secrets",
	} {
		err := secret.Edit(c, edit(text), no)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	if err := secret.Edit(c, func(string) error { return errors.New("editor failed") }, no); err == nil || read(t, c.File) != before {
		t.Errorf("the file is another one after %v", err)
	}
	tries := []string{"a: [", "a: mended\n"}
	err := secret.Edit(c, func(file string) error {
		text := tries[0]
		tries = tries[1:]
		return edit(text)(file)
	}, func(error) bool { return true })
	if err != nil || get(t, c, "a") != "mended" {
		t.Errorf("the second try: %v", err)
	}
	if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// FuzzSet has a value written beside others: it is read as it was, or refused.
func FuzzSet(f *testing.F) {
	for _, v := range values() {
		f.Add(v, v)
	}
	f.Add("a: |\n  x\n", "y\r")
	dir := f.TempDir()
	c := loom.SecretsConfig{File: filepath.Join(dir, "secrets.age"), Identity: filepath.Join(dir, loom.KeyFile)}
	f.Fuzz(func(t *testing.T, one, other string) {
		first := secret.Set(c, "one", one)
		if err := secret.Set(c, "other", other); err == nil && get(t, c, "other") != other {
			t.Errorf("%q is read as %q", other, get(t, c, "other"))
		}
		if first == nil && get(t, c, "one") != one {
			t.Errorf("%q is read as %q", one, get(t, c, "one"))
		}
	})
}
