package netconn

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
)

// longest is how much of a line is traced, in octets.
const longest = 300

// trace tells what goes over a connection, line by line, without what is
// counted: literals of IMAP, which are messages and the like.
type trace struct {
	tell  func(line string)
	lines bool // of the server are told by Tell

	mu             sync.Mutex
	hushed         bool
	client, server side
}

// side is what one side has said.
type side struct {
	line []byte // that has no end yet
	skip int64  // octets of a literal that are still to come
}

func (t *trace) heard(s *side, who string, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hushed {
		s.line = nil
		return
	}
	for len(b) > 0 {
		if n := min(s.skip, int64(len(b))); n > 0 {
			s.skip, b = s.skip-n, b[n:]
			continue
		}
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(s.line) <= longest {
				s.line = append(s.line, b...)
			}
			return
		}
		line := append(s.line, b[:i]...)
		s.line, b = nil, b[i+1:]
		line = bytes.TrimSuffix(line, []byte("\r"))
		s.skip = literal(line)
		t.tell(who + shortened(line))
	}
}

func shortened(line []byte) string {
	if len(line) <= longest {
		return string(line)
	}
	return fmt.Sprintf("%s... (%d octets)", line[:longest], len(line))
}

// literal returns how many octets a line says that follow (RFC 9051 section 4.3).
func literal(line []byte) int64 {
	if !bytes.HasSuffix(line, []byte("}")) {
		return 0
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimRight(line[i+1:len(line)-1], "+-")), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Hush has nothing traced until it is called again: what is said when a user logs
// in, and messages.
func (c *Conn) Hush(hushed bool) {
	if c.trace == nil {
		return
	}
	c.trace.mu.Lock()
	defer c.trace.mu.Unlock()
	if c.trace.hushed != hushed && hushed {
		c.trace.tell("(not shown)")
	}
	c.trace.hushed = hushed
}

// TraceLines has the server's lines told by [Conn.Tell] alone: its messages come
// without their lengths, as over POP3.
func (c *Conn) TraceLines() {
	if c.trace != nil {
		c.trace.lines = true
	}
}

// Tell traces a line of the server's.
func (c *Conn) Tell(line string) {
	if c.trace != nil {
		c.trace.heard(&c.trace.server, "S: ", []byte(line+"\n"))
	}
}

// Traced reports whether what goes over the connection is told.
func (c *Conn) Traced() bool { return c.trace != nil }

func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.trace != nil && !c.trace.lines {
		c.trace.heard(&c.trace.server, "S: ", p[:n])
	}
	return n, err
}

func (c *Conn) Write(p []byte) (int, error) {
	if c.trace != nil {
		c.trace.heard(&c.trace.client, "C: ", p)
	}
	return c.Conn.Write(p)
}
