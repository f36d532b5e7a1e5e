package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// getmail writes a message's header anew: it folds long fields at other
// places, puts a Return-Path of its own at the top, perhaps a Delivered-To and
// a Received after it, and a field of its own at the end. What is left as it
// was is the text of the other fields without blanks, and the body.

// rewritten digests a header block in a form that survives getmail, and tells
// whether getmail wrote it.
type rewritten struct {
	sum      hash.Hash
	by       bool   // getmail wrote it
	fields   int    // begun
	skip     bool   // this one is left out
	top      []byte // the present field, while it may be one of getmail's first three
	returned bool   // the first one is a Return-Path
	text     []byte // without blanks, before it is hashed
}

func newRewritten() *rewritten { return &rewritten{sum: sha256.New()} }

func (r *rewritten) reset() {
	r.sum.Reset()
	*r = rewritten{sum: r.sum, top: r.top[:0], text: r.text[:0]}
}

var (
	xGetmail    = []byte("X-getmail-retrieved-from-mailbox:")
	returnPath  = []byte("Return-Path:")
	deliveredTo = []byte("Delivered-To:")
	receivedBy  = []byte("Received:")
)

// maxTop bounds how much of one of the first fields is looked at.
const maxTop = 1 << 10

// add takes a line of the header or, if it is long, a piece of one; starts
// says that a line starts with it.
func (r *rewritten) add(text []byte, starts bool) {
	if starts && (r.fields == 0 || len(text) == 0 || !isBlank(text[0])) {
		r.endField()
		r.fields++
		own := hasName(text, xGetmail)
		r.by = r.by || own
		r.skip = own || hasName(text, xTUID) || hasName(text, returnPath)
	}
	if room := maxTop - len(r.top); r.fields <= 3 && room > 0 {
		r.top = append(r.top, text[:min(room, len(text))]...)
	}
	if r.skip {
		return
	}
	r.text = r.text[:0]
	for _, c := range text {
		if !isBlank(c) {
			r.text = append(r.text, c)
		}
	}
	r.sum.Write(r.text)
}

// endField looks at a field that is complete: what getmail puts at the top is
// forgotten.
func (r *rewritten) endField() {
	field := r.top
	r.top = r.top[:0]
	own := false
	switch {
	case r.fields == 1:
		r.returned = hasName(field, returnPath)
		own = r.returned && bytes.Contains(field, []byte("<unknown>"))
	case r.fields > 3 || !r.returned:
	case hasName(field, receivedBy):
		own = bytes.Contains(field, []byte(" getmail"))
	case r.fields == 2 && hasName(field, deliveredTo):
		own = bytes.Equal(bytes.TrimSpace(field[len(deliveredTo):]), []byte("unknown"))
	}
	if own {
		r.by = true
		r.sum.Reset()
	}
}

func hasName(field, name []byte) bool {
	return len(field) >= len(name) && bytes.EqualFold(field[:len(name)], name)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }
