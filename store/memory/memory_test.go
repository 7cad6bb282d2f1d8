package memory_test

import (
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
	"github.com/dustinlacewell/loom/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T, string) loom.Store { return &memory.Store{TTL: time.Second} })
}
