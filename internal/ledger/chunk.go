package ledger

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/dustinlacewell/loom"
)

// MaxChunk is how many bytes a chunk of output takes before it is compressed.
const MaxChunk = 64 << 10

// A Codec turns lines of output into chunks and back. The zero value is ready;
// it is safe for concurrent use.
type Codec struct{ writers sync.Pool }

// A chunk's first byte says how the rest is packed. That is a sequence of
// lines: milliseconds since the line before (of the first, since 1970), the
// stream with a bit for More, the length of the text, the text.
const (
	packedNot   = 0
	packedFlate = 1

	streamBits = 0x0f
	moreBit    = 0x10

	smallest = 128 // packing less costs more than it saves
)

// streams are the names of the streams by their numbers in chunks.
func streams() []loom.Stream { return []loom.Stream{loom.Stdout, loom.Stderr, loom.Log} }

// Encode packs lines into chunks. Lines that are too long for one are cut.
func (c *Codec) Encode(lines []loom.Line) [][]byte {
	var chunks [][]byte
	var raw []byte
	var last int64
	flush := func() {
		if len(raw) > 0 {
			chunks = append(chunks, c.pack(raw))
			raw, last = nil, 0
		}
	}
	add := func(l loom.Line) {
		if len(raw)+len(l.Text)+2*binary.MaxVarintLen64 > MaxChunk {
			flush()
		}
		at := l.Time.UnixMilli()
		raw = binary.AppendVarint(raw, at-last)
		last = at
		flags := byte(max(slices.Index(streams(), l.Stream), 0))
		if l.More {
			flags |= moreBit
		}
		raw = append(raw, flags)
		raw = binary.AppendUvarint(raw, uint64(len(l.Text)))
		raw = append(raw, l.Text...)
	}
	for _, l := range lines {
		const longest = MaxChunk / 2
		for len(l.Text) > longest {
			piece := l
			piece.Text, piece.More = l.Text[:longest], true
			add(piece)
			l.Text = l.Text[longest:]
		}
		add(l)
	}
	flush()
	return chunks
}

func (c *Codec) pack(raw []byte) []byte {
	if len(raw) >= smallest {
		var buf bytes.Buffer
		buf.WriteByte(packedFlate)
		w, _ := c.writers.Get().(*flate.Writer)
		if w == nil {
			w, _ = flate.NewWriter(nil, flate.BestSpeed) // the level is valid
		}
		w.Reset(&buf)
		_, _ = w.Write(raw) // a Buffer takes all
		_ = w.Close()
		c.writers.Put(w)
		if buf.Len() <= len(raw) {
			return buf.Bytes()
		}
	}
	return append([]byte{packedNot}, raw...)
}

// Decode unpacks a chunk. The error says that it is damaged.
func Decode(chunk []byte) ([]loom.Line, error) {
	if len(chunk) == 0 {
		return nil, errors.New("a chunk of output is empty")
	}
	raw := chunk[1:]
	if chunk[0] == packedFlate {
		r := flate.NewReader(bytes.NewReader(raw))
		var err error
		if raw, err = io.ReadAll(io.LimitReader(r, MaxChunk+1)); err != nil {
			return nil, fmt.Errorf("a chunk of output is damaged: %w", err)
		}
	} else if chunk[0] != packedNot {
		return nil, fmt.Errorf("a chunk of output is packed in a way (%d) that this version does not know", chunk[0])
	}
	if len(raw) > MaxChunk {
		return nil, errors.New("a chunk of output is damaged: it is too large")
	}
	var lines []loom.Line
	var at int64
	for len(raw) > 0 {
		delta, n := binary.Varint(raw)
		if n <= 0 || len(raw) <= n || int(raw[n]&streamBits) >= len(streams()) {
			return nil, errors.New("a chunk of output is damaged")
		}
		at += delta
		flags := raw[n]
		raw = raw[n+1:]
		size, n := binary.Uvarint(raw)
		if n <= 0 || size > uint64(len(raw)-n) {
			return nil, errors.New("a chunk of output is damaged")
		}
		end := n + int(size)
		lines = append(lines, loom.Line{Time: time.UnixMilli(at), Stream: streams()[flags&streamBits],
			Text: string(raw[n:end]), More: flags&moreBit != 0})
		raw = raw[end:]
	}
	return lines, nil
}
