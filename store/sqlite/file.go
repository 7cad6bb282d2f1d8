package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/durable"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID stands in the header of every file of ours: "Loom".
const applicationID = 0x4c6f6f6d

// lock makes sure that no other process has the store, until f is closed.
func lock(file string) (*os.File, error) {
	f, err := os.OpenFile(file+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	ok, err := tryLock(f)
	if ok {
		_ = f.Truncate(0) // the number is only for people
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		return f, nil
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the store by %s: %w", f.Name(), err)
	}
	by := "another process"
	if text, _ := io.ReadAll(io.LimitReader(f, 20)); len(text) > 0 {
		by = "process " + strings.TrimSpace(string(text))
	}
	_ = f.Close()
	return nil, fmt.Errorf("%w: %s is in use by %s: only one loom can write it; stop that one, or ask it through its socket", loom.ErrStoreDown, file, by)
}

// check refuses a file that is not a store, before SQLite touches it.
func check(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	refuse := func(what string) error {
		return fmt.Errorf("%w: %s %s, and was left as it is: put a backup in its place, or move it away to begin anew",
			loom.ErrStoreDown, file, what)
	}
	if !info.Mode().IsRegular() {
		return refuse("is not a regular file")
	}
	head := make([]byte, 100)
	switch n, err := io.ReadFull(f, head); {
	case n == 0 && errors.Is(err, io.EOF):
		return refuse("is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(fmt.Sprintf("is cut short: it has %d bytes", n))
	case err != nil:
		return fmt.Errorf("%w: read %s: %w", loom.ErrStoreDown, file, err)
	}
	if !bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		return refuse("is not a SQLite database")
	}
	if binary.BigEndian.Uint32(head[68:]) != applicationID {
		return refuse("is a SQLite database, but not a store of loom's")
	}
	size := int64(binary.BigEndian.Uint16(head[16:]))
	if size == 1 {
		size = 64 << 10
	}
	wal, _ := os.Stat(file + "-wal") // with a log, the file may be in the middle of a change
	if pages := int64(binary.BigEndian.Uint32(head[28:])); info.Size() < pages*size && (wal == nil || wal.Size() == 0) {
		return refuse(fmt.Sprintf("is cut short: it has %d of %d bytes", info.Size(), pages*size))
	}
	return nil
}

// create makes a new store: first beside its place, so that there is never half
// of one there.
func create(ctx context.Context, file string) error {
	part := file + ".new"
	for _, old := range []string{part, part + "-wal", part + "-shm", part + "-journal"} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("create the store: %w", err)
		}
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create the store: %w", err)
	}
	_ = f.Close()
	db, err := sql.Open("sqlite", address(part, "auto_vacuum(incremental)", "synchronous(full)"))
	if err != nil {
		return fmt.Errorf("create store %s: %w", file, err)
	}
	if err = migrate(ctx, db); err == nil { // auto_vacuum only counts if nothing was written before
		_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	}
	err = errors.Join(err, db.Close())
	if err != nil {
		return fmt.Errorf("create store %s: %w", file, err)
	}
	// A log of a store that was here before must not be taken for the new one's.
	for _, old := range []string{file + "-wal", file + "-shm"} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("create the store: %w", err)
		}
	}
	if err := os.Rename(part, file); err != nil {
		return fmt.Errorf("create the store: %w", err)
	}
	return durable.SyncDir(filepath.Dir(file))
}

// address returns the name by which the driver opens file, with pragmas.
func address(file string, pragmas ...string) string {
	u := url.URL{Scheme: "file", Path: file, RawQuery: url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}.Encode()}
	return u.String()
}

// migrate brings the schema up to date, or refuses it if it is newer.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	have, known, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return err
	case have > known:
		return fmt.Errorf("it was written by a newer loom: its schema is %d and this loom knows those up to %d; "+
			"use the newer one, or a backup from before", have, known)
	case have == known:
		return nil
	}
	_, err = p.Up(ctx)
	return err
}
