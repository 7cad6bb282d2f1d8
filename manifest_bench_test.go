package loom

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkReadManifest reads 10,000 jobs in 1,000 files, with a data file of
// which each uses anchors.
func BenchmarkReadManifest(b *testing.B) {
	for _, hosts := range []int{10, 1000} {
		b.Run(fmt.Sprintf("jobs=10000/files=1000/nodes=%d", hosts), func(b *testing.B) {
			dir := b.TempDir()
			writeLargeManifest(b, dir, 1000, 10, hosts)
			tasks := testTasks()
			b.ReportAllocs()
			for b.Loop() {
				m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), tasks)
				if err != nil || len(m.Jobs) != 10_000 {
					b.Fatal(err)
				}
			}
		})
	}
}

func writeLargeManifest(t testing.TB, dir string, files, jobs, hosts int) {
	t.Helper()
	var nodes, data strings.Builder
	data.WriteString("hosts:\n  - &all [")
	for i := range hosts {
		fmt.Fprintf(&nodes, "node%d: {user: root, ip: 10.0.%d.%d, groups: [g%d], vars: {n: %d}}\n", i, i/256, i%256, i%10, i)
		fmt.Fprintf(&data, "node%d, ", i)
	}
	data.WriteString("]\nmounts:\n")
	for i := range 50 {
		fmt.Fprintf(&data, "  - &mount%d {host: a@b, remotepath: /mnt/%d, mountpoint: /mnt/%d, excludes: [node1]}\n", i, i, i)
	}
	texts := map[string]string{
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\ndatafile: data.yaml\n",
		"nodes.yaml": nodes.String(), "data.yaml": data.String(),
	}
	for f := range files {
		var b strings.Builder
		b.WriteString("jobs:\n")
		for j := range jobs {
			fmt.Fprintf(&b, "  job%d-%d:\n    task: fabric.api.run\n    args: [\"touch /tmp/x%d\"]\n    schedule: \"%d * * * *\"\n    targets: *all\n    description: Job %d of file %d\n", f, j, j, j%60, j, f)
			if j == 0 {
				fmt.Fprintf(&b, "  mount%d:\n    task: sshfs.mount\n    args: [*mount%d, *mount%d]\n    schedule: \"*/5 * * * *\"\n    targets: [\"@g1\", node0]\n", f, f%50, (f+1)%50)
			}
		}
		text := b.String()
		if jobs > 1 { // one of them is the mount
			at := strings.LastIndex(text, fmt.Sprintf("  job%d-%d:", f, jobs-1))
			text = text[:at]
		}
		texts[fmt.Sprintf("jobs/d%d/f%d.yaml", f%20, f)] = text
	}
	writeFiles(t, dir, texts)
}

func BenchmarkRegistryBind(b *testing.B) {
	tasks := testTasks()
	args, kwargs := []any{"uptime"}, map[string]any{"quiet": true}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tasks.New("run", args, kwargs); err != nil {
			b.Fatal(err)
		}
	}
}
