package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom"
)

// most is how many requests go into one transaction.
const most = 512

// A request is one call's work on the database.
type request struct {
	do    func(*tx) error
	state atomic.Int32 // one of the following
	done  chan error
}

const (
	waiting int32 = iota
	begun
	abandoned
)

// write has the writer do something in a transaction, and waits until it is on
// the disk. Work that has begun is waited for even if ctx ends, so that its
// outcome is known. do may be called several times.
func (s *Store) write(ctx context.Context, do func(*tx) error) error {
	err := s.request(ctx, do)
	switch {
	case errors.Is(err, loom.ErrStoreDown):
		s.failing.Store(true)
	case err == nil && s.failing.CompareAndSwap(true, false):
		s.mu.Lock()
		s.up = time.Now() // nobody could be heard until now
		s.mu.Unlock()
	}
	return err
}

func (s *Store) request(ctx context.Context, do func(*tx) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // select picks any of those that are ready
	}
	r := &request{do: do, done: make(chan error, 1)}
	select {
	case <-s.closing:
		return s.closed()
	case <-ctx.Done():
		return context.Cause(ctx)
	case s.requests <- r:
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, abandoned) {
			return context.Cause(ctx)
		}
	case <-s.stopped:
	}
	select {
	case err := <-r.done:
		return err
	case <-s.stopped:
	}
	select { // it may have been the last
	case err := <-r.done:
		return err
	default:
		return s.closed()
	}
}

func (s *Store) closed() error { return fmt.Errorf("%w: %s was closed", loom.ErrStoreDown, s.file) }

// run is the writer: the one goroutine that changes the database. It takes
// whatever waits into one transaction.
func (s *Store) run() {
	defer close(s.stopped)
	w := &writer{store: s}
	defer w.disconnect()
	for {
		var batch []*request
		select {
		case r := <-s.requests:
			batch = append(batch, r)
		case <-s.closing:
		}
	gather:
		for len(batch) < most {
			select {
			case r := <-s.requests:
				batch = append(batch, r)
			default:
				break gather
			}
		}
		if len(batch) == 0 {
			return // closing, and nothing waits
		}
		w.commit(batch)
	}
}

// A writer owns the connection that writes.
type writer struct {
	store *Store
	conn  *sql.Conn // nil: not connected
	stmts map[string]*sql.Stmt
	nodes map[string]int64 // the committed ones that were asked for
	sick  error            // a failure that time does not heal
}

// commit does the requests of a batch, each wholly or not at all, and answers
// them.
func (w *writer) commit(batch []*request) {
	var live []*request
	for _, r := range batch {
		if r.state.CompareAndSwap(waiting, begun) {
			live = append(live, r)
		}
	}
	if len(live) == 0 {
		return
	}
	errs, err := w.attempt(live)
	if err != nil && len(live) > 1 && primary(err) != 0 && !unsynced(err) {
		for _, r := range live { // one may be too much, and the others not
			errs, err := w.attempt([]*request{r})
			if err == nil {
				err = errs[0]
			}
			r.done <- w.store.explain(err)
		}
		return
	}
	for i, r := range live {
		if err != nil {
			r.done <- w.store.explain(err)
		} else {
			r.done <- w.store.explain(errs[i])
		}
	}
}

// attempt does the requests in one transaction. It returns what each of them
// came to, or, if nothing was written, why.
func (w *writer) attempt(batch []*request) ([]error, error) {
	if err := w.connect(); err != nil {
		return nil, err
	}
	ctx := context.Background() // what has begun is finished
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, w.failed(err)
	}
	t := &tx{w: w, now: w.store.now().UnixMilli(), nodes: map[string]int64{}}
	defer t.tell() // even if it came to nothing: it may be written for all that
	errs := make([]error, len(batch))
	for i, r := range batch {
		if err := t.isolated(r.do, len(batch) > 1); primary(err) != 0 {
			return nil, w.failed(err)
		} else if err != nil {
			errs[i] = err
		}
	}
	if _, err := w.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return nil, w.failed(err)
	}
	maps.Copy(w.nodes, t.nodes)
	return errs, nil
}

// failed ends the transaction in which err happened.
func (w *writer) failed(err error) error {
	if unsynced(err) {
		w.sick = err
	}
	if _, err := w.conn.ExecContext(context.Background(), "ROLLBACK"); err != nil && primary(err) != sqliteError {
		w.disconnect() // whatever state that is in
	}
	return err
}

// sqliteError is the code of "no transaction is active": SQLite has ended it.
const sqliteError = 1

// connect makes sure that there is a connection to the file that was opened.
func (w *writer) connect() error {
	if w.sick != nil {
		return w.sick
	}
	if err := w.store.present(); err != nil {
		return err
	}
	if w.conn != nil {
		return nil
	}
	conn, err := w.store.writing.Conn(context.Background())
	if err != nil {
		return err
	}
	w.conn, w.stmts, w.nodes = conn, map[string]*sql.Stmt{}, map[string]int64{}
	return nil
}

func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	for _, st := range w.stmts {
		_ = st.Close()
	}
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn }) // so that the pool drops it
	_ = w.conn.Close()
	w.conn = nil
}

// present reports whether the file is still the one that was opened. Writing to
// another, or to one without a name, would lose everything in silence.
func (s *Store) present() error {
	now, err := os.Stat(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s was deleted or moved while in use; what it held can still be saved by a backup, "+
			"until loom ends; or move it back and loom goes on by itself", loom.ErrStoreDown, s.file)
	}
	if err != nil {
		return err
	}
	if !os.SameFile(now, s.opened) {
		return fmt.Errorf("%w: %s was replaced by another file while in use; start loom anew to use that one, "+
			"or put the old one back and loom goes on by itself", loom.ErrStoreDown, s.file)
	}
	return nil
}

// A tx is a transaction in progress.
type tx struct {
	w     *writer
	now   int64            // the store's clock
	nodes map[string]int64 // those that were asked for in it
	wrote []string         // the runs in which there is something new
}

// tell wakes those who watch what was written in.
func (t *tx) tell() {
	for _, run := range t.wrote {
		t.w.store.watches.Wake(run)
	}
}

// isolated does one request so that, if it fails, the others don't.
func (t *tx) isolated(do func(*tx) error, shared bool) error {
	if !shared {
		if err := do(t); primary(err) != 0 || err == nil {
			return err
		} else if _, rollback := t.w.conn.ExecContext(context.Background(), "ROLLBACK"); rollback != nil {
			return rollback
		} else if _, begin := t.w.conn.ExecContext(context.Background(), "BEGIN"); begin != nil {
			return begin // it is empty, and committed
		} else {
			t.nodes = map[string]int64{}
			return err
		}
	}
	if err := t.exec("SAVEPOINT request"); err != nil {
		return err
	}
	err := do(t)
	if primary(err) != 0 {
		return err // of the whole transaction
	}
	if err != nil {
		t.nodes = map[string]int64{} // some may be of this request
		if err := t.exec("ROLLBACK TO request"); err != nil {
			return err
		}
	}
	if err := t.exec("RELEASE request"); err != nil {
		return err
	}
	return err
}

// stmt returns a prepared statement.
func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if st := t.w.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	t.w.stmts[query] = st
	return st, nil
}

func (t *tx) exec(query string, args ...any) error {
	st, err := t.stmt(query)
	if err != nil {
		return err
	}
	_, err = st.Exec(args...)
	return err
}

// insert is exec that returns the new row's number.
func (t *tx) insert(query string, args ...any) (int64, error) {
	st, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := st.Exec(args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// get reads one row. It returns sql.ErrNoRows if there is none.
func (t *tx) get(query string, args []any, into ...any) error {
	st, err := t.stmt(query)
	if err != nil {
		return err
	}
	return st.QueryRow(args...).Scan(into...)
}

// each calls read for every row, which scans it.
func (t *tx) each(read func(*sql.Rows) error, query string, args ...any) error {
	st, err := t.stmt(query)
	if err != nil {
		return err
	}
	rows, err := st.Query(args...)
	return every(rows, err, read)
}

// every calls read for every row and closes them.
func every(rows *sql.Rows, err error, read func(*sql.Rows) error) error {
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := read(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// node returns the number of a node.
func (t *tx) node(name string) (int64, error) {
	if id, ok := t.w.nodes[name]; ok {
		return id, nil
	}
	if id, ok := t.nodes[name]; ok {
		return id, nil
	}
	var id int64
	err := t.get("SELECT id FROM nodes WHERE name = ?", []any{name}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		id, err = t.insert("INSERT INTO nodes (name) VALUES (?)", name)
	}
	if err == nil {
		t.nodes[name] = id
	}
	return id, err
}
