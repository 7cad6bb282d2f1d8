package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Notifications is what a Server needs of whoever tells people what happens. It is
// safe for concurrent use.
type Notifications interface {
	// NotifyTargets says how things stand with all targets, by name. It does not
	// block.
	NotifyTargets() []NotifyTarget

	// NotifyTest sends a test to a target, for by. The error wraps
	// loom.ErrNotFound if there is no such target; that a test did not arrive is no
	// error.
	NotifyTest(ctx context.Context, name, by string) (NotifyTest, error)
}

// A NotifyTarget is how things stand with one who is told what happens.
type NotifyTarget struct {
	Name    string   `json:"name" doc:"Under notify in the main file"`
	Kind    string   `json:"kind" doc:"webhook, email, chat, exec or ping; empty: it is not in the manifest any more, and something waits for it"`
	To      string   `json:"to" doc:"Where news go, without what is secret of it"`
	On      []string `json:"on" doc:"What it hears of, if a job does not say"`
	Default bool     `json:"default,omitempty" doc:"It hears of jobs that name nobody, and of nodes, manifests and the store"`
	File    string   `json:"file,omitempty" doc:"Where it is defined"`
	Line    int      `json:"line,omitempty" doc:"And at which line"`

	Delivered   int       `json:"delivered" doc:"How many news were"`
	DeliveredAt time.Time `json:"delivered_at,omitzero" doc:"When the last was"`
	Title       string    `json:"title,omitempty" doc:"Of the last"`
	Answer      string    `json:"answer,omitempty" doc:"Of the other side"`

	Pending  int       `json:"pending" doc:"News that wait"`
	Oldest   time.Time `json:"oldest,omitzero" doc:"Since when the first of them does"`
	Attempts int       `json:"attempts,omitempty" doc:"Of the first"`
	Next     time.Time `json:"next,omitzero" doc:"When it is tried again"`
	FailedAt time.Time `json:"failed_at,omitzero" doc:"The last attempt that was in vain"`
	Error    string    `json:"error,omitempty" doc:"And why; left out: something was delivered since"`

	Lost []LostNews `json:"lost" doc:"The last news that were given up, newest first"`
}

// LostNews are news that were given up.
type LostNews struct {
	ID    string    `json:"id" doc:"The same whenever they were tried"`
	Title string    `json:"title" doc:"Their first line"`
	Time  time.Time `json:"time" doc:"When they were given up"`
	Error string    `json:"error" doc:"Why"`
}

// A NotifyTest is what came of a test.
type NotifyTest struct {
	Name   string  `json:"name" doc:"Of the target"`
	Kind   string  `json:"kind" doc:"webhook, email, chat, exec or ping"`
	To     string  `json:"to" doc:"Where it went, without what is secret of it"`
	OK     bool    `json:"ok" doc:"The other side took it"`
	Answer string  `json:"answer,omitempty" doc:"What the other side said"`
	Error  string  `json:"error,omitempty" doc:"Why it did not arrive"`
	Took   float64 `json:"took" doc:"Seconds"`
}

// notify adds what concerns those who are told what happens. It needs no store.
func (s *Server) notify(api huma.API) {
	get(api, "/notify", "notify", "list-notify", "Who is told what happens, and what waits to be delivered", func(context.Context, *struct{}) (Page[NotifyTarget], error) {
		if s.Notifications == nil {
			return Page[NotifyTarget]{}, s.alone("tell anybody")
		}
		return Page[NotifyTarget]{Items: list(s.Notifications.NotifyTargets(), func(t NotifyTarget) NotifyTarget { return t })}, nil
	})
	type one struct {
		Name string `path:"target" doc:"Its name"`
	}
	post(api, "/notify/{target}/test", "notify", "test-notify", "Send a test to a target, and say what the other side answers", func(ctx context.Context, in *one) (NotifyTest, error) {
		if s.Notifications == nil {
			return NotifyTest{}, s.alone("tell anybody")
		}
		return s.Notifications.NotifyTest(ctx, in.Name, caller(ctx).Name)
	})
}

// Notifications returns how things stand with those who are told what happens.
func (c *Client) Notifications(ctx context.Context) ([]NotifyTarget, error) {
	p, err := fetch[Page[NotifyTarget]](ctx, c, "/notify", nil)
	return p.Items, err
}

// TestNotification sends a test to a target. The error wraps loom.ErrNotFound if
// there is none of this name; that the test did not arrive is no error.
func (c *Client) TestNotification(ctx context.Context, name string) (NotifyTest, error) {
	var out NotifyTest
	err := c.do(ctx, request{method: http.MethodPost, path: "/notify/" + url.PathEscape(name) + "/test"}, &out)
	return out, err
}
