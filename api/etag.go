package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// tagged has answers to requests for what seldom changes bear an ETag, which says
// what they contain, so that who has an answer already need not get it again.
func tagged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !hasTag(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		kept := &keptAnswer{header: http.Header{}, status: http.StatusOK}
		next.ServeHTTP(kept, r)
		maps.Copy(w.Header(), kept.header)
		if kept.status == http.StatusOK {
			tag := kept.tag()
			w.Header().Set("ETag", tag)
			w.Header().Set("Cache-Control", "private, no-cache") // it may be kept, and must be asked about
			if matchesTag(r.Header.Values("If-None-Match"), tag) {
				w.Header().Del("Content-Type")
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		w.WriteHeader(kept.status)
		_, _ = w.Write(kept.text.Bytes()) // who asked has gone if this fails
	})
}

// hasTag reports whether answers about a path have an ETag.
func hasTag(path string) bool {
	rest, ours := strings.CutPrefix(path, Prefix)
	if !ours {
		return strings.HasPrefix(path, "/openapi")
	}
	return rest == "/jobs" || rest == "/nodes" || rest == "/schema" || rest == "/tasks" || strings.HasPrefix(rest, "/tasks/") ||
		rest == "/manifest" || strings.HasPrefix(rest, "/manifest/")
}

// matchesTag reports whether one of the tags in headers is this one, or any will do.
func matchesTag(headers []string, tag string) bool {
	for _, header := range headers {
		for one := range strings.SplitSeq(header, ",") {
			if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}

// documentTags adds to the document which operations have ETags.
func documentTags(doc *huma.OpenAPI) {
	for path, item := range doc.Paths {
		op := item.Get
		if op == nil || !hasTag(path) {
			continue
		}
		op.Parameters = append(op.Parameters, &huma.Param{Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "The ETag of an answer that is there already"})
		op.Responses["304"] = &huma.Response{Description: "It is as the answer with this ETag said"}
		if ok := op.Responses["200"]; ok != nil {
			if ok.Headers == nil {
				ok.Headers = map[string]*huma.Param{}
			}
			ok.Headers["ETag"] = &huma.Header{Schema: &huma.Schema{Type: huma.TypeString}, Description: "Says what the answer contains: send it with If-None-Match next time"}
		}
	}
}

// A keptAnswer keeps an answer, until it is known whether it is needed.
type keptAnswer struct {
	header http.Header
	status int
	text   bytes.Buffer
}

func (k *keptAnswer) Header() http.Header            { return k.header }
func (k *keptAnswer) WriteHeader(status int)         { k.status = status }
func (k *keptAnswer) Write(text []byte) (int, error) { return k.text.Write(text) }
func (k *keptAnswer) tag() string {
	sum := sha256.Sum256(k.text.Bytes())
	return strconv.Quote(base64.RawURLEncoding.EncodeToString(sum[:12]))
}
