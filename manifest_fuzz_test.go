package loom

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzManifest holds that no text makes the loader panic, that each mistake has
// a file and, if it has a line, one that the file has, and that reading the same
// files twice gives the same.
func FuzzManifest(f *testing.F) {
	archives, err := filepath.Glob("testdata/diagnostics/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		ar, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		data, nodes := "", "db1:\ndb2:\nweb1: {groups: [web]}\n"
		for _, file := range ar.Files {
			switch file.Name {
			case "data.yaml":
				data = string(file.Data)
			case "nodes.yaml":
				nodes = string(file.Data)
			}
		}
		for _, file := range ar.Files {
			if strings.HasPrefix(file.Name, "jobs/") {
				f.Add(data, nodes, string(file.Data))
			}
		}
	}
	f.Add("a: &a [x]\r\n", "{\"web\": [\"a\"]}", "\xef\xbb\xbfjobs:\r\n  a: {task: run, args: *a, targets: all, schedule: '@daily'}\u0085b: 1\u2028---\n")
	dir := f.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "jobs"), 0o755); err != nil {
		f.Fatal(err)
	}
	write("loom.yaml", "nodesfile: nodes.yaml\njobspath: jobs\ndatafile: data.yaml\ntimezone: UTC\n")
	tasks := testTasks()
	f.Fuzz(func(t *testing.T, data, nodes, jobs string) {
		texts := map[string]string{"data.yaml": data, "nodes.yaml": nodes, "jobs/a.yaml": jobs}
		for name, text := range texts {
			write(name, text)
		}
		m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), tasks)
		if (m == nil) != (err != nil) {
			t.Fatalf("manifest %v with the error %v", m, err)
		}
		checkPlaces(t, dir, texts, err)
		again, err2 := ReadManifest(filepath.Join(dir, "loom.yaml"), tasks)
		if one, two := fmt.Sprint(err)+describe(m), fmt.Sprint(err2)+describe(again); one != two {
			t.Fatalf("read twice:\n%s\nand\n%s", one, two)
		}
	})
}

func checkPlaces(t *testing.T, dir string, texts map[string]string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("the error %v joins nothing", err)
	}
	for _, e := range joined.Unwrap() {
		var me *ManifestError
		if !errors.As(e, &me) {
			t.Fatalf("%v is no ManifestError", e)
		}
		text, ok := texts[strings.TrimPrefix(me.File, dir+"/")]
		if !ok {
			t.Fatalf("%v is in no file of ours", e)
		}
		if lines := 1 + strings.Count(text, "\n"); me.Line > lines || me.Line < 0 {
			t.Fatalf("%v: the file has %d lines", e, lines)
		}
	}
}

// describe tells all about a manifest that can be told in words.
func describe(m *Manifest) string {
	if m == nil {
		return ""
	}
	var b strings.Builder
	for _, n := range m.Nodes {
		fmt.Fprintf(&b, "%+v\n", *n)
	}
	for _, j := range m.Jobs {
		fmt.Fprintf(&b, "%s %q %s %v %v %s:%d:%d %v\n", j.Name, j.Description, names(j.Targets), j.Schedule, j.After, j.File, j.Line, j.Col, j.Labels)
	}
	for _, w := range m.Warnings {
		fmt.Fprintln(&b, w)
	}
	return b.String()
}
