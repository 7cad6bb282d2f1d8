package shell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An emulatedClaim is a claim of an emulated node.
type emulatedClaim struct {
	key    string
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu       sync.Mutex
	moved    chan struct{} // closed and replaced when there is more
	out, err bytes.Buffer
	exit     Exit
	cause    string
}

func (c *emulatedClaim) stir() {
	close(c.moved)
	c.moved = make(chan struct{})
}

// A claimWriter keeps what an emulated command prints.
type claimWriter struct {
	c *emulatedClaim
	b *bytes.Buffer
}

func (w claimWriter) Write(p []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.stir()
	return w.b.Write(p)
}

// attach does what an attach script does.
func (e *Emulator) attach(ctx context.Context, text, user string, t Terminal) {
	words, err := parseWords(strings.TrimPrefix(text, claimHead))
	if err != nil || !strings.HasSuffix(text, claimBody) {
		_, _ = fmt.Fprintf(t.Err, "sh: not an attach script of Loom's\n")
		return
	}
	say := func(s ...any) { _, _ = fmt.Fprintln(t.Out, append([]any{words["n"]}, s...)...) }
	e.forget(strings.Fields(words["a"]))

	e.mu.Lock()
	c := e.claims[words["c"]]
	fresh := c == nil
	if fresh {
		command, err := parsePayload(words["t"])
		if err != nil {
			e.mu.Unlock()
			say(FrameNo, err.Error())
			return
		}
		command.Stdin = strings.NewReader("")
		if words["fed"] != "" {
			command.Stdin = strings.NewReader(strings.NewReplacer(`\\`, `\`, `\0000`, "\x00").Replace(words["I"]))
		}
		limit, _ := strconv.Atoi(words["l"])
		c = e.begun(words["c"], words["h"])
		command.Merged, command.User = words["y"] != "", user
		go e.claimed(ctx, c, command, time.Duration(limit)*time.Second)
	}
	e.mu.Unlock()
	switch {
	case fresh:
		say(FrameNew)
	case c.key != words["h"]:
		say(FrameOther)
		return
	default:
		say(FrameOld)
	}
	o, _ := strconv.Atoi(words["o"])
	x, _ := strconv.Atoi(words["e"])
	if c.follow(ctx, t, o, x) {
		how, signal := c.exit.Code, "-"
		if c.exit.Signal != "" {
			how, signal = 143, c.exit.Signal
		}
		say(FrameExit, how, signal, c.cause)
	}
}

// begun makes a claim. e.mu is held.
func (e *Emulator) begun(name, key string) *emulatedClaim {
	c := &emulatedClaim{key: key, done: make(chan struct{}), moved: make(chan struct{}), cause: "-"}
	if e.claims == nil {
		e.claims = map[string]*emulatedClaim{}
	}
	e.claims[name] = c
	return c
}

// claimed runs a claimed command. It goes on when the connection ends.
func (e *Emulator) claimed(ctx context.Context, c *emulatedClaim, command Command, limit time.Duration) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
	if limit > 0 {
		timer := time.AfterFunc(limit, func() { c.end("limit") })
		defer timer.Stop()
	}
	command.Stdout, command.Stderr = claimWriter{c, &c.out}, claimWriter{c, &c.err}
	if command.Merged {
		command.Stderr = command.Stdout
	}
	ended := make(chan Exit, 1)
	go func() {
		exit := Exit{Code: 255} // of a function that does not return
		defer func() { ended <- exit }()
		exit = e.Exec(ctx, command)
	}()
	var exit Exit
	select {
	case exit = <-ended:
	case <-ctx.Done():
		exit = Exit{Code: -1, Signal: "TERM"}
		timer := time.NewTimer(killTime)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
			exit.Signal = "KILL"
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exit = exit
	close(c.done)
	c.stir()
}

func (c *emulatedClaim) end(cause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !closed(c.done) && c.cancel != nil {
		c.cause = cause
		c.cancel(errEnded)
	}
}

// follow prints what a claim prints, and reports whether it has ended.
func (c *emulatedClaim) follow(ctx context.Context, t Terminal, o, x int) bool {
	for {
		c.mu.Lock()
		out, errs := bytes.Clone(c.out.Bytes()[min(o, c.out.Len()):]), bytes.Clone(c.err.Bytes()[min(x, c.err.Len()):])
		over, moved := closed(c.done), c.moved
		c.mu.Unlock()
		o, x = o+len(out), x+len(errs)
		_, err1 := t.Out.Write(out)
		_, err2 := t.Err.Write(errs)
		switch {
		case err1 != nil || err2 != nil:
			return false
		case over:
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// keeps does what the scripts about claims do, and reports whether text is one.
func (e *Emulator) keeps(ctx context.Context, text string, t Terminal) bool {
	if rest, ok := strings.CutPrefix(text, forgetHead); ok {
		names, _, _ := strings.Cut(rest, ";do rm")
		e.forget(strings.Fields(names))
		return true
	}
	rest, ok := strings.CutPrefix(text, endHead)
	if !ok {
		return false
	}
	words, err := parseWords(strings.ReplaceAll(rest, "' k='", "'\nk='"))
	if err != nil {
		return false
	}
	e.mu.Lock()
	c := e.claims[words["c"]]
	if c == nil { // it was not started, and never will be
		c = e.begun(words["c"], "")
		c.exit, c.cause = Exit{Code: -1, Signal: "TERM"}, "cancel"
		close(c.done)
	}
	e.mu.Unlock()
	c.end("cancel")
	select {
	case <-c.done:
		_, _ = io.WriteString(t.Out, "left\n")
	case <-ctx.Done():
	}
	return true
}

func (e *Emulator) forget(names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range names {
		delete(e.claims, name)
	}
}

// parseWords reads assignments of quoted words, one a line, up to something else.
func parseWords(text string) (map[string]string, error) {
	words := map[string]string{}
	for {
		name, rest, ok := strings.Cut(text, "=")
		if !ok || !validName(name) {
			return words, nil
		}
		value, rest, ok := unquote(rest)
		if !ok {
			return words, nil
		}
		if text, ok = strings.CutPrefix(rest, "\n"); !ok {
			return nil, fmt.Errorf("the word of %s does not end", name)
		}
		words[name] = value
	}
}

// parsePayload is the inverse of Claim.payload.
func parsePayload(text string) (Command, error) {
	rest, ok := strings.CutPrefix(text, payloadHead)
	if !ok {
		return Command{}, fmt.Errorf("not a payload of Loom's")
	}
	// The rest is what a script has after its own first lines.
	export := "unset g x;export LOOM_EXEC=claim"
	if env, ok := strings.CutPrefix(rest, "export"); ok {
		rest = env
	} else {
		rest = "\n" + rest
	}
	s, err := parseScript(export + rest + "\n")
	if s.c == nil {
		return Command{}, err
	}
	return *s.c, nil
}

// claimedCommand returns the command of an attach script.
func claimedCommand(text string) (Command, bool) {
	words, err := parseWords(strings.TrimPrefix(text, claimHead))
	if err != nil {
		return Command{}, false
	}
	c, err := parsePayload(words["t"])
	return c, err == nil
}
