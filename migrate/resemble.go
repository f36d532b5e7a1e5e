package migrate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"mailstow/internal/fingerprint"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// resemble finds messages that the server has changed, among those of which it
// is not known whether they have been stored: without it they would be stored
// again. One is found by all of its fields and the size of its body, or by a
// header or a Message-ID that no other has.
func (r *run) resemble(ctx context.Context, d Destination, p *plan, strange []mailbox.Message, free []fingerprint.Candidate, claimed map[int64]bool) error {
	doubtful := map[int64]bool{}
	for _, c := range slices.Concat(p.unanswered, p.untold) {
		doubtful[c.Message] = true
	}
	// What an earlier run has sent is not known, or the index was lost.
	anything := r.pass == 0 && (r.Unsettled || len(p.live) == len(claimed))
	sought := slices.DeleteFunc(slices.Clone(free), func(c fingerprint.Candidate) bool {
		return claimed[c.Message] || !anything && !doubtful[c.Message]
	})
	come := slices.DeleteFunc(slices.Clone(strange), func(m mailbox.Message) bool {
		return p.live[m.ID] || !anything && p.before[m.ID]
	})
	if len(sought) == 0 || len(come) == 0 {
		p.unanswered = nil
		return nil
	}
	byID := map[string][]fingerprint.Candidate{}
	alike := map[string]int{} // by what may tell them apart
	for _, c := range sought {
		about, err := r.archive.Describe(ctx, c.Message)
		if err != nil {
			return retry.Permanent(err)
		}
		byID[idOf(about.MessageID)] = append(byID[idOf(about.MessageID)], c)
		alike["own "+string(c.Header[:])]++
	}
	there := map[mailbox.ID]stranger{}
	err := d.Headers(ctx, p.box, come, func(m mailbox.Message, header []byte) error {
		fields, err := readFields(bufio.NewReader(bytes.NewReader(header)))
		if err != nil {
			return err
		}
		s := stranger{m, fingerprint.ReadHeader(header), m.Size - int64(len(header)), fields, idOf(field(fields, "Message-ID"))}
		if len(byID[s.id]) > 0 { // most of what others have put there is none of ours
			there[m.ID] = s
			alike[s.id]++
			alike[string(s.header.Sum[:])]++
		}
		return nil
	})
	if err != nil { // if it is refused, nothing can be said of the mailbox
		return err
	}
	batch := r.archive.Begin()
	for _, exact := range []bool{true, false} {
		for _, m := range come {
			s, read := there[m.ID]
			if !read || p.live[m.ID] {
				continue
			}
			for _, c := range byID[s.id] {
				header := string(c.Header[:])
				sole := c.Header == s.header.Sum && alike[header] == 1 && alike["own "+header] == 1 || s.id != "" && alike[s.id] == 1 && len(byID[s.id]) == 1
				if claimed[c.Message] || exact && !r.isWithin(ctx, c, s.body, s.fields) || !exact && !sole {
					continue
				}
				claimed[c.Message], p.live[m.ID] = true, true
				batch.Form(c.Message, formThere(m, s.header), changedThere)
				if err := batch.Claim(ctx, p.box, m, c.Message, false); err != nil {
					return archiveFailed(err)
				}
				break
			}
		}
	}
	if !r.DryRun {
		if err := commit(ctx, batch); err != nil {
			return err
		}
	}
	p.unanswered = nil
	return nil
}

// stranger is a message of the server that the archive does not know.
type stranger struct {
	mailbox.Message
	header fingerprint.Header
	body   int64 // octets, if the size is true
	fields [][]byte
	id     string
}

// idOf is a Message-ID without its brackets.
func idOf(field string) string { return strings.Trim(strings.TrimSpace(field), "<>") }

// isWithin reports whether a message has a body of this size, and all its
// fields are among others.
func (r *run) isWithin(ctx context.Context, c fingerprint.Candidate, body int64, fields [][]byte) bool {
	content, err := r.archive.Open(ctx, c.Message)
	if err != nil {
		return false
	}
	defer content.Close()
	own, err := readFields(bufio.NewReader(io.LimitReader(content.Content, content.Size)))
	if err != nil {
		return false
	}
	for _, f := range own {
		content.Size -= int64(len(f))
	}
	return (body == content.Size || body == content.Size+2) && among(own, fields)
}

// isSame reports whether a header is of a message, however it was changed: by
// its Message-ID or, if it has none, by its Date, or From and Subject.
func (r *run) isSame(ctx context.Context, c fingerprint.Candidate, header []byte) (bool, error) {
	there, err := readFields(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return false, err
	}
	content, err := r.archive.Open(ctx, c.Message)
	if err != nil {
		return true, nil // it cannot be said
	}
	defer content.Close()
	own, err := readFields(bufio.NewReader(io.LimitReader(content.Content, content.Size)))
	if err != nil {
		return false, err
	}
	if id := field(own, "Message-ID"); id != "" {
		return field(there, "Message-ID") == id, nil
	}
	if date := field(own, "Date"); date != "" {
		return field(there, "Date") == date, nil
	}
	return field(own, "From")+field(own, "Subject") == field(there, "From")+field(there, "Subject"), nil
}

// field returns the value of the first field with a name, without the blanks
// around it; "" if there is none.
func field(fields [][]byte, name string) string {
	for _, f := range fields {
		if n, value, ok := strings.Cut(string(f), ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// among reports whether fields are all among others, in this order.
func among(fields, others [][]byte) bool {
	for _, f := range others {
		if len(fields) > 0 && bytes.Equal(f, fields[0]) {
			fields = fields[1:]
		}
	}
	return len(fields) == 0
}

// maxFields bounds the octets of a header that is compared field by field.
const maxFields = 4 << 20

// readFields reads a header with the line that ends it, and returns its fields
// with their line ends.
func readFields(r *bufio.Reader) (fields [][]byte, err error) {
	for size := 0; size < maxFields; {
		line, err := r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && err != io.EOF && !long {
			return nil, err
		}
		size += len(line)
		goesOn := len(line) > 0 && (line[0] == ' ' || line[0] == '\t') && len(fields) > 0
		if !goesOn && len(line) > 0 {
			fields = append(fields, nil)
		}
		if len(line) > 0 {
			fields[len(fields)-1] = append(fields[len(fields)-1], line...)
		}
		for long { // the rest of the line
			line, err = r.ReadSlice('\n')
			long = errors.Is(err, bufio.ErrBufferFull)
			if err != nil && err != io.EOF && !long {
				return nil, err
			}
			size += len(line)
			fields[len(fields)-1] = append(fields[len(fields)-1], line...)
		}
		if err == io.EOF || len(bytes.TrimRight(fields[len(fields)-1], "\r\n")) == 0 {
			return fields, nil
		}
	}
	return fields, nil
}
