package tasks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// SSHFS mounts directories of other machines on the node, over SSH, and enters
// them in the node's fstab so that they come back after a reboot.
//
// It is changed when fstab or the mounts changed, and otherwise ok, so that it
// can run each minute: what is mounted as wanted isn't touched. A mount that is
// dead (its server or its sshfs is gone, so that looking at it fails or hangs)
// is detached and mounted anew. A mount whose source or options changed is
// mounted anew too; if it is in use, that node fails, nothing is changed, and
// the next run tries again. There is never a second mount over a first.
//
// It needs root on the node (the job's sudo, if the login user isn't), the
// program sshfs, and, as in ssh itself, that root's key and known_hosts let it
// log in to the host without a question.
type SSHFS struct {
	Mounts []SSHFSMount `loom:"rest,required" help:"what to mount"`

	turns *turns // nil: no other run writes the same fstab
}

// An SSHFSMount is one directory to mount.
type SSHFSMount struct {
	Host       string   `loom:"required" help:"machine to mount from, as ssh knows it on the node: [user@]host"`
	RemotePath string   `loom:"required" help:"directory of the host"`
	Mountpoint string   `loom:"required" help:"absolute path of a directory of the node; made if missing"`
	Excludes   []string `help:"nodes to leave out, by name or address, such as the host itself"`
	Options    []string `help:"options of sshfs, instead of defaults, allow_other, exec, reconnect, transform_symlinks and _netdev"`
	Identity   string   `help:"file of a private key on the node"`
	Port       int      `help:"port of the host's SSH server"`
	Persist    *bool    `help:"enter it in fstab (true); false mounts it until the next boot"`
}

// options are by default what the first Loom wrote, and that it needs the
// network, so that a boot doesn't try it too early and stop. The option nofail
// is not among them: sshfs refuses to know it, so that mount -a would fail.
func (m SSHFSMount) options() []string {
	options := slices.Clone(m.Options)
	if len(options) == 1 {
		options = splitOptions(options[0])
	}
	if len(options) == 0 {
		options = []string{"defaults", "allow_other", "exec", "reconnect", "transform_symlinks", "_netdev"}
	}
	if m.Identity != "" {
		options = append(options, "IdentityFile="+m.Identity)
	}
	if m.Port != 0 {
		options = append(options, "port="+strconv.Itoa(m.Port))
	}
	return options
}

func (m SSHFSMount) source() string { return m.Host + ":" + path.Clean(m.RemotePath) }

func (m SSHFSMount) entry() fstabEntry {
	return fstabEntry{
		source: m.source(), mountpoint: path.Clean(m.Mountpoint), fstype: "fuse.sshfs",
		options: m.options(), dump: "0", pass: "0",
	}
}

func (m SSHFSMount) persists() bool { return m.Persist == nil || *m.Persist }

// excluded returns why the node is left out, or "".
func (m SSHFSMount) excluded(n *loom.Node) bool {
	return slices.Contains(m.Excludes, n.Name) || n.Address != "" && slices.Contains(m.Excludes, n.Address)
}

func (m SSHFSMount) validate() error {
	errs := []error{
		absolute("mountpoint", m.Mountpoint), oneLine("host", m.Host), oneLine("remotepath", m.RemotePath),
		oneLine("identity", m.Identity), oneLine("options", strings.Join(m.Options, ",")),
	}
	if m.Host == "" || strings.ContainsAny(m.Host, " \t#,") || strings.HasPrefix(m.Host, "-") {
		errs = append(errs, fmt.Errorf("host: write [user@]host, not %q", m.Host))
	}
	if strings.Contains(m.Host, ":") && !strings.Contains(m.Host, "[") {
		errs = append(errs, fmt.Errorf("host: write %q without its path or port, and an IPv6 address in brackets", m.Host))
	}
	if m.RemotePath == "" {
		errs = append(errs, errors.New("remotepath is empty"))
	}
	if path.Clean(m.Mountpoint) == "/" {
		errs = append(errs, errors.New("mountpoint: / can't be mounted over"))
	}
	if m.Port < 0 || m.Port > 65535 {
		errs = append(errs, fmt.Errorf("port: %d is none", m.Port))
	}
	if strings.ContainsAny(m.Identity, ",\\") {
		errs = append(errs, fmt.Errorf("identity: %q has a comma or a backslash in it", m.Identity))
	}
	return errors.Join(errs...)
}

// Validate checks what the types can't.
func (t SSHFS) Validate() error {
	var errs []error
	seen := map[string]int{}
	for i, m := range t.Mounts {
		if err := m.validate(); err != nil {
			errs = append(errs, fmt.Errorf("mounts[%d]: %w", i, err))
		}
		mp := path.Clean(m.Mountpoint)
		if first, twice := seen[mp]; twice && len(m.Excludes) == 0 && len(t.Mounts[first].Excludes) == 0 {
			errs = append(errs, fmt.Errorf("mounts[%d]: mounts[%d] has the same mountpoint, %s", i, first, mp))
		}
		seen[mp] = i
	}
	return errors.Join(errs...)
}

// Exposes names what shows a secret in it.
func (SSHFS) Exposes() map[string]string {
	return map[string]string{"mounts": "every user of the node can read /etc/fstab, and the arguments of mount (ps): let sshfs log in with a key"}
}

// Apply mounts what isn't as wanted. One mount that fails doesn't keep the
// others from being tried.
func (t SSHFS) Apply(ctx context.Context, s *loom.Session) error {
	free, err := t.turns.take(ctx, s.Node.Name)
	if err != nil {
		return err
	}
	defer free()
	states, err := t.look(ctx, s)
	if err != nil {
		return err
	}
	var errs []error
	for _, st := range states {
		steps, err := st.steps(ctx, s)
		if err == nil {
			err = perform(ctx, s, steps)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", st.Mountpoint, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// Plan tells what Apply would change.
func (t SSHFS) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	states, err := t.look(ctx, s)
	if err != nil {
		return nil, err
	}
	var list []loom.Change
	var errs []error
	for _, st := range states {
		steps, err := st.steps(ctx, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", st.Mountpoint, err))
		}
		list = append(list, changes(steps)...)
	}
	return list, errors.Join(errs...)
}

// answerWithin is how long, in seconds, a mount may take to answer before it is
// taken for dead. A server far away under load answers within a few.
const answerWithin = 10

// lookAtMounts gets how long to wait and the mountpoints. It prints for each
// mountpoint a line, how it answers and the real path of its parent, then the
// table of mounts, then a line "fstab" and /etc/fstab to the byte.
//
// The kernel remembers much about a mount, so the look is for a file that there
// never was, which only the mount itself can tell.
//
// A look at a dead mount can hang so that not even SIGKILL ends it, and then
// timeout(1) hangs as well. So the look goes on by itself, with none of our
// streams, and the shell only waits for a sleep that the look ends.
const lookAtMounts = `
answer() {
	sleep "$wait" >/dev/null 2>&1 </dev/null &
	loom_s=$!
	(
		e=$(ls -d -- "$1/.loom-are-you-there-$loom_s" 2>&1 >/dev/null </dev/null) && r=0 || r=$?
		case $e in
		*"No such file"* | *"Permission denied"*) r=0 ;;
		esac
		kill "$loom_s"
		exit $r
	) >/dev/null 2>&1 </dev/null &
	loom_c=$!
	if wait "$loom_s" 2>/dev/null; then
		kill -9 "$loom_c"
		return 5
	fi
	wait "$loom_c"
}
wait=$1
shift
for m; do
	d=${m%/*}
	p=$(cd -P -- "${d:-/}" 2>/dev/null && pwd -P) || p=${d:-/}
	answer "$m"
	echo "$? $p"
done
cat /proc/self/mountinfo && echo fstab && if [ -e /etc/fstab ]; then cat /etc/fstab; fi
`

// An sshfsState is one wanted mount and what there is of it on a node.
type sshfsState struct {
	SSHFSMount
	dead   bool         // what is mounted does not answer; means nothing if nothing is
	real   string       // the mountpoint as the kernel knows it
	mounts []mountEntry // there, the uppermost last
	fstab  *fstab       // shared by all mounts, and kept up to date by their steps
}

// look finds out, in one trip, how all mounts stand.
func (t SSHFS) look(ctx context.Context, s *loom.Session) ([]*sshfsState, error) {
	var states []*sshfsState
	words := []string{strconv.Itoa(answerWithin)}
	for _, m := range t.Mounts {
		if m.excluded(s.Node) {
			logger(s).Debug("node is excluded", "mountpoint", m.Mountpoint)
			continue
		}
		states = append(states, &sshfsState{SSHFSMount: m})
		words = append(words, path.Clean(m.Mountpoint))
	}
	if len(states) == 0 {
		return nil, loom.Skip("node %s is excluded from all mounts", s.Node.Name)
	}
	limit := time.Minute + time.Duration(len(states)*answerWithin)*time.Second
	ctx, cancel := limited(ctx, limit)
	defer cancel()
	out, err := program{"look at the mounts", lookAtMounts}.ask(ctx, s, words...)
	if err != nil {
		return nil, fmt.Errorf("mounts can be told only by a node with Linux, /proc and a readable /etc/fstab: %w", err)
	}
	return states, t.read(states, out)
}

// read fills in the states from what lookAtMounts printed.
func (t SSHFS) read(states []*sshfsState, out []byte) error {
	var parents []string
	for _, st := range states {
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		code, parent, ok := strings.Cut(string(line), " ")
		if !ok {
			return fmt.Errorf("the node's answer about %s makes no sense: %q", st.Mountpoint, line)
		}
		st.dead = code != "0"
		parents = append(parents, parent)
		out = rest
	}
	table, text, ok := bytes.Cut(out, []byte("\nfstab\n"))
	if !ok {
		return errors.New("the node's answer ends before its fstab")
	}
	mounts, err := parseMountinfo(table)
	if err != nil {
		return err
	}
	tab := parseFstab(text)
	for i, st := range states {
		st.real = realPath(parents[i], st.Mountpoint)
		st.mounts, st.fstab = at(mounts, st.real), tab
	}
	return nil
}

// steps says what must be done to have the mount as wanted: at most detach,
// then fstab, then mount. It is an error if something is in the way.
func (st *sshfsState) steps(ctx context.Context, s *loom.Session) ([]step, error) {
	entry, line := st.fstab.find(st.Mountpoint)
	if line >= 0 && !isSSHFS(entry) && st.persists() {
		return nil, fmt.Errorf("fstab has it for %s, %s; take that line out first", entry.source, cmp.Or(entry.fstype, "of no type"))
	}
	for _, m := range st.mounts {
		if m.fstype != "fuse.sshfs" {
			return nil, fmt.Errorf("%s is mounted here; unmount it first", m)
		}
	}
	enter, anew := st.compare(entry, line)

	var steps []step
	switch {
	case st.dead && len(st.mounts) > 0:
		steps = append(steps, step{"detached the dead mount at " + st.Mountpoint, func(ctx context.Context) error { return st.detach(ctx, s) }})
	case len(st.mounts) > 1:
		steps = append(steps, step{fmt.Sprintf("unmounted %d mounts stacked at %s", len(st.mounts), st.Mountpoint),
			func(ctx context.Context) error { return st.unmount(ctx, s) }})
	case len(st.mounts) == 1 && (anew || !st.isSource(st.mounts[0].source)):
		steps = append(steps, step{fmt.Sprintf("unmounted %s (%s)", st.Mountpoint, st.mounts[0].source),
			func(ctx context.Context) error { return st.unmount(ctx, s) }})
	}
	mount := len(st.mounts) == 0 || len(steps) > 0
	if enter {
		change := "entered " + st.Mountpoint + " in fstab"
		if line >= 0 {
			change = "changed " + st.Mountpoint + " in fstab"
		}
		steps = append(steps, step{change, func(ctx context.Context) error { return st.enter(ctx, s) }})
	}
	if mount {
		steps = append(steps, step{fmt.Sprintf("mounted %s from %s", st.Mountpoint, st.source()),
			func(ctx context.Context) error { return st.mount(ctx, s) }})
	}
	return steps, nil
}

// isSSHFS reports whether an entry is for an sshfs, in either spelling:
// sshfs#host:dir with type fuse, or host:dir with type fuse.sshfs.
func isSSHFS(e fstabEntry) bool {
	return e.fstype == "fuse.sshfs" || e.fstype == "sshfs" || e.fstype == "fuse" && strings.HasPrefix(e.source, "sshfs#")
}

// compare says whether fstab must be written, and whether what is mounted was
// mounted with other options than the wanted ones: fstab is what remembers
// them, since the kernel's table shows none of sshfs's own.
func (st *sshfsState) compare(e fstabEntry, line int) (enter, anew bool) {
	if !st.persists() {
		return false, false
	}
	if line < 0 {
		return true, false
	}
	wanted := st.entry()
	source := sameSource(e.source, wanted.source)
	same := slices.Equal(meaning(e.options, true), meaning(wanted.options, true))
	anew = !source || !slices.Equal(meaning(e.options, false), meaning(wanted.options, false))
	return !source || !same, anew
}

// meaning returns options in a form that compares: sorted, without those that
// say what is so anyway, and without those that matter only at boot, if boot is
// false.
func meaning(options []string, boot bool) []string {
	var list []string
	for _, o := range options {
		switch {
		case o == "defaults" || o == "rw" || o == "":
		case !boot && atBoot(o):
		default:
			list = append(list, o)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// atBoot reports whether an option is for who mounts a node's file systems when
// it boots, and not for sshfs.
func atBoot(option string) bool {
	return slices.Contains([]string{"_netdev", "nofail", "auto", "noauto"}, option) || strings.HasPrefix(option, "x-")
}

// isSource reports whether what the kernel calls the source of a mount is ours.
func (st *sshfsState) isSource(source string) bool {
	for _, o := range st.options() {
		if name, ok := strings.CutPrefix(o, "fsname="); ok {
			return source == name
		}
	}
	return sameSource(source, st.source())
}

// unmount unmounts all that is at the mountpoint, in the ordinary way, which
// fails if it is in use.
func (st *sshfsState) unmount(ctx context.Context, s *loom.Session) error {
	for range st.mounts {
		if err := unmount(ctx, s, path.Clean(st.Mountpoint), false); err != nil {
			return err
		}
	}
	return nil
}

// detachAll gets the mountpoint, how many mounts are at it, and the devices of
// those. It ends first what hangs on the mounts, where the kernel offers that.
const detachAll = `
mp=$1 n=$2
shift 2
for dev; do
	abort=/sys/fs/fuse/connections/${dev#*:}/abort
	[ -w "$abort" ] && echo 1 >"$abort" 2>/dev/null
done
while [ "$n" -gt 0 ]; do
	n=$((n - 1))
	fusermount3 -uz -- "$mp" 2>/dev/null || fusermount -uz -- "$mp" 2>/dev/null || umount -l -- "$mp" || exit
done
`

func (st *sshfsState) detach(ctx context.Context, s *loom.Session) error {
	words := []string{path.Clean(st.Mountpoint), strconv.Itoa(len(st.mounts))}
	for _, m := range st.mounts {
		words = append(words, m.device)
	}
	ctx, cancel := limited(ctx, time.Minute)
	defer cancel()
	_, err := program{"detach " + st.Mountpoint, detachAll}.ask(ctx, s, words...)
	return err
}

// enter writes the entry into fstab.
func (st *sshfsState) enter(ctx context.Context, s *loom.Session) error {
	_, line := st.fstab.find(st.Mountpoint)
	tab := &fstab{lines: slices.Clone(st.fstab.lines)}
	tab.set(line, st.entry())
	if err := s.WriteFile(ctx, "/etc/fstab", tab.bytes(), loom.Attr{}); err != nil {
		return fmt.Errorf("write /etc/fstab: %w", err)
	}
	st.fstab.lines = tab.lines
	return nil
}

// mountSSHFS gets the mountpoint as the kernel's table writes it, the
// mountpoint, the source and the options. It looks once more whether something
// is mounted, since mount would put a second sshfs over a first.
const mountSSHFS = `
command -v sshfs >/dev/null || {
	echo "sshfs isn't installed" >&2
	exit 71
}
while read -r _ _ _ _ at _; do
	[ "$at" = "$1" ] || continue
	echo "something else was mounted there meanwhile" >&2
	exit 72
done </proc/self/mountinfo
[ -d "$2" ] || mkdir -p -- "$2" || exit
exec mount -t fuse.sshfs -o "$4" -- "$3" "$2" </dev/null
`

// tryLogin gets the host and options of ssh. Sshfs throws away what ssh says,
// so this finds out why it could not log in.
const tryLogin = `exec ssh -o BatchMode=yes -o ConnectTimeout=10 "$@" -s -- "$loom_host" sftp </dev/null >/dev/null`

func (st *sshfsState) mount(ctx context.Context, s *loom.Session) error {
	options := slices.DeleteFunc(st.options(), atBoot)
	words := []string{strings.ReplaceAll(escape(st.real), "#", `\043`), path.Clean(st.Mountpoint), st.source(), strings.Join(options, ",")}
	ctx, cancel := limited(ctx, time.Minute)
	defer cancel()
	_, err := program{"mount " + st.Mountpoint, mountSSHFS}.ask(ctx, s, words...)
	if _, exited := exitCode(err); !exited || ctx.Err() != nil {
		return err
	}
	if why := st.login(ctx, s); why != "" {
		return fmt.Errorf("%w; %s can't log in to %s: %s", err, s.Node.Name, st.Host, why)
	}
	return err
}

// login returns why the node can't log in to the host, or "".
func (st *sshfsState) login(ctx context.Context, s *loom.Session) string {
	var words []string
	if st.Port != 0 {
		words = append(words, "-p", strconv.Itoa(st.Port))
	}
	if st.Identity != "" {
		words = append(words, "-i", st.Identity)
	}
	for _, o := range st.options() {
		name, _, _ := strings.Cut(o, "=")
		if slices.Contains([]string{"IdentityFile", "UserKnownHostsFile", "StrictHostKeyChecking", "ProxyJump", "ProxyCommand"}, name) {
			words = append(words, "-o", o)
		}
	}
	text := "loom_host=" + loom.Quote(strings.NewReplacer("[", "", "]", "").Replace(st.Host)) + "\n" + tryLogin
	_, err := program{"ssh " + st.Host, text}.ask(ctx, s, words...)
	if _, exited := exitCode(err); !exited {
		return ""
	}
	return complaint(err)
}

// turns let one run at a time write a node's fstab: two jobs of the same minute
// would otherwise undo each other's change.
type turns struct{ taken chan map[string]chan struct{} }

func newTurns() *turns {
	t := &turns{taken: make(chan map[string]chan struct{}, 1)}
	t.taken <- map[string]chan struct{}{}
	return t
}

// take waits for the node's turn; the caller ends it by calling free.
func (t *turns) take(ctx context.Context, node string) (free func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	for {
		taken := <-t.taken
		ended, busy := taken[node]
		if !busy {
			mine := make(chan struct{})
			taken[node] = mine
			t.taken <- taken
			return func() {
				taken := <-t.taken
				delete(taken, node)
				t.taken <- taken
				close(mine)
			}, nil
		}
		t.taken <- taken
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
