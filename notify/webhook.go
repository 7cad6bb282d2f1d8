package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// A webhookSpec is a URL that news are posted to.
type webhookSpec struct {
	URL     loom.Secret            `yaml:"url" loom:"required" help:"where they are posted"`
	Secret  []loom.Secret          `help:"keys that they are signed with: whsec_ and base64"`
	Headers map[string]loom.Secret `help:"more headers, such as Authorization"`

	httpSpec `yaml:",inline"`
}

// DecodeNode reads a URL, or a mapping.
func (s *webhookSpec) DecodeNode(n *yaml.Node) []bind.Problem { return short(n, s, &s.URL) }

// A webhook posts news as CloudEvents, signed as Standard Webhooks say.
type webhook struct {
	url    string
	keys   [][]byte
	header http.Header
	client *http.Client
}

func (s *webhookSpec) sender(r *reading, t *target) (sender, string) {
	w := &webhook{url: string(s.URL), header: http.Header{}}
	if w.url == "" {
		r.wrong("webhook", "missing key %q (where news are posted)", "url")
		return nil, ""
	}
	w.client = s.guarded(r, t, "webhook.url", w.url)
	for _, secret := range s.Secret {
		text, ok := strings.CutPrefix(string(secret), "whsec_")
		key, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			r.wrong("webhook.secret", "write whsec_ and 24 to 64 bytes in base64, such as `echo whsec_$(openssl rand -base64 32)` prints")
			continue
		}
		w.keys = append(w.keys, key)
	}
	own := []string{"Content-Type", "Content-Length", "Host", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"}
	for name, value := range s.Headers {
		canonical := http.CanonicalHeaderKey(name)
		if !isToken(name) || strings.ContainsAny(string(value), "\r\n\x00") {
			r.wrong("webhook.headers", "%q can't be a header", name)
		}
		for _, o := range own {
			if canonical == o {
				r.wrong("webhook.headers", "Loom sets %s itself", o)
			}
		}
		w.header.Set(canonical, string(value))
	}
	return w, hostOf(w.url)
}

// isToken reports whether a name can be a header's.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// hostOf is what can be told of a URL whose path may be a secret.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// cloudEvent is news as CloudEvents 1.0 has them, in structured mode.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            News      `json:"data"`
}

// event is a message as it is posted, or handed to a command.
func event(m message) ([]byte, error) {
	e := cloudEvent{SpecVersion: "1.0", ID: m.ID, Source: "/loom/" + url.PathEscape(m.Host), Type: m.Kind.cloudType(), Time: m.Time.UTC(),
		DataContentType: "application/json", Data: m.News}
	if m.Job != nil {
		e.Subject = m.Job.Name
	}
	e.Data.Title, e.Data.Text = m.title, m.text
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("put the news into JSON: %w", err)
	}
	return body, nil
}

func (w *webhook) send(ctx context.Context, m message) (string, error) {
	body, err := event(m)
	if err != nil {
		return "", &refusal{err: err, only: true, final: true}
	}
	header := w.header.Clone()
	header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	at := strconv.FormatInt(time.Now().Unix(), 10)
	header.Set("webhook-id", m.ID)
	header.Set("webhook-timestamp", at)
	if len(w.keys) > 0 {
		header.Set("webhook-signature", sign(w.keys, m.ID, at, body))
	}
	return exchange(ctx, w.client, http.MethodPost, w.url, header, body)
}

// sign returns a signature by each key, so that a key can be replaced while the
// old one is still good.
func sign(keys [][]byte, id, at string, body []byte) string {
	var all []string
	for _, key := range keys {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(id + "." + at + "."))
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(all, " ")
}
