package notify

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/dustinlacewell/loom"
)

// wordings are the templates of a target; nil: what Loom says.
type wordings struct{ title, body *template.Template }

// parseWording reads a template and tries it on news of all kinds.
func parseWording(name, text string) (*template.Template, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{
		"join": func(sep string, all []string) string { return strings.Join(all, sep) },
		"took": func(from, to time.Time) string { return took(to.Sub(from)) },
		"time": func(t time.Time) string { return stamp(t) },
	}).Parse(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	for _, n := range samples() {
		if _, err := fill(t, &n, textLength); err != nil {
			return nil, fmt.Errorf("%w (for news of kind %s)", err, n.Kind)
		}
	}
	return t, nil
}

// fill executes a template; what it makes is bounded. News that are not about a
// job or a run have empty ones.
func fill(t *template.Template, n *News, most int) (string, error) {
	w := limited{left: 4 * most}
	full := *n
	if full.Job == nil {
		full.Job = new(Job)
	}
	if full.Run == nil {
		full.Run = new(Run)
	}
	if err := t.Execute(&w, full); err != nil && !errors.Is(err, errFull) {
		return "", errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	return w.b.String(), nil
}

// errFull ends a template that says too much.
var errFull = io.ErrShortWrite

// limited takes so many bytes.
type limited struct {
	b    strings.Builder
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

// word returns a target's title and text of n. What a template can't say of it is
// said in Loom's words, and why.
func (w wordings) word(n *News, c *cleaner) (title, text string) {
	title, text = n.Title, n.Text
	if n.Kind == digestKind {
		return title, text
	}
	if w.title != nil {
		if s, err := fill(w.title, n, titleLength); err != nil {
			text += "\nThe target's own title can't be made: " + err.Error() + "\n"
		} else if s = c.line(strings.TrimSpace(s), titleLength); s != "" {
			title = s
		}
	}
	if w.body != nil {
		if s, err := fill(w.body, n, textLength); err != nil {
			text += "\nThe target's own body can't be made: " + err.Error() + "\n"
		} else {
			text = s
		}
	}
	return title, c.lines(text, textLength)
}

// samples are news of every kind, as templates may meet them.
func samples() []News {
	at := time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)
	job := &loom.Job{Name: "backup", Description: "copy the databases", Owner: "ops@example.org", File: "jobs/backup.yaml", Line: 3}
	run := loom.Run{ID: "0dhqymbe3f2ka0000000000000", Job: "backup", Due: at, Started: at, Ended: at.Add(time.Minute), Trigger: loom.TriggerSchedule,
		Status: loom.StatusFailed, Nodes: 3, Counts: map[loom.Status]int{loom.StatusFailed: 1, loom.StatusOK: 2}}
	var all []News
	for _, k := range append(append(jobKinds(), Failing, Test), fleetKinds()...) {
		n := News{ID: newID(k), Kind: k, Time: at, Since: at}
		switch k {
		case Test:
		case NodeUnreachable, NodeBack:
			n.Nodes = []string{"db1"}
		case ManifestBroken:
			n.Problems = []string{`jobs/backup.yaml:4:5: unknown key "tsk" (did you mean "task"?)`}
		case ManifestMended:
		case StoreDown, StoreBack:
			n.Reason = "the disk is full"
		default:
			n = newsOf(k, job, newID(k))
			n.Since, n.InARow = at, 1
			if k == Missed {
				n.Time = at
				break
			}
			n.about(run)
			n.Failures = []Failure{{Nodes: []string{"db1"}, Status: loom.StatusFailed, ExitCode: 1, Reason: "command backup: exit status 1", Output: []string{"no space left on device"}}}
		}
		n.finish(newCleaner(nil), "loom", "control")
		all = append(all, n)
	}
	return all
}
