package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/dustinlacewell/loom/internal/sshserver"
)

// A fleet is nodes inside this process, for the demo.
type fleet struct {
	nodes  []fleetNode
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type fleetNode struct {
	name, group string
	port        int
}

// startFleet starts n nodes whose homes, keys and known_hosts are below dir.
func startFleet(ctx context.Context, dir string, n int) (f *fleet, err error) {
	client, err := writeKey(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, err
	}
	f = new(fleet)
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx)) // they go on while the work on them ends
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	var known strings.Builder
	for i := range n {
		node := fleetNode{name: fmt.Sprintf("web%d", i+1), group: "web"}
		if i >= (n+1)/2 {
			node = fleetNode{name: fmt.Sprintf("db%d", i-(n+1)/2+1), group: "db"}
		}
		home := filepath.Join(dir, "fleet", node.name)
		if err := furnish(home, node.name); err != nil {
			return f, err
		}
		machine := &sshserver.Machine{Home: home}
		server := &sshserver.Server{
			Exec: machine.Exec, SFTP: machine.SFTP,
			Authorized: func(_ string, key ssh.PublicKey) bool { return bytes.Equal(key.Marshal(), client.Marshal()) },
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return f, fmt.Errorf("the demo's machines need ports of 127.0.0.1: %w", err)
		}
		f.wg.Go(func() { _ = server.Serve(ctx, l) }) // it ends with the demo
		address := l.Addr().String()
		node.port = l.Addr().(*net.TCPAddr).Port
		fmt.Fprintln(&known, knownhosts.Line([]string{address}, server.HostKey()))
		f.nodes = append(f.nodes, node)
	}
	return f, os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(known.String()), 0o600)
}

// furnish makes what is on a node. The second database lacks its data.
func furnish(home, name string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if !strings.HasPrefix(name, "db") || name == "db2" {
		return nil
	}
	data := filepath.Join(home, "data")
	return errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "shop.sql"), []byte("CREATE TABLE orders (id int);\n"), 0o600))
}

// stop ends the nodes, and what runs on them.
func (f *fleet) stop() {
	f.cancel()
	f.wg.Wait()
}

func (f *fleet) names() []string {
	var all []string
	for _, n := range f.nodes {
		all = append(all, n.name)
	}
	return all
}

// nodesFile is the fleet as a nodes file has it.
func (f *fleet) nodesFile() string {
	var b strings.Builder
	for _, n := range f.nodes {
		fmt.Fprintf(&b, "%s: {ip: 127.0.0.1, port: %d, user: demo, identity: keys/id_ed25519, groups: [%s]}\n", n.name, n.port, n.group)
	}
	return b.String()
}

// writeKey makes a key to log in with.
func writeKey(dir string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "loom demo")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "id_ed25519"), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}
