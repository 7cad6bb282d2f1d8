package loom

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom/internal/bind"
)

// TestPolicyDefaults sets each job key that there is in the defaults and in a
// job: the job's own value counts, a job without one has the default, whatever
// other jobs say, and without both there is what the manual promises.
func TestPolicyDefaults(t *testing.T) {
	share := func(s *Share) string {
		if s == nil {
			return "none"
		}
		return fmt.Sprint(*s)
	}
	tested := map[string]bool{}
	for _, tt := range []struct {
		key, def, own      string // the values as a manifest has them
		get                func(*Job) any
		none, asDef, asOwn string
		without            []string // keys that the jobs must not have then
	}{
		{key: "task", def: "print", own: "labor", get: func(j *Job) any { return j.TaskName }, asDef: "print", asOwn: "labor", without: []string{"task"}},
		{key: "args", def: "[a]", own: "[b]", get: func(j *Job) any { return j.Task }, none: "{}", asDef: "{a}", asOwn: "{b}"},
		{key: "kwargs", def: "{text: a}", own: "{text: b}", get: func(j *Job) any { return j.Task }, none: "{}", asDef: "{a}", asOwn: "{b}"},
		{key: "steps", def: "[{task: print}]", own: "[{task: print, name: x}, {task: labor, on: failed}]", without: []string{"task"},
			get: func(j *Job) any {
				var all []string
				for _, s := range j.Steps {
					all = append(all, fmt.Sprint(s.Name, s.TaskName, s.On))
				}
				return all
			}, asDef: "[print]", asOwn: "[xprint laborfailed]"},
		{key: "targets", def: "n1", own: "[n2, n3]", get: func(j *Job) any { return names(j.Targets) }, asDef: "n1", asOwn: "n2 n3", without: []string{"targets"}},
		{key: "schedule", def: "'1 * * * *'", own: "['2 * * * *', '3 * * * *']", get: func(j *Job) any { return j.Schedule }, asDef: "1 * * * *",
			asOwn: "2 * * * *, 3 * * * *", without: []string{"schedule"}},
		{key: "at", def: "2026-01-01T00:00:00Z", own: "2027-01-01T00:00:00Z", get: func(j *Job) any { return j.At.Year() }, none: "1", asDef: "2026", asOwn: "2027"},
		{key: "after", def: "first", own: "{job: first, on: any}", get: func(j *Job) any { return j.After }, none: "[]", asDef: "[{first ok}]", asOwn: "[{first any}]"},
		{key: "description", def: "d", own: "o", get: func(j *Job) any { return j.Description }, none: "print @ n0", asDef: "d", asOwn: "o"},
		{key: "owner", def: "d", own: "o", get: func(j *Job) any { return j.Owner }, asDef: "d", asOwn: "o"},
		{key: "runbook", def: "d", own: "o", get: func(j *Job) any { return j.Runbook }, asDef: "d", asOwn: "o"},
		{key: "labels", def: "{a: d, b: d}", own: "{a: o}", get: func(j *Job) any { return j.Labels }, none: "map[]", asDef: "map[a:d b:d]", asOwn: "map[a:o]"},
		{key: "enabled", def: "false", own: "true", get: func(j *Job) any { return !j.Disabled }, none: "true", asDef: "false", asOwn: "true"},
		{key: "timezone", def: "Asia/Tokyo", own: "Europe/Berlin", get: func(j *Job) any { return j.Timezone }, none: "UTC", asDef: "Asia/Tokyo", asOwn: "Europe/Berlin"},
		{key: "timeout", def: "1m", own: "0s", get: func(j *Job) any { return j.Timeout }, none: "1h0m0s", asDef: "1m0s", asOwn: "0s"},
		{key: "retries", def: "{attempts: 2, delay: 3s, backoff: 2, max_delay: 1m, on: [failed]}", own: "1", get: func(j *Job) any { return j.Retries },
			none: "{0 0s 0 0s []}", asDef: "{2 3s 2 1m0s [failed]}", asOwn: "{1 0s 0 0s []}"},
		{key: "overlap", def: "queue", own: "allow", get: func(j *Job) any { return j.Overlap }, none: "skip", asDef: "queue", asOwn: "allow"},
		{key: "missed", def: "{policy: all, within: 3h}", own: "skip", get: func(j *Job) any { return j.Missed }, none: "{latest 1h0m0s}", asDef: "{all 3h0m0s}", asOwn: "{skip 1h0m0s}"},
		{key: "jitter", def: "{max: 5m, by: node}", own: "1m", get: func(j *Job) any { return j.Jitter }, none: "{0s false}", asDef: "{5m0s true}", asOwn: "{1m0s false}"},
		{key: "batch", def: "[1, 10%, 3]", own: "25%", get: func(j *Job) any { return j.Batch.Sizes }, none: "[]", asDef: "[{1 0} {0 10} {3 0}]", asOwn: "[{0 25}]"},
		{key: "max_failures", def: "10%", own: "0", get: func(j *Job) any { return share(j.Batch.MaxFailures) }, none: "none", asDef: "{0 10}", asOwn: "{0 0}"},
		{key: "user", def: "d", own: "o", get: func(j *Job) any { return j.User }, asDef: "d", asOwn: "o"},
		{key: "sudo", def: "true", own: "false", get: func(j *Job) any { return j.Sudo }, asDef: SudoDefault, asOwn: ""},
		{key: "env", def: "{A: d, B: d}", own: "{A: o}", get: func(j *Job) any { return j.Env }, none: "map[]", asDef: "map[A:d B:d]", asOwn: "map[A:o]"},
		{key: "dir", def: "/d", own: "/o", get: func(j *Job) any { return j.Dir }, asDef: "/d", asOwn: "/o"},
		{key: "resumable", def: "false", own: "true", get: func(j *Job) any { return j.Resumable }, none: "true", asDef: "false", asOwn: "true"},
		{key: "log", def: "{file: /d, max_size: 8KiB, keep: 3}", own: "/o", get: func(j *Job) any { return j.Output }, none: "{ 0 0}", asDef: "{/d 8192 3}", asOwn: "{/o 0 0}"},
		{key: "notify", def: "{on: [failed], to: [ops]}", own: "dev", get: func(j *Job) any { return j.Notify }, none: "{[] []}", asDef: "{[failed] [ops]}", asOwn: "{[] [dev]}"},
		{key: "not_during", def: "[2026-01-01, 2026-01-02]", own: "{from: 2027-01-01, to: 2027-01-02}", get: func(j *Job) any {
			var all []string
			for _, b := range j.NotDuring {
				all = append(all, b.From.Format(time.DateOnly)+" "+b.To.Format(time.DateOnly))
			}
			return all
		}, none: "[]", asDef: "[2026-01-01 2026-01-02 2026-01-02 2026-01-03]", asOwn: "[2027-01-01 2027-01-03]"},
	} {
		t.Run(tt.key, func(t *testing.T) {
			job := func(keys string) string {
				for _, k := range []string{"task: print", "targets: n0", "schedule: manual"} {
					if name, _, _ := strings.Cut(k, ":"); !slices.Contains(tt.without, name) {
						keys = k + ", " + keys
					}
				}
				return "{" + strings.TrimSuffix(keys, ", ") + "}"
			}
			// The first of a chain must not follow itself by default.
			first := "  first: {task: print, targets: n0, schedule: manual, after: []}\n"
			jobs := first + "  a: " + job("") + "\n  b: " + job(tt.key+": "+tt.own) + "\n  c: " + job("") + "\n"
			notify := "notify: {ops: {}, dev: {}}\n"
			m, _ := policyJobs(t, notify+"defaults: {"+tt.key+": "+tt.def+"}", jobs)
			for _, want := range []struct{ job, is string }{{"a", tt.asDef}, {"b", tt.asOwn}, {"c", tt.asDef}} {
				i := slices.IndexFunc(m.Jobs, func(j *Job) bool { return j.Name == want.job })
				if got := fmt.Sprint(tt.get(m.Jobs[i])); got != want.is {
					t.Errorf("with the default %s, %s of job %s is %s, want %s", tt.def, tt.key, want.job, got, want.is)
				}
			}
			if len(tt.without) > 0 {
				return // it is required
			}
			m, _ = policyJobs(t, notify, first+"  a: "+job(""))
			i := slices.IndexFunc(m.Jobs, func(j *Job) bool { return j.Name == "a" })
			if got := fmt.Sprint(tt.get(m.Jobs[i])); got != tt.none {
				t.Errorf("without a default, %s is %s, want %s", tt.key, got, tt.none)
			}
		})
		tested[tt.key] = true
	}
	for _, p := range bind.Params(jobSpec{}) {
		if !tested[p.Name] {
			t.Errorf("the key %s is not tested here", p.Name)
		}
	}
}
