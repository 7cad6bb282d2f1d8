package loom_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// TestSchedulerYear lives through a year with many jobs in many zones, in which
// the scheduler is stopped and killed and started anew, and compares what the
// store then knows of each tick with what an oracle foresaw. LOOM_YEAR_JOBS sets
// how many jobs there are, LOOM_YEAR_SEED repeats a year that went wrong.
func TestSchedulerYear(t *testing.T) {
	jobs, seed := 1000, uint64(time.Now().UnixNano())%1e6
	if racing {
		jobs = 100
	}
	if n, err := strconv.Atoi(os.Getenv("LOOM_YEAR_JOBS")); err == nil {
		jobs = n
	}
	if n, err := strconv.ParseUint(os.Getenv("LOOM_YEAR_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("again: LOOM_YEAR_SEED=%d LOOM_YEAR_JOBS=%d", seed, jobs)
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, seed, jobs)
		store := y.live(t)
		y.compare(t, store)
	})
}

// A year is a plan of what happens.
type year struct {
	rand    *rand.Rand
	book    yearbook
	watches []watch
	jobs    []*yearJob
	orders  map[string][]order
}

// A yearJob is a job, and what the oracle must know of it.
type yearJob struct {
	job      *loom.Job
	exprs    []string
	without  string // a window in which it does not fire, as an expression
	lasts    time.Duration
	stubborn bool // doesn't end when it is told to
	fails    bool
	reboot   bool
	jitter   time.Duration
	due      []time.Time
}

func newYear(t *testing.T, seed uint64, jobs int) *year {
	t.Helper()
	y := &year{rand: rand.New(rand.NewPCG(seed, 1)), orders: map[string][]order{}}
	first := time.Date(2000+y.rand.IntN(31), 1, 1, 0, 0, 0, 0, time.UTC)
	if first.Year() > 2000 {
		time.Sleep(time.Until(first)) //nolint:forbidigo // the fake clock's
	}
	y.book = yearbook{from: first.Add(-48 * time.Hour), to: first.AddDate(1, 0, 1), zones: map[string][]moment{}, ticks: map[string][]time.Time{}}
	y.plan(first)
	y.book.to = y.watches[len(y.watches)-1].to
	for i := range jobs {
		y.jobs = append(y.jobs, y.newJob(t, i))
	}
	return y
}

// plan decides when there is a scheduler.
func (y *year) plan(first time.Time) {
	for at := first; at.Year() == first.Year(); {
		w := watch{from: at, to: at.Add(y.between(time.Minute, 14*24*time.Hour)).Truncate(time.Second).Add(777 * time.Nanosecond)}
		w.killed = y.rand.IntN(2) == 0
		y.watches = append(y.watches, w)
		least := time.Second
		if !w.killed {
			least = yearGrace + abandoned + time.Second
		}
		at = w.to.Add(least + y.between(time.Millisecond, []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 14 * 24 * time.Hour}[y.rand.IntN(4)]))
		if y.rand.IntN(3) == 0 { // when something is due
			at = at.Truncate(time.Hour).Add(time.Hour)
		}
	}
	y.watches[len(y.watches)-1].killed = false // somebody sees how it ends
}

// between returns a duration: short ones are as likely as long ones.
func (y *year) between(least, most time.Duration) time.Duration {
	d := least
	for d < most && y.rand.IntN(6) > 0 {
		d = d*2 + time.Duration(y.rand.Int64N(int64(d)))
	}
	return min(d, most)
}

// some returns the time of some minute in the year.
func (y *year) some() time.Time {
	first, last := y.watches[0].from, y.watches[len(y.watches)-1].to
	return first.Add(time.Duration(y.rand.Int64N(int64(last.Sub(first))))).Truncate(time.Minute)
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func (y *year) newJob(t *testing.T, i int) *yearJob {
	t.Helper()
	r := y.rand
	zone, err := time.LoadLocation(pick(r, "UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata",
		"America/Sao_Paulo", "America/Havana", "Australia/Adelaide", "Asia/Tehran", "Atlantic/Azores", "America/St_Johns", "Asia/Kathmandu", "Africa/Cairo"))
	if err != nil {
		t.Fatal(err)
	}
	j := &yearJob{job: &loom.Job{Name: fmt.Sprintf("job %04d", i), Timezone: zone, Targets: []*loom.Node{{Name: "n", Transport: "local"}},
		Overlap: pick(r, "", loom.OverlapSkip, loom.OverlapQueue, loom.OverlapReplace, loom.OverlapAllow),
		Missed: loom.Missed{Policy: pick(r, "", loom.MissedLatest, loom.MissedSkip, loom.MissedAll),
			Within: pick(r, 0, time.Hour, time.Hour, 26*time.Hour, 30*24*time.Hour)}}}
	if r.IntN(3) == 0 {
		j.lasts = y.between(time.Second, 40*time.Hour) + 123457*time.Nanosecond
		j.stubborn = r.IntN(4) == 0
	}
	j.fails = !j.stubborn && r.IntN(8) == 0
	y.when(i, j)
	switch {
	case r.IntN(10) == 0:
		j.job.Jitter.Max = pick(r, time.Second, 90*time.Second, 20*time.Minute)
	case r.IntN(10) == 0:
		from := y.some()
		j.job.NotDuring = []loom.Blackout{{From: from, To: from.Add(y.between(time.Hour, 60*24*time.Hour))}}
	case r.IntN(10) == 0:
		j.without = pick(r, "0 0 * * SAT,SUN", "0 2 * * *", "30 22 L * *")
		j.job.NotDuring = []loom.Blackout{{Schedule: parse(t, j.without, zone), For: pick(r, time.Hour, 24*time.Hour)}}
	}
	for range r.IntN(6) - 3 {
		y.order(j)
	}
	y.complete(t, j)
	return j
}

// when gives the job its schedule.
func (y *year) when(i int, j *yearJob) {
	r := y.rand
	m, h, d := r.IntN(60), pick(r, 0, 0, 1, 1, 2, 2, 3, 23, r.IntN(24)), 1+r.IntN(28)
	switch kind := i % 40; {
	case i%200 == 0: // those that fire often are few
		j.exprs = []string{pick(r, "@hourly", "*/20 */2 * * *", "17 * * * *", "@every 50m", "0,30 0-4,12 * * *", "* 2 * * SUN")}
	case kind < 4:
		j.exprs = []string{pick(r, fmt.Sprintf("%d %d * * *", m, h), "@daily", "@midnight", "0 1-3 * * 1-5", "*/30 2 * * *", "@every 25h7m", "15,45 30 2 * * 6,7",
			"0,4,8 30 2 * * MON", fmt.Sprintf("%d */12 * * *", m))}
	case kind < 18:
		j.exprs = []string{pick(r, fmt.Sprintf("%d %d * * MON", m, h), fmt.Sprintf("%d %d * * 7", m, h), "@weekly", "*/20 2 * * SUN", "@every 100h",
			fmt.Sprintf("%d %d * * SAT,SUN", m, h), fmt.Sprintf("%d %d */9 * *", m, h), "0 2-3 * * 0")}
	case kind < 30:
		j.exprs = []string{pick(r, fmt.Sprintf("%d %d %d * *", m, h, d), fmt.Sprintf("%d %d L * *", m, h), fmt.Sprintf("%d %d LW * *", m, h),
			fmt.Sprintf("%d %d %dW * *", m, h, d), fmt.Sprintf("%d %d L-3 * *", m, h), fmt.Sprintf("%d %d * * 5L", m, h), fmt.Sprintf("%d %d * * MON#2", m, h),
			fmt.Sprintf("%d %d 1,15 * MON", m, h), fmt.Sprintf("%d %d */2 * SUN", m, h), fmt.Sprintf("%d %d %d JAN-MAR,OCT *", m, h, d), "@monthly",
			fmt.Sprintf("30 %d %d %d * * %d", m, h, d, y.watches[0].from.Year()), "0 0 29 2 *")}
	case kind < 34:
		j.exprs = []string{fmt.Sprintf("%d %d * * SUN", m, h), pick(r, "@monthly", "0 2 * * 7", "@every 340h"), fmt.Sprintf("%d %d %d * *", m, h, d)}
	case kind == 34:
		j.job.Disabled, j.exprs = true, []string{"@hourly"}
	case kind == 35:
		j.reboot = true
		j.lasts = min(j.lasts, time.Minute+123457*time.Nanosecond) // not to end when a session does
	case kind < 38:
		j.job.At = y.some()
		if r.IntN(2) == 0 {
			j.exprs = []string{fmt.Sprintf("%d %d L * *", m, h)}
		}
	default: // its runs follow those of an earlier job, and may overlap
		j.job.After = []loom.After{{Job: fmt.Sprintf("job %04d", r.IntN(i)), On: pick(r, "", loom.AfterFailed, loom.AfterAny)}}
		j.job.Overlap = loom.OverlapAllow
		if r.IntN(2) == 0 {
			j.exprs = []string{fmt.Sprintf("%d %d * * TUE", m, h)}
		}
	}
}

// order has somebody pause the job, and perhaps resume it.
func (y *year) order(j *yearJob) {
	at := y.some().Add(333 * time.Nanosecond)
	p := &loom.Pause{}
	switch y.rand.IntN(3) {
	case 0:
		p.Until = at.Add(y.between(time.Hour, 40*24*time.Hour)).Truncate(time.Minute)
	default:
		y.orders[j.job.Name] = append(y.orders[j.job.Name], order{at: at.Add(y.between(time.Hour, 40*24*time.Hour))})
	}
	y.orders[j.job.Name] = append(y.orders[j.job.Name], order{at, p})
}

// complete makes the job of what was decided, and has the oracle look up when it
// falls due.
func (y *year) complete(t *testing.T, j *yearJob) {
	t.Helper()
	var all loom.Schedules
	for _, expr := range j.exprs {
		all = append(all, parse(t, expr, j.job.Timezone))
		if !j.job.Disabled {
			j.due = union(j.due, y.book.due(t, expr, j.job.Timezone))
		}
	}
	switch {
	case j.reboot:
		j.job.Schedule = parse(t, "@reboot", j.job.Timezone)
	case len(all) == 1:
		j.job.Schedule = all[0]
	case len(all) > 1:
		j.job.Schedule = all
	}
	if !j.job.At.IsZero() {
		j.due = union(j.due, []time.Time{j.job.At})
	}
	if most := j.job.Jitter.Max; most > 0 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%q", j.job.Name)
		j.jitter = time.Duration(h.Sum64()%uint64(most.Milliseconds()+1)) * time.Millisecond
	}
	j.job.Task = loom.TaskFunc(func(ctx context.Context, _ *loom.Session) error {
		if j.lasts > 0 {
			told := ctx.Done()
			if j.stubborn {
				told = nil
			}
			select {
			case <-time.After(j.lasts):
			case <-told:
				return context.Cause(ctx)
			}
		}
		if j.fails {
			return errors.New("it does")
		}
		return nil
	})
}

// blacked reports whether a tick falls into a window of not_during.
func (s *seer) blacked(due time.Time) bool {
	for _, b := range s.job.NotDuring {
		if b.Schedule == nil {
			return !due.Before(b.From) && due.Before(b.To)
		}
		i, same := slices.BinarySearchFunc(s.windows, due, time.Time.Compare)
		if same || i > 0 && due.Before(s.windows[i-1].Add(b.For)) {
			return true
		}
	}
	return false
}

func parse(t *testing.T, expr string, zone *time.Location) loom.Schedule {
	t.Helper()
	s, err := loom.ParseSchedule(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// live has the year happen.
func (y *year) live(t *testing.T) *memory.Store {
	t.Helper()
	type happening struct {
		at time.Time
		do func()
	}
	store := &memory.Store{TTL: 200 * 365 * 24 * time.Hour}
	var all []happening
	var ended []chan error
	var ids []string
	for i, w := range y.watches {
		ended = append(ended, make(chan error, 1))
		ctx, stop := context.WithCancel(t.Context())
		mortal := &mortal{Store: store}
		all = append(all, happening{w.from, func() {
			if i > 0 && !y.watches[i-1].killed {
				if err := <-ended[i-1]; err != nil && !errors.Is(err, loom.ErrShutdown) {
					t.Errorf("Run = %v", err)
				}
			}
			mortal.others = slices.Clone(ids)
			s := y.scheduler(mortal)
			go func() {
				ended[i] <- s.Run(ctx)
				_ = s.Pool.Close()
			}()
			synctest.Wait()
			ids = append(ids, mortal.id())
		}})
		all = append(all, happening{w.to, func() {
			mortal.dead.Store(w.killed)
			stop()
		}})
	}
	for name, orders := range y.orders {
		for _, o := range orders {
			all = append(all, happening{o.at, func() {
				a := loom.Action{Verb: loom.VerbResume, Object: name}
				if o.pause != nil {
					a.Verb, a.Until = loom.VerbPause, o.pause.Until
				}
				if err := store.Act(context.Background(), a); err != nil {
					t.Error(err)
				}
			}})
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return a.at.Compare(b.at) })
	for _, h := range all {
		time.Sleep(time.Until(h.at)) //nolint:forbidigo // the fake clock's
		h.do()
	}
	for i, w := range y.watches {
		if w.killed || i == len(y.watches)-1 {
			<-ended[i]
		}
	}
	time.Sleep(100 * time.Hour) //nolint:forbidigo // the last stubborn task ends
	return store
}

func (y *year) scheduler(store loom.Store) *loom.Scheduler {
	quiet := slog.New(slog.DiscardHandler)
	s := &loom.Scheduler{Store: store, Grace: yearGrace, Log: quiet, Pool: &loom.Pool{Max: 1e6, Log: quiet}}
	s.LookEvery(6 * time.Hour)
	m := &loom.Manifest{}
	for _, j := range y.jobs {
		m.Jobs = append(m.Jobs, j.job)
	}
	s.Load(m)
	return s
}

// A mortal is a store as one instance sees it, until it dies. When it is first
// heard of, those before it are known to be gone.
type mortal struct {
	*memory.Store
	dead   atomic.Bool
	once   sync.Once
	others []string
	self   atomic.Pointer[string]
}

func (m *mortal) id() string { return *m.self.Load() }

func (m *mortal) gone() error {
	if m.dead.Load() {
		return fmt.Errorf("dead: %w", loom.ErrFenced)
	}
	return nil
}

func (m *mortal) Beat(ctx context.Context, self loom.Instance) (loom.Pulse, error) {
	if err := m.gone(); err != nil {
		return loom.Pulse{}, err
	}
	m.once.Do(func() {
		m.self.Store(&self.ID)
		for _, id := range m.others {
			_, _ = m.Store.Beat(ctx, loom.Instance{ID: id, Leaving: true})
		}
	})
	return m.Store.Beat(ctx, self)
}

func (m *mortal) Fire(ctx context.Context, self string, f []loom.Firing) ([]loom.Fired, error) {
	if err := m.gone(); err != nil {
		return nil, err
	}
	return m.Store.Fire(ctx, self, f)
}

func (m *mortal) Take(ctx context.Context, self string) (*loom.Claim, error) {
	if err := m.gone(); err != nil {
		return nil, err
	}
	return m.Store.Take(ctx, self)
}

func (m *mortal) Record(ctx context.Context, c loom.Claim, events []loom.Event) error {
	if err := m.gone(); err != nil {
		return err
	}
	return m.Store.Record(ctx, c, events)
}

func (m *mortal) Finish(ctx context.Context, c loom.Claim, end loom.Run, last []loom.Event) error {
	if err := m.gone(); err != nil {
		return err
	}
	return m.Store.Finish(ctx, c, end, last)
}

// compare holds the store's ledger against the oracle's.
func (y *year) compare(t *testing.T, store *memory.Store) {
	t.Helper()
	runs := map[string]loom.Run{}
	byJob := map[string][]loom.Run{}
	all, err := store.Runs(t.Context(), loom.RunQuery{Limit: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		runs[r.ID] = r
		byJob[r.Job] = append(byJob[r.Job], r)
	}
	endings := map[string][]ending{}
	outcomes, wrong := map[loom.Outcome]int{}, 0
	for _, j := range y.jobs {
		s := &seer{yearJob: *j, orders: y.orders[j.job.Name]}
		slices.SortFunc(s.orders, func(a, b order) int { return a.at.Compare(b.at) })
		if j.without != "" {
			s.windows = y.book.due(t, j.without, j.job.Timezone)
		}
		for _, a := range j.job.After {
			s.follow = slices.Clone(endings[a.Job])
		}
		s.foresee(j.due, y.watches)
		endings[j.job.Name] = s.endings
		slices.SortStableFunc(s.endings, func(a, b ending) int { return a.at.Compare(b.at) })

		for _, f := range s.ticks {
			outcomes[f.outcome]++
		}
		was := wrong
		got := y.ledger(t, store, j, runs)
		var want []string
		for _, f := range s.ticks {
			want = append(want, f.String())
		}
		wrong += differ(t, j, "ticks", got, want)
		got, want = nil, nil
		for _, r := range byJob[j.job.Name] {
			got = append(got, fmt.Sprint(stamp(r.Queued), " ", r.Trigger, " ", r.Status, " ", stamp(r.Ended)))
		}
		for _, r := range s.runs {
			want = append(want, fmt.Sprint(stamp(r.queued), " ", r.trigger, " ", r.status, " ", stamp(r.ends)))
		}
		slices.Sort(got)
		slices.Sort(want)
		wrong += differ(t, j, "runs", got, want)
		if wrong > was && wrong > 5 {
			t.Fatal("and perhaps more")
		}
	}
	t.Logf("%d: %d sessions, %d runs; ticks: %v", y.watches[0].from.Year(), len(y.watches), len(all), outcomes)
}

// ledger returns what the store knows of a job's ticks, one by one.
func (y *year) ledger(t *testing.T, store *memory.Store, j *yearJob, runs map[string]loom.Run) []string {
	t.Helper()
	ticks, err := store.Ticks(t.Context(), loom.TickQuery{Job: j.job.Name, Limit: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range slices.Backward(ticks) {
		n := 0
		for _, due := range j.due {
			if due.Before(k.Due) || due.After(k.Until) {
				continue
			}
			n++
			f := foreseen{due: due, outcome: k.Outcome}
			if r, ok := runs[k.Run]; ok {
				f.run = &foreseenRun{trigger: r.Trigger, queued: r.Queued, ends: r.Ended, status: r.Status}
			}
			got = append(got, f.String())
		}
		if n != k.Ticks || k.Why == "" && k.Outcome != loom.OutcomeRan {
			got = append(got, fmt.Sprintf("%d ticks from %v to %v, which is %d: %s %q", k.Ticks, k.Due, k.Until, n, k.Outcome, k.Why))
		}
	}
	return got
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }

func (f foreseen) String() string {
	s := stamp(f.due) + " " + string(f.outcome)
	if f.run != nil {
		s += fmt.Sprintf(", run %s %s ended %s %s", f.run.trigger, stamp(f.run.queued), stamp(f.run.ends), f.run.status)
	}
	return s
}

// differ tells of the first difference.
func differ(t *testing.T, j *yearJob, what string, got, want []string) int {
	t.Helper()
	if slices.Equal(got, want) {
		return 0
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	show := func(s []string) []string { return s[max(i-2, 0):min(i+4, len(s))] }
	t.Errorf("%s of %s in %v (%q, at %v; overlap %q, missed %+v, lasts %v, stubborn %v, fails %v, jitter %v, after %v) differ at %d of %d and %d:\n got %q\nwant %q",
		what, j.job.Name, j.job.Timezone, j.exprs, j.job.At, j.job.Overlap, j.job.Missed, j.lasts, j.stubborn, j.fails, j.jitter, j.job.After,
		i, len(got), len(want), show(got), show(want))
	return 1
}
