package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// An auth is what one handshake authenticates with, and what became of it.
type auth struct {
	d *Dialer
	t *target

	agent net.Conn // to be closed after the handshake
	tried []string // in words
	begun bool     // the host key was accepted
}

// methods returns the ways to authenticate, in ssh's order.
func (a *auth) methods() []ssh.AuthMethod {
	m := []ssh.AuthMethod{ssh.PublicKeysCallback(a.signers)}
	if a.t.password == "" {
		return m
	}
	return append(m,
		ssh.PasswordCallback(func() (string, error) {
			a.tried = append(a.tried, "the node's password")
			return a.t.password, nil
		}),
		ssh.KeyboardInteractive(a.answer()))
}

// close ends what was open for the handshake.
func (a *auth) close() {
	if a.agent != nil {
		_ = a.agent.Close() // it has done its work
	}
}

// answer returns a function that answers one hidden question for a password
// with the node's, and nothing else: who knows what is being asked.
func (a *auth) answer() ssh.KeyboardInteractiveChallenge {
	answered := false
	return func(_, _ string, questions []string, echos []bool) ([]string, error) {
		if len(questions) == 0 {
			return nil, nil
		}
		if answered || len(questions) > 1 || echos[0] || !strings.Contains(strings.ToLower(questions[0]), "password") ||
			strings.Contains(strings.ToLower(questions[0]), "new password") {
			a.tried = append(a.tried, fmt.Sprintf("its question %q (not answered: who knows what it wants)", questions[0]))
			return nil, errors.New("the server asks what Loom does not answer")
		}
		answered = true
		a.tried = append(a.tried, "the node's password, at a prompt")
		return []string{a.t.password}, nil
	}
}

// signers collects the keys to offer: the node's own, those that ssh_config
// names, the agent's, and the usual ones.
func (a *auth) signers() ([]ssh.Signer, error) {
	inAgent, err := a.agentKeys()
	if err != nil {
		a.tried = append(a.tried, fmt.Sprintf("the agent %s (not used: %v)", a.t.agent, err))
	}
	o := offer{auth: a, agent: inAgent}
	named := a.t.identities
	if a.t.identity != "" {
		named = append([]string{a.t.identity}, named...)
	}
	for _, file := range named {
		o.file(file, true)
	}
	if !a.t.only {
		for _, s := range inAgent {
			o.add(s, "agent key "+comment(s))
		}
	}
	if len(a.t.identities) == 0 {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"} {
			o.file(filepath.Join(home(), ".ssh", name), false)
		}
	}
	if len(o.signers) == 0 {
		a.tried = append(a.tried, "no key (there is none to offer)")
	}
	return o.signers, nil
}

// agentKeys asks the agent, if there is one.
func (a *auth) agentKeys() ([]ssh.Signer, error) {
	if a.t.agent == "" {
		return nil, nil
	}
	conn, err := net.DialTimeout("unix", a.t.agent, a.t.connect)
	if err != nil {
		return nil, err
	}
	a.agent = conn
	_ = conn.SetDeadline(time.Now().Add(a.t.connect)) // an agent that waits for a person must not hold us up
	return agent.NewClient(conn).Signers()
}

func comment(s ssh.Signer) string {
	if k, ok := s.PublicKey().(*agent.Key); ok && k.Comment != "" {
		return k.Comment
	}
	return ssh.FingerprintSHA256(s.PublicKey())
}

// An offer is the list of keys that one handshake shows the server.
type offer struct {
	auth    *auth
	agent   []ssh.Signer
	signers []ssh.Signer
}

// add offers a key, once, with its words.
func (o *offer) add(s ssh.Signer, words string) {
	same := func(other ssh.Signer) bool {
		return bytes.Equal(other.PublicKey().Marshal(), s.PublicKey().Marshal())
	}
	if slices.ContainsFunc(o.signers, same) {
		return
	}
	o.signers = append(o.signers, s)
	o.auth.tried = append(o.auth.tried, words)
}

// file offers the key in a file, with its certificates. It may be a public one:
// then its private half is beside it or in the agent.
func (o *offer) file(file string, named bool) {
	s, err := o.load(file)
	if err != nil {
		if named || !errors.Is(err, fs.ErrNotExist) {
			o.auth.tried = append(o.auth.tried, fmt.Sprintf("key %s (not used: %v)", file, reason(err)))
		}
		return
	}
	private := strings.TrimSuffix(file, ".pub")
	for _, c := range append([]string{private + "-cert.pub"}, o.auth.t.certificates...) {
		if _, err := o.auth.d.keys.glances.look(c); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if signer, err := certified(c, s); err == nil {
			o.add(signer, "certificate "+c)
		} else if !errors.Is(err, errOtherKey) {
			o.auth.tried = append(o.auth.tried, fmt.Sprintf("certificate %s (not used: %v)", c, reason(err)))
		}
	}
	o.add(s, "key "+file)
}

// reason shortens an error about a file whose name is known.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

var errOtherKey = errors.New("it is for another key")

// certified returns a signer that shows a certificate for its key.
func certified(file string, s ssh.Signer) (ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, errors.New("it is not a certificate")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("it is a key, not a certificate")
	}
	if !bytes.Equal(cert.Key.Marshal(), s.PublicKey().Marshal()) {
		return nil, errOtherKey
	}
	if now := uint64(time.Now().Unix()); now > cert.ValidBefore {
		return nil, fmt.Errorf("it expired at %v", time.Unix(int64(cert.ValidBefore), 0).Format(time.DateTime))
	}
	return ssh.NewCertSigner(cert, s)
}

// load returns the signer of a key file.
func (o *offer) load(file string) (ssh.Signer, error) {
	private := strings.TrimSuffix(file, ".pub")
	s, err := o.auth.d.keys.load(private, o.auth.t.passphrase)
	if err == nil {
		return s, nil
	}
	// Perhaps the agent has it, and here is only what tells which.
	public, perr := o.public(private + ".pub")
	if perr != nil && private != file {
		public, perr = o.public(file)
	}
	if perr != nil {
		return nil, err
	}
	for _, s := range o.agent {
		if bytes.Equal(s.PublicKey().Marshal(), public.Marshal()) {
			return s, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) && private != file {
		return nil, errors.New("its private key is neither beside it nor in the agent")
	}
	return nil, err
}

func (o *offer) public(file string) (ssh.PublicKey, error) {
	if _, err := o.auth.d.keys.glances.look(file); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return key, err
}

// A keyStore reads private keys, and again when their files have changed: an
// encrypted one takes a while to open.
type keyStore struct {
	glances glances

	mu   sync.Mutex
	keys map[string]*storedKey
}

// glances look at files, but not more often than makes sense: when connections
// to a whole fleet are made, each would look at the same dozen of them, of which
// most do not exist.
type glances struct {
	mu    sync.Mutex
	files map[string]glance
}

// A glance is what a file was at a moment.
type glance struct {
	at   time.Time
	info fs.FileInfo
	err  error
}

// glanceLimit is for how long a glance holds.
const glanceLimit = 100 * time.Millisecond

func (s *glances) look(file string) (fs.FileInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.files[file]
	if !ok || time.Since(g.at) > glanceLimit {
		if s.files == nil {
			s.files = map[string]glance{}
		}
		g.at = time.Now()
		g.info, g.err = os.Stat(file)
		s.files[file] = g
	}
	return g.info, g.err
}

// forget says that a file has just changed.
func (s *glances) forget(file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, file)
}

type storedKey struct {
	modified   time.Time
	passphrase string
	once       sync.Once
	signer     ssh.Signer
	err        error
}

func (s *keyStore) load(file, passphrase string) (ssh.Signer, error) {
	info, err := s.glances.look(file)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("its mode is %04o: others could read it; run: chmod 600 %s", mode, file)
	}
	s.mu.Lock()
	k := s.keys[file]
	if k == nil || !k.modified.Equal(info.ModTime()) || k.passphrase != passphrase {
		if s.keys == nil {
			s.keys = map[string]*storedKey{}
		}
		k = &storedKey{modified: info.ModTime(), passphrase: passphrase}
		s.keys[file] = k
	}
	s.mu.Unlock()
	k.once.Do(func() { k.signer, k.err = readPrivate(file, passphrase) })
	return k.signer, k.err
}

func readPrivate(file, passphrase string) (ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(text)
	missing := (*ssh.PassphraseMissingError)(nil)
	switch {
	case errors.As(err, &missing) && passphrase == "":
		return nil, errors.New("it is encrypted, and the node has no passphrase for it")
	case errors.As(err, &missing):
		if s, err = ssh.ParsePrivateKeyWithPassphrase(text, []byte(passphrase)); err != nil {
			return nil, errors.New("the node's passphrase does not open it")
		}
	case err != nil:
		return nil, fmt.Errorf("it is not a private key: %w", err)
	}
	return s, nil
}
