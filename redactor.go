package loom

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/dustinlacewell/loom/internal/redact"
)

// A Redactor takes secrets out of text: each value that it was told, and the forms
// in which programs print one (base64, hexadecimal, and as URLs, shells, JSON,
// HTML and programming languages quote it), with "[secret]" in their place. Of a
// value with several lines each line is one too. The zero value, and nil, have
// nothing to redact. It is safe for concurrent use.
//
// Values of fewer than six bytes are not redacted, since they would take much of
// other text with them; nor is a part of a secret, or one that was compressed,
// encrypted or reversed.
type Redactor struct{ set redact.Set }

// Add has values redacted from now on. Those that a manifest takes from its
// secrets, and the passwords of its nodes, are added when it is read. They stay
// when a newer manifest has others, since what runs may still print them: of more
// than 20,000 the oldest are forgotten.
func (r *Redactor) Add(values ...string) { r.set.Add(values...) }

// Redact returns text without the secrets. Line breaks stay, also those within a
// secret.
func (r *Redactor) Redact(text string) string {
	if r == nil {
		return text
	}
	return r.set.Redact(text)
}

// stream returns a stream that redacts, or nil if there is nothing to redact.
func (r *Redactor) stream() *redact.Stream {
	if r == nil {
		return nil
	}
	return r.set.Stream()
}

// error returns err with secrets taken out of what it says. What it wraps is
// still found by errors.Is and errors.As.
func (r *Redactor) error(err error) error {
	if err == nil {
		return nil
	}
	said := err.Error()
	if clean := r.Redact(said); clean != said {
		return &redactedError{clean, err}
	}
	return err
}

type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// Handler returns a handler that passes records on to next without the secrets:
// in the message, in texts and errors, and in all else that a handler would put
// into words. Keys are names, and stay.
func (r *Redactor) Handler(next slog.Handler) slog.Handler {
	if r == nil {
		return next
	}
	return &redactingHandler{r: r, next: next}
}

type redactingHandler struct {
	r    *Redactor
	next slog.Handler
}

func (h *redactingHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *redactingHandler) Handle(ctx context.Context, record slog.Record) error {
	if h.r.set.Empty() {
		return h.next.Handle(ctx, record)
	}
	clean := slog.NewRecord(record.Time, record.Level, h.r.Redact(record.Message), record.PC)
	record.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.r.attr(a))
		return true
	})
	return h.next.Handle(ctx, clean)
}

func (h *redactingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.r.attr(a)
	}
	return &redactingHandler{r: h.r, next: h.next.WithAttrs(clean)}
}

func (h *redactingHandler) WithGroup(name string) slog.Handler {
	return &redactingHandler{r: h.r, next: h.next.WithGroup(name)}
}

// attr returns an attribute without secrets. One that has none stays what it is.
func (r *Redactor) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, r.Redact(v.String()))
	case slog.KindGroup:
		members := make([]slog.Attr, 0, len(v.Group()))
		for _, m := range v.Group() {
			members = append(members, r.attr(m))
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(members...)}
	case slog.KindAny:
		if said := inWords(v.Any()); r.Redact(said) != said {
			return slog.String(a.Key, r.Redact(said))
		}
	}
	return slog.Attr{Key: a.Key, Value: v}
}

// inWords returns what handlers make of a value, in text and in JSON.
func inWords(v any) string {
	if err, ok := v.(error); ok {
		return err.Error()
	}
	said := fmt.Sprintf("%+v", v)
	if text, err := json.Marshal(v); err == nil && string(text) != said {
		said += " " + string(text)
	}
	return said
}

// Redactable reports whether a value is long enough to be redacted.
func Redactable(value string) bool { return redact.Fit(value) }
