package loom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bench is a dialer whose connections do nothing: these tests are about what
// the pool does with tasks, not about what tasks do.
type bench struct {
	mu     sync.Mutex
	dials  map[string]int
	closed int
	fail   func(n *Node) error
	wait   time.Duration
}

func (b *bench) Dial(ctx context.Context, n *Node) (Conn, error) {
	if b.wait > 0 {
		select {
		case <-time.After(b.wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dials == nil {
		b.dials = map[string]int{}
	}
	b.dials[n.Name+"/"+n.User]++
	if b.fail != nil {
		if err := b.fail(n); err != nil {
			return nil, err
		}
	}
	return &benchConn{b}, nil
}

type benchConn struct{ bench *bench }

func (c *benchConn) Exec(ctx context.Context, cmd Command) error {
	if cmd.Text == "break" {
		return fmt.Errorf("reading: %w", ErrLost)
	}
	return nil
}
func (c *benchConn) Files(context.Context) (Files, error) { return nil, errors.ErrUnsupported }
func (c *benchConn) Close() error {
	c.bench.mu.Lock()
	defer c.bench.mu.Unlock()
	c.bench.closed++
	return nil
}

func (b *bench) dialed(key string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials[key]
}

func (b *bench) hungUp() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func nodes(names ...string) []*Node {
	var ns []*Node
	for _, n := range names {
		ns = append(ns, &Node{Name: n})
	}
	return ns
}

func numbered(prefix string, n int) []*Node {
	var ns []*Node
	for i := range n {
		ns = append(ns, &Node{Name: fmt.Sprintf("%s%03d", prefix, i)})
	}
	return ns
}

// A witness keeps events.
type witness struct {
	mu     sync.Mutex
	events []Event
}

func (r *witness) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *witness) of(kinds ...Kind) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var es []Event
	for _, e := range r.events {
		if slices.Contains(kinds, e.Kind) {
			es = append(es, e)
		}
	}
	return es
}

func (r *witness) result(t *testing.T, node string) *Result {
	t.Helper()
	for _, e := range r.of(KindNodeEnded) {
		if e.Node == node {
			return e.Result
		}
	}
	t.Fatalf("no result for node %s", node)
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestPoolResults(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name     string
		job      Job
		dialFail error
		want     Status
		reason   string
		code     int
	}{
		{name: "ok", job: Job{Task: TaskFunc(func(context.Context, *Session) error { return nil })}, want: StatusOK, code: -1},
		{name: "changed", job: Job{Task: TaskFunc(func(_ context.Context, s *Session) error {
			s.Changed("wrote %s", "/etc/motd")
			return nil
		})}, want: StatusChanged, code: -1},
		{name: "skipped", job: Job{Task: TaskFunc(func(context.Context, *Session) error {
			return fmt.Errorf("look: %w", Skip("no such %s", "service"))
		})}, want: StatusSkipped, reason: "no such service", code: -1},
		{name: "failed", job: Job{Task: TaskFunc(func(context.Context, *Session) error { return boom })},
			want: StatusFailed, reason: "boom", code: -1},
		{name: "failed after a change", job: Job{Task: TaskFunc(func(_ context.Context, s *Session) error {
			s.Changed("half")
			return boom
		})}, want: StatusFailed, reason: "boom", code: -1},
		{name: "exit status", job: Job{Task: TaskFunc(func(context.Context, *Session) error {
			return &ExitError{Command: "false", Code: 3, Stderr: "no\n\nwarning: disk full\n"}
		})}, want: StatusFailed, reason: "command false: exit status 3: warning: disk full", code: 3},
		{name: "signal", job: Job{Task: TaskFunc(func(context.Context, *Session) error {
			return &ExitError{Command: "sleep 5", Code: -1, Signal: "KILL"}
		})}, want: StatusFailed, reason: "command 'sleep 5': killed by signal KILL", code: -1},
		{name: "panic", job: Job{Task: TaskFunc(func(context.Context, *Session) error { panic("oops") })},
			want: StatusFailed, reason: "task panicked: oops", code: -1},
		{name: "timeout", job: Job{Timeout: time.Minute, Task: TaskFunc(func(ctx context.Context, _ *Session) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})}, want: StatusTimeout, reason: "timed out after 1m0s", code: -1},
		{name: "timeout told in other words", job: Job{Timeout: time.Minute, Task: TaskFunc(func(ctx context.Context, _ *Session) error {
			<-ctx.Done()
			return boom
		})}, want: StatusTimeout, reason: "boom", code: -1},
		{name: "own deadline", job: Job{Timeout: time.Hour, Task: TaskFunc(func(ctx context.Context, _ *Session) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			<-ctx.Done()
			return context.Cause(ctx)
		})}, want: StatusFailed, reason: "context deadline exceeded", code: -1},
		{name: "unreachable", dialFail: fmt.Errorf("dial: %w: refused", ErrUnreachable), want: StatusUnreachable,
			reason: "dial: unreachable: refused", code: -1},
		{name: "lost", job: Job{Task: TaskFunc(func(ctx context.Context, s *Session) error { return s.Run(ctx, "break") })},
			want: StatusLost, reason: "reading: connection lost while running", code: -1},
		{name: "gone half way is not untouched", job: Job{Task: TaskFunc(func(ctx context.Context, s *Session) error {
			return errors.Join(s.Run(ctx, "true"), fmt.Errorf("again: %w", ErrUnreachable))
		})}, want: StatusFailed, reason: "again: unreachable", code: -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rec witness
				pool := &Pool{Log: quiet(), Dialer: &bench{fail: func(*Node) error { return tt.dialFail }}}
				job := tt.job
				job.Name, job.Targets = "j", nodes("n")
				err := pool.Run(t.Context(), &job, time.Now(), rec.add)
				defer pool.Close()

				r := rec.result(t, "n")
				if r.Status != tt.want || r.Reason != tt.reason || r.ExitCode != tt.code {
					t.Errorf("result = %s, %q, code %d; want %s, %q, code %d", r.Status, r.Reason, r.ExitCode, tt.want, tt.reason, tt.code)
				}
				if (err == nil) != tt.want.Good() {
					t.Errorf("Run = %v for status %s", err, r.Status)
				}
				if e, ok := errors.AsType[*NodeError](err); err != nil && (!ok || e.Node != "n" || e.Status != tt.want) {
					t.Errorf("Run = %#v, want a *NodeError for n", err)
				}
			})
		})
	}
}

func TestPoolSteps(t *testing.T) {
	step := func(name string, on StepOn, err error) Step {
		return Step{Name: name, On: on, Task: TaskFunc(func(_ context.Context, s *Session) error {
			fmt.Fprintln(s.Out, name)
			return err
		})}
	}
	boom := errors.New("boom")
	tests := []struct {
		name   string
		steps  []Step
		ran    string
		want   Status
		reason string
	}{
		{"all in order", []Step{step("a", "", nil), step("b", OnOK, nil)}, "a b", StatusOK, ""},
		{"a failure ends it", []Step{step("a", "", boom), step("b", "", nil)}, "a", StatusFailed, "step a: boom"},
		{"clean up", []Step{step("a", "", boom), step("b", "", nil), step("fix", OnFailed, nil), step("end", OnAlways, nil)},
			"a fix end", StatusFailed, "step a: boom"},
		{"nothing to fix", []Step{step("a", "", nil), step("fix", OnFailed, nil), step("end", OnAlways, nil)}, "a end", StatusOK, ""},
		{"the first failure counts", []Step{step("a", "", boom), step("end", OnAlways, errors.New("later"))}, "a end", StatusFailed, "step a: boom"},
		{"all skipped", []Step{step("a", "", Skip("not here")), step("b", "", Skip("nor here"))}, "a b", StatusSkipped, "nor here"},
		{"one skipped", []Step{step("a", "", Skip("not here")), step("b", "", nil)}, "a b", StatusOK, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rec witness
			pool := &Pool{Log: quiet(), Dialer: &bench{}}
			defer pool.Close()
			_ = pool.Run(t.Context(), &Job{Name: "j", Steps: tt.steps, Targets: nodes("n")}, time.Now(), rec.add)
			var ran []string
			for _, e := range rec.of(KindOutput) {
				if e.Stream == Stdout {
					ran = append(ran, e.Text)
				}
			}
			r := rec.result(t, "n")
			if got := strings.Join(ran, " "); got != tt.ran || r.Status != tt.want || r.Reason != tt.reason {
				t.Errorf("ran %q: %s %q; want %q: %s %q", got, r.Status, r.Reason, tt.ran, tt.want, tt.reason)
			}
		})
	}
}

func TestPoolSudo(t *testing.T) {
	for _, tt := range []struct{ job, node, want string }{
		{"", "", ""}, {"", "www", ""}, {SudoDefault, "", "root"}, {SudoDefault, "www", "www"}, {"postgres", "www", "postgres"},
	} {
		pool := &Pool{Log: quiet(), Dialer: &bench{}}
		got := "none"
		task := TaskFunc(func(_ context.Context, s *Session) error { got = s.User; return nil })
		_ = pool.Run(t.Context(), &Job{Name: "j", Task: task, Sudo: tt.job, Targets: []*Node{{Name: "n", Sudo: Sudo{User: tt.node}}}}, time.Now(), nil)
		_ = pool.Close()
		if got != tt.want {
			t.Errorf("a job with sudo %q on a node with %q runs as %q, want %q", tt.job, tt.node, got, tt.want)
		}
	}
}

func TestPoolEventsOfANodeAreInOrder(t *testing.T) {
	var rec witness
	pool := &Pool{Max: 7, Log: quiet(), Dialer: &bench{}}
	defer pool.Close()
	job := &Job{Name: "j", Targets: numbered("n", 50), Task: TaskFunc(func(_ context.Context, s *Session) error {
		fmt.Fprintf(s.Out, "one\ntwo")
		s.Changed("it")
		return nil
	})}
	due := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := pool.Run(t.Context(), job, due, rec.add); err != nil {
		t.Fatal(err)
	}
	all := rec.events
	if all[0].Kind != KindRunStarted || all[len(all)-1].Kind != KindRunEnded {
		t.Errorf("first and last event are %s and %s", all[0].Kind, all[len(all)-1].Kind)
	}
	if ran := all[len(all)-1].Ran; ran.Status != StatusChanged || ran.Counts[StatusChanged] != 50 || ran.Nodes != 50 || !ran.Due.Equal(due) {
		t.Errorf("run ended as %+v", ran)
	}
	per := map[string][]string{}
	for _, e := range all {
		if e.Run != all[0].Run || e.Job != "j" || e.Time.IsZero() {
			t.Errorf("event %+v does not belong to the run", e)
		}
		per[e.Node] = append(per[e.Node], strings.TrimSpace(string(e.Kind)+" "+e.Text))
	}
	want := []string{"node-started", "output one", "changed it", "output two", "node-ended"}
	for _, n := range job.Targets {
		if !slices.Equal(per[n.Name], want) {
			t.Errorf("events of %s = %q, want %q", n.Name, per[n.Name], want)
		}
	}
}

func TestPoolIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		pool := &Pool{Max: 4, Log: quiet(), Dialer: &bench{}}
		defer pool.Close()
		task := TaskFunc(func(context.Context, *Session) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second) //nolint:forbidigo // the fake clock's second is the task's work
			now.Add(-1)
			return nil
		})
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				_ = pool.Run(t.Context(), &Job{Name: fmt.Sprint(i), Task: task, Targets: numbered("n", 20)}, time.Now(), nil)
			})
		}
		start := time.Now()
		wg.Wait()
		if got := most.Load(); got != 4 {
			t.Errorf("%d node-tasks ran at once, want 4", got)
		}
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("60 node-tasks of a second, 4 at once, took %v", took)
		}
	})
}

func TestPoolIsFairBetweenJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &Pool{Max: 2, Log: quiet(), Dialer: &bench{}}
		defer pool.Close()
		task := TaskFunc(func(context.Context, *Session) error {
			time.Sleep(time.Second) //nolint:forbidigo // as above
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = pool.Run(t.Context(), &Job{Name: "big", Task: task, Targets: numbered("n", 1000)}, time.Now(), nil)
		})
		synctest.Wait()
		start := time.Now()
		_ = pool.Run(t.Context(), &Job{Name: "small", Task: task, Targets: nodes("one")}, time.Now(), nil)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("a job of one node waited %v behind one of a thousand", took)
		}
		wg.Wait()
	})
}

func TestPoolResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &Pool{Max: 1, Log: quiet(), Dialer: &bench{}}
		defer pool.Close()
		task := TaskFunc(func(context.Context, *Session) error {
			time.Sleep(time.Second) //nolint:forbidigo // as above
			return nil
		})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { _ = pool.Run(t.Context(), &Job{Name: "j", Task: task, Targets: numbered("n", 21)}, start, nil) })
		synctest.Wait()
		pool.Resize(10)
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("21 tasks of a second took %v with 10 at once", took)
		}
	})
}

func TestPoolAbandonsTasksThatDoNotHeedTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var rec witness
		ctx, cancel := context.WithCancelCause(t.Context())
		pool := &Pool{Max: 1, Log: quiet(), Dialer: &bench{}}
		job := &Job{Name: "deaf", Targets: nodes("a", "b"), Task: TaskFunc(func(_ context.Context, s *Session) error {
			if s.Node.Name == "b" {
				return nil
			}
			cancel(ErrCancelled)
			<-release
			fmt.Fprintln(s.Out, "too late")
			return nil
		})}
		err := pool.Run(ctx, job, time.Now(), rec.add)
		if !errors.Is(err, ErrCancelled) {
			t.Errorf("Run = %v, want ErrCancelled", err)
		}
		if r := rec.result(t, "a"); r.Status != StatusCancelled || !strings.Contains(r.Reason, "was abandoned") {
			t.Errorf("result = %s %q, want cancelled and abandoned", r.Status, r.Reason)
		}
		if r := rec.result(t, "b"); r.Status != StatusCancelled {
			t.Errorf("the node that was not begun ended as %s", r.Status)
		}
		if ended := rec.of(KindRunEnded); ended[0].Ran.Status != StatusCancelled {
			t.Errorf("run ended as %s", ended[0].Ran.Status)
		}
		if err := pool.Run(t.Context(), &Job{Name: "next", Task: TaskFunc(func(context.Context, *Session) error { return nil }),
			Targets: nodes("b")}, time.Now(), nil); err != nil {
			t.Errorf("the abandoned task kept its worker: %v", err)
		}
	})
}

func TestPoolKeepsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{}
		pool := &Pool{Idle: time.Minute, Log: quiet(), Dialer: b}
		noop := TaskFunc(func(context.Context, *Session) error { return nil })
		run := func(j Job) {
			j.Targets = nodes("n")
			_ = pool.Run(t.Context(), &j, time.Now(), nil)
		}
		for range 3 {
			run(Job{Name: "j", Task: noop})
			time.Sleep(50 * time.Second) //nolint:forbidigo // the fake clock's
		}
		if got := b.dialed("n/"); got != 1 {
			t.Errorf("three runs within the idle time dialed %d times, want 1", got)
		}
		run(Job{Name: "j", Task: noop, User: "deploy"})
		if got := b.dialed("n/deploy"); got != 1 {
			t.Errorf("another user dialed %d times, want 1", got)
		}
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the fake clock's
		if n := b.hungUp(); n != 2 {
			t.Errorf("%d connections were closed when idle, want 2", n)
		}
		run(Job{Name: "j", Task: TaskFunc(func(ctx context.Context, s *Session) error { return s.Run(ctx, "break") })})
		run(Job{Name: "j", Task: noop})
		if got := b.dialed("n/"); got != 3 {
			t.Errorf("dialed %d times, want a third time after the connection was lost", got)
		}
		_ = pool.Close()
		if n := b.hungUp(); n != 4 {
			t.Errorf("%d of 4 connections were closed", n)
		}
	})
}

func TestPoolDialsOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{wait: time.Second}
		pool := &Pool{Log: quiet(), Dialer: b}
		defer pool.Close()
		noop := TaskFunc(func(context.Context, *Session) error { return nil })
		var wg sync.WaitGroup
		impatient, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		wg.Go(func() { _ = pool.Run(impatient, &Job{Name: "first", Task: noop, Targets: nodes("n")}, time.Now(), nil) })
		synctest.Wait()
		for i := range 5 {
			wg.Go(func() {
				if err := pool.Run(t.Context(), &Job{Name: fmt.Sprint(i), Task: noop, Targets: nodes("n")}, time.Now(), nil); err != nil {
					t.Errorf("a run failed with another's context: %v", err)
				}
			})
		}
		wg.Wait()
		if got := b.dialed("n/"); got != 1 {
			t.Errorf("dialed %d times, want one dial that succeeded", got)
		}
	})
}

func TestOutputIsBoundedAndComplete(t *testing.T) {
	var rec witness
	pool := &Pool{Output: 10_000, Log: quiet(), Dialer: &bench{}}
	defer pool.Close()
	job := &Job{Name: "j", Targets: nodes("n"), Task: TaskFunc(func(_ context.Context, s *Session) error {
		for i := range 10_000 {
			fmt.Fprintf(s.Out, "line %05d\n", i)
		}
		fmt.Fprint(s.Err, "no newline")
		return nil
	})}
	_ = pool.Run(t.Context(), job, time.Now(), rec.add)
	if got := len(rec.of(KindOutput)); got != 10_001 {
		t.Errorf("%d lines were streamed, want 10001", got)
	}
	r := rec.result(t, "n")
	size := int64(0)
	marker := ""
	for _, l := range r.Output {
		if l.Stream == Log {
			marker = l.Text
			continue
		}
		size += int64(len(l.Text)) + 1
	}
	if size > 10_000 || size < 9_900 {
		t.Errorf("kept %d bytes, want just under 10000", size)
	}
	if first, last := r.Output[0].Text, r.Output[len(r.Output)-1]; first != "line 00000" || last.Text != "no newline" || last.Stream != Stderr {
		t.Errorf("kept from %q to %q", first, last.Text)
	}
	if all := int64(10_000*11 + 11); r.Dropped != all-size || !strings.Contains(marker, fmt.Sprint(r.Dropped)) {
		t.Errorf("dropped %d bytes of %d, %d kept; marker %q", r.Dropped, all, size, marker)
	}
}

// FuzzOutput holds that lines put together again are what was written, however
// it was cut into pieces.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("one\ntwo\r\nthree"), 3)
	f.Add(bytes.Repeat([]byte("x"), 3*longestLine), 1000)
	f.Add(append(bytes.Repeat([]byte("x"), longestLine), '\n'), longestLine)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		if piece <= 0 || len(text) > 1<<20 {
			t.Skip()
		}
		var got bytes.Buffer
		w := &work{pool: &Pool{Output: 8 << 20}, job: &Job{}, emit: func(e Event) {
			if len(e.Text) > longestLine {
				t.Errorf("a line of %d bytes went into one event", len(e.Text))
			}
			got.WriteString(e.Text)
			if !e.More {
				got.WriteByte('\n')
			}
		}}
		o := newOutput(w, "n")
		for rest := text; len(rest) > 0; {
			n := min(piece, len(rest))
			_, _ = io.Copy(o.writer(Stdout), bytes.NewReader(rest[:n]))
			rest = rest[n:]
		}
		o.close()
		// Whether a line ended in a carriage return is not kept.
		plain := func(text string) string {
			var lines []string
			for line := range strings.Lines(text) {
				lines = append(lines, strings.TrimRight(line, "\r\n"))
			}
			return strings.Join(lines, "\n")
		}
		if g, w := plain(got.String()), plain(string(text)); g != w {
			t.Errorf("got %q, want %q", g, w)
		}
	})
}

func TestRunIDsSortByTime(t *testing.T) {
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	last := ""
	seen := map[string]bool{}
	for i := range 1000 {
		id := newID(at.Add(time.Duration(i) * time.Millisecond))
		if len(id) != 26 || id <= last || seen[id] {
			t.Fatalf("newID = %q after %q", id, last)
		}
		seen[id], last = true, id
	}
}
