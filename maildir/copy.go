package maildir

import (
	"io"
	"sync"
)

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyTo is io.Copy with a buffer that is used again.
func copyTo(w io.Writer, r io.Reader) (int64, error) {
	b := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(b)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, b[:])
}
