package loom

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A readerRig is a configuration in a directory, and who reads it.
type readerRig struct {
	t   *testing.T
	dir string
	*ManifestReader
}

func newReaderRig(t *testing.T) *readerRig {
	t.Helper()
	r := &readerRig{t: t, dir: t.TempDir()}
	r.write("loom.yaml", "nodesfile: nodes.yaml\njobspath: jobs\ndatafile: data.yaml\nstate: state\n")
	r.write("nodes.yaml", "db1:\ndb2:\n")
	r.write("data.yaml", "x: &dbs [db1, db2]\n")
	r.write("jobs/a.yaml", "jobs:\n  a: {task: nothing, targets: *dbs, schedule: manual}\n")
	r.write("jobs/b.yaml", "jobs:\n  b: "+oneJob+"\n")
	r.restart()
	return r
}

// restart forgets all but what is on the disk.
func (r *readerRig) restart() {
	r.ManifestReader = &ManifestReader{File: filepath.Join(r.dir, "loom.yaml"), Tasks: testTasks()}
}

// write replaces a file as an editor does.
func (r *readerRig) write(name, text string) {
	r.t.Helper()
	writeFiles(r.t, r.dir, map[string]string{name + ".new": text})
	if err := os.Rename(filepath.Join(r.dir, name+".new"), filepath.Join(r.dir, name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *readerRig) remove(name string) {
	r.t.Helper()
	if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
		r.t.Fatal(err)
	}
}

// expect reads and compares the jobs, the files of which an older text is in
// use, and each problem's beginning.
func (r *readerRig) expect(jobs, stale string, problems ...string) *Manifest {
	r.t.Helper()
	m, err := r.Read(r.t.Context())
	gotStale, gotJobs := "", "no manifest"
	if m != nil {
		var list []string
		for _, j := range m.Jobs {
			list = append(list, j.Name)
		}
		gotJobs = strings.Join(list, " ")
		gotStale = strings.ReplaceAll(strings.Join(m.Stale, " "), r.dir+"/", "")
	}
	if gotJobs != jobs || gotStale != stale {
		r.t.Errorf("jobs %q and older texts of %q, want %q and %q (%v)", gotJobs, gotStale, jobs, stale, err)
	}
	var said []string
	if err != nil {
		said = strings.Split(strings.ReplaceAll(err.Error(), r.dir+"/", ""), "\n")
	}
	if len(said) != len(problems) {
		r.t.Errorf("problems %q, want %q", said, problems)
		return m
	}
	for i, want := range problems {
		if !strings.HasPrefix(said[i], want) {
			r.t.Errorf("problem %q, want %q", said[i], want)
		}
	}
	if m != nil && len(m.Problems) != len(problems) {
		r.t.Errorf("the manifest has the problems %v, want %d", m.Problems, len(problems))
	}
	return m
}

func TestManifestReader(t *testing.T) {
	const broken = "jobs: [\n"
	const moved = "jobs/b.yaml:2:3: job \"b\": write a mapping"
	steps := []struct {
		name string
		do   func(r *readerRig)
	}{
		{"a broken job manifest keeps its own text, others move on", func(r *readerRig) {
			r.write("jobs/b.yaml", "jobs:\n  b: text\n")
			r.write("jobs/a.yaml", "jobs:\n  a2: "+oneJob+"\n")
			r.write("jobs/c.yaml", "jobs:\n  c: "+oneJob+"\n")
			r.expect("a2 b c", "jobs/b.yaml", moved)
			r.restart()
			r.expect("a2 b c", "jobs/b.yaml", moved)
			r.write("jobs/b.yaml", "jobs:\n  b2: "+oneJob+"\n")
			r.expect("a2 b2 c", "")
		}},
		{"a broken nodes file keeps everything", func(r *readerRig) {
			r.write("nodes.yaml", "db1: {prot: 1}\ndb2:\n")
			r.write("jobs/c.yaml", "jobs:\n  c: "+oneJob+"\n")
			m := r.expect("a b", "nodes.yaml", "nodes.yaml:1:7: db1: unknown key")
			if m.Node("db2") == nil {
				r.t.Error("a node is gone")
			}
			if !slices.Contains(r.Files(), filepath.Join(r.dir, "jobs/c.yaml")) {
				r.t.Error("the new file is not watched")
			}
			r.restart()
			r.expect("a b", "nodes.yaml", "nodes.yaml:1:7: db1: unknown key")
			r.write("nodes.yaml", "db1:\ndb2:\n")
			r.expect("a b c", "")
		}},
		{"a broken data file keeps everything", func(r *readerRig) {
			r.write("data.yaml", "x: &dbs [db1, db2]\n...\n")
			r.expect("a b", "data.yaml", "data.yaml:2:1: the data file ends")
		}},
		{"a broken main file keeps everything, and is found again", func(r *readerRig) {
			r.write("loom.yaml", "state: state # here\nnodesfile: [\n")
			r.expect("a b", "loom.yaml", "loom.yaml:")
			r.restart()
			r.expect("a b", "loom.yaml", "loom.yaml:")
		}},
		{"a main file that is gone keeps everything", func(r *readerRig) {
			r.remove("loom.yaml")
			r.expect("a b", "loom.yaml", "loom.yaml: no configuration file")
			r.restart()
			r.State = filepath.Join(r.dir, "state")
			r.expect("a b", "loom.yaml", "loom.yaml: no configuration file")
		}},
		{"a node that jobs still use can't just go", func(r *readerRig) {
			r.write("nodes.yaml", "db1:\n")
			m := r.expect("a b", "data.yaml nodes.yaml", "data.yaml:1:15: targets: there is no node \"db2\"")
			if len(m.Job("a").Targets) != 2 {
				r.t.Errorf("job a has targets %s", names(m.Job("a").Targets))
			}
			r.write("data.yaml", "x: &dbs [db1]\n")
			r.expect("a b", "")
		}},
		{"a deleted manifest takes its jobs along", func(r *readerRig) {
			r.remove("jobs/b.yaml")
			r.expect("a", "")
			r.remove("jobs/a.yaml")
			r.expect("", "")
		}},
		{"a jobspath that is gone drops no job", func(r *readerRig) {
			r.remove("jobs")
			r.expect("a b", "loom.yaml", "loom.yaml:2:11: there is no ")
			r.restart()
			r.expect("a b", "loom.yaml", "loom.yaml:2:11: there is no ")
		}},
		{"nor does one that isn't mounted", func(r *readerRig) {
			if err := os.Rename(filepath.Join(r.dir, "jobs"), filepath.Join(r.dir, "was")); err != nil {
				r.t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(r.dir, "jobs"), 0o755); err != nil {
				r.t.Fatal(err)
			}
			r.expect("a b", "jobs", "jobs: all 2 job manifests are gone")
		}},
		{"of two definitions the running one stays", func(r *readerRig) {
			r.write("jobs/0.yaml", "jobs:\n  b: {task: nothing, targets: db2, schedule: manual}\n")
			m := r.expect("a b", "", "jobs/0.yaml:2:3: job \"b\" is already defined at jobs/b.yaml:2")
			if got := names(m.Job("b").Targets); got != "db1" {
				r.t.Errorf("job b is that for %s", got)
			}
			r.remove("jobs/b.yaml")
			r.expect("a b", "")
		}},
		{"a job that moves out of a broken file stays where it was", func(r *readerRig) {
			r.write("jobs/a.yaml", broken)
			r.write("jobs/b.yaml", "jobs:\n  a: "+oneJob+"\n  b: "+oneJob+"\n")
			r.expect("a b", "jobs/a.yaml jobs/b.yaml", "jobs/a.yaml:", "jobs/b.yaml:2:3: job \"a\" is already defined")
		}},
		{"what can't be told apart is left whole", func(r *readerRig) {
			r.write("jobs/c.yaml", "jobs:\n  c: "+oneJob+"\n")
			r.expect("a b c", "")
			r.write("jobs/a.yaml", "jobs:\n  a: "+oneJob+"\n  b: "+oneJob+"\n")
			r.write("jobs/b.yaml", "jobs:\n  c: "+oneJob+"\n")
			m := r.expect("a b c", "jobs/a.yaml jobs/b.yaml", "jobs/b.yaml:2:3: job \"c\" is already defined at jobs/c.yaml:2")
			if got := m.Job("b").File; got != filepath.Join(r.dir, "jobs/b.yaml") {
				r.t.Errorf("job b is that of %s", got)
			}
		}},
		{"a job that others wait for can't just go", func(r *readerRig) {
			r.write("jobs/c.yaml", "jobs:\n  c: {task: nothing, targets: db1, after: b}\n")
			r.expect("a b c", "")
			r.write("jobs/b.yaml", "jobs:\n  b3: "+oneJob+"\n")
			r.expect("a b c", "jobs/b.yaml jobs/c.yaml", "jobs/c.yaml:2:43: after: there is no job \"b\"")
			r.write("jobs/c.yaml", "jobs:\n  c: {task: nothing, targets: db1, after: b3}\n")
			r.expect("a b3 c", "")
		}},
		{"a new file with mistakes adds nothing", func(r *readerRig) {
			r.write("jobs/c.yaml", broken)
			r.expect("a b", "", "jobs/c.yaml:")
			if !slices.Contains(r.Files(), filepath.Join(r.dir, "jobs/c.yaml")) {
				r.t.Error("the new file is not watched")
			}
		}},
	}
	for _, tt := range steps {
		t.Run(tt.name, func(t *testing.T) {
			r := newReaderRig(t)
			r.expect("a b", "")
			tt.do(r)
		})
	}
}

func TestManifestReaderStartsWithWhatIsGood(t *testing.T) {
	r := newReaderRig(t)
	r.write("jobs/b.yaml", "jobs: [\n")
	r.expect("a", "", "jobs/b.yaml:")
	r.restart()
	r.remove("state")
	r.write("jobs/a.yaml", "jobs: [\n")
	r.expect("no manifest", "", "jobs/a.yaml:", "jobs/b.yaml:")
	r.write("loom.yaml", "nodesfile: [\n")
	r.expect("no manifest", "", "loom.yaml:")
	if len(r.Files()) == 0 {
		t.Error("nothing to watch while nothing is good")
	}
}

func TestManifestReaderRemembersForNobodyElse(t *testing.T) {
	r := newReaderRig(t)
	r.write("nodes.yaml", "db1: {password: hunter2}\ndb2:\n")
	r.expect("a b", "")
	good := filepath.Join(r.dir, "state/manifest/good.json")
	for name, want := range map[string]os.FileMode{good: 0o600, filepath.Dir(good): 0o700 | os.ModeDir, filepath.Join(r.dir, "state"): 0o700 | os.ModeDir} {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, error %v, want %v", name, info.Mode(), err, want)
		}
	}
	before, err := os.Stat(good)
	if err != nil {
		t.Fatal(err)
	}
	r.expect("a b", "")
	if after, err := os.Stat(good); err != nil || !os.SameFile(before, after) {
		t.Error("the texts were written again though nothing has changed")
	}
	if err := os.Chmod(good, 0o666); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.write("nodes.yaml", "[\n")
	r.expect("no manifest", "", "nodes.yaml:")
}

func TestManifestReaderSaysThatItCantRemember(t *testing.T) {
	r := newReaderRig(t)
	r.write("state", "a file where a directory should be")
	m, err := r.Read(t.Context())
	if m == nil || len(m.Jobs) != 2 || err == nil || !strings.Contains(err.Error(), "can't be remembered") {
		t.Errorf("Read = %v, %v, want the jobs and an error", m, err)
	}
}

// A reader must see the old files or the new ones, never some of each, when
// they are swapped by a link as Kubernetes does it.
func TestManifestReaderSeesOneSideOfASwap(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"loom.yaml": "nodesfile: nodes.yaml\njobspath: jobs\nstate: state\n", "nodes.yaml": "db1:\n"}
	for _, side := range []string{"1", "2"} {
		for i := range 20 {
			files[fmt.Sprintf("jobs/..side%s/f%02d.yaml", side, i)] = fmt.Sprintf("jobs:\n  j%02d: {task: nothing, targets: db1, schedule: manual, owner: %q}\n", i, side)
		}
	}
	writeFiles(t, dir, files)
	point := func(side string) {
		tmp, data := filepath.Join(dir, "jobs/..tmp"), filepath.Join(dir, "jobs/..data")
		if err := errors.Join(os.Symlink("..side"+side, tmp), os.Rename(tmp, data)); err != nil {
			t.Error(err)
		}
	}
	point("1")
	for i := range 20 {
		name := fmt.Sprintf("f%02d.yaml", i)
		if err := os.Symlink("..data/"+name, filepath.Join(dir, "jobs", name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			point([]string{"1", "2"}[i%2])
			if i%4 == 0 {
				select { // rest, or nothing could ever be read in peace
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
	}()
	r := &ManifestReader{File: filepath.Join(dir, "loom.yaml"), Tasks: testTasks()}
	for i := range 31 {
		if i == 30 { // nothing changes any more
			stop()
			<-done
		}
		m, err := r.Read(t.Context())
		if err != nil && i < 30 && strings.Contains(err.Error(), "the files keep changing") {
			continue // a machine that is too busy to read them in a rest
		}
		if err != nil {
			t.Fatal(err)
		}
		owners := map[string]int{}
		for _, j := range m.Jobs {
			owners[j.Owner]++
		}
		if len(m.Jobs) != 20 || len(owners) != 1 {
			t.Errorf("%d jobs of %v, want 20 of one side", len(m.Jobs), owners)
		}
	}
}
