package loom

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dustinlacewell/loom/internal/overlap"
)

// A Status says how something stands or ended.
type Status string

// A run is queued, then running, then ends as ok, changed, failed, cancelled or
// lost. A result, which is what a run did on one node, ends in any but the
// first two.
const (
	StatusQueued      Status = "queued"
	StatusRunning     Status = "running"
	StatusOK          Status = "ok"          // the node was as the task wants it
	StatusChanged     Status = "changed"     // the task changed it so
	StatusFailed      Status = "failed"      // the task ran and could not
	StatusTimeout     Status = "timeout"     // its time was up
	StatusUnreachable Status = "unreachable" // nothing was run
	StatusCancelled   Status = "cancelled"   // by a person, a newer run, or the daemon's end
	StatusSkipped     Status = "skipped"     // the task said there is nothing to do here
	StatusLost        Status = "lost"        // the connection broke and nobody knows how it ended
)

// Ended reports whether nothing more will happen.
func (s Status) Ended() bool { return s != StatusQueued && s != StatusRunning && s != "" }

// Good reports whether a person may sleep on.
func (s Status) Good() bool { return s == StatusOK || s == StatusChanged || s == StatusSkipped }

// A Run is one firing of a job.
type Run struct {
	ID      string // 26 characters that sort by time
	Job     string
	Due     time.Time // when it should have started
	Trigger Trigger
	By      string   // who asked for it: a person, or the run that it follows
	Targets []string // the nodes that were asked for; nil: all of the job's

	Plan    bool          // it only told what the job would change, and is none of its results
	Timeout time.Duration // for each node and attempt, instead of the job's; 0: the job's
	Max     int           // nodes at once, as far as the pool has room; 0: no limit of its own

	Queued  time.Time // set by a Store
	Started time.Time
	Ended   time.Time // zero while it is going
	Status  Status
	Reason  string         // why it ended so, if the results don't say
	Nodes   int            // how many targets
	Counts  map[Status]int // how many of them ended how
}

// A Trigger says why a run was started.
type Trigger string

// The triggers.
const (
	TriggerSchedule Trigger = "schedule"
	TriggerCatchUp  Trigger = "catch-up" // the clock or the daemon was away
	TriggerManual   Trigger = "manual"
	TriggerAfter    Trigger = "after" // another job's run ended
)

// A Result is what a run did on one node.
type Result struct {
	Run      string // its ID, if the result was read from a Store
	Job      string // the run's, if the result was read from a Store
	Node     string
	Status   Status
	ExitCode int      // of the command that failed; -1 if none did or it was killed by a signal
	Changes  []string // what the task changed
	Reason   string   // why it is not ok: one sentence, no stack
	Attempts int      // how often it was tried; 0 if it was not begun
	Started  time.Time
	Ended    time.Time
	Earlier  []Attempt // those before the last, if the result was read from a Store

	// Output is what the node printed: its start and its end, with a line of
	// the stream Log between that says what is missing, if it was more than the
	// pool keeps. Dropped counts the missing bytes.
	Output  []Line
	Dropped int64

	Err error `json:"-"` // why it is not ok, for errors.Is and errors.As
}

// An Event is one thing that happened. Events are the one record of what Loom
// does: logs, commands, stores and screens are all made from them. They are
// plain data and must not be changed.
type Event struct {
	Kind  Kind
	Time  time.Time
	Job   string
	Run   string    // its ID
	Due   time.Time // of the run, or the tick
	Until time.Time // of KindTickMissed: the last tick, if it stands for several
	Node  string    // "" if it is about the whole run
	Plan  bool      // the run only tells what its job would change

	Outcome Outcome // of KindTickSkipped and KindTickMissed, unless it is about a run without a tick
	Ticks   int     // of the same: how many ticks it stands for

	Stream Stream  // of KindOutput
	Text   string  // a line of output without its newline, a change, or a reason
	More   bool    // the line was too long for one event and goes on in the next
	Result *Result // of KindNodeEnded, and of KindRetry: that of the attempt
	Ran    *Run    // of KindRunStarted and KindRunEnded
}

// Kind is what an [Event] is about.
type Kind string

// The kinds of events. New ones may be added.
const (
	KindRunStarted  Kind = "run-started"
	KindNodeStarted Kind = "node-started"
	KindOutput      Kind = "output"
	KindChanged     Kind = "changed"
	KindRetry       Kind = "retry" // an attempt ended badly, and another follows
	KindNodeEnded   Kind = "node-ended"
	KindRunEnded    Kind = "run-ended"
	KindTickSkipped Kind = "tick-skipped" // Due fell while an earlier run was going
	KindTickMissed  Kind = "tick-missed"  // Due fell while nobody was there
	KindStoreDown   Kind = "store-down"   // no tick is acted on; Text says why
	KindStoreBack   Kind = "store-back"
)

// Stream is where a line of output came from.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	Log    Stream = "log" // the task's own words, not the node's
)

// Errors that callers branch on. Test for them with errors.Is.
var (
	// ErrUnreachable means that the node could not be reached, and that nothing
	// was run on it: trying again is safe.
	ErrUnreachable = errors.New("unreachable")

	// ErrLost means that the connection broke while a command was running. The
	// node has been told to end it, but nobody knows how far it came.
	ErrLost = errors.New("connection lost while running")

	// ErrShutdown is the cause of a cancelled context when Loom is stopping.
	ErrShutdown = errors.New("loom is shutting down")

	// ErrCancelled is the cause of a cancelled context when a person or a newer
	// run asked for the end of a run.
	ErrCancelled = errors.New("run cancelled")

	// ErrBusy means that an earlier run of the job is still going, and that the
	// job's overlap policy doesn't let another one start.
	ErrBusy = errors.New(overlap.Busy)

	// ErrNotFound means that there is no such job, node or run.
	ErrNotFound = errors.New("not found")
)

// A TimeoutError is the cause of a context that ends because a job's time for
// one node is up.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string { return fmt.Sprintf("timed out after %v", e.After) }

// Timeout marks the error as net.Error does.
func (e *TimeoutError) Timeout() bool { return true }

// An ExitError means that a command ran and ended badly.
type ExitError struct {
	Command string // the text as the task gave it
	Code    int    // exit status; -1 if a signal ended it
	Signal  string // "KILL"; "" if it exited by itself
	Stderr  string // the end of what it printed there, if it was kept
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != "" {
		how = "killed by signal " + e.Signal
	}
	if line := lastLine(e.Stderr); line != "" {
		how += ": " + line
	}
	return fmt.Sprintf("command %s: %s", abbreviate(e.Command), how)
}

// A NodeError says what became of a job on one node that did not end well.
type NodeError struct {
	Job, Node string
	Status    Status
	Err       error
}

func (e *NodeError) Error() string { return e.Node + ": " + e.Err.Error() }
func (e *NodeError) Unwrap() error { return e.Err }

// A PanicError is a mistake in a task's code. It failed on one node; nothing
// else was harmed.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("task panicked: %v", e.Value) }

// A SkipError ends a result as skipped. [Skip] makes one.
type SkipError struct{ Reason string }

func (e *SkipError) Error() string { return "skipped: " + e.Reason }

// Skip returns an error for a task to return when there is nothing to do on
// this node. The result is then skipped, which is no failure.
func Skip(format string, args ...any) error {
	return &SkipError{Reason: fmt.Sprintf(format, args...)}
}

// lastLine returns the last line of s that is not blank.
func lastLine(s string) string {
	s = strings.TrimRight(s, "\r\n \t")
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

// abbreviate makes a command short enough to stand inside a sentence.
func abbreviate(cmd string) string {
	const most = 60
	line, _, more := strings.Cut(strings.TrimSpace(cmd), "\n")
	if r := []rune(line); len(r) > most {
		line, more = string(r[:most]), true
	}
	if more {
		line += "…"
	}
	return Quote(line)
}

// newID returns a name for a run that began at t: 48 bits of time and 80 of
// chance, as 26 letters and digits that sort by time (the layout of a ULID).
func newID(t time.Time) string {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(t.UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails
	var id [26]byte
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	for i := len(id) - 1; i >= 0; i-- {
		id[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(id[:])
}

// LogEvents returns an observer that puts events into words for a log: what
// runs did at level Info, or Warn if it did not go well, a store that is down at
// Error, and each line of output at level Debug.
func LogEvents(log *slog.Logger) func(Event) {
	words := map[Kind]string{
		KindRunStarted:  "run started",
		KindNodeStarted: "node started",
		KindOutput:      "output",
		KindChanged:     "changed",
		KindRetry:       "retry",
		KindNodeEnded:   "node ended",
		KindRunEnded:    "run ended",
		KindTickSkipped: "tick skipped",
		KindTickMissed:  "tick missed",
		KindStoreDown:   "store is down: no tick is acted on until it is back; what runs goes on",
		KindStoreBack:   "store is back: ticks are acted on again",
	}
	return func(e Event) {
		ctx, level := context.Background(), e.level()
		if !log.Enabled(ctx, level) {
			return
		}
		var attrs []slog.Attr
		if e.Job != "" {
			attrs = append(attrs, slog.String("job", e.Job))
		}
		if e.Run != "" {
			attrs = append(attrs, slog.String("run", e.Run))
		}
		if e.Node != "" {
			attrs = append(attrs, slog.String("node", e.Node))
		}
		if e.Plan {
			attrs = append(attrs, slog.Bool("plan", true))
		}
		if e.Stream != "" {
			attrs = append(attrs, slog.String("stream", string(e.Stream)))
		}
		switch {
		case e.Result != nil:
			attrs = append(attrs, slog.String("status", string(e.Result.Status)), slog.Duration("took", e.Result.Ended.Sub(e.Result.Started)))
		case e.Kind == KindRunEnded:
			attrs = append(attrs, slog.String("status", string(e.Ran.Status)), slog.Any("nodes", e.Ran.Counts),
				slog.Duration("took", e.Ran.Ended.Sub(e.Ran.Started)))
		case e.Kind == KindRunStarted, e.Kind == KindTickSkipped, e.Kind == KindTickMissed:
			attrs = append(attrs, slog.Time("due", e.Due))
		}
		if !e.Until.IsZero() && !e.Until.Equal(e.Due) {
			attrs = append(attrs, slog.Time("until", e.Until))
		}
		if e.Text != "" {
			attrs = append(attrs, slog.String("text", e.Text))
		}
		log.LogAttrs(ctx, level, words[e.Kind], attrs...) //nolint:sloglint // the words are constants, one for each kind
	}
}

// level says how much an event matters in a log.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case KindOutput, KindNodeStarted:
		return slog.LevelDebug
	case KindTickSkipped, KindTickMissed, KindRetry:
		return slog.LevelWarn
	case KindStoreDown:
		return slog.LevelError
	case KindRunEnded:
		if !e.Ran.Status.Good() {
			return slog.LevelWarn
		}
	case KindNodeEnded:
		if !e.Result.Status.Good() {
			return slog.LevelWarn
		}
	}
	return slog.LevelInfo
}
