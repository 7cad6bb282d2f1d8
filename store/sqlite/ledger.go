package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/ledger"
	"github.com/dustinlacewell/loom/internal/overlap"
)

// Going runs are found by an index that wants its condition word for word.
const going = "status IN ('queued', 'running')"

// milli is how times are kept; the zero time is NULL.
func milli(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// moment reads what milli wrote.
func moment(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}

// text is how words that are mostly missing are kept.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// list is how lists that are mostly empty are kept.
func list[T any](l []T) any {
	if len(l) == 0 {
		return nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		panic("sqlite: " + err.Error()) // only plain data is kept so
	}
	return string(b)
}

// hear notes that an instance is alive.
func (s *Store) hear(self string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instances[self] = time.Now()
}

// silent reports whether an instance has not been heard of for too long, while it
// could have been. None of another process is alive: this one has the lock.
func (s *Store) silent(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, ok := s.instances[id]
	if s.up.After(seen) {
		seen = s.up
	}
	return !ok || time.Since(seen) > s.ttl()
}

func (s *Store) ttl() time.Duration { return cmp.Or(s.options.TTL, 10*time.Second) }

// Beat is part of loom.Ledger. It writes only if there is something to hand
// back, and now and then that somebody was there: which instances are alive need
// not outlive the process. If the last write has failed, it tries another, so that
// its success means that the store works.
func (s *Store) Beat(ctx context.Context, self loom.Instance) (loom.Pulse, error) {
	if err := s.live(ctx, self.Leaving); err != nil {
		return loom.Pulse{}, err
	}
	s.hear(self.ID) // only now: to write that may have taken longer than its time to live
	if self.Leaving {
		s.mu.Lock()
		delete(s.instances, self.ID)
		s.mu.Unlock()
	}
	p := loom.Pulse{TTL: s.ttl(), Alone: true, Away: s.away, Cancel: map[string]string{}}
	owners := map[string]bool{}
	rows, err := s.reading.QueryContext(ctx, "SELECT id, owner, coalesce(cancel, '') FROM runs INDEXED BY runs_going WHERE "+
		going+" AND status = 'running' ORDER BY seq")
	err = every(rows, err, func(r *sql.Rows) error {
		var id, owner, cancel string
		if err := r.Scan(&id, &owner, &cancel); err != nil {
			return err
		}
		if s.silent(owner) {
			owners[owner] = true
		} else if owner == self.ID {
			p.Owned = append(p.Owned, id)
			if cancel != "" {
				p.Cancel[id] = cancel
			}
		}
		return nil
	})
	if err != nil {
		return loom.Pulse{}, s.unread(ctx, err)
	}
	if len(owners) > 0 {
		err := s.write(ctx, func(t *tx) error {
			for owner := range owners {
				if !s.silent(owner) {
					continue // it came back meanwhile
				}
				if err := t.exec("UPDATE runs SET status = 'queued', owner = NULL WHERE "+going+
					" AND status = 'running' AND owner = ?", owner); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return loom.Pulse{}, err
		}
	}
	p.Now = ledger.Milli(s.now())
	return p, nil
}

// lifeSign is how often the store keeps that an instance was alive.
const lifeSign = 30 * time.Second

// live keeps that an instance is alive now, if that was not done for a while.
func (s *Store) live(ctx context.Context, leaving bool) error {
	s.mu.Lock()
	recent := time.Since(s.lived) < lifeSign
	s.mu.Unlock()
	if recent && !leaving && !s.failing.Load() {
		return nil
	}
	err := s.write(ctx, func(t *tx) error {
		return t.exec("INSERT INTO meta VALUES ('alive', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", t.now)
	})
	if err == nil {
		s.mu.Lock()
		s.lived = time.Now()
		s.mu.Unlock()
	}
	return err
}

// Adopt is part of loom.Ledger.
func (s *Store) Adopt(ctx context.Context, jobs map[string]string) error {
	return s.write(ctx, func(t *tx) error {
		known := make(map[string]bool, len(jobs))
		var begin, gone []int64
		err := t.each(func(r *sql.Rows) error {
			var id, last int64
			var name, schedule string
			var wasGone bool
			if err := r.Scan(&id, &name, &schedule, &wasGone, &last); err != nil {
				return err
			}
			known[name] = true
			now, wanted := jobs[name]
			switch {
			case !wanted && !wasGone:
				gone = append(gone, id)
			case wanted && (wasGone || now != schedule || last > t.now+ledger.ClockWrong.Milliseconds()):
				begin = append(begin, id)
			}
			return nil
		}, "SELECT id, name, schedule, gone, coalesce(last_tick, 0) FROM jobs")
		if err != nil {
			return err
		}
		for _, id := range gone {
			if err := t.exec("UPDATE jobs SET gone = 1 WHERE id = ?", id); err != nil {
				return err
			}
		}
		for _, id := range begin {
			var name string
			if err := t.get("SELECT name FROM jobs WHERE id = ?", []any{id}, &name); err != nil {
				return err
			}
			if err := t.exec("UPDATE jobs SET gone = 0, schedule = ?, last_tick = ? WHERE id = ?", jobs[name], t.now, id); err != nil {
				return err
			}
		}
		for name, schedule := range jobs {
			if known[name] {
				continue
			}
			if err := t.exec("INSERT INTO jobs (name, schedule, last_tick) VALUES (?, ?, ?)", name, schedule, t.now); err != nil {
				return err
			}
		}
		return nil
	})
}

// Fire is part of loom.Ledger.
func (s *Store) Fire(ctx context.Context, self string, firings []loom.Firing) ([]loom.Fired, error) {
	if err := ledger.Check(firings); err != nil {
		return nil, err
	}
	own := make([]loom.Firing, len(firings))
	for i, f := range firings {
		f.Due, f.Until, f.After = ledger.Milli(f.Due), ledger.Milli(cmp.Or(f.Until, f.Due)), ledger.Milli(f.After)
		f.Ticks, f.Outcome = max(f.Ticks, 1), cmp.Or(f.Outcome, loom.OutcomeRan)
		own[i] = f
	}
	s.hear(self)
	var fired []loom.Fired
	err := s.write(ctx, func(t *tx) error {
		fired = make([]loom.Fired, len(own))
		for i, f := range own {
			var err error
			if fired[i], err = t.fire(self, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fired, nil
}

// A job is a row of jobs.
type job struct {
	id    int64
	last  time.Time
	pause *loom.Pause
}

// job returns the named job, which is new if there was none.
func (t *tx) job(name string) (job, error) {
	var j job
	var last, since, until sql.NullInt64
	var by, why sql.NullString
	err := t.get("SELECT id, last_tick, pause_since, pause_until, pause_by, pause_why FROM jobs WHERE name = ?",
		[]any{name}, &j.id, &last, &since, &until, &by, &why)
	if errors.Is(err, sql.ErrNoRows) {
		j.id, err = t.insert("INSERT INTO jobs (name) VALUES (?)", name)
		return j, err
	}
	j.last, j.pause = moment(last), pause(since, until, by, why)
	return j, err
}

func pause(since, until sql.NullInt64, by, why sql.NullString) *loom.Pause {
	if !since.Valid {
		return nil
	}
	return &loom.Pause{Since: moment(since), Until: moment(until), By: by.String, Why: why.String}
}

// A lastTick is the row of ticks that a new one may be added to.
type lastTick struct {
	due, until   int64
	outcome, why string
	ran          bool
}

func (t *tx) fire(self string, f loom.Firing) (loom.Fired, error) {
	j, err := t.job(f.Job)
	if err != nil {
		return loom.Fired{}, err
	}
	var last lastTick
	if f.Due.IsZero() {
		if earlier, err := t.earlier(self, j, f); err != nil || earlier.Outcome != "" {
			return earlier, err
		}
	} else {
		if !f.After.Equal(j.last) || !f.Due.After(j.last) || f.Until.UnixMilli() > t.now {
			return t.repeated(self, f)
		}
		err := t.get("SELECT due, until, outcome, coalesce(why, ''), run IS NOT NULL FROM ticks WHERE job = ? AND due <= ? ORDER BY due DESC LIMIT 1",
			[]any{j.id, f.Until.UnixMilli()}, &last.due, &last.until, &last.outcome, &last.why, &last.ran)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return loom.Fired{}, err
		}
		if err == nil && last.until >= f.Due.UnixMilli() { // the clock was set back
			return loom.Fired{}, t.exec("UPDATE jobs SET last_tick = ? WHERE id = ?", f.Until.UnixMilli(), j.id)
		}
	}
	fired := loom.Fired{Outcome: f.Outcome, Why: f.Why}
	var seq int64
	if f.Outcome.Runs() {
		if seq, err = t.admit(self, j, f, &fired); err != nil {
			return loom.Fired{}, err
		}
	}
	if f.Due.IsZero() {
		return fired, nil
	}
	return fired, t.tick(j, f, fired, seq, last)
}

// earlier returns what became of the same run, or one of the same key, if it was
// fired before.
func (t *tx) earlier(self string, j job, f loom.Firing) (loom.Fired, error) {
	if fired, err := t.repeated(self, f); err != nil || fired.Outcome != "" || f.Key == "" {
		return fired, err
	}
	var id string
	err := t.get("SELECT id FROM runs WHERE job = ? AND dedup = ?", []any{j.id, f.Key}, &id)
	if err != nil {
		return loom.Fired{}, none(err)
	}
	r, _, _, err := t.run(id)
	return loom.Fired{Outcome: f.Outcome, Claim: loom.Claim{Run: r}}, err
}

// none makes of the error that says there is no row no error.
func none(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// repeated returns what became of a firing if it was written before.
func (t *tx) repeated(self string, f loom.Firing) (loom.Fired, error) {
	if !f.Outcome.Runs() {
		return loom.Fired{}, nil
	}
	r, owner, epoch, err := t.run(f.Run.ID)
	if err != nil {
		return loom.Fired{}, none(err)
	}
	fired := loom.Fired{Outcome: f.Outcome, Claim: loom.Claim{Run: r}}
	if r.Status == loom.StatusRunning && owner == self {
		fired.Claim.Owner, fired.Claim.Epoch = self, epoch
	}
	return fired, nil
}

// run returns a run with its claim.
func (t *tx) run(id string) (loom.Run, string, int64, error) {
	var row runRow
	var owner sql.NullString
	var epoch int64
	err := t.get("SELECT "+runColumns+", r.owner, r.epoch FROM runs r JOIN jobs j ON j.id = r.job WHERE r.id = ?",
		[]any{id}, append(row.into(), &owner, &epoch)...)
	if err != nil {
		return loom.Run{}, "", 0, err
	}
	r, err := row.run()
	return r, owner.String, epoch, err
}

// admit starts the firing's run, or changes the outcome. It returns the run's
// number.
func (t *tx) admit(self string, j job, f loom.Firing, fired *loom.Fired) (int64, error) {
	r := f.Run
	r.Job, r.Due, r.Queued = f.Job, ledger.Milli(cmp.Or(f.Due, f.Run.Due, time.UnixMilli(t.now))), time.UnixMilli(t.now)
	r.Status, r.Started, r.Ended, r.Reason, r.Counts = loom.StatusQueued, time.Time{}, time.Time{}, "", nil
	if why, paused := ledger.Paused(j.pause, r.Trigger, r.Due); paused {
		fired.Outcome, fired.Why = loom.OutcomePaused, why
		return 0, nil
	}
	others, err := t.going(j)
	if err != nil {
		return 0, err
	}
	v := overlap.Admit(string(f.Overlap), r.ID, r.Trigger == loom.TriggerCatchUp, others)
	if v.Refused != "" {
		fired.Outcome, fired.Why = loom.OutcomeSkipped, v.Refused
		return 0, nil
	}
	if err := t.giveWay(j, v); err != nil {
		return 0, err
	}
	c := loom.Claim{Run: r}
	var owner any
	if f.Claim && !v.Wait {
		c.Run.Status, c.Run.Started, c.Owner, c.Epoch = loom.StatusRunning, r.Queued, self, 1
		owner = self
	}
	var dedup any
	if f.Due.IsZero() {
		dedup = text(f.Key)
		if r.Trigger == loom.TriggerManual {
			if err := t.act(loom.Action{By: r.By, Verb: ledger.Verb(r), Object: f.Job, Why: f.Why}); err != nil {
				return 0, err
			}
		}
	}
	fired.Claim = c
	return t.insert("INSERT INTO runs (id, job, due, cause, who, dedup, targets, plan, timeout, most, solo, status, owner, epoch, queued, started, nodes) "+
		"VALUES (?, ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?, ?, ?, ?, ?)",
		r.ID, j.id, r.Due.UnixMilli(), string(r.Trigger), text(r.By), dedup, list(r.Targets), r.Plan, r.Timeout.Milliseconds(), r.Max, v.Solo,
		string(c.Run.Status), owner, c.Epoch, t.now, milli(c.Run.Started), r.Nodes)
}

// going returns the runs of a job that have not ended, oldest first, without plans.
func (t *tx) going(j job) ([]overlap.Run, error) {
	var all []overlap.Run
	var seqs []int64
	err := t.each(func(r *sql.Rows) error {
		var g overlap.Run
		var seq, due int64
		if err := r.Scan(&seq, &g.ID, &due, &g.Waits, &g.Begun); err != nil {
			return err
		}
		g.Due = time.UnixMilli(due)
		all, seqs = append(all, g), append(seqs, seq)
		return nil
	}, "SELECT seq, id, due, status = 'queued', epoch > 0 FROM runs INDEXED BY runs_going WHERE job = ? AND "+going+" AND NOT plan ORDER BY seq", j.id)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	first := &all[0] // the one that may be named
	err = t.each(func(r *sql.Rows) error {
		var name string
		if len(first.Nodes) == 3 {
			first.More++
			return nil
		}
		if err := r.Scan(&name); err != nil {
			return err
		}
		first.Nodes = append(first.Nodes, name)
		return nil
	}, "SELECT n.name FROM results x JOIN nodes n ON n.id = x.node WHERE x.run = ? AND x.ended IS NULL ORDER BY n.name", seqs[0])
	return all, err
}

// giveWay ends the runs that a new one takes the place of.
func (t *tx) giveWay(j job, v overlap.Verdict) error {
	for _, g := range v.Cancel {
		if err := t.exec("UPDATE runs SET cancel = ? WHERE id = ?", v.Cause, g.ID); err != nil {
			return err
		}
	}
	for _, g := range v.Superseded {
		var seq int64
		if err := t.get("SELECT seq FROM runs WHERE id = ?", []any{g.ID}, &seq); err != nil {
			return err
		}
		if err := t.end(seq, loom.Run{Status: loom.StatusCancelled, Ended: time.UnixMilli(t.now), Reason: v.Cause}); err != nil {
			return err
		}
		if err := t.exec("UPDATE ticks SET outcome = ?, why = ? WHERE job = ? AND due = ? AND run = ?",
			string(loom.OutcomeSuperseded), v.Cause, j.id, g.Due.UnixMilli(), seq); err != nil {
			return err
		}
	}
	return nil
}

// tick writes what became of a tick.
func (t *tx) tick(j job, f loom.Firing, fired loom.Fired, seq int64, last lastTick) error {
	due, until := f.Due.UnixMilli(), f.Until.UnixMilli()
	if err := t.exec("UPDATE jobs SET last_tick = ? WHERE id = ?", until, j.id); err != nil {
		return err
	}
	if seq == 0 && !last.ran && last.outcome == string(fired.Outcome) && last.why == fired.Why && !j.last.IsZero() && last.until == j.last.UnixMilli() {
		return t.exec("UPDATE ticks SET until = ?, ticks = ticks + ?, at = ? WHERE job = ? AND due = ?",
			until, f.Ticks, t.now, j.id, last.due)
	}
	var run any
	if seq != 0 {
		run = seq
	}
	return t.exec("INSERT INTO ticks (job, due, until, ticks, outcome, why, run, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		j.id, due, until, f.Ticks, string(fired.Outcome), text(fired.Why), run, t.now)
}

// Take is part of loom.Ledger.
func (s *Store) Take(ctx context.Context, self string) (*loom.Claim, error) {
	s.hear(self)
	var c *loom.Claim
	err := s.write(ctx, func(t *tx) error {
		c = nil
		var seq int64
		var id string
		err := t.get("SELECT r.seq, r.id FROM runs r INDEXED BY runs_going WHERE r."+going+" AND r.status = 'queued' AND NOT (r.solo AND EXISTS "+
			"(SELECT 1 FROM runs x INDEXED BY runs_going WHERE x.job = r.job AND x."+going+" AND x.status = 'running' AND NOT x.plan)) ORDER BY r.seq LIMIT 1",
			nil, &seq, &id)
		if err != nil {
			return none(err)
		}
		if err := t.exec("UPDATE runs SET status = 'running', owner = ?, epoch = epoch + 1, started = coalesce(started, ?) WHERE seq = ?",
			self, t.now, seq); err != nil {
			return err
		}
		r, owner, epoch, err := t.run(id)
		c = &loom.Claim{Run: r, Owner: owner, Epoch: epoch}
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// held returns the number of the run that c claims.
func (t *tx) held(c loom.Claim) (int64, error) {
	var seq int64
	err := t.get("SELECT seq FROM runs WHERE id = ? AND status = 'running' AND owner = ? AND epoch = ?",
		[]any{c.Run.ID, c.Owner, c.Epoch}, &seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("run %s of job %q: %w", c.Run.ID, c.Run.Job, loom.ErrFenced)
	}
	return seq, err
}

// A nodeRecord is a batch of events for one node, ready to be written.
type nodeRecord struct {
	*ledger.NodeRecord
	chunks [][]byte
}

// pack does what can be done about events outside of the transaction.
func (s *Store) pack(events []loom.Event) []nodeRecord {
	folded := ledger.Fold(events)
	all := make([]nodeRecord, len(folded))
	for i, n := range folded {
		all[i] = nodeRecord{n, s.codec.Encode(n.Lines)}
	}
	return all
}

// Record is part of loom.Ledger.
func (s *Store) Record(ctx context.Context, c loom.Claim, events []loom.Event) error {
	nodes := s.pack(events)
	return s.write(ctx, func(t *tx) error {
		seq, err := t.held(c)
		if err != nil {
			return err
		}
		t.wrote = append(t.wrote, c.Run.ID)
		return t.record(seq, nodes)
	})
}

func (t *tx) record(run int64, nodes []nodeRecord) error {
	bytes := 0
	for _, n := range nodes {
		node, err := t.node(n.Node)
		if err != nil {
			return err
		}
		for _, data := range n.chunks {
			bytes += len(data)
			if err := t.exec("INSERT INTO output (run, node, at, data) VALUES (?, ?, ?, ?)", run, node, t.now, data); err != nil {
				return err
			}
		}
		if err := t.result(run, node, n.NodeRecord); err != nil {
			return err
		}
	}
	if bytes == 0 {
		return nil
	}
	return t.exec("UPDATE meta SET value = value + ? WHERE name = 'output_bytes'", bytes)
}

// An attempt is how loom.Attempt is kept.
type attempt struct {
	Started int64       `json:"from"`
	Ended   int64       `json:"to"`
	Status  loom.Status `json:"status"`
	Exit    int         `json:"exit"`
	Reason  string      `json:"reason,omitempty"`
}

// result writes what is known of a run on one node.
func (t *tx) result(run, node int64, n *ledger.NodeRecord) error {
	var earlier []attempt
	for _, a := range n.Earlier {
		earlier = append(earlier, attempt{a.Started.UnixMilli(), a.Ended.UnixMilli(), a.Status, a.ExitCode, a.Reason})
	}
	if r := n.End; r != nil {
		var own []attempt
		for _, a := range r.Earlier {
			own = append(own, attempt{a.Started.UnixMilli(), a.Ended.UnixMilli(), a.Status, a.ExitCode, a.Reason})
		}
		var exit any
		if r.ExitCode != -1 {
			exit = r.ExitCode
		}
		if err := t.exec("INSERT INTO results (run, node, status, exit, started, ended, changes, reason, tried, earlier, dropped) "+
			"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, node) DO UPDATE SET status = excluded.status, exit = excluded.exit, "+
			"started = excluded.started, ended = excluded.ended, changes = excluded.changes, reason = excluded.reason, "+
			"tried = excluded.tried, earlier = coalesce(excluded.earlier, earlier), dropped = excluded.dropped",
			run, node, string(r.Status), exit, milli(r.Started), milli(r.Ended), list(r.Changes), text(r.Reason), r.Attempts, list(own), r.Dropped); err != nil {
			return err
		}
	} else if !n.Started.IsZero() || len(n.Changes) > 0 || len(earlier) > 0 {
		if err := t.exec("INSERT INTO results (run, node, status, started) VALUES (?, ?, 'running', ?) "+
			"ON CONFLICT (run, node) DO UPDATE SET status = 'running', started = coalesce(started, excluded.started), "+
			"ended = CASE WHEN excluded.started IS NULL THEN ended END", run, node, milli(n.Started)); err != nil {
			return err
		}
	}
	for _, change := range n.Changes {
		if err := t.exec("UPDATE results SET changes = json_insert(coalesce(changes, '[]'), '$[#]', ?) WHERE run = ? AND node = ?",
			change, run, node); err != nil {
			return err
		}
	}
	for _, a := range earlier {
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if err := t.exec("UPDATE results SET earlier = json_insert(coalesce(earlier, '[]'), '$[#]', json(?)), tried = tried + (ended IS NULL) WHERE run = ? AND node = ?",
			string(b), run, node); err != nil {
			return err
		}
	}
	return nil
}

// Finish is part of loom.Ledger.
func (s *Store) Finish(ctx context.Context, c loom.Claim, end loom.Run, last []loom.Event) error {
	nodes := s.pack(last)
	return s.write(ctx, func(t *tx) error {
		seq, err := t.held(c)
		if errors.Is(err, loom.ErrFenced) {
			r, _, epoch, read := t.run(c.Run.ID)
			if read == nil && epoch == c.Epoch && r.Status == end.Status {
				return nil // it was repeated
			}
			if none(read) != nil {
				return read
			}
			return err
		}
		if err != nil {
			return err
		}
		t.wrote = append(t.wrote, c.Run.ID)
		if err := t.record(seq, nodes); err != nil {
			return err
		}
		if end.Status == loom.StatusQueued {
			return t.exec("UPDATE runs SET status = 'queued', owner = NULL WHERE seq = ?", seq)
		}
		done := end
		done.Ended = cmp.Or(done.Ended, time.UnixMilli(t.now))
		return t.end(seq, done)
	})
}

// end ends a run, and counts it if it is no plan.
func (t *tx) end(seq int64, end loom.Run) error {
	var counts any
	if len(end.Counts) > 0 {
		b, err := json.Marshal(end.Counts)
		if err != nil {
			return err
		}
		counts = string(b)
	}
	var job, queued int64
	var id string
	var plan bool
	if err := t.get("UPDATE runs SET status = ?, ended = ?, reason = ?, counts = ?, owner = NULL, cancel = NULL WHERE seq = ? RETURNING id, job, queued, plan",
		[]any{string(end.Status), milli(end.Ended), text(end.Reason), counts, seq}, &id, &job, &queued, &plan); err != nil {
		return err
	}
	if t.wrote = append(t.wrote, id); plan {
		return nil
	}
	day := dayNumber(time.UnixMilli(queued).In(t.w.store.zone()))
	return t.exec("INSERT INTO days (job, day, status, n) VALUES (?, ?, ?, 1), (0, ?, ?, 1) ON CONFLICT (job, day, status) DO UPDATE SET n = n + 1",
		job, day, string(end.Status), day, string(end.Status))
}

// dayNumber writes a day as 20261124.
func dayNumber(t time.Time) int {
	y, m, d := t.Date()
	return y*10000 + int(m)*100 + d
}

// Act is part of loom.Store.
func (s *Store) Act(ctx context.Context, a loom.Action) error {
	return s.write(ctx, func(t *tx) error {
		switch a.Verb {
		case loom.VerbPause, loom.VerbResume:
			if err := t.pause(a); err != nil {
				return err
			}
		case loom.VerbCancel:
			if err := t.cancel(a); err != nil {
				return err
			}
		}
		return t.act(a)
	})
}

func (t *tx) pause(a loom.Action) error {
	var id int64
	err := t.get("SELECT id FROM jobs WHERE name = ?", []any{a.Object}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("job %q: %w", a.Object, loom.ErrNotFound)
	}
	if err != nil {
		return err
	}
	var since, until, by, why any
	if a.Verb == loom.VerbPause {
		since, until, by, why = t.now, milli(a.Until), a.By, a.Why
	}
	return t.exec("UPDATE jobs SET pause_since = ?, pause_until = ?, pause_by = ?, pause_why = ? WHERE id = ?", since, until, by, why, id)
}

func (t *tx) cancel(a loom.Action) error {
	var seq, epoch int64
	err := t.get("SELECT seq, epoch FROM runs WHERE id = ? AND "+going, []any{a.Object}, &seq, &epoch)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("run %s is not going: %w", a.Object, loom.ErrNotFound)
	case err != nil:
		return err
	case epoch == 0:
		return t.end(seq, loom.Run{Status: loom.StatusCancelled, Ended: time.UnixMilli(t.now), Reason: ledger.Asked(a)})
	}
	return t.exec("UPDATE runs SET cancel = ? WHERE seq = ?", ledger.Asked(a), seq)
}

func (t *tx) act(a loom.Action) error {
	return t.exec("INSERT INTO actions (at, who, verb, object, why, until) VALUES (?, ?, ?, ?, ?, ?)",
		t.now, a.By, a.Verb, a.Object, a.Why, milli(a.Until))
}
