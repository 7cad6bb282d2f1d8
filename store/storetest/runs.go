package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// queued fires a run that nobody claims.
func (b *bench) queued(job string) loom.Run {
	b.Helper()
	return b.fire(loom.Firing{Job: job, Run: b.byHand("kim"), Overlap: loom.OverlapAllow}).Claim.Run
}

func taking(b *bench) {
	if c := b.take("a"); c != nil {
		b.Fatalf("Take of nothing = %+v", c)
	}
	var want []string
	for i := range 5 {
		want = append(want, b.queued(fmt.Sprint("job ", i)).ID)
	}
	var got []string
	for c := b.take("a"); c != nil; c = b.take("a") {
		if c.Epoch != 1 || c.Owner != "a" || c.Run.Status != loom.StatusRunning || c.Run.Started.IsZero() {
			b.Errorf("Take = %+v", c)
		}
		got = append(got, c.Run.ID)
	}
	b.same("runs taken", got, want)
	b.same("runs owned", b.beat("a").Owned, want)
	b.same("runs owned by another", b.beat("b").Owned, []string(nil))
}

// stale hands a run that a holds to b, and returns both claims.
func (b *bench) stale() (loom.Claim, loom.Claim) {
	b.Helper()
	old := b.start("j")
	b.leave("a")
	b.beat("b")
	c := b.take("b")
	if c == nil || c.Run.ID != old.Run.ID || c.Epoch != 2 {
		b.Fatalf("Take = %+v, want run %s in epoch 2", c, old.Run.ID)
	}
	return old, *c
}

func fenced(b *bench) {
	old, held := b.stale()
	forged := held
	forged.Owner = "a"
	late := held
	late.Epoch++
	for name, c := range map[string]loom.Claim{"an old claim": old, "another's": forged, "a later one": late, "none": {}} {
		if err := b.s.Record(b.Context(), c, life("n1", loom.StatusOK)); !errors.Is(err, loom.ErrFenced) {
			b.Errorf("Record under %s: %v, want ErrFenced", name, err)
		}
		if err := b.s.Finish(b.Context(), c, loom.Run{Status: loom.StatusOK}, life("n1", loom.StatusOK)); !errors.Is(err, loom.ErrFenced) {
			b.Errorf("Finish under %s: %v, want ErrFenced", name, err)
		}
	}
	b.same("results", len(b.results(held.Run.ID)), 0)
	b.same("output", len(b.output(loom.OutputQuery{Run: held.Run.ID})), 0)
	b.record(held, life("n1", loom.StatusOK)...)
	b.finish(held, loom.StatusOK)
	b.finish(held, loom.StatusOK) // may be repeated
	if err := b.s.Record(b.Context(), held, life("n1", loom.StatusOK)); !errors.Is(err, loom.ErrFenced) {
		b.Errorf("Record after the end: %v, want ErrFenced", err)
	}
	if err := b.s.Finish(b.Context(), old, loom.Run{Status: loom.StatusOK}, nil); !errors.Is(err, loom.ErrFenced) {
		b.Errorf("Finish under an old claim after the end: %v, want ErrFenced", err)
	}
	if err := b.s.Finish(b.Context(), held, loom.Run{Status: loom.StatusFailed}, nil); !errors.Is(err, loom.ErrFenced) {
		b.Errorf("another Finish after the end: %v, want ErrFenced", err)
	}
	b.same("the status", b.one(held.Run.ID).Status, loom.StatusOK)
}

func givenBack(b *bench) {
	c := b.start("j")
	b.record(c, life("n1", loom.StatusOK)...)
	b.must(b.s.Finish(b.Context(), c, loom.Run{Status: loom.StatusQueued}, []loom.Event{{Kind: loom.KindNodeStarted, Node: "n2", Time: minute(0)}}))
	if r := b.one(c.Run.ID); r.Status != loom.StatusQueued || !r.Ended.IsZero() {
		b.Errorf("the run is %+v, want it queued", r)
	}
	b.same("runs owned", len(b.beat("a").Owned), 0)
	again := b.take("b")
	if again == nil || again.Epoch != 2 {
		b.Fatalf("Take = %+v, want epoch 2", again)
	}
	b.same("results", texts(b.results(c.Run.ID), func(r loom.Result) string { return r.Node + string(r.Status) }), []string{"n1ok", "n2running"})
}

func leaving(b *bench) {
	mine, other := b.start("j"), b.fireAs("b", loom.Firing{Job: "k", Run: b.run(), Claim: true}).Claim
	b.act(loom.Action{Verb: loom.VerbCancel, Object: mine.Run.ID, By: "kim"})
	b.leave("a")
	b.same("the run of who left", b.one(mine.Run.ID).Status, loom.StatusQueued)
	b.same("the other's", b.one(other.Run.ID).Status, loom.StatusRunning)
	if c := b.take("b"); c == nil || c.Run.ID != mine.Run.ID || c.Epoch != 2 {
		b.Fatalf("Take = %+v", c)
	}
	p := b.beat("b")
	if p.Cancel[mine.Run.ID] == "" {
		b.Errorf("who takes a run does not learn that it shall end: %+v", p)
	}
	b.same("runs owned", len(p.Owned), 2)
}

// silence waits until an instance counts as silent, and no longer.
func silence(b *bench) {
	ttl := b.beat("b").TTL
	if ttl > 2*time.Second {
		b.Skipf("its time to live is %v", ttl)
	}
	old := b.start("j")
	look := time.NewTicker(ttl / 20)
	defer look.Stop()
	for range 20 * 20 { // twenty times as long
		b.beat("b")
		if c := b.take("b"); c != nil {
			if c.Run.ID != old.Run.ID || c.Epoch != 2 {
				b.Errorf("Take = %+v", c)
			}
			if err := b.s.Record(b.Context(), old, life("n1", loom.StatusOK)); !errors.Is(err, loom.ErrFenced) {
				b.Errorf("Record by the one that was silent: %v, want ErrFenced", err)
			}
			return
		}
		<-look.C
	}
	b.Error("the run of a silent instance was never handed back")
}

func results(b *bench) {
	c := b.start("j")
	at := func(n int) time.Time { return minute(0).Add(time.Duration(n) * time.Second).Local() }
	attempt := &loom.Result{Status: loom.StatusUnreachable, ExitCode: -1, Reason: "no route", Started: at(0), Ended: at(1)}
	failed := &loom.Result{Status: loom.StatusTimeout, ExitCode: -1, Reason: "too slow", Started: at(2), Ended: at(3)}
	b.record(c,
		loom.Event{Kind: loom.KindRunStarted, Time: at(0)},
		loom.Event{Kind: loom.KindNodeStarted, Node: "n1", Time: at(0)},
		loom.Event{Kind: loom.KindNodeStarted, Node: "n2", Time: at(0)},
		loom.Event{Kind: loom.KindRetry, Node: "n1", Time: at(1), Result: attempt},
		loom.Event{Kind: loom.KindChanged, Node: "n2", Text: "wrote a"})
	b.record(c,
		loom.Event{Kind: loom.KindRetry, Node: "n1", Time: at(3), Result: failed},
		loom.Event{Kind: loom.KindChanged, Node: "n2", Text: "wrote b"})
	b.same("while it is going", b.results(c.Run.ID), []loom.Result{
		{Run: c.Run.ID, Job: "j", Node: "n1", Status: loom.StatusRunning, ExitCode: -1, Started: at(0), Attempts: 3, Earlier: []loom.Attempt{
			{Started: at(0), Ended: at(1), Status: loom.StatusUnreachable, ExitCode: -1, Reason: "no route"},
			{Started: at(2), Ended: at(3), Status: loom.StatusTimeout, ExitCode: -1, Reason: "too slow"}}},
		{Run: c.Run.ID, Job: "j", Node: "n2", Status: loom.StatusRunning, ExitCode: -1, Started: at(0), Attempts: 1, Changes: []string{"wrote a", "wrote b"}},
	})
	b.record(c,
		loom.Event{Kind: loom.KindNodeEnded, Node: "n1", Time: at(5), Result: &loom.Result{Status: loom.StatusFailed, ExitCode: 3,
			Reason: "exit status 3", Started: at(0), Ended: at(5), Attempts: 3, Dropped: 7, Err: errors.New("exit status 3")}},
		loom.Event{Kind: loom.KindNodeEnded, Node: "n2", Time: at(4), Result: &loom.Result{Status: loom.StatusChanged, ExitCode: -1,
			Changes: []string{"wrote a", "wrote b", "wrote \"c\""}, Started: at(0), Ended: at(4)}},
		loom.Event{Kind: loom.KindNodeEnded, Node: "n3", Time: at(4), Result: &loom.Result{Status: loom.StatusOK,
			Started: at(4), Ended: at(4), Attempts: 2, Earlier: []loom.Attempt{{Started: at(2), Ended: at(3), Status: loom.StatusFailed, ExitCode: 1, Reason: "x"}}}})
	b.same("counts of a run that is going", b.one(c.Run.ID).Counts,
		map[loom.Status]int{loom.StatusFailed: 1, loom.StatusChanged: 1, loom.StatusOK: 1})
	want := []loom.Result{
		{Run: c.Run.ID, Job: "j", Node: "n1", Status: loom.StatusFailed, ExitCode: 3, Reason: "exit status 3", Started: at(0), Ended: at(5), Attempts: 3, Dropped: 7, Earlier: []loom.Attempt{
			{Started: at(0), Ended: at(1), Status: loom.StatusUnreachable, ExitCode: -1, Reason: "no route"},
			{Started: at(2), Ended: at(3), Status: loom.StatusTimeout, ExitCode: -1, Reason: "too slow"}}},
		{Run: c.Run.ID, Job: "j", Node: "n2", Status: loom.StatusChanged, ExitCode: -1, Started: at(0), Ended: at(4), Changes: []string{"wrote a", "wrote b", "wrote \"c\""}},
		{Run: c.Run.ID, Job: "j", Node: "n3", Status: loom.StatusOK, Started: at(4), Ended: at(4), Attempts: 2,
			Earlier: []loom.Attempt{{Started: at(2), Ended: at(3), Status: loom.StatusFailed, ExitCode: 1, Reason: "x"}}},
	}
	b.same("at the end", b.results(c.Run.ID), want)

	end := loom.Run{Status: loom.StatusFailed, Reason: "one of three failed", Ended: at(6),
		Counts: map[loom.Status]int{loom.StatusFailed: 1, loom.StatusChanged: 1, loom.StatusOK: 1}}
	b.must(b.s.Finish(b.Context(), c, end, life("n4", loom.StatusOK)))
	r := b.one(c.Run.ID)
	b.same("the run", [...]any{r.Status, r.Reason, r.Ended, r.Counts, r.By, r.Nodes, r.Trigger},
		[...]any{end.Status, end.Reason, end.Ended, end.Counts, "kim", 1, loom.TriggerManual})
	b.same("results", len(b.results(c.Run.ID)), 4)

	other := b.done("k", loom.StatusOK)
	only, err := b.s.Results(b.Context(), loom.ResultQuery{Runs: []string{other.ID, "nothing", c.Run.ID}, Node: "n2"})
	b.must(err)
	b.same("on one node", only, want[1:2])
	b.same("of no run", len(b.results()), 0)
}

func output(b *bench) {
	c := b.start("j")
	at := minute(0).Add(123 * time.Millisecond).Local()
	out := func(node string, stream loom.Stream, text string, more bool) loom.Event {
		return loom.Event{Kind: loom.KindOutput, Node: node, Time: at, Stream: stream, Text: text, More: more}
	}
	odd := "tab\t esc\x1b[31m nul\x00 bad\xff\xfe ☃"
	b.record(c, out("n1", loom.Stdout, "one", false), out("n2", loom.Stderr, odd, false), out("n1", loom.Log, "", true), out("n1", loom.Stdout, "two", false))
	b.record(c, out("n1", loom.Stderr, "three", false))
	chunks := b.output(loom.OutputQuery{Run: c.Run.ID})
	b.same("all output", lines(chunks), []string{"n1 stdout one", "n1 log ", "n1 stdout two", "n2 stderr " + odd, "n1 stderr three"})
	b.same("a line", chunks[0].Lines[1], loom.Line{Time: at, Stream: loom.Log, More: true})
	b.same("one node's output", lines(b.output(loom.OutputQuery{Run: c.Run.ID, Node: "n2"})), []string{"n2 stderr " + odd})
	b.same("output of no node", len(b.output(loom.OutputQuery{Run: c.Run.ID, Node: "n9"})), 0)
	b.same("output of no run", len(b.output(loom.OutputQuery{Run: "nothing"})), 0)

	long := strings.Repeat("0123456789abcdef", 20_000) // 320 kB in one line
	b.record(c, out("n3", loom.Stdout, long, false))
	var got strings.Builder
	var pieces int
	q := loom.OutputQuery{Run: c.Run.ID, Node: "n3", Limit: 1}
	for {
		page := b.output(q)
		if len(page) == 0 {
			break
		}
		if page[0].Cursor <= q.After {
			b.Fatalf("the cursor goes from %d to %d", q.After, page[0].Cursor)
		}
		q.After = page[0].Cursor
		size := 0
		for i, l := range page[0].Lines {
			got.WriteString(l.Text)
			size += len(l.Text)
			if last := got.Len() == len(long); l.More == last {
				b.Errorf("piece %d of a long line says More: %v", i, l.More)
			}
		}
		if size > 64<<10 {
			b.Errorf("a chunk has %d bytes", size)
		}
		pieces++
	}
	if got.String() != long || pieces < 5 {
		b.Errorf("a long line comes back as %d bytes in %d chunks", got.Len(), pieces)
	}
}

func following(b *bench) {
	c := b.start("j")
	other := b.start("k")
	const batches = 30
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range batches {
			for _, c := range []loom.Claim{c, other} {
				if err := b.s.Record(b.Context(), c, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Time: minute(0), Stream: loom.Stdout, Text: fmt.Sprint(c.Run.Job, i)}}); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
	var got, want []string
	q := loom.OutputQuery{Run: c.Run.ID, Limit: 3}
	for len(got) < batches && !b.Failed() {
		page := b.output(q)
		got = append(got, lines(page)...)
		if n := len(page); n > 0 {
			q.After = page[n-1].Cursor
		}
	}
	for i := range batches {
		want = append(want, fmt.Sprint("n1 stdout j", i))
	}
	wg.Wait()
	b.same("what was followed", got, want)
	b.same("what came after", len(b.output(q)), 0)
}

// watching follows runs by what a loom.Watcher tells alone.
func watching(b *bench) {
	w, ok := b.s.(loom.Watcher)
	if !ok {
		return // who follows a run in it asks again and again
	}
	const batches = 50
	c, other := b.start("j"), b.start("k")
	news, done := w.Watch(c.Run.ID)
	others, otherDone := w.Watch(other.Run.ID)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range batches {
			if err := b.s.Record(b.Context(), c, []loom.Event{{Kind: loom.KindOutput, Node: "n1", Time: minute(0), Stream: loom.Stdout, Text: fmt.Sprint(i)}}); err != nil {
				b.Error(err)
			}
		}
		if err := b.s.Finish(b.Context(), c, loom.Run{Status: loom.StatusOK}, nil); err != nil {
			b.Error(err)
		}
	})
	q := loom.OutputQuery{Run: c.Run.ID, Limit: 1000}
	read := 0
	for ended := false; !ended; {
		select {
		case <-news:
		case <-time.After(time.Minute):
			b.Fatalf("nothing is told after %d chunks of %d, though the run is not known to have ended", read, batches)
		}
		ended = b.one(c.Run.ID).Status.Ended()
		page := b.output(q)
		if read += len(page); len(page) > 0 {
			q.After = page[len(page)-1].Cursor
		}
	}
	b.same("chunks that were read", read, batches)
	done()
	b.same("news of another run", len(others), 0)

	b.leave("a") // the run waits for somebody, and then it is cancelled before
	for len(others) > 0 {
		<-others
	}
	b.act(loom.Action{By: "kim", Verb: loom.VerbCancel, Object: other.Run.ID})
	if again := b.take("b"); again != nil {
		b.must(b.s.Finish(b.Context(), *again, loom.Run{Status: loom.StatusCancelled}, nil))
	}
	b.same("news of a run that was cancelled", len(others), 1)
	otherDone()

	waits := b.fire(loom.Firing{Job: "l", Run: b.run()}).Claim.Run
	news, done = w.Watch(waits.ID)
	defer done()
	b.act(loom.Action{By: "kim", Verb: loom.VerbCancel, Object: waits.ID})
	b.same("news of a run that was cancelled before it began", len(news), 1)
}

func filtering(b *bench) {
	// Runs 1 to 12: jobs a, b, c in turn; every fourth fails; 12 is going.
	for n := 1; n <= 12; n++ {
		c := b.start([]string{"c", "a", "b"}[n%3])
		status := loom.StatusOK
		if n%4 == 0 {
			status = loom.StatusFailed
		}
		b.record(c, life([]string{"n2", "n1"}[n%2], status)...)
		end := loom.Run{Status: status, Counts: map[loom.Status]int{status: 1}}
		if n == 8 {
			end.Reason = "Too Many Failures"
		}
		if n < 12 {
			b.must(b.s.Finish(b.Context(), c, end, nil))
		}
		if n == 6 {
			<-time.After(3 * time.Millisecond)
		}
	}
	tick := b.fire(loom.Firing{Job: "a", Due: minute(0), Run: b.run(), Overlap: loom.OverlapAllow})
	all := b.find(loom.RunQuery{})
	seventh := all[6].Queued
	failed := []loom.Status{loom.StatusFailed}
	for _, tt := range []struct {
		name string
		q    loom.RunQuery
		want []int
	}{
		{"all", loom.RunQuery{}, []int{13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		{"the newest", loom.RunQuery{Limit: 2}, []int{13, 12}},
		{"a page", loom.RunQuery{Limit: 3, Before: all[4].ID}, []int{8, 7, 6}},
		{"before the first", loom.RunQuery{Before: all[12].ID}, nil},
		{"a job", loom.RunQuery{Job: "a"}, []int{13, 10, 7, 4, 1}},
		{"a job's page", loom.RunQuery{Job: "a", Before: all[3].ID, Limit: 2}, []int{7, 4}},
		{"no job", loom.RunQuery{Job: "nobody"}, nil},
		{"failed", loom.RunQuery{Status: failed}, []int{8, 4}},
		{"failed, a page", loom.RunQuery{Status: failed, Before: all[5].ID}, []int{4}},
		{"failed ones of a job", loom.RunQuery{Status: failed, Job: "a"}, []int{4}},
		{"going", loom.RunQuery{Status: []loom.Status{loom.StatusRunning, loom.StatusQueued}}, []int{13, 12}},
		{"good or failed", loom.RunQuery{Status: []loom.Status{loom.StatusOK, loom.StatusFailed}, Limit: 3}, []int{11, 10, 9}},
		{"by the schedule", loom.RunQuery{Trigger: loom.TriggerSchedule}, []int{13}},
		{"on a node", loom.RunQuery{Node: "n1"}, []int{11, 9, 7, 5, 3, 1}},
		{"on a node, a page", loom.RunQuery{Node: "n1", Before: all[5].ID, Limit: 2}, []int{7, 5}},
		{"on a node, by job", loom.RunQuery{Node: "n1", Job: "a"}, []int{7, 1}},
		{"on a node, failed", loom.RunQuery{Node: "n2", Status: failed}, []int{8, 4}},
		{"on no node", loom.RunQuery{Node: "n9"}, nil},
		{"since", loom.RunQuery{Since: seventh}, []int{13, 12, 11, 10, 9, 8, 7}},
		{"until", loom.RunQuery{Until: seventh}, []int{6, 5, 4, 3, 2, 1}},
		{"failed since", loom.RunQuery{Since: seventh, Status: failed}, []int{8}},
		{"an ID", loom.RunQuery{ID: tick.Claim.Run.ID}, []int{13}},
		{"part of an ID", loom.RunQuery{ID: all[0].ID[:25]}, []int{13, 12, 11, 10}},
		{"a small part of an ID", loom.RunQuery{ID: "000", Job: "b", Limit: 1}, []int{11}},
		{"an ID and a node", loom.RunQuery{ID: all[0].ID[:25], Node: "n1"}, []int{11}},
		{"no ID", loom.RunQuery{ID: "1"}, nil},
		{"text of the reason", loom.RunQuery{Text: "many fail"}, []int{8}},
		{"text of a result", loom.RunQuery{Text: "DISK is full"}, []int{12, 8, 4}},
		{"who", loom.RunQuery{Text: "kim", Limit: 2}, []int{12, 11}},
		{"who, in other words", loom.RunQuery{Text: "Kim"}, []int{12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		{"text of two characters", loom.RunQuery{Text: "IM", Limit: 1}, []int{12}},
		{"text of a result, a page", loom.RunQuery{Text: "disk is", Before: all[1].ID, Limit: 1}, []int{8}},
		{"text of a result, failed", loom.RunQuery{Text: "disk is", Status: failed}, []int{8, 4}},
		{"text of a result, until", loom.RunQuery{Text: "disk is", Until: seventh}, []int{4}},
		{"text that is no pattern", loom.RunQuery{Text: `d*k "is`}, nil},
		{"text of two lines", loom.RunQuery{Text: "kim\ntoo"}, nil},
		{"text that is a part of two", loom.RunQuery{Text: "manydisk"}, nil},
		{"no such text", loom.RunQuery{Text: "100%"}, nil},
		{"all at once", loom.RunQuery{Job: "a", Status: failed, Trigger: loom.TriggerManual, Node: "n2", Text: "full", Until: seventh}, []int{4}},
	} {
		if got := ids(b.find(tt.q)); !slices.Equal(got, tt.want) {
			b.Errorf("%s: runs %v, want %v", tt.name, got, tt.want)
		}
	}
	b.trim(loom.Retention{RunsPerJob: 1})
	if got := ids(b.find(loom.RunQuery{Before: all[4].ID})); len(got) != 0 {
		b.Errorf("before a run that was trimmed: %v", got)
	}
	if got := ids(b.find(loom.RunQuery{Before: all[2].ID, Limit: 1})); len(got) != 0 {
		b.Errorf("before the oldest that is left: %v", got)
	}
	b.same("before the newest", ids(b.find(loom.RunQuery{Before: all[0].ID})), []int{12, 11})
}

func recent(b *bench) {
	var want []loom.Run
	for n := range 5 {
		c := b.start("a")
		b.record(c, life("n1", loom.StatusOK)...)
		if n < 4 {
			b.must(b.s.Finish(b.Context(), c, loom.Run{Status: loom.StatusChanged, Counts: map[loom.Status]int{loom.StatusOK: 1}}, life("n2", loom.StatusFailed)))
		}
		r := b.one(c.Run.ID)
		want = append([]loom.Run{{ID: r.ID, Job: "a", Due: r.Due, Trigger: r.Trigger, Queued: r.Queued, Started: r.Started, Ended: r.Ended,
			Status: r.Status, Nodes: r.Nodes}}, want...)
	}
	other := b.start("b")
	b.record(other, life("n2", loom.StatusUnreachable)...)
	b.same("all of a job", must(b.s.RecentRuns(b.Context(), 10, "a")), want)
	both := must(b.s.RecentRuns(b.Context(), 2, "b", "nobody", "a"))
	b.same("some of two jobs", ids(both), ids([]loom.Run{other.Run, want[0], want[1]}))
	b.same("of no job", len(must(b.s.RecentRuns(b.Context(), 10))), 0)

	results := must(b.s.RecentResults(b.Context(), 2, "n2", "n9", "n1"))
	var words []string
	for _, r := range results {
		words = append(words, r.Node+" "+r.Job+" "+string(r.Status))
	}
	b.same("results", words, []string{"n2 b unreachable", "n2 a failed", "n1 a ok", "n1 a ok"})
	b.same("a result is as elsewhere", results[:1], b.results(other.Run.ID))
	b.same("on no node", len(must(b.s.RecentResults(b.Context(), 10))), 0)
}

func states(b *bench) {
	b.must(b.s.Adopt(b.Context(), map[string]string{"a": "", "b": ""}))
	b.done("a", loom.StatusOK)
	last := b.done("a", loom.StatusFailed)
	going := b.start("c")
	b.record(going, life("n1", loom.StatusOK)...)
	all := must(b.s.Jobs(b.Context()))
	b.same("names", texts(all, func(s loom.JobState) string { return s.Name }), []string{"a", "b", "c"})
	if a := all[0]; a.Last == nil || a.Last.ID != last.ID || a.Last.Status != loom.StatusFailed || a.LastTick.IsZero() {
		b.Errorf("job a: %+v", a)
	}
	if all[1].Last != nil || all[1].Pause != nil {
		b.Errorf("job b: %+v", all[1])
	}
	if c := all[2]; c.Last == nil || c.Last.Counts[loom.StatusOK] != 1 || !c.LastTick.IsZero() {
		b.Errorf("job c: %+v", c)
	}
	some := must(b.s.Jobs(b.Context(), "c", "nobody", "b"))
	b.same("some names", texts(some, func(s loom.JobState) string { return s.Name }), []string{"b", "c"})
}

func days(b *bench) {
	r := b.done("a", loom.StatusOK)
	b.done("a", loom.StatusOK)
	b.done("a", loom.StatusFailed)
	b.done("b", loom.StatusOK)
	b.start("b") // is not counted
	day := r.Queued.Truncate(time.Hour)
	count := func(q loom.DayQuery) []string {
		b.Helper()
		days := must(b.s.Days(b.Context(), q))
		for _, d := range days {
			if d.Day.After(r.Queued) || r.Queued.Sub(d.Day) > 25*time.Hour {
				b.Errorf("the day of %v is %v", r.Queued, d.Day)
			}
		}
		return texts(days, func(d loom.DayCount) string { return fmt.Sprint(d.Status, d.Runs) })
	}
	from := day.Add(-48 * time.Hour)
	b.same("all jobs", count(loom.DayQuery{From: from}), []string{"failed1", "ok3"})
	b.same("one job", count(loom.DayQuery{From: from, Job: "a"}), []string{"failed1", "ok2"})
	b.same("no job", count(loom.DayQuery{From: from, Job: "nobody"}), []string(nil))
	b.same("days before", count(loom.DayQuery{From: from, To: day.Add(-25 * time.Hour)}), []string(nil))
	b.trim(loom.Retention{RunsPerJob: 1})
	b.same("after the runs were trimmed", count(loom.DayQuery{From: from}), []string{"failed1", "ok3"})
}

func actions(b *bench) {
	for i := range 5 {
		b.act(loom.Action{By: "kim", Verb: "token create", Object: []string{"t1", "t2"}[i%2], Why: fmt.Sprint(i)})
	}
	why := func(q loom.ActionQuery) []string {
		b.Helper()
		var all []string
		for _, a := range must(b.s.Actions(b.Context(), q)) {
			if a.By != "kim" || a.Verb != "token create" || a.Time.IsZero() {
				b.Errorf("action %+v", a)
			}
			all = append(all, a.Why)
		}
		return all
	}
	b.same("all", why(loom.ActionQuery{}), []string{"4", "3", "2", "1", "0"})
	b.same("of one object", why(loom.ActionQuery{Object: "t2"}), []string{"3", "1"})
	second := must(b.s.Actions(b.Context(), loom.ActionQuery{}))[3].Time
	b.act(loom.Action{By: "ann", Verb: "token revoke", Object: "t1"})
	b.same("of one person", len(must(b.s.Actions(b.Context(), loom.ActionQuery{By: "ann"}))), 1)
	b.same("of one kind", why(loom.ActionQuery{Verb: "token create", Object: "t1"}), []string{"4", "2", "0"})
	b.same("since and until", len(must(b.s.Actions(b.Context(), loom.ActionQuery{Since: second, Until: second}))), 0)
	b.same("since", len(must(b.s.Actions(b.Context(), loom.ActionQuery{Since: second}))) >= 5, true)
	b.same("until", len(must(b.s.Actions(b.Context(), loom.ActionQuery{Until: second}))) <= 1, true)
	page := must(b.s.Actions(b.Context(), loom.ActionQuery{Limit: 2, By: "kim"}))
	b.same("a page", why(loom.ActionQuery{Limit: 2, By: "kim", Before: page[1].ID}), []string{"2", "1"})
}

func trimAge(b *bench) {
	b.done("a", loom.StatusOK)
	b.record(b.start("a"), life("n1", loom.StatusOK)...) // goes on
	done := b.start("a")
	b.record(done, life("n1", loom.StatusFailed)...)
	b.finish(done, loom.StatusFailed)
	b.queued("a")
	b.same("kept for a day", b.trim(loom.Retention{Runs: 24 * time.Hour}), loom.Trimmed{})
	<-time.After(5 * time.Millisecond)
	t := b.trim(loom.Retention{Runs: time.Millisecond})
	b.same("runs and chunks", [...]int{t.Runs, t.Chunks}, [...]int{2, 1})
	b.same("runs left", ids(b.find(loom.RunQuery{})), []int{4, 2})
	b.same("results of a run that is going", len(b.results(fmt.Sprintf("%026d", 2))), 1)
	b.same("results of a trimmed run", len(b.results(done.Run.ID)), 0)
	b.same("runs left on the node", ids(b.find(loom.RunQuery{Node: "n1"})), []int{2})
	b.same("nothing asked for", b.trim(loom.Retention{}), loom.Trimmed{})

	b.done("yearly", loom.StatusOK)
	<-time.After(5 * time.Millisecond)
	b.same("the last run of a job", b.trim(loom.Retention{Runs: time.Millisecond}).Runs, 0)
	b.must(b.s.Adopt(b.Context(), map[string]string{"a": ""}))
	b.same("the last run of a job that is gone", b.trim(loom.Retention{Runs: time.Millisecond}).Runs, 1)
}

func trimCount(b *bench) {
	for range 5 {
		b.done("a", loom.StatusOK)
		b.done("b", loom.StatusOK)
	}
	b.start("a")
	b.same("runs trimmed", b.trim(loom.Retention{RunsPerJob: 2}).Runs, 4+3)
	b.same("of a", ids(b.find(loom.RunQuery{Job: "a"})), []int{11, 9})
	b.same("of b", ids(b.find(loom.RunQuery{Job: "b"})), []int{10, 8})
	b.same("again", b.trim(loom.Retention{RunsPerJob: 2}).Runs, 0)
}

// plan begins a plan of a job.
func (b *bench) plan(job string) loom.Claim {
	b.Helper()
	r := b.byHand("kim")
	r.Plan = true
	f := b.fire(loom.Firing{Job: job, Run: r, Overlap: loom.OverlapAllow, Claim: true, Why: "to see"})
	if f.Claim.Epoch == 0 {
		b.Fatalf("the plan was not claimed: %+v", f)
	}
	return f.Claim
}

func terms(b *bench) {
	b.start("j")
	r := b.byHand("kim")
	r.Timeout, r.Max, r.Plan = 1500*time.Millisecond, 3, true
	asked := func(r loom.Run) [3]any { return [3]any{r.Timeout, r.Max, r.Plan} }
	f := b.fire(loom.Firing{Job: "j", Run: r, Overlap: loom.OverlapQueue, Claim: true})
	b.same("fired", [2]any{asked(f.Claim.Run), f.Claim.Epoch}, [2]any{asked(r), int64(0)})
	b.same("fired again", asked(b.fire(loom.Firing{Job: "j", Run: r, Overlap: loom.OverlapQueue}).Claim.Run), asked(r))
	b.same("waiting", asked(b.one(r.ID)), asked(r))
	b.finish(loom.Claim{Run: b.one(fmt.Sprintf("%026d", 1)), Owner: "a", Epoch: 1}, loom.StatusOK)
	c := b.take("b")
	if c == nil || c.Run.ID != r.ID {
		b.Fatalf("Take = %+v, want the run that waits", c)
	}
	b.same("taken", asked(c.Run), asked(r))
	b.same("of others", asked(b.start("j").Run), asked(loom.Run{}))
}

func plans(b *bench) {
	b.must(b.s.Adopt(b.Context(), map[string]string{"j": ""}))
	plan := b.plan("j")
	b.record(plan, life("n1", loom.StatusChanged)...)
	b.same("the job's last run", b.state("j").Last, (*loom.Run)(nil))

	// It is in nobody's way, and queued ones need not wait for it.
	skip := b.fire(loom.Firing{Job: "j", Run: b.byHand("kim"), Overlap: loom.OverlapSkip, Claim: true})
	b.same("skip beside a plan", skip.Claim.Epoch, int64(1))
	queued := b.fire(loom.Firing{Job: "j", Run: b.byHand("kim"), Overlap: loom.OverlapQueue})
	b.finish(skip.Claim, loom.StatusFailed)
	if c := b.take("a"); c == nil || c.Run.ID != queued.Claim.Run.ID {
		b.Errorf("Take = %+v, want what is queued beside a plan", c)
	} else {
		b.finish(*c, loom.StatusOK)
	}
	last := b.fire(loom.Firing{Job: "j", Run: b.byHand("kim"), Overlap: loom.OverlapReplace, Claim: true})
	b.same("replace beside a plan", [2]any{last.Claim.Epoch, len(b.beat("a").Cancel)}, [2]any{int64(1), 0})
	b.finish(last.Claim, loom.StatusFailed)
	b.finish(plan, loom.StatusChanged)
	newest := b.plan("j")
	b.record(newest, life("n1", loom.StatusUnreachable)...)
	b.finish(newest, loom.StatusFailed)

	is := b.state("j").Last
	b.same("the last run", [2]any{is.ID, is.Plan}, [2]any{last.Claim.Run.ID, false})
	b.same("what ran last", ids(must(b.s.RecentRuns(b.Context(), 10, "j"))), []int{4, 3, 2})
	b.same("what the node did last", len(must(b.s.RecentResults(b.Context(), 10, "n1"))), 0)
	counted := 0
	for _, d := range must(b.s.Days(b.Context(), loom.DayQuery{Job: "j", From: is.Queued})) {
		counted += d.Runs
	}
	b.same("runs that are counted", counted, 3)
	b.same("all runs", ids(b.find(loom.RunQuery{Job: "j"})), []int{5, 4, 3, 2, 1})
	b.same("plans", ids(b.find(loom.RunQuery{Plan: new(true)})), []int{5, 1})
	b.same("others", ids(b.find(loom.RunQuery{Job: "j", Plan: new(false), Status: []loom.Status{loom.StatusFailed}})), []int{4, 2})
	b.same("what it would change", b.results(plan.Run.ID)[0].Changes, []string{"wrote /etc/motd"})
	acts := must(b.s.Actions(b.Context(), loom.ActionQuery{Verb: loom.VerbPlan}))
	if len(acts) != 2 || acts[0].By != "kim" || acts[0].Object != "j" || acts[0].Why != "to see" {
		b.Errorf("the actions are %+v, want two plans of j by kim", acts)
	}
}

func trimPlans(b *bench) {
	b.must(b.s.Adopt(b.Context(), map[string]string{"a": "", "b": ""}))
	b.done("a", loom.StatusOK)
	for range 2 {
		b.finish(b.plan("a"), loom.StatusOK)
	}
	b.finish(b.plan("b"), loom.StatusOK)
	b.same("runs trimmed", b.trim(loom.Retention{RunsPerJob: 1}).Runs, 1)
	b.same("the newest, and the last that was no plan", ids(b.find(loom.RunQuery{Job: "a"})), []int{3, 1})
	<-time.After(5 * time.Millisecond)
	b.same("old runs trimmed", b.trim(loom.Retention{Runs: time.Millisecond}).Runs, 2)
	b.same("the last that was no plan", ids(b.find(loom.RunQuery{})), []int{1})
	b.same("the job's last run", b.state("a").Last.Plan, false)
	b.same("of a job that was only planned", b.state("b").Last, (*loom.Run)(nil))
}

func trimOutput(b *bench) {
	print := func(c loom.Claim, text string) {
		b.record(c, loom.Event{Kind: loom.KindOutput, Node: "n1", Time: minute(0), Stream: loom.Stdout, Text: text})
	}
	going := b.start("a")
	print(going, "from one that goes on")
	var done []loom.Claim
	for i := range 4 {
		c := b.start("a")
		print(c, fmt.Sprintf("%d %s", i, strings.Repeat("x", 90))) // too short to be compressed
		b.finish(c, loom.StatusOK)
		done = append(done, c)
	}
	t := b.trim(loom.Retention{OutputBytes: 300})
	if t.Chunks != 2 || t.Bytes < 180 || t.Bytes > 250 || t.Runs != 0 {
		b.Errorf("Trim = %+v, want the two oldest chunks", t)
	}
	left := func() []string {
		var runs []string
		for _, c := range append([]loom.Claim{going}, done...) {
			if len(b.output(loom.OutputQuery{Run: c.Run.ID})) > 0 {
				runs = append(runs, c.Run.ID)
			}
		}
		return runs
	}
	b.same("output left", left(), []string{going.Run.ID, done[2].Run.ID, done[3].Run.ID})
	<-time.After(5 * time.Millisecond)
	b.same("chunks", b.trim(loom.Retention{Output: time.Millisecond}).Chunks, 2)
	b.same("output left", left(), []string{going.Run.ID})
	b.same("runs", len(b.find(loom.RunQuery{})), 5)
}

func trimTicks(b *bench) {
	now := b.beat("a").Now
	old, recent := now.Add(-48*time.Hour), now.Add(-time.Hour)
	b.fire(loom.Firing{Job: "j", Due: old, Outcome: loom.OutcomeMissed, Why: "one"})
	b.fire(loom.Firing{Job: "j", After: old, Due: old.Add(time.Minute), Until: recent, Ticks: 9, Outcome: loom.OutcomeMissed, Why: "two"})
	b.fire(loom.Firing{Job: "j", After: recent, Due: now, Outcome: loom.OutcomeMissed, Why: "three"})
	b.act(loom.Action{Verb: "look", By: "kim"})
	b.same("ticks", b.trim(loom.Retention{Ticks: 24 * time.Hour}).Ticks, 1)
	b.same("ticks left", texts(b.ticks(loom.TickQuery{Job: "j"}), func(k loom.Tick) string { return k.Why }), []string{"three", "two"})
	b.same("actions left", len(must(b.s.Actions(b.Context(), loom.ActionQuery{}))), 1)
	<-time.After(5 * time.Millisecond)
	b.trim(loom.Retention{Ticks: time.Millisecond})
	b.same("actions left", len(must(b.s.Actions(b.Context(), loom.ActionQuery{}))), 0)
	if last := b.state("j").LastTick; !last.Equal(now) {
		b.Errorf("the last tick is %v, want %v", last, now)
	}
}

// everything has many goroutines do all that can be done at once.
func everything(b *bench) {
	const workers, rounds = 6, 12
	check := func(err error) {
		if err != nil && !errors.Is(err, loom.ErrNotFound) && !errors.Is(err, loom.ErrFenced) {
			b.Error(err)
		}
	}
	ctx := b.Context()
	race(workers, func(i int) {
		self := fmt.Sprint("instance ", i)
		for n := range rounds {
			job := fmt.Sprint("job ", (n+i)%4)
			fired, err := b.s.Fire(ctx, self, []loom.Firing{
				{Job: job, Run: b.byHand("kim"), Overlap: loom.OverlapAllow, Claim: true},
				{Job: job, Run: b.byHand("sam"), Overlap: loom.OverlapQueue, Key: fmt.Sprint(n)}})
			check(err)
			if err != nil {
				return
			}
			c := fired[0].Claim
			check(b.s.Record(ctx, c, life("n1", loom.StatusFailed)))
			check(b.s.Act(ctx, loom.Action{By: "kim", Verb: loom.VerbCancel, Object: c.Run.ID}))
			check(b.s.Adopt(ctx, map[string]string{job: fmt.Sprint(n)}))
			check(b.s.Finish(ctx, c, loom.Run{Status: loom.StatusFailed}, life("n2", loom.StatusOK)))
			taken, err := b.s.Take(ctx, self)
			check(err)
			_, err = b.s.Beat(ctx, loom.Instance{ID: self})
			check(err)
			if taken != nil {
				check(b.s.Finish(ctx, *taken, loom.Run{Status: loom.StatusOK}, life("n3", loom.StatusOK)))
			}
			_, err = b.s.Runs(ctx, loom.RunQuery{Job: job, Text: "disk"})
			check(err)
			_, err = b.s.Jobs(ctx)
			check(err)
			_, err = b.s.Output(ctx, loom.OutputQuery{Run: c.Run.ID})
			check(err)
			_, err = b.s.Results(ctx, loom.ResultQuery{Runs: []string{c.Run.ID}})
			check(err)
			if n%5 == 0 {
				_, err = b.s.Trim(ctx, loom.Retention{RunsPerJob: 20, OutputBytes: 5000, Ticks: time.Hour})
				check(err)
			}
		}
	})
	for _, r := range b.find(loom.RunQuery{Status: []loom.Status{loom.StatusFailed}, Limit: 1000}) {
		for _, res := range b.results(r.ID) {
			if !res.Status.Ended() || res.Ended.IsZero() {
				b.Errorf("a run that ended has a result that did not: %+v", res)
			}
		}
	}
}
