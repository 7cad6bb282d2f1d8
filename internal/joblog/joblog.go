// Package joblog writes what jobs print to the files that they name.
//
// Each line of such a file has the time, in the job's time zone, and the node:
//
//	2026-03-01T04:30:00.012+01:00 db1 # started, run 01jn7q…, due 2026-03-01T04:30:00+01:00
//	2026-03-01T04:30:00.220+01:00 db1 | dumping shop
//	2026-03-01T04:30:01.650+01:00 db1 ! shop.orders: slow
//	2026-03-01T04:30:01.702+01:00 db1 # ended ok after 1.69s
//
// The sign says who speaks: | standard output, ! standard error, : the task, and
// # Loom. A + after it says that the line was very long and goes on in the next
// of this node and sign. The job stands behind the node if the file's name
// doesn't tell it. Control characters show as what they are (^M), so that what a
// node prints can't pass for a line of another, nor move about on a terminal.
package joblog

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dustinlacewell/loom"
)

// How much may wait for slow disks, and how many files are written at once.
const (
	mostWaiting = 32 << 20
	mostOfFile  = 1 << 20
	mostStuck   = 8 << 20 // of files that can't be written
	mostWriters = 16
)

// A Writer is an observer of events that writes the log files of jobs. Its
// fields must not change once it is in use; its methods are safe for concurrent
// use. A file is open only while something is written to it, so it may be moved
// or removed at any time, and 16 are written at once.
//
// The disk never holds up whoever observes. What waits for it is bounded: when
// more comes, lines are left out, and a line in the file says how many. A file
// that can't be written is tried again until it can be, which is logged when it
// begins and when it ends.
type Writer struct {
	Job func(name string) *loom.Job // the job of that name; nil: there is none
	Log *slog.Logger                // nil: slog.Default()

	limits limits // tests lower them

	mu      sync.Mutex
	runs    map[string]*loom.Job // those that are going and log
	files   map[string]*file     // those that have something to write, or can't be written
	ready   []*file              // wait for a writer
	writers int
	waiting int // bytes, of all files
	stuck   int // bytes, of those that can't be written
	closed  bool
	idle    chan struct{} // closed when all is written after Close
}

// Observe writes what an event says to the log of its job, if that has one and the
// run is no plan. It doesn't wait for the disk. After Close it does nothing.
func (w *Writer) Observe(e loom.Event) {
	j := w.jobOf(e)
	if j == nil || j.Output.File == "" || e.Node == "" || e.Plan {
		return
	}
	sign, text := words(e)
	if sign == "" {
		return
	}
	zone := j.Timezone
	if zone == nil {
		zone = time.Local
	}
	at := e.Time.In(zone)
	n := naming{template: j.Output.File, job: j.Name, node: e.Node}
	who := e.Node
	if !strings.Contains(n.template, "{job}") {
		who += " " + j.Name
	}
	w.add(n, at, j.Output, entry(at, who, sign, text))
}

// jobOf returns the job of an event's run: the one that the run began with, as
// long as it is going.
func (w *Writer) jobOf(e loom.Event) *loom.Job {
	w.mu.Lock()
	j := w.runs[e.Run]
	if e.Kind == loom.KindRunEnded {
		delete(w.runs, e.Run)
	}
	w.mu.Unlock()
	if j != nil || e.Run == "" {
		return j
	}
	if j = w.Job(e.Job); j != nil && j.Output.File != "" && e.Kind == loom.KindRunStarted {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.runs == nil {
			w.runs = map[string]*loom.Job{}
		}
		w.runs[e.Run] = j
	}
	return j
}

// words returns the sign of an event and what it says; none if it isn't logged.
func words(e loom.Event) (sign, text string) {
	switch e.Kind {
	case loom.KindOutput:
		switch e.Stream {
		case loom.Stderr:
			sign = "!"
		case loom.Log:
			sign = ":"
		default:
			sign = "|"
		}
		if e.More {
			sign += "+"
		}
		return sign, e.Text
	case loom.KindNodeStarted:
		return "#", fmt.Sprintf("started, run %s, due %s", e.Run, e.Due.Format(time.RFC3339))
	case loom.KindChanged:
		return "#", "changed: " + e.Text
	case loom.KindRetry:
		return "#", e.Text
	case loom.KindNodeEnded:
		return "#", ending(e)
	}
	return "", ""
}

// ending says how a job ended on a node.
func ending(e loom.Event) string {
	r := e.Result
	if r == nil {
		return "ended"
	}
	text := fmt.Sprintf("ended %s after %v", r.Status, r.Ended.Sub(r.Started).Round(time.Millisecond))
	if r.Attempts > 1 {
		text += fmt.Sprintf(" in attempt %d", r.Attempts)
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// entry returns a line of a file.
func entry(at time.Time, who, sign, text string) []byte {
	b := make([]byte, 0, len("2006-01-02T15:04:05.000+01:00   \n")+len(who)+len(sign)+len(text))
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, ' ')
	b = appendHarmless(b, who)
	b = append(b, ' ')
	b = append(b, sign...)
	if text != "" {
		b = append(b, ' ')
		b = appendHarmless(b, text)
	}
	return append(b, '\n')
}

// appendHarmless appends s with its control characters written out. All other
// bytes stay as they are, whatever their encoding.
func appendHarmless(b []byte, s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r < ' ' && r != '\t', r == 0x7f:
			b = append(b, '^', byte(r)^0x40)
		case 0x80 <= r && r <= 0x9f:
			b = fmt.Appendf(b, "\\x%02x", r)
		default:
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return b
}

func (w *Writer) log() *slog.Logger {
	if w.Log != nil {
		return w.Log
	}
	return slog.Default()
}
