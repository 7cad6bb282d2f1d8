package cli

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/shell"
)

func (p *Program) importCrontabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "crontab FILE",
		Short: "Make jobs of a crontab",
		Long: `Crontab makes a job of each line of a crontab(5): a user's, or a system's, whose lines
name the user after the times (--system; known of /etc/crontab and /etc/cron.d). FILE
may be -, the standard input. The comment above a line becomes its description.

It heeds what crontab(5) says of %, of variables, CRON_TZ and RANDOM_DELAY. What cron
does and Loom does not, it says: MAILTO (Loom keeps what jobs print, and notify:
tells of failures), @reboot (Loom fires it when Loom starts), ~ (random times); and
what Loom does of its own (timeout, overlap, missed). Where crontab(5)s differ it is
cronie's.`,
		Example: `  ` + p.Name + ` import crontab /etc/crontab --to /etc/loom
  crontab -l | ` + p.Name + ` import crontab - --targets db1,db2
  ` + p.Name + ` import crontab --system ./cron.d-backup`,
		Args: cobra.ExactArgs(1),
	}
	system := cmd.Flags().Bool("system", false, "the lines name a user")
	targets := cmd.Flags().StringSlice("targets", []string{"here"}, "where the jobs run; here is this machine")
	to := importInto(cmd)
	_ = cmd.RegisterFlagCompletionFunc("targets", p.completeTargetsFlag) // it is our own flag
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := p.readAll(args[0])
		if err != nil {
			return err
		}
		nodes, err := importNodes(*targets, *to != "")
		if err != nil {
			return err
		}
		abs, _ := filepath.Abs(args[0]) // only to look at
		c := &crontab{importer: &importer{file: importSource(args[0])}, targets: *targets, taken: map[string]bool{},
			system: *system || abs == "/etc/crontab" || path.Dir(abs) == "/etc/cron.d"}
		jobs := c.read(text)
		if !jobs.empty() {
			c.note(0, "unlike cron, Loom ends what takes longer than an hour (timeout: 0 is cron's way), lets a time go while the run before is going (overlap: allow), and makes up for one that fell while it did not run (missed: skip)")
		}
		out := newYAML()
		out.set("jobs", jobs)
		whole, err := out.text(c.head(p.Name, "crontab"))
		if err != nil {
			return err
		}
		name := importName(strings.TrimSuffix(filepath.Base(args[0]), ".txt"), map[string]bool{"job": true})
		if args[0] == "-" {
			name = "crontab"
		}
		return p.imported(cmd.Context(), c.importer, *to, len(jobs.node.Content)/2, "job", newFile{"jobs/" + name + ".yaml", whole}, importMain(), nodes)
	}
	return cmd
}

// importNodes is the nodes file that goes with imported jobs.
func importNodes(targets []string, needed bool) (newFile, error) {
	nodes := newYAML()
	for _, t := range targets {
		switch {
		case !needed:
		case t == "here":
			local := newYAML()
			local.set("transport", "local")
			nodes.set("here", local)
		case !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`).MatchString(t) || t == "all":
			return newFile{}, Usage("--targets %s: with --to, the nodes file is written too, so that names of nodes are needed", t)
		default:
			nodes.set(t, newYAML())
		}
	}
	text, err := nodes.text("The machines. What is left out comes from your ssh configuration.")
	return newFile{"nodes.yaml", text}, err
}

// A crontab is read line by line: variables hold for the lines below them.
type crontab struct {
	*importer
	system  bool
	targets []string
	taken   map[string]bool

	env   map[string]string
	above string // the comment that is right above
}

// variableLine is a line that sets a variable: crontab(5) lets quotes be put around
// name and value, and blanks around the equals sign.
func variableLine(line string) (name, value string, ok bool) {
	m := regexp.MustCompile(`^\s*(?:"([^"=]+)"|'([^'=]+)'|([A-Za-z_][A-Za-z0-9_]*))\s*=\s*(.*?)\s*$`).FindStringSubmatch(line)
	if m == nil {
		return "", "", false
	}
	name, value = m[1]+m[2]+m[3], m[4]
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = value[1 : n-1]
	}
	return name, value, true
}

// read returns the jobs.
func (c *crontab) read(text string) yamlMap {
	jobs := newYAML()
	c.env = map[string]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		name, value, variable := variableLine(line)
		switch {
		case trimmed == "":
			c.above = ""
		case strings.HasPrefix(trimmed, "#"):
			if c.above = strings.Join(strings.Fields(strings.TrimLeft(trimmed, "#")), " "); strings.HasPrefix(c.above, "m h dom mon") {
				c.above = "" // the heading of the table
			}
			continue
		case unusual(line):
			c.note(n, "left out: there are control characters in it")
		case variable:
			c.variable(n, name, value)
		default:
			c.job(n, trimmed, jobs)
		}
		c.above = ""
	}
	return jobs
}

// variable heeds a line that sets one.
func (c *crontab) variable(n int, name, value string) {
	switch name {
	case "MAILTO", "MAILFROM":
		if value != "" {
			c.note(n, "%s is left out: Loom keeps what jobs print (logs, show), and notify: tells of failures", name)
		}
		return
	case "CRON_TZ":
		if _, err := time.LoadLocation(value); err != nil || value == "" {
			c.note(n, "CRON_TZ is left out: there is no time zone %q", value)
			return
		}
	case "RANDOM_DELAY":
		if m, err := strconv.Atoi(value); err != nil || m < 0 || m > 24*60 {
			c.note(n, "RANDOM_DELAY is left out: %q are no minutes of a day", value)
			return
		}
		c.note(n, "RANDOM_DELAY becomes jitter, which is the same for a job every time")
	case "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING", "CRON_CORRECT_MAIL_HEADER", "NO_MAIL_OUTPUT":
		return // about mail too
	default:
		if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name) {
			c.note(n, "left out: a shell has no variable of the name %q", name)
			return
		}
	}
	c.env[name] = value
}

// job makes a job of a line.
func (c *crontab) job(n int, line string, jobs yamlMap) {
	var remarks []string
	say := func(format string, args ...any) { remarks = append(remarks, c.remark(n, format, args...)) }
	if rest, ok := strings.CutPrefix(line, "-"); ok {
		line = rest // "do not log", for root
	}
	schedule, rest := cutFields(line, 5)
	if strings.HasPrefix(line, "@") {
		schedule, rest = cutFields(line, 1)
	}
	user := ""
	if c.system {
		user, rest = cutFields(rest, 1)
	}
	if rest == "" || c.system && user == "" {
		c.note(n, "left out: it is neither a variable nor %s", map[bool]string{false: "times and a command", true: "times, a user and a command (--system)"}[c.system])
		return
	}
	zone := c.env["CRON_TZ"]
	loc, err := time.LoadLocation(cmp.Or(zone, "UTC"))
	if err == nil {
		_, err = loom.ParseSchedule(schedule, loc)
	}
	switch {
	case err != nil && strings.Contains(schedule, "~"):
		c.note(n, "left out: Loom has no random times (~): %s; a schedule with jitter: spreads jobs", schedule)
		return
	case err != nil:
		c.note(n, "left out: %v", err)
		return
	case schedule == "@reboot":
		say("@reboot: Loom fires it when Loom starts, not when the machine does")
	}
	command, input := percents(rest)
	if strings.TrimSpace(command) == "" {
		c.note(n, "left out: there is no command")
		return
	}
	if strings.Contains(command, "$${") || strings.Contains(input, "$${") {
		c.note(n, "left out: $${ means something else in a manifest: write it by hand")
		return
	}
	if word, _ := cutFields(command, 1); word == "root" && !c.system {
		say("the command begins with root: if that is the user, import the file with --system")
	}
	name := importName(commandName(command), c.taken)
	if input != "" {
		command = withInput(command, input)
	}
	if sh := c.env["SHELL"]; sh != "" && sh != "/bin/sh" {
		if regexp.MustCompile(`[^A-Za-z0-9/._-]`).MatchString(sh) {
			sh = shell.Quote(sh)
		}
		command = sh + " -c " + shell.Quote(command)
	}
	job := newYAML()
	job.set("description", literally(c.above, false))
	job.set("task", "run")
	job.set("args", []string{literally(command, true)})
	job.set("schedule", schedule)
	job.set("timezone", zone)
	job.set("targets", c.targets)
	switch user {
	case "":
	case "root":
		job.set("sudo", true)
	default:
		job.set("sudo", user)
	}
	if d := c.env["RANDOM_DELAY"]; d != "" && d != "0" {
		job.set("jitter", d+"m")
	}
	job.set("env", c.environment())
	jobs.set(name, job)
	jobs.comment(append([]string{fmt.Sprintf("%s:%d", clean(c.file), n)}, remarks...)...)
}

// environment is what the lines above set for commands.
func (c *crontab) environment() any {
	env := newYAML()
	for _, name := range slices.Sorted(mapKeys(c.env)) {
		if !slices.Contains([]string{"SHELL", "CRON_TZ", "RANDOM_DELAY"}, name) {
			env.set(name, literally(c.env[name], false))
			if c.env[name] == "" { // set leaves what is empty out
				env.node.Content = append(env.node.Content, yamlText(name), yamlText(""))
			}
		}
	}
	if env.empty() {
		return ""
	}
	return env
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// cutFields returns the first n fields of a line, and what comes after the blanks
// that follow.
func cutFields(line string, n int) (fields, rest string) {
	var all []string
	rest = strings.TrimLeft(line, " \t")
	for range n {
		end := strings.IndexAny(rest, " \t")
		if end < 0 {
			end = len(rest)
		}
		if end == 0 {
			return "", ""
		}
		all = append(all, rest[:end])
		rest = strings.TrimLeft(rest[end:], " \t")
	}
	return strings.Join(all, " "), rest
}

// percents divides what crontab(5) calls the command: it ends at the first %, all
// after which is the standard input, where each further % is a newline; \% is a %.
func percents(text string) (command, input string) {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '%':
			b.WriteByte('%')
			i++
		case text[i] == '%':
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(text[i])
		}
	}
	if parts = append(parts, b.String()); len(parts) == 1 {
		return parts[0], ""
	}
	return parts[0], strings.Join(parts[1:], "\n") + "\n"
}

// withInput gives a command an input.
func withInput(command, input string) string {
	return "printf %s " + shell.Quote(input) + " | {\n" + command + "\n}"
}

// commandName is the word of a command that says what it does.
func commandName(command string) string {
	for word := range strings.FieldsSeq(command) {
		word = strings.Trim(word, `"'()[]{};&|!`)
		base := path.Base(word)
		switch {
		case word == "" || strings.Contains(word, "=") || strings.HasPrefix(word, "-"):
		case slices.Contains([]string{"test", "root", "cd", "sh", "bash", "nice", "ionice", "sudo", "env", "exec", "flock", "timeout", "command", "/", ".", "run-parts", "if", "then"}, base):
			if base == "run-parts" {
				return "run-parts " + command[strings.LastIndexAny(command, "/")+1:]
			}
		default:
			return strings.TrimSuffix(strings.TrimSuffix(base, ".sh"), ".py")
		}
	}
	return "job"
}
