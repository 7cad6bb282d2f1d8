package loom

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// knownSecrets is a source that has them in memory.
type knownSecrets struct {
	values map[string]string
	files  []string
	asked  *int
	err    error
}

func (s knownSecrets) Secret(_ context.Context, name string) (string, error) {
	if s.asked != nil {
		*s.asked++
	}
	if s.err != nil {
		return "", s.err
	}
	if v, ok := s.values[name]; ok {
		return v, nil
	}
	return "", fmt.Errorf("no %s: %w", name, ErrNotFound)
}

func (s knownSecrets) Names() []string { return slices.Sorted(maps.Keys(s.values)) }
func (s knownSecrets) Files() []string { return s.files }

func (s knownSecrets) open(SecretsConfig) (SecretSource, error) { return s, nil }

// show is a task whose command shows what is in it.
type testShow struct {
	Command string `loom:"required"`
	Stdin   string
	Port    int
}

func (testShow) Apply(context.Context, *Session) error { return nil }
func (testShow) Exposes() map[string]string {
	return map[string]string{"command": "put it into stdin"}
}

func secretReader(t *testing.T, source knownSecrets, files map[string]string) *ManifestReader {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nsecrets: {dir: secrets}\n",
		"nodes.yaml": "a: {user: ann}\n",
	}
	maps.Copy(all, files)
	writeFiles(t, dir, all)
	tasks := testTasks()
	tasks.Add("show", testShow{})
	return &ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: tasks, Strict: true, Secrets: source.open}
}

func TestSecretsAreValues(t *testing.T) {
	r := secretReader(t, knownSecrets{values: map[string]string{
		"db": "correct horse", "hook": "battery staple", "odd": `a{{.Node}}"{`, "app/key": "one\ntwo-long\n"}},
		map[string]string{
			"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\nnotify: {ops: {url: 'https://x/${secret:hook}'}}\nsecrets: {dir: secrets}\n",
			"nodes.yaml": "a: {user: ann, password: '${secret:db}', sudo: {password: plain-password}}\nb: {user: bob-the-builder, password: bob-the-builder}\n",
			"jobs/a.yaml": `jobs:
  one: {task: show, args: ['psql'], kwargs: {stdin: '${secret:db}'}, targets: a, schedule: manual, env: {K: '${secret:app/key}'}}
  odd: {task: show, args: [x], kwargs: {stdin: '{{.Node.Name}} ${secret:odd}{{.Job}}'}, targets: a, schedule: manual}
  plain: {task: show, args: [x], kwargs: {stdin: '${secret:odd}'}, targets: a, schedule: manual, dir: '${secret:odd}', description: 'not ${secret:db}', labels: {a: b, c: '${secret:hook}'}}
`,
		})
	m, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := string(m.Node("a").Password); got != "correct horse" {
		t.Errorf("the node's password is %q", got)
	}
	var target struct{ URL string }
	if err := m.Config.NotifyTarget("ops").Decode(&target); err != nil || target.URL != "https://x/battery staple" {
		t.Errorf("the main file has %q (%v)", target.URL, err)
	}
	one := m.Job("one")
	if got := one.Task.(testShow).Stdin; got != "correct horse" || one.Env["K"] != "one\ntwo-long\n" {
		t.Errorf("the job has %q and %q", got, one.Env)
	}
	for job, want := range map[string]string{"odd": `a a{{.Node}}"{odd`, "plain": `a{{.Node}}"{`} {
		task, err := m.Job(job).Task.(*templated).filled(&Session{Node: m.Node("a"), Job: job})
		if err != nil || task.(testShow).Stdin != want {
			t.Errorf("%s reads %+v, %v, want %q", job, task, err, want)
		}
	}
	if j := m.Job("plain"); j.Description != "not [secret]" || j.Labels["c"] != "[secret]" || j.Labels["a"] != "b" {
		t.Errorf("what is said of a job: %q, %q", j.Description, j.Labels)
	}
	if got := m.Job("plain").Dir; got != `a{{.Node}}"{` {
		t.Errorf("what is no template is %q", got)
	}
	for _, text := range []string{"correct horse", "plain-password", "battery%20staple", "two-long", `a{{.Node}}\"{`} {
		if got := m.Redact("<" + text + ">"); got != "<[secret]>" {
			t.Errorf("%q is told as %q", text, got)
		}
	}
	if got := m.Redact("bob-the-builder"); got != "bob-the-builder" {
		t.Errorf("a password that is the user's name hides it: %q", got)
	}
	var uses []string
	for _, u := range m.Secrets {
		uses = append(uses, fmt.Sprintf("%s %s:%d:%d", u.Name, filepath.Base(u.File), u.Line, u.Col))
	}
	if want := "app/key a.yaml:2:109, db a.yaml:2:53, db a.yaml:4:133, db nodes.yaml:1:26, hook a.yaml:4:171, hook loom.yaml:3:21, odd a.yaml:3:48, odd a.yaml:4:50, odd a.yaml:4:103"; strings.Join(uses, ", ") != want {
		t.Errorf("used at %s", strings.Join(uses, ", "))
	}
}

func TestSecretMistakes(t *testing.T) {
	const job = "jobs: {j: {task: show, args: [x], kwargs: {stdin: '${secret:%s}'}, targets: a, schedule: manual}}\n"
	source := knownSecrets{values: map[string]string{"database": "correct horse", "none": "", "port": "12c45hidden"}}
	for _, tt := range []struct {
		name, main, job string
		source          knownSecrets
		want            string
	}{
		{"unknown", "secrets: {dir: s}", fmt.Sprintf(job, "databse"), source,
			`jobs/a.yaml:1:51: ${secret:databse}: there is no such secret (did you mean "database"?)`},
		{"empty", "secrets: {dir: s}", fmt.Sprintf(job, "none"), source, "jobs/a.yaml:1:51: ${secret:none}: the secret is empty"},
		{"name", "secrets: {dir: s}", fmt.Sprintf(job, "a/../b"), source,
			"jobs/a.yaml:1:51: ${secret:a/../b}: that can't be the name of a secret: use letters, digits, _ - . and /, and begin with a letter or _"},
		{"nowhere", "", fmt.Sprintf(job, "x"), source,
			"jobs/a.yaml:1:51: ${secret:x}: the main file does not say where secrets are: add secrets: {file: secrets.age}"},
		{"two", "secrets: {dir: s, file: x}", "", source, "loom.yaml:3:1: secrets: file, dir and command exclude each other: keep one"},
		{"nothing", "secrets: {}", "", source, "loom.yaml:3:1: secrets: say where they are: file: secrets.age, dir: PATH, or command: [PROGRAM, ...]"},
		{"circle", "secrets: {dir: '${secret:x}'}", "", source,
			"loom.yaml:3:16: ${secret:x}: the main file does not say where secrets are: add secrets: {file: secrets.age}"},
		{"down", "secrets: {dir: s}", fmt.Sprintf(job, "x"), knownSecrets{err: errors.New("vault is sealed")},
			"jobs/a.yaml:1:51: ${secret:x}: vault is sealed"},
		{"a secret of the wrong type", "secrets: {dir: s}",
			"jobs: {j: {task: show, args: [x], kwargs: {port: '${secret:port}'}, targets: a, schedule: manual}}\n", source,
			`jobs/a.yaml:1:50: parameter "port": write a whole number, not [secret]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := secretReader(t, tt.source, map[string]string{
				"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\n" + tt.main + "\n", "jobs/a.yaml": tt.job})
			_, err := r.Read(t.Context())
			if got := strings.ReplaceAll(fmt.Sprint(err), filepath.Dir(r.File)+"/", ""); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestSecretWarnings(t *testing.T) {
	r := secretReader(t, knownSecrets{values: map[string]string{"pin": "1234", "db": "correct horse"}}, map[string]string{
		"jobs/a.yaml": `jobs:
  one: {task: show, args: ['mysql -p${secret:db}'], targets: a, schedule: manual}
  two: {task: show, kwargs: {command: 'mysql -p${secret:db}', stdin: '${secret:pin}'}, targets: a, schedule: manual}
`})
	m, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range m.Warnings {
		got = append(got, strings.ReplaceAll(w.Error(), filepath.Dir(r.File)+"/", ""))
	}
	want := []string{
		"jobs/a.yaml:2:28: a secret in command of show: put it into stdin (in 2 places of this file)",
		"jobs/a.yaml:3:70: the secret pin has fewer than 6 characters, so it can't be told from other text: it is shown wherever something prints it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSecretsKeepWhatWorked has the source of secrets break, and mend.
func TestSecretsKeepWhatWorked(t *testing.T) {
	broken := errors.New("the key is gone")
	var opened error
	r := secretReader(t, knownSecrets{}, map[string]string{
		"jobs/a.yaml": "jobs: {j: {task: show, args: [x], kwargs: {stdin: '${secret:db}'}, targets: a, schedule: manual}}\n"})
	r.Strict = false
	value := "correct horse"
	r.Secrets = func(SecretsConfig) (SecretSource, error) {
		return knownSecrets{values: map[string]string{"db": value}, files: []string{"/somewhere/secrets.age"}}, opened
	}
	stdin := func(m *Manifest) string { return m.Job("j").Task.(testShow).Stdin }
	m, err := r.Read(t.Context())
	if err != nil || stdin(m) != "correct horse" || !slices.Contains(m.Files, "/somewhere/secrets.age") {
		t.Fatalf("at first: %v, %v", m, err)
	}
	opened = broken
	m, err = r.Read(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "loom.yaml:4:10: secrets: the key is gone") || stdin(m) != "correct horse" {
		t.Errorf("broken: %v, with %v", stdin(m), err)
	}
	opened, value = nil, "battery staple"
	m, err = r.Read(t.Context())
	if err != nil || stdin(m) != "battery staple" {
		t.Errorf("mended: %v, with %v", stdin(m), err)
	}
	if got := m.Redact("correct horse, battery staple"); got != "[secret], [secret]" {
		t.Errorf("of the old and the new one is told %q", got)
	}
}

// TestSecretProgramIsAskedNowAndThen counts how often it is.
func TestSecretProgramIsAskedNowAndThen(t *testing.T) {
	asked := 0
	source := knownSecrets{values: map[string]string{"db": "correct horse"}, asked: &asked}
	const job = "jobs: {j: {task: show, args: [x], kwargs: {stdin: '${secret:db}'}, targets: a, schedule: manual}}\n"
	r := secretReader(t, source, map[string]string{
		"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\nsecrets: {command: [pass, show]}\n", "jobs/a.yaml": job})
	read := func(want int) {
		t.Helper()
		if _, err := r.Read(t.Context()); err != nil || asked != want {
			t.Errorf("asked %d times, want %d (%v)", asked, want, err)
		}
	}
	read(1)
	read(1)
	r.Refresh()
	read(2)
	for name, v := range r.told.values {
		v.at = v.at.Add(-5 * time.Minute)
		r.told.values[name] = v
	}
	read(3)
}

func TestSourcesAreWhatPeopleWrite(t *testing.T) {
	r := secretReader(t, knownSecrets{values: map[string]string{"db": "correct horse"}, files: []string{"/somewhere/secrets.yaml"}}, map[string]string{
		"loom.yaml":    "nodesfile: nodes.yaml\njobspath: jobs\ndatafile: data.yaml\nsecrets: {dir: secrets}\n",
		"data.yaml":    "x: &x [a]\n",
		"nodes.yaml":   "a: {password: '${file:creds.yaml}', vars: {x: '${secret:db}'}}\n",
		"creds.yaml":   "hunter22\n",
		"jobs/a.yaml":  "jobs: {j: {task: nothing, targets: a, schedule: manual}}\n",
		"jobs/no.yaml": "x: &y 1\n",
	})
	m, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(strings.Join(m.Sources, " "), filepath.Dir(r.File)+"/", "")
	if want := "data.yaml jobs/a.yaml jobs/no.yaml loom.yaml nodes.yaml"; got != want {
		t.Errorf("sources %q, want %q", got, want)
	}
	if !slices.Contains(m.Files, filepath.Join(filepath.Dir(r.File), "creds.yaml")) {
		t.Errorf("files %q", m.Files)
	}
}
