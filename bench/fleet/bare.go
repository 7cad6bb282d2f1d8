package main

import (
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
	config  *ssh.ClientConfig
	clients []*ssh.Client // by node; nil: not open
}

func newBareLoop(s spec) (*bareLoop, error) {
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
	return &bareLoop{spec: s, clients: make([]*ssh.Client, len(s.Hosts)), config: &ssh.ClientConfig{
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
	output, err := s.CombinedOutput("true")
	if err != nil || len(output) > 0 {
		return fmt.Errorf("%s: %w: %s", b.spec.Hosts[i], err, output)
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
