package fingerprint

import (
	"bytes"
	"mime"
	"net/mail"
	"slices"
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

// ReadFields returns the fields of a header block.
func ReadFields(block []byte) Fields { return parseFields(block) }

// Arrived returns when the message arrived, as far as its header tells, and
// from which field: the topmost Received, which the account's own server
// wrote, else Date; "" if neither can be believed. A time more than a day in
// the future is not.
func (f Fields) Arrived(now time.Time) (t time.Time, from string) {
	believed := func(t time.Time) bool { return t.Unix() > 0 && t.Before(now.Add(24*time.Hour)) }
	if t := parseDate(f.received); believed(t) {
		return t, "received"
	}
	if believed(f.Date) {
		return f.Date, "date"
	}
	return time.Time{}, ""
}

// maxField bounds what is decoded of one field.
const maxField = 1000

func parseFields(header []byte) Fields {
	var f Fields
	var seen [len(shown)]bool
	for len(header) > 0 {
		line, rest := cutLine(header)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		which := slices.IndexFunc(shown[:], func(s string) bool { return isName(name, s) })
		if which < 0 || seen[which] {
			header = skipFolded(rest)
			continue
		}
		seen[which] = true
		var text string
		text, header = unfold(value, rest)
		if shown[which] != "received" && len(text) > maxField {
			text = strings.Clone(text[:maxField])
		}
		switch shown[which] {
		case "message-id":
			f.MessageID = text
		case "date":
			f.Date = parseDate(text)
		case "from":
			f.From = decode(text)
		case "subject":
			f.Subject = decode(text)
		case "received":
			f.received = strings.Clone(text[strings.LastIndexByte(text, ';')+1:])
		}
	}
	return f
}

// shown are the names of the fields that are read.
var shown = [...]string{"message-id", "date", "from", "subject", "received"}

func isName(b []byte, name string) bool {
	b = bytes.TrimSpace(b)
	return len(b) == len(name) && strings.EqualFold(string(b), name)
}

// skipFolded returns what follows the lines that continue a field.
func skipFolded(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		_, b = cutLine(b)
	}
	return b
}

// unfold returns a field's value without its line ends, and what follows it.
func unfold(first, rest []byte) (value string, after []byte) {
	var field strings.Builder
	field.Write(bytes.TrimSpace(first))
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		var line []byte
		line, rest = cutLine(rest)
		if field.Len() < maxField {
			field.WriteByte(' ')
			field.Write(bytes.TrimSpace(line))
		}
	}
	return strings.TrimSpace(field.String()), rest
}

func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// usualDate is the form that nearly all dates have (RFC 5322 section 3.3), but
// for a comment at the end; mail.ParseDate tries many others before it.
const usualDate = "Mon, 2 Jan 2006 15:04:05 -0700"

func parseDate(s string) time.Time {
	s = strings.TrimSpace(s)
	if len(s) > 100 {
		return time.Time{}
	}
	bare, _, _ := strings.Cut(s, " (")
	t, err := time.Parse(usualDate, bare)
	if err != nil {
		t, err = mail.ParseDate(s)
	}
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
