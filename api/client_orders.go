package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/dustinlacewell/loom"
)

// Exec has the daemon run a command on nodes, and returns the run, whose job is
// loom.ExecJob, without waiting for its end. A key that is not empty starts one run,
// however often it is sent; the error says so if it was used for another command.
func (c *Client) Exec(ctx context.Context, e Exec, key string) (loom.Run, error) {
	var r Run
	err := c.do(ctx, request{method: http.MethodPost, path: "/exec", key: key, body: e}, &r)
	return r.Loom(), err
}

// Retry runs the job of a run again on the same nodes, or only on those where it did
// not end well. For key see Exec.
func (c *Client) Retry(ctx context.Context, run string, failed bool, key string) (loom.Run, error) {
	var r Run
	err := c.do(ctx, request{method: http.MethodPost, path: "/runs/" + url.PathEscape(run) + "/retry", key: key,
		body: map[string]bool{"failed": failed}}, &r)
	return r.Loom(), err
}

// ShowRun is Run with what was said by who asked for it.
func (c *Client) ShowRun(ctx context.Context, id string) (Run, error) {
	return fetch[Run](ctx, c, "/runs/"+url.PathEscape(id), nil)
}

// Ping has the daemon try to reach a node. That it can't be reached is no error.
func (c *Client) Ping(ctx context.Context, node string) (Ping, error) {
	return order[Ping](ctx, c, "/nodes/"+url.PathEscape(node)+"/ping", nil, true)
}

// HostKeys asks a node for its host keys.
func (c *Client) HostKeys(ctx context.Context, node string) ([]HostKey, error) {
	p, err := fetch[Page[HostKey]](ctx, c, "/nodes/"+url.PathEscape(node)+"/hostkeys", nil)
	return p.Items, err
}

// Trust records host keys that a node shows: those of these fingerprints, or all. It
// returns those that were new.
func (c *Client) Trust(ctx context.Context, node string, fingerprints ...string) ([]HostKey, error) {
	p, err := order[Page[HostKey]](ctx, c, "/nodes/"+url.PathEscape(node)+"/hostkeys", struct {
		Fingerprints []string `json:"fingerprints,omitempty"`
	}{fingerprints}, true)
	return p.Items, err
}
