package loom_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// A world has a store that outlives schedulers. Only one of them is there at a
// time, as with a store on a disk, so a new one finds the work of those before it
// free to take.
type world struct {
	t      *testing.T
	store  *memory.Store
	pool   func() *loom.Pool
	grace  time.Duration
	shared bool     // others may use the store
	before []string // instances that are gone
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, store: &memory.Store{}, grace: time.Second,
		pool: func() *loom.Pool { return &loom.Pool{Max: 100, Log: slog.New(slog.DiscardHandler)} }}
}

// A life is one scheduler in a world, which sees the store through faults.
type life struct {
	*loom.Scheduler
	*world
	faults *faults
	stop   context.CancelFunc
	done   chan error

	mu     sync.Mutex
	events []loom.Event
}

// begin starts a scheduler.
func (w *world) begin(jobs ...*loom.Job) *life {
	w.t.Helper()
	return w.beginWith(&faults{}, jobs...)
}

func (w *world) beginWith(f *faults, jobs ...*loom.Job) *life {
	w.t.Helper()
	f.Store, f.shared, f.gone = w.store, w.shared, slices.Clone(w.before)
	l := &life{world: w, faults: f, done: make(chan error, 1)}
	l.Scheduler = &loom.Scheduler{Pool: w.pool(), Store: f, Grace: w.grace, Log: slog.New(slog.DiscardHandler), Observe: l.observe}
	l.Load(&loom.Manifest{Jobs: jobs})
	ctx, cancel := context.WithCancel(w.t.Context())
	l.stop = cancel
	go func() { l.done <- l.Run(ctx) }()
	synctest.Wait()
	return l
}

func (l *life) observe(e loom.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// of returns what was told of a kind.
func (l *life) of(k loom.Kind) []loom.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.events), func(e loom.Event) bool { return e.Kind != k })
}

// end stops the scheduler as a person does.
func (l *life) end() {
	l.stop()
	<-l.done
	_ = l.Pool.Close()
	if n := l.Unwritten(); n != 0 {
		l.t.Errorf("%d bytes of output count as waiting once all has ended", n)
	}
	l.before = append(l.before, l.faults.self())
}

// kill has nothing of what the scheduler does from now on reach the store.
func (l *life) kill() {
	l.faults.set(func(string) error { return errors.New("it is dead") }, nil)
	l.end()
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the fake clock's
	synctest.Wait()
}

// faults is a store as one instance sees it.
type faults struct {
	*memory.Store
	shared bool
	gone   []string // instances that are known to be gone when this one comes

	mu     sync.Mutex
	id     string
	before func(op string) error // an error instead of the call
	after  func(op string) error // an error though it was done
}

func (f *faults) set(before, after func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faults) self() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}

// call does a call, or fails it.
func (f *faults) call(op string, do func() error) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return err
		}
	}
	err := do()
	if after != nil && err == nil {
		err = after(op)
	}
	return err
}

func (f *faults) Beat(ctx context.Context, self loom.Instance) (p loom.Pulse, err error) {
	err = f.call("beat", func() error {
		f.mu.Lock()
		first := f.id == ""
		f.id = self.ID
		f.mu.Unlock()
		for _, id := range f.gone {
			if first {
				_, _ = f.Store.Beat(ctx, loom.Instance{ID: id, Leaving: true})
			}
		}
		p, err = f.Store.Beat(ctx, self)
		p.Alone = !f.shared
		return err
	})
	return p, err
}

func (f *faults) Adopt(ctx context.Context, jobs map[string]string) error {
	return f.call("adopt", func() error { return f.Store.Adopt(ctx, jobs) })
}

func (f *faults) Fire(ctx context.Context, self string, firings []loom.Firing) (is []loom.Fired, err error) {
	err = f.call("fire", func() error {
		is, err = f.Store.Fire(ctx, self, firings)
		return err
	})
	if err != nil {
		return nil, err
	}
	return is, nil
}

func (f *faults) Take(ctx context.Context, self string) (c *loom.Claim, err error) {
	err = f.call("take", func() error {
		c, err = f.Store.Take(ctx, self)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (f *faults) Record(ctx context.Context, c loom.Claim, events []loom.Event) error {
	return f.call("record", func() error { return f.Store.Record(ctx, c, events) })
}

func (f *faults) Finish(ctx context.Context, c loom.Claim, end loom.Run, last []loom.Event) error {
	return f.call("finish", func() error { return f.Store.Finish(ctx, c, end, last) })
}

func (f *faults) Jobs(ctx context.Context, names ...string) (all []loom.JobState, err error) {
	err = f.call("jobs", func() error {
		all, err = f.Store.Jobs(ctx, names...)
		return err
	})
	return all, err
}

func (f *faults) Results(ctx context.Context, q loom.ResultQuery) (all []loom.Result, err error) {
	err = f.call("results", func() error {
		all, err = f.Store.Results(ctx, q)
		return err
	})
	return all, err
}

// A toil is what a test's task does.
type toil struct {
	mu    sync.Mutex
	lasts time.Duration
	says  []string // lines, one each second
	done  []string // "run node" for each time that it was begun
	cause error    // why it was ended
	again bool     // it may go on where it was
}

func (w *toil) Resumes() bool { return w.again }

func (w *toil) Apply(ctx context.Context, s *loom.Session) error {
	w.mu.Lock()
	w.done = append(w.done, s.RunID+" "+s.Node.Name)
	w.mu.Unlock()
	for _, line := range w.says {
		fmt.Fprintln(s.Out, line)
		if err := w.wait(ctx, time.Second); err != nil {
			return err
		}
	}
	return w.wait(ctx, w.lasts)
}

func (w *toil) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cause = context.Cause(ctx)
		return w.cause
	}
}

// begun returns on which nodes it was begun, in order.
func (w *toil) begun() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var nodes []string
	for _, d := range w.done {
		_, node, _ := strings.Cut(d, " ")
		nodes = append(nodes, node)
	}
	return strings.Join(nodes, " ")
}

// toils returns a job that does w on some nodes, by schedule if there is one.
func (w *world) toils(name, expr string, does *toil, nodes ...string) *loom.Job {
	w.t.Helper()
	j := &loom.Job{Name: name, Task: does}
	for _, n := range nodes {
		j.Targets = append(j.Targets, &loom.Node{Name: n, Transport: "local"})
	}
	if expr != "" {
		j.Schedule = parse(w.t, expr, time.UTC)
	}
	return j
}

// ticks returns what became of a job's ticks: "15:04 outcome", oldest first.
func (w *world) ticks(job string) (all []string, why []string) {
	w.t.Helper()
	ticks, err := w.store.Ticks(w.t.Context(), loom.TickQuery{Job: job})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range slices.Backward(ticks) {
		at := k.Due.UTC().Format("15:04")
		if k.Ticks > 1 {
			at += "-" + k.Until.UTC().Format("15:04")
		}
		all, why = append(all, at+" "+string(k.Outcome)), append(why, k.Why)
	}
	return all, why
}

// runs returns a job's runs, oldest first.
func (w *world) runs(job string) []loom.Run {
	w.t.Helper()
	runs, err := w.store.Runs(w.t.Context(), loom.RunQuery{Job: job})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(runs)
	return runs
}

// ends returns how a job's runs ended.
func (w *world) ends(job string) string {
	w.t.Helper()
	var all []string
	for _, r := range w.runs(job) {
		all = append(all, string(r.Status))
	}
	return strings.Join(all, " ")
}

// results returns how a run went on each node: "node status".
func (w *world) results(run string) (all []string, why []string) {
	w.t.Helper()
	results, err := w.store.Results(w.t.Context(), loom.ResultQuery{Runs: []string{run}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range results {
		all, why = append(all, r.Node+" "+string(r.Status)), append(why, r.Reason)
	}
	return all, why
}

// output returns what the store has of what a node printed.
func (w *world) output(run, node string) (all []string) {
	w.t.Helper()
	chunks, err := w.store.Output(w.t.Context(), loom.OutputQuery{Run: run, Node: node, Limit: 1e6})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range chunks {
		for _, l := range c.Lines {
			all = append(all, l.Text)
		}
	}
	return all
}

func same(t *testing.T, what string, got any, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func down(string) error { return fmt.Errorf("disk is full: %w", loom.ErrStoreDown) }

func TestSchedulerWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		each, long := &toil{}, &toil{lasts: 10 * time.Minute, says: []string{"a", "b"}}
		l := w.begin(w.toils("each", "* * * * *", each, "n"), w.toils("long", "", long, "n"))
		pass(3*time.Minute + 30*time.Second)
		run, err := l.Trigger(t.Context(), "long", loom.Request{})
		if err != nil {
			t.Fatal(err)
		}
		pass(500 * time.Millisecond)
		l.faults.set(down, nil) // at 00:03:30.5
		pass(14 * time.Minute)
		if since, err := l.Health(); !errors.Is(err, loom.ErrStoreDown) || since.UTC().Format("15:04") != "00:03" {
			t.Errorf("health is %v since %v", err, since)
		}
		if _, err := l.Trigger(t.Context(), "each", loom.Request{}); !errors.Is(err, loom.ErrStoreDown) {
			t.Errorf("Trigger = %v, want ErrStoreDown", err)
		}
		same(t, "runs of each before", each.begun(), "n n n")
		l.faults.set(nil, nil) // at 00:17:30.5
		pass(3 * time.Minute)
		if _, err := l.Health(); err != nil {
			t.Errorf("health is %v", err)
		}
		same(t, "down and back", fmt.Sprint(len(l.of(loom.KindStoreDown)), len(l.of(loom.KindStoreBack))), "1 1")
		ticks, why := w.ticks("each")
		same(t, "ticks", ticks, []string{"00:01 ran", "00:02 ran", "00:03 ran", "00:04-00:16 missed", "00:17 late", "00:18 ran", "00:19 ran", "00:20 ran"})
		for _, i := range []int{3, 4} {
			if i < len(why) && !strings.Contains(why[i], "the store was down from ") {
				t.Errorf("a tick that fell while the store was down says %q", why[i])
			}
		}
		same(t, "ends of long", w.ends("long"), "ok")
		if r := w.runs("long")[0]; r.Ended.Sub(r.Started) != 10*time.Minute+2*time.Second {
			t.Errorf("long was recorded to last %v", r.Ended.Sub(r.Started))
		}
		same(t, "output of long", w.output(run.ID, "n"), []string{"a", "b"})
		l.end()
	})
}

func TestSchedulerIsToldAboutEachOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.toils("j", "* * * * *", &toil{}, "n")
		j.Missed.Policy = loom.MissedAll
		f := &faults{}
		f.set(down, nil) // from the beginning
		l := w.beginWith(f, j)
		for range 3 {
			pass(90 * time.Second)
			f.set(nil, nil)
			pass(90 * time.Second)
			f.set(down, nil)
		}
		same(t, "down and back", fmt.Sprint(len(l.of(loom.KindStoreDown)), len(l.of(loom.KindStoreBack))), "3 3")
		f.set(nil, nil)
		pass(3 * time.Second)
		ticks, _ := w.ticks("j")
		same(t, "ticks", ticks, []string{"00:02 ran", "00:03 ran", "00:04 late", "00:05 ran", "00:06 ran", "00:07 late", "00:08 ran", "00:09 ran"})
		l.end()
	})
}

func TestSchedulerGivesUpWhatWasTakenOver(t *testing.T) {
	for name, only := range map[string]string{"silent": "beat", "fenced": "finish"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.shared = true
				does := &toil{lasts: time.Hour, says: []string{"a"}}
				l := w.begin(w.toils("j", "", does, "n"))
				run, err := l.Trigger(t.Context(), "j", loom.Request{})
				if err != nil {
					t.Fatal(err)
				}
				pass(5 * time.Second)
				if only == "beat" { // nobody hears of us: by the time that the work is given away, it has ended here
					l.faults.set(func(op string) error {
						if op == "beat" {
							return down(op)
						}
						return nil
					}, nil)
					pass(9 * time.Second)
				} else { // it was given away already
					if _, err := w.store.Beat(t.Context(), loom.Instance{ID: l.faults.self(), Leaving: true}); err != nil {
						t.Fatal(err)
					}
					if c, err := w.store.Take(t.Context(), "other"); err != nil || c == nil || c.Run.ID != run.ID {
						t.Fatalf("the other takes %+v, %v", c, err)
					}
					pass(5 * time.Second)
				}
				if does.cause == nil || !errors.Is(does.cause, loom.ErrFenced) {
					t.Errorf("the work was ended by %v, want ErrFenced", does.cause)
				}
				if only != "beat" {
					same(t, "status in the store", w.ends("j"), "running")
				}
				l.end()
			})
		})
	}
}

// What ended while the store could not be told must not keep its job from running
// until the next start.
func TestSchedulerTakesUpWhatItCouldNotEnd(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.shared = shared
				does := &toil{lasts: time.Hour}
				l := w.begin(w.toils("j", "", does, "n"))
				run, err := l.Trigger(t.Context(), "j", loom.Request{})
				if err != nil {
					t.Fatal(err)
				}
				pass(5 * time.Second)
				l.faults.set(down, nil)
				pass(5 * time.Second)
				if !shared { // else it is given up, as another may have it
					if err := l.Cancel(run.ID, "enough"); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Minute)
				if does.cause == nil {
					t.Error("the work goes on")
				}
				l.faults.set(nil, nil)
				pass(20 * time.Second)
				same(t, "ends", w.ends("j"), "lost")
				if _, err := l.Trigger(t.Context(), "j", loom.Request{}); err != nil {
					t.Errorf("the job can't be run again: %v", err)
				}
				pass(time.Second)
				same(t, "began", does.begun(), "n n")
				l.end()
			})
		})
	}
}

func TestSchedulerTakesUpWhatTheStoreGaveItUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{}
		job := func() *loom.Job {
			j := w.toils("j", "", does, "n")
			j.Overlap = loom.OverlapQueue
			return j
		}
		does.lasts = time.Minute
		l := w.begin(job())
		for range 2 {
			if _, err := l.Trigger(t.Context(), "j", loom.Request{}); err != nil {
				t.Fatal(err)
			}
		}
		pass(30 * time.Second)
		l.faults.set(nil, func(op string) error { // the store's answers are lost, though it does what it is told
			if op == "take" {
				return down(op)
			}
			return nil
		})
		pass(40 * time.Second)
		same(t, "began", does.begun(), "n")
		l.faults.set(nil, nil)
		pass(80 * time.Second)
		same(t, "began", does.begun(), "n n")
		same(t, "ends", w.ends("j"), "ok ok")
		l.end()
	})
}

func TestSchedulerFindsWhatADeadOneHasLeft(t *testing.T) {
	for _, tt := range []struct {
		name    string
		away    time.Duration
		begun   string
		results []string
		run     loom.Status
	}{
		{"what was not begun is begun", time.Minute, "a b c d", []string{"a ok", "b lost", "c ok", "d ok"}, loom.StatusLost},
		{"or not, if it is too late", 2 * time.Hour, "a b", []string{"a ok", "b lost", "c cancelled", "d cancelled"}, loom.StatusLost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				does := &toil{lasts: time.Minute}
				job := func() *loom.Job {
					j := w.toils("j", "30 0 1 1 *", does, "a", "b", "c", "d")
					j.Batch.Sizes = []loom.Share{{N: 1}}
					j.Missed.Within = time.Hour
					return j
				}
				l := w.begin(job())
				pass(31*time.Minute + 30*time.Second)
				l.kill()
				pass(tt.away)
				l = w.begin(job())
				pass(10 * time.Minute)
				same(t, "begun", does.begun(), tt.begun)
				run := w.runs("j")[0]
				results, why := w.results(run.ID)
				same(t, "results", results, tt.results)
				same(t, "run", run.Status, tt.run)
				if !strings.Contains(why[1], "loom ended while it ran here") {
					t.Errorf("b was lost because %q", why[1])
				}
				if strings.HasSuffix(results[2], "cancelled") && !strings.Contains(why[2], "more than 1h0m0s before") {
					t.Errorf("c was not begun because %q", why[2])
				}
				ticks, _ := w.ticks("j")
				same(t, "ticks", ticks, []string{"00:30 ran"})
				l.end()
			})
		})
	}
}

func TestSchedulerFiresWhatFollowsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		parent, child := &toil{}, &toil{}
		jobs := func() []*loom.Job {
			c := w.toils("child", "", child, "n")
			c.After = []loom.After{{Job: "parent"}}
			return []*loom.Job{w.toils("parent", "30 0 1 1 *", parent, "n"), c}
		}
		f := &faults{}
		f.set(func(op string) error { // it dies before the parent's end is written
			if op == "finish" {
				return down(op)
			}
			return nil
		}, nil)
		l := w.beginWith(f, jobs()...)
		pass(31 * time.Minute)
		same(t, "parent", w.ends("parent"), "running")
		l.kill()
		l = w.begin(jobs()...)
		pass(time.Minute)
		same(t, "parent", w.ends("parent"), "ok")
		same(t, "parent began", parent.begun(), "n")
		runs := w.runs("child")
		if len(runs) != 1 || runs[0].By != w.runs("parent")[0].ID || runs[0].Trigger != loom.TriggerAfter {
			t.Errorf("the child ran %+v, want once", runs)
		}
		l.end()
	})
}

func TestSchedulerKeepsWhatWaits(t *testing.T) {
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("dies ", dies), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				does := &toil{lasts: time.Minute}
				job := func() *loom.Job {
					j := w.toils("j", "30 0 1 1 *", does, "n")
					j.Overlap = loom.OverlapQueue
					return j
				}
				l := w.begin(job())
				pass(30*time.Minute + 10*time.Second)
				if r, err := l.Trigger(t.Context(), "j", loom.Request{}); err != nil || r.Status != loom.StatusQueued {
					t.Fatalf("the second run is %s, %v", r.Status, err)
				}
				first := "cancelled"
				if l.stop(); dies {
					l.kill()
					first = "lost"
				} else {
					l.end()
				}
				same(t, "before", does.begun(), "n")
				l = w.begin(job())
				pass(2 * time.Minute)
				same(t, "after", does.begun(), "n n")
				same(t, "ends", w.ends("j"), first+" ok")
				l.end()
			})
		})
	}
}

func TestSchedulerCatchUpsMayWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{lasts: 20 * time.Minute}
		job := func() *loom.Job {
			j := w.toils("j", "0,10,20,30,40,50 0 * * *", does, "n")
			j.Missed = loom.Missed{Policy: loom.MissedAll, Within: time.Hour}
			return j
		}
		w.begin(job()).end()
		pass(55 * time.Minute)
		l := w.begin(job())
		pass(3 * time.Hour)
		same(t, "ends", w.ends("j"), "ok ok ok ok ok") // the last begins 1h20m after it was asked for
		l.end()
	})
}

func TestSchedulerRunsAtEachStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{lasts: time.Minute}
		for i := range 4 {
			l := w.begin(w.toils("boot", "@reboot", does, "n"))
			pass(time.Second)
			if l.Load(&loom.Manifest{Jobs: []*loom.Job{w.toils("boot", "@reboot", does, "n")}}); i == 0 {
				pass(time.Hour)
			}
			if i%2 == 0 {
				l.end()
			} else {
				l.kill()
			}
		}
		same(t, "began", does.begun(), "n n n n")
		same(t, "ends", w.ends("boot"), "ok lost cancelled running")
	})
}

// A start whose runs the store has begun, though its answer did not come, is no
// second start.
func TestSchedulerStartsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{}
		job := w.toils("boot", "@reboot", does, "n")
		job.Overlap = loom.OverlapAllow
		f, fires := new(faults), atomic.Int32{}
		f.set(nil, func(op string) error {
			if op == "fire" && fires.Add(1) < 10 {
				return down(op)
			}
			return nil
		})
		l := w.beginWith(f, job)
		pass(time.Hour)
		same(t, "began", does.begun(), "n")
		l.end()
	})
}

func TestSchedulerHeedsWhatPeopleDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		act := func(verb, object, why string, until time.Time) {
			t.Helper()
			if err := w.store.Act(t.Context(), loom.Action{By: "kim", Verb: verb, Object: object, Why: why, Until: until}); err != nil {
				t.Error(err)
			}
		}
		each, long := &toil{}, &toil{lasts: time.Hour}
		queue := w.toils("long", "", long, "n")
		queue.Overlap = loom.OverlapQueue
		l := w.begin(w.toils("each", "* * * * *", each, "n"), queue)
		run, err := l.Trigger(t.Context(), "long", loom.Request{By: "kim"})
		if err != nil {
			t.Fatal(err)
		}
		waits, err := l.Trigger(t.Context(), "long", loom.Request{By: "kim"})
		if err != nil {
			t.Fatal(err)
		}
		pass(90 * time.Second)
		act(loom.VerbCancel, waits.ID, "", time.Time{})
		act(loom.VerbCancel, run.ID, "a mistake", time.Time{})
		pass(2 * time.Second)
		same(t, "long", w.ends("long"), "cancelled cancelled")
		if _, why := w.results(run.ID); len(why) != 1 || !strings.Contains(why[0], "kim") || !strings.Contains(why[0], "a mistake") {
			t.Errorf("the run was cancelled because %q", why)
		}
		if !errors.Is(long.cause, loom.ErrCancelled) {
			t.Errorf("the work was ended by %v", long.cause)
		}

		act(loom.VerbPause, "each", "quiet", time.Time{})
		pass(2 * time.Minute)
		if _, err := l.Trigger(t.Context(), "each", loom.Request{By: "kim"}); err != nil {
			t.Errorf("a paused job can't be run by hand: %v", err)
		}
		pass(time.Second)
		act(loom.VerbResume, "each", "", time.Time{})
		pass(time.Minute)
		act(loom.VerbPause, "each", "", time.Now().Add(90*time.Second).Truncate(time.Minute))
		pass(3 * time.Minute)
		ticks, why := w.ticks("each")
		same(t, "ticks", ticks, []string{"00:01 ran", "00:02-00:03 paused", "00:04 ran", "00:05 paused", "00:06 ran", "00:07 ran"})
		same(t, "why", why[1], "paused by kim: quiet")
		l.end()
	})
}

func TestSchedulerTriggersOnceForAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{}
		job := func() *loom.Job { return w.toils("j", "", does, "n") }
		l := w.begin(job())
		var ids []string
		ask := func() {
			t.Helper()
			r, err := l.Trigger(t.Context(), "j", loom.Request{Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
			pass(time.Second)
		}
		ask()
		ask()
		l.end()
		l = w.begin(job())
		ask()
		same(t, "runs", len(slices.Compact(ids)), 1)
		same(t, "began", does.begun(), "n")
		l.end()
	})
}

func TestSchedulerEndsWhatNoJobIsThereFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{lasts: time.Hour}
		j := w.toils("goes", "", does, "a", "b")
		j.Overlap, j.Batch.Sizes = loom.OverlapQueue, []loom.Share{{N: 1}}
		l := w.begin(j)
		for range 2 {
			if _, err := l.Trigger(t.Context(), "goes", loom.Request{}); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute)
		l.kill()
		l = w.begin()
		pass(time.Minute)
		same(t, "ends", w.ends("goes"), "lost cancelled")
		for _, r := range w.runs("goes") {
			if !strings.Contains(r.Reason, "not in the manifest") {
				t.Errorf("run %s ended %s because %q", r.ID, r.Status, r.Reason)
			}
		}
		results, _ := w.results(w.runs("goes")[0].ID)
		same(t, "results", results, []string{"a lost"})
		same(t, "told", len(l.of(loom.KindRunEnded)), 2)
		l.end()
	})
}

func TestSchedulerStartsWhatIsNotLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first, second := &toil{lasts: time.Minute}, &toil{lasts: time.Minute}
		l := w.begin()
		given := func(does *toil) *loom.Job {
			j := w.toils(loom.ExecJob, "", does, "a", "b")
			j.Overlap = loom.OverlapQueue
			return j
		}
		run, err := l.Start(t.Context(), given(first), loom.Request{By: "kim", Why: "uptime", Targets: []string{"b"}})
		if err != nil || run.Status != loom.StatusRunning || run.Nodes != 1 {
			t.Fatalf("Start = %+v, %v", run, err)
		}
		waits, err := l.Start(t.Context(), given(second), loom.Request{Key: "k"})
		if err != nil || waits.Status != loom.StatusQueued {
			t.Fatalf("Start while another goes = %+v, %v", waits, err)
		}
		if twice, err := l.Start(t.Context(), given(first), loom.Request{Key: "k"}); err != nil || twice.ID != waits.ID {
			t.Errorf("Start with the same key = %+v, %v", twice, err)
		}
		if _, err := l.Start(t.Context(), given(first), loom.Request{}); !errors.Is(err, loom.ErrBusy) {
			t.Errorf("Start while one waits: %v", err)
		}
		pass(90 * time.Second)
		same(t, "the first began on", first.begun(), "b")
		pass(time.Minute)
		same(t, "the second, on all, though it had to wait", len(strings.Fields(second.begun())), 2)
		same(t, "ends", w.ends(loom.ExecJob), "ok ok")

		third, err := l.Start(t.Context(), given(&toil{lasts: time.Hour}), loom.Request{})
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		l.kill()
		if _, err := l.Start(t.Context(), given(first), loom.Request{}); !errors.Is(err, loom.ErrShutdown) {
			t.Errorf("Start when it is over: %v", err)
		}
		l = w.begin()
		pass(time.Minute)
		for _, r := range w.runs(loom.ExecJob) {
			if r.ID == third.ID && (r.Status != loom.StatusLost || !strings.Contains(r.Reason, "not given again")) {
				t.Errorf("what a dead one was at: %+v", r)
			}
		}
		l.end()
	})
}

// numbers returns lines of 10 bytes with the newline.
func numbers(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("line %04d", i))
	}
	return lines
}

func TestSchedulerRecordsOutputOnce(t *testing.T) {
	for _, tt := range []struct {
		name       string
		lines      int
		keep       int64
		dies       int // after so many seconds; 0: not
		head, tail int // so many lines are kept at each end
	}{
		{"all", 30, 1000, 0, 30, 0},
		{"just all", 100, 1000, 0, 100, 0},
		{"start and end", 101, 1000, 0, 50, 50},
		{"start and end of more", 1000, 1000, 0, 50, 50},
		{"one that goes on", 30, 1000, 7, 30, 0},
		{"one that goes on after the start", 1000, 1000, 70, 50, 50},
		{"one that goes on, with start and end", 1000, 1000, 7, 50, 50},
		{"one that goes on, just all", 100, 1000, 93, 100, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.pool = func() *loom.Pool { return &loom.Pool{Output: tt.keep, Log: slog.New(slog.DiscardHandler)} }
				all := numbers(tt.lines)
				job := func() *loom.Job {
					j := w.toils("j", "", &toil{says: all, again: true}, "n")
					j.Resumable = true
					return j
				}
				l := w.begin(job())
				run, err := l.Trigger(t.Context(), "j", loom.Request{})
				if err != nil {
					t.Fatal(err)
				}
				if tt.dies > 0 {
					pass(time.Duration(tt.dies)*time.Second + 500*time.Millisecond)
					l.kill()
					l = w.begin(job())
				}
				pass(time.Hour)
				same(t, "ends", w.ends("j"), "ok")
				got := w.output(run.ID, "n")
				want := slices.Clone(all[:tt.head])
				if dropped := tt.lines - tt.head - tt.tail; dropped > 0 {
					want = append(want, fmt.Sprintf("[%d lines, %d bytes of output not kept]", dropped, dropped*10))
				}
				want = append(want, all[tt.lines-tt.tail:]...)
				same(t, "output", strings.Join(got, "\n"), strings.Join(want, "\n"))
				l.end()
			})
		})
	}
}

// TestSchedulerDiesAtAnyCall has a scheduler die at each of its calls of the
// store, before it is done and after, and looks whether another can tell what
// happened: each tick has one outcome, each run of one ends, nothing is done
// twice, and what follows a run follows it once.
func TestSchedulerDiesAtAnyCall(t *testing.T) {
	calls := 0
	for _, done := range []bool{false, true} {
		for at := 1; at <= max(calls, 1); at++ {
			synctest.Test(t, func(t *testing.T) {
				n := dieAt(t, at, done)
				if calls == 0 {
					calls = n
				}
			})
		}
	}
	if calls < 30 {
		t.Errorf("there were only %d calls", calls)
	}
}

// dieAt returns how many calls there would have been if nobody had died.
func dieAt(t *testing.T, at int, done bool) int {
	t.Helper()
	w := newWorld(t)
	w.store.TTL = 24 * time.Hour // beats would be most of the calls
	does := map[string]*toil{"parent": {}, "child": {}, "slow": {lasts: 100 * time.Second}}
	jobs := func() []*loom.Job {
		child, slow := w.toils("child", "", does["child"], "n"), w.toils("slow", "* * * * *", does["slow"], "a", "b")
		child.After = []loom.After{{Job: "parent", On: loom.AfterAny}}
		child.Overlap, slow.Overlap = loom.OverlapAllow, loom.OverlapQueue
		return []*loom.Job{w.toils("parent", "*/2 * * * *", does["parent"], "n"), child, slow}
	}
	var mu sync.Mutex
	calls, killed := 0, false
	var trace []string
	f := &faults{}
	die := func() error { return errors.New("it is dead") }
	f.set(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if killed {
			return die()
		}
		if written(op) {
			calls++
			trace = append(trace, fmt.Sprintf("%d %s %s", calls, time.Now().UTC().Format("4:05"), op))
			if calls == at && !done {
				killed = true
				return die()
			}
		}
		return nil
	}, func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if written(op) && calls >= at && done && !killed {
			killed = true
			return die()
		}
		return nil
	})
	l := w.beginWith(f, jobs()...)
	pass(5 * time.Minute)
	l.kill()
	pass(10 * time.Second)
	l = w.begin(jobs()...)
	pass(4 * time.Minute)
	l.end()
	if w.sound(does, map[string]int{"parent": 4, "slow": 9}); t.Failed() {
		t.Logf("it died at the last call of %s; when that was done: %v", strings.Join(trace, ", "), done)
	}

	if at > 1 || done {
		return calls
	}
	whole := newWorld(t) // and if nobody dies
	whole.store.TTL = w.store.TTL
	n := 0
	count := &faults{}
	count.set(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if written(op) {
			n++
		}
		return nil
	}, nil)
	l = whole.beginWith(count, jobs()...)
	pass(5 * time.Minute)
	l.end()
	return n
}

// written reports whether a call writes what happens. The first one, Adopt, is let be: before
// it, there are no ticks.
func written(op string) bool {
	return slices.Contains([]string{"fire", "take", "record", "finish"}, op)
}

// sound checks that what the store knows fits together, and that there were so
// many ticks.
func (w *world) sound(does map[string]*toil, due map[string]int) {
	w.t.Helper()
	for job, n := range due {
		ticks, err := w.store.Ticks(w.t.Context(), loom.TickQuery{Job: job})
		if err != nil {
			w.t.Fatal(err)
		}
		before := time.Time{}
		for _, k := range slices.Backward(ticks) {
			n -= k.Ticks
			if !k.Due.After(before) || k.Until.Before(k.Due) {
				w.t.Errorf("the tick of %s at %v comes twice", job, k.Due)
			}
			before = k.Until
			if k.Outcome.Runs() == (k.Run == "") {
				w.t.Errorf("the tick of %s at %v %s, by run %q", job, k.Due, k.Outcome, k.Run)
			}
		}
		if n != 0 {
			got, _ := w.ticks(job)
			w.t.Errorf("%d ticks of %s are not known: %q", n, job, got)
		}
	}
	children := map[string]int{}
	for _, r := range w.runs("child") {
		children[r.By]++
	}
	for job, d := range does {
		slices.Sort(d.done)
		if twice := len(d.done) - len(slices.Compact(slices.Clone(d.done))); twice > 0 {
			w.t.Errorf("%s did %d things twice: %q", job, twice, d.done)
		}
		for _, r := range w.runs(job) {
			if !r.Status.Ended() && (r.Status != loom.StatusQueued || job == "parent") {
				w.t.Errorf("run %s of %s, due at %v, is %s still", r.ID, job, r.Due, r.Status)
			}
			if job == "parent" && children[r.ID] != 1 {
				w.t.Errorf("run %s of the parent ended %s, and %d runs follow it", r.ID, r.Status, children[r.ID])
			}
		}
	}
}
