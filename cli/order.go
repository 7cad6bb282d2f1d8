package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// theDaemon returns the memory, if a daemon has it. The caller closes it.
func (p *Program) theDaemon(ctx context.Context) (*memory, error) {
	mem, err := p.memory(ctx, "")
	if err != nil && !errors.Is(err, errNothing) {
		return nil, err
	}
	if mem == nil || mem.daemon == nil {
		mem.close()
		return nil, &Error{Code: ExitUnreachable, Err: errors.New("no daemon runs that could do it"),
			Hint: "start one, or add --local to do it from here, in this process"}
	}
	return mem, nil
}

// order has the daemon start a run, and shows it until it has ended.
func (p *Program) order(ctx context.Context, start func(*memory) (loom.Run, error), detach bool, f *runFlags) error {
	mem, err := p.theDaemon(ctx)
	if err != nil {
		return err
	}
	defer mem.close()
	r, err := start(mem)
	if err != nil {
		return err
	}
	if detach {
		if *f.output == "json" {
			return writeJSON(p.Stdout, api.NewRun(r))
		}
		fmt.Fprintln(p.Stdout, r.ID)
		return nil
	}
	return p.attend(ctx, mem, r, f)
}

// attend shows a run of the daemon until it has ended, or is left alone.
func (p *Program) attend(ctx context.Context, mem *memory, r loom.Run, f *runFlags) error {
	v := newView(p.Stdout, p.Stderr, f.mode(r.Nodes == 1 && !r.Plan), r.Nodes, r.Targets...)
	v.plan = r.Plan
	v.job, v.run, v.raw = strings.TrimPrefix(r.Job, "/"), r.ID, f.command && v.mode == viewPlain
	if !f.command && !r.Plan {
		v.again = fmt.Sprintf("%s retry %s --failed\n  runs it again where it failed; show and logs tell more", p.Name, r.ID)
	}
	if r.Status == loom.StatusQueued && !v.live {
		v.say("%s: run %s waits to begin", p.Name, r.ID)
	}

	interrupts, release := p.Interrupts.take()
	defer release()
	followed, end := context.WithCancelCause(ctx)
	defer end(nil)
	still := animate(v)
	done := make(chan error, 1)
	go func() {
		fo := follower{store: mem.Store, id: r.ID, observe: v.observe, say: v.remark}
		_, err := fo.follow(followed)
		done <- err
	}()
	err := p.until(followed, mem, r, v, done, interrupts, end)
	still()
	switch {
	case err == nil:
		return p.shown(v)
	case errors.Is(context.Cause(followed), errDetached):
		v.leave()
		fmt.Fprintf(p.Stderr, "run %s goes on:\n  %s logs -f %[1]s shows it\n  %[2]s cancel %[1]s ends it\n", r.ID, p.Name)
		return nil
	case followed.Err() != nil:
		v.leave()
		return &Error{Code: ExitFailed, Err: fmt.Errorf("%w: run %s goes on", context.Cause(followed), r.ID),
			Hint: fmt.Sprintf("%s logs -f %s shows it, %[1]s cancel %[2]s ends it", p.Name, r.ID)}
	}
	v.leave()
	return err
}

// errDetached is why a run is not followed any more.
var errDetached = errors.New("detached")

// until waits for the end of a run, and asks at each interrupt what shall become
// of it.
func (p *Program) until(ctx context.Context, mem *memory, r loom.Run, v *view, done <-chan error, interrupts <-chan struct{}, end context.CancelCauseFunc) error {
	keys := p.newKeyboard()
	for {
		select {
		case err := <-done:
			return err
		case <-interrupts:
		}
		if keys == nil || !v.live {
			end(errors.New("interrupted"))
			return <-done
		}
		asking, answered := context.WithCancel(ctx)
		answer := make(chan byte, 1)
		go func() { answer <- p.choice(asking, keys, v) }()
		var err error
		over := false
		select {
		case err = <-done:
			over = true
			answered()
			<-answer
		case key := <-answer:
			p.heed(ctx, key, mem, r, v, end)
		}
		answered()
		if over {
			return err
		}
	}
}

// question is what is asked at Ctrl-C.
const question = "Ctrl-C: [c]ancel the run, [d]etach from it, any other key: keep watching"

// choice asks what shall become of the run, below all else that is shown.
func (p *Program) choice(ctx context.Context, keys *keyboard, v *view) byte {
	v.asks(question)
	defer v.asks("")
	key, err := keys.key(ctx)
	if err != nil {
		return 0
	}
	return key
}

// heed does what was answered. A second Ctrl-C lets go of the run.
func (p *Program) heed(ctx context.Context, key byte, mem *memory, r loom.Run, v *view, end context.CancelCauseFunc) {
	const ctrlC, gone = 3, 4
	switch key {
	case 'c', 'C':
		v.say("%s: the run is being cancelled", p.Name)
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := mem.Act(ctx, loom.Action{Verb: loom.VerbCancel, Object: r.ID, By: mem.who(), Why: "Ctrl-C"}); err != nil {
			v.say("%s: the run can't be cancelled: %v", p.Name, err)
		}
	case 'd', 'D', ctrlC, gone:
		end(errDetached)
	}
}
