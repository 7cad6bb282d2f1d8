package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/dustinlacewell/loom"
)

// An emailSpec is addresses, and a server that mail is handed to.
type emailSpec struct {
	To       []string      `loom:"required" help:"who gets it"`
	From     string        `help:"who sends it; default: loom at this machine's name"`
	Server   string        `loom:"required" help:"HOST or HOST:PORT that takes mail"`
	TLS      tlsSpec       `yaml:"tls" help:"starttls, tls from the beginning (the usual at port 465), or none"`
	User     string        `help:"logs in to the server"`
	Password loom.Secret   `help:"its password"`
	Helo     string        `help:"what to call this machine"`
	CA       string        `yaml:"ca" help:"file of certificates to trust instead of the system's"`
	Timeout  time.Duration `help:"time for one attempt"`
}

type tlsSpec string

// UnmarshalText reads one of three words.
func (s *tlsSpec) UnmarshalText(text []byte) error {
	switch *s = tlsSpec(text); *s {
	case "starttls", "tls", "none":
		return nil
	}
	return fmt.Errorf("write starttls, tls or none, not %q", text)
}

// An email mails news.
type email struct {
	host    string
	options []gomail.Option
	from    string
	domain  string // after the @ of the sender
	to      []string
}

func (s *emailSpec) sender(r *reading, t *target) (sender, string) {
	e := &email{from: s.From, to: s.To}
	host, port := r.server(s)
	e.host = host
	if s.TLS == "" {
		s.TLS = "starttls"
		if port == 465 {
			s.TLS = "tls"
		}
	}
	local := host == "localhost"
	if ip := net.ParseIP(host); ip != nil {
		local = ip.IsLoopback()
	}
	if s.TLS == "none" && s.Password != "" && !local {
		r.wrong("email.tls", "the password would go over the network for all to read: write starttls or tls")
	}
	if (s.User == "") != (s.Password == "") {
		r.wrong("email", "write both user and password, or neither")
	}
	if name, err := os.Hostname(); err == nil && e.from == "" {
		e.from = "loom@" + name
	}
	if from, err := mail.ParseAddress(e.from); err != nil {
		r.wrong("email.from", "%q is no address: %s", e.from, strings.TrimPrefix(err.Error(), "mail: "))
	} else {
		_, e.domain, _ = strings.Cut(from.Address, "@")
	}
	for _, to := range s.To {
		if _, err := mail.ParseAddress(to); err != nil {
			r.wrong("email.to", "%q is no address: %s", to, strings.TrimPrefix(err.Error(), "mail: "))
		}
	}
	if len(s.To) == 0 {
		r.wrong("email.to", "write an address")
	}
	if s.Timeout < 0 || s.Timeout > 5*time.Minute {
		r.wrong("email.timeout", "write a duration up to 5m")
	} else if s.Timeout > 0 {
		t.time = s.Timeout
	}
	e.options = r.mailOptions(s, host, port, t.time)
	return e, strings.Join(s.To, ", ")
}

// server returns the host and port of a mail server.
func (r *reading) server(s *emailSpec) (host string, port int) {
	host, port = s.Server, 587
	if s.TLS == "tls" {
		port = 465
	}
	if h, p, err := net.SplitHostPort(s.Server); err == nil {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			r.wrong("email.server", "%q is no port", p)
			return h, port
		}
		host, port = h, n
	}
	if host == "" || strings.ContainsAny(host, "/ ") {
		r.wrong("email.server", "write HOST or HOST:PORT, not %q", s.Server)
	}
	return host, port
}

func (r *reading) mailOptions(s *emailSpec, host string, port int, limit time.Duration) []gomail.Option {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if s.CA != "" {
		config.RootCAs = r.pool("email.ca", s.CA)
	}
	all := []gomail.Option{gomail.WithTimeout(limit), gomail.WithTLSConfig(config)}
	switch s.TLS {
	case "tls":
		all = append(all, gomail.WithSSL())
	case "none":
		all = append(all, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		all = append(all, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	all = append(all, gomail.WithPort(port))
	if s.Helo != "" {
		all = append(all, gomail.WithHELO(s.Helo))
	}
	if s.User != "" {
		all = append(all, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(s.User), gomail.WithPassword(string(s.Password)))
	}
	return all
}

func (e *email) send(ctx context.Context, m message) (string, error) {
	msg, err := e.message(m)
	if err != nil {
		return "", &refusal{err: err, only: true, final: true}
	}
	client, err := gomail.NewClient(e.host, e.options...)
	if err != nil {
		return "", &refusal{err: err}
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if refused, ok := errors.AsType[*gomail.SendError](err); ok {
			return "", &refusal{err: err, only: !refused.IsTemp()}
		}
		return "", err
	}
	if said := msg.ServerResponse(); said != "" {
		return newCleaner(nil).line(said, answerShown), nil
	}
	return "the server took it", nil
}

// message makes a mail, in plain text and in HTML. Those about one job are one
// thread.
func (e *email) message(m message) (*gomail.Msg, error) {
	msg := gomail.NewMsg()
	if err := msg.From(e.from); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	if err := msg.To(e.to...); err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	msg.Subject("[loom] " + m.title)
	msg.SetMessageIDWithValue(m.ID + "@" + e.domain)
	msg.SetDateWithValue(m.Time)
	if m.Job != nil {
		thread := "<" + newID("thread", m.Job.Name) + "@" + e.domain + ">"
		msg.SetGenHeader(gomail.HeaderInReplyTo, thread)
		msg.SetGenHeader(gomail.HeaderReferences, thread)
		msg.SetGenHeader("X-Loom-Job", m.Job.Name)
	}
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // no machine shall answer
	msg.SetGenHeader("X-Loom-Kind", string(m.Kind))
	msg.SetUserAgent(agent())
	if m.Kind.bad() {
		msg.SetImportance(gomail.ImportanceHigh)
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.text)
	page, err := htmlPage(m)
	if err != nil {
		return nil, err
	}
	msg.AddAlternativeString(gomail.TypeTextHTML, page)
	return msg, nil
}

// htmlPage is a message in HTML. It loads nothing.
func htmlPage(m message) (string, error) {
	const page = `<!doctype html><html><body style="font:15px/1.45 system-ui,sans-serif;color:#1c2024;max-width:46em">
<p style="margin:0 0 1em;padding:.5em .8em;border-left:4px solid {{.Colour}};background:#f6f7f8"><b>{{.Title}}</b></p>
<pre style="font:13px/1.45 ui-monospace,monospace;white-space:pre-wrap">{{.Text}}</pre>
{{with .Runbook}}<p><a href="{{.}}">Runbook</a></p>{{end}}</body></html>
`
	t, err := template.New("mail").Parse(page)
	if err != nil {
		return "", err
	}
	colour := "#2f7d4f"
	if m.Kind.bad() {
		colour = "#b3261e"
	}
	data := struct{ Title, Text, Colour, Runbook string }{m.title, strings.TrimPrefix(m.text, m.title+"\n"), colour, ""}
	if m.Job != nil && (strings.HasPrefix(m.Job.Runbook, "https://") || strings.HasPrefix(m.Job.Runbook, "http://")) {
		data.Runbook = m.Job.Runbook
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", err
	}
	return b.String(), nil
}
