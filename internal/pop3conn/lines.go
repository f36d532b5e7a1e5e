package pop3conn

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// maxListLine bounds a line of LIST or UIDL. A longer one is cut: what is
// left cannot identify a message.
const maxListLine = 8 << 10

// lineReader reads the lines of a multi-line answer in bounded memory.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) lineReader {
	return lineReader{bufio.NewReaderSize(r, maxListLine)}
}

func (l lineReader) next() (string, error) {
	b, err := l.r.ReadSlice('\n')
	line := strings.TrimRight(string(b), "\r\n")
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.r.ReadSlice('\n')
	}
	if err == io.EOF && line != "" {
		err = nil
	}
	return line, err
}
