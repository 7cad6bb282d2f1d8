package loom_test

import (
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/loomtest"
)

func TestLocalConn(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	loomtest.TestConn(t, func(t *testing.T) loom.Conn {
		t.Helper()
		conn, err := loom.Local{}.Dial(t.Context(), &loom.Node{Name: "here"})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	})
}
