package api

import (
	"bytes"
	"io"

	"github.com/danielgtaylor/huma/v2"
)

// redacting has answers pass through what takes secrets out of them. They are
// without secrets when they come here, so this is for what nobody thought of.
func (s *Server) redacting(config *huma.Config) {
	if s.Redact == nil {
		return
	}
	for name, format := range config.Formats {
		marshal := format.Marshal
		format.Marshal = func(w io.Writer, v any) error {
			var text bytes.Buffer
			if err := marshal(&text, v); err != nil {
				return err
			}
			_, err := io.WriteString(w, s.Redact(text.String()))
			return err
		}
		config.Formats[name] = format
	}
}
