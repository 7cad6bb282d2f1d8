package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/cli"
)

// How changes of files are gathered: a reload waits until nothing has changed
// for settle, but no longer than patience; a file that was emptied is given
// longer to be filled again; and where the kernel does not tell, files are looked
// at every so often.
const (
	settle    = 250 * time.Millisecond
	patience  = time.Second
	refilling = 5 * time.Second
	rescan    = 10 * time.Second
)

// A reloader keeps what runs in step with the files.
type reloader struct {
	reader *loom.ManifestReader
	watch  *watcher
	log    *slog.Logger

	apply func(*loom.Manifest) // has a manifest take effect
	tell  func(news)           // hears of each reading that changed anything
	super *supervisor          // hears of it too

	asked   chan chan error               // wants the files read again, and to know how it went
	latest  atomic.Pointer[loom.Manifest] // current, for others
	current *loom.Manifest
	told    []string // the problems that were told
	twice   bool     // the files were read again to be sure of them
}

// news is what a reading of the files brought.
type news struct {
	Manifest                *loom.Manifest
	Added, Removed, Changed []string // jobs
	Nodes                   []string // that were added, removed or changed
	Config                  bool
	Problems                []*loom.ManifestError // none: all is well
	Warnings                []*loom.ManifestError // that were not there before
	Mended                  bool                  // all is well again
	Took                    time.Duration
}

// same reports whether the new manifest says what the old one said.
func (n *news) same() bool {
	return len(n.Added)+len(n.Removed)+len(n.Changed)+len(n.Nodes) == 0 && !n.Config
}

// begin reads the files for the first time. The error says why nothing can run.
func (r *reloader) begin(ctx context.Context) (again bool, err error) {
	started := time.Now()
	m, err := r.reader.Read(ctx)
	if m == nil {
		return false, err
	}
	again = r.watch.watch(r.reader.Files(), started)
	r.twice = again
	r.current = m
	r.latest.Store(m)
	r.told = problemTexts(m.Problems)
	return again, nil
}

// run reads the files anew whenever they have changed, or reload says so, until
// ctx ends. If again is set they have changed already.
func (r *reloader) run(ctx context.Context, reload <-chan struct{}, again bool) {
	look := time.NewTicker(rescan)
	defer look.Stop()
	inventory := time.NewTimer(r.inventoryRefresh())
	defer inventory.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var since time.Time // the first change that was not read; zero: there is none
	sure := again       // that there is one, however the files look
	changed := func() {
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		quiet.Reset(max(min(settle, patience-now.Sub(since)), 0))
	}
	read := func(asked bool) {
		since = time.Time{}
		quiet.Stop()
		if sure = r.read(ctx, asked); sure {
			changed()
		}
		inventory.Reset(r.inventoryRefresh())
	}
	reread := func() {
		r.log.Info("reload was asked for")
		r.reader.Refresh()
		r.told = nil // whoever asks wants to hear it all
		read(true)
		r.log.Info("reload is done", "jobs", len(r.current.Jobs), "problems", len(r.told))
	}
	if again {
		changed()
	}
	events, failures := r.watch.events()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if r.watch.concerns(e) {
				changed()
			}
		case err := <-failures: // events were lost
			r.log.Warn("watching files failed: all are read again", "err", err)
			sure = true
			changed()
		case <-look.C:
			if r.watch.changed() {
				changed()
			}
		case <-quiet.C:
			switch {
			case !sure && !r.watch.changed():
				since = time.Time{}
			case time.Since(since) < refilling && r.watch.emptied():
				quiet.Reset(settle)
			default:
				read(false)
			}
		case <-inventory.C:
			read(false)
		case <-reload:
			reread()
		case answer := <-r.asked:
			reread()
			var problems []error
			for _, p := range r.current.Problems {
				problems = append(problems, p)
			}
			answer <- errors.Join(problems...)
		}
	}
}

// inventoryRefresh is how long to wait until a nodes file that is a program is
// asked again.
func (r *reloader) inventoryRefresh() time.Duration {
	return max(r.current.Config.InventoryRefresh, time.Second)
}

// read reads the files and has what changed take effect. It reports whether
// they have changed meanwhile. If it was asked for, the service manager waits to
// hear how it went.
func (r *reloader) read(ctx context.Context, asked bool) (again bool) {
	started := time.Now()
	if asked {
		r.super.reloading()
	}
	old := r.current
	known := r.watch.paths
	before, _ := look(known)
	m, err := r.reader.Read(ctx)
	if ctx.Err() != nil {
		return false
	}
	n := news{Manifest: m, Problems: cli.Problems(err)}
	again = r.watch.watch(r.reader.Files(), started) && !r.twice
	r.twice = again // once is enough: the file system's clock may be ahead of ours
	if after, _ := look(known); after != before {
		again = true
	}

	n.compare(old, m)
	r.current = m
	r.latest.Store(m)
	if !n.same() {
		if !asked {
			r.super.reloading()
		}
		r.apply(m)
	}
	texts := problemTexts(n.Problems)
	n.Mended = len(r.told) > 0 && len(texts) == 0
	if slices.Equal(texts, r.told) {
		n.Problems = nil // nothing new
	}
	r.told = texts
	n.Took = time.Since(started)
	worthTelling := !n.same() || len(n.Problems)+len(n.Warnings) > 0 || n.Mended
	if worthTelling {
		r.tell(n)
	}
	if worthTelling || asked {
		r.super.ready(status(m, len(texts)))
	}
	r.log.Debug("manifest read", "jobs", len(m.Jobs), "problems", len(texts), "took", n.Took)
	return again
}

func problemTexts(problems []*loom.ManifestError) []string {
	var all []string
	for _, p := range problems {
		all = append(all, p.Error())
	}
	return all
}

// compare notes what is different in a new manifest.
func (n *news) compare(old, now *loom.Manifest) {
	was := map[string]*loom.Job{}
	for _, j := range old.Jobs {
		was[j.Name] = j
	}
	for _, j := range now.Jobs {
		switch before := was[j.Name]; {
		case before == nil:
			n.Added = append(n.Added, j.Name)
		case !sameJob(before, j):
			n.Changed = append(n.Changed, j.Name)
		}
		delete(was, j.Name)
	}
	n.Removed = slices.Sorted(maps.Keys(was))

	nodes := map[string]*loom.Node{}
	for _, node := range old.Nodes {
		nodes[node.Name] = node
	}
	for _, node := range now.Nodes {
		if !reflect.DeepEqual(nodes[node.Name], node) {
			n.Nodes = append(n.Nodes, node.Name)
		}
		delete(nodes, node.Name)
	}
	n.Nodes = append(n.Nodes, slices.Sorted(maps.Keys(nodes))...)
	warned := problemTexts(old.Warnings)
	for _, w := range now.Warnings {
		if !slices.Contains(warned, w.Error()) {
			n.Warnings = append(n.Warnings, w)
		}
	}
	n.Config = !reflect.DeepEqual(old.Config, now.Config)
}

// sameJob reports whether two definitions say the same, wherever they stand.
func sameJob(a, b *loom.Job) bool {
	one, other := *a, *b
	for _, j := range []*loom.Job{&one, &other} {
		j.Targets = nil
		j.File, j.Line, j.Col = "", 0, 0
	}
	sameName := func(a, b *loom.Node) bool { return a.Name == b.Name }
	return slices.EqualFunc(a.Targets, b.Targets, sameName) && reflect.DeepEqual(&one, &other)
}

// logNews puts news into a log.
func logNews(log *slog.Logger, n news) {
	for _, p := range n.Problems {
		logProblem(log, p)
	}
	if len(n.Problems) > 0 {
		log.Error("manifest is broken: what was good last keeps running", "problems", len(n.Problems))
	}
	logWarnings(log, n.Warnings)
	if n.Mended {
		log.Info("manifest mended")
	}
	if n.same() {
		return
	}
	attrs := []any{}
	for _, a := range []struct {
		key   string
		names []string
	}{{"added", n.Added}, {"removed", n.Removed}, {"changed", n.Changed}, {"nodes_changed", n.Nodes}} {
		if len(a.names) > 0 {
			attrs = append(attrs, a.key, few(a.names))
		}
	}
	log.Info("manifest reloaded", append(attrs, "jobs", len(n.Manifest.Jobs), "nodes", len(n.Manifest.Nodes), "took", n.Took.Round(time.Microsecond))...)
}

func logWarnings(log *slog.Logger, warnings []*loom.ManifestError) {
	for _, w := range warnings {
		log.Warn("manifest warning", "file", place(w), "err", w.Err)
	}
}

func logProblem(log *slog.Logger, p *loom.ManifestError) {
	log.Error("manifest problem", "file", place(p), "err", p.Err)
}

// place is where a problem is, as editors understand it.
func place(p *loom.ManifestError) string {
	return strings.TrimSuffix((&loom.ManifestError{File: p.File, Line: p.Line, Col: p.Col, Err: errNothing{}}).Error(), ": ")
}

type errNothing struct{}

func (errNothing) Error() string { return "" }

// few joins names, but not thousands.
func few(names []string) string {
	const most = 10
	if extra := len(names) - most; extra > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", extra)
	}
	return strings.Join(names, ", ")
}
