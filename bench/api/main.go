// Command api measures what a daemon's API costs: how long people wait for what
// they open and for lines that are printed, 10,000 clients one after another, and 1,000
// event streams at once, of which one is never read. The daemon is a real one, which it builds, with 1,000
// jobs and 100,000 runs in its store. It prints Markdown. Linux only.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/sqlite"
)

// A bench is how much is done.
type bench struct {
	jobs, runs, asks, clients, streams, fired int

	dir    string
	client *api.Client
	pid    int
}

func main() {
	var b bench
	flag.IntVar(&b.jobs, "jobs", 1000, "jobs in the manifest")
	flag.IntVar(&b.runs, "runs", 100_000, "runs in the store")
	flag.IntVar(&b.asks, "asks", 200, "how often each page is asked for")
	flag.IntVar(&b.clients, "clients", 10_000, "clients one after another")
	flag.IntVar(&b.streams, "streams", 1000, "event streams at once, of which one is never read")
	flag.IntVar(&b.fired, "fired", 600, "runs that the streams tell of")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "api-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir) //nolint:errcheck // nothing of worth is in there
	if err := b.files(); err != nil {
		return err
	}
	if err := b.remember(ctx); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	fmt.Printf("%d jobs, %d runs; %d CPUs, %s.\n\n", b.jobs, b.runs, runtime.NumCPU(), runtime.Version())
	if err := b.pages(ctx); err != nil {
		return err
	}
	if err := b.follow(ctx); err != nil {
		return err
	}
	if err := b.oneAfterAnother(ctx); err != nil {
		return err
	}
	return b.atOnce(ctx)
}

// files writes the manifest.
func (b *bench) files() error {
	var jobs strings.Builder
	jobs.WriteString("jobs:\n")
	for i := range b.jobs {
		if i == b.jobs-1 {
			break // it is the one that talks
		}
		fmt.Fprintf(&jobs, "  job-%04d: {task: run, kwargs: {command: 'true'}, targets: n%d, schedule: '%d 3 * * *', overlap: allow, resumable: false, labels: {team: t%d}}\n", i, i%100, i%60, i%10)
	}
	fmt.Fprintf(&jobs, "  job-%04d: {task: run, kwargs: {command: 'i=0; while [ $i -lt %d ]; do date +%%s%%N; sleep 0.05; i=$((i+1)); done'}, targets: n0, schedule: manual, resumable: false}\n", b.jobs-1, b.asks)
	var nodes strings.Builder
	for i := range 100 {
		fmt.Fprintf(&nodes, "n%d: {transport: local}\n", i)
	}
	for name, text := range map[string]string{
		"loom.yaml":  "nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nstore: sqlite\nmax_workers: 4\n",
		"nodes.yaml": nodes.String(), "jobs/jobs.yaml": jobs.String(),
	} {
		file := filepath.Join(b.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(b.dir, "state"), 0o700)
}

// remember fills the store with runs that have ended.
func (b *bench) remember(ctx context.Context) (err error) {
	store, err := sqlite.Open(ctx, filepath.Join(b.dir, "state", "loom.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	names := map[string]string{}
	for i := range b.jobs {
		names[fmt.Sprintf("job-%04d", i)] = ""
	}
	if err := store.Adopt(ctx, names); err != nil {
		return err
	}
	now := time.Now()
	for n := 0; n < b.runs; n += b.jobs {
		firings := make([]loom.Firing, b.jobs)
		for i := range firings {
			firings[i] = loom.Firing{Job: fmt.Sprintf("job-%04d", i), Overlap: loom.OverlapAllow, Claim: true,
				Run: loom.Run{ID: fmt.Sprintf("0%025d", n+i), Trigger: loom.TriggerManual, Nodes: 1}}
		}
		fired, err := store.Fire(ctx, "bench", firings)
		if err != nil {
			return err
		}
		var ending sync.WaitGroup
		errs := make([]error, 16)
		for w := range errs {
			ending.Go(func() {
				for i := w; i < len(fired); i += len(errs) {
					node := fmt.Sprintf("n%d", i%100)
					status := loom.StatusOK
					if (n/b.jobs+i)%97 == 0 {
						status = loom.StatusFailed
					}
					errs[w] = errors.Join(errs[w], store.Finish(ctx, fired[i].Claim, loom.Run{Status: status, Ended: now, Counts: map[loom.Status]int{status: 1}}, []loom.Event{
						{Kind: loom.KindNodeStarted, Node: node, Time: now},
						{Kind: loom.KindOutput, Node: node, Stream: loom.Stdout, Text: "a line of output", Time: now},
						{Kind: loom.KindNodeEnded, Node: node, Time: now, Result: &loom.Result{Node: node, Status: status, Attempts: 1, Started: now, Ended: now}}}))
				}
			})
		}
		ending.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// start builds a daemon and runs it until stop is called.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	loomd := filepath.Join(b.dir, "loomd")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", loomd, "github.com/dustinlacewell/loom/cmd/loomd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build loomd: %w: %s", err, out)
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, loomd, "serve", "-c", filepath.Join(b.dir, "loom.yaml"), "--log-level", "error")
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 20*time.Second
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.pid = cmd.Process.Pid
	b.client = &api.Client{Socket: filepath.Join(b.dir, "state", api.SocketFile)}
	stop = func() error {
		_ = b.client.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("loomd: %w: %s", err, log.String())
		}
		return nil
	}
	for range 300 {
		if _, err = b.client.Status(ctx); err == nil {
			return stop, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), stop())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil, errors.Join(err, stop())
}

// through returns an HTTP client whose connections are to the daemon.
func (b *bench) through() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", b.client.Socket)
	}}}
}

func get(ctx context.Context, c *http.Client, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loomd"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.Do(r)
	if err == nil && answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return nil, errors.Join(fmt.Errorf("%s: %s: %s", path, answer.Status, text), answer.Body.Close())
	}
	return answer, err
}

// memory returns what the daemon takes, in MB: now, and at most so far.
func (b *bench) memory() (now, peak float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
	if err != nil {
		return 0, 0
	}
	value := func(key string) float64 {
		_, rest, _ := strings.Cut(string(text), key+":")
		kb, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
		return kb / 1024
	}
	return value("VmRSS"), value("VmHWM")
}

// pages measures what a person opens.
func (b *bench) pages(ctx context.Context) error {
	run := fmt.Sprintf("0%025d", b.runs/2)
	c := b.through()
	defer c.CloseIdleConnections()
	fmt.Print("| what is opened | median ms | 99 of 100 ms | KB |\n|---|--:|--:|--:|\n")
	for _, path := range []string{"/status", "/jobs?limit=100", "/jobs?limit=1000&outcomes=0", "/jobs/job-0500", "/jobs/job-0500/runs", "/jobs/job-0500/ticks",
		"/jobs/job-0500/why", "/runs", "/runs?status=failed", "/runs?text=job-0500", "/runs?text=nothing+of+that", "/runs/" + run, "/runs/" + run + "/results", "/runs/" + run + "/output",
		"/nodes", "/nodes/n50", "/next", "/manifest", "/audit", "/metrics", "/docs"} {
		full := api.Prefix + path
		if path == "/metrics" || path == "/docs" {
			full = path
		}
		var took []time.Duration
		size := int64(0)
		for range b.asks {
			began := time.Now()
			answer, err := get(ctx, c, full)
			if err != nil {
				return err
			}
			size, err = io.Copy(io.Discard, answer.Body)
			if err := errors.Join(err, answer.Body.Close()); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		fmt.Printf("| %s | %.1f | %.1f | %.0f |\n", strings.Replace(path, run, "RUN", 1), ms(took[len(took)/2]), ms(took[len(took)*99/100]), float64(size)/1024)
	}
	fmt.Println()
	return b.walk(ctx)
}

// walk measures how long it takes to list all jobs with their last runs, page by page,
// as the commands do.
func (b *bench) walk(ctx context.Context) error {
	var took []time.Duration
	pages := 0
	for range max(b.asks/10, 1) {
		began := time.Now()
		pages = 0
		for q := (api.JobsQuery{Limit: 1000}); ; pages++ {
			page, err := b.client.ListJobs(ctx, q)
			if err != nil {
				return err
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	fmt.Printf("All jobs with their last runs are %d pages, which take a client %.1f ms at the median.\n\n", pages+1, ms(took[len(took)/2]))
	return nil
}

// follow measures how long lines take from the command that prints them, which says
// when, through the store to a client that follows the run.
func (b *bench) follow(ctx context.Context) error {
	run, err := b.client.Trigger(ctx, fmt.Sprintf("job-%04d", b.jobs-1), loom.Request{})
	if err != nil {
		return err
	}
	var late []time.Duration
	end, err := b.client.FollowOutput(ctx, loom.OutputQuery{Run: run.ID}, func(chunk loom.Chunk) error {
		now := time.Now().UnixNano()
		for _, line := range chunk.Lines {
			at, err := strconv.ParseInt(line.Text, 10, 64)
			if err != nil {
				return fmt.Errorf("a line of run %s: %w", run.ID, err)
			}
			late = append(late, time.Duration(now-at))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(late) != b.asks || end.Status != loom.StatusOK {
		return fmt.Errorf("run %s ended %s with %d lines of %d", run.ID, end.Status, len(late), b.asks)
	}
	slices.Sort(late)
	fmt.Printf("%d lines, printed one each 50 ms, came to who follows the run %.1f ms later at the median, and 99 of 100 within %.1f ms.\n\n",
		len(late), ms(late[len(late)/2]), ms(late[len(late)*99/100]))
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// oneAfterAnother measures clients that come and go.
func (b *bench) oneAfterAnother(ctx context.Context) error {
	before, _ := b.memory()
	began := time.Now()
	for i := range b.clients {
		c := &api.Client{Socket: b.client.Socket}
		if _, err := c.Runs(ctx, loom.RunQuery{Job: fmt.Sprintf("job-%04d", i%b.jobs), Limit: 10}); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	took := time.Since(began)
	now, peak := b.memory()
	fmt.Printf("%d clients one after another, each with a connection of its own: %.1f s, %.2f ms each; the daemon's memory was %.0f MB before, %.0f MB after, %.0f MB at most.\n\n",
		b.clients, took.Seconds(), took.Seconds()*1000/float64(b.clients), before, now, peak)
	return nil
}

// A heard is what one stream told.
type heard struct {
	events int
	hash   uint64 // of all ids in order
	late   time.Duration
	err    error
}

// atOnce measures event streams.
func (b *bench) atOnce(ctx context.Context) error {
	before, _ := b.memory()
	deaf, err := (&net.Dialer{}).DialContext(ctx, "unix", b.client.Socket)
	if err != nil {
		return err
	}
	defer deaf.Close() //nolint:errcheck // it was never read
	if _, err := io.WriteString(deaf, "GET "+api.Prefix+"/events HTTP/1.1\r\nHost: loomd\r\n\r\n"); err != nil {
		return err
	}
	all := make([]heard, b.streams-1)
	var opening, reading sync.WaitGroup
	opening.Add(len(all))
	last := make(chan struct{}) // closed with lastAt set
	var lastAt time.Time
	for i := range all {
		reading.Go(func() { all[i] = b.listen(ctx, opening.Done, last, &lastAt) })
	}
	opening.Wait()
	open, _ := b.memory()
	began := time.Now()
	for i := range b.fired {
		if _, err := b.client.Trigger(ctx, fmt.Sprintf("job-%04d", i%b.jobs), loom.Request{}); err != nil {
			return err
		}
	}
	for { // until all have ended
		going, err := b.client.Runs(ctx, loom.RunQuery{Status: []loom.Status{loom.StatusRunning, loom.StatusQueued}, Limit: 1})
		if err != nil {
			return err
		}
		if len(going) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	lastAt = time.Now()
	close(last)
	if err := b.client.Act(ctx, loom.Action{Verb: loom.VerbPause, Object: "job-0000"}); err != nil {
		return err
	}
	reading.Wait()
	took := time.Since(began)
	_, peak := b.memory()
	var worst time.Duration
	for i, h := range all {
		if h.err != nil {
			return fmt.Errorf("stream %d: %w", i, h.err)
		}
		if h.events != all[0].events || h.hash != all[0].hash {
			return fmt.Errorf("stream %d had %d events, and the first %d: some were lost, or came in another order", i, h.events, all[0].events)
		}
		worst = max(worst, h.late)
	}
	fmt.Printf("%d event streams at once, one of them never read, while %d runs were triggered and went: the other %d had all %d events each in order, %.0f a second over all of them, "+
		"the last event of all %d ms after it happened at the latest; the daemon's memory was %.0f MB before, %.0f MB with the streams open, %.0f MB at most.\n",
		b.streams, b.fired, len(all), all[0].events, float64(all[0].events*len(all))/took.Seconds(), worst.Milliseconds(), before, open, peak)
	return nil
}

// listen reads a stream up to the pause of a job.
func (b *bench) listen(ctx context.Context, opened func(), last <-chan struct{}, lastAt *time.Time) (h heard) {
	once := sync.OnceFunc(opened)
	defer once()
	c := b.through()
	defer c.CloseIdleConnections()
	answer, err := get(ctx, c, api.Prefix+"/events")
	if err != nil {
		return heard{err: err}
	}
	defer answer.Body.Close() //nolint:errcheck // it is not read to its end
	hash := fnv.New64a()
	lines := bufio.NewReader(answer.Body)
	var id []byte
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return heard{err: fmt.Errorf("after %d events: %w", h.events, err)}
		}
		switch {
		case bytes.HasPrefix(line, []byte("id: ")):
			id = append(id[:0], line...)
		case bytes.Equal(line, []byte("event: hello\n")):
			once()
		case bytes.HasPrefix(line, []byte("event: ")):
			h.events++
			_, _ = hash.Write(id)
			_, _ = hash.Write(line)
			switch string(line) {
			case "event: slow\n", "event: reset\n", "event: bye\n":
				return heard{err: fmt.Errorf("after %d events: %s", h.events, line)}
			case "event: job-paused\n":
				<-last
				h.late, h.hash = time.Since(*lastAt), hash.Sum64()
				return h
			}
		}
	}
}
