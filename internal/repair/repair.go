// Package repair makes a copy of a message that a strict server takes.
//
// What is done is little, always the same, and loses no text: the archive
// keeps the message as it came.
package repair

import (
	"bytes"
	"io"
	"strings"
)

// Steps is a set of repairs.
type Steps uint8

// The repairs, in the order in which they are made.
const (
	Ends   Steps = 1 << iota // each line ends in CRLF, the last one too
	NULs                     // NUL octets are left out
	Header                   // what stands between the fields without being one belongs to the field before it
	Long                     // no line has more than 998 octets (RFC 5322 section 2.1.1)

	count = iota
)

var names = [count]string{"line ends made CRLF", "NUL removed", "header made valid", "long lines broken"}

// String says what is done.
func (s Steps) String() string {
	var done []string
	for i, name := range names {
		if s&(1<<i) != 0 {
			done = append(done, name)
		}
	}
	return strings.Join(done, ", ")
}

// Next returns s with the next repair, and whether there is one.
func (s Steps) Next() (Steps, bool) { return s<<1 | 1, s != 1<<count-1 }

// Reader reads a message with repairs made. Its memory does not grow with the
// message.
type Reader struct {
	src   io.Reader
	first stage
	out   output
	buf   [8 << 10]byte
	made  Steps
	err   error
}

// NewReader returns a Reader of what r reads.
func NewReader(r io.Reader, s Steps) *Reader {
	rd := &Reader{src: r}
	rd.first = &rd.out
	if s&Long != 0 {
		rd.first = &breaker{next: rd.first, made: &rd.made}
	}
	if s&Header != 0 {
		rd.first = &heading{next: rd.first, made: &rd.made, empty: true}
	}
	if s&NULs != 0 {
		rd.first = &dropper{rd.first, &rd.made}
	}
	if s&Ends != 0 {
		rd.first = &ender{next: rd.first, made: &rd.made}
	}
	return rd
}

// Made returns the repairs that were needed in what has been read.
func (r *Reader) Made() Steps { return r.made }

// stage does one repair.
type stage interface {
	put(b byte)
	end()
}

func (r *Reader) Read(p []byte) (int, error) {
	for r.out.Len() == 0 && r.err == nil {
		n, err := r.src.Read(r.buf[:])
		for _, b := range r.buf[:n] {
			r.first.put(b)
		}
		if r.err = err; err == io.EOF {
			r.first.end()
		}
	}
	if r.out.Len() == 0 {
		return 0, r.err
	}
	return r.out.Read(p)
}

// output is behind the last stage.
type output struct{ bytes.Buffer }

func (o *output) put(b byte) { o.WriteByte(b) }
func (o *output) end()       {}

func puts(s stage, text string) {
	for i := range len(text) {
		s.put(text[i])
	}
}

// ender makes every line end a CRLF: a lone LF, a lone CR, and CRs before one.
type ender struct {
	next stage
	made *Steps
	cr   bool // is held back
	last byte // that was passed on
}

func (e *ender) put(b byte) {
	if e.cr && b != '\r' {
		e.cr = false
		e.line()
		if b == '\n' {
			return
		}
		*e.made |= Ends
	}
	switch b {
	case '\r':
		if e.cr {
			*e.made |= Ends
		}
		e.cr = true
	case '\n':
		*e.made |= Ends
		e.line()
	default:
		e.next.put(b)
		e.last = b
	}
}

func (e *ender) line() {
	puts(e.next, "\r\n")
	e.last = '\n'
}

func (e *ender) end() {
	if e.cr || e.last != '\n' {
		*e.made |= Ends
		e.line()
	}
	e.next.end()
}

// dropper leaves NULs out.
type dropper struct {
	stage
	made *Steps
}

func (d *dropper) put(b byte) {
	if b == 0 {
		*d.made |= NULs
		return
	}
	d.stage.put(b)
}

// heading makes a header of fields and their continuations alone.
type heading struct {
	next  stage
	made  *Steps
	at    place
	empty bool   // no field has come
	held  []byte // the beginning of a line, until it is known what it is
}

// place is where in a message heading is.
type place int

const (
	lineStart place = iota // nothing of the line has come, or what has is held
	inLine
	inBody
)

// maxName is how long the name of a field may be.
const maxName = 200

func (h *heading) put(b byte) {
	switch h.at {
	case inBody:
		h.next.put(b)
		return
	case inLine:
		h.next.put(b)
		if b == '\n' {
			h.at = lineStart
		}
		return
	}
	h.held = append(h.held, b)
	switch {
	case len(h.held) == 1 && (b == ' ' || b == '\t') && !h.empty:
		h.pass("") // a continuation
	case b == ':' && len(h.held) > 1:
		h.pass("")
	case string(h.held) == "\r\n" || string(h.held) == "\n":
		h.pass("")
		h.at = inBody
	case b == '\r' && len(h.held) == 1: // the line that ends the header, perhaps
	case (b <= ' ' || b >= 0x7f) || len(h.held) > maxName: // RFC 5322 section 2.2
		h.odd()
	}
}

// odd passes on a line that is no field.
func (h *heading) odd() {
	*h.made |= Header
	switch {
	case bytes.HasPrefix(h.held, []byte("From ")) && h.empty:
		h.pass("X-From-Line: ") // of an mbox
	case h.empty: // there is no header
		puts(h.next, "\r\n")
		h.pass("")
		h.at = inBody
	default:
		h.pass(" ")
	}
}

// pass passes on what is held, behind prefix.
func (h *heading) pass(prefix string) {
	puts(h.next, prefix)
	ended := false
	for _, b := range h.held {
		h.next.put(b)
		ended = b == '\n'
	}
	h.empty, h.held, h.at = false, h.held[:0], inLine
	if ended {
		h.at = lineStart
	}
}

func (h *heading) end() {
	if len(h.held) > 0 {
		h.odd()
	}
	h.next.end()
}

// maxLine is how many octets a line may have without its end.
const maxLine = 998

// breaker breaks lines that are too long: in the header at a blank if there is
// one, so that the field stays the same (RFC 5322 section 2.2.3), in the body
// anywhere.
type breaker struct {
	next stage
	made *Steps
	line []byte
	body bool
}

func (k *breaker) put(b byte) {
	k.line = append(k.line, b)
	switch {
	case b == '\n':
		if text := bytes.TrimRight(k.line, "\r\n"); len(text) == 0 {
			k.body = true
		}
		k.flush(len(k.line))
	case len(k.line) > maxLine+1 || len(k.line) > maxLine && b != '\r':
		k.wrap()
	}
}

// wrap ends the line before it is too long.
func (k *breaker) wrap() {
	*k.made |= Long
	if k.body {
		k.flush(maxLine)
		puts(k.next, "\r\n")
		return
	}
	at := 0
	for i, seen := 0, false; i < maxLine; i++ {
		switch c := k.line[i]; {
		case c != ' ' && c != '\t':
			seen = true
		case seen:
			at = i
		}
	}
	if at > 0 {
		k.flush(at)
		puts(k.next, "\r\n")
		return
	}
	k.flush(maxLine)
	puts(k.next, "\r\n")
	k.line = append([]byte{' '}, k.line...)
}

func (k *breaker) flush(n int) {
	for _, b := range k.line[:n] {
		k.next.put(b)
	}
	k.line = append(k.line[:0], k.line[n:]...)
}

func (k *breaker) end() {
	k.flush(len(k.line))
	k.next.end()
}
