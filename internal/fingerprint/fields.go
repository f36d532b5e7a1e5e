package fingerprint

import (
	"bytes"
	"mime"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-message/charset"
)

// Fields are the header fields that a list of messages shows. They come from
// strangers: escape them before a terminal sees them.
type Fields struct {
	MessageID string    // with its angle brackets; "" if there is none
	Date      time.Time // zero if there is none, or none that can be read
	From      string
	Subject   string

	received string // the time of the topmost Received field
}

// Received returns the time of the topmost Received field, zero if there is
// none that can be read.
func (f Fields) Received() time.Time { return parseDate(f.received) }

// maxField bounds what is decoded of one field.
const maxField = 1000

func parseFields(header []byte) Fields {
	var f Fields
	seen := map[string]bool{}
	for len(header) > 0 {
		name, value, rest, ended := nextField(header)
		header = rest
		if ended {
			break
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		switch name {
		case "message-id":
			f.MessageID = value
		case "date":
			f.Date = parseDate(value)
		case "from":
			f.From = decode(value)
		case "subject":
			f.Subject = decode(value)
		case "received":
			f.received = strings.Clone(value[strings.LastIndexByte(value, ';')+1:])
		}
	}
	return f
}

// nextField splits the first field, unfolded, off a header block. ended says
// that the blank line has come. A line without a colon gives an empty name.
func nextField(b []byte) (name, value string, rest []byte, ended bool) {
	line, rest := cutLine(b)
	if len(line) == 0 {
		return "", "", rest, true
	}
	n, v, ok := bytes.Cut(line, []byte(":"))
	var field strings.Builder
	field.Write(bytes.TrimSpace(v))
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		line, rest = cutLine(rest)
		if field.Len() < maxField {
			field.WriteByte(' ')
			field.Write(bytes.TrimSpace(line))
		}
	}
	if ok && len(n) <= len("message-id")+2 {
		name = strings.ToLower(strings.TrimSpace(string(n)))
	}
	value = strings.TrimSpace(field.String())
	if name != "received" && len(value) > maxField {
		value = strings.Clone(value[:maxField])
	}
	return name, value, rest, false
}

func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

func parseDate(s string) time.Time {
	s = strings.TrimSpace(s)
	if len(s) > 100 {
		return time.Time{}
	}
	t, err := mail.ParseDate(s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func decode(s string) string {
	if !strings.Contains(s, "=?") {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	d := mime.WordDecoder{CharsetReader: charset.Reader}
	out, err := d.DecodeHeader(s)
	if err != nil {
		out = s
	}
	return strings.ToValidUTF8(out, "\uFFFD")
}
