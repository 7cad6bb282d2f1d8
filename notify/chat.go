package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/matrix"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// chatLength is how much is said in a chat: services cut off, or refuse, more.
const chatLength = 1800

// A chatSpec is a chat, or another service, as shoutrrr writes them.
type chatSpec struct {
	URL   loom.Secret `yaml:"url" loom:"required" help:"such as slack://..., discord://..., ntfy://ntfy.sh/topic"`
	Allow []string    `help:"addresses, or networks, that are refused otherwise: 127.0.0.1, 169.254.0.0/16"`
}

// DecodeNode reads a URL, or a mapping.
func (s *chatSpec) DecodeNode(n *yaml.Node) []bind.Problem { return short(n, s, &s.URL) }

// A chat says news in a chat.
type chat struct {
	scheme  string
	service types.Sender // nil until there is one
	open    func() (types.Sender, error)
	guard   *guard        // of the host that its URL names; nil if it names none
	hide    []string      // the parts of its URL in which there may be secrets
	busy    chan struct{} // holds one while a message is on its way
}

func (s *chatSpec) sender(r *reading, _ *target) (sender, string) {
	address := string(s.URL)
	c := &chat{hide: parts(address), busy: make(chan struct{}, 1)}
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok || scheme == "" || rest == "" || strings.ContainsAny(address, " \t\r\n") {
		r.wrong("chat.url", "write a URL such as slack://, discord:// or ntfy:// with what belongs to it")
		return nil, ""
	}
	locate := &router.ServiceRouter{}
	known := locate.ListServices()
	slices.Sort(known)
	c.scheme, _, _ = strings.Cut(scheme, "+")
	if !slices.Contains(known, c.scheme) {
		hint := ": known are " + strings.Join(known, ", ")
		if near := bind.Nearest(c.scheme, slices.Values(known)); near != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", near)
		}
		r.wrong("chat.url", "there is no service %q%s", c.scheme, hint)
		return nil, ""
	}
	host, err := c.locate(locate, address)
	if err != nil {
		r.wrong("chat.url", "%s: %v", scheme, c.conceal(err))
		return nil, ""
	}
	g := r.guard("chat", host, s.Allow)
	if host != "" {
		c.guard = g
		g.lead(c.service)
	}
	return c, scheme + "://…"
}

// locate sets the service, and returns the host that the URL names.
func (c *chat) locate(r *router.ServiceRouter, address string) (string, error) {
	if c.scheme == "matrix" { // the library logs in when it is given the URL, which is for when there are news
		u, err := url.Parse(address)
		if err != nil {
			return "", bare(err)
		}
		var config matrix.Config
		if err := config.SetURL(u); err != nil {
			return "", err
		}
		c.open = func() (types.Sender, error) { return r.Locate(address) }
		return hostname(config.Host), nil
	}
	s, err := r.Locate(address)
	if err != nil {
		return "", err
	}
	c.service = s
	return hostNamed(c.scheme, s)
}

// parts returns what of a URL must not be told.
func parts(address string) []string {
	all := []string{address}
	_, rest, _ := strings.Cut(address, "://")
	for _, p := range regexp.MustCompile(`[/@:?&=,]+`).Split(rest, -1) {
		if len(p) >= 6 {
			all = append(all, p)
			if plain, err := url.QueryUnescape(p); err == nil && plain != p {
				all = append(all, plain)
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}

// conceal returns an error without what must not be told.
func (c *chat) conceal(err error) error {
	text := err.Error()
	for _, p := range c.hide {
		text = strings.ReplaceAll(text, p, "…")
	}
	return errors.New(newCleaner(nil).line(text, reasonLength))
}

func (c *chat) send(ctx context.Context, m message) (string, error) {
	if err := c.guard.look(ctx); err != nil {
		return "", err
	}
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("the message before is still on its way: %w", context.Cause(ctx))
	}
	text := quiet(cut(strings.TrimSpace(strings.TrimPrefix(m.text, m.title+"\n")), chatLength))
	title := quiet(m.title)
	ended := make(chan error, 1)
	go func() { // the library can't be interrupted: nobody waits for it then, and the next message does
		defer func() { <-c.busy }()
		defer func() {
			if v := recover(); v != nil {
				ended <- fmt.Errorf("the library that sends it panicked: %v", v)
			}
		}()
		ended <- c.say(title, text)
	}()
	select {
	case err := <-ended:
		if refused, ok := errors.AsType[*guardError](err); ok {
			return "", refused // which tells no more of the URL than its host
		}
		if err != nil {
			return "", c.conceal(err)
		}
		return "accepted", nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// say has the library say it. Only one may be under way.
func (c *chat) say(title, text string) error {
	if c.service == nil {
		s, err := c.open()
		if err != nil {
			return err
		}
		c.service = s
	}
	err := c.service.Send(c.words(title, text), &types.Params{"title": title})
	if err != nil && c.open != nil {
		c.service = nil // what it was let in with may have ended
	}
	return err
}

// words is what is said: services that show no title get it in the text.
func (c *chat) words(title, text string) string {
	switch c.scheme {
	case "discord", "gotify", "ntfy", "pushover", "pushbullet", "join", "bark", "teams", "smtp", "opsgenie", "pagerduty":
		if text != "" {
			return text
		}
	}
	return strings.TrimSpace(title + "\n\n" + text)
}

// quiet keeps what a job has printed from calling everybody.
func quiet(s string) string {
	return strings.NewReplacer("@everyone", "@\u200beveryone", "@here", "@\u200bhere", "@channel", "@\u200bchannel", "@all", "@\u200ball",
		"<!", "<\u200b!", "<@", "<\u200b@").Replace(s)
}
