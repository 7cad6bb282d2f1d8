package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// An Emulator is the other side of Run without a shell: it reads the scripts
// that Run writes, and has a function do what the command in them says. With it
// a test can say what a node answers. The zero value answers nothing; it must
// not be changed once it is in use, and is safe for concurrent use.
type Emulator struct {
	// Exec runs a command, whose streams are not nil. Its ctx ends when the
	// client ends the command, or Serve's does.
	Exec func(ctx context.Context, c Command) Exit

	// Sudo says whether a password, which is "" at first, lets somebody become a
	// user. Nil lets everybody.
	Sudo func(user, password string) bool

	mu      sync.Mutex
	running map[string]*emulated // by nonce
	claims  map[string]*emulatedClaim
	pid     int
}

// An emulated is a command at work.
type emulated struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// A Terminal is what a client has started a shell on: its streams, and a way to
// start a goroutine that ends soon after In has.
type Terminal struct {
	In       io.Reader
	Out, Err io.Writer
	Go       func(func())
}

// errEnded is the cause of the end of an emulated command's context.
var errEnded = errors.New("the client ended the command")

// Serve does what the program that line names would do: a shell that reads what
// to do from t.In. ok is false if that is not what Run starts.
func (e *Emulator) Serve(ctx context.Context, line string, t Terminal) (exit Exit, ok bool) {
	user := ""
	if line != "exec /bin/sh" {
		words := strings.Fields(line)
		if len(words) != 8 || line != "exec sudo -n -H -u "+words[5]+" -- /bin/sh" {
			return Exit{}, false
		}
		if user = words[5]; !e.may(user, "") {
			_, _ = io.WriteString(t.Err, "sudo: a password is required\n")
			return Exit{Code: 1}, true
		}
	}
	in := bufio.NewReader(t.In)
	text, err := readScript(in)
	if err != nil {
		return syntaxError(t, err), true
	}
	if nonce, who, asks := parseAsk(text); asks {
		if !e.ask(in, t.Err, nonce, who) {
			return Exit{Code: 1}, true
		}
		user = who
		if text, err = readScript(in); err != nil {
			return syntaxError(t, err), true
		}
	}
	if target, watches, guards := parseGuard(text); guards {
		e.guard(in, t, text, target, watches)
		return Exit{}, true
	}
	s, err := parseScript(text)
	if err != nil {
		return syntaxError(t, err), true
	}
	s.c.User = user
	return e.exec(ctx, s, text, in, t), true
}

// say prints what the echo commands of a script would: the markers.
func say(t Terminal, text string, pid int) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "echo loom-") {
			continue
		}
		for command := range strings.SplitSeq(strings.TrimSuffix(line, "\n"), ";") {
			words, echo := strings.CutPrefix(command, "echo ")
			to := t.Out
			if rest, aside := strings.CutSuffix(words, " >&2"); aside {
				words, to = rest, t.Err
			}
			if echo {
				_, _ = io.WriteString(to, strings.NewReplacer("$$", fmt.Sprint(pid), "$g", fmt.Sprint(pid)).Replace(words)+"\n")
			}
		}
		return
	}
}

func syntaxError(t Terminal, err error) Exit {
	_, _ = fmt.Fprintf(t.Err, "sh: %v\n", err)
	return Exit{Code: 2}
}

func (e *Emulator) may(user, password string) bool { return e.Sudo == nil || e.Sudo(user, password) }

// ask does what sudo -S does: it asks for a password until it is right or there
// is none.
func (e *Emulator) ask(in *bufio.Reader, errw io.Writer, nonce, user string) bool {
	for password := ""; !e.may(user, password); {
		_, _ = io.WriteString(errw, "ask-"+nonce)
		line, err := in.ReadString('\n')
		if err != nil {
			_, _ = io.WriteString(errw, "\nsudo: no password was provided\n")
			return false
		}
		password = strings.TrimSuffix(line, "\n")
		if !e.may(user, password) {
			_, _ = io.WriteString(errw, "\nSorry, try again.\n")
		}
	}
	_, _ = io.WriteString(errw, "run-"+nonce+"\n")
	return true
}

// killTime is how long a command that does not end when it is told to is waited
// for: as long as a watcher waits before it kills.
const killTime = 5 * time.Second

func (e *Emulator) exec(ctx context.Context, s script, text string, in *bufio.Reader, t Terminal) Exit {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := *s.c
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(""), t.Out, t.Err
	x := &emulated{cancel: cancel, done: make(chan struct{})}
	pid := e.begin(s.nonce, x)
	defer e.end(s.nonce)
	defer close(x.done)

	say(t, text, pid)
	if s.feeds {
		if line, err := in.ReadString('\n'); err != nil || line != "go\n" {
			return Exit{Code: 97}
		}
		c.Stdin = in
	} else {
		t.Go(func() {
			_, _ = io.Copy(io.Discard, in)
			cancel(errEnded)
		})
	}

	ended := make(chan Exit, 1)
	t.Go(func() {
		exit := Exit{Code: 255} // of a function that does not return
		defer func() { ended <- exit }()
		switch {
		case Attaches(&c):
			e.attach(ctx, c.Text, c.User, Terminal{Out: t.Out, Err: t.Err})
			exit = Exit{}
		case e.keeps(ctx, c.Text, t):
			exit = Exit{}
		default:
			exit = e.Exec(ctx, c)
		}
	})
	select {
	case exit := <-ended:
		return exit
	case <-ctx.Done():
	}
	timer := time.NewTimer(killTime)
	defer timer.Stop()
	select {
	case <-ended:
		return Exit{Code: -1, Signal: "TERM"}
	case <-timer.C:
		return Exit{Code: -1, Signal: "KILL"}
	}
}

func (e *Emulator) begin(nonce string, x *emulated) (pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		e.running = map[string]*emulated{}
	}
	e.running[nonce] = x
	e.pid++
	return 1000 + e.pid
}

func (e *Emulator) end(nonce string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, nonce)
}

// guard is a watcher, which waits for the end of its input, or a reaper, which
// does not. It ends a command and says that nothing is left of it.
func (e *Emulator) guard(in *bufio.Reader, t Terminal, text, target string, watches bool) {
	say(t, text, 2)
	for watches {
		line, err := in.ReadString('\n')
		if line == "quit\n" {
			return
		}
		watches = err == nil
	}
	e.mu.Lock()
	x := e.running[target]
	e.mu.Unlock()
	if x != nil {
		x.cancel(errEnded)
		<-x.done
	}
	_, _ = io.WriteString(t.Out, "left\n")
}

// Sniff reads the script that Run has written to the standard input of a shell
// that line starts, and returns the command in it, if there is one, and all of
// that input, to be read again.
func Sniff(line string, in io.Reader) (c Command, all io.Reader, ok bool) {
	r := bufio.NewReader(in)
	words := strings.Fields(line)
	if line != "exec /bin/sh" && (len(words) < 2 || words[1] != "sudo") {
		return Command{}, r, false
	}
	text, err := readScript(r)
	all = io.MultiReader(strings.NewReader(text), r)
	if err != nil {
		return Command{}, all, false
	}
	s, err := parseScript(text)
	if err != nil {
		return Command{}, all, false
	}
	if Attaches(s.c) {
		payload, ok := claimedCommand(s.c.Text)
		if !ok {
			return Command{}, all, false
		}
		s.c = &payload
	}
	if strings.HasPrefix(s.c.Text, forgetHead) || strings.HasPrefix(s.c.Text, endHead) {
		return Command{}, all, false
	}
	if len(words) == 8 {
		s.c.User = words[5]
	}
	return *s.c, all, true
}

// scriptLimit is how long a script may be.
const scriptLimit = 64 << 20

// readScript reads one script: a function, and the line that calls it and exits,
// which ends in _loom;exit outside all quotes. If there is no end it returns
// what there is.
func readScript(r *bufio.Reader) (string, error) {
	const end = "_loom;exit\n"
	var b strings.Builder
	quoted := false
	for b.Len() < scriptLimit {
		c, err := r.ReadByte()
		if err != nil {
			return b.String(), errors.New("syntax error: unexpected end of file")
		}
		b.WriteByte(c)
		switch {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '\\':
			if c, err = r.ReadByte(); err == nil {
				b.WriteByte(c)
			}
		case c == '\n' && strings.HasSuffix(b.String(), end):
			return b.String(), nil
		}
	}
	return b.String(), errors.New("the script is too long")
}

// parseAsk is the inverse of askingSudo.
func parseAsk(text string) (nonce, user string, ok bool) {
	rest, ok := strings.CutPrefix(text, "_loom(){\nexec sudo -S -p ask-")
	nonce, rest, _ = strings.Cut(rest, " ")
	rest, _ = strings.CutPrefix(rest, "-H -u ")
	user, _, _ = strings.Cut(rest, " ")
	return nonce, user, ok && askingSudo(nonce, user) == text
}

// parseGuard is the inverse of guard.
func parseGuard(text string) (target string, watches, ok bool) {
	var p, g int
	if n, _ := fmt.Sscanf(text, "_loom(){\np=%d g=%d n=%s\n", &p, &g, &target); n != 3 {
		return "", false, false
	}
	for _, end := range []string{watch, reap} {
		function, _, _ := strings.Cut(guard(end, "", target, p, g), "\n}\n")
		if strings.HasPrefix(text, function) {
			return target, end == watch, true
		}
	}
	return "", false, false
}

// parseScript is the inverse of script.text.
func parseScript(text string) (script, error) {
	const export = "unset g x;export LOOM_EXEC="
	s := script{c: &Command{}}
	strange := func(what string) (script, error) {
		return script{}, fmt.Errorf("not a script of Loom's: %s", what)
	}
	before, rest, ok := strings.Cut(text, export)
	if !ok {
		return strange("it has no " + export)
	}
	s.sudo = strings.Contains(before, "/proc/$$/stat 2>/dev/null&&set")
	s.feeds = strings.HasSuffix(before, "||exit 97\n")

	end := strings.IndexAny(rest, " \n")
	if end < 0 {
		return strange("it has no end")
	}
	s.nonce, rest = rest[:end], rest[end:]
	for strings.HasPrefix(rest, " ") {
		name, value, ok := strings.Cut(rest[1:], "=")
		if !ok {
			return strange("a variable has no value")
		}
		if value, rest, ok = unquote(value); !ok {
			return strange("a value is not quoted")
		}
		if s.c.Env == nil {
			s.c.Env = map[string]string{}
		}
		s.c.Env[name] = value
	}
	rest = strings.TrimPrefix(rest, "\n")
	if dir, cd := strings.CutPrefix(rest, "CDPATH= cd "); cd {
		if s.c.Dir, rest, ok = unquote(dir); !ok {
			return strange("the directory is not quoted")
		}
		rest = strings.TrimPrefix(rest, "||exit\n")
	}
	if text, private := strings.CutPrefix(rest, privateHead); private {
		s.c.Private = true
		if s.c.Text, rest, ok = unquote(text); !ok {
			return strange("the command is not quoted")
		}
		if s.c.Shell, _, ok = unquote(strings.TrimPrefix(rest, "\nexec ")); !ok {
			return strange("the shell is not quoted")
		}
	} else if shell, exec := strings.CutPrefix(rest, "exec "); exec {
		if s.c.Shell, rest, ok = unquote(shell); !ok {
			return strange("the shell is not quoted")
		}
		rest = strings.TrimPrefix(rest, " -c ")
	} else {
		rest = strings.TrimPrefix(rest, "eval ")
	}
	if s.c.Text == "" {
		if s.c.Text, _, ok = unquote(rest); !ok {
			return strange("the command is not quoted")
		}
	}
	if _, after, _ := strings.Cut(s.text(), export); before+export+after != text {
		return strange("it says more than a command")
	}
	return s, nil
}

// unquote is the inverse of Quote. It returns what comes after the word.
func unquote(s string) (word, rest string, ok bool) {
	var b strings.Builder
	for {
		s, ok = strings.CutPrefix(s, "'")
		if !ok {
			return "", "", false
		}
		part, after, found := strings.Cut(s, "'")
		if !found {
			return "", "", false
		}
		b.WriteString(part)
		if s, ok = strings.CutPrefix(after, `\'`); !ok {
			return b.String(), after, true
		}
		b.WriteByte('\'')
	}
}
