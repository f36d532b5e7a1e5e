// Package fingerprint tells whether two copies are the same message.
//
// A message has a digest of its exact octets, and a digest of its header
// block that is the same whatever line ends a copy has. The second finds a
// message again on a server without downloading it.
package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// Sum is a SHA-256 digest.
type Sum [sha256.Size]byte

// Print is what identifies one copy of a message.
type Print struct {
	Size   int64 // octets of this copy
	SHA256 Sum   // of this copy
	Lines  int64 // octets with CRLF line ends, without a final line end and without mbsync's X-TUID
	Header Sum   // of the header block in that form
}

// Candidate is an archived message that may be one a server has.
type Candidate struct {
	Print
	Message int64    // the archive's own number of it
	Removed bool     // the user removed its file
	Flags   []string // that it has in the archive
}

// Matches reports whether a server's message with this size and header block
// may be the message that p was taken of. Servers count an unterminated last
// line with a line end (POP3) or without one (IMAP).
func (p Print) Matches(size int64, header Sum) bool {
	return p.Header == header && p.SizeMatches(size)
}

// SizeMatches is the part of [Print.Matches] that needs no header.
func (p Print) SizeMatches(size int64) bool {
	return size == p.Size || size == p.Lines || size == p.Lines+2
}

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
	dropped int64  // octets of X-TUID lines, with CRLF
	fields  []byte
}

// NewWriter returns a Writer for one message.
func NewWriter() *Writer { return &Writer{whole: sha256.New(), header: sha256.New()} }

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
	if n := maxFields - len(w.fields); n > 0 {
		w.fields = append(w.fields, p[:min(n, len(p))]...)
	}
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
	if !w.inLine {
		if ended && len(text) == 0 {
			w.headed = true
			return
		}
		w.skip = len(text) >= len(xTUID) && bytes.EqualFold(text[:len(xTUID)], xTUID)
		if !w.skip && w.started {
			w.header.Write([]byte("\r\n"))
		}
	}
	if w.skip {
		w.dropped += int64(len(text))
		if ended {
			w.dropped += 2
		}
	} else {
		w.header.Write(text)
		w.started = true
	}
	w.line = append(w.line[:0], "\r"[:held]...)
	w.inLine = !ended
}

// Print returns the print of what was written.
func (w *Writer) Print() Print {
	p := Print{Size: w.size, Lines: w.size + w.bareLF - w.dropped, SHA256: Sum(w.whole.Sum(nil))}
	if w.last == '\n' {
		p.Lines -= 2
	}
	if !w.headed && len(w.line) > 0 {
		w.hashLine(false)
	}
	p.Header = Sum(w.header.Sum(nil))
	return p
}

// Fields returns the fields of the message's header that a list shows, from
// its first 64 KiB.
func (w *Writer) Fields() Fields { return parseFields(w.fields) }

// HeaderSum returns the digest of a header block as a server sends it, with
// or without the blank line that ends it.
func HeaderSum(block []byte) Sum {
	w := NewWriter()
	w.Write(block)
	return w.Print().Header
}
