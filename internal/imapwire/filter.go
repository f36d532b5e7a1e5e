package imapwire

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mailstow/internal/retry"
)

// Write passes the library's commands on, with the server's own spelling of
// mailbox names, and notes which answers are due.
func (c *Conn) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if c.literal > 0 {
			k := int(min(c.literal, int64(len(p))))
			if _, err := c.w.Write(p[:k]); err != nil {
				return n - len(p), err
			}
			c.literal -= int64(k)
			p = p[k:]
			continue
		}
		i := bytes.IndexByte(p, '\n') + 1
		if i == 0 {
			c.command = append(c.command, p...)
			break
		}
		c.command = append(c.command, p[:i]...)
		p = p[i:]
		if err := c.sendLine(); err != nil {
			return n - len(p), err
		}
	}
	return n, nil
}

func (c *Conn) sendLine() error {
	line := c.extend(c.names.restore(c.command))
	if tag, rest, ok := strings.Cut(string(line), " "); ok {
		c.await(tag, strings.Contains(rest, "BODY.PEEK["))
		c.idling.Store(rest == "IDLE\r\n")
		if strings.HasPrefix(rest, "EXAMINE ") || strings.HasPrefix(rest, "SELECT ") {
			c.leave(tag)
		}
	} else if string(line) == "DONE\r\n" {
		if !c.idling.CompareAndSwap(true, false) { // the server has ended IDLE by itself
			c.command = c.command[:0]
			return nil
		}
		c.Await(true)
	}
	c.literal, _ = literalAtEnd(line)
	c.command = c.command[:0]
	_, err := c.w.Write(line)
	return err
}

// extend adds to a FETCH what go-imap cannot ask for: the name of the content
// with the size, and what has vanished with what has changed.
func (c *Conn) extend(line []byte) []byte {
	if !bytes.Contains(line, []byte(" FETCH ")) {
		return line
	}
	if item := c.objectItem(); item != "" {
		line = bytes.Replace(line, []byte("RFC822.SIZE"), []byte("RFC822.SIZE "+item), 1)
	}
	if head, ok := bytes.CutSuffix(line, []byte(")\r\n")); ok && c.quick && bytes.Contains(line, []byte("(CHANGEDSINCE ")) {
		c.asked.Store(true)
		line = append(bytes.Clone(head), " VANISHED)\r\n"...)
	}
	return line
}

// objectItem is the FETCH item with which the server names contents.
func (c *Conn) objectItem() string {
	switch {
	case c.HasCap("X-GM-EXT-1"):
		return "X-GM-MSGID"
	case c.HasCap("OBJECTID"):
		return "EMAILID"
	}
	return ""
}

// leave forgets what belongs to the mailbox that was selected, as another is
// being opened by the command with the tag.
func (c *Conn) leave(tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opening = tag
	clear(c.objects)
	c.vanished = nil
	c.asked.Store(false)
}

// between reports whether a mailbox is being opened. What is told of messages
// meanwhile belongs to the one that was open before (RFC 7162 section 3.2.11).
func (c *Conn) between() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opening != ""
}

func (c *Conn) await(tag string, body bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[tag] = body
	if body {
		c.bodies++
	}
	c.Await(true)
}

func (c *Conn) answered(tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[tag] {
		c.bodies--
	}
	delete(c.pending, tag)
	if tag == c.opening {
		c.opening = ""
	}
	if c.idling.CompareAndSwap(true, false) {
		c.changed() // the server has ended IDLE by itself
	}
	c.Await(len(c.pending) > 0)
}

// wantsBody reports whether a command that asks for bodies is under way.
func (c *Conn) wantsBody() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodies > 0
}

// Read gives the library the server's answers in a form that it can read.
func (c *Conn) Read(p []byte) (int, error) {
	for c.failed == nil {
		switch {
		case len(c.out) > 0:
			n := copy(p, c.out)
			c.out = c.out[n:]
			return n, nil
		case c.left == 1 && c.fetch != nil:
			c.fail(c.lastOctet())
		case c.left > 0:
			n, err := c.body.Read(p[:min(int64(len(p)), max(c.left-1, 1))])
			c.left -= int64(n)
			if spool, ok := c.body.(io.Closer); ok && c.left == 0 {
				spool.Close()
			}
			if n > 0 {
				return n, nil
			}
			c.fail(unexpectedEOF(err))
		case c.after != nil:
			c.out, c.after = c.after, nil
		default:
			c.fail(c.next())
		}
	}
	return 0, c.failed
}

func (c *Conn) fail(err error) {
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failed = err
		if c.bye != "" {
			c.failed = retry.MarkBusy(&hungUpError{c.bye, err}, c.bye)
		}
	}
}

// Err returns why the connection can no longer be read, nil if it can. Call
// it after the library has reported an error.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// next reads one response and puts its repaired form into out.
func (c *Conn) next() error {
	if f := c.fetch; f != nil {
		return c.goOn(f)
	}
	line, err := c.readLine()
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	switch tag, rest, _ := strings.Cut(string(trimEOL(line)), " "); {
	case tag == "+":
		if c.idling.Load() { // now it may be silent for as long as nothing happens
			c.Await(false)
		}
		c.out = bytes.Clone(line)
	case tag != "*":
		c.noteAlert(tag + " " + rest)
		c.answered(tag)
		c.out = []byte(tag + " " + repairStatus(rest) + "\r\n")
	default:
		return c.untagged(rest, bytes.Clone(line))
	}
	return nil
}

// changed notes that the selected mailbox has changed.
func (c *Conn) changed() {
	select {
	case c.change <- struct{}{}:
	default:
	}
}

// Change returns a channel that receives when the selected mailbox has
// changed since it received last.
func (c *Conn) Change() <-chan struct{} { return c.change }

// Changed reports whether [Conn.Change] would receive now, and receives.
func (c *Conn) Changed() bool {
	select {
	case <-c.change:
		return true
	default:
		return false
	}
}

// count follows how many messages the selected mailbox has.
func (c *Conn) count(verb, number string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n, _ := strconv.Atoi(number); verb {
	case "EXISTS":
		if c.exists != n {
			c.changed()
		}
		c.exists = n
	case "EXPUNGE":
		c.changed()
		c.exists = max(c.exists-1, 0)
	}
}

// maxVanished bounds what is kept of what has vanished.
const maxVanished = 1 << 20

// vanish keeps what VANISHED tells (RFC 7162 section 3.2.10): messages that
// were gone before, or that leave the selected mailbox now.
func (c *Conn) vanish(args string) {
	set, earlier := strings.CutPrefix(strings.ToUpper(args), "(EARLIER) ")
	c.changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opening != "" {
		return // see between
	}
	for part := range strings.SplitSeq(strings.TrimSpace(set), ",") {
		first, last, ok := strings.Cut(part, ":")
		if !ok {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 32)
		b, err2 := strconv.ParseUint(last, 10, 32)
		switch {
		case err1 != nil || err2 != nil:
		case earlier && (!c.asked.Load() || len(c.vanished) > maxVanished):
			c.untold = c.asked.Load()
		case earlier:
			c.vanished = append(c.vanished, [2]uint32{uint32(min(a, b)), uint32(max(a, b))})
		default:
			c.exists = max(c.exists-int(max(a, b)-min(a, b))-1, 0)
		}
	}
}

// Vanished reports whether the server can tell what has vanished, and returns
// what it has told since the last call as pairs of a first and a last UID.
func (c *Conn) Vanished() (pairs [][2]uint32, tells bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pairs, tells = c.vanished, c.quick && !c.untold
	c.vanished, c.untold = nil, false
	return pairs, tells
}

// Object returns the server's name for the content of the message with the
// UID, if it has come with a FETCH that asked for the size. It is forgotten
// then.
func (c *Conn) Object(uid uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strconv.FormatUint(uint64(uid), 10)
	name := c.objects[key]
	delete(c.objects, key)
	return name
}

// Exists returns how many messages the server says the selected mailbox has,
// by its last word. go-imap tells it too, but a moment late.
func (c *Conn) Exists() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exists
}

// untagged repairs an untagged response: rest is the first line behind the
// star, line the same with star and line end.
func (c *Conn) untagged(rest string, line []byte) error {
	kind, args, _ := strings.Cut(rest, " ")
	if _, err := strconv.ParseUint(kind, 10, 32); err == nil {
		verb := strings.ToUpper(firstWord(args))
		switch verb {
		case "FETCH":
			c.changed()
			return c.startFetch(kind, line)
		case "EXISTS", "RECENT", "EXPUNGE":
			c.count(verb, kind)
			c.out = []byte("* " + kind + " " + verb + "\r\n")
			return nil
		}
	}
	line, err := c.readRest(line)
	if err != nil {
		return err
	}
	switch kind = strings.ToUpper(kind); kind {
	case "OK", "NO", "BAD", "PREAUTH":
		c.noteAlert("* " + rest)
		c.out = []byte("* " + repairStatus(rest) + "\r\n")
	case "BYE":
		c.noteBye("* " + rest)
		c.out = []byte("* BYE closing\r\n")
	case "FLAGS":
		c.out = []byte("* FLAGS " + repairFlags(args) + "\r\n")
	case "LIST":
		c.out = c.repairList(line)
	case "STATUS":
		c.out = c.repairState(line)
	case "VANISHED":
		c.vanish(args)
	case "QUOTA":
		c.learnQuota(args)
	case "MYRIGHTS":
		c.learnRights(line)
	case "NAMESPACE":
		if m := personal.FindStringSubmatch(args); m != nil {
			c.mu.Lock()
			c.prefix, c.delimiter = unquote(m[1]), unquote(m[2])
			c.mu.Unlock()
		}
	}
	return nil // nothing else is asked for
}

var codeForm = regexp.MustCompile(`^\[([A-Za-z0-9.+_-]+)(?: ([^\]]*))?\] ?`)

// personal finds what the user's own mailboxes begin with, and what separates
// their levels, in the answer to NAMESPACE (RFC 2342).
var personal = regexp.MustCompile(`(?i)^\(\(("(?:[^"\\]|\\.)*") ("(?:[^"\\]|\\.)"|NIL)`)

// Namespace returns what the server has said of the user's own mailboxes:
// what their names begin with, and what separates their levels; "" for
// nothing.
func (c *Conn) Namespace() (prefix, delimiter string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prefix, c.delimiter
}

// repairStatus makes a status response with its text ("OK [CODE] text")
// readable: response codes that are no atoms, or whose numbers are none, are
// left out.
func repairStatus(s string) string {
	kind, text, _ := strings.Cut(s, " ")
	if !strings.HasPrefix(text, "[") {
		return kind + " " + plainText(text)
	}
	m := codeForm.FindStringSubmatch(text)
	if m == nil {
		if i := strings.LastIndexByte(text, ']'); i >= 0 {
			text = text[i+1:]
		}
		return kind + " " + plainText(strings.TrimLeft(text, "[ "))
	}
	name, args, text := strings.ToUpper(m[1]), m[2], plainText(text[len(m[0]):])
	switch name {
	case "PERMANENTFLAGS":
		return kind + " [" + name + " " + repairFlags(args) + "] " + text
	case "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ":
		bits := 32
		if name == "HIGHESTMODSEQ" {
			bits = 64
		}
		if _, err := strconv.ParseUint(args, 10, bits); err != nil {
			return kind + " " + text
		}
	case "CAPABILITY": // the library is not to learn what is hidden from it
		return kind + " " + text
	}
	if args != "" {
		name += " " + args
	}
	return kind + " [" + name + "] " + text
}

func plainText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if s = strings.Trim(s, " "); s == "" {
		return "(no text)"
	}
	return s
}

// maxFlags bounds the flags of one message.
const maxFlags = 1000

// firstFields returns the first n fields of a text.
func firstFields(text string, n int) (fields []string) {
	for f := range strings.FieldsSeq(text) {
		if fields = append(fields, f); len(fields) == n {
			break
		}
	}
	return fields
}

// repairFlags keeps the flags that go-imap can read of a parenthesised list.
func repairFlags(list string) string {
	list = strings.Trim(list, " ")
	list = strings.TrimSuffix(strings.TrimPrefix(list, "("), ")")
	flags := slices.DeleteFunc(firstFields(list, maxFlags), func(f string) bool {
		return f != `\*` && !isAtom(strings.TrimPrefix(f, `\`))
	})
	return "(" + strings.Join(flags, " ") + ")"
}

// repairList rewrites a LIST response: attributes that are atoms, the
// delimiter, a name that the library can read, nothing else.
func (c *Conn) repairList(line []byte) []byte {
	s := &scanner{conn: c, line: line, pos: len("* LIST")}
	attrs, err1 := s.value()
	delim, err2 := s.value()
	name, err3 := s.value()
	if err1 != nil || err2 != nil || err3 != nil {
		return nil
	}
	if d := unquote(delim); len(d) == 1 {
		delim = quote(d)
	} else {
		delim = "NIL"
	}
	return []byte("* LIST " + repairFlags(attrs) + " " + delim + " " + quote(c.names.show(unquote(name))) + "\r\n")
}

// stateItems are the items of a STATUS response that are asked for, and the
// bits of their numbers.
var stateItems = map[string]int{"MESSAGES": 32, "UIDNEXT": 32, "UIDVALIDITY": 32, "HIGHESTMODSEQ": 63, "APPENDLIMIT": 32, "SIZE": 63}

// repairState rewrites a STATUS response: a name that the library can read,
// and the items whose numbers are numbers.
func (c *Conn) repairState(line []byte) []byte {
	s := &scanner{conn: c, line: line, pos: len("* STATUS")}
	name, err1 := s.value()
	list, err2 := s.value()
	if err1 != nil || err2 != nil {
		return nil
	}
	var items []string
	for pair := range slices.Chunk(strings.Fields(strings.Trim(list, "()")), 2) {
		bits, known := stateItems[strings.ToUpper(pair[0])]
		if !known || len(pair) < 2 {
			continue
		}
		if _, err := strconv.ParseUint(pair[1], 10, bits); err == nil {
			items = append(items, strings.ToUpper(pair[0])+" "+pair[1])
		}
	}
	return []byte("* STATUS " + quote(c.names.show(unquote(name))) + " (" + strings.Join(items, " ") + ")\r\n")
}

// hungUpError is the error of a connection that the server ended with words.
type hungUpError struct {
	bye   string
	cause error
}

func (e *hungUpError) Error() string { return "the server hangs up: BYE " + e.bye }

func (e *hungUpError) Unwrap() error {
	if e.cause == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return e.cause
}
