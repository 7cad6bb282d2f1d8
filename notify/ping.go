package notify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// A pingSpec is where a service listens for the beginning and the end of runs.
type pingSpec struct {
	URL     loom.Secret            `yaml:"url" help:"for success; with /start and /fail at its end for the rest"`
	Start   loom.Secret            `help:"asked for when a run begins"`
	Success loom.Secret            `help:"when it went well"`
	Fail    loom.Secret            `help:"when it did not"`
	Headers map[string]loom.Secret `help:"more headers"`

	httpSpec `yaml:",inline"`
}

// DecodeNode reads a URL, or a mapping.
func (s *pingSpec) DecodeNode(n *yaml.Node) []bind.Problem { return short(n, s, &s.URL) }

// A ping tells a service that is alarmed by silence that a run began and how it
// ended, as healthchecks.io understands it.
type ping struct {
	start, success, fail string // "": that is not told
	header               http.Header
	client               *http.Client
}

func (s *pingSpec) sender(r *reading, t *target) (sender, string) {
	p := &ping{header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}}
	for name, value := range s.Headers {
		if !isToken(name) || strings.ContainsAny(string(value), "\r\n\x00") {
			r.wrong("ping.headers", "%q can't be a header", name)
		}
		p.header.Set(name, string(value))
	}
	switch {
	case s.URL != "" && s.Start+s.Success+s.Fail != "":
		r.wrong("ping.url", "write either url, or start, success and fail")
	case s.URL != "":
		p.client = s.guarded(r, t, "ping.url", withJob(string(s.URL), "job"))
		p.success = string(s.URL)
		p.start, p.fail = below(p.success, "start"), below(p.success, "fail")
	case s.Success != "":
		p.client = s.guarded(r, t, "ping.success", withJob(string(s.Success), "job"))
		p.start, p.success, p.fail = string(s.Start), string(s.Success), string(s.Fail)
		for key, other := range map[string]loom.Secret{"ping.start": s.Start, "ping.fail": s.Fail} {
			if other != "" && hostOf(string(other)) != hostOf(p.success) {
				r.wrong(key, "its host is not that of success")
			}
		}
	default:
		r.wrong("ping", "missing key %q (asked for when a run went well)", "url")
		return nil, ""
	}
	return p, hostOf(p.success)
}

// below adds a last part to the path of a URL.
func below(address, part string) string {
	head, query, ok := strings.Cut(address, "?")
	if ok {
		query = "?" + query
	}
	return strings.TrimSuffix(head, "/") + "/" + part + query
}

// withJob puts the name of a job, as it can stand in a URL, where {job} is.
func withJob(address, job string) string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, job)
	return strings.ReplaceAll(address, "{job}", slug)
}

func (p *ping) send(ctx context.Context, m message) (string, error) {
	address, job, run := p.success, "test", ""
	if m.Job != nil {
		job = m.Job.Name
	}
	if m.Run != nil {
		run = m.Run.ID
	}
	switch {
	case m.Kind == Test:
		address = below(p.success, "log") // says nothing about how a job does
	case m.Kind == Started:
		address = p.start
	case m.Run != nil && m.Run.Status == loom.StatusCancelled:
		address = ""
		if strings.HasSuffix(p.start, "/start") {
			address = below(p.success, "log")
		}
	case m.Run != nil && !m.Run.Status.Good():
		address = p.fail
	}
	if address == "" {
		return "nothing to ask for", nil
	}
	u, err := url.Parse(withJob(address, job))
	if err != nil {
		return "", &refusal{err: bare(err), only: true, final: true}
	}
	if run != "" {
		q := u.Query()
		q.Set("rid", uuid(run))
		u.RawQuery = q.Encode()
	}
	return exchange(ctx, p.client, http.MethodPost, u.String(), p.header, []byte(cut(p.body(m), 10_000)))
}

// body is what the service keeps with a ping.
func (p *ping) body(m message) string {
	if m.Kind == Started || m.Run == nil {
		return m.title + "\n"
	}
	var b strings.Builder
	b.WriteString(m.title + "\n")
	for _, f := range m.Failures {
		fmt.Fprintf(&b, "%s: %s\n", some(f.Nodes, f.More, mostNodes), f.how())
	}
	for _, l := range m.Output {
		b.WriteString(l + "\n")
	}
	return b.String()
}

// uuid returns a run's ID in the form of a UUID: its own 128 bits, if it has them.
func uuid(run string) string {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var b [16]byte
	whole := len(run) == 26
	var bits, have uint
	for i, at := 0, 0; i < len(run) && whole; i++ {
		v := strings.IndexByte(alphabet, run[i])
		if whole = v >= 0 && (i > 0 || v < 8); !whole {
			break
		}
		bits, have = bits<<5|uint(v), have+5
		if i == 0 {
			have = 3 // the first has two bits too many
		}
		for have >= 8 {
			have -= 8
			b[at] = byte(bits >> have)
			at++
		}
		bits &= 1<<have - 1
	}
	if !whole {
		sum := sha256.Sum256([]byte(run))
		copy(b[:], sum[:])
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
