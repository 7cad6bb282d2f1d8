package notify

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustinlacewell/loom/internal/durable"
)

// The bounds of what waits and of what is remembered.
const (
	mostItems = 10_000
	mostBytes = 64 << 20
	mostDead  = 100
	mostSeen  = 20_000
	slack     = 1 << 20     // of the journal, beside what is still of use
	keepAgain = time.Second // after which a disk that took nothing is tried again
)

// A box is what waits to be delivered and what is known of the past. It is the sum
// of the records in its journal, a file of JSON lines: each is written whole, or
// is not there after a crash. It belongs to one goroutine.
type box struct {
	file string

	items map[string][]*item // by target, oldest first
	size  int                // of all
	n     int
	known map[string]bool // their keys
	past  past

	out     *os.File
	written int64     // good bytes in the file
	live    int64     // as many as were written when it was last made anew
	err     error     // why the file is not what it should be; nil: it is
	since   time.Time // since when
	tried   time.Time // when it was last made anew, or that was tried
}

// An item is news on their way to a target.
type item struct {
	News     *News     `json:"news"`
	To       string    `json:"to"`
	Added    time.Time `json:"added"`
	Attempts int       `json:"attempts,omitempty"`
	Next     time.Time `json:"next,omitzero"` // not before
	Error    string    `json:"error,omitempty"`

	size int
}

func (i *item) key() string { return i.To + "\x00" + i.News.ID }

// past is what is known of the past.
type past struct {
	Since   time.Time            // when it began to be known
	Heard   time.Time            // the latest end of a run
	Seen    map[string]time.Time // what was dealt with, lately
	Jobs    map[string]*failing  // that fail
	Nodes   map[string]*down     // that are unreachable
	Broken  time.Time            // since when the manifest is; zero: it is not
	Down    time.Time            // since when the store is
	Targets map[string]*standing
	Dead    []death // news that were given up, oldest first
}

// A failing is what is known of a job that fails.
type failing struct {
	Since  time.Time            `json:"since"`
	InARow int                  `json:"in_a_row"`
	Told   map[string]time.Time `json:"told,omitempty"` // which targets were told last when
	Last   *News                `json:"last,omitempty"` // what was told last
}

// A down is what is known of a node that is unreachable.
type down struct {
	Since time.Time `json:"since"`
}

// A standing is what is known of a target.
type standing struct {
	Delivered time.Time `json:"delivered,omitzero"`
	Title     string    `json:"title,omitempty"` // what was delivered last
	Answer    string    `json:"answer,omitempty"`
	Failed    time.Time `json:"failed,omitzero"`
	Error     string    `json:"error,omitempty"`
	Count     int       `json:"count,omitempty"` // of what was delivered
	Lost      int       `json:"lost,omitempty"`  // of what was not
}

// A death is news that were not delivered and never will be.
type death struct {
	To    string    `json:"to"`
	ID    string    `json:"id"`
	Title string    `json:"title"`
	Time  time.Time `json:"time"`
	Error string    `json:"error"`
}

// A record is a change of a box.
type record struct {
	Since   time.Time            `json:"since,omitzero"`
	Add     []addition           `json:"add,omitempty"`
	Items   []*item              `json:"items,omitempty"` // as they were when the journal was made anew
	Done    []delivery           `json:"done,omitempty"`
	Tried   []trial              `json:"tried,omitempty"`
	Dead    []death              `json:"dead,omitempty"`
	Heard   time.Time            `json:"heard,omitzero"`
	Seen    map[string]time.Time `json:"seen,omitempty"`
	Jobs    map[string]*failing  `json:"jobs,omitempty"`  // null: well again
	Nodes   map[string]*down     `json:"nodes,omitempty"` // null: back
	Broken  *time.Time           `json:"broken,omitempty"`
	Down    *time.Time           `json:"down,omitempty"`
	Targets map[string]*standing `json:"targets,omitempty"`
}

// An addition is news for some targets.
type addition struct {
	News *News     `json:"news"`
	To   []string  `json:"to"`
	At   time.Time `json:"at"`
}

// A delivery is the end of an item.
type delivery struct {
	To     string    `json:"to"`
	ID     string    `json:"id"`
	Title  string    `json:"title"`
	At     time.Time `json:"at"`
	Answer string    `json:"answer,omitempty"`
}

// A trial is an attempt that was in vain.
type trial struct {
	To       string    `json:"to"`
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"`
	Error    string    `json:"error"`
}

func (r *record) empty() bool {
	return r.Since.IsZero() && r.Heard.IsZero() && len(r.Add)+len(r.Items)+len(r.Done)+len(r.Tried)+len(r.Dead)+len(r.Seen)+len(r.Jobs)+
		len(r.Nodes)+len(r.Targets) == 0 && r.Broken == nil && r.Down == nil
}

// see notes that something was dealt with.
func (r *record) see(what string, at time.Time) {
	if r.Seen == nil {
		r.Seen = map[string]time.Time{}
	}
	r.Seen[what] = at
}

func (r *record) job(name string, f *failing) {
	if r.Jobs == nil {
		r.Jobs = map[string]*failing{}
	}
	r.Jobs[name] = f
}

func (r *record) node(name string, d *down) {
	if r.Nodes == nil {
		r.Nodes = map[string]*down{}
	}
	r.Nodes[name] = d
}

func newBox(file string) *box {
	return &box{file: file, items: map[string][]*item{}, known: map[string]bool{},
		past: past{Seen: map[string]time.Time{}, Jobs: map[string]*failing{}, Nodes: map[string]*down{}, Targets: map[string]*standing{}}}
}

// journalName is the journal in a daemon's state directory.
func journalName(state string) string { return filepath.Join(state, "outbox", "journal") }

// openBox reads a journal, and goes on with it. What is damaged of it is left out:
// complain is told. If it can't be written, the box's err says why.
func openBox(file string, complain func(error)) *box {
	b := newBox(file)
	if err := b.read(complain); err != nil && !errors.Is(err, fs.ErrNotExist) {
		aside := file + ".unreadable"
		complain(errors.Join(fmt.Errorf("the outbox can't be read, and is begun anew; what there was of it is left as %s: %w", aside, err), os.Rename(file, aside)))
	}
	b.mend() // begins a journal without what is of no use any more
	return b
}

// read adds up the records of the journal.
func (b *box) read(complain func(error)) error {
	f, err := os.Open(b.file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	in := bufio.NewReaderSize(f, 64<<10)
	for line := 1; ; line++ {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(bytes.TrimSpace(text)) > 0 {
				complain(fmt.Errorf("%s:%d: the last record was not written to its end: it is left out", b.file, line))
			}
			return nil
		}
		if err != nil {
			return err
		}
		var r record
		if err := json.Unmarshal(text, &r); err != nil {
			complain(fmt.Errorf("%s:%d: a damaged record is left out: %w", b.file, line, err))
			continue
		}
		b.apply(&r)
	}
}

// commit makes a change, and writes it down. If sync is set it is on the disk when
// commit returns, unless the disk can't take it: b.err then says why, and the
// change has been made all the same. What the disk could not take is written once
// it can, by a later commit, also of nothing.
func (b *box) commit(r *record, sync bool) {
	if b.err != nil {
		b.apply(r)
		if time.Since(b.tried) >= keepAgain {
			b.mend()
		}
		return
	}
	if r.empty() {
		return
	}
	b.apply(r)
	if b.written > 2*b.live+slack {
		b.mend()
		return
	}
	text, err := json.Marshal(r)
	if err == nil {
		var n int
		n, err = b.out.Write(append(text, '\n'))
		if err == nil {
			b.written += int64(n)
		}
	}
	if err == nil && sync {
		err = b.out.Sync()
	}
	if err != nil {
		_ = b.out.Truncate(b.written) // a reader leaves out half a record anyway
		b.mend()
	}
}

// mend writes the journal anew: all that there is, and no more. The old one stays
// until the new one is whole.
func (b *box) mend() {
	if b.out != nil {
		_ = b.out.Close() // what it holds is in the new one too
		b.out = nil
	}
	b.tried = time.Now()
	was := b.err
	switch b.err = b.rewrite(); {
	case b.err == nil:
		b.since = time.Time{}
	case was == nil:
		b.since = b.tried
	}
}

func (b *box) rewrite() error {
	if err := os.MkdirAll(filepath.Dir(b.file), 0o700); err != nil {
		return err
	}
	tmp := b.file + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, r := range b.snapshot() {
		if err = enc.Encode(r); err != nil {
			break
		}
	}
	if err == nil {
		err = errors.Join(w.Flush(), f.Sync())
	}
	var size int64
	if info, err2 := f.Stat(); err2 == nil {
		size = info.Size()
	}
	if err == nil {
		err = os.Rename(tmp, b.file)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(b.file))
	}
	if err != nil {
		_ = errors.Join(f.Close(), os.Remove(tmp)) // the first error counts, and others need the room
		return err
	}
	b.out, b.written, b.live = f, size, size
	return nil
}

// snapshot is the box as records, none of which is very long.
func (b *box) snapshot() []*record {
	p := &b.past
	all := []*record{{Since: p.Since, Heard: p.Heard, Seen: p.Seen, Nodes: p.Nodes, Targets: p.Targets, Dead: p.Dead, Broken: &p.Broken, Down: &p.Down}}
	for _, name := range slices.Sorted(maps.Keys(p.Jobs)) {
		all = append(all, &record{Jobs: map[string]*failing{name: p.Jobs[name]}})
	}
	for _, to := range slices.Sorted(maps.Keys(b.items)) {
		for some := range slices.Chunk(b.items[to], 100) {
			all = append(all, &record{Items: some})
		}
	}
	return all
}

// close lets go of the journal, and writes what it could not.
func (b *box) close() {
	if b.err != nil {
		b.mend()
	}
	if b.out != nil {
		_ = errors.Join(b.out.Sync(), b.out.Close()) // who wrote it was told
		b.out = nil
	}
}

// apply makes a change.
func (b *box) apply(r *record) {
	p := &b.past
	if !r.Since.IsZero() {
		p.Since = r.Since
	}
	if r.Heard.After(p.Heard) {
		p.Heard = r.Heard
	}
	maps.Copy(p.Seen, r.Seen)
	b.forget()
	for name, f := range r.Jobs {
		if f == nil {
			delete(p.Jobs, name)
		} else {
			p.Jobs[name] = f
		}
	}
	for name, d := range r.Nodes {
		if d == nil {
			delete(p.Nodes, name)
		} else {
			p.Nodes[name] = d
		}
	}
	if r.Broken != nil {
		p.Broken = *r.Broken
	}
	if r.Down != nil {
		p.Down = *r.Down
	}
	maps.Copy(p.Targets, r.Targets)
	b.move(r)
}

// move adds and takes away items.
func (b *box) move(r *record) {
	for _, i := range r.Items {
		b.put(i)
	}
	for _, a := range r.Add {
		for _, to := range a.To {
			b.put(&item{News: a.News, To: to, Added: a.At})
		}
	}
	for _, t := range r.Tried {
		s := b.standing(t.To)
		s.Failed, s.Error = t.At, t.Error
		if i := b.find(t.To, t.ID); i != nil {
			i.Attempts, i.Next, i.Error = t.Attempts, t.Next, t.Error
		}
	}
	for _, d := range r.Done {
		s := b.standing(d.To)
		s.Delivered, s.Title, s.Answer = d.At, d.Title, d.Answer
		s.Count++
		b.take(d.To, d.ID)
	}
	snapshot := r.Targets != nil // the standings of a snapshot have counted them
	for _, d := range r.Dead {
		if !snapshot {
			b.standing(d.To).Lost++
		}
		b.past.Dead = append(b.past.Dead, d)
		b.take(d.To, d.ID)
	}
	if extra := len(b.past.Dead) - mostDead; extra > 0 {
		b.past.Dead = slices.Delete(b.past.Dead, 0, extra)
	}
}

// put adds an item, unless it is there.
func (b *box) put(i *item) {
	if i.News == nil || b.known[i.key()] {
		return
	}
	if i.size == 0 {
		i.size = 512 + len(i.News.Text) + len(i.News.Title)
		for _, f := range i.News.Failures {
			i.size += 64*len(f.Nodes) + len(f.Reason) + 100*len(f.Output)
		}
	}
	b.known[i.key()] = true
	b.items[i.To] = append(b.items[i.To], i)
	b.size += i.size
	b.n++
}

func (b *box) find(to, id string) *item {
	if !b.known[to+"\x00"+id] {
		return nil
	}
	for _, i := range b.items[to] {
		if i.News.ID == id {
			return i
		}
	}
	return nil
}

// take takes an item away.
func (b *box) take(to, id string) {
	i := b.find(to, id)
	if i == nil {
		return
	}
	delete(b.known, i.key())
	b.items[to] = slices.DeleteFunc(b.items[to], func(other *item) bool { return other == i })
	if len(b.items[to]) == 0 {
		delete(b.items, to)
	}
	b.size -= i.size
	b.n--
}

func (b *box) standing(to string) *standing {
	s := b.past.Targets[to]
	if s == nil {
		s = &standing{}
		b.past.Targets[to] = s
	}
	return s
}

// forget lets go of what was seen long ago.
func (b *box) forget() {
	seen := b.past.Seen
	if len(seen) <= mostSeen {
		return
	}
	times := slices.SortedFunc(maps.Values(seen), time.Time.Compare)
	middle := times[len(times)/2]
	maps.DeleteFunc(seen, func(_ string, at time.Time) bool { return !at.After(middle) })
}

// excess returns the oldest items that are too many.
func (b *box) excess() []*item {
	var out []*item
	n, size := b.n, b.size
	if n <= mostItems && size <= mostBytes {
		return nil
	}
	var all []*item
	for _, items := range b.items {
		all = append(all, items...)
	}
	slices.SortStableFunc(all, func(x, y *item) int { return x.Added.Compare(y.Added) })
	for _, i := range all {
		if n <= mostItems && size <= mostBytes {
			break
		}
		out = append(out, i)
		n, size = n-1, size-i.size
	}
	return out
}
