package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// sentryDelay is how long a command runs before the sentry is told of it. Most
// are over by then, and cost the node nothing but themselves.
const sentryDelay = 5 * time.Millisecond

// A Sentry is one shell that watches the commands of a whole connection: if
// that breaks, it ends all that are going, and it ends single ones when it is
// told to. It saves each command a watcher of its own. It is safe for concurrent
// use.
type Sentry struct {
	// Start starts its shell. Go runs a function in a goroutine that ends soon
	// after the connection has, or returns false if that is over already.
	Start Start
	Go    func(func()) bool

	mu      sync.Mutex
	watched map[string]string      // what it is to be told of each command
	asked   map[string]chan string // who waits for the end of which
	queue   []string               // lines to be sent
	wake    chan struct{}          // there are some; nil: there is no shell
	ready   bool                   // the shell has read its text
	failed  time.Time              // when one could not be started
}

var errNoSentry = errors.New("nobody watches over the connection")

// sentryAgain is how long a sentry that could not be started is not tried again.
const sentryAgain = 2 * time.Second

// sentry is its text. Each command it is told of is an entry of l: its mark,
// process, group and the time at which the process was started.
const sentry = `l=
D(){ p=${1#*:};g=${p#*:};p=${p%%:*};t=${g#*:};g=${g%%:*};n=${1%%:*};m=1;f=;S $p&&[ "$t" = "$T" ]||return;L;}
while read -r o n p g;do
k=;y=;for e in $l;do if [ "${e%%:*}" = "$n" ];then y=$e;else k="$k $e";fi;done
case $o in
+)S $p&&k="$k $n:$p:$g:$T";;
k)(D "$y";echo "$n left $f")&
esac
l=$k
done
for e in $l;do D $e& done
wait
`

func sentryText(nonce string) string {
	// Once it has said that it is there, it is relied on: the connection that
	// breaks before its next word must not end it.
	return fmt.Sprintf("_loom(){\ntrap '' PIPE HUP\necho %s $$ $$;echo %[1]s $$ $$ >&2\neval %s 2>/dev/null\n}\n_loom;exit\n", mark(nonce), Quote(ladder+sentry))
}

// Up reports whether its shell is there and listens.
func (s *Sentry) Up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// Watched returns how many commands it has been told of that are still going.
func (s *Sentry) Watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 {
		return 0 // not told yet
	}
	return len(s.watched)
}

// Begin starts its shell, if it has none. It does not wait.
func (s *Sentry) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
}

// begin is Begin. s.mu is held.
func (s *Sentry) begin() {
	if s.wake != nil || time.Since(s.failed) < sentryAgain {
		return
	}
	wake := make(chan struct{}, 1)
	s.wake, s.queue = wake, nil
	for _, line := range s.watched {
		s.send(line)
	}
	if !s.Go(func() { s.stand(wake) }) {
		s.wake = nil
	}
}

// watch has it watch a command. It does not wait.
func (s *Sentry) watch(mark string, pid, group int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched == nil {
		s.watched = map[string]string{}
	}
	line := fmt.Sprintf("+ %s %d %d\n", mark, pid, group)
	s.watched[mark] = line
	if s.wake != nil {
		s.send(line)
	} else {
		s.begin()
	}
}

// send queues a line. s.mu is held.
func (s *Sentry) send(line string) {
	s.queue = append(s.queue, line)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// forgetAfter is how many commands end before the sentry hears of it at the
// latest. It does no harm that it hears late: a process that is no longer the one
// of which it was told it leaves alone.
const forgetAfter = 16

// forget says that a command has ended.
func (s *Sentry) forget(mark string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.watched[mark]; !ok {
		return
	}
	delete(s.watched, mark)
	if s.wake == nil {
		return
	}
	if line := "- " + mark + "\n"; len(s.queue) < forgetAfter {
		s.queue = append(s.queue, line) // and goes out with the next
	} else {
		s.send(line)
	}
}

// end ends a command and returns what is left of it. The error means that
// there is no sentry, or that it does not answer.
func (s *Sentry) end(ctx context.Context, mark string, pid, group int) (left string, err error) {
	s.mu.Lock()
	up := s.wake != nil && s.watched[mark] != ""
	s.mu.Unlock()
	if !up {
		s.watch(mark, pid, group)
	}
	answer := make(chan string, 1)
	s.mu.Lock()
	if s.wake == nil {
		s.mu.Unlock()
		return "", errNoSentry
	}
	if s.asked == nil {
		s.asked = map[string]chan string{}
	}
	s.asked[mark] = answer
	s.send("k " + mark + "\n")
	s.mu.Unlock()

	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asked, mark)
	}()
	select {
	case left, ok := <-answer:
		if !ok {
			return "", errNoSentry
		}
		return left, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// stand is the life of one shell.
func (s *Sentry) stand(wake chan struct{}) {
	err := s.serve(wake)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake, s.ready = nil, false
	for mark, answer := range s.asked {
		close(answer)
		delete(s.asked, mark)
	}
	if err == nil && len(s.watched) > 0 {
		s.begin() // somebody ended it: another takes its place
	} else if err != nil {
		s.failed = time.Now()
	}
}

// serve starts a shell and gives it its lines. It returns nil if it was ready
// once.
func (s *Sentry) serve(wake chan struct{}) error {
	nonce := newNonce()
	r := &run{start: s.Start, c: new(Command)}
	f, err := r.launch(context.Background(), nonce, func(Process) []byte { return []byte(sentryText(nonce)) }, &answers{s: s}, nil, false)
	if err != nil {
		return err
	}
	defer func() {
		f.p.Close()
		<-f.over
	}()
	select {
	case <-f.out.ready: // until it has read all of its text, it might take more for a part of that
	case <-f.p.Done():
		return errNoSentry
	}
	if !f.out.found {
		return errNoSentry
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	for {
		select {
		case <-wake:
		case <-f.p.Done():
			return nil
		}
		s.mu.Lock()
		lines, n := strings.Join(s.queue, ""), len(s.queue)
		s.mu.Unlock()
		if _, err := io.WriteString(f.p, lines); err != nil {
			return nil
		}
		s.mu.Lock()
		s.queue = s.queue[n:]
		s.mu.Unlock()
	}
}

// answers takes what the shell says, line by line.
type answers struct {
	s    *Sentry
	part []byte
}

func (a *answers) Write(b []byte) (int, error) {
	a.part = append(a.part, b...)
	for {
		line, rest, ok := bytes.Cut(a.part, []byte{'\n'})
		if !ok {
			return len(b), nil
		}
		a.s.answer(string(line))
		a.part = rest
	}
}

func (s *Sentry) answer(line string) {
	mark, left, ok := strings.Cut(line, " left")
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer := s.asked[mark]; ok && answer != nil {
		answer <- strings.TrimSpace(left)
		delete(s.asked, mark)
	}
}
