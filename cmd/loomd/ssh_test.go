package main

import (
	"bytes"
	"context"
	"fmt"
	"os/user"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/tasks"
)

// TestServeOpenSSH has the daemon run a job on a real OpenSSH server.
func TestServeOpenSSH(t *testing.T) {
	t.Parallel()
	node := sshd.Start(t, sshd.Options{})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": fmt.Sprintf("nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nssh: {config: none, known_hosts: %s}\n", node.KnownHosts),
		"none":      "",
		"nodes.yaml": fmt.Sprintf("real: {ip: %s, port: %d, user: %s, identity: %s}\n",
			node.Address, node.Port, me.Username, node.Identity),
		"jobs/a.yaml": "jobs: {hello: {task: run, args: ['echo hello from $LOOM_NODE'], schedule: '* * * * * *', targets: real}}\n",
	})

	var log lockedBuffer
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		err := daemon.Run(ctx, daemon.Options{Tasks: tasks.Registry(), Dialer: &ssh.Dialer{}},
			[]string{"-c", filepath.Join(dir, "loom.yaml"), "--log-level", "debug"}, nil, &log, &log)
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	want := regexp.MustCompile(`msg="run ended" job=hello .*status=ok`)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && len(want.FindAllString(log.String(), -1)) < 2 {
		<-tick.C
	}
	stop()
	wg.Wait()
	if text := log.String(); len(want.FindAllString(text, -1)) < 2 || !regexp.MustCompile(`text="hello from real"`).MatchString(text) {
		t.Errorf("the job did not run twice:\n%s\nsshd:\n%s", text, node.Log())
	}
}

// A lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
