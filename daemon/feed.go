package daemon

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/dustinlacewell/loom/api"
)

// problemsTold is how many mistakes in manifests an event names.
const problemsTold = 10

// tellNews has those who follow the daemon hear what a reading of the files
// brought.
func tellNews(f *api.Feed, n news) {
	now := time.Now().UTC()
	switch texts := problemTexts(n.Problems); {
	case len(texts) > problemsTold:
		rest := len(texts) - problemsTold
		f.Publish(api.Event{Kind: api.KindManifestBroken, Time: now, Text: fmt.Sprintf("%s\nand %d more", strings.Join(texts[:problemsTold], "\n"), rest)})
	case len(texts) > 0:
		f.Publish(api.Event{Kind: api.KindManifestBroken, Time: now, Text: strings.Join(texts, "\n")})
	case n.Mended:
		f.Publish(api.Event{Kind: api.KindManifestMended, Time: now})
	}
	if !n.same() {
		f.Publish(api.Event{Kind: api.KindManifestLoaded, Time: now, Text: n.words()})
	}
}

// words says what is different now.
func (n *news) words() string {
	var parts []string
	for _, p := range []struct {
		what  string
		names []string
	}{{"added", n.Added}, {"removed", n.Removed}, {"changed", n.Changed}, {"nodes changed", n.Nodes}} {
		if len(p.names) > 0 {
			parts = append(parts, p.what+": "+few(p.names))
		}
	}
	return cmp.Or(strings.Join(parts, "; "), "the configuration changed")
}
