package notify_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"

	"github.com/dustinlacewell/loom/notify"
)

// addresses are URLs of all services that connect to the host which they name.
func addresses(host string) map[string]string {
	return map[string]string{
		"bark":       "bark://key@" + host + "/",
		"generic":    "generic://" + host + "/x",
		"googlechat": "googlechat://" + host + "/v1/spaces/FOO/messages?key=bar&token=baz",
		"hangouts":   "hangouts://" + host + "/v1/spaces/FOO/messages?key=bar&token=baz",
		"gotify":     "gotify://" + host + "/Aaa.bbb.ccc.ddd",
		"matrix":     "matrix://user:password@" + host + "/?rooms=!a",
		"mattermost": "mattermost://" + host + "/token",
		"ntfy":       "ntfy://" + host + "/topic",
		"opsgenie":   "opsgenie://" + host + "/eb243592-faa2-4ba2-a551q-1afdf565c889",
		"pagerduty":  "pagerduty://" + host + ":443/0123456789abcdef0123456789abcdef",
		"rocketchat": "rocketchat://" + host + "/tokenA/tokenB/channel",
		"signal":     "signal://" + host + "/+1234567890/+0987654321",
		"smtp":       "smtp://" + host + "/?from=a@example.org&to=b@example.org",
		"zulip":      "zulip://bot%40example.org:token@" + host + "/?stream=a&topic=b",
	}
}

// elsewhere are services whose hosts the library knows.
const elsewhere = " discord ifttt join lark logger notifiarr pushbullet pushover slack teams telegram wecom "

// Whatever service a chat is of, it is not sent where a webhook would not be.
func TestGuardOfChats(t *testing.T) {
	var targets strings.Builder
	all := addresses("169.254.169.254")
	for _, scheme := range new(router.ServiceRouter).ListServices() {
		switch address, ok := all[scheme]; {
		case ok:
			fmt.Fprintf(&targets, "  %s: {chat: '%s'}\n", scheme, address)
		case !strings.Contains(elsewhere, " "+scheme+" "):
			t.Errorf("the library has a service %q that no test knows of: say in hostNamed where it connects to", scheme)
		}
	}
	c := start(t, manifest(t, targets.String()), t.TempDir())
	for scheme := range all {
		want := `169.254.169.254 leads to 169.254.169.254, which is of this link, where clouds have their metadata service: add it to allow (allow: ["169.254.169.254"] under chat) if that is meant`
		if _, err := c.Test(t.Context(), scheme, ""); err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%s: %v\nwant %s", scheme, err, want)
		}
	}
}

// What a chat is allowed is as it is with a webhook, and a mistake in it is told.
func TestAllowedChat(t *testing.T) {
	url, requests := listen(t, nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	one := "{url: 'ntfy://0.0.0.0:" + port + "/topic?scheme=http'"
	c := start(t, manifest(t, "  no: {chat: "+one+"}}\n  yes: {chat: "+one+", allow: [0.0.0.0/8]}}\n"), t.TempDir())
	if _, err := c.Test(t.Context(), "no", ""); err == nil || !strings.Contains(err.Error(), `add it to allow (allow: ["0.0.0.0"] under chat)`) {
		t.Errorf("without allow: %v", err)
	}
	_, _ = c.Test(t.Context(), "yes", "") // the answer is no JSON
	if r := next(t, requests); r.path != "/topic" {
		t.Errorf("it came to %s", r.path)
	}
	want := `loom.yaml:4:44: notify.x.chat.allow: "here" is neither an address nor a network such as 10.0.0.0/8`
	if _, err := readManifest(t, "  x: {chat: {url: 'ntfy://y/topic', allow: [here]}}\n"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a mistake gives %v\nwant %s", err, want)
	}
}

// Services to which the library lets Loom's client are not led on by a redirect.
func TestGuardOfRedirects(t *testing.T) {
	s := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest", http.StatusTemporaryRedirect))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	c := start(t, manifest(t, fmt.Sprintf("  a: {chat: 'ntfy://%s/topic?scheme=http'}\n  b: {chat: 'gotify://%s/Aaa.bbb.ccc.ddd?disabletls=yes'}\n  c: {chat: 'mattermost://%s/token?disabletls=yes'}\n", host, host, host)), t.TempDir())
	for _, name := range []string{"a", "b", "c"} {
		if _, err := c.Test(t.Context(), name, ""); err == nil || !strings.Contains(err.Error(), ": 127.0.0.1 leads to 169.254.169.254, ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Reading a configuration connects to nobody, and a server that is down is no
// mistake in it: Matrix is logged in to when there are news.
func TestMatrixLogsInWhenThereAreNews(t *testing.T) {
	var asked, logins atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case n == 1:
			w.WriteHeader(http.StatusBadGateway)
		case strings.HasSuffix(r.URL.Path, "/login") && r.Method == http.MethodGet:
			fmt.Fprint(w, `{"flows":[{"type":"m.login.password"}]}`)
		case strings.HasSuffix(r.URL.Path, "/login"):
			logins.Add(1)
			fmt.Fprint(w, `{"access_token":"abc"}`)
		default:
			fmt.Fprint(w, `{"joined_rooms":["!a:b"],"event_id":"x","room_id":"!a:b"}`)
		}
	}))
	t.Cleanup(s.Close)
	m := manifest(t, fmt.Sprintf("  x: {chat: 'matrix://user:geheim-password@%s/?disableTLS=yes'}\n", strings.TrimPrefix(s.URL, "http://")))
	if err := notify.Check(m.Config); err != nil {
		t.Error(err)
	}
	if n := asked.Load(); n > 0 {
		t.Fatalf("reading it asked the server %d times", n)
	}
	c := start(t, m, t.TempDir())
	if _, err := c.Test(t.Context(), "x", ""); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("with the server down: %v", err)
	}
	for range 2 {
		if _, err := c.Test(t.Context(), "x", ""); err != nil {
			t.Error(err)
		}
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("%d logins", n)
	}
}
