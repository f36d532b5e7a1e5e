package imapwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// scanner reads the values of one response. Literals among them are read from
// the connection when they are met, and count as part of the line.
type scanner struct {
	conn *Conn
	line []byte
	pos  int
}

var errBadValue = errors.New("the server sends a response that cannot be read")

// peek returns the next octet, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos >= len(s.line) {
		return 0
	}
	return s.line[s.pos]
}

func (s *scanner) skipSpaces() {
	for s.peek() == ' ' {
		s.pos++
	}
}

// itemName reads the name of a FETCH item with its section, in upper case and
// without a partial's origin.
func (s *scanner) itemName() string {
	start := s.pos
	for !strings.ContainsRune(" [()\r\n\x00", rune(s.peek())) {
		s.pos++
	}
	if s.peek() == '[' {
		for s.peek() != ']' && s.peek() != 0 {
			s.pos++
		}
		if s.peek() == ']' {
			s.pos++
		}
	}
	name := strings.ToUpper(string(s.line[start:s.pos]))
	for !strings.ContainsRune(" ()\r\n\x00", rune(s.peek())) {
		s.pos++
	}
	if s.pos == start {
		s.pos++ // a parenthesis in the wrong place: go on behind it
	}
	return name
}

// literalHere reports the size of a literal or literal8 that is announced at
// this place and begins with the next line.
func (s *scanner) literalHere() (int64, bool) {
	if c := s.peek(); c != '{' && c != '~' {
		return 0, false
	}
	rest, _, _ := bytes.Cut(s.line[min(s.pos, len(s.line)):], []byte("\n"))
	rest = bytes.TrimPrefix(trimEOL(rest), []byte("~"))
	if len(rest) == 0 || rest[0] != '{' || bytes.IndexByte(rest, '}') != len(rest)-1 {
		return 0, false
	}
	return literalAtEnd(rest)
}

// value reads an atom, a string or a parenthesised list as the server spells
// it. A literal comes as a quoted string.
func (s *scanner) value() (string, error) {
	s.skipSpaces()
	if s.peek() != '(' {
		return s.single()
	}
	var list strings.Builder
	depth := 0
	for {
		switch c := s.peek(); c {
		case 0, '\r', '\n':
			return "", errBadValue
		case '(', ')', ' ':
			s.pos++
			list.WriteByte(c)
			if c == '(' {
				depth++
			} else if c == ')' {
				depth--
			}
			if depth == 0 {
				return list.String(), nil
			}
		default:
			v, err := s.single()
			if err != nil {
				return "", err
			}
			list.WriteString(v)
		}
	}
}

func (s *scanner) single() (string, error) {
	start := s.pos
	if s.peek() == '"' {
		for s.pos++; s.peek() != '"'; s.pos++ {
			if s.peek() == '\\' {
				s.pos++
			}
			if c := s.peek(); c == 0 && s.pos >= len(s.line) || c == '\r' || c == '\n' {
				return "", errBadValue
			}
		}
		s.pos++
		return string(s.line[start:s.pos]), nil
	}
	if n, ok := s.literalHere(); ok {
		return s.literal(n)
	}
	for !strings.ContainsRune(" ()\r\n", rune(s.peek())) && s.pos < len(s.line) {
		s.pos++
	}
	if s.pos == start {
		return "", errBadValue
	}
	return string(s.line[start:s.pos]), nil
}

// literal reads the octets of a literal: those behind this line if it was
// read with its literals, else those that come next on the connection.
func (s *scanner) literal(n int64) (string, error) {
	i := bytes.IndexByte(s.line[s.pos:], '\n')
	if i < 0 || n > maxLine {
		return "", errLongLine
	}
	begin := int64(s.pos + i + 1)
	if have := int64(len(s.line)); begin == have {
		octets := make([]byte, n)
		if _, err := io.ReadFull(s.conn.br, octets); err != nil {
			return "", unexpectedEOF(err)
		}
		rest, err := s.conn.readLine()
		if err != nil {
			return "", unexpectedEOF(err)
		}
		if have+n+int64(len(rest)) > maxLine {
			return "", errLongLine
		}
		s.line = append(append(s.line, octets...), rest...)
	} else if begin+n > have {
		return "", errBadValue
	}
	s.pos = int(begin + n)
	return quote(string(s.line[begin : begin+n])), nil
}

// unquote returns the content of a string, or an atom as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
