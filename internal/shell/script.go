package shell

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Quote returns s as one word of a POSIX shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// ladder is what a watcher runs. It waits until its standard input ends, and
// then ends the process p, its group g, everything that carries the mark n in
// its environment, and all that those have started: SIGTERM, a grace of some
// four seconds, and then SIGSTOP and SIGKILL until nothing is left.
//
// It must not harm a stranger that got the number of a process that is gone: p
// must not be younger than the watcher.
//
// Functions: S reads the parents, group and age of a process; F lists what is
// to be ended, without the watcher w and its own helpers, after a g if there is
// somebody in the group; L is the ladder. The group counts only if m is 1 or if one
// of its members carries the mark. Once nobody is left in it, its number may be a
// stranger's, so E sets m to 0.
const ladder = `trap "" HUP INT TERM PIPE
cd /
` + ladderFunctions

const ladderFunctions = `S(){ read -r s <"/proc/$1/stat"||return;set -- ${s##*) };shift 19;T=$1;}
F(){ e=$(grep -l "LOOM_EXEC=$n" /proc/[0-9]*/environ|tr -cd "0-9\n"|tr "\n" " ")
cat /proc/[0-9]*/stat|awk -v e=" $e" -v g="$g" -v w="$w" -v m="$m" '{i=$1;sub(/.*\) /,"");c[i]=$2;z[i]=$1;if(g>1&&($3==g||$4==g))h[i]=1;if(index(e," "i" ")){k[i]=1;if(i in h)m=1}}
END{for(i in h)if(z[i]!="Z"&&z[i]!="X"){printf "g ";break}
if(m)for(i in h)k[i]=1;x[w]=1;do{d=0;for(i in c){if(!(i in k)&&(c[i] in k)){k[i]=1;d=1}if(!(i in x)&&(c[i] in x)){x[i]=1;d=1}}}while(d)
for(i in k)if(!(i in x)&&z[i]!="Z"&&z[i]!="X")printf "%s ",i}';}
E(){ f=$(F);case $f in "g "*)f=${f#g };;*)m=0;;esac;}
L(){ read -r w s </proc/self/stat
mm=$m;E
if [ -n "$f" ];then kill -s TERM $f;kill -s CONT $f;elif [ $mm = 1 ]&&[ -z "$w" ];then kill -s TERM -- -$g;sleep 4;fi
for i in .1 .1 .2 .4 .8 1 1 1;do [ -n "$f" ]||break;sleep $i||sleep 1;E;done
i=0;while [ -n "$f" ]&&[ $i -lt 10 ];do kill -s STOP $f;h=$f;E;kill -s KILL $h $f;i=$((i+1));E;done;}
`

// watch is the rest of a watcher's text: it waits, looks whether p is still
// there and the same, and climbs the ladder.
const watch = `m=1
while read -r x;do [ "$x" = quit ]&&exit;done
kill -0 $p||exit
if S $p;then t=$T;S self;[ "$t" -le "$T" ]||exit;fi
L
`

// quotedWatcher is a watcher's text as one word.
var quotedWatcher = Quote(ladder + watch) //nolint:gochecknoglobals // a constant, but for the quoting

// finish ends p and all that belongs to it at once.
const finish = `m=1
kill -0 $p&&L
`

// reap ends what another watcher may have left over: it waits until that is
// done with the group, and then ends everything that carries the mark.
const reap = `m=0
i=0;while [ $g -gt 0 ]&&kill -0 -- -$g&&[ $i -lt 60 ];do sleep .1||sleep 1;i=$((i+1));done
L
`

// A script says what a shell is to run.
type script struct {
	c     *Command
	nonce string
	feeds bool // standard input goes to the command, and a second shell watches
	sudo  bool // the shell is a child of sudo, perhaps in sudo's process group

	watched bool // somebody else watches
	claim   bool // it attaches to a claim, which finds its standard input at descriptor 9
	quiet   bool // nothing comes before the marker on standard error, so none is needed
}

// text returns the whole script, as bytes does.
func (s script) text() string { return string(s.bytes()) }

// bytes returns the whole script. It is a function and its call: a shell that
// gets only a part of it runs nothing.
func (s script) bytes() []byte {
	var b bytes.Buffer
	c := s.c
	size := len(c.Text) + 384
	if !s.watched && !s.feeds && !s.claim {
		size += len(quotedWatcher)
	}
	b.Grow(size)
	b.WriteString("_loom(){\ng=$$\n")
	if s.sudo {
		b.WriteString(`read -r x </proc/$$/stat 2>/dev/null&&set -- ${x##*) }&&g=$3;set --` + "\n")
	}
	switch {
	case s.feeds:
	case s.claim: // not in its text, which is eval'ed: bash would crash
		b.WriteString("exec 9<&0 </dev/null\n")
	case s.watched:
		b.WriteString("exec </dev/null\n")
	default:
		// Two forks, so that the shell does not know the watcher and a "wait" in
		// the command does not wait for it.
		b.WriteString("exec 3<&0 </dev/null\n((p=$$ n=")
		b.WriteString(s.nonce)
		b.WriteString("\neval ")
		b.WriteString(quotedWatcher)
		b.WriteString(") <&3 3<&- >/dev/null 2>&1 &)\nexec 3<&-\n")
	}
	said := mark(s.nonce)
	if !s.quiet {
		b.WriteString("echo ")
		b.WriteString(said)
		b.WriteString(" >&2;")
	}
	b.WriteString("echo ")
	b.WriteString(said)
	b.WriteString(" $$ $g\n")
	if s.feeds {
		b.WriteString("read -r x&&[ \"$x\" = go ]||exit 97\n")
	}
	b.WriteString("unset g x;export LOOM_EXEC=")
	b.WriteString(s.nonce)
	names := make([]string, 0, 16)
	for name := range c.Env {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteByte(' ')
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(Quote(c.Env[name]))
	}
	b.WriteByte('\n')
	c.writeText(&b)
	return b.Bytes()
}

// writeText writes the end of a script, which becomes the command.
func (c *Command) writeText(b *bytes.Buffer) {
	if c.Dir != "" {
		b.WriteString("CDPATH= cd " + Quote(directory(c.Dir)) + "||exit\n")
	}
	switch {
	case c.Shell != "" && c.Private:
		b.WriteString(privateHead + Quote(c.Text) + "\nexec " + Quote(c.Shell) + privateTail)
	case c.Shell != "":
		b.WriteString("exec " + Quote(c.Shell) + " -c " + Quote(c.Text))
	default:
		b.WriteString("eval " + Quote(c.Text))
	}
	b.WriteString("\n}\n_loom;exit\n")
}

// A text with secrets in it reaches another shell as a file, since its arguments
// are for all to see. The variable may be in the environment, which is read by
// more than may know.
const (
	privateHead = "unset _loom_t;_loom_t="
	privateTail = " /dev/fd/9 9<<_LOOM\n$_loom_t\n_LOOM"
)

// mark is what the shell prints when it has read all of its script.
func mark(nonce string) string { return "loom-" + nonce }

// guard returns the script of a shell whose only work is to watch p and g, or
// with text reap to end what they have left. It prints the mark at the start,
// and at the end what it could not end.
func guard(text, nonce, target string, p, g int) string {
	return fmt.Sprintf("_loom(){\np=%d g=%d n=%s\neval %s 2>/dev/null\necho left $f\n}\necho %s $$ $$;_loom;exit\n",
		p, g, target, Quote(ladder+text), mark(nonce))
}

// check finds what can not be said in a script.
func (c *Command) check() error {
	for _, part := range [...]struct{ what, s string }{{"text", c.Text}, {"shell", c.Shell}, {"directory", c.Dir}, {"user", c.User}} {
		if strings.IndexByte(part.s, 0) >= 0 {
			return fmt.Errorf("the command's %s contains a NUL byte, which no shell can take", part.what)
		}
	}
	for name, value := range c.Env {
		if !validName(name) {
			return fmt.Errorf("%q can not be the name of an environment variable: letters, digits and _ only, not beginning with a digit", name)
		}
		if strings.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("the environment variable %s contains a NUL byte, which no shell can take", name)
		}
	}
	if c.User != "" && !validUser(c.User) {
		return fmt.Errorf("%q can not be a user's name: letters, digits and ._- only, and neither - nor . at the beginning", c.User)
	}
	if strings.ContainsAny(c.Password, "\n\x00") {
		return errors.New("the sudo password contains a newline or NUL byte, which can not be typed at a prompt")
	}
	return nil
}

func validName(s string) bool {
	for i, r := range []byte(s) {
		letter := r == '_' || 'a' <= r|0x20 && r|0x20 <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func validUser(s string) bool {
	for i, r := range []byte(s) {
		word := r == '_' || 'a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9'
		if !word && (i == 0 || r != '.' && r != '-') {
			return false
		}
	}
	return s != ""
}

// directory keeps cd from taking a name for an option, or for the last one.
func directory(dir string) string {
	if strings.HasPrefix(dir, "-") {
		return "./" + dir
	}
	return dir
}
