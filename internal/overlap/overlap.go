// Package overlap has the rule of what a new run of a job does while others of it
// have not ended. It knows values only, so that the scheduler and every store can
// share it.
package overlap

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Busy is how it is said that a run can't start beside another.
const Busy = "an earlier run is still going"

// The policies that differ from skip, by the names that manifests use.
const (
	allow   = "allow"
	queue   = "queue"
	replace = "replace"
)

// A Run is one that has not ended.
type Run struct {
	ID    string
	Due   time.Time
	Waits bool     // it is queued
	Begun bool     // it was claimed before
	Nodes []string // where it is at work, or the first of them
	More  int      // how many it is at work on besides
}

// A Verdict is what a policy says of a new run.
type Verdict struct {
	Refused    string // why it does not start; "": it does
	Solo       bool   // it may not run beside others of its job
	Wait       bool   // not before the others have ended
	Cancel     []Run  // must end
	Superseded []Run  // never begin
	Cause      string // why those must
}

// Admit judges whether a run may start beside those of its job that have not
// ended, oldest first. What is made up for waits its turn, however many do.
func Admit(policy, run string, catchUp bool, going []Run) Verdict {
	if policy == allow {
		return Verdict{}
	}
	v := Verdict{Solo: true, Wait: len(going) > 0}
	if len(going) == 0 {
		return v
	}
	first := going[0]
	waits := slices.ContainsFunc(going, func(r Run) bool { return r.Waits })
	switch {
	case catchUp:
	case policy == replace:
		v.Cause = fmt.Sprintf("run %s took its place", run)
		for _, r := range going {
			if r.Begun {
				v.Cancel = append(v.Cancel, r)
			} else {
				v.Superseded = append(v.Superseded, r)
			}
		}
		v.Wait = len(v.Cancel) > 0
	case policy == queue && !waits:
	case policy == queue:
		v.Refused = first.still() + ", and one waits already"
	default:
		v.Refused = first.still()
	}
	return v
}

// still says that a run is going, since when, and where.
func (r Run) still() string {
	where := ""
	if len(r.Nodes) > 0 {
		where = " on " + strings.Join(r.Nodes, ", ")
	}
	if r.More > 0 {
		where += fmt.Sprintf(" and %d more", r.More)
	}
	return fmt.Sprintf("%s: run %s from %s%s", Busy, r.ID, r.Due.Format("15:04:05"), where)
}
