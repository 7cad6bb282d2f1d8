package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// The page has all operations and types of the document, loads nothing, and lets
// nothing be done with it.
func TestDocs(t *testing.T) {
	c, _ := serve(t, &api.Server{Store: &memory.Store{}, Version: `1<&>"2`, Feed: &api.Feed{}, Metrics: &api.Metrics{}})
	get := func(etag string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://loomd/docs", nil)
		if err != nil {
			t.Fatal(err)
		}
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		answer, err := wire(t, c).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer, string(text)
	}
	answer, page := get("")
	if kind := answer.Header.Get("Content-Type"); answer.StatusCode != 200 || kind != "text/html; charset=utf-8" {
		t.Fatalf("%d %s: %s", answer.StatusCode, kind, page)
	}
	if again, text := get(answer.Header.Get("ETag")); again.StatusCode != http.StatusNotModified || text != "" {
		t.Errorf("asked for again: %d %.100s", again.StatusCode, text)
	}
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(page)
	sum := sha256.Sum256([]byte(style[1]))
	hash := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	if policy := answer.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'; "+hash) {
		t.Errorf("the policy %q has not %s", policy, hash)
	}
	if found := regexp.MustCompile(`<script|<link|<img|<iframe| style=| on\w+=|url\(|@import|(src|href)="[^#/]`).FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	if !strings.Contains(page, "1&lt;&amp;&gt;&#34;2") {
		t.Error("the version is not escaped")
	}

	_, _, text := ask(t, c, "GET", "/openapi.json", "")
	var doc struct {
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("id %s is twice on the page", m[1])
		}
		ids[m[1]] = true
	}
	for path, item := range doc.Paths {
		for method, op := range item {
			if !ids[op.OperationID] || !strings.Contains(page, fmt.Sprintf(`href="#%s">%s</a>`, op.OperationID, path)) {
				t.Errorf("%s %s is not on the page", method, path)
			}
		}
	}
	for name := range doc.Components.Schemas {
		if !ids["type-"+name] {
			t.Errorf("type %s is not on the page", name)
		}
	}
	for _, m := range regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !ids[m[1]] {
			t.Errorf("a link to #%s leads nowhere", m[1])
		}
	}
}
