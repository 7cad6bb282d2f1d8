package api

import (
	"encoding/json"
	"testing"

	"gopkg.in/yaml.v3"

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

// TestShownParameters holds that what a name calls secret is not shown, and that
// everything else can be written as JSON.
func TestShownParameters(t *testing.T) {
	var given map[string]any
	if err := yaml.Unmarshal([]byte("{command: x, env: {DB_PASSWORD: hunter2, PATH: /bin}, token: [hunter2], list: [{api_key: hunter2}, .nan], odd: {1: a}}"), &given); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(shown(&loom.Manifest{}, "", given))
	want := `{"command":"x","env":{"DB_PASSWORD":"[secret]","PATH":"/bin"},"list":[{"api_key":"[secret]"},"NaN"],"odd":"map[1:a]","token":"[secret]"}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v\nwant %s", text, err, want)
	}
}
