package notify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/googlechat"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/mattermost"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/rocketchat"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/signal"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/teams"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/zulip"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/email/smtp"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/incident/opsgenie"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/incident/pagerduty"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/bark"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/gotify"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/ntfy"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/specialized/generic"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
)

// hostNamed returns the host that a service connects to, or "" if that is not up to
// its URL. A service that nothing is known of is refused: it can't be guarded.
func hostNamed(scheme string, s types.Service) (string, error) {
	switch s := s.(type) {
	case *bark.Service:
		return hostname(s.Config.Host), nil
	case *generic.Service:
		return hostname(s.Config.WebhookURL().Host), nil
	case *googlechat.Service:
		return hostname(s.Config.Host), nil
	case *gotify.Service:
		return hostname(s.Config.Host), nil
	case *mattermost.Service:
		return hostname(s.Config.Host), nil
	case *ntfy.Service:
		return hostname(s.Config.Host), nil
	case *opsgenie.Service:
		return hostname(s.Config.Host), nil
	case *pagerduty.Service:
		return hostname(s.Config.Host), nil
	case *rocketchat.Service:
		return hostname(s.Config.Host), nil
	case *signal.Service:
		return hostname(s.Config.Host), nil
	case *smtp.Service:
		return hostname(s.Config.Host), nil
	case *teams.Service:
		return hostname(s.Config.Host), nil
	case *zulip.Service:
		return hostname(s.Config.Host), nil
	}
	switch scheme {
	case "discord", "ifttt", "join", "lark", "logger", "notifiarr", "pushbullet", "pushover", "slack", "telegram", "wecom":
		return "", nil
	}
	return "", fmt.Errorf("nothing is known here of where %s connects to: use a webhook", scheme)
}

// hostname returns a host without its port.
func hostname(host string) string {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return a.String()
	}
	return (&url.URL{Host: host}).Hostname()
}

// look resolves the host and returns why one of its addresses is refused, or nil.
// It is all there is for services to which the library lets no client of others:
// a name that leads elsewhere a moment later, or a redirect, gets past it. A name
// that can't be resolved is for the library to report, or for a proxy to know.
func (g *guard) look(ctx context.Context) error {
	if g == nil || g.host == "" {
		return nil
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", g.host)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	for _, a := range all {
		if err := g.refuse(a); err != nil {
			return err
		}
	}
	return nil
}

// lead has a service connect through the guard, if the library lets it.
func (g *guard) lead(s types.Sender) {
	switch s := s.(type) {
	case *gotify.Service:
		s.GetHTTPClient().Transport = g.transport(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Config.InsecureSkipVerify}) //nolint:gosec // as its URL says
	case *mattermost.Service:
		s.GetHTTPClient().Transport = g.transport(&tls.Config{MinVersion: tls.VersionTLS12})
	case *ntfy.Service:
		s.SetHTTPClient(&http.Client{Timeout: ntfy.HTTPTimeout * time.Second,
			Transport: g.transport(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Config.DisableTLSVerification})}) //nolint:gosec // as its URL says
	case *pagerduty.Service:
		if !proxied(s.Config.Host) {
			s.SetHTTPClient(&http.Client{Timeout: 30 * time.Second, Transport: g.transport(&tls.Config{MinVersion: tls.VersionTLS12})})
		}
	case *rocketchat.Service:
		if !proxied(s.Config.Host) {
			s.Client.Transport = g.transport(&tls.Config{MinVersion: tls.VersionTLS12})
		}
	}
}

// proxied reports whether the environment has a proxy connect to a host, as the
// library heeds it for some services.
func proxied(host string) bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	return proxy != nil || err != nil
}
