// Package redact takes secrets out of text: each value that it was told, in the
// forms in which programs print one, wherever it stands, however the text is cut
// into pieces.
package redact

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Mask is what stands for a secret.
const Mask = "[secret]"

// Shortest is how many bytes a value has at least that can be redacted. Shorter
// ones would take much of other text with them.
const Shortest = 6

// mostValues bounds what a Set remembers: secrets that are made anew each time
// they are asked for must not fill the memory.
const mostValues = 20_000

// A Set is values to be redacted. The zero value has none. It is safe for
// concurrent use.
type Set struct {
	mu     sync.Mutex
	age    int
	values map[string]int // and when they were added last

	built atomic.Pointer[automaton]
	stale atomic.Bool // built is not what the values want
}

// Add adds values. Those that are shorter than Shortest are not added. Of very
// many the oldest are forgotten.
func (s *Set) Add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		if !Fit(v) {
			continue
		}
		if s.values == nil {
			s.values = map[string]int{}
		}
		s.age++
		if _, known := s.values[v]; !known {
			s.stale.Store(true)
		}
		s.values[v] = s.age
	}
	if len(s.values) > mostValues+mostValues/10 {
		s.forget()
	}
}

// Fit reports whether a value can be redacted.
func Fit(value string) bool { return len(strings.TrimSpace(value)) >= Shortest }

// forget lets go of the oldest values. s.mu is held.
func (s *Set) forget() {
	ages := make([]int, 0, len(s.values))
	for _, age := range s.values {
		ages = append(ages, age)
	}
	slices.Sort(ages)
	oldest := ages[len(ages)-mostValues]
	for v, age := range s.values {
		if age < oldest {
			delete(s.values, v)
		}
	}
	s.stale.Store(true)
}

// automaton returns what finds the values of now, or nil if there are none.
func (s *Set) automaton() *automaton {
	if s == nil {
		return nil
	}
	if !s.stale.Load() {
		return s.built.Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stale.Load() {
		return s.built.Load()
	}
	var all []string
	for v := range s.values {
		all = append(all, forms(v)...)
	}
	slices.Sort(all)
	s.built.Store(build(slices.Compact(all)))
	s.stale.Store(false)
	return s.built.Load()
}

// Empty reports whether there is nothing to redact.
func (s *Set) Empty() bool { return s.automaton() == nil }

// Redact returns text with [Mask] in place of what is secret. Line breaks stay,
// also those within a secret. The beginning of a secret before "…" was cut off
// and is redacted too.
func (s *Set) Redact(text string) string {
	a := s.automaton()
	if a == nil {
		return text
	}
	found := a.find(text)
	if len(found) == 0 {
		return text
	}
	var m masker
	m.out = make([]byte, 0, len(text))
	at := 0
	for _, f := range found {
		m.plain(text[at:f.from])
		m.secret(text[f.from:f.to])
		at = f.to
	}
	m.plain(text[at:])
	return string(m.out)
}

// A Stream redacts text that comes in pieces. What may be the beginning of a
// secret is held back until it is known. It is not safe for concurrent use.
type Stream struct {
	set   *Set
	a     *automaton
	state int32
	held  []byte // what was not passed on, all of it seen by the automaton
	found []span // secrets in held
	m     masker // of what was passed on last
}

// Stream returns a stream that redacts what the set has, now and later.
func (s *Set) Stream() *Stream { return &Stream{set: s} }

// Next takes a piece and returns what can be passed on. That is valid until the
// next call, and may be the piece itself.
func (s *Stream) Next(p []byte) []byte {
	if s.state == 0 && len(s.held) == 0 {
		if a := s.set.automaton(); a != s.a {
			s.a, s.state = a, 0
		}
		if s.a == nil {
			s.m.masked = false
			return p
		}
	}
	seen := len(s.held)
	s.state, s.found = s.a.scan(s.state, p, seen, s.found)
	if len(s.found) > 0 && s.found[0].from < 0 {
		s.found[0].from = 0 // it goes on from one that was masked already
	}
	if seen == 0 && len(s.found) == 0 && s.a.nodes[s.state].depth == 0 && !s.m.masked {
		return p
	}
	s.held = append(s.held, p...)
	return s.pass(len(s.held) - int(s.a.nodes[s.state].depth))
}

// End returns what was held back. The stream can then be used anew.
func (s *Stream) End() []byte {
	out := s.pass(len(s.held))
	s.state, s.m.masked = 0, false
	return out
}

// pass returns what is held up to sure, where no more secrets can begin before
// sure, and any secret that goes on there.
func (s *Stream) pass(sure int) []byte {
	s.m.out = s.m.out[:0]
	at := 0
	for _, f := range s.found {
		if f.from >= sure {
			break
		}
		s.m.plainBytes(s.held[at:f.from])
		s.m.secretBytes(s.held[f.from:f.to])
		at = f.to
	}
	for len(s.found) > 0 && s.found[0].to <= at {
		s.found = s.found[1:]
	}
	if at < sure {
		s.m.plainBytes(s.held[at:sure])
		at = sure
	}
	if len(s.found) == 0 {
		s.found = nil
	}
	for i := range s.found {
		s.found[i].from -= at
		s.found[i].to -= at
	}
	s.held = s.held[at:] // what is appended later moves it, now and then
	return s.m.out
}

// A masker writes text, and a Mask for each line of what is secret.
type masker struct {
	out    []byte
	masked bool // a mask stands at the end of what was written
}

func (m *masker) plain(text string)  { m.plainBytes([]byte(text)) }
func (m *masker) secret(text string) { m.secretBytes([]byte(text)) }
func (m *masker) plainBytes(text []byte) {
	if len(text) > 0 {
		m.out, m.masked = append(m.out, text...), false
	}
}

func (m *masker) secretBytes(text []byte) {
	for _, b := range text {
		switch {
		case b == '\n':
			m.out, m.masked = append(m.out, b), false
		case !m.masked:
			m.out, m.masked = append(m.out, Mask...), true
		}
	}
}
