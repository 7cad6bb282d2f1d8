package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/ledger"
)

// unread is explain for what happened while reading.
func (s *Store) unread(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case primary(err) == 0 && !errors.Is(err, loom.ErrStoreDown): // what was read makes no sense
		return fmt.Errorf("read store %s: %w", s.file, err)
	}
	return s.explain(err)
}

// each calls read for every row.
func (s *Store) each(ctx context.Context, read func(*sql.Rows) error, query string, args ...any) error {
	rows, err := s.reading.QueryContext(ctx, query, args...)
	return s.unread(ctx, every(rows, err, read))
}

// number returns the number of a named row of jobs or nodes; 0: there is none.
func (s *Store) number(ctx context.Context, table, name string) (int64, error) {
	var id int64
	err := s.reading.QueryRowContext(ctx, "SELECT id FROM "+table+" WHERE name = ?", name).Scan(&id)
	return id, s.unread(ctx, none(err))
}

// runColumns are those of a runRow, of runs r and jobs j.
const runColumns = "r.seq, r.id, j.name, r.due, r.cause, r.who, r.targets, r.plan, r.timeout, r.most, r.queued, r.started, r.ended, r.status, r.reason, r.nodes, r.counts"

type runRow struct {
	seq, due, queued int64
	started, ended   sql.NullInt64
	timeout, most    sql.NullInt64
	r                loom.Run
	who, reason      sql.NullString
	targets, counts  sql.NullString
}

func (w *runRow) into() []any {
	return []any{&w.seq, &w.r.ID, &w.r.Job, &w.due, &w.r.Trigger, &w.who, &w.targets, &w.r.Plan, &w.timeout, &w.most, &w.queued, &w.started, &w.ended,
		&w.r.Status, &w.reason, &w.r.Nodes, &w.counts}
}

func (w *runRow) run() (loom.Run, error) {
	r := w.r
	r.Due, r.Queued, r.Started, r.Ended = time.UnixMilli(w.due), time.UnixMilli(w.queued), moment(w.started), moment(w.ended)
	r.By, r.Reason = w.who.String, w.reason.String
	r.Timeout, r.Max = time.Duration(w.timeout.Int64)*time.Millisecond, int(w.most.Int64)
	err := unlist(w.targets, &r.Targets)
	if err == nil && w.counts.Valid {
		err = json.Unmarshal([]byte(w.counts.String), &r.Counts)
	}
	if err != nil {
		return r, fmt.Errorf("run %s is kept in a way that this version can't read: %w", r.ID, err)
	}
	return r, nil
}

// unlist reads what list wrote.
func unlist[T any](s sql.NullString, into *[]T) error {
	if !s.Valid {
		return nil
	}
	return json.Unmarshal([]byte(s.String), into)
}

// lineOfRun is what unpackRun reads, of runs r. To read a column takes about as long
// as to find a row.
const lineOfRun = "r.id || '|' || r.due || '|' || r.cause || '|' || r.queued || '|' || coalesce(r.started, '') || '|' || coalesce(r.ended, '') || " +
	"'|' || r.status || '|' || r.nodes"

// Jobs is part of loom.Archive.
func (s *Store) Jobs(ctx context.Context, names ...string) ([]loom.JobState, error) {
	// The last run is sought for each job, by its index. Grouping would read all.
	query := "SELECT j.name, coalesce(j.last_tick, '') || '|' || j.gone || '|' || coalesce(j.pause_since, '') || '|' || coalesce(j.pause_until, ''), " +
		"j.pause_by, j.pause_why, r.seq || '|' || coalesce(r.timeout, 0) || '|' || coalesce(r.most, 0) || '|' || " + lineOfRun + ", r.who, r.targets, r.reason, r.counts " +
		"FROM jobs j LEFT JOIN runs r ON r.seq = (SELECT x.seq FROM runs x WHERE x.job = j.id AND NOT x.plan ORDER BY x.queued DESC, x.seq DESC LIMIT 1)"
	var args []any
	if len(names) > 0 {
		query += " WHERE j.name IN (SELECT value FROM json_each(?))"
		args = append(args, list(names))
	}
	var states []loom.JobState
	var seqs []int64
	err := s.each(ctx, func(rows *sql.Rows) error {
		var row stateRow
		if err := rows.Scan(&row.name, &row.job, &row.by, &row.why, &row.run, &row.who, &row.targets, &row.reason, &row.counts); err != nil {
			return err
		}
		st, seq, err := row.state()
		states, seqs = append(states, st), append(seqs, seq)
		return err
	}, query+" ORDER BY j.name", args...)
	if err != nil {
		return nil, err
	}
	for i, st := range states {
		if st.Last != nil {
			if err := s.count(ctx, seqs[i], st.Last); err != nil {
				return nil, err
			}
		}
	}
	return states, nil
}

// A stateRow is a job with its last run: of both the numbers in one line each.
type stateRow struct {
	name, job       string
	by, why         sql.NullString
	run             sql.NullString // NULL: there is none
	who, reason     sql.NullString
	targets, counts sql.NullString
}

// state returns what the row says, and the last run's number.
func (w *stateRow) state() (st loom.JobState, seq int64, err error) {
	st.Name = w.name
	words := strings.Split(w.job, "|")
	if len(words) != 4 {
		return st, 0, fmt.Errorf("job %s is kept in a way that this version can't read: %q", w.name, w.job)
	}
	var n [4]sql.NullInt64
	for i, word := range words {
		if n[i].Valid = word != ""; n[i].Valid {
			var bad error
			n[i].Int64, bad = strconv.ParseInt(word, 10, 64)
			err = errors.Join(err, bad)
		}
	}
	st.LastTick, st.Gone, st.Pause = moment(n[0]), n[1].Int64 != 0, pause(n[2], n[3], w.by, w.why)
	if !w.run.Valid {
		return st, 0, err
	}
	words = strings.SplitN(w.run.String, "|", 4)
	if len(words) != 4 {
		return st, 0, fmt.Errorf("the last run of job %s is kept in a way that this version can't read: %q", w.name, w.run.String)
	}
	seq, badSeq := strconv.ParseInt(words[0], 10, 64)
	timeout, badTimeout := strconv.ParseInt(words[1], 10, 64)
	most, badMost := strconv.Atoi(words[2])
	r, bad := unpackRun(w.name, words[3])
	r.Timeout, r.Max, r.By, r.Reason = time.Duration(timeout)*time.Millisecond, most, w.who.String, w.reason.String
	err = errors.Join(err, badSeq, badTimeout, badMost, bad, unlist(w.targets, &r.Targets))
	if w.counts.Valid {
		err = errors.Join(err, json.Unmarshal([]byte(w.counts.String), &r.Counts))
	}
	if err != nil {
		err = fmt.Errorf("the last run of job %s is kept in a way that this version can't read: %w", w.name, err)
	}
	st.Last = &r
	return st, seq, err
}

// count fills in how much of a run that is going has ended.
func (s *Store) count(ctx context.Context, seq int64, r *loom.Run) error {
	if r.Status.Ended() {
		return nil
	}
	r.Counts = map[loom.Status]int{}
	return s.each(ctx, func(rows *sql.Rows) error {
		var status loom.Status
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			return err
		}
		r.Counts[status] = n
		return nil
	}, "SELECT status, count(*) FROM results WHERE run = ? AND ended IS NOT NULL GROUP BY status", seq)
}

// A search is a query for runs that is being put together.
type search struct {
	from  string
	order string
	seq   string // the column of the run's seq, if it is by that alone that they are in order
	where []string
	args  []any
}

func (f *search) and(condition string, args ...any) {
	f.where = append(f.where, condition)
	f.args = append(f.args, args...)
}

// Runs is part of loom.Archive. Every filter but those by trigger and plan seeks.
func (s *Store) Runs(ctx context.Context, q loom.RunQuery) ([]loom.Run, error) {
	look := s.search
	if q.Text != "" && q.Job == "" && q.Node == "" && len(q.ID) <= 8 { // else there are few to read
		look = s.searchText
	}
	search, err := look(ctx, q)
	if search == nil || err != nil {
		return nil, err
	}
	search.args = append(search.args, cmp.Or(q.Limit, 100))
	var runs []loom.Run
	var seqs []int64
	err = s.each(ctx, func(rows *sql.Rows) error {
		var row runRow
		if err := rows.Scan(row.into()...); err != nil {
			return err
		}
		r, err := row.run()
		runs, seqs = append(runs, r), append(seqs, row.seq)
		return err
	}, "SELECT "+runColumns+" FROM "+search.from+" CROSS JOIN jobs j ON j.id = r.job WHERE "+strings.Join(search.where, " AND ")+
		" ORDER BY "+search.order+" LIMIT ?", search.args...)
	if err != nil {
		return nil, err
	}
	for i := range runs {
		if err := s.count(ctx, seqs[i], &runs[i]); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// search chooses the index by which runs are found newest first, and the
// conditions. It returns nil if there can be none.
func (s *Store) search(ctx context.Context, q loom.RunQuery) (*search, error) {
	f := &search{from: "runs r INDEXED BY runs_at", order: "r.queued DESC, r.seq DESC", where: []string{"true"}}
	bad := len(q.Status) > 0 && !slices.ContainsFunc(q.Status, func(st loom.Status) bool { return !ledger.Bad(st) })
	var job, node int64
	var err error
	if q.Job != "" {
		if job, err = s.number(ctx, "jobs", q.Job); job == 0 || err != nil {
			return nil, err
		}
		f.and("r.job = ?", job)
	}
	if q.Node != "" {
		if node, err = s.number(ctx, "nodes", q.Node); node == 0 || err != nil {
			return nil, err
		}
	}
	switch {
	case len(q.ID) > 8:
		f.from = "runs r" // by ID: few have so much in common
	case node != 0:
		f.from, f.order, f.seq = "results w INDEXED BY results_node CROSS JOIN runs r ON r.seq = w.run", "w.run DESC", "w.run"
		f.and("w.node = ?", node)
	case job != 0 && bad:
		f.from = "runs r INDEXED BY runs_job_bad"
	case bad:
		f.from = "runs r INDEXED BY runs_bad"
	case job != 0:
		f.from = "runs r INDEXED BY runs_job"
	}
	if bad {
		f.and("r.status NOT IN ('ok', 'changed')")
	}
	if len(q.ID) > 8 && node != 0 {
		f.and("EXISTS (SELECT 1 FROM results w WHERE w.run = r.seq AND w.node = ?)", node)
	}
	f.filter(q)
	f.text(q.Text)
	return f, s.before(ctx, q, f)
}

// filter adds the conditions that don't matter to the choice of an index.
func (f *search) filter(q loom.RunQuery) {
	if q.ID != "" {
		f.and("r.id >= ? AND r.id < ?", q.ID, q.ID+"\U0010ffff")
	}
	if len(q.Status) > 0 {
		f.and("r.status IN (SELECT value FROM json_each(?))", list(q.Status))
	}
	if q.Trigger != "" {
		f.and("r.cause = ?", string(q.Trigger))
	}
	if q.Plan != nil {
		f.and("r.plan = ?", *q.Plan)
	}
	if !q.Since.IsZero() {
		f.and("r.queued >= ?", ceil(q.Since))
	}
	if !q.Until.IsZero() {
		f.and("r.queued < ?", ceil(q.Until))
	}
}

// text adds the condition that a text is there, for which a run and its results are
// read.
func (f *search) text(text string) {
	if text != "" {
		part := strings.ToLower(text)
		f.and("(instr(lower(j.name), ?) OR instr(lower(r.who), ?) OR instr(lower(r.reason), ?) OR EXISTS "+
			"(SELECT 1 FROM results y WHERE y.run = r.seq AND instr(lower(y.reason), ?)))", part, part, part, part)
	}
}

// ceil returns the first millisecond that is not before t.
func ceil(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }

// before adds the condition that runs are older than the cursor.
func (s *Store) before(ctx context.Context, q loom.RunQuery, f *search) error {
	if q.Before == "" {
		return nil
	}
	var seq, queued int64
	at := func(condition string) error {
		return s.reading.QueryRowContext(ctx, "SELECT seq, queued FROM runs WHERE "+condition, q.Before).Scan(&seq, &queued)
	}
	err := at("id = ?")
	if errors.Is(err, sql.ErrNoRows) { // it was trimmed: what sorts before it is older
		err = at("id < ? ORDER BY id DESC LIMIT 1")
		seq++
	}
	if errors.Is(err, sql.ErrNoRows) {
		f.and("false")
		return nil
	}
	if f.seq != "" {
		f.and(f.seq+" < ?", seq)
	} else {
		f.and("r.queued <= ? AND (r.queued < ? OR r.seq < ?)", queued, queued, seq)
	}
	return s.unread(ctx, err)
}

// indexed reports whether the index of texts can find a text: it knows where each
// three characters are that follow each other in a line.
func indexed(text string) bool {
	return utf8.RuneCountInString(text) >= 3 && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == utf8.RuneError })
}

// manyRuns is of how many runs the newest are found by sorting them.
const manyRuns = 20_000

// searchText is search by a text, in all runs. It finds the newest, in the order in
// which they were queued, of those that are going, of which the index of texts has
// nothing, of those that the index has, and of those of jobs whose name has the text.
func (s *Store) searchText(ctx context.Context, q loom.RunQuery) (*search, error) {
	const jobs = "SELECT id FROM jobs WHERE instr(lower(name), ?)"
	name := strings.ToLower(q.Text)
	run := &search{from: "runs r INDEXED BY runs_going CROSS JOIN jobs j ON j.id = r.job", seq: "r.seq"}
	run.and("r." + going)
	run.text(q.Text)
	said := &search{from: "said s CROSS JOIN runs r ON r.seq = s.rowid CROSS JOIN jobs j ON j.id = r.job", seq: "s.rowid"}
	if indexed(q.Text) {
		said.and("s.text MATCH ?", `"`+strings.ReplaceAll(q.Text, `"`, `""`)+`"`)
	} else { // then it says at least which runs have any
		said.text(q.Text)
	}
	named := &search{from: "runs r INDEXED BY runs_job", seq: "r.seq"}
	named.and("r.job IN ("+jobs+")", name)
	var n int
	if err := s.reading.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM runs INDEXED BY runs_job WHERE job IN ("+jobs+") LIMIT ?)",
		name, manyRuns).Scan(&n); err != nil {
		return nil, s.unread(ctx, err)
	}
	if n == manyRuns {
		named.from = "runs r NOT INDEXED" // newest first, there will soon be enough
	}
	whole := &search{from: "runs r", order: "r.seq DESC"}
	var parts []string
	for _, f := range []*search{run, said, named} {
		f.filter(q)
		if err := s.before(ctx, q, f); err != nil {
			return nil, err
		}
		parts = append(parts, "SELECT * FROM (SELECT "+f.seq+" FROM "+f.from+" WHERE "+strings.Join(f.where, " AND ")+" ORDER BY "+f.seq+" DESC LIMIT ?)")
		whole.args = append(append(whole.args, f.args...), cmp.Or(q.Limit, 100))
	}
	whole.where = []string{"r.seq IN (" + strings.Join(parts, " UNION ") + ")"}
	return whole, nil
}

// RecentRuns is part of loom.Archive. The runs of a job come as one row: to read
// rows takes longer than to find them.
func (s *Store) RecentRuns(ctx context.Context, most int, jobs ...string) ([]loom.Run, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	runs := make([]loom.Run, 0, min(most*len(jobs), 4096))
	err := s.each(ctx, func(rows *sql.Rows) error {
		var job string
		var packed sql.RawBytes
		if err := rows.Scan(&job, &packed); err != nil {
			return err
		}
		for line := range strings.Lines(string(packed)) {
			r, err := unpackRun(job, line)
			if err != nil {
				return err
			}
			runs = append(runs, r)
		}
		return nil
	}, "SELECT j.name, coalesce((SELECT group_concat(x.line, '') FROM (SELECT "+lineOfRun+" || char(10) AS line "+
		"FROM runs r INDEXED BY runs_job WHERE r.job = j.id AND NOT r.plan ORDER BY r.queued DESC, r.seq DESC LIMIT ?) x), '') "+
		"FROM json_each(?) want CROSS JOIN jobs j ON j.name = want.value ORDER BY want.key", most, list(jobs))
	return runs, err
}

// unpackRun reads a line of a run. Neither IDs nor triggers nor statuses have a bar in
// them.
func unpackRun(job, line string) (loom.Run, error) {
	var words [8]string
	rest, more := strings.TrimSuffix(line, "\n"), true
	n := 0
	for ; more && n < len(words); n++ {
		words[n], rest, more = strings.Cut(rest, "|")
	}
	if more || n < len(words) {
		return loom.Run{}, unreadable(job, line)
	}
	r := loom.Run{ID: words[0], Job: job, Trigger: loom.Trigger(words[2]), Status: loom.Status(words[6])}
	for i, at := range []*time.Time{1: &r.Due, 3: &r.Queued, 4: &r.Started, 5: &r.Ended} {
		if at == nil || words[i] == "" {
			continue
		}
		ms, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return r, unreadable(job, line)
		}
		*at = time.UnixMilli(ms)
	}
	var err error
	if r.Nodes, err = strconv.Atoi(words[7]); err != nil {
		return r, unreadable(job, line)
	}
	return r, nil
}

func unreadable(job, line string) error {
	return fmt.Errorf("a run of job %s is kept in a way that this version can't read: %q", job, line)
}

// resultColumns are those of result, of results x, runs r, jobs j and nodes n.
const resultColumns = "r.id, j.name, n.name, x.status, coalesce(x.exit, -1), x.started, x.ended, x.changes, x.reason, x.tried, x.earlier, x.dropped"

// RecentResults is part of loom.Archive.
func (s *Store) RecentResults(ctx context.Context, most int, nodes ...string) ([]loom.Result, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	var results []loom.Result
	err := s.each(ctx, func(rows *sql.Rows) error {
		r, err := result(rows)
		results = append(results, r)
		return err
	}, "SELECT "+resultColumns+" FROM json_each(?) want CROSS JOIN nodes n ON n.name = want.value CROSS JOIN results x ON x.node = n.id AND x.run IN "+
		"(SELECT y.run FROM results y INDEXED BY results_node WHERE y.node = n.id AND NOT (SELECT p.plan FROM runs p WHERE p.seq = y.run) ORDER BY y.run DESC LIMIT ?) "+
		"CROSS JOIN runs r ON r.seq = x.run CROSS JOIN jobs j ON j.id = r.job ORDER BY want.key, x.run DESC", list(nodes), most)
	return results, err
}

// Results is part of loom.Archive.
func (s *Store) Results(ctx context.Context, q loom.ResultQuery) ([]loom.Result, error) {
	query := "SELECT " + resultColumns + " FROM json_each(?) want CROSS JOIN runs r ON r.id = want.value CROSS JOIN jobs j ON j.id = r.job " +
		"CROSS JOIN results x ON x.run = r.seq CROSS JOIN nodes n ON n.id = x.node"
	args := []any{list(q.Runs)}
	if len(q.Runs) == 0 {
		return nil, nil
	}
	if q.Node != "" {
		node, err := s.number(ctx, "nodes", q.Node)
		if node == 0 || err != nil {
			return nil, err
		}
		query += " WHERE x.node = ?"
		args = append(args, node)
	}
	var results []loom.Result
	err := s.each(ctx, func(rows *sql.Rows) error {
		r, err := result(rows)
		results = append(results, r)
		return err
	}, query+" ORDER BY want.key, n.name", args...)
	return results, err
}

func result(rows *sql.Rows) (loom.Result, error) {
	var r loom.Result
	var started, ended sql.NullInt64
	var changes, reason, earlier sql.NullString
	if err := rows.Scan(&r.Run, &r.Job, &r.Node, &r.Status, &r.ExitCode, &started, &ended, &changes, &reason, &r.Attempts, &earlier, &r.Dropped); err != nil {
		return r, err
	}
	r.Started, r.Ended, r.Reason = moment(started), moment(ended), reason.String
	var own []attempt
	if err := errors.Join(unlist(changes, &r.Changes), unlist(earlier, &own)); err != nil {
		return r, fmt.Errorf("the result of run %s on %s is kept in a way that this version can't read: %w", r.Run, r.Node, err)
	}
	for _, a := range own {
		r.Earlier = append(r.Earlier, loom.Attempt{Started: time.UnixMilli(a.Started), Ended: time.UnixMilli(a.Ended),
			Status: a.Status, ExitCode: a.Exit, Reason: a.Reason})
	}
	return r, nil
}

// Output is part of loom.Archive.
func (s *Store) Output(ctx context.Context, q loom.OutputQuery) ([]loom.Chunk, error) {
	query := "SELECT o.id, n.name, o.data FROM runs r CROSS JOIN output o INDEXED BY output_run ON o.run = r.seq " +
		"CROSS JOIN nodes n ON n.id = o.node WHERE r.id = ? AND o.id > ?"
	args := []any{q.Run, q.After}
	if q.Node != "" {
		node, err := s.number(ctx, "nodes", q.Node)
		if node == 0 || err != nil {
			return nil, err
		}
		query += " AND o.node = ?"
		args = append(args, node)
	}
	var chunks []loom.Chunk
	err := s.each(ctx, func(rows *sql.Rows) error {
		var c loom.Chunk
		var data sql.RawBytes
		if err := rows.Scan(&c.Cursor, &c.Node, &data); err != nil {
			return err
		}
		lines, err := ledger.Decode(data)
		if err != nil {
			return fmt.Errorf("%w: %s: output of run %s on %s: %w", loom.ErrStoreDown, s.file, q.Run, c.Node, err)
		}
		c.Lines = lines
		chunks = append(chunks, c)
		return nil
	}, query+" ORDER BY o.id LIMIT ?", append(args, cmp.Or(q.Limit, 100))...)
	return chunks, err
}

// Ticks is part of loom.Archive.
func (s *Store) Ticks(ctx context.Context, q loom.TickQuery) ([]loom.Tick, error) {
	job, err := s.number(ctx, "jobs", q.Job)
	if job == 0 || err != nil {
		return nil, err
	}
	query := "SELECT t.due, t.until, t.ticks, t.outcome, coalesce(t.why, ''), coalesce(r.id, ''), t.at " +
		"FROM ticks t LEFT JOIN runs r ON r.seq = t.run WHERE t.job = ?"
	args := []any{job}
	if !q.To.IsZero() {
		query += " AND t.due <= ?"
		args = append(args, q.To.UnixMilli())
	}
	if !q.From.IsZero() {
		// The tick before the time may be a range that reaches into it.
		query += " AND t.due >= coalesce((SELECT max(p.due) FROM ticks p WHERE p.job = t.job AND p.due <= ?), 0) AND t.until >= ?"
		args = append(args, ceil(q.From), ceil(q.From))
	}
	var ticks []loom.Tick
	err = s.each(ctx, func(rows *sql.Rows) error {
		k := loom.Tick{Job: q.Job}
		var due, until, at int64
		if err := rows.Scan(&due, &until, &k.Ticks, &k.Outcome, &k.Why, &k.Run, &at); err != nil {
			return err
		}
		k.Due, k.Until, k.At = time.UnixMilli(due), time.UnixMilli(until), time.UnixMilli(at)
		ticks = append(ticks, k)
		return nil
	}, query+" ORDER BY t.due DESC LIMIT ?", append(args, cmp.Or(q.Limit, 100))...)
	return ticks, err
}

// Days is part of loom.Archive.
func (s *Store) Days(ctx context.Context, q loom.DayQuery) ([]loom.DayCount, error) {
	var job int64
	if q.Job != "" {
		var err error
		if job, err = s.number(ctx, "jobs", q.Job); job == 0 || err != nil {
			return nil, err
		}
	}
	zone := s.zone()
	from, to := dayNumber(q.From.In(zone)), dayNumber(cmp.Or(q.To, s.now()).In(zone))
	var days []loom.DayCount
	err := s.each(ctx, func(rows *sql.Rows) error {
		var d loom.DayCount
		var n int
		if err := rows.Scan(&n, &d.Status, &d.Runs); err != nil {
			return err
		}
		d.Day = time.Date(n/10000, time.Month(n/100%100), n%100, 0, 0, 0, 0, zone)
		days = append(days, d)
		return nil
	}, "SELECT day, status, n FROM days WHERE job = ? AND day BETWEEN ? AND ? ORDER BY day, status", job, from, to)
	return days, err
}

// Actions is part of loom.Archive.
func (s *Store) Actions(ctx context.Context, q loom.ActionQuery) ([]loom.Action, error) {
	query, args := "SELECT id, at, who, verb, object, why, until FROM actions WHERE true", []any{}
	for _, is := range [][2]string{{"object", q.Object}, {"who", q.By}, {"verb", q.Verb}} {
		if is[1] != "" {
			query += " AND " + is[0] + " = ?"
			args = append(args, is[1])
		}
	}
	if !q.Since.IsZero() {
		query += " AND at >= ?"
		args = append(args, ceil(q.Since))
	}
	if !q.Until.IsZero() {
		query += " AND at < ?"
		args = append(args, ceil(q.Until))
	}
	if q.Before != 0 {
		query += " AND id < ?"
		args = append(args, q.Before)
	}
	var actions []loom.Action
	err := s.each(ctx, func(rows *sql.Rows) error {
		var a loom.Action
		var at int64
		var until sql.NullInt64
		if err := rows.Scan(&a.ID, &at, &a.By, &a.Verb, &a.Object, &a.Why, &until); err != nil {
			return err
		}
		a.Time, a.Until = time.UnixMilli(at), moment(until)
		actions = append(actions, a)
		return nil
	}, query+" ORDER BY id DESC LIMIT ?", append(args, cmp.Or(q.Limit, 100))...)
	return actions, err
}
