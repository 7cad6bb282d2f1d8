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
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// chatLength is how much is said in a chat: services cut off, or refuse, more.
const chatLength = 1800

// A chatSpec is a chat, or another service, as shoutrrr writes them.
type chatSpec struct {
	URL loom.Secret `yaml:"url" loom:"required" help:"such as slack://..., discord://..., ntfy://ntfy.sh/topic"`
}

// DecodeNode reads a URL, or a mapping.
func (s *chatSpec) DecodeNode(n *yaml.Node) []bind.Problem { return short(n, s, &s.URL) }

// A chat says news in a chat.
type chat struct {
	scheme  string
	service types.Sender
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
	located, err := locate.Locate(address)
	if err != nil {
		r.wrong("chat.url", "%s: %v", scheme, c.conceal(err))
		return nil, ""
	}
	c.service = located
	return c, scheme + "://…"
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
		params := types.Params{"title": title}
		ended <- c.service.Send(c.words(title, text), &params)
	}()
	select {
	case err := <-ended:
		if err != nil {
			return "", c.conceal(err)
		}
		return "accepted", nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
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
