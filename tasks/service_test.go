package tasks_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom/tasks"
)

// anInitScript is a service whose state is a file. It counts what it is told.
const anInitScript = `#!/bin/sh
# a service for tests
state=%STATE%
echo "$1" >>$state.log
case $1 in
start) [ -e $state.broken ] || : >$state; echo Starting; exit 0 ;;
stop) rm -f $state; echo Stopping ;;
restart) : >$state ;;
reload) [ -e $state ] ;;
status) if [ -e $state ]; then echo running; else echo stopped; exit 3; fi ;;
*) echo "usage: $0 {start|stop|restart|reload|status}" >&2; exit 2 ;;
esac
`

// aSystemctl is a systemctl whose units are files of a directory: NAME says
// whether it is active, NAME.enabled what its unit file's state is.
const aSystemctl = `#!/bin/sh
dir=%STATE%
echo "$*" >>$dir/log
for name; do :; done
do=$1
case $do in
show)
	if [ -e $dir/$name ]; then load=loaded; else load=not-found; fi
	[ -e $dir/$name.masked ] && load=masked
	echo "LoadState=$load"
	echo "ActiveState=$(cat $dir/$name 2>/dev/null || echo inactive)"
	echo "SubState=sub"
	echo "UnitFileState=$(cat $dir/$name.enabled 2>/dev/null)"
	echo "NeedDaemonReload=$(cat $dir/$name.reload 2>/dev/null || echo no)"
	;;
start | restart | try-restart | reload-or-restart)
	if [ -e $dir/$name.broken ]; then echo failed >$dir/$name; else echo active >$dir/$name; fi
	[ ! -e $dir/$name.refuses ] || { echo "Job for $name failed." >&2; exit 1; }
	;;
stop) echo inactive >$dir/$name ;;
enable) echo enabled >$dir/$name.enabled ;;
disable) echo disabled >$dir/$name.enabled ;;
daemon-reload) rm -f $dir/*.reload ;;
status) echo "these are its last words"; exit 3 ;;
*) echo "unknown $do" >&2; exit 1 ;;
esac
`

// serviceNode returns a node with a private /etc and /run, which begin empty but
// for what setup makes of them. Its state is in the directory returned.
func serviceNode(t *testing.T, setup string) (b *bench, state string) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	state = filepath.Join(dir, "state")
	for _, d := range []string{"etc", "run", "state", "bin"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	enter := write(t, dir, "enter", "mount --bind "+dir+"/etc /etc && mount --bind "+dir+"/run /run || exit\n"+
		"cd "+dir+"\n"+setup+"\ncd\nexec sh \"$@\"\n")
	node := shellNode{
		shell: []string{"unshare", "--mount", "--propagation", "private", "sh", enter},
		path:  dir + "/bin:" + os.Getenv("PATH"), home: dir,
	}
	return newBench(t, node), state
}

// needRoot skips a test that can't be done by another user.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root, to mount in a namespace of its own: run it with sudo")
	}
	t.Skip("NOT TESTED: this test needs root, to mount in a namespace of its own")
}

func program(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.Chmod(write(t, dir, name, text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestServiceInit(t *testing.T) {
	b, state := serviceNode(t, "")
	etc := filepath.Join(filepath.Dir(state), "etc")
	up := filepath.Join(state, "web")
	program(t, etc, "init.d/web", strings.ReplaceAll(anInitScript, "%STATE%", up))
	const settle = time.Millisecond

	b.settled(t, tasks.Service{Name: "web", Action: "start", Settle: settle}, "started web")
	if _, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "status"}); err != nil {
		t.Errorf("status of what runs: %v", err)
	}
	if out := b.out.String(); !strings.Contains(out, "web: active") {
		t.Errorf("printed %q", out)
	}
	for action, want := range map[string]string{"restart": "restarted web", "reload": "reloaded web", "force-reload": "reloaded web", "condrestart": "restarted web"} {
		changed, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: action, Settle: settle})
		if err != nil || len(changed) != 1 || changed[0] != want {
			t.Errorf("%s changed %q (%v), want %q", action, changed, err, want)
		}
	}
	b.settled(t, tasks.Service{Name: "web", Action: "stop"}, "stopped web")
	b.settled(t, tasks.Service{Name: "web", Action: "try-restart"})
	if _, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "status"}); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("status of what does not run: %v", err)
	}
	if _, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "reload"}); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("reload of what does not run: %v", err)
	}
	// A daemon that dies after a start that went well.
	write(t, state, "web.broken", "")
	if changed, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "start", Settle: settle}); err == nil || !strings.Contains(err.Error(), "did not stay up") || len(changed) > 0 {
		t.Errorf("start of what dies: changed %q, %v", changed, err)
	}
	if _, err := b.apply(t.Context(), tasks.Service{Name: "mail", Action: "start"}); err == nil || !strings.Contains(err.Error(), "db1 has no service mail") {
		t.Errorf("start of what there isn't: %v", err)
	}
}

// An init script may have no status, and then nobody can tell whether it runs.
func TestServiceInitWithoutStatus(t *testing.T) {
	b, state := serviceNode(t, "")
	text := strings.ReplaceAll(strings.ReplaceAll(anInitScript, "%STATE%", state+"/web"), "status", "xxxxxx")
	program(t, filepath.Join(filepath.Dir(state), "etc"), "init.d/web", text)
	for range 2 {
		changed, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "start"})
		if err != nil || len(changed) != 1 {
			t.Errorf("changed %q, %v", changed, err)
		}
	}
}

func TestServiceInitAtBoot(t *testing.T) {
	b, state := serviceNode(t, "")
	dir := filepath.Dir(state)
	program(t, dir, "etc/init.d/web", strings.ReplaceAll(anInitScript, "%STATE%", state+"/web"))
	program(t, dir, "bin/update-rc.d", `#!/bin/sh
mkdir -p /etc/rc3.d
case $2 in
defaults | enable) ln -sf ../init.d/$1 /etc/rc3.d/S01$1 ;;
disable) rm /etc/rc3.d/S01$1 ;;
esac
`)
	yes, no := true, false
	b.settled(t, tasks.Service{Name: "web", Action: "enable"}, "enabled web")
	b.settled(t, tasks.Service{Name: "web", Enabled: &yes})
	b.settled(t, tasks.Service{Name: "web", Enabled: &no, Action: "start", Settle: time.Millisecond}, "disabled web", "started web")
}

func TestServiceOpenRC(t *testing.T) {
	b, state := serviceNode(t, "mkdir -p /etc/runlevels/default")
	dir := filepath.Dir(state)
	program(t, dir, "etc/init.d/web", strings.ReplaceAll(anInitScript, "%STATE%", state+"/web"))
	program(t, dir, "bin/rc-service", "#!/bin/sh\nexec /etc/init.d/$1 $2\n")
	program(t, dir, "bin/rc-update", `#!/bin/sh
[ $1 = add ] && exec ln -s ../../init.d/$2 /etc/runlevels/$3/$2
[ $1 = -a ] && exec rm /etc/runlevels/default/$3
exit 1
`)
	b.settled(t, tasks.Service{Name: "web", Action: "start", Settle: time.Millisecond}, "started web")
	b.settled(t, tasks.Service{Name: "web", Action: "enable"}, "enabled web")
	b.settled(t, tasks.Service{Name: "web", Action: "disable"}, "disabled web")
	b.settled(t, tasks.Service{Name: "web", Action: "stop"}, "stopped web")
}

func TestServiceSystemd(t *testing.T) {
	b, state := serviceNode(t, "mkdir -p /run/systemd/system")
	program(t, filepath.Dir(state), "bin/systemctl", strings.ReplaceAll(aSystemctl, "%STATE%", state))
	set := func(name, text string) { write(t, state, name, text) }
	set("web", "inactive\n")
	set("web.enabled", "disabled\n")
	set("web.reload", "yes\n")
	yes := true
	const settle = time.Millisecond

	b.settled(t, tasks.Service{Name: "web", Action: "start", Enabled: &yes, Settle: settle}, "enabled web", "started web")
	if log := read(t, filepath.Join(state, "log")); strings.Count(log, "daemon-reload") != 1 || strings.Contains(log, "\nreload") {
		t.Errorf("systemctl was told %q, want one daemon-reload", log)
	}
	if changed, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "reload"}); err != nil || len(changed) != 1 {
		t.Errorf("reload changed %q, %v", changed, err)
	}
	b.settled(t, tasks.Service{Name: "web", Action: "stop"}, "stopped web")
	b.settled(t, tasks.Service{Name: "web", Action: "disable"}, "disabled web")

	set("web.broken", "")
	if changed, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "start", Settle: settle}); err == nil || !strings.Contains(err.Error(), "did not stay up") || len(changed) > 0 {
		t.Errorf("start of what dies: changed %q, %v", changed, err)
	}
	set("web.refuses", "")
	_ = b.err.String() // what came before
	if _, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "restart"}); err == nil || !strings.Contains(err.Error(), "service web") {
		t.Errorf("restart that fails: %v", err)
	}
	if log := b.err.String(); !strings.Contains(log, "its last words") {
		t.Errorf("printed %q, want what systemd knows of it", log)
	}
	set("web.enabled", "static\n")
	if _, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "enable"}); err == nil || !strings.Contains(err.Error(), "static") {
		t.Errorf("enable of a static unit: %v", err)
	}
	set("web.masked", "")
	if _, err := b.apply(t.Context(), tasks.Service{Name: "web", Action: "start"}); err == nil || !strings.Contains(err.Error(), "masked") {
		t.Errorf("start of a masked unit: %v", err)
	}
	if _, err := b.apply(t.Context(), tasks.Service{Name: "mail", Action: "start"}); err == nil || !strings.Contains(err.Error(), "db1 has no service mail") {
		t.Errorf("start of what there isn't: %v", err)
	}
}

func TestServiceRefuses(t *testing.T) {
	yes := true
	for want, task := range map[string]tasks.Service{
		`"../x" can't be`:      {Name: "../x", Action: "start"},
		`"-x" can't be`:        {Name: "-x", Action: "start"},
		`"" can't be`:          {Action: "start"},
		`"a;b" can't be`:       {Name: "a;b", Action: "start"},
		"give an action":       {Name: "web"},
		`not "boot"`:           {Name: "web", Action: "boot"},
		"say the same twice":   {Name: "web", Action: "enable", Enabled: &yes},
		"settle: -1ns is nega": {Name: "web", Action: "start", Settle: -1},
	} {
		if err := task.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate of %+v is %v, want %q", task, err, want)
		}
	}
}
