package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/store/memory"
)

func TestRoles(t *testing.T) {
	for _, tt := range []struct {
		has, needs Role
		want       bool
	}{
		{RoleViewer, RoleViewer, true}, {RoleViewer, RoleOperator, false}, {RoleViewer, RoleAdmin, false},
		{RoleOperator, RoleViewer, true}, {RoleOperator, RoleOperator, true}, {RoleOperator, RoleAdmin, false},
		{RoleAdmin, RoleAdmin, true}, {"", RoleViewer, false}, {"", "", false}, {RoleAdmin, "", false}, {"root", RoleViewer, false},
	} {
		if got := tt.has.May(tt.needs); got != tt.want {
			t.Errorf("%q.May(%q) = %v", tt.has, tt.needs, got)
		}
	}
	if _, err := ParseRole("root"); err == nil || !strings.Contains(err.Error(), "viewer, operator or admin") {
		t.Errorf("ParseRole(root): %v", err)
	}
}

// An answered is what an operation of the document answers somebody.
type answered struct {
	method, path string
	least        Role
	status       int
	text         string
}

// askAll sends each operation of the document, with a body that is empty, as p.
func askAll(t *testing.T, s *Server, p Principal) []answered {
	t.Helper()
	h := s.routes(t.Context().Done())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/openapi.json", nil))
	var doc struct {
		Paths map[string]map[string]struct {
			Role Role `json:"x-loom-role"`
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	var all []answered
	for path, item := range doc.Paths {
		if !strings.HasPrefix(path, Prefix) {
			continue // what supervisors ask is for all
		}
		for method, op := range item {
			method, path := strings.ToUpper(method), regexp.MustCompile(`{\w+}`).ReplaceAllString(path, "x")
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(withPrincipal(t.Context(), p), method, path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(w, r)
			all = append(all, answered{method, path, op.Role, w.Code, w.Body.String()})
		}
	}
	if len(all) < 15 {
		t.Fatalf("the document has %d operations", len(all))
	}
	return all
}

// Each operation is for those who have its role, and only for them; what changes
// something is never for viewers.
func TestOperationsKnowTheirRoles(t *testing.T) {
	s := &Server{Store: &memory.Store{}, Log: slog.New(slog.DiscardHandler)}
	for _, role := range append([]Role{"", "root"}, Roles()...) {
		for _, a := range askAll(t, s, Principal{Name: "ann", Role: role}) {
			if !RoleAdmin.May(a.least) || !safe(a.method) && RoleViewer.May(a.least) {
				t.Errorf("%s %s is for the role %q", a.method, a.path, a.least)
			}
			if refused := a.status == http.StatusForbidden; refused == role.May(a.least) {
				t.Errorf("%s %s as %q: %d %s", a.method, a.path, role, a.status, a.text)
			}
		}
	}
	if did, err := s.Store.Actions(t.Context(), loom.ActionQuery{}); err != nil || len(did) != 0 {
		t.Errorf("requests that failed are in the audit: %+v, %v", did, err)
	}
}

// What changes something is written down once, with who asked for it.
func TestAudit(t *testing.T) {
	store := &memory.Store{}
	if err := store.Adopt(t.Context(), map[string]string{"j": ""}); err != nil {
		t.Fatal(err)
	}
	h := (&Server{Store: store, Control: obedient{}, Log: slog.New(slog.DiscardHandler)}).routes(t.Context().Done())
	for _, tt := range []struct {
		who        Principal
		path, body string
		want       loom.Action
	}{
		{Principal{Name: "ann", Role: RoleAdmin}, "/reload", "", loom.Action{By: "ann", Verb: "reload"}},
		{Principal{Name: "token ci", Role: RoleOperator}, "/actions", `{"verb":"pause","object":"j","why":"moving","by":"ann"}`,
			loom.Action{By: "token ci", Verb: "pause", Object: "j", Why: "moving"}},
		{Principal{Name: "root", Role: RoleAdmin, own: true}, "/actions", `{"verb":"look","object":"j","by":"ann"}`,
			loom.Action{By: "ann", Verb: "look", Object: "j"}},
	} {
		before, err := store.Actions(t.Context(), loom.ActionQuery{})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(withPrincipal(t.Context(), tt.who), "POST", Prefix+tt.path, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
		did, err := store.Actions(t.Context(), loom.ActionQuery{})
		if err != nil || w.Code != http.StatusOK || len(did) != len(before)+1 {
			t.Errorf("%s: %d %s: %d actions after %d, %v", tt.path, w.Code, w.Body, len(did), len(before), err)
			continue
		}
		got := did[0]
		tt.want.ID, tt.want.Time = got.ID, got.Time
		if got != tt.want {
			t.Errorf("%s: wrote down %+v, want %+v", tt.path, got, tt.want)
		}
	}
}

// An obedient daemon does what it is asked to.
type obedient struct{ Control }

func (obedient) Reload(context.Context) error { return nil }
