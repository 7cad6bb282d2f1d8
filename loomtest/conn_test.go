package loomtest_test

import (
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/loomtest"
)

// Both kinds of nodes are as good as others: this one really runs commands.
func TestRealConn(t *testing.T) {
	loomtest.TestConn(t, func(t *testing.T) loom.Conn { return loomtest.Real(t).Session(t).Conn })
}
