package notify

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// A view is who can be told, and of what, at one moment.
type view struct {
	targets  []*target
	jobs     map[string]*loom.Job
	problems []string
}

// who returns the targets that hear of a kind of news.
func (v *view) who(k Kind, j *loom.Job) []string {
	var to []string
	for _, t := range v.targets {
		if t.hears(k, j) {
			to = append(to, t.name)
		}
	}
	return to
}

// tell has news sent.
func (c *clerk) tell(r *record, n News, to []string) *News {
	if len(to) == 0 {
		return nil
	}
	n.finish(c.cleaner, c.program(), c.host())
	r.Add = append(r.Add, addition{News: &n, To: to, At: time.Now()})
	return &n
}

// event looks at one event.
func (c *clerk) event(ctx context.Context, v *view, r *record, e loom.Event) {
	switch e.Kind {
	case loom.KindRunStarted:
		c.started(v, r, e)
	case loom.KindNodeEnded:
		c.node(v, e)
	case loom.KindRunEnded:
		t := c.tallies[e.Run]
		delete(c.tallies, e.Run)
		if t == nil {
			t = &tally{}
		}
		c.ended(ctx, v, r, *e.Ran, t)
	case loom.KindTickMissed:
		c.missed(v, r, e)
	case loom.KindStoreDown, loom.KindStoreBack:
		c.store(v, r, e)
	}
}

// started looks at a run that begins, or that goes on: one that was told of is not
// told of again.
func (c *clerk) started(v *view, r *record, e loom.Event) {
	const soon = time.Minute
	j := v.jobs[e.Job]
	if j == nil || e.Ran == nil || e.Time.Sub(e.Ran.Started) > soon {
		return
	}
	kinds := []Kind{Started}
	if e.Ran.Trigger == loom.TriggerCatchUp {
		kinds = append(kinds, Late)
	}
	for _, k := range kinds {
		n := newsOf(k, j, newID(k, e.Run))
		if c.saw(r, n.ID) {
			continue
		}
		n.about(*e.Ran)
		if c.tell(r, n, v.who(k, j)) != nil {
			r.see(n.ID, e.Time)
		}
	}
}

// saw reports whether something was dealt with.
func (c *clerk) saw(r *record, what string) bool {
	_, old := c.box.past.Seen[what]
	_, now := r.Seen[what]
	return old || now
}

// node looks at what a run did on a node.
func (c *clerk) node(v *view, e loom.Event) {
	res := *e.Result
	res.Node = e.Node
	t := c.tallies[e.Run]
	if t == nil {
		t = &tally{}
		c.tallies[e.Run] = t
	}
	lines := tail(res.Output)
	switch {
	case res.Status.Good():
		if len(lines) > 0 {
			t.output = lines
		}
	case len(t.bad) < mostTallied:
		res.Output = linesOf(lines)
		t.bad = append(t.bad, res)
	default:
		t.missed++
	}
	_, isDown := c.box.past.Nodes[e.Node]
	switch res.Status {
	case loom.StatusUnreachable:
		c.moves(e.Node, move{reason: res.Reason}, !isDown)
	case loom.StatusCancelled, loom.StatusLost, loom.StatusTimeout: // who knows
	default:
		c.moves(e.Node, move{back: true}, isDown)
	}
}

// moves notes where a node has gone, if that is not where it was.
func (c *clerk) moves(node string, m move, news bool) {
	if !news {
		delete(c.moved, node)
		return
	}
	c.moved[node] = m
	if c.moveAt.IsZero() {
		c.moveAt = time.Now().Add(gather)
	}
}

func linesOf(texts []string) []loom.Line {
	lines := make([]loom.Line, len(texts))
	for i, t := range texts {
		lines[i].Text = t
	}
	return lines
}

// nodes tells which nodes went down, and which came back, in one message each.
func (c *clerk) nodes(v *view, r *record, now time.Time) {
	gone, back := News{Kind: NodeUnreachable, Time: now}, News{Kind: NodeBack, Time: now}
	reasons := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(c.moved)) {
		m := c.moved[name]
		if m.back {
			back.Nodes = append(back.Nodes, name)
			r.node(name, nil)
			continue
		}
		gone.Nodes = append(gone.Nodes, name)
		reason := strings.ReplaceAll(m.reason, name, "")
		reasons[reason] = append(reasons[reason], name)
		gone.Reason = m.reason
		r.node(name, &down{Since: now})
	}
	if len(reasons) > 1 {
		gone.Reason += ", and other reasons"
	}
	for _, n := range []News{gone, back} {
		if len(n.Nodes) > 0 {
			n.ID = newID(n.Kind, n.Nodes, now.UnixNano())
			n.Since = now
			c.tell(r, n, v.who(n.Kind, nil))
		}
	}
	clear(c.moved)
	c.moveAt = time.Time{}
}

// missed looks at ticks that were let go.
func (c *clerk) missed(v *view, r *record, e loom.Event) {
	j := v.jobs[e.Job]
	if j == nil {
		return
	}
	n := newsOf(Missed, j, newID(Missed, e.Job, e.Due.Unix()))
	if c.saw(r, n.ID) {
		return
	}
	n.Time, n.Since, n.Until, n.Reason = e.Time, e.Due, e.Until, e.Text
	if c.tell(r, n, v.who(Missed, j)) != nil {
		r.see(n.ID, e.Time)
	}
}

// store looks at a store that is down, or back.
func (c *clerk) store(v *view, r *record, e loom.Event) {
	since := c.box.past.Down
	if r.Down != nil {
		since = *r.Down
	}
	switch {
	case e.Kind == loom.KindStoreDown && since.IsZero():
		n := News{ID: newID(StoreDown, e.Time.UnixNano()), Kind: StoreDown, Time: e.Time, Since: e.Time, Reason: e.Text}
		r.Down = &e.Time
		c.tell(r, n, v.who(StoreDown, nil))
	case e.Kind == loom.KindStoreBack && !since.IsZero():
		n := News{ID: newID(StoreBack, since.UnixNano()), Kind: StoreBack, Time: e.Time, Since: since, Reason: e.Text}
		r.Down = &time.Time{}
		c.tell(r, n, v.who(StoreBack, nil))
	}
}

// manifest looks at the manifest in force.
func (c *clerk) manifest(v *view, r *record, now time.Time) {
	if c.looked && slices.Equal(c.told, v.problems) {
		return
	}
	c.looked, c.told = true, v.problems
	since := c.box.past.Broken
	switch {
	case len(v.problems) > 0 && since.IsZero():
		n := News{ID: newID(ManifestBroken, now.UnixNano()), Kind: ManifestBroken, Time: now, Since: now, Problems: v.problems[:min(len(v.problems), mostProblems)]}
		r.Broken = &now
		c.tell(r, n, v.who(ManifestBroken, nil))
	case len(v.problems) == 0 && !since.IsZero():
		n := News{ID: newID(ManifestMended, since.UnixNano()), Kind: ManifestMended, Time: now, Since: since}
		r.Broken = &time.Time{}
		c.tell(r, n, v.who(ManifestMended, nil))
	}
}

// ended looks at a run that has ended, once.
func (c *clerk) ended(ctx context.Context, v *view, r *record, run loom.Run, t *tally) {
	at := run.Ended.Truncate(time.Millisecond)
	if c.saw(r, "run "+run.ID) {
		return
	}
	r.see("run "+run.ID, at)
	if at.After(r.Heard) {
		r.Heard = at
	}
	j := v.jobs[run.Job]
	if j == nil {
		return
	}
	was := c.box.past.Jobs[run.Job]
	if f, ok := r.Jobs[run.Job]; ok {
		was = f
	}
	bad := !run.Status.Good() && run.Status != loom.StatusCancelled
	if to := v.who(Ended, j); len(to) > 0 {
		n := newsOf(Ended, j, newID(Ended, run.ID))
		n.about(run)
		n.Failures, n.Output = c.failures(ctx, run, t), t.output
		if len(n.Failures) > 0 {
			n.Output = n.Failures[0].Output
		}
		c.tell(r, n, to)
	}
	switch {
	case bad:
		c.failed(ctx, v, r, j, run, t, was)
	case run.Status.Good() && was != nil:
		c.recovered(v, r, j, run, was)
	}
}

// failed looks at a run that did not go well. Each target is told once, until the
// job is well again.
func (c *clerk) failed(ctx context.Context, v *view, r *record, j *loom.Job, run loom.Run, t *tally, was *failing) {
	f := &failing{Since: run.Ended, Told: map[string]time.Time{}}
	if was != nil {
		f.Since, f.InARow, f.Last = was.Since, was.InARow, was.Last
		maps.Copy(f.Told, was.Told)
	}
	f.InARow++
	var to []string
	for _, target := range v.targets {
		if _, told := f.Told[target.name]; !told && f.InARow >= target.after && target.hears(Failed, j) {
			to = append(to, target.name)
			f.Told[target.name] = run.Ended
		}
	}
	n := newsOf(Failed, j, newID(Failed, run.ID))
	n.about(run)
	n.Since, n.InARow, n.Failures = f.Since, f.InARow, c.failures(ctx, run, t)
	if told := c.tell(r, n, to); told != nil {
		n = *told
	}
	f.Last = shortened(n)
	r.job(j.Name, f)
}

// shortened is as much of news as a reminder needs.
func shortened(n News) *News {
	n.Text, n.Title, n.Commands, n.Output = "", "", nil, nil
	n.Failures = slices.Clone(n.Failures[:min(len(n.Failures), 3)])
	for i := range n.Failures {
		f := &n.Failures[i]
		f.Output = f.Output[max(0, len(f.Output)-5):]
	}
	return &n
}

// recovered looks at a run that went well after others that did not.
func (c *clerk) recovered(v *view, r *record, j *loom.Job, run loom.Run, was *failing) {
	n := newsOf(Recovered, j, newID(Recovered, run.ID))
	n.about(run)
	n.Since, n.InARow = was.Since, was.InARow
	var to []string
	for _, t := range v.targets {
		_, told := was.Told[t.name]
		if t.hears(Recovered, j) && (told || !t.hears(Failed, j)) {
			to = append(to, t.name)
		}
	}
	c.tell(r, n, to)
	r.job(j.Name, nil)
}

// failures is what went wrong in a run. What an earlier process saw of it is in the
// store.
func (c *clerk) failures(ctx context.Context, run loom.Run, t *tally) []Failure {
	bad := 0
	for status, n := range run.Counts {
		if !status.Good() {
			bad += n
		}
	}
	if bad > len(t.bad)+t.missed && c.Archive != nil {
		c.recall(ctx, run, t)
	}
	all := group(t.bad)
	if len(all) > 0 {
		all[len(all)-1].More += t.missed
	}
	return all
}

// recall adds to a tally what only the store knows.
func (c *clerk) recall(ctx context.Context, run loom.Run, t *tally) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recallTime)
	defer cancel()
	known := map[string]bool{}
	for _, r := range t.bad {
		known[r.Node] = true
	}
	results, err := c.Archive.Results(ctx, loom.ResultQuery{Runs: []string{run.ID}})
	if err != nil {
		c.log().Debug("what a run did is not known", "run", run.ID, "err", err)
		return
	}
	shown := 0
	for _, r := range results {
		if r.Status.Good() || !r.Status.Ended() || known[r.Node] {
			continue
		}
		if len(t.bad) >= mostTallied {
			t.missed++
			continue
		}
		if shown < 3 {
			r.Output = c.lines(ctx, run.ID, r.Node)
			shown++
		}
		t.bad = append(t.bad, r)
	}
}

// lines is the end of what a node printed, if that is not too far to go.
func (c *clerk) lines(ctx context.Context, run, node string) []loom.Line {
	const far = 5 // requests
	var lines []loom.Line
	q := loom.OutputQuery{Run: run, Node: node}
	for range far {
		chunks, err := c.Archive.Output(ctx, q)
		if err != nil || len(chunks) == 0 {
			break
		}
		for _, chunk := range chunks {
			q.After = chunk.Cursor
			lines = append(lines, chunk.Lines...)
		}
		lines = lines[max(0, len(lines)-4*mostLines):]
	}
	return lines
}

// catchUp finds out what ended while nobody was told. The first time ever, what
// was before is no news.
func (c *clerk) catchUp(ctx context.Context, v *view, r *record, now time.Time) {
	if c.Archive == nil {
		c.aware = true
		r.Since = now
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*recallTime)
	defer cancel()
	states, err := c.Archive.Jobs(ctx)
	if err != nil {
		c.askAt = now.Add(askAgain)
		return
	}
	if c.box.past.Since.IsZero() {
		r.Since, r.Heard = now, now
		for _, s := range states {
			if l := s.Last; !s.Gone && l != nil && l.Status.Ended() && !l.Status.Good() && l.Status != loom.StatusCancelled {
				r.job(s.Name, &failing{Since: l.Ended, InARow: 1})
			}
		}
		c.aware = true
		return
	}
	if !c.box.past.Down.IsZero() { // it answers
		c.store(v, r, loom.Event{Kind: loom.KindStoreBack, Time: now})
	}
	from := c.box.past.Heard.Add(-overlapping)
	for _, s := range states {
		if s.Gone || s.Last == nil || s.Last.Status.Ended() && !s.Last.Ended.After(from) || v.jobs[s.Name] == nil {
			continue
		}
		runs, err := c.Archive.Runs(ctx, loom.RunQuery{Job: s.Name, Plan: new(false), Limit: 50})
		if err != nil {
			c.askAt = now.Add(askAgain)
			return
		}
		slices.SortStableFunc(runs, func(a, b loom.Run) int { return a.Ended.Compare(b.Ended) })
		for _, run := range runs {
			if run.Status.Ended() && run.Ended.After(from) {
				c.ended(ctx, v, r, run, &tally{})
			}
		}
	}
	c.aware = true
}

// reminderAt is when a target is reminded of a job, or zero.
func reminderAt(t *target, j *loom.Job, f *failing) time.Time {
	at, told := f.Told[t.name]
	if t.repeat == 0 || !told || j == nil || j.Disabled || !t.hears(Failing, j) {
		return time.Time{}
	}
	return at.Add(t.repeat)
}

// nextReminder is when somebody is reminded next, or zero.
func (c *clerk) nextReminder(v *view) time.Time {
	var next time.Time
	for _, t := range v.targets {
		if t.repeat == 0 {
			continue
		}
		for name, f := range c.box.past.Jobs {
			if at := reminderAt(t, v.jobs[name], f); !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// remind reminds of jobs that still fail.
func (c *clerk) remind(v *view, r *record, now time.Time) {
	if at := c.nextReminder(v); at.IsZero() || at.After(now) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.box.past.Jobs)) {
		f := c.box.past.Jobs[name]
		if later, ok := r.Jobs[name]; ok {
			if f = later; f == nil {
				continue
			}
		}
		told := maps.Clone(f.Told)
		var to []string
		for _, t := range v.targets {
			if at := reminderAt(t, v.jobs[name], f); !at.IsZero() && !at.After(now) {
				to, told[t.name] = append(to, t.name), now
			}
		}
		if len(to) == 0 {
			continue
		}
		n := newsOf(Failing, v.jobs[name], newID(Failing, name, f.Since.Unix(), now.Unix()))
		if f.Last != nil {
			n.Run, n.Failures, n.Reason = f.Last.Run, f.Last.Failures, f.Last.Reason
		}
		n.Time, n.Since, n.InARow = now, f.Since, f.InARow
		c.tell(r, n, to)
		r.job(name, &failing{Since: f.Since, InARow: f.InARow, Told: told, Last: f.Last})
	}
}
