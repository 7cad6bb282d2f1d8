package loom_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
)

// A planner is a toil that can tell what it would change.
type planner struct {
	*toil
	found []loom.Change
	takes time.Duration // to find out
}

func (p planner) Plan(ctx context.Context, _ *loom.Session) ([]loom.Change, error) {
	return p.found, p.wait(ctx, p.takes)
}

func TestRunByHandHasItsOwnTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.toils("j", "", &toil{lasts: time.Hour}, "a", "b")
		j.Timeout = 10 * time.Minute
		l := w.begin(j)
		r, err := l.Trigger(t.Context(), "j", loom.Request{Timeout: time.Minute})
		if err != nil || r.Timeout != time.Minute {
			t.Fatalf("Trigger = %+v, %v", r, err)
		}
		pass(time.Minute)
		results, why := w.results(r.ID)
		same(t, "results", results, []string{"a timeout", "b timeout"})
		same(t, "because", why[0], "timed out after 1m0s")
		if _, err := l.Trigger(t.Context(), "j", loom.Request{}); err != nil {
			t.Fatal(err)
		}
		pass(9 * time.Minute)
		same(t, "the job's own counts for the next", w.ends("j"), "failed running")
		pass(time.Minute)
		same(t, "ends", w.ends("j"), "failed failed")
		l.end()
	})
}

// What was asked of a run that waits is known to the scheduler that starts it.
func TestWhatIsAskedOfARunOutlivesTheScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{lasts: time.Minute}
		job := func() *loom.Job {
			j := w.toils("j", "", does, "a", "b", "c")
			j.Overlap = loom.OverlapQueue
			return j
		}
		l := w.begin(job())
		if _, err := l.Trigger(t.Context(), "j", loom.Request{}); err != nil {
			t.Fatal(err)
		}
		waits, err := l.Trigger(t.Context(), "j", loom.Request{Timeout: 10 * time.Second, Max: 1, Targets: []string{"a", "b"}})
		if err != nil || waits.Status != loom.StatusQueued {
			t.Fatalf("Trigger = %+v, %v", waits, err)
		}
		pass(time.Second)
		before := does.begun()
		l.kill()
		l = w.begin(job())
		since := func() string { return strings.TrimSpace(strings.TrimPrefix(does.begun(), before)) }
		for since() == "" {
			pass(time.Second) // until the dead one's run is given up
		}
		same(t, "begun at once", since(), "a")
		pass(9 * time.Second)
		same(t, "begun while the first lasts", since(), "a")
		pass(2 * time.Second)
		same(t, "begun after its timeout", since(), "a b")
		pass(10 * time.Second)
		results, _ := w.results(waits.ID)
		same(t, "results", results, []string{"a timeout", "b timeout"})
		same(t, "ends", w.ends("j"), "lost failed")
		l.end()
	})
}

func TestRunByHandIsBounded(t *testing.T) {
	for _, tt := range []struct{ most, room, want int }{{1, 100, 1}, {3, 100, 3}, {3, 2, 2}, {0, 4, 4}, {50, 100, 7}} {
		t.Run(fmt.Sprintf("%d of %d", tt.most, tt.room), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				does := &toil{lasts: time.Minute}
				j := w.toils("j", "", does, "a", "b", "c", "d", "e", "f", "g")
				j.Retries = loom.Retries{Attempts: 1, Delay: time.Second} // of which there are none
				l := w.begin(j)
				l.Pool.Resize(tt.room)
				r, err := l.Trigger(t.Context(), "j", loom.Request{Max: tt.most})
				if err != nil {
					t.Fatal(err)
				}
				for at := tt.want; ; at = min(at+tt.want, 7) {
					pass(time.Second)
					same(t, "begun", len(strings.Fields(does.begun())), at)
					pass(59 * time.Second)
					if at == 7 {
						break
					}
				}
				same(t, "ends", w.ends("j"), "ok")
				same(t, "recorded", w.runs("j")[0].Max, tt.most)
				if s := l.Pool.Stats(); s.Busy != 0 || r.Max != tt.most {
					t.Errorf("the pool is %+v, the run %+v", s, r)
				}
				l.end()
			})
		})
	}
}

// A run that is cancelled while its nodes wait for each other leaves no slot taken.
func TestBoundedRunIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		j := w.toils("j", "", &toil{lasts: time.Hour}, "a", "b", "c")
		l := w.begin(j)
		l.Pool.Resize(1)
		for range 2 { // the second waits for the pool while it has a slot of its own
			j.Overlap = loom.OverlapAllow
			if _, err := l.Trigger(t.Context(), "j", loom.Request{Max: 2}); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		for _, r := range w.runs("j") {
			if err := l.Cancel(r.ID, "enough"); err != nil {
				t.Error(err)
			}
		}
		pass(time.Second)
		same(t, "ends", w.ends("j"), "cancelled cancelled")
		if s := l.Pool.Stats(); s.Busy != 0 || s.Waiting != 0 {
			t.Errorf("the pool is %+v", s)
		}
		l.end()
	})
}

func TestPlanOfAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		does := &toil{}
		can := planner{does, []loom.Change{"mode 0644", "owner root"}, time.Minute}
		j := w.toils("j", "", does, "a", "b")
		j.Task, j.Steps = nil, []loom.Step{{Task: can}, {Task: can, On: loom.OnFailed}, {Task: does, TaskName: "acme"}}
		cannot := w.toils("cannot", "", does, "a")
		cannot.TaskName = "acme"
		follower := w.toils("follower", "", does, "a")
		follower.After = []loom.After{{Job: "j", On: loom.AfterAny}}
		l := w.begin(j, cannot, follower)

		going, err := l.Trigger(t.Context(), "j", loom.Request{Plan: true})
		if err != nil || !going.Plan || going.Status != loom.StatusRunning {
			t.Fatalf("Trigger = %+v, %v", going, err)
		}
		second, err := l.Trigger(t.Context(), "j", loom.Request{Plan: true, Targets: []string{"b"}}) // which overlap: skip does not refuse
		if err != nil {
			t.Fatal(err)
		}
		blind, err := l.Trigger(t.Context(), "cannot", loom.Request{Plan: true})
		if err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Minute)
		same(t, "applied on", does.begun(), "")
		same(t, "ends", w.ends("j")+" "+w.ends("cannot"), "changed changed ok")
		results, _ := w.store.Results(t.Context(), loom.ResultQuery{Runs: []string{going.ID}})
		same(t, "every step is planned", results[1].Changes, []string{"mode 0644", "owner root", "mode 0644", "owner root"})
		if out := strings.Join(w.output(going.ID, "a"), "\n"); !strings.Contains(out, "task acme can't tell what it would change") {
			t.Errorf("the log says %q", out)
		}
		some, _ := w.results(second.ID)
		same(t, "of some", some, []string{"b changed"})
		skipped, why := w.results(blind.ID)
		same(t, "a task that can't tell", [2]string{skipped[0], why[0]}, [2]string{"a skipped", "task acme can't tell what it would change"})

		same(t, "what followed", w.ends("follower"), "")
		for _, e := range append(l.of(loom.KindNodeEnded), l.of(loom.KindRunEnded)...) {
			if !e.Plan {
				t.Errorf("an event of a plan does not say so: %+v", e)
			}
		}
		states, err := w.store.Jobs(t.Context(), "j")
		if err != nil || states[0].Last != nil {
			t.Errorf("the job's state is %+v, %v", states, err)
		}
		l.end()
	})
}

// A plan that waits or goes on while its job runs is in nobody's way.
func TestPlanBesideARun(t *testing.T) {
	for _, stored := range []bool{true, false} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				does := &toil{lasts: 30 * time.Second}
				j := w.toils("j", "* * * * *", does, "n")
				j.Task, j.Overlap = planner{does, []loom.Change{"it"}, 10 * time.Minute}, loom.OverlapReplace
				l := &life{world: w, done: make(chan error, 1)}
				l.Scheduler = &loom.Scheduler{Pool: w.pool(), Observe: l.observe}
				if stored {
					l.Store = w.store
				}
				l.Load(&loom.Manifest{Jobs: []*loom.Job{j}})
				ctx, stop := context.WithCancel(t.Context())
				go func() { l.done <- l.Run(ctx) }()
				pass(time.Minute + time.Second) // a tick's run is going
				if _, err := l.Trigger(t.Context(), "j", loom.Request{Plan: true}); err != nil {
					t.Fatal(err)
				}
				pass(5*time.Minute + 40*time.Second)
				same(t, "runs at each tick", does.begun(), "n n n n n n")
				ended := map[loom.Status]int{}
				for _, e := range l.of(loom.KindRunEnded) {
					ended[e.Ran.Status]++
				}
				same(t, "ended", ended, map[loom.Status]int{loom.StatusOK: 6})
				stop()
				<-l.done
				_ = l.Pool.Close()
			})
		})
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := w.begin(w.toils("j", "", &toil{}, "a"))
		for want, q := range map[string]loom.Request{
			"timeout of -1s":        {Timeout: -time.Second},
			"give at least 1":       {Max: -1},
			"has no target nowhere": {Targets: []string{"nowhere"}, Plan: true},
		} {
			if r, err := l.Trigger(t.Context(), "j", q); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Trigger(%+v) = %+v, %v, want %q", q, r, err, want)
			}
		}
		r, err := l.Trigger(t.Context(), "j", loom.Request{Timeout: time.Nanosecond})
		if err != nil || r.Timeout != time.Millisecond {
			t.Errorf("a timeout shorter than can be kept: %v, %v", r.Timeout, err)
		}
		pass(time.Second)
		l.end()
	})
}

func ExampleJob_Plan() {
	motd := &loom.Job{Name: "motd", Task: planner{&toil{}, []loom.Change{"/etc/motd: content"}, 0}, Targets: []*loom.Node{{Name: "web1", Transport: "local"}}}
	var pool loom.Pool
	defer pool.Close()
	err := pool.Run(context.Background(), motd.Plan(), time.Now(), func(e loom.Event) {
		if e.Kind == loom.KindChanged {
			fmt.Println(e.Node, "would change", e.Text)
		}
	})
	fmt.Println(err)
	// Output:
	// web1 would change /etc/motd: content
	// <nil>
}
