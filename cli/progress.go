package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/dustinlacewell/loom"
)

// How often how far a run is gets drawn, and said where it can't be drawn.
const (
	drawEvery   = 100 * time.Millisecond
	reportFirst = 15 * time.Second
	reportLast  = 5 * time.Minute
)

// How many lines a block has at most, whatever the terminal's height.
const mostLines = 30

// animate draws the view's frames until the function it returns is called.
func animate(v *view) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				v.draw(time.Now())
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// draw shows how far the run is: on a terminal in a block of lines below all else,
// which the next call changes, elsewhere now and then in a line of its own.
func (v *view) draw(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.raw:
	case v.live:
		v.show(v.frame(now))
	case v.mode == viewGrouped:
		v.report(now)
	}
}

// report says how far the run is, less and less often. v.mu is held.
func (v *view) report(now time.Time) {
	passed := now.Sub(v.began)
	if now.Sub(v.reported) < min(max(reportFirst, passed/2), reportLast) {
		return
	}
	v.reported = now
	line := v.counted(now)
	if len(v.going) > 0 {
		line += ": on " + shorten(Fold(keys(v.going)), 200)
	}
	_, _ = fmt.Fprintln(v.err, line)
}

// counted is how far the run is, in words.
func (v *view) counted(now time.Time) string {
	bad := 0
	for _, r := range v.results {
		if !r.Status.Good() {
			bad++
		}
	}
	line := fmt.Sprintf("%d/%d done", len(v.results), v.total)
	if bad > 0 {
		line += fmt.Sprintf(", %d failed", bad)
	}
	return line + ", " + clockOf(now.Sub(v.began))
}

// clockOf is a time that grows, without jumping about on the screen.
func clockOf(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// show replaces the block on the screen, and brings what waits above it. v.mu is
// held.
func (v *view) show(lines []string) {
	if len(v.waiting) == 0 && slices.Equal(lines, v.block) {
		return
	}
	var b strings.Builder
	b.WriteString(v.top())
	if len(v.waiting) > 0 {
		b.WriteString("\x1b[J")
		for _, p := range v.waiting {
			if p.to != v.err { // what was built so far comes first
				_, _ = io.WriteString(v.err, b.String())
				b.Reset()
				_, _ = io.WriteString(p.to, p.text)
				continue
			}
			b.WriteString(p.text)
		}
		v.waiting = nil
	}
	if v.open && len(lines) > 0 {
		b.WriteString("\r\n")
		v.open = false
	}
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line)
		b.WriteString("\x1b[K")
	}
	if len(v.block) > 0 {
		b.WriteString("\x1b[J")
	}
	v.block = lines
	_, _ = io.WriteString(v.err, b.String())
}

// top goes to where the block on the screen begins.
func (v *view) top() string {
	if len(v.block) == 0 {
		return ""
	}
	width, rows := terminal(v.err), 0
	for _, line := range v.block { // the terminal may be narrower than when it was drawn
		rows += max(1, (cells(line)+width-1)/max(width, 1))
	}
	if rows == 1 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", rows-1)
}

// clear takes the block away, and shows what waits. v.mu is held.
func (v *view) clear() {
	v.show(nil)
	if v.open {
		_, _ = io.WriteString(v.out, "\n")
		v.open = false
	}
}

// frame is the block as it shall be now. v.mu is held.
func (v *view) frame(now time.Time) []string {
	width, height := terminal(v.err)-1, heightOf(v.err)
	if v.open && v.question == "" {
		return nil
	}
	lines := []string{v.header(width, now)}
	room := min(max(height-3, 3), mostLines)
	if v.mode != viewStream {
		lines = append(lines, v.badLines(width, room/2)...)
	}
	lines = append(lines, v.goingLines(width, room-len(lines), now)...)
	if v.trouble != "" {
		lines = append(lines, v.paint("33", shortenCells(flat(v.trouble), width)))
	}
	if v.question != "" {
		lines = append(lines, v.paint("1", shortenCells(v.question, width)))
	}
	return lines
}

// header is the line with the bar.
func (v *view) header(width int, now time.Time) string {
	name := shortenCells(clean(cmp.Or(v.job, "run")), max(width/3, 8))
	tail := v.counted(now)
	if len(v.going) == 0 && len(v.results) == 0 {
		tail = "waits to begin, " + clockOf(now.Sub(v.began))
	}
	bar := ""
	if room := width - cells(name) - cells(tail) - 4; v.total > 1 && room >= 10 {
		bar = v.bar(min(room, 50)) + " "
	}
	return v.paint("1", name) + " " + bar + shortenCells(tail, max(width-cells(name)-cells(bar)-1, 0))
}

// bar is how many nodes have ended how, and how many are at work.
func (v *view) bar(width int) string {
	var ok, changed, bad int
	for _, r := range v.results {
		switch {
		case r.Status == loom.StatusChanged:
			changed++
		case r.Status.Good():
			ok++
		default:
			bad++
		}
	}
	parts := []struct {
		n            int
		colour, sign string
	}{{ok, "32", "="}, {changed, "33", "+"}, {bad, "31", "x"}, {len(v.going), "34", ">"}}
	var b strings.Builder
	b.WriteByte('[')
	used, sum := 0, 0
	for _, p := range parts {
		sum += p.n
		end := sum * width / max(v.total, sum, 1)
		if p.n > 0 && end <= used {
			end = min(used+1, width) // what there is can be seen
		}
		if end <= used {
			continue
		}
		sign := p.sign
		if colourful(v.err) {
			sign = "━"
		}
		b.WriteString(v.paint(p.colour, strings.Repeat(sign, end-used)))
		used = end
	}
	rest := "."
	if colourful(v.err) {
		rest = "─"
	}
	b.WriteString(v.paint("2", strings.Repeat(rest, width-used)))
	b.WriteByte(']')
	return b.String()
}

// badLines say what went badly so far, in at most so many lines.
func (v *view) badLines(width, most int) []string {
	var lines []string
	var left []string
	for _, g := range v.groups(reasonKey) {
		if g.first.Status.Good() {
			continue
		}
		if len(lines) == most-1 && most > 0 {
			left = append(left, g.nodes...)
			continue
		}
		title := shortenCells(g.title(), max(width/2, 10))
		reason := shortenMiddle(flat(v.reason(g.first)), max(width-cells(title)-4, 0))
		lines = append(lines, "  "+v.paint("31", title)+": "+reason)
	}
	if len(left) > 0 {
		lines = append(lines, v.paint("31", fmt.Sprintf("  and %s more", count(len(left), "node"))))
	}
	return lines
}

// goingLines say what the nodes do now, those that have been at it longest first:
// those that do the same in one line.
func (v *view) goingLines(width, most int, now time.Time) []string {
	type doing struct {
		nodes []string
		since time.Time
		text  string
	}
	byText := map[string]*doing{}
	var all []*doing
	for name, n := range v.going {
		text := flat(n.last)
		if n.attempt > 1 && !strings.HasPrefix(text, "attempt ") {
			text = strings.TrimSuffix(fmt.Sprintf("attempt %d: %s", n.attempt, text), ": ")
		}
		d := byText[text]
		if d == nil {
			d = &doing{since: n.since, text: text}
			byText[text], all = d, append(all, d)
		}
		d.nodes = append(d.nodes, name)
		if n.since.Before(d.since) {
			d.since = n.since
		}
	}
	slices.SortFunc(all, func(a, b *doing) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.text, b.text))
	})
	more := 0
	if len(all) > most {
		for _, d := range all[max(most-1, 0):] {
			more += len(d.nodes)
		}
		all = all[:max(most-1, 0)]
	}
	column := 0
	titles := make([]string, len(all))
	for i, d := range all {
		titles[i] = shortenCells((&group{nodes: d.nodes}).title(), max(width/3, 10))
		column = max(column, cells(titles[i]))
	}
	var lines []string
	for i, d := range all {
		clock := fmt.Sprintf("%6s", clockOf(now.Sub(d.since)))
		text := shortenMiddle(d.text, max(width-column-cells(clock)-6, 0))
		lines = append(lines, strings.TrimRight(fmt.Sprintf("  %s%s %s  %s", v.paint("34", titles[i]),
			strings.Repeat(" ", column-cells(titles[i])), clock, v.paint("2", text)), " "))
	}
	rest := v.total - len(v.results) - len(v.going)
	var tail []string
	if more > 0 {
		tail = append(tail, fmt.Sprintf("%d more at work", more))
	}
	if rest > 0 && len(v.going)+len(v.results) > 0 {
		tail = append(tail, fmt.Sprintf("%d to come", rest))
	}
	if len(tail) > 0 && most > 0 {
		lines = append(lines, v.paint("2", shortenCells("  "+strings.Join(tail, ", "), width)))
	}
	return lines
}

// paint gives text a colour, where there are any.
func (v *view) paint(colour, text string) string { return paint(v.err, colour, text) }

func paint(w io.Writer, colour, text string) string {
	if text == "" || !colourful(w) {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// flat is text from a node that fits into a line of the screen.
func flat(text string) string {
	return strings.ReplaceAll(clean(strings.TrimSpace(text)), "\t", " ")
}

// heightOf is how many lines a terminal has.
func heightOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil && height > 0 {
			return height
		}
	}
	return 24
}

// cells is how many columns of a terminal a text takes, apart from its colours.
func cells(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n += cellsOf(r)
		}
	}
	return n
}

// cellsOf is how many columns a character takes: two of the East Asian ones and
// of pictures, none of what is put onto the character before.
func cellsOf(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// shortenCells is shorten by columns: of text without colours.
func shortenCells(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += cellsOf(r); used > n-1 {
			if n < 1 {
				return ""
			}
			return strings.TrimRight(s[:i], " ,") + "…"
		}
	}
	return s
}

// shortenMiddle is shortenCells that keeps the end, which says why.
func shortenMiddle(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	head := n / 3
	runes, used, at := []rune(s), 0, 0
	for at = len(runes); at > 0; at-- {
		if used += cellsOf(runes[at-1]); used > n-head {
			break
		}
	}
	return shortenCells(s, head) + string(runes[at:])
}

func keys[V any](m map[string]V) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	return all
}
