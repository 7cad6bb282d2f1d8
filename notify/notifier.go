package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// How long things take.
const (
	firstRetry  = 5 * time.Second
	lastRetry   = 15 * time.Minute
	gather      = 5 * time.Second  // for nodes that go down, or come back, together
	drainTime   = 3 * time.Second  // for what is on its way when Run ends
	askAgain    = 10 * time.Second // the store, if it did not answer
	recallTime  = 5 * time.Second  // for the store to answer
	mostQueued  = 200_000          // events that wait to be looked at
	mostTallied = 5000             // results of one run that did not go well
	overlapping = 10 * time.Second // by which ends of runs may come out of order
)

// A Notifier tells what happens to the targets of a manifest. Its fields must not
// change once Run was called. Load, Observe, Test and Standings may be called at any
// time, by several goroutines at once.
type Notifier struct {
	State   string              // the daemon's directory, in which it keeps what is to be sent
	Archive loom.Archive        // to find out what happened while nobody was there; nil: nobody knows
	Log     *slog.Logger        // nil: slog.Default()
	Redact  func(string) string // takes secrets out of a text; nil: there are none
	Program string              // how people call Loom's command line; "": loom
	Host    string              // this machine; "": its own name

	mu       sync.Mutex
	targets  []*target
	jobs     map[string]*loom.Job
	problems []string // of the manifest in force
	loaded   bool
	queue    []loom.Event    // that Run is to look at
	overflow bool            // some were dropped
	down     map[string]bool // nodes whose good results are looked at; nil: all, as nothing is known yet
	wake     chan struct{}

	boxMu sync.Mutex // held while the clerk changes what others look at
	open  *box
}

// Load makes the targets and jobs of a manifest those that count. What is wrong with
// its targets is Check's to say: those are left out here.
func (n *Notifier) Load(m *loom.Manifest) {
	targets, _ := read(m.Config)
	jobs := make(map[string]*loom.Job, len(m.Jobs))
	for _, j := range m.Jobs {
		jobs[j.Name] = j
	}
	var problems []string
	for _, p := range m.Problems {
		problems = append(problems, p.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.targets, n.jobs, n.problems, n.loaded = targets, jobs, problems, true
	n.poke()
}

// Observe takes an event of a scheduler. It does not block. Nobody hears of plans.
func (n *Notifier) Observe(e loom.Event) {
	if e.Plan {
		return
	}
	switch e.Kind {
	case loom.KindRunStarted, loom.KindRunEnded, loom.KindNodeEnded, loom.KindTickMissed, loom.KindStoreDown, loom.KindStoreBack:
	default:
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.targets) == 0 {
		return
	}
	if e.Kind == loom.KindNodeEnded && n.down != nil {
		switch {
		case e.Result.Status == loom.StatusUnreachable:
			n.down[e.Node] = true // what comes next may be that it is back
		case e.Result.Status.Good() && !n.down[e.Node] && !n.wantsOutput(e.Job):
			return // as it should be
		}
	}
	if len(n.queue) >= mostQueued {
		n.queue, n.overflow = slices.Delete(n.queue, 0, mostQueued/2), true
	}
	n.queue = append(n.queue, e)
	n.poke()
}

// wantsOutput reports whether somebody hears of the end of all runs of a job. n.mu
// is held.
func (n *Notifier) wantsOutput(job string) bool {
	j := n.jobs[job]
	return j != nil && slices.ContainsFunc(n.targets, func(t *target) bool { return t.hears(Ended, j) })
}

// poke has Run look at what there is. n.mu is held.
func (n *Notifier) poke() {
	if n.wake == nil {
		n.wake = make(chan struct{}, 1)
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Notifier) log() *slog.Logger {
	if n.Log != nil {
		return n.Log
	}
	return slog.Default()
}

func (n *Notifier) host() string {
	if n.Host != "" {
		return n.Host
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

func (n *Notifier) program() string {
	if n.Program != "" {
		return n.Program
	}
	return "loom"
}

// Run tells what is handed in, until ctx ends. What was not delivered then is on
// the disk, for the next Run.
func (n *Notifier) Run(ctx context.Context) {
	n.mu.Lock()
	n.poke()
	wake := n.wake
	n.mu.Unlock()
	c := &clerk{Notifier: n, cleaner: newCleaner(n.Redact), tallies: map[string]*tally{}, moved: map[string]move{},
		couriers: map[string]*courier{}, reports: make(chan report)}
	defer c.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	way, stop := context.WithCancelCause(context.WithoutCancel(ctx)) // what is on its way is given some time
	defer c.out.Wait()
	defer stop(loom.ErrShutdown)
	for {
		select {
		case <-ctx.Done():
			c.look(ctx)
			c.settle()
			c.drain(way)
			return
		case <-wake:
		case <-timer.C:
		case r := <-c.reports:
			c.reported(r)
		}
		c.look(ctx)
		c.dispatch(way)
		timer.Reset(max(time.Until(c.next()), 0))
	}
}

// A clerk is the one goroutine that knows what was told and what waits.
type clerk struct {
	*Notifier
	cleaner *cleaner
	box     *box // what open is, too

	aware    bool // of what happened before
	askAt    time.Time
	told     []string // problems of the manifest that were looked at
	looked   bool     // at a manifest
	tallies  map[string]*tally
	moved    map[string]move // nodes that went down or came back, lately
	moveAt   time.Time       // when that is told
	complain string          // what was said last of the journal

	couriers map[string]*courier
	reports  chan report
	out      sync.WaitGroup // couriers on their way
}

// A tally is what is known of a run that is going.
type tally struct {
	bad    []loom.Result
	missed int // of bad ones that there was no room for
	output []string
}

// A move is where a node has gone.
type move struct {
	back   bool
	reason string
}

// end lets go of the journal.
func (c *clerk) end() {
	if c.box == nil {
		return
	}
	c.boxMu.Lock()
	defer c.boxMu.Unlock()
	if c.box.close(); c.box.err != nil {
		c.log().Error("news that wait could not be kept at the end, and may be lost", "news", c.box.n, "err", c.box.err)
	}
	c.open = nil
}

// begin opens the journal once there is somebody to tell.
func (c *clerk) begin() {
	b := openBox(journalName(c.State), func(err error) { c.log().Error("news may have been lost", "err", err) })
	down := make(map[string]bool, len(b.past.Nodes))
	for name := range b.past.Nodes {
		down[name] = true
	}
	c.mu.Lock()
	c.down = down
	c.mu.Unlock()
	c.boxMu.Lock()
	defer c.boxMu.Unlock()
	c.box, c.open = b, b
}

// drain delivers what can be delivered, but not for long: the next Run does the
// rest.
func (c *clerk) drain(way context.Context) {
	c.dispatch(way)
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	for {
		busy := false
		for _, k := range c.couriers {
			busy = busy || k.busy
		}
		if !busy {
			return
		}
		select {
		case r := <-c.reports:
			c.reported(r)
			c.dispatch(way)
		case <-timer.C:
			return
		}
	}
}

// commit makes a change and writes it down, and says so if that can't be done.
func (c *clerk) commit(r *record, sync bool) {
	c.boxMu.Lock()
	c.box.commit(r, sync)
	err := c.box.err
	c.boxMu.Unlock()
	switch text := ""; {
	case err != nil:
		if text = err.Error(); text != c.complain {
			c.log().Error("news are sent, but can't be kept: those that wait are lost if the daemon ends now", "err", err)
		}
		c.complain = text
	case c.complain != "":
		c.log().Info("news that wait are kept again")
		c.complain = ""
	}
	if len(r.Nodes) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, d := range r.Nodes {
		if d == nil {
			delete(c.down, name)
		} else {
			c.down[name] = true
		}
	}
}

// look looks at all that was handed in and at the clock, and writes down what is to
// be sent.
func (c *clerk) look(ctx context.Context) {
	c.mu.Lock()
	events, overflow, loaded := c.queue, c.overflow, c.loaded
	c.queue, c.overflow = nil, false
	v := view{targets: c.targets, jobs: c.jobs, problems: c.problems}
	c.mu.Unlock()
	if c.box == nil {
		if !loaded || len(v.targets) == 0 {
			return
		}
		c.begin()
	}
	if overflow {
		c.log().Error("more happened than can be looked at: some of it is told later, or not at all")
		c.aware = false
	}
	r := &record{}
	now := time.Now()
	if loaded {
		c.manifest(&v, r, now)
	}
	if !c.aware && !now.Before(c.askAt) {
		c.catchUp(ctx, &v, r, now)
	}
	for _, e := range events {
		c.event(ctx, &v, r, e)
	}
	if !c.moveAt.IsZero() && !now.Before(c.moveAt) {
		c.nodes(&v, r, now)
	}
	c.remind(&v, r, now)
	c.commit(r, len(r.Add)+len(r.Jobs)+len(r.Nodes) > 0 || r.Broken != nil || r.Down != nil || !r.Since.IsZero())
	c.bound(now)
}

// settle tells what was only waited with.
func (c *clerk) settle() {
	if c.box == nil || c.moveAt.IsZero() {
		return
	}
	c.mu.Lock()
	v := view{targets: c.targets, jobs: c.jobs}
	c.mu.Unlock()
	r := &record{}
	c.nodes(&v, r, time.Now())
	c.commit(r, true)
}

// bound gives up what is too much.
func (c *clerk) bound(now time.Time) {
	r := &record{}
	for _, i := range c.box.excess() {
		r.Dead = append(r.Dead, death{To: i.To, ID: i.News.ID, Title: i.News.Title, Time: now,
			Error: fmt.Sprintf("dropped: more than %d news, or %d MiB of them, wait to be delivered", mostItems, mostBytes>>20)})
	}
	if len(r.Dead) > 0 {
		c.log().Error("news are dropped, the oldest first: too many wait to be delivered", "news", len(r.Dead), "oldest", r.Dead[0].Title, "target", r.Dead[0].To)
	}
	c.commit(r, false)
}

// next is when there is something to do again, if nothing happens.
func (c *clerk) next() time.Time {
	at := time.Now().Add(time.Hour)
	if c.box == nil {
		return at
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	sooner(c.moveAt)
	if !c.aware {
		sooner(c.askAt)
	}
	if c.box.err != nil {
		sooner(c.box.tried.Add(keepAgain))
	}
	c.mu.Lock()
	v := view{targets: c.targets, jobs: c.jobs}
	c.mu.Unlock()
	sooner(c.nextReminder(&v))
	for _, t := range v.targets {
		if k := c.couriers[t.name]; k != nil && !k.busy {
			sooner(k.next(t, c.box.items[t.name]))
		}
	}
	return at
}

// A courier is what is known of the way to a target.
type courier struct {
	busy   bool
	of     *target
	fails  int       // in a row
	wait   time.Time // until then the target is left in peace
	tokens float64   // messages that may be sent at once
	at     time.Time // when there were so many
}

// refill gives a courier the messages that time has brought.
func (k *courier) refill(limit int, now time.Time) {
	k.tokens = min(k.tokens+now.Sub(k.at).Minutes()*float64(limit), float64(limit))
	k.at = now
}

// next is when a courier can go, or zero.
func (k *courier) next(t *target, items []*item) time.Time {
	if len(items) == 0 {
		return time.Time{}
	}
	at := items[0].Next
	for _, i := range items {
		if i.Next.Before(at) {
			at = i.Next
		}
	}
	if k.wait.After(at) {
		at = k.wait
	}
	if t.limit > 0 && k.tokens < 1 {
		if full := k.at.Add(time.Duration((1-k.tokens)/float64(t.limit)*float64(time.Minute)) + time.Millisecond); full.After(at) {
			at = full
		}
	}
	if at.IsZero() {
		at = time.Now()
	}
	return at
}

// A report is how it went.
type report struct {
	target *target
	items  []*item
	answer string
	err    error
	at     time.Time
}

// dispatch sends couriers where something can be delivered now.
func (c *clerk) dispatch(ctx context.Context) {
	if c.box == nil || ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	targets := c.targets
	c.mu.Unlock()
	now := time.Now()
	for _, t := range targets {
		k := c.couriers[t.name]
		if k == nil {
			k = &courier{tokens: float64(t.limit), at: now}
			c.couriers[t.name] = k
		}
		if k.of != t && k.of != nil { // it may have been mended
			k.fails, k.wait = 0, time.Time{}
		}
		k.of = t
		c.expire(t.name, t.giveUp, now)
		items := c.box.items[t.name]
		if k.busy || len(items) == 0 || now.Before(k.wait) {
			continue
		}
		k.refill(t.limit, now)
		if some := k.pick(t, items, now); len(some) > 0 {
			k.busy = true
			m := t.message(some, c.cleaner)
			c.out.Go(func() { c.deliver(ctx, t, some, m) })
		}
	}
	for to := range c.box.items { // of targets that are gone
		if !slices.ContainsFunc(targets, func(t *target) bool { return t.name == to }) {
			c.expire(to, time.Hour, now)
		}
	}
}

// pick returns what goes next, and pays for it: several news, if they can be told
// in one message and there are more than there may be messages.
func (k *courier) pick(t *target, items []*item, now time.Time) []*item {
	const most = 200 // in one message
	var ready []*item
	for _, i := range items {
		if !i.Next.After(now) {
			ready = append(ready, i)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	if t.limit > 0 {
		if k.tokens < 1 {
			return nil
		}
		few := float64(len(ready)) <= k.tokens
		k.tokens--
		if t.folds && !few {
			return ready[:min(len(ready), most)]
		}
	}
	return ready[:1]
}

// message is what is sent of these items.
func (t *target) message(items []*item, c *cleaner) message {
	n := *items[0].News
	if len(items) > 1 {
		all := make([]News, len(items))
		for i, one := range items {
			all[i] = *one.News
		}
		n = digest(all)
	}
	m := message{News: n}
	m.title, m.text = t.wordings.word(&n, c)
	return m
}

// deliver sends a message and reports how it went.
func (c *clerk) deliver(ctx context.Context, t *target, items []*item, m message) {
	answer, err := t.attempt(ctx, m)
	r := report{target: t, items: items, answer: answer, err: err, at: time.Now()}
	select {
	case c.reports <- r:
	case <-ctx.Done(): // nobody listens any more: it is tried again by the next Run
	}
}

// attempt sends a message once.
func (t *target) attempt(ctx context.Context, m message) (answer string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.time, fmt.Errorf("no answer within %v", t.time))
	defer cancel()
	defer func() {
		if v := recover(); v != nil { // a mistake in a library must not end the daemon
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return t.sender.send(ctx, m)
}

// reported notes how a delivery went.
func (c *clerk) reported(r report) {
	k := c.couriers[r.target.name]
	k.busy = false
	rec := &record{}
	if r.err == nil {
		k.fails, k.wait = 0, time.Time{}
		for _, i := range r.items {
			rec.Done = append(rec.Done, delivery{To: i.To, ID: i.News.ID, Title: i.News.Title, At: r.at, Answer: r.answer})
		}
		c.commit(rec, false)
		c.log().Debug("news delivered", "target", r.target.name, "news", len(r.items), "answer", r.answer)
		return
	}
	text := c.cleaner.line(r.err.Error(), reasonLength)
	refused, _ := errors.AsType[*refusal](r.err)
	if refused == nil || !refused.only {
		k.fails++
		k.wait = r.at.Add(pause(k.fails, refused))
	}
	for _, i := range r.items {
		if refused != nil && refused.final {
			c.log().Error("news can't be delivered", "target", i.To, "news", i.News.Title, "err", text)
			rec.Dead = append(rec.Dead, death{To: i.To, ID: i.News.ID, Title: i.News.Title, Time: r.at, Error: text})
			continue
		}
		attempts := i.Attempts + 1
		next := r.at
		if refused != nil && refused.only {
			next = r.at.Add(pause(attempts, refused))
		}
		rec.Tried = append(rec.Tried, trial{To: i.To, ID: i.News.ID, At: r.at, Attempts: attempts, Next: next, Error: text})
	}
	level := slog.LevelDebug
	if was := c.box.past.Targets[r.target.name]; was == nil || was.Error != text || was.Delivered.After(was.Failed) {
		level = slog.LevelWarn // once, and not for each attempt
	}
	c.log().Log(context.Background(), level, "news not delivered: it is tried again", "target", r.target.name, "kind", r.target.kind, "to", r.target.to, "err", text)
	c.commit(rec, false)
}

// pause is how long to wait after so many attempts: twice as long each time, with
// some chance in it, and as long as was asked for.
func pause(attempts int, refused *refusal) time.Duration {
	d := lastRetry
	if attempts < 20 {
		d = min(firstRetry<<(attempts-1), lastRetry)
	}
	d = d/2 + rand.N(d/2+1)
	if refused != nil && refused.wait > d {
		d = refused.wait
	}
	return d
}

// expire gives up what was tried for too long.
func (c *clerk) expire(to string, after time.Duration, now time.Time) {
	r := &record{}
	for _, i := range c.box.items[to] {
		if now.Sub(i.Added) < after || c.couriers[to] != nil && c.couriers[to].busy {
			break
		}
		why := i.Error
		if why == "" {
			why = "there is no target of this name any more"
			if k := c.couriers[to]; k != nil && k.of.name == to {
				why = "there was no time to try"
			}
		}
		c.log().Error("news were not delivered in time, and are given up", "target", to, "news", i.News.Title, "attempts", i.Attempts, "err", why)
		r.Dead = append(r.Dead, death{To: to, ID: i.News.ID, Title: i.News.Title, Time: now, Error: fmt.Sprintf("given up after %v: %s", after, why)})
	}
	c.commit(r, false)
}
