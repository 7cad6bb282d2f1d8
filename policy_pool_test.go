package loom

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// runPolicy runs job j of a configuration with a pool of so many workers, and
// returns what happened.
func runPolicy(t *testing.T, workers int, main, job string) (*witness, *diary, error) {
	t.Helper()
	m, d := policyJobs(t, main, "  j: {schedule: manual, "+job+"}")
	var rec witness
	pool := &Pool{Max: workers, Log: quiet(), Dialer: &bench{}}
	defer pool.Close()
	err := pool.Run(t.Context(), m.Jobs[0], time.Now(), rec.add)
	return &rec, d, err
}

// statuses returns how the run ended on its nodes, as "ok 3, failed 1".
func (r *witness) statuses() string {
	n := map[Status]int{}
	for _, e := range r.of(KindNodeEnded) {
		n[e.Result.Status]++
	}
	var all []string
	for _, s := range slices.Sorted(maps.Keys(n)) {
		all = append(all, fmt.Sprint(s, " ", n[s]))
	}
	return strings.Join(all, ", ")
}

func TestPolicyRetries(t *testing.T) {
	for _, tt := range []struct {
		name, main, job string
		n0, n1          string // seconds at which it was tried there
		end             string
	}{
		{"none is the default", "", "task: labor, kwargs: {fail: 1}", "0", "0", "failed 2"},
		{"a number, at once", "", "task: labor, kwargs: {fail: 2}, retries: 2", "0 0 0", "0 0 0", "ok 2"},
		{"each node for itself", "", "task: labor, kwargs: {fail: 2, on: n1}, retries: {attempts: 2, delay: 10s}", "0", "0 10 20", "ok 2"},
		{"too few", "", "task: labor, kwargs: {fail: 3, on: n1}, retries: {attempts: 2, delay: 10s}", "0", "0 10 20", "failed 1, ok 1"},
		{"longer and longer, up to a limit", "", "task: labor, kwargs: {fail: 4, on: n1}, retries: {attempts: 4, delay: 10s, backoff: 3, max_delay: 1m}", "0", "0 10 40 100 160", "ok 2"},
		{"a limit below the delay", "", "task: labor, kwargs: {fail: 1}, retries: {attempts: 1, delay: 10s, max_delay: 3s}", "0 3", "0 3", "ok 2"},
		{"the delay begins when the attempt ends", "", "task: labor, kwargs: {for: 7s, fail: 1}, retries: {attempts: 1, delay: 10s}", "0 17", "0 17", "ok 2"},
		{"failed is not unreachable", "", "task: labor, kwargs: {fail: 1}, retries: {attempts: 3, on: unreachable}", "0", "0", "failed 2"},
		{"unreachable is", "", "task: labor, kwargs: {fail: 1, as: unreachable}, retries: {attempts: 3, on: [unreachable]}", "0 0", "0 0", "ok 2"},
		{"timeout is not failed", "", "task: labor, kwargs: {fail: 1, as: hang}, timeout: 1m, retries: {attempts: 3, on: [failed, unreachable]}", "0", "0", "timeout 2"},
		{"each attempt has the whole time", "", "task: labor, kwargs: {for: 50s, fail: 2, as: hang}, timeout: 1m, retries: {attempts: 2, delay: 10s, on: timeout}", "0 70 140", "0 70 140", "ok 2"},
		{"all three by default", "", "task: labor, kwargs: {fail: 1, as: hang, on: n1}, timeout: 1m, retries: 1", "0", "0 60", "ok 2"},
		{"lost is never tried again", "", "task: labor, kwargs: {fail: 1, as: lost}, retries: 5", "0", "0", "lost 2"},
		{"nor is skipped", "", "task: labor, kwargs: {fail: 1, as: skip}, retries: 5", "0", "0", "skipped 2"},
		{"from the defaults", "defaults: {retries: {attempts: 1, delay: 5s}}", "task: labor, kwargs: {fail: 1}", "0 5", "0 5", "ok 2"},
		{"over the defaults", "defaults: {retries: {attempts: 1, delay: 5s}}", "task: labor, kwargs: {fail: 1}, retries: 0", "0", "0", "failed 2"},
		{"instead of the defaults, not mixed with them", "defaults: {retries: {attempts: 3, delay: 5s}}", "task: labor, kwargs: {fail: 1}, retries: {attempts: 1}", "0 0", "0 0", "ok 2"},
		{"all steps again", "", "steps: [{task: labor}, {task: labor, kwargs: {fail: 3}}], retries: {attempts: 1, delay: 5s}", "0 0 5 5", "0 0 5 5", "ok 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec, d, _ := runPolicy(t, 0, tt.main, tt.job+", targets: [n0, n1]")
				if a, b := d.when("j", "n0"), d.when("j", "n1"); a != tt.n0 || b != tt.n1 || rec.statuses() != tt.end {
					t.Errorf("tried at %q and %q, ended %s; want %q, %q, %s", a, b, rec.statuses(), tt.n0, tt.n1, tt.end)
				}
			})
		})
	}
}

func TestPolicyTimeout(t *testing.T) {
	for _, tt := range []struct {
		name, main, job string
		took            time.Duration
		end             string
	}{
		{"an hour is the default", "", "task: labor, kwargs: {for: 2h}", time.Hour, "timeout 3"},
		{"just in time", "", "task: labor, kwargs: {for: 59m59s}", time.Hour - time.Second, "ok 3"},
		{"of the job", "", "task: labor, kwargs: {for: 2h}, timeout: 90s", 90 * time.Second, "timeout 3"},
		{"none", "", "task: labor, kwargs: {for: 240h}, timeout: 0s", 240 * time.Hour, "ok 3"},
		{"of the defaults", "defaults: {timeout: 5m}", "task: labor, kwargs: {for: 2h}", 5 * time.Minute, "timeout 3"},
		{"of all steps together", "", "steps: [{task: labor, kwargs: {for: 40s}}, {task: labor, kwargs: {for: 40s}}], timeout: 1m", time.Minute, "timeout 3"},
		{"waiting for a worker doesn't count", "", "task: labor, kwargs: {for: 50s}, timeout: 1m", 50 * time.Second, "ok 3"},
		{"nor does the node's jitter", "", "task: labor, kwargs: {for: 50s}, timeout: 1m, jitter: {max: 10h, by: node}", 0, "ok 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				workers, rounds := 3, time.Duration(1)
				if strings.HasPrefix(tt.name, "waiting") {
					workers, rounds = 1, 3
				}
				start := time.Now()
				rec, _, _ := runPolicy(t, workers, tt.main, tt.job+", targets: [n0, n1, n2]")
				if took := time.Since(start); rec.statuses() != tt.end || tt.took > 0 && took != tt.took*rounds {
					t.Errorf("ended %s after %v, want %s after %v", rec.statuses(), took, tt.end, tt.took*rounds)
				}
			})
		})
	}
}

func TestPolicyBatches(t *testing.T) {
	for _, tt := range []struct {
		name, job string
		begun     string // nodes of ten that were begun, by second
		end       string
	}{
		{"all at once", "", "10", "ok 10"},
		{"a number", "batch: 4", "4 4 2", "ok 10"},
		{"a percentage", "batch: 25%", "3 3 3 1", "ok 10"},
		{"a list, of which the last repeats", "batch: [1, 30%, 4]", "1 3 4 2", "ok 10"},
		{"a list that ends with all", "batch: [1, 10%, 100%]", "1 1 8", "ok 10"},
		{"a share of all nodes, not of the rest", "batch: [50%, 40%]", "5 4 1", "ok 10"},
		{"more than there are", "batch: 50", "10", "ok 10"},
		{"failures don't matter", "batch: 5, kwargs: {fail: -1}", "5 5", "failed 10"},
		{"none may fail", "batch: [1, 5], max_failures: 0, kwargs: {fail: -1}", "1", "cancelled 9, failed 1"},
		{"so many may fail", "batch: 2, max_failures: 3, kwargs: {fail: -1}", "2 2", "cancelled 6, failed 4"},
		{"exactly so many do", "batch: 4, max_failures: 4, kwargs: {fail: -1}", "4 4", "cancelled 2, failed 8"},
		{"a share may fail, of all", "batch: 1, max_failures: 25%, kwargs: {fail: -1}", "1 1 1", "cancelled 7, failed 3"},
		{"what others of the batch do counts", "batch: 5, max_failures: 1, kwargs: {fail: -1, on: n1}", "5 5", "failed 1, ok 9"},
		{"timeouts count", "batch: 1, max_failures: 0, timeout: 1500ms, kwargs: {fail: -1, as: hang}", "1", "cancelled 9, timeout 1"},
		{"so does unreachable", "batch: 1, max_failures: 0, kwargs: {fail: -1, as: unreachable}", "1", "cancelled 9, unreachable 1"},
		{"and lost", "batch: 1, max_failures: 0, kwargs: {fail: -1, as: lost}", "1", "cancelled 9, lost 1"},
		{"skipped doesn't", "batch: 5, max_failures: 0, kwargs: {fail: -1, as: skip}", "5 5", "skipped 10"},
		{"nor what went well when tried again", "batch: 5, max_failures: 0, retries: 1, kwargs: {fail: 1}", "5 0 5", "ok 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := strings.Replace(tt.job, "kwargs: {", "kwargs: {for: 1s, ", 1)
				if job == tt.job {
					job = strings.TrimPrefix(job+", kwargs: {for: 1s}", ", ")
				}
				start := time.Now()
				rec, _, err := runPolicy(t, 100, "", "task: labor, targets: all, "+job)
				begun, last := map[int]int{}, 0
				for _, e := range rec.of(KindNodeStarted) {
					at := int(e.Time.Sub(start).Seconds())
					begun[at]++
					last = max(last, at)
				}
				var got []string
				for i := range last + 1 {
					got = append(got, fmt.Sprint(begun[i]))
				}
				if s := strings.Join(got, " "); s != tt.begun || rec.statuses() != tt.end {
					t.Errorf("nodes begun each second: %s, ended %s; want %s, %s", s, rec.statuses(), tt.begun, tt.end)
				}
				for _, e := range rec.of(KindNodeEnded) {
					if e.Result.Status == StatusCancelled && !strings.Contains(e.Result.Reason, "of 10 nodes failed and the job allows") {
						t.Errorf("a node that was not begun says %q", e.Result.Reason)
					}
				}
				if ended := rec.of(KindRunEnded)[0].Ran; (err == nil) != ended.Status.Good() {
					t.Errorf("the run ended %s, and Run returned %v", ended.Status, err)
				}
			})
		})
	}
}

func TestPolicyJitterByNode(t *testing.T) {
	const job = "task: labor, kwargs: {for: 1s}, targets: all, jitter: {max: 1h, by: node}"
	var before map[string]time.Duration
	for i := range 3 { // it is the same in every run, however many workers there are
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			rec, _, err := runPolicy(t, 10, "", job)
			if err != nil {
				t.Error(err)
			}
			at := map[string]time.Duration{}
			for _, e := range rec.of(KindNodeStarted) {
				at[e.Node] = e.Time.Sub(start)
				if want := (Jitter{Max: time.Hour}).of("j", e.Node); at[e.Node] != want || want > time.Hour {
					t.Errorf("%s began after %v, want %v", e.Node, at[e.Node], want)
				}
			}
			if i > 0 && !maps.Equal(at, before) {
				t.Errorf("in another run the nodes began after %v, not %v", at, before)
			}
			before = at
		})
	}
	if moments := slices.Compact(slices.Sorted(maps.Values(before))); len(before) != 10 || len(moments) < 9 {
		t.Errorf("the nodes began at %d moments: %v", len(moments), before)
	}
}

func TestPolicyStepsOn(t *testing.T) {
	// In each step list F fails, S is skipped and O is fine; the letter after it
	// says on what: o ok, f failed, a always.
	for _, tt := range []struct{ steps, ran, end string }{
		{"Oo Oo Oo", "1 2 3", "ok"},
		{"Oo Fo Oo Oa", "1 2 4", "failed"},
		{"Fo Of Oa Oo", "1 2 3", "failed"},
		{"Oo Of Oa", "1 3", "ok"},
		{"Fo Ff Oa", "1 2 3", "failed"},
		{"Oa Fa Oa Of", "1 2 3 4", "failed"},
		{"Oo Oo Fa Of Oo", "1 2 3 4", "failed"},
		{"So Oo", "1 2", "ok"},
		{"So So", "1 2", "skipped"},
		{"So Of Fa", "1 3", "failed"},
	} {
		t.Run(tt.steps, func(t *testing.T) {
			var steps []string
			for i, s := range strings.Fields(tt.steps) {
				kwargs := map[byte]string{'O': "", 'F': "fail: -1", 'S': "fail: -1, as: skip"}[s[0]]
				on := map[byte]string{'o': "ok", 'f': "failed", 'a': "always"}[s[1]]
				steps = append(steps, fmt.Sprintf("{name: s%d, task: print, args: [%d], on: %s}, {task: labor, kwargs: {%s}, on: %s}", i+1, i+1, on, kwargs, on))
			}
			m, _ := policyJobs(t, "", "  j: {schedule: manual, targets: n0, steps: ["+strings.Join(steps, ", ")+"]}")
			var rec witness
			pool := &Pool{Log: quiet(), Dialer: &bench{}}
			defer pool.Close()
			_ = pool.Run(t.Context(), m.Jobs[0], time.Now(), rec.add)
			var ran []string
			for _, e := range rec.of(KindOutput) {
				if e.Stream == Stdout {
					ran = append(ran, e.Text)
				}
			}
			// print is fine, so where all others are skipped it alone decides.
			end := cmp.Or(map[bool]string{true: "ok"}[tt.end == "skipped"], tt.end)
			if s := strings.Join(ran, " "); s != tt.ran || string(rec.result(t, "n0").Status) != end {
				t.Errorf("steps %s ran, ended %s; want %s, %s", s, rec.result(t, "n0").Status, tt.ran, end)
			}
		})
	}
}

func TestPolicyHowCommandsRun(t *testing.T) {
	for _, tt := range []struct {
		name, main, job      string
		user, sudo, dir, env string // env: FROM and BOTH
	}{
		{"as the node says", "", "", "deploy", "", "", "node node"},
		{"user", "", "user: backup", "backup", "", "", "node node"},
		{"sudo as the node says", "", "sudo: true", "deploy", "admin", "", "node node"},
		{"sudo as another", "", "sudo: postgres", "deploy", "postgres", "", "node node"},
		{"no sudo", "defaults: {sudo: true}", "sudo: false", "deploy", "", "", "node node"},
		{"dir", "", "dir: /srv", "deploy", "", "/srv", "node node"},
		{"env over the node's", "", "env: {BOTH: job}", "deploy", "", "", "node job"},
		{"all from the defaults", "defaults: {user: d, sudo: www, dir: /d, env: {BOTH: default}}", "", "d", "www", "/d", "node default"},
		{"all over the defaults", "defaults: {user: d, sudo: www, dir: /d, env: {FROM: default, BOTH: default}}", "user: j, sudo: root, dir: /j, env: {BOTH: job}", "j", "root", "/j", "node job"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := "task: labor, targets: n0"
			if tt.job != "" {
				job += ", " + tt.job
			}
			_, d, err := runPolicy(t, 1, tt.main, job)
			if err != nil || len(d.seen) != 1 {
				t.Fatal(err, d.seen)
			}
			s := d.seen[0]
			vars := s.environment(nil)
			if env := vars["FROM"] + " " + vars["BOTH"]; s.Node.User != tt.user || s.User != tt.sudo || s.Dir != tt.dir || env != tt.env {
				t.Errorf("user %q, sudo %q, dir %q, env %q; want %q, %q, %q, %q", s.Node.User, s.User, s.Dir, env, tt.user, tt.sudo, tt.dir, tt.env)
			}
		})
	}
}
