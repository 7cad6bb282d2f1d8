package overlap

import (
	"reflect"
	"strings"
	"testing"
)

func TestAdmit(t *testing.T) {
	nodes := []string{"n1", "n2", "n3"}
	running := Run{ID: "r", Begun: true, Nodes: nodes, More: 2}
	waits := Run{ID: "q", Waits: true, Nodes: nodes, More: 2}
	begun := Run{ID: "b", Waits: true, Begun: true, Nodes: nodes, More: 2} // its instance has died
	for _, tt := range []struct {
		name    string
		policy  string
		catchUp bool
		going   []Run
		want    Verdict
		refused string
	}{
		{"alone", "", false, nil, Verdict{Solo: true}, ""},
		{"alone, allow", "allow", false, nil, Verdict{}, ""},
		{"allow", "allow", false, []Run{running, waits}, Verdict{}, ""},
		{"skip", "", false, []Run{running}, Verdict{}, "an earlier run is still going: run r from 00:00:00 on n1, n2, n3 and 2 more"},
		{"skip, one waits", "skip", false, []Run{waits}, Verdict{}, "run q"},
		{"queue", "queue", false, []Run{running}, Verdict{Solo: true, Wait: true}, ""},
		{"queue, one waits", "queue", false, []Run{running, waits}, Verdict{}, "and one waits already"},
		{"queue, one was handed back", "queue", false, []Run{begun}, Verdict{}, "and one waits already"},
		{"replace", "replace", false, []Run{running, waits},
			Verdict{Solo: true, Wait: true, Cancel: []Run{running}, Superseded: []Run{waits}, Cause: "run new took its place"}, ""},
		{"replace what waits", "replace", false, []Run{waits}, Verdict{Solo: true, Superseded: []Run{waits}, Cause: "run new took its place"}, ""},
		{"replace what was handed back", "replace", false, []Run{begun},
			Verdict{Solo: true, Wait: true, Cancel: []Run{begun}, Cause: "run new took its place"}, ""},
		{"a catch-up", "", true, []Run{running, waits}, Verdict{Solo: true, Wait: true}, ""},
	} {
		got := Admit(tt.policy, "new", tt.catchUp, tt.going)
		if (got.Refused != "") != (tt.refused != "") || !strings.Contains(got.Refused, tt.refused) {
			t.Errorf("%s: refused %q, want %q", tt.name, got.Refused, tt.refused)
		}
		if got.Refused == "" && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
