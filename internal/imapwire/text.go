package imapwire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxLine bounds a response line and the literals within it, bodies apart.
const maxLine = 1 << 20

var errLongLine = errors.New("the server sends a line over 1 MiB")

// readLine returns one line with its end. It is valid until the next read.
func (c *Conn) readLine() ([]byte, error) {
	b, err := c.br.ReadSlice('\n')
	if err == nil {
		return b, nil
	}
	full := bytes.Clone(b)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(full) > maxLine {
			return nil, errLongLine
		}
		b, err = c.br.ReadSlice('\n')
		full = append(full, b...)
	}
	if err == io.EOF && len(full) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return full, err
}

// readLineCopy returns one line that stays valid.
func (c *Conn) readLineCopy() ([]byte, error) {
	b, err := c.readLine()
	return bytes.Clone(b), err
}

// readRest appends to line the literals it announces and the lines behind
// them, until the response is complete.
func (c *Conn) readRest(line []byte) ([]byte, error) {
	for {
		n, ok := literalAtEnd(line)
		if !ok {
			return line, nil
		}
		if n > maxLine-int64(len(line)) {
			return nil, errLongLine
		}
		start := len(line)
		line = append(line, make([]byte, n)...)
		if _, err := io.ReadFull(c.br, line[start:]); err != nil {
			return nil, unexpectedEOF(err)
		}
		next, err := c.readLine()
		if err != nil {
			return nil, unexpectedEOF(err)
		}
		line = append(line, next...)
	}
}

// literalAtEnd reports the size of the literal that follows a line ending in
// {n} or {n+} (RFC 9051 section 4.3, RFC 7888).
func literalAtEnd(line []byte) (int64, bool) {
	line = trimEOL(line)
	i := bytes.LastIndexByte(line, '{')
	if i < 0 || !bytes.HasSuffix(line, []byte("}")) {
		return 0, false
	}
	return parseSize(strings.TrimSuffix(string(line[i+1:len(line)-1]), "+"))
}

func parseSize(digits string) (int64, bool) {
	if digits == "" || len(digits) > 18 {
		return 0, false
	}
	var n int64
	for _, d := range []byte(digits) {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func trimEOL(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

// clip shortens a server's text for an error message.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// isAtom reports whether s is an atom (RFC 9051 section 9) that go-imap takes
// for one.
func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`(){%*"\]`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
