package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A NewToken is a token that was made, and the only time that it is shown.
type NewToken struct {
	Token
	Secret string `json:"token" doc:"What to send in the header Authorization, after the word Bearer; it is shown only once"`
}

// tokens adds the operations on tokens. They need no store.
func (s *Server) tokens(api huma.API) {
	operation(api, RoleAdmin, http.MethodGet, "/tokens", "tokens", "list-tokens", "Tokens, by name", func(context.Context, *struct{}) (Page[Token], error) {
		if s.Tokens == nil {
			return Page[Token]{}, s.noTokens()
		}
		all, err := s.Tokens.List()
		return Page[Token]{Items: all}, err
	})
	type create struct {
		Body struct {
			Name    string    `json:"name" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"`
			Role    Role      `json:"role" enum:"viewer,operator,admin"`
			Expires time.Time `json:"expires,omitzero" doc:"At most five years from now; left out: 90 days from now"`
		}
	}
	operation(api, RoleAdmin, http.MethodPost, "/tokens", "tokens", "create-token", "Make a token", func(ctx context.Context, in *create) (NewToken, error) {
		if s.Tokens == nil {
			return NewToken{}, s.noTokens()
		}
		b := in.Body
		if b.Expires.IsZero() {
			b.Expires = time.Now().Add(TokenTime)
		}
		note(ctx, "create-token", b.Name, fmt.Sprintf("%s until %s", b.Role, utc(b.Expires).Format(time.RFC3339)))
		secret, made, err := s.Tokens.Create(b.Name, b.Role, b.Expires, caller(ctx).Name)
		return NewToken{made, secret}, err
	})
	type revoke struct {
		Name string `path:"token" doc:"Its name"`
	}
	operation(api, RoleAdmin, http.MethodDelete, "/tokens/{token}", "tokens", "revoke-token", "Let a token let nobody in any more", func(_ context.Context, in *revoke) (Done, error) {
		if s.Tokens == nil {
			return Done{}, s.noTokens()
		}
		return Done{true}, s.Tokens.Revoke(in.Name)
	})
}

func (s *Server) noTokens() error {
	return &Problem{Type: "urn:loom:unsupported", Title: "Not supported", Status: http.StatusNotImplemented, Detail: "this server has no tokens"}
}

// Tokens returns the tokens of the daemon, by name.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	p, err := fetch[Page[Token]](ctx, c, "/tokens", nil)
	return p.Items, err
}

// CreateToken makes a token that is good until a time; zero: for TokenTime. The
// error wraps fs.ErrExist if there is one of this name.
func (c *Client) CreateToken(ctx context.Context, name string, role Role, expires time.Time) (NewToken, error) {
	return order[NewToken](ctx, c, "/tokens", struct {
		Name    string    `json:"name"`
		Role    Role      `json:"role"`
		Expires time.Time `json:"expires,omitzero"`
	}{name, role, utc(expires)}, false)
}

// RevokeToken has a token let nobody in any more. The error wraps
// loom.ErrNotFound if there is none of this name.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	var done Done
	return c.do(ctx, request{method: http.MethodDelete, path: "/tokens/" + url.PathEscape(name)}, &done)
}
