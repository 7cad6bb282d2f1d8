package ledger

import (
	"strings"
	"testing"
	"time"

	"github.com/dustinlacewell/loom"
)

func TestPaused(t *testing.T) {
	due := time.Date(2026, 3, 29, 12, 0, 0, 0, time.Local)
	for _, tt := range []struct {
		name    string
		pause   *loom.Pause
		trigger loom.Trigger
		want    string
	}{
		{"not", nil, loom.TriggerSchedule, ""},
		{"for good", &loom.Pause{}, loom.TriggerSchedule, "paused"},
		{"by hand", &loom.Pause{}, loom.TriggerManual, ""},
		{"chained", &loom.Pause{By: "kim"}, loom.TriggerAfter, "paused by kim"},
		{"until later", &loom.Pause{By: "kim", Why: "moving house", Until: due.Add(time.Second)}, loom.TriggerCatchUp,
			"paused by kim until 2026-03-29 12:00:01: moving house"},
		{"until now", &loom.Pause{Until: due}, loom.TriggerSchedule, ""},
	} {
		if got, is := Paused(tt.pause, tt.trigger, due); got != tt.want || is != (tt.want != "") {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, is, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	var c Codec
	for _, text := range []string{"", "hello", strings.Repeat("long ", 40_000), "\xff\x00"} {
		for _, chunk := range c.Encode([]loom.Line{{Stream: loom.Stderr, Text: text}, {Stream: loom.Log, Text: "x", More: true}}) {
			f.Add(chunk)
		}
	}
	f.Fuzz(func(t *testing.T, chunk []byte) {
		lines, err := Decode(chunk)
		if err != nil {
			return
		}
		var again []loom.Line
		for _, chunk := range new(Codec).Encode(lines) {
			more, err := Decode(chunk)
			if err != nil {
				t.Fatalf("what was encoded can't be decoded: %v", err)
			}
			again = append(again, more...)
		}
		if join(lines) != join(again) {
			t.Errorf("%q became %q", join(lines), join(again))
		}
	})
}

// join writes lines down so that how they were cut makes no difference.
func join(lines []loom.Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Text)
		if !l.More {
			b.WriteString("|" + string(l.Stream) + l.Time.UTC().String() + "\n")
		}
	}
	return b.String()
}

func FuzzEncode(f *testing.F) {
	f.Add("one", "two", int64(1), uint8(0))
	f.Add(strings.Repeat("0123456789", 7_000), "", int64(-5), uint8(9))
	f.Fuzz(func(t *testing.T, one, two string, at int64, flags uint8) {
		when := time.UnixMilli(at % 1e14)
		lines := []loom.Line{
			{Time: when, Stream: streams()[flags%3], Text: one, More: flags&8 != 0},
			{Time: when.Add(time.Second), Stream: streams()[flags/3%3], Text: two},
			{Time: when.Add(-time.Hour), Stream: loom.Stdout, Text: one + two},
		}
		var got []loom.Line
		for _, chunk := range new(Codec).Encode(lines) {
			if len(chunk) > MaxChunk+1 {
				t.Errorf("a chunk of %d bytes", len(chunk))
			}
			more, err := Decode(chunk)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, more...)
		}
		if join(got) != join(lines) {
			t.Errorf("%d lines became %d others", len(lines), len(got))
		}
	})
}
