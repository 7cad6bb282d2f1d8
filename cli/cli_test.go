package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/internal/why"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // what is shown must not depend on where it is tested
	goleak.VerifyTestMain(m)
}

func TestFold(t *testing.T) {
	for _, tt := range []struct{ names, want string }{
		{"", ""},
		{"a", "a"},
		{"web2 web1", "web1, web2"},
		{"db1 db2 db3 db4", "db[1-4]"},
		{"db1 db2 db3 db5 db7 db8 db9", "db[1-3], db5, db[7-9]"},
		{"db8 db9 db10 db11", "db[8-11]"},
		{"db08 db09 db10", "db[08-10]"},
		{"db8 db08 db9", "db8, db08, db9"},
		{"n001 n002 n003", "n[001-003]"},
		{"a1.example a2.example a3.example b1", "a[1-3].example, b1"},
		{"r1n1 r1n2 r1n3 r2n1", "r1n[1-3], r2n1"},
		{"x9999999999999999999999 a", "a, x9999999999999999999999"},
		{"1 2 3", "[1-3]"},
	} {
		if got := Fold(strings.Fields(tt.names)); got != tt.want {
			t.Errorf("Fold(%s) = %q, want %q", tt.names, got, tt.want)
		}
	}
}

// FuzzFold checks that what is folded can be unfolded.
func FuzzFold(f *testing.F) {
	f.Add("db1 db2 db3 db5 other")
	f.Add("n07.a n08.a n09.a n10.a n11.a n1 n2 n3")
	f.Add("09 10 11 009 010 011 99 100 101")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "[],") {
			t.Skip()
		}
		names := strings.Fields(text)
		slices.Sort(names)
		names = slices.Compact(names)
		var got []string
		for word := range strings.SplitSeq(Fold(names), ", ") {
			got = append(got, unfold(t, word)...)
		}
		slices.Sort(got)
		if len(names) > 0 && !slices.Equal(got, names) {
			t.Errorf("Fold(%q) = %q, which is %q", names, Fold(names), got)
		}
	})
}

// unfold returns the names that a[1-3].b stands for.
func unfold(t *testing.T, word string) []string {
	t.Helper()
	before, rest, ranged := strings.Cut(word, "[")
	if !ranged {
		return []string{word}
	}
	numbers, after, _ := strings.Cut(rest, "]")
	first, last, _ := strings.Cut(numbers, "-")
	var from, to int
	if _, err := fmt.Sscan("1"+first+" 1"+last, &from, &to); err != nil { // the 1 guards against octal
		t.Fatalf("%q is no range: %v", word, err)
	}
	from, to = from-pow10(len(first)), to-pow10(len(last))
	var names []string
	for n := from; n <= to; n++ {
		width := 0
		if first[0] == '0' && len(first) > 1 {
			width = len(first)
		}
		names = append(names, fmt.Sprintf("%s%0*d%s", before, width, n, after))
	}
	return names
}

func pow10(n int) int {
	p := 1
	for range n {
		p *= 10
	}
	return p
}

func TestClean(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"plain, with ümlauts\tand tabs", "plain, with ümlauts\tand tabs"},
		{"\x1b[31mred\x1b[0m", "^[[31mred^[[0m"},
		{"\x1b]0;title\x07", "^[]0;title^G"},
		{"50%\r100%\r", "50%^M100%"},
		{"\u009b2J", "\\x9b2J"},
		{"\x7f\x00", "^?^@"},
	} {
		if got := clean(tt.text); got != tt.want {
			t.Errorf("clean(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	tab := table{head: []string{"NAME", "WHAT"}}
	tab.add("ä", "a long text, that ends somewhere")
	tab.add("longer", "")
	for width, want := range map[int]string{
		0:  "NAME    WHAT\nä       a long text, that ends somewhere\nlonger\n",
		20: "NAME    WHAT\nä       a long text…\nlonger\n",
	} {
		var out bytes.Buffer
		tab.write(&out, width)
		if out.String() != want {
			t.Errorf("width %d:\n%q, want\n%q", width, out.String(), want)
		}
	}
	if got := wrap("one two three, four", 9); !slices.Equal(got, []string{"one two", "three,", "four"}) {
		t.Errorf("wrap = %q", got)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("any"), 1},
		{Usage("no"), 2},
		{fmt.Errorf("wrapped: %w", &Error{Code: ExitUnreachable}), 3},
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}, 4},
		{fmt.Errorf("job: %w", loom.ErrNotFound), 5},
	} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("ExitCode(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestProblems(t *testing.T) {
	a, b := &loom.ManifestError{File: "a", Err: errors.New("x")}, &loom.ManifestError{File: "b", Err: errors.New("y")}
	err := &Error{Code: 1, Err: fmt.Errorf("read: %w", errors.Join(a, errors.Join(errors.New("other"), b)))}
	if got := Problems(err); !slices.Equal(got, []*loom.ManifestError{a, b}) {
		t.Errorf("Problems = %v, want both", got)
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{&Error{Code: 1}, ""}, // it was told
		{errors.New("sad"), "loomd: sad\n"},
		{&Error{Code: 3, Err: errors.New("sad"), Hint: "do this"}, "loomd: sad\nloomd: hint: do this\n"},
		{errors.Join(&loom.ManifestError{File: "a.yaml", Line: 2, Col: 3, Err: errors.New("bad")}), "a.yaml:2:3: bad\n"},
		{fmt.Errorf("there is no job %q: %w", "x", loom.ErrNotFound), "loomd: there is no job \"x\"\n"},
		{fmt.Errorf("%w: no node is in the group @x", loom.ErrNotFound), "loomd: no node is in the group @x\n"},
		{fmt.Errorf("no configuration file: looked for x: %w", fs.ErrNotExist), "loomd: no configuration file: looked for x\nloomd: hint: -c names one, and loomd init DIRECTORY writes a first one\n"},
	} {
		var out bytes.Buffer
		(&Program{Name: "loomd", Stderr: &out}).Report(tt.err)
		if out.String() != tt.want {
			t.Errorf("Report(%v) prints %q, want %q", tt.err, out.String(), tt.want)
		}
	}
}

func TestPeriod(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, text := range []string{"2027-03-28 00:00", "2027-03-28", "2027-03-28T00:00", "2027-03-28 00:00:00", "2027-03-27T23:00:00Z"} {
		begin, _, err := period(text, "", now, berlin)
		if want := time.Date(2027, 3, 27, 23, 0, 0, -1, time.UTC); err != nil || !begin.Equal(want) {
			t.Errorf("from %s = %v, %v; want %v", text, begin, err, want)
		}
	}
	if begin, end, err := period("", "", now, berlin); err != nil || !begin.Equal(now) || !end.IsZero() {
		t.Errorf("nothing = %v to %v, %v", begin, end, err)
	}
	for _, bad := range [][2]string{{"soon", ""}, {"", "2026-01-01"}, {"2027-01-02", "2027-01-02"}} {
		if _, _, err := period(bad[0], bad[1], now, berlin); ExitCode(err) != ExitUsage {
			t.Errorf("period %q = %v, want a usage error", bad, err)
		}
	}
}

func TestUpcoming(t *testing.T) {
	schedule := func(expr string) loom.Schedule {
		s, err := loom.ParseSchedule(expr, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	jobs := []*loom.Job{
		{Name: "b", Schedule: schedule("0 * * * *")},
		{Name: "a", Schedule: schedule("0 */2 * * *"), At: start.Add(90 * time.Minute)},
		{Name: "once", At: start.Add(time.Hour)},
		{Name: "off", Schedule: schedule("* * * * *"), Disabled: true},
		{Name: "hand"},
	}
	var got []string
	for _, tick := range why.Upcoming(jobs, start, start.Add(4*time.Hour), 6) {
		got = append(got, tick.Time.Format("15:04 ")+tick.Job.Name)
	}
	want := []string{"01:00 b", "01:00 once", "01:30 a", "02:00 a", "02:00 b", "03:00 b"}
	if !slices.Equal(got, want) {
		t.Errorf("Upcoming = %q, want %q", got, want)
	}
	got = nil
	for _, tick := range why.Soonest(jobs, start, 2) {
		got = append(got, tick.Time.Format("15:04 ")+tick.Job.Name)
	}
	if want := []string{"01:00 b", "01:00 once"}; !slices.Equal(got, want) {
		t.Errorf("Soonest = %q, want %q", got, want)
	}
	for job, want := range map[int]string{1: "", 2: "is over", 3: "disabled", 4: "by hand"} {
		if got := why.Never(jobs[job], start.Add(100*time.Hour)); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("never(%s) = %q, want %q", jobs[job].Name, got, want)
		}
	}
	if got := why.Never(&loom.Job{Schedule: schedule("@reboot")}, start); !strings.Contains(got, "when the daemon starts") {
		t.Errorf("never(@reboot) = %q", got)
	}
}

func TestUntil(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "-", 1500 * time.Millisecond: "2s", 90 * time.Second: "2m", 3 * time.Hour: "3h0m", 49 * time.Hour: "2d",
	} {
		if got := until(d); got != want {
			t.Errorf("until(%v) = %q, want %q", d, got, want)
		}
	}
}

// nodes are local ones.
func nodes(names ...string) []*loom.Node {
	var all []*loom.Node
	for _, n := range names {
		all = append(all, &loom.Node{Name: n, Transport: "local"})
	}
	return all
}

// shown runs a task as run does and returns what a person sees.
func shown(t *testing.T, mode viewMode, plan bool, task loom.Task, targets ...string) (out, err string, ok bool) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	v := newView(&stdout, &stderr, mode, len(targets), targets...)
	v.plan = plan
	pool := &loom.Pool{Log: slog.New(slog.DiscardHandler)}
	defer pool.Close()
	_ = pool.Run(t.Context(), &loom.Job{Name: "j", Task: task, Targets: nodes(targets...)}, time.Now(), v.observe)
	ok = v.end()
	return stdout.String(), stderr.String(), ok
}

func TestGroupedView(t *testing.T) {
	task := loom.TaskFunc(func(ctx context.Context, s *loom.Session) error {
		switch s.Node.Name {
		case "n4":
			return s.Run(ctx, "echo partly; exit 7")
		case "n5":
			return loom.Skip("not here")
		case "n6":
			s.Changed("it is new")
			return nil
		case "n7", "n8":
			return fmt.Errorf("%s: no such thing", s.Node.Name)
		}
		return s.Run(ctx, "echo same; echo lines")
	})
	out, err, ok := shown(t, viewGrouped, false, task, "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8")
	const wantOut = "n[1-3] (3):\n  same\n  lines\nn6:\n  changed: it is new\nn4:\n  partly\n"
	if out != wantOut {
		t.Errorf("output:\n%s\nwant:\n%s", out, wantOut)
	}
	for _, want := range []string{
		"n5: skipped: not here\n", "n4: failed: command 'echo partly; exit 7': exit status 7\n",
		"n7, n8 (2): failed: no such thing\n", "8 nodes in ", ": 3 ok, 1 changed, 1 skipped, 3 failed\n",
	} {
		if !strings.Contains(err, want) {
			t.Errorf("messages lack %q:\n%s", want, err)
		}
	}
	if ok {
		t.Error("it went well, it is said")
	}
}

func TestPlainAndStreamedView(t *testing.T) {
	task := loom.TaskFunc(func(ctx context.Context, s *loom.Session) error { return s.Run(ctx, "echo out; echo err >&2") })
	if out, err, ok := shown(t, viewPlain, false, task, "n"); out != "out\n" || err != "err\n" || !ok {
		t.Errorf("plain: %q, %q, %v", out, err, ok)
	}
	out, err, ok := shown(t, viewStream, false, task, "n", "longer")
	if !strings.Contains(out, "n      | out\n") || !strings.Contains(out, "longer | out\n") || !strings.Contains(err, "n      | err\n") || !ok {
		t.Errorf("stream: %q, %q, %v", out, err, ok)
	}
}

// plans is a task that can tell what it would change.
type plans struct{ loom.TaskFunc }

func (plans) Plan(context.Context, *loom.Session) ([]loom.Change, error) {
	return []loom.Change{"this", "that"}, nil
}

func TestPlan(t *testing.T) {
	touched := loom.TaskFunc(func(context.Context, *loom.Session) error { t.Error("a plan applies the task"); return nil })
	planned := func(j loom.Job) loom.Task { return j.Plan().Task }
	out, _, ok := shown(t, viewGrouped, true, planned(loom.Job{Task: plans{touched}}), "a", "b")
	if want := "a, b (2):\n  would change: this\n  would change: that\n"; out != want || !ok {
		t.Errorf("plan: %q, %v, want %q", out, ok, want)
	}
	_, err, ok := shown(t, viewGrouped, true, planned(loom.Job{Task: touched, TaskName: "acme"}), "a")
	if want := "a: skipped: task acme can't tell what it would change\n"; !strings.Contains(err, want) || !ok {
		t.Errorf("plan: %q, %v, want %q", err, ok, want)
	}
	out, _, _ = shown(t, viewGrouped, true, planned(loom.Job{Steps: []loom.Step{{Task: plans{touched}}, {Task: touched, TaskName: "acme"}}}), "a")
	if !strings.Contains(out, "would change: that") || !strings.Contains(out, "task acme can't tell") {
		t.Errorf("plan of steps: %q", out)
	}
}

func TestSignature(t *testing.T) {
	got := signature([]loom.Param{{Name: "a", Required: true}, {Name: "b"}, {Name: "c", Rest: true}})
	if want := "a [b] [c...]"; got != want {
		t.Errorf("signature = %q, want %q", got, want)
	}
}

// TestPingsThatFail says once what kind of failure it was.
func TestPingsThatFail(t *testing.T) {
	var out bytes.Buffer
	(&Program{Stdout: &out}).pingTable([]api.Ping{
		{Node: "a", Class: "connection refused", Error: "ann@a:22: connection refused; is sshd running there, and on this port?"},
		{Node: "b", Class: "no route", Error: "ann@b:22: the network is down"},
		{Node: "c", Error: "it hurts"},
	})
	want := "a: ann@a:22: connection refused; is sshd running there, and on this port?\nb: no route: ann@b:22: the network is down\nc: failed: it hurts\n"
	if out.String() != want {
		t.Errorf("prints\n%swant\n%s", out.String(), want)
	}
}
