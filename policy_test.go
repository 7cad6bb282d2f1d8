package loom

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The tests of policies begin with what a manifest says and end with what the
// scheduler and the pool do about it, on simulated time.

// labor is a task that takes some time and goes badly so often on each node.
type labor struct {
	For   time.Duration
	Fail  int    // so often on each node; -1: always
	As    string // how: failed, unreachable, lost, hang
	On    string // only on this node
	diary *diary
}

// A diary is what tasks of a manifest did.
type diary struct {
	mu    sync.Mutex
	start time.Time
	tried map[string]int
	notes []string // job node second
	seen  []Session
}

func (l labor) Apply(ctx context.Context, s *Session) error {
	d := l.diary
	d.mu.Lock()
	key := s.Job + " " + s.Node.Name
	d.tried[key]++
	n := d.tried[key]
	d.notes = append(d.notes, fmt.Sprintf("%s %d", key, int(time.Since(d.start).Seconds())))
	d.seen = append(d.seen, *s)
	d.mu.Unlock()
	select {
	case <-time.After(l.For):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if (l.On != "" && l.On != s.Node.Name) || (l.Fail >= 0 && n > l.Fail) {
		return nil
	}
	switch l.As {
	case "unreachable":
		return fmt.Errorf("dial: %w", ErrUnreachable)
	case "lost":
		return fmt.Errorf("read: %w", ErrLost)
	case "hang":
		<-ctx.Done()
		return context.Cause(ctx)
	case "skip":
		return Skip("not today")
	}
	return errors.New("boom")
}

// printer is a task that prints a text.
type printer struct{ Text string }

func (p printer) Apply(_ context.Context, s *Session) error {
	_, err := fmt.Fprintln(s.Out, p.Text)
	return err
}

// when returns the seconds at which a job was tried on a node.
func (d *diary) when(job, node string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var at []string
	for _, n := range d.notes {
		if s, ok := strings.CutPrefix(n, job+" "+node+" "); ok {
			at = append(at, s)
		}
	}
	return strings.Join(at, " ")
}

// policyFiles writes a configuration with ten nodes, of which n1 is in the group
// one, and reads it.
func policyFiles(t *testing.T, main, jobs string) (*Manifest, *diary, error) {
	t.Helper()
	dir := t.TempDir()
	var nodes strings.Builder
	for i := range 10 {
		fmt.Fprintf(&nodes, "n%d: {user: deploy, env: {FROM: node, BOTH: node}, sudo: {user: admin}}\n", i)
	}
	writeFiles(t, dir, map[string]string{
		"loom.yaml":      "nodesfile: nodes.yaml\njobspath: jobs\ntimezone: UTC\n" + main + "\n",
		"nodes.yaml":     nodes.String(),
		"jobs/jobs.yaml": "jobs:\n" + jobs + "\n",
	})
	d := &diary{start: time.Now(), tried: map[string]int{}}
	tasks := testTasks()
	tasks.Add("labor", labor{diary: d})
	tasks.Add("print", printer{})
	m, err := ReadManifest(filepath.Join(dir, "loom.yaml"), tasks)
	return m, d, err
}

// policyJobs is policyFiles for a configuration that must be right.
func policyJobs(t *testing.T, main, jobs string) (*Manifest, *diary) {
	t.Helper()
	m, d, err := policyFiles(t, main, jobs)
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

func (r *rig) starts(job, layout string, in *time.Location) []string {
	var at []string
	for _, e := range r.rec.of(KindRunStarted) {
		if e.Job == job {
			at = append(at, e.Time.In(in).Format(layout))
		}
	}
	slices.Sort(at)
	return at
}

func (r *rig) skipped(job string) int {
	n := 0
	for _, e := range r.rec.of(KindTickSkipped) {
		if e.Job == job {
			n++
		}
	}
	return n
}

func TestPolicyTimeline(t *testing.T) {
	const clock = "02 15:04:05"
	for _, tt := range []struct {
		name    string
		main    string
		job     string // keys of job j, which runs on n0
		more    string // further jobs
		pass    time.Duration
		want    []string // when it started; the bubble begins on 1 January 2000, a Saturday
		skipped int
	}{
		{name: "several schedules, one run where they meet", job: `schedule: ["0 */6 * * *", "0 12 * * *", "30 12 * * SAT"]`, pass: 24 * time.Hour,
			want: []string{"01 06:00:00", "01 12:00:00", "01 12:30:00", "01 18:00:00", "02 00:00:00"}},
		{name: "timezone", job: `{schedule: "0 6 * * *", timezone: America/New_York}`, pass: 24 * time.Hour, want: []string{"01 11:00:00"}},
		{name: "timezone of the main file", main: "defaults: {timezone: Asia/Tokyo}", job: `schedule: "0 6 * * *"`, pass: 24 * time.Hour, want: []string{"01 21:00:00"}},
		{name: "manual", job: "schedule: manual", pass: 48 * time.Hour},
		{name: "not enabled", job: `{schedule: "* * * * *", enabled: false}`, pass: time.Hour},
		{name: "not enabled by default", main: "defaults: {enabled: false}", job: `schedule: "* * * * *"`, pass: time.Hour},
		{name: "enabled all the same", main: "defaults: {enabled: false}", job: `{schedule: "30 * * * *", enabled: true}`, pass: time.Hour, want: []string{"01 00:30:00"}},
		{name: "not enabled, and at a time", job: `{at: "2000-01-01T01:00:00Z", enabled: false}`, pass: 2 * time.Hour},
		{name: "not enabled, and after another", job: `{after: k, enabled: false}`, more: `k: {task: labor, targets: n0, schedule: "*/10 * * * *"}`, pass: time.Hour},
		{name: "at", job: `at: "2000-01-01T03:30:00+02:00"`, pass: 40 * 24 * time.Hour, want: []string{"01 01:30:00"}},
		{name: "at, beside a schedule", job: `{at: "2000-01-01T01:30:00Z", schedule: "0 1,2 1 1 *"}`, pass: 12 * time.Hour,
			want: []string{"01 01:00:00", "01 01:30:00", "01 02:00:00"}},
		{name: "at a tick of the schedule", job: `{at: "2000-01-01T01:00:00Z", schedule: "0 1,2 1 1 *"}`, pass: 12 * time.Hour,
			want: []string{"01 01:00:00", "01 02:00:00"}},
		{name: "at a time that is over", job: `at: "1999-12-31T23:59:59Z"`, pass: 24 * time.Hour},
		{name: "at this moment", job: `at: "2000-01-01T00:00:00Z"`, pass: 24 * time.Hour},
		{name: "at, in a blackout", job: `{at: "2000-01-01T01:30:00Z", not_during: 2000-01-01}`, pass: 24 * time.Hour, skipped: 1},
		{name: "not during a window", job: `{schedule: "0 * * * *", not_during: {schedule: "0 1 * * *", for: 22h}}`, pass: 26 * time.Hour,
			want: []string{"01 23:00:00", "02 00:00:00"}, skipped: 24}, // the window of the day before goes on until 23:00 of the 31st
		{name: "not on a date", job: `{schedule: "0 12 * * *", not_during: [2000-01-02, 2000-01-04]}`, pass: 5 * 24 * time.Hour,
			want: []string{"01 12:00:00", "03 12:00:00", "05 12:00:00"}, skipped: 2},
		{name: "not from date to date", job: `{schedule: "0 0,12 * * *", not_during: {from: 2000-01-02, to: 2000-01-03}}`, pass: 4 * 24 * time.Hour,
			want: []string{"01 12:00:00", "04 00:00:00", "04 12:00:00", "05 00:00:00"}, skipped: 4},
		{name: "not from time to time", job: `{schedule: "0 * * * *", not_during: {from: "2000-01-01T02:00:00Z", to: "2000-01-01T06:00:00+01:00"}}`, pass: 7 * time.Hour,
			want: []string{"01 01:00:00", "01 05:00:00", "01 06:00:00", "01 07:00:00"}, skipped: 3},
		{name: "windows that overlap", job: `{schedule: "0 * * * *", not_during: [2000-01-01, {schedule: "0 20 * * *", for: 6h}]}`, pass: 27 * time.Hour,
			want: []string{"02 02:00:00", "02 03:00:00"}, skipped: 25},
		{name: "jitter is the same each time", job: `{schedule: "0 * * * *", jitter: 10m}`, pass: 3*time.Hour + 10*time.Minute,
			want: []string{"01 01:0" + jitterOf("j"), "01 02:0" + jitterOf("j"), "01 03:0" + jitterOf("j")}},
		{name: "jitter doesn't move a tick into a blackout", job: `{schedule: "0 * * * *", jitter: 10m, not_during: {from: "2000-01-01T01:00:01Z", to: "2000-01-01T01:59:59Z"}}`,
			pass: 90 * time.Minute, want: []string{"01 01:0" + jitterOf("j")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := tt.job
				if !strings.HasPrefix(job, "{") {
					job = "{" + job + "}"
				}
				m, _ := policyJobs(t, tt.main, "  j: {task: labor, targets: n0, "+job[1:]+"\n  "+tt.more)
				r := startRigThatLooks(t, time.Hour, m.Jobs...)
				r.pass(tt.pass)
				want(t, "started", r.starts("j", clock, time.UTC), tt.want...)
				if n := r.skipped("j"); n != tt.skipped {
					t.Errorf("%d ticks were skipped, want %d: %+v", n, tt.skipped, r.rec.of(KindTickSkipped))
				}
				_ = r.end()
			})
		})
	}
}

// jitterOf returns minute and second of a job's jitter of ten minutes.
func jitterOf(job string) string {
	d := Jitter{Max: 10 * time.Minute}.of(job)
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

func TestPolicyBlackoutsWhenClocksChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, notDuring string
		from, to        string // the first and last hour that is skipped, Berlin time
		skipped         int
	}{
		{"a day of 23 hours", "2000-03-26", "03-26 00 +0100", "03-26 23 +0200", 23},
		{"a day of 25 hours", "2000-10-29", "10-29 00 +0200", "10-29 23 +0100", 25},
		{"a span that ends in another time", "{from: 2000-03-25, to: 2000-03-26}", "03-25 00 +0100", "03-26 23 +0200", 47},
		{"a window of hours that pass, in spring", `{schedule: "0 22 25 3 *", for: 8h}`, "03-25 22 +0100", "03-26 06 +0200", 8},
		{"a window of hours that pass, in autumn", `{schedule: "0 22 28 10 *", for: 8h}`, "10-28 22 +0200", "10-29 04 +0100", 8},
		{"a window that begins in the gap", `{schedule: "30 2 26 3 *", for: 90m}`, "03-26 03 +0200", "03-26 04 +0200", 2},
		{"a window that begins in the hour that comes twice", `{schedule: "30 2 29 10 *", for: 2h}`, "10-29 02 +0100", "10-29 03 +0100", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _ := policyJobs(t, "", `  j: {task: labor, targets: n0, schedule: "0 * 24-30 3,10 *", timezone: Europe/Berlin, not_during: `+tt.notDuring+"}")
				r := startRigThatLooks(t, 24*time.Hour, m.Jobs...)
				r.pass(310 * 24 * time.Hour)
				var out []string
				for _, e := range r.rec.of(KindTickSkipped) {
					last := e.Until
					if last.IsZero() {
						last = e.Due
					}
					for at := e.Due; !at.After(last); at = at.Add(time.Hour) {
						out = append(out, at.In(berlin).Format("01-02 15 -0700"))
					}
				}
				if len(out) != tt.skipped || out[0] != tt.from || out[len(out)-1] != tt.to {
					t.Errorf("%d hours were skipped: %q, want %d from %s to %s", len(out), out, tt.skipped, tt.from, tt.to)
				}
				if ran := len(r.ran("j")); ran != 2*7*24-tt.skipped { // one hour less in March, one more in October
					t.Errorf("it ran %d times, want %d", ran, 2*7*24-tt.skipped)
				}
				_ = r.end()
			})
		})
	}
}

func TestPolicyBlackoutsAreForSchedulesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := policyJobs(t, "", `
  j: {task: labor, targets: n0, schedule: "0 * * * *", after: k, not_during: 2000-01-01}
  k: {task: labor, targets: n0, schedule: "30 1 * * *"}`)
		r := startRig(t, m.Jobs...)
		r.pass(2 * time.Hour)
		if _, err := r.Trigger(t.Context(), "j", Request{}); err != nil {
			t.Errorf("a blackout keeps a person from running the job: %v", err)
		}
		r.pass(time.Minute)
		want(t, "started", r.starts("j", "15:04", time.UTC), "01:30", "02:00")
		_ = r.end()
	})
}

func TestPolicyDisabledJobsRunByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := policyJobs(t, "", `  j: {task: labor, targets: n0, schedule: "* * * * *", enabled: false}
  k: {task: labor, targets: n0, after: j}`)
		r := startRig(t, m.Jobs...)
		if _, err := r.Trigger(t.Context(), "j", Request{}); err != nil {
			t.Error(err)
		}
		r.pass(time.Hour)
		if j, k := len(r.ran("j")), len(r.ran("k")); j != 1 || k != 1 {
			t.Errorf("the job ran %d times, what follows it %d times; want once each", j, k)
		}
		_ = r.end()
	})
}

func TestPolicyOverlapOfRunsByHandAndAfter(t *testing.T) {
	for _, tt := range []struct {
		overlap          string
		second, third    error
		starts           []string
		cancelled        int
		afterAlsoSkipped int
	}{
		{"skip", ErrBusy, ErrBusy, []string{"00:00:00"}, 0, 1},
		{"queue", nil, ErrBusy, []string{"00:00:00", "00:10:00"}, 0, 1},
		{"replace", nil, nil, []string{"00:00:00", "00:01:00", "00:02:00", "00:03:00"}, 3, 0},
		{"allow", nil, nil, []string{"00:00:00", "00:01:00", "00:02:00", "00:03:00"}, 0, 0},
	} {
		t.Run(tt.overlap, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _ := policyJobs(t, "defaults: {overlap: "+tt.overlap+"}", `  j: {task: labor, kwargs: {for: 10m}, targets: n0, schedule: manual, after: k}
  k: {task: labor, targets: n0, at: "2000-01-01T00:03:00Z"}`)
				r := startRig(t, m.Jobs...)
				for i, want := range []error{nil, tt.second, tt.third} {
					if _, err := r.Trigger(t.Context(), "j", Request{}); !errors.Is(err, want) || (err == nil) != (want == nil) {
						t.Errorf("run %d by hand: %v, want %v", i+1, err, want)
					}
					r.pass(time.Minute)
				}
				r.pass(time.Hour)
				want(t, "started", r.starts("j", "15:04:05", time.UTC), tt.starts...)
				cancelled := 0
				for _, e := range r.rec.of(KindRunEnded) {
					if e.Ran.Status == StatusCancelled {
						cancelled++
					}
				}
				if skipped := r.skipped("j"); cancelled != tt.cancelled || skipped != tt.afterAlsoSkipped {
					t.Errorf("%d runs were cancelled and %d that should follow another were skipped, want %d and %d", cancelled, skipped, tt.cancelled, tt.afterAlsoSkipped)
				}
				_ = r.end()
			})
		})
	}
}

func TestPolicyAfter(t *testing.T) {
	for _, tt := range []struct {
		end    string         // how the first job goes
		on     map[string]int // what follows it, by on
		status Status
	}{
		{"", map[string]int{"ok": 1, "failed": 0, "any": 1}, StatusOK},
		{"fail: -1", map[string]int{"ok": 0, "failed": 1, "any": 1}, StatusFailed},
		{"fail: -1, as: lost", map[string]int{"ok": 0, "failed": 1, "any": 1}, StatusLost},
		{"fail: -1, as: skip", map[string]int{"ok": 1, "failed": 0, "any": 1}, StatusOK},
		{"fail: -1, as: unreachable, on: n1", map[string]int{"ok": 0, "failed": 1, "any": 1}, StatusFailed},
		{"for: 10m", map[string]int{"ok": 0, "failed": 0, "any": 1}, StatusCancelled},
	} {
		t.Run(tt.end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _ := policyJobs(t, "", `
  first: {task: labor, kwargs: {`+tt.end+`}, targets: [n0, n1], schedule: "1 0 1 1 *"}
  ok: {task: labor, targets: n0, after: first}
  failed: {task: labor, targets: n0, after: {job: first, on: failed}}
  any: {task: labor, targets: n0, after: [{job: first, on: any}, {job: first, on: ok}]}
  last: {task: labor, targets: n0, after: any}`)
				r := startRig(t, m.Jobs...)
				r.pass(2 * time.Minute)
				if tt.status == StatusCancelled {
					if err := r.Cancel(r.rec.of(KindRunStarted)[0].Run, ""); err != nil {
						t.Error(err)
					}
				}
				r.pass(time.Hour)
				for _, e := range r.rec.of(KindRunEnded) {
					if e.Job == "first" && e.Ran.Status != tt.status {
						t.Errorf("the first job ended %s, want %s", e.Ran.Status, tt.status)
					}
				}
				for job, n := range tt.on {
					if got := len(r.ran(job)); got != n {
						t.Errorf("job %s ran %d times, want %d", job, got, n)
					}
				}
				if got := len(r.ran("last")); got != 1 {
					t.Errorf("the end of the chain ran %d times, want once", got)
				}
				_ = r.end()
			})
		})
	}
}

// A changed schedule begins anew: what it would have done before doesn't count
// as missed.
func TestPolicyAChangedScheduleHasNoPast(t *testing.T) {
	for _, tt := range []struct{ name, before, after string }{
		{"an expression", `schedule: "0 0 1 1 *"`, `schedule: "0 0 * * *"`},
		{"a list", `schedule: ["0 0 1 1 *", "0 0 2 1 *"]`, `schedule: ["0 0 * * *", "0 6 * * *"]`},
		{"a list of as many", `schedule: ["0 0 1 1 *", "0 0 30 12 *"]`, `schedule: ["0 0 * * *", "0 0 30 12 *"]`},
		{"a time zone", `{schedule: "0 12 1 3 *", timezone: UTC}`, `{schedule: "0 12 1 3 *", timezone: Asia/Tokyo}`},
		{"a time beside it", `{schedule: "0 0 1 1 *", at: "2001-01-01T00:00:00Z"}`, `{schedule: "0 0 1 1 *", at: "2000-03-01T09:00:00Z"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read := func(keys string) *Manifest {
					if !strings.HasPrefix(keys, "{") {
						keys = "{" + keys + "}"
					}
					m, _ := policyJobs(t, "defaults: {missed: {policy: all, within: 0s}}", "  j: {task: labor, targets: n0, "+keys[1:])
					return m
				}
				r := startRigThatLooks(t, time.Hour, read(tt.before).Jobs...)
				r.pass(60*24*time.Hour + 10*time.Hour) // until 10:00 on 1 March
				ran := len(r.ran("j"))
				r.Load(read(tt.after))
				r.pass(time.Hour)
				if got := r.ran("j")[ran:]; len(got) != 0 {
					t.Errorf("after the change it ran for ticks that were never due: %q", got)
				}
				if got := r.rec.of(KindTickMissed); len(got) != 0 {
					t.Errorf("after the change ticks count as missed: %+v", got)
				}
				_ = r.end()
			})
		})
	}
}
