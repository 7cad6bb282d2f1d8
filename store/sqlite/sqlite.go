// Package sqlite is a loom.Store in one file, for one process.
//
// What a call has written is on the disk when it returns: the file outlives
// kill -9 at any moment, and a power cut. Calls that come at the same time share
// one transaction. Readers never wait for writers, nor writers for readers.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/durable"
	"github.com/dustinlacewell/loom/internal/ledger"
)

// Options say how a store is used. The zero value is what most want.
type Options struct {
	TTL  time.Duration    // how long an instance may be silent; 0: 10 s
	Busy time.Duration    // how long to wait for another program's lock; 0: 5 s
	Zone *time.Location   // in which days are counted; nil: local
	Now  func() time.Time // the store's clock; nil: time.Now
}

// Open opens the store in a file, which is created if it is not there, with its
// directory. Both are the owner's alone then. Only one process can have it open.
// A file that is not a store, is damaged, or was written by a newer version, is
// refused and left as it is.
func Open(ctx context.Context, file string) (loom.Store, error) {
	s, err := Options{}.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// A Store is what Open opens.
type Store struct {
	options Options
	file    string
	lock    *os.File
	opened  os.FileInfo
	writing *sql.DB
	reading *sql.DB
	codec   ledger.Codec
	watches ledger.Watches

	requests chan *request
	closing  chan struct{}
	stopped  chan struct{} // the writer has ended
	once     sync.Once

	away    time.Time   // when an instance of an earlier process was last alive; zero: not known
	failing atomic.Bool // the last write came to nothing

	mu        sync.Mutex
	instances map[string]time.Time // when each was last heard of, by the monotonic clock
	lived     time.Time            // when it was last written that one was alive
	up        time.Time            // when the first write after a failed one succeeded, the last time
}

var (
	_ loom.Store    = (*Store)(nil)
	_ loom.Backuper = (*Store)(nil)
	_ loom.Sizer    = (*Store)(nil)
	_ loom.Watcher  = (*Store)(nil)
)

// Open is Open with options.
func (o Options) Open(ctx context.Context, file string) (*Store, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s := &Store{options: o, file: file, instances: map[string]time.Time{},
		requests: make(chan *request, most), closing: make(chan struct{}), stopped: make(chan struct{})}
	if s.lock, err = lock(file); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		_ = s.release()
		if damaged(err) || primary(err) != 0 {
			return nil, s.explain(err)
		}
		return nil, fmt.Errorf("open store %s: %w", file, err)
	}
	go s.run() // Close waits for it
	return s, nil
}

// open opens the file, once it is locked.
func (s *Store) open(ctx context.Context) error {
	_, err := os.Lstat(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(ctx, s.file)
	} else if err == nil {
		err = check(s.file)
	}
	if err != nil {
		return err
	}
	if s.opened, err = os.Stat(s.file); err != nil {
		return err
	}
	if s.opened.Mode().Perm() != 0o600 {
		if err := os.Chmod(s.file, 0o600); err != nil {
			return err
		}
	}
	busy := fmt.Sprintf("busy_timeout(%d)", s.busy().Milliseconds())
	if s.writing, err = sql.Open("sqlite", address(s.file, busy, "journal_mode(wal)", "synchronous(full)",
		"foreign_keys(on)", "journal_size_limit(67108864)", "cache_size(-16000)")); err != nil {
		return err
	}
	if s.reading, err = sql.Open("sqlite", address(s.file, busy, "query_only(on)", "cache_size(-8000)")); err != nil {
		return err
	}
	s.reading.SetMaxOpenConns(4)
	s.reading.SetMaxIdleConns(4)
	if err := migrate(ctx, s.writing); err != nil {
		return err
	}
	var n int // each table can be read
	for _, table := range []string{"meta", "jobs", "nodes", "runs", "ticks", "results", "output", "days", "actions", "said"} {
		if err := s.reading.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT * FROM "+table+" LIMIT 1)").Scan(&n); err != nil {
			return err
		}
	}
	var alive sql.NullInt64
	err = s.reading.QueryRowContext(ctx, "SELECT max(at) FROM (SELECT value AS at FROM meta WHERE name = 'alive' "+
		"UNION ALL SELECT * FROM (SELECT queued FROM runs ORDER BY seq DESC LIMIT 1))").Scan(&alive)
	s.away = moment(alive)
	return err
}

// Close waits for what is being written and lets go of the file.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		<-s.stopped
		err = s.release()
	})
	return s.explain(err)
}

func (s *Store) release() error {
	var errs []error
	for _, db := range []*sql.DB{s.reading, s.writing} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

func (s *Store) now() time.Time {
	if s.options.Now != nil {
		return s.options.Now()
	}
	return time.Now()
}

func (s *Store) busy() time.Duration { return cmp.Or(s.options.Busy, 5*time.Second) }

func (s *Store) zone() *time.Location {
	if s.options.Zone != nil {
		return s.options.Zone
	}
	return time.Local
}

// Watch is part of loom.Watcher. No other process writes to the file.
func (s *Store) Watch(run string) (news <-chan struct{}, done func()) { return s.watches.Watch(run) }

// Backup writes a copy of the store, as it is at one moment, to a file that must
// not exist yet. The copy is a whole store, for its owner alone. Others read
// and write meanwhile.
func (s *Store) Backup(ctx context.Context, file string) error {
	if err := s.backup(ctx, file); err != nil {
		return fmt.Errorf("back up to %s: %w", file, s.explain(err))
	}
	return nil
}

func (s *Store) backup(ctx context.Context, file string) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%w: name another file", fs.ErrExist)
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".part-*") // 0600, and empty: what VACUUM INTO accepts
	if err != nil {
		return err
	}
	part := f.Name()
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	conn, err := s.reading.Conn(ctx) // it has the file open, even if that was deleted
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "PRAGMA query_only = off"); err != nil {
		return err
	}
	defer func() {
		_, off := conn.ExecContext(context.Background(), "PRAGMA query_only = on")
		err = errors.Join(err, off)
	}()
	if _, err := conn.ExecContext(ctx, "VACUUM INTO ?", part); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(part, file); err != nil { // unlike a rename, it does not replace
		return err
	}
	return errors.Join(os.Remove(part), durable.SyncDir(filepath.Dir(file)))
}

// Check reads all of the file and returns what is wrong with it.
func (s *Store) Check(ctx context.Context) error {
	rows, err := s.reading.QueryContext(ctx, "PRAGMA integrity_check(20)")
	var errs []error
	err = every(rows, err, func(r *sql.Rows) error {
		var text string
		if err := r.Scan(&text); err != nil {
			return err
		}
		if text != "ok" {
			errs = append(errs, errors.New(text))
		}
		return nil
	})
	if err := s.explain(err); err != nil {
		return err
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %s: the file is damaged: stop loom, keep a copy, then put a backup in its place: %w",
			loom.ErrStoreDown, s.file, errors.Join(errs...))
	}
	return nil
}

// Size returns the bytes that the store's file and its log take.
func (s *Store) Size(context.Context) (int64, error) {
	info, err := os.Stat(s.file)
	if err != nil {
		return 0, s.explain(err)
	}
	size := info.Size()
	if wal, err := os.Stat(s.file + "-wal"); err == nil {
		size += wal.Size()
	}
	return size, nil
}
