package api

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// A manual is what there is to say of an operation beside its summary, and with which
// statuses its own problems come.
type manual struct {
	text     string
	problems []int
}

const (
	noSuch   = http.StatusNotFound
	conflict = http.StatusConflict
	senses   = http.StatusUnprocessableEntity
	unable   = http.StatusNotImplemented
	far      = http.StatusBadGateway
)

// manuals has one for each operation whose document does not have its own, by ID.
func manuals() map[string]manual {
	return map[string]manual{
		"status":              {"The daemon, its manifest and store; what runs now, what comes next, what fails and since when, and what is paused. A store that is down is part of it, and no problem.", nil},
		"reload":              {"Answers when what the files say is in force. If there are mistakes in them, the problem names all of them with file, line and column, and what was good before stays in force.", []int{senses, unable}},
		"backup":              {"A whole store, as it is at one moment, while it is in use. The file is made on the daemon's machine and must not be there yet.", []int{conflict, senses, unable}},
		"list-jobs":           {"The manifest's jobs, each with its next tick, its pause, its newest run and how its last runs ended. With gone=true also those that are only remembered.", []int{senses}},
		"get-job":             {"All keys of the job, its targets, the jobs before and after it, its last runs, those that are going, and how long they usually take. Values of variables are not shown.", []int{noSuch}},
		"list-runs-of-job":    {"As list-runs does, of one job that must be known.", []int{noSuch, senses}},
		"explain-tick":        {"Says of a tick, past or to come, what happened or will, and why, in a sentence and in fields: that it ran and how that went, that it was skipped, missed or paused, that there is no such time. Without a time it is about the latest tick and the next one. Ask for one of time, before, run, or from and to.", []int{noSuch, senses}},
		"next-ticks":          {"The ticks of all jobs, or of some, in order of time, with what will become of each: whether a pause or a blackout keeps it from running, and whether the run before it will be going still. From and to simulate any period.", []int{noSuch, senses, unable}},
		"run-job":             {"Starts a run and answers at once: see get-run and stream-output for how it goes. Targets are names of some of the job's nodes. With plan nothing is changed there: each task that can tell says what it would change. Such a run is recorded as a plan: it does not count as one of the job's, fires nothing, is news to nobody, and stands in no other run's way. With an Idempotency-Key the same request can be sent again: it gets the run that the first one started. The same key with another request is a problem of the type urn:loom:key-used.", []int{noSuch, conflict, senses, unable}},
		"pause-job":           {"Its schedule and other jobs don't fire it from now on; each tick that is let go is written down with who asked for that and why. That survives restarts and reloads. A pause that there was is replaced.", []int{noSuch}},
		"resume-job":          {"Ticks that were let go are not made up for. It does no harm if the job is not paused.", []int{noSuch}},
		"list-ticks":          {"Each tick has exactly one outcome. Ticks without a run, of the same outcome and reason, one after the other, are one range.", []int{senses}},
		"list-days":           {"Counts outlive the runs that were counted.", []int{senses}},
		"list-runs":           {"All filters must be met. Runs that are going have the counts of what has ended.", []int{senses}},
		"get-run":             {"With what was said by who asked for it, as far as that is kept.", []int{noSuch, senses}},
		"list-results-of-run": {"A result for each node that was begun: how it ended, after how many attempts, what was changed, and why it is not ok.", []int{noSuch, senses}},
		"list-results":        {"Runs that are not known have none.", []int{senses}},
		"recent-runs":         {"For many jobs at once. They are without who asked for them, targets, reasons and counts.", []int{senses}},
		"recent-results":      {"For many nodes at once.", []int{senses}},
		"get-output":          {"In chunks, each of which has a cursor: ask again after the last one for what came since. With wait, the answer is held back until there is some.", []int{noSuch, senses}},
		"cancel-run":          {"Its processes on the nodes are ended too. Answers at once: the run ends when they have.", []int{noSuch}},
		"retry-run":           {"Runs the job again on the nodes of an earlier run that has ended, or with failed on those that did not end well or were not begun, as far as they are still the job's. The timeout, max and plan of that run count again. Commands given by hand are not tried again. For the Idempotency-Key see run-job.", []int{noSuch, conflict, senses, unable}},
		"exec":                {"Runs a text of the shell on all nodes that the targets select, at once as far as max_workers and max allow. It is a run like others, of a job named /exec, with results and output, and can be followed and cancelled; what was run, and by whom, is kept with it. It is not resumed if the daemon ends. For the Idempotency-Key see run-job.", []int{noSuch, senses, unable}},
		"list-nodes":          {"With whether each can be reached, as far as the last results there and pings tell, and what ran there last.", []int{noSuch, senses, unable}},
		"get-node":            {"With the newest results there, and the jobs that target it. Passwords, keys and the values of variables are not shown.", []int{noSuch, unable}},
		"ping-node":           {"Connects, or uses a connection that is kept, and runs two small commands there. That a node can't be reached is an answer, not a problem: it says what kind of thing went wrong, and what to do.", []int{noSuch, unable}},
		"list-host-keys":      {"Asks the node for a key of each kind; nothing else is sent to it. Compare the fingerprints with what the node itself shows: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub.", []int{noSuch, unable, far}},
		"trust-host-keys":     {"Records the keys in the known_hosts file that the daemon uses, and answers with those that were new. Name the fingerprints that you have looked at: if the node shows others by then, nothing is recorded. A key that has changed is not trusted: the problem says what to do.", []int{noSuch, unable, far}},
		"get-manifest":        {"The manifest in force may be an older text of files that have mistakes now: those are stale.", []int{unable}},
		"list-problems":       {"All mistakes at once, each at its place, and what is said to no effect.", []int{senses, unable}},
		"list-sources":        {"The files that people write: main file, nodes, data and job manifests; not programs that print nodes. With file, the text of that one as it is now, without passwords and secrets. No other file is shown.", []int{noSuch, unable}},
		"list-tasks":          {"What the task key of a manifest may name, from the code of this very daemon.", []int{unable}},
		"get-task":            {"With its parameters in order: args fill them by position, kwargs by name.", []int{noSuch, unable}},
		"get-schema":          {"JSON Schema, draft 2020-12.", []int{unable}},
		"audit":               {"Each order that was carried out is written down once, with who gave it, whichever way it came.", []int{senses}},
		"list-actions":        {"The same as audit, under the name that it has as a part of the store.", []int{senses}},
		"act":                 {"For verbs that the store does not know it only writes down that something was done.", []int{noSuch, senses}},
		"list-tokens":         {"Without the tokens themselves, which nobody knows but who was given them.", nil},
		"create-token":        {"The answer is the only time that the token is shown.", []int{conflict, senses}},
		"revoke-token":        {"It is good for nothing from now on.", []int{noSuch}},
		"health":              {"It can be asked without a token.", nil},
		"readiness":           {"A problem says what is wrong: the store is down, or the daemon is stopping. It can be asked without a token.", []int{http.StatusServiceUnavailable}},
		"metrics":             {"In the text format of Prometheus.", nil},
	}
}

// common says what names mean that are the same wherever they are.
func common() map[string]string {
	return map[string]string{
		"job": "A job's name", "node": "A node's name", "run": "A run's ID", "name": "The name", "description": "In the words of the manifest",
		"by": "Who", "why": "What for, in somebody's words", "time": "When", "since": "Since when", "items": "What was asked for", "id": "The ID",
		"queued": "When it was asked for", "started": "When it began; left out: it has not", "ended": "When it ended; left out: it has not",
		"due": "When it should have started", "created": "When it was made", "at": "When", "verb": "What was done", "status": "How it stands, or ended",
		"reason": "Why it did not go well", "nodes": "Nodes", "targets": "The names of its nodes", "labels": "Free words, to filter by", "groups": "The groups that it is in",
		"file": "A file's name on the daemon's machine", "line": "From 1", "col": "From 1", "dir": "Working directory", "shell": "What runs commands there",
		"role": "viewer, operator or admin", "ok": "It was done", "text": "The text, without its end of line", "lines": "In order", "runs": "How many", "jobs": "How many",
		"for_seconds": "How long it lasts", "from": "Its beginning", "to": "Its end", "type": "In words, or by name", "max_seconds": "At most",
		"exit_code": "Of the command that failed; -1 if none did, or a signal ended it", "fingerprint": "Of the key, as ssh-keygen -lf shows it",
		"delay_seconds": "Before the first further attempt", "max_delay_seconds": "No delay is longer", "severity": "error, or warning",
		"expired": "It is good for nothing any more", "chunks": "Pieces of output, in order", "default": "What it is if it is left out",
		"fields": "Of each value, if it has any", "help": "What it means", "required": "It can't be left out", "rest": "It takes all further args",
		"config_file": "The main file", "paused": "Jobs that are paused", "pid": "The daemon's process", "state_dir": "Where it keeps what it remembers",
		"version": "The daemon's", "go_type": "The task's type in Go",
		"message": "What is wrong", "value": "What was given", "title": "What kind of problem it is, in words", "bytes": "Its size", "modified": "When it was last changed",
	}
}

// explainOperations completes a document with what there is to say of its operations, their
// parameters and problems, and types.
func explainOperations(doc *huma.OpenAPI) {
	words := common()
	text := map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}}
	all := manuals()
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			m := all[op.OperationID]
			op.Description = cmp.Or(op.Description, m.text)
			for _, p := range op.Parameters {
				p.Description = cmp.Or(p.Description, words[p.Name])
			}
			for _, status := range m.problems {
				op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: text}
			}
			if role, ok := op.Extensions[roleKey].(Role); ok {
				op.Description = fmt.Sprintf("%s\n\nNeeds the role %s.", op.Description, role)
				op.Responses["401"] = &huma.Response{Description: "Who asks is not known", Content: text}
				op.Responses["403"] = &huma.Response{Description: "Who asks may not", Content: text}
			}
		}
	}
	for _, schema := range doc.Components.Schemas.Map() {
		for name, p := range schema.Properties {
			if p.Ref == "" {
				p.Description = cmp.Or(p.Description, words[name])
			}
		}
	}
	if p := doc.Components.Schemas.Map()["Problem"]; p != nil {
		p.Examples = []any{map[string]any{"type": "urn:loom:not-found", "title": "Not found", "status": 404,
			"detail": `there is no job "bakcup" (did you mean "backup"?): not found`}}
	}
}
