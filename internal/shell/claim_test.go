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
	f.Add("no newline, but what begins a nonce: aab", 4)
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
			fr.End(true)
			if !strings.Contains(s, nonce) && out.String() != s {
				t.Errorf("%q became %q", s, out.String())
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

// What is held back when the connection breaks is not counted, so that it is
// asked for again; and half a frame is no output.
func TestFramesEnd(t *testing.T) {
	for _, tt := range []struct {
		said string
		all  bool
		want string
	}{
		{"end n", true, "end n"},
		{"end n", false, "end "},
		{"end nonce ga", true, "end "},
		{"end nonce ga", false, "end "},
	} {
		var out bytes.Buffer
		f := Frames{Nonce: "nonce", To: &out, Frame: func([]string) {}}
		_, _ = f.Write([]byte(tt.said))
		f.End(tt.all)
		if out.String() != tt.want || f.N != int64(len(tt.want)) {
			t.Errorf("%q, all: %t: got %q, %d bytes, want %q", tt.said, tt.all, out.String(), f.N, tt.want)
		}
	}
}
