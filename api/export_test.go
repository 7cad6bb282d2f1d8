package api

import "net/http"

// Wrap puts a handler around all that the server answers.
func (s *Server) Wrap(w func(http.Handler) http.Handler) { s.wrap = w }

// Routes returns what answers requests, without a door before it.
func (s *Server) Routes() http.Handler { return s.routes(nil) }
