package loomtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dustinlacewell/loom"
)

// TestTask checks what every task owes Loom. The server function makes a new
// node for each check, all in the same state, on which applying the task
// succeeds; it gets the test that the node is for. If the task can plan, applying
// it must bring the node into the state that it wants: such a node is most easily
// one of [Real], or a handler that remembers what it was told.
func TestTask(t *testing.T, task loom.Task, server func(t *testing.T) *Server) {
	if v, ok := task.(loom.Validator); ok {
		if err := v.Validate(); err != nil {
			t.Fatalf("the task's parameters are not valid: %v", err)
		}
	}
	c := taskCase{task: task, server: server}
	run(t, "value", "Apply must not change its receiver: the same value is applied to every node.", c.value)
	run(t, "two nodes at once", "The same value is applied to many nodes at the same time.", c.together)
	run(t, "cancel", "Apply returns promptly once ctx is done, whatever the node does.", c.cancel)
	if _, ok := task.(loom.Planner); ok {
		run(t, "plan changes nothing", "Plan tells what Apply would change, without changing anything.", c.plan)
		run(t, "apply twice", "Once Apply has returned nil, the node is as the task wants it: there is nothing to plan and nothing to change.", c.twice)
	}
}

// run runs one check of a contract, whose sentence is shown if it fails.
func run(t *testing.T, name, contract string, check func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the contract: %s", contract)
			}
		})
		check(t)
	})
}

type taskCase struct {
	task   loom.Task
	server func(*testing.T) *Server
}

// good reports whether a task's error is none.
func good(err error) bool {
	_, skipped := errors.AsType[*loom.SkipError](err)
	return err == nil || skipped
}

func (c taskCase) value(t *testing.T) {
	before := describe(c.task)
	_, err := apply(t.Context(), c.server(t).Session(t), c.task)
	if !good(err) {
		t.Errorf("Apply = %v: the node for this suite must be one on which it succeeds", err)
	}
	if after := describe(c.task); after != before {
		t.Errorf("Apply has changed the task, which was\n\t%s\nand is\n\t%s", before, after)
	}
}

func (c taskCase) together(t *testing.T) {
	var wg sync.WaitGroup
	var errs [2]error
	for i := range errs {
		s := c.server(t).Session(t)
		wg.Go(func() { _, errs[i] = apply(t.Context(), s, c.task) })
	}
	wg.Wait()
	for i, err := range errs {
		if !good(err) {
			t.Errorf("on node %d: Apply = %v, though it succeeds alone", i+1, err)
		}
	}
}

const (
	patience = time.Minute      // how long a node hangs before ctx ends
	grace    = 10 * time.Second // what the pool allows
)

var errPatience = errors.New("the suite's patience is over")

func (c taskCase) cancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := c.server(t)
		srv.hang = true
		s := srv.Session(t)
		ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errPatience)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := apply(ctx, s, c.task)
			done <- err
		}()

		limit := time.NewTimer(patience + grace)
		defer limit.Stop()
		select {
		case err := <-done:
			if srv.hung() && err == nil {
				t.Error("Apply = nil, though the node never answered what it was asked")
			}
		case <-limit.C:
			t.Errorf("Apply has not returned %v after its context ended, on a node that does not answer", grace)
			_ = s.Conn.Close() // so that it does
			if err := <-done; err == nil {
				t.Error("and then it returned nil")
			}
		}
	})
}

// hung reports whether anything was asked of a node that hangs.
func (s *Server) hung() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (c taskCase) planner() loom.Planner { return c.task.(loom.Planner) } // TestTask has asked whether it is one

func (c taskCase) plan(t *testing.T) {
	srv := c.server(t)
	before, err := srv.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s := srv.Session(t)
	s.OnChange = func(change loom.Change) { t.Errorf("Plan has reported the change %q as done", change) }
	value := describe(c.task)
	plan, err := c.planner().Plan(t.Context(), s)
	if !good(err) {
		t.Fatalf("Plan = %v, on a node on which Apply succeeds", err)
	}
	after, snapErr := srv.snapshot()
	if snapErr != nil {
		t.Fatal(snapErr)
	}
	if after != before {
		t.Errorf("Plan has changed the node's files, which were\n%sand are\n%s", before, after)
	}
	if now := describe(c.task); now != value {
		t.Errorf("Plan has changed the task, which was\n\t%s\nand is\n\t%s", value, now)
	}
	if err != nil {
		return // it can't tell
	}

	changes, err := apply(t.Context(), srv.Session(t), c.task)
	if !good(err) {
		t.Fatalf("Apply after Plan = %v", err)
	}
	if len(plan) == 0 && len(changes) > 0 {
		t.Errorf("Plan told nothing, but Apply then changed %q", changes)
	}
	if len(plan) > 0 && len(changes) == 0 {
		t.Errorf("Plan told %q, but Apply then changed nothing", plan)
	}
}

func (c taskCase) twice(t *testing.T) {
	srv := c.server(t)
	first, err := apply(t.Context(), srv.Session(t), c.task)
	if !good(err) {
		t.Fatalf("Apply = %v: the node for this suite must be one on which it succeeds", err)
	}
	plan, err := c.planner().Plan(t.Context(), srv.Session(t))
	switch {
	case !good(err):
		t.Errorf("Plan after Apply = %v", err)
	case err != nil:
		return // it can't tell
	case len(plan) > 0:
		t.Errorf("after Apply, which changed %q, Plan still tells %q", first, plan)
	}
	second, err := apply(t.Context(), srv.Session(t), c.task)
	if !good(err) {
		t.Errorf("the second Apply = %v", err)
	}
	if len(second) > 0 {
		t.Errorf("the second Apply changed %q", second)
	}
}

// describe tells all about a value that its task could change: what is behind
// pointers and in unexported fields too, but not wiring, which runs share.
func describe(v any) string {
	var b strings.Builder
	d := describer{out: &b, seen: map[visit]bool{}}
	d.value(reflect.ValueOf(v))
	return b.String()
}

type describer struct {
	out  *strings.Builder
	seen map[visit]bool
}

type visit struct {
	at uintptr
	of reflect.Type
}

func (d *describer) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Invalid:
		d.out.WriteString("nil")
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			d.out.WriteString("nil")
			return
		}
		if v.Kind() == reflect.Pointer {
			at := visit{v.Pointer(), v.Type()}
			if d.seen[at] {
				d.out.WriteString("(again)")
				return
			}
			d.seen[at] = true
			d.out.WriteByte('&')
		}
		d.value(v.Elem())
	case reflect.Struct:
		d.structure(v)
	case reflect.Map:
		d.table(v)
	case reflect.Slice, reflect.Array:
		d.out.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				d.out.WriteByte(' ')
			}
			d.value(v.Index(i))
		}
		d.out.WriteByte(']')
	case reflect.String:
		fmt.Fprintf(d.out, "%q", v.String())
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		fmt.Fprintf(d.out, "%v(%x)", v.Type(), v.Pointer())
	default:
		fmt.Fprintf(d.out, "%v", v) // numbers and booleans
	}
}

func (d *describer) structure(v reflect.Value) {
	fmt.Fprintf(d.out, "%v{", v.Type())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("yaml") == "-" {
			continue // wiring
		}
		fmt.Fprintf(d.out, "%s:", f.Name)
		d.value(v.Field(i))
		d.out.WriteByte(' ')
	}
	d.out.WriteByte('}')
}

func (d *describer) table(v reflect.Value) {
	var all []string
	for iter := v.MapRange(); iter.Next(); {
		one := describer{out: new(strings.Builder), seen: d.seen}
		one.value(iter.Key())
		one.out.WriteByte(':')
		one.value(iter.Value())
		all = append(all, one.out.String())
	}
	slices.Sort(all)
	fmt.Fprintf(d.out, "map[%s]", strings.Join(all, " "))
}
