package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Pause keeps a job from being fired, except by hand, until a time; zero is until it
// is resumed. The error wraps loom.ErrNotFound if the store knows no such job.
func (c *Client) Pause(ctx context.Context, job string, until time.Time, why string) error {
	var done Done
	return c.do(ctx, request{method: http.MethodPut, path: "/jobs/" + url.PathEscape(job) + "/pause", again: true, body: struct {
		Until time.Time `json:"until,omitzero"`
		Why   string    `json:"why,omitempty"`
	}{utc(until), why}}, &done)
}

// Resume is the reverse of Pause.
func (c *Client) Resume(ctx context.Context, job, why string) error {
	v := values{}
	v.text("why", why)
	var done Done
	return c.do(ctx, request{method: http.MethodDelete, path: "/jobs/" + url.PathEscape(job) + "/pause", query: url.Values(v), again: true}, &done)
}

// Manifest tells what the manifest in force is made of.
func (c *Client) Manifest(ctx context.Context) (ManifestInfo, error) {
	return fetch[ManifestInfo](ctx, c, "/manifest", nil)
}

// Problems returns what is wrong with the files: severity is error, warning or "" for
// both.
func (c *Client) Problems(ctx context.Context, severity string) ([]ManifestProblem, error) {
	v := values{}
	v.text("severity", severity)
	return whole[ManifestProblem](ctx, c, "/manifest/problems", v)
}

// Sources returns the files that the manifest was read from, without their texts.
func (c *Client) Sources(ctx context.Context) ([]Source, error) {
	return whole[Source](ctx, c, "/manifest/sources", values{})
}

// Source returns one of them with its text, in which there are no secrets. The error
// wraps loom.ErrNotFound if the manifest was not read from it.
func (c *Client) Source(ctx context.Context, file string) (Source, error) {
	v := values{}
	v.text("file", file)
	p, err := fetch[Page[Source]](ctx, c, "/manifest/sources", url.Values(v))
	if err != nil || len(p.Items) == 0 {
		return Source{}, err
	}
	return p.Items[0], nil
}

// Tasks returns the tasks that manifests can use, by name.
func (c *Client) Tasks(ctx context.Context) ([]TaskInfo, error) {
	p, err := fetch[Page[TaskInfo]](ctx, c, "/tasks", nil)
	return p.Items, err
}

// Task returns the task of a name or alias. The error wraps loom.ErrNotFound, and says
// what may have been meant, if there is none.
func (c *Client) Task(ctx context.Context, name string) (TaskInfo, error) {
	return fetch[TaskInfo](ctx, c, "/tasks/"+url.PathEscape(name), nil)
}

// Schema returns the JSON Schema of manifests that use the daemon's tasks.
func (c *Client) Schema(ctx context.Context) (json.RawMessage, error) {
	return fetch[json.RawMessage](ctx, c, "/schema", nil)
}

// whole returns all of a list, page by page.
func whole[T any](ctx context.Context, c *Client, path string, v values) ([]T, error) {
	var all []T
	for {
		p, err := fetch[Page[T]](ctx, c, path, url.Values(v))
		all = append(all, p.Items...)
		if err != nil || p.Next == "" {
			return all, err
		}
		v["cursor"] = []string{p.Next}
	}
}
