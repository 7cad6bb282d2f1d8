package shell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
)

// A Command is what to run. Its fields mean what they do in loom.Command; User
// is empty if the login user is to run it.
type Command struct {
	Text     string
	Shell    string
	Dir      string
	Env      map[string]string
	User     string
	Password string
	Private  bool // Text is not to be seen in the arguments of Shell

	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil discards
	Merged         bool      // Stdout and Stderr are one writer

	Peer *Peer // nil: nothing is known of the other side
}

// Same reports whether two writers are one, for Merged. Writers that can't be
// compared are not.
func Same(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && a == b
}

// A Peer remembers what commands have told about the other side. The zero Peer
// knows nothing. It is safe for concurrent use.
type Peer struct {
	quiet atomic.Bool // start-up files print nothing on standard error
}

// An Exit says how a command ended.
type Exit struct {
	Code   int    // -1 if a signal ended it
	Signal string // "KILL"; "" if it exited by itself
}

// A Process is a shell at the other end of a pipe.
type Process interface {
	io.Writer                      // to its standard input
	CloseWrite() error             // ends its standard input
	Read(p []byte) (int, error)    // its standard output
	ReadErr(p []byte) (int, error) // its standard error

	// Done is closed when Exit has its answer: the process has ended, or
	// nobody will ever know.
	Done() <-chan struct{}
	Exit() (Exit, error)

	// Close lets go of the process. Reads and writes then end soon, and Done is
	// closed.
	Close()
}

// A Watched is a Process over whose connection a Sentry watches. Sentry returns
// nil if there is none to be had.
type Watched interface{ Sentry() *Sentry }

// Line is what a Start is asked to start for a command of the login user.
const Line = "exec /bin/sh"

// A Start starts the program that line names, which needs no quoting. It must
// not wait for the other side.
type Start func(ctx context.Context, line string) (Process, error)

// A NotStartedError means that the shell on the other side never got to the
// command: nothing was run.
type NotStartedError struct {
	Exit   Exit
	Ended  bool   // Exit is known
	Output string // what came instead
	Err    error  // why, if it is known
}

func (e *NotStartedError) Error() string {
	s := "the shell did not start"
	switch {
	case e.Ended && e.Exit.Signal != "":
		s += fmt.Sprintf(", it was killed by signal %s", e.Exit.Signal)
	case e.Ended:
		s += fmt.Sprintf(", it ended with exit status %d", e.Exit.Code)
	case e.Err != nil:
		s += ": " + e.Err.Error()
	}
	if e.Output == "" {
		return s + " and said nothing"
	}
	return s + fmt.Sprintf("; what came instead: %q", e.Output)
}

func (e *NotStartedError) Unwrap() error { return e.Err }

// A SudoError means that sudo did not let the command run. Nothing was run.
type SudoError struct {
	User    string
	Refused bool   // the password was wrong
	Needs   bool   // there was none, and it wants one
	Output  string // sudo's words
}

func (e *SudoError) Error() string {
	switch {
	case e.Refused:
		return fmt.Sprintf("sudo refused the password (to become %s)", e.User)
	case e.Needs:
		return fmt.Sprintf("sudo wants a password to become %s", e.User)
	}
	s := fmt.Sprintf("sudo did not become %s", e.User)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// ErrLost means that the command had started, or may have, and that it is not
// known how it ended.
var ErrLost = errors.New("nobody knows how the command ended")

// ErrClosed means that the connection's owner has closed it, so that trying again
// makes no sense.
var ErrClosed = errors.New("the connection was closed")

// A SurvivorError means that the command was to be ended, and that not all of
// its processes are known to be gone.
type SurvivorError struct {
	Cause error
	PIDs  string // "" if it is not known which
}

func (e *SurvivorError) Error() string {
	s := "it is not known whether all of its processes ended"
	if e.PIDs != "" {
		s = "these of its processes could not be ended: " + e.PIDs
	}
	if e.Cause == nil {
		return s
	}
	return e.Cause.Error() + "; " + s
}

func (e *SurvivorError) Unwrap() error { return e.Cause }

const (
	startLimit = 30 * time.Second // from the request to the marker
	quiet      = time.Second      // a child that outlives the command may hold its output open this long without using it
	endLimit   = 8 * time.Second  // from the end of the context to the return
	claimDelay = time.Second      // from the marker of a claim to the start of its watchdog
)

// Run runs a command and returns how it ended, when it and its output have. If
// ctx ends first, the command is ended with all its processes, and the error
// wraps ctx's cause. Other errors are a *NotStartedError, a *SudoError, one that
// wraps ErrLost, what start returned, what is wrong with the command itself, or
// what its streams said.
//
// Marked, if not nil, is called with the mark that the command's processes will
// bear, before there are any; and with "" if they are known to be gone or were
// let go.
func Run(ctx context.Context, start Start, c Command, marked func(string)) (Exit, error) {
	if err := c.check(); err != nil {
		return Exit{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Exit{}, err
	}
	r := &run{start: start, c: &c, nonce: newNonce(), claim: Attaches(&c)}
	if marked != nil && !r.claim {
		marked(r.nonce)
	}
	exit, err := r.run(ctx)
	if _, survivors := errors.AsType[*SurvivorError](err); marked != nil && !survivors && !errors.Is(err, ErrLost) {
		marked("")
	}
	return exit, err
}

// Reap ends what is left of commands whose connection broke: their marks are
// given, and the user and password with which they ran.
func Reap(ctx context.Context, start Start, user, password string, marks []string) error {
	for _, m := range marks {
		r := &run{start: start, c: &Command{User: user, Password: password}, nonce: newNonce()}
		if err := r.reap(ctx, m, 0, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

func newNonce() string { return strings.ToLower(rand.Text()[:20]) }

// A run is one command at work.
type run struct {
	start Start
	c     *Command
	nonce string

	main   *follower
	sentry *Sentry // watches over the connection; nil: the script has a watcher of its own
	claim  bool    // it attaches to a claim, which outlives the connection

	// If standard input goes to the command, a second shell watches.
	watching chan struct{} // closed when guard and guardErr are set
	guard    *follower
	guardErr error
}

func (r *run) run(ctx context.Context) (Exit, error) {
	s := script{c: r.c, nonce: r.nonce, feeds: r.c.Stdin != nil, sudo: r.c.User != "", claim: r.claim}
	s.quiet = r.c.User == "" && r.c.Peer != nil && r.c.Peer.quiet.Load()
	main, err := r.launch(ctx, r.nonce, func(p Process) []byte {
		if w, ok := p.(Watched); ok && !s.feeds && !s.sudo && !r.claim {
			r.sentry = w.Sentry()
		}
		s.watched = r.sentry != nil
		return s.bytes()
	}, r.c.Stdout, r.c.Stderr, s.quiet)
	if err != nil {
		return Exit{}, err
	}
	r.main = main
	if r.c.Stdin == nil {
		return r.follow(ctx)
	}

	// Feeding ends when the command has. Only a Read of Stdin may go on.
	r.watching = make(chan struct{})
	feeding, stop := context.WithCancel(ctx)
	go r.feed(feeding)
	exit, err := r.follow(ctx)
	stop()
	<-r.watching
	if r.guard != nil {
		r.guard.p.Close()
		<-r.guard.over
	}
	return exit, err
}

// follow waits for the command.
func (r *run) follow(ctx context.Context) (Exit, error) {
	f := r.main
	// It is to start in time; when it has, to be watched soon; and when it has
	// ended, its output is to end too.
	alarm := time.NewTimer(startLimit)
	defer alarm.Stop()
	if r.sentry != nil {
		defer r.sentry.forget(r.nonce)
	}

	ready, over, ended := f.out.ready, f.over, f.p.Done()
	watching, guarded := r.watching, (<-chan struct{})(nil)
	unguarded := false
	var seen int64
	for over != nil || ended != nil {
		select {
		case <-ready:
			ready = nil
			switch {
			case ended == nil:
			case r.claim:
				alarm.Reset(claimDelay)
			case r.sentry != nil:
				alarm.Reset(sentryDelay)
			default:
				alarm.Stop()
			}
		case <-over:
			over = nil
		case <-ended:
			ended = nil
			seen = f.count()
			alarm.Reset(quiet)
		case <-alarm.C:
			n := f.count()
			switch pid, group, ok := f.place(); {
			case ended == nil && n != seen: // what outlived the command prints
				seen = n
				alarm.Reset(quiet)
			case ended == nil: // it only holds its output open
				f.p.Close()
			case ready != nil:
				f.late = true
				f.p.Close()
			case r.claim:
				go func() { _, _ = f.p.Write([]byte("\n")) }() // if it does not arrive, the connection will break
			case ok:
				r.sentry.watch(r.nonce, pid, group)
			}
		case <-watching:
			watching = nil
			if r.guardErr != nil {
				f.p.Close() // it was not told to go on
			} else if r.guard != nil {
				guarded = r.guard.p.Done()
			}
		case <-guarded:
			guarded = nil
			unguarded = ended != nil // it ends the command, since its connection broke
		case <-ctx.Done():
			if ended == nil {
				f.p.Close()
				<-f.over
				return r.judge(unguarded)
			}
			return Exit{}, r.end(ctx)
		}
	}
	return r.judge(unguarded)
}

// judge says how the command ended. It has.
func (r *run) judge(unguarded bool) (Exit, error) {
	f := r.main
	exit, err := f.p.Exit()
	switch {
	case r.watching != nil && closed(r.watching) && r.guardErr != nil:
		return Exit{}, r.guardErr
	case !f.out.found:
		return Exit{}, r.notStarted(f)
	case err != nil:
		return Exit{}, fmt.Errorf("%w: %w", ErrLost, err)
	case unguarded && exit != Exit{}:
		return Exit{}, fmt.Errorf("%w: the connection that watched it broke", ErrLost)
	case r.watching != nil && !closed(r.watching) && exit == Exit{Code: 97}:
		return Exit{}, &NotStartedError{Exit: exit, Ended: true}
	}
	if p := r.c.Peer; p != nil && r.c.User == "" && f.err.found && len(f.err.head) == 0 {
		p.quiet.Store(true)
	}
	if (exit == Exit{}) {
		return exit, errors.Join(f.out.err, f.err.err)
	}
	return exit, nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// notStarted says why the shell never got to the command.
func (r *run) notStarted(f *follower) error {
	words := strings.TrimSpace(f.clean())
	exit, err := f.p.Exit()
	if r.c.User != "" && err == nil {
		switch {
		case f.refused:
			return &SudoError{User: r.c.User, Refused: true, Output: words}
		case f.prompted:
			return &SudoError{User: r.c.User, Refused: !strings.Contains(words, "sudoers"), Output: words}
		case r.c.Password == "" && strings.Contains(words, "password is required"):
			return &SudoError{User: r.c.User, Needs: true, Output: words}
		}
		return &SudoError{User: r.c.User, Output: cmpOr(words, fmt.Sprintf("it ended with exit status %d", exit.Code))}
	}
	e := &NotStartedError{Exit: exit, Ended: err == nil, Output: words, Err: err}
	if f.late {
		e.Ended = false
		e.Err = fmt.Errorf("%w: no answer within %v", ErrLost, startLimit)
	}
	return e
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// end ends the command, since ctx is done, and returns the cause.
func (r *run) end(ctx context.Context) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	f := r.main
	defer func() {
		f.p.Close()
		<-f.over
	}()

	switch {
	case r.claim:
		return cause // its command is ended, if at all, by another one
	case r.watching != nil:
		return r.endGuarded(ctx, cause)
	case r.sentry != nil:
		return r.endWatched(ctx, cause)
	}
	// The end of its standard input tells the watcher to end it. A connection
	// that does not take even that must not hold us up.
	go func() { _ = f.p.CloseWrite() }()
	select {
	case <-f.p.Done():
	case <-ctx.Done():
		return &SurvivorError{Cause: cause}
	}
	if _, err := f.p.Exit(); err != nil {
		return &SurvivorError{Cause: cause}
	}
	main, group, ok := f.place()
	if !ok {
		return cause // it had not come so far as to start anything
	}
	return r.reap(ctx, r.nonce, main, group, cause)
}

// endWatched is end for a command that a sentry watches.
func (r *run) endWatched(ctx context.Context, cause error) error {
	f := r.main
	select {
	case <-f.out.ready:
	case <-ctx.Done():
	}
	pid, group, ok := f.place()
	switch {
	case !ok && closed(f.p.Done()):
		return cause // it had not come so far as to start anything
	case !ok:
		return &SurvivorError{Cause: cause}
	}
	left, err := r.sentry.end(ctx, r.nonce, pid, group)
	switch {
	case err != nil && ctx.Err() == nil:
		return r.guarded(ctx, finish, r.nonce, pid, group, cause)
	case err != nil || left != "":
		return &SurvivorError{Cause: cause, PIDs: left}
	}
	return cause
}

// endGuarded is end for a command that a second shell watches.
func (r *run) endGuarded(ctx context.Context, cause error) error {
	select {
	case <-r.watching:
	case <-ctx.Done():
		return &SurvivorError{Cause: cause}
	}
	if r.guard == nil {
		return cause // it was not told to go on
	}
	go func() { _ = r.guard.p.CloseWrite() }()
	return r.report(ctx, r.guard, cause)
}

// reap ends what bears a mark, once the watcher of the group is done, and
// reports as report does.
func (r *run) reap(ctx context.Context, target string, p, g int, cause error) error {
	return r.guarded(ctx, reap, target, p, g, cause)
}

// guarded runs a watcher that does not wait, and reports as report does.
func (r *run) guarded(ctx context.Context, text, target string, p, g int, cause error) error {
	nonce := newNonce()
	f, err := r.guarding(ctx, nonce, guard(text, nonce, target, p, g))
	if err != nil {
		return &SurvivorError{Cause: cause}
	}
	defer func() {
		f.p.Close()
		<-f.over
	}()
	return r.report(ctx, f, cause)
}

// report waits for a watcher to climb the ladder, and returns cause, with what
// is left if something is.
func (r *run) report(ctx context.Context, f *follower, cause error) error {
	select {
	case <-f.over:
	case <-ctx.Done():
		return &SurvivorError{Cause: cause}
	}
	left, ok := strings.CutPrefix(f.said.String(), "left")
	left = strings.TrimSpace(left)
	if !ok || left != "" {
		return &SurvivorError{Cause: cause, PIDs: left}
	}
	return cause
}

// feed starts the watcher, lets the command go on, and gives it its standard
// input.
func (r *run) feed(ctx context.Context) {
	f := r.main
	select {
	case <-f.out.ready:
	case <-ctx.Done():
	}
	main, group, ok := f.place()
	if !ok || ctx.Err() != nil {
		close(r.watching)
		return
	}
	nonce := newNonce()
	g, err := r.guarding(ctx, nonce, guard(watch, nonce, r.nonce, main, group))
	if err == nil {
		select {
		case <-g.out.ready:
		case <-f.p.Done():
		case <-ctx.Done():
		}
		if _, _, ok := g.place(); !ok {
			g.p.Close()
			<-g.over
			g, err = nil, r.notStarted(g)
		}
	}
	r.guard, r.guardErr = g, err
	close(r.watching)
	if err != nil {
		return
	}
	defer func() { _ = f.p.CloseWrite() }()
	if _, err := io.WriteString(f.p, "go\n"); err != nil {
		return
	}
	_, _ = io.Copy(onlyWriter{f.p}, r.c.Stdin) // a command need not read all of it
}

// onlyWriter hides all other methods.
type onlyWriter struct{ io.Writer }
