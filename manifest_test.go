package loom

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// Tasks for tests, called as the original's manifests call theirs.
type (
	testRun struct {
		Command string `loom:"required" help:"shell command line"`
		Shell   string `help:"shell to run it with"`
		Quiet   bool
	}
	testMounts struct {
		Mounts []testMount `loom:"rest,required" help:"what to mount"`
	}
	testMount struct {
		Host       string `loom:"required"`
		RemotePath string `loom:"required"`
		MountPoint string `loom:"required"`
		Excludes   []string
	}
)

func (testRun) Apply(context.Context, *Session) error    { return nil }
func (testMounts) Apply(context.Context, *Session) error { return nil }

func testTasks() *Registry {
	r := new(Registry)
	r.Add("run", testRun{Shell: "/bin/sh"}, "fabric.api.run")
	r.Add("sshfs.mount", testMounts{}, "loom.system.add_sshfs_mount")
	r.Add("nothing", TaskFunc(func(context.Context, *Session) error { return nil }))
	return r
}

func names(nodes []*Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return strings.Join(out, " ")
}

func TestReadManifestTakesTheOriginalsFiles(t *testing.T) {
	m, err := ReadManifest("testdata/seed/loom.yaml", testTasks())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(m.Nodes); got != "db1 db2 db3 db4 production staging" {
		t.Errorf("nodes: %s", got)
	}
	mount := m.Job("mountstorage")
	if mount == nil || m.Job("testtask") == nil || len(m.Jobs) != 2 {
		t.Fatalf("jobs: %v, want mountstorage and testtask", m.Jobs)
	}
	if got := names(mount.Targets); got != "production staging" {
		t.Errorf("mountstorage targets %s", got)
	}
	if got, want := mount.Task.(testMounts).Mounts[0], (testMount{"staging@attic", "/mnt/storage", "/mnt/storage", []string{"staging"}}); got.Host != want.Host || got.RemotePath != want.RemotePath || got.MountPoint != want.MountPoint {
		t.Errorf("mountstorage has %+v, want %+v", got, want)
	}
	if got := names(m.Job("testtask").Targets); got != "db1 db2 db3 db4" {
		t.Errorf("testtask targets %s", got)
	}
	if m.Config.MinWorkers != 0 || m.Config.MaxWorkers != 10 {
		t.Errorf("workers: %d to %d, want 0 to 10", m.Config.MinWorkers, m.Config.MaxWorkers)
	}
	if want, err := filepath.Abs("testdata/seed"); err != nil || mount.Base != want {
		t.Errorf("relative paths of mountstorage start at %q, want %q (%v)", mount.Base, want, err)
	}
	if mount.Schedule == nil || mount.File != "testdata/seed/jobs/jobs.yaml" || mount.Line != 4 {
		t.Errorf("mountstorage: schedule %v, %s:%d", mount.Schedule, mount.File, mount.Line)
	}
}
