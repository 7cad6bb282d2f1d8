package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustinlacewell/loom"
)

// A scripted sender answers what it is told to, and notes when it was asked.
type scripted struct {
	mu      sync.Mutex
	answers []error
	at      []time.Time
	titles  []string
}

func (s *scripted) send(_ context.Context, m message) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.titles = append(s.at, time.Now()), append(s.titles, m.title)
	if len(s.answers) == 0 {
		return "ok", nil
	}
	err := s.answers[0]
	s.answers = s.answers[1:]
	return "", err
}

// inBubble runs a notifier of one target where time is not real.
func inBubble(t *testing.T, tt *target, do func(n *Notifier)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := &Notifier{State: dir, Log: slog.New(slog.DiscardHandler), Host: "control"}
		jobs := map[string]*loom.Job{}
		for i := range 1000 {
			name := fmt.Sprintf("j%d", i)
			jobs[name] = &loom.Job{Name: name}
		}
		n.targets, n.jobs, n.loaded = []*target{tt}, jobs, true
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); n.Run(ctx) }()
		synctest.Wait()
		do(n)
		cancel()
		<-done
	})
}

func fail(n *Notifier, job, id string) {
	now := time.Now()
	n.Observe(loom.Event{Kind: loom.KindRunEnded, Time: now, Job: job, Run: id, Ran: &loom.Run{ID: id, Job: job, Status: loom.StatusFailed, Ended: now, Started: now}})
}

func TestBackoff(t *testing.T) {
	down := errors.New("no route to host")
	s := &scripted{answers: []error{down, down, &refusal{err: down, wait: time.Hour}, down}}
	tt := &target{name: "ops", kind: "webhook", isUsual: true, after: 1, giveUp: 24 * time.Hour, time: time.Second, sender: s}
	inBubble(t, tt, func(n *Notifier) {
		fail(n, "j1", "r1")
		time.Sleep(3 * time.Hour) //nolint:forbidigo // in a bubble
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.at) != 5 {
			t.Fatalf("%d attempts", len(s.at))
		}
		for i, most := range []time.Duration{firstRetry, 2 * firstRetry, time.Hour, 8 * firstRetry} {
			least := most / 2
			if i == 2 {
				least = most // as it was asked for
			}
			if d := s.at[i+1].Sub(s.at[i]); d < least || d > most+time.Second {
				t.Errorf("pause %d is %v, want %v to %v", i, d, least, most)
			}
		}
	})
}

func TestGivenUp(t *testing.T) {
	s := &scripted{answers: make([]error, 1000)}
	for i := range s.answers {
		s.answers[i] = errors.New("closed")
	}
	tt := &target{name: "ops", kind: "webhook", isUsual: true, after: 1, giveUp: 2 * time.Hour, time: time.Second, sender: s}
	inBubble(t, tt, func(n *Notifier) {
		fail(n, "j1", "r1")
		time.Sleep(3 * time.Hour) //nolint:forbidigo // in a bubble
		synctest.Wait()
		all := n.Standings()
		if len(all) != 1 || all[0].Pending != 0 || len(all[0].Lost) != 1 || !strings.Contains(all[0].Lost[0].Error, "given up after 2h0m0s: closed") {
			t.Errorf("it stands %+v", all)
		}
	})
}

func TestReminders(t *testing.T) {
	s := &scripted{}
	tt := &target{name: "ops", kind: "webhook", isUsual: true, after: 1, giveUp: time.Hour, time: time.Second, repeat: 24 * time.Hour, sender: s}
	inBubble(t, tt, func(n *Notifier) {
		fail(n, "j1", "r1")
		time.Sleep(73 * time.Hour) //nolint:forbidigo // in a bubble
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.at) != 4 || s.at[3].Sub(s.at[0]).Round(time.Minute) != 72*time.Hour || !strings.Contains(s.titles[3], "still fails, for 3 days") {
			t.Errorf("reminded at %v: %q", s.at, s.titles)
		}
	})
}

// A node that is back at once was never gone; one that is back later is, also for a
// notifier that did not see it go.
func TestNodes(t *testing.T) {
	s := &scripted{}
	tt := &target{name: "ops", kind: "webhook", on: []Kind{NodeUnreachable, NodeBack}, after: 1, giveUp: time.Hour, time: time.Second, sender: s}
	ends := func(n *Notifier, node string, status loom.Status) {
		n.Observe(loom.Event{Kind: loom.KindNodeEnded, Time: time.Now(), Job: "j1", Run: "r", Node: node, Result: &loom.Result{Status: status, Reason: "no route"}})
	}
	inBubble(t, tt, func(n *Notifier) {
		ends(n, "blip", loom.StatusUnreachable)
		ends(n, "far", loom.StatusUnreachable)
		ends(n, "off", loom.StatusUnreachable)
		synctest.Wait()
		time.Sleep(time.Second) //nolint:forbidigo // in a bubble
		ends(n, "blip", loom.StatusOK)
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble
		synctest.Wait()

		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		next := &Notifier{State: n.State, Log: n.Log, Host: n.Host, targets: n.targets, jobs: n.jobs, loaded: true}
		ends(next, "far", loom.StatusOK) // before it has looked at anything
		done := make(chan struct{})
		go func() { defer close(done); next.Run(ctx) }()
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble
		ends(next, "off", loom.StatusOK)
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble
		cancel()
		<-done
	})
	if want := []string{"2 nodes are unreachable: far, off", "node far can be reached again", "node off can be reached again"}; !slices.Equal(s.titles, want) {
		t.Errorf("told was %q, want %q", s.titles, want)
	}
}

// A thousand jobs that fail at once are few messages.
func TestFolded(t *testing.T) {
	s := &scripted{}
	tt := &target{name: "ops", kind: "email", isUsual: true, after: 1, giveUp: time.Hour, time: time.Second, limit: 10, folds: true, sender: s}
	inBubble(t, tt, func(n *Notifier) {
		for i := range 1000 {
			fail(n, fmt.Sprintf("j%d", i), fmt.Sprintf("r%d", i))
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // in a bubble
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.at) > 20 || !strings.Contains(strings.Join(s.titles, "\n"), "200 news: 200 failed") {
			t.Errorf("%d messages: %q", len(s.at), s.titles)
		}
		if all := n.Standings(); all[0].Delivered != 1000 || all[0].Pending != 0 {
			t.Errorf("it stands %+v", all[0])
		}
	})
}

// What does not fit is dropped, the oldest first, and a journal that was read again
// says the same.
func TestBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "outbox", "journal")
	b := openBox(file, func(err error) { t.Error(err) })
	for i := range mostItems + 5 {
		b.commit(&record{Add: []addition{{News: &News{ID: fmt.Sprint(i)}, To: []string{"x"}, At: time.Unix(int64(i), 0)}}}, false)
	}
	extra := b.excess()
	if len(extra) != 5 || extra[0].News.ID != "0" {
		t.Fatalf("%d are too many", len(extra))
	}
	for _, i := range extra {
		b.commit(&record{Dead: []death{{To: i.To, ID: i.News.ID}}}, true)
	}
	b.close()
	again := newBox(file)
	if err := again.read(func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	if again.n != mostItems || len(again.past.Dead) != 5 || again.past.Targets["x"].Lost != 5 || again.size != b.size {
		t.Errorf("%d wait, %d are dead, %+v", again.n, len(again.past.Dead), again.past.Targets["x"])
	}
}

// A run's own 128 bits are those of its UUID.
func TestUUID(t *testing.T) {
	for run, want := range map[string]string{
		"00000000000000000000000000": "00000000-0000-0000-0000-000000000000",
		"7zzzzzzzzzzzzzzzzzzzzzzzzz": "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"00000000000000000000000001": "00000000-0000-0000-0000-000000000001",
	} {
		if got := uuid(run); got != want {
			t.Errorf("uuid(%s) = %s, want %s", run, got, want)
		}
	}
}

// Whatever jobs print, what is told of it is short, valid, and has nothing in it
// that a terminal would heed.
func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\x07\x1b[31mred\xff\u202e", 20)
	f.Add("plain", 3)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = 3 + (most&0xffff+0xffff)&0xffff
		got := newCleaner(nil).line(s, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("line(%q, %d) = %q", s, most, got)
		}
	})
}

// A template that is accepted can be made of all news, and what it makes is bounded.
func FuzzTemplate(f *testing.F) {
	f.Add("{{.Kind}} {{.Job.Name}}")
	f.Add("{{with .Run}}{{.ID}}{{end}}{{join \",\" .Nodes}}")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "range") || strings.Contains(text, "template") || strings.Contains(text, "block") || strings.Contains(text, "printf") {
			t.Skip("whoever writes the configuration can make it spin")
		}
		parsed, err := parseWording("title", text)
		if err != nil {
			return
		}
		for _, n := range samples() {
			title, body := wordings{title: parsed, body: parsed}.word(&n, newCleaner(nil))
			if len(title) > titleLength || len(body) > textLength || strings.Contains(title, "\n") {
				t.Errorf("%q makes %q and %d bytes", text, title, len(body))
			}
		}
	})
}
