package shell

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// However an output is cut into pieces, its bytes and its frames are the same.
func FuzzFrames(f *testing.F) {
	const nonce = "aabaab"
	f.Add("one\n"+nonce+" gap 7\ntwoaab"+nonce+" exit 0 - -\n", 3)
	f.Add("aabaaaabaab x\n", 1)
	f.Fuzz(func(t *testing.T, s string, size int) {
		take := func(size int) string {
			var out bytes.Buffer
			var frames []string
			fr := Frames{Nonce: nonce, To: &out, Frame: func(w []string) { frames = append(frames, strings.Join(w, " ")) }}
			for rest := []byte(s); len(rest) > 0; {
				n := min(size, len(rest))
				_, _ = fr.Write(rest[:n])
				rest = rest[n:]
			}
			if fr.N != int64(out.Len()) {
				t.Errorf("counted %d of %d bytes", fr.N, out.Len())
			}
			return fmt.Sprintf("%q %q", out.String(), frames)
		}
		if len(s) >= frameLimit {
			return
		}
		if whole, parts := take(len(s)+1), take(max(1, size%64)); whole != parts {
			t.Errorf("whole: %s\nin parts: %s", whole, parts)
		}
	})
}
