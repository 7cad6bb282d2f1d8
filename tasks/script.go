package tasks

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// Script runs a script of the control host on the node. The script is read
// anew for each run, copied to a directory that only its user can enter, run
// with Args, and removed, however it ends.
//
// Its #! line decides what runs it, also where the node's temporary directory
// forbids execution; without one it is /bin/sh. It is ok or changed as a [Run]
// is.
type Script struct {
	File        string            `loom:"required" help:"the script, a file of the control host"`
	Args        []string          `help:"its arguments; ps on the node shows them"`
	User        string            `help:"user who runs it, by sudo; nothing: the job's"`
	Interpreter string            `help:"program that runs it, instead of the one of its #! line"`
	WarnOnly    bool              `yaml:"warn_only" help:"be ok whatever its exit status is, with a warning in the log"`
	Timeout     time.Duration     `help:"end the script and all it has started after this long"`
	Dir         string            `help:"directory to run it in"`
	Env         map[string]string `help:"variables exported to it, over those of the job and the node"`
	Creates     string            `help:"skip it where this file exists; changed where it does not"`
	Unless      string            `help:"skip it where this command exits with 0; changed where it does not"`
}

func (t Script) command() command {
	return command{
		text: t.File, warnOnly: t.WarnOnly, timeout: t.Timeout, dir: t.Dir, env: t.Env,
		creates: t.Creates, unless: t.Unless,
	}
}

// Validate checks what the types can't.
func (t Script) Validate() error {
	errs := []error{t.command().validateRest(), oneLine("user", t.User), oneLine("interpreter", t.Interpreter)}
	if t.File == "" {
		errs = append(errs, errors.New("file is empty"))
	}
	for _, arg := range t.Args {
		if strings.Contains(arg, "\x00") {
			errs = append(errs, fmt.Errorf("args: %q has a NUL in it", arg))
		}
	}
	return errors.Join(errs...)
}

// Apply copies, runs and removes the script.
func (t Script) Apply(ctx context.Context, s *loom.Session) error {
	text, err := readScript(s, t.File)
	if err != nil {
		return err
	}
	runner, err := t.runner(text)
	if err != nil {
		return err
	}
	s = t.session(s)
	return t.command().guard(ctx, s, t.File, func(ctx context.Context, s *loom.Session) error {
		return t.run(ctx, s, text, runner)
	})
}

// Exposes names what shows a secret in it.
func (Script) Exposes() map[string]string {
	return map[string]string{
		"args":   "ps shows the arguments of a script to every user of the node: hand it over with env, and have the script read it there",
		"unless": exposedCommand()["unless"],
	}
}

// Resumes does what [Run.Resumes] does.
func (t Script) Resumes() bool { return true }

// Plan does what [Run.Plan] does.
func (t Script) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	return t.command().plan(ctx, t.session(s))
}

func (t Script) session(s *loom.Session) *loom.Session {
	if t.User != "" {
		return s.Sudo(t.User)
	}
	return s
}

// maxScript is far more than any script, and little enough to be held in memory
// once for each node.
const maxScript = 16 << 20

func readScript(s *loom.Session, file string) ([]byte, error) {
	path, err := s.LocalPath(file)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the script: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the script: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read the script: %s is not a file", path)
	case info.Size() > maxScript:
		return nil, fmt.Errorf("read the script: %s has %d bytes, more than the %d a script may have; use put and run", path, info.Size(), maxScript)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read the script: %w", err)
	}
	return text, nil
}

// runner returns the words before the script's name in the command that runs
// it; none if it is a program.
func (t Script) runner(text []byte) ([]string, error) {
	if t.Interpreter != "" {
		return strings.Fields(t.Interpreter), nil
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	rest, ok := strings.CutPrefix(string(line), "#!")
	switch {
	case strings.HasSuffix(string(line), "\r"):
		return nil, fmt.Errorf("%s has Windows line ends (CR LF), which no shell understands; convert it, with dos2unix for example", t.File)
	case !ok && bytes.IndexByte(text[:min(len(text), 512)], 0) >= 0:
		return nil, nil
	case !ok:
		return []string{"/bin/sh"}, nil
	}
	// As the kernel does: a program and at most one argument.
	program, arg, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if program == "" {
		return nil, fmt.Errorf("%s names no program in its first line, %q", t.File, line)
	}
	words := []string{program}
	if arg = strings.TrimSpace(arg); arg != "" {
		words = append(words, arg)
	}
	return words, nil
}

// places are the directories in which a private one is made, and how they are
// found. They are tried in order, since a node may lack any of them.
const places = `places() {
	for base in "${TMPDIR:-/tmp}" /tmp /var/tmp "${HOME:-/nonexistent}" .; do
		[ -d "$base" ] && "$@" "$base" && return
	done
	return 1
}
`

// runScript gets: the private directory's name, the script's name and size, the
// number of words of the runner, the runner, the arguments. It reads the script
// from standard input. If it can't store the script it says why and exits with 73
// or 74.
const runScript = places + `
make() {
	(umask 077 && mkdir -- "$2/$1") 2>/dev/null || return
	loom_d=$2/$1
	(umask 077 && cat >"$loom_d/$loom_n") && [ $(($(wc -c <"$loom_d/$loom_n"))) -eq "$loom_size" ] && return
	echo "the script did not arrive whole in $loom_d: is the disk full?" >&2
	exit 74
}
loom_id=$1 loom_n=$2 loom_size=$3 loom_w=$4
shift 4
loom_d=
trap 'rm -rf -- "$loom_d"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
places make "$loom_id" || {
	echo "no directory for the script: neither TMPDIR, /tmp, /var/tmp nor the home directory can be written" >&2
	exit 73
}
case $loom_d in /*) ;; *) loom_d=$PWD/$loom_d ;; esac
# Put the script after the words of its runner.
i=0
for w; do
	[ $i -eq 0 ] && set --
	[ $i -eq "$loom_w" ] && set -- "$@" "$loom_d/$loom_n"
	set -- "$@" "$w"
	i=$((i + 1))
done
[ $i -gt "$loom_w" ] || set -- "$@" "$loom_d/$loom_n"
[ "$loom_w" -gt 0 ] || chmod 0700 "$loom_d/$loom_n"
"$@" </dev/null
`

// removeScript gets the private directory's name.
const removeScript = places + `
remove() {
	rm -rf -- "$2/$1"
	return 1
}
places remove "$1"
:
`

// run does it all in one trip: stores the script, runs and removes it.
func (t Script) run(ctx context.Context, s *loom.Session, text []byte, runner []string) error {
	id := ".loom-" + strings.ToLower(rand.Text())
	if s.Claim != "" {
		id = ".loom-" + s.Claim // the same, if it is applied again
	}
	name := filepath.Base(t.File)
	words := append([]string{id, name, strconv.Itoa(len(text)), strconv.Itoa(len(runner))}, runner...)
	cmd := program{"script " + t.File, runScript}.command(append(words, t.Args...))
	cmd.Env = t.Env // no locale of ours
	cmd.Dir = t.Dir
	cmd.Stdin = bytes.NewReader(text)

	err := t.command().exec(ctx, posix(s), cmd)
	if exit, ok := errors.AsType[*loom.ExitError](err); ok {
		exit.Command = s.Redact(strings.Join(append([]string{t.File}, t.Args...), " "))
	}
	if err == nil || (ctx.Err() == nil && !errors.Is(err, loom.ErrLost)) {
		return err
	}
	if s.Claim != "" && errors.Is(err, loom.ErrLost) {
		return err // it may still run, and removes the script itself
	}
	// The shell was ended before it could remove the script, or may have been.
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, rmErr := (program{"remove " + t.File, removeScript}).ask(tidy, s, id); rmErr != nil {
		logger(s).Warn("script may be left on the node", "dir", id, "err", rmErr)
	}
	return err
}
