package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// forms returns the texts by which a value can be told: itself, and what programs
// print that quote, escape or encode it. All are as long as the shortest value.
func forms(value string) []string {
	var all []string
	add := func(texts ...string) {
		for _, t := range texts {
			if Fit(t) && !strings.Contains(Mask, t) {
				all = append(all, t)
			}
		}
	}
	texts := []string{value}
	if trimmed := strings.TrimSpace(value); trimmed != value {
		texts = append(texts, trimmed)
	}
	for _, t := range texts {
		add(written(t)...)
		add(encoded(t)...)
	}
	if strings.ContainsAny(value, "\n\r") {
		for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = strings.TrimSpace(line); !frame.MatchString(line) {
				add(written(line)...)
			}
		}
	}
	return all
}

// frame matches the lines around a key or certificate, which are no secret.
var frame = regexp.MustCompile(`^-----(BEGIN|END) [A-Z0-9 ]+-----$`)

// written returns a text as it is, and as shells, programming languages, URLs
// and documents write it.
func written(t string) []string {
	all := []string{
		t,
		// Shells: what stands between single quotes, as Loom and bash or as dash
		// and Python have it; with backslashes, as bash's %q; in double quotes.
		strings.ReplaceAll(t, "'", `'\''`),
		strings.ReplaceAll(t, "'", `'"'"'`),
		backslashed(t, func(c byte) bool { return c < 0x80 && !isWord(c) && !strings.ContainsRune("%+-./:@_", rune(c)) }),
		backslashed(t, func(c byte) bool { return strings.IndexByte("\"\\$`", c) >= 0 }),
		ansiC(t, false), ansiC(t, true),
		// Programming languages and JSON.
		unquoted(strconv.Quote(t)), unquoted(strconv.QuoteToASCII(t)),
		html.EscapeString(t),
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;").Replace(t),
	}
	plain := jsonText(t, false)
	all = append(all, jsonText(t, true), plain, strings.ReplaceAll(plain, "/", `\/`), asciiJSON(plain))
	query := url.QueryEscape(t)
	strict := strings.ReplaceAll(query, "+", "%20")
	loose := strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(strict)
	for _, u := range []string{query, strict, loose, url.PathEscape(t)} {
		all = append(all, u, lowerEscapes(u))
	}
	return all
}

// encoded returns a text in base64 and in hexadecimal digits.
func encoded(t string) []string {
	all := []string{hex.EncodeToString([]byte(t)), strings.ToUpper(hex.EncodeToString([]byte(t)))}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		// What is encoded may begin before the text and end after it. Of each
		// encoding count the digits that only the text decides.
		for before := range 3 {
			digits := e.EncodeToString(append(make([]byte, before), t...))
			from, to := (8*before+5)/6, 8*(before+len(t))/6
			all = append(all, digits[from:to])
		}
		// Text of its own, with and without a newline, in lines as base64(1) and
		// openssl(1) cut them.
		for _, own := range []string{t, t + "\n"} {
			digits := e.EncodeToString([]byte(own))
			all = append(all, digits, strings.TrimRight(digits, "="))
			for _, width := range []int{64, 76} {
				for rest := digits; len(digits) > width && rest != ""; {
					line := rest[:min(width, len(rest))]
					rest = rest[len(line):]
					all = append(all, line)
				}
			}
		}
	}
	return all
}

func isWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_'
}

// backslashed puts a backslash before some characters.
func backslashed(t string, special func(byte) bool) string {
	var b strings.Builder
	for i := range len(t) {
		if special(t[i]) {
			b.WriteByte('\\')
		}
		b.WriteByte(t[i])
	}
	return b.String()
}

// ansiC writes a text as bash does between $' and ': what can't be printed, and
// what is not ASCII where it does not know UTF-8, as octal digits.
func ansiC(t string, ascii bool) string {
	var b strings.Builder
	for i := range len(t) {
		switch c := t[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == 0x1b:
			b.WriteString(`\E`)
		case c >= 7 && c <= 13:
			b.WriteString([]string{`\a`, `\b`, `\t`, `\n`, `\v`, `\f`, `\r`}[c-7])
		case c < ' ' || c == 0x7f || ascii && c >= 0x80:
			b.WriteString("\\" + string([]byte{'0' + c>>6, '0' + c>>3&7, '0' + c&7}))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unquoted(quoted string) string { return quoted[1 : len(quoted)-1] }

// jsonText returns what stands between the quotes of a JSON string.
func jsonText(t string, escapeHTML bool) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(t); err != nil {
		return t // a string can be encoded
	}
	return unquoted(strings.TrimSuffix(b.String(), "\n"))
}

// asciiJSON escapes what is not ASCII, as Python does.
func asciiJSON(t string) string {
	var b strings.Builder
	for _, r := range t {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			b.WriteString(escapedUnit(0xd800 + r>>10))
			b.WriteString(escapedUnit(0xdc00 + r&0x3ff))
		default:
			b.WriteString(escapedUnit(r))
		}
	}
	return b.String()
}

func escapedUnit(r rune) string {
	digits := strconv.FormatInt(int64(r), 16)
	return `\u` + strings.Repeat("0", 4-len(digits)) + digits
}

// lowerEscapes writes the digits of %2F and its like in lower case.
func lowerEscapes(u string) string {
	b := []byte(u)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}
