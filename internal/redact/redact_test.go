package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const awkward = `p'w "$x/+é` + "`&<\\"

func TestForms(t *testing.T) {
	var s Set
	s.Add(awkward)
	pad := func(n int) []byte { return append([]byte(strings.Repeat("x", n)), awkward+"yyyyy"...) }
	for name, text := range map[string]string{
		"plain":             awkward,
		"go":                fmt.Sprintf("%q", awkward),
		"go ascii":          strconv.QuoteToASCII(awkward),
		"json":              mustJSON(awkward),
		"json, no html":     `p'w \"$x/+é` + "`&<\\\\",
		"json, ascii":       `p'w \"$x/+\u00e9` + "`&<\\\\",
		"json, slashes":     `p'w \"$x\/+é` + "`&<\\\\",
		"query":             url.QueryEscape(awkward),
		"query, lower":      strings.ToLower(url.QueryEscape(awkward)),
		"path":              url.PathEscape(awkward),
		"single quotes":     `'p'\''w "$x/+é` + "`&<\\'",
		"bash's $'', ascii": `$'p\'w "$x/+\303\251` + "`&<\\\\'",
		"python's quotes":   `'p'"'"'w "$x/+é` + "`&<\\'",
		"double quotes":     `"p'w \"\$x/+é` + "\\`&<\\\\\"",
		"html":              "p&#39;w &#34;$x/+é`&amp;&lt;\\",
		"xml":               "p&apos;w &quot;$x/+é`&amp;&lt;\\",
		"hex":               hex.EncodeToString([]byte("a" + awkward + "b")),
		"base64 0":          base64.StdEncoding.EncodeToString(pad(0)),
		"base64 1":          base64.StdEncoding.EncodeToString(pad(1)),
		"base64 2":          base64.StdEncoding.EncodeToString(pad(2)),
		"base64 url":        base64.URLEncoding.EncodeToString(pad(0)),
		"base64 raw":        base64.RawStdEncoding.EncodeToString([]byte(awkward)),
	} {
		if got := s.Redact("<<" + text + ">>"); !strings.Contains(got, Mask) || len(got) > len(Mask)+22 {
			t.Errorf("%s: %q became %q", name, text, got)
		}
	}
}

func TestRarerForms(t *testing.T) {
	for _, tt := range []struct{ secret, text string }{
		{"p\U0001f600ssword", `p\ud83d\ude00ssword`},
		{"esc\x1b tab\t one\x01 del\x7f", `esc\E tab\t one\001 del\177`},
		{"bytes \xff\xfe", `bytes \377\376`},
		{"bytes \xff\xfe", `bytes \xff\xfe`},
		{"bytes \xff\xfe", "bytes \xff\xfe"},
		{"bytes \xff\xfe", `bytes \ufffd\ufffd`},
		{strings.Repeat("long-", 20), base64.StdEncoding.EncodeToString([]byte(strings.Repeat("long-", 20)))[:76] + "\n" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("long-", 20)))[76:]},
	} {
		var s Set
		if !s.Empty() {
			t.Error("nothing is something")
		}
		s.Add(tt.secret)
		if got := strings.ReplaceAll(s.Redact(tt.text), "\n"+Mask, ""); got != Mask || s.Empty() {
			t.Errorf("%q, as %q, became %q", tt.secret, tt.text, got)
		}
	}
}

// TestFormsOfShells asks the shells of this machine how they print it.
func TestFormsOfShells(t *testing.T) {
	var s Set
	const secret = `it's $HOME "of" mine`
	s.Add(secret)
	for _, c := range []struct{ shell, script string }{
		{"bash", `printf %q "$1"`}, {"bash", `set -x; : "$1"`}, {"dash", `set -x; : "$1"`}, {"sh", `set -x; : "$1"`},
		{"bash", `x=$1; set | grep ^x=`}, {"dash", `x=$1; set | grep ^x=`}, {"bash", `export x=$1; export -p | grep x=`},
		{"sh", `printf %s "$1" | base64`}, {"sh", `printf %s "user:$1" | base64`}, {"sh", `echo "$1" | base64`}, {"sh", `printf %s "$1" | od -An -tx1 | tr -d ' \n'`},
	} {
		if _, err := exec.LookPath(c.shell); err != nil {
			continue
		}
		out, err := exec.CommandContext(t.Context(), c.shell, "-c", c.script, "x", secret).CombinedOutput()
		if err != nil {
			t.Errorf("%s -c %q: %v", c.shell, c.script, err)
		}
		if got := s.Redact(string(out)); !strings.Contains(got, Mask) || strings.Contains(got, "mine") {
			t.Errorf("%s -c %q printed %q, which became %q", c.shell, c.script, out, got)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, tt := range []struct{ secrets, text, want string }{
		{"hunter2", "the password is hunter2, hunter2!", "the password is [secret], [secret]!"},
		{"hunter2", "hunter hunter 2", "hunter hunter 2"},
		{"hunter2", "hunthunter2er2", "hunt[secret]er2"},
		{"hunter2", "hunter2hunter2", "[secret]"},
		{"abcdef|defghi", "abcdefghi", "[secret]"}, // none of the two may stay
		{"abcdef|abcdefgh", "abcdefgh abcdefg", "[secret] [secret]g"},
		{"short", "short", "short"},
		{"one-line\nanother-line\nx", "a one-line b\nanother-line\nx", "a [secret] b\n[secret]\nx"},
		{"one-line\nanother-line\nx", "<one-line\nanother-line\nx>", "<[secret]\n[secret]\n[secret]>"},
		{"padded \n", "padded", "[secret]"},
		{"-----BEGIN X KEY-----\nabcdefgh\n-----END X KEY-----\n", "-----BEGIN X KEY-----\nzz", "-----BEGIN X KEY-----\nzz"},
		{"hunter2", "command 'mysql -phunte…': exit status 1", "command 'mysql -p[secret]…': exit status 1"},
		{"hunter2", "hun…", "hun…"},
		{"secret", "a secret", "a secret"}, // or its own mask would be one
	} {
		var s Set
		s.Add(strings.Split(tt.secrets, "|")...)
		if got := s.Redact(tt.text); got != tt.want {
			t.Errorf("without %q, %q is %q, want %q", tt.secrets, tt.text, got, tt.want)
		}
		if strings.Contains(tt.text, "…") {
			continue // of a stream all comes
		}
		for size := 1; size <= len(tt.text); size++ {
			if got := stream(&s, tt.text, size); got != tt.want {
				t.Errorf("without %q, %q in pieces of %d is %q, want %q", tt.secrets, tt.text, size, got, tt.want)
			}
		}
	}
}

func stream(s *Set, text string, size int) string {
	var b strings.Builder
	in := s.Stream()
	for len(text) > 0 {
		n := min(size, len(text))
		b.Write(in.Next([]byte(text[:n])))
		text = text[n:]
	}
	b.Write(in.End())
	return b.String()
}

// TestStreamHoldsLittle writes what is never done being a secret.
func TestStreamHoldsLittle(t *testing.T) {
	var s Set
	s.Add("abababab", strings.Repeat("ab", 40))
	in := s.Stream()
	var out strings.Builder
	for range 10_000 {
		out.Write(in.Next([]byte("ababa"[:2])))
		if len(in.held) > 400 {
			t.Fatalf("%d bytes are held", len(in.held))
		}
	}
	out.Write(in.End())
	if out.String() != Mask {
		t.Errorf("it became %.100q", out.String())
	}
}

func TestStreamLearns(t *testing.T) {
	var s Set
	in := s.Stream()
	if got := string(in.Next([]byte("hunter2 "))); got != "hunter2 " {
		t.Errorf("without secrets %q came", got)
	}
	s.Add("hunter2")
	if got := string(in.Next([]byte("hunter2 "))); got != "[secret] " {
		t.Errorf("with one %q came", got)
	}
	if got := string(in.Next([]byte("nothing\n"))); got != "nothing\n" {
		t.Errorf("then %q came", got)
	}
}

func TestSetForgetsTheOldest(t *testing.T) {
	var s Set
	for i := range 2 * mostValues {
		s.Add("always-there", fmt.Sprintf("value-%d-", i))
	}
	if n := len(s.values); n > mostValues+mostValues/10 {
		t.Errorf("%d values", n)
	}
	for value, want := range map[string]bool{"always-there": true, "value-0-": false, fmt.Sprintf("value-%d-", 2*mostValues-1): true} {
		if _, got := s.values[value]; got != want {
			t.Errorf("%s is there: %v, want %v", value, got, want)
		}
	}
}

func mustJSON(v string) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// FuzzRedact has two secrets in a text, in pieces: neither stays, in none of its
// forms, the text around them does, and pieces make no difference.
func FuzzRedact(f *testing.F) {
	f.Add("hunter2", "correct horse", "a hunter2 b correct horse", 3)
	f.Add("abcabcabc", "bcabca", "abcabcabcabcabc", 2)
	f.Add("a\nbbbbbbb\nc", "\n\n\n\n\n\nx", "x a\nbbbbbbb\nc y", 1)
	f.Add("'\"\\$`\x00\xff", "%2Fabc/", "'\"\\$`\x00\xff%2Fabc/", 5)
	f.Fuzz(func(t *testing.T, one, other, text string, size int) {
		var s Set
		s.Add(one, other)
		got := s.Redact(text)
		if strings.Count(got, "\n") != strings.Count(text, "\n") {
			t.Errorf("%q became %q: the lines are others", text, got)
		}
		if !strings.Contains(text, "…") {
			if pieces := stream(&s, text, 1+(size&0xff)); pieces != got {
				t.Errorf("%q in pieces is %q, at once %q", text, pieces, got)
			}
		}
		for _, v := range []string{one, other} {
			if !Fit(v) {
				continue
			}
			for _, form := range forms(v) {
				// What stays must not be a secret, except that a mask beside
				// other text may happen to look like one.
				if strings.Contains(strings.ReplaceAll(got, Mask, "\x00\x01"), form) && !strings.ContainsAny(form, "\x00\x01") {
					t.Errorf("%q is still in %q", form, got)
				}
			}
		}
		if got == text {
			return
		}
		// All that is not masked is from the text, in order.
		rest := text
		for part := range strings.SplitSeq(got, Mask) {
			_, after, ok := strings.Cut(rest, part)
			if !ok && !strings.Contains(text, Mask) {
				t.Fatalf("%q became %q, where %q is not from", text, got, part)
			}
			if ok {
				rest = after
			}
		}
	})
}

func BenchmarkStream(b *testing.B) {
	var s Set
	for i := range 100 {
		s.Add(fmt.Sprintf("secret-number-%d-%x", i*7919, i*i*104729))
	}
	line := []byte(strings.Repeat("Nov 24 15:14:25 web1 nginx[4242]: 10.0.0.1 GET /index.html 200 1234\n", 100))
	b.SetBytes(int64(len(line)))
	in := s.Stream()
	for b.Loop() {
		in.Next(line)
	}
}
