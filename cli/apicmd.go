package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom/api"
)

// apiFlags are those of api.
type apiFlags struct {
	fields, typed, headers []string
	input                  string
	paginate, include      bool
}

func (p *Program) apiCommand() *cobra.Command {
	var f apiFlags
	cmd := &cobra.Command{
		Use:   "api [METHOD] PATH",
		Short: "Send a request to the daemon's API",
		Long: `Api sends any request to the daemon and prints its answer, as it is; on a terminal
JSON is set out. PATH is such as jobs/backup/runs: what does not begin with /api, and
is no /healthz, /readyz, /metrics, /openapi.json or /docs, is below ` + api.Prefix + `.

Fields are the query of a GET, and the JSON body of anything else. -f key=value is a
text, -F key=value whatever JSON the value is: a number, true, null, [1, 2]. A key
that ends with [] is a list, to which the value is added. Without METHOD it is GET,
or POST if there is a body.

It exits with 1 if the daemon refuses, with 4 if you may not, with 5 if there is no
such thing; the answer is printed all the same.`,
		Example: `  ` + p.Name + ` api jobs
  ` + p.Name + ` api jobs/backup/runs -f why='the disk was full' -f 'targets[]=db3'
  ` + p.Name + ` api GET runs -f job=backup --paginate
  ` + p.Name + ` api PUT jobs/backup/pause --input pause.json
  ` + p.Name + ` api events -H 'Accept: text/event-stream'
  ` + p.Name + ` api /healthz -i`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: p.completeAPI,
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.fields, "field", "f", nil, "a `key=value` whose value is a text")
	flags.StringArrayVarP(&f.typed, "json-field", "F", nil, "a `key=value` whose value is JSON")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a `header: value` to send")
	flags.StringVar(&f.input, "input", "", "`file` to send as the body; - is the standard input")
	flags.BoolVar(&f.paginate, "paginate", false, "ask for all pages of a list, and print its items as one")
	flags.BoolVarP(&f.include, "include", "i", false, "print the status and the headers of the answer too")
	for _, name := range []string{"field", "json-field", "header"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // it is our own flag
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q, err := p.apiRequest(args, &f)
		if err != nil {
			return err
		}
		r, err := p.daemon(cmd.Context())
		if err != nil {
			return err
		}
		defer r.close()
		if f.paginate {
			return p.apiPages(cmd.Context(), r.Client, q)
		}
		return p.apiAnswer(cmd.Context(), r.Client, q, f.include)
	}
	return cmd
}

// An apiRequest is what api sends.
type apiRequest struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte // nil: none
}

// apiRequest reads the command line.
func (p *Program) apiRequest(args []string, f *apiFlags) (*apiRequest, error) {
	q := &apiRequest{header: http.Header{"Accept": {"*/*"}}}
	if len(args) == 2 {
		q.method = strings.ToUpper(args[0])
	}
	target, err := url.Parse(args[len(args)-1])
	if err != nil || target.Scheme != "" || target.Host != "" {
		return nil, Usage("%s: write a path such as jobs/backup: which daemon it is of say --server and --context", args[len(args)-1])
	}
	q.path, q.query = apiPath(target.EscapedPath()), target.Query()
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, Usage("-H %s: write 'name: value'", h)
		}
		q.header.Set(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	fields, err := apiFields(f)
	if err != nil {
		return nil, err
	}
	if f.input != "" {
		if len(fields) > 0 {
			return nil, Usage("--input and fields exclude each other: the body is one or the other")
		}
		if q.body, err = p.apiInput(f.input); err != nil {
			return nil, err
		}
	}
	q.method = cmp.Or(q.method, usualMethod(q.body != nil || len(fields) > 0 && !f.paginate))
	switch {
	case q.method == http.MethodGet || q.method == http.MethodHead:
		for key, value := range fields {
			q.query[strings.TrimSuffix(key, "[]")] = append(q.query[strings.TrimSuffix(key, "[]")], queryValues(value)...)
		}
	case len(fields) > 0:
		q.body, err = json.Marshal(fields)
	}
	if q.body != nil && q.header.Get("Content-Type") == "" {
		q.header.Set("Content-Type", "application/json")
	}
	if f.paginate && q.method != http.MethodGet {
		return nil, Usage("--paginate is for lists, which are asked for by GET")
	}
	return q, err
}

func usualMethod(body bool) string {
	if body {
		return http.MethodPost
	}
	return http.MethodGet
}

// apiPath returns the whole path of an abbreviated one.
func apiPath(path string) string {
	path = "/" + strings.TrimLeft(path, "/")
	beside := []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml", "/docs"}
	if strings.HasPrefix(path, "/api/") || slices.Contains(beside, path) {
		return path
	}
	return api.Prefix + path
}

// apiFields reads -f and -F.
func apiFields(f *apiFlags) (map[string]any, error) {
	fields := map[string]any{}
	for i, field := range append(slices.Clone(f.fields), f.typed...) {
		key, text, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			return nil, Usage("field %s: write key=value", field)
		}
		var value any = text
		if i >= len(f.fields) {
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			if err := d.Decode(&value); err != nil || d.More() {
				return nil, Usage("-F %s: %q is no JSON; -f takes any text", field, text)
			}
		}
		if list, ok := strings.CutSuffix(key, "[]"); ok {
			all, _ := fields[list].([]any)
			fields[list] = append(all, value)
			continue
		}
		if _, twice := fields[key]; twice {
			return nil, Usage("field %s is given twice: a list is %s[]=value", key, key)
		}
		fields[key] = value
	}
	return fields, nil
}

// queryValues are what a field is in a query.
func queryValues(value any) []string {
	all, ok := value.([]any)
	if !ok {
		return []string{fmt.Sprint(value)}
	}
	var texts []string
	for _, one := range all {
		texts = append(texts, fmt.Sprint(one))
	}
	return texts
}

func (p *Program) apiInput(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(p.Stdin)
	}
	return os.ReadFile(file)
}

func (q *apiRequest) send(ctx context.Context, c *api.Client) (*http.Response, error) {
	path := q.path
	if len(q.query) > 0 {
		path += "?" + q.query.Encode()
	}
	var body io.Reader
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	return c.Do(ctx, q.method, path, q.header, body)
}

// apiAnswer prints the answer to a request.
func (p *Program) apiAnswer(ctx context.Context, c *api.Client, q *apiRequest, include bool) error {
	answer, err := q.send(ctx, c)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it is read to its end, or given up
	if include {
		fmt.Fprintf(p.Stdout, "%s %s\n", answer.Proto, answer.Status)
		for _, name := range slices.Sorted(keysOf(answer.Header)) {
			for _, value := range answer.Header[name] {
				fmt.Fprintf(p.Stdout, "%s: %s\n", name, clean(value))
			}
		}
		fmt.Fprintln(p.Stdout)
	}
	if answer.StatusCode >= 400 {
		return p.apiRefused(answer)
	}
	if strings.Contains(answer.Header.Get("Content-Type"), "json") {
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return fmt.Errorf("the answer broke off: %w", err)
		}
		return p.apiJSON(text)
	}
	err = p.apiCopy(answer.Body)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func keysOf(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}
}

// apiJSON prints JSON as it is, or set out for a person.
func (p *Program) apiJSON(text []byte) error {
	if terminal(p.Stdout) > 0 {
		var out bytes.Buffer
		if json.Indent(&out, text, "", "  ") == nil {
			text = []byte(harmless(out.String()))
		}
	}
	if text = bytes.TrimRight(text, "\n"); len(text) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(p.Stdout, "%s\n", text)
	return err
}

// harmless is a text of several lines with nothing in it that a terminal obeys.
func harmless(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// apiCopy passes on what comes, at once.
func (p *Program) apiCopy(r io.Reader) error {
	if terminal(p.Stdout) == 0 {
		_, err := io.Copy(p.Stdout, r)
		return err
	}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			fmt.Fprint(p.Stdout, clean(strings.TrimSuffix(line, "\n")))
			if strings.HasSuffix(line, "\n") {
				fmt.Fprintln(p.Stdout)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// apiRefused prints an answer that is a problem, and returns that as an error.
func (p *Program) apiRefused(answer *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20)) // what there is of it is told
	if err := p.apiJSON(text); err != nil {
		return err
	}
	var problem api.Problem
	if err := json.Unmarshal(text, &problem); err != nil || problem.Status == 0 {
		problem = api.Problem{Status: answer.StatusCode, Detail: "the daemon answered " + answer.Status}
	}
	code := ExitCode(&problem)
	if answer.StatusCode == http.StatusNotFound {
		code = ExitNotFound
	}
	return &Error{Code: code, Err: &problem}
}

// apiPages asks for all pages of a list, and prints their items as one list.
func (p *Program) apiPages(ctx context.Context, c *api.Client, q *apiRequest) error {
	const most = 100000
	all := []json.RawMessage{}
	parameter := ""
	for range most {
		answer, err := q.send(ctx, c)
		if err != nil {
			return err
		}
		if answer.StatusCode >= 400 {
			err := p.apiRefused(answer)
			_ = answer.Body.Close() // what matters was read
			return err
		}
		var page api.Page[json.RawMessage]
		err = json.NewDecoder(answer.Body).Decode(&page)
		_ = answer.Body.Close() // likewise
		if err != nil || page.Items == nil {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("%s is no list with pages", q.path)}
		}
		if all = append(all, page.Items...); page.Next == "" {
			break
		}
		if parameter == "" {
			if parameter, err = cursorOf(ctx, c, q.path); err != nil {
				return err
			}
		}
		q.query.Set(parameter, page.Next)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return p.apiJSON(text)
}

// cursorOf returns the parameter that asks for the next page of a list, by the
// API's own document.
func cursorOf(ctx context.Context, c *api.Client, path string) (string, error) {
	answer, err := c.Do(ctx, http.MethodGet, "/openapi.json", nil, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	var document struct {
		Paths map[string]struct {
			Get struct {
				Parameters []struct{ Name, In string }
			}
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&document); err != nil {
		return "", fmt.Errorf("the API's document: %w", err)
	}
	for _, name := range []string{"cursor", "before", "after", "to"} {
		for template, item := range document.Paths {
			for _, parameter := range item.Get.Parameters {
				if parameter.In == "query" && parameter.Name == name && (likePath(template, path) || likePath(api.Prefix+template, path)) {
					return name, nil
				}
			}
		}
	}
	return "", &Error{Code: ExitFailed, Err: fmt.Errorf("%s has more pages, but its document does not say how to ask for them", path)}
}

// likePath reports whether a path is one of those that a template stands for.
func likePath(template, path string) bool {
	parts, own := strings.Split(template, "/"), strings.Split(path, "/")
	if len(parts) != len(own) {
		return false
	}
	for i, part := range parts {
		if part != own[i] && !strings.HasPrefix(part, "{") {
			return false
		}
	}
	return true
}
