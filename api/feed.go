package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// How much a Feed keeps for those who come back, and how long it gathers events
// before it wakes those who wait.
const (
	feedEvents = 8192
	feedBytes  = 8 << 20
	feedPause  = 10 * time.Millisecond
	feedLinger = time.Minute // after the last who wanted output has gone
	feedBatch  = 256         // events that a listener takes at once
	feedLook   = 4096        // and that it looks at for them
)

// A Feed hands on what happens to all who listen, each of them as fast as they
// read: it keeps what happened last, once for all, so that a listener who is slow
// or was away for a while goes on where it was. One who stays behind for longer
// than the feed remembers has lost events, and is told so. Its memory is bounded by
// Events and Bytes, however many listen and however slow they are.
//
// Its zero value is ready to use. Its fields must not change once it is used. It is
// safe for concurrent use, and none of its methods wait for a listener.
type Feed struct {
	Events int // how many events are kept; 0: 8192. Lines of output are kept apart, as many again
	Bytes  int // how many bytes of them, and of output; 0: 8 MiB

	mu        sync.RWMutex
	start     string // names this feed among those before and after it
	last      uint64 // the newest event's number
	events    shelf
	output    shelf
	listeners int
	wanting   int       // listeners who want output
	lingering time.Time // output is kept until then though nobody wants it
	passed    bool      // output was passed over since somebody wanted it last
	waking    bool      // those who wait will be woken
	news      chan struct{}
}

// An item is an event with its number, and as listeners get it.
type item struct {
	number uint64
	event  Event
	once   sync.Once
	frame  []byte
}

// init makes the feed ready. f.mu is held.
func (f *Feed) init() {
	if f.start == "" {
		f.start = strconv.FormatInt(time.Now().UnixMicro(), 36)
		f.news = make(chan struct{})
	}
}

// Observe takes an event of a scheduler. It is for loom.Scheduler's Observe.
func (f *Feed) Observe(e loom.Event) {
	if e.Kind == loom.KindOutput && !f.wants() {
		return
	}
	f.Publish(NewEvent(e))
}

// wants reports whether output is wanted, and notes that some was passed over.
func (f *Feed) wants() bool {
	f.mu.RLock()
	wanted, known := f.wanting > 0 || time.Now().Before(f.lingering), f.passed
	f.mu.RUnlock()
	if wanted || known {
		return wanted
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passed = f.passed || f.wanting == 0
	return f.wanting > 0
}

// Publish takes an event, which must not be changed afterwards.
func (f *Feed) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	f.last++
	to := &f.events
	if e.Kind == loom.KindOutput {
		to = &f.output
	}
	to.put(&item{number: f.last, event: e}, cmp.Or(f.Events, feedEvents), cmp.Or(f.Bytes, feedBytes))
	if f.listeners > 0 && !f.waking {
		f.waking = true
		time.AfterFunc(feedPause, f.wake) // which waits for nothing but the lock
	}
}

// wake wakes those who wait for news.
func (f *Feed) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waking = false
	close(f.news)
	f.news = make(chan struct{})
}

// cursor names a place in the feed: what came up to a number. f.mu is held.
func (f *Feed) cursor(number uint64) string { return f.start + "-" + strconv.FormatUint(number, 10) }

// encode returns an item as a stream has it.
func (f *Feed) encode(it *item) []byte {
	it.once.Do(func() { it.frame = frame(f.cursor(it.number), string(it.event.Kind), it.event) })
	return it.frame
}

// frame returns an event of a stream.
func frame(id, name string, data any) []byte {
	text, err := json.Marshal(data)
	if err != nil { // of what was decoded from JSON, or is plain data
		text = []byte("{}")
	}
	var b strings.Builder
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, text)
	return []byte(b.String())
}

// errBehind is why a listener can't go on.
var errBehind = errors.New("events were lost")

// A listener reads a feed.
type listener struct {
	feed   *Feed
	filter EventFilter
	output bool
	at     uint64 // what came up to here is dealt with
}

// listen returns a listener who goes on after a cursor, or begins now if it is "".
// If what came since is not known any more it begins now, too, and gap says why.
// Whoever listens must leave.
func (f *Feed) listen(filter EventFilter, after string) (l *listener, gap string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	l = &listener{feed: f, filter: filter, output: filter.wantsOutput()}
	f.listeners++
	if l.output {
		if f.wanting++; f.wanting == 1 && f.passed {
			f.last++ // what was passed over came before this
			f.output = shelf{lost: f.last}
			f.passed = false
		}
	}
	l.at = f.last
	start, number, ok := strings.Cut(after, "-")
	at, err := strconv.ParseUint(number, 10, 64)
	switch {
	case after == "":
	case !ok || err != nil:
		gap = fmt.Sprintf("%q is no cursor of this stream: what came before now is not sent", abridge(after))
	case start != f.start:
		gap = "the daemon was started anew since, and what came before that is not known"
	case at > f.last:
		gap = "there is no such event yet: what came before now is not sent"
	default:
		was := l.at
		if l.at = at; l.behind() {
			l.at, gap = was, "too much has happened since for all of it to be kept"
		}
	}
	return l, gap
}

// abridge makes what somebody sent short enough for a sentence.
func abridge(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

func (l *listener) leave() {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners--
	if l.output {
		if f.wanting--; f.wanting == 0 {
			f.lingering = time.Now().Add(feedLinger)
		}
	}
}

// behind reports whether events were lost to the listener. feed.mu is held.
func (l *listener) behind() bool {
	return l.at < l.feed.events.lost || l.output && l.at < l.feed.output.lost
}

// next returns events that the listener wants, oldest first. If there are none, it
// returns what is closed when there may be some. The error is errBehind if events
// were lost to the listener.
func (l *listener) next() (found []*item, news <-chan struct{}, err error) {
	f := l.feed
	f.mu.RLock()
	defer f.mu.RUnlock()
	if l.behind() {
		return nil, nil, errBehind
	}
	i, j := f.events.after(l.at), f.output.n
	if l.output {
		j = f.output.after(l.at)
	}
	for range feedLook {
		e, o := f.events.get(i), f.output.get(j)
		switch {
		case e == nil && o == nil:
			l.at = f.last
			return found, f.news, nil
		case o == nil || e != nil && e.number < o.number:
			i++
		default:
			e = o
			j++
		}
		l.at = e.number
		if l.filter.lets(&e.event) {
			if found = append(found, e); len(found) == feedBatch {
				break
			}
		}
	}
	if len(found) == 0 { // there is more to look at
		news = closed()
	}
	return found, news, nil
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// here returns the listener's cursor.
func (l *listener) here() string { return l.feed.cursor(l.at) }

// A shelf keeps the newest items, in a circle that grows to its limit.
type shelf struct {
	items []*item
	first int // the oldest
	n     int
	size  int
	lost  uint64 // items up to this number are not here any more
}

// put adds an item, and drops the oldest that there is no room for.
func (s *shelf) put(it *item, most, mostSize int) {
	if s.n == len(s.items) && s.n < most {
		s.items = append(slices.Concat(s.items[s.first:], s.items[:s.first]), make([]*item, min(max(s.n, 64), most-s.n))...)
		s.first = 0
	}
	if s.n == most {
		s.drop()
	}
	s.items[(s.first+s.n)%len(s.items)] = it
	s.n++
	s.size += it.event.size()
	for s.size > mostSize && s.n > 1 {
		s.drop()
	}
}

func (s *shelf) drop() {
	it := s.items[s.first]
	s.items[s.first] = nil
	s.first = (s.first + 1) % len(s.items)
	s.n--
	s.size -= it.event.size()
	s.lost = it.number
}

// get returns the i-th item, or nil.
func (s *shelf) get(i int) *item {
	if i >= s.n {
		return nil
	}
	return s.items[(s.first+i)%len(s.items)]
}

// after returns the place of the first item after a number.
func (s *shelf) after(number uint64) int {
	lo, hi := 0, s.n
	for lo < hi {
		if mid := (lo + hi) / 2; s.get(mid).number <= number {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
