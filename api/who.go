package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
)

// A Role says what somebody may do. Each may do what those before it may.
type Role string

// The roles, the least first. "" may do nothing.
const (
	RoleViewer   Role = "viewer"   // see all that is shown
	RoleOperator Role = "operator" // have jobs run, ended, paused
	RoleAdmin    Role = "admin"    // all: commands of one's own, tokens, secrets, the audit log
)

// Roles returns all roles, the least first.
func Roles() []Role { return []Role{RoleViewer, RoleOperator, RoleAdmin} }

// ParseRole returns the role of a name.
func ParseRole(name string) (Role, error) {
	if r := Role(name); slices.Contains(Roles(), r) {
		return r, nil
	}
	return "", fmt.Errorf("there is no role %q: write viewer, operator or admin", name)
}

// May reports whether r may do what needs the role least.
func (r Role) May(least Role) bool {
	has, needs := slices.Index(Roles(), r), slices.Index(Roles(), least)
	return has >= 0 && needs >= 0 && has >= needs
}

// A Principal is who sends a request.
type Principal struct {
	Name string // for people: what a Run.By or an Action.By says
	Role Role
	Via  string // "socket", or "token NAME"

	own bool // the daemon's own user, or root: the whole machine is theirs anyway
}

type principalKey struct{}

// withPrincipal notes who sends a request.
func withPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// caller returns who sent the request that ctx is of: the zero Principal, who may
// do nothing, if that is not known.
func caller(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// onBehalf returns whose name an order bears that p gives, and says to be for
// somebody: only the machine's own users are believed that.
func (p Principal) onBehalf(somebody string) string {
	if somebody != "" && p.own {
		return somebody
	}
	return p.Name
}

// permit returns why p may not do what needs the role least, or nil.
func (p Principal) permit(least Role, what string) *Problem {
	if p.Role.May(least) {
		return nil
	}
	if p.Role == "" {
		return problem(fmt.Errorf("%w: %s needs the role %s, and it is not known who asks", fs.ErrPermission, what, least))
	}
	return problem(fmt.Errorf("%w: %s needs the role %s, and %s has the role %s", fs.ErrPermission, what, least, p.Name, p.Role))
}

// guard lets those through to a handler that is no operation who have a role.
func guard(least Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := caller(r.Context()).permit(least, r.Method+" "+r.URL.Path); p != nil {
			p.write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// roleKey is where an operation has the least role that may ask for it.
const roleKey = "x-loom-role"

// doorkeeper lets an operation be done by those who have its role, and has it
// written down if it changes something.
func (s *Server) doorkeeper(c huma.Context, next func(huma.Context)) {
	op := c.Operation()
	least, _ := op.Extensions[roleKey].(Role)
	who := caller(c.Context())
	if p := who.permit(least, op.OperationID); p != nil {
		s.log().Warn("request refused", "operation", op.OperationID, "by", who.Name, "role", string(who.Role), "needs", string(least))
		c.SetHeader("Content-Type", p.ContentType(""))
		c.SetStatus(p.Status)
		_ = json.NewEncoder(c.BodyWriter()).Encode(p) // who asked has gone if this fails
		return
	}
	if safe(op.Method) {
		next(c)
		return
	}
	t := &trail{store: s.Store, log: s.log(), who: who, verb: op.OperationID}
	for part := range strings.SplitSeq(op.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			t.object = c.Param(strings.TrimSuffix(name, "}"))
		}
	}
	next(huma.WithContext(c, context.WithValue(c.Context(), trailKey{}, t)))
}

// safe reports whether requests of a method change nothing.
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// A trail is what becomes known of a request that changes something: once it was
// done it is written down as an action of who asked for it. The verb is the
// operation's ID, the object the last part of its path that varies, unless the
// handler says otherwise.
type trail struct {
	store             loom.Store
	log               *slog.Logger
	who               Principal
	verb, object, why string
	kept              bool
}

type trailKey struct{}

// note says what the request of ctx does to what, for the audit.
func note(ctx context.Context, verb, object, why string) {
	if t, ok := ctx.Value(trailKey{}).(*trail); ok {
		t.verb, t.object, t.why = verb, object, why
	}
}

// noted is note for what the store writes down by itself.
func noted(ctx context.Context, verb, object, why string) {
	note(ctx, verb, object, why)
	if t, ok := ctx.Value(trailKey{}).(*trail); ok {
		t.kept = true
	}
}

// auditTime is how long the store may take to write down what was done.
const auditTime = 10 * time.Second

// keep writes down what the request of ctx has done. That it was done can't be
// helped any more, so if the store is down the log has to do.
func keep(ctx context.Context) {
	t, ok := ctx.Value(trailKey{}).(*trail)
	if !ok {
		return
	}
	log := t.log.With("by", t.who.Name, "via", t.who.Via, "verb", t.verb, "object", t.object)
	if !t.kept {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime) // whoever asked may be gone
		defer cancel()
		if err := t.store.Act(ctx, loom.Action{By: t.who.Name, Verb: t.verb, Object: t.object, Why: t.why}); err != nil {
			log.Error("order was carried out, but the audit does not have it", "why", t.why, "err", err)
			return
		}
	}
	log.Info("order carried out", "why", t.why)
}
