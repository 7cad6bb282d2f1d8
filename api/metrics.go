package api

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dustinlacewell/loom"
)

// How many jobs, and how many nodes, metrics tell apart; what all beyond are
// called; and how much one who asks for metrics may make the store look for.
const (
	metricNames  = 1000
	metricOther  = "other"
	metricLookUp = 50
	metricAtOnce = 4
)

// Metrics count what happens, for Prometheus. The zero value is ready to use; its
// fields must not change once it is used. It is safe for concurrent use.
type Metrics struct {
	// Pool, if not nil, is asked how busy it is.
	Pool *loom.Pool

	// Names is how many jobs, and how many nodes, are told apart by name; 0: 1000.
	// All beyond are counted under the name "other".
	Names int

	once     sync.Once
	jobs     names
	nodes    names
	runs     *prometheus.CounterVec // job, status
	running  prometheus.Gauge
	took     *prometheus.HistogramVec // status
	results  *prometheus.CounterVec   // status
	retries  prometheus.Counter
	lines    prometheus.Counter
	reached  *prometheus.GaugeVec   // node
	ticks    *prometheus.CounterVec // outcome
	lateness prometheus.Histogram
	lasted   *prometheus.GaugeVec // job

	mu        sync.Mutex
	succeeded map[string]time.Time // when each job last did; zero: never, as far as is known
}

func (m *Metrics) init() {
	m.once.Do(func() {
		most := cmp.Or(m.Names, metricNames)
		m.jobs.most, m.nodes.most = most, most
		m.succeeded = map[string]time.Time{}
		counter := func(name, help string) prometheus.CounterOpts { return prometheus.CounterOpts{Name: name, Help: help} }
		gauge := func(name, help string) prometheus.GaugeOpts { return prometheus.GaugeOpts{Name: name, Help: help} }
		m.runs = prometheus.NewCounterVec(counter("loom_runs_total", "Runs that have ended, by job and how."), []string{"job", "status"})
		m.running = prometheus.NewGauge(gauge("loom_runs_running", "Runs that this daemon works on."))
		m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "loom_run_duration_seconds", Help: "How long runs took, by how they ended.",
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 3600, 14400}}, []string{"status"})
		m.lasted = prometheus.NewGaugeVec(gauge("loom_job_last_run_duration_seconds", "How long the last run of each job took."), []string{"job"})
		m.results = prometheus.NewCounterVec(counter("loom_node_results_total", "What runs did on single nodes, by how it ended."), []string{"status"})
		m.retries = prometheus.NewCounter(counter("loom_node_retries_total", "Attempts that were followed by another."))
		m.lines = prometheus.NewCounter(counter("loom_output_lines_total", "Lines that nodes printed."))
		m.reached = prometheus.NewGaugeVec(gauge("loom_node_up", "1 if the node could be reached when something was last run there, 0 if not."), []string{"node"})
		m.ticks = prometheus.NewCounterVec(counter("loom_ticks_total", "Ticks, by what became of them."), []string{"outcome"})
		m.lateness = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "loom_tick_lateness_seconds",
			Help:    "How long after its tick the work of a run began, without catch-ups. A job's jitter is part of it.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 30, 60, 300, 3600}})
	})
}

// own are the metrics that are counted here.
func (m *Metrics) own() []prometheus.Collector {
	m.init()
	return []prometheus.Collector{m.runs, m.running, m.took, m.lasted, m.results, m.retries, m.lines, m.reached, m.ticks, m.lateness}
}

// Observe takes an event of a scheduler. It is for loom.Scheduler's Observe. How
// plans end is not counted.
func (m *Metrics) Observe(e loom.Event) {
	m.init()
	switch e.Kind {
	case loom.KindOutput:
		m.lines.Inc()
	case loom.KindRunStarted:
		m.running.Inc()
		m.started(e.Ran)
	case loom.KindRunEnded:
		m.running.Dec()
		if !e.Plan {
			m.ended(e.Ran)
		}
	case loom.KindRetry:
		m.retries.Inc()
	case loom.KindNodeEnded:
		if !e.Plan {
			m.results.WithLabelValues(string(e.Result.Status)).Inc()
		}
		if s := e.Result.Status; s != loom.StatusCancelled && e.Result.Attempts > 0 {
			m.reached.WithLabelValues(m.nodes.of(e.Node)).Set(flag(s != loom.StatusUnreachable))
		}
	case loom.KindTickSkipped, loom.KindTickMissed:
		if e.Outcome != "" {
			m.ticks.WithLabelValues(string(e.Outcome)).Add(float64(e.Ticks))
		}
	}
}

func (m *Metrics) started(r *loom.Run) {
	switch r.Trigger {
	case loom.TriggerSchedule:
		m.ticks.WithLabelValues(string(loom.OutcomeRan)).Inc()
		m.lateness.Observe(max(r.Started.Sub(r.Due).Seconds(), 0))
	case loom.TriggerCatchUp:
		m.ticks.WithLabelValues(string(loom.OutcomeLate)).Inc()
	}
}

func (m *Metrics) ended(r *loom.Run) {
	job, took := m.jobs.of(r.Job), r.Ended.Sub(r.Started).Seconds()
	m.runs.WithLabelValues(job, string(r.Status)).Inc()
	m.took.WithLabelValues(string(r.Status)).Observe(took)
	if job != metricOther {
		m.lasted.WithLabelValues(job).Set(took)
	}
	if r.Status.Good() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.succeeded[r.Job] = r.Ended
	}
}

// flag is a number that Prometheus takes for true or false.
func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// A names bounds how many values a label has.
type names struct {
	most  int
	mu    sync.Mutex
	known map[string]bool
	other map[string]bool // a few of those that have no value of their own
}

// of returns a name's value: itself, or "other".
func (n *names) of(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.known[name]:
		return name
	case len(n.known) < n.most:
		if n.known == nil {
			n.known = map[string]bool{}
		}
		n.known[name] = true
		return name
	}
	if n.other == nil {
		n.other = map[string]bool{}
	}
	if len(n.other) < n.most {
		n.other[name] = true
	}
	return metricOther
}

// keep forgets all names but those that are in use, if there is no room for more,
// and returns what it has forgotten.
func (n *names) keep(used map[string]bool) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) < n.most {
		return nil
	}
	var gone []string
	for name := range n.known {
		if !used[name] {
			delete(n.known, name)
			gone = append(gone, name)
		}
	}
	if len(gone) > 0 {
		n.other = nil
	}
	return gone
}

// without returns how many names have no value of their own.
func (n *names) without() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.other)
}

// metrics adds what Prometheus asks for.
func (s *Server) metrics(mux *http.ServeMux) {
	if s.Metrics == nil {
		return
	}
	reg := prometheus.NewPedanticRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "loom_build_info", Help: "Always 1; the labels say which program this is.",
		ConstLabels: prometheus.Labels{"version": cmp.Or(s.Version, "devel"), "goversion": runtime.Version()}})
	build.Set(1)
	reg.MustRegister(s.Metrics.own()...)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &standing{server: s})
	mux.Handle("GET /metrics", guard(RoleViewer, promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry: reg, MaxRequestsInFlight: metricAtOnce, ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true})))
}

// A standing collects how things stand when it is asked for.
type standing struct {
	server *Server

	mu   sync.Mutex
	next map[string]coming
}

// A coming is when a job is due next.
type coming struct {
	job  *loom.Job
	tick time.Time
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// standings are the metrics that a standing collects.
type standings struct {
	storeUp, storeSize, problems, jobs, nodes, warnings, stopping *prometheus.Desc
	busy, workers, waiting, conns, streams, folded                *prometheus.Desc
	success, next, paused, ok                                     *prometheus.Desc
}

func newStandings() standings {
	return standings{
		storeUp:   describe("loom_store_up", "1 if the store works, 0 if it is down."),
		storeSize: describe("loom_store_size_bytes", "What the store's files take."),
		problems:  describe("loom_manifest_problems", "Mistakes in the manifest."),
		warnings:  describe("loom_manifest_warnings", "What the manifest says to no effect."),
		jobs:      describe("loom_manifest_jobs", "Jobs in the manifest."),
		nodes:     describe("loom_manifest_nodes", "Nodes in the manifest."),
		stopping:  describe("loom_stopping", "1 if the daemon starts no more runs, and ends when those that are going have."),
		busy:      describe("loom_pool_workers_busy", "Node-tasks that run."),
		workers:   describe("loom_pool_workers_max", "Node-tasks that may run at once."),
		waiting:   describe("loom_pool_runs_waiting", "Runs that wait for a node-task to end, since no more may run at once."),
		conns:     describe("loom_ssh_connections", "Open connections to nodes."),
		streams:   describe("loom_api_streams", "Event streams that are read."),
		folded:    describe("loom_metrics_names_folded", "Jobs or nodes that have no series of their own, since there are too many: they are under the name \"other\".", "label"),
		success:   describe("loom_job_last_success_timestamp_seconds", "When a run of the job last ended well. Of \"other\": the longest ago.", "job"),
		next:      describe("loom_job_next_tick_timestamp_seconds", "When the job falls due next. Of \"other\": the soonest.", "job"),
		paused:    describe("loom_job_paused", "1 if the job is only fired by hand.", "job"),
		ok:        describe("loom_job_last_run_ok", "1 if the job's last run went well, 0 if not. Of \"other\": of the worst.", "job"),
	}
}

// Describe is part of prometheus.Collector.
func (*standing) Describe(c chan<- *prometheus.Desc) {
	d := newStandings()
	for _, desc := range []*prometheus.Desc{d.storeUp, d.storeSize, d.problems, d.jobs, d.nodes, d.warnings, d.stopping, d.busy, d.workers, d.waiting,
		d.conns, d.streams, d.folded, d.success, d.next, d.paused, d.ok} {
		c <- desc
	}
}

// Collect is part of prometheus.Collector.
func (st *standing) Collect(c chan<- prometheus.Metric) {
	s, d := st.server, newStandings()
	set := func(desc *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), statusTime, errSlow())
	defer cancel()
	states, err := s.Store.Jobs(ctx)
	s.health.note(err)
	var status Status
	var m *loom.Manifest
	if s.Control != nil {
		status, m = s.Control.Status(), s.Control.Manifest()
	}
	set(d.storeUp, flag(err == nil && status.Store.State != StoreDown))
	if sizer, ok := s.Store.(loom.Sizer); ok {
		if size, err := sizer.Size(ctx); err == nil {
			set(d.storeSize, float64(size))
		}
	}
	set(d.stopping, flag(status.Stopping))
	set(d.streams, float64(s.open.count()))
	if p := s.Metrics.Pool; p != nil {
		is := p.Stats()
		set(d.busy, float64(is.Busy))
		set(d.workers, float64(is.Max))
		set(d.waiting, float64(is.Waiting))
		set(d.conns, float64(is.Conns))
	}
	if m != nil {
		set(d.problems, float64(len(m.Problems)))
		set(d.warnings, float64(len(m.Warnings)))
		set(d.jobs, float64(len(m.Jobs)))
		set(d.nodes, float64(len(m.Nodes)))
		s.Metrics.prune(m)
		for desc, values := range st.ofJobs(ctx, d, m, states) {
			for job, v := range values {
				set(desc, v, job)
			}
		}
	}
	set(d.folded, float64(s.Metrics.jobs.without()), "job")
	set(d.folded, float64(s.Metrics.nodes.without()), "node")
}

// prune makes room for names that are in the manifest, if there is none, by
// forgetting others.
func (m *Metrics) prune(now *loom.Manifest) {
	used := map[string]bool{}
	for _, j := range now.Jobs {
		used[j.Name] = true
	}
	for _, name := range m.jobs.keep(used) {
		m.runs.DeletePartialMatch(prometheus.Labels{"job": name})
		m.lasted.DeleteLabelValues(name)
	}
	m.mu.Lock()
	for job := range m.succeeded {
		if !used[job] {
			delete(m.succeeded, job)
		}
	}
	m.mu.Unlock()
	used = map[string]bool{}
	for _, n := range now.Nodes {
		used[n.Name] = true
	}
	for _, name := range m.nodes.keep(used) {
		m.reached.DeleteLabelValues(name)
	}
}

// ofJobs returns what can be said of each job of the manifest.
func (st *standing) ofJobs(ctx context.Context, d standings, m *loom.Manifest, states []loom.JobState) map[*prometheus.Desc]map[string]float64 {
	known := make(map[string]loom.JobState, len(states))
	for _, s := range states {
		known[s.Name] = s
	}
	all := map[*prometheus.Desc]map[string]float64{d.success: {}, d.next: {}, d.paused: {}, d.ok: {}}
	put := func(desc *prometheus.Desc, job string, v float64, worse func(a, b float64) float64) {
		label := st.server.Metrics.jobs.of(job)
		if was, ok := all[desc][label]; ok {
			v = worse(was, v)
		}
		all[desc][label] = v
	}
	least := func(a, b float64) float64 { return min(a, b) }
	most := func(a, b float64) float64 { return max(a, b) }
	now, looked := time.Now(), 0
	for _, j := range m.Jobs {
		s := known[j.Name]
		p := s.Pause
		put(d.paused, j.Name, flag(p != nil && (p.Until.IsZero() || p.Until.After(now))), most)
		if s.Last != nil && s.Last.Status.Ended() {
			put(d.ok, j.Name, flag(s.Last.Status.Good()), least)
		}
		if next := st.nextTick(j, now); !next.IsZero() {
			put(d.next, j.Name, seconds(next), least)
		}
		if at := st.success(ctx, s, &looked); !at.IsZero() {
			put(d.success, j.Name, seconds(at), least)
		}
	}
	st.forget(m)
	return all
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// nextTick returns when a job falls due next, or zero.
func (st *standing) nextTick(j *loom.Job, now time.Time) time.Time {
	if j.Disabled || j.Times() == nil {
		return time.Time{}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.next == nil {
		st.next = map[string]coming{}
	}
	n, ok := st.next[j.Name]
	if !ok || n.job != j || !n.tick.IsZero() && !n.tick.After(now) {
		n = coming{j, j.Times().Next(now)}
		st.next[j.Name] = n
	}
	return n.tick
}

// forget lets go of jobs that are in the manifest no more.
func (st *standing) forget(m *loom.Manifest) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.next) <= len(m.Jobs) {
		return
	}
	is := map[string]bool{}
	for _, j := range m.Jobs {
		is[j.Name] = true
	}
	maps.DeleteFunc(st.next, func(name string, _ coming) bool { return !is[name] })
}

// success returns when a job last ended well, or zero. What the job's state does
// not tell, the store is asked for once.
func (st *standing) success(ctx context.Context, s loom.JobState, looked *int) time.Time {
	m := st.server.Metrics
	m.mu.Lock()
	at, ok := m.succeeded[s.Name]
	m.mu.Unlock()
	if s.Last == nil {
		return at
	}
	if s.Last.Status.Good() && s.Last.Ended.After(at) {
		return s.Last.Ended
	}
	if ok || *looked == metricLookUp {
		return at
	}
	*looked++
	runs, err := st.server.Store.Runs(ctx, loom.RunQuery{Job: s.Name, Status: []loom.Status{loom.StatusOK, loom.StatusChanged}, Plan: new(false), Limit: 1})
	if err != nil {
		return at
	}
	if len(runs) > 0 {
		at = runs[0].Ended
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.succeeded[s.Name]; now.After(at) {
		at = now // meanwhile
	}
	m.succeeded[s.Name] = at
	return at
}
