package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// Text takes a message's octets and makes a digest of what does not depend on
// how it was sent: it leaves out a final line end, which some servers add. Its
// memory does not grow with the message.
type Text struct {
	sum     hash.Hash
	foreign bool
	held    []byte // of the end: it may be the final line end

	last   byte // for foreign copies: the octet before
	headed bool // the header block has ended
	line   []byte
	skip   bool // this header line is an X-TUID
	within bool // and its beginning has been passed on already
}

// NewText returns a Text for one message. Where one of two copies was made by
// another program, both are compared as foreign: a program may store line ends
// as a line feed, and mbsync adds a header field.
func NewText(foreign bool) *Text { return &Text{sum: sha256.New(), foreign: foreign} }

// Write never fails.
func (t *Text) Write(p []byte) (int, error) {
	if !t.foreign {
		t.pass(p)
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n')
		if n < 0 {
			t.piece(rest)
			t.last = rest[len(rest)-1]
			break
		}
		t.piece(rest[:n])
		if n > 0 {
			t.last = rest[n-1]
		}
		if t.last != '\r' {
			t.piece([]byte{'\r'})
		}
		t.piece([]byte{'\n'})
		t.last = '\n'
		rest = rest[n+1:]
	}
	return len(p), nil
}

// piece takes a part of a line, whose end is CRLF.
func (t *Text) piece(p []byte) {
	if t.headed {
		t.pass(p)
		return
	}
	t.line = append(t.line, p...)
	ended := bytes.HasSuffix(t.line, []byte("\r\n"))
	if !ended && len(t.line) <= maxLine {
		return
	}
	if !t.within {
		folded := t.line[0] == ' ' || t.line[0] == '\t'
		t.skip = t.skip && folded || !folded && len(t.line) >= len(xTUID) && bytes.EqualFold(t.line[:len(xTUID)], xTUID)
		t.headed = len(t.line) == len("\r\n")
	}
	if !t.skip {
		t.pass(t.line)
	}
	t.within, t.line = !ended, t.line[:0]
}

// pass digests octets, but for a line end that may be the last.
func (t *Text) pass(p []byte) {
	if len(p) == 0 {
		return
	}
	end := 0
	switch n := len(p); {
	case p[n-1] == '\r':
		end = 1
	case n > 1 && p[n-2] == '\r' && p[n-1] == '\n':
		end = 2
	case n == 1 && p[0] == '\n' && bytes.Equal(t.held, []byte("\r")):
		t.held = append(t.held, '\n')
		return
	}
	t.sum.Write(t.held)
	t.sum.Write(p[:len(p)-end])
	t.held = append(t.held[:0], p[len(p)-end:]...)
}

// Sum returns the digest of what was written. Nothing may be written after it.
func (t *Text) Sum() Sum {
	if !t.skip {
		t.pass(t.line)
	}
	if !bytes.Equal(t.held, []byte("\r\n")) {
		t.sum.Write(t.held)
	}
	return Sum(t.sum.Sum(nil))
}
