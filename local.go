package loom

import (
	"context"
	"errors"
)

// Local is a Dialer.
type Local struct{}

// Dial opens nothing.
func (Local) Dial(ctx context.Context, n *Node) (Conn, error) { return nil, errors.New("soon") }
