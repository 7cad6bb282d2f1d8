package loom

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustinlacewell/loom/internal/shell"
)

// Resumable returns the same session for commands that outlive the connection
// and Loom itself, if the session has a Claim; else it returns s. Tasks use it for
// their payload: what must not be done twice and may take long.
//
// Each command that is run by it gets a name: the claim and a number, counted
// over all sessions that were made from s. The node starts a command of that name
// only once. If it was started before, be it over a connection that broke or by
// a Loom that is no more, Exec attaches to it: it gets all of its output from the
// beginning and its exit status. So a task that is applied again under the same
// claim must run the same commands in the same order, and one after another.
//
// If the connection breaks, Exec connects and attaches again until ctx ends, and
// goes on where the output stopped. The end of ctx ends the command, as ever; if
// the node can not be reached then, it ends the command by itself at ctx's
// deadline. The error wraps ErrLost if it can not be found out how the command
// ended. It is then never started again under this claim.
func (s *Session) Resumable() *Session {
	if s.Claim == "" {
		return s
	}
	if s.claims == nil {
		s.claims = new(claims)
	}
	as := *s
	as.claimed = true
	return &as
}

// Acknowledge tells the node that what the session's claims did is known and
// kept, so that it can delete their files. Those of commands that are lost stay,
// for a person to look at. What is never acknowledged is deleted after a week.
func (s *Session) Acknowledge(ctx context.Context) error {
	if s.claims == nil {
		return nil
	}
	return forget(ctx, s.Conn, s.claims.take())
}

// claims are the commands of a session that were claimed.
type claims struct {
	node  *spools // what is known of the node, if a pool keeps it
	again bool    // an earlier Loom may have run them

	mu    sync.Mutex
	n     int
	ended []claimed
}

// A claimed is one command whose end is known.
type claimed struct {
	name     string
	user     string // whose spool it is in
	password Secret
	bytes    int64 // of its output
}

// next returns the number of a command.
func (c *claims) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (c *claims) add(done claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = append(c.ended, done)
}

func (c *claims) take() []claimed {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.ended
	c.ended = nil
	return all
}

// spools remember what is to be deleted on a node, and when old claims were last
// looked for. The zero value is ready. They are safe for concurrent use.
type spools struct {
	mu     sync.Mutex
	forget []claimed
	swept  map[string]time.Time // by user
}

// sweepEvery is how often a node is asked to look for old claims.
const sweepEvery = 6 * time.Hour

// forgetAtOnce is how many claims one command deletes at most. Small ones wait
// until there are a few, since to delete them takes the node a process.
const (
	forgetAtOnce = 200
	forgetFew    = 8
	forgetBytes  = 1 << 20
)

func (k *spools) add(all []claimed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget = append(k.forget, all...)
}

// take returns claims of one user to be deleted, and whether it is time to look
// for old ones.
func (k *spools) take(user string) (names []string, sweep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	few, bytes := 0, int64(0)
	for _, c := range k.forget {
		if c.user == user {
			few, bytes = few+1, bytes+c.bytes
		}
	}
	if few >= forgetFew || bytes >= forgetBytes {
		names, k.forget = ofUser(k.forget, user)
	}
	if at, ok := k.swept[user]; !ok || time.Since(at) > sweepEvery {
		if k.swept == nil {
			k.swept = map[string]time.Time{}
		}
		k.swept[user] = time.Now()
		sweep = true
	}
	return names, sweep
}

// ofUser takes claims of one user out of others, as many as one command deletes.
func ofUser(all []claimed, user string) (names []string, rest []claimed) {
	rest = slices.DeleteFunc(all, func(c claimed) bool {
		if c.user != user || len(names) >= forgetAtOnce {
			return false
		}
		names = append(names, c.name)
		return true
	})
	return names, rest
}

// flush deletes all that is to be deleted.
func (k *spools) flush(ctx context.Context, conn Conn) error {
	k.mu.Lock()
	all := k.forget
	k.forget = nil
	k.mu.Unlock()
	return forget(ctx, conn, all)
}

// forget deletes the files of claims.
func forget(ctx context.Context, conn Conn, all []claimed) error {
	var errs []error
	for len(all) > 0 {
		first := all[0]
		var names []string
		names, all = ofUser(all, first.user)
		if err := conn.Exec(ctx, Command{Text: shell.Forget(names), User: first.user, Password: first.password}); err != nil {
			errs = append(errs, fmt.Errorf("delete what the node keeps of claims: %w", err))
		}
	}
	return errors.Join(errs...)
}

// A lostError says why it can not be found out how a command ended.
type lostError struct{ why string }

func (e *lostError) Error() string        { return e.why }
func (e *lostError) Is(target error) bool { return target == ErrLost }

// mostInput is how long the standard input of a claimed command may be.
const mostInput = 32 << 20

// resume runs a command under the next claim.
func (s *Session) resume(ctx context.Context, c Command) error {
	r := &resumption{session: s, cmd: c, claim: shell.Claim{
		Name:  s.Claim + "-" + strconv.Itoa(s.claims.next()),
		Nonce: strings.ToLower(rand.Text()),
		Command: shell.Command{Text: c.Text, Shell: c.Shell, Private: c.Private, Dir: c.Dir, Env: c.Env,
			Merged: shell.Same(c.Stdout, c.Stderr)},
	}}
	if c.Stdin != nil {
		data, err := readInput(ctx, c.Stdin)
		switch {
		case err != nil:
			return fmt.Errorf("read the standard input of %s: %w", abbreviate(c.Text), err)
		case len(data) > mostInput:
			return fmt.Errorf("the standard input of %s is longer than the %d bytes that the node keeps for a resumable command; put it in a file, or set resumable: false", abbreviate(c.Text), mostInput)
		}
		r.claim.Command.Stdin = shell.NewInput(data)
	}
	if err := r.claim.Check(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		// Where it can, Loom ends the command itself, which tells more.
		r.claim.Limit = time.Until(deadline) + 2*time.Second
	}
	r.out = shell.Frames{Nonce: r.claim.Nonce, To: c.Stdout, Frame: r.frame}
	r.err = shell.Frames{Nonce: r.claim.Nonce, To: c.Stderr, Frame: r.frameErr}
	err := r.run(ctx)
	if !errors.Is(err, ErrLost) && (r.started || !errors.Is(err, ErrUnreachable)) {
		s.claims.add(claimed{name: r.claim.Name, user: c.User, password: c.Password, bytes: r.out.N + r.err.N})
	}
	return err
}

// readInput reads all of a standard input, which the node is to have before it
// starts the command. A Read that does not heed ctx is left behind, as Command
// says.
func readInput(ctx context.Context, in io.Reader) ([]byte, error) {
	type read struct {
		data []byte
		err  error
	}
	done := make(chan read, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(in, mostInput+1))
		done <- read{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A resumption is one claimed command, followed over one connection after another.
type resumption struct {
	session  *Session
	cmd      Command
	claim    shell.Claim
	out, err shell.Frames

	started bool        // it was, or may have been
	heard   atomic.Bool // the node has answered over this connection
	last    []string    // the frame that says how it ended
	ended   error       // what became of ending it, if that was done while attached
}

// Between attempts to attach.
const (
	firstWait = 200 * time.Millisecond
	mostWait  = 15 * time.Second
)

// silentLimit is how often in a row an attach script may end without a word.
const silentLimit = 3

func (r *resumption) run(ctx context.Context) error {
	s, delay, silent := r.session, firstWait, 0
	for {
		before := r.out.N + r.err.N
		err := r.attach(ctx)
		broken := errors.Is(err, ErrLost) || errors.Is(err, ErrUnreachable)
		switch {
		case r.ended != nil && !r.alone():
			return r.ended
		case r.last != nil && (r.last[0] != shell.FrameExit || !slices.Contains(r.last, "part")):
			return r.judge()
		case ctx.Err() != nil:
			return r.endLate(ctx)
		case r.last != nil: // some of the output is still there
			delay = 0
		case errors.Is(err, shell.ErrClosed):
			return &lostError{"the connection was closed while the command ran; it goes on without"}
		case !r.started && !errors.Is(err, ErrLost) && err != nil && (!broken || !s.claims.again):
			return err
		case !broken:
			if silent++; silent >= silentLimit {
				return r.mute(err)
			}
		}
		r.started = true
		if r.out.N+r.err.N > before {
			delay, silent = firstWait, 0
		}
		if wait(ctx, delay) != nil {
			return r.endLate(ctx)
		}
		delay = min(max(2*delay, firstWait), mostWait)
	}
}

// alone reports whether the command is known to have ended by itself.
func (r *resumption) alone() bool {
	return len(r.last) > 3 && r.last[0] == shell.FrameExit && r.last[3] == "-"
}

// mute is the error of a node that does not say what became of the command.
func (r *resumption) mute(err error) error {
	if exit, ok := errors.AsType[*ExitError](err); ok || err == nil {
		said := "it said nothing"
		if ok && lastLine(exit.Stderr) != "" {
			said = "its last words were: " + lastLine(exit.Stderr)
		}
		return &lostError{"the node does not tell what became of the command; " + said}
	}
	return &lostError{"the node does not tell what became of the command: " + err.Error()}
}

// attach starts the command, or follows it, until it or the connection ends. If
// ctx ends first, it ends the command if it can, and waits for its last words.
func (r *resumption) attach(ctx context.Context) error {
	r.last = nil
	r.heard.Store(false)
	r.claim.Out, r.claim.Err = r.out.N, r.err.N
	r.claim.Forget, r.claim.Sweep = nil, false
	if k := r.session.claims.node; k != nil {
		r.claim.Forget, r.claim.Sweep = k.take(r.cmd.User)
	}
	c := Command{Text: r.claim.Script(), User: r.cmd.User, Password: r.cmd.Password, Stdout: &r.out, Stderr: &r.err}
	err := r.follow(ctx, c)
	r.out.End(r.last != nil)
	r.err.End(r.last != nil)
	if err != nil && r.session.claims.node != nil && r.last == nil {
		for _, name := range r.claim.Forget {
			r.session.claims.node.add([]claimed{{name: name, user: r.cmd.User, password: r.cmd.Password}})
		}
	}
	return err
}

// lastWords is how long a command that was ended may take to say what it said.
const lastWords = 2 * time.Second

// follow runs an attach script. A server lets go of a session only when its shell
// has ended, and that one stays as long as the command does. So when ctx ends, the
// command is ended first, and the session is left then.
func (r *resumption) follow(ctx context.Context, c Command) error {
	following, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	defer leave(nil)
	over, ending := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ending)
		defer func() { leave(context.Cause(ctx)) }()
		if !r.heard.Load() {
			return
		}
		_, r.ended = r.end(ctx)
		timer := time.NewTimer(lastWords)
		defer timer.Stop()
		select {
		case <-over:
		case <-timer.C:
		}
	})
	err := r.session.Conn.Exec(following, c)
	close(over)
	if !stop() {
		<-ending
	}
	return err
}

// frame takes what the attach script says on standard output.
func (r *resumption) frame(words []string) {
	if len(words) == 0 {
		return
	}
	r.heard.Store(true)
	switch words[0] {
	case shell.FrameNew, shell.FrameOld:
		r.started = true
	case shell.FrameCut:
		missing(&r.out, "some output was not kept on the node")
	case shell.FrameGap:
		skipTo(&r.out, words)
	default:
		r.last = words
	}
}

// frameErr takes what it says on standard error.
func (r *resumption) frameErr(words []string) {
	if len(words) > 0 && words[0] == shell.FrameGap {
		skipTo(&r.err, words)
	}
}

// skipTo notes that an output goes on at another byte.
func skipTo(f *shell.Frames, words []string) {
	if len(words) < 2 {
		return
	}
	at, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil || at <= f.N {
		return
	}
	n := f.N
	missing(f, fmt.Sprintf("%d bytes of output were not kept on the node", at-n))
	f.N = at
}

// missing puts a line of our own into an output.
func missing(f *shell.Frames, what string) {
	if f.To != nil && f.Err == nil {
		_, f.Err = io.WriteString(f.To, "[loom: "+what+"]\n")
	}
}

// judge says how the command ended.
func (r *resumption) judge() error {
	words := r.last
	rest := strings.Join(words[1:], " ")
	switch words[0] {
	case shell.FrameExit:
		return r.exit(words[1:])
	case shell.FrameNo:
		return errors.New(rest)
	case shell.FrameOther:
		return &lostError{"what was started under the claim " + r.claim.Name + " is another command: was the job changed meanwhile? nobody knows how that one ended"}
	case shell.FrameBoot:
		return &lostError{"the node was restarted while the command ran"}
	case shell.FrameLost:
		return &lostError{"the shell that was to report the command's end is gone from the node: nobody knows how the command ended, or whether it still runs"}
	}
	return &lostError{fmt.Sprintf("the node says %q of the command, which makes no sense", strings.Join(words, " "))}
}

// exit takes a status, a signal, and a cause.
func (r *resumption) exit(words []string) error {
	if len(words) < 3 {
		return &lostError{fmt.Sprintf("the node says %q of the command's end, which makes no sense", strings.Join(words, " "))}
	}
	code, err := strconv.Atoi(words[0])
	if err != nil {
		return &lostError{fmt.Sprintf("the node says %q of the command's end, which makes no sense", words[0])}
	}
	exit := &ExitError{Command: r.cmd.Text, Code: code}
	if words[1] != "-" {
		exit.Code, exit.Signal = -1, words[1]
	}
	switch {
	case code == 0:
		return errors.Join(r.out.Err, r.err.Err)
	case words[2] == "limit":
		return fmt.Errorf("%w: the node ended the command at its limit", &TimeoutError{After: r.claim.Limit})
	case words[2] == "cancel":
		return fmt.Errorf("%w: the command was ended on the node", ErrCancelled)
	}
	return exit
}

// endWithin is how long the end of a command may take.
const endWithin = 8 * time.Second

// endLate is end for a command that nobody is attached to.
func (r *resumption) endLate(ctx context.Context) error {
	gone, err := r.end(ctx)
	if gone {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		_ = r.attach(ctx)
	}
	return err
}

// end ends the command on the node. It returns ctx's cause, with what is left or
// unknown, and whether the command is gone.
func (r *resumption) end(ctx context.Context) (bool, error) {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	var said bytes.Buffer
	err := r.session.Conn.Exec(ctx, Command{Text: r.claim.End(), User: r.cmd.User, Password: r.cmd.Password, Stdout: &said})
	left, ok := strings.CutPrefix(strings.TrimSpace(said.String()), "left")
	switch {
	case !ok && r.claim.Limit > 0 && err != nil:
		return false, fmt.Errorf("%w; the node could not be told to end the command (%w), and ends it by itself", cause, err)
	case !ok:
		return false, &shell.SurvivorError{Cause: cause}
	case strings.TrimSpace(left) != "":
		return false, &shell.SurvivorError{Cause: cause, PIDs: strings.TrimSpace(left)}
	}
	return true, cause
}
