package api_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// scrape returns what Prometheus is told, by series.
func scrape(t *testing.T, c *api.Client) (text string, series map[string]string) {
	t.Helper()
	status, kind, text := ask(t, c, "GET", "/metrics", "")
	if status != 200 || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Fatalf("%d %s: %s", status, kind, text)
	}
	series = map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			series[name] = value
		} else if i := strings.LastIndexByte(line, ' '); ok && name != "#" {
			series[line[:i]] = line[i+1:]
		}
	}
	return text, series
}

// busy returns metrics of a daemon in which everything has happened once, at a time.
func busy(t *testing.T, m *api.Metrics, at time.Time) *api.Client {
	t.Helper()
	m.Pool = &loom.Pool{Max: 7}
	store := &memory.Store{}
	jobs := map[string]string{"good": "", "bad": "", "paused": ""}
	if err := store.Adopt(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	end := func(id, job string, status loom.Status, ended time.Time) {
		fired, err := store.Fire(t.Context(), "x", []loom.Firing{{Job: job, Run: loom.Run{ID: id, Plan: id[0] == 'p'}, Claim: true}})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Finish(t.Context(), fired[0].Claim, loom.Run{Status: status, Ended: ended}, nil); err != nil {
			t.Fatal(err)
		}
	}
	end("r0", "bad", loom.StatusOK, at.Add(-time.Hour))
	end("r1", "bad", loom.StatusFailed, at)
	end("r2", "good", loom.StatusChanged, at)
	end("p1", "good", loom.StatusFailed, at)
	end("p2", "bad", loom.StatusOK, at)
	if err := store.Act(t.Context(), loom.Action{Verb: loom.VerbPause, Object: "paused"}); err != nil {
		t.Fatal(err)
	}
	daily, err := loom.ParseSchedule("0 3 * * *", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	manifest := &loom.Manifest{Nodes: []*loom.Node{{Name: "n1"}, {Name: "n2"}}, Problems: []*loom.ManifestError{{}}, Jobs: []*loom.Job{
		{Name: "bad", Schedule: daily}, {Name: "good", Schedule: daily}, {Name: "paused"}}}
	c, _ := serve(t, &api.Server{Store: store, Control: &daemon{manifest: manifest}, Metrics: m, Feed: &api.Feed{}, Version: "1.2.3"})
	for _, e := range []loom.Event{
		{Kind: loom.KindRunStarted, Ran: &loom.Run{Job: "good", Trigger: loom.TriggerSchedule, Due: at, Started: at.Add(200 * time.Millisecond)}},
		{Kind: loom.KindRunStarted, Ran: &loom.Run{Job: "bad", Trigger: loom.TriggerCatchUp, Due: at, Started: at.Add(time.Minute)}},
		{Kind: loom.KindRunStarted, Ran: &loom.Run{Job: "bad", Trigger: loom.TriggerManual, Due: at, Started: at.Add(time.Minute)}},
		{Kind: loom.KindOutput, Node: "n1", Text: "a line"},
		{Kind: loom.KindRetry, Node: "n1", Result: &loom.Result{Status: loom.StatusFailed}},
		{Kind: loom.KindNodeEnded, Node: "n1", Result: &loom.Result{Status: loom.StatusChanged, Attempts: 1}},
		{Kind: loom.KindNodeEnded, Node: "n2", Result: &loom.Result{Status: loom.StatusUnreachable, Attempts: 1}},
		{Kind: loom.KindRunEnded, Ran: &loom.Run{Job: "good", Status: loom.StatusChanged, Started: at, Ended: at.Add(2 * time.Second)}},
		{Kind: loom.KindRunEnded, Ran: &loom.Run{Job: "bad", Status: loom.StatusFailed, Started: at, Ended: at.Add(2 * time.Second)}},
		{Kind: loom.KindRunStarted, Plan: true, Ran: &loom.Run{Job: "good", Plan: true, Trigger: loom.TriggerManual, Due: at, Started: at}},
		{Kind: loom.KindNodeEnded, Plan: true, Node: "n1", Result: &loom.Result{Status: loom.StatusFailed, Attempts: 1}},
		{Kind: loom.KindRunEnded, Plan: true, Ran: &loom.Run{Job: "good", Plan: true, Status: loom.StatusFailed, Started: at, Ended: at.Add(time.Hour)}},
		{Kind: loom.KindTickSkipped, Job: "bad", Outcome: loom.OutcomePaused, Ticks: 1},
		{Kind: loom.KindTickSkipped, Job: "bad"}, // a run that was refused, and no tick
		{Kind: loom.KindTickMissed, Job: "bad", Outcome: loom.OutcomeMissed, Ticks: 12},
	} {
		m.Observe(e)
	}
	return c
}

func TestMetrics(t *testing.T) {
	at := time.Now().Truncate(time.Second)
	c := busy(t, &api.Metrics{}, at)
	stamp := func(t time.Time) string { return fmt.Sprintf("%g", float64(t.UnixMilli())/1000) }
	tomorrow := time.Now().UTC().Truncate(24 * time.Hour).Add(3 * time.Hour)
	if !tomorrow.After(time.Now()) {
		tomorrow = tomorrow.Add(24 * time.Hour)
	}
	text, got := scrape(t, c)
	for series, want := range map[string]string{
		`loom_runs_total{job="good",status="changed"}`:             "1",
		`loom_runs_total{job="bad",status="failed"}`:               "1",
		`loom_runs_total{job="good",status="failed"}`:              "",
		`loom_node_results_total{status="failed"}`:                 "",
		`loom_runs_running`:                                        "1",
		`loom_run_duration_seconds_bucket{status="failed",le="1"}`: "0",
		`loom_run_duration_seconds_bucket{status="failed",le="5"}`: "1",
		`loom_job_last_run_duration_seconds{job="bad"}`:            "2",
		`loom_node_results_total{status="changed"}`:                "1",
		`loom_node_results_total{status="unreachable"}`:            "1",
		`loom_node_retries_total`:                                  "1",
		`loom_output_lines_total`:                                  "1",
		`loom_node_up{node="n1"}`:                                  "1",
		`loom_node_up{node="n2"}`:                                  "0",
		`loom_ticks_total{outcome="ran"}`:                          "1",
		`loom_ticks_total{outcome="late"}`:                         "1",
		`loom_ticks_total{outcome="paused"}`:                       "1",
		`loom_ticks_total{outcome="skipped"}`:                      "",
		`loom_ticks_total{outcome="missed"}`:                       "12",
		`loom_tick_lateness_seconds_count`:                         "1",
		`loom_tick_lateness_seconds_sum`:                           "0.2",
		`loom_pool_workers_max`:                                    "7",
		`loom_pool_workers_busy`:                                   "0",
		`loom_pool_runs_waiting`:                                   "0",
		`loom_ssh_connections`:                                     "0",
		`loom_store_up`:                                            "1",
		`loom_manifest_problems`:                                   "1",
		`loom_manifest_jobs`:                                       "3",
		`loom_manifest_nodes`:                                      "2",
		`loom_job_paused{job="paused"}`:                            "1",
		`loom_job_paused{job="good"}`:                              "0",
		`loom_job_last_run_ok{job="good"}`:                         "1",
		`loom_job_last_run_ok{job="bad"}`:                          "0",
		`loom_job_last_run_ok{job="paused"}`:                       "",
		`loom_job_last_success_timestamp_seconds{job="bad"}`:       stamp(at.Add(-time.Hour)),
		`loom_job_last_success_timestamp_seconds{job="good"}`:      stamp(at.Add(2 * time.Second)),
		`loom_job_next_tick_timestamp_seconds{job="good"}`:         stamp(tomorrow),
		`loom_job_next_tick_timestamp_seconds{job="paused"}`:       "",
		`loom_metrics_names_folded{label="job"}`:                   "0",
		`loom_stopping`:                                            "0",
		`loom_api_streams`:                                         "0",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}
	if !strings.Contains(text, `loom_build_info{goversion="go1.`) || !strings.Contains(text, `version="1.2.3"} 1`) || !strings.Contains(text, "go_goroutines ") {
		t.Errorf("no build or runtime in:\n%s", text)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
}

func TestMetricsOfAStoreThatIsDown(t *testing.T) {
	c, _ := serve(t, &api.Server{Store: broken{err: loom.ErrStoreDown}, Control: &daemon{manifest: &loom.Manifest{Jobs: []*loom.Job{{Name: "j"}}}}, Metrics: &api.Metrics{}})
	if _, got := scrape(t, c); got["loom_store_up"] != "0" || got["loom_manifest_jobs"] != "1" {
		t.Errorf("%v", got)
	}
	c, _ = serve(t, &api.Server{Store: &memory.Store{}})
	if status, _, text := ask(t, c, "GET", "/metrics", ""); status != 404 {
		t.Errorf("without metrics: %d %s", status, text)
	}
}

// However many jobs and nodes there are, there are only so many series.
func TestMetricsAreBounded(t *testing.T) {
	m := &api.Metrics{Names: 3}
	manifest := &loom.Manifest{}
	for i := range 5 {
		manifest.Jobs = append(manifest.Jobs, &loom.Job{Name: fmt.Sprint("job", i)})
		manifest.Nodes = append(manifest.Nodes, &loom.Node{Name: fmt.Sprint("node", i)})
	}
	d := &daemon{manifest: manifest}
	c, _ := serve(t, &api.Server{Store: &memory.Store{}, Control: d, Metrics: m})
	run := func(from, to int) {
		for i := from; i < to; i++ {
			m.Observe(loom.Event{Kind: loom.KindRunEnded, Ran: &loom.Run{Job: fmt.Sprint("job", i), Status: loom.StatusOK, Started: time.Now(), Ended: time.Now()}})
			m.Observe(loom.Event{Kind: loom.KindNodeEnded, Node: fmt.Sprint("node", i), Result: &loom.Result{Status: loom.StatusOK, Attempts: 1}})
		}
	}
	run(0, 5)
	_, got := scrape(t, c)
	for series, want := range map[string]string{
		`loom_runs_total{job="job2",status="ok"}`:  "1",
		`loom_runs_total{job="other",status="ok"}`: "2",
		`loom_runs_total{job="job3",status="ok"}`:  "",
		`loom_node_up{node="other"}`:               "1",
		`loom_job_paused{job="other"}`:             "0",
		`loom_metrics_names_folded{label="job"}`:   "2",
		`loom_metrics_names_folded{label="node"}`:  "2",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}

	// Those that are gone make room.
	d.manifest = &loom.Manifest{Jobs: manifest.Jobs[3:], Nodes: manifest.Nodes[3:]}
	scrape(t, c)
	run(3, 5)
	_, got = scrape(t, c)
	for series, want := range map[string]string{
		`loom_runs_total{job="job2",status="ok"}`:  "",
		`loom_runs_total{job="other",status="ok"}`: "2",
		`loom_runs_total{job="job3",status="ok"}`:  "1",
		`loom_node_up{node="node4"}`:               "1",
		`loom_metrics_names_folded{label="job"}`:   "0",
	} {
		if got[series] != want {
			t.Errorf("after a change of the manifest, %s is %q, want %q", series, got[series], want)
		}
	}
}

// Each metric that the dashboard shows exists, and docs/metrics.md says what it is.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Fatal("the dashboard is no JSON")
	}
	told, _ := scrape(t, busy(t, &api.Metrics{}, time.Now()))
	exists := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`).FindAllStringSubmatch(told, -1) {
		exists[m[1]] = true
		if m[2] == "histogram" {
			exists[m[1]+"_bucket"], exists[m[1]+"_sum"], exists[m[1]+"_count"] = true, true, true
		}
		if strings.HasPrefix(m[1], "loom_") && !strings.Contains(string(manual), "`"+m[1]) {
			t.Errorf("docs/metrics.md does not have %s", m[1])
		}
	}
	exists["loom_store_size_bytes"] = true // of a store with files
	shown := regexp.MustCompile(`\b(loom|go|process)_\w+`).FindAllString(string(text), -1)
	slices.Sort(shown)
	for _, name := range slices.Compact(shown) {
		if !exists[name] {
			t.Errorf("the dashboard shows %s, which is no metric", name)
		}
	}
	if len(shown) < 15 {
		t.Errorf("the dashboard shows only %v", shown)
	}
	for _, name := range regexp.MustCompile(`\bloom_\w+`).FindAllString(string(manual), -1) {
		if !exists[name] {
			t.Errorf("docs/metrics.md has %s, which is no metric", name)
		}
	}
}
