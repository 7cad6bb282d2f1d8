package api

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"context"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// heardAll returns the texts of all events that a listener can have now.
func heardAll(t *testing.T, l *listener) []string {
	t.Helper()
	var texts []string
	for {
		found, news, err := l.next()
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range found {
			texts = append(texts, it.event.Text)
		}
		if len(found) == 0 && !isClosed(news) {
			return texts
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestFeedResume(t *testing.T) {
	f := &Feed{Events: 4}
	say := func(kind loom.Kind, texts ...string) {
		for _, text := range texts {
			f.Observe(loom.Event{Kind: kind, Text: text})
		}
	}
	all := EventFilter{Output: true}
	say(loom.KindOutput, "nobody wants this")
	l, gap := f.listen(all, "")
	if gap != "" {
		t.Errorf("a new listener: %s", gap)
	}
	begin := l.here()
	say(loom.KindChanged, "a", "b")
	say(loom.KindOutput, "1", "2")
	say(loom.KindChanged, "c")
	if got := heardAll(t, l); !slices.Equal(got, []string{"a", "b", "1", "2", "c"}) {
		t.Errorf("heard %q", got)
	}
	l.leave()
	for _, tt := range []struct {
		name   string
		filter EventFilter
		after  string
		want   []string
		gap    string
	}{
		{"from the beginning", all, begin, []string{"a", "b", "1", "2", "c"}, ""},
		{"without output", EventFilter{}, begin, []string{"a", "b", "c"}, ""},
		{"from the middle", all, f.cursor(4), []string{"2", "c"}, ""},
		{"from the end", all, f.cursor(f.last), nil, ""},
		{"from beyond the end", all, f.cursor(f.last + 1), nil, "no such event"},
		{"from before a restart", all, "abc-1", nil, "started anew"},
		{"from nonsense", all, "nonsense", nil, `"nonsense" is no cursor`},
		{"from a number that is none", all, f.start + "-x", nil, "is no cursor"},
		{"from a long one", all, strings.Repeat("x", 5000), nil, "x…"},
	} {
		l, gap := f.listen(tt.filter, tt.after)
		if got := heardAll(t, l); !slices.Equal(got, tt.want) || (gap == "") != (tt.gap == "") || !strings.Contains(gap, tt.gap) {
			t.Errorf("%s: heard %q, gap %q; want %q, %q", tt.name, got, gap, tt.want, tt.gap)
		}
		l.leave()
	}

	// What there is no room for is a gap, and no other is.
	plain, _ := f.listen(EventFilter{}, begin)
	say(loom.KindOutput, "3", "4", "5", "6", "7")
	if got := heardAll(t, plain); len(got) != 3 {
		t.Errorf("output made a listener lose events that wants none of it: %q", got)
	}
	if l, gap := f.listen(all, begin); !strings.Contains(gap, "too much has happened") || len(heardAll(t, l)) != 0 {
		t.Errorf("a listener who lost output: gap %q", gap)
	}
	say(loom.KindChanged, "d", "e", "f", "g", "h")
	if _, _, err := plain.next(); !errors.Is(err, errBehind) {
		t.Errorf("a listener who is five events behind of four that are kept: %v", err)
	}
}

func TestFeedPassesOverOutputThatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Feed{}
		l, _ := f.listen(EventFilter{Output: true}, "")
		at := l.here()
		l.leave()
		f.Observe(loom.Event{Kind: loom.KindOutput, Text: "soon"})
		l, gap := f.listen(EventFilter{Output: true}, at)
		if got := heardAll(t, l); gap != "" || !slices.Equal(got, []string{"soon"}) {
			t.Errorf("who comes back soon hears %q, gap %q", got, gap)
		}
		at = l.here()
		l.leave()
		<-time.After(feedLinger + time.Second)
		f.Observe(loom.Event{Kind: loom.KindOutput, Text: "late"})
		if f.output.n != 1 {
			t.Errorf("%d lines of output are kept", f.output.n)
		}
		l, gap = f.listen(EventFilter{Output: true}, at)
		if got := heardAll(t, l); !strings.Contains(gap, "too much has happened") || got != nil {
			t.Errorf("who comes back late hears %q, gap %q", got, gap)
		}
		l.leave()
	})
}

func TestFeedIsBounded(t *testing.T) {
	f := &Feed{Events: 1000, Bytes: 1 << 20}
	l, _ := f.listen(EventFilter{Output: true}, "")
	defer l.leave()
	long := strings.Repeat("x", 10_000)
	for range 5000 {
		f.Observe(loom.Event{Kind: loom.KindOutput, Text: long})
		f.Observe(loom.Event{Kind: loom.KindNodeEnded, Result: &loom.Result{Changes: []string{long}, Output: []loom.Line{{Text: long}}}})
		f.Observe(loom.Event{Kind: loom.KindRunEnded, Ran: &loom.Run{Reason: "short"}})
	}
	for name, s := range map[string]*shelf{"events": &f.events, "output": &f.output} {
		size := 0
		for i := range s.n {
			size += s.get(i).event.size()
		}
		if size != s.size || size > 1<<20 || s.n > 1000 {
			t.Errorf("%s: %d of %d bytes, by its own account %d", name, s.n, size, s.size)
		}
	}
}

// However many publish, and whatever happens to be asked for when, each listener
// hears all that it wants in order, or that it has lost something.
func TestFeedLosesNothing(t *testing.T) {
	f := &Feed{Events: 512}
	var wg sync.WaitGroup
	const publishers, each = 4, 2000
	published := make(chan struct{})
	for n := range 16 {
		wg.Go(func() {
			filter := EventFilter{Output: n%2 == 0}
			if n%3 == 0 {
				filter.Jobs = []string{"job[01]"}
			}
			l, _ := f.listen(filter, "")
			defer func() { l.leave() }()
			last := map[string]int{}
			for done := false; ; {
				found, news, err := l.next()
				if errors.Is(err, errBehind) {
					return
				}
				for _, it := range found {
					e := it.event
					if e.Kind == loom.KindOutput && !filter.Output || filter.Jobs != nil && e.Job > "job1" {
						t.Errorf("listener %d hears what it does not want: %+v", n, e)
					}
					key := fmt.Sprint(e.Job, e.Kind)
					var i int
					if _, err := fmt.Sscan(e.Text, &i); err != nil || last[key] != 0 && i != last[key]+2 {
						t.Errorf("listener %d hears %s after %d of %s", n, e.Text, last[key], key)
					}
					last[key] = i
				}
				if len(found) > 0 {
					if rand.N(10) == 0 { // it goes away and comes back
						at := l.here()
						l.leave()
						var gap string
						if l, gap = f.listen(filter, at); gap != "" {
							return
						}
					}
					continue
				}
				if done {
					return
				}
				select {
				case <-news:
				case <-published:
					done = true
				}
			}
		})
	}
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := range each {
				kind := loom.KindChanged
				if i%2 == 1 {
					kind = loom.KindOutput
				}
				f.Observe(loom.Event{Kind: kind, Job: fmt.Sprintf("job%d", p), Text: fmt.Sprint(i + 1)})
			}
		})
	}
	publishing.Wait()
	close(published)
	wg.Wait()
}

// A reader who does not read does not stay, nor keeps others from reading.
func TestStreamOfOneWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Feed{Events: 64}
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		s := &Server{Store: &memory.Store{}, Feed: f}
		go func() { served <- s.serve(ctx, &Door{Listener: p}, own) }()
		const ask = "GET /api/v1/events HTTP/1.1\r\nHost: loomd\r\nConnection: close\r\n\r\n"
		deaf, slow, good := p.dial(), p.dial(), p.dial()
		for _, c := range []io.ReadWriteCloser{deaf, slow, good} {
			defer c.Close()
			go io.WriteString(c, ask)
		}
		var read strings.Builder
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(&read, good) })
		synctest.Wait()
		for i := range 200 {
			f.Observe(loom.Event{Kind: loom.KindChanged, Text: fmt.Sprintf("change %d %s", i, strings.Repeat("x", 1000))})
			<-time.After(2 * feedPause)
		}
		text, _ := io.ReadAll(io.LimitReader(slow, 1<<30))
		if !strings.Contains(string(text), "event: slow\n") || strings.Contains(string(text), "change 199 ") {
			t.Errorf("the slow one got %.200q… %.400q", text, text[max(0, len(text)-400):])
		}
		if n := s.open.count(); n != 2 {
			t.Errorf("%d streams are open", n)
		}
		<-time.After(writeTime)
		if n := s.open.count(); n != 1 {
			t.Errorf("after a while, %d streams are open", n)
		}
		<-time.After(2 * heartbeat)
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		reading.Wait()
		got := read.String()
		for i := range 200 {
			if strings.Count(got, fmt.Sprintf("change %d ", i)) != 1 {
				t.Fatalf("the good one did not get change %d once", i)
			}
		}
		if strings.Count(got, ": alive\n") < 2 || !strings.Contains(got, "event: bye\n") {
			t.Errorf("the good one got %.300q", got[max(0, len(got)-300):])
		}
	})
}

// Who looks for what is rare is not told that it has missed something.
func TestStreamOfRareEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Feed{Events: 8}
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- (&Server{Store: &memory.Store{}, Feed: f}).serve(ctx, &Door{Listener: p}, own) }()
		c := p.dial()
		defer c.Close()
		go io.WriteString(c, "GET /api/v1/events?job=rare HTTP/1.1\r\nHost: loomd\r\n\r\n")
		var read strings.Builder
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(&read, c) })
		for range 10 {
			for range 8 {
				f.Observe(loom.Event{Kind: loom.KindChanged, Job: "common"})
			}
			<-time.After(heartbeat)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		reading.Wait()
		if want := ": alive\nid: " + f.cursor(f.last) + "\n\n"; !strings.Contains(read.String(), want) || strings.Contains(read.String(), "event: slow") {
			t.Errorf("got %q, want %q", read.String(), want)
		}
	})
}
