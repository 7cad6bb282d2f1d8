//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package cli

import "context"

// A keyboard reads single keys of a terminal. This system has none.
type keyboard struct{}

func (p *Program) newKeyboard() *keyboard { return nil }

func (k *keyboard) key(context.Context) (byte, error) { return 4, nil }
