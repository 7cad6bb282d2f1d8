package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/storetest"
)

func open(t *testing.T, dir string) loom.Store {
	t.Helper()
	s, err := Options{TTL: time.Second}.Open(t.Context(), filepath.Join(dir, "loom.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T)   { storetest.Run(t, open) }
func TestDurable(t *testing.T) { storetest.RunDurable(t, open) }
