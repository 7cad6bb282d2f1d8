package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// How much of a file is shown, and how much more is looked at: a secret may go on
// there.
const (
	sourceBytes = 1 << 20
	sourceMore  = 128 << 10
)

// A ManifestInfo says what the manifest in force is made of.
type ManifestInfo struct {
	File     string         `json:"file" doc:"The main file" example:"/etc/loom/loom.yaml"`
	Files    []string       `json:"files" doc:"The files and directories that it was read from"`
	Stale    []string       `json:"stale" doc:"Those of which an older text is in force, as they have mistakes now"`
	Ignored  []string       `json:"ignored" doc:"Files among the job manifests that hold nothing of Loom's"`
	Jobs     int            `json:"jobs" example:"12"`
	Nodes    int            `json:"nodes" example:"40"`
	Groups   map[string]int `json:"groups" doc:"How many nodes each group has"`
	Problems int            `json:"problems" doc:"How many mistakes there are: see list-problems" example:"0"`
	Warnings int            `json:"warnings" doc:"How much is said to no effect" example:"0"`
	Timezone string         `json:"timezone,omitempty" doc:"IANA zone of jobs that have none; left out: that of the daemon's machine" example:"Europe/Berlin"`
	Workers  int            `json:"max_workers" doc:"Nodes at once, over all jobs" example:"10"`
}

// A ManifestProblem is a mistake in a file, or what it says to no effect.
type ManifestProblem struct {
	Severity string `json:"severity" enum:"error,warning"`
	File     string `json:"file" example:"/etc/loom/jobs/backup.yaml"`
	Line     int    `json:"line,omitempty" doc:"From 1; left out: it is not at one place"`
	Col      int    `json:"col,omitempty"`
	Text     string `json:"text" doc:"What is wrong, and what may have been meant" example:"unknown key \"scedule\" (did you mean \"schedule\"?)"`
}

// Error returns the problem as editors understand it.
func (p ManifestProblem) Error() string {
	return (&loom.ManifestError{File: p.File, Line: p.Line, Col: p.Col, Err: fmt.Errorf("%s", p.Text)}).Error()
}

// A Source is a file that the manifest was read from. Its text is as it is now,
// without passwords and secrets.
type Source struct {
	File     string    `json:"file" example:"/etc/loom/jobs/backup.yaml"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified,omitzero"`
	Stale    bool      `json:"stale,omitempty" doc:"It has mistakes, and an older text is in force"`
	Jobs     []string  `json:"jobs,omitempty" doc:"The jobs that it defines"`
	Text     string    `json:"text,omitempty" doc:"If one file was asked for"`
	Cut      bool      `json:"cut,omitempty" doc:"The text is not all of it"`
}

// A TaskInfo describes a task that manifests can use.
type TaskInfo struct {
	Name    string       `json:"name" example:"run"`
	Aliases []string     `json:"aliases,omitempty" doc:"What else it is called" example:"[\"fabric.api.run\"]"`
	DryRun  bool         `json:"dry_run" doc:"It can tell what it would change"`
	Params  []loom.Param `json:"parameters" doc:"In order: args fill them by position, kwargs by name"`
	GoType  string       `json:"go_type" example:"github.com/dustinlacewell/loom/tasks.Run"`
}

// NewTaskInfo describes the task of that name or alias. ok is false if there is none.
func NewTaskInfo(r *loom.Registry, name string) (info TaskInfo, ok bool) {
	name, proto, ok := r.Lookup(name)
	if !ok {
		return TaskInfo{}, false
	}
	t := reflect.TypeOf(proto)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	_, dry := proto.(loom.Planner)
	params := r.Params(name)
	if params == nil {
		params = []loom.Param{}
	}
	return TaskInfo{Name: name, Aliases: r.Aliases(name), DryRun: dry, Params: params, GoType: t.PkgPath() + "." + t.Name()}, true
}

// files adds what concerns the manifest, and what it can be made of.
func (s *Server) files(api huma.API) {
	get(api, "/manifest", "manifest", "get-manifest", "What the manifest in force is made of", func(_ context.Context, _ *struct{}) (ManifestInfo, error) {
		m, err := s.inForce("read manifests")
		if err != nil {
			return ManifestInfo{}, err
		}
		return newManifestInfo(m), nil
	})
	type problems struct {
		Severity string `query:"severity" enum:"error,warning" doc:"Left out: all"`
		Cursor   string `query:"cursor" doc:"The next of the page before"`
		Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	get(api, "/manifest/problems", "manifest", "list-problems", "What is wrong with the files, by file and line", func(_ context.Context, in *problems) (Page[ManifestProblem], error) {
		m, err := s.inForce("read manifests")
		if err != nil {
			return Page[ManifestProblem]{}, err
		}
		all := slices.DeleteFunc(problemsOf(m), func(p ManifestProblem) bool { return in.Severity != "" && p.Severity != in.Severity })
		return paged(all, in.Cursor, in.Limit, problemKey), nil
	})
	type sources struct {
		File   string `query:"file" doc:"Only this file, with its text" example:"/etc/loom/jobs/backup.yaml"`
		Cursor string `query:"cursor" doc:"The next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	}
	get(api, "/manifest/sources", "manifest", "list-sources", "The files that the manifest was read from", func(_ context.Context, in *sources) (Page[Source], error) {
		m, err := s.inForce("read manifests")
		if err != nil {
			return Page[Source]{}, err
		}
		if in.File != "" {
			one, err := sourceText(m, in.File)
			return Page[Source]{Items: []Source{one}}, err
		}
		page := paged(m.Sources, in.Cursor, in.Limit, func(file string) string { return file })
		shown := Page[Source]{Items: []Source{}, Next: page.Next}
		for _, file := range page.Items {
			if one, err := newSource(m, file); err == nil { // else it has gone
				shown.Items = append(shown.Items, one)
			}
		}
		return shown, nil
	})
	get(api, "/tasks", "tasks", "list-tasks", "The tasks that manifests can use, by name", func(_ context.Context, _ *struct{}) (Page[TaskInfo], error) {
		reg, err := s.registry()
		page := Page[TaskInfo]{Items: []TaskInfo{}}
		for name := range reg.All() {
			one, _ := NewTaskInfo(reg, name) // it is there
			page.Items = append(page.Items, one)
		}
		return page, err
	})
	type task struct {
		Task string `path:"task" doc:"A task's name, or another that it has"`
	}
	get(api, "/tasks/{task}", "tasks", "get-task", "A task, and what parameters it takes", func(_ context.Context, in *task) (TaskInfo, error) {
		reg, err := s.registry()
		if err != nil {
			return TaskInfo{}, err
		}
		one, ok := NewTaskInfo(reg, in.Task)
		if !ok {
			_, err = reg.New(in.Task, nil, nil) // which says what may have been meant
		}
		return one, err
	})
	get(api, "/schema", "tasks", "get-schema", "The JSON Schema of manifests that use these tasks, for editors", func(_ context.Context, _ *struct{}) (json.RawMessage, error) {
		reg, err := s.registry()
		if err != nil {
			return nil, err
		}
		return reg.Schema(), nil
	})
}

// registry returns what manifests can use.
func (s *Server) registry() (*loom.Registry, error) {
	if s.Control != nil {
		if r := s.Control.Tasks(); r != nil {
			return r, nil
		}
	}
	return nil, s.alone("tell of tasks")
}

func newManifestInfo(m *loom.Manifest) ManifestInfo {
	text := func(s string) string { return s }
	info := ManifestInfo{File: m.File, Files: list(m.Files, text), Stale: list(m.Stale, text), Ignored: list(m.Ignored, text),
		Jobs: len(m.Jobs), Nodes: len(m.Nodes), Groups: map[string]int{}, Problems: len(m.Problems), Warnings: len(m.Warnings),
		Timezone: zoneName(m.Config.Timezone), Workers: cmp.Or(m.Config.MaxWorkers, 10)}
	for _, n := range m.Nodes {
		for _, g := range n.Groups {
			info.Groups[g]++
		}
	}
	return info
}

// problemsOf returns what is wrong with the files, in order of problemKey.
func problemsOf(m *loom.Manifest) []ManifestProblem {
	var all []ManifestProblem
	add := func(severity string, problems []*loom.ManifestError) {
		for _, p := range problems {
			all = append(all, ManifestProblem{severity, p.File, p.Line, p.Col, p.Err.Error()})
		}
	}
	add("error", m.Problems)
	add("warning", m.Warnings)
	slices.SortStableFunc(all, func(a, b ManifestProblem) int { return cmp.Compare(problemKey(a), problemKey(b)) })
	return all
}

// problemKey sorts problems by their place, errors before warnings.
func problemKey(p ManifestProblem) string {
	return fmt.Sprintf("%s:%08d:%06d:%s:%s", p.File, p.Line, p.Col, p.Severity, p.Text)
}

// newSource returns what a list says of a file.
func newSource(m *loom.Manifest, file string) (Source, error) {
	info, err := os.Stat(file)
	if err != nil {
		return Source{}, err
	}
	src := Source{File: file, Bytes: info.Size(), Modified: utc(info.ModTime()), Stale: slices.Contains(m.Stale, file)}
	if !info.Mode().IsRegular() {
		return src, fmt.Errorf("%s is no file: %w", file, loom.ErrNotFound)
	}
	for _, j := range m.Jobs {
		if j.File == file {
			src.Jobs = append(src.Jobs, j.Name)
		}
	}
	return src, nil
}

// sourceText returns a file with its text.
func sourceText(m *loom.Manifest, file string) (Source, error) {
	if !slices.Contains(m.Sources, file) {
		return Source{}, fmt.Errorf("file %s: the manifest was not read from it, or it is not for showing: %w", file, loom.ErrNotFound)
	}
	src, err := newSource(m, file)
	if err == nil {
		var f *os.File
		if f, err = os.Open(file); err == nil {
			defer f.Close() //nolint:errcheck // it was read
			var text []byte
			text, err = io.ReadAll(io.LimitReader(f, sourceBytes+sourceMore))
			src.Cut = len(text) > sourceBytes
			src.Text = harmlessSource(m, string(text)) // before it is cut, perhaps within a secret
			src.Text = src.Text[:min(len(src.Text), sourceBytes)]
		}
	}
	if os.IsNotExist(err) {
		err = fmt.Errorf("file %s is gone: %w", file, loom.ErrNotFound)
	} else if pathError, ok := err.(*fs.PathError); ok { //nolint:errorlint // of os, as it comes
		err = fmt.Errorf("file %s can't be read: %w", file, pathError.Err)
	}
	return src, err
}

// What is under a key whose name says that nobody should see it: in a line of its own
// all of the line, between braces up to the next key.
var (
	confidentialLine = regexp.MustCompile(`(?im)^([ \t-]*["']?[\w-]*` + confidentialKeys + `["']?[ \t]*:[ \t]+)([^\s{].*)$`)
	confidentialFlow = regexp.MustCompile(`(?i)((?:(?:^|[^$]){|,)[ \t]*["']?[\w-]*` + confidentialKeys + `["']?[ \t]*:[ \t]*)("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\$\{[^}\n]*\}|[^\s,}\]{][^,}\]\n]*)`)
)

// confidentialName is such a key alone.
var confidentialName = regexp.MustCompile(`(?i)` + confidentialKeys + `$`)

const confidentialKeys = `(?:password|passwd|passphrase|secret|token|api_?key)`

// harmlessSource takes out of a text what the manifest knows as secret, and what a
// newer text says that it does not know yet.
func harmlessSource(m *loom.Manifest, text string) string {
	text = m.Redact(text)
	for _, confidential := range []*regexp.Regexp{confidentialLine, confidentialFlow} {
		text = confidential.ReplaceAllStringFunc(text, func(found string) string {
			parts := confidential.FindStringSubmatch(found)
			for _, reference := range []string{"${", "*", "[secret]"} { // it says where the secret is, or is none
				if value := strings.Trim(parts[2], `"' `); strings.HasPrefix(value, reference) && !strings.ContainsAny(value, " \t") {
					return found
				}
			}
			return parts[1] + "[secret]"
		})
	}
	return text
}
