package api_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

// What is brought in for these tests, and no part of Loom.
const (
	linter    = "@redocly/cli@2.77.0"
	generator = "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2"
)

// tool runs a program, and returns what it prints.
func tool(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true", "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// bring makes sure that a tool can be had. A machine without one, or without its
// registry, does without the test, unless it is there to find mistakes.
func bring(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes a while")
	}
	if out, err := tool(t, dir, name, args...); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		t.Skipf("%s %s: %v (make deps installs what is missing)", name, strings.Join(args, " "), err)
	}
}

// documentFile returns a file with the API's document.
func documentFile(t *testing.T, dir string) string {
	t.Helper()
	text, err := documentOf(&api.Server{Store: &memory.Store{}, Feed: &api.Feed{}, Metrics: &api.Metrics{}, Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "openapi.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A linter for OpenAPI finds nothing in the document.
func TestDocumentIsClean(t *testing.T) {
	dir := t.TempDir()
	run := []string{"exec", "--yes", "--package=" + linter, "--", "redocly"}
	bring(t, dir, "npm", append(run, "--version")...)
	rules, err := filepath.Abs("testdata/redocly.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out, err := tool(t, dir, "npm", append(run, "lint", "--config", rules, "--format", "stylish", documentFile(t, dir))...)
	if err != nil || strings.Contains(out, " warning ") || !strings.Contains(out, "Your API description is valid") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A client that a public generator makes from the document compiles, and works.
func TestGeneratedClient(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/client")); err != nil {
		t.Fatal(err)
	}
	bring(t, dir, "go", "run", generator, "-version")
	if out, err := tool(t, dir, "go", "run", generator, "-generate", "types,client", "-package", "main", "-o", "client.gen.go", documentFile(t, dir)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := filepath.Join(dir, "client")
	if out, err := tool(t, dir, "go", "build", "-o", program, "."); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c, _, _ := whole(t)
	if out, err := tool(t, dir, program, c.Socket); err != nil || out != "j\n404 urn:loom:not-found\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
