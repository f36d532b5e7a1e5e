// Package fingerprint tells whether two copies are the same message.
//
// A message has a digest of its exact octets, and a digest of its header
// block that is the same whatever line ends a copy has, or whatever getmail did
// to it. The second finds a message again on a server without downloading it.
package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"slices"
)

// Sum is a SHA-256 digest.
type Sum [sha256.Size]byte

// Print is what identifies one copy of a message.
type Print struct {
	Size   int64 // octets of this copy
	SHA256 Sum   // of this copy
	BareLF int64 // line feeds of this copy without a CR before them; not kept by an archive
	Lines  int64 // octets with CRLF line ends, without a final line end and without mbsync's X-TUID
	Header Sum   // of the header block in that form

	// Rewritten says that getmail wrote the header anew: Lines is of the body
	// alone, and Header of the fields' text without blanks and without what
	// getmail adds.
	Rewritten bool
}

// Header is what identifies a header block as a server sends it.
type Header struct {
	Sum       Sum   // compares with that of a copy as it was sent
	Rewritten Sum   // compares with that of a copy that is rewritten
	Octets    int64 // with the blank line that ends it
	Dropped   int64 // of these, of mbsync's X-TUID
}

// Candidate is an archived message that may be one a server has.
type Candidate struct {
	Print
	Message int64    // the archive's own number of it
	Removed bool     // the user removed its file
	Flags   []string // that it has in the archive
	Arrived int64    // Unix seconds
}

// Matches reports whether a server's message with this size and header block
// may be the message that p was taken of. Servers count an unterminated last
// line with a line end (POP3) or without one (IMAP).
func (p Print) Matches(size int64, h Header) bool {
	if p.Rewritten {
		body := size - h.Octets
		return p.Header == h.Rewritten && (body == p.Lines || body == p.Lines+2)
	}
	lines := size - h.Dropped
	return p.Header == h.Sum && (size == p.Size || lines == p.Lines || lines == p.Lines+2)
}

// HasSize reports whether a server may count so many octets for the message.
func (p Print) HasSize(size int64) bool {
	sizes := p.sizes()
	return p.Rewritten || slices.Contains(sizes[:], size)
}

// sizes are those that a server may count, unless p is rewritten: with its own
// line ends, with CRLF, without a final line end, and with mbsync's X-TUID.
func (p Print) sizes() [6]int64 {
	return [...]int64{p.Size, p.Size + p.BareLF, p.Lines, p.Lines + 2, p.Lines + tuidLine, p.Lines + 2 + tuidLine}
}

// tuidLine is the octets of a line X-TUID.
const tuidLine = int64(len("X-TUID: 123456789012\r\n"))

// maxFields bounds how much of a header is kept for its fields.
const maxFields = 64 << 10

// xTUID is the header field that mbsync adds to each message it stores.
var xTUID = []byte("X-TUID:")

// Writer takes a message's octets and makes its [Print]. Its memory does not
// grow with the message.
type Writer struct {
	whole, header hash.Hash

	size   int64
	bareLF int64 // line ends that lack a CR
	last   byte  // the last octet written

	headed  bool   // the header block has ended
	line    []byte // of the header, not yet hashed
	inLine  bool   // the start of this line is hashed already
	skip    bool   // this line is an X-TUID
	started bool   // a line has been hashed
	lines   int64  // octets of the header block with CRLF
	dropped int64  // of those of X-TUID lines
	fields  []byte

	rewritten *rewritten // nil unless the copy is another program's
}

// NewWriter returns a Writer for one message.
func NewWriter() *Writer {
	return &Writer{whole: sha256.New(), header: sha256.New()}
}

// NewForeignWriter returns a Writer for a copy that another program made, which
// may be [Print.Rewritten]. What came from a server as it is never is: the
// sender of a mail must not choose how it is compared.
func NewForeignWriter() *Writer {
	w := NewWriter()
	w.rewritten = newRewritten()
	return w
}

// Reset makes w as new, for another message; it keeps its buffers.
func (w *Writer) Reset() {
	w.whole.Reset()
	w.header.Reset()
	if w.rewritten != nil {
		w.rewritten.reset()
	}
	*w = Writer{whole: w.whole, header: w.header, rewritten: w.rewritten, line: w.line[:0], fields: w.fields[:0]}
}

// Write never fails.
func (w *Writer) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w.whole.Write(p)
	w.countLines(p)
	if !w.headed {
		w.readHeader(p)
	}
	return len(p), nil
}

func (w *Writer) countLines(p []byte) {
	w.size += int64(len(p))
	for before, q := w.last, p; ; {
		i := bytes.IndexByte(q, '\n')
		if i < 0 {
			break
		}
		if i > 0 {
			before = q[i-1]
		}
		if before != '\r' {
			w.bareLF++
		}
		before, q = '\n', q[i+1:]
	}
	w.last = p[len(p)-1]
}

// maxLine bounds how much of a header line is held before it is hashed.
const maxLine = 4 << 10

func (w *Writer) readHeader(p []byte) {
	all := p
	defer func() {
		header := all[:len(all)-len(p)]
		w.fields = append(w.fields, header[:min(maxFields-len(w.fields), len(header))]...)
	}()
	for len(p) > 0 && !w.headed {
		n := bytes.IndexByte(p, '\n') + 1
		ended := n > 0
		if !ended {
			n = len(p)
		}
		w.line = append(w.line, p[:n]...)
		p = p[n:]
		if ended || len(w.line) > maxLine {
			w.hashLine(ended)
		}
	}
}

// hashLine hashes the piece of a header line that is held; ended says that
// the line is complete.
func (w *Writer) hashLine(ended bool) {
	text, held := w.line, 0
	if ended {
		text = bytes.TrimSuffix(text[:len(text)-1], []byte("\r"))
	} else if bytes.HasSuffix(text, []byte("\r")) {
		text, held = text[:len(text)-1], 1 // it may belong to the line end
	}
	octets := int64(len(text))
	if ended {
		octets += int64(len("\r\n"))
	}
	w.lines += octets
	if !w.inLine {
		if ended && len(text) == 0 {
			w.headed = true
			return
		}
		w.skip = hasName(text, xTUID)
		if !w.skip && w.started {
			w.header.Write([]byte("\r\n"))
		}
	}
	if w.skip {
		w.dropped += octets
	} else {
		w.header.Write(text)
		w.started = true
	}
	if w.rewritten != nil {
		w.rewritten.add(text, !w.inLine)
	}
	w.line = append(w.line[:0], "\r"[:held]...)
	w.inLine = !ended
}

// Print returns the print of what was written.
func (w *Writer) Print() Print {
	h := w.endHeader()
	p := Print{Size: w.size, BareLF: w.bareLF, Lines: w.size + w.bareLF - w.dropped, SHA256: Sum(w.whole.Sum(nil)), Header: h.Sum}
	if w.rewritten != nil && w.rewritten.by {
		p.Rewritten, p.Header, p.Lines = true, h.Rewritten, w.size+w.bareLF-w.lines
	}
	if w.last == '\n' {
		p.Lines -= 2
	}
	return p
}

func (w *Writer) endHeader() Header {
	if !w.headed && len(w.line) > 0 {
		w.hashLine(false)
	}
	h := Header{Sum: Sum(w.header.Sum(nil)), Octets: w.lines, Dropped: w.dropped}
	if w.rewritten != nil {
		w.rewritten.endField()
		h.Rewritten = Sum(w.rewritten.sum.Sum(nil))
	}
	return h
}

// Fields returns the fields of the message's header that a list shows, from
// its first 64 KiB.
func (w *Writer) Fields() Fields { return parseFields(w.fields) }

// ReadHeader digests a header block as a server sends it, with or without the
// blank line that ends it.
func ReadHeader(block []byte) Header {
	w := NewForeignWriter()
	w.Write(block)
	h := w.endHeader()
	if !w.headed {
		h.Octets += int64(len("\r\n"))
	}
	return h
}
