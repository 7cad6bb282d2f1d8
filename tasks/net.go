package tasks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustinlacewell/loom"
)

// HostIP prints the IP address that a host name has for the node: by getent,
// which asks as the node's programs do, or else /etc/hosts, then the name
// server. It fails if there is none.
type HostIP struct {
	Hostname string `loom:"required" help:"the name to look up"`
}

// Validate checks what the types can't.
func (t HostIP) Validate() error {
	if t.Hostname == "" || strings.HasPrefix(t.Hostname, "-") || strings.ContainsAny(t.Hostname, " \t\n\r/\x00") {
		return fmt.Errorf("hostname: %q is none", t.Hostname)
	}
	return nil
}

// lookUp gets a name.
const lookUp = `
if command -v getent >/dev/null; then
	getent hosts -- "$1" && exit
	getent ahosts -- "$1" && exit
fi
if [ -r /etc/hosts ]; then
	while read -r ip names; do
		case $ip in "#"*) continue ;; esac
		for n in ${names%%#*}; do
			[ "$n" = "$1" ] && echo "$ip" && exit
		done
	done </etc/hosts
fi
for tool in "host -t A" "dscacheutil -q host -a name"; do
	command -v ${tool%% *} >/dev/null || continue
	ip=$($tool "$1" 2>/dev/null | sed -n -e 's/.* has address //p' -e 's/^ip_address: //p' | head -n 1)
	[ -n "$ip" ] && echo "$ip" && exit
done
if command -v nslookup >/dev/null; then
	ip=$(nslookup "$1" 2>/dev/null | sed -n -e '1,/^Name:/d' -e 's/^Address[ 0-9]*: *//p' | head -n 1)
	[ -n "$ip" ] && echo "$ip" && exit
fi
exit 1
`

// Apply looks the name up.
func (t HostIP) Apply(ctx context.Context, s *loom.Session) error {
	out, err := program{"look up " + t.Hostname, lookUp}.ask(ctx, s, t.Hostname)
	if code, exited := exitCode(err); exited && code == 1 {
		return fmt.Errorf("%s has no address for %s", t.Hostname, s.Node.Name)
	}
	if err != nil {
		return err
	}
	fields := strings.Fields(string(out))
	if len(fields) == 0 || net.ParseIP(strings.Split(fields[0], "%")[0]) == nil {
		return fmt.Errorf("the node's answer about %s is no address: %q", t.Hostname, brief(string(out)))
	}
	_, err = fmt.Fprintln(s.Out, fields[0])
	return err
}

// Plan says that nothing changes.
func (HostIP) Plan(context.Context, *loom.Session) ([]loom.Change, error) { return nil, nil }

// Ping asks the node who it is, and prints how long the answer took, the user
// that commands run as, and the system.
type Ping struct{}

// introduce prints a user and a system.
const introduce = `
id -un
os=
[ -r /etc/os-release ] && os=$(. /etc/os-release && echo "$PRETTY_NAME")
if [ -n "$os" ]; then echo "$os ($(uname -srm))"; else uname -srm; fi
`

// Apply asks the node.
func (Ping) Apply(ctx context.Context, s *loom.Session) error {
	start := time.Now()
	out, err := program{"ping", introduce}.ask(ctx, s)
	took := time.Since(start)
	if err != nil {
		return err
	}
	user, system, ok := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if !ok {
		return fmt.Errorf("the node answers, but not as a POSIX shell would: %q", brief(string(out)))
	}
	_, err = fmt.Fprintf(s.Out, "%s answers in %v: %s on %s\n", s.Node.Name, took.Round(100*time.Microsecond), user, system)
	return err
}

// Plan says that nothing changes.
func (Ping) Plan(context.Context, *loom.Session) ([]loom.Change, error) { return nil, nil }

// Wait waits until something is up: a port takes connections, a file exists, a
// URL answers with a status of 200 to 399, a command exits with 0. Or until it
// is not, with state: down. Exactly one of Port, File, URL and Command says
// what. It looks at once and then every Interval, and fails after Timeout with
// what it last saw.
//
// It looks from the node, or with from: control from where Loom runs.
type Wait struct {
	Port     int           `help:"TCP port that takes connections"`
	Host     string        `help:"whose port it is; nothing: the node's"`
	File     string        `help:"file or directory that exists"`
	URL      string        `help:"http or https address that answers with a good status; needs curl or wget if the node looks"`
	Command  string        `help:"shell command that exits with 0"`
	State    string        `help:"up, or down to wait until it is gone (up)"`
	Timeout  time.Duration `help:"give up after this long (5m)"`
	Interval time.Duration `help:"time between looks (1s)"`
	From     string        `help:"node or control: who looks (node)"`
}

// Validate checks what the types can't.
func (t Wait) Validate() error {
	var errs []error
	given := 0
	for _, is := range []bool{t.Port != 0, t.File != "", t.URL != "", t.Command != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		errs = append(errs, fmt.Errorf("give exactly one of port, file, url and command to wait for, not %d", given))
	}
	if t.Host != "" && t.Port == 0 {
		errs = append(errs, errors.New("host needs a port"))
	}
	if strings.HasPrefix(t.Host, "-") || strings.ContainsAny(t.Host, " \t\n\r/\x00") {
		errs = append(errs, fmt.Errorf("host: %q is none", t.Host))
	}
	if t.Port < 0 || t.Port > 65535 {
		errs = append(errs, fmt.Errorf("port: write 1 to 65535, not %d", t.Port))
	}
	if u, err := url.Parse(t.URL); t.URL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("url: write http://... or https://..., not %q", t.URL))
	}
	if !slices.Contains([]string{"", "up", "down"}, t.State) {
		errs = append(errs, fmt.Errorf("state: write up or down, not %q", t.State))
	}
	if !slices.Contains([]string{"", "node", "control"}, t.From) {
		errs = append(errs, fmt.Errorf("from: write node or control, not %q", t.From))
	}
	errs = append(errs, notNegative("timeout", t.Timeout), notNegative("interval", t.Interval), oneLine("file", t.File))
	return errors.Join(errs...)
}

// Exposes names what shows a secret in it.
func (Wait) Exposes() map[string]string {
	return map[string]string{
		"command": exposedCommand()["unless"],
		"url":     "curl shows its arguments to every user of the node (ps): ask from: control, or wait for a command that reads it from the environment",
	}
}

// Plan says that nothing changes.
func (Wait) Plan(context.Context, *loom.Session) ([]loom.Change, error) { return nil, nil }

// Apply waits.
func (t Wait) Apply(ctx context.Context, s *loom.Session) error {
	timeout, interval := t.Timeout, t.Interval
	if timeout == 0 {
		timeout = 5 * time.Minute
	}
	if interval == 0 {
		interval = time.Second
	}
	look, done, err := t.looker(ctx, s)
	if err != nil {
		return err
	}
	defer done()

	limit, cancel := limited(ctx, timeout)
	defer cancel()
	last := errors.New("the first look did not end")
	for {
		down, err := t.once(limit, look)
		up := err == nil && down == nil
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case up && t.State != "down":
			return nil
		case up:
			last = errors.New("it is still up")
		case limit.Err() != nil: // the look was cut short, and says nothing
		case err != nil:
			return fmt.Errorf("wait for %s: %w", t.what(), err)
		case t.State == "down":
			return nil
		default:
			last = down
		}
		if err := pause(limit, interval); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s is not %s after %v: %w", t.what(), t.state(), timeout, last)
		}
	}
}

// A looker looks once. Down says why the thing is down, and is nil if it is up;
// err says why nobody can tell.
type looker func(ctx context.Context) (down, err error)

// maxLook is the longest that one look may take.
const maxLook = 30 * time.Second

// once looks once, and takes what does not answer for down.
func (t Wait) once(ctx context.Context, look looker) (down, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxLook, fmt.Errorf("no answer within %v", maxLook))
	defer cancel()
	down, err = look(ctx)
	if down == nil && err == nil {
		return nil, nil
	}
	// A dial can end at its deadline before the context does.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx), nil
	}
	return down, err
}

func (t Wait) state() string {
	if t.State == "" {
		return "up"
	}
	return t.State
}

// what names what is waited for.
func (t Wait) what() string {
	switch {
	case t.Port != 0 && t.Host != "":
		return "port " + net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	case t.Port != 0:
		return fmt.Sprintf("port %d", t.Port)
	case t.File != "":
		return "file " + t.File
	case t.URL != "":
		return t.URL
	}
	return "command " + loom.Quote(brief(t.Command))
}

// looker returns how to look, and what to call after the last look.
func (t Wait) looker(ctx context.Context, s *loom.Session) (look looker, done func(), err error) {
	done = func() {}
	if t.From == "control" {
		switch {
		case t.Port != 0:
			host := t.Host
			if host == "" {
				host = address(s.Node)
			}
			return func(ctx context.Context) (down, err error) { return dial(ctx, host, t.Port), nil }, done, nil
		case t.URL != "":
			return func(ctx context.Context) (down, err error) { return fetch(ctx, t.URL), nil }, done, nil
		case t.File != "":
			file, err := s.LocalPath(t.File)
			if err != nil {
				return nil, nil, err
			}
			return func(context.Context) (down, err error) { _, down = os.Stat(file); return down, nil }, done, nil
		}
		here, err := control(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		s, done = here, func() { _ = here.Conn.Close() }
	}
	return func(ctx context.Context) (down, err error) { return t.onNode(ctx, s) }, done, nil
}

func dial(ctx context.Context, host string, port int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

func fetch(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= 400 || resp.StatusCode < 200 {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

// cannotTell is the exit status of a look that the node has no means for.
const cannotTell = 97

// lookAtPort gets a host, "" for the node itself, a port, and the port in hex.
// The kernel's tables tell which ports of its own are listened to.
const lookAtPort = `
if [ -z "$1" ] && [ -r /proc/net/tcp ]; then
	for table in /proc/net/tcp /proc/net/tcp6; do
		[ -r "$table" ] || continue
		while read -r _ local _ state _; do
			case $local:$state in *:"$3":0A) exit 0 ;; esac
		done <"$table"
	done
	echo "nothing listens" >&2
	exit 1
fi
h=${1:-localhost}
if command -v nc >/dev/null; then
	exec nc -z -w 5 "$h" "$2" </dev/null
elif command -v bash >/dev/null; then
	exec bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$h" "$2"
elif command -v perl >/dev/null; then
	exec perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 5)' "$h" "$2"
elif command -v python3 >/dev/null; then
	exec python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)' "$h" "$2"
fi
echo "the node has none of nc, bash, perl and python3 to open a port with; write from: control" >&2
exit 97
`

const lookAtURL = `
if command -v curl >/dev/null; then
	exec curl -sSfL -o /dev/null --max-time 25 -- "$1"
elif command -v wget >/dev/null; then
	exec wget -q -T 25 -O /dev/null -- "$1"
fi
echo "the node has neither curl nor wget; write from: control" >&2
exit 97
`

const lookAtFile = `[ -e "$1" ] || [ -h "$1" ] || { echo "it does not exist" >&2; exit 1; }`

// onNode looks once, by a command on the node.
func (t Wait) onNode(ctx context.Context, s *loom.Session) (down, err error) {
	switch {
	case t.Port != 0:
		_, err = program{"look at " + t.what(), lookAtPort}.ask(ctx, s, t.Host, strconv.Itoa(t.Port), fmt.Sprintf("%04X", t.Port))
	case t.URL != "":
		_, err = program{"look at " + t.what(), lookAtURL}.ask(ctx, s, t.URL)
	case t.File != "":
		_, err = program{"look at " + t.what(), lookAtFile}.ask(ctx, s, t.File)
	default:
		err = s.Exec(ctx, loom.Command{Text: t.Command})
	}
	exit, ran := errors.AsType[*loom.ExitError](err)
	switch {
	case !ran:
		return nil, err
	case exit.Code == cannotTell && t.Command == "":
		return nil, errors.New(complaint(err))
	case t.Command == "" && strings.TrimSpace(exit.Stderr) != "":
		return errors.New(complaint(err)), nil
	}
	return err, nil
}
