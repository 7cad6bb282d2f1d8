package shell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	noiseLimit = 256 << 10 // what may come before the marker
	quoteLimit = 512       // what an error shows of it
	saidLimit  = 4 << 10   // what a watcher may say
)

// A follower reads what one shell prints.
type follower struct {
	p        Process
	out, err stream
	over     chan struct{} // closed when both streams have ended
	open     atomic.Int32  // streams that have not

	said *bytes.Buffer // what a watcher printed; after over
	late bool          // the marker did not come in time

	// What became of sudo's question for a password; after over.
	prompted, refused bool
}

// A stream passes on what comes after the marker.
type stream struct {
	read  func([]byte) (int, error)
	mark  []byte
	dst   io.Writer
	mu    *sync.Mutex       // held while writing, if not nil
	heard func(head []byte) // called with all that has come so far, until the marker comes

	ready chan struct{} // closed when the marker has come, or will not; nil: nobody asks
	found bool          // it has; after ready
	place string        // what follows it on its line; after ready
	head  []byte        // what came before it; after ready

	n   atomic.Int64 // bytes so far
	err error        // of dst; after the end
}

// launch starts a shell, as the command's user, and has it run the script that
// write returns. If quiet is true, its standard error has no marker.
func (r *run) launch(ctx context.Context, nonce string, write func(Process) []byte, stdout, stderr io.Writer, quiet bool) (*follower, error) {
	line := Line
	asks := r.c.User != "" && r.c.Password != ""
	if r.c.User != "" && !asks {
		line = "exec sudo -n -H -u " + r.c.User + " -- /bin/sh"
	}
	p, err := r.start(ctx, line)
	if err != nil {
		return nil, err
	}
	text := write(p)
	f := &follower{p: p, over: make(chan struct{})}
	f.open.Store(2)
	f.out = stream{read: p.Read, mark: []byte(mark(nonce)), dst: stdout, ready: make(chan struct{})}
	f.err = stream{read: p.ReadErr, mark: f.out.mark, dst: stderr, found: quiet}
	if r.c.Merged {
		f.out.mu = new(sync.Mutex)
		f.err.mu = f.out.mu
	}
	if asks {
		f.err.heard = f.dialogue(nonce, string(text), r.c.Password)
		text = []byte(askingSudo(nonce, r.c.User))
	}
	go f.copy(&f.out)
	go f.copy(&f.err)
	_, _ = p.Write(text) // if it does not arrive, no marker comes
	return f, nil
}

// guarding launches a watcher.
func (r *run) guarding(ctx context.Context, nonce, text string) (*follower, error) {
	said := new(bytes.Buffer)
	f, err := r.launch(ctx, nonce, func(Process) []byte { return []byte(text) }, &limited{said, saidLimit}, nil, false)
	if err == nil {
		f.said = said
	}
	return f, err
}

// askingSudo is a script that becomes a shell that sudo has started. Its
// prompts, and the word that sudo asks no more, can be told from all else.
func askingSudo(nonce, user string) string {
	return fmt.Sprintf("_loom(){\nexec sudo -S -p ask-%s -H -u %s -- /bin/sh -c 'echo run-%[1]s >&2;exec /bin/sh'\n}\n_loom;exit\n", nonce, user)
}

// dialogue returns a function that answers sudo, which writes to standard
// error: once with the password, and with the script when it has started the
// shell. A second question means that the password was wrong.
func (f *follower) dialogue(nonce, text, password string) func([]byte) {
	ask, run := []byte("ask-"+nonce), []byte("run-"+nonce)
	sent := false
	return func(head []byte) {
		switch n := bytes.Count(head, ask); {
		case sent || f.refused:
		case bytes.Contains(head, run):
			sent = true
			_, _ = io.WriteString(f.p, text)
		case n > 1:
			f.refused = true
			go func() { _ = f.p.CloseWrite() }() // sudo gives up
		case n == 1 && !f.prompted:
			f.prompted = true
			_, _ = io.WriteString(f.p, password+"\n")
		}
	}
}

// copy reads one stream to its end.
func (f *follower) copy(s *stream) {
	s.copy()
	if f.open.Add(-1) == 0 {
		close(f.over)
	}
}

// count says how much has been read.
func (f *follower) count() int64 { return f.out.n.Load() + f.err.n.Load() }

// place returns the process and the process group of the shell, if it has
// started.
func (f *follower) place() (pid, group int, ok bool) {
	select {
	case <-f.out.ready:
	default:
		return 0, 0, false
	}
	if !f.out.found {
		return 0, 0, false
	}
	n, _ := fmt.Sscanf(f.out.place, "%d %d", &pid, &group)
	return pid, group, n == 2 && pid > 1 && group > 1
}

// clean returns the beginning of what came before the marker, for an error to
// quote, without our own words.
func (f *follower) clean() string {
	b := append(bytes.Clone(f.err.head), f.out.head...)
	if len(b) > quoteLimit {
		b = append(b[:quoteLimit:quoteLimit], "..."...)
	}
	nonce := strings.TrimPrefix(string(f.out.mark), "loom-")
	return strings.ReplaceAll(strings.ReplaceAll(string(b), "ask-"+nonce, ""), "run-"+nonce+"\n", "")
}

// copy passes on what comes after the marker, until the stream ends. If dst
// fails, the rest is dropped.
func (s *stream) copy() {
	buf := make([]byte, 128) // most commands print little
	for {
		n, err := s.read(buf)
		if n > 0 {
			s.n.Add(int64(n))
			s.take(buf[:n])
		}
		if err != nil {
			break
		}
		if n == len(buf) && n < 64<<10 {
			buf = make([]byte, 4*n)
		}
	}
	if !s.found && s.ready != nil {
		close(s.ready)
	}
}

func (s *stream) take(b []byte) {
	if !s.found {
		if b = s.seek(b); len(b) == 0 {
			return
		}
	}
	if s.dst == nil || s.err != nil {
		return
	}
	if s.mu != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	_, s.err = s.dst.Write(b)
}

// seek looks for the line with the marker, and returns what follows it.
func (s *stream) seek(b []byte) []byte {
	head := b                              // most often, all of it comes at once
	if n := len(s.head); n >= noiseLimit { // keep the beginning and what may be half a marker
		s.head = append(s.head[:noiseLimit/2], s.head[n-noiseLimit/4:]...)
	}
	if len(s.head) > 0 {
		s.head = append(s.head, b...)
		head = s.head
	}
	at := bytes.Index(head, s.mark)
	var end int
	if at >= 0 {
		end = bytes.IndexByte(head[at:], '\n')
	}
	if at < 0 || end < 0 {
		if len(s.head) == 0 {
			s.head = bytes.Clone(b)
		}
		if s.heard != nil {
			s.heard(s.head)
		}
		return nil
	}
	s.place = string(head[at+len(s.mark) : at+end])
	s.head, s.found = bytes.Clone(head[:at]), true
	if s.ready != nil {
		close(s.ready)
	}
	return head[at+end+1:]
}

// limited keeps the beginning of what is written to it.
type limited struct {
	b    *bytes.Buffer
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(0, l.most-l.b.Len()))])
	return len(p), nil
}
