package shell

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Claim is a command that outlives the connection it was started over. It is
// started at most once: by whoever first creates a file of the claim's name in
// a private directory on the node, its spool. All others attach to it: they get
// its output from where they stopped, and its exit status.
//
// An attach script, which is itself a command for Run, does either. It prints
// the output of the claim as it is, and says in frames what it is about: a frame
// is the nonce, words, and a newline, on standard output if it is not about
// standard error. A [Frames] takes them out again.
//
// The files of the claim NAME, in the spool:
//
//	NAME.c      the claim: boot id, process and start time of the supervisor, and
//	            the key of the command. Who creates it starts the command.
//	NAME.p      process and start time of the command
//	NAME.o.N    what it printed on standard output, from byte N on; NAME.e.N
//	NAME.r      its exit status, as the supervisor's shell has it
//	NAME.x      how it ended, when all its output is in the files
//	NAME.why    who ended it: "limit" or "cancel"
//
// The rest helps: NAME.m tells a signal from an exit status, NAME.vo and NAME.ve
// say that the first attach did not get everything, NAME.w names the watchdog,
// NAME.f and NAME.q who follows and how far, and NAME.cut says that some of the
// output was not kept. The file swept says when old claims were last looked for:
// many daemons may use a node, and one that crashes knows nothing of it.
type Claim struct {
	Name    string // letters, digits, - and _
	Command Command
	Limit   time.Duration // the node itself ends the command after this long; 0: never

	// Out and Err are how much of its output is known already.
	Out, Err int64

	Nonce  string   // of the frames
	Forget []string // claims whose files are to be deleted
	Sweep  bool     // delete what nobody has asked for in a week
}

// The words of frames.
const (
	FrameNew   = "new"   // the command was started now
	FrameOld   = "old"   // it was started before
	FrameOther = "other" // what was started is another command
	FrameNo    = "no"    // nothing was started; the rest says why
	FrameGap   = "gap"   // what comes next is from byte N on
	FrameCut   = "cut"   // the output is no longer there
	FrameExit  = "exit"  // status, signal or -, cause or -, and "part" if not all of the output was printed
	FrameBoot  = "boot"  // the node was restarted meanwhile; the rest says since when
	FrameLost  = "lost"  // the supervisor is gone
)

// claimHead is how every attach script begins, so that Run knows it. The variables
// in which the command and its input are must not be in the environment, as they
// are if they were there already.
const claimHead = "# loom claim\nunset t I\n"

// How much of an output is in one file, in bytes, and how much of its end is
// kept beside the first file.
const (
	claimPiece = "4194304"
	claimTail  = "16777216"
)

// Attaches reports whether a command is an attach script. Such a one is not
// ended with its connection: what it has started is to go on.
func Attaches(c *Command) bool { return strings.HasPrefix(c.Text, claimHead) }

// Mark is what the processes of a claim carry in their environment.
func (c *Claim) Mark() string {
	sum := sha256.Sum256([]byte(c.Name))
	return "c" + hex.EncodeToString(sum[:12])
}

// Key names what the command is, so that another one is not taken for it.
func (c *Claim) Key() string {
	sum := sha256.Sum256([]byte(c.payload() + "\x00" + c.input()))
	return hex.EncodeToString(sum[:8])
}

// Check finds what can not be claimed.
func (c *Claim) Check() error {
	if c.Name == "" || len(c.Name) > 128 || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return fmt.Errorf("%q can not be the name of a claim: at most 128 letters, digits, - and _", c.Name)
	}
	return c.Command.check()
}

// payloadHead says which process it is, for who ends it.
const payloadHead = `_loom(){
read -r x 2>/dev/null </proc/$$/stat&&{ set -- ${x##*) };shift 19;}
echo "$$ ${1:-0}" >&9
exec <&8 8<&- 9>&-
set --
unset x
`

// payload is what the shell that becomes the command reads.
func (c *Claim) payload() string {
	var b bytes.Buffer
	b.WriteString(payloadHead)
	if len(c.Command.Env) > 0 {
		b.WriteString("export")
		for _, name := range slices.Sorted(maps.Keys(c.Command.Env)) {
			b.WriteString(" " + name + "=" + Quote(c.Command.Env[name]))
		}
		b.WriteString("\n")
	}
	c.Command.writeText(&b)
	return strings.TrimSuffix(b.String(), "\n") // the script puts it back
}

// input is the command's standard input as printf(1) takes it.
func (c *Claim) input() string {
	if c.Command.Stdin == nil {
		return ""
	}
	s, _ := c.Command.Stdin.(*Input)
	return string(*s)
}

// An Input is standard input of a claim, which goes to the node with the script,
// so that there is never a part of it.
type Input string

// NewInput returns an input of these bytes.
func NewInput(data []byte) *Input {
	in := Input(strings.NewReplacer(`\`, `\\`, "\x00", `\0000`).Replace(string(data)))
	return &in
}

// Read is not for use: it makes an Input something to read.
func (*Input) Read([]byte) (int, error) { return 0, io.EOF }

// Script returns the attach script.
func (c *Claim) Script() string {
	var b strings.Builder
	payload, input := c.payload(), c.input()
	b.Grow(len(claimBody) + len(payload) + len(input) + 1024)
	b.WriteString(claimHead)
	word := func(name, value string) { b.WriteString(name + "=" + Quote(value) + "\n") }
	word("n", c.Nonce)
	word("c", c.Name)
	word("k", c.Mark())
	word("h", c.Key())
	word("l", strconv.FormatInt(int64((c.Limit+time.Second-1)/time.Second), 10))
	word("o", strconv.FormatInt(c.Out, 10))
	word("e", strconv.FormatInt(c.Err, 10))
	merged, fed, sweep := "", "", ""
	if c.Command.Merged {
		merged = "1"
	}
	if c.Command.Stdin != nil {
		fed = "1"
	}
	if c.Sweep {
		sweep = "1"
	}
	word("y", merged)
	word("a", strings.Join(c.Forget, " "))
	word("u", sweep)
	word("t", payload)
	word("fed", fed)
	word("I", input)
	b.WriteString(claimBody)
	return b.String()
}

// place finds the spool: D is the directory, C the claim's files without their
// endings. If a directory can not be trusted, no says so and does not return.
const place = `V(){ [ -d "$1" ]||(umask 077;mkdir -p "$1") 2>/dev/null||return
[ ! -h "$1" ]||no "$1 on the node is a symbolic link, and Loom keeps its claims only in a directory of its own; remove it"
[ -O "$1" ]||no "$1 on the node belongs to another user, who could tamper with the claims that Loom keeps there; remove it, or set XDG_STATE_HOME"
[ -w "$1" ];}
P(){ D=${XDG_STATE_HOME:-${HOME:-/nonexistent}/.local/state}/loom
V "$D"||{ D=$(id -u);if V "/var/tmp/loom-$D";then D=/var/tmp/loom-$D;elif V "/tmp/loom-$D";then D=/tmp/loom-$D
else no "the node has no place to keep a claim: neither $HOME/.local/state nor /var/tmp nor /tmp can be written; set resumable: false to run without one";fi;}
C=$D/$c;}
`

// claimBody is the rest of an attach script.
//
// The shell that runs it becomes the supervisor (R) or a follower (A). The
// supervisor has each stream of the command go through a keeper (K), which stores
// a piece of at most 64 KiB and then prints it, and so on: nothing polls, a slow
// connection slows the command down, and one that has ended is no longer printed
// to. Beside the keepers waits the watchdog (W), for the limit, and for children
// that hold the output open after the end. It begins with a line from the other
// side (descriptor 9), or without it when the connection breaks, so that what is
// over soon does not pay for it. A follower looks for new output several times a
// second.
const claimBody = `unset LOOM_EXEC
exec 4>&2 2>/dev/null
trap : HUP INT TERM PIPE
say(){ echo "$n $*";}
no(){ say no "$*";exit;}
` + place + ladderFunctions + alive + `X(){ trap : HUP INT TERM
exec 5>&2 2>"$C.m"
(export LOOM_EXEC=$k;exec $d /bin/sh 2>&5 4>&- 5>&- 8<"$J" 9>"$C.p" <<END
$t
END
)
echo "$? end" >"$C.r";}
K(){ trap "" HUP INT TERM PIPE
[ $1 = e ]||{ (W) <&9 9<&- >/dev/null 4>&-&
echo $! >"$C.w";[ -z "$a$u" ]||(H) </dev/null >/dev/null 4>&- 9<&-&
}
exec 9<&-
B=0 i=0 v=1 G=;E=$C.$1.0
export LC_ALL=C
exec 6>>"$E" 7<"$E"
while r=$(dd bs=65536 count=1 2>&1 >&6 4>&- 7<&-);[ -n "$r" ];do
case $r in 0+0*)break;;
[0-9]*);;*): >"$C.cut";esac
[ -z "$v" ]||cat <&7||{ v=;: >"$C.v$1";}
i=$((i+1))
[ $i -lt 64 ]||{ i=0;q=$(wc -c <"$E");[ $((q+0)) -lt ` + claimPiece + ` ]||O $1;}
done;}
B(){ cat /proc/[0-9]*/stat|awk -v p=$p '{i=$1;sub(/.*\) /,"");c[i]=$2;g[i]=$3}END{for(i in c)if(g[i]==g[p])for(j=c[i];j in c;j=c[j]){if(j==p){print i;break}if(j<2)break}}'|while read -r w;do x=;read -r x <"/proc/$w/cmdline";case ${x##*/} in $1*|busybox$1*)echo $w;esac;done;}
O(){ B=$((B+q));E=$C.$1.$B
exec 6>>"$E" 7<"$E"
[ $B = $((q+0)) ]||G="$G $((B-q))"
while G=${G# };q=${G%% *};[ -n "$q" ]&&[ $((B-q)) -gt ` + claimTail + ` ];do
j=0 z=;while [ $j -lt 300 ]&&read -r w x <"$C.f"&&I $w $x&&{ x=0;read -r x <"$C.q$1";[ $x -le $q ];};do
[ "$x" = "$z" ]||j=0;z=$x j=$((j+1));sleep .2||{ sleep 1;j=$((j+5));};done
rm -f "$C.$1.$q";G=${G#$q};done;}
W(){ trap 'kill $s;exit' TERM
x=0 z= s=;read -r q&&x=1
while :;do
q=1;[ $x -lt 10 ]||q=5;[ $l = 0 ]||[ $((x+q)) -le $l ]||q=$((l-x))
sleep $q&
s=$!;wait $s;x=$((x+q))
[ ! -e "$C.x" ]||exit
[ $l != 0 ]||(read -r q p e x <"$C.c"&&I $p $e)||exit
if [ -e "$C.r" ];then
b=$(ls -ln "$C".[oe].*)
if [ "$b" = "$z" ];then read -r q p e <"$C.c";kill -s KILL $(B dd);fi
z=$b
elif [ $l != 0 ]&&[ $x -ge $l ];then
echo limit >"$C.why";p=;read -r p q <"$C.p"
n=$k g=${p:-0} m=1;[ -n "$p" ]||m=0
(L);l=0
fi;done;}
R(){ d=;! command -v setsid >/dev/null||d=setsid
J=/dev/null;[ -z "$fed" ]||J=$C.i$$
if [ -n "$y" ];then { X 2>&1;}|K o
else { { X 3>&-;} 2>&1 >&3 3>&-|K e >&4 3>&-;} 3>&1|K o;fi
x=;read -r x s <"$C.r"
[ "$s" = end ]||{ say lost;exit;}
s=-;[ $x -le 128 ]||[ ! -s "$C.m" ]||s=$(kill -l $((x-128)))
z=-;[ ! -e "$C.why" ]||read -r z <"$C.why"
echo "$x $s $z end" >"$C.x"
read -r w <"$C.w";kill -s TERM $w
[ -z "$fed" ]||: >"$J"
[ ! -e "$C.cut" ]||say cut
q=;[ ! -e "$C.vo" ]&&[ ! -e "$C.ve" ]||q=part
say exit $x $s $z $q;}
H(){ [ -z "$u" ]||[ -z "$(find "$D/swept" -mmin -360 ! -newer "$C.c")" ]||u=
[ -z "$u" ]||: >"$D/swept"
for x in $a;do rm -f "$D/$x".*;done
[ -n "$u" ]||exit
chmod 700 "$D"
N(){ read -r w p t x <"$1.c"&&[ ! -e "$1.x" ]&&[ "$w" = "$b" ]&&I $p $t;}
find "$D" -type f -mtime +7|sed 's/.*\///;s/\..*//'|sort -u|while read -r q;do q=$D/$q;N "$q"||rm -f "$q".*;done
ls -lnt "$D"|awk '$9~/\.c$/&&++i>5000{print $9,"all"}{s+=$5}s>536870912&&$9~/\.[oe]\.[0-9]+$/{print $9}'|while read -r q x;do
w=$D/${q%%.*};[ -e "$w.x" ]||continue
if [ -n "$x" ];then rm -f "$w".*;else : >"$w.cut";rm -f "$D/$q";fi;done;}
Z(){ x=;z=
for w in "$C.$1".*;do w=${w##*.};[ "$w" != "*" ]||continue
if [ $w -le $2 ];then [ -n "$x" ]&&[ $w -lt $x ]||x=$w
elif [ -z "$z" ]||[ $w -lt $z ];then z=$w;fi;done;}
M(){ while eval G=\$G$1 o=\$O$1;do
if [ -n "$G" ];then Z $1 $G
else Z $1 $o
if [ -n "$x" ];then G=$x
eval "G$1=$x;exec $2<\"\$C.$1.$x\""
[ $o = $x ]||dd bs=$((o-x)) count=1 of=/dev/null <&$2
echo $G >"$C.q$1";fi;fi
[ -z "$G" ]||eval "cat <&$2"||exit
[ -n "$z" ]||return
say gap $z
eval G$1= O$1=$z;done;}
Q(){ M o 7;[ -n "$y" ]||M e 8 >&4;}
Y(){ read -r x s z q <"$C.x"&&[ "$q" = end ];}
A(){ f=;read -r f p t q <"$C.c";[ -n "$q" ]||{ sleep 1;read -r f p t q <"$C.c";}
[ "$q" = "$h" ]||[ "$q" = - ]||[ -z "$q" ]||{ say other;exit;}
say old
if ! Y&&[ -n "$q" ]&&[ "$f" != "$b" ];then Q;say boot;exit;fi
S $$;echo "$$ $T" >"$C.f"
r=$PPID;while read -r x </proc/$r/stat;do case $x in *"(sudo) "*|*"(sh) "*)x=${x##*) };x=${x#* };x=${x%% *};[ $x -gt 1 ]||break;r=$x;;*)break;esac;done
i=0 j=
while ! Y;do
I $p $t||{ Y||{ Q;say lost;exit;};break;}
[ ! -d /proc/self ]||[ -d /proc/$r ]||exit
Q
i=$((i+1))
if [ $((i%10)) = 0 ];then
x=$(B cat)
for w in $x;do case " $j " in *" $w "*)kill -s KILL $w;esac;done
j=$x
fi
if [ $i -lt 6 ];then sleep .05;else sleep .2;fi||sleep 1
done
[ ! -e "$C.cut" ]||say cut
Q;Y
say exit $x $s $z;}
Oo=$o Oe=$e Go= Ge=
P
b=;read -r b </proc/sys/kernel/random/boot_id;S $$;b=${b:-none}
[ -z "$fed" ]||[ -e "$C.c" ]||printf %b "$I" >"$C.i$$"||no "the node can not store the standard input in $D: is the disk full?"
set -C
if echo "$b $$ ${T:-0} $h" >"$C.c";then set +C;say new;R
else set +C;[ -e "$C.c" ]||no "the node can not write in $D: is the disk full?";A;fi
`

// alive tells whether process $1, which was started at $2, is still there.
const alive = `I(){ if [ -d /proc/self ];then S ${1:-none}&&[ "$T" = "$2" ];else kill -0 ${1:-none};fi;}
`

// endBody ends the command of a claim, and says what is left of it. If it was
// not started, it never will be.
const endBody = `no(){ echo "no $*";exit;}
` + place + ladderFunctions + `P
b=none;read -r b </proc/sys/kernel/random/boot_id
set -C
if echo "$b 0 0 -" >"$C.c";then echo "143 TERM cancel end" >"$C.x";echo left;exit;fi
set +C
i=0
while [ ! -s "$C.x" ]&&[ ! -s "$C.p" ]&&[ $i -lt 40 ];do sleep .1||sleep 1;i=$((i+1));done
[ ! -s "$C.x" ]||{ echo left;exit;}
echo cancel >"$C.why"
p=;read -r p x <"$C.p";n=$k g=$p m=1
if S ${p:-none};then [ "$T" = "$x" ]||m=0 g=0;else m=0;fi
L
i=0
while [ ! -s "$C.x" ]&&[ $i -lt 10 ];do sleep .1||i=10;i=$((i+1));done
echo left $f
`

// How the scripts about claims begin.
const (
	endHead    = "# loom end\nunset LOOM_EXEC\n"
	forgetHead = "# loom forget\nno(){ exit;}\n" + place + "P\nfor x in "
)

// End returns a script that ends the claim's command, for a plain Run.
func (c *Claim) End() string {
	return endHead + "c=" + Quote(c.Name) + " k=" + Quote(c.Mark()) + "\n{ " + endBody + "} 2>/dev/null\n"
}

// Forget returns a script that deletes what the node keeps of these claims, for
// a plain Run.
func Forget(names []string) string {
	return forgetHead + strings.Join(names, " ") + ";do rm -f \"$D/$x\".*;done\n"
}

// A Frames takes the frames out of what an attach script prints, and passes the
// rest on.
type Frames struct {
	Nonce string
	To    io.Writer // nil discards
	Frame func(words []string)

	N    int64 // bytes passed on
	Err  error // of To; then the rest is dropped
	held []byte
}

// frameLimit is how long a frame may be.
const frameLimit = 8 << 10

// Write takes what was printed.
func (f *Frames) Write(p []byte) (int, error) {
	b := p
	if len(f.held) > 0 {
		b = append(f.held, p...)
		f.held = nil
	}
	for len(b) > 0 {
		at := bytes.Index(b, []byte(f.Nonce))
		if at < 0 {
			at = len(b) - f.begun(b)
			f.pass(b[:at])
			f.held = bytes.Clone(b[at:])
			break
		}
		f.pass(b[:at])
		b = b[at:]
		end := bytes.IndexByte(b, '\n')
		if end < 0 && len(b) < frameLimit {
			f.held = bytes.Clone(b)
			break
		}
		if end < 0 {
			end = len(b) - 1
		}
		f.Frame(strings.Fields(string(b[len(f.Nonce):end])))
		b = b[end+1:]
	}
	return len(p), nil
}

// begun returns how many bytes at the end of b may be the beginning of a nonce.
func (f *Frames) begun(b []byte) int {
	for n := min(len(f.Nonce)-1, len(b)); n > 0; n-- {
		if strings.HasPrefix(f.Nonce, string(b[len(b)-n:])) {
			return n
		}
	}
	return 0
}

// End says that there is no more to come. If all was said, what looked like the
// beginning of a nonce was output; else it is printed again to who attaches next.
// Half a frame is never output.
func (f *Frames) End(all bool) {
	if all && !bytes.HasPrefix(f.held, []byte(f.Nonce)) {
		f.pass(f.held)
	}
	f.held = nil
}

func (f *Frames) pass(b []byte) {
	f.N += int64(len(b))
	if f.To == nil || f.Err != nil || len(b) == 0 {
		return
	}
	_, f.Err = f.To.Write(b)
}
