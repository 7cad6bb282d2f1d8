package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/daemon"
	"github.com/dustinlacewell/loom/internal/sshd"
	"github.com/dustinlacewell/loom/secret"
	"github.com/dustinlacewell/loom/ssh"
	"github.com/dustinlacewell/loom/store/sqlite"
	"github.com/dustinlacewell/loom/tasks"
)

// The canaries: no two forms of one are alike.
const (
	canary    = `c4n4ry's "song"/+of $1 & <é>`
	sudoWord  = "c4n4ry-for-sudo-7411"
	loginWord = "c4n4ry-for-login-7412"
	shownWord = "c4n4ry-on-purpose-7413" // its job puts it where ps shows it
	keyText   = "-----BEGIN C4N4RY KEY-----\nYzRuNHJ5LWtleS1vbmU\nYzRuNHJ5LWtleS10d28\n-----END C4N4RY KEY-----\n"
)

// traces are what would tell a canary, in the words of others than the redactor.
func traces() map[string][]byte {
	all := map[string]string{
		"sudo": sudoWord, "login": loginWord, "key 1": "YzRuNHJ5LWtleS1vbmU", "key 2": "YzRuNHJ5LWtleS10d28",
		"sudo in hex": hex.EncodeToString([]byte(sudoWord)), "sudo in base64": base64.StdEncoding.EncodeToString([]byte(sudoWord))[:20],
		"plain": "4n4ry's", "end": `/+of $1 & <`, "shell": `4n4ry'\''s`, "shell 2": `4n4ry'"'"'s`, "bash": `4n4ry\'s`,
		"url": url.QueryEscape(canary)[2:20], "path": url.PathEscape(canary)[2:20], "hex": hex.EncodeToString([]byte(canary))[4:30],
		"json": `4n4ry's \"song`, "json 2": `+of $1 \u0026`, "go": strconv.Quote(canary)[4:16], "html": "4n4ry&#39;s",
		"one piece": canary[5:17], "half": `of $1 &`,
	}
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte("xyz"[:before] + canary))
		all[fmt.Sprint("base64 ", before)] = text[6:20]
		all[fmt.Sprint("base64 url ", before)] = base64.URLEncoding.EncodeToString([]byte("xyz"[:before] + canary))[20:34]
	}
	out := map[string][]byte{}
	for name, text := range all {
		out[name] = []byte(text)
	}
	return out
}

// noTrace fails if a canary is told somewhere.
func noTrace(t *testing.T, where string, text []byte) {
	t.Helper()
	for name, trace := range traces() {
		if at := bytes.Index(text, trace); at >= 0 {
			t.Errorf("%s tells a secret (%s): …%q…", where, name, text[max(0, at-120):min(len(text), at+120)])
		}
	}
}

// panics is a task that makes the worst of it.
type panics struct{ What string }

func (p panics) Apply(context.Context, *loom.Session) error { panic(fmt.Errorf("no %s", p.What)) }

// A watcher looks at all processes of this machine, again and again.
type watcher struct {
	mu    sync.Mutex
	seen  map[string]bool // what should not be seen
	shown bool            // what its job shows was seen
	envs  map[string]bool // jobs in whose environment secrets were
	looks int
}

func (w *watcher) look(traces map[string][]byte) {
	own := strconv.Itoa(os.Getpid())
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range dirs {
		if filepath.Base(dir) == own {
			continue
		}
		args, _ := os.ReadFile(dir + "/cmdline") // it may have ended
		env, _ := os.ReadFile(dir + "/environ")
		w.mu.Lock()
		w.shown = w.shown || bytes.Contains(args, []byte(shownWord))
		for name, trace := range traces {
			if bytes.Contains(args, trace) {
				w.seen[fmt.Sprintf("%s in the arguments of %q", name, args)] = true
			}
			if bytes.Contains(env, trace) {
				job := "none"
				for v := range bytes.SplitSeq(env, []byte{0}) {
					if name, ok := bytes.CutPrefix(v, []byte("LOOM_JOB=")); ok {
						job = string(name)
					}
				}
				w.envs[job] = true
				if job != "env" && job != "sudo" && job != "script" && job != "local" {
					w.seen[fmt.Sprintf("%s in the environment of %q, job %s", name, args, job)] = true
				}
			}
		}
		w.mu.Unlock()
	}
	w.mu.Lock()
	w.looks++
	w.mu.Unlock()
}

// TestSecretsStaySecret has a daemon and real nodes do all that can tell a secret,
// and looks for it everywhere.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: the processes of other users, which only root can look at")
	}
	sshd.Need(t, "sshd", "sudo", "bash", "base64", "od", "tr")
	ann := sshd.NewUser(t, "/bin/bash", sudoWord)
	sshd.Sudo(t, ann.Username, true)
	node := sshd.Start(t, sshd.Options{Lines: []string{"PasswordAuthentication no"}})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	c := loom.SecretsConfig{File: filepath.Join(dir, "secrets.age"), Identity: filepath.Join(state, loom.KeyFile)}
	for name, value := range map[string]string{"song": canary, "sudo": sudoWord, "login": loginWord, "shown": shownWord, "key": keyText} {
		if err := secret.Set(c, name, value); err != nil {
			t.Fatal(err)
		}
	}
	var news lockedBuffer
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.Write(&news) // a buffer takes all
	}))
	defer hook.Close()
	writeFiles(t, dir, map[string]string{
		"loom.yaml": fmt.Sprintf("nodesfile: nodes.yaml\njobspath: jobs\nstate: state\nsecrets: {file: secrets.age}\n"+
			"ssh: {config: none, known_hosts: %s}\nnotify:\n"+
			"  hook: {webhook: {url: %s/hook}, default: true, on: [ended]}\n"+
			"  nobody: {webhook: {url: 'http://127.0.0.1:1/${secret:login}', headers: {Authorization: '${secret:login}'}}, default: true, on: [ended]}\n", node.KnownHosts, hook.URL),
		"none": "",
		"nodes.yaml": fmt.Sprintf(`root: {ip: %[1]s, port: %[2]d, user: %[3]s, identity: %[4]s, password: '${secret:login}', vars: {song: '${secret:song}'}}
bash: {ip: %[1]s, port: %[2]d, user: %[3]s, identity: %[4]s, shell: /bin/bash}
ann: {ip: %[1]s, port: %[2]d, user: %[5]s, identity: %[4]s, sudo: {password: '${secret:sudo}'}}
`, node.Address, node.Port, me.Username, node.Identity, ann.Username),
		"script.sh": "#!/bin/sh\nprintf '%s\\n' \"$SONG\"; sleep .3\n",
		"put.txt":   "nothing\n",
		"jobs/a.yaml": strings.ReplaceAll(`
print: &print |
  printf '%s\n' "$SONG"; printf '%s' "$SONG" | base64; printf 'x%s' "$SONG" | base64; printf 'xy%s\n' "$SONG" | base64 | tr +/ -_
  printf '%s' "$SONG" | od -An -v -tx1 | tr -d ' \n'; echo
  bash -c 'printf "%q\n" "$SONG"; set -x; : "$SONG"'; sh -c 'set -x; : "$SONG"'
  a=${SONG%%song*}; printf '%s' "$a"; sleep .3; printf '%s\n' "${SONG#"$a"}"
  printf '%8180s%s\n' '' "$SONG"; printf 'without a newline %s' "$SONG"
jobs:
  env: {task: run, args: [*print], env: {SONG: '${secret:song}'}, targets: root, schedule: manual, log: DIR/job.log}
  sudo: {task: sudo, args: [*print], env: {SONG: '${secret:song}'}, targets: ann, schedule: manual, log: DIR/job.log}
  stdin: {task: run, kwargs: {command: 'SONG=$(cat); printf "%s\n" "$SONG" >&2; sleep .3; exit 3', stdin: '${secret:song}'}, targets: [root, bash], schedule: manual,
    retries: {attempts: 1, delay: 1ms, on: [failed]}, log: {file: 'DIR/job-{node}.log'}}
  text: {task: run, args: ['sleep .3; echo ${secret:key}; false ${secret:sudo}'], targets: [root, bash], schedule: manual, resumable: false}
  template: {task: run, args: ['echo {{.Node.Vars.song | quote}}; sleep .3'], targets: root, schedule: manual}
  script: {task: script, args: [DIR/script.sh], env: {SONG: '${secret:song}'}, targets: root, schedule: manual}
  local: {task: local, args: [*print], env: {SONG: '${secret:song}'}, targets: root, schedule: manual}
  put: {task: put, args: [DIR/put.txt, '/tmp/loom-secret-test'], env: {SONG: '${secret:song}'}, targets: root, schedule: manual}
  panic: {task: panics, args: ['${secret:song}'], targets: root, schedule: manual}
  missing: {task: put, args: ['/no/${secret:sudo}', /tmp], targets: root, schedule: manual, description: 'not ${secret:song}'}
  shown: {task: run, args: ['sh -c "sleep .5; echo done" ${secret:shown}'], targets: root, schedule: manual}
`, "DIR", dir),
	})
	t.Cleanup(func() { _ = os.Remove("/tmp/loom-secret-test") })

	watch := &watcher{seen: map[string]bool{}, envs: map[string]bool{}}
	watching, stopWatching := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	looked := traces()
	watchers.Go(func() {
		for watching.Err() == nil {
			watch.look(looked)
		}
	})

	registry := tasks.Registry()
	registry.Add("panics", panics{})
	var log lockedBuffer
	ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
	defer stop()
	options := daemon.Options{Tasks: registry, Dialer: &ssh.Dialer{}, Stores: daemon.Stores{"sqlite": sqlite.Open}}
	loomd := func(args ...string) (string, error) {
		var out lockedBuffer
		err := daemon.Run(ctx, options, append([]string{"-c", filepath.Join(dir, "loom.yaml")}, args...), nil, &out, &out)
		return out.String(), err
	}
	var daemons sync.WaitGroup
	daemons.Go(func() {
		if err := daemon.Run(ctx, options, []string{"-c", filepath.Join(dir, "loom.yaml"), "--log-level", "debug"}, nil, &log, &log); err != nil {
			t.Errorf("the daemon ended with %v", err)
			stop()
		}
	})
	defer daemons.Wait()
	defer stop()
	await(ctx, t, func() bool { return strings.Contains(log.String(), "msg=started") })

	browser := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(state, api.SocketFile))
	}}}
	defer browser.CloseIdleConnections()
	events := stream(ctx, t, browser, "/api/v1/events?output=true")
	defer events.close()

	client := &api.Client{Socket: filepath.Join(state, api.SocketFile)}
	defer client.Close()
	ended := map[string]string{} // jobs and their runs
	for _, job := range []string{"env", "sudo", "stdin", "text", "template", "script", "local", "put", "panic", "missing", "shown"} {
		r, err := client.Trigger(ctx, job, loom.Request{By: "ann", Why: "to look for " + sudoWord})
		if err != nil {
			t.Fatalf("%s: %v", job, err)
		}
		ended[job] = r.ID
	}
	if r, err := client.Exec(ctx, api.Exec{Targets: []string{"root"}, Command: "echo " + sudoWord + "; false"}, ""); err != nil {
		t.Error(err)
	} else {
		ended["exec"] = r.ID
	}
	for job, id := range ended {
		var r loom.Run
		await(ctx, t, func() bool {
			r, err = client.Run(ctx, id)
			return err != nil || r.Status.Ended()
		})
		want := map[string]loom.Status{"stdin": loom.StatusFailed, "text": loom.StatusFailed, "panic": loom.StatusFailed, "missing": loom.StatusFailed,
			"put": loom.StatusChanged, "exec": loom.StatusFailed}[job]
		if want == "" {
			want = loom.StatusOK
		}
		if err != nil || r.Status != want {
			results, _ := client.Results(ctx, loom.ResultQuery{Runs: []string{id}})
			t.Errorf("job %s ended %s, %v, want %s: %+v", job, r.Status, err, want, results)
		}
	}
	stopWatching()
	watchers.Wait()
	for what := range watch.seen {
		t.Error("seen: " + what)
	}
	for _, job := range []string{"env", "sudo", "script", "local"} {
		if !watch.envs[job] {
			t.Errorf("job %s was not seen to have a secret in its environment in %d looks: the watcher is blind", job, watch.looks)
		}
	}
	if !watch.shown {
		t.Errorf("what is in the arguments was not seen in %d looks: the watcher is blind", watch.looks)
	}

	// What the daemon tells.
	await(ctx, t, func() bool {
		return strings.Contains(news.String(), ended["stdin"]) && strings.Contains(news.String(), ended["text"])
	})
	told := map[string]string{"the news": news.String(), "the log": log.String(), "the events": events.text()}
	for _, path := range answers(ctx, t, browser, dir, ended) {
		told["GET "+path] = ask(ctx, t, browser, path)
	}
	backup := filepath.Join(dir, "backup.db")
	for _, args := range [][]string{{"check"}, {"check", "-o", "json"}, {"secret", "list"}, {"status"}, {"runs", "-o", "json"}, {"backup", backup},
		{"show", ended["stdin"]}, {"logs", ended["env"]}, {"logs", ended["stdin"], "-o", "json"}, {"why", "env"}, {"run", "env", "--local"}, {"run", "stdin", "--local", "-o", "json"},
		{"exec", "root", "--local", "--", "echo", sudoWord}} {
		out, _ := loomd(args...) // some fail, as they should
		told["loomd "+strings.Join(args[:min(len(args), 3)], " ")] = out
	}
	masked := 0
	for where, text := range told {
		noTrace(t, where, []byte(text))
		masked += strings.Count(text, "[secret]")
	}
	if masked < 200 {
		t.Errorf("only %d secrets were masked: what was looked at?", masked)
	}

	// What it keeps, the compressed output in the store too, which its answers have
	// told.
	stop()
	daemons.Wait()
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || path == c.Identity {
			return err
		}
		text, err := os.ReadFile(path)
		noTrace(t, path, text)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, file := range []string{"job.log", "job-root.log", "job-bash.log"} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !bytes.Contains(text, []byte("[secret]")) {
			t.Errorf("%s has no masks: %v", file, err)
		}
	}
}

func await(ctx context.Context, t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it did not come: %v", context.Cause(ctx))
		}
	}
}

// ask returns what is answered to a GET.
func ask(ctx context.Context, t *testing.T, c *http.Client, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // streams go on
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loom"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Errorf("GET %s: %v", path, err)
		return ""
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("GET %s: %v", path, err)
	}
	return string(text)
}

// answers returns a path for each GET of the API, and each run.
func answers(ctx context.Context, t *testing.T, c *http.Client, dir string, runs map[string]string) []string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(ask(ctx, t, c, "/openapi.json")), &doc); err != nil {
		t.Fatal(err)
	}
	paths := []string{"/openapi.json", "/metrics", "/readyz"}
	param := regexp.MustCompile(`\{(\w+)\}`)
	for path, methods := range doc.Paths {
		if methods["get"] == nil || path == "/api/v1/events" {
			continue
		}
		for job, run := range runs {
			paths = append(paths, param.ReplaceAllStringFunc(path, func(p string) string {
				switch p {
				case "{run}":
					return run
				case "{job}":
					return job
				case "{node}":
					return "root"
				}
				return "run"
			}))
			if !strings.Contains(path, "{run}") && !strings.Contains(path, "{job}") {
				break
			}
		}
	}
	for _, file := range []string{"nodes.yaml", "jobs/a.yaml", "loom.yaml", "secrets.age", "state/age.key"} {
		if doc.Paths["/api/v1/manifest/sources"] != nil {
			paths = append(paths, "/api/v1/manifest/sources?file="+url.QueryEscape(filepath.Join(dir, file)))
		}
	}
	return paths
}

// A follower reads a stream to its end.
type follower struct {
	buf  lockedBuffer
	done chan struct{}
	stop context.CancelFunc
}

func stream(ctx context.Context, t *testing.T, c *http.Client, path string) *follower {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loom"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req) //nolint:bodyclose // who reads it closes it
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{done: make(chan struct{}), stop: stop}
	go func() {
		defer close(f.done)
		defer res.Body.Close()
		_, _ = io.Copy(&f.buf, res.Body) // it ends when it is stopped
	}()
	return f
}

func (f *follower) text() string { return f.buf.String() }
func (f *follower) close()       { f.stop(); <-f.done }

// TestSecretIsTypedUnseen types a secret on a terminal.
func TestSecretIsTypedUnseen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"loom.yaml": "nodes: {a: {}}\njobspath: jobs\nstate: state\nsecrets: {file: secrets.age}\n"})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "loomd")
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), link, "secret", "set", "song", "-c", filepath.Join(dir, "loom.yaml"))
	cmd.Env = append(os.Environ(), "HOME="+dir)
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var screen lockedBuffer
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(&screen, terminal) }) // it ends with the program
	for _, prompt := range []string{"Value of song: ", "Once more: "} {
		await(t.Context(), t, func() bool { return strings.HasSuffix(screen.String(), prompt) })
		await(t.Context(), t, func() bool { return silent(t, terminal) })
		if _, err := io.WriteString(terminal, "battery staple\r"); err != nil {
			t.Fatal(err)
		}
	}
	err = cmd.Wait()
	reader.Wait()
	if err != nil || strings.Contains(screen.String(), "battery") || !strings.Contains(screen.String(), "song is set") {
		t.Errorf("it ended with %v, and the screen shows\n%s", err, screen.String())
	}
}

// silent reports whether what is typed on a terminal does not show.
func silent(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO == 0
}
