package imapwire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fetchResponse is one FETCH response on its way to the library.
//
// go-imap must see the UID before a body, or it drops the body without an
// error. Items that come before the UID wait for it; a body that does is kept
// in a file meanwhile.
type fetchResponse struct {
	seq, uid string
	object   string   // the server's name for the content
	items    []string // other items, waiting
	passed   bool     // the library has the response's beginning
	stray    bool     // it is none of the selected mailbox's
	hasBody  bool

	spool     *os.File // a body that came before its UID
	spoolName string   // its item name
	spoolSize int64
}

func (c *Conn) startFetch(seq string, line []byte) error {
	i := strings.IndexByte(string(line), '(')
	if i < 0 {
		return nil
	}
	return c.readItems(&fetchResponse{seq: seq, stray: c.between()}, &scanner{conn: c, line: line, pos: i + 1})
}

// maxItems bounds the items of one response.
const maxItems = 100

var errBadFetch = errors.New("the server sends a FETCH response that cannot be read")

// readItems reads items up to a body that is passed through, or to the end of
// the response.
func (c *Conn) readItems(f *fetchResponse, s *scanner) error {
	for {
		s.skipSpaces()
		switch s.peek() {
		case 0, '\r', '\n':
			f.drop()
			return errBadFetch
		case ')':
			return c.endFetch(f)
		}
		name := s.itemName()
		s.skipSpaces()
		if n, ok := s.literalHere(); ok && strings.HasPrefix(name, "BODY[") {
			passing, err := c.takeBody(f, name, n)
			if passing || err != nil {
				return err
			}
			if err := c.readBehind(); err != nil {
				f.drop()
				return err
			}
			s.line, s.pos = c.rest, 0
			continue
		}
		value, err := s.value()
		if err == nil && len(f.items) > maxItems {
			err = errBadFetch
		}
		if err != nil {
			f.drop()
			return err
		}
		f.take(name, value)
	}
}

// take keeps an item in the form that go-imap reads. What it does not know,
// it would die on: that is left out.
func (f *fetchResponse) take(name, value string) {
	switch {
	case name == "UID":
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && n > 0 {
			f.uid = value
		}
		return
	case name == "INTERNALDATE":
		if _, err := time.Parse(`"_2-Jan-2006 15:04:05 -0700"`, value); err != nil {
			return
		}
	case name == "RFC822.SIZE":
		if _, ok := parseSize(value); !ok {
			return
		}
	case name == "FLAGS":
		value = repairFlags(value)
	case name == "MODSEQ":
		if _, err := strconv.ParseUint(strings.Trim(value, "() "), 10, 63); err != nil {
			return
		}
	case name == "X-GM-MSGID", name == "EMAILID":
		f.object = strings.Trim(value, "() ")
		return
	case strings.HasPrefix(name, "BODY["):
		f.hasBody = true
		if strings.EqualFold(value, "NIL") {
			value = "NIL"
		} else {
			value = quoteLiteral(unquote(value))
		}
	default:
		return
	}
	f.items = append(f.items, name+" "+value)
}

// quoteLiteral spells a short string as a literal, which may hold any octet.
func quoteLiteral(s string) string { return fmt.Sprintf("{%d}\r\n%s", len(s), s) }

// lastOctet reads the last octet of a body, and gives it to the library only
// if the response goes on behind it as a response must: else the announced
// size was wrong, and what was taken for the body is not.
func (c *Conn) lastOctet() error {
	octet, err := c.br.ReadByte()
	if err != nil {
		return unexpectedEOF(err)
	}
	c.left = 0
	if err := c.readBehind(); err != nil {
		return err
	}
	c.out = []byte{octet}
	return nil
}

var errWrongLiteral = errors.New("the server sends a message in another length than it announces")

// readBehind reads the line behind a body, and checks that it may be one.
func (c *Conn) readBehind() (err error) {
	if c.rest, err = c.readLineCopy(); err != nil {
		return unexpectedEOF(err)
	}
	s := &scanner{conn: c, line: c.rest}
	s.skipSpaces()
	if s.peek() == ')' {
		return nil
	}
	name := s.itemName()
	if s.line[0] == ' ' && (strings.HasPrefix(name, "BODY[") || strings.HasPrefix(name, "X-") || slices.Contains(itemNames, name)) {
		return nil
	}
	return errWrongLiteral
}

// itemNames are what may follow a body in a FETCH response.
var itemNames = []string{"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "MODSEQ", "EMAILID", "THREADID", "SAVEDATE"}

// goOn reads what follows a body that was passed through.
func (c *Conn) goOn(f *fetchResponse) error {
	c.fetch = nil
	return c.readItems(f, &scanner{conn: c, line: c.rest})
}

// takeBody begins a body of n octets. It is passed through if its UID is
// known, else read into a file.
func (c *Conn) takeBody(f *fetchResponse, name string, n int64) (passing bool, err error) {
	f.hasBody = true
	if f.stray {
		_, err = io.CopyN(io.Discard, c.br, n)
		return false, unexpectedEOF(err)
	}
	if f.uid != "" {
		if n == 0 {
			if err := c.readBehind(); err != nil {
				return false, err
			}
		}
		f.items = append(f.items, fmt.Sprintf("%s {%d}\r\n", name, n))
		c.out = f.flush()
		c.body, c.left, c.fetch = c.br, n, f
		return true, nil
	}
	if f.spool != nil || n > maxSpool {
		_, err = io.CopyN(io.Discard, c.br, n)
		return false, unexpectedEOF(err)
	}
	if f.spool, err = os.CreateTemp("", "mailstow-body-"); err != nil {
		return false, errSpool(err)
	}
	os.Remove(f.spool.Name())
	f.spoolName, f.spoolSize = name, n
	if _, err = io.CopyN(f.spool, c.br, n); err != nil {
		f.drop()
		return false, errSpool(unexpectedEOF(err))
	}
	_, err = f.spool.Seek(0, io.SeekStart)
	return false, err
}

// maxSpool bounds a body that waits for its UID. A longer one is left out.
const maxSpool = 1 << 30

// errSpool hides that an error may be of the disk for temporary files: it is
// none of the archive's.
func errSpool(err error) error {
	return fmt.Errorf("a message cannot be kept until its UID comes: %v", err)
}

// Bounds of names of contents: their octets (RFC 8474 section 7), and how many
// wait to be asked for.
const (
	maxObject  = 255
	maxObjects = 1 << 20
)

// flush returns the items that wait, behind the response's beginning if the
// library does not have that yet.
func (f *fetchResponse) flush() []byte {
	text := strings.Join(f.items, " ")
	f.items = nil
	if f.passed {
		if text == "" {
			return nil
		}
		return []byte(" " + text)
	}
	f.passed = true
	if text != "" {
		text = " " + text
	}
	return []byte("* " + f.seq + " FETCH (UID " + f.uid + text)
}

func (f *fetchResponse) drop() {
	if f.spool != nil {
		f.spool.Close()
		f.spool = nil
	}
}

// endFetch gives the library what is left of the response.
//
// While bodies are asked for, a response without one is held back: go-imap
// would take it for the answer to a UID it asks for, and drop the body that
// comes later (fetch.go, recvUID).
func (c *Conn) endFetch(f *fetchResponse) error {
	if f.stray {
		f.drop()
		return nil
	}
	if f.object != "" && len(f.object) <= maxObject && f.uid != "" && !strings.EqualFold(f.object, "NIL") {
		c.mu.Lock()
		if len(c.objects) < maxObjects {
			c.objects[f.uid] = f.object
		}
		c.mu.Unlock()
	}
	if f.passed {
		c.out = append(f.flush(), ")\r\n"...)
		return nil
	}
	if f.uid == "" && f.seq == c.last.seq {
		f.uid = c.last.uid
	}
	if !f.hasBody && c.wantsBody() {
		c.last = *f
		return nil
	}
	if f.uid == "" {
		f.drop()
		return nil
	}
	if f.spool == nil {
		c.out = append(f.flush(), ")\r\n"...)
		return nil
	}
	f.items = append(f.items, fmt.Sprintf("%s {%d}\r\n", f.spoolName, f.spoolSize))
	c.out = f.flush()
	c.body, c.left, c.after = f.spool, f.spoolSize, []byte(")\r\n")
	return nil
}
