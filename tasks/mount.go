package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// Mount mounts a file system on the node. With a mountpoint alone the node's
// fstab says what, and the task is ok if anything is mounted there; with a
// device, it is mounted as given, and something else at the mountpoint is an
// error. It never mounts a second time over what is there. It needs the rights
// to mount, so most often the job's sudo, and a node with Linux.
type Mount struct {
	Mountpoint string   `loom:"required" help:"absolute path of a directory; made if missing"`
	Device     string   `help:"what to mount, such as /dev/sdb1, LABEL=data or server:/export; nothing: as fstab says"`
	FSType     string   `help:"its type, such as ext4, nfs or tmpfs; nothing: mount finds out"`
	Options    []string `help:"options of mount, such as ro or noatime"`
}

// Validate checks what the types can't.
func (t Mount) Validate() error {
	errs := []error{
		absolute("mountpoint", t.Mountpoint), oneLine("device", t.Device), oneLine("fstype", t.FSType),
		oneLine("options", strings.Join(t.Options, ",")),
	}
	if t.Device == "" && (t.FSType != "" || len(t.Options) > 0) {
		errs = append(errs, errors.New("fstype and options need a device; without one they come from the node's fstab"))
	}
	return errors.Join(errs...)
}

// Exposes names what shows a secret in it.
func (Mount) Exposes() map[string]string {
	const why = "every user of the node can see it in the arguments of mount (ps), and perhaps in the table of mounts: put it into a file there, and name that (credentials=FILE)"
	return map[string]string{"device": why, "options": why}
}

// Apply mounts what isn't mounted.
func (t Mount) Apply(ctx context.Context, s *loom.Session) error {
	steps, err := t.steps(ctx, s)
	if err != nil {
		return err
	}
	return perform(ctx, s, steps)
}

// Plan tells whether Apply would mount.
func (t Mount) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	steps, err := t.steps(ctx, s)
	return changes(steps), err
}

func (t Mount) steps(ctx context.Context, s *loom.Session) ([]step, error) {
	at, err := mountsAt(ctx, s, t.Mountpoint)
	if err != nil {
		return nil, err
	}
	if len(at) > 0 {
		top := at[len(at)-1]
		ok, err := t.is(ctx, s, top)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%s: %s is mounted here already, not %s; unmount it first", t.Mountpoint, top, t.Device)
		}
		return nil, nil
	}
	change := "mounted " + t.Mountpoint
	if t.Device != "" {
		change += " from " + t.Device
	}
	return []step{{change, func(ctx context.Context) error { return t.mount(ctx, s) }}}, nil
}

// is reports whether a mount is the one that the task wants. What is mounted by
// label, as a loop or bound shows another name, and is taken for right.
func (t Mount) is(ctx context.Context, s *loom.Session, m mountEntry) (bool, error) {
	vague := func(option string) bool {
		return slices.Contains([]string{"loop", "bind", "rbind"}, strings.TrimPrefix(option, "--"))
	}
	switch {
	case t.Device == "":
		return true, nil
	case slices.ContainsFunc(t.Options, vague):
		return true, nil
	case t.FSType != "" && t.FSType != m.fstype:
		return false, nil
	case strings.Contains(t.Device, "=") || sameSource(t.Device, m.source):
		return true, nil
	case !strings.HasPrefix(t.Device, "/dev/"):
		return false, nil
	}
	// Both may be links to one device.
	out, err := program{"readlink " + t.Device, realDevices}.ask(ctx, s, t.Device, m.source)
	if err != nil {
		return false, err
	}
	wanted, is, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	return wanted == is, nil
}

// realDevices prints the devices that two names stand for.
const realDevices = `
readlink -f -- "$1" || printf '%s\n' "$1"
readlink -f -- "$2" || printf '%s\n' "$2"
`

// mountOne gets the mountpoint and, in any order, the options and the device.
const mountOne = `
[ -d "$1" ] || mkdir -p -- "$1" || exit
mp=$1
shift
if [ $# -eq 0 ]; then exec mount "$mp"; fi
exec mount "$@" "$mp"
`

func (t Mount) mount(ctx context.Context, s *loom.Session) error {
	words := []string{t.Mountpoint}
	if t.FSType != "" {
		words = append(words, "-t", t.FSType)
	}
	if len(t.Options) > 0 {
		words = append(words, "-o", strings.Join(t.Options, ","))
	}
	if t.Device != "" {
		words = append(words, "--", t.Device)
	}
	return program{"mount " + t.Mountpoint, mountOne}.run(ctx, s, words...)
}

// Unmount unmounts what is mounted at a directory of the node, all of it if
// mounts are stacked there. If it is in use the task fails and says by whom, if
// the node can tell; Lazy detaches it all the same.
type Unmount struct {
	Mountpoint string `loom:"required" help:"absolute path of a directory"`
	Lazy       bool   `help:"detach now, and clean up when it is no longer in use"`
}

// Validate checks what the types can't.
func (t Unmount) Validate() error { return absolute("mountpoint", t.Mountpoint) }

// Apply unmounts what is mounted.
func (t Unmount) Apply(ctx context.Context, s *loom.Session) error {
	steps, err := t.steps(ctx, s)
	if err != nil {
		return err
	}
	return perform(ctx, s, steps)
}

// Plan tells whether Apply would unmount.
func (t Unmount) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	steps, err := t.steps(ctx, s)
	return changes(steps), err
}

func (t Unmount) steps(ctx context.Context, s *loom.Session) ([]step, error) {
	at, err := mountsAt(ctx, s, t.Mountpoint)
	if err != nil {
		return nil, err
	}
	var steps []step
	for i := len(at); i > 0; i-- {
		m := at[i-1]
		steps = append(steps, step{
			fmt.Sprintf("unmounted %s (%s)", t.Mountpoint, m),
			func(ctx context.Context) error { return unmount(ctx, s, t.Mountpoint, t.Lazy) },
		})
	}
	return steps, nil
}

// unmountOne gets the mountpoint and whether to be lazy. A user who isn't root
// unmounts by fusermount what is a FUSE.
const unmountOne = `
lazy=
[ "$2" = lazy ] && lazy=-l
if [ "$(id -u)" -ne 0 ]; then
	for f in fusermount3 fusermount; do
		if command -v $f >/dev/null; then
			$f -u ${lazy:+-z} -- "$1" 2>/dev/null && exit
		fi
	done
fi
umount $lazy -- "$1"
`

// holdersOf prints the process ids and names of those who use a mount. Its own
// time limit is in case fuser hangs at the mount.
const holdersOf = `
command -v fuser >/dev/null || exit 0
for p in $(fuser -m "$1" 2>/dev/null); do
	n=
	read -r n <"/proc/$p/comm" 2>/dev/null
	echo "$p $n"
done
`

func unmount(ctx context.Context, s *loom.Session, mountpoint string, lazy bool) error {
	how := ""
	if lazy {
		how = "lazy"
	}
	_, err := program{"umount " + mountpoint, unmountOne}.ask(ctx, s, mountpoint, how)
	if _, exited := exitCode(err); !exited || !strings.Contains(complaint(err), "busy") {
		return err
	}
	return fmt.Errorf("%s is busy: %s; nothing was changed: %w", mountpoint, holders(ctx, s, mountpoint), err)
}

// holders says who uses a mount, as well as the node can tell.
func holders(ctx context.Context, s *loom.Session, mountpoint string) string {
	ctx, cancel := limited(ctx, 5*time.Second)
	defer cancel()
	out, _ := program{"fuser " + mountpoint, holdersOf}.ask(ctx, s, mountpoint)
	var names []string
	for line := range strings.Lines(string(out)) {
		pid, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			name = "a process"
		}
		names = append(names, fmt.Sprintf("%s (pid %s)", name, pid))
		if len(names) == 5 {
			names = append(names, "more")
			break
		}
	}
	if len(names) == 0 {
		return "in use by a process that the node can't name"
	}
	return "in use by " + strings.Join(names, ", ")
}

// readMounts gets directories, and prints for each the real path of its parent,
// a line each, then the table of mounts. It looks at no mountpoint itself,
// since that hangs if what is mounted there is dead.
const readMounts = `
for m; do
	d=${m%/*}
	p=$(cd -P -- "${d:-/}" 2>/dev/null && pwd -P) || p=${d:-/}
	printf '%s\n' "$p"
done
cat /proc/self/mountinfo
`

// mountsAt returns what is mounted at a directory, the uppermost last.
func mountsAt(ctx context.Context, s *loom.Session, mountpoint string) ([]mountEntry, error) {
	out, err := program{"read the mounts", readMounts}.ask(ctx, s, path.Clean(mountpoint))
	if err != nil {
		return nil, fmt.Errorf("which mounts there are only a node with Linux and /proc can say: %w", err)
	}
	parent, table, _ := bytes.Cut(out, []byte("\n"))
	mounts, err := parseMountinfo(table)
	if err != nil {
		return nil, err
	}
	return at(mounts, realPath(string(parent), mountpoint)), nil
}

// realPath is a mountpoint as the kernel knows it, given the real path of its
// parent.
func realPath(parent, mountpoint string) string {
	return path.Join(parent, path.Base(path.Clean(mountpoint)))
}

// at returns the mounts at exactly this path.
func at(mounts []mountEntry, mountpoint string) []mountEntry {
	var found []mountEntry
	for _, m := range mounts {
		if m.mountpoint == mountpoint {
			found = append(found, m)
		}
	}
	return found
}

// A mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct {
	device     string // major:minor
	mountpoint string
	options    string
	fstype     string
	source     string
	super      string // options of the file system
}

func (m mountEntry) String() string { return fmt.Sprintf("%s, %s", m.source, m.fstype) }

// parseMountinfo reads /proc/self/mountinfo. The order of the table is that in
// which things were mounted, so of several at one place the last is uppermost.
func parseMountinfo(table []byte) ([]mountEntry, error) {
	var mounts []mountEntry
	for line := range strings.Lines(string(table)) {
		// 36 35 98:0 /root /mnt rw,noatime shared:1 master:2 - ext3 /dev/root rw
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		h, t := strings.Split(head, " "), strings.Split(tail, " ")
		if !ok || len(h) < 6 || len(t) < 2 {
			return nil, fmt.Errorf("a line of /proc/self/mountinfo makes no sense: %q", line)
		}
		m := mountEntry{device: h[2], mountpoint: unescape(h[4]), options: h[5], fstype: unescape(t[0]), source: unescape(t[1])}
		if len(t) > 2 {
			m.super = t[2]
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// unescape decodes the octal escapes of mount tables: \040 is a space.
func unescape(field string) string {
	if !strings.Contains(field, `\`) {
		return field
	}
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		if c, ok := octal(field[i:]); ok {
			b.WriteByte(c)
			i += 3
			continue
		}
		b.WriteByte(field[i])
	}
	return b.String()
}

func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' {
		return 0, false
	}
	n := 0
	for _, d := range []byte(s[1:4]) {
		if d < '0' || d > '7' {
			return 0, false
		}
		n = n*8 + int(d-'0')
	}
	return byte(n), n < 256
}

// escape encodes what would end a field of a mount table or begin an escape.
func escape(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if strings.IndexByte(" \t\n\r\\", c) >= 0 {
			fmt.Fprintf(&b, `\%03o`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// sameSource reports whether two devices are the same but for how they are
// spelled: with or without sshfs#, with a slash at the end or not.
func sameSource(a, b string) bool { return cleanSource(a) == cleanSource(b) }

func cleanSource(source string) string {
	source = strings.TrimPrefix(source, "sshfs#")
	host, dir, remote := cutRemote(source)
	switch {
	case remote && dir != "":
		return host + ":" + path.Clean(dir)
	case !remote && strings.HasPrefix(source, "/"):
		return path.Clean(source)
	}
	return source
}

// cutRemote splits host:dir, where host may be an IPv6 address in brackets.
func cutRemote(source string) (host, dir string, ok bool) {
	from := 0
	if i := strings.IndexByte(source, ']'); i >= 0 && strings.Contains(source[:i], "[") {
		from = i
	}
	i := strings.IndexByte(source[from:], ':')
	if i < 0 || strings.HasPrefix(source, "/") {
		return source, "", false
	}
	return source[:from+i], source[from+i+1:], true
}
