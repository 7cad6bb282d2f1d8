package cli

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2027, 3, 28, 12, 0, 0, 0, berlin)
	for _, tt := range []struct {
		text string
		want string // when each span begins, in UTC
		long time.Duration
		note string
	}{
		{"2027-03-27T01:30:00Z", "27 01:30:00", time.Second, ""},
		{"2027-03-27 01:30", "27 00:30:00", time.Minute, ""},
		{"2027-03-27 01:30:05", "27 00:30:05", time.Second, ""},
		{"2027-03-27T01:30", "27 00:30:00", time.Minute, ""},
		{"2027-03-28", "27 23:00:00", 23 * time.Hour, ""},
		{"11:30", "28 09:30:00", time.Minute, ""},
		{"9:30", "28 07:30:00", time.Minute, ""},
		{"today 11:30", "28 09:30:00", time.Minute, ""},
		{"yesterday", "26 23:00:00", 24 * time.Hour, ""},
		{"yesterday 02:30", "27 01:30:00", time.Minute, ""},
		{"tomorrow 02:30:01", "29 00:30:01", time.Second, ""},
		{"now", "28 10:00:00", time.Second, ""},
		{"-2h", "28 08:00:00", time.Second, ""},
		{"2h 30m ago", "28 07:30:00", time.Second, ""},
		{"+1d", "29 10:00:00", time.Second, ""},
		{"in 3h", "28 13:00:00", time.Second, ""},
		{"02:30", "28 01:00:00", time.Second, "does not exist"},
		{"2027-10-31 02:30", "31 00:30:00, 31 01:30:00", time.Minute, "occurs twice"},
	} {
		m, err := parseMoment(tt.text, berlin, now)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		var got []string
		for _, s := range m.spans {
			got = append(got, s.from.UTC().Format("02 15:04:05"))
			if long := s.to.Sub(s.from); long != tt.long {
				t.Errorf("%s is %v long, want %v", tt.text, long, tt.long)
			}
		}
		if strings.Join(got, ", ") != tt.want || (m.note != "") != (tt.note != "") || !strings.Contains(m.note, tt.note) {
			t.Errorf("%s = %q (%s), want %s (%s)", tt.text, got, m.note, tt.want, tt.note)
		}
	}
	for _, bad := range []string{"", "soon", "25:00", "2027-13-01", "yesterday noon", "-2", "2h", "-", "in a while", "+-2h", "01m86t251gcq3"} {
		if m, err := parseMoment(bad, berlin, now); err == nil {
			t.Errorf("%q = %+v, want an error", bad, m)
		}
	}
}

// FuzzParseMoment checks that spans are never empty, nor out of order.
func FuzzParseMoment(f *testing.F) {
	for _, s := range []string{"02:30", "yesterday 02:30", "-2h", "2h ago", "2027-10-31 02:30", "2027-03-28", "+1d", "today", "2027-03-28T01:30:00Z"} {
		f.Add(s, int64(1806226200))
	}
	zone, err := time.LoadLocation("America/Santiago")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		m, err := parseMoment(text, zone, time.Unix(unix%1e11, 0))
		if err != nil {
			return
		}
		if len(m.spans) == 0 || !slices.IsSortedFunc(m.spans, func(a, b span) int { return a.from.Compare(b.from) }) {
			t.Fatalf("%q: %+v", text, m)
		}
		for _, s := range m.spans {
			if !s.to.After(s.from) {
				t.Fatalf("%q: %+v", text, m)
			}
		}
	})
}

func TestPastTimes(t *testing.T) {
	for in, want := range map[string]string{
		"why backup -2h":          "why backup 2h ago",
		"-c x why -90m backup":    "-c x why 90m ago backup",
		"why backup -o json":      "why backup -o json",
		"why -- backup -2h":       "why -- backup -2h",
		"exec all -- sleep -2h":   "exec all -- sleep -2h",
		"runs --since -2h":        "runs --since -2h",
		"-2h why":                 "-2h why",
		"next -n 2":               "next -n 2",
		"exec a -- why is -2h so": "exec a -- why is -2h so",
	} {
		if got := strings.Join(pastTimes(strings.Fields(in)), " "); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for _, tt := range []struct {
		ids  []string
		want int
	}{
		{nil, shortest},
		{[]string{"01m86t251gcq37zhfehc7std61", "01m86t1v90b14wcvpvha97aztz"}, shortest},
		{[]string{"01m86t251gcq37zhfehc7std61", "01m86t251gcq37zhxehc7std61"}, 17},
	} {
		if got := short(tt.ids); got != tt.want {
			t.Errorf("short(%q) = %d, want %d", tt.ids, got, tt.want)
		}
	}
	for n, want := range map[int64]string{5: "5 bytes", 2048: "2.0 KiB", 3 << 20: "3.0 MiB", 5 << 40: "5.0 TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %s, want %s", n, got, want)
		}
	}
}
