package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// Service controls a service of the node, through systemd, OpenRC or an init
// script, whichever the node has. It needs the rights to, so most often the
// job's sudo.
//
// Start, stop, enable and disable are ok and do nothing if the service is so
// already; restart and reload always change it. After a start the service must
// still run when Settle is over, since many a daemon starts well and then dies.
// Status prints how the service is, and fails unless it runs.
type Service struct {
	Name    string        `loom:"required" help:"the service, such as nginx, or a unit of systemd"`
	Action  string        `help:"start, stop, restart, reload, try-restart, status, enable or disable"`
	Enabled *bool         `help:"whether it starts at boot; beside an action, or alone"`
	Settle  time.Duration `help:"how long it must go on running after a start (1s)"`
}

// Validate checks what the types can't.
func (t Service) Validate() error {
	var errs []error
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._:\\-"
	if t.Name == "" || strings.HasPrefix(t.Name, "-") || strings.HasPrefix(t.Name, ".") || strings.Trim(t.Name, plain) != "" {
		errs = append(errs, fmt.Errorf("name: %q can't be the name of a service", t.Name))
	}
	known := []string{"start", "stop", "restart", "reload", "try-restart", "status", "enable", "disable"}
	switch action := t.action(); {
	case action == "" && t.Enabled == nil:
		errs = append(errs, fmt.Errorf("give an action (%s) or enabled", strings.Join(known, ", ")))
	case action != "" && !slices.Contains(known, action):
		errs = append(errs, fmt.Errorf("action: write one of %s, not %q; for what only this init script knows use the task run", strings.Join(known, ", "), t.Action))
	case t.Enabled != nil && (action == "enable" || action == "disable"):
		errs = append(errs, fmt.Errorf("enabled and action %s say the same twice; give one", action))
	}
	return errors.Join(append(errs, notNegative("settle", t.Settle))...)
}

// action is the action under the name that all systems share.
func (t Service) action() string {
	switch t.Action {
	case "force-reload":
		return "reload"
	case "condrestart":
		return "try-restart"
	}
	return t.Action
}

// serviceProgram gets the name of a service and what to do: state prints how it
// is as lines of key=value; anything else does it.
//
// How an init script answers to status is by the book of the LSB: 0 it runs, 1
// to 3 it does not; others mean that it has no status.
const serviceProgram = `
name=$1 do=$2
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
	case $do in
	state)
		echo "system=systemd"
		exec systemctl show -p LoadState -p ActiveState -p SubState -p UnitFileState -p NeedDaemonReload -p CanReload -- "$name"
		;;
	start | stop | restart | try-restart | reload)
		[ "$3" = yes ] && { systemctl daemon-reload || exit; }
		[ "$do" = reload ] && do=reload-or-restart
		systemctl "$do" -- "$name" && exit
		r=$?
		systemctl status --no-pager --full -n 10 -- "$name" >&2
		exit $r
		;;
	*) exec systemctl "$do" -- "$name" ;;
	esac
fi

# openrc and init scripts
if command -v rc-service >/dev/null && [ -d /etc/runlevels ]; then
	system=openrc
	[ -x "/etc/init.d/$name" ] && has=loaded || has=not-found
	enabled=disabled
	for l in /etc/runlevels/*/"$name"; do
		[ -e "$l" ] && enabled=enabled
	done
	ask() { rc-service "$name" "$@"; }
else
	system=init
	script=
	for d in /etc/init.d /etc/rc.d /usr/local/etc/rc.d; do
		[ -z "$script" ] && [ -x "$d/$name" ] && [ -f "$d/$name" ] && script=$d/$name
	done
	[ -n "$script" ] && has=loaded || has=not-found
	enabled=disabled
	for l in /etc/rc[2345].d/S[0-9][0-9]"$name" /etc/rc.d/rc[2345].d/S[0-9][0-9]"$name"; do
		[ -e "$l" ] && enabled=enabled
	done
	ask() { "$script" "$@"; }
fi
case $do in
state)
	active=unknown
	if [ $has = loaded ]; then
		ask status >/dev/null 2>&1 </dev/null
		case $? in
		0) active=active ;;
		1 | 2 | 3 | 4 | 16 | 32) active=inactive ;;
		esac
		# Without a status command a script prints how to use it and fails.
		if [ $active = inactive ] && [ $system = init ] && ! grep -q status "$script"; then active=unknown; fi
	fi
	echo "system=$system"
	echo "LoadState=$has"
	echo "ActiveState=$active"
	echo "UnitFileState=$enabled"
	;;
enable | disable)
	if [ $system = openrc ]; then
		if [ $do = enable ]; then exec rc-update add "$name" default; fi
		exec rc-update -a del "$name"
	fi
	if command -v update-rc.d >/dev/null; then
		if [ $do = enable ]; then update-rc.d "$name" defaults || exit; fi
		exec update-rc.d "$name" "$do"
	elif command -v chkconfig >/dev/null; then
		[ $do = enable ] && exec chkconfig "$name" on
		exec chkconfig "$name" off
	fi
	echo "the node has neither update-rc.d nor chkconfig" >&2
	exit 1
	;;
try-restart) ask restart </dev/null ;;
*) ask "$do" </dev/null ;;
esac
`

// A serviceState is how a service of a node is.
type serviceState struct {
	system       string // systemd, openrc, init
	load         string // loaded, not-found, masked...
	active       string // active, inactive, failed, activating, ... or unknown
	sub          string // more of that
	enabled      string // enabled, disabled, static, masked, ...
	daemonReload bool   // its files changed since systemd read them
}

func (st serviceState) runs() bool { return st.active == "active" || st.active == "reloading" }

func (st serviceState) String() string {
	text := st.active
	if st.sub != "" {
		text += " (" + st.sub + ")"
	}
	if st.enabled != "" {
		text += ", " + st.enabled
	}
	return text
}

func parseServiceState(out []byte) serviceState {
	var st serviceState
	for line := range bytes.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		switch key {
		case "system":
			st.system = value
		case "LoadState":
			st.load = value
		case "ActiveState":
			st.active = value
		case "SubState":
			st.sub = value
		case "UnitFileState":
			st.enabled = value
		case "NeedDaemonReload":
			st.daemonReload = value == "yes"
		}
	}
	return st
}

func (t Service) program() program {
	return program{"service " + t.Name, serviceProgram}
}

// state asks how the service is.
func (t Service) state(ctx context.Context, s *loom.Session) (serviceState, error) {
	out, err := t.program().ask(ctx, s, t.Name, "state")
	if err != nil {
		return serviceState{}, err
	}
	st := parseServiceState(out)
	switch st.load {
	case "loaded":
		return st, nil
	case "masked":
		return st, fmt.Errorf("service %s is masked on %s, so that nothing can start it; unmask it first", t.Name, s.Node.Name)
	case "not-found", "":
		return st, fmt.Errorf("%s has no service %s (looked for by %s)", s.Node.Name, t.Name, st.system)
	}
	return st, fmt.Errorf("service %s can't be used on %s: systemd calls its unit %s", t.Name, s.Node.Name, st.load)
}

// Apply brings the service into the state wanted.
func (t Service) Apply(ctx context.Context, s *loom.Session) error {
	st, err := t.state(ctx, s)
	if err != nil {
		return err
	}
	if t.action() == "status" {
		if _, err := fmt.Fprintf(s.Out, "%s: %s\n", t.Name, st); err != nil {
			return err
		}
		if !st.runs() {
			return fmt.Errorf("service %s does not run: %s", t.Name, st)
		}
	}
	steps, err := t.steps(ctx, s, st)
	if err != nil {
		return err
	}
	return perform(ctx, s, steps)
}

// Plan tells what Apply would do.
func (t Service) Plan(ctx context.Context, s *loom.Session) ([]loom.Change, error) {
	st, err := t.state(ctx, s)
	if err != nil {
		return nil, err
	}
	steps, err := t.steps(ctx, s, st)
	return changes(steps), err
}

func (t Service) steps(ctx context.Context, s *loom.Session, st serviceState) ([]step, error) {
	var steps []step
	boot, err := t.boot(s, st)
	if err != nil {
		return nil, err
	}
	steps = append(steps, boot...)
	does := func(change string, starts bool) step {
		return step{change + " " + t.Name, func(ctx context.Context) error { return t.do(ctx, s, st, starts) }}
	}
	switch t.action() {
	case "start":
		if !st.runs() {
			steps = append(steps, does("started", true))
		}
	case "stop":
		if st.active != "inactive" && st.active != "failed" {
			steps = append(steps, does("stopped", false))
		}
	case "restart":
		steps = append(steps, does("restarted", true))
	case "try-restart":
		if st.active != "inactive" && st.active != "failed" {
			steps = append(steps, does("restarted", true))
		}
	case "reload":
		if st.active == "inactive" || st.active == "failed" {
			return nil, fmt.Errorf("service %s can't be reloaded since it does not run: %s", t.Name, st)
		}
		steps = append(steps, does("reloaded", true))
	}
	return steps, nil
}

// boot returns the step that makes the service start at boot, or not.
func (t Service) boot(s *loom.Session, st serviceState) ([]step, error) {
	var do string
	switch action := t.action(); {
	case t.Enabled != nil && *t.Enabled, action == "enable":
		do = "enable"
	case t.Enabled != nil, action == "disable":
		do = "disable"
	default:
		return nil, nil
	}
	on := strings.HasPrefix(st.enabled, "enabled") || st.enabled == "alias"
	switch {
	case do == "enable" && on, do == "disable" && (!on && st.enabled != "linked"):
		return nil, nil
	case do == "enable" && slices.Contains([]string{"static", "indirect", "generated", "transient"}, st.enabled):
		return nil, fmt.Errorf("service %s can't be enabled: its unit is %s, it has no [Install] section or is made by something else", t.Name, st.enabled)
	}
	return []step{{do + "d " + t.Name, func(ctx context.Context) error {
		return t.program().run(ctx, s, t.Name, do)
	}}}, nil
}

// do acts, and sees whether what must run then goes on running.
func (t Service) do(ctx context.Context, s *loom.Session, st serviceState, runs bool) error {
	reload := "no"
	if st.daemonReload {
		reload = "yes"
	}
	if err := t.program().run(ctx, s, t.Name, t.action(), reload); err != nil {
		return err
	}
	if !runs || st.active == "unknown" {
		return nil
	}
	settle := t.Settle
	if settle == 0 {
		settle = time.Second
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	after, err := t.state(ctx, s)
	if err != nil {
		return err
	}
	// A unit that does its work and ends is inactive afterwards, and well.
	if after.active == "failed" || after.system != "systemd" && !after.runs() {
		return fmt.Errorf("service %s did not stay up: %v after its %s it is %s", t.Name, settle, t.action(), after)
	}
	return nil
}
