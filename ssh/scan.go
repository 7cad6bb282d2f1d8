package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/dustinlacewell/loom"
	"golang.org/x/crypto/ssh"
)

var _ loom.HostKeeper = (*Dialer)(nil)

// keyKinds are the kinds of host keys that a node is asked for, one by one: it shows
// one of each.
func keyKinds() [][]string {
	return [][]string{
		{ssh.KeyAlgoED25519},
		{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521},
		{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
	}
}

// ShowHostKeys is part of loom.HostKeeper.
func (d *Dialer) ShowHostKeys(ctx context.Context, n *loom.Node) ([]loom.HostKey, error) {
	_, shown, err := d.shown(ctx, n)
	return publicOf(shown), err
}

// TrustHostKeys is part of loom.HostKeeper.
func (d *Dialer) TrustHostKeys(ctx context.Context, n *loom.Node, fingerprints ...string) ([]loom.HostKey, error) {
	t, shown, err := d.shown(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, print := range fingerprints {
		if !slices.ContainsFunc(shown, func(k shownKey) bool { return k.Fingerprint == print }) {
			return nil, t.fail(ClassHostKeyChanged, fmt.Errorf("it shows no key %s, but %s: nothing was recorded", print, fingerprintsOf(shown)))
		}
	}
	wanted := slices.DeleteFunc(shown, func(k shownKey) bool {
		return len(fingerprints) > 0 && !slices.Contains(fingerprints, k.Fingerprint)
	})
	for _, k := range wanted {
		if k.Changed {
			check, err := d.newHostKeyCheck(t)
			if err != nil {
				return nil, err
			}
			return nil, check.check("", nil, k.key) // which says it all
		}
	}
	var added []shownKey
	for _, k := range wanted {
		if k.Known != "" {
			continue
		}
		file, err := d.hostKeys.record(t, k.key)
		if err != nil {
			return publicOf(added), t.fail(ClassHostKeyUnknown, fmt.Errorf("the host key could not be recorded: %w", err))
		}
		d.log().Info("recorded a host key", "node", t.node, "host", t.name, "key", k.Type, "fingerprint", k.Fingerprint, "file", file)
		k.Known = file
		added = append(added, k)
	}
	return publicOf(added), nil
}

// A shownKey is a key that a node has shown.
type shownKey struct {
	loom.HostKey
	key ssh.PublicKey
}

func publicOf(keys []shownKey) []loom.HostKey {
	var all []loom.HostKey
	for _, k := range keys {
		all = append(all, k.HostKey)
	}
	return all
}

func fingerprintsOf(keys []shownKey) string {
	var all []string
	for _, k := range keys {
		all = append(all, k.Type+" "+k.Fingerprint)
	}
	return strings.Join(all, ", ")
}

// shown asks a node for its keys, of each kind.
func (d *Dialer) shown(ctx context.Context, n *loom.Node) (*target, []shownKey, error) {
	t, err := d.resolve(n)
	if err != nil {
		return nil, nil, err
	}
	check, err := d.newHostKeyCheck(t)
	if err != nil {
		return nil, nil, err
	}
	var via *hop
	if len(t.jump) > 0 {
		if via, err = d.hop(ctx, t); err != nil {
			return nil, nil, err
		}
		defer d.leave(via)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.connect, fmt.Errorf("%w (%v)", errConnectTimeout, t.connect))
	defer cancel()
	var all []shownKey
	var last error
	for _, kind := range keyKinds() {
		key, err := d.showOne(ctx, t, via, kind)
		if err != nil {
			last = err
			if e := (*Error)(nil); errors.As(err, &e) && e.Class == ClassNegotiation {
				continue // it has none of this kind
			}
			return nil, nil, err
		}
		all = append(all, shownKey{check.standing(key), key})
	}
	if len(all) == 0 {
		return nil, nil, last
	}
	return t, all, nil
}

// errShown ends a handshake in which the key was all that was wanted.
var errShown = errors.New("the key was shown")

// showOne asks a node for a key of one kind.
func (d *Dialer) showOne(ctx context.Context, t *target, via *hop, kind []string) (ssh.PublicKey, error) {
	raw, leave, err := d.reach(ctx, t, via)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer raw.Close() //nolint:errcheck // nothing was said on it that matters
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	var shown ssh.PublicKey
	a := &auth{d: d, t: t}
	w := &wire{Conn: raw}
	w.admit = func() error { return nil }
	conf := &ssh.ClientConfig{User: t.user, HostKeyAlgorithms: kind, ClientVersion: "SSH-2.0-Loom",
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			shown = key
			return errShown
		}}
	conf.Ciphers, conf.MACs, conf.KeyExchanges = t.ciphers, t.macs, t.kex
	conn, _, _, err := ssh.NewClientConn(w, t.String(), conf)
	if err == nil {
		_ = conn.Close()
	}
	if shown == nil {
		return nil, a.explain(ctx, w, err)
	}
	return shown, nil
}

// standing says how a key that was shown stands to those that are known.
func (c *hostKeyCheck) standing(key ssh.PublicKey) loom.HostKey {
	k := loom.HostKey{Type: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
	for _, known := range c.known {
		switch {
		case known.marker == "@cert-authority":
		case bytes.Equal(known.key.Marshal(), key.Marshal()):
			k.Known, k.Changed = known.place, known.marker != "" // a revoked one is not trusted
			return k
		case known.marker == "" && known.key.Type() == key.Type():
			k.Changed = true
		}
	}
	return k
}
