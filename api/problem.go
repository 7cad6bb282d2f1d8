package api

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// ErrNoDaemon means that nobody listens where a Client asks. To those who use it
// as a store, the store is down: the errors that wrap ErrNoDaemon wrap
// loom.ErrStoreDown too.
var ErrNoDaemon = errors.New("no daemon")

// A Problem is why a request failed, as RFC 9457 has it. As the error of a Client
// it matches, with errors.Is, the error that the server had: see the package's
// comment for which type stands for which.
type Problem struct {
	Type   string          `json:"type,omitempty" doc:"urn:loom:..., the same for each problem of a kind; about:blank if the status says it all"`
	Title  string          `json:"title,omitempty"`
	Status int             `json:"status,omitempty"`
	Detail string          `json:"detail,omitempty" doc:"A sentence for a person: what, where, why, and what to do"`
	Errors []ProblemDetail `json:"errors,omitempty" doc:"What of the request is wrong, if several things are"`
}

// A ProblemDetail is one thing that is wrong with a request.
type ProblemDetail struct {
	Message  string `json:"message,omitempty"`
	Location string `json:"location,omitempty" doc:"Where: body.until, query.limit"`
	Value    any    `json:"value,omitempty"`
}

// Error returns the problem as a sentence.
func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	for i, d := range p.Errors {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		if s += sep + d.Message; d.Location != "" {
			s += " (" + d.Location + ")"
		}
	}
	return s
}

// Is reports whether the problem's type stands for target.
func (p *Problem) Is(target error) bool {
	return slices.ContainsFunc(kinds(), func(k kind) bool { return k.uri == p.Type && k.err == target }) ||
		target == fs.ErrPermission && (p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden) // another's, before the daemon
}

// GetStatus makes the problem an answer of huma's.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// A kind of problem stands for an error that callers branch on.
type kind struct {
	uri    string
	title  string
	status int
	err    error
}

// kinds are the problems that have a type, the most telling first.
func kinds() []kind {
	return []kind{
		{"urn:loom:not-found", "Not found", http.StatusNotFound, loom.ErrNotFound},
		{"urn:loom:fenced", "The claim is lost", http.StatusConflict, loom.ErrFenced},
		{"urn:loom:busy", "An earlier run is still going", http.StatusConflict, loom.ErrBusy},
		{"urn:loom:shutdown", "Loom is stopping", http.StatusServiceUnavailable, loom.ErrShutdown},
		{"urn:loom:no-daemon", "No daemon", http.StatusBadGateway, ErrNoDaemon},
		{"urn:loom:store-down", "The store is down", http.StatusServiceUnavailable, loom.ErrStoreDown},
		{"urn:loom:exists", "It exists already", http.StatusConflict, fs.ErrExist},
		{"urn:loom:denied", "Not permitted", http.StatusForbidden, fs.ErrPermission},
		{"urn:loom:unauthorized", "It is not known who asks", http.StatusUnauthorized, errUnauthorized},
		{"urn:loom:unauthorized", "It is not known who asks", http.StatusUnauthorized, fs.ErrPermission},
		{"urn:loom:unreachable", "The node can't be reached", http.StatusBadGateway, loom.ErrUnreachable},
		{"urn:loom:unsupported", "Not supported", http.StatusNotImplemented, errors.ErrUnsupported},
		{"urn:loom:invalid", "The request makes no sense", http.StatusUnprocessableEntity, errInvalid},
	}
}

// errUnauthorized is behind requests of which it is not known, or not believed,
// whose they are.
var errUnauthorized = errors.New("not let in")

// errInvalid is behind what a caller asks for in vain.
var errInvalid = errors.New("invalid")

// invalid returns a problem with the request.
func invalid(detail string) *Problem {
	return &Problem{Type: "urn:loom:invalid", Title: "The request makes no sense", Status: http.StatusUnprocessableEntity, Detail: detail}
}

// ownProblem gives what huma says of requests that make no sense the type that
// such problems have here.
func ownProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := &Problem{Type: "about:blank", Title: m.Title, Status: m.Status, Detail: m.Detail}
	if p.Status == http.StatusUnprocessableEntity || p.Status == http.StatusBadRequest {
		p.Type, p.Title = "urn:loom:invalid", invalid("").Title
	}
	for _, e := range m.Errors {
		p.Errors = append(p.Errors, ProblemDetail{Message: e.Message, Location: e.Location, Value: e.Value})
	}
	return p, nil
}

// problem returns err as the API tells it.
func problem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			return &Problem{Type: k.uri, Title: k.title, Status: k.status, Detail: err.Error()}
		}
	}
	return &Problem{Type: "about:blank", Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError, Detail: err.Error()}
}

// write answers a request with the problem.
func (p *Problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked has gone if this fails
}
