package tasks

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// Put copies files and directories of the control host to the node. Each file
// arrives whole or not at all. A file that the node has already, with the same
// content, mode and owner, isn't copied, and the task is ok if that is so for
// all; nothing that only the node has is removed.
//
// A single file gets the name RemotePath; if that is a directory, or ends in a
// slash, it goes into it under its own name, as directories and the several
// files of a glob always do. Links are followed to files, and refused to
// directories.
type Put struct {
	LocalPath       string      `yaml:"local_path" loom:"required" help:"file, directory or glob on the control host"`
	RemotePath      string      `yaml:"remote_path" help:"where to on the node; ~ is the home directory there (~)"`
	UseSudo         bool        `yaml:"use_sudo" help:"write as the node's sudo user"`
	MirrorLocalMode bool        `yaml:"mirror_local_mode" help:"give each file the mode that it has here"`
	Mode            fs.FileMode `help:"mode of the files; nothing: as they were, 0644 if new"`
	UseGlob         bool        `yaml:"use_glob" help:"whether * ? and [ in local_path are a pattern"`
	TempDir         string      `yaml:"temp_dir" help:"accepted for old manifests; files are completed beside their place, under another name"`
	Owner           string      `help:"owner of the files and of new directories; nothing: as they were"`
	Group           string      `help:"their group; nothing: as it was"`
}

// Validate checks what the types can't.
func (t Put) Validate() error {
	errs := []error{
		oneLine("local_path", t.LocalPath), oneLine("remote_path", t.RemotePath), account("owner", t.Owner), account("group", t.Group),
	}
	if t.LocalPath == "" {
		errs = append(errs, errors.New("local_path is empty"))
	}
	if t.MirrorLocalMode && t.Mode != 0 {
		errs = append(errs, errors.New("mode and mirror_local_mode both say which mode the files get; give one"))
	}
	return errors.Join(errs...)
}

// account checks the name or number of a user or group.
func account(param, name string) error {
	if strings.HasPrefix(name, "-") || strings.ContainsAny(name, ": \t\n\r/\x00") {
		return fmt.Errorf("%s: %q can't be a name or a number of one", param, name)
	}
	return nil
}

// Apply copies what differs.
func (t Put) Apply(ctx context.Context, s *loom.Session) error {
	if t.UseSudo {
		s = s.Sudo("")
	}
	steps, err := t.steps(ctx, s)
	if err != nil {
		return err
	}
	return perform(ctx, s, steps)
}

// Plan tells what Apply would copy or change.
func (t Put) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	if t.UseSudo {
		s = s.Sudo("")
	}
	steps, err := t.steps(ctx, s)
	return changes(steps), err
}

// A sending is one file or directory to be put.
type sending struct {
	local string
	rel   string // its name below the remote path
	dir   bool
	size  int64
	mode  fs.FileMode // of the local file
}

func (t Put) steps(ctx context.Context, s *loom.Session) ([]step, error) {
	list, inside, err := t.sendings(s)
	if err != nil {
		return nil, err
	}
	var steps []step
	for len(list) > 0 {
		n := chunk(list)
		found, err := t.ask(ctx, s, list[:n], inside)
		if err != nil {
			return nil, err
		}
		for i, there := range found {
			more, err := t.one(ctx, s, list[i], there)
			if err != nil {
				return nil, err
			}
			steps = append(steps, more...)
		}
		list = list[n:]
	}
	return steps, nil
}

// sendings lists what is to be put, directories before what is in them, and
// whether it goes into the remote path, rather than getting that name.
func (t Put) sendings(s *loom.Session) (list []sending, inside bool, err error) {
	name, err := s.LocalPath(t.LocalPath)
	if err != nil {
		return nil, false, err
	}
	inside = strings.HasSuffix(t.RemotePath, "/") || t.RemotePath == "" || t.RemotePath == "~"
	sources := []string{name}
	if _, err := os.Lstat(name); err != nil && t.UseGlob && strings.ContainsAny(name, "*?[") {
		if sources, err = filepath.Glob(name); err != nil {
			return nil, false, fmt.Errorf("local_path: %q: %w", t.LocalPath, err)
		}
		if len(sources) == 0 {
			return nil, false, fmt.Errorf("local_path: nothing here matches %s", name)
		}
		inside = inside || len(sources) > 1
	}
	for _, src := range sources {
		err := filepath.WalkDir(src, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			one, err := t.sending(src, p)
			list = append(list, one)
			return err
		})
		if err != nil {
			return nil, false, fmt.Errorf("put %s: %w", src, err)
		}
	}
	if len(list) > 0 && (list[0].dir || inside) {
		inside = true
		list = slices.Insert(list, 0, sending{dir: true}) // the remote path itself
	}
	return list, inside, nil
}

func (t Put) sending(src, p string) (sending, error) {
	info, err := os.Stat(p)
	if err != nil {
		return sending{}, err
	}
	rel, err := filepath.Rel(filepath.Dir(src), p)
	if err != nil {
		return sending{}, err
	}
	link, err := os.Lstat(p)
	switch {
	case err != nil:
		return sending{}, err
	case oneLine("", rel) != nil:
		return sending{}, fmt.Errorf("the name %q has a line break in it", p)
	case info.IsDir() && link.Mode()&fs.ModeSymlink != 0:
		return sending{}, fmt.Errorf("%s is a link to a directory, which is not followed; put that directory itself", p)
	case !info.IsDir() && !info.Mode().IsRegular():
		return sending{}, fmt.Errorf("%s is neither a file nor a directory (%v)", p, info.Mode().Type())
	}
	return sending{local: p, rel: filepath.ToSlash(rel), dir: info.IsDir(), size: info.Size(), mode: info.Mode().Perm()}, nil
}

// chunk returns how many of the list are asked about in one trip.
func chunk(list []sending) int {
	size := 0
	for i, one := range list {
		size += len(one.rel) + 40
		if i == 200 || size > 20<<10 {
			return max(i, 1)
		}
	}
	return len(list)
}

// checksum defines sum, which prints the SHA-256 of a file in hex as the first
// word, or nothing if the node has no means for that.
const checksum = `
sum() { :; }
if command -v sha256sum >/dev/null; then
	sum() { sha256sum <"$1"; }
elif command -v shasum >/dev/null; then
	sum() { shasum -a 256 <"$1"; }
elif command -v sha256 >/dev/null; then
	sum() { sha256 -q <"$1"; }
elif command -v openssl >/dev/null; then
	sum() { openssl dgst -sha256 -r <"$1"; }
fi
`

// homely makes a path of the node that begins with ~, or is relative, absolute.
const homely = `
homely() {
	case $1 in
	"~") p=$HOME ;;
	"~/"*) p=$HOME/${1#"~/"} ;;
	/*) p=$1 ;;
	"") p=$PWD ;;
	*) p=$PWD/$1 ;;
	esac
}
`

// whatIsThere gets the remote path, whether all goes into it (yes) or only if it
// is a directory, then for each file or directory a name below it and a size. It
// prints the path, then a line for each: type (f, d, o, or - if there is
// nothing), mode as ls writes it, owner and group by number and by name, size,
// and the checksum of a file that has the size. Links are followed.
const whatIsThere = checksum + homely + `
state() {
	if [ -d "$1" ]; then t=d; elif [ -f "$1" ]; then t=f; elif [ -e "$1" ]; then t=o; else
		echo -
		return
	fi
	f=$1 size=$2
	set -- $(ls -ldnL -- "$f") || return
	[ $# -ge 5 ] || { echo "ls says nothing about $f" >&2; exit 1; }
	mode=$1 uid=$3 gid=$4 is=$5
	set -- $(ls -ldL -- "$f")
	owner=$3 group=$4
	set --
	[ $t = f ] && [ "$is" = "$size" ] && [ -r "$f" ] && set -- $(sum "$f")
	echo $t $mode $uid $gid $owner $group $is ${1--}
}
set -f
homely "$1"
into=$2
shift 2
[ -d "$p" ] && into=yes
while :; do
	case $p in
	?*/) p=${p%/} ;;
	*) break ;;
	esac
done
printf '%s\n' "$p"
while [ $# -gt 0 ]; do
	f=$p
	[ $into = yes ] && [ -n "$1" ] && f=${p%/}/$1
	printf '%s\n' "$f"
	state "$f" "$2"
	shift 2
done
`

// A finding is what a node has in a place.
type finding struct {
	path         string
	kind         string // f, d, o, or - for nothing
	mode         fs.FileMode
	owner, group [2]string // number and name
	sum          string    // SHA-256 in hex; "-": not known
	size         int64
}

func (t Put) ask(ctx context.Context, s *loom.Session, list []sending, inside bool) ([]finding, error) {
	into := "maybe"
	if inside {
		into = "yes"
	}
	words := []string{t.RemotePath, into}
	for _, one := range list {
		words = append(words, one.rel, strconv.FormatInt(one.size, 10))
	}
	out, err := program{"look at " + t.RemotePath, whatIsThere}.ask(ctx, s, words...)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 1+2*len(list) {
		return nil, fmt.Errorf("the node's answer about %s makes no sense: %q", t.RemotePath, brief(string(out)))
	}
	var found []finding
	for i := range list {
		there, err := parseFinding(lines[1+2*i], lines[2+2*i])
		if err != nil {
			return nil, err
		}
		found = append(found, there)
	}
	return found, nil
}

func parseFinding(name, line string) (finding, error) {
	fields := strings.Fields(line)
	there := finding{path: name, kind: "-", sum: "-"}
	if line == "-" {
		return there, nil
	}
	if len(fields) != 8 {
		return there, fmt.Errorf("the node's answer about %s makes no sense: %q", name, line)
	}
	mode, err := parseLsMode(fields[1])
	if err != nil {
		return there, err
	}
	size, err := strconv.ParseInt(fields[6], 10, 64)
	if err != nil {
		size = -1 // a device has two numbers here
	}
	there.kind, there.mode, there.size, there.sum = fields[0], mode, size, strings.TrimPrefix(fields[7], `\`)
	there.owner = [2]string{fields[2], fields[4]}
	there.group = [2]string{fields[3], fields[5]}
	return there, nil
}

// parseLsMode reads permissions as ls -l writes them, such as -rwsr-xr-x.
func parseLsMode(text string) (fs.FileMode, error) {
	wrong := fmt.Errorf("the node's ls writes modes in a way unknown here: %q", text)
	if len(text) < 10 {
		return 0, wrong
	}
	var mode fs.FileMode
	for i, c := range []byte(text[1:10]) {
		bit := fs.FileMode(1) << (8 - i)
		special := []fs.FileMode{fs.ModeSetuid, fs.ModeSetgid, fs.ModeSticky}[i/3]
		switch {
		case c == "rwx"[i%3]:
			mode |= bit
		case c == '-':
		case i%3 == 2 && (c == 's' || c == 't'):
			mode |= bit | special
		case i%3 == 2 && (c == 'S' || c == 'T' || c == 'l'):
			mode |= special
		default:
			return 0, wrong
		}
	}
	return mode, nil
}

// one returns the steps that put one file or directory.
func (t Put) one(ctx context.Context, s *loom.Session, one sending, there finding) ([]step, error) {
	switch {
	case one.dir && there.kind == "d":
		return nil, nil
	case one.dir && there.kind == "-":
		return []step{{"made the directory " + there.path, func(ctx context.Context) error {
			return t.mkdir(ctx, s, there.path)
		}}}, nil
	case one.dir:
		return nil, fmt.Errorf("%s is a directory here, and %s on the node is not", one.local, there.path)
	case there.kind == "d" || there.kind == "o":
		return nil, fmt.Errorf("%s is a file here, and %s on the node is none", one.local, there.path)
	}
	same, err := t.same(ctx, s, one, there)
	if err != nil {
		return nil, err
	}
	if !same {
		return []step{{"put " + there.path, func(ctx context.Context) error { return t.put(ctx, s, one, there.path) }}}, nil
	}
	var steps []step
	mode := t.mode(one)
	owns := is(t.Owner, there.owner) && is(t.Group, there.group)
	if !owns {
		steps = append(steps, step{fmt.Sprintf("gave %s to %s", there.path, t.ownership()), func(ctx context.Context) error {
			return program{"chown " + there.path, `chown -- "$1" "$2"`}.run(ctx, s, t.ownership(), there.path)
		}})
	}
	if mode != 0 && (mode != there.mode || !owns && there.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0) {
		octal := bind.FormatMode(mode)
		steps = append(steps, step{fmt.Sprintf("changed the mode of %s from %s to %s", there.path, bind.FormatMode(there.mode), octal),
			func(ctx context.Context) error {
				return program{"chmod " + octal, `chmod -- "$1" "$2"`}.run(ctx, s, octal, there.path)
			}})
	}
	return steps, nil
}

// is reports whether a wanted owner or group is the one that is, by number or
// by name.
func is(wanted string, has [2]string) bool {
	return wanted == "" || wanted == has[0] || wanted == has[1]
}

// ownership is what chown takes.
func (t Put) ownership() string {
	if t.Group == "" {
		return t.Owner
	}
	return t.Owner + ":" + t.Group
}

// mode is the mode that a file gets; 0 keeps the one it has.
func (t Put) mode(one sending) fs.FileMode {
	if t.MirrorLocalMode {
		return one.mode
	}
	return t.Mode
}

// same reports whether the node's file has the content of the local one.
func (t Put) same(ctx context.Context, s *loom.Session, one sending, there finding) (bool, error) {
	if there.kind != "f" || there.size != one.size {
		return false, nil
	}
	remote := there.sum
	if remote == "-" {
		var err error
		if remote, err = remoteSum(ctx, s, there.path); err != nil {
			return false, err
		}
	}
	f, err := os.Open(one.local)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == remote, nil
}

// remoteSum is the checksum of a file of a node that has no means to make one.
func remoteSum(ctx context.Context, s *loom.Session, name string) (string, error) {
	h := sha256.New()
	if err := s.Get(ctx, name, h); err != nil {
		return "", fmt.Errorf("compare %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (t Put) put(ctx context.Context, s *loom.Session, one sending, name string) error {
	f, err := os.Open(one.local)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := s.Put(ctx, f, name, loom.Attr{Mode: t.mode(one), Owner: t.Owner, Group: t.Group}); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// makeDirectory gets a path and whose it will be, or "".
const makeDirectory = `
umask 022
mkdir -p -- "$1" || exit
[ -z "$2" ] || chown -- "$2" "$1"
`

func (t Put) mkdir(ctx context.Context, s *loom.Session, name string) error {
	return program{"mkdir " + name, makeDirectory}.run(ctx, s, name, t.ownership())
}

// Get copies files and directories of the node to the control host. Each file
// arrives whole or not at all, for Loom's user alone to read. A file that is
// here already, with the same content, isn't copied, and the task is ok if that
// is so for all.
//
// LocalPath says where to. In it, {node} is the node's name, and {path},
// {dirname} and {basename} are of the file: below the directory that was asked
// for, or its mere name if a file was. The names that Fabric had for these work
// too: %(host)s, %(path)s, %(dirname)s, %(basename)s. A path without {path} or
// {basename} that is a directory, ends in a slash or is for several files is
// one to put them into. What the node calls its files can't lead outside of the
// directory that LocalPath begins with.
//
// Links to files are followed; those to directories, devices, sockets and pipes
// are left out, with a line in the log.
type Get struct {
	RemotePath string `yaml:"remote_path" loom:"required" help:"file, directory or glob on the node; ~ is the home directory there"`
	LocalPath  string `yaml:"local_path" help:"where to on the control host ({node}/{path})"`
	UseSudo    bool   `yaml:"use_sudo" help:"read as the node's sudo user"`
	TempDir    string `yaml:"temp_dir" help:"accepted for old manifests; nothing is copied on the node"`
}

// Validate checks what the types can't.
func (t Get) Validate() error {
	errs := []error{oneLine("remote_path", t.RemotePath), oneLine("local_path", t.LocalPath)}
	if t.RemotePath == "" {
		errs = append(errs, errors.New("remote_path is empty"))
	}
	rest := names("", "").Replace(t.LocalPath)
	if strings.ContainsAny(rest, "{}") || strings.Contains(rest, "%(") {
		errs = append(errs, fmt.Errorf("local_path: %q has a name in it that is none of {node}, {path}, {dirname} and {basename}", t.LocalPath))
	}
	return errors.Join(errs...)
}

// names replaces the names in a local path.
func names(node, rel string) *strings.Replacer {
	dir, base := path.Split(rel)
	dir = strings.TrimSuffix(dir, "/")
	return strings.NewReplacer("{node}", node, "%(host)s", node, "{path}", rel, "%(path)s", rel,
		"{dirname}", dir, "%(dirname)s", dir, "{basename}", base, "%(basename)s", base)
}

// Apply copies what differs.
func (t Get) Apply(ctx context.Context, s *loom.Session) error {
	if t.UseSudo {
		s = s.Sudo("")
	}
	steps, err := t.steps(ctx, s)
	if err != nil {
		return err
	}
	return perform(ctx, s, steps)
}

// Plan tells what Apply would copy.
func (t Get) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	if t.UseSudo {
		s = s.Sudo("")
	}
	steps, err := t.steps(ctx, s)
	return changes(steps), err
}

// whatToGet gets a path or a pattern. It prints for each file a record that ends
// in a NUL, with tabs in it: f, the checksum or -, the path, and the name below
// what was asked for; or o and the path of what is no file; or m and the path of
// what does not exist.
const whatToGet = checksum + homely + `
file() {
	if [ -f "$1" ]; then
		if [ -r "$1" ]; then
			rel=$2
			set -- "$1" $(sum "$1")
			printf 'f\t%s\t%s\t%s\0' "${2:--}" "$1" "$rel"
		else
			echo "$1 can't be read" >&2
			exit 1
		fi
	else
		printf 'o\t%s\0' "$1"
	fi
}
tree() {
	for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		[ -e "$e" ] || [ -h "$e" ] || continue
		if [ -d "$e" ] && [ ! -h "$e" ]; then
			[ -r "$e" ] && [ -x "$e" ] || { echo "$e can't be read" >&2; exit 1; }
			tree "$e" "$2"
		else
			file "$e" "${e#"$2"/}"
		fi
	done
}
homely "$1"
IFS=
[ -e "$p" ] || [ -h "$p" ] && set -f
for m in $p; do
	set +f
	IFS=" 	
"
	while :; do
		case $m in
		?*/) m=${m%/} ;;
		*) break ;;
		esac
	done
	if [ -d "$m" ]; then
		[ -r "$m" ] && [ -x "$m" ] || { echo "$m can't be read" >&2; exit 1; }
		tree "$m" "$m"
	elif [ -e "$m" ] || [ -h "$m" ]; then
		file "$m" "${m##*/}"
	else
		printf 'm\t%s\0' "$m"
	fi
done
`

// A fetching is a file to be got.
type fetching struct {
	remote, rel string
	sum         string // "-": not known
	local       string // below the root
}

func (t Get) steps(ctx context.Context, s *loom.Session) ([]step, error) {
	list, err := t.ask(ctx, s)
	if err != nil {
		return nil, err
	}
	dir, err := t.place(s, list)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, one := range list {
		same, err := t.same(ctx, s, dir, one)
		if err != nil {
			return nil, err
		}
		if !same {
			steps = append(steps, step{"got " + filepath.Join(dir, filepath.FromSlash(one.local)), func(ctx context.Context) error {
				return t.get(ctx, s, dir, one)
			}})
		}
	}
	return steps, nil
}

// ask lists the files that the node has to give.
func (t Get) ask(ctx context.Context, s *loom.Session) ([]fetching, error) {
	out, err := program{"look at " + t.RemotePath, whatToGet}.ask(ctx, s, t.RemotePath)
	if err != nil {
		return nil, err
	}
	var list []fetching
	for record := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		kind, rest, _ := strings.Cut(record, "\t")
		fields := strings.Split(rest, "\t")
		switch {
		case kind == "m":
			return nil, fmt.Errorf("get %s: %w", rest, fs.ErrNotExist)
		case kind == "o":
			logger(s).Warn("no file, left out", "path", rest)
		case kind == "f" && len(fields) == 3:
			list = append(list, fetching{sum: strings.TrimPrefix(fields[0], `\`), remote: fields[1], rel: fields[2]})
		case kind == "f":
			return nil, fmt.Errorf("get %s: a file there has a tab in its name, which is not supported: %q", t.RemotePath, brief(rest))
		case record != "":
			return nil, fmt.Errorf("the node's answer about %s makes no sense: %q", t.RemotePath, brief(record))
		}
	}
	return list, nil
}

// place says where each file goes, and returns the directory that none may
// leave.
func (t Get) place(s *loom.Session, list []fetching) (dir string, err error) {
	node := s.Node.Name
	if node == "" || node == "." || node == ".." || strings.ContainsAny(node, "/\\\x00") {
		return "", fmt.Errorf("the node's name, %q, can't be that of a directory", node)
	}
	pattern := t.LocalPath
	if pattern == "" {
		pattern = "{node}/{path}"
	}
	// What varies by file begins at the first of its names.
	fixed := strings.NewReplacer("{node}", node, "%(host)s", node).Replace(pattern)
	varies := -1
	for _, name := range []string{"{path}", "%(path)s", "{dirname}", "%(dirname)s", "{basename}", "%(basename)s"} {
		if i := strings.Index(fixed, name); i >= 0 && (varies < 0 || i < varies) {
			varies = i
		}
	}
	named := strings.Contains(fixed, "path}") || strings.Contains(fixed, "%(path)s") || strings.Contains(fixed, "basename")
	if !named && (len(list) > 1 || strings.HasSuffix(fixed, "/") || isDir(s, fixed)) {
		fixed = strings.TrimSuffix(fixed, "/") + "/"
		if varies < 0 {
			varies = len(fixed)
		}
		fixed += "{path}"
	}
	if varies < 0 {
		varies = len(fixed)
	}
	cut := strings.LastIndexByte(fixed[:varies], '/') + 1
	base, rest := fixed[:cut], fixed[cut:]
	if base == "" {
		base = "."
	}
	if dir, err = s.LocalPath(base); err != nil {
		return "", err
	}
	return dir, settle(list, rest)
}

func isDir(s *loom.Session, name string) bool {
	name, err := s.LocalPath(name)
	if err != nil {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// settle gives each file its place below the directory.
func settle(list []fetching, pattern string) error {
	taken := map[string]string{}
	for i, one := range list {
		if !filepath.IsLocal(filepath.FromSlash(one.rel)) {
			return fmt.Errorf("the node calls a file %q, which leads out of the directory for it; nothing was copied", one.rel)
		}
		local := path.Clean(names("", one.rel).Replace(pattern))
		if local = strings.TrimPrefix(local, "/"); local == "." || !filepath.IsLocal(filepath.FromSlash(local)) {
			return fmt.Errorf("local_path: %q is no name for %s", pattern, one.remote)
		}
		if other, twice := taken[local]; twice {
			return fmt.Errorf("local_path: %s and %s would both become %s; write {path} in it", other, one.remote, local)
		}
		taken[local] = one.remote
		list[i].local = local
	}
	return nil
}

// same reports whether the local file has the content of the node's.
func (t Get) same(ctx context.Context, s *loom.Session, dir string, one fetching) (bool, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer root.Close() //nolint:errcheck // it only names a directory
	info, err := root.Stat(one.local)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%s is not a file here", filepath.Join(dir, one.local))
	}
	if one.sum == "-" {
		if one.sum, err = remoteSum(ctx, s, one.remote); err != nil {
			return false, err
		}
	}
	f, err := root.Open(one.local)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)) == one.sum, err
}

// get copies one file, to another name beside its place first.
func (t Get) get(ctx context.Context, s *loom.Session, dir string, one fetching) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it only names a directory
	if err := root.MkdirAll(path.Dir(one.local), 0o700); err != nil {
		return err
	}
	temp := path.Join(path.Dir(one.local), ".loom-"+strings.ToLower(rand.Text()))
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	if err := s.Get(ctx, one.remote, f); err != nil {
		return fmt.Errorf("get %s: %w", one.remote, err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return root.Rename(temp, one.local)
}
