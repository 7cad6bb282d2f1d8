package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
)

// followTime is how long the daemon waits for output before it answers without.
const followTime = 30 * time.Second

func (p *Program) logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs RUN",
		Short: "Show what a run printed",
		Long: `Logs prints the output of a run in the order in which it was recorded, after the
node's name if there are several. RUN is an ID, or the beginning of one. Control
sequences in it are made harmless on a terminal, and left as they are elsewhere.`,
		Example: `  ` + p.Name + ` logs 0dhqymbe3f2ka
  ` + p.Name + ` logs 0dhqymbe3f2ka --node db3 --timestamps
  ` + p.Name + ` logs -f $(` + p.Name + ` runs --status running -o name -n 1)`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeRuns(false),
	}
	var l logView
	node := cmd.Flags().String("node", "", "only what this node printed")
	follow := cmd.Flags().BoolP("follow", "f", false, "go on until the run has ended")
	stream := cmd.Flags().String("stream", "", "only this: stdout, stderr, or log for the task's own words")
	cmd.Flags().BoolVar(&l.times, "timestamps", false, "the time before each line")
	state := stateFlag(cmd)
	output := outputFlag(cmd, "text", "json")
	streams := []string{string(loom.Stdout), string(loom.Stderr), string(loom.Log)}
	_ = cmd.RegisterFlagCompletionFunc("node", p.completeNode)
	_ = cmd.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions(streams, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *stream != "" && !slices.Contains(streams, *stream) {
			return Usage("--stream %s: write %s", *stream, strings.Join(streams, ", "))
		}
		ctx := cmd.Context()
		m, r, err := p.openRun(ctx, *state, args[0])
		if err != nil {
			return err
		}
		defer m.close()
		l.out, l.json, l.stream = bufio.NewWriter(p.Stdout), *output == "json", loom.Stream(*stream)
		l.programs = l.out
		if _, ok := p.Stdout.(*yamlWriter); ok {
			l.programs = &yamlWriter{Writer: l.out}
		}
		l.harmless, l.colour = terminal(p.Stdout) > 0, colourful(p.Stdout)
		if err := p.logNodes(ctx, m, r, *node, &l); err != nil {
			return err
		}
		return p.logs(ctx, m, r, *node, *follow, &l)
	}
	return cmd
}

// logNodes finds out whether lines need a name, and whether the node that is
// asked for has any.
func (p *Program) logNodes(ctx context.Context, m *memory, r loom.Run, node string, l *logView) error {
	results, err := m.Results(ctx, loom.ResultQuery{Runs: []string{r.ID}})
	if err != nil {
		return err
	}
	found := false
	for _, one := range results {
		found = found || one.Node == node
		l.column = max(l.column, len([]rune(one.Node)))
	}
	l.prefix = node == "" && r.Nodes > 1
	if node != "" && !found && r.Status.Ended() {
		return &Error{Code: ExitNotFound, Err: fmt.Errorf("run %s of job %s was not at work on %s: %w", r.ID, r.Job, node, loom.ErrNotFound),
			Hint: fmt.Sprintf("%s show %s tells where it was", p.Name, r.ID)}
	}
	return nil
}

// logs prints what a run printed, and goes on while it runs if that is wanted.
func (p *Program) logs(ctx context.Context, m *memory, r loom.Run, node string, follow bool, l *logView) error {
	q := loom.OutputQuery{Run: r.ID, Node: node}
	for {
		var chunks []loom.Chunk
		var err error
		over := false
		if follow && m.daemon != nil {
			chunks, over, err = m.daemon.Follow(ctx, q, followTime)
		} else if chunks, err = m.Output(ctx, q); err == nil {
			over = len(chunks) == 0
		}
		if err != nil {
			return errors.Join(l.end(), err)
		}
		for _, c := range chunks {
			l.chunk(c)
			q.After = c.Cursor
		}
		if err := l.out.Flush(); err != nil {
			return err
		}
		if over {
			break
		}
	}
	if err := l.end(); err != nil {
		return err
	}
	return p.logged(ctx, m, r, node, follow, l)
}

// logged says what a person may wonder about at the end of a log.
func (p *Program) logged(ctx context.Context, m *memory, r loom.Run, node string, follow bool, l *logView) error {
	switch {
	case l.lines > 0 || l.json || l.empty:
	case !r.Status.Ended() && !follow:
		fmt.Fprintf(p.Stderr, "nothing was printed yet; -f waits for it\n")
	case node != "" || l.stream != "":
		fmt.Fprintf(p.Stderr, "nothing of that was printed, or it is not kept any more\n")
	default:
		fmt.Fprintf(p.Stderr, "nothing was printed, or it is not kept any more\n")
	}
	if !follow {
		return nil
	}
	if m.daemon == nil && !r.Status.Ended() {
		fmt.Fprintf(p.Stderr, "the run has not ended, but no daemon works on it: one that starts takes it up\n")
		return nil
	}
	now, err := p.findRun(ctx, m, r.ID)
	if err != nil {
		return err
	}
	if !l.json && !r.Status.Ended() && now.Status.Ended() {
		fmt.Fprintf(p.Stderr, "%s %s ended %s after %s: %s\n", runWord(now.Plan), now.ID, statusWord(now.Status, now.Plan), runTook(now, time.Now()), countsOf(now))
	}
	return nil
}

// A logView prints lines of output.
type logView struct {
	out      *bufio.Writer
	json     bool
	programs io.Writer // where that goes: to out
	times    bool
	prefix   bool
	column   int // width of node names
	harmless bool
	colour   bool
	stream   loom.Stream // only this; "": all
	empty    bool        // if nothing was printed, that is nothing to be told

	open  string // whose line is not finished
	lines int
}

func (l *logView) chunk(c loom.Chunk) {
	for _, line := range c.Lines {
		if l.stream == "" || l.stream == line.Stream {
			l.line(c.Node, line)
		}
	}
}

func (l *logView) line(node string, line loom.Line) {
	l.lines++
	if l.json {
		l.record(node, line)
		return
	}
	text := line.Text
	if l.harmless {
		text = clean(text)
	}
	if l.colour && line.Stream != loom.Stdout {
		text = map[loom.Stream]string{loom.Stderr: "\x1b[31m", loom.Log: "\x1b[2m"}[line.Stream] + text + "\x1b[0m"
	}
	key := node + "\x00" + string(line.Stream)
	if l.open != key {
		l.close()
		if l.times {
			_, _ = l.out.WriteString(line.Time.Local().Format("2006-01-02T15:04:05.000Z07:00") + " ")
		}
		if l.prefix {
			_, _ = fmt.Fprintf(l.out, "%-*s | ", l.column, node)
		}
	}
	_, _ = l.out.WriteString(text)
	l.open = key
	if !line.More {
		l.close()
	}
}

// close ends a line that was begun.
func (l *logView) close() {
	if l.open != "" {
		_ = l.out.WriteByte('\n')
		l.open = ""
	}
}

// end ends the log. A failure to write shows here.
func (l *logView) end() error {
	l.close()
	err := l.out.Flush()
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// record prints a line for programs: one JSON object in a line. A failure to write
// shows at the end.
func (l *logView) record(node string, line loom.Line) {
	_ = writeLine(l.programs, struct {
		Time   time.Time   `json:"time"`
		Node   string      `json:"node"`
		Stream loom.Stream `json:"stream"`
		Text   string      `json:"text"`
		More   bool        `json:"more,omitempty"`
	}{line.Time.UTC(), node, line.Stream, line.Text, line.More})
}
