package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// TokensFile is the file's name in the state directory.
const TokensFile = "tokens.json"

// TokenPrefix is how every token begins, so that it is known for one wherever it
// turns up.
const TokenPrefix = "loom_"

// How long tokens are good for, and how many there may be.
const (
	TokenTime    = 90 * 24 * time.Hour      // if nothing else is said
	LongestToken = 5 * 365 * 24 * time.Hour // what may be said
	mostTokens   = 1000

	tokenBytes  = 32
	usedEvery   = time.Minute         // how often it is written down that tokens are used
	lookEvery   = 2 * time.Second     // whether another process has changed the file
	lockTime    = 3 * time.Second     // for another process to be done with it
	keepExpired = 30 * 24 * time.Hour // for those who wonder what it was that expired
)

// A Token is what is known of one that lets somebody in. The token itself is
// known only to whoever it was shown to when it was made.
type Token struct {
	Name    string    `json:"name"`
	Role    Role      `json:"role" enum:"viewer,operator,admin" doc:"viewer, operator or admin"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty" doc:"Who made it"`
	Expires time.Time `json:"expires" doc:"From here on it lets nobody in"`
	Expired bool      `json:"expired,omitempty"`
	Used    time.Time `json:"used,omitzero" doc:"When it last let somebody in, to the minute; left out: never"`
	From    string    `json:"from,omitempty" doc:"The address from where"`
}

// Tokens are those of a daemon, kept in a file of its state directory: not in the
// store, so that they work while that is down. Any number of processes may have
// the same file. The methods are safe for concurrent use.
type Tokens struct {
	file   string
	log    *slog.Logger
	usable chan struct{} // closed once there was a token that lets somebody in

	mu      sync.Mutex
	read    os.FileInfo // the file as it was read; nil: it is to be read again
	all     []storedToken
	uses    map[string]use // by hash
	inside  map[string]map[*context.CancelCauseFunc]struct{}
	written time.Time // when uses were last written down
}

// A storedToken is a Token with what it is recognised by.
type storedToken struct {
	Token
	Hash string `json:"sha256"`
}

// A use says when a token last let somebody in, and from where.
type use struct {
	at   time.Time
	from string
}

// tokensFile is what the file says.
type tokensFile struct {
	Version int           `json:"version"`
	Tokens  []storedToken `json:"tokens"`
}

// tokensVersion is that of the file's form.
const tokensVersion = 1

// OpenTokens returns the tokens in a state directory, which need not have any
// yet. Log may be nil. The error says what is wrong with the file: until that is
// mended, nobody is let in.
func OpenTokens(dir string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{file: filepath.Join(dir, TokensFile), log: cmp.Or(log, slog.Default()), usable: make(chan struct{}),
		uses: map[string]use{}, inside: map[string]map[*context.CancelCauseFunc]struct{}{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t, t.refresh()
}

// Errors of tokens.
var (
	errNoToken = errors.New("this token is not known: it may have been revoked")
	errExpired = errors.New("this token has expired")
	errOut     = errors.New("the token was revoked, or has expired")
)

// tokenName says which names tokens may have.
const tokenName = `^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`

// Create makes a token that is good until a time, and returns it: it can't be
// had again. The error wraps fs.ErrExist if there is one of this name that is
// still good.
func (t *Tokens) Create(name string, role Role, expires time.Time, by string) (string, Token, error) {
	now := time.Now().Truncate(time.Second)
	if err := checkToken(name, role, expires, now); err != nil {
		return "", Token{}, err
	}
	text := newToken()
	made := storedToken{Token{Name: name, Role: role, Created: now.UTC(), By: by, Expires: expires.Truncate(time.Second).UTC()}, hashOf(text)}
	err := t.update(lockTime, func(all []storedToken) ([]storedToken, error) {
		var kept []storedToken
		for _, one := range all {
			expired := !one.Expires.After(now)
			if one.Name == name && !expired {
				return nil, takenError(name)
			}
			if one.Name != name && one.Expires.Add(keepExpired).After(now) {
				kept = append(kept, one)
			}
		}
		if len(kept) >= mostTokens {
			return nil, invalid(fmt.Sprintf("token %s: there are %d tokens, which is the most: revoke some", name, len(kept)))
		}
		return append(kept, made), nil
	})
	if err != nil {
		return "", Token{}, err
	}
	return text, made.Token, nil
}

// A takenError is the name of a token that is good still.
type takenError string

func (e takenError) Error() string {
	return fmt.Sprintf("there is a token %s already: choose another name, or revoke that one first (loom token revoke %[1]s)", string(e))
}

func (takenError) Unwrap() error { return fs.ErrExist }

// checkToken returns why there can't be such a token, or nil.
func checkToken(name string, role Role, expires, now time.Time) error {
	if ok, _ := regexp.MatchString(tokenName, name); !ok {
		return invalid(fmt.Sprintf("token %q: a name has up to 64 letters, digits, or . _ - @, and begins with a letter or digit", name))
	}
	if _, err := ParseRole(string(role)); err != nil {
		return invalid(fmt.Sprintf("token %s: %v", name, err))
	}
	switch {
	case !expires.After(now):
		return invalid(fmt.Sprintf("token %s: it would have expired already, at %s", name, expires.Format(time.RFC3339)))
	case expires.After(now.Add(LongestToken + time.Minute)):
		return invalid(fmt.Sprintf("token %s: it would be good until %s, and %d days is the most", name, expires.Format(time.DateOnly), LongestToken/(24*time.Hour)))
	}
	return nil
}

// newToken returns a token that nobody can guess.
func newToken() string {
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // it never fails: see crypto/rand
	return TokenPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret))
}

// hashOf is all that is kept of a token. It is random enough that its hash needs
// no salt, nor to be slow.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// List returns the tokens by name, with those that expired not long ago.
func (t *Tokens) List() ([]Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.refresh()
	now := time.Now()
	list := make([]Token, len(t.all))
	for i, one := range t.used(t.all) {
		list[i] = one.Token
		list[i].Expired = !one.Expires.After(now)
	}
	slices.SortFunc(list, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// Revoke makes a token let nobody in any more, nor stay. The error wraps
// loom.ErrNotFound if there is none of this name.
func (t *Tokens) Revoke(name string) error {
	return t.update(lockTime, func(all []storedToken) ([]storedToken, error) {
		kept := slices.DeleteFunc(slices.Clone(all), func(one storedToken) bool { return one.Name == name })
		if len(kept) == len(all) {
			return nil, fmt.Errorf("token %q: %w", name, loom.ErrNotFound)
		}
		return kept, nil
	})
}

// Usable returns a channel that is closed once there is, or was, a token that
// lets somebody in.
func (t *Tokens) Usable() <-chan struct{} { return t.usable }

// enter returns who comes with a token from an address. When the token is no
// longer good cancel is called with why, unless leave was before.
func (t *Tokens) enter(text, from string, cancel context.CancelCauseFunc) (p Principal, leave func(), err error) {
	hash, now := hashOf(text), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.refresh(); err != nil {
		return Principal{}, nil, err
	}
	var found *storedToken
	for i := range t.all { // all of them, however soon it is found
		if subtle.ConstantTimeCompare([]byte(t.all[i].Hash), []byte(hash)) == 1 {
			found = &t.all[i]
		}
	}
	switch {
	case found == nil:
		return Principal{}, nil, errNoToken
	case !found.Expires.After(now):
		return Principal{}, nil, fmt.Errorf("%w, on %s", errExpired, found.Expires.Format(time.DateTime+" MST"))
	}
	t.uses[hash] = use{now.Truncate(time.Second).UTC(), from}
	t.noteUses(now)
	if t.inside[hash] == nil {
		t.inside[hash] = map[*context.CancelCauseFunc]struct{}{}
	}
	key := &cancel
	t.inside[hash][key] = struct{}{}
	who := "token " + found.Name
	return Principal{Name: who, Role: found.Role, Via: who}, func() { t.leave(hash, key) }, nil
}

func (t *Tokens) leave(hash string, key *context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.inside[hash], key); len(t.inside[hash]) == 0 {
		delete(t.inside, hash)
	}
}

// expel has those leave whose tokens are not good any more.
func (t *Tokens) expel(now time.Time) {
	good := map[string]bool{}
	for _, one := range t.all {
		if one.Expires.After(now) {
			good[one.Hash] = true
		}
	}
	for hash, held := range t.inside {
		if good[hash] {
			continue
		}
		for cancel := range held {
			(*cancel)(errOut)
		}
		delete(t.inside, hash)
	}
	maps.DeleteFunc(t.uses, func(hash string, _ use) bool { return !good[hash] })
	if len(good) > 0 {
		select {
		case <-t.usable:
		default:
			close(t.usable)
		}
	}
}

// watch has those leave whose tokens have expired, or were revoked by another
// process, until ctx ends.
func (t *Tokens) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.mu.Lock()
		err := t.refresh()
		t.expel(time.Now())
		t.mu.Unlock()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != told && err != nil {
			t.log.Error("tokens let nobody in", "err", err)
		}
		told = text
	}
}
