package api

import (
	"testing"

	"github.com/dustinlacewell/loom"
)

func TestHarmlessSource(t *testing.T) {
	m := &loom.Manifest{}
	for text, want := range map[string]string{
		"password: a, b\nuser: x\n":                             "password: [secret]\nuser: x\n",
		"  - api_key: 'it''s, one' # really\n":                  "  - api_key: [secret]\n",
		"a: {user: x, password: y z, ip: 10.0.0.1}\n":           "a: {user: x, password: [secret], ip: 10.0.0.1}\n",
		"a: {password: \"q,}\\\"r\", \"Token\": 'a, b', ip: 1}": "a: {password: [secret], \"Token\": [secret], ip: 1}",
		"password: ${secret:db}\n":                              "password: ${secret:db}\n",
		"a: {password: ${secret:db}, passphrase: x}\n":          "a: {password: ${secret:db}, passphrase: [secret]}\n",
		"password: *anchor\n":                                   "password: *anchor\n",
		"password: &anchor hunter2\n":                           "password: [secret]\n",
		"sudo_password: hunter2\n":                              "sudo_password: [secret]\n",
		"secrets: {file: secrets.age}\n":                        "secrets: {file: secrets.age}\n",
		"secret:\n  nested: x\n":                                "secret:\n  nested: x\n",
		"command: echo tokens are nice\n":                       "command: echo tokens are nice\n",
		"password: ${secret:a} hunter2\n":                       "password: [secret]\n",
	} {
		if got := harmlessSource(m, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
