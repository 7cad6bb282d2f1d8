package api

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateEvery is how often it is looked whether a certificate's files have
// changed.
const certificateEvery = time.Second

// A Certificate is what a door shows to prove whose it is. When its files change
// it does; while they make no sense it stays as it was. It is safe for concurrent
// use.
type Certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	files  [2]os.FileInfo // as they were read
	looked time.Time
	told   string
}

// LoadCertificate reads a certificate, with those that vouch for it, and its key,
// in PEM. The key must not be for everybody to read. Log may be nil.
func LoadCertificate(cert, key string, log *slog.Logger) (*Certificate, error) {
	if log == nil {
		log = slog.Default()
	}
	c := &Certificate{cert: cert, key: key, log: log, looked: time.Now()}
	err := c.load()
	return c, err
}

// load reads the files.
func (c *Certificate) load() error {
	var files [2]os.FileInfo
	var text [2][]byte
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if text[i], err = os.ReadFile(name); err != nil {
			return err
		}
		files[i] = info
	}
	if mode := files[1].Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("the key %s is open to others (mode %04o), who could pass themselves off as this daemon: chmod 600 %s", c.key, mode, c.key)
	}
	pair, err := tls.X509KeyPair(text[0], text[1])
	if err != nil {
		return fmt.Errorf("certificate %s and key %s: %w", c.cert, c.key, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		c.log.Warn("certificate has expired: clients will refuse it", "file", c.cert, "expired", pair.Leaf.NotAfter)
	}
	c.pair, c.files = &pair, files
	return nil
}

// get returns the certificate, as the files are now.
func (c *Certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= certificateEvery {
		c.looked = now
		c.renew()
	}
	return c.pair
}

// renew reads the files if they have changed.
func (c *Certificate) renew() {
	same := true
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		same = same && err == nil && os.SameFile(info, c.files[i]) && info.ModTime().Equal(c.files[i].ModTime()) && info.Size() == c.files[i].Size()
	}
	if same {
		c.told = ""
		return
	}
	if err := c.load(); err == nil {
		c.told = ""
		c.log.Info("certificate renewed", "file", c.cert, "expires", c.pair.Leaf.NotAfter)
	} else if err.Error() != c.told { // half of it may be there yet
		c.told = err.Error()
		c.log.Warn("certificate stays as it was: its files make no sense", "err", err)
	}
}

// names reports whether the certificate is for a name.
func (c *Certificate) names(host string) bool {
	leaf := c.get().Leaf
	return host != "" && leaf != nil && leaf.VerifyHostname(host) == nil
}

// config is how TLS is spoken: the newest version and no other.
func (c *Certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.get(), nil
		},
	}
}
