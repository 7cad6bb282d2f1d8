package cli

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExplainSSH tells what the ends of an ssh mean.
func TestExplainSSH(t *testing.T) {
	for _, c := range []struct {
		code       int
		said, want string
		exit       int
	}{
		{255, "ssh: connect to host h port 22: Connection refused\r\n", "did not get there: ssh: connect", ExitUnreachable},
		{255, "No ED25519 host key is known for h\nHost key verification failed.\r\n", "does not know its host key", ExitUnreachable},
		{255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n", "another than before", ExitUnreachable},
		{255, "ann@h: Permission denied (publickey).\n", "was not let in", ExitForbidden},
		{127, "sh: 1: exec: loomd: not found\n", "there is no loomd", ExitUnreachable},
		{3, "loomd: socket /s: nobody\nloomd: hint: x\n", "there is no daemon: socket /s: nobody", ExitUnreachable},
		{4, "loomd: socket /s: \x1b[31mno\n", "does not let you in: socket /s: ^[[31mno", ExitForbidden},
		{2, "loomd: unknown command \"dial\" for \"loomd\"\n", "older", ExitUnreachable},
	} {
		err := explainSSH("ssh://h", c.code, c.said)
		if ExitCode(err) != c.exit || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "ssh://h: ") {
			t.Errorf("%d %q: %v (exit status %d), want %q (%d)", c.code, c.said, err, ExitCode(err), c.want, c.exit)
		}
	}
}

// TestServers tells which server is asked, with which token, and which mistakes are
// told from one that does not answer.
func TestServers(t *testing.T) {
	seen := ""
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.URL.Path + " " + r.Header.Get("Authorization")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer daemon.Close()
	tls := httptest.NewTLSServer(daemon.Config.Handler)
	defer tls.Close()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good, open := file("good", "good-token\n", 0o600), file("open", "x\n", 0o644)
	contexts := "contexts: {there: {server: '" + daemon.URL + "/loom', token: kept}}\n"
	for _, c := range []struct {
		args, env, config string
		mode              os.FileMode
		want, seen        string
		exit              int
	}{
		{args: "--server " + daemon.URL + " --token-file " + good, want: "401", seen: "/api/v1/runs Bearer good-token", exit: ExitForbidden},
		{args: "--server " + daemon.URL, env: "LOOM_TOKEN=e", want: "401", seen: "/api/v1/runs Bearer e", exit: ExitForbidden},
		{env: "LOOM_SERVER=" + daemon.URL, config: contexts, mode: 0o600, want: "401", seen: "/api/v1/runs ", exit: ExitForbidden},
		{args: "--context there", config: contexts, mode: 0o600, want: "401", seen: "/loom/api/v1/runs Bearer kept", exit: ExitForbidden},
		{args: "--context there", config: contexts, mode: 0o640, want: "is open to others", exit: ExitForbidden},
		{args: "--context gone", config: contexts, mode: 0o600, want: "there are there, local", exit: ExitUsage},
		{args: "--server " + daemon.URL + " --token-file " + open, want: "is open to others (mode 0644)", exit: ExitForbidden},
		{args: "--server http://loom.example.org --token hunter2", want: "cross the network", exit: ExitUsage},
		{args: "--server " + tls.URL, want: "--ca", exit: ExitUnreachable},
		{args: "--server " + strings.Replace(daemon.URL, "http:", "https:", 1), want: "speaks without TLS", exit: ExitUnreachable},
		{args: "--server " + strings.Replace(tls.URL, "https:", "http:", 1), want: "it wants TLS", exit: ExitUnreachable},
		{args: "--server http://127.0.0.1:1", want: "nobody listens there", exit: ExitUnreachable},
		{args: "--server ftp://x", want: "is no daemon", exit: ExitUsage},
		{args: "--server unix:x", want: "write unix:/PATH", exit: ExitUsage},
		{args: "--server http://127.0.0.1:1 --state x", want: "give one of them", exit: ExitUsage},
		{args: "--server http://127.0.0.1:1 --context there", want: "exclude each other", exit: ExitUsage},
	} {
		t.Run(c.args+c.env, func(t *testing.T) {
			seen = ""
			_ = os.Remove(filepath.Join(dir, "loom/config.yaml"))
			if c.config != "" {
				file("loom/config.yaml", c.config, c.mode)
			}
			if name, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(name, value)
			}
			var errs strings.Builder
			p := &Program{Name: "loom", Remote: true, Tasks: importTasks(), Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &errs}
			err := p.Execute(t.Context(), p.Command(), append([]string{"runs"}, strings.Fields(c.args)...))
			p.Report(err)
			if ExitCode(err) != c.exit || !strings.Contains(errs.String(), c.want) || seen != c.seen {
				t.Errorf("exit status %d, sent %q\n%swant %d, %q, %q", ExitCode(err), seen, errs.String(), c.exit, c.seen, c.want)
			}
			if strings.Contains(errs.String(), "hunter2") {
				t.Errorf("the token is told: %s", errs.String())
			}
		})
	}
}
