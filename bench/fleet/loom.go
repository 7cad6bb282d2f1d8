package main

import (
	"context"
	"errors"

	"github.com/dustinlacewell/loom"
)

type loomRunner struct{}

func newLoom(spec) *loomRunner { return &loomRunner{} }
func (*loomRunner) round() (int, error) {
	_ = context.Background()
	return 0, errors.New("the transport is not there")
}
func (*loomRunner) close() error { return (&loom.Pool{}).Close() }
