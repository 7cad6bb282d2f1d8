package memory_test

import (
	"context"
	"fmt"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

// A tick is fired, its run is worked on under a claim, and the store can tell
// what became of it. Stores on disk are used in the same way.
func Example() {
	ctx := context.Background()
	store := &memory.Store{}
	tick := time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)

	fired, err := store.Fire(ctx, "this process", []loom.Firing{{
		Job: "backup", Due: tick, Claim: true,
		Run: loom.Run{ID: "run 1", Trigger: loom.TriggerSchedule, Nodes: 1},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	claim := fired[0].Claim
	err = store.Record(ctx, claim, []loom.Event{
		{Kind: loom.KindNodeStarted, Node: "db1", Time: tick},
		{Kind: loom.KindOutput, Node: "db1", Time: tick, Stream: loom.Stdout, Text: "42 files saved"},
		{Kind: loom.KindNodeEnded, Node: "db1", Time: tick, Result: &loom.Result{Status: loom.StatusOK}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := store.Finish(ctx, claim, loom.Run{Status: loom.StatusOK}, nil); err != nil {
		fmt.Println(err)
		return
	}

	again, err := store.Fire(ctx, "another", []loom.Firing{{Job: "backup", Due: tick, Run: loom.Run{ID: "run 2"}}})
	fmt.Printf("fired again: %q %v\n", again[0].Outcome, err)
	ticks, err := store.Ticks(ctx, loom.TickQuery{Job: "backup", From: tick, To: tick})
	fmt.Println(ticks[0].Outcome, ticks[0].Run, err)
	chunks, err := store.Output(ctx, loom.OutputQuery{Run: "run 1"})
	fmt.Println(chunks[0].Node, chunks[0].Lines[0].Text, err)
	// Output:
	// fired again: "" <nil>
	// ran run 1 <nil>
	// db1 42 files saved <nil>
}
