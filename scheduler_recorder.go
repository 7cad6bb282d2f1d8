package loom

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// mostRecorded is how much output goes into one call of the store.
	mostRecorded = 1 << 20
	// mostUnwritten is how much output may wait while the store is down, over
	// all runs. More of it is not recorded, which its results say.
	mostUnwritten = 64 << 20
)

// A recorder has a store keep what happens in one run. Of what a node prints it
// keeps what the pool does: the start as it comes, the end when the node has
// ended.
type recorder struct {
	s    *Scheduler
	run  *going
	half int64 // bytes of output from the start of each node's
	sure bool  // that a node has started is written before anything is done there

	mu      sync.Mutex
	nodes   map[string]*nodeOutput
	waiting []Event
	added   int           // events so far
	written int           // how many of them are in the store
	moved   chan struct{} // closed when written grows, or nothing more will be
	fenced  bool
	more    chan struct{} // there is something to write
	quit    chan struct{} // closed when finish takes over
	done    sync.WaitGroup
}

// A nodeOutput is how far the output of one node has come.
type nodeOutput struct {
	lines int            // given to the store from the start
	bytes int64          // of them
	full  bool           // the rest comes when the node has ended
	seen  map[Stream]int // lines that were printed
	had   map[Stream]int // how many of them the store had from an earlier claim
	lost  int            // lines that there was no room for
}

func newRecorder(s *Scheduler, g *going) *recorder {
	r := &recorder{s: s, run: g, half: s.Pool.keep() / 2, nodes: map[string]*nodeOutput{},
		moved: make(chan struct{}), more: make(chan struct{}, 1), quit: make(chan struct{})}
	r.sure = g.job == nil || !g.job.resumes()
	r.done.Go(r.write)
	return r
}

// add takes an event. When it returns from a node's end, the store has it, and
// from a node's start, if nothing else keeps it from being begun twice; unless ctx
// ends first.
func (r *recorder) add(ctx context.Context, e Event) {
	r.mu.Lock()
	await := 0
	switch e.Kind {
	case KindOutput:
		r.output(e)
	case KindNodeStarted, KindRetry, KindChanged:
		r.push(e)
		if e.Kind == KindNodeStarted && r.sure {
			await = r.added
		}
	case KindNodeEnded:
		r.rest(e)
		r.push(e)
		await = r.added
	}
	r.mu.Unlock()
	if await > 0 {
		r.await(ctx, await)
	}
}

// push has an event written. r.mu is held.
func (r *recorder) push(e Event) {
	r.waiting = append(r.waiting, e)
	r.added++
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// await waits until so many events are written.
func (r *recorder) await(ctx context.Context, n int) {
	for {
		r.mu.Lock()
		enough, moved := r.written >= n || r.fenced, r.moved
		r.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// output takes a line. r.mu is held.
func (r *recorder) output(e Event) {
	p := r.node(e.Node)
	p.seen[e.Stream]++
	if p.full {
		return
	}
	size := outputSize(e)
	if p.full = p.bytes+size > r.half; p.full {
		return
	}
	p.bytes += size
	p.lines++
	if p.seen[e.Stream] > p.had[e.Stream] {
		r.line(p, e)
	}
}

// line has a line written, if there is room for it. r.mu is held.
func (r *recorder) line(p *nodeOutput, e Event) {
	if r.s.Store == nil {
		return
	}
	if !r.s.room(outputSize(e)) {
		p.lost++
		return
	}
	r.push(e)
}

// rest takes what the pool has kept of a node's output beside the start. r.mu is
// held.
func (r *recorder) rest(e Event) {
	p := r.node(e.Node)
	lines := e.Result.Output[min(p.lines, len(e.Result.Output)):]
	add := func(l Line) {
		r.line(p, Event{Kind: KindOutput, Node: e.Node, Time: l.Time, Stream: l.Stream, Text: l.Text, More: l.More})
	}
	if e.Result.Dropped > 0 && len(lines) > 0 {
		add(lines[0]) // it says what is missing
		lines = lines[1:]
	}
	number := maps.Clone(p.seen) // of the line before, in its stream
	for _, l := range lines {
		number[l.Stream]--
	}
	for _, l := range lines {
		if number[l.Stream]++; number[l.Stream] > p.had[l.Stream] {
			add(l)
		}
	}
	if p.lost > 0 {
		marker := Event{Kind: KindOutput, Node: e.Node, Time: e.Time, Stream: Log,
			Text: fmt.Sprintf("[%d lines of output not recorded: the store was down]", p.lost)}
		r.s.unwritten.Add(outputSize(marker)) // there is room for that
		r.push(marker)
	}
	delete(r.nodes, e.Node)
}

func (r *recorder) node(name string) *nodeOutput {
	p := r.nodes[name]
	if p == nil {
		p = &nodeOutput{seen: map[Stream]int{}}
		r.nodes[name] = p
	}
	return p
}

// had says how many lines of each node the store has from an earlier claim.
func (r *recorder) had(l leftover) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for node, lines := range l.lines {
		r.node(node).had = lines
	}
}

// write gives to the store what waits, until finish takes over.
func (r *recorder) write() {
	for {
		select {
		case <-r.more:
		case <-r.quit:
			return
		}
		for pause := time.Second; ; pause = min(2*pause, 5*time.Second) {
			events, size := r.some()
			if len(events) == 0 {
				break
			}
			err := r.s.memory.Record(context.Background(), r.run.claim, events)
			if r.wrote(len(events), size, err) {
				pause = time.Second
				continue
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-r.quit:
				timer.Stop()
				return
			}
		}
	}
}

// some returns what waits, or as much of it as one call may take, with the bytes
// of output in it.
func (r *recorder) some() ([]Event, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var size int64
	for i, e := range r.waiting {
		if size += outputSize(e); size > mostRecorded {
			return r.waiting[: i+1 : i+1], size
		}
	}
	return slices.Clip(r.waiting), size
}

// wrote notes what became of a call. It reports whether it is done with.
func (r *recorder) wrote(n int, size int64, err error) bool {
	fenced := errors.Is(err, ErrFenced)
	if !r.s.works(context.Background(), err) && !fenced {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if fenced && !r.fenced {
		r.fenced = true
		r.s.log().Error("run is no longer ours: it ends here", "job", r.run.claim.Run.Job, "run", r.run.claim.Run.ID, "err", err)
		r.run.cancel(fmt.Errorf("%w: %w", ErrCancelled, err))
	}
	r.waiting = r.waiting[n:]
	r.s.unwritten.Add(-size)
	r.written += n
	close(r.moved)
	r.moved = make(chan struct{})
	return true
}

// outputSize is how many bytes of output are in an event.
func outputSize(e Event) int64 {
	if e.Kind != KindOutput {
		return 0
	}
	return int64(len(e.Text)) + 1
}

// room reports whether so many more bytes of output may wait for the store, and
// counts them.
func (s *Scheduler) room(size int64) bool {
	if s.unwritten.Add(size) > mostUnwritten {
		s.unwritten.Add(-size)
		return false
	}
	return true
}

// finish has the store end the run. While it can't, finish goes on asking: until
// ctx ends, and then once more.
func (r *recorder) finish(ctx context.Context, end Run) {
	r.close()
	for pause := time.Second; ; pause = min(2*pause, 5*time.Second) {
		events, size := r.some()
		r.mu.Lock()
		last, fenced := len(events) == len(r.waiting), r.fenced
		r.mu.Unlock()
		if fenced {
			return
		}
		var err error
		if last {
			err = r.s.memory.Finish(context.Background(), r.run.claim, end, events)
		} else {
			err = r.s.memory.Record(context.Background(), r.run.claim, events)
		}
		if r.wrote(len(events), size, err) {
			if last {
				return
			}
			continue
		}
		if ctx.Err() != nil {
			r.s.log().Error("how a run ended could not be stored: it counts as interrupted at the next start",
				"job", r.run.claim.Run.Job, "run", r.run.claim.Run.ID, "status", end.Status, "err", err)
			return
		}
		_ = wait(ctx, pause) // then it is tried once more
	}
}

// abandon ends a run whose job is gone: nothing is begun, and what was going on
// is lost.
func (r *recorder) abandon(ctx context.Context, left leftover) {
	now := time.Now()
	end := r.run.claim.Run
	end.Status, end.Ended, end.Counts = StatusCancelled, now, map[Status]int{}
	end.Reason = "the job is not in the manifest any more"
	if end.Job == ExecJob {
		end.Reason = "loom ended before the command did, which is not given again"
	}
	for name, was := range left.results {
		if !was.Status.Ended() {
			was.Status, was.Ended, was.Reason = StatusLost, now, lostReason(was)
			end.Status = StatusLost
			r.add(ctx, Event{Kind: KindNodeEnded, Time: now, Node: name, Result: &was})
		}
		end.Counts[was.Status]++
	}
	r.finish(ctx, end)
	r.s.event(Event{Kind: KindRunEnded, Time: now, Job: end.Job, Run: end.ID, Due: end.Due, Plan: end.Plan, Ran: &end})
}

// lostReason says of a result that was begun and has no end what is known.
func lostReason(was Result) string {
	return fmt.Sprintf("loom ended while it ran here, begun at %s, and nobody knows how it went on; it is not run again by itself", clockTime(was.Started))
}

// drop ends the writing, and lets go of what could not be written.
func (r *recorder) drop() {
	r.close()
	for _, e := range r.waiting {
		r.s.unwritten.Add(-outputSize(e))
	}
	r.waiting = nil
}

// close ends the writing. What waits stays.
func (r *recorder) close() {
	select {
	case <-r.quit:
	default:
		close(r.quit)
	}
	r.done.Wait()
}
