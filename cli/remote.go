package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
)

// The environment's part in which daemon is asked.
const (
	envServer  = "LOOM_SERVER"
	envToken   = "LOOM_TOKEN" //nolint:gosec // its name
	envContext = "LOOM_CONTEXT"
)

// contextLocal is the context of this machine's daemon. It needs no entry.
const contextLocal = "local"

// remoteFlags say which daemon is asked.
type remoteFlags struct {
	server, token, tokenFile, ca, context string
}

// addRemote adds the flags that say which daemon is asked to all commands.
func (p *Program) addRemote(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&p.remote.server, "server", "", "daemon to ask: an https:// `URL`, unix:PATH or ssh://[user@]host[:port] (default $"+envServer+", or the current context, or this machine's)")
	f.StringVar(&p.remote.token, "token", "", "`token` that says who asks; others on this machine can see it: $"+envToken+" and --token-file hide it")
	f.StringVar(&p.remote.tokenFile, "token-file", "", "`file` with the token, which only you may read; - is the standard input")
	f.StringVar(&p.remote.ca, "ca", "", "`file` of certificates (PEM) to trust, instead of the system's")
	f.StringVar(&p.remote.context, "context", "", "daemon to ask, by the `name` that \"context add\" gave it (default $"+envContext+"); "+contextLocal+" is this machine's")
	for name, complete := range map[string]cobra.CompletionFunc{
		"context": p.completeContexts, "server": p.completeServers, "token": cobra.NoFileCompletions,
		"token-file": cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
	} {
		_ = root.RegisterFlagCompletionFunc(name, complete) // it is our own flag
	}
	_ = root.MarkPersistentFlagFilename("ca", "pem", "crt", "cer") // likewise
	_ = root.MarkPersistentFlagFilename("config", "yaml", "yml")
}

// A server is a daemon that is not asked by way of this machine's configuration.
type server struct {
	URL   string // as --server has it
	Token loom.Secret
	CA    string
	From  string // how it was chosen, for people: --server, or context NAME
	By    string // and what chose the context
}

// server returns the daemon that the command line, the environment or the user's
// configuration names, or nil: this machine's own. Who names files of this machine
// (-c, or state) means this machine.
func (p *Program) server(state string) (*server, error) {
	explicit := p.remote.server != "" || p.remote.context != ""
	here := ""
	switch {
	case p.Config != "":
		here = "-c " + p.Config
	case state != "":
		here = "--state " + state
	}
	switch {
	case p.remote.server != "" && p.remote.context != "":
		return nil, Usage("--server and --context exclude each other: both say which daemon to ask")
	case explicit && here != "" && p.remote.context != contextLocal:
		return nil, Usage("%s is about this machine, and --server and --context are about a daemon anywhere: give one of them", here)
	case here != "":
		return nil, nil
	}
	s, err := p.chosen()
	if err != nil || s == nil {
		return nil, err
	}
	if p.remote.ca != "" {
		s.CA = p.remote.ca
	}
	token, err := p.token()
	if err != nil {
		return nil, err
	}
	switch {
	case token != "":
		s.Token = token
	case s.Token == "":
		s.Token = loom.Secret(os.Getenv(envToken))
	}
	return s, nil
}

// chosen returns the server, and of a context what goes with it: the command line
// comes before the environment, and that before the file.
func (p *Program) chosen() (*server, error) {
	name, from := p.remote.context, "--context"
	switch {
	case p.remote.server != "":
		return &server{URL: p.remote.server, From: "--server"}, nil
	case name != "":
	case os.Getenv(envServer) != "":
		return &server{URL: os.Getenv(envServer), From: envServer}, nil
	case os.Getenv(envContext) != "":
		name, from = os.Getenv(envContext), envContext
	}
	file, err := readContexts()
	if err != nil {
		return nil, err
	}
	if name == "" {
		name, from = file.Current, "the current context"
	}
	if name == "" || name == contextLocal {
		return nil, nil
	}
	return file.server(name, from)
}

// token returns the token of the command line, if it has one.
func (p *Program) token() (loom.Secret, error) {
	switch {
	case p.remote.token != "" && p.remote.tokenFile != "":
		return "", Usage("--token and --token-file exclude each other")
	case p.remote.tokenFile == "-":
		return p.askToken()
	case p.remote.tokenFile != "":
		return readToken(p.remote.tokenFile)
	}
	return loom.Secret(p.remote.token), nil
}

// askToken reads a token from the standard input, which once read is at its end:
// so it is kept.
func (p *Program) askToken() (loom.Secret, error) {
	if p.asked != "" {
		return p.asked, nil
	}
	var text []byte
	var err error
	if f, ok := p.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(p.Stderr, "token: ")
		text, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(p.Stderr)
	} else if p.Stdin != nil {
		text, err = io.ReadAll(io.LimitReader(p.Stdin, tokenBytes))
	}
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	p.asked = loom.Secret(strings.TrimSpace(string(text)))
	if p.asked == "" {
		return "", Usage("--token-file -: there is no token on the standard input")
	}
	return p.asked, nil
}

// tokenBytes is how long a token may be, with what is around it.
const tokenBytes = 64 << 10

// readToken reads a file with a token, which nobody else may read.
func readToken(file string) (loom.Secret, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := private(f, "token file"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, tokenBytes))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	switch {
	case token == "":
		return "", fmt.Errorf("token file %s is empty", file)
	case strings.ContainsAny(token, " \t\r\n"):
		return "", fmt.Errorf("token file %s has more than a token in it: it has to be the only word", file)
	}
	return loom.Secret(token), nil
}

// private refuses a file with a secret that others may read.
func private(f *os.File, what string) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return &Error{Code: ExitForbidden, Err: fmt.Errorf("%s %s is open to others (mode %04o), so what is in it is no secret", what, f.Name(), info.Mode().Perm()),
			Hint: fmt.Sprintf("chmod 600 %s, and if others use this machine have a new token made", f.Name())}
	}
	return nil
}

// remoteDaemon is a client, and what has to end with it.
type remoteDaemon struct {
	*api.Client
	tunnel *tunnel // nil: there is none
}

// close lets go of the connections.
func (r *remoteDaemon) close() {
	if r == nil {
		return
	}
	_ = r.Close() // what is idle
	r.tunnel.close()
}

// reach returns a client for a server. Nothing is sent yet. If quiet, ssh must ask
// no questions.
func (p *Program) reach(s *server, quiet bool) (*remoteDaemon, error) {
	if file, ok := strings.CutPrefix(s.URL, "unix:"); ok {
		file = "/" + strings.TrimLeft(file, "/")
		if s.URL == "unix:" || !filepath.IsAbs(strings.TrimPrefix(strings.TrimPrefix(s.URL, "unix:"), "//")) {
			return nil, Usage("%s: %s: write unix:/PATH/OF/%s", s.From, s.URL, api.SocketFile)
		}
		return &remoteDaemon{Client: &api.Client{Socket: file}}, nil
	}
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Host == "":
	case u.Scheme == "ssh":
		t, err := newTunnel(u, quiet)
		if err != nil {
			return nil, Usage("%s: %v", s.From, err)
		}
		return &remoteDaemon{Client: &api.Client{Dial: t.dial, Name: t.name}, tunnel: t}, nil
	case u.Scheme == "http" || u.Scheme == "https":
		return &remoteDaemon{Client: &api.Client{URL: s.URL, Token: s.Token, Roots: s.CA}}, nil
	}
	return nil, Usage("%s: %q is no daemon: write https://HOST:PORT, unix:PATH or ssh://[USER@]HOST[:PORT]", s.From, s.URL)
}

// elsewhere is memory for a daemon that is asked by name.
func (p *Program) elsewhere(s *server) (*memory, error) {
	r, err := p.reach(s, p.quiet)
	if err != nil {
		return nil, err
	}
	return &memory{Store: r.Client, daemon: r.Client, remote: r, config: loom.Config{Timezone: time.Local}}, nil
}

// daemon returns a client for the daemon that is asked: the one that the user
// names, or this machine's. The caller closes it. The error is about the command
// line, or that no daemon runs here.
func (p *Program) daemon(ctx context.Context) (*remoteDaemon, error) {
	s, err := p.server("")
	if err != nil {
		return nil, err
	}
	if s != nil {
		return p.reach(s, false)
	}
	return p.localDaemon(ctx)
}

// localDaemon returns a client for this machine's daemon, if it answers.
func (p *Program) localDaemon(ctx context.Context) (*remoteDaemon, error) {
	var missing error
	for _, socket := range p.sockets() {
		client := &api.Client{Socket: socket}
		answer, err := client.Do(ctx, http.MethodGet, api.Prefix+"/status", nil, nil)
		if err == nil {
			_ = answer.Body.Close() // that there is one is all
			return &remoteDaemon{Client: client}, nil
		}
		if !errors.Is(err, api.ErrNoDaemon) {
			return nil, err
		}
		if missing == nil {
			missing = err
		}
	}
	return nil, &Error{Code: ExitUnreachable, Err: missing, Hint: "a daemon elsewhere is named with --server or --context"}
}

// sockets returns where this machine's daemon may listen: where the configuration
// says, and without one where a daemon of this user, or of the system, does.
func (p *Program) sockets() []string {
	config, err := loom.ReadConfig(p.Config)
	if err == nil || p.Config != "" {
		all := []string{filepath.Join(config.State, api.SocketFile)}
		if other := config.API.Socket.Path; other != "" {
			all = append([]string{other}, all...) // who can't get at it can't get at the other either
		}
		return all
	}
	var all []string
	if home, err := os.UserHomeDir(); err == nil {
		all = append(all, filepath.Join(home, ".loom", "state", api.SocketFile))
	}
	return append(all, api.GroupSocket, filepath.Join(rootState, api.SocketFile))
}

// rootState is the state directory of root's daemon, unless it is configured.
const rootState = "/var/lib/loom"
