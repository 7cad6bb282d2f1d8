package tasks_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/loomtest"
	"github.com/dustinlacewell/loom/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRegistry(t *testing.T) {
	reg := tasks.Registry()
	var names []string
	for name, proto := range reg.All() {
		names = append(names, name)
		if _, ok := proto.(loom.Planner); !ok {
			t.Errorf("%s can't plan", name)
		}
		for _, p := range reg.Params(name) {
			if p.Help == "" {
				t.Errorf("%s: parameter %s has no help", name, p.Name)
			}
		}
	}
	want := []string{"get", "hostip", "local", "mount", "ping", "put", "run", "script", "service", "sshfs.mount", "sudo", "unmount", "wait"}
	if !slices.Equal(names, want) {
		t.Errorf("tasks are %q, want %q", names, want)
	}
	for alias, name := range map[string]string{
		"fabric.api.run": "run", "fabric.operations.run": "run", "fabric.api.sudo": "sudo", "fabric.operations.sudo": "sudo",
		"fabric.api.local": "local", "fabric.operations.local": "local", "fabric.api.put": "put", "fabric.operations.put": "put",
		"fabric.api.get": "get", "fabric.operations.get": "get", "loom.system.add_sshfs_mount": "sshfs.mount",
		"loom.system.mount": "mount", "loom.system.unmount": "unmount", "loom.system.run_daemon_cmd": "service",
		"loom.system.gethostip": "hostip",
	} {
		if got, _, ok := reg.Lookup(alias); !ok || got != name {
			t.Errorf("%s is %q, want %q", alias, got, name)
		}
	}
}

// Arguments mean what they meant to Fabric and to the first Loom.
func TestOldArguments(t *testing.T) {
	tests := []struct {
		task   string
		args   []any
		kwargs map[string]any
		want   loom.Task
	}{
		{"fabric.api.run", []any{"touch /tmp/loom_was_here"}, nil, tasks.Run{Command: "touch /tmp/loom_was_here"}},
		{"fabric.api.run", []any{"x", true, false}, nil, tasks.Run{Command: "x", Shell: "true"}},
		{"fabric.operations.run", []any{"x"}, map[string]any{"pty": true, "warn_only": true, "combine_stderr": false, "quiet": true, "shell_escape": true, "timeout": "5s"},
			tasks.Run{Command: "x", Pty: true, WarnOnly: true, Quiet: true, ShellEscape: true, Timeout: 5 * time.Second}},
		{"fabric.api.sudo", []any{"x", true, true, nil, "www"}, nil, nil},
		{"fabric.api.sudo", []any{"x", true, true, false, "www"}, nil, tasks.Sudo{Command: "x", Shell: "true", Pty: true, User: "www"}},
		{"fabric.api.local", []any{"x", true, "/bin/bash"}, nil, tasks.Local{Command: "x", Capture: true, Shell: "/bin/bash"}},
		{"fabric.api.put", []any{"a", "b", true, false, "0644"}, nil, tasks.Put{LocalPath: "a", RemotePath: "b", UseSudo: true, Mode: 0o644, UseGlob: true}},
		{"fabric.operations.put", []any{"a"}, map[string]any{"mirror_local_mode": true, "use_glob": false}, tasks.Put{LocalPath: "a", MirrorLocalMode: true}},
		{"fabric.api.get", []any{"a", "%(host)s/%(path)s"}, nil, tasks.Get{RemotePath: "a", LocalPath: "%(host)s/%(path)s"}},
		{"loom.system.mount", []any{"/mnt/a"}, nil, tasks.Mount{Mountpoint: "/mnt/a"}},
		{"loom.system.unmount", []any{"/mnt/a"}, nil, tasks.Unmount{Mountpoint: "/mnt/a"}},
		{"loom.system.run_daemon_cmd", []any{"nginx", "restart"}, nil, tasks.Service{Name: "nginx", Action: "restart"}},
		{"loom.system.gethostip", []any{"attic"}, nil, tasks.HostIP{Hostname: "attic"}},
	}
	for _, tt := range tests {
		got, err := tasks.Registry().New(tt.task, tt.args, tt.kwargs)
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s%v: error is %v", tt.task, tt.args, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s%v (-want +got):\n%s", tt.task, tt.args, diff)
		}
	}
}

// The files of the first Loom load as they are.
func TestSeed(t *testing.T) {
	m, err := loom.ReadManifest("../testdata/seed/loom.yaml", tasks.Registry())
	if err != nil {
		t.Fatal(err)
	}
	want := tasks.SSHFS{Mounts: []tasks.SSHFSMount{{
		Host: "staging@attic", RemotePath: "/mnt/storage", Mountpoint: "/mnt/storage", Excludes: []string{"staging"},
	}}}
	if diff := cmp.Diff(want, m.Job("mountstorage").Task, cmpopts.IgnoreUnexported(tasks.SSHFS{})); diff != "" {
		t.Errorf("mountstorage (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(tasks.Run{Command: "touch /tmp/loom_was_here"}, m.Job("testtask").Task); diff != "" {
		t.Errorf("testtask (-want +got):\n%s", diff)
	}
}

// Each task keeps the promises that every task makes, on a node with a real
// shell.
func TestContracts(t *testing.T) {
	here := t.TempDir()
	write(t, here, "site/index.html", "<p>")
	write(t, here, "script", "#!/bin/sh\necho $1")
	down := t.TempDir()
	file := func(t *testing.T, s *loomtest.Server, name, text string) {
		t.Helper()
		if err := s.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		task  loom.Task
		setup func(t *testing.T, s *loomtest.Server)
	}{
		{name: "run", task: tasks.Run{Command: "echo hi", Env: map[string]string{"A": "b"}, Stdin: "x"}},
		{name: "run guarded", task: tasks.Run{Command: "touch here", Creates: "here"}},
		{name: "sudo", task: tasks.Sudo{Command: "touch here", User: me(), Unless: "test -e here"}},
		{name: "local", task: tasks.Local{Command: "test $LOOM_NODE = node"}},
		{name: "script", task: tasks.Script{File: here + "/script", Args: []string{"x"}}},
		{name: "put", task: tasks.Put{LocalPath: here + "/site", RemotePath: "www/", Mode: 0o640}},
		{name: "get", task: tasks.Get{RemotePath: "log", LocalPath: down + "/{node}/{path}"}, setup: func(t *testing.T, s *loomtest.Server) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(down, "node")); err != nil {
				t.Fatal(err)
			}
			file(t, s, "log", "one\n")
		}},
		{name: "mount", task: tasks.Mount{Mountpoint: "/proc"}},
		{name: "unmount", task: tasks.Unmount{Mountpoint: "/nothing/there"}},
		{name: "sshfs.mount", task: tasks.SSHFS{Mounts: []tasks.SSHFSMount{{Host: "a", RemotePath: "/b", Mountpoint: "/mnt/c", Excludes: []string{"node"}}}}},
		{name: "hostip", task: tasks.HostIP{Hostname: "localhost"}},
		{name: "ping", task: tasks.Ping{}},
		{name: "wait", task: tasks.Wait{File: "log", Timeout: time.Hour}, setup: func(t *testing.T, s *loomtest.Server) {
			t.Helper()
			file(t, s, "log", "")
		}},
	}
	covered := map[reflect.Type]bool{reflect.TypeFor[tasks.Service](): true} // below /etc: by its own tests
	for _, tt := range tests {
		covered[reflect.TypeOf(tt.task)] = true
		t.Run(tt.name, func(t *testing.T) {
			loomtest.TestTask(t, tt.task, func(t *testing.T) *loomtest.Server {
				t.Helper()
				s := loomtest.Real(t)
				if tt.setup != nil {
					tt.setup(t, s)
				}
				return s
			})
		})
	}
	for name, proto := range tasks.Registry().All() {
		if !covered[reflect.TypeOf(proto)] {
			t.Errorf("nothing holds %s to the contract", name)
		}
	}
}

func me() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "root"
}

// Local knows of the node what a command could want to know.
func TestLocal(t *testing.T) {
	b := newBench(t, shellNode{home: t.TempDir()})
	b.User = "postgres" // what the job's sudo asks of the node is not for here
	_, err := b.apply(t.Context(), tasks.Local{Command: `echo "$LOOM_NODE|$LOOM_NODE_ADDRESS|$LOOM_NODE_PORT|$LOOM_NODE_USER|$LOOM_NODE_GROUPS|$LOOM_JOB|$A"; id -u; echo err >&2; exit 3`,
		Env: map[string]string{"A": "it's"}, WarnOnly: true, Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	uid := strings.TrimSpace(sh(t, "id -u"))
	if got, want := b.out.String(), "db1|192.0.2.7|2222|ann|db eu|nightly|it's\n"+uid+"\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if got := b.err.String(); got != "err\n" {
		t.Errorf("printed %q as errors", got)
	}
}
