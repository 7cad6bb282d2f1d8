package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // of the page
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsPage string

//go:embed docs.css
var docsStyle string

const docsIntro = `What the daemon remembers, and orders for it.

Requests and answers are JSON; times are in UTC, and one that is not known is left out. A request that fails is answered with a problem (RFC 9457), whose type is the same for each of a kind, and whose detail is a sentence for a person. Lists that can be long come in pages: next, if there is one, is a parameter of the request for the next page.

Over TCP a request needs a token (Authorization: Bearer …), whose role says what it may do: a viewer sees, an operator has jobs run, an admin may do all. Through the daemon's unix socket the system says who asks.`

// tags are the groups of operations, in the order in which they are shown.
func tags() []*huma.Tag {
	return []*huma.Tag{
		{Name: "daemon", Description: "The daemon as a whole."},
		{Name: "jobs", Description: "What runs when and where."},
		{Name: "runs", Description: "What ran, and what came of it."},
		{Name: "nodes", Description: "The machines that jobs run on."},
		{Name: "events", Description: "What happens, as it happens."},
		{Name: "manifest", Description: "What the files say, and what is wrong with it."},
		{Name: "tasks", Description: "What jobs can be made of."},
		{Name: "actions", Description: "What people did."},
		{Name: "tokens", Description: "Who may ask, and for what."},
		{Name: "notify", Description: "Who is told what happens."},
		{Name: "probes", Description: "For supervisors and Prometheus."},
	}
}

// document completes the document of what the server answers, once all of it is
// there: with what huma can't know.
func document(doc *huma.OpenAPI, metrics bool) {
	doc.Info.Description = docsIntro
	doc.Info.License = &huma.License{Name: "MIT", Identifier: "MIT"}
	doc.Servers = []*huma.Server{{URL: "/", Description: "This daemon"}}
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "Made by: loomd token create. Through the unix socket none is needed."},
	}
	doc.Security = []map[string][]string{{"token": {}}, {}} // none: through the socket
	probe(doc, "/healthz", "health", "Whether the process answers")
	probe(doc, "/readyz", "readiness", "Whether the daemon can work")
	if metrics {
		probe(doc, "/metrics", "metrics", "What happened, for Prometheus")
		doc.Paths["/metrics"].Get.Extensions = map[string]any{roleKey: RoleViewer}
	}

	doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	used := map[string]bool{}
	refs := doc.Components.Schemas.Map()
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			for _, tag := range op.Tags {
				used[tag] = true
			}
			if r := op.Responses["default"]; r != nil {
				r.Description = "A problem"
				for _, media := range r.Content {
					media.Schema = &huma.Schema{Ref: "#/components/schemas/Problem"}
				}
			}
		}
	}
	delete(refs, "ErrorModel") // problems are ours
	delete(refs, "ErrorDetail")
	for _, tag := range tags() {
		if used[tag.Name] {
			doc.Tags = append(doc.Tags, tag)
		}
		delete(used, tag.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		doc.Tags = append(doc.Tags, &huma.Tag{Name: name})
	}
}

// probe documents what is answered in plain text.
func probe(doc *huma.OpenAPI, path, id, summary string) {
	text := map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}
	problem := map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}}
	doc.AddOperation(&huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{"probes"},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: text}, "default": {Content: problem}}})
}

// operations returns a path's operations by method.
func operations(item *huma.PathItem) map[string]*huma.Operation {
	all := map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete}
	maps.DeleteFunc(all, func(_ string, op *huma.Operation) bool { return op == nil })
	return all
}

// docs adds the page that shows the document. It is one file, which loads nothing,
// and needs no program in the browser.
func (s *Server) docs(mux *http.ServeMux, doc *huma.OpenAPI) {
	page := sync.OnceValues(func() ([]byte, error) { return renderDocs(doc) })
	sum := sha256.Sum256([]byte(docsStyle))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
	mux.HandleFunc("GET /docs", func(w http.ResponseWriter, r *http.Request) {
		text, err := page()
		if err != nil {
			problem(fmt.Errorf("make the page: %w", err)).write(w)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		sum := sha256.Sum256(text)
		h.Set("ETag", strconv.Quote(base64.RawURLEncoding.EncodeToString(sum[:12])))
		h.Set("Cache-Control", "no-cache")
		if slices.Contains(strings.Split(r.Header.Get("If-None-Match"), ", "), h.Get("ETag")) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(text) // who asked has gone if this fails
	})
}

// A docsTag is a group of operations on the page.
type docsTag struct {
	*huma.Tag
	Operations []docsOperation
}

type docsOperation struct {
	*huma.Operation
	Role      Role
	Body      *huma.Schema
	Answers   []docsAnswer
	EventData []string // types
}

type docsAnswer struct {
	Status string
	Type   string
	*huma.Response
	Schema *huma.Schema
}

type docsType struct {
	Name   string
	Schema *huma.Schema
}

type docsProperty struct {
	Name     string
	Schema   *huma.Schema
	Required bool
}

func renderDocs(doc *huma.OpenAPI) ([]byte, error) {
	byTag := map[string][]docsOperation{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		ops := operations(doc.Paths[path])
		for _, method := range []string{"GET", "PUT", "POST", "PATCH", "DELETE"} {
			if op := ops[method]; op != nil && !op.Hidden {
				byTag[op.Tags[0]] = append(byTag[op.Tags[0]], docsOf(op))
			}
		}
	}
	var groups []docsTag
	for _, tag := range doc.Tags {
		if len(byTag[tag.Name]) > 0 {
			groups = append(groups, docsTag{tag, byTag[tag.Name]})
		}
	}
	var types []docsType
	schemas := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		types = append(types, docsType{name, schemas[name]})
	}
	t, err := template.New("docs").Funcs(template.FuncMap{
		"paragraphs": func(s string) []string { return strings.Split(s, "\n\n") },
		"type":       docsTypeOf, "properties": docsProperties, "limits": docsLimits, "lower": strings.ToLower,
		"ref": func(s *huma.Schema) string { return strings.TrimPrefix(s.Ref, "#/components/schemas/") },
	}).Parse(docsPage)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{"Info": doc.Info, "Groups": groups, "Types": types, "Style": template.CSS(docsStyle), "OpenAPI": doc.OpenAPI}) //nolint:gosec // it is a file of ours
	return b.Bytes(), err
}

func docsOf(op *huma.Operation) docsOperation {
	o := docsOperation{Operation: op}
	o.Role, _ = op.Extensions[roleKey].(Role)
	o.EventData, _ = op.Extensions[eventsKey].([]string)
	if op.RequestBody != nil {
		for _, media := range op.RequestBody.Content {
			o.Body = media.Schema
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		a := docsAnswer{Status: status, Response: r}
		for kind, media := range r.Content {
			a.Type, a.Schema = kind, media.Schema
		}
		o.Answers = append(o.Answers, a)
	}
	return o
}

// docsTypeOf returns a schema's type in a few words, with links.
func docsTypeOf(s *huma.Schema) template.HTML {
	if s == nil {
		return ""
	}
	word := template.HTMLEscapeString
	switch {
	case s.Ref != "":
		name := strings.TrimPrefix(s.Ref, "#/components/schemas/")
		return template.HTML(fmt.Sprintf(`<a href="#type-%s">%s</a>`, word(name), word(name))) //nolint:gosec // escaped
	case s.Type == huma.TypeArray:
		return "list of " + docsTypeOf(s.Items)
	case s.Type == huma.TypeObject:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			return "map to " + docsTypeOf(of)
		}
		return "object"
	case s.Format == "date-time":
		return "time"
	case s.ContentEncoding != "":
		return template.HTML(word(s.ContentEncoding)) //nolint:gosec // escaped
	case s.Type == "":
		return "anything"
	}
	return template.HTML(word(s.Type)) //nolint:gosec // escaped
}

// docsProperties returns an object's properties, those that are always there
// first.
func docsProperties(s *huma.Schema) []docsProperty {
	var all []docsProperty
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		all = append(all, docsProperty{name, s.Properties[name], slices.Contains(s.Required, name)})
	}
	slices.SortStableFunc(all, func(a, b docsProperty) int {
		switch {
		case a.Required == b.Required:
			return 0
		case a.Required:
			return -1
		}
		return 1
	})
	return all
}

// docsLimits says what is allowed of a value, beside its type.
func docsLimits(s *huma.Schema) string {
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if s.Default != nil {
		text, _ := json.Marshal(s.Default) // it came from JSON
		say("default %s", text)
	}
	if s.Minimum != nil {
		say("at least %v", *s.Minimum)
	}
	if s.Maximum != nil {
		say("at most %v", *s.Maximum)
	}
	if s.MinLength != nil && *s.MinLength > 0 {
		say("not empty")
	}
	if s.MaxLength != nil {
		say("at most %d characters", *s.MaxLength)
	}
	if len(s.Enum) > 0 {
		var values []string
		for _, v := range s.Enum {
			values = append(values, fmt.Sprint(v))
		}
		say("one of %s", strings.Join(values, ", "))
	}
	return strings.Join(parts, "; ")
}
