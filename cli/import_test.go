package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/golden"
)

// importing runs an import of a text, to a directory too if that has a name.
func importing(t *testing.T, text string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &Program{Name: "loomd", Tasks: importTasks(), Stdin: strings.NewReader(text), Stdout: &out, Stderr: &errs}
	err = p.Execute(t.Context(), p.Command(), append([]string{"import"}, args...))
	p.Report(err)
	return out.String(), errs.String(), err
}

// A shellTask has the parameter of the task run.
type shellTask struct {
	loom.TaskFunc `yaml:"-"`
	Command       string `loom:"required"`
}

func importTasks() *loom.Registry {
	r := new(loom.Registry)
	r.Add("run", shellTask{})
	return r
}

// TestImport imports what is in testdata/import, and compares what that makes with
// the files beside it. What it makes is read as the daemon would.
func TestImport(t *testing.T) {
	for _, c := range []struct {
		file string
		args []string
	}{
		{"crontab", []string{"crontab"}},
		{"system.crontab", []string{"crontab", "--system"}},
		{"hosts.ini", []string{"ansible-inventory"}},
		{"hosts.yaml", []string{"ansible-inventory"}},
		{"ssh_config", []string{"ssh-config"}},
	} {
		t.Run(c.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata/import", c.file))
			if err != nil {
				t.Fatal(err)
			}
			args := append(c.args, "-")
			stdout, stderr, err := importing(t, string(text), args...)
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr)
			}
			golden.Compare(t, stdout+"\n--- stderr\n"+stderr, filepath.Join("testdata/import", c.file+".golden"))
			if _, stderr, err := importing(t, string(text), append(args, "--to", t.TempDir())...); err != nil {
				t.Errorf("%v\n%s", err, stderr)
			}
		})
	}
}

// TestImportRefusals tells what nothing can be made of.
func TestImportRefusals(t *testing.T) {
	there := t.TempDir()
	if err := os.WriteFile(filepath.Join(there, "nodes.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want, args string }{
		{"# nothing\n", "there is no job in it", "crontab -"},
		{"* * * * * root\n", "neither a variable nor times, a user and a command", "crontab --system -"},
		{"\xff", "is no text in UTF-8", "crontab -"},
		{"* * * * * true\n", "names of nodes are needed", "crontab --targets @web --to x -"},
		{"* * * * * true\n", "nodes.yaml exists already, and nothing was written", "crontab --to " + there + " -"},
		{"Host *\n", "there is no node in it", "ssh-config -"},
		{"[web\nx\n", "is not the beginning of a group", "ansible-inventory -"},
		{"all:\n  hosts: [\n", "stdin: line 2", "ansible-inventory -"},
		{"", "no such file", "crontab /nonexistent"},
		{`{"_meta": {"hostvars": {}}, "web": {"hosts": ["a"]}}`, "needs no import", "ansible-inventory -"},
	} {
		_, stderr, err := importing(t, c.text, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(stderr, c.want) {
			t.Errorf("import %s of %q: %v\n%s\nwant %q", c.args, c.text, err, stderr, c.want)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(there, "*")); len(files) != 1 {
		t.Errorf("something was written beside what was there: %q", files)
	}
}

// FuzzImport holds that whatever is imported, what comes out is a manifest, if
// anything does, and that each note has a line that the file has.
func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/import/*")
	if err != nil {
		f.Fatal(err)
	}
	kinds := []string{"crontab", "system", "ansible-inventory", "ssh-config"}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for kind := range kinds {
			f.Add(kind, string(text))
		}
	}
	f.Add(0, "A='\n* * * * * a%b\\%%c\n@daily \"x y\"  \n")
	f.Add(2, "all:\n  hosts:\n    a: {x: !!binary aGk=, y: [~, 1.5, {2: 3}]}\n    'b[0:2]':\n")
	f.Fuzz(func(t *testing.T, kind int, text string) {
		args := []string{kinds[uint(kind)%4], "--to", filepath.Join(t.TempDir(), "new"), "-"}
		if args[0] == "system" {
			args = append([]string{"crontab", "--system"}, args[1:]...)
		}
		_, stderr, err := importing(t, text, args...)
		if err != nil && strings.Contains(stderr, "was written, but") {
			t.Errorf("import %v of\n%s\n%s", args, text, stderr)
		}
	})
}

// FuzzPercents holds that what crontab(5) calls the command and its input can be put
// together again.
func FuzzPercents(f *testing.F) {
	f.Add(`date +\%F%one%two`)
	f.Add(`a\\%b\`)
	f.Fuzz(func(t *testing.T, text string) {
		command, input := percents(text)
		whole := strings.ReplaceAll(command, "%", `\%`)
		if input != "" {
			body := strings.Split(strings.TrimSuffix(input, "\n"), "\n")
			for i := range body {
				body[i] = strings.ReplaceAll(body[i], "%", `\%`)
			}
			whole += "%" + strings.Join(body, "%")
		}
		if !strings.Contains(text, "\n") && whole != text {
			t.Errorf("%q is %q and %q, which is %q", text, command, input, whole)
		}
	})
}
