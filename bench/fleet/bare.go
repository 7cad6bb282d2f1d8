package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// A bareLoop is what one would write for the purpose with x/crypto/ssh alone:
// as many workers as nodes at once, host keys checked, output collected,
// connections kept. Everything else has to be compared with it.
type bareLoop struct {
	spec    spec
	guarded bool // as below
	config  *ssh.ClientConfig
	clients []*ssh.Client // by node; nil: not open
}

// guarded wraps a command so that the node ends it, with all that it has started,
// when the connection breaks or the caller hangs up: without that, sshd leaves
// it running. It is the shortest way that needs nothing but a shell, and it
// shows what that promise costs, which Loom gives for every command.
const guarded = `exec 3<&0; setsid sh -c 'true' </dev/null & c=$!
(cat <&3; kill -9 -- -$c) >/dev/null 2>&1 & w=$!
exec 3<&-; wait $c; rc=$?; kill $w; exit $rc`

func newBareLoop(s spec, guarded bool) (*bareLoop, error) {
	text, err := os.ReadFile(s.Key)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	known, err := knownhosts.New(s.KnownHosts)
	if err != nil {
		return nil, err
	}
	return &bareLoop{spec: s, guarded: guarded, clients: make([]*ssh.Client, len(s.Hosts)), config: &ssh.ClientConfig{
		User:              s.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		Timeout:           10 * time.Second,
	}}, nil
}

func (b *bareLoop) round() (ok int, err error) {
	errs := make([]error, len(b.clients))
	next := make(chan int)
	var workers sync.WaitGroup
	for range b.spec.Fanout {
		workers.Go(func() {
			for i := range next {
				errs[i] = b.run(i)
			}
		})
	}
	for i := range b.clients {
		next <- i
	}
	close(next)
	workers.Wait()
	for _, err := range errs {
		if err == nil {
			ok++
		}
	}
	return ok, errors.Join(errs...)
}

func (b *bareLoop) run(i int) error {
	if b.clients[i] == nil {
		c, err := ssh.Dial("tcp", net.JoinHostPort(b.spec.Hosts[i], strconv.Itoa(b.spec.Port)), b.config)
		if err != nil {
			return err
		}
		b.clients[i] = c
	}
	s, err := b.clients[i].NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	var stdout, stderr bytes.Buffer // one for both would need a lock, and buffers to copy with
	s.Stdout, s.Stderr = &stdout, &stderr
	command := "true"
	if b.guarded {
		command = guarded
		stdin, err := s.StdinPipe() // its end means that we are gone
		if err != nil {
			return err
		}
		defer stdin.Close()
	}
	if err := s.Run(command); err != nil {
		return fmt.Errorf("%s: %w: %s", b.spec.Hosts[i], err, stderr.Bytes())
	}
	return nil
}

func (b *bareLoop) close() error {
	var errs []error
	for _, c := range b.clients {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
