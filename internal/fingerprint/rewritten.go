package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"regexp"
)

// getmail writes a message's header anew: it folds long fields at other
// places, puts a Return-Path of its own at the top, perhaps a Delivered-To and
// a Received after it, and a field of its own at the end. What is left as it
// was is the other fields, blanks and line ends apart, and the body.

// rewritten digests a header block in a form that survives getmail, and tells
// whether getmail wrote it.
type rewritten struct {
	sum      hash.Hash
	by       bool   // getmail wrote it
	fields   int    // begun
	skip     bool   // this one is left out
	top      []byte // the present field, while it may be one of getmail's first three
	returned bool   // the first one is a Return-Path
	colon    bool   // the name of this field has ended
	begun    bool   // something has come of its name, or after the colon
	gap      bool   // blanks have come that may stand between words
	text     []byte // what is hashed of a line
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
	receivedBy  = regexp.MustCompile(`(?i)^Received: ?from \S+ (\(\S*\) )?by \S+ with (IMAP4|POP3)[-A-Z0-9]* getmail6?[ ;]`)
)

// maxTop bounds how much of one of the first fields is looked at.
const maxTop = 1 << 10

// add takes a line of the header or, if it is long, a piece of one; starts
// says that a line starts with it.
func (r *rewritten) add(text []byte, starts bool) {
	folded := starts && r.fields > 0 && len(text) > 0 && isBlank(text[0])
	if starts && !folded {
		r.endField()
		r.fields++
		own := hasName(text, xGetmail)
		r.by = r.by || own
		r.skip = own || hasName(text, xTUID) || hasName(text, returnPath)
		r.colon, r.begun, r.gap = false, false, false
		if !r.skip {
			r.sum.Write([]byte("\n"))
		}
	}
	r.gap = r.gap || folded
	if room := maxTop - len(r.top); r.fields <= 3 && room > 0 {
		r.top = append(r.top, text[:min(room, len(text))]...)
	}
	if !r.skip {
		r.hash(text)
	}
}

// hash hashes a piece of a field, with one blank for several, and none around
// what the field says.
func (r *rewritten) hash(text []byte) {
	r.text = r.text[:0]
	for _, c := range text {
		switch {
		case isBlank(c):
			r.gap = true
			continue
		case r.gap && r.begun:
			r.text = append(r.text, ' ')
		}
		r.gap = false
		r.text = append(r.text, c)
		if c == ':' && !r.colon {
			r.colon, r.begun = true, false
		} else {
			r.begun = true
		}
	}
	r.sum.Write(r.text)
}

// endField looks at a field that is complete: what getmail puts at the top is
// forgotten.
func (r *rewritten) endField() {
	field := bytes.Join(bytes.Fields(r.top), []byte(" "))
	r.top = r.top[:0]
	own := false
	switch {
	case r.fields == 1:
		r.returned = hasName(field, returnPath)
		own = r.returned && bytes.HasSuffix(field, []byte(" <unknown>"))
	case r.fields > 3 || !r.returned:
	case r.fields == 2 && hasName(field, deliveredTo):
		own = bytes.HasSuffix(field, []byte(": unknown"))
	default:
		own = receivedBy.Match(field)
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
